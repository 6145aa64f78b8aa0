//! The rocketmq-rust client against one cluster.
//!
//! Arguments: name server, prefix of topic and group names, features separated by commas. Prints
//! one line a feature: `RESULT name ok seconds` or `RESULT name fail reason`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocketmq_client_rust::{
    ClientConfig, ClientResult, ClientRuntime, ClientRuntimeConfig, ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus, DefaultLitePullConsumer, DefaultMQProducer, DefaultMQPushConsumer,
    MQPushConsumer, MessageListenerConcurrently, SendResult, SendStatus,
};
use rocketmq_model::common::consumer::consume_from_where::ConsumeFromWhere;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_single::Message;
use rocketmq_model::common::message::MessageTrait;
use rocketmq_observability::TelemetryRuntimeGuard;
use rocketmq_runtime::RuntimeOwner;

/// How long a feature waits for its messages.
const BOUND: Duration = Duration::from_secs(40);

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What one feature works with: its own topic, group and producer.
struct Scope {
    runtime: Arc<ClientRuntime>,
    namesrv: String,
    topic: String,
    group: String,
    producer: DefaultMQProducer,
}

/// What the features look at, taken from a message when it arrives.
#[derive(Clone)]
struct Received {
    topic: String,
    number: usize,
    body: String,
    keys: String,
    tags: String,
    unique_id: String,
    /// The broker's id, which other clients call the offset message id.
    id: String,
    queue_offset: i64,
    reconsume_times: i32,
}

impl Received {
    fn of(message: &MessageExt) -> Self {
        let keys = message.get_keys().unwrap_or_default().to_string();
        Self {
            topic: message.topic().to_string(),
            number: keys
                .strip_prefix("key-")
                .and_then(|number| number.parse().ok())
                .unwrap_or(usize::MAX),
            body: String::from_utf8_lossy(&message.body().unwrap_or_default()).into_owned(),
            tags: message.get_tags().unwrap_or_default().to_string(),
            unique_id: message.property(&"UNIQ_KEY".into()).unwrap_or_default().to_string(),
            id: message.msg_id().to_string(),
            queue_offset: message.queue_offset(),
            reconsume_times: message.reconsume_times(),
            keys,
        }
    }
}

/// Keeps what a push consumer gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Received>>>);

impl MessageListenerConcurrently for Collector {
    fn consume_message(
        &self,
        messages: &[&MessageExt],
        _context: &ConsumeConcurrentlyContext,
    ) -> ClientResult<ConsumeConcurrentlyStatus> {
        self.0.lock().unwrap().extend(messages.iter().map(|message| Received::of(message)));
        Ok(ConsumeConcurrentlyStatus::ConsumeSuccess)
    }
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(what().into())
    }
}

fn client_config(namesrv: &str, instance: &str) -> ClientConfig {
    let mut config = ClientConfig::default();
    config.set_namesrv_addr(namesrv.into());
    config.set_instance_name(instance.into());
    config
}

impl Scope {
    fn body(&self, i: usize) -> String {
        format!("{} body {i}", self.topic)
    }

    fn message(&self, i: usize, tag: &str) -> Message {
        Message::builder()
            .topic(self.topic.as_str())
            .tags(tag)
            .key(format!("key-{i}"))
            .body_slice(self.body(i).as_bytes())
            .build_unchecked()
    }

    async fn send(&self, i: usize, tag: &str) -> Result<SendResult, Box<dyn std::error::Error>> {
        let result =
            self.producer.send(self.message(i, tag)).await?.ok_or("send answered nothing")?;
        check(result.send_status == SendStatus::SendOk, || format!("send answered {result}"))?;
        Ok(result)
    }

    /// Starts a push consumer at the beginning of the topic and waits for `count` messages.
    async fn receive(
        &self,
        count: usize,
        expression: &str,
    ) -> Result<Vec<Received>, Box<dyn std::error::Error>> {
        let collector = Collector::default();
        let mut consumer = DefaultMQPushConsumer::builder(self.runtime.clone())
            .client_config(client_config(&self.namesrv, &self.group))
            .consumer_group(self.group.as_str())
            .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
            .build();
        consumer.subscribe(self.topic.as_str(), expression).await?;
        consumer.register_message_listener_concurrently(collector.clone());
        consumer.start().await?;
        let begin = Instant::now();
        while collector.0.lock().unwrap().len() < count && begin.elapsed() < BOUND {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        consumer.shutdown().await;
        let received = collector.0.lock().unwrap().clone();
        check(received.len() == count, || {
            format!("expected {count} messages, have {}", received.len())
        })?;
        Ok(received)
    }

    fn check_messages(&self, received: &[Received], count: usize, tag: &str) -> Outcome {
        let numbers: BTreeSet<usize> = received.iter().map(|message| message.number).collect();
        check(received.len() == count && numbers == (0..count).collect(), || {
            format!(
                "expected messages 0 to {}, got {numbers:?}, {} in all",
                count - 1,
                received.len()
            )
        })?;
        for message in received {
            let i = message.number;
            check(message.topic == self.topic, || {
                format!("topic of message {i}: {}", message.topic)
            })?;
            check(message.body == self.body(i), || {
                format!("body of message {i}: {}", message.body)
            })?;
            check(message.keys == format!("key-{i}"), || {
                format!("keys of message {i}: {}", message.keys)
            })?;
            check(message.tags == tag, || format!("tag of message {i}: {}", message.tags))?;
            // This client runs its listener in a pool with a short queue (8 for each core). What
            // finds the queue full was not consumed, so it is sent back (36), and comes again.
            if message.reconsume_times != 0 {
                println!("message {i} has reconsumeTimes {}", message.reconsume_times);
            }
        }
        Ok(())
    }
}

async fn sync(scope: &Scope) -> Outcome {
    let mut ids = BTreeSet::new();
    for i in 0..12 {
        let result = scope.send(i, "TagA").await?;
        ids.insert((
            result.msg_id.unwrap_or_default().to_string(),
            result.offset_msg_id.unwrap_or_default().to_string(),
        ));
    }
    let received = scope.receive(12, "*").await?;
    scope.check_messages(&received, 12, "TagA")?;
    let got =
        received.iter().map(|message| (message.unique_id.clone(), message.id.clone())).collect();
    check(ids == got, || format!("ids sent {ids:?}, received {got:?}"))
}

async fn oneway(scope: &Scope) -> Outcome {
    // The first send makes the topic, and says when that has happened.
    scope.send(0, "TagA").await?;
    for i in 1..20 {
        scope.producer.send_oneway(scope.message(i, "TagA")).await?;
    }
    scope.check_messages(&scope.receive(20, "*").await?, 20, "TagA")
}

async fn batch(scope: &Scope) -> Outcome {
    let result = scope
        .producer
        .send_batch((0..16).map(|i| scope.message(i, "TagA")).collect::<Vec<_>>())
        .await?;
    check(result.send_status == SendStatus::SendOk, || format!("send answered {result}"))?;
    let mut received = scope.receive(16, "*").await?;
    scope.check_messages(&received, 16, "TagA")?;
    received.sort_by_key(|message| message.number);
    let offsets: Vec<i64> = received.iter().map(|message| message.queue_offset).collect();
    check(offsets == (0..16).collect::<Vec<i64>>(), || {
        format!("queue offsets of the batch: {offsets:?}")
    })
}

async fn push(scope: &Scope) -> Outcome {
    for i in 0..30 {
        scope.send(i, "TagA").await?;
    }
    scope.check_messages(&scope.receive(30, "*").await?, 30, "TagA")
}

async fn tags(scope: &Scope) -> Outcome {
    for i in 0..30 {
        scope.send(i, ["TagA", "TagB", "TagC"][i % 3]).await?;
    }
    // Without blanks: this client hashes the tags together with the blanks around them.
    let received = scope.receive(20, "TagA||TagC").await?;
    let foreign =
        received.iter().filter(|message| message.number % 3 == 1 || message.tags == "TagB").count();
    check(foreign == 0, || format!("{foreign} messages with TagB"))
}

/// The lite pull consumer: subscribe, poll, commit.
async fn pull(scope: &Scope) -> Outcome {
    for i in 0..20 {
        scope.send(i, "TagA").await?;
    }
    let consumer = DefaultLitePullConsumer::builder(scope.runtime.clone())
        .name_server_addr(scope.namesrv.as_str())
        .instance_name(scope.group.as_str())
        .consumer_group(scope.group.as_str())
        .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
        .build()?;
    // Its shutdown waits for the pull that the broker holds back.
    consumer.set_broker_suspend_max_time_millis(1000).await;
    consumer.subscribe_with_expression(&scope.topic, "*").await?;
    consumer.start().await?;
    let begin = Instant::now();
    let mut received = Vec::new();
    while received.len() < 20 && begin.elapsed() < BOUND {
        received.extend(consumer.poll_with_timeout(200).await.iter().map(Received::of));
    }
    scope.check_messages(&received, 20, "TagA")?;
    consumer.commit_all().await?;
    let queues = consumer.fetch_message_queues(&scope.topic).await?;
    loop {
        let mut committed = 0;
        for queue in &queues {
            committed += consumer.committed(queue).await?.max(0);
        }
        if committed == 20 {
            break;
        }
        check(begin.elapsed() < BOUND, || format!("{committed} of 20 messages committed"))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    consumer.shutdown().await;
    Ok(())
}

async fn run(runtime: Arc<ClientRuntime>, namesrv: &str, prefix: &str, name: &str) -> Outcome {
    let topic = format!("{prefix}-{name}");
    let mut producer = DefaultMQProducer::builder(runtime.clone())
        .client_config(client_config(namesrv, &format!("p-{topic}")))
        .producer_group(format!("p-{topic}"))
        .build();
    producer.start().await?;
    let group = format!("g-{topic}");
    let mut scope = Scope { runtime, namesrv: namesrv.to_owned(), topic, group, producer };
    let outcome = match name {
        "sync" => sync(&scope).await,
        "oneway" => oneway(&scope).await,
        "batch" => batch(&scope).await,
        "push" => push(&scope).await,
        "tags" => tags(&scope).await,
        "pull" => pull(&scope).await,
        _ => Err("there is no such feature".into()),
    };
    scope.producer.shutdown().await;
    outcome
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let owner = RuntimeOwner::new()?;
    let telemetry = TelemetryRuntimeGuard::noop();
    let runtime = ClientRuntime::try_new(
        owner.root_context().component("matrix"),
        ClientRuntimeConfig::default(),
        telemetry.handle(),
    )?;
    owner.block_on(async {
        for name in arguments[3].split(',') {
            let begin = Instant::now();
            match run(runtime.clone(), &arguments[1], &arguments[2], name).await {
                Ok(()) => println!("RESULT {name} ok {:.2}", begin.elapsed().as_secs_f64()),
                Err(error) => {
                    let reason = format!("{error:?}");
                    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
                    println!("RESULT {name} fail {reason}");
                }
            }
        }
        runtime.shutdown().await;
    });
    owner.shutdown_runtime_blocking()?;
    Ok(())
}
