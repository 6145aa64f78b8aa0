# What the scripts here share: names, addresses, and helpers.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PLANE=${WEIRMQ_CLUSTER:-weirmq} # the cluster's name, at most 11 letters, its network namespace and cgroup; node I has $PLANE-nI
BUILT=$(realpath -m "${WEIRMQ_CACHE:-$HOME/.cache/weirmq/e2e}")/kubernetes   # see build.py
STATE=${WEIRMQ_CLUSTER_STATE:-/var/tmp/$PLANE-cluster}   # everything that a run writes; not below /run
VOLUMES=/tmp/hostpath_pv      # where the controller manager's provisioner puts volumes; bound to $STATE/volumes
BRIDGE=weirmq0                # in the network namespace of the control plane, so each cluster has one
API=10.98.0.1                 # node I is 10.98.0.(10+I), its pods are 10.244.I.0/24
SERVICES=10.96.0.0/16 PODS=10.244.0.0/16 DNS=10.96.0.10
PATH=$BUILT:/usr/sbin:/sbin:$PATH
BEGUN=${BEGUN:-$EPOCHREALTIME}

say() { local us=$((${EPOCHREALTIME/[.,]/} - ${BEGUN/[.,]/})); printf '%4d.%ds %s\n' $((us / 1000000)) $((us / 100000 % 10)) "$*"; }
fail() { echo "$*" >&2; exit 1; }
# A zombie counts as gone: who is PID 1 here may take seconds to collect it.
runs() { grep -qs '^State:.[^ZX]' "/proc/$1/status"; }              # runs PID
is_up() { [ -s "$STATE/pid/$1" ] && runs "$(cat "$STATE/pid/$1")"; }  # is_up NAME
# Runs the calling script again in the control plane's network namespace, which is made first.
enter() {
  [ "$(ip netns identify $$)" = $PLANE ] && return
  [ -e /run/netns/$PLANE ] || { ip netns add $PLANE; ip -n $PLANE link set lo up; }
  BEGUN=$BEGUN exec nsenter --net=/run/netns/$PLANE "$HERE/$(basename "$0")" "$@"
}
nodes() { find "$STATE/pid" -name 'n[0-9]*' -printf '%f\n' 2>/dev/null | sort; }  # names of the nodes that were started
# The first process in the namespaces of a node that is up.
init_of() { local top pid; top=$(cat "$STATE/pid/$1"); read -r pid < "/proc/$top/task/$top/children"; echo "$pid"; }
