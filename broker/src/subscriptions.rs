//! What consumer groups subscribed to whose consumers are not here, for two minutes.
//!
//! Clients say their subscriptions with heartbeats, and pulls mostly do not repeat them. Java's client 4
//! sends a heartbeat each 30 s and none when it connects, so a broker that has just started, or lost a
//! connection, would refuse its pulls for as long (code 24, as Apache's `PullMessageProcessor` does). A
//! pull names the version of its subscription: one that is kept counts only if it is not older.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use weirmq_remoting::body::SubscriptionData;
use weirmq_store::{Store, StoreError};

use crate::Broker;

/// For how long; as Apache's brokers keep a client of which they hear nothing.
const KEPT: Duration = Duration::from_secs(120);
/// So many groups, of so many bytes each and together. What is not kept costs its consumers a wait for
/// their next heartbeat; heartbeats come from anybody.
const GROUPS_MAX: usize = 10_000;
const GROUP_BYTES_MAX: usize = 64 << 10;
const BYTES_MAX: usize = 16 << 20;
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

impl GroupSubscriptions {
    /// About as many as it takes in memory and in the file.
    fn bytes(&self) -> usize {
        bytes_of(&self.group, &self.subscriptions)
    }
}

fn bytes_of(group: &str, subscriptions: &BTreeMap<String, SubscriptionData>) -> usize {
    let of_one = |(topic, data): (&String, &SubscriptionData)| {
        let tags: usize = data.tags_set.iter().map(|tag| tag.len() + 32).sum();
        let codes = data.code_set.len() * 16;
        let texts = 2 * topic.len() + data.sub_string.len() + data.expression_type.len();
        texts + tags + codes + 200
    };
    group.len() + subscriptions.iter().map(of_one).sum::<usize>() + 100
}

/// Which groups still fit.
#[derive(Default)]
pub(crate) struct Room {
    groups: usize,
    bytes: usize,
}

impl Room {
    /// Whether one more has room, which is taken then.
    pub(crate) fn take(
        &mut self,
        group: &str,
        subscriptions: &BTreeMap<String, SubscriptionData>,
    ) -> bool {
        self.take_bytes(bytes_of(group, subscriptions))
    }

    fn take_bytes(&mut self, bytes: usize) -> bool {
        let fits = bytes <= GROUP_BYTES_MAX
            && self.groups < GROUPS_MAX
            && self.bytes.saturating_add(bytes) <= BYTES_MAX;
        if fits {
            self.groups += 1;
            self.bytes += bytes;
        }
        fits
    }

    fn give_back(&mut self, bytes: usize) {
        self.groups -= 1;
        self.bytes -= bytes;
    }
}

/// Groups that are not here.
#[derive(Default)]
pub(crate) struct KeptSubscriptions {
    groups: HashMap<String, (GroupSubscriptions, Instant)>,
    /// When each group was kept, oldest first; also of groups that are gone or were kept again.
    order: VecDeque<(Instant, String)>,
    room: Room,
}

impl KeptSubscriptions {
    /// Keeps a group from now on, in place of what was kept of it; not where there is no room.
    pub(crate) fn keep(&mut self, group: GroupSubscriptions, now: Instant) {
        self.forget(&group.group);
        self.forget_old(now);
        if self.room.take_bytes(group.bytes()) {
            self.order.push_back((now, group.group.clone()));
            self.groups.insert(group.group.clone(), (group, now));
        }
    }

    /// Each entry of the order is looked at once, and once more when it has grown far beyond the groups.
    fn forget_old(&mut self, now: Instant) {
        let is_due = |since: Instant| now.saturating_duration_since(since) >= KEPT;
        while let Some((since, name)) = self.order.pop_front_if(|(since, _)| is_due(*since)) {
            if self.groups.get(&name).is_some_and(|(_, kept_since)| *kept_since == since) {
                self.forget(&name);
            }
        }
        if self.order.len() >= 4 * GROUPS_MAX {
            let groups = &self.groups;
            self.order
                .retain(|(since, name)| groups.get(name).is_some_and(|kept| kept.1 == *since));
        }
    }

    /// Its last consumer said goodbye.
    pub(crate) fn forget(&mut self, group: &str) {
        if let Some((group, _)) = self.groups.remove(group) {
            self.room.give_back(group.bytes());
        }
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
        let Some(groups) = self.clients.take_resubscribed() else { return Ok(()) };
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
        assert_eq!((kept.all(now + KEPT).count(), kept.groups.len(), kept.order.len()), (1, 1, 1));
        assert_eq!((kept.room.groups, kept.room.bytes), (1, group("later").bytes()));
    }

    #[test]
    fn neither_one_group_nor_all_of_them_take_more_than_their_bytes() {
        let (mut kept, now) = (KeptSubscriptions::default(), Instant::now());
        let large = |name: &str, bytes: usize| {
            let mut group = group(name);
            let tag = "t".repeat(bytes);
            group.subscriptions.get_mut("t").unwrap().tags_set.insert(tag);
            group
        };
        kept.keep(large("a", GROUP_BYTES_MAX), now);
        assert_eq!(kept.get("a", now), None);
        for number in 0..1000 {
            kept.keep(large(&number.to_string(), GROUP_BYTES_MAX - 1000), now);
        }
        assert!(kept.room.bytes <= BYTES_MAX && kept.all(now).count() >= 200);
        for number in 0..1000 {
            kept.forget(&number.to_string());
        }
        assert_eq!((kept.room.groups, kept.room.bytes), (0, 0));
    }

    #[test]
    fn a_group_that_comes_and_goes_leaves_nothing_behind() {
        let (mut kept, now) = (KeptSubscriptions::default(), Instant::now());
        for _ in 0..10 * GROUPS_MAX {
            kept.keep(group("a"), now);
            kept.forget("a");
        }
        assert!(kept.order.len() <= 4 * GROUPS_MAX);
        assert_eq!(kept.room.bytes, 0);
    }
}
