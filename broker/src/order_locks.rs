//! Which client may consume a queue in order.
//!
//! A lock is a lease of 60 s that its owner renews every 20 s. The owner is state and stands in
//! the log, the lease is not: after a start every owner counts as having renewed just now, so a
//! queue never passes to another client while the old one may still work on it.
//! Source: `RebalanceLockManager`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::state::StateRecord;

/// How long a lock lasts without being renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct OrderLocks {
    by_group: Mutex<HashMap<String, QueueLocks>>,
}

/// By topic and queue.
type QueueLocks = HashMap<(String, i32), Lock>;

struct Lock {
    owner: String,
    renewed: Instant,
}

/// What comes of asking for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The client owns it already; its lease begins anew.
    Renewed,
    /// Nobody owns it, or the owner's lease is over: the client may have it.
    Free,
    /// Another client owns it.
    Taken,
}

impl OrderLocks {
    /// Asks for a queue on behalf of `client`. [`Attempt::Free`] changes nothing yet.
    pub(crate) fn attempt(
        &self,
        group: &str,
        topic: &str,
        queue: i32,
        client: &str,
        now: Instant,
    ) -> Attempt {
        let mut groups = self.by_group.lock();
        let lock =
            groups.get_mut(group).and_then(|locks| locks.get_mut(&(topic.to_owned(), queue)));
        match lock {
            Some(lock) if lock.owner == client => {
                lock.renewed = now;
                Attempt::Renewed
            }
            Some(lock) if now.duration_since(lock.renewed) <= LEASE => Attempt::Taken,
            _ => Attempt::Free,
        }
    }

    /// Whether `client` owns the queue.
    pub(crate) fn is_owner(&self, group: &str, topic: &str, queue: i32, client: &str) -> bool {
        let groups = self.by_group.lock();
        let lock = groups.get(group).and_then(|locks| locks.get(&(topic.to_owned(), queue)));
        lock.is_some_and(|lock| lock.owner == client)
    }

    /// Takes every owner for one that has just renewed its lock: renewals are not in the log, so a
    /// new master does not know when the last one was.
    pub(crate) fn renew_all(&self, now: Instant) {
        let mut groups = self.by_group.lock();
        groups.values_mut().flat_map(HashMap::values_mut).for_each(|lock| lock.renewed = now);
    }

    pub(crate) fn apply(&self, group: &str, topic: &str, queue: i32, owner: Option<&str>) {
        let mut groups = self.by_group.lock();
        let key = (topic.to_owned(), queue);
        match owner {
            Some(owner) => {
                let lock = Lock { owner: owner.to_owned(), renewed: Instant::now() };
                groups.entry(group.to_owned()).or_default().insert(key, lock);
            }
            None => {
                if let Some(locks) = groups.get_mut(group) {
                    locks.remove(&key);
                    if locks.is_empty() {
                        groups.remove(group);
                    }
                }
            }
        }
    }

    pub(crate) fn remove_topic(&self, topic: &str) {
        let mut groups = self.by_group.lock();
        groups.values_mut().for_each(|locks| locks.retain(|(locked, _), _| locked != topic));
        groups.retain(|_, locks| !locks.is_empty());
    }

    pub(crate) fn remove_group(&self, group: &str) {
        self.by_group.lock().remove(group);
    }

    /// All owners, also those whose lease seems to be over: a slave does not hear of renewals, and a master that
    /// was frozen heard of none.
    pub(crate) fn records(&self) -> Vec<StateRecord> {
        let groups = self.by_group.lock();
        let mut records = Vec::new();
        for (group, locks) in groups.iter() {
            records.extend(locks.iter().map(|((topic, queue), lock)| StateRecord::QueueLock {
                group: group.clone(),
                topic: topic.clone(),
                queue: *queue,
                owner: Some(lock.owner.clone()),
            }));
        }
        records
    }

    pub(crate) fn clear(&self) {
        self.by_group.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_passes_on_only_after_its_lease_or_an_unlock() {
        let locks = OrderLocks::default();
        let start = Instant::now();
        assert_eq!(locks.attempt("g", "t", 0, "a", start), Attempt::Free);
        locks.apply("g", "t", 0, Some("a"));
        let later = Instant::now() + Duration::from_secs(59);
        assert_eq!(locks.attempt("g", "t", 0, "b", later), Attempt::Taken);
        assert_eq!(locks.attempt("g", "t", 0, "a", later), Attempt::Renewed);
        let expired = later + LEASE + Duration::from_millis(1);
        assert_eq!(locks.attempt("g", "t", 0, "b", expired), Attempt::Free);
        locks.apply("g", "t", 0, None);
        assert_eq!(locks.attempt("g", "t", 0, "b", start), Attempt::Free);
        assert!(locks.records().is_empty());
    }

    /// As at a slave whose process ends in good order: its next start may be that of a master.
    #[test]
    fn an_owner_is_written_down_whose_renewals_nobody_heard() {
        let locks = OrderLocks::default();
        locks.apply("g", "t", 0, Some("a"));
        let long_ago = Instant::now().checked_sub(LEASE * 2).unwrap();
        locks.by_group.lock().values_mut().flat_map(HashMap::values_mut).for_each(|lock| {
            lock.renewed = long_ago;
        });
        let started = OrderLocks::default();
        for record in locks.records() {
            let StateRecord::QueueLock { group, topic, queue, owner } = record else { panic!() };
            started.apply(&group, &topic, queue, owner.as_deref());
        }
        assert_eq!(started.attempt("g", "t", 0, "b", Instant::now()), Attempt::Taken);
    }
}
