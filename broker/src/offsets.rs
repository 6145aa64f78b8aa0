//! How far each consumer group has come: a state table.
//!
//! A commit changes the table at once; the log gets it coalesced, see `state::log`. Queries answer
//! from the table, and from that of the offsets that were committed here while this was a slave:
//! the larger one counts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::slave_offsets::SlaveOffsets;

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
    at_slave: SlaveOffsets,
}

impl Offsets {
    /// The committed offset; `None` when the group never committed this queue.
    pub(crate) fn get(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        let tables = self.tables.lock();
        tables.get(group, topic, queue).max(tables.at_slave.get(group, topic, queue))
    }

    /// All queues of a topic that the group committed.
    pub(crate) fn of_topic(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let tables = self.tables.lock();
        let topics = tables.committed.get(group);
        let mut queues = topics.and_then(|topics| topics.get(topic)).cloned().unwrap_or_default();
        for o in tables.at_slave.all().filter(|o| o.group == group && o.topic == topic) {
            let offset = queues.entry(o.queue).or_insert(o.offset);
            *offset = o.offset.max(*offset);
        }
        queues
    }

    /// The topics that the group has offsets of.
    pub(crate) fn topics_of(&self, group: &str) -> Vec<String> {
        let tables = self.tables.lock();
        let topics = tables.committed.get(group).into_iter().flat_map(HashMap::keys).cloned();
        let at_slave = tables.at_slave.all().filter(|o| o.group == group).map(|o| o.topic);
        topics.chain(at_slave).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The groups that have offsets of a topic.
    pub(crate) fn groups_of(&self, topic: &str) -> Vec<String> {
        let tables = self.tables.lock();
        let has = |topics: &HashMap<String, _>| topics.contains_key(topic);
        let groups = tables.committed.iter().filter(|(_, topics)| has(topics));
        let at_slave = tables.at_slave.all().filter(|o| o.topic == topic).map(|o| o.group);
        let groups = groups.map(|(group, _)| group.clone()).chain(at_slave);
        groups.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Sets an offset and marks it for the log. `true` when it was the first mark since the log
    /// was told.
    ///
    /// Like Apache this may set an offset back: a client does so after a reset.
    pub(crate) fn commit(&self, group: &str, topic: &str, queue: i32, offset: i64) -> bool {
        self.tables.lock().commit(group, topic, queue, offset)
    }

    /// The same, unless the log says or will say a greater one.
    pub(crate) fn commit_forward(&self, group: &str, topic: &str, queue: i32, offset: i64) -> bool {
        let mut tables = self.tables.lock();
        tables.get(group, topic, queue) < Some(offset) && tables.commit(group, topic, queue, offset)
    }

    /// Notes an offset that is committed while this replica is no master, unless it knows a greater
    /// one for good: what its log says counts only where nobody takes it back (`is_settled`).
    /// `false` where there is no room.
    pub(crate) fn commit_at_slave(
        &self,
        group: &str,
        topic: &str,
        queue: i32,
        offset: i64,
        is_settled: bool,
    ) -> bool {
        let mut tables = self.tables.lock();
        let is_known = is_settled && tables.get(group, topic, queue) >= Some(offset);
        is_known || tables.at_slave.commit(group, topic, queue, offset)
    }

    /// Whether what was committed at this slave survives the end of the process.
    pub(crate) fn is_durable_at_slave(
        &self,
        group: &str,
        topic: &str,
        queue: i32,
        offset: i64,
    ) -> bool {
        self.tables.lock().at_slave.is_durable(group, topic, queue, offset)
    }

    /// Runs `work` on what was committed while this replica was no master.
    pub(crate) fn at_slave<T>(&self, work: impl FnOnce(&mut SlaveOffsets) -> T) -> T {
        work(&mut self.tables.lock().at_slave)
    }

    /// Forgets offsets that were committed at this slave and that the log says below `safe`, or
    /// whose queue does not exist. To be called while nobody tells the log anything; `written` is
    /// where it ends.
    pub(crate) fn forget_at_slave(
        &self,
        written: u64,
        safe: u64,
        exists: impl Fn(&str, i32) -> bool,
    ) {
        let mut tables = self.tables.lock();
        let Tables { committed, dirty, at_slave } = &mut *tables;
        let is_logged = |key: &(String, String, i32), offset: i64| {
            let (group, topic, queue) = key;
            let logged = committed.get(group).and_then(|topics| topics.get(topic)?.get(queue));
            logged.is_some_and(|logged| *logged >= offset) && !dirty.contains(key)
        };
        at_slave.forget(written, safe, is_logged, exists);
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

    /// Every offset as queries answer it.
    pub(crate) fn current(&self) -> Vec<CommittedOffset> {
        let mut all = self.all();
        self.at_slave(|at_slave| {
            if at_slave.is_empty() {
                return;
            }
            all.retain(|o| at_slave.get(&o.group, &o.topic, o.queue) <= Some(o.offset));
            let known: HashSet<_> =
                all.iter().map(|o| (o.group.clone(), o.topic.clone(), o.queue)).collect();
            let is_new =
                |o: &CommittedOffset| !known.contains(&(o.group.clone(), o.topic.clone(), o.queue));
            all.extend(at_slave.all().filter(is_new));
        });
        all
    }

    /// Every offset that the log says or will say, sorted.
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
        tables.at_slave.remove(|(known, _, _)| known == group);
    }

    pub(crate) fn remove_topic(&self, topic: &str) {
        let mut tables = self.tables.lock();
        for topics in tables.committed.values_mut() {
            topics.remove(topic);
        }
        tables.committed.retain(|_, topics| !topics.is_empty());
        tables.dirty.retain(|(_, dirty, _)| dirty != topic);
        tables.at_slave.remove(|(_, known, _)| known == topic);
    }

    /// Forgets what the log said.
    pub(crate) fn clear(&self) {
        let mut tables = self.tables.lock();
        tables.committed.clear();
        tables.dirty.clear();
    }
}

impl Tables {
    fn get(&self, group: &str, topic: &str, queue: i32) -> Option<i64> {
        self.committed.get(group)?.get(topic)?.get(&queue).copied()
    }

    fn commit(&mut self, group: &str, topic: &str, queue: i32, offset: i64) -> bool {
        if !self.set(group, topic, queue, offset) {
            return false;
        }
        let is_first = self.dirty.is_empty();
        self.dirty.insert((group.to_owned(), topic.to_owned(), queue));
        is_first
    }

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
    #[test]
    fn queries_answer_the_larger_of_what_the_log_says_and_what_a_slave_was_told() {
        let offsets = Offsets::default();
        let at = |queue, offset| {
            let (group, topic) = ("g".to_owned(), "t".to_owned());
            CommittedOffset { group, topic, queue, offset }
        };
        offsets.apply(&[at(0, 5), at(1, 5)]);
        assert!(offsets.commit_at_slave("g", "t", 0, 9, true));
        assert!(offsets.commit_at_slave("g", "t", 1, 4, true));
        assert!(offsets.commit_at_slave("g", "t", 2, 3, true));
        assert_eq!(
            [0, 1, 2].map(|queue| offsets.get("g", "t", queue)),
            [Some(9), Some(5), Some(3)]
        );
        assert_eq!(offsets.of_topic("g", "t"), BTreeMap::from([(0, 9), (1, 5), (2, 3)]));
        let current = offsets.current().into_iter().map(|o| (o.queue, o.offset));
        assert_eq!(current.collect::<BTreeMap<_, _>>(), offsets.of_topic("g", "t"));
        assert_eq!(offsets.all(), [at(0, 5), at(1, 5)], "the log's own");
        // Queue 0 goes as far in the log, which is told of it and has it for good.
        offsets.commit("g", "t", 0, 9);
        let exists = |_: &str, queue: i32| queue < 2;
        offsets.forget_at_slave(100, 100, exists);
        assert_eq!(offsets.at_slave(|at_slave| at_slave.not_logged()), [at(0, 9)], "not told yet");
        offsets.take_dirty();
        offsets.forget_at_slave(100, 100, exists);
        assert!(offsets.at_slave(|at_slave| at_slave.is_empty()));
        assert_eq!(offsets.get("g", "t", 2), None, "there is no such queue any more");
        // What the log says and may lose again does not count.
        assert!(offsets.commit_at_slave("g", "t", 1, 5, false));
        assert!(!offsets.is_durable_at_slave("g", "t", 1, 5));
        offsets.remove_topic("t");
        assert!(offsets.at_slave(|at_slave| at_slave.is_empty()));
    }
}
