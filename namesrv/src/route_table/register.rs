//! Taking in a broker. Source: `RouteInfoManager.registerBroker`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{DataVersion, TopicConfigSerializeWrapper};

use super::{BrokerGroup, MASTER_ID, Member, QUEUES_MAX, Queues, RouteTable, Topic};

/// For how long after its last word a master keeps its place from another one of the same epoch. Longer than
/// the 30 s in which a master that is there says something (Apache's `registerNameServerPeriod`), and not much
/// longer: where Apache's controller leaves a master that comes back with another address its epoch, that
/// waits for so long, if the end of the connection before was lost.
const SAME_EPOCH_KEPT: Duration = Duration::from_secs(40);

/// What a broker tells with code 103, names and addresses proved.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) cluster: ResourceName,
    pub(crate) broker_name: ResourceName,
    /// 0 or more.
    pub(crate) broker_id: i64,
    pub(crate) address: String,
    pub(crate) ha_address: String,
    pub(crate) listener_addresses: BTreeMap<String, String>,
    pub(crate) zone: Option<String>,
    /// `None` from brokers before 5.0.
    pub(crate) enable_acting_master: Option<bool>,
    pub(crate) heartbeat_timeout: Duration,
    pub(crate) filter_servers: Vec<String>,
    /// What `topics` does not say is still true.
    pub(crate) is_part: bool,
    /// Topic names in it are not proved yet.
    pub(crate) topics: TopicConfigSerializeWrapper,
    pub(crate) connection: u64,
}

/// What came of a registration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Registered {
    /// The broker was not known under this id and address.
    pub(crate) is_new: bool,
    /// The silence after which it is forgotten is not what it was.
    pub(crate) deadline_changed: bool,
    /// The address that had this id before.
    pub(crate) replaced: Option<String>,
    /// For a slave: where its master accepts slaves, and the master's address.
    pub(crate) master: Option<(String, String)>,
    /// Topics that were left out, and why the first of them was.
    pub(crate) refused_topics: usize,
    pub(crate) first_refusal: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegistrationError {
    #[error(
        "broker {name}, id {id}, is registered from {held_by} with state version {held}; a \
         registration with state version {offered} is older and refused"
    )]
    Outranked { name: ResourceName, id: i64, held_by: String, held: i64, offered: i64 },
    #[error(
        "broker {name} has a master with the same state version, {state_version}, which is there: {held_by}. An epoch \
         has one master, so these are two that were started under one name: give one another broker \
         name, or make it a slave of the other"
    )]
    TwoMasters { name: ResourceName, held_by: String, state_version: i64 },
    #[error(
        "broker {name} at {address} has registered on a newer connection; a registration that is not newer \
         itself and comes on this one is late and refused"
    )]
    Late { name: ResourceName, address: String },
    #[error(
        "broker name {name} belongs to cluster {cluster} ({held_by} is registered); names are \
         unique over all clusters of a name server: choose another one"
    )]
    OtherCluster { name: ResourceName, cluster: ResourceName, held_by: String },
    #[error("there are {limit} brokers already, which is the limit (limits.brokers_max)")]
    TooManyBrokers { limit: usize },
}

impl RouteTable {
    /// Takes in a broker, or refreshes it.
    ///
    /// A table of topics may come in several parts: nothing that is missing from it is forgotten,
    /// unless `delete_missing_topics` says so and it is not marked as a part.
    ///
    /// # Errors
    /// Nothing has changed after an error.
    pub(crate) fn register(
        &mut self,
        registration: Registration,
        now: Instant,
    ) -> Result<Registered, RegistrationError> {
        self.check(&registration, now)?;
        let Registration { cluster, broker_name, broker_id, address, connection, .. } =
            registration;
        let group = self.groups.entry(broker_name.clone()).or_insert_with(|| BrokerGroup {
            cluster: cluster.clone(),
            zone: None,
            enable_acting_master: false,
            members: BTreeMap::new(),
        });
        group.cluster = cluster;
        group.zone = registration.zone;
        group.enable_acting_master = registration.enable_acting_master.unwrap_or(false);
        // A broker that changed its id leaves its old one.
        group.members.retain(|id, member| *id == broker_id || member.address != address);

        let previous = group.members.remove(&broker_id);
        let id_was_free = previous.is_none();
        let replaced = previous.as_ref().filter(|member| member.address != address);
        let replaced = replaced.map(|member| member.address.clone());
        let same = previous.filter(|member| member.address == address);
        let known = same.as_ref().filter(|member| member.is_complete);
        let version = registration.topics.data_version;
        let is_changed = id_was_free || known.is_none_or(|member| member.data_version != version);
        // Apache's broker may send a topic that was just created all alone. Apache's name server
        // refuses that from a broker it does not know; here the topic gets its route, and the
        // version stays unknown so that the broker is asked for the rest.
        let is_complete = registration.topics.topic_config_table.len() != 1 || known.is_some();
        let deadline_changed = same
            .as_ref()
            .is_none_or(|member| member.heartbeat_timeout != registration.heartbeat_timeout);
        let is_new = same.is_none();
        let is_part = registration.is_part;
        let member = Member {
            address,
            listener_addresses: registration.listener_addresses,
            ha_address: registration.ha_address,
            filter_servers: registration.filter_servers,
            data_version: version,
            is_complete,
            heartbeat_timeout: registration.heartbeat_timeout,
            last_heard: now,
            connection,
        };
        group.members.insert(broker_id, member);
        let master = group.members.get(&MASTER_ID).filter(|_| broker_id != MASTER_ID);
        let master = master.map(|master| (master.ha_address.clone(), master.address.clone()));

        // While there is no master, the slave with the lowest id speaks for the group; brokers
        // before 5.0 never do.
        let lowest = group.members.keys().next() == Some(&broker_id);
        let speaks =
            broker_id == MASTER_ID || (registration.enable_acting_master.is_some() && lowest);
        let mut registered =
            Registered { is_new, deadline_changed, replaced, master, ..Registered::default() };
        if speaks {
            if self.limits.delete_missing_topics && !is_part {
                self.delete_missing(&broker_name, &registration.topics);
            }
            self.take_topics(&broker_name, registration.topics, is_changed, &mut registered);
        }
        Ok(registered)
    }

    fn check(&self, registration: &Registration, now: Instant) -> Result<(), RegistrationError> {
        let name = &registration.broker_name;
        let group = self.groups.get(name);
        let others = group.into_iter().flat_map(|group| group.members.values());
        let other = others.into_iter().find(|member| member.address != registration.address);
        if let (Some(group), Some(other)) = (group, other)
            && group.cluster != registration.cluster
        {
            // Apache mixes both clusters' brokers under one name, and messages go astray.
            return Err(RegistrationError::OtherCluster {
                name: name.clone(),
                cluster: group.cluster.clone(),
                held_by: other.address.clone(),
            });
        }
        let offered = registration.topics.data_version.state_version;
        // What a broker wrote before it was cut off arrives when it is there again, and has connected anew. It
        // would take the place of what it said since, and leave it empty with its old connection.
        let is_late = |member: &Member| {
            member.address == registration.address
                && member.connection > registration.connection
                && member.data_version.state_version >= offered
        };
        if group.is_some_and(|group| group.members.values().any(is_late)) {
            let (name, address) = (name.clone(), registration.address.clone());
            return Err(RegistrationError::Late { name, address });
        }
        let holder = group.and_then(|group| group.members.get(&registration.broker_id));
        let Some(holder) = holder else {
            let limit = self.limits.brokers_max;
            if self.broker_count() >= limit {
                return Err(RegistrationError::TooManyBrokers { limit });
            }
            return Ok(());
        };
        let held = holder.data_version.state_version;
        // Masters of a group may share an address, that of a Service, as well: one that was cut off and
        // comes back would take the later one's place, and leave it empty with its connection.
        let is_another =
            holder.address != registration.address || holder.connection != registration.connection;
        if is_another && held > offered {
            return Err(RegistrationError::Outranked {
                name: name.clone(),
                id: registration.broker_id,
                held_by: holder.address.clone(),
                held,
                offered,
            });
        }
        // Each start of a master by configuration, each election and each hand-over begins an epoch, so another
        // address has the same one only where another process has. 0 is no epoch: brokers that are
        // alone, and Apache's without a controller, may be anywhere after a restart. Slaves may as well.
        let is_elsewhere =
            holder.address != registration.address && holder.connection != registration.connection;
        let is_there = now < holder.last_heard + SAME_EPOCH_KEPT;
        if registration.broker_id == MASTER_ID
            && held == offered
            && held > 0
            && is_elsewhere
            && is_there
        {
            return Err(RegistrationError::TwoMasters {
                name: name.clone(),
                held_by: holder.address.clone(),
                state_version: held,
            });
        }
        Ok(())
    }

    fn delete_missing(&mut self, broker: &ResourceName, topics: &TopicConfigSerializeWrapper) {
        let table = &topics.topic_config_table;
        if topics.topic_queue_mapping_info_map.is_empty() && table.len() > 1 {
            self.topics.retain(|name, topic| {
                if !table.contains_key(name.as_str()) {
                    topic.0.retain(|(owner, _)| owner != broker);
                }
                !topic.0.is_empty()
            });
        }
    }

    fn take_topics(
        &mut self,
        broker: &ResourceName,
        topics: TopicConfigSerializeWrapper,
        is_changed: bool,
        registered: &mut Registered,
    ) {
        let mappings = topics.topic_queue_mapping_info_map;
        for config in topics.topic_config_table.values() {
            let queues = Queues {
                read: config.read_queue_nums,
                write: config.write_queue_nums,
                perm: config.perm,
                sys_flag: config.topic_sys_flag,
                is_wiped: false,
            };
            if let Err(refusal) = self.take_topic(broker, &config.topic_name, queues, is_changed) {
                registered.refused_topics += 1;
                registered.first_refusal.get_or_insert(refusal);
            }
        }
        if is_changed {
            for (name, mapping) in mappings {
                if let Some((name, _)) = self.topics.get_key_value(name.as_str()) {
                    let brokers = self.mappings.entry(name.clone()).or_default();
                    brokers.insert(broker.clone(), mapping);
                }
            }
        }
    }

    /// One topic, or the reason to leave it out.
    fn take_topic(
        &mut self,
        broker: &ResourceName,
        name: &str,
        queues: Queues,
        is_changed: bool,
    ) -> Result<(), String> {
        if !(0..=QUEUES_MAX).contains(&queues.read) || !(0..=QUEUES_MAX).contains(&queues.write) {
            let Queues { read, write, .. } = queues;
            return Err(format!(
                "topic {name:?} has {read} queues to read and {write} to write; 0 to {QUEUES_MAX} are possible"
            ));
        }
        if let Some(topic) = self.topics.get_mut(name) {
            if is_changed || topic.find(broker.as_str()).is_err() {
                topic.put(broker, queues);
            }
            return Ok(());
        }
        // Topics named like a broker or a cluster may have its dots.
        let name = ResourceName::topic(name)
            .or_else(|error| ResourceName::broker(name).map_err(|_| error))
            .map_err(|error| error.to_string())?;
        let limit = self.limits.topics_max;
        if self.topics.len() >= limit {
            return Err(format!(
                "topic {name}: there are {limit} topics already (limits.topics_max)"
            ));
        }
        let mut topic = Topic::default();
        topic.put(broker, queues);
        self.topics.insert(name, topic);
        Ok(())
    }
}

impl Registration {
    /// How new the topics are.
    pub(crate) fn data_version(&self) -> DataVersion {
        self.topics.data_version
    }
}
