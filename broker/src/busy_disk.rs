//! What clients meet while the disk does not come back from a sync: brokers with connections, on a
//! simulated disk.

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use weirmq_message::batch::BatchUnit;
use weirmq_remoting::body::{Body as _, SubscriptionGroupConfig};
use weirmq_remoting::command::{Head, HeaderWriter, Language, SerializeType, Text, request};
use weirmq_remoting::header::{
    ConsumerSendMessageBackHeader, Header as _, QueueHeader, SendMessageHeader,
};
use weirmq_remoting::net::{Connection, NoRequests, OwnedCommand, Service as _, connect};
use weirmq_remoting::{RequestCode, ResponseCode};
use weirmq_store::{NewMessage, SimulatedDisk, StoreError};

use crate::append_batch::{AppendBatch, PendingMessage, PendingSend};
use crate::configuration::Configuration;
use crate::run::{BrokerError, Listeners, open, run_on};
use crate::topics::Topic;
use crate::{Broker, BrokerConfig, Flush};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) static BODY: [u8; 64 << 10] = [7; 64 << 10];
/// With [`BODY`]: about 7 MiB may run ahead of the disk, 4 MiB wait, the rest is refused.
const SENDS: usize = 250;

fn config(folder: &tempfile::TempDir, busy_timeout: Duration) -> BrokerConfig {
    let mut config = BrokerConfig { data_dir: folder.path().into(), ..BrokerConfig::default() };
    config.io_threads = 1;
    config.store.flush = Flush::Sync;
    config.store.segment_bytes = 64 << 20;
    config.store.free_bytes_min = 1;
    config.limits.message_bytes_max = BODY.len();
    config.limits.busy_timeout_ms = busy_timeout.as_millis() as u64;
    // So that nobody is told that the disk takes long.
    config.limits.flush_timeout_ms = PATIENCE.as_millis() as u64;
    config
}

/// A disk that holds every sync until this is dropped; a test that fails must not wait for it.
struct Held(SimulatedDisk);

impl Held {
    fn hold(disk: &SimulatedDisk) -> Self {
        disk.hold_syncs(true);
        Self(disk.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.hold_syncs(false);
    }
}

/// A broker whose requests the test serves itself.
fn broker_on(disk: &SimulatedDisk, config: BrokerConfig, address: SocketAddr) -> Arc<Broker> {
    let admin = weirmq_admin::Admin::default();
    let metrics = crate::metrics::Metrics::new(&config, &admin);
    open(Arc::new(disk.clone()), Configuration::new(config).unwrap(), address, admin, metrics)
        .unwrap()
        .0
}

struct Running {
    disk: SimulatedDisk,
    address: String,
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), BrokerError>>,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn start(busy_timeout: Duration) -> Self {
        Self::start_with(busy_timeout, PATIENCE).await
    }

    async fn start_with(busy_timeout: Duration, flush_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder, busy_timeout);
        config.limits.flush_timeout_ms = flush_timeout.as_millis() as u64;
        let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = main.local_addr().unwrap().to_string();
        let (disk, shutdown) = (SimulatedDisk::new(), CancellationToken::new());
        let ended = tokio::spawn(run_on(
            Arc::new(disk.clone()),
            Configuration::new(config).unwrap(),
            Listeners { main, vip: None, replication: None },
            weirmq_admin::Admin::default(),
            shutdown.clone(),
        ));
        Self { disk, address, shutdown, ended, _folder: folder }
    }

    async fn connect(&self) -> Connection {
        connect(&self.address, PATIENCE, Default::default(), |_| NoRequests).await.unwrap()
    }

    /// Connects, and sends the first message of topic `t`, so that it and its segment are there.
    async fn connect_and_send(&self) -> Connection {
        let connection = self.connect().await;
        assert_eq!(code(&send(&connection).await), ResponseCode::Success.number());
        connection
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.ended.await.unwrap().unwrap();
    }
}

pub(crate) async fn call(
    connection: &Connection,
    code: RequestCode,
    fields: impl FnOnce(&mut HeaderWriter<'_>),
    body: &[u8],
) -> OwnedCommand {
    let json = SerializeType::Json;
    connection.call(json, code.number(), fields, body, PATIENCE).await.unwrap()
}

pub(crate) async fn send(connection: &Connection) -> OwnedCommand {
    send_as(connection, RequestCode::SendMessage, None, &BODY).await
}

async fn send_as(
    connection: &Connection,
    request: RequestCode,
    properties: Option<&str>,
    body: &[u8],
) -> OwnedCommand {
    let header = header_of(request, properties);
    call(connection, request, |out| header.encode(out), body).await
}

fn header_of(request: RequestCode, properties: Option<&str>) -> SendMessageHeader<'_> {
    SendMessageHeader {
        producer_group: Some(Text::from("p")),
        topic: Text::from("t"),
        default_topic: Some(Text::from("TBW102")),
        default_topic_queue_nums: Some(1),
        queue_id: 0,
        sys_flag: 0,
        born_timestamp: 0,
        flag: 0,
        properties: properties.map(Text::from),
        reconsume_times: None,
        unit_mode: None,
        max_reconsume_times: None,
        batch: Some(request == RequestCode::SendBatchMessage),
        broker_name: None,
    }
}

async fn max_offset(connection: &Connection) -> OwnedCommand {
    let header = QueueHeader { topic: Text::from("t"), queue_id: 0, committed: None };
    call(connection, RequestCode::GetMaxOffset, |out| header.encode(out), b"").await
}

pub(crate) fn offset(answer: &OwnedCommand) -> String {
    let command = answer.command().unwrap();
    command.ext.get("offset").unwrap().to_cow().into_owned()
}

pub(crate) fn code(answer: &OwnedCommand) -> i32 {
    answer.command().unwrap().head.code
}

/// Sends more than the disk has room for; comes back when the broker has taken all of it.
async fn send_too_much(connection: &Connection) -> JoinSet<i32> {
    let mut sends = JoinSet::new();
    for _ in 0..SENDS {
        let connection = connection.clone();
        let mut sent = Box::pin(async move { code(&send(&connection).await) });
        // The first poll writes the request.
        let first = poll_fn(|context| Poll::Ready(sent.as_mut().poll(context))).await;
        assert!(first.is_pending());
        sends.spawn(sent);
    }
    // Acted upon behind the sends, by the thread that took them.
    assert_eq!(offset(&max_offset(connection).await), "1", "nothing new is on the disk");
    sends
}

/// How often each code was the answer: of success and of SYSTEM_BUSY.
async fn outcomes(sends: JoinSet<i32>) -> (usize, usize) {
    let codes = sends.join_all().await;
    let count = |code: ResponseCode| codes.iter().filter(|found| **found == code.number()).count();
    let outcomes = (count(ResponseCode::Success), count(ResponseCode::SystemBusy));
    assert_eq!(outcomes.0 + outcomes.1, SENDS, "{codes:?}");
    outcomes
}

#[tokio::test]
async fn sends_wait_for_a_busy_disk_within_bounds_and_others_are_served() {
    let running = Running::start(PATIENCE).await;
    let connection = running.connect_and_send().await;
    let held = Held::hold(&running.disk);
    let sends = send_too_much(&connection).await;
    let other = running.connect().await;
    assert_eq!(offset(&max_offset(&other).await), "1");
    drop(held);
    let (sent, refused) = outcomes(sends).await;
    let bytes = sent * BODY.len();
    assert!((10 << 20..13 << 20).contains(&bytes), "{sent} sent, {refused} refused");
    assert_eq!(offset(&max_offset(&other).await), (sent + 1).to_string());
    running.stop().await;
}

#[tokio::test]
async fn sends_that_waited_too_long_are_refused_and_those_before_them_are_not() {
    let running = Running::start(Duration::ZERO).await;
    let connection = running.connect_and_send().await;
    let held = Held::hold(&running.disk);
    let sends = send_too_much(&connection).await;
    drop(held);
    let (sent, refused) = outcomes(sends).await;
    let bytes = sent * BODY.len();
    assert!((6 << 20..9 << 20).contains(&bytes), "{sent} sent, {refused} refused");
    running.stop().await;
}

#[tokio::test]
async fn a_send_that_says_so_is_answered_before_it_is_on_the_disk_and_no_other() {
    let running = Running::start(PATIENCE).await;
    let connection = running.connect_and_send().await;
    let held = Held::hold(&running.disk);
    let mut waits = Box::pin(send(&connection));
    let mut is_answered =
        async || poll_fn(|context| Poll::Ready(waits.as_mut().poll(context).is_ready())).await;
    assert!(!is_answered().await);
    for wait in ["WAIT\u{1}false\u{2}", "WAIT\u{1}FALSE\u{2}"] {
        let hasty = send_as(&connection, RequestCode::SendMessage, Some(wait), b"x").await;
        assert_eq!(code(&hasty), ResponseCode::Success.number());
    }
    let mut batch = Vec::new();
    for properties in [&b""[..], b"WAIT\x01false\x02"] {
        BatchUnit { flag: 0, body: b"x", properties }.encode(&mut batch).unwrap();
    }
    let hasty = send_as(&connection, RequestCode::SendBatchMessage, None, &batch).await;
    assert_eq!(code(&hasty), ResponseCode::Success.number());
    // All of them came behind it, and nothing of it all is on the disk.
    assert!(!is_answered().await);
    assert_eq!(offset(&max_offset(&connection).await), "1");
    drop(held);
    assert_eq!(code(&waits.await), ResponseCode::Success.number());
    let told = send(&connection).await;
    assert_eq!(code(&told), ResponseCode::Success.number());
    assert_eq!(offset(&max_offset(&connection).await), "7");
    running.stop().await;
}

#[tokio::test]
async fn a_send_whose_sync_takes_too_long_is_answered_as_unknown() {
    let running = Running::start_with(PATIENCE, Duration::from_millis(100)).await;
    let connection = running.connect().await;
    // A busy machine may take long, too.
    let send_until_it_is_there = async || {
        let success = ResponseCode::Success.number();
        let sent = async { while code(&send(&connection).await) != success {} };
        tokio::time::timeout(PATIENCE, sent).await.unwrap();
    };
    send_until_it_is_there().await;
    let held = Held::hold(&running.disk);
    let before = offset(&max_offset(&connection).await);
    assert_eq!(code(&send(&connection).await), ResponseCode::FlushDiskTimeout.number());
    assert_eq!(offset(&max_offset(&connection).await), before, "nobody sees it yet");
    drop(held);
    send_until_it_is_there().await;
    running.stop().await;
}

#[tokio::test]
async fn nobody_who_waits_for_a_sync_that_fails_is_told_that_it_worked_and_the_broker_ends() {
    let running = Running::start(PATIENCE).await;
    let connection = running.connect_and_send().await;
    let held = Held::hold(&running.disk);
    let mut sends = JoinSet::new();
    for _ in 0..3 {
        let connection = connection.clone();
        let request = RequestCode::SendMessage;
        let mut sent = Box::pin(async move {
            let (json, header) = (SerializeType::Json, header_of(request, None));
            let fields = |out: &mut HeaderWriter<'_>| header.encode(out);
            let answer = connection.call(json, request.number(), fields, &BODY, PATIENCE).await;
            answer.map(|answer| code(&answer)).ok()
        });
        let first = poll_fn(|context| Poll::Ready(sent.as_mut().poll(context))).await;
        assert!(first.is_pending());
        sends.spawn(sent);
    }
    assert_eq!(offset(&max_offset(&connection).await), "1", "all are taken, and nothing is there");
    running.disk.fail_syncs(true);
    drop(held);
    // The end of the connection says the same, and may overtake the answer.
    let unknown = ResponseCode::FlushDiskTimeout.number();
    let told = sends.join_all().await;
    assert!(told.iter().all(|code| code.is_none_or(|code| code == unknown)), "{told:?}");
    running.ended.await.unwrap().unwrap_err();
}

/// Creates groups with long attributes, which are records of state, until the disk has no room for
/// them either; comes back when the broker has taken all of them.
async fn create_too_many_groups(connection: &Connection) -> JoinSet<i32> {
    let mut created = JoinSet::new();
    for number in 0..SENDS {
        let connection = connection.clone();
        let create = async move {
            let config = SubscriptionGroupConfig {
                group_name: format!("g{number}"),
                attributes: [("long".to_owned(), "x".repeat(BODY.len()))].into(),
                ..SubscriptionGroupConfig::default()
            };
            let request = RequestCode::UpdateAndCreateSubscriptionGroup;
            code(&call(&connection, request, |_| {}, &config.encode()).await)
        };
        let mut create = Box::pin(create);
        let first = poll_fn(|context| Poll::Ready(create.as_mut().poll(context))).await;
        assert!(first.is_pending());
        created.spawn(create);
    }
    created
}

#[tokio::test]
async fn records_of_state_wait_for_a_busy_disk_and_others_are_served() {
    let running = Running::start(PATIENCE).await;
    let connection = running.connect_and_send().await;
    let other = running.connect().await;
    let held = Held::hold(&running.disk);
    let created = create_too_many_groups(&connection).await;
    let sends = send_too_much(&other).await;
    drop(held);
    assert_eq!(outcomes(created).await, (SENDS, 0), "all of them were in time");
    assert!(outcomes(sends).await.0 > 0);
    running.stop().await;
}

#[tokio::test]
async fn records_of_state_that_waited_too_long_are_refused() {
    let running = Running::start(Duration::ZERO).await;
    let connection = running.connect_and_send().await;
    let held = Held::hold(&running.disk);
    let created = create_too_many_groups(&connection).await;
    assert_eq!(offset(&max_offset(&connection).await), "1", "answered behind all of them");
    drop(held);
    let (created, refused) = outcomes(created).await;
    assert!(created > 50 && refused > 50, "{created} created, {refused} refused");
    running.stop().await;
}

#[tokio::test]
async fn a_batch_whose_room_somebody_else_took_waits_like_others() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let disk = SimulatedDisk::new();
    let config = config(&folder, PATIENCE);
    let broker = broker_on(&disk, config, address);
    let nobody = |_: &Connection| NoRequests;
    let connection =
        connect(&address.to_string(), PATIENCE, Default::default(), nobody).await.unwrap();

    let topic = broker.create_topic_if_absent(Topic::new("t", 1)).unwrap();
    let mut batch = AppendBatch::default();
    let read = batch.read_of(&broker, &connection, false);
    let nothing: Range<usize> = 0..0;
    batch.messages.push(PendingMessage {
        topic: topic.clone(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 0,
        reconsume_times: 0,
        body: Bytes::from_static(b"a body"),
        properties: nothing.clone(),
        unique_key: nothing,
        tag_hash: 0,
    });
    let serialize = SerializeType::Json;
    let code = RequestCode::SendMessage.number();
    let language = Language::OTHER;
    let head = Head { serialize, code, language, version: 0, opaque: 1, flag: 0 };
    batch.sends.push(PendingSend { head, read, topic, queue_id: 0, messages: 0..1, waits: true });

    let held = Held::hold(&disk);
    assert!(broker.store.has_room(1000), "somebody looks");
    let mut appended = Vec::new();
    let filler = NewMessage::plain("other", 0, &BODY);
    while broker.store.append_now(&[filler], &mut appended).is_ok() {}
    let tiny = NewMessage::plain("other", 0, b"");
    let full = loop {
        if let Err(error) = broker.store.append_now(&[tiny], &mut appended) {
            break error;
        }
    };
    assert!(matches!(full, StoreError::Busy { .. }), "{full}");
    batch.append_what_fits(&broker);
    assert!(!batch.is_empty(), "it was not refused");
    assert!(!batch.append(&broker), "it waits");
    drop(held);
    let end = broker.store.flush().unwrap();
    assert!(batch.append(&broker) && broker.store.watermarks().written() > end);
}

/// A connection that the broker serves, and its other end.
async fn served(broker: &Arc<Broker>, listener: &TcpListener) -> (Connection, TcpStream) {
    let io_threads = vec![Arc::new(crate::io_threads::IoThread::default())];
    let service = crate::session::BrokerService { broker: broker.clone(), io_threads };
    let serve = |connection: &Connection| service.connected(connection, 0);
    let address = listener.local_addr().unwrap().to_string();
    let served = connect(&address, PATIENCE, Default::default(), serve).await.unwrap();
    (served, listener.accept().await.unwrap().0)
}

/// A consumer gives the message at this offset back.
fn give_back(offset: i64) -> Vec<u8> {
    let header = ConsumerSendMessageBackHeader {
        offset,
        group: Text::from("g"),
        delay_level: 0,
        origin_msg_id: None,
        origin_topic: None,
        unit_mode: None,
        max_reconsume_times: None,
    };
    let code = RequestCode::ConsumerSendMessageBack.number();
    let mut frame = Vec::new();
    let mut writer = request(&mut frame, SerializeType::Json, code, 1, false);
    header.encode(&mut writer);
    writer.finish(b"");
    frame
}

#[tokio::test]
async fn a_message_that_is_given_back_is_acknowledged_when_the_disk_has_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let disk = SimulatedDisk::new();
    let broker = broker_on(&disk, config(&folder, PATIENCE), address);
    broker.create_topic_if_absent(Topic::new("t", 1)).unwrap();
    let mut appended = Vec::new();
    broker.store.append_now(&[NewMessage::plain("t", 0, b"body")], &mut appended).unwrap();
    broker.store.flush().unwrap();
    let held = Held::hold(&disk);
    let (_served, mut peer) = served(&broker, &listener).await;
    peer.write_all(&give_back(appended[0].physical_offset as i64)).await.unwrap();
    let waits = async {
        while broker.acknowledgements.requests() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.expect("it waits for nothing");
    let mut answer = [0; 4];
    let early = peer.try_read(&mut answer).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock));
    drop(held);
    broker.store.flush().unwrap();
    broker.reached();
    tokio::time::timeout(PATIENCE, peer.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(broker.acknowledgements.requests(), 0);
}

#[tokio::test]
async fn a_request_that_is_put_back_does_not_forget_which_topics_it_made() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let disk = SimulatedDisk::new();
    // Nobody tells this NameServer of topics.
    let config =
        BrokerConfig { name_servers: vec!["127.0.0.1:9".to_owned()], ..config(&folder, PATIENCE) };
    let broker = broker_on(&disk, config, address);
    broker.create_topic_if_absent(Topic::new("t", 1)).unwrap();
    let mut appended = Vec::new();
    broker.store.append_now(&[NewMessage::plain("t", 0, &BODY)], &mut appended).unwrap();
    let offset = appended[0].physical_offset as i64;
    broker.store.flush().unwrap();

    // What is left has room for the records of a group and a topic, and for no message as long.
    const LEFT: u64 = 16 << 10;
    let held = Held::hold(&disk);
    let limit = broker.config().store_config().unflushed_bytes_max.unwrap();
    loop {
        let left = limit - broker.store.stats().unflushed_bytes;
        if left <= LEFT + 1000 {
            break;
        }
        let bytes = BODY.len().min((left - LEFT) as usize - 500);
        let filler = NewMessage::plain("other", 0, &BODY[..bytes]);
        broker.store.append_now(&[filler], &mut appended).unwrap();
    }

    let (_served, mut peer) = served(&broker, &listener).await;
    peer.write_all(&give_back(offset)).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while broker.state.topics.get("%RETRY%g").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let is_done = || broker.store.queue_range("SCHEDULE_TOPIC_XXXX", 2).is_some();
    drop(held);
    tokio::time::timeout(PATIENCE, async {
        loop {
            broker.store.flush().unwrap();
            if is_done() {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    // It is acknowledged from here on.
    broker.store.flush().unwrap();
    broker.reached();
    let mut answer = [0; 4];
    let early = peer.try_read(&mut answer).map_err(|error| error.kind());
    assert_eq!(
        early,
        Err(std::io::ErrorKind::WouldBlock),
        "answered before anybody knows the topic"
    );
    tokio::time::timeout(PATIENCE, peer.read_exact(&mut answer)).await.unwrap().unwrap();
}
