//! The client against servers that refuse, vanish, move and talk nonsense.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weirmq_client::{
    Admin, Client, ClientConfig, ClientError, Message, Producer, ProducerConfig, PullConsumer,
    PullOptions, SendStatus,
};
use weirmq_remoting::body::{Body as _, BrokerData, QueueData, TopicRouteData};
use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::command::{self, Text};
use weirmq_remoting::net::{Connection, Requests, ServerConfig, Service, Session, serve};

/// How a fake server answers one request: code, fields, body; `None`: not at all.
type Answer = Option<(ResponseCode, Vec<(&'static str, String)>, Vec<u8>)>;
type Answers = Arc<Mutex<Box<dyn FnMut(RequestCode) -> Answer + Send>>>;

#[derive(Clone)]
struct Fake(Answers);

impl Service for Fake {
    type Session = Fake;

    fn connected(&self, _connection: &Connection, _io_thread: usize) -> Fake {
        self.clone()
    }
}

impl Session for Fake {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        while let Some(request) = requests.next(out) {
            let Code::Known(code) = Code::from(request.head.code) else { panic!("unknown code") };
            if let Some((code, fields, body)) = (self.0.lock())(code) {
                let mut writer = command::response(out, &request.head, code, Some("because"));
                fields.iter().for_each(|(key, value)| writer.text(key, Text::from(value.as_str())));
                writer.finish(&body);
            }
        }
    }
}

struct Running {
    address: String,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

async fn fake(answer: impl FnMut(RequestCode) -> Answer + Send + 'static) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = Fake(Arc::new(Mutex::new(Box::new(answer))));
    let shutdown = CancellationToken::new();
    let config = ServerConfig::default();
    let task = tokio::spawn(serve(listener, Arc::new(service), config, shutdown.clone()));
    Running { address, shutdown, task }
}

/// A NameServer that answers every look-up with the route that stands here now.
async fn name_server(route: &Arc<Mutex<TopicRouteData>>) -> Running {
    let route = Arc::clone(route);
    fake(move |_| Some((ResponseCode::Success, Vec::new(), route.lock().encode()))).await
}

fn route(brokers: &[(&str, &str)]) -> TopicRouteData {
    let broker = |(name, address): &(&str, &str)| BrokerData {
        broker_name: (*name).to_owned(),
        broker_addrs: BTreeMap::from([(0, (*address).to_owned())]),
        ..BrokerData::default()
    };
    let queue = |(name, _): &(&str, &str)| QueueData {
        broker_name: (*name).to_owned(),
        perm: 6,
        read_queue_nums: 1,
        write_queue_nums: 1,
        ..QueueData::default()
    };
    TopicRouteData {
        broker_datas: brokers.iter().map(broker).collect(),
        queue_datas: brokers.iter().map(queue).collect(),
        ..TopicRouteData::default()
    }
}

fn stored(code: ResponseCode) -> Answer {
    let fields = vec![
        ("msgId", "7F00000100002A9F00000000000000FF".to_owned()),
        ("queueId", "0".to_owned()),
        ("queueOffset", "7".to_owned()),
    ];
    Some((code, fields, Vec::new()))
}

fn refused(code: ResponseCode) -> Answer {
    Some((code, Vec::new(), Vec::new()))
}

fn client(name_server: &Running) -> Client {
    Client::start(ClientConfig::new(&name_server.address)).unwrap()
}

fn producer(client: &Client) -> Producer {
    Producer::start(client, ProducerConfig::default()).unwrap()
}

#[tokio::test]
async fn another_broker_takes_what_one_refuses_for_now() {
    for code in [1, 2, 14, 16, 17, 204, 205, 1500] {
        let Code::Known(code) = Code::<ResponseCode>::from(code) else { panic!() };
        let sick = fake(move |_| refused(code)).await;
        let sound = fake(|_| stored(ResponseCode::Success)).await;
        let shared =
            Arc::new(Mutex::new(route(&[("sick", &sick.address), ("sound", &sound.address)])));
        let name_server = name_server(&shared).await;
        let client = client(&name_server);
        let producer = producer(&client);
        for _ in 0..4 {
            let sent = producer.send(Message::new("t", "x")).await.unwrap();
            assert_eq!(
                (sent.queue.broker_name.as_str(), sent.queue_offset),
                ("sound", 7),
                "{code:?}"
            );
        }
        client.shutdown().await;
        for server in [sick, sound, name_server] {
            server.stop().await;
        }
    }
}

#[tokio::test]
async fn a_final_refusal_is_not_repeated_and_a_lasting_one_ends() {
    for (code, attempts) in [(ResponseCode::MessageIllegal, 1), (ResponseCode::SystemBusy, 3)] {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let broker = fake(move |request| {
            if request == RequestCode::SendMessageV2 {
                *count.lock() += 1;
            }
            refused(code)
        })
        .await;
        let shared = Arc::new(Mutex::new(route(&[("b", &broker.address)])));
        let name_server = name_server(&shared).await;
        let client = client(&name_server);
        let error = producer(&client).send(Message::new("t", "x")).await.unwrap_err();
        assert_eq!(*asked.lock(), attempts);
        assert_eq!(error.response_code(), Some(Code::Known(code)));
        let text = error.to_string();
        assert!(text.contains("topic t") && text.contains("because"), "{text}");
        client.shutdown().await;
    }
}

#[tokio::test]
async fn stored_but_not_kept_is_a_status_not_an_error() {
    for (code, status) in [
        (ResponseCode::FlushDiskTimeout, SendStatus::FlushDiskTimeout),
        (ResponseCode::SlaveNotAvailable, SendStatus::SlaveNotAvailable),
        (ResponseCode::FlushSlaveTimeout, SendStatus::FlushSlaveTimeout),
    ] {
        let broker = fake(move |_| stored(code)).await;
        let shared = Arc::new(Mutex::new(route(&[("b", &broker.address)])));
        let name_server = name_server(&shared).await;
        let client = client(&name_server);
        assert_eq!(producer(&client).send(Message::new("t", "x")).await.unwrap().status, status);
        client.shutdown().await;
    }
}

#[tokio::test]
async fn a_master_that_moved_is_found_again() {
    let old = fake(|_| stored(ResponseCode::Success)).await;
    let new = fake(|_| stored(ResponseCode::Success)).await;
    let shared = Arc::new(Mutex::new(route(&[("b", &old.address)])));
    let name_server = name_server(&shared).await;
    let client = client(&name_server);
    let producer = producer(&client);
    producer.send(Message::new("t", "x")).await.unwrap();
    *shared.lock() = route(&[("b", &new.address)]);
    old.stop().await;
    producer.send(Message::new("t", "x")).await.unwrap();
    client.shutdown().await;
}

#[tokio::test]
async fn a_group_that_has_no_master_for_a_moment_fails_no_send() {
    let begun = std::time::Instant::now();
    let broker = fake(move |_| match begun.elapsed() < Duration::from_millis(1500) {
        true => refused(ResponseCode::ServiceNotAvailable),
        false => stored(ResponseCode::Success),
    })
    .await;
    let shared = Arc::new(Mutex::new(route(&[("b", &broker.address)])));
    let name_server = name_server(&shared).await;
    let client = client(&name_server);
    producer(&client).send(Message::new("t", "x")).await.unwrap();
    client.shutdown().await;
}

#[tokio::test]
async fn brokers_that_take_nothing_are_asked_until_the_time_is_up_and_at_intervals() {
    let asked = Arc::new(Mutex::new(0));
    let broker = || {
        let count = Arc::clone(&asked);
        fake(move |request| {
            *count.lock() += u32::from(request == RequestCode::SendMessageV2);
            refused(ResponseCode::ServiceNotAvailable)
        })
    };
    let (one, other) = (broker().await, broker().await);
    let shared = Arc::new(Mutex::new(route(&[("a", &one.address), ("b", &other.address)])));
    let name_server = name_server(&shared).await;
    let client = client(&name_server);
    let config =
        ProducerConfig { send_timeout: Duration::from_secs(2), ..ProducerConfig::default() };
    let producer = Producer::start(&client, config).unwrap();
    let error = producer.send(Message::new("t", "x")).await.unwrap_err();
    assert_eq!(error.response_code(), Some(Code::Known(ResponseCode::ServiceNotAvailable)));
    // Three at once, and then four a second.
    let attempts = *asked.lock();
    assert!((4..=11).contains(&attempts), "{attempts} attempts");
    let config =
        ProducerConfig { group: "once".to_owned(), retries: 0, ..ProducerConfig::default() };
    let once = Producer::start(&client, config).unwrap();
    once.send(Message::new("t", "x")).await.unwrap_err();
    assert_eq!(*asked.lock(), attempts + 1);
    client.shutdown().await;
}

#[tokio::test]
async fn a_silent_broker_costs_no_more_than_the_send_timeout() {
    let broker = fake(|_| None).await;
    let shared = Arc::new(Mutex::new(route(&[("b", &broker.address)])));
    let name_server = name_server(&shared).await;
    let client = client(&name_server);
    let config =
        ProducerConfig { send_timeout: Duration::from_millis(300), ..ProducerConfig::default() };
    let producer = Producer::start(&client, config).unwrap();
    let started = std::time::Instant::now();
    let error = producer.send(Message::new("t", "x")).await.unwrap_err();
    assert!(matches!(error, ClientError::SendFailed { attempts: 1, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
    let config = ProducerConfig {
        group: "patient".to_owned(),
        attempt_timeout: Some(Duration::from_millis(50)),
        ..ProducerConfig::default()
    };
    let patient = Producer::start(&client, config).unwrap();
    let error = patient.send(Message::new("t", "x")).await.unwrap_err();
    assert!(matches!(error, ClientError::SendFailed { attempts: 3, .. }), "{error}");
    broker.stop().await;
    client.shutdown().await;
}

/// An address behind which a broker that says nothing is replaced by `sound` while the first
/// connection to it stays open, as the Service of a master does whose node was cut off.
async fn taken_over_by(sound: &Running) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let next = sound.address.clone();
    tokio::spawn(async move {
        let (_silent, _) = listener.accept().await.unwrap();
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = tokio::net::TcpStream::connect(&next).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    address
}

#[tokio::test]
async fn a_connection_to_a_broker_that_fell_silent_is_given_up() {
    let sound = fake(|_| stored(ResponseCode::Success)).await;
    let address = taken_over_by(&sound).await;
    let shared = Arc::new(Mutex::new(route(&[("b", &address)])));
    let name_server = name_server(&shared).await;
    let client = client(&name_server);
    let producer = producer(&client);
    // Both wait on one connection, and both go on by another.
    let sends =
        tokio::join!(producer.send(Message::new("t", "x")), producer.send(Message::new("t", "y")));
    assert!(sends.0.is_ok() && sends.1.is_ok(), "{sends:?}");
    client.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_is_slow_but_there_is_not_sent_a_message_twice() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&asked);
    let broker = fake(move |request| {
        note.lock().push(request);
        (request == RequestCode::HeartBeat).then(|| (ResponseCode::Success, Vec::new(), Vec::new()))
    })
    .await;
    let shared = Arc::new(Mutex::new(route(&[("b", &broker.address)])));
    let name_server = name_server(&shared).await;
    let client = client(&name_server);
    let error = producer(&client).send(Message::new("t", "x")).await.unwrap_err();
    assert!(matches!(error, ClientError::SendFailed { attempts: 1, .. }), "{error}");
    let asked = asked.lock().clone();
    let sends = asked.iter().filter(|request| **request == RequestCode::SendMessageV2).count();
    assert_eq!(sends, 1, "{asked:?}");
    client.shutdown().await;
}

#[tokio::test]
async fn a_silent_name_server_leaves_a_send_time_for_another() {
    let broker = fake(|_| stored(ResponseCode::Success)).await;
    let shared = Arc::new(Mutex::new(route(&[("b", &broker.address)])));
    let sound = name_server(&shared).await;
    let silent = fake(|_| None).await;
    let servers = format!("{};{}", silent.address, sound.address);
    let client = Client::start(ClientConfig::new(&servers)).unwrap();
    producer(&client).send(Message::new("t", "x")).await.unwrap();
    client.shutdown().await;
}

#[tokio::test]
async fn after_a_send_without_an_answer_the_next_one_asks_where_to_go() {
    let old = fake(|_| None).await;
    let new = fake(|_| stored(ResponseCode::Success)).await;
    let shared = Arc::new(Mutex::new(route(&[("b", &old.address)])));
    let name_server = name_server(&shared).await;
    let client = client(&name_server);
    let config =
        ProducerConfig { send_timeout: Duration::from_millis(300), ..ProducerConfig::default() };
    let producer = Producer::start(&client, config).unwrap();
    producer.send(Message::new("t", "x")).await.unwrap_err();
    *shared.lock() = route(&[("b", &new.address)]);
    producer.send(Message::new("t", "x")).await.unwrap();
    client.shutdown().await;
}

#[tokio::test]
async fn nonsense_is_an_error_that_names_its_sender() {
    let fields = || {
        vec![
            ("msgId", "x".to_owned()),
            ("queueId", "0".to_owned()),
            ("queueOffset", "-1".to_owned()),
            ("offset", "-7".to_owned()),
            ("suggestWhichBrokerId", "0".to_owned()),
            ("nextBeginOffset", "3".to_owned()),
            ("minOffset", "0".to_owned()),
            ("maxOffset", "5".to_owned()),
        ]
    };
    let broker = fake(move |_| Some((ResponseCode::Success, fields(), b"{]\xFF".to_vec()))).await;
    let shared = Arc::new(Mutex::new(route(&[("b", &broker.address)])));
    let name_server = name_server(&shared).await;
    let client = client(&name_server);
    let puller = PullConsumer::new(&client, "g").unwrap();
    let queue = puller.queues("t").await.unwrap().remove(0);
    let errors = [
        producer(&client).send(Message::new("t", "x")).await.map(|_| ()),
        puller.pull(&queue, 0, &PullOptions::default()).await.map(|_| ()),
        puller.committed_offset(&queue).await.map(|_| ()),
        puller.max_offset(&queue).await.map(|_| ()),
        Admin::new(&client).runtime_info(&broker.address).await.map(|_| ()),
        Admin::new(&client).topic_stats("t").await.map(|_| ()),
    ];
    for error in errors {
        let text = error.unwrap_err().to_string();
        assert!(text.contains(&broker.address) && text.contains("unreadable"), "{text}");
    }
    *shared.lock() = TopicRouteData {
        queue_datas: vec![QueueData {
            read_queue_nums: i32::MAX,
            ..route(&[("b", "x")]).queue_datas[0].clone()
        }],
        ..route(&[("b", &broker.address)])
    };
    assert!(matches!(puller.queues("t").await, Err(ClientError::Malformed { .. })));
    client.shutdown().await;
}
