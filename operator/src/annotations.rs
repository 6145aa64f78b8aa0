//! What somebody asks of the operator beside what resources declare: annotations that `kubectl weir`
//! sets, or a person by hand.

use kube::{Resource, ResourceExt as _};

/// On any resource: `true` has the operator leave alone what belongs to it.
pub const PAUSED: &str = "weirmq.io/paused";

/// On a `Broker` or a `NameServer`: pods that were made while another text stood here are started anew,
/// as if the resource had changed. The time of the request, as a rule.
pub const RESTARTED_AT: &str = "weirmq.io/restarted-at";

/// On a `Broker`: has the master of a group hand over, to a replica by number or to the one that has
/// most: `GROUP=REPLICA` or `GROUP`. It is taken off before the master is asked, so it is asked once.
pub const SWITCH_OVER: &str = "weirmq.io/switch-over";

/// On a `Broker` whose certificates the operator makes: all that were made before this time are renewed,
/// and so is their authority.
pub const RENEW_CERTIFICATES: &str = "weirmq.io/renew-certificates";

/// On a `Broker`: names a group that is to leave although something is left on it.
pub(crate) const DROP_UNDRAINED: &str = "weirmq.io/drop-undrained";

/// On pods and their templates: changes with what of the configuration needs a restart, so that pods that
/// were started with another one are seen.
pub(crate) const CONFIG: &str = "weirmq.io/config";

/// Whether somebody wants `object` left alone.
pub fn is_paused<K: Resource>(object: &K) -> bool {
    object.annotations().get(PAUSED).is_some_and(|value| value == "true")
}

/// The annotations of a pod template that start pods anew.
pub(crate) fn of_pods<K: Resource>(resource: &K) -> serde_json::Map<String, serde_json::Value> {
    let asked = resource.annotations().get(RESTARTED_AT);
    asked.map(|time| (RESTARTED_AT.to_owned(), time.as_str().into())).into_iter().collect()
}
