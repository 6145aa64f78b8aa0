//! Offsets that consumers commit at a replica that is not the master, while that one is away.
//!
//! A slave has no log to put them into. They stand in a table beside the one that the log says,
//! and in a small file, until the log of whoever is master next shows them.

use std::collections::BTreeMap;

use weirmq_store::{Store, StoreError};

use crate::offsets::CommittedOffset;

/// So many queues' offsets are kept; the file is below 40 MB with the longest names.
pub(crate) const SLAVE_OFFSETS_MAX: usize = 100_000;
/// Under the store's `weir/user/`.
const FILE: &str = "slave-offsets.json";

/// Group, topic, queue.
type Key = (String, String, i32);

#[derive(Default)]
pub(crate) struct SlaveOffsets {
    entries: BTreeMap<Key, Entry>,
    /// Whether the file says something else.
    is_changed: bool,
}

#[derive(Default)]
struct Entry {
    offset: i64,
    /// What the file says; -1 where it says nothing.
    in_file: i64,
    /// A position in the log before which the log says it, once it does.
    logged_before: Option<u64>,
}

impl SlaveOffsets {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        if self.is_empty() {
            return None;
        }
        self.entries.get(&key(group, topic, queue)).map(|entry| entry.offset)
    }

    /// Notes an offset unless a greater one is known; `false` where there is no room for it.
    pub(crate) fn commit(&mut self, group: &str, topic: &str, queue: i32, offset: i64) -> bool {
        let key = key(group, topic, queue);
        if self.len() >= SLAVE_OFFSETS_MAX && !self.entries.contains_key(&key) {
            return false;
        }
        let entry = self.entries.entry(key).or_insert(Entry {
            offset: -1,
            in_file: -1,
            logged_before: None,
        });
        if offset > entry.offset {
            entry.offset = offset;
            entry.logged_before = None;
            self.is_changed = true;
        }
        true
    }

    /// Whether the offset is in the file, or in the log for good, after it was committed here.
    pub(crate) fn is_durable(&self, group: &str, topic: &str, queue: i32, offset: i64) -> bool {
        self.entries.get(&key(group, topic, queue)).is_none_or(|entry| entry.in_file >= offset)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = CommittedOffset> {
        self.entries.iter().map(|((group, topic, queue), entry)| CommittedOffset {
            group: group.clone(),
            topic: topic.clone(),
            queue: *queue,
            offset: entry.offset,
        })
    }

    /// Those that the log does not say.
    pub(crate) fn not_logged(&self) -> Vec<CommittedOffset> {
        let logged = self.entries.values().map(|entry| entry.logged_before.is_some());
        self.all().zip(logged).filter(|(_, is_logged)| !is_logged).map(|(o, _)| o).collect()
    }

    /// Forgets what the log says below `safe`, from which nobody takes it any more. `written` is the
    /// log's end; `is_logged` tells what the log says by there, `exists` whether there is such a
    /// queue.
    pub(crate) fn forget(
        &mut self,
        written: u64,
        safe: u64,
        is_logged: impl Fn(&Key, i64) -> bool,
        exists: impl Fn(&str, i32) -> bool,
    ) {
        let before = self.len();
        self.entries.retain(|key, entry| {
            if !exists(&key.1, key.2) {
                return false;
            }
            if !is_logged(key, entry.offset) {
                entry.logged_before = None;
                return true;
            }
            let logged_before = *entry.logged_before.get_or_insert(written);
            logged_before > safe
        });
        self.is_changed |= self.len() != before;
    }

    /// The log has all that its master's had. An offset behind the end of its queue is that end: what was
    /// there was cut off, because the master did not have it. Of a queue without an end nothing is kept.
    pub(crate) fn settle(&mut self, end: impl Fn(&str, i32) -> Option<i64>) {
        self.entries.retain(|key, entry| match end(&key.1, key.2) {
            Some(end) if end >= entry.offset => true,
            Some(end) => {
                *entry = Entry { offset: end, in_file: -1, logged_before: None };
                self.is_changed = true;
                true
            }
            None => {
                self.is_changed = true;
                false
            }
        });
    }

    pub(crate) fn remove(&mut self, is_gone: impl Fn(&Key) -> bool) {
        let before = self.len();
        self.entries.retain(|key, _| !is_gone(key));
        self.is_changed |= self.len() != before;
    }

    /// What the file has to say now, unless it does.
    pub(crate) fn take_changed(&mut self) -> Option<Vec<CommittedOffset>> {
        std::mem::take(&mut self.is_changed).then(|| self.all().collect())
    }

    /// The file says these, or could not be written.
    pub(crate) fn written(&mut self, offsets: Vec<CommittedOffset>, is_written: bool) {
        self.is_changed |= !is_written;
        for o in offsets.into_iter().filter(|_| is_written) {
            if let Some(entry) = self.entries.get_mut(&(o.group, o.topic, o.queue)) {
                entry.in_file = entry.in_file.max(o.offset);
            }
        }
    }
}

fn key(group: &str, topic: &str, queue: i32) -> Key {
    (group.to_owned(), topic.to_owned(), queue)
}

/// What the file of `store` says, also of queues that its log does not have yet. The version before does not
/// say what was committed and acknowledged last.
///
/// # Errors
/// When it is there and cannot be read.
pub(crate) fn read(store: &Store) -> Result<Vec<CommittedOffset>, StoreError> {
    let advised = |reason: String| StoreError::Unreadable {
        path: store.directory().join("weir/user").join(FILE),
        reason: format!(
            "{reason}; remove it and the one that ends in .last to have consumers go on where the master knows them"
        ),
    };
    let read = store.read_current_small_file(FILE).map_err(|error| match error {
        StoreError::Unreadable { reason, .. } => advised(reason),
        other => other,
    });
    let Some(bytes) = read? else { return Ok(Vec::new()) };
    serde_json::from_slice(&bytes).map_err(|error| advised(error.to_string()))
}

/// Writes the file; durable on return.
pub(crate) fn write(store: &Store, offsets: &[CommittedOffset]) -> Result<(), StoreError> {
    store.write_small_file(FILE, &serde_json::to_vec(offsets).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weirmq_store::{Disk as _, OpenMode, SimulatedDisk, SystemClock};

    use super::*;
    use crate::BrokerConfig;

    #[test]
    fn an_offset_goes_forward_only_and_is_forgotten_when_the_log_has_it_for_good() {
        let mut offsets = SlaveOffsets::default();
        assert!(offsets.commit("g", "t", 0, 7) && offsets.commit("g", "t", 0, 5));
        assert_eq!(offsets.get("g", "t", 0), Some(7));
        assert!(!offsets.is_durable("g", "t", 0, 5));
        let file = offsets.take_changed().unwrap();
        offsets.written(file, true);
        assert!(offsets.is_durable("g", "t", 0, 7) && offsets.take_changed().is_none());
        let (nothing, everything) = (|_: &Key, _: i64| false, |_: &Key, _: i64| true);
        let exists = |_: &str, _: i32| true;
        offsets.forget(100, 100, nothing, exists);
        assert_eq!(offsets.not_logged().len(), 1);
        // In the log, but what is behind 90 may still be cut off.
        offsets.forget(100, 90, everything, exists);
        assert!(offsets.not_logged().is_empty() && offsets.len() == 1);
        // It was cut off.
        offsets.forget(95, 95, nothing, exists);
        assert_eq!(offsets.not_logged().len(), 1);
        offsets.forget(110, 90, everything, exists);
        offsets.forget(120, 110, everything, exists);
        assert!(offsets.is_empty());
        assert_eq!(offsets.take_changed(), Some(Vec::new()));
    }

    #[test]
    fn what_is_behind_the_end_of_its_queue_is_that_end_once_the_log_is_whole() {
        let mut offsets = SlaveOffsets::default();
        for (topic, offset) in [("t", 7), ("cut", 7), ("gone", 7)] {
            assert!(offsets.commit("g", topic, 0, offset));
        }
        let file = offsets.take_changed().unwrap();
        offsets.written(file, true);
        let end = |topic: &str, _: i32| match topic {
            "t" => Some(9),
            "cut" => Some(4),
            _ => None,
        };
        offsets.settle(end);
        assert_eq!(
            ["t", "cut", "gone"].map(|topic| offsets.get("g", topic, 0)),
            [Some(7), Some(4), None]
        );
        assert_eq!(offsets.take_changed().map(|file| file.len()), Some(2));
        offsets.settle(end);
        assert_eq!(offsets.take_changed(), None);
    }

    #[test]
    fn what_could_not_be_written_is_written_again() {
        let mut offsets = SlaveOffsets::default();
        offsets.commit("g", "t", 0, 7);
        let file = offsets.take_changed().unwrap();
        offsets.written(file, false);
        assert!(!offsets.is_durable("g", "t", 0, 7));
        assert_eq!(offsets.take_changed().map(|file| file.len()), Some(1));
    }

    #[test]
    fn what_was_committed_before_does_not_stand_in_for_a_damaged_file() {
        let folder = tempfile::tempdir().unwrap();
        let config = BrokerConfig { data_dir: folder.path().into(), ..Default::default() };
        let (disk, clock) = (Arc::new(SimulatedDisk::new()), Arc::new(SystemClock));
        let (store, _) = Store::open(config.store_config(), disk.clone(), clock).unwrap();
        let at = |offset| {
            vec![CommittedOffset { group: "g".into(), topic: "t".into(), queue: 0, offset }]
        };
        write(&store, &at(5)).unwrap();
        write(&store, &at(7)).unwrap();
        assert_eq!(read(&store).unwrap(), at(7));
        let path = store.directory().join("weir/user").join(FILE);
        disk.open(&path, OpenMode::Write).unwrap().write_all_at(b"?", 20).unwrap();
        let error = read(&store).unwrap_err();
        assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn there_is_room_for_so_many_queues() {
        let mut offsets = SlaveOffsets::default();
        for queue in 0..SLAVE_OFFSETS_MAX as i32 {
            assert!(offsets.commit("g", "t", queue, 1));
        }
        assert!(!offsets.commit("g", "t", -1, 1), "one too many");
        assert!(offsets.commit("g", "t", 5, 2), "a known one");
    }
}
