//! Finds out that a group's authority record is older than what its replicas obeyed: somebody deleted
//! it, or restored an old copy.

use futures::future::join_all;
use kube::Api;
use weirmq_client::Admin;

use super::Round;
use super::observe::{ASK_TIMEOUT, GroupView};
use crate::kinds::BrokerGroup;

/// What replicas obeyed, and what stands in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Regressed {
    pub(super) obeyed: u64,
    pub(super) found: u64,
}

impl Round<'_> {
    /// Looks at groups of which there is reason to think so: nobody serves, or the record was further
    /// once. All others cost nothing.
    pub(super) async fn look_for_regressed(&mut self, views: &[GroupView]) {
        for view in views.iter().filter(|view| view.is_elected) {
            let epoch = view.epoch();
            let known = self.known_epoch(&view.name);
            if view.serving().is_some() && known <= epoch {
                continue;
            }
            let obeyed = self.highest_epoch(view).await;
            if obeyed <= epoch {
                continue;
            }
            // The watch may be behind what replicas have obeyed already.
            let api: Api<BrokerGroup> =
                Api::namespaced(self.context.client.clone(), &self.namespace());
            match api.get_opt(&view.name).await {
                Ok(group) => {
                    let record = group.and_then(|group| group.status).map(|status| status.record);
                    let found = record.map_or(0, |record| record.epoch);
                    if found < obeyed {
                        let regressed = Regressed { obeyed, found };
                        self.findings.regressed.insert(view.name.clone(), regressed);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, group = view.name, "the authority record cannot be read");
                }
            }
        }
    }

    /// The highest epoch that the status speaks of; 0: none.
    fn known_epoch(&self, group: &str) -> u64 {
        let groups = self.resource.status.iter().flat_map(|status| &status.groups);
        let epochs = groups.filter(|known| known.name == group).filter_map(|known| known.epoch);
        epochs.filter_map(|epoch| u64::try_from(epoch).ok()).max().unwrap_or_default()
    }

    /// The highest epoch in the logs of the replicas that answer; 0: none. Each master begins its epoch
    /// with a record in the log, after it was elected.
    async fn highest_epoch(&self, view: &GroupView) -> u64 {
        let Ok(admin) = self.context.admin(&self.client_name_servers()) else { return 0 };
        let pods = view.pods.iter().filter(|pod| !pod.is_terminating);
        let addresses = pods.filter_map(|pod| pod.broker_address());
        let asked = addresses.map(|address| highest_epoch_at(&admin, address));
        join_all(asked).await.into_iter().flatten().max().unwrap_or_default()
    }
}

async fn highest_epoch_at(admin: &Admin, address: String) -> Option<u64> {
    let asked = tokio::time::timeout(ASK_TIMEOUT, admin.epochs(&address)).await;
    let epochs = asked.ok()?.ok()?.epoch_list;
    epochs.iter().filter_map(|entry| u64::try_from(entry.epoch).ok()).max()
}
