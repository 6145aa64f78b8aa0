//! Finds out that a group's authority record is older than what its replicas obeyed: somebody deleted
//! it, or restored an old copy. One that was deleted while the operator watched is put back.

use futures::future::join_all;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::PostParams;
use kube::runtime::events::EventType;
use weirmq_authority::Record;
use weirmq_authority::kubernetes::BrokerGroupStatus;

use super::Round;
use super::observe::{ASK_TIMEOUT, GroupView, ask_for_positions};
use crate::annotations::is_paused;
use crate::kinds::BrokerGroup;

/// What replicas obeyed, and what stands in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Regressed {
    pub(super) obeyed: u64,
    pub(super) found: u64,
    /// The epoch of the record that was deleted last, where that is too old to be put back.
    pub(super) deleted: Option<u64>,
}

/// What became of a record that somebody deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deleted {
    PutBack,
    /// It is of this epoch, and replicas have obeyed a newer record.
    TooOld(u64),
    /// Nobody saw it deleted, or the group is not there yet, or it could not be written.
    Left,
}

impl Round<'_> {
    /// Looks at groups of which there is reason to think so: nobody serves, or the record was further
    /// once. All others cost nothing.
    pub(super) async fn look_for_regressed(&mut self, views: &mut [GroupView]) {
        let Ok(admin) = self.context.admin(&self.client_name_servers()) else { return };
        for view in views.iter_mut().filter(|view| view.is_elected) {
            let epoch = view.epoch();
            let known = self.known_epoch(&view.name);
            if view.serving().is_some() && known <= epoch {
                continue;
            }
            ask_for_positions(view, &admin).await;
            view.compare_logs();
            // Each master begins its epoch with a record in the log, after it was elected.
            let positions = view.pods.iter().filter_map(|pod| pod.position);
            let obeyed = positions.map(|(epoch, _)| epoch).max().unwrap_or_default();
            if obeyed <= epoch {
                continue;
            }
            // The watch may be behind what replicas have obeyed already.
            let api: Api<BrokerGroup> =
                Api::namespaced(self.context.client.clone(), &self.namespace());
            match api.get_opt(&view.name).await {
                Ok(group) => {
                    let record = group.as_ref().and_then(|group| group.status.as_ref());
                    let found = record.map_or(0, |status| status.record.epoch);
                    if found >= obeyed {
                        continue;
                    }
                    let deleted = match self.put_back(view, obeyed, group, &api).await {
                        Deleted::PutBack => continue,
                        Deleted::TooOld(epoch) => Some(epoch),
                        Deleted::Left => None,
                    };
                    let regressed = Regressed { obeyed, found, deleted };
                    self.findings.regressed.insert(view.name.clone(), regressed);
                }
                Err(error) => {
                    tracing::warn!(%error, group = view.name, "the authority record cannot be read");
                }
            }
        }
    }

    /// Puts a record back that was deleted, if the group was made again and has none.
    ///
    /// What stands there then is what stood there when it was deleted, neither more nor less: whoever obeyed that
    /// record obeys it again, and whoever refused it refuses it again. It is not done where a replica has obeyed a
    /// newer one, by its log (`obeyed`) or by what it says: that was an old copy, which somebody is perhaps
    /// about to replace.
    async fn put_back(
        &self,
        view: &GroupView,
        obeyed: u64,
        group: Option<BrokerGroup>,
        api: &Api<BrokerGroup>,
    ) -> Deleted {
        let (namespace, name) = (self.namespace(), &view.name);
        let deleted = self.children.deleted_records.get(&namespace, name);
        let (Some(record), Some(mut group)) = (deleted, group) else { return Deleted::Left };
        if group.status.is_some() || is_paused(self.resource) {
            return Deleted::Left;
        }
        let newest = self.newest_of_replicas(view).await;
        if is_too_old(&record, obeyed, newest) {
            return Deleted::TooOld(record.epoch);
        }
        let epoch = record.epoch;
        let write = group.uid().unwrap_or_default();
        group.status = Some(BrokerGroupStatus { record, write });
        // Only over the group as it was read, without a record.
        if let Err(error) = api.replace_status(name, &PostParams::default(), &group).await {
            tracing::warn!(%error, group = name, "a record that was deleted was not put back");
            return Deleted::Left;
        }
        self.context.metrics.wrote("BrokerGroup");
        let note = format!(
            "somebody deleted BrokerGroup {name}; its record, of epoch {epoch}, was put back as it was"
        );
        tracing::warn!(group = name, epoch, "a record that somebody deleted was put back");
        self.event(EventType::Warning, "RecordPutBack", note).await;
        Deleted::PutBack
    }

    /// The epoch and version of the newest record that replicas say they go by, and zeros where none does.
    async fn newest_of_replicas(&self, view: &GroupView) -> (u64, u64) {
        let Ok(admin) = self.context.admin(&self.client_name_servers()) else { return (0, 0) };
        let admin = &admin;
        let asked = view.broker_addresses().map(async |address| {
            let asked = admin.in_sync_set(&address, &view.name);
            let known = tokio::time::timeout(ASK_TIMEOUT, asked).await.ok()?.ok()?;
            let number = |number: i32| u64::try_from(number).unwrap_or_default();
            Some((number(known.master_epoch), number(known.sync_state_set_epoch)))
        });
        join_all(asked).await.into_iter().flatten().max().unwrap_or_default()
    }

    /// The highest epoch that the status speaks of; 0: none.
    fn known_epoch(&self, group: &str) -> u64 {
        let groups = self.resource.status.iter().flat_map(|status| &status.groups);
        let epochs = groups.filter(|known| known.name == group).filter_map(|known| known.epoch);
        epochs.filter_map(|epoch| u64::try_from(epoch).ok()).max().unwrap_or_default()
    }
}

/// Whether replicas have obeyed a newer record than this one: of a higher epoch by their logs (`obeyed`), or of
/// a higher epoch or version by what they say that they go by (`newest`).
fn is_too_old(record: &Record, obeyed: u64, newest: (u64, u64)) -> bool {
    record.epoch < obeyed || (record.epoch, record.in_sync_version) < newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_below_what_any_replica_obeyed_is_too_old() {
        let record = Record { epoch: 5, in_sync_version: 9, ..Record::default() };
        assert!(!is_too_old(&record, 5, (5, 9)));
        // Elected, and not begun yet.
        assert!(!is_too_old(&record, 4, (4, 30)));
        // Their logs know more, though nobody says by which record it goes.
        assert!(is_too_old(&record, 6, (0, 0)));
        assert!(is_too_old(&record, 5, (5, 10)));
        assert!(is_too_old(&record, 5, (6, 1)));
    }
}
