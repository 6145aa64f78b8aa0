//! What a store has promised, and whether one that came back keeps it.

use std::collections::BTreeMap;

use super::common::{self, Message, Stored};
use crate::{QueueEntry, Store};

/// What the test knows of a log.
#[derive(Debug, Clone, Default)]
pub(super) struct Promise {
    /// Appended, in order; those that have expired as well.
    pub(super) records: Vec<Stored>,
    /// Of an append that has not returned, or failed: nobody promised anything about them.
    pub(super) pending: Vec<Message>,
    /// Everything below was flushed, or seen by a reader who may rely on it.
    pub(super) kept_below: u64,
    /// Below this may be gone because it expired.
    pub(super) expired_below: u64,
    /// Deleted topics: where the log ended when they were, and has to end at least for that to
    /// count. A topic may be deleted several times.
    pub(super) deleted: Vec<(String, u64)>,
    /// A deletion that has not returned.
    pub(super) maybe_deleted: Option<(String, u64)>,
}

pub(super) type Queues = BTreeMap<(String, i32), Vec<(u64, QueueEntry)>>;

/// Everything that can be asked of a store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) start: u64,
    pub(super) records: Vec<Stored>,
    pub(super) queues: Queues,
}

impl Contents {
    pub(super) fn of(store: &Store, segment_bytes: u64) -> Self {
        let topics: Vec<String> =
            super::sequences::TOPICS.iter().map(|topic| (*topic).to_owned()).collect();
        let queues = common::queues(store, &topics)
            .into_iter()
            .map(|(queue, (_, entries))| (queue, entries))
            .filter(|(_, entries)| !entries.is_empty())
            .collect();
        let records = common::walk(store, segment_bytes);
        Self { start: store.min_offset(), records, queues }
    }
}

impl Promise {
    /// The log is a prefix of what was appended, and has all that was promised.
    pub(super) fn check_log(&self, contents: &Contents) {
        let start = contents.start;
        assert!(start <= self.expired_below, "the log begins at {start}, nothing expired there");
        let mut expected = self.records.iter().filter(|record| record.position >= start).peekable();
        let mut pending = self.pending.iter();
        for found in &contents.records {
            match expected.next() {
                Some(record) => assert_eq!(found, record, "another record than was appended"),
                None => assert_eq!(Some(&found.message), pending.next(), "nobody appended this"),
            }
        }
        if let Some(missing) = expected.peek() {
            let end = missing.position + u64::from(missing.size);
            assert!(end > self.kept_below, "the record at {} was promised", missing.position);
        }
    }

    /// Queues and key index are those that follow from the records, and a deleted topic is gone.
    pub(super) fn check_derived(&self, contents: &Contents, store: &Store) {
        let expected = self.queues(&contents.records, &self.deleted);
        if contents.queues != expected {
            let mut deleted = self.deleted.clone();
            deleted.extend(self.maybe_deleted.clone());
            let or = self.queues(&contents.records, &deleted);
            assert_eq!(contents.queues, or, "queues do not follow from the records");
        }
        let mut keys: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
        for record in &contents.records {
            let found = weirmq_message::properties::get(&record.message.properties, "KEYS");
            for key in found.into_iter().flat_map(|keys| keys.split(' ')) {
                let places = keys.entry((&record.message.topic, key)).or_default();
                places.insert(0, record.position);
            }
        }
        for ((topic, key), expected) in keys {
            let found = store.query_key(topic, key, usize::MAX, 0, i64::MAX).unwrap();
            assert_eq!(found, expected, "key {key} of {topic}");
        }
    }

    /// What queues records make up, when these topics were deleted.
    fn queues(&self, records: &[Stored], deleted: &[(String, u64)]) -> Queues {
        let mut queues = Queues::new();
        let end = end_of(records);
        for record in records {
            let message = &record.message;
            if record.position < forgotten_before(deleted, &message.topic, end) {
                continue;
            }
            let queue = queues.entry((message.topic.clone(), message.queue_id)).or_default();
            if queue.last().is_some_and(|(last, _)| record.queue_offset <= *last) {
                queue.clear();
            }
            let entry = QueueEntry {
                physical_offset: record.position,
                size: record.size,
                tag_hash: message.as_new().tag_hash,
            };
            queue.push((record.queue_offset, entry));
        }
        queues
    }

    /// The queue offset that the next message gets, once only `contents` are left. `None` where
    /// both answers are right: a deletion may or may not have happened.
    pub(super) fn next_offset(
        &self,
        contents: &Contents,
        topic: &str,
        queue_id: i32,
    ) -> Option<u64> {
        if self.maybe_deleted.as_ref().is_some_and(|(name, _)| name == topic) {
            return None;
        }
        let is_of =
            |record: &&Stored| record.message.topic == topic && record.message.queue_id == queue_id;
        let expired = self.records.iter().filter(|record| record.position < contents.start);
        let mut records = expired.chain(&contents.records).filter(is_of);
        let deleted = forgotten_before(&self.deleted, topic, end_of(&contents.records));
        let last = records.rfind(|record| record.position >= deleted);
        Some(last.map_or(0, |record| record.queue_offset + 1))
    }

    /// What holds from now on: what was found is what there is.
    pub(super) fn is_now(&mut self, contents: &Contents, end: u64) {
        self.records.retain(|record| record.position < contents.start);
        self.records.extend(contents.records.iter().cloned());
        self.pending.clear();
        self.kept_below = end;
        self.deleted.retain(|(_, before)| *before <= end);
        // A deletion counts as done only once it returned; the next check may find either.
        self.maybe_deleted = self.maybe_deleted.take().filter(|(_, before)| *before <= end);
    }
}

/// Before which position the topic's records are in no queue, when the log ends at `end`.
fn forgotten_before(deleted: &[(String, u64)], topic: &str, end: u64) -> u64 {
    let of_topic = deleted.iter().filter(|(name, before)| name == topic && *before <= end);
    of_topic.map(|(_, before)| *before).max().unwrap_or(0)
}

/// Where the log ends.
fn end_of(records: &[Stored]) -> u64 {
    records.last().map_or(0, |record| record.position + u64::from(record.size))
}
