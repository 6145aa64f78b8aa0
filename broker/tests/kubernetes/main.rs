//! The authority on Kubernetes, against a stand-in for its API server, and with `$WEIRMQ_REAL_KUBE`
//! against the real one that `$KUBECONFIG` names (`make kube`).

mod answers;
mod any_server;
mod faults;
mod rights;
mod support;
