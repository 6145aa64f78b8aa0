//! All queues, and the little about them that the log cannot tell.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::{RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};

use crate::consume_queue::Queue;
use crate::queue_file::StoredPart;

/// Queues by topic and queue id.
#[derive(Default)]
pub(crate) struct QueueTable {
    topics: RwLock<Topics>,
}

/// The table as it is while it is locked.
pub(crate) type Topics = HashMap<Box<str>, TopicQueues, RandomState>;

/// The queues of one topic, sorted by id. Ids nearly always are 0, 1, 2 and so on.
#[derive(Default)]
pub(crate) struct TopicQueues(Vec<Arc<Queue>>);

impl TopicQueues {
    pub(crate) fn find(&self, queue_id: i32) -> Option<&Arc<Queue>> {
        let guess = usize::try_from(queue_id).ok().and_then(|index| self.0.get(index));
        guess.filter(|queue| queue.queue_id == queue_id).or_else(|| {
            let index = self.0.binary_search_by_key(&queue_id, |queue| queue.queue_id).ok()?;
            self.0.get(index)
        })
    }

    fn find_or_add(&mut self, topic: &str, queue_id: i32, next: u64) -> &Arc<Queue> {
        let index = match self.0.binary_search_by_key(&queue_id, |queue| queue.queue_id) {
            Ok(index) => index,
            Err(index) => {
                self.0.insert(index, Arc::new(Queue::new(topic, queue_id, next)));
                index
            }
        };
        &self.0[index]
    }
}

impl QueueTable {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Topics> {
        self.topics.read()
    }

    pub(crate) fn find(&self, topic: &str, queue_id: i32) -> Option<Arc<Queue>> {
        self.topics.read().get(topic)?.find(queue_id).cloned()
    }

    /// The queue; made, with `next` as its next offset, when there is none.
    pub(crate) fn find_or_add(&self, topic: &str, queue_id: i32, next: u64) -> Arc<Queue> {
        if let Some(queue) = self.find(topic, queue_id) {
            return queue;
        }
        let mut topics = self.topics.write();
        let queues = topics.entry(Box::from(topic)).or_default();
        Arc::clone(queues.find_or_add(topic, queue_id, next))
    }

    pub(crate) fn remove_topic(&self, topic: &str) {
        self.topics.write().remove(topic);
    }

    /// Where the queues of a topic go on behind what lies below `safe`, by queue id.
    pub(crate) fn next_offsets(&self, topic: &str, safe: u64) -> BTreeMap<i32, u64> {
        let topics = self.topics.read();
        let queues = topics.get(topic).into_iter().flat_map(|queues| &queues.0);
        queues.map(|queue| (queue.queue_id, queue.range(safe).max)).collect()
    }

    /// All queues, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Queue>> {
        self.topics.read().values().flat_map(|queues| queues.0.iter().cloned()).collect()
    }

    /// Moves what queues have of a segment into its file and says what that is.
    pub(crate) fn seal(&self, segment: u64) -> Vec<StoredPart> {
        let mut parts: Vec<_> = self.all().iter().flat_map(|queue| queue.seal(segment)).collect();
        parts.sort_by(|a, b| (&a.topic, a.queue_id, a.first).cmp(&(&b.topic, b.queue_id, b.first)));
        parts
    }
}

/// What the log alone does not say about queues: `weir/queue-state`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct QueueState {
    /// Next offsets of queues whose messages have all expired, by topic and queue id. A queue with
    /// messages goes by those instead.
    pub(crate) next_offsets: BTreeMap<String, BTreeMap<i32, u64>>,
    /// Topics that were deleted: their records before this position are in no queue.
    pub(crate) forgotten_before: BTreeMap<String, u64>,
    /// Deletions that count as long as the log says so, by topic, oldest first.
    pub(crate) deletions: BTreeMap<String, Vec<Deletion>>,
}

/// A topic's deletion, which is taken back if the log loses the record that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deletion {
    /// The topic's records before this position are in no queue.
    pub(crate) before: u64,
    /// Where the record ends that says so.
    pub(crate) said_until: u64,
    /// Where the topic's queues went on behind what could not be cut off any more, by queue id.
    pub(crate) next_offsets: BTreeMap<i32, u64>,
}

impl QueueState {
    /// The position before which records of the topic are in no queue, 0 for none.
    pub(crate) fn forgotten_before(&self, topic: &str) -> u64 {
        let settled = self.forgotten_before.get(topic).copied();
        let deletions = self.deletions.get(topic).into_iter().flatten();
        settled.into_iter().chain(deletions.map(|deletion| deletion.before)).max().unwrap_or(0)
    }

    pub(crate) fn is_forgotten(&self, topic: &str, position: u64) -> bool {
        position < self.forgotten_before(topic)
    }

    /// Notes a deletion. Those before it of the same topic are not taken back any more once the one
    /// that followed them is `safe`, so that deletions of one topic do not add up.
    pub(crate) fn delete(&mut self, topic: &str, deletion: Deletion, safe: u64) {
        self.next_offsets.remove(topic);
        let deletions = self.deletions.entry(topic.to_owned()).or_default();
        deletions.push(deletion);
        let settled = deletions.iter().rposition(|deletion| deletion.said_until <= safe);
        if let Some(before) = deletions.drain(..settled.unwrap_or(0)).map(|d| d.before).max() {
            self.forgotten_before.insert(topic.to_owned(), before);
        }
    }

    /// Takes back the deletions of which a log that ends at `end` does not say any more; says
    /// whether there were any. What was derived from the log meanwhile lacks entries then.
    pub(crate) fn take_back(&mut self, end: u64) -> bool {
        let mut has_taken_back = false;
        for (topic, deletions) in &mut self.deletions {
            let kept = deletions.partition_point(|deletion| deletion.said_until <= end);
            // The topic was as the first of them found it.
            if let Some(first) = deletions.drain(kept..).next() {
                self.next_offsets.insert(topic.clone(), first.next_offsets);
                has_taken_back = true;
            }
        }
        self.deletions.retain(|_, deletions| !deletions.is_empty());
        has_taken_back
    }

    /// Whether the log may still lose a record that a deletion rests on: up to `safe` it loses none.
    pub(crate) fn may_take_back(&self, safe: u64) -> bool {
        self.deletions.values().flatten().any(|deletion| deletion.said_until > safe)
    }

    /// Whether the log must not go on beyond `end` before the state was brought in line with it.
    pub(crate) fn is_beyond(&self, end: u64) -> bool {
        let deletions = self.deletions.values().flatten();
        let positions = deletions.flat_map(|deletion| [deletion.before, deletion.said_until]);
        self.forgotten_before.values().copied().chain(positions).any(|position| position > end)
    }

    /// Brings the state in line with a log from `start` to `end`, of which deletions were taken
    /// back; says whether anything changed.
    ///
    /// What was forgotten beyond a log that lost its end must not swallow the records that will
    /// stand there next.
    pub(crate) fn fit(&mut self, start: u64, end: u64) -> bool {
        let before = self.clone();
        self.forgotten_before.retain(|_, position| *position > start);
        self.forgotten_before.values_mut().for_each(|position| *position = (*position).min(end));
        self.deletions.retain(|_, deletions| {
            deletions.retain(|deletion| deletion.before > start);
            deletions.iter_mut().for_each(|deletion| deletion.before = deletion.before.min(end));
            !deletions.is_empty()
        });
        *self != before
    }
}
