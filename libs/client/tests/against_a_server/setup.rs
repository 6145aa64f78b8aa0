//! What every test needs: the server, names of its own, and waiting with a bound.

use std::future::Future;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, sleep};
use weirmq_client::{
    Admin, Client, ClientConfig, ConsumeFrom, ConsumeStatus, MessageQueue, Producer,
    ProducerConfig, PullConsumer, PullOptions, PushConsumer, PushConsumerConfig, ReceivedMessage,
};
use weirmq_remoting::body::{SubscriptionGroupConfig, TopicConfig};

/// More than any step takes on a loaded machine; reached only by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Tests that change something for all topics exclude the others.
static QUIET: RwLock<()> = RwLock::const_new(());

/// A client of the server under test.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) admin: Admin,
    pub(crate) cluster: String,
    /// One master's address.
    pub(crate) broker: String,
    pub(crate) name_servers: String,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
}

impl Server {
    /// `None`, and a line that says why, when there is no server to test against.
    pub(crate) async fn find() -> Option<Self> {
        Self::connect(Some(QUIET.read().await), None).await
    }

    /// As [`Server::find`], while no other test runs.
    pub(crate) async fn find_alone() -> Option<Self> {
        Self::connect(None, Some(QUIET.write().await)).await
    }

    async fn connect(
        shared: Option<RwLockReadGuard<'static, ()>>,
        alone: Option<RwLockWriteGuard<'static, ()>>,
    ) -> Option<Self> {
        static SKIPPED: Once = Once::new();
        let Ok(name_servers) = std::env::var("WEIRMQ_TEST_NAMESRV") else {
            SKIPPED.call_once(|| {
                let line = "skipped: WEIRMQ_TEST_NAMESRV names no name server to test against\n";
                // Past the test harness, which keeps what passing tests print to itself.
                let _ = std::io::stderr().write_all(line.as_bytes());
            });
            return None;
        };
        let client = client(&name_servers);
        let admin = Admin::new(&client);
        // A server that has just started may not have met its NameServer yet.
        eventually("a master is up", async || admin.masters(None).await.is_ok()).await;
        let info = admin.cluster_info().await.expect("the name server answers");
        let cluster = info.cluster_addr_table.keys().next().expect("a cluster").clone();
        let masters = admin.masters(Some(&cluster)).await.expect("a master");
        let broker = masters.values().next().expect("a master").clone();
        Some(Self { client, admin, cluster, broker, name_servers, _shared: shared, _alone: alone })
    }

    /// Another client with an id of its own.
    pub(crate) fn other_client(&self) -> Client {
        client(&self.name_servers)
    }

    /// Creates a topic and waits until the NameServer knows it.
    pub(crate) async fn topic(&self, what: &str, queues: i32) -> String {
        let topic = name(what);
        let config = TopicConfig {
            topic_name: topic.clone(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            ..TopicConfig::default()
        };
        self.admin.create_topic(&self.cluster, &config).await.expect("the topic is created");
        eventually("the route is there", async || self.admin.route(&topic).await.is_ok()).await;
        topic
    }

    pub(crate) fn producer(&self) -> Producer {
        let config = ProducerConfig {
            group: name("producers"),
            send_timeout: Duration::from_secs(20),
            ..ProducerConfig::default()
        };
        Producer::start(&self.client, config).expect("a producer")
    }

    pub(crate) fn puller(&self) -> PullConsumer {
        PullConsumer::new(&self.client, &name("pullers")).expect("a pull consumer")
    }

    /// Creates a consumer group.
    pub(crate) async fn group(&self, what: &str) -> String {
        let group = name(what);
        let config = SubscriptionGroupConfig {
            group_name: group.clone(),
            ..SubscriptionGroupConfig::default()
        };
        self.admin.create_group(&self.cluster, &config).await.expect("the group is created");
        group
    }

    /// Everything that is in a topic, queue by queue, once it is `count` messages: brokers may
    /// answer a send before the message can be read.
    pub(crate) async fn contents(&self, topic: &str, count: usize) -> Vec<ReceivedMessage> {
        let puller = self.puller();
        let mut all = Vec::new();
        eventually("the messages can be read", async || {
            all.clear();
            for queue in puller.queues(topic).await.expect("queues") {
                all.extend(read_queue(&puller, &queue).await);
            }
            all.len() >= count
        })
        .await;
        assert_eq!(all.len(), count);
        all
    }

    pub(crate) async fn shutdown(self) {
        tokio::time::timeout(PATIENCE, self.client.shutdown()).await.expect("shutdown ends");
    }
}

pub(crate) async fn read_queue(
    puller: &PullConsumer,
    queue: &MessageQueue,
) -> Vec<ReceivedMessage> {
    let mut messages = Vec::new();
    let mut offset = puller.min_offset(queue).await.expect("min offset");
    let end = puller.max_offset(queue).await.expect("max offset");
    while offset < end {
        let result = puller.pull(queue, offset, &PullOptions::default()).await.expect("pull");
        assert!(result.unreadable.is_empty());
        offset = result.next_offset;
        messages.extend(result.messages);
    }
    messages
}

fn client(name_servers: &str) -> Client {
    let config = ClientConfig {
        request_timeout: Duration::from_secs(20),
        ..ClientConfig::new(name_servers)
    };
    Client::start(config).expect("a client")
}

/// A name that no other run has.
pub(crate) fn name(what: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{what}_{}_{counter}", since.as_millis())
}

/// Asks again and again, for answers that only the server's own time brings.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Bounds a wait for an event.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// A group's settings for tests, from the beginning of each queue.
pub(crate) fn consumer_config(group: &str, topic: &str, filter: &str) -> PushConsumerConfig {
    PushConsumerConfig {
        group: group.to_owned(),
        subscriptions: vec![(topic.to_owned(), filter.into())],
        consume_from: ConsumeFrom::First,
        ..PushConsumerConfig::default()
    }
}

/// Starts a consumer that passes everything on and answers by `decide`.
pub(crate) async fn consume(
    client: &Client,
    config: PushConsumerConfig,
    decide: impl Fn(&ReceivedMessage) -> ConsumeStatus + Send + Sync + 'static,
) -> (PushConsumer, mpsc::UnboundedReceiver<ReceivedMessage>) {
    let (seen, received) = mpsc::unbounded_channel();
    (consume_into(client, config, seen, decide).await, received)
}

/// As [`consume`], into a channel that several consumers may share.
pub(crate) async fn consume_into(
    client: &Client,
    config: PushConsumerConfig,
    seen: mpsc::UnboundedSender<ReceivedMessage>,
    decide: impl Fn(&ReceivedMessage) -> ConsumeStatus + Send + Sync + 'static,
) -> PushConsumer {
    let decide = Arc::new(decide);
    let consumer = PushConsumer::start(client, config, move |messages| {
        let (seen, decide) = (seen.clone(), Arc::clone(&decide));
        async move {
            let mut status = ConsumeStatus::Success;
            for message in messages {
                status = decide(&message);
                let _ = seen.send(message);
            }
            status
        }
    });
    consumer.await.expect("a consumer")
}

pub(crate) async fn receive(
    received: &mut mpsc::UnboundedReceiver<ReceivedMessage>,
    count: usize,
) -> Vec<ReceivedMessage> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let what = format!("message {} of {count}", messages.len() + 1);
        messages.push(soon(&what, received.recv()).await.expect("the consumer runs"));
    }
    messages
}

pub(crate) fn bodies(messages: &[ReceivedMessage]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
}

pub(crate) fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}
