# What the scripts here share.
NAME=weirmq-e2e
STATE=${WEIRMQ_KIND_STATE:-${TMPDIR:-/tmp}/weirmq-kind}
KUBECONFIG=$STATE/kubeconfig
CONTROL=$NAME-control-plane
export KUBECONFIG
fail() { echo "$*" >&2; exit 1; }
