//! How far each consumer group has come: a state table.
//!
//! A commit changes the table at once; the log gets it coalesced, see `state::log`. Queries answer
//! from the table.

use std::collections::{BTreeMap, HashMap, HashSet};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// One committed offset, as it stands in a state record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommittedOffset {
    pub group: String,
    pub topic: String,
    pub queue: i32,
    pub offset: i64,
}

#[derive(Default)]
pub(crate) struct Offsets {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    /// group → topic → queue → offset.
    committed: HashMap<String, HashMap<String, BTreeMap<i32, i64>>>,
    /// What changed since the log was told: group, topic, queue.
    dirty: HashSet<(String, String, i32)>,
}

impl Offsets {
    /// The committed offset; `None` when the group never committed this queue.
    pub(crate) fn get(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        self.tables.lock().committed.get(group)?.get(topic)?.get(&queue).copied()
    }

    /// All queues of a topic that the group committed.
    pub(crate) fn of_topic(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let tables = self.tables.lock();
        tables
            .committed
            .get(group)
            .and_then(|topics| topics.get(topic))
            .cloned()
            .unwrap_or_default()
    }

    /// The topics that the group has offsets of.
    pub(crate) fn topics_of(&self, group: &str) -> Vec<String> {
        let tables = self.tables.lock();
        tables
            .committed
            .get(group)
            .map(|topics| topics.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The groups that have offsets of a topic.
    pub(crate) fn groups_of(&self, topic: &str) -> Vec<String> {
        let tables = self.tables.lock();
        let has = |topics: &HashMap<String, _>| topics.contains_key(topic);
        tables.committed.iter().filter(|(_, t)| has(t)).map(|(group, _)| group.clone()).collect()
    }

    /// Sets an offset and marks it for the log. `true` when it was the first mark since the log
    /// was told.
    ///
    /// Like Apache this may set an offset back: a client does so after a reset.
    pub(crate) fn commit(&self, group: &str, topic: &str, queue: i32, offset: i64) -> bool {
        let mut tables = self.tables.lock();
        if !tables.set(group, topic, queue, offset) {
            return false;
        }
        let is_first = tables.dirty.is_empty();
        tables.dirty.insert((group.to_owned(), topic.to_owned(), queue));
        is_first
    }

    /// What the log does not know yet; it counts as known from now on.
    pub(crate) fn take_dirty(&self) -> Vec<CommittedOffset> {
        let mut tables = self.tables.lock();
        let dirty = std::mem::take(&mut tables.dirty);
        dirty
            .into_iter()
            .filter_map(|(group, topic, queue)| {
                let offset = *tables.committed.get(&group)?.get(&topic)?.get(&queue)?;
                Some(CommittedOffset { group, topic, queue, offset })
            })
            .collect()
    }

    /// Marks offsets again that the log refused.
    pub(crate) fn put_back(&self, refused: &[CommittedOffset]) {
        let mut tables = self.tables.lock();
        let marks = refused.iter().map(|o| (o.group.clone(), o.topic.clone(), o.queue));
        tables.dirty.extend(marks);
    }

    /// Sets offsets that come out of the log.
    pub(crate) fn apply(&self, offsets: &[CommittedOffset]) {
        let mut tables = self.tables.lock();
        for o in offsets {
            tables.set(&o.group, &o.topic, o.queue, o.offset);
        }
    }

    /// Every committed offset, sorted.
    pub(crate) fn all(&self) -> Vec<CommittedOffset> {
        let tables = self.tables.lock();
        let mut all = Vec::new();
        for (group, topics) in &tables.committed {
            for (topic, queues) in topics {
                all.extend(queues.iter().map(|(queue, offset)| CommittedOffset {
                    group: group.clone(),
                    topic: topic.clone(),
                    queue: *queue,
                    offset: *offset,
                }));
            }
        }
        all.sort_by(|a, b| (&a.group, &a.topic, a.queue).cmp(&(&b.group, &b.topic, b.queue)));
        all
    }

    pub(crate) fn remove_group(&self, group: &str) {
        let mut tables = self.tables.lock();
        tables.committed.remove(group);
        tables.dirty.retain(|(dirty, _, _)| dirty != group);
    }

    pub(crate) fn remove_topic(&self, topic: &str) {
        let mut tables = self.tables.lock();
        for topics in tables.committed.values_mut() {
            topics.remove(topic);
        }
        tables.committed.retain(|_, topics| !topics.is_empty());
        tables.dirty.retain(|(_, dirty, _)| dirty != topic);
    }

    pub(crate) fn clear(&self) {
        *self.tables.lock() = Tables::default();
    }
}

impl Tables {
    /// `true` when this changed something.
    fn set(&mut self, group: &str, topic: &str, queue: i32, offset: i64) -> bool {
        // Two look-ups instead of entry(): a commit of a known queue allocates nothing.
        if let Some(known) = self
            .committed
            .get_mut(group)
            .and_then(|topics| topics.get_mut(topic))
            .and_then(|queues| queues.get_mut(&queue))
        {
            return std::mem::replace(known, offset) != offset;
        }
        let topics = self.committed.entry(group.to_owned()).or_default();
        topics.entry(topic.to_owned()).or_default().insert(queue, offset);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_go_to_the_log_and_only_once() {
        let offsets = Offsets::default();
        assert_eq!(offsets.get("g", "t", 0), None);
        assert!(offsets.commit("g", "t", 0, 5));
        assert!(!offsets.commit("g", "t", 1, 6));
        assert_eq!(offsets.take_dirty().len(), 2);
        assert!(!offsets.commit("g", "t", 0, 5), "nothing changed");
        assert!(offsets.take_dirty().is_empty());
        assert!(offsets.commit("g", "t", 0, 3), "back is allowed");
        offsets.remove_topic("t");
        assert!(offsets.take_dirty().is_empty() && offsets.all().is_empty());
    }
}
