//! Pulls that found nothing and wait for a message.
//!
//! An append tells this table which queue has grown; the pulls that wait there and whose tags fit
//! are answered in the same moment, on the thread that appended. Source: `PullRequestHoldService`.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::request::pull::HeldPull;

/// All waiting pulls.
pub(crate) struct LongPolls {
    tables: Mutex<Tables>,
    /// Wakes the task that answers pulls whose time is over.
    earlier_deadline: Notify,
    held_max: usize,
}

#[derive(Default)]
struct Tables {
    /// topic → queue → pulls by number.
    waiting: HashMap<String, HashMap<i32, BTreeMap<u64, HeldPull>>>,
    /// Deadline and number → queue.
    deadlines: BTreeMap<(Instant, u64), (String, i32)>,
    next_number: u64,
}

impl LongPolls {
    pub(crate) fn new(held_max: usize) -> Self {
        Self { tables: Mutex::default(), earlier_deadline: Notify::new(), held_max }
    }

    /// Lets a pull wait, or gives it back when too many wait already.
    pub(crate) fn hold(&self, pull: HeldPull) -> Option<HeldPull> {
        let mut tables = self.tables.lock();
        if tables.deadlines.len() >= self.held_max {
            return Some(pull);
        }
        let number = tables.next_number;
        tables.next_number += 1;
        let queue = (pull.topic().to_owned(), pull.queue());
        let is_first =
            tables.deadlines.first_key_value().is_none_or(|(key, _)| pull.deadline() < key.0);
        tables.deadlines.insert((pull.deadline(), number), queue.clone());
        let (topic, queue) = queue;
        let queues = tables.waiting.entry(topic).or_default();
        queues.entry(queue).or_default().insert(number, pull);
        drop(tables);
        if is_first {
            self.earlier_deadline.notify_one();
        }
        None
    }

    /// Takes the pulls that wait for this queue and that an entry with `tag_hash` at `offset` may
    /// answer.
    pub(crate) fn take_matching(
        &self,
        topic: &str,
        queue: i32,
        offset: u64,
        tag_hash: i64,
    ) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        let Some(waiting) = tables.waiting.get(topic).and_then(|queues| queues.get(&queue)) else {
            return Vec::new();
        };
        let fits = |pull: &HeldPull| pull.offset() <= offset && pull.accepts(tag_hash);
        let numbers: Vec<_> =
            waiting.iter().filter(|(_, pull)| fits(pull)).map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| tables.take(topic, queue, number)).collect()
    }

    /// Takes every pull that waits for a queue with more than it has seen.
    pub(crate) fn take_overtaken(&self, topic: &str, queue: i32, max_offset: u64) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        let Some(waiting) = tables.waiting.get(topic).and_then(|queues| queues.get(&queue)) else {
            return Vec::new();
        };
        let overtaken = waiting.iter().filter(|(_, pull)| pull.offset() < max_offset);
        let numbers: Vec<_> = overtaken.map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| tables.take(topic, queue, number)).collect()
    }

    /// Takes every pull that waits for any queue of a topic.
    pub(crate) fn take_of_topic(&self, topic: &str) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        let Some(queues) = tables.waiting.get(topic) else {
            return Vec::new();
        };
        let waiting = queues.iter().flat_map(|(queue, waiting)| {
            waiting.keys().map(|number| (*queue, *number)).collect::<Vec<_>>()
        });
        let found: Vec<_> = waiting.collect();
        found.into_iter().filter_map(|(queue, number)| tables.take(topic, queue, number)).collect()
    }

    /// Takes every pull of one connection.
    pub(crate) fn take_of_connection(&self, connection: u64) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        let mut found = Vec::new();
        for (topic, queues) in &tables.waiting {
            for (queue, waiting) in queues {
                let of_it = waiting.iter().filter(|(_, pull)| pull.connection_id() == connection);
                found.extend(of_it.map(|(number, _)| (topic.clone(), *queue, *number)));
            }
        }
        let take = |(topic, queue, number): (String, i32, u64)| tables.take(&topic, queue, number);
        found.into_iter().filter_map(take).collect()
    }

    /// Waits until pulls run out of time, and takes them.
    pub(crate) async fn expired(&self) -> Vec<HeldPull> {
        loop {
            let next = self.tables.lock().deadlines.first_key_value().map(|(key, _)| key.0);
            let reached = async {
                match next {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = reached => {}
                () = self.earlier_deadline.notified() => continue,
            }
            let now = Instant::now();
            let mut tables = self.tables.lock();
            let due: Vec<_> = tables
                .deadlines
                .range(..=(now, u64::MAX))
                .map(|(key, queue)| (key.1, queue.clone()))
                .collect();
            if !due.is_empty() {
                return due
                    .into_iter()
                    .filter_map(|(number, (topic, queue))| tables.take(&topic, queue, number))
                    .collect();
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.lock().deadlines.len()
    }
}

impl Tables {
    fn take(&mut self, topic: &str, queue: i32, number: u64) -> Option<HeldPull> {
        let queues = self.waiting.get_mut(topic)?;
        let waiting = queues.get_mut(&queue)?;
        let pull = waiting.remove(&number)?;
        if waiting.is_empty() {
            queues.remove(&queue);
            if queues.is_empty() {
                self.waiting.remove(topic);
            }
        }
        self.deadlines.remove(&(pull.deadline(), number));
        Some(pull)
    }
}
