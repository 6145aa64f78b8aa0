//! Who is connected: producers and consumers by group, as their heartbeats say.
//!
//! This table is not state: after a restart clients heartbeat again. A client lives as long as its
//! connection; what its group subscribed to lives on for a while (`subscriptions.rs`). Source:
//! `ConsumerManager`, `ProducerManager`.

use std::collections::{BTreeMap, HashMap};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use weirmq_remoting::body::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use weirmq_remoting::command::{Head, Language};
use weirmq_remoting::net::Connection;

use crate::subscriptions::{GroupSubscriptions, KeptSubscriptions, Room};

/// One client of one group.
#[derive(Clone)]
pub(crate) struct Member {
    pub client_id: String,
    pub connection: Connection,
    pub language: Language,
    pub version: i32,
    pub last_heartbeat: SystemTime,
}

/// One consumer group with its members and what they want.
#[derive(Clone)]
pub(crate) struct ConsumerGroup {
    pub consume_type: Option<ConsumeType>,
    pub message_model: Option<MessageModel>,
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// By topic.
    pub subscriptions: BTreeMap<String, SubscriptionData>,
    /// By client id: rebalancing clients want a stable order.
    pub members: BTreeMap<String, Member>,
}

#[derive(Default)]
pub(crate) struct Clients {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    producers: HashMap<String, BTreeMap<String, Member>>,
    consumers: HashMap<String, ConsumerGroup>,
    kept: KeptSubscriptions,
    /// Whether somebody subscribed otherwise since this was asked last.
    is_resubscribed: bool,
}

/// Members to be told that their group has changed.
pub(crate) type Changed = Vec<(String, Vec<Connection>)>;

impl Clients {
    /// With what is kept from before.
    pub(crate) fn new(kept: Vec<GroupSubscriptions>) -> Self {
        let mut tables = Tables::default();
        let now = Instant::now();
        kept.into_iter().for_each(|group| tables.kept.keep(group, now));
        Self { tables: Mutex::new(tables) }
    }

    /// Takes a heartbeat over. The result names the consumer groups whose members or subscriptions
    /// changed, with everybody to be told.
    pub(crate) fn heartbeat(
        &self,
        connection: &Connection,
        head: &Head,
        data: HeartbeatData,
    ) -> Changed {
        let member = Member {
            client_id: data.client_id,
            connection: connection.clone(),
            language: head.language,
            version: head.version,
            last_heartbeat: SystemTime::now(),
        };
        let mut tables = self.tables.lock();
        for producer in data.producer_data_set {
            let members = tables.producers.entry(producer.group_name).or_default();
            members.insert(member.client_id.clone(), member.clone());
        }
        let mut changed = Changed::new();
        for consumer in data.consumer_data_set {
            let name = consumer.group_name.clone();
            if tables.register_consumer(&member, consumer) {
                changed.extend(tables.everybody(&name));
            }
        }
        changed
    }

    /// Forgets a client in one group of either kind.
    pub(crate) fn unregister(
        &self,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Changed {
        let mut tables = self.tables.lock();
        if let Some(group) = producer_group
            && let Some(members) = tables.producers.get_mut(group)
        {
            members.remove(client_id);
            if members.is_empty() {
                tables.producers.remove(group);
            }
        }
        let mut changed = Changed::new();
        if let Some(name) = consumer_group
            && let Some(group) = tables.consumers.get_mut(name)
            && group.members.remove(client_id).is_some()
        {
            if group.members.is_empty() {
                tables.kept.forget(name);
                tables.is_resubscribed = true;
            }
            changed.extend(tables.after_leaving(name));
        }
        changed
    }

    /// Forgets everybody who was connected by this connection.
    pub(crate) fn disconnected(&self, connection: u64) -> Changed {
        let mut tables = self.tables.lock();
        tables.producers.retain(|_, members| {
            members.retain(|_, member| member.connection.id() != connection);
            !members.is_empty()
        });
        let mut left = Vec::new();
        let (now, Tables { consumers, kept, .. }) = (Instant::now(), &mut *tables);
        for (name, group) in consumers {
            let before = group.members.len();
            group.members.retain(|_, member| member.connection.id() != connection);
            if group.members.len() != before {
                left.push(name.clone());
                if group.members.is_empty() {
                    kept.keep(group.subscriptions_of(name), now);
                }
            }
        }
        left.iter().flat_map(|name| tables.after_leaving(name)).collect()
    }

    /// The ids of a group's consumers, sorted.
    pub(crate) fn consumer_ids(&self, group: &str) -> Vec<String> {
        let tables = self.tables.lock();
        let group = tables.consumers.get(group);
        group.map(|group| group.members.keys().cloned().collect()).unwrap_or_default()
    }

    /// What a group wants of a topic, as one of its consumers knows it that subscribed at `version`; an
    /// older one where there is no other. The outer `None` when nobody of the group is here or was
    /// lately.
    pub(crate) fn subscription(
        &self,
        group: &str,
        topic: &str,
        version: i64,
    ) -> Option<Option<SubscriptionData>> {
        let tables = self.tables.lock();
        let here = tables.consumers.get(group).map(|group| group.subscriptions.get(topic));
        let kept = tables.kept.get(group, Instant::now());
        let kept = kept.map(|group| group.subscriptions.get(topic));
        if here.is_none() && kept.is_none() {
            return None;
        }
        let (here, kept) = (here.flatten(), kept.flatten());
        let is_known = |known: &&SubscriptionData| known.sub_version >= version;
        // Not all consumers of a group that was here before say so at once.
        let known = here.filter(is_known).or(kept.filter(is_known));
        Some(known.or(here).or(kept).cloned())
    }

    /// Whether the group's consumers say that each of them reads everything.
    pub(crate) fn is_broadcasting(&self, group: &str) -> bool {
        let tables = self.tables.lock();
        match tables.consumers.get(group) {
            Some(group) => group.is_broadcasting(),
            None => {
                let kept = tables.kept.get(group, Instant::now());
                kept.is_some_and(|group| group.is_broadcasting)
            }
        }
    }

    /// What groups subscribed to that are here or were lately, as far as there is room, if that may be
    /// another than when this was asked last.
    pub(crate) fn take_resubscribed(&self) -> Option<Vec<GroupSubscriptions>> {
        let mut tables = self.tables.lock();
        if !std::mem::take(&mut tables.is_resubscribed) {
            return None;
        }
        let mut room = Room::default();
        let here =
            tables.consumers.iter().filter(|(name, group)| room.take(name, &group.subscriptions));
        let mut groups: Vec<_> = here.map(|(name, group)| group.subscriptions_of(name)).collect();
        let kept = tables.kept.all(Instant::now());
        let kept = kept.filter(|kept| !tables.consumers.contains_key(&kept.group));
        let kept = kept.filter(|kept| room.take(&kept.group, &kept.subscriptions));
        groups.extend(kept.cloned());
        Some(groups)
    }

    /// What was taken could not be kept.
    pub(crate) fn ask_again(&self) {
        self.tables.lock().is_resubscribed = true;
    }

    pub(crate) fn consumer_group(&self, group: &str) -> Option<ConsumerGroup> {
        self.tables.lock().consumers.get(group).cloned()
    }

    pub(crate) fn producer_group(&self, group: &str) -> Option<Vec<Member>> {
        let tables = self.tables.lock();
        tables.producers.get(group).map(|members| members.values().cloned().collect())
    }

    /// All producer groups with their members.
    pub(crate) fn producers(&self) -> Vec<(String, Vec<Member>)> {
        let tables = self.tables.lock();
        let members = |members: &BTreeMap<_, Member>| members.values().cloned().collect();
        tables.producers.iter().map(|(group, all)| (group.clone(), members(all))).collect()
    }

    /// The groups whose consumers subscribe to a topic.
    pub(crate) fn groups_subscribed_to(&self, topic: &str) -> Vec<String> {
        let tables = self.tables.lock();
        let subscribed = |group: &ConsumerGroup| group.subscriptions.contains_key(topic);
        let groups = tables.consumers.iter().filter(|(_, group)| subscribed(group));
        groups.map(|(name, _)| name.clone()).collect()
    }

    /// Numbers of producers and of consumers, for metrics.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let tables = self.tables.lock();
        let producers = tables.producers.values().map(BTreeMap::len).sum();
        (producers, tables.consumers.values().map(|group| group.members.len()).sum())
    }
}

impl ConsumerGroup {
    fn is_broadcasting(&self) -> bool {
        self.message_model == Some(MessageModel::Broadcasting)
    }

    fn subscriptions_of(&self, name: &str) -> GroupSubscriptions {
        GroupSubscriptions {
            group: name.to_owned(),
            is_broadcasting: self.is_broadcasting(),
            subscriptions: self.subscriptions.clone(),
        }
    }
}

impl Tables {
    /// `true` when members or subscriptions changed.
    fn register_consumer(&mut self, member: &Member, data: ConsumerData) -> bool {
        let group = self.consumers.entry(data.group_name).or_insert_with(|| ConsumerGroup {
            consume_type: None,
            message_model: None,
            consume_from_where: None,
            subscriptions: BTreeMap::new(),
            members: BTreeMap::new(),
        });
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from_where = data.consume_from_where;
        let known = group.members.insert(member.client_id.clone(), member.clone());
        let is_new = known.is_none_or(|old| old.connection.id() != member.connection.id());
        let before = group.subscriptions.clone();
        let is_resubscribed = update_subscriptions(group, data.subscription_data_set);
        self.is_resubscribed |= group.subscriptions != before;
        is_new || is_resubscribed
    }

    /// Drops an empty group; else lists those to be told.
    fn after_leaving(&mut self, name: &str) -> Option<(String, Vec<Connection>)> {
        if self.consumers.get(name).is_some_and(|group| group.members.is_empty()) {
            self.consumers.remove(name);
        }
        self.everybody(name)
    }

    fn everybody(&self, name: &str) -> Option<(String, Vec<Connection>)> {
        let group = self.consumers.get(name)?;
        let connections = group.members.values().map(|member| member.connection.clone());
        Some((name.to_owned(), connections.collect()))
    }
}

/// The newest version of each subscription counts; what the heartbeat leaves out is gone.
fn update_subscriptions(group: &mut ConsumerGroup, subscriptions: Vec<SubscriptionData>) -> bool {
    let mut is_changed = false;
    let topics: Vec<_> = subscriptions.iter().map(|sub| sub.topic.clone()).collect();
    for subscription in subscriptions {
        match group.subscriptions.get(&subscription.topic) {
            Some(known) if known.sub_version >= subscription.sub_version => {}
            known => {
                is_changed |= known.is_none();
                group.subscriptions.insert(subscription.topic.clone(), subscription);
            }
        }
    }
    let before = group.subscriptions.len();
    group.subscriptions.retain(|topic, _| topics.contains(topic));
    is_changed || group.subscriptions.len() != before
}
