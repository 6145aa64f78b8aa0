//! Whether every kind could be listed. An operator that may not list one, or whose API server does not know it,
//! waits for ever and would look as if nothing was to be done.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use weirmq_admin::Check;

/// A role of somebody's own may leave out nodes: without them a cordon hands nothing over, and all else goes on.
const OPTIONAL: &str = "Node";

/// Cheap to clone; clones are the same.
#[derive(Clone)]
pub(crate) struct WatchHealth {
    check: Check,
    /// Why a kind could not be listed the last time.
    failing: Arc<Mutex<BTreeMap<String, String>>>,
}

impl WatchHealth {
    /// Everything is well as long as nothing failed, also in one that does not act yet.
    pub(crate) fn new(check: Check) -> Self {
        check.ok();
        Self { check, failing: Arc::default() }
    }

    /// Takes in what the watch of a kind says. A list that failed begins anew, and says so when it was done; a
    /// watch that breaks later on goes on in silence, so that nobody could tell when it is mended.
    pub(crate) fn see<K>(&self, kind: &str, said: &Result<Event<K>, watcher::Error>) {
        let mut failing = self.failing.lock();
        match said {
            Err(watcher::Error::InitialListFailed(error)) => {
                let why = format!("{kind} cannot be listed: {}{}", error, remedy(error));
                // The following attempts are no news.
                if failing.insert(kind.to_owned(), why.clone()).is_none() {
                    tracing::warn!(
                        kind,
                        why,
                        "nothing is done about these until they can be listed"
                    );
                }
                self.say(&failing);
            }
            // Each attempt begins with it.
            Err(_) | Ok(Event::Init) => {}
            Ok(Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                if failing.remove(kind).is_none() {
                    return;
                }
                tracing::info!(kind, "these can be listed again");
                self.say(&failing);
            }
        }
    }

    fn say(&self, failing: &BTreeMap<String, String>) {
        match failing.iter().find(|(kind, _)| *kind != OPTIONAL) {
            Some((_, why)) => self.check.failing(why),
            None => self.check.ok(),
        }
    }
}

fn remedy(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            "; install the definitions of WeirMQ's kinds: crds/weirmq.yaml, or crds.enabled of the operator's chart"
        }
        kube::Error::Api(status) if status.is_forbidden() => {
            "; the role of the operator's chart gives the right to"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use weirmq_admin::Admin;

    use super::*;

    #[test]
    fn an_operator_that_cannot_list_a_kind_is_not_ready_until_it_can() {
        let admin = Admin::new();
        let health = WatchHealth::new(admin.check("operator/watches"));
        assert!(admin.is_ready());
        let fails = |kind: &str, code| {
            let status = Status::failure("not found", "NotFound").with_code(code).boxed();
            let error = watcher::Error::InitialListFailed(kube::Error::Api(status));
            health.see::<()>(kind, &Ok(Event::Init));
            health.see::<()>(kind, &Err(error));
        };
        fails("Node", 403);
        assert!(admin.is_ready(), "it goes on without");
        fails("Broker", 404);
        fails("Topic", 403);
        fails("Broker", 404);
        assert!(!admin.is_ready());
        assert!(health.failing.lock()["Broker"].contains("crds.enabled"));
        health.see::<()>("Topic", &Ok(Event::InitDone));
        assert!(!admin.is_ready(), "the other one still fails");
        health.see::<()>("Broker", &Ok(Event::InitApply(())));
        assert!(admin.is_ready());
        // What breaks later on is mended in silence.
        health.see::<()>("Broker", &Err(watcher::Error::NoResourceVersion));
        assert!(admin.is_ready());
    }
}
