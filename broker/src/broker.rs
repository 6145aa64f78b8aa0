//! The broker's parts together, and what several request families need of them.

mod committed;
mod existence;
mod registered;
mod replica;
mod suggestion;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::Guard;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::TaskTracker;
use weirmq_message::{Decoded, Record, properties};
use weirmq_remoting::RequestCode;
use weirmq_remoting::body::DataVersion;
use weirmq_remoting::command::SerializeType;
use weirmq_remoting::header::{ConsumerGroupHeader, Header as _};
use weirmq_remoting::net::Connection;
use weirmq_store::{Appended, NewMessage, Store, StoreError};

pub(crate) use suggestion::Reader;

use registered::Registration;

use crate::acknowledgement::{Acknowledgements, Arrival, Then};
use crate::clients::{Changed, Clients};
use crate::cold_reads::ColdReads;
use crate::config::BrokerConfig;
use crate::configuration::Configuration;
use crate::long_poll::LongPolls;
use crate::metrics::Metrics;
use crate::replication::{self, Restart};
use crate::request::{blocking, pull};
use crate::state::State;
use crate::subscriptions;
use crate::topic_changes::TopicChanges;
use crate::topics::{PERM_READ, PERM_WRITE, SCHEDULE_TOPIC, STATE_TOPIC, TEMPLATE_TOPIC, Topic};
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
    /// Read anew for each use: it may change.
    pub(crate) configuration: Arc<Configuration>,
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
    /// Room for requests that wait for the disk on other threads.
    pub(crate) waits_for_the_disk: Arc<Semaphore>,
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
    /// The configuration names others.
    pub(crate) name_servers_changed: Notify,
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
    /// Those who are still to be told what became of the hand-over that they asked for.
    pub(crate) hand_overs: TaskTracker,
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
        configuration: Arc<Configuration>,
        store: Store,
        state: State,
        bound: SocketAddr,
        admin: weirmq_admin::Admin,
        metrics: Arc<Metrics>,
        replication: Option<Arc<replication::Shared>>,
    ) -> Self {
        let config = configuration.now();
        let mut cluster_property = Vec::new();
        properties::push(&mut cluster_property, properties::names::CLUSTER, &config.cluster);
        let schedule_topic = state
            .topics
            .get(SCHEDULE_TOPIC)
            .unwrap_or_else(|| Arc::new(Topic::new(SCHEDULE_TOPIC, crate::delay::LEVELS as u32)));
        let now_ms = now_ms();
        Self {
            cold_reads: ColdReads::new(config.limits.cold_read_bytes_per_second),
            waits_for_the_disk: Arc::new(Semaphore::new(blocking::AT_ONCE_MAX)),
            long_polls: LongPolls::new(),
            acknowledgements: Acknowledgements::new(Duration::from_millis(
                config.limits.flush_timeout_ms,
            )),
            unique_keys: UniqueKeys::new(),
            cluster_property,
            schedule_topic,
            memory_bytes: memory_bytes(),
            topic_changes: TopicChanges::new(),
            topics_changed_ms: AtomicI64::new(now_ms),
            name_servers_changed: Notify::new(),
            flushed: Notify::new(),
            delayed_arrived: Notify::new(),
            offsets_committed: Notify::new(),
            slave_offsets_changed: Notify::new(),
            image_due: Notify::new(),
            metrics,
            replication,
            main_port: bound.port(),
            started_ms: now_ms,
            clients: Clients::new(subscriptions::read(&store)),
            registration: Registration::new(&admin),
            hand_overs: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            end: watch::Sender::new(None),
            buffers: Mutex::default(),
            configuration: configuration.clone(),
            store,
            state,
            bound,
        }
    }

    /// What is in effect at this moment.
    pub(crate) fn config(&self) -> Guard<Arc<BrokerConfig>> {
        self.configuration.now()
    }

    /// Passes changed settings on to those who have copies. Never waits for the disk.
    pub(crate) fn settings_changed(&self, before: &BrokerConfig, now: &BrokerConfig) {
        self.store.set_upkeep(now.upkeep());
        self.cold_reads.set_rate(now.limits.cold_read_bytes_per_second);
        self.acknowledgements.set_timeout(Duration::from_millis(now.limits.flush_timeout_ms));
        if let Some(replication) = &self.replication {
            replication.set_catch_up_rate(now.replication.catch_up_bytes_per_second);
        }
        if self.state.topics.set_template(now.template_queues()) {
            self.topic_changed(TEMPLATE_TOPIC);
        }
        if before.permission != now.permission {
            // Each topic is registered with what of its permission the broker leaves.
            self.state.topics.all().keys().for_each(|name| self.topic_changed(name));
        }
        if before.name_servers != now.name_servers {
            self.name_servers_changed.notify_one();
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        now_ms()
    }

    /// When the oldest message of the log was stored, in milliseconds since 1970; `None` when the
    /// log is empty, or its first record damaged.
    pub(crate) fn earliest_store_time(&self) -> Result<Option<i64>, StoreError> {
        let mut bytes = Vec::new();
        match self.store.read_record(self.store.min_offset(), &mut bytes) {
            Ok(Some(_)) => {}
            Ok(None) | Err(StoreError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(match Record::decode(&bytes, false) {
            Ok(Decoded::Record(record, _)) => Some(record.store_timestamp),
            _ => None,
        })
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.config().permission & PERM_WRITE != 0
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.config().permission & PERM_READ != 0
    }

    /// What registered topics may at most be used for, as bits of their permission.
    pub(crate) fn permission_mask(&self) -> i32 {
        // The inherit bit is not the broker's to give or take.
        (self.config().permission | crate::topics::PERM_INHERIT) as i32
    }

    /// The address that NameServers give to clients.
    pub(crate) fn advertised_address(&self) -> String {
        let default = self.config().advertise.get("default").cloned();
        default.unwrap_or_else(|| self.bound.to_string())
    }

    /// The address under which it registers with this id: as master, if there is one, the address that
    /// stays while masters change.
    pub(crate) fn registered_address(&self, id: i64) -> String {
        let config = self.config();
        let kubernetes = config.replication.kubernetes.as_ref();
        let of_master = kubernetes.and_then(|section| section.master_address.clone());
        of_master.filter(|_| id == 0).unwrap_or_else(|| self.advertised_address())
    }

    /// The same for every listener.
    pub(crate) fn registered_addresses(&self, id: i64) -> BTreeMap<String, String> {
        let mut addresses = self.config().advertise.clone();
        if let Some(default) = addresses.get_mut("default") {
            *default = self.registered_address(id);
        }
        addresses
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
        let has_name_servers = !self.config().name_servers.is_empty();
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

    /// It is no NameServer of ours any more.
    pub(crate) fn forget_name_server(&self, name_server: &str) {
        self.metrics.forget_name_server(name_server);
        self.registration.forget(name_server);
    }

    /// Ends the broker: after a failed write-back nothing can be promised any more.
    pub(crate) fn fail(&self, cause: String) {
        self.end_with(End::Failed(cause));
        self.acknowledgements.answer_late(Duration::ZERO, |position| self.late_answer(position));
    }

    /// Ends the broker, to begin anew.
    pub(crate) fn restart(&self, restart: Restart) {
        self.metrics.count_begun_anew(match restart {
            Restart::Demoted => "kept",
            Restart::CutAt(_) => "cut",
            Restart::BeginAt { .. } => "replaced",
        });
        self.end_with(End::Restart(restart));
    }

    fn end_with(&self, end: End) {
        self.end.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(end);
            is_first
        });
    }

    /// Whether the broker has ended to begin anew, in the same process and by the same address.
    pub(crate) fn begins_anew(&self) -> bool {
        matches!(*self.end.borrow(), Some(End::Restart(_)))
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

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}
