//! Who is registered and which topics they have. Pure: no I/O, the clock is handed in.
//!
//! Follows Apache's `RouteInfoManager`, except where a comment says otherwise. A broker group is
//! known by its name; a member by its id and address. Everything that can grow is bounded by
//! [`TableLimits`].

mod register;
mod route;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{
    BrokerData, BrokerMemberGroup, ClusterInfo, DataVersion, QueueData, TopicList,
    TopicQueueMappingInfo,
};

pub(crate) use register::{Registered, Registration, RegistrationError};
pub(crate) use route::RouteView;

/// The id of a master. Source: `MixAll.MASTER_ID`.
const MASTER_ID: i64 = 0;
/// Bit of a permission. Source: `PermName.PERM_WRITE`.
const PERM_WRITE: i32 = 2;
/// The most queues of a topic on one broker that is believed; clients build lists of them.
const QUEUES_MAX: i32 = 1 << 16;
/// Bits of a topic's system flag. Source: `TopicSysFlag`.
const FLAG_UNIT: i32 = 1;
const FLAG_UNIT_SUB: i32 = 2;

#[derive(Debug, Clone)]
pub(crate) struct TableLimits {
    pub(crate) brokers_max: usize,
    pub(crate) topics_max: usize,
    pub(crate) support_acting_master: bool,
    pub(crate) delete_missing_topics: bool,
}

pub(crate) struct RouteTable {
    limits: TableLimits,
    groups: BTreeMap<ResourceName, BrokerGroup>,
    topics: HashMap<ResourceName, Topic, ahash::RandomState>,
    /// Topic → broker → its part of a static topic. Only brokers with static topics have any.
    mappings: HashMap<ResourceName, BTreeMap<ResourceName, TopicQueueMappingInfo>>,
}

/// A master and its slaves. Has at least one member.
#[derive(Debug)]
struct BrokerGroup {
    cluster: ResourceName,
    zone: Option<String>,
    enable_acting_master: bool,
    members: BTreeMap<i64, Member>,
}

#[derive(Debug)]
struct Member {
    /// The address for everybody who did not ask through a listener that has one of its own.
    address: String,
    listener_addresses: BTreeMap<String, String>,
    ha_address: String,
    filter_servers: Vec<String>,
    data_version: DataVersion,
    /// All topics of `data_version` are known, not just the one that came in first.
    is_complete: bool,
    heartbeat_timeout: Duration,
    last_heard: Instant,
    /// The connection that registered it; its end is the end of the member. Newer ones have larger numbers.
    connection: u64,
}

/// The queues that each broker group has of a topic, sorted by the group's name, not empty.
#[derive(Debug, Default)]
struct Topic(Vec<(ResourceName, Queues)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queues {
    read: i32,
    write: i32,
    perm: i32,
    sys_flag: i32,
    /// An operator took the write bit away; lasts until the broker tells something new.
    is_wiped: bool,
}

/// A broker that is no longer there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) broker_name: ResourceName,
    pub(crate) broker_id: i64,
    pub(crate) address: String,
    pub(crate) connection: u64,
}

/// Why a topic cannot be added to brokers by code 217.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddTopicError {
    #[error("broker {0:?} of the topic is not registered here; it has to register first")]
    UnknownBroker(String),
    #[error("the topic has {queues} queues on one broker, the limit is {QUEUES_MAX}")]
    Queues { queues: i32 },
    #[error("there are {limit} topics already, which is the limit (limits.topics_max)")]
    TooManyTopics { limit: usize },
}

impl RouteTable {
    pub(crate) fn new(limits: TableLimits) -> Self {
        Self {
            limits,
            groups: BTreeMap::new(),
            topics: HashMap::default(),
            mappings: HashMap::new(),
        }
    }

    /// The number of members of all groups.
    pub(crate) fn broker_count(&self) -> usize {
        self.groups.values().map(|group| group.members.len()).sum()
    }

    pub(crate) fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// A sign of life. `false`: no such broker is registered.
    pub(crate) fn heartbeat(&mut self, broker_name: &str, address: &str, now: Instant) -> bool {
        let group = self.groups.get_mut(broker_name);
        let member = group.and_then(|group| group.member_at_mut(address));
        if let Some(member) = member {
            member.last_heard = now;
            return true;
        }
        false
    }

    /// The version of the topics that a broker registered last; `None` when it has to register
    /// all of them again.
    pub(crate) fn data_version(&self, broker_name: &str, address: &str) -> Option<DataVersion> {
        let group = self.groups.get(broker_name)?;
        let member = group.members.values().find(|member| member.address == address)?;
        member.is_complete.then_some(member.data_version)
    }

    /// Forgets the member of the group that has `address`, whatever its id, unless it has registered on a
    /// connection that is newer than `connection`, on which the goodbye came: that was said before.
    pub(crate) fn unregister(
        &mut self,
        broker_name: &str,
        address: &str,
        connection: u64,
    ) -> Vec<Gone> {
        self.remove_members(|name, member| {
            name == broker_name && member.address == address && member.connection <= connection
        })
    }

    /// Forgets what `connection` registered.
    pub(crate) fn connection_closed(&mut self, connection: u64) -> Vec<Gone> {
        self.remove_members(|_, member| member.connection == connection)
    }

    /// Forgets the brokers that were silent for longer than their timeout.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Gone> {
        self.remove_members(|_, member| member.deadline() <= now)
    }

    /// When the next broker expires if nothing is heard from it.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.groups.values().flat_map(|group| group.members.values()).map(Member::deadline).min()
    }

    fn remove_members(&mut self, mut leaves: impl FnMut(&str, &Member) -> bool) -> Vec<Gone> {
        let mut gone = Vec::new();
        let mut emptied = Vec::new();
        for (name, group) in &mut self.groups {
            let left = group.members.extract_if(.., |_, member| leaves(name.as_str(), member));
            gone.extend(left.map(|(broker_id, member)| Gone {
                broker_name: name.clone(),
                broker_id,
                address: member.address,
                connection: member.connection,
            }));
            if group.members.is_empty() {
                emptied.push(name.clone());
            }
        }
        self.remove_groups(&emptied);
        gone
    }

    fn remove_groups(&mut self, names: &[ResourceName]) {
        if names.is_empty() {
            return;
        }
        for name in names {
            self.groups.remove(name);
        }
        self.topics.retain(|_, topic| {
            topic.0.retain(|(broker, _)| !names.contains(broker));
            !topic.0.is_empty()
        });
        self.mappings.retain(|_, brokers| {
            brokers.retain(|broker, _| !names.contains(broker));
            !brokers.is_empty()
        });
    }

    /// Adds a topic on the brokers of `queues`, or none of it.
    pub(crate) fn add_topic(
        &mut self,
        topic: &ResourceName,
        queues: &[QueueData],
    ) -> Result<(), AddTopicError> {
        let mut added = Vec::with_capacity(queues.len());
        for queue in queues {
            let (broker, _) = self
                .groups
                .get_key_value(queue.broker_name.as_str())
                .ok_or_else(|| AddTopicError::UnknownBroker(queue.broker_name.clone()))?;
            let most = queue.read_queue_nums.max(queue.write_queue_nums);
            if most > QUEUES_MAX || queue.read_queue_nums.min(queue.write_queue_nums) < 0 {
                return Err(AddTopicError::Queues { queues: most });
            }
            let queues = Queues {
                read: queue.read_queue_nums,
                write: queue.write_queue_nums,
                perm: queue.perm,
                sys_flag: queue.topic_sys_flag,
                is_wiped: false,
            };
            added.push((broker.clone(), queues));
        }
        if !self.topics.contains_key(topic) && self.topics.len() >= self.limits.topics_max {
            return Err(AddTopicError::TooManyTopics { limit: self.limits.topics_max });
        }
        if !added.is_empty() {
            let entry = self.topics.entry(topic.clone()).or_default();
            added.into_iter().for_each(|(broker, queues)| entry.put(&broker, queues));
        }
        Ok(())
    }

    /// Forgets a topic, on all brokers or on those of one cluster. It comes back when a broker
    /// that still has it registers a newer version of its topics.
    pub(crate) fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(entry) = self.topics.get_mut(topic) else { return };
        match cluster {
            Some(cluster) => {
                let groups = &self.groups;
                let is_of_cluster = |broker: &ResourceName| {
                    groups.get(broker).is_some_and(|group| group.cluster.as_str() == cluster)
                };
                entry.0.retain(|(broker, _)| !is_of_cluster(broker));
            }
            None => entry.0.clear(),
        }
        if entry.0.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Takes the write bit from all topics of a broker, or gives back what the broker registered.
    /// Lasts until the broker registers a newer version. The result counts the broker's topics.
    ///
    /// Apache's `addWritePerm` sets reading and writing even where the broker forbids writing;
    /// here a topic gets back the permission that its broker registered.
    pub(crate) fn set_wiped(&mut self, broker_name: &str, is_wiped: bool) -> usize {
        let mut count = 0;
        for topic in self.topics.values_mut() {
            if let Some(queues) = topic.get_mut(broker_name) {
                queues.is_wiped = is_wiped;
                count += 1;
            }
        }
        count
    }

    /// All clusters and brokers, with the addresses for this asker.
    pub(crate) fn cluster_info(&self, asker: Asker<'_>) -> ClusterInfo {
        let mut info = ClusterInfo::default();
        for (name, group) in &self.groups {
            let names = info.cluster_addr_table.entry(group.cluster.to_string()).or_default();
            names.insert(name.to_string());
            let broker = BrokerData {
                broker_addrs: group.addresses(asker),
                broker_name: name.to_string(),
                cluster: group.cluster.to_string(),
                enable_acting_master: group.enable_acting_master,
                zone_name: group.zone.clone(),
            };
            info.broker_addr_table.insert(name.to_string(), broker);
        }
        info
    }

    /// The members of a group; without addresses when there is no such group, as Apache answers.
    pub(crate) fn member_group(
        &self,
        cluster: &ResourceName,
        broker_name: &ResourceName,
        asker: Asker<'_>,
    ) -> BrokerMemberGroup {
        let group = self.groups.get(broker_name);
        BrokerMemberGroup {
            broker_addrs: group.map(|group| group.addresses(asker)).unwrap_or_default(),
            broker_name: broker_name.to_string(),
            cluster: cluster.to_string(),
        }
    }

    pub(crate) fn topic_list(&self) -> TopicList {
        list(self.topics.keys().map(ResourceName::to_string).collect())
    }

    pub(crate) fn topics_of_cluster(&self, cluster: &str) -> TopicList {
        let is_of_cluster = |topic: &Topic| {
            topic.0.iter().any(|(broker, _)| {
                self.groups.get(broker).is_some_and(|group| group.cluster.as_str() == cluster)
            })
        };
        self.topics_where(is_of_cluster)
    }

    /// The topics that exist because a cluster or a broker does: they are named like them. The
    /// address is that of some broker, which the caller asks for the rest.
    pub(crate) fn system_topic_list(&self, asker: Asker<'_>) -> TopicList {
        let mut topic_list = BTreeSet::new();
        for (name, group) in &self.groups {
            topic_list.insert(group.cluster.to_string());
            topic_list.insert(name.to_string());
        }
        let first = self.groups.values().next().and_then(|group| group.members.values().next());
        let broker_addr = first.map(|member| member.address_for(asker).into_owned());
        TopicList { broker_addr, topic_list }
    }

    pub(crate) fn unit_topics(&self) -> TopicList {
        self.topics_where(|topic| topic.has_flag(FLAG_UNIT))
    }

    pub(crate) fn unit_sub_topics(&self) -> TopicList {
        self.topics_where(|topic| topic.has_flag(FLAG_UNIT_SUB))
    }

    pub(crate) fn unit_sub_without_unit_topics(&self) -> TopicList {
        self.topics_where(|topic| topic.has_flag(FLAG_UNIT_SUB) && !topic.has_flag(FLAG_UNIT))
    }

    fn topics_where(&self, is_listed: impl Fn(&Topic) -> bool) -> TopicList {
        let listed = self.topics.iter().filter(|(_, topic)| is_listed(topic));
        list(listed.map(|(name, _)| name.to_string()).collect())
    }
}

/// How somebody who asks has come here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The name of the listener that the question came in on.
    pub(crate) listener: &'a str,
    /// The address of this machine that the asker connected to.
    pub(crate) reached_at: IpAddr,
}

fn list(topic_list: BTreeSet<String>) -> TopicList {
    TopicList { broker_addr: None, topic_list }
}

impl BrokerGroup {
    fn has_master(&self) -> bool {
        self.members.contains_key(&MASTER_ID)
    }

    fn member_at_mut(&mut self, address: &str) -> Option<&mut Member> {
        self.members.values_mut().find(|member| member.address == address)
    }

    fn addresses(&self, asker: Asker<'_>) -> BTreeMap<i64, String> {
        let members = self.members.iter();
        members.map(|(id, member)| (*id, member.address_for(asker).into_owned())).collect()
    }

    /// What clients may do with these queues now.
    fn effective_perm(&self, queues: &Queues) -> i32 {
        let is_read_only = queues.is_wiped || (self.enable_acting_master && !self.has_master());
        if is_read_only { queues.perm & !PERM_WRITE } else { queues.perm }
    }
}

impl Member {
    /// Brokers that do not know the listener are answered with their only address: that is what
    /// Apache's brokers have. A broker that is bound to every address of its machine and says so
    /// is shown at the one that the asker reached this NameServer by: the standalone process is
    /// both, and so it works through forwarded ports and from other machines alike.
    fn address_for(&self, asker: Asker<'_>) -> Cow<'_, str> {
        let address = self.listener_addresses.get(asker.listener).unwrap_or(&self.address);
        let port = ["0.0.0.0:", "[::]:"].iter().find_map(|any| address.strip_prefix(any));
        match port.and_then(|port| port.parse().ok()) {
            Some(port) => Cow::Owned(SocketAddr::new(asker.reached_at, port).to_string()),
            None => Cow::Borrowed(address),
        }
    }

    fn deadline(&self) -> Instant {
        self.last_heard + self.heartbeat_timeout
    }
}

impl Topic {
    fn find(&self, broker: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| name.as_str().cmp(broker))
    }

    fn get_mut(&mut self, broker: &str) -> Option<&mut Queues> {
        let at = self.find(broker).ok()?;
        Some(&mut self.0[at].1)
    }

    fn put(&mut self, broker: &ResourceName, queues: Queues) {
        match self.find(broker.as_str()) {
            Ok(at) => self.0[at].1 = queues,
            Err(at) => {
                // Most topics live on few brokers: room for exactly those that there are.
                self.0.reserve_exact(1);
                self.0.insert(at, (broker.clone(), queues));
            }
        }
    }

    /// Apache looks at one broker only too.
    fn has_flag(&self, flag: i32) -> bool {
        self.0.first().is_some_and(|(_, queues)| queues.sys_flag & flag != 0)
    }
}
