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
}

impl QueueState {
    pub(crate) fn is_forgotten(&self, topic: &str, position: u64) -> bool {
        self.forgotten_before.get(topic).is_some_and(|before| position < *before)
    }

    /// Brings the state in line with a log from `start` to `end`; says whether anything changed.
    ///
    /// What was forgotten beyond a log that lost its end must not swallow the records that will
    /// stand there next.
    pub(crate) fn fit(&mut self, start: u64, end: u64) -> bool {
        let before = self.clone();
        self.forgotten_before.retain(|_, position| *position > start);
        self.forgotten_before.values_mut().for_each(|position| *position = (*position).min(end));
        *self != before
    }
}
