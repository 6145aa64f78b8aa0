//! Whatever peers and operators get wrong costs them an answer or a connection, never the process.

mod common;
#[path = "common/wire.rs"]
mod wire;

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weirmq_client::{
    Client, ClientConfig, Message, Producer, ProducerConfig, PullConsumer, PullOptions, PullStatus,
};
use weirmq_message::batch::BatchUnit;
use weirmq_remoting::RequestCode as Code;
use weirmq_remoting::SerializeType;

use common::random::{Random, seed};
use common::server::{Server, standalone, weir};
use wire::{Socket, ask, frame};

/// What a standalone server may have needed at most, whatever it was sent.
const RSS_BYTES_MAX: u64 = 200 << 20;
const MIB: usize = 1 << 20;

/// A server, and a client that behaves and must not notice what the others do.
struct Subject {
    server: Server,
    bystander: Bystander,
    folder: tempfile::TempDir,
}

impl Subject {
    fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weir.toml");
        std::fs::write(&file, config).unwrap();
        let data = folder.path().join("data");
        let server = Server::start(&data, &["--config", file.to_str().unwrap()]);
        create_topic(&server.broker, BYSTANDER_TOPIC, 6);
        let bystander = Bystander::start(&server);
        Self { server, bystander, folder }
    }

    /// Nothing may have hurt the bystander or the process.
    fn end(self, what: &str) {
        let exchanged = self.bystander.stop();
        let rss = self.server.peak_rss();
        println!(
            "{what}: a client exchanged {exchanged} messages meanwhile; RSS at most {} MiB",
            rss >> 20
        );
        assert!(rss < RSS_BYTES_MAX, "{} MiB", rss >> 20);
        let (status, errors) = self.server.terminate();
        assert!(status.success(), "{status}: {errors}");
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["data", "weir.toml"], "nothing else was written");
    }
}

const BYSTANDER_TOPIC: &str = "bystander";

/// Sends and receives until it is stopped; each message has to come back.
struct Bystander {
    is_over: Arc<AtomicBool>,
    exchanged: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Bystander {
    fn start(server: &Server) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let exchanged = Arc::new(AtomicU64::new(0));
        let (stop, count) = (Arc::clone(&is_over), Arc::clone(&exchanged));
        let namesrv = server.namesrv.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(exchange(&namesrv, &stop, &count));
        });
        Self { is_over, exchanged, thread }
    }

    fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().expect("the bystander was hurt");
        let exchanged = self.exchanged.load(Ordering::SeqCst);
        assert!(exchanged > 0, "the bystander got nothing done");
        exchanged
    }
}

async fn exchange(namesrv: &str, is_over: &AtomicBool, count: &AtomicU64) {
    let client = Client::start(ClientConfig::new(namesrv)).unwrap();
    let config = ProducerConfig { retries: 0, ..ProducerConfig::default() };
    let producer = Producer::start(&client, config).unwrap();
    let reader = PullConsumer::new(&client, "bystanders").unwrap();
    while !is_over.load(Ordering::SeqCst) {
        let number = count.load(Ordering::SeqCst);
        let body = format!("message {number}");
        let sent = producer.send(Message::new(BYSTANDER_TOPIC, body.clone())).await.unwrap();
        let options = PullOptions { wait: Duration::from_secs(3), ..PullOptions::default() };
        let pulled = reader.pull(&sent.queue, sent.queue_offset, &options).await.unwrap();
        assert_eq!(pulled.status, PullStatus::Found);
        assert_eq!(pulled.messages[0].body, body);
        reader.commit_offset(&sent.queue, sent.queue_offset + 1).await.unwrap();
        count.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    client.shutdown().await;
}

fn create_topic(broker: &str, name: &str, perm: i32) {
    let perm = perm.to_string();
    let fields = topic_fields(name, &perm);
    let answer = Socket::open(broker).call(Code::UpdateAndCreateTopic, &fields);
    assert_eq!(answer.code, 0, "{answer:?}");
}

fn topic_fields<'a>(name: &'a str, perm: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("topic", name),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "2"),
        ("writeQueueNums", "2"),
        ("perm", perm),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ]
}

/// `fields` with some of them replaced or added.
fn with<'a>(
    mut fields: Vec<(&'a str, &'a str)>,
    changes: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    for (key, value) in changes {
        fields.retain(|(known, _)| known != key);
        fields.push((key, value));
    }
    fields
}

fn send_fields(topic: &str) -> Vec<(&str, &str)> {
    wire::send_fields(topic, "TAGS\u{1}a\u{2}")
}

fn pull_fields(topic: &str) -> Vec<(&str, &str)> {
    vec![
        ("consumerGroup", "g"),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ]
}

fn offset_fields(topic: &str) -> Vec<(&str, &str)> {
    vec![("consumerGroup", "g"), ("topic", topic), ("queueId", "0"), ("commitOffset", "1")]
}

/// A valid frame that asks for something harmless, and what a mutation may start from.
fn beat() -> Vec<u8> {
    let body = br#"{"clientID":"c@1","producerDataSet":[{"groupName":"p"}],"consumerDataSet":[]}"#;
    ask(SerializeType::Json, Code::HeartBeat.number(), 4242, &[], body)
}

#[test]
fn an_error_that_nobody_reads_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = weir();
    command.args(["store", "verify", "/does/not/exist"]).stdout(Stdio::null()).stderr(writer);
    let closed = command.status().unwrap().code();
    command.stderr(Stdio::null());
    let open = command.status().unwrap().code();
    assert_eq!(closed, open);
    assert_ne!(closed, Some(0));
}

#[test]
fn broken_frames_cost_only_their_own_connection() {
    let subject = Subject::start("");
    for address in [&subject.server.broker, &subject.server.namesrv] {
        frames_that_end_a_connection(address);
        headers_that_get_an_answer(address);
        slow_frames_are_whole_in_the_end(address);
        connections_that_come_and_go(address);
    }
    subject.end("broken frames");
}

fn frames_that_end_a_connection(address: &str) {
    let tls_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
    let bad: [(&str, Vec<u8>); 8] = [
        ("one byte over 16 MiB", [0x01, 0, 0, 1].to_vec()),
        ("2 GiB", [0x7F, 0xFF, 0xFF, 0xFF].to_vec()),
        ("negative", [0xFF, 0xFF, 0xFF, 0xF0, 0, 0, 0, 2, b'{', b'}'].to_vec()),
        ("nothing in it", [0, 0, 0, 0, 0, 0, 0, 0].to_vec()),
        ("header longer than the frame", [0, 0, 0, 8, 0, 0, 0, 99, 1, 2, 3, 4].to_vec()),
        ("header of 16 MiB", [0, 0xFF, 0, 0, 0, 0xFE, 0xFF, 0xFF].to_vec()),
        ("header form 7", [0, 0, 0, 6, 7, 0, 0, 2, b'{', b'}'].to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in bad {
        let mut socket = Socket::open(address);
        socket.send(&bytes);
        assert!(socket.answer().is_none(), "{what}: the connection lives on");
    }
    // The port takes TLS too: a hello that ends in the middle.
    let mut socket = Socket::open(address);
    socket.send(&tls_hello);
    socket.finish();
    assert!(socket.is_closed());
    // Good frames before a bad one are acted upon, none behind it.
    let mut socket = Socket::open(address);
    let mut bytes = ask(SerializeType::Json, 31_999, 1, &[], b"");
    bytes.extend_from_slice(&[0x7F; 8]);
    bytes.extend(ask(SerializeType::Json, 31_999, 2, &[], b""));
    socket.send(&bytes);
    while let Some(answer) = socket.answer() {
        assert_eq!(answer.opaque, 1);
    }
    // Cut at every byte.
    let whole = beat();
    for cut in 0..whole.len() {
        let mut socket = Socket::open(address);
        socket.send(&whole[..cut]);
        socket.finish();
        assert!(socket.answer().is_none(), "cut at {cut}");
    }
    // A long frame that is announced, half sent and given up takes no answer either.
    let mut socket = Socket::open(address);
    socket.send(&[0x00, 0xFF, 0xFF, 0xFF, 0, 0, 0, 2, b'{', b'}']);
    socket.send(&vec![0; 2 * MIB]);
    socket.finish();
    assert!(socket.answer().is_none());
}

/// The frame's borders are known, so the connection goes on.
fn headers_that_get_an_answer(address: &str) {
    let deep_list = format!("{{\"code\":10,\"x\":{}", "[".repeat(100_000));
    let deep_object = format!("{{\"code\":10,\"extFields\":{{\"a\":{}", "{\"a\":".repeat(40_000));
    let many = (0..500).map(|at| format!("\"k{at}\":1")).collect::<Vec<_>>().join(",");
    let many = format!("{{\"code\":10,\"extFields\":{{{many}}}}}");
    let bad: [&[u8]; 19] = [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\"code\"",
        b"{\"opaque\":1}",
        b"{\"code\":null}",
        b"{\"code\":\"ten\"}",
        b"{\"code\":10.5}",
        b"{\"code\":99999999999999999999}",
        b"{\"code\":-99999999999999999999}",
        b"{\"code\":{\"a\":1}}",
        b"{\"code\":10,\"opaque\":\"\\u0000\"}",
        b"{\"code\":10",
        b"{\"code\":10,\"remark\":\"\\",
        b"\xFF\xFE{}",
        deep_list.as_bytes(),
        deep_object.as_bytes(),
        many.as_bytes(),
    ];
    let mut socket = Socket::open(address);
    for header in bad {
        assert!(socket.send(&frame(header, b"body")));
        let answer = socket.answer().expect("the connection was closed");
        let shown = String::from_utf8_lossy(&header[..header.len().min(60)]).into_owned();
        assert_eq!(answer.code, 1, "{shown}: {answer:?}");
        assert!(!answer.remark.is_empty(), "{shown}");
    }
    let mut binary = frame(&[0; 5], b"");
    binary[4] = 1;
    assert!(socket.send(&binary));
    assert_eq!(socket.answer().unwrap().code, 1);

    for code in [0, -1, 9, 31_999, i32::MAX, i32::MIN] {
        assert!(socket.send(&ask(SerializeType::Json, code, 77, &[], b"")));
        let answer = socket.answer().unwrap();
        assert_eq!((answer.code, answer.opaque), (3, 77), "{code}: {answer:?}");
        assert!(answer.remark.contains("not supported"), "{answer:?}");
    }
    assert!(socket.send(&frame(br#"{"code":0,"flag":1,"opaque":5}"#, b"a response to nothing")));
    assert!(socket.send(&frame(br#"{"code":-7,"flag":2,"opaque":6}"#, b"one way, unknown")));
    assert!(socket.send(&ask(SerializeType::Binary, 9999, 8, &[], b"")));
    assert_eq!(socket.answer().unwrap().opaque, 8, "neither is answered");
}

fn slow_frames_are_whole_in_the_end(address: &str) {
    let mut socket = Socket::open(address);
    for byte in ask(SerializeType::Json, 31_999, 3, &[("a", "b")], b"body") {
        assert!(socket.send(&[byte]));
        std::thread::sleep(Duration::from_micros(500));
    }
    assert_eq!(socket.answer().unwrap().opaque, 3);
}

fn connections_that_come_and_go(address: &str) {
    let whole = beat();
    let mut open = Vec::new();
    for at in 0..200 {
        let mut socket = Socket::open(address);
        // Nothing, half a frame, or a frame whose answer nobody reads.
        socket.send(&whole[..whole.len() * (at % 3) / 2]);
        if at % 2 == 0 {
            open.push(socket);
        }
    }
    drop(open);
    // Those that never read are no reason to keep their answers.
    let mut flood = Socket::open(address);
    let frames = ask(SerializeType::Json, 31_999, 1, &[], b"").repeat(500);
    for _ in 0..10 {
        flood.send(&frames);
    }
}

#[test]
fn requests_that_cannot_be_are_refused_with_apaches_codes() {
    let subject = Subject::start("[broker]\nauto_create_topics = false\n");
    let broker = &subject.server.broker;
    create_topic(broker, "good", 6);
    create_topic(broker, "read-only", 4);
    create_topic(broker, "write-only", 2);
    sends_that_are_refused(broker);
    batches_that_are_refused(broker);
    odd_sends_that_are_stored(broker);
    pulls_and_offsets_that_are_refused(broker);
    names_that_are_refused(broker);
    heartbeats_that_are_refused(broker);
    bodies_that_are_no_bodies(broker);
    subject.end("refused requests");
}

#[track_caller]
fn refused(socket: &mut Socket, code: Code, fields: &[(&str, &str)], body: &[u8], with: &[i32]) {
    for serialize in [SerializeType::Json, SerializeType::Binary] {
        let answer = socket.call_as(serialize, code, fields, body);
        let shown: Vec<_> =
            fields.iter().map(|(key, value)| (key, &value[..value.len().min(40)])).collect();
        assert!(with.contains(&answer.code), "{code:?} {shown:?}: {answer:?}");
        assert!(!answer.remark.is_empty(), "{code:?} {shown:?}: no remark");
    }
}

fn sends_that_are_refused(broker: &str) {
    let mut socket = Socket::open(broker);
    let long = "v".repeat(32_768);
    let properties = format!("k\u{1}{long}\u{2}");
    let body = vec![b'x'; 4 * MIB + 1];
    let good = || send_fields("good");
    refused(&mut socket, Code::SendMessage, &good(), &body, &[13]);
    refused(
        &mut socket,
        Code::SendMessage,
        &with(good(), &[("properties", &properties)]),
        b"b",
        &[13],
    );
    refused(&mut socket, Code::SendMessage, &send_fields("unknown"), b"b", &[17]);
    let not_a_template = with(send_fields("unknown"), &[("defaultTopic", "no-such-template")]);
    refused(&mut socket, Code::SendMessage, &not_a_template, b"b", &[17]);
    refused(&mut socket, Code::SendMessage, &send_fields("read-only"), b"b", &[16]);
    refused(&mut socket, Code::SendMessage, &send_fields("SCHEDULE_TOPIC_XXXX"), b"b", &[16]);
    refused(&mut socket, Code::SendMessage, &send_fields("weirmq.state"), b"b", &[16, 17, 29]);
    for queue in ["2", "99999", "2147483647"] {
        let fields = with(good(), &[("queueId", queue)]);
        refused(&mut socket, Code::SendMessage, &fields, b"b", &[29]);
    }
    for (field, value) in [
        ("queueId", "first"),
        ("queueId", "2147483648"),
        ("queueId", ""),
        ("sysFlag", "0x1"),
        ("bornTimestamp", "now"),
        ("bornTimestamp", "9223372036854775808"),
        ("flag", "-2147483649"),
        ("reconsumeTimes", "many"),
    ] {
        let fields = with(good(), &[(field, value)]);
        refused(&mut socket, Code::SendMessage, &fields, b"b", &[1]);
    }
    for (field, _) in good().into_iter().filter(|(field, _)| ["topic", "queueId"].contains(field)) {
        let fields: Vec<_> = good().into_iter().filter(|(name, _)| *name != field).collect();
        refused(&mut socket, Code::SendMessage, &fields, b"b", &[1]);
    }
    // Half and rolled back messages, as a transaction would send them.
    for flag in ["4", "12"] {
        let fields = with(good(), &[("sysFlag", flag)]);
        refused(&mut socket, Code::SendMessage, &fields, b"b", &[16]);
    }
    let fields = with(good(), &[("properties", "TRAN_MSG\u{1}true\u{2}")]);
    refused(&mut socket, Code::SendMessage, &fields, b"b", &[16]);
}

fn batches_that_are_refused(broker: &str) {
    let mut socket = Socket::open(broker);
    let mut unit = Vec::new();
    BatchUnit { flag: 0, body: b"body", properties: b"a\x01b\x02" }.encode(&mut unit).unwrap();
    for cut in 0..unit.len() {
        refused(&mut socket, Code::SendBatchMessage, &send_fields("good"), &unit[..cut], &[13]);
    }
    let mut negative = unit.clone();
    negative[..4].copy_from_slice(&(-1i32).to_be_bytes());
    let mut long_body = unit.clone();
    long_body[16..20].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut negative_body = unit.clone();
    negative_body[16..20].copy_from_slice(&i32::MIN.to_be_bytes());
    let mut delayed = Vec::new();
    BatchUnit { flag: 0, body: b"b", properties: b"DELAY\x013\x02" }.encode(&mut delayed).unwrap();
    let zeroes = vec![0; 4096];
    let too_long = unit.repeat(4 * MIB / unit.len() + 1);
    let garbage = [0xA5; 333];
    let half_good = [&unit[..], &garbage].concat();
    for body in [&negative, &long_body, &negative_body, &delayed, &zeroes, &too_long, &half_good] {
        refused(&mut socket, Code::SendBatchMessage, &send_fields("good"), body, &[13]);
    }
    refused(&mut socket, Code::SendBatchMessage, &send_fields("unknown"), &unit, &[17]);
    let fields = [("topic", "good"), ("queueId", "0")];
    let answer = socket.call(Code::GetMaxOffset, &fields);
    assert_eq!(answer.field("offset"), Some("0"), "a refused batch stores nothing: {answer:?}");
}

/// Nothing that a sender writes into a message can shift what stands behind it in the log.
fn odd_sends_that_are_stored(broker: &str) {
    let mut socket = Socket::open(broker);
    let born = |time| ("bornTimestamp", time);
    let odd: Vec<Vec<(&str, &str)>> = vec![
        vec![("sysFlag", "16")],
        vec![("sysFlag", "32")],
        vec![("sysFlag", "-13")],
        vec![("sysFlag", "2147483635")],
        vec![("sysFlag", "1")],
        vec![("sysFlag", "8")],
        vec![("flag", "-2147483648"), born("-9223372036854775808")],
        vec![("reconsumeTimes", "2147483647"), born("9223372036854775807")],
        vec![("reconsumeTimes", "-1")],
        vec![("properties", "")],
        vec![("properties", "no separator at all")],
        vec![("properties", "\u{1}\u{1}\u{2}\u{2}\u{1}\u{2}")],
        vec![("properties", "DELAY\u{1}99999999999999999999\u{2}")],
        vec![("properties", "DELAY\u{1}-3\u{2}KEYS\u{1}   \u{2}UNIQ_KEY\u{1}\u{2}")],
        vec![("properties", "TAGS\u{1}ä\u{10FFFF}\u{0}\u{2}TAGS\u{1}b\u{2}")],
        vec![("maxReconsumeTimes", "-5"), ("unitMode", "true")],
    ];
    for changes in &odd {
        let fields = with(send_fields("good"), &[("queueId", "1")]);
        let fields = with(fields, changes);
        let answer = socket.call_with_body(Code::SendMessage, &fields, b"odd");
        assert_eq!(answer.code, 0, "{changes:?}: {answer:?}");
        assert_eq!(answer.field("queueId"), Some("1"), "{answer:?}");
    }
    let fields = [("topic", "good"), ("queueId", "1")];
    let max = socket.call(Code::GetMaxOffset, &fields);
    assert_eq!(max.field("offset"), Some(odd.len().to_string().as_str()), "{max:?}");
    let fields = with(pull_fields("good"), &[("queueId", "1"), ("maxMsgNums", "2147483647")]);
    let pulled = socket.call(Code::PullMessage, &fields);
    assert_eq!(pulled.code, 0, "{pulled:?}");
    assert_eq!(pulled.field("nextBeginOffset"), Some(odd.len().to_string().as_str()));
    // A queue below zero is the broker's choice, as in Apache.
    let fields = with(send_fields("good"), &[("queueId", "-2147483648")]);
    assert_eq!(socket.call(Code::SendMessage, &fields).code, 0);
}

fn pulls_and_offsets_that_are_refused(broker: &str) {
    let mut socket = Socket::open(broker);
    let good = || pull_fields("good");
    refused(&mut socket, Code::PullMessage, &pull_fields("unknown"), b"", &[17]);
    refused(&mut socket, Code::PullMessage, &pull_fields("write-only"), b"", &[16]);
    for queue in ["2", "-1", "2147483647", "-2147483648"] {
        let fields = with(good(), &[("queueId", queue)]);
        refused(&mut socket, Code::PullMessage, &fields, b"", &[1, 29]);
    }
    for offset in ["-1", "-9223372036854775808", "9223372036854775807", "1000"] {
        let fields = with(good(), &[("queueOffset", offset), ("sysFlag", "6")]);
        let fields = with(fields, &[("suspendTimeoutMillis", "100")]);
        let answer = socket.call(Code::PullMessage, &fields);
        assert_eq!(answer.code, 21, "{offset}: {answer:?}");
        let next: i64 = answer.field("nextBeginOffset").unwrap().parse().unwrap();
        assert!((0..=64).contains(&next), "{answer:?}");
    }
    for (field, value) in [
        ("maxMsgNums", "0"),
        ("maxMsgNums", "-1"),
        ("maxMsgNums", "-2147483648"),
        ("suspendTimeoutMillis", "-9223372036854775808"),
        ("commitOffset", "-9223372036854775808"),
        ("subVersion", "-1"),
        ("maxMsgBytes", "-1"),
        ("sysFlag", "4"),
    ] {
        let answer = socket.call(Code::PullMessage, &with(good(), &[(field, value)]));
        assert!([0, 1, 19, 20, 29].contains(&answer.code), "{field} {value}: {answer:?}");
    }
    let many_tags = vec!["t"; 100_000 / 4].join("||");
    for (kind, expression) in [("SQL92", "a > 1"), ("NONSENSE", "*"), ("TAG", &many_tags)] {
        let fields = with(good(), &[("expressionType", kind), ("subscription", expression)]);
        refused(&mut socket, Code::PullMessage, &fields, b"", &[1, 23]);
    }
    for (field, value) in [("queueOffset", "one"), ("maxMsgNums", "2147483648"), ("sysFlag", "")] {
        refused(&mut socket, Code::PullMessage, &with(good(), &[(field, value)]), b"", &[1]);
    }

    let good = || offset_fields("good");
    refused(&mut socket, Code::UpdateConsumerOffset, &offset_fields("unknown"), b"", &[17]);
    for (field, value) in [
        ("commitOffset", "-1"),
        ("commitOffset", "-9223372036854775808"),
        ("queueId", "-1"),
        ("queueId", "2147483647"),
        ("consumerGroup", "../x"),
        ("consumerGroup", ""),
    ] {
        let fields = with(good(), &[(field, value)]);
        refused(&mut socket, Code::UpdateConsumerOffset, &fields, b"", &[29]);
    }
    for (topic, queue) in [("unknown", "0"), ("good", "-1"), ("good", "2147483647"), ("../x", "7")]
    {
        let fields = with(offset_fields(topic), &[("queueId", queue), ("timestamp", "-1")]);
        refused(&mut socket, Code::QueryConsumerOffset, &fields, b"", &[22]);
        for code in [Code::GetMaxOffset, Code::GetMinOffset, Code::SearchOffsetByTimestamp] {
            assert_eq!(socket.call(code, &fields).field("offset"), Some("0"), "{code:?}");
        }
    }
    for offset in ["-1", "9223372036854775807", "1", "12345678"] {
        refused(&mut socket, Code::ViewMessageById, &[("offset", offset)], b"", &[1]);
        let fields = [("offset", offset), ("group", "g"), ("delayLevel", "-2147483648")];
        refused(&mut socket, Code::ConsumerSendMessageBack, &fields, b"", &[1, 26]);
    }
    let range = [("maxNum", "-1"), ("beginTimestamp", "9"), ("endTimestamp", "-9")];
    let fields = [&[("topic", "good"), ("key", "")], &range[..]].concat();
    refused(&mut socket, Code::QueryMessage, &fields, b"", &[22]);
}

fn names_that_are_refused(broker: &str) {
    let mut socket = Socket::open(broker);
    let long = "t".repeat(128);
    for name in ["../x", "/etc/passwd", "", " ", "a b", "a.b", "ä", "\u{0}", "a\n", &long] {
        refused(&mut socket, Code::UpdateAndCreateTopic, &topic_fields(name, "6"), b"", &[29]);
        refused(&mut socket, Code::SendMessage, &send_fields(name), b"b", &[29]);
        refused(&mut socket, Code::PullMessage, &pull_fields(name), b"", &[17, 29]);
        // What is not there is deleted, as in Apache.
        let answer = socket.call(Code::DeleteTopicInBroker, &[("topic", name)]);
        assert!([0, 17, 29].contains(&answer.code), "{name}: {answer:?}");
    }
    let long = "g".repeat(256);
    for name in ["../x", "", " ", "a.b", "ä", &long] {
        let body = format!("{{\"groupName\":{}}}", serde_json::to_string(name).unwrap());
        let create = Code::UpdateAndCreateSubscriptionGroup;
        refused(&mut socket, create, &[], body.as_bytes(), &[29]);
        let fields = with(pull_fields("good"), &[("consumerGroup", name)]);
        refused(&mut socket, Code::PullMessage, &fields, b"", &[26, 29]);
    }
    for (field, value) in [
        ("readQueueNums", "0"),
        ("readQueueNums", "-1"),
        ("writeQueueNums", "2147483647"),
        ("perm", "8"),
        ("perm", "-1"),
        ("attributes", "nonsense"),
    ] {
        let fields = with(topic_fields("never-made", "6"), &[(field, value)]);
        refused(&mut socket, Code::UpdateAndCreateTopic, &fields, b"", &[29]);
    }
}

fn heartbeats_that_are_refused(broker: &str) {
    let mut socket = Socket::open(broker);
    let deep = format!("{{\"clientID\":\"c\",\"x\":{}", "[".repeat(MIB));
    let deep_object = "{\"consumerDataSet\":[".repeat(50_000);
    let many = vec!["{\"groupName\":\"g\"}"; 2000].join(",");
    let many = format!("{{\"clientID\":\"c\",\"producerDataSet\":[{many}]}}");
    let long_id = format!("{{\"clientID\":\"{}\"}}", "c".repeat(5000));
    let bad: [&[u8]; 13] = [
        b"",
        b"garbage",
        b"{",
        b"{}",
        b"[]",
        b"\xFF\xFE\x00",
        b"{\"clientID\":\"\"}",
        b"{\"clientID\":\"c\",\"consumerDataSet\":{\"a\":1}}",
        b"{\"clientID\":\"c\",\"consumerDataSet\":[{\"groupName\":\"../x\"}]}",
        b"{\"clientID\":\"c\",\"producerDataSet\":[{\"groupName\":\"\"}]}",
        deep.as_bytes(),
        deep_object.as_bytes(),
        many.as_bytes(),
    ];
    for body in bad.into_iter().chain([long_id.as_bytes()]) {
        refused(&mut socket, Code::HeartBeat, &[], body, &[1, 29]);
    }
}

/// Garbage as the body of everything that has one; and no field of everything that has some.
fn bodies_that_are_no_bodies(broker: &str) {
    let mut socket = Socket::open(broker);
    let deep = "[".repeat(200_000);
    for code in Code::ALL {
        for body in [b"", &b"garbage"[..], b"{\"a\":", deep.as_bytes(), &[0xFF; 64]] {
            let answer = socket.call_with_body(*code, &[], body);
            assert!((0..=1500).contains(&answer.code), "{code:?}: {answer:?}");
        }
    }
}

#[test]
fn whatever_its_flags_say_an_acknowledged_message_survives_a_rebuild_of_the_queues() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    create_topic(&server.broker, "odd", 6);
    let mut acknowledged = 0;
    let mut socket = Socket::open(&server.broker);
    for flag in 0..64 {
        let flag = flag.to_string();
        let properties =
            ["TAGS\u{1}a\u{2}TAGS\u{1}b\u{2}", "TAGS\u{1}\u{2}", "x"][acknowledged % 3];
        let fields = with(send_fields("odd"), &[("sysFlag", &flag), ("properties", properties)]);
        let answer = socket.call_with_body(Code::SendMessage, &fields, b"odd");
        if answer.code == 0 {
            let offset = answer.field("queueOffset").unwrap().to_owned();
            assert_eq!(offset, acknowledged.to_string(), "sysFlag {flag}");
            acknowledged += 1;
        }
    }
    let tagged = with(pull_fields("odd"), &[("subscription", "b"), ("maxMsgNums", "100")]);
    let all = with(pull_fields("odd"), &[("maxMsgNums", "100")]);
    let pull = |socket: &mut Socket, fields: &[(&str, &str)]| {
        let answer = socket.call(Code::PullMessage, fields);
        let records = weirmq_message::record::records(&answer.body);
        let offsets: Vec<_> = records.map(|record| record.unwrap().queue_offset).collect();
        (answer.code, offsets)
    };
    let before = (pull(&mut socket, &tagged), pull(&mut socket, &all));
    server.kill();
    // Derived files are made again from the log alone.
    for derived in ["weir/queues", "weir/keys"] {
        for entry in std::fs::read_dir(data.join(derived)).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    let server = Server::start(&data, &[]);
    let mut socket = Socket::open(&server.broker);
    let after = (pull(&mut socket, &tagged), pull(&mut socket, &all));
    assert_eq!(before, after);
    assert_eq!(after.1.1, (0..acknowledged as u64).collect::<Vec<_>>());
    let (status, errors) = server.terminate();
    assert!(status.success(), "{status}: {errors}");
}

#[test]
fn random_mutations_of_valid_frames_never_end_the_process() {
    let seed = seed();
    let mut random = Random::new(seed);
    let subject = Subject::start("");
    create_topic(&subject.server.broker, "fuzzed", 6);
    let seeds = valid_frames();
    let begun = Instant::now();
    let (mut frames, mut connections) = (0, 0);
    while begun.elapsed() < Duration::from_secs(5) && frames < 40_000 {
        let address = match random.below(4) {
            0 => &subject.server.namesrv,
            _ => &subject.server.broker,
        };
        connections += 1;
        let mut socket = Socket::open(address);
        let keeps_borders = random.below(3) > 0;
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(20) {
            let valid = &seeds[random.below(seeds.len() as u64) as usize];
            bytes.extend(mutated(valid, keeps_borders, &mut random));
            frames += 1;
        }
        // That byte begins a TLS handshake, which is answered in TLS.
        if bytes.first() == Some(&0x16) {
            bytes[0] = 0;
        }
        // A frame that nobody touched is answered whatever came before it.
        bytes.extend(ask(SerializeType::Json, 31_999, -77, &[], b""));
        socket.send(&bytes);
        if !keeps_borders {
            socket.finish();
        }
        let mut is_answered = false;
        while !is_answered {
            match socket.answer() {
                Some(answer) => is_answered = answer.opaque == -77,
                None => break,
            }
        }
        assert!(is_answered || !keeps_borders, "seed {seed}: no answer on {address}");
    }
    println!("{frames} mutated frames on {connections} connections");
    assert!(frames > 1000, "only {frames} frames");
    subject.end("mutations");
}

/// A request of every family, in both forms.
fn valid_frames() -> Vec<Vec<u8>> {
    let mut unit = Vec::new();
    BatchUnit { flag: 0, body: b"body", properties: b"a\x01b\x02" }.encode(&mut unit).unwrap();
    let units = unit.repeat(3);
    let heartbeat = br#"{"clientID":"f@1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"fuzzers","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[97],"expressionType":"TAG","subString":"a","subVersion":1,"tagsSet":["a"],"topic":"fuzzed"}],"unitMode":false}],"producerDataSet":[{"groupName":"p"}]}"#;
    let group = br#"{"groupName":"fuzzers","retryMaxTimes":3,"retryQueueNums":1}"#;
    let lock = br#"{"clientId":"f@1","consumerGroup":"fuzzers","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"fuzzed"}]}"#;
    let register = br#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":1},"topicConfigTable":{"elsewhere":{"order":false,"perm":6,"readQueueNums":1,"topicFilterType":"SINGLE_TAG","topicName":"elsewhere","topicSysFlag":0,"writeQueueNums":1}}}}"#;
    let topic_and_queue = [("topic", "fuzzed"), ("queueId", "0"), ("timestamp", "1")];
    let key = [("namespace", "fuzz"), ("key", "k"), ("value", "v")];
    let identity = [
        ("brokerName", "elsewhere"),
        ("brokerAddr", "127.0.0.1:1"),
        ("clusterName", "fuzz-cluster"),
        ("haServerAddr", "127.0.0.1:2"),
        ("brokerId", "0"),
        ("heartbeatTimeoutMillis", "1000"),
    ];
    let query = [
        ("topic", "fuzzed"),
        ("key", "k"),
        ("maxNum", "10"),
        ("beginTimestamp", "0"),
        ("endTimestamp", "9999999999999"),
    ];
    let back =
        [("offset", "0"), ("group", "fuzzers"), ("delayLevel", "1"), ("originTopic", "fuzzed")];
    let client = [("clientID", "f@1"), ("producerGroup", "p"), ("consumerGroup", "fuzzers")];
    type Request<'a> = (Code, Vec<(&'a str, &'a str)>, &'a [u8]);
    let requests: Vec<Request<'_>> = vec![
        (Code::SendMessage, send_fields("fuzzed"), b"body"),
        (Code::SendMessage, send_fields("made-by-fuzz"), b"body"),
        (Code::SendBatchMessage, send_fields("fuzzed"), &units),
        (Code::PullMessage, pull_fields("fuzzed"), b""),
        (Code::HeartBeat, vec![], heartbeat),
        (Code::UnregisterClient, client.to_vec(), b""),
        (Code::UpdateConsumerOffset, offset_fields("fuzzed"), b""),
        (Code::QueryConsumerOffset, offset_fields("fuzzed"), b""),
        (Code::SearchOffsetByTimestamp, topic_and_queue.to_vec(), b""),
        (Code::GetMaxOffset, topic_and_queue.to_vec(), b""),
        (Code::UpdateAndCreateTopic, topic_fields("fuzzed", "6"), b""),
        (Code::UpdateAndCreateSubscriptionGroup, vec![], group),
        (Code::LockBatchMessageQueue, vec![], lock),
        (Code::UnlockBatchMessageQueue, vec![], lock),
        (Code::ConsumerSendMessageBack, back.to_vec(), b""),
        (Code::QueryMessage, query.to_vec(), b""),
        (Code::ViewMessageById, vec![("offset", "0")], b""),
        (Code::GetConsumerListByGroup, vec![("consumerGroup", "fuzzers")], b""),
        (Code::GetConsumeStats, vec![("consumerGroup", "fuzzers")], b""),
        (Code::GetTopicStatsInfo, vec![("topic", "fuzzed")], b""),
        (Code::GetRouteInfoByTopic, vec![("topic", "fuzzed")], b""),
        (Code::RegisterBroker, identity.to_vec(), register),
        (Code::UnregisterBroker, identity.to_vec(), b""),
        (Code::PutKvConfig, key.to_vec(), b""),
        (Code::GetKvConfig, key.to_vec(), b""),
        (Code::GetKvListByNamespace, key.to_vec(), b""),
    ];
    let forms = [SerializeType::Json, SerializeType::Binary];
    let each = |form| {
        requests.iter().map(move |(code, fields, body)| ask(form, code.number(), 5, fields, body))
    };
    forms.into_iter().flat_map(each).collect()
}

/// `valid` with a few bytes changed, cut out or put in. With `keeps_borders` the two lengths in
/// front are right afterwards.
fn mutated(valid: &[u8], keeps_borders: bool, random: &mut Random) -> Vec<u8> {
    const TOKENS: [&[u8]; 12] = [
        b"\"",
        b"{",
        b"[[[[[[[[",
        b"-",
        b"99999999999",
        b"null",
        b"\\u",
        b"\x01",
        b"\x02",
        b"\0",
        b"\xFF\xFF\xFF\xFF",
        b"%RETRY%",
    ];
    let is_json = valid[4] == 0;
    let header = u32::from_be_bytes([0, valid[5], valid[6], valid[7]]) as usize;
    let mut parts = [valid[8..8 + header].to_vec(), valid[8 + header..].to_vec()];
    let mut whole = valid.to_vec();
    for _ in 0..1 + random.below(4) {
        let part = usize::from(random.below(3) == 0 && !parts[1].is_empty());
        let bytes = if keeps_borders { &mut parts[part] } else { &mut whole };
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let token = TOKENS[random.below(TOKENS.len() as u64) as usize];
                bytes.splice(at..at, token.iter().copied());
            }
            _ => {
                let end = (at + random.below(16) as usize).min(bytes.len());
                let copied = bytes[at..end].to_vec();
                bytes.splice(at..at, copied);
            }
        }
    }
    if !keeps_borders {
        return whole;
    }
    let mut built = frame(&parts[0], &parts[1]);
    built[4] = u8::from(!is_json);
    // A mutated flag makes it one-way or a response, which is not answered: the last frame is.
    built
}

/// A start that fails: its exit code and the one line that says why.
#[track_caller]
fn failed_start(command: &mut Command) -> (i32, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it runs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(!stdout.contains("ready "), "{stdout}");
    let lines: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    let [line] = lines[..] else { panic!("not one error line: {errors}") };
    (output.status.code().unwrap(), line.to_owned())
}

#[track_caller]
fn fails_naming(command: &mut Command, named: &[&str]) {
    let (code, line) = failed_start(command);
    println!("{line}");
    assert_eq!(code, 1, "{line}");
    for name in named {
        assert!(line.contains(name), "{name:?} is not in: {line}");
    }
}

#[test]
fn a_start_on_ports_or_data_in_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--namesrv-port", "--broker-port", "--admin-port"] {
        let mut command = weir();
        command.args(["standalone", "--host", "127.0.0.1", "--data"]).arg(folder.path());
        let flags = ["--namesrv-port", "--broker-port", "--admin-port"];
        for other in flags {
            command.args([other, if other == flag { &port } else { "0" }]);
        }
        fails_naming(command.stdin(Stdio::null()), &[&port, "in use", flag]);
    }

    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    let before = TcpStream::connect(&server.broker).unwrap();
    fails_naming(&mut standalone(&data, &[]), &[data.to_str().unwrap(), "in use"]);
    drop(before);
    assert!(server.terminate().0.success(), "the first one was not disturbed");
}

#[test]
fn a_start_on_a_directory_that_cannot_be_used_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    fails_naming(&mut standalone(&file, &[]), &[file.to_str().unwrap()]);
    let below = file.join("data");
    fails_naming(&mut standalone(&below, &[]), &[below.to_str().unwrap()]);
    // Nobody makes directories there, root neither.
    let read_only = Path::new("/proc/weir-data");
    fails_naming(&mut standalone(read_only, &[]), &["/proc/weir-data"]);
    if rustix::process::geteuid().is_root() {
        common::skipped("a directory without write permission; root writes to it all the same");
    } else {
        let locked = folder.path().join("locked");
        std::fs::create_dir(&locked).unwrap();
        std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).unwrap();
        let named = [locked.to_str().unwrap(), "ermission denied"];
        fails_naming(&mut standalone(&locked, &[]), &named);
    }
}

#[test]
fn a_data_directory_of_another_time_or_store_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    assert!(server.terminate().0.success());
    let format = data.join("weir/format.json");
    let good = std::fs::read(&format).unwrap();
    let named = format.to_str().unwrap();

    let other = folder.path().join("other.toml");
    std::fs::write(&other, "[broker]\nname = 'broker-z'\n").unwrap();
    let arguments = ["--config", other.to_str().unwrap()];
    fails_naming(&mut standalone(&data, &arguments), &[named, "broker-a", "broker-z"]);

    std::fs::write(&format, small_file(b"{\"version\": 99, \"news\": true}\n")).unwrap();
    fails_naming(&mut standalone(&data, &[]), &[named, "99", "newer"]);
    std::fs::write(&format, b"no checksum, nothing").unwrap();
    fails_naming(&mut standalone(&data, &[]), &[named]);
    std::fs::write(&format, good).unwrap();
    assert!(Server::start(&data, &[]).terminate().0.success(), "refusals changed nothing");
}

/// A small file of the store: magic, CRC-32 and contents.
fn small_file(contents: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in contents {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let mut file = format!("weir1 {:08x}\n", !crc).into_bytes();
    file.extend_from_slice(contents);
    file
}

#[test]
fn a_configuration_that_says_nonsense_is_refused_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("weir.toml");
    let cases: [(&str, &[&str]); 6] = [
        ("[broker]\nclustr = 'x'\n", &["line 2", "clustr", "did you mean `cluster`?"]),
        ("[broker.store]\nsegmentbytes = 1\n", &["line 2", "did you mean `segment_bytes`?"]),
        ("[broker]\nname = 3\n", &["line 2", "invalid type"]),
        ("[broker\n", &["line 1"]),
        ("[broker.store]\nsegment_bytes = 1\n", &["store.segment_bytes is 1"]),
        ("[broker]\nname = '../x'\n", &["name is ../x"]),
    ];
    for (text, named) in cases {
        std::fs::write(&file, text).unwrap();
        fails_naming(&mut standalone(&data, &["--config", file.to_str().unwrap()]), named);
        assert!(!data.exists(), "refused before anything is made");
    }
}

/// A file system of its own; unmounted when dropped.
struct TinyDisk(PathBuf);

impl TinyDisk {
    /// `None` where this user may not mount.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).stderr(Stdio::null());
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        is_mounted.then_some(Self(at))
    }

    fn grow(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // What is left unmounted shows in the test's folder, which cannot be removed then.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_an_answer_and_not_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("weir.toml");
    let text = "[broker.store]\nsegment_bytes = 2097152\nfree_bytes_min = 2097152\n\
                [broker.limits]\nmessage_bytes_max = 131072\n";
    std::fs::write(&config, text).unwrap();
    let arguments = ["--config", config.to_str().unwrap()];

    let Some(tiny) = TinyDisk::mount(folder.path().join("tiny"), "64k") else {
        common::skipped("this user may not mount a file system to fill");
        return;
    };
    let data = tiny.0.join("data");
    let filler = tiny.0.join("filler");
    std::fs::write(&filler, vec![b'x'; 65536]).unwrap();
    fails_naming(&mut standalone(&data, &arguments), &[data.to_str().unwrap(), "No space left"]);
    std::fs::remove_file(&filler).unwrap();
    // With less than the floor it starts, to be read, and says so at each write.
    let server = Server::start(&data, &arguments);
    let answer =
        Socket::open(&server.broker).call(Code::UpdateAndCreateTopic, &topic_fields("t", "6"));
    assert_eq!(answer.code, 14, "{answer:?}");
    drop(server);

    let small = TinyDisk::mount(folder.path().join("small"), "16m").unwrap();
    let data = small.0.join("data");
    let server = Server::start(&data, &arguments);
    create_topic(&server.broker, "filling", 6);
    let mut socket = Socket::open(&server.broker);
    let body = vec![b'x'; 100_000];
    let mut stored = 0;
    let full = (0..1000).find_map(|_| {
        let answer = socket.call_with_body(Code::SendMessage, &send_fields("filling"), &body);
        match answer.code {
            0 => {
                stored += 1;
                None
            }
            _ => Some(answer),
        }
    });
    let full = full.expect("a disk of 16 MiB takes no 100 MB");
    assert_eq!(full.code, 14, "{full:?}");
    assert!(full.remark.contains("free"), "{full:?}");
    println!("after {stored} messages: {}", full.remark);
    // Reading goes on, and so does the process.
    let last = (stored - 1).to_string();
    let fields = with(pull_fields("filling"), &[("queueOffset", &last)]);
    assert_eq!(socket.call(Code::PullMessage, &fields).code, 0);
    let (status, errors) = server.terminate();
    let last_line = errors.lines().last().unwrap_or_default();
    assert!(status.success() || last_line.contains("No space left"), "{status}: {errors}");
    println!("stopped with {status}: {last_line}");

    small.grow("64m");
    let server = Server::start(&data, &arguments);
    let mut socket = Socket::open(&server.broker);
    let kept = socket.call(Code::GetMaxOffset, &[("topic", "filling"), ("queueId", "0")]);
    assert_eq!(kept.field("offset"), Some(stored.to_string().as_str()), "{kept:?}");
    let answer = socket.call_with_body(Code::SendMessage, &send_fields("filling"), &body);
    assert_eq!(answer.code, 0, "there is room again: {answer:?}");
}
