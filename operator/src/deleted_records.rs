//! Authority records of groups that somebody deleted, as they stood at the very end.
//!
//! What the watch says of a deletion is the object as the API server had it last: nobody has swapped that record
//! since, nor can. So it is no copy of some time before, as a backup is. This holds for a watch of all groups that
//! saw the deletion itself: to one that selects by labels, a group whose labels are taken away is deleted as
//! well, and what was deleted while nobody watched is not known.

use std::collections::VecDeque;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kube::runtime::watcher::Event;
use parking_lot::Mutex;
use weirmq_authority::Record;
use weirmq_authority::kubernetes::BrokerGroupStatus;

/// So many are remembered, those that were deleted last: of groups that nobody wants back these may be.
const RECORDS_MAX: usize = 256;

/// By namespace and name.
type Key = (String, String);

/// The one that was deleted last stands last.
#[derive(Default)]
pub(crate) struct DeletedRecords(Mutex<VecDeque<(Key, Record)>>);

impl DeletedRecords {
    /// Takes in what the watch of all groups says.
    pub(crate) fn see(&self, event: &Event<DynamicObject>) {
        let mut records = self.0.lock();
        match event {
            Event::Delete(group) => {
                if let Some(record) = record(group) {
                    let key = key(group);
                    records.retain(|(known, _)| *known != key);
                    if records.len() >= RECORDS_MAX {
                        records.pop_front();
                    }
                    records.push_back((key, record));
                }
            }
            // Made again, it has no record; with one it lives again.
            Event::Apply(group) => {
                if record(group).is_some() {
                    let key = key(group);
                    records.retain(|(known, _)| *known != key);
                }
            }
            // The watch has begun anew: what happened in between nobody saw.
            Event::Init => records.clear(),
            Event::InitApply(_) | Event::InitDone => {}
        }
    }

    /// The record of a group that was deleted and has none since.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Record> {
        let records = self.0.lock();
        let mut of_group =
            records.iter().filter(|((space, group), _)| space == namespace && group == name);
        of_group.next().map(|(_, record)| record.clone())
    }
}

/// The record, if anybody was ever elected by it.
fn record(group: &DynamicObject) -> Option<Record> {
    let record = BrokerGroupStatus::record_in(group.data.get("status"));
    record.ok().filter(|record| record.epoch > 0)
}

fn key(group: &DynamicObject) -> Key {
    (group.namespace().unwrap_or_default(), group.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(epoch: u64) -> DynamicObject {
        let status = match epoch {
            0 => json!(null),
            epoch => {
                let record = Record { epoch, ..Record::default() };
                json!(BrokerGroupStatus { record, write: String::new() })
            }
        };
        serde_json::from_value(json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": "BrokerGroup",
            "metadata": { "name": "mq-0", "namespace": "shop" }, "spec": {}, "status": status,
        }))
        .unwrap()
    }

    fn epoch(records: &DeletedRecords) -> Option<u64> {
        records.get("shop", "mq-0").map(|record| record.epoch)
    }

    #[test]
    fn what_was_deleted_is_known_until_it_lives_again() {
        let records = DeletedRecords::default();
        records.see(&Event::Apply(group(3)));
        assert_eq!(epoch(&records), None, "it is there");
        records.see(&Event::Delete(group(4)));
        records.see(&Event::Apply(group(0)));
        assert_eq!((epoch(&records), records.get("mall", "mq-0")), (Some(4), None));
        // The empty one is deleted as well.
        records.see(&Event::Delete(group(0)));
        assert_eq!(epoch(&records), Some(4));
        records.see(&Event::Apply(group(5)));
        assert_eq!(epoch(&records), None);
    }

    #[test]
    fn nothing_is_known_across_a_gap_of_the_watch() {
        let records = DeletedRecords::default();
        records.see(&Event::Delete(group(4)));
        records.see(&Event::Init);
        assert_eq!(epoch(&records), None);
        records.see(&Event::InitApply(group(0)));
        records.see(&Event::InitDone);
        assert_eq!(epoch(&records), None);
    }

    #[test]
    fn the_oldest_is_forgotten_where_there_are_too_many() {
        let records = DeletedRecords::default();
        let delete = |number: usize| {
            let mut one = group(1);
            one.metadata.name = Some(format!("mq-{number}"));
            records.see(&Event::Delete(one));
        };
        (0..RECORDS_MAX).for_each(delete);
        // What is deleted a second time is new again.
        delete(0);
        delete(RECORDS_MAX);
        let is_known = |number: usize| records.get("shop", &format!("mq-{number}")).is_some();
        assert_eq!(records.0.lock().len(), RECORDS_MAX);
        assert!(is_known(RECORDS_MAX) && is_known(0) && is_known(2));
        assert!(!is_known(1), "the oldest");
    }
}
