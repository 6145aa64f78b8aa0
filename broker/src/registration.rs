//! Telling every NameServer which topics this broker has: all of them at the start and every 30 s,
//! and what changed in between. One registration is on its way to each NameServer; the next one
//! carries everything that changed meanwhile. A NameServer that would take what a registration
//! leaves out for deleted gets whole tables only.
//! Sources: `BrokerOuterAPI.registerBrokerAll`, `BrokerController.registerIncrementBrokerData`.

mod name_servers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weirmq_remoting::body::{
    DataVersion, RegisterBrokerBody, TopicConfig, TopicConfigSerializeWrapper, TopicFilterType,
};
use weirmq_remoting::command::SerializeType;
use weirmq_remoting::header::{BrokerIdentityHeader, Header as _, RegisterBrokerHeader};
use weirmq_remoting::net::{Connection, Limits, NoRequests, Requests, Session, connect};
use weirmq_remoting::{Code, RequestCode, ResponseCode};

use crate::Broker;
use crate::replication::Status;
use crate::topics::{STATE_TOPIC, Topic};

/// How often a broker registers when nothing changes. Apache's `registerNameServerPeriod`.
const PERIOD: Duration = Duration::from_secs(30);
/// A NameServer forgets a broker that it has not heard of for this long.
const HEARTBEAT_TIMEOUT_MS: i64 = 120_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts while a NameServer does not answer, or closes each connection soon.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The longest pause while there is no connection, which costs next to nothing to try: a NameServer that was
/// cut off knows no master until it hears of the one that was elected meanwhile.
const CONNECT_AGAIN_MAX: Duration = Duration::from_secs(1);
/// Larger tables go in several registrations. Apache's `splitRegistrationSize`.
const TOPICS_PER_REGISTRATION: usize = 800;

/// A topic as NameServers and administrators see it.
pub(crate) fn topic_config(topic: &Topic) -> TopicConfig {
    TopicConfig {
        attributes: topic.attributes.clone(),
        order: topic.is_ordered,
        perm: topic.perm as i32,
        read_queue_nums: topic.read_queues as i32,
        topic_filter_type: if topic.is_multi_tag {
            TopicFilterType::MultiTag
        } else {
            TopicFilterType::SingleTag
        },
        topic_name: topic.name.clone(),
        topic_sys_flag: topic.sys_flag as i32,
        write_queue_nums: topic.write_queues as i32,
    }
}

/// Keeps this broker registered until `shutdown`, then unregisters it.
pub(crate) async fn run(broker: Arc<Broker>, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut followed: BTreeMap<String, CancellationToken> = BTreeMap::new();
    loop {
        let named = broker.config().name_servers.clone();
        for name in &named {
            followed.entry(name.clone()).or_insert_with_key(|name| {
                let stop = shutdown.child_token();
                tasks.spawn(name_servers::follow(broker.clone(), name.clone(), stop.clone()));
                stop
            });
        }
        for (name, stop) in followed.extract_if(.., |name, _| !named.contains(name)) {
            tracing::info!(name, "no NameServer any more");
            stop.cancel();
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = broker.name_servers_changed.notified() => {}
            // One that is not followed any more.
            Some(_) = tasks.join_next() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn keep_registered(broker: Arc<Broker>, address: String, shutdown: CancellationToken) {
    let mut changes = broker.topic_changes.subscribe();
    let mut role = Role::of(&broker);
    let mut peer = NameServer::new(&broker, &address);
    let lost = peer.lost.clone();
    let mut pause = RETRY_FIRST;
    let mut remind_at = Instant::now() + PERIOD;
    loop {
        changes.borrow_and_update();
        let told = tokio::select! {
            () = shutdown.cancelled() => break,
            told = async {
                let known = role.known(&broker).await;
                peer.tell(known).await
            } => told,
        };
        let next_time = match told {
            Ok(()) => {
                // Sooner, and a NameServer that answers and closes would be called without a pause.
                if peer.connected_at.elapsed() >= RETRY_MAX {
                    pause = RETRY_FIRST;
                }
                remind_at
            }
            Err(reason) => {
                if peer.is_registered() || pause == RETRY_FIRST {
                    tracing::warn!(name_server = address, reason, "not registered, trying on");
                }
                let next_time = Instant::now() + pause;
                pause = longer(pause, peer.connection.is_some());
                peer.not_registered(reason);
                next_time
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep_until(next_time) => {
                peer.must_remind();
                remind_at = Instant::now() + PERIOD;
            }
            () = lost.notified(), if peer.is_registered() => {}
            () = role.changed(&broker) => {}
            changed = changes.changed(), if peer.is_registered() => {
                if changed.is_err() {
                    break;
                }
            }
        }
    }
    let is_heard = peer.say_goodbye().await;
    if let Some(connection) = peer.connection.take() {
        // The next life registers by the same address, which a goodbye that comes late would take away. Of a
        // process that ends it may come as late as it likes.
        match is_heard || !broker.begins_anew() {
            true => connection.close(),
            false => connection.abort(),
        }
    }
}

/// The pause after this one.
fn longer(pause: Duration, is_reached: bool) -> Duration {
    (pause * 2).min(if is_reached { RETRY_MAX } else { CONNECT_AGAIN_MAX })
}

/// One NameServer, and what it has been told.
struct NameServer<'a> {
    broker: &'a Broker,
    address: &'a str,
    connection: Option<Connection>,
    /// When the connection was opened last.
    connected_at: Instant,
    /// The connection has ended.
    lost: Arc<Notify>,
    /// The version of the last registration. A NameServer changes a topic that it knows only with
    /// a version that it does not know, so each part of a table has its own, as with Apache's
    /// `TopicConfigManager.buildSerializeWrapper`.
    counter: i64,
    /// What a registration leaves out stays there.
    takes_parts: bool,
    told: Told,
    /// The id that it knows this broker by.
    id: i64,
    /// The group's epoch in which the broker has that id.
    epoch: u64,
}

/// What the broker is in its group, as its registration goes by it.
struct Role {
    /// `None` for a broker that is alone.
    status: Option<watch::Receiver<Status>>,
    told: (Option<i64>, u64),
}

impl Role {
    fn of(broker: &Broker) -> Self {
        let status = broker.replication.as_ref().map(|replication| replication.watch());
        Self { status, told: (None, 0) }
    }

    /// The id and its epoch.
    fn now(broker: &Broker) -> (Option<i64>, u64) {
        // In this order: a master's id never comes with an epoch in which another one leads.
        let epoch = broker.epoch();
        (broker.registration_id(), epoch)
    }

    /// Waits until it is known, and says which id that is in which epoch.
    async fn known(&mut self, broker: &Broker) -> (i64, u64) {
        loop {
            if let Some(status) = &mut self.status {
                status.borrow_and_update();
            }
            self.told = Self::now(broker);
            if let (Some(id), epoch) = self.told {
                return (id, epoch);
            }
            let Some(status) = &mut self.status else { return (0, 0) };
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it is another one than was known.
    async fn changed(&mut self, broker: &Broker) {
        let Some(status) = &mut self.status else { return std::future::pending().await };
        while Self::now(broker) == self.told {
            if status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The broker's side of a connection to a NameServer, which asks nothing.
struct Link {
    lost: Arc<Notify>,
}

impl Session for Link {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        NoRequests.received(requests, out);
    }

    fn closed(&mut self) {
        self.lost.notify_one();
    }
}

/// What a NameServer knows of this broker.
enum Told {
    Nothing,
    /// Everything up to this version of the topic table.
    UpTo(i64),
    /// The same, and it is time to say all of it again: topics may have been deleted there.
    Long(i64),
}

impl<'a> NameServer<'a> {
    /// One that has been told nothing yet.
    fn new(broker: &'a Broker, address: &'a str) -> Self {
        Self {
            broker,
            address,
            connection: None,
            connected_at: Instant::now(),
            lost: Arc::default(),
            counter: 0,
            takes_parts: false,
            told: Told::Nothing,
            id: 0,
            epoch: 0,
        }
    }

    fn is_registered(&self) -> bool {
        !matches!(self.told, Told::Nothing)
    }

    /// Takes the registration back; says whether the NameServer has nothing more to hear of that.
    async fn say_goodbye(&mut self) -> bool {
        let told = std::mem::replace(&mut self.told, Told::Nothing);
        let Some(connection) = self.connection.as_ref().filter(|_| !matches!(told, Told::Nothing))
        else {
            return true;
        };
        if self.broker.registered_address(self.id) == self.broker.advertised_address() {
            return unregister(self.broker, self.id, connection).await;
        }
        if let Some(connection) = self.connection.take() {
            // By a master's address that it shares with the next one it would take that one away; the
            // end of its own connection is enough.
            connection.close();
        }
        true
    }

    fn must_remind(&mut self) {
        if let Told::UpTo(version) = self.told {
            self.told = Told::Long(version);
        }
    }

    fn not_registered(&mut self, reason: String) {
        self.told = Told::Nothing;
        // A handle that is dropped leaves the socket open. And what the NameServer did not get until now it
        // would get after all that it is told on the next connection.
        if let Some(connection) = self.connection.take() {
            connection.abort();
        }
        self.broker.registered(self.address, Err(reason));
    }

    /// Tells everything that this NameServer has to hear now. What changes meanwhile comes with the
    /// next call; while a large table goes out, between its parts. Not so the epoch: who is no master any more
    /// would register in the next one's place.
    async fn tell(&mut self, (id, epoch): (i64, u64)) -> Result<(), String> {
        if self.id != id {
            self.say_goodbye().await;
        }
        (self.id, self.epoch) = (id, epoch);
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            if self.is_registered() && self.connected_at.elapsed() < RETRY_MAX {
                return Err("the NameServer closed the connection soon after it answered".into());
            }
            // It has forgotten this broker together with the connection.
            self.connection = None;
            self.told = Told::Nothing;
        }
        if self.connection.is_none() {
            let session = |_: &Connection| Link { lost: self.lost.clone() };
            let opened = connect(self.address, CONNECT_TIMEOUT, Limits::default(), session);
            self.connection = Some(opened.await.map_err(|error| error.to_string())?);
            self.connected_at = Instant::now();
        }
        // Also with each reminder: an administrator may change it.
        if !matches!(self.told, Told::UpTo(_)) {
            self.takes_parts = self.ask_for_parts().await?;
        }
        match self.told {
            Told::Nothing => self.tell_all(None).await,
            Told::Long(version) => self.tell_all(Some(version)).await,
            Told::UpTo(version) => self.tell_changes(version).await.map(drop),
        }
    }

    /// Asks whether topics that a registration leaves out stay: the NameServer does not delete them, or
    /// understands `isPart`. One that does not say gets whole tables.
    async fn ask_for_parts(&self) -> Result<bool, String> {
        let Some(connection) = &self.connection else { return Ok(false) };
        let code = RequestCode::GetNameServerConfig.number();
        let asked = connection.call(SerializeType::Json, code, |_| {}, b"", CALL_TIMEOUT);
        let answer = asked.await.map_err(|error| error.to_string())?;
        let command = answer.command().map_err(|error| error.to_string())?;
        let is_told = command.head.code == ResponseCode::Success.number();
        Ok(is_told && keeps_what_is_left_out(&String::from_utf8_lossy(answer.body())))
    }

    /// Tells the whole table, in parts if may be. `known` is the version that the NameServer has, if any:
    /// then it hears nothing new, only again what it may have lost.
    async fn tell_all(&mut self, known: Option<i64>) -> Result<(), String> {
        let mut version = known.unwrap_or_else(|| self.broker.topic_changes.version());
        let names: Vec<_> = self.broker.state.topics.all().into_values().collect();
        let part_length = if self.takes_parts { TOPICS_PER_REGISTRATION } else { usize::MAX };
        let mut parts = names.chunks(part_length).peekable();
        let is_whole = names.len() <= part_length;
        while let Some(part) = parts.next() {
            if known.is_none() {
                self.counter += 1;
            }
            self.register(part.iter().map(|topic| topic.name.as_str()), !is_whole).await?;
            if known.is_some() && parts.peek().is_some() {
                version = self.tell_changes(version).await?;
            }
        }
        if known.is_none() {
            tracing::info!(name_server = self.address, topics = names.len(), "registered");
        }
        self.knows(version);
        self.tell_changes(version).await.map(drop)
    }

    /// Tells what changed after `version`; returns the version that is known now.
    async fn tell_changes(&mut self, version: i64) -> Result<i64, String> {
        let (mut names, now) = match self.broker.topic_changes.since(version) {
            Some((changes, now)) if self.takes_parts || changes.is_empty() => (changes, now),
            Some(_) => return self.tell_table().await,
            // More than is remembered: Apache's brokers tell everything at every change.
            None if !self.takes_parts => return self.tell_table().await,
            None => {
                let now = self.broker.topic_changes.version();
                let all = self.broker.state.topics.all().into_keys();
                (all.map(Arc::from).collect(), now)
            }
        };
        names.sort_unstable();
        names.dedup();
        for part in names.chunks(TOPICS_PER_REGISTRATION) {
            self.counter += 1;
            self.register(part.iter().map(|name| &**name), true).await?;
        }
        if now > version {
            self.knows(now);
        }
        Ok(now)
    }

    /// Tells the whole table in one registration, as something new.
    async fn tell_table(&mut self) -> Result<i64, String> {
        let version = self.broker.topic_changes.version();
        let names = self.broker.state.topics.all();
        self.counter += 1;
        self.register(names.keys().map(|name| &**name), false).await?;
        self.knows(version);
        Ok(version)
    }

    fn knows(&mut self, version: i64) {
        self.told = Told::UpTo(version);
        self.broker.registered(self.address, Ok(version));
    }

    /// Tells these topics as they are now; those that are gone are left out.
    async fn register(
        &self,
        names: impl Iterator<Item = &str>,
        is_part: bool,
    ) -> Result<(), String> {
        let broker = self.broker;
        let topics = names
            .filter(|name| *name != STATE_TOPIC)
            .filter_map(|name| broker.state.topics.get(name))
            .map(|topic| {
                let config = topic_config(&topic);
                // A broker that does not take writes says so in each of its topics.
                let perm = config.perm & broker.permission_mask();
                (topic.name.clone(), TopicConfig { perm, ..config })
            });
        let data_version = DataVersion {
            counter: self.counter,
            // A NameServer knows by this which of two masters is the later one.
            state_version: i64::try_from(self.epoch).unwrap_or(i64::MAX),
            timestamp: broker.started_ms,
        };
        let body = RegisterBrokerBody {
            filter_server_list: Vec::new(),
            listener_addresses: broker.registered_addresses(self.id),
            topic_config_serialize_wrapper: TopicConfigSerializeWrapper {
                data_version,
                topic_config_table: topics.collect(),
                ..TopicConfigSerializeWrapper::default()
            },
        };
        let body = body.encode_form(false);
        let Some(connection) = &self.connection else { return Ok(()) };
        register(broker, self.id, connection, &body, is_part).await
    }
}

/// Whether the settings of a NameServer, as code 319 answers them, say that a topic stays which a
/// registration leaves out. Versions of Apache's before 5.1 have no such option.
fn keeps_what_is_left_out(properties: &str) -> bool {
    let is_on = |name: &str| {
        let mut settings = properties.lines().filter_map(|line| line.trim().split_once('='));
        settings.any(|(key, value)| key == name && value.eq_ignore_ascii_case("true"))
    };
    let is_known = properties.contains('=');
    is_known && (is_on("registrationPartsEnable") || !is_on("deleteTopicWithBrokerRegistration"))
}

async fn register(
    broker: &Broker,
    id: i64,
    connection: &Connection,
    body: &[u8],
    is_part: bool,
) -> Result<(), String> {
    let (address, config) = (broker.registered_address(id), Arc::clone(&broker.config()));
    let replication_address = broker.replication_address().unwrap_or_default();
    let header = RegisterBrokerHeader {
        broker_name: config.name.as_str().into(),
        broker_addr: address.as_str().into(),
        cluster_name: config.cluster.as_str().into(),
        ha_server_addr: replication_address.as_str().into(),
        broker_id: id,
        heartbeat_timeout_millis: Some(HEARTBEAT_TIMEOUT_MS),
        enable_acting_master: Some(false),
        compressed: Some(false),
        body_crc32: Some((weirmq_message::body_crc(body)) as i32),
        is_part: is_part.then_some(true),
    };
    let code = RequestCode::RegisterBroker.number();
    let answer = connection
        .call(SerializeType::Json, code, |writer| header.encode(writer), body, CALL_TIMEOUT)
        .await
        .map_err(|error| error.to_string())?;
    let command = answer.command().map_err(|error| error.to_string())?;
    match Code::<ResponseCode>::from(command.head.code) {
        Code::Known(ResponseCode::Success) => Ok(()),
        refused => Err(format!("refused with code {refused}: {}", command.remark_text())),
    }
}

/// Whether it is answered.
async fn unregister(broker: &Broker, id: i64, connection: &Connection) -> bool {
    let (address, config) = (broker.registered_address(id), Arc::clone(&broker.config()));
    let header = BrokerIdentityHeader {
        broker_name: config.name.as_str().into(),
        broker_addr: address.as_str().into(),
        cluster_name: config.cluster.as_str().into(),
        broker_id: id,
    };
    let code = RequestCode::UnregisterBroker.number();
    let call = connection.call(
        SerializeType::Json,
        code,
        |writer| header.encode(writer),
        b"",
        Duration::from_secs(1),
    );
    let called = call.await;
    if let Err(error) = &called {
        tracing::debug!(%error, "not unregistered; the NameServer notices the closed connection");
    }
    called.is_ok()
}

#[cfg(test)]
mod tests;
