//! A broker group whose roles stand in the configuration, as processes.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use weirmq_client::{
    Client, ClientConfig, ClientError, Filter, Message, Producer, ProducerConfig, PullConsumer,
    PullOptions, PullStatus, SendStatus,
};

use crate::common::server::{Server, Starting, weir};

pub(crate) const TOPIC: &str = "replicated";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Small segments, so that every test crosses some borders.
pub(crate) const CONFIG: &str = "[broker.store]\nsegment_bytes = 1048576\nfree_bytes_min = 4096\n\
                      [broker.limits]\nmessage_bytes_max = 131072\nflush_timeout_ms = 700\n";

/// A NameServer, and a place for a broker group.
pub(crate) struct Group {
    pub(crate) folder: TempDir,
    pub(crate) namesrv: Server,
    pub(crate) runtime: Runtime,
    pub(crate) extra: Vec<String>,
    pub(crate) log_level: &'static str,
}

impl Group {
    pub(crate) fn new(extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("weir.toml"), CONFIG).unwrap();
        std::fs::write(folder.path().join("secret"), "only the replicas know").unwrap();
        let mut command = weir();
        command.args(["namesrv", "--bind", "127.0.0.1", "--namesrv-port", "0"]);
        command.args(["--admin-port", "0", "--log-level", "warn"]).stdin(Stdio::null());
        let namesrv = Starting::spawn(&mut command).ready();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let extra = extra.iter().map(|text| (*text).to_owned()).collect();
        Self { folder, namesrv, runtime, extra, log_level: "error" }
    }

    pub(crate) fn data(&self, replica: u32) -> PathBuf {
        self.folder.path().join(format!("replica-{replica}"))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub(crate) fn start(&self, replica: u32, arguments: &[&str]) -> Starting {
        let mut command = weir();
        command.args(["broker", "--bind", "127.0.0.1", "--admin-port", "0"]);
        command.args(["--log-level", self.log_level, "-n", &self.namesrv.namesrv]);
        command.args(["--config", &self.path("weir.toml")]);
        command.args(["--replication-secret-file", &self.path("secret")]);
        command.args(["--broker-id", &replica.to_string()]).args(&self.extra).args(arguments);
        command.arg("--data").arg(self.data(replica)).stdin(Stdio::null());
        Starting::spawn(&mut command)
    }

    pub(crate) fn master(&self) -> Server {
        self.start(0, &["--broker-port", "0"]).ready()
    }

    /// The master again, at the port that it had.
    pub(crate) fn master_at(&self, address: &str) -> Server {
        let port = address.rsplit_once(':').unwrap().1;
        self.start(0, &["--broker-port", port]).ready()
    }

    pub(crate) fn slave(&self, replica: u32, master: &Server) -> Server {
        let master = replication_port(&master.broker);
        self.start(replica, &["--broker-port", "0", "--master", &master]).ready()
    }

    pub(crate) fn client(&self) -> (Client, Producer) {
        let config = ClientConfig {
            name_servers: vec![self.namesrv.namesrv.clone()],
            ..ClientConfig::default()
        };
        let _runtime = self.runtime.enter();
        let client = Client::start(config).unwrap();
        let config = ProducerConfig { retries: 0, ..ProducerConfig::default() };
        let producer = Producer::start(&client, config).unwrap();
        (client, producer)
    }

    /// Sends so many messages, one after the other, and says what became of each.
    pub(crate) fn send(
        &self,
        producer: &Producer,
        from: u64,
        count: u64,
    ) -> Vec<Result<SendStatus, ClientError>> {
        self.runtime.block_on(async {
            let mut sent = Vec::new();
            for number in from..from + count {
                let body = vec![number as u8; 2_000 + (number % 500) as usize];
                let mut message = Message::new(TOPIC, body);
                message.properties.insert("number".to_owned(), number.to_string());
                sent.push(producer.send(message).await.map(|result| result.status));
            }
            sent
        })
    }

    /// The numbers of all messages that consumers see, with where each was read.
    pub(crate) fn read(&self, client: &Client, group: &str) -> Vec<u64> {
        let consumer = PullConsumer::new(client, group).unwrap();
        self.runtime.block_on(async {
            let mut numbers = Vec::new();
            for queue in consumer.queues(TOPIC).await.unwrap() {
                let mut offset = 0;
                loop {
                    let options = PullOptions { filter: Filter::All, ..PullOptions::default() };
                    let pulled = consumer.pull(&queue, offset, &options).await.unwrap();
                    if pulled.status != PullStatus::Found {
                        break;
                    }
                    let number = |message: &weirmq_client::ReceivedMessage| {
                        message.properties["number"].parse::<u64>().unwrap()
                    };
                    numbers.extend(pulled.messages.iter().map(number));
                    offset = pulled.next_offset;
                }
            }
            numbers.sort_unstable();
            // Who tries again until it succeeds sends twice.
            numbers.dedup();
            numbers
        })
    }
}

pub(crate) fn replication_port(broker: &str) -> String {
    let (host, port) = broker.rsplit_once(':').unwrap();
    format!("{host}:{}", port.parse::<u16>().unwrap() + 1)
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All bytes of the log, as far as they are written in both.
pub(crate) fn log(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut segments: Vec<_> = std::fs::read_dir(data.join("commitlog"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let mut bytes = std::fs::read(&path).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(end);
            (path.file_name().unwrap().to_string_lossy().into_owned(), bytes)
        })
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    segments.sort();
    segments
}

pub(crate) fn is_ok(sent: &[Result<SendStatus, ClientError>]) -> bool {
    sent.iter().all(|status| matches!(status, Ok(SendStatus::Ok)))
}

pub(crate) fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut body = String::new();
    stream.read_to_string(&mut body).unwrap();
    body
}

/// A peer that speaks the protocol and lies.
pub(crate) struct Liar(pub(crate) TcpStream);

impl Liar {
    pub(crate) fn connect(port: &str) -> Self {
        let stream = TcpStream::connect(port).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn say(&mut self, kind: u8, contents: &[u8]) {
        let mut frame = (contents.len() as u32 + 1).to_be_bytes().to_vec();
        frame.push(kind);
        frame.extend_from_slice(contents);
        self.0.write_all(&frame).unwrap();
    }

    /// The next frame; `None` when the connection was ended.
    pub(crate) fn hear_any(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize - 1;
        let mut contents = vec![0; length];
        self.0.read_exact(&mut contents).ok()?;
        Some((head[4], contents))
    }

    /// The next frame of a kind; `None` when the connection was ended.
    pub(crate) fn hear(&mut self, wanted: u8) -> Option<Vec<u8>> {
        loop {
            let (kind, contents) = self.hear_any()?;
            if kind == wanted {
                return Some(contents);
            }
        }
    }
}
