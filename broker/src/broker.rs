//! The broker's parts together, and what several request families need of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use weirmq_authority::ReplicaId;
use weirmq_message::{Decoded, Record, properties};
use weirmq_remoting::body::{DataVersion, SubscriptionGroupConfig};
use weirmq_remoting::command::SerializeType;
use weirmq_remoting::header::{ConsumerGroupHeader, Header as _};
use weirmq_remoting::net::Connection;
use weirmq_remoting::{RequestCode, ResourceName, ResponseCode};
use weirmq_store::{Appended, NewMessage, Store, StoreError};

use crate::acknowledgement::{Acknowledgements, Arrival, Then};
use crate::clients::{Changed, Clients};
use crate::cold_reads::ColdReads;
use crate::config::{BrokerConfig, Flush};
use crate::long_poll::LongPolls;
use crate::metrics::Metrics;
use crate::offsets::CommittedOffset;
use crate::replication::{self, HandOverError, Restart, RoleStatus};
use crate::request::{Refusal, pull};
use crate::slave_offsets::{self, SLAVE_OFFSETS_MAX, SlaveOffsets};
use crate::state::{State, StateError, StateRecord};
use crate::topic_changes::TopicChanges;
use crate::topics::{PERM_READ, PERM_WRITE, SCHEDULE_TOPIC, STATE_TOPIC, Topic};
use crate::unique_keys::UniqueKeys;

/// A complete image of the state goes into the log whenever this much was written since the last.
const IMAGE_EVERY_BYTES: u64 = 1 << 30;
/// How long the reply to a request that made a topic waits for a NameServer to know it.
const REGISTRATION_WAIT: Duration = Duration::from_millis(500);
/// Read buffers that wait to be used again.
const BUFFERS_MAX: usize = 8;
/// Larger buffers are given back to the system.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Why a broker ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing can be promised any more.
    Failed(String),
    /// It has to begin anew, with another log or without what only its tables hold.
    Restart(Restart),
}

/// A running broker. Requests come in on I/O threads; everything here may be used from any thread.
pub(crate) struct Broker {
    pub config: BrokerConfig,
    pub store: Store,
    pub state: State,
    pub clients: Clients,
    pub metrics: Arc<Metrics>,
    /// What there is to know of the replica that this broker is; `None` for one that is alone.
    pub(crate) replication: Option<Arc<replication::Shared>>,
    /// The port of the main listener; the fast one is two below.
    pub main_port: u16,
    /// When the broker started, in milliseconds since 1970.
    pub started_ms: i64,
    pub(crate) cold_reads: ColdReads,
    pub(crate) long_polls: LongPolls,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) unique_keys: UniqueKeys,
    /// `CLUSTER`, encoded: every message gets it.
    pub(crate) cluster_property: Vec<u8>,
    pub(crate) schedule_topic: Arc<Topic>,
    /// Memory of this machine.
    pub(crate) memory_bytes: u64,
    pub(crate) topic_changes: TopicChanges,
    /// When the topic table changed last, in milliseconds since 1970.
    topics_changed_ms: AtomicI64,
    /// The flush thread has come further.
    pub(crate) flushed: Notify,
    /// A delayed message was stored.
    pub(crate) delayed_arrived: Notify,
    /// The first offset was committed since the log was told.
    pub(crate) offsets_committed: Notify,
    /// What a slave keeps of offsets has changed.
    pub(crate) slave_offsets_changed: Notify,
    /// So much was written that the log needs an image.
    pub(crate) image_due: Notify,
    registration: Registration,
    /// The control runtime.
    pub(crate) runtime: tokio::runtime::Handle,
    /// Why the broker ends; set once.
    end: watch::Sender<Option<End>>,
    bound: SocketAddr,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Broker {
    /// Puts a broker together. `bound` is the address of its main listener.
    pub(crate) fn new(
        config: BrokerConfig,
        store: Store,
        state: State,
        bound: SocketAddr,
        admin: weirmq_admin::Admin,
        metrics: Arc<Metrics>,
        replication: Option<Arc<replication::Shared>>,
    ) -> Self {
        let mut cluster_property = Vec::new();
        properties::push(&mut cluster_property, properties::names::CLUSTER, &config.cluster);
        let schedule_topic = state
            .topics
            .get(SCHEDULE_TOPIC)
            .unwrap_or_else(|| Arc::new(Topic::new(SCHEDULE_TOPIC, crate::delay::LEVELS as u32)));
        let now_ms = now_ms();
        Self {
            cold_reads: ColdReads::new(config.limits.cold_read_bytes_per_second),
            long_polls: LongPolls::new(config.limits.held_pulls_max),
            acknowledgements: Acknowledgements::new(Duration::from_millis(
                config.limits.flush_timeout_ms,
            )),
            unique_keys: UniqueKeys::new(),
            cluster_property,
            schedule_topic,
            memory_bytes: memory_bytes(),
            topic_changes: TopicChanges::new(),
            topics_changed_ms: AtomicI64::new(now_ms),
            flushed: Notify::new(),
            delayed_arrived: Notify::new(),
            offsets_committed: Notify::new(),
            slave_offsets_changed: Notify::new(),
            image_due: Notify::new(),
            metrics,
            replication,
            main_port: bound.port(),
            started_ms: now_ms,
            clients: Clients::default(),
            registration: Registration::new(&admin),
            runtime: tokio::runtime::Handle::current(),
            end: watch::Sender::new(None),
            buffers: Mutex::default(),
            config,
            store,
            state,
            bound,
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        now_ms()
    }

    /// When the oldest message of the log was stored, in milliseconds since 1970; `None` when the
    /// log is empty.
    pub(crate) fn earliest_store_time(&self) -> Result<Option<i64>, StoreError> {
        let mut bytes = Vec::new();
        if self.store.read_record(self.store.min_offset(), &mut bytes)?.is_none() {
            return Ok(None);
        }
        Ok(match Record::decode(&bytes, false) {
            Ok(Decoded::Record(record, _)) => Some(record.store_timestamp),
            _ => None,
        })
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.config.permission & PERM_WRITE != 0
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.config.permission & PERM_READ != 0
    }

    /// What registered topics may at most be used for, as bits of their permission.
    pub(crate) fn permission_mask(&self) -> i32 {
        // The inherit bit is not the broker's to give or take.
        (self.config.permission | crate::topics::PERM_INHERIT) as i32
    }

    /// The address that NameServers give to clients.
    pub(crate) fn advertised_address(&self) -> String {
        let default = self.config.advertise.get("default");
        default.cloned().unwrap_or_else(|| self.bound.to_string())
    }

    /// Where other replicas reach this one; `None` for a broker that is alone.
    pub(crate) fn replication_address(&self) -> Option<String> {
        self.replication.as_ref()?;
        let address = self.advertised_address();
        let (host, port) = address.rsplit_once(':')?;
        Some(format!("{host}:{}", port.parse::<u16>().ok()?.checked_add(1)?))
    }

    /// The address that a message says it is stored at: the one the producer reached us by, with
    /// the main port. With it a message is found again by its id.
    pub(crate) fn store_host(&self, connection: &Connection) -> SocketAddr {
        SocketAddr::new(connection.local().ip().to_canonical(), self.main_port)
    }

    /// The version of the topic table, as NameServers compare it.
    pub(crate) fn data_version(&self) -> DataVersion {
        DataVersion {
            counter: self.topic_changes.version(),
            state_version: 0,
            timestamp: self.topics_changed_ms.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn topics_version(&self) -> i64 {
        self.topic_changes.version()
    }

    /// Sends replies once every NameServer that answers knows today's topics, or one of them has
    /// become slow.
    pub(crate) fn write_when_registered(&self, connection: &Connection, mut replies: Vec<u8>) {
        if replies.is_empty() {
            return;
        }
        let version = self.topics_version();
        let has_name_servers = !self.config.name_servers.is_empty();
        let mut registered = self.registration.known.subscribe();
        let connection = connection.clone();
        self.runtime.spawn(async move {
            if has_name_servers {
                let known = registered.wait_for(|known| *known >= version);
                let _ = tokio::time::timeout(REGISTRATION_WAIT, known).await;
            }
            let _ = connection.write(|out| out.append(&mut replies));
        });
    }

    /// Notes a change of the topic table, for those who tell NameServers.
    pub(crate) fn topic_changed(&self, name: &str) {
        self.topics_changed_ms.store(now_ms(), Ordering::Relaxed);
        self.topic_changes.note(name);
    }

    /// Appends messages, and shows them to those who wait for them as soon as they are visible.
    /// Never waits for the disk: [`StoreError::Busy`] where others would.
    pub(crate) fn append(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        if let Err(error) = self.store.append_now(messages, appended) {
            if let StoreError::Poisoned { cause } = &error {
                self.fail(cause.clone());
            }
            return Err(error);
        }
        let visible = self.store.watermarks().visible();
        let end = appended.last().map_or(0, |last| last.end_offset);
        if end > visible {
            // Who waits for these messages may come before they are visible.
            self.wait(end, Instant::now(), Then::Show(Arrival::of_all(messages, appended)));
        } else {
            let must_tell = self.long_polls.len() > 0;
            for (message, at) in messages.iter().zip(&*appended) {
                if must_tell || message.topic == SCHEDULE_TOPIC {
                    self.show(message.topic, message.queue_id, at.queue_offset, message.tag_hash);
                }
            }
        }
        if self.state.log_since_image() > IMAGE_EVERY_BYTES {
            self.image_due.notify_one();
        }
        Ok(())
    }

    /// Tells those who wait for an entry that it is visible: pulls, and the delivery of delayed
    /// messages.
    fn show(&self, topic: &str, queue: i32, offset: u64, tag_hash: i64) {
        if topic == SCHEDULE_TOPIC {
            self.delayed_arrived.notify_one();
        }
        for held in self.long_polls.take_matching(topic, queue, offset, tag_hash) {
            pull::resume(self, held);
        }
    }

    /// Up to where messages and changes may be acknowledged: what is visible and, of a replica, what
    /// its group has.
    pub(crate) fn acknowledged(&self) -> u64 {
        let visible = self.store.watermarks().visible();
        match &self.replication {
            None => visible,
            Some(replication) => visible.min(replication.acknowledged(self.store.clock().uptime())),
        }
    }

    /// Refuses what only a master does.
    pub(crate) fn check_master(&self) -> Result<(), Refusal> {
        let refusal = self.replication.as_ref().and_then(|replication| replication.refusal());
        refusal.map_or(Ok(()), Err)
    }

    /// Whether another replica is the master, or nobody is known to be.
    pub(crate) fn is_slave(&self) -> bool {
        self.replication
            .as_ref()
            .is_some_and(|replication| !matches!(replication.role(), RoleStatus::Master { .. }))
    }

    /// Whether messages may have been shown elsewhere that this replica does not show: it is a slave, or
    /// a master that does not serve yet.
    pub(crate) fn may_lack_shown(&self) -> bool {
        self.replication.as_ref().is_some_and(|replication| {
            !matches!(replication.role(), RoleStatus::Master { may_append: true })
        })
    }

    /// Refuses to speak of what is in the queues while this replica does not know what of it is
    /// confirmed: an unknown end must not be taken for 0, to which a consumer would go back.
    pub(crate) fn check_visible(&self) -> Result<(), Refusal> {
        let is_known = self.replication.as_ref().is_none_or(|replication| {
            replication.is_state_known()
                && (self.store.watermarks().visible() > 0 || self.store.max_offset() == 0)
        });
        if is_known {
            return Ok(());
        }
        let remark = "this replica does not know yet what of its log is confirmed; ask again";
        Err(Refusal::new(ResponseCode::SystemBusy, remark))
    }

    /// The id under which clients find this broker, 0 for a master; `None` while it is not known
    /// who is.
    pub(crate) fn registration_id(&self) -> Option<i64> {
        let Some(replication) = &self.replication else { return Some(0) };
        match replication.role() {
            RoleStatus::Master { .. } => Some(0),
            RoleStatus::Slave { .. } => Some(self.own_slave_id()),
            RoleStatus::Waiting => None,
        }
    }

    /// Grows with each change of the group's master; 0 for a broker that is alone.
    pub(crate) fn epoch(&self) -> u64 {
        self.replication.as_ref().map_or(0, |replication| replication.epoch())
    }

    /// From which broker of the group a consumer should pull next, after one pull that waited for
    /// the disk or not: the master, a slave that can read old messages in its place, or this
    /// slave while the master is away.
    pub(crate) fn suggested_broker(&self, is_cold: bool) -> i64 {
        let Some(replication) = &self.replication else { return 0 };
        if let (RoleStatus::Master { .. }, false) = (replication.role(), is_cold) {
            return 0;
        }
        let status = replication.status();
        let mut connected = status.peers.iter().filter(|peer| peer.is_connected);
        match status.role {
            RoleStatus::Master { .. } => {
                let slave = connected.find(|peer| peer.is_in_sync);
                slave.map_or(0, |slave| self.config.slave_id(slave.replica))
            }
            RoleStatus::Slave { master } if connected.any(|peer| peer.replica == master) => 0,
            RoleStatus::Slave { .. } | RoleStatus::Waiting => self.own_slave_id(),
        }
    }

    pub(crate) fn own_slave_id(&self) -> i64 {
        self.config.slave_id(u32::try_from(self.config.broker_id).unwrap_or(u32::MAX))
    }

    /// Hands the office of the master over, after the log was told what this one knows.
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        heir: Option<ReplicaId>,
    ) -> Result<(), HandOverError> {
        let Some(replication) = &self.replication else { return Err(HandOverError::NotMaster) };
        let worker = self.clone();
        let log = move || worker.state.patiently(|| worker.state.log_offsets());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(log).await {
            tracing::warn!(%error, "consumer offsets not logged before the hand-over");
        }
        let patience = Duration::from_millis(self.config.replication.lease_ms) * 2;
        replication.hand_over(heir, patience).await
    }

    /// What a client is told of this error of an append.
    pub(crate) fn refusal(&self, error: StoreError) -> Refusal {
        let Some(replication) = &self.replication else { return error.into() };
        if !matches!(error, StoreError::NotMaster) {
            return error.into();
        }
        replication.count_fenced();
        replication.refusal().unwrap_or_else(|| error.into())
    }

    /// What a client is told of this error of a change.
    pub(crate) fn state_refusal(&self, error: StateError) -> Refusal {
        match error {
            StateError::Store(error) => self.refusal(error),
            error => error.into(),
        }
    }

    /// The code and the remark for what waited in vain for `position`.
    pub(crate) fn late_answer(&self, position: u64) -> (ResponseCode, &'static str) {
        let is_flushed = self.store.watermarks().flushed() >= position
            || self.config.store.flush == Flush::Async;
        let Some(replication) = self.replication.as_ref().filter(|_| is_flushed) else {
            return (
                ResponseCode::FlushDiskTimeout,
                "it was written, but the disk has not confirmed it in time; whether it survives a \
                 power failure is unknown",
            );
        };
        let is_reached = replication.status().peers.iter().any(|peer| peer.is_connected);
        let code = match is_reached {
            true => ResponseCode::FlushSlaveTimeout,
            false => ResponseCode::SlaveNotAvailable,
        };
        (
            code,
            "it was written here, but not all replicas in sync have confirmed it in time; whether \
             it survives the loss of this one is unknown",
        )
    }

    /// Does `then` once everything below `position` may be acknowledged. Its deadline counts from
    /// `since`.
    pub(crate) fn wait(&self, position: u64, since: Instant, then: Then) {
        self.acknowledgements.wait(position, since, then);
        // The flush may have come between the caller's look and the line above.
        if self.acknowledged() >= position {
            self.reached();
        }
    }

    /// Does everything that waited for a position that may be acknowledged by now.
    pub(crate) fn reached(&self) {
        for then in self.acknowledgements.take_reached(self.acknowledged()) {
            match then {
                Then::Answer { connection, reply, makes_topic: true, .. } => {
                    self.write_when_registered(&connection, reply);
                }
                Then::Answer { connection, mut reply, .. } => {
                    // A client that is gone does not want its answer any more.
                    let _ = connection.write(|out| out.append(&mut reply));
                }
                Then::Show(arrivals) => {
                    for arrival in arrivals {
                        let Arrival { topic, queue, offset, tag_hash } = arrival;
                        self.show(&topic, queue, offset, tag_hash);
                    }
                }
            }
        }
    }

    /// Notes an offset; `true` where it went to the offsets that a slave keeps.
    ///
    /// # Errors
    /// When those are too many.
    pub(crate) fn commit_offset(
        &self,
        group: &str,
        topic: &str,
        queue: i32,
        offset: i64,
    ) -> Result<bool, Refusal> {
        let offsets = &self.state.offsets;
        if !self.is_slave() {
            if offsets.commit(group, topic, queue, offset) {
                self.offsets_committed.notify_one();
            }
            return Ok(false);
        }
        let marks = self.store.watermarks();
        let safe = marks.visible().min(marks.flushed());
        let is_settled = marks.written() <= safe;
        if !offsets.commit_at_slave(group, topic, queue, offset, is_settled) {
            let remark = format!(
                "this slave keeps {SLAVE_OFFSETS_MAX} offsets for its next master, which is all it can"
            );
            return Err(Refusal::new(ResponseCode::SystemError, remark));
        }
        self.slave_offsets_changed.notify_one();
        Ok(true)
    }

    /// Takes over what was committed at replicas while they were slaves, each queue's offset only
    /// where it is greater. Of a queue that is not there, or ends before it, nothing is taken: the
    /// sender asks again until the log says what it wants.
    pub(crate) fn take_slave_offsets(&self, offsets: &[CommittedOffset]) {
        let mut is_first = false;
        for CommittedOffset { group, topic, queue, offset } in offsets {
            let end = self.store.queue_range(topic, *queue).map_or(0, |range| range.max);
            let is_there = self.has_queue(topic, *queue)
                && u64::try_from(*offset).is_ok_and(|offset| offset <= end);
            if is_there && self.group_or_create(group).is_ok() {
                is_first |= self.state.offsets.commit_forward(group, topic, *queue, *offset);
            }
        }
        if is_first {
            self.offsets_committed.notify_one();
        }
    }

    /// Forgets what was committed here as a slave and is in the log for good.
    pub(crate) fn forget_slave_offsets(&self) {
        self.state.forget_slave_offsets(|topic, queue| self.has_queue(topic, queue));
        self.slave_offsets_changed.notify_one();
    }

    fn has_queue(&self, topic: &str, queue: i32) -> bool {
        let topic = self.state.topics.get(topic);
        topic.is_some_and(|topic| u32::try_from(queue).is_ok_and(|queue| queue < topic.queues()))
    }

    /// Writes the file of the offsets that were committed here as a slave, if they have changed.
    /// Waits for the disk.
    pub(crate) fn write_slave_offsets(&self) -> Result<(), StoreError> {
        let offsets = &self.state.offsets;
        let Some(changed) = offsets.at_slave(SlaveOffsets::take_changed) else { return Ok(()) };
        let written = slave_offsets::write(&self.store, &changed);
        offsets.at_slave(|at_slave| at_slave.written(changed, written.is_ok()));
        written
    }

    /// The settings of a consumer group, which comes into being now if it may.
    pub(crate) fn group_or_create(
        &self,
        name: &str,
    ) -> Result<Arc<SubscriptionGroupConfig>, Refusal> {
        if let Some(group) = self.state.groups.get(name) {
            return Ok(group);
        }
        let missing = || {
            let remark = format!(
                "subscription group [{name}] does not exist; create it with `weir group create \
                 {name}`, or switch auto_create_groups on"
            );
            Refusal::new(ResponseCode::SubscriptionGroupNotExist, remark)
        };
        ResourceName::group(name)?;
        if !self.config.auto_create_groups && !crate::groups::is_system(name) {
            return Err(missing());
        }
        self.check_group_count(name)?;
        let group = SubscriptionGroupConfig {
            group_name: name.to_owned(),
            ..SubscriptionGroupConfig::default()
        };
        let made = self.state.change(|| {
            let is_absent = self.state.groups.get(name).is_none();
            is_absent.then(|| StateRecord::Group { group: Box::new(group.clone()) })
        });
        match made {
            // A full disk, or one that does not keep up, serves readers, new ones too, and so does
            // a slave; the group is noted when there is room.
            Err(StateError::Store(
                StoreError::Full { .. } | StoreError::Busy { .. } | StoreError::NotMaster,
            )) => {
                return Ok(Arc::new(group));
            }
            made => made?,
        };
        self.state.groups.get(name).ok_or_else(missing)
    }

    /// Creates the topic unless somebody else just has, and says what it is now.
    pub(crate) fn create_topic_if_absent(&self, topic: Topic) -> Result<Arc<Topic>, Refusal> {
        let name = topic.name.clone();
        if let Some(known) = self.state.topics.get(&name) {
            return Ok(known);
        }
        self.check_topic_count(&name)?;
        let created = self.state.change(|| {
            self.state.topics.get(&name).is_none().then_some(StateRecord::Topic { topic })
        });
        let created = created.map_err(|error| self.state_refusal(error))?;
        if created.is_made {
            tracing::info!(topic = name, "topic created automatically");
        }
        if created.is_made {
            self.topic_changed(&name);
        }
        self.state.topics.get(&name).ok_or_else(|| {
            Refusal::new(ResponseCode::TopicNotExist, format!("topic[{name}] was deleted"))
        })
    }

    /// The topic that a group's messages go to when they are to be consumed again.
    pub(crate) fn create_retry_topic(
        &self,
        group: &ResourceName,
        config: &SubscriptionGroupConfig,
    ) -> Result<(), Refusal> {
        if let Ok(queues @ 1..) = u32::try_from(config.retry_queue_nums) {
            self.create_topic_if_absent(Topic::new(group.retry_topic().as_str(), queues))?;
        }
        Ok(())
    }

    /// The topic of a group's messages that were given up; readable, so that they can be looked at.
    pub(crate) fn create_dead_letter_topic(
        &self,
        group: &ResourceName,
    ) -> Result<Arc<Topic>, Refusal> {
        self.create_topic_if_absent(Topic::new(group.dead_letter_topic().as_str(), 1))
    }

    /// Deletes a topic with its offsets. Its messages stay in the log until retention takes them;
    /// until then only their ids lead to them.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let deleted = self.state.delete_topic(name)?;
        if deleted.is_made {
            self.topic_changed(name);
        }
        for held in self.long_polls.take_of_topic(name) {
            pull::expire(self, held);
        }
        Ok(deleted.position)
    }

    /// Reads the record at a position that a client named, as far as clients may see it.
    pub(crate) fn read_client_record(
        &self,
        offset: i64,
        out: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        let before = out.len();
        let found = match u64::try_from(offset) {
            Ok(offset) => self.store.read_record(offset, out)?,
            Err(_) => None,
        };
        let is_shown = found.is_some()
            && matches!(
                Record::decode(&out[before..], false),
                Ok(Decoded::Record(record, _)) if record.topic != STATE_TOPIC
            );
        if !is_shown {
            out.truncate(before);
        }
        Ok(is_shown)
    }

    pub(crate) fn check_topic_count(&self, name: &str) -> Result<(), Refusal> {
        let limit = self.config.limits.topics_max;
        if self.state.topics.len() >= limit && self.state.topics.get(name).is_none() {
            let remark = format!("the broker has {limit} topics, which is limits.topics_max");
            return Err(Refusal::new(ResponseCode::SystemError, remark));
        }
        Ok(())
    }

    pub(crate) fn check_group_count(&self, name: &str) -> Result<(), Refusal> {
        let limit = self.config.limits.groups_max;
        if self.state.groups.len() >= limit && self.state.groups.get(name).is_none() {
            let remark = format!("the broker has {limit} groups, which is limits.groups_max");
            return Err(Refusal::new(ResponseCode::SystemError, remark));
        }
        Ok(())
    }

    /// Tells consumers that the members of their group have changed (code 40).
    pub(crate) fn members_changed(&self, changed: Changed) {
        for (group, members) in changed {
            let wants_it = self
                .state
                .groups
                .get(&group)
                .is_none_or(|config| config.notify_consumer_ids_changed_enable);
            if !wants_it {
                continue;
            }
            let header = ConsumerGroupHeader { consumer_group: group.as_str().into() };
            let code = RequestCode::NotifyConsumerIdsChanged.number();
            for member in members {
                let told =
                    member.send_one_way(SerializeType::Json, code, |w| header.encode(w), b"");
                if told.is_err() {
                    tracing::trace!(group, peer = %member.peer(), "member is gone already");
                }
            }
        }
    }

    /// Notes how registering at a NameServer went: the version of the topic table that it knows.
    pub(crate) fn registered(&self, name_server: &str, outcome: Result<i64, String>) {
        self.metrics.registered(name_server, outcome.is_ok());
        self.registration.set(name_server, outcome);
    }

    /// Ends the broker: after a failed write-back nothing can be promised any more.
    pub(crate) fn fail(&self, cause: String) {
        self.end_with(End::Failed(cause));
        self.acknowledgements.answer_late(Duration::ZERO, |position| self.late_answer(position));
    }

    /// Ends the broker, to begin anew.
    pub(crate) fn restart(&self, restart: Restart) {
        self.end_with(End::Restart(restart));
    }

    fn end_with(&self, end: End) {
        self.end.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(end);
            is_first
        });
    }

    /// Waits until the broker ends by itself, and says why.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(end)) => end,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn count_in<'a>(&self, sends: impl Iterator<Item = (&'a Topic, &'a [Appended])>) {
        self.metrics.count_in(&self.state.topics, sends);
    }

    pub(crate) fn count_out(&self, group: &str, topic: &Topic, messages: usize, bytes: usize) {
        self.metrics.count_out(&self.state.topics, group, topic, messages, bytes, now_ms());
    }

    /// An empty buffer for bodies.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        self.buffers.lock().pop().unwrap_or_default()
    }

    pub(crate) fn give_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(buffer);
        }
    }
}

/// Whether clients can find this broker: one NameServer that knows it is enough.
struct Registration {
    check: weirmq_admin::Check,
    by_name_server: Mutex<BTreeMap<String, Result<i64, String>>>,
    /// The version of the topic table that every NameServer knows at which this broker is
    /// registered.
    known: watch::Sender<i64>,
}

impl Registration {
    fn new(admin: &weirmq_admin::Admin) -> Self {
        Self {
            check: admin.check("broker/registered"),
            by_name_server: Mutex::default(),
            known: watch::Sender::new(0),
        }
    }

    fn set(&self, name_server: &str, outcome: Result<i64, String>) {
        let mut all = self.by_name_server.lock();
        all.insert(name_server.to_owned(), outcome);
        if let Some(known) = all.values().flatten().min() {
            self.known.send_replace(*known);
            self.check.ok();
        } else {
            let reasons = all.iter().filter_map(|(name_server, outcome)| {
                Some(format!("{name_server}: {}", outcome.as_ref().err()?))
            });
            self.check.failing(reasons.collect::<Vec<_>>().join("; "));
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}
