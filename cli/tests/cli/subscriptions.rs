//! What consumers subscribe to outlives a broker, until their next heartbeats.

use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use weirmq_remoting::command::{HeaderWriter, SerializeType};
use weirmq_remoting::net::{Connection, NoRequests, connect};
use weirmq_remoting::{RequestCode, ResponseCode};

use crate::support::Server;

const PATIENCE: Duration = Duration::from_secs(20);
const HEARTBEAT: &str = r#"{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY",
    "messageModel":"CLUSTERING","subscriptionDataSet":[{"topic":"BenchmarkTest","subString":"*","subVersion":7}]}]}"#;

/// One connection of a consumer.
struct Consumer<'a> {
    runtime: &'a Runtime,
    connection: Connection,
}

impl<'a> Consumer<'a> {
    fn new(runtime: &'a Runtime, server: &Server) -> Self {
        let connecting =
            connect(server.address("broker"), PATIENCE, Default::default(), |_| NoRequests);
        Self { runtime, connection: runtime.block_on(connecting).unwrap() }
    }

    fn call(&self, code: RequestCode, fields: &[(&str, &str)], body: &[u8]) -> i32 {
        let write = |writer: &mut HeaderWriter<'_>| {
            fields.iter().for_each(|(name, value)| writer.text(name, (*value).into()));
        };
        let call = self.connection.call(SerializeType::Json, code.number(), write, body, PATIENCE);
        let answer = self.runtime.block_on(call).unwrap();
        answer.command().unwrap().head.code
    }

    fn subscribe(&self) -> i32 {
        self.call(RequestCode::HeartBeat, &[], HEARTBEAT.as_bytes())
    }

    /// A pull that leaves out what it subscribes to, as Java's does.
    fn pull(&self, version: &str) -> i32 {
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "BenchmarkTest"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "32"),
            ("sysFlag", "0"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subVersion", version),
        ];
        self.call(RequestCode::PullMessage, &fields, b"")
    }
}

#[test]
fn a_consumer_that_subscribed_before_a_restart_pulls_after_it_and_one_that_left_does_not() {
    use ResponseCode::{PullNotFound, SubscriptionNotExist, SubscriptionNotLatest, Success};

    let folder = TempDir::new().unwrap();
    let data = folder.path().to_str().unwrap();
    let runtime = Runtime::new().unwrap();
    let mut server = Server::with_data(data);
    let mut consumer = Consumer::new(&runtime, &server);
    assert_eq!(consumer.pull("7"), SubscriptionNotExist.number());
    assert_eq!(consumer.subscribe(), Success.number());
    for _ in 0..2 {
        assert_eq!(consumer.pull("7"), PullNotFound.number());
        assert_eq!(server.signal("TERM").0, Some(0));
        server = Server::with_data(data);
        consumer = Consumer::new(&runtime, &server);
        // What it subscribed to later is not known.
        assert_eq!(consumer.pull("8"), SubscriptionNotLatest.number());
    }
    assert_eq!(consumer.subscribe(), Success.number());
    let leaves = [("clientID", "c"), ("consumerGroup", "g")];
    assert_eq!(consumer.call(RequestCode::UnregisterClient, &leaves, b""), Success.number());
    assert_eq!(consumer.pull("7"), SubscriptionNotExist.number());
    assert_eq!(server.signal("TERM").0, Some(0));
    server = Server::with_data(data);
    assert_eq!(Consumer::new(&runtime, &server).pull("7"), SubscriptionNotExist.number());
}
