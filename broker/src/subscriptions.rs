//! What consumer groups subscribed to whose consumers are not here, for two minutes.
//!
//! Clients say their subscriptions with heartbeats, and pulls mostly do not repeat them. Java's client 4
//! sends a heartbeat each 30 s and none when it connects, so a broker that has just started, or lost a
//! connection, would refuse its pulls for as long (code 24, as Apache's `PullMessageProcessor` does). A
//! pull names the version of its subscription: one that is kept counts only if it is not older.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use weirmq_remoting::body::SubscriptionData;
use weirmq_store::{Store, StoreError};

use crate::Broker;

/// For how long; as Apache's brokers keep a client of which they hear nothing.
const KEPT: Duration = Duration::from_secs(120);
/// So many groups.
const GROUPS_MAX: usize = 10_000;
/// Under the store's `weir/user/`.
const FILE: &str = "subscriptions.json";

/// One group, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupSubscriptions {
    pub(crate) group: String,
    /// Whether each of its consumers reads everything.
    pub(crate) is_broadcasting: bool,
    /// By topic.
    pub(crate) subscriptions: BTreeMap<String, SubscriptionData>,
}

/// Groups that are not here.
#[derive(Default)]
pub(crate) struct KeptSubscriptions {
    groups: HashMap<String, (GroupSubscriptions, Instant)>,
}

impl KeptSubscriptions {
    /// Keeps a group from now on, in place of what was kept of it; not where there is no room.
    pub(crate) fn keep(&mut self, group: GroupSubscriptions, now: Instant) {
        let is_fresh = |since: Instant| now.saturating_duration_since(since) < KEPT;
        if self.groups.len() >= GROUPS_MAX {
            self.groups.retain(|_, (_, since)| is_fresh(*since));
        }
        if self.groups.len() < GROUPS_MAX || self.groups.contains_key(&group.group) {
            self.groups.insert(group.group.clone(), (group, now));
        }
    }

    /// Its last consumer said goodbye.
    pub(crate) fn forget(&mut self, group: &str) {
        self.groups.remove(group);
    }

    pub(crate) fn get(&self, group: &str, now: Instant) -> Option<&GroupSubscriptions> {
        let (kept, since) = self.groups.get(group)?;
        (now.saturating_duration_since(*since) < KEPT).then_some(kept)
    }

    pub(crate) fn all(&self, now: Instant) -> impl Iterator<Item = &GroupSubscriptions> {
        self.groups.keys().filter_map(move |group| self.get(group, now))
    }
}

/// What the file of `store` says; nothing where it cannot be read, because heartbeats say it again.
pub(crate) fn read(store: &Store) -> Vec<GroupSubscriptions> {
    let read = store.read_small_file(FILE).map_err(|error| error.to_string());
    let parsed = read.and_then(|bytes| {
        let Some(bytes) = bytes else { return Ok(Vec::new()) };
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    });
    parsed.unwrap_or_else(|reason| {
        tracing::warn!(reason, "subscriptions are not known before the consumers' next heartbeats");
        Vec::new()
    })
}

impl Broker {
    /// Writes the file if somebody subscribed otherwise than it says. Waits for the disk.
    pub(crate) fn write_subscriptions(&self) -> Result<(), StoreError> {
        let Some(mut groups) = self.clients.take_resubscribed() else { return Ok(()) };
        groups.truncate(GROUPS_MAX);
        let bytes = serde_json::to_vec(&groups).unwrap_or_default();
        let written = self.store.write_small_file(FILE, &bytes);
        if written.is_err() {
            self.clients.ask_again();
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupSubscriptions {
        let subscription =
            SubscriptionData { topic: "t".into(), sub_version: 7, ..SubscriptionData::default() };
        GroupSubscriptions {
            group: name.to_owned(),
            is_broadcasting: false,
            subscriptions: [("t".to_owned(), subscription)].into(),
        }
    }

    #[test]
    fn a_group_is_kept_for_two_minutes_and_not_if_it_said_goodbye() {
        let (mut kept, now) = (KeptSubscriptions::default(), Instant::now());
        kept.keep(group("a"), now);
        kept.keep(group("b"), now);
        kept.forget("b");
        assert_eq!(kept.get("a", now + KEPT - Duration::from_millis(1)), Some(&group("a")));
        assert_eq!(kept.get("a", now + KEPT), None);
        assert_eq!(kept.all(now).collect::<Vec<_>>(), [&group("a")]);
        assert_eq!(kept.get("b", now), None);
    }

    #[test]
    fn there_is_room_for_so_many_groups() {
        let (mut kept, now) = (KeptSubscriptions::default(), Instant::now());
        for number in 0..=GROUPS_MAX {
            kept.keep(group(&number.to_string()), now);
        }
        assert_eq!(kept.all(now).count(), GROUPS_MAX);
        kept.keep(group("later"), now + KEPT);
        assert_eq!(kept.all(now + KEPT).count(), 1);
    }
}
