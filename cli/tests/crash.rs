//! `kill -9` under load, again and again on the same data: what was acknowledged is there.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use weirmq_client::{
    Admin, Client, ClientConfig, ConsumeStatus, Filter, Message, MessageQueue, Producer,
    ProducerConfig, PullConsumer, PullOptions, PullStatus, PushConsumer, PushConsumerConfig,
    SendStatus,
};
use weirmq_remoting::body::{SubscriptionGroupConfig, TopicConfig};
use weirmq_remoting::command::Text;
use weirmq_remoting::header::{Header as _, UpdateConsumerOffsetHeader};
use weirmq_remoting::net::{Limits, NoRequests, connect};
use weirmq_remoting::{RequestCode, SerializeType};

use common::random::{Random, seed};
use common::server::{Server, Starting, standalone};

const CLUSTER: &str = "DefaultCluster";
const TOPICS: [&str; 2] = ["load-a", "load-b"];
const QUEUES: i32 = 3;
/// Commits with an answer.
const EXACT_GROUP: &str = "exact-readers";
/// Commits without one.
const LOOSE_GROUP: &str = "loose-readers";
/// A one-way commit is in the log within 200 ms; the rest is for a machine that does more than
/// this test.
const LOOSE_WITHIN: Duration = Duration::from_millis(200 + 400);
const PRODUCERS: u64 = 3;
/// Sends that one producer has on their way at a time.
const WINDOW: usize = 12;
/// Segments of 2 MiB, so that every round crosses some borders.
const CONFIG: &str = "[broker.store]\nsegment_bytes = 2097152\nfree_bytes_min = 4096\n\
                      [broker.limits]\nmessage_bytes_max = 131072\n";

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_with_asynchronous_flush() {
    kill_again_and_again("async", 6);
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_with_synchronous_flush() {
    kill_again_and_again("sync", 4);
}

fn kill_again_and_again(flush: &str, kills_under_load: u32) {
    let seed = seed();
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("weir.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let data = folder.path().join("data");
    let arguments = ["--flush", flush, "--config", config.to_str().unwrap()];
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut known = Known::default();

    let begun = Instant::now();
    let mut server = Server::start(&data, &arguments);
    let start_time = begun.elapsed();
    runtime.block_on(create_what_the_load_needs(&server, &mut known));
    let mut kills = 0;
    let mut kills_at_start = 0;
    for round in 0..=kills_under_load {
        let load = Load::start(&runtime, &server, &known, u64::from(round));
        let pause = Duration::from_millis(150 + random.below(400));
        std::thread::sleep(pause);
        load.is_over.store(true, Ordering::SeqCst);
        let is_last = round == kills_under_load;
        if is_last {
            let (status, errors) = server.terminate();
            assert!(status.success(), "seed {seed}: {status}: {errors}");
        } else {
            let errors = server.kill();
            // SIGKILL may end a write between two pages.
            let is_torn = |line: &&str| line.contains("records that were not all on disk");
            let others = errors.lines().filter(|line| !is_torn(line) && !line.is_empty());
            assert_eq!(others.count(), 0, "seed {seed}: {errors}");
            kills += 1;
        }
        let ended = Instant::now();
        runtime.block_on(load.end(ended, &mut known));
        if !is_last && round % 2 == 0 {
            let at_start = kill_while_it_starts(&data, &arguments, start_time, &mut random);
            kills += at_start.0;
            kills_at_start += at_start.1;
        }
        server = Server::start(&data, &arguments);
        let problems = runtime.block_on(known.compare(&server));
        assert!(
            problems.is_empty(),
            "seed {seed}, flush {flush}, round {round}:\n{}",
            problems.join("\n")
        );
    }
    runtime.block_on(known.go_on_consuming(&server));
    let rss = server.peak_rss();
    let (status, errors) = server.terminate();
    assert!(status.success() && errors.is_empty(), "seed {seed}: {status}: {errors}");
    let segments = std::fs::read_dir(data.join("commitlog")).unwrap().count();
    assert!(segments > 2, "the load was too small to fill {segments} segments");
    println!(
        "flush {flush}: killed {kills} times ({kills_at_start} before it was ready), \
         acked {}, stored {}, lost 0, segments {segments}, commits {}, \
         RSS {} MiB, {:.1} s",
        known.acknowledged,
        known.stored.values().map(BTreeMap::len).sum::<usize>(),
        known.commits,
        rss >> 20,
        begun.elapsed().as_secs_f64(),
    );
}

/// Kills it in the middle of its recovery, twice or three times. Answers how
/// often in all, and how often before it was ready.
fn kill_while_it_starts(
    data: &Path,
    arguments: &[&str],
    start_time: Duration,
    random: &mut Random,
) -> (u32, u32) {
    let mut before_ready = 0;
    let mut longest = start_time.as_micros() as u64;
    for attempt in 1..=3 {
        let mut starting = Starting::spawn(&mut standalone(data, arguments));
        std::thread::sleep(Duration::from_micros(random.below(longest)));
        let (was_ready, _) = starting.kill();
        if was_ready {
            longest /= 2;
            continue;
        }
        before_ready += 1;
        if before_ready == 2 {
            return (attempt, before_ready);
        }
    }
    (3, before_ready)
}

async fn create_what_the_load_needs(server: &Server, known: &mut Known) {
    let client = client_of(server);
    let admin = Admin::new(&client);
    for topic in TOPICS {
        admin.create_topic(CLUSTER, &topic_config(topic)).await.unwrap();
        known.topics.insert(topic.to_owned());
    }
    for group in [EXACT_GROUP, LOOSE_GROUP] {
        admin.create_group(CLUSTER, &group_config(group)).await.unwrap();
        known.groups.insert(group.to_owned());
    }
    client.shutdown().await;
}

fn topic_config(name: &str) -> TopicConfig {
    TopicConfig {
        topic_name: name.to_owned(),
        read_queue_nums: QUEUES,
        write_queue_nums: QUEUES,
        ..TopicConfig::default()
    }
}

fn group_config(name: &str) -> SubscriptionGroupConfig {
    SubscriptionGroupConfig { group_name: name.to_owned(), ..SubscriptionGroupConfig::default() }
}

fn client_of(server: &Server) -> Client {
    Client::start(ClientConfig::new(&server.namesrv)).unwrap()
}

/// Which message it is: the round, the producer, and its number.
fn message_number(round: u64, producer: u64, number: u64) -> u64 {
    (round << 48) | (producer << 40) | number
}

/// The body of a message: its number, and bytes that follow from it. Mostly short, now and then
/// long enough to be compressed.
fn body(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let length = match random.below(64) {
        0 => 5000 + random.below(20_000),
        _ => random.below(1500),
    };
    let mut body = number.to_be_bytes().to_vec();
    while body.len() < length as usize {
        body.extend_from_slice(&random.next().to_be_bytes());
    }
    body
}

fn number_of(body: &[u8]) -> Option<u64> {
    body.first_chunk::<8>().map(|number| u64::from_be_bytes(*number))
}

type QueueKey = (String, i32);

fn key_of(queue: &MessageQueue) -> QueueKey {
    (queue.topic.clone(), queue.queue_id)
}

/// What the broker has told us, and must not take back.
#[derive(Default)]
struct Known {
    /// Acknowledged or seen: queue, offset, message.
    stored: HashMap<QueueKey, BTreeMap<u64, u64>>,
    acknowledged: usize,
    /// How many messages each producer began to send, by round and producer.
    begun: HashMap<(u64, u64), u64>,
    topics: BTreeSet<String>,
    deleted_topics: BTreeSet<String>,
    groups: BTreeSet<String>,
    /// Commits of the exact group: the last answered one, and the last one begun.
    exact: HashMap<QueueKey, (u64, u64)>,
    /// Commits of the loose group: what has to be there at least, and at most.
    loose: (u64, u64),
    commits: u64,
}

impl Known {
    /// Asks the broker for everything. Answers what is wrong.
    async fn compare(&mut self, server: &Server) -> Vec<String> {
        let client = client_of(server);
        let admin = Admin::new(&client);
        let mut problems = Vec::new();

        let topics = admin.topic_configs(&server.broker).await.unwrap();
        for topic in &self.topics {
            match topics.get(topic) {
                None => problems.push(format!("topic {topic} is gone")),
                Some(found) if found.write_queue_nums != QUEUES => {
                    problems.push(format!("topic {topic} has {} queues", found.write_queue_nums));
                }
                Some(_) => {}
            }
        }
        for topic in self.deleted_topics.iter().filter(|topic| topics.contains_key(*topic)) {
            problems.push(format!("topic {topic} is there again"));
        }
        let groups = admin.groups(&server.broker).await.unwrap();
        for group in self.groups.iter().filter(|group| !groups.contains_key(*group)) {
            problems.push(format!("group {group} is gone"));
        }

        let reader = PullConsumer::new(&client, EXACT_GROUP).unwrap();
        let mut seen = HashSet::new();
        for topic in TOPICS {
            for queue in reader.queues(topic).await.unwrap() {
                let found = read_all(&reader, &queue, &mut problems).await;
                self.compare_queue(&queue, &found, &mut seen, &mut problems);
                self.stored.insert(key_of(&queue), found);
                let committed = reader.committed_offset(&queue).await.unwrap().unwrap_or(0);
                let (answered, begun) = self.exact.get(&key_of(&queue)).copied().unwrap_or((0, 0));
                if committed != answered && committed != begun {
                    problems.push(format!(
                        "{queue:?}: committed {committed}, the last answered commit was \
                         {answered}, the last one begun {begun}"
                    ));
                }
                self.exact.insert(key_of(&queue), (committed, committed));
            }
        }

        let loose = PullConsumer::new(&client, LOOSE_GROUP).unwrap();
        let queue = loose.queues(TOPICS[0]).await.unwrap().remove(0);
        let committed = loose.committed_offset(&queue).await.unwrap().unwrap_or(0);
        let (least, most) = self.loose;
        if !(least..=most).contains(&committed) {
            problems.push(format!("one-way commits: {committed} is not in {least}..={most}"));
        }
        self.loose = (committed, committed);
        client.shutdown().await;
        problems
    }

    fn compare_queue(
        &self,
        queue: &MessageQueue,
        found: &BTreeMap<u64, u64>,
        seen: &mut HashSet<u64>,
        problems: &mut Vec<String>,
    ) {
        for (offset, number) in self.stored.get(&key_of(queue)).into_iter().flatten() {
            if found.get(offset) != Some(number) {
                problems.push(format!(
                    "LOST {queue:?} offset {offset}: message {number:x} was acknowledged, {:x?} \
                     is there",
                    found.get(offset)
                ));
            }
        }
        for (offset, number) in found {
            if !seen.insert(*number) {
                problems.push(format!("{queue:?} offset {offset}: message {number:x} twice"));
            }
            let (round, producer) = (number >> 48, (number >> 40) & 0xFF);
            let begun = self.begun.get(&(round, producer)).copied().unwrap_or(0);
            if number & 0xFF_FFFF_FFFF >= begun {
                problems.push(format!("{queue:?} offset {offset}: nobody sent {number:x}"));
            }
        }
    }

    /// A member of the group gets what was not consumed, from the committed offset on.
    async fn go_on_consuming(&self, server: &Server) {
        let client = client_of(server);
        let mut first: HashMap<QueueKey, u64> = HashMap::new();
        for ((topic, queue), found) in &self.stored {
            let committed = self.exact[&(topic.clone(), *queue)].0;
            if topic == TOPICS[0] && found.contains_key(&committed) {
                first.insert((topic.clone(), *queue), committed);
            }
        }
        let (got, mut received) = tokio::sync::mpsc::unbounded_channel();
        let config = PushConsumerConfig {
            group: EXACT_GROUP.to_owned(),
            subscriptions: vec![(TOPICS[0].to_owned(), Filter::All)],
            consume_batch_max: 32,
            ..PushConsumerConfig::default()
        };
        let consumer = PushConsumer::start(&client, config, move |messages| {
            let got = got.clone();
            async move {
                for message in messages.iter() {
                    // The test may have seen enough.
                    let _ = got.send((message.queue_id, message.queue_offset));
                }
                ConsumeStatus::Success
            }
        })
        .await
        .unwrap();
        let mut missing: HashSet<_> = first.keys().cloned().collect();
        while !missing.is_empty() {
            let next = tokio::time::timeout(Duration::from_secs(5), received.recv()).await;
            let Ok(Some((queue, offset))) = next else {
                panic!("the group did not go on with {missing:?}");
            };
            let key = (TOPICS[0].to_owned(), queue);
            let committed = self.exact[&key].0;
            assert!(offset >= committed, "queue {queue} went on with {offset} before {committed}");
            if offset == committed {
                missing.remove(&key);
            }
        }
        consumer.shutdown().await;
        client.shutdown().await;
    }
}

/// Everything in a queue, by offset; bodies are checked on the way.
async fn read_all(
    reader: &PullConsumer,
    queue: &MessageQueue,
    problems: &mut Vec<String>,
) -> BTreeMap<u64, u64> {
    let options = PullOptions { messages_max: 160, bytes_max: 1 << 20, ..PullOptions::default() };
    let mut found = BTreeMap::new();
    let mut next = reader.min_offset(queue).await.unwrap();
    if next != 0 {
        problems.push(format!("{queue:?} begins at {next}"));
    }
    let end = reader.max_offset(queue).await.unwrap();
    while next < end {
        let pulled = reader.pull(queue, next, &options).await.unwrap();
        if pulled.status != PullStatus::Found {
            problems.push(format!("{queue:?}: {:?} at {next} of {end}", pulled.status));
            return found;
        }
        for unreadable in &pulled.unreadable {
            problems.push(format!("{queue:?}: {}", unreadable.error));
        }
        for message in &pulled.messages {
            if message.queue_offset != next {
                let offset = message.queue_offset;
                problems.push(format!("{queue:?}: offset {offset} comes where {next} should"));
            }
            match number_of(&message.body) {
                Some(number) if message.body == body(number) => {
                    found.insert(message.queue_offset, number);
                }
                _ => problems.push(format!("{queue:?} offset {next}: not a body of ours")),
            }
            next = message.queue_offset + 1;
        }
        if pulled.messages.is_empty() {
            problems.push(format!("{queue:?}: nothing at {next} of {end}"));
            return found;
        }
    }
    found
}

/// Everybody who uses the broker until it ends.
struct Load {
    /// From now on errors are no surprise.
    is_over: Arc<AtomicBool>,
    tasks: JoinSet<Told>,
    producers: JoinSet<(u64, Told)>,
    loose: JoinSet<Vec<(Instant, u64)>>,
    round: u64,
    clients: Vec<Client>,
    begun: Vec<Arc<AtomicU64>>,
}

/// What a task was told by the broker.
#[derive(Default)]
struct Told {
    stored: Vec<(QueueKey, u64, u64)>,
    topics: Vec<String>,
    deleted_topics: Vec<String>,
    /// Deletions without an answer.
    doubtful_topics: Vec<String>,
    groups: Vec<String>,
    exact: HashMap<QueueKey, (u64, u64)>,
    commits: u64,
}

impl Load {
    fn start(runtime: &Runtime, server: &Server, known: &Known, round: u64) -> Self {
        let _entered = runtime.enter();
        let is_over = Arc::new(AtomicBool::new(false));
        let mut load = Self {
            is_over: Arc::clone(&is_over),
            tasks: JoinSet::new(),
            producers: JoinSet::new(),
            loose: JoinSet::new(),
            round,
            clients: Vec::new(),
            begun: Vec::new(),
        };
        for producer in 0..PRODUCERS {
            let client = client_of(server);
            let config =
                ProducerConfig { retries: 0, body_bytes_max: 128 << 10, ..Default::default() };
            let sender = Producer::start(&client, config).unwrap();
            let begun = Arc::new(AtomicU64::new(0));
            for slot in 0..WINDOW {
                let sender = sender.clone();
                let begun = Arc::clone(&begun);
                let is_over = Arc::clone(&is_over);
                // One slot in four sends batches.
                let batch_max = if slot % 4 == 0 { 24 } else { 1 };
                let topic = TOPICS[slot % TOPICS.len()];
                load.producers.spawn(async move {
                    let number = |at| message_number(round, producer, at);
                    (producer, produce(&sender, topic, batch_max, &begun, number, &is_over).await)
                });
            }
            load.begun.push(begun);
            load.clients.push(client);
        }
        let client = client_of(server);
        let from = known.exact.clone();
        load.tasks.spawn(consume(client.clone(), from, Arc::clone(&is_over)));
        load.tasks.spawn(administer(client.clone(), round, Arc::clone(&is_over)));
        load.clients.push(client);
        let broker = server.broker.clone();
        load.loose.spawn(commit_one_way(broker, known.loose.0, is_over));
        load
    }

    /// Waits for everybody and notes what they were told.
    async fn end(mut self, ended: Instant, known: &mut Known) {
        while let Some(told) = self.producers.join_next().await {
            known.note(told.unwrap().1);
        }
        while let Some(told) = self.tasks.join_next().await {
            known.note(told.unwrap());
        }
        while let Some(sent) = self.loose.join_next().await {
            for (at, offset) in sent.unwrap() {
                known.commits += 1;
                known.loose.1 = offset;
                if ended.duration_since(at) > LOOSE_WITHIN {
                    known.loose.0 = offset;
                }
            }
        }
        for (producer, begun) in self.begun.iter().enumerate() {
            known.begun.insert((self.round, producer as u64), begun.load(Ordering::SeqCst));
        }
        for client in self.clients {
            client.shutdown().await;
        }
    }
}

impl Known {
    fn note(&mut self, told: Told) {
        self.acknowledged += told.stored.len();
        for (queue, offset, number) in told.stored {
            let other = self.stored.entry(queue.clone()).or_default().insert(offset, number);
            assert_eq!(other, None, "{queue:?} offset {offset} was given to two messages");
        }
        self.topics.extend(told.topics);
        for topic in told.deleted_topics.iter().chain(&told.doubtful_topics) {
            self.topics.remove(topic);
        }
        self.deleted_topics.extend(told.deleted_topics);
        self.groups.extend(told.groups);
        self.exact.extend(told.exact);
        self.commits += told.commits;
    }
}

/// Sends one after the other, alone or up to `batch_max` together.
async fn produce(
    sender: &Producer,
    topic: &str,
    batch_max: u64,
    begun: &AtomicU64,
    number: impl Fn(u64) -> u64,
    is_over: &AtomicBool,
) -> Told {
    let mut told = Told::default();
    let mut turn = 0;
    while !is_over.load(Ordering::SeqCst) {
        turn += 1;
        let count = 1 + turn % batch_max;
        let first = begun.fetch_add(count, Ordering::SeqCst);
        let numbers: Vec<u64> = (first..first + count).map(&number).collect();
        let mut messages = numbers.iter().map(|number| Message::new(topic, body(*number)));
        let sent = if batch_max == 1 {
            let message = messages.next().unwrap().with_tag("single");
            sender.send(message).await.map(|result| vec![result])
        } else {
            sender.send_batch(messages.collect()).await
        };
        match sent {
            Ok(results) => {
                for (result, number) in results.into_iter().zip(numbers) {
                    assert_eq!(result.status, SendStatus::Ok, "{result:?}");
                    told.stored.push((key_of(&result.queue), result.queue_offset, number));
                }
            }
            Err(error) => {
                assert!(is_over.load(Ordering::SeqCst), "send failed while all was well: {error}");
            }
        }
    }
    told
}

/// Reads all queues from where the group stopped and commits every step with an answer.
async fn consume(
    client: Client,
    from: HashMap<QueueKey, (u64, u64)>,
    is_over: Arc<AtomicBool>,
) -> Told {
    let mut told = Told { exact: from, ..Told::default() };
    let reader = PullConsumer::new(&client, EXACT_GROUP).unwrap();
    let mut queues = Vec::new();
    for topic in TOPICS {
        match reader.queues(topic).await {
            Ok(found) => queues.extend(found),
            Err(error) => assert!(is_over.load(Ordering::SeqCst), "{error}"),
        }
    }
    let options = PullOptions { wait: Duration::from_millis(5), ..PullOptions::default() };
    while !is_over.load(Ordering::SeqCst) {
        for queue in &queues {
            let key = key_of(queue);
            let (offset, _) = told.exact.get(&key).copied().unwrap_or((0, 0));
            let pulled = match reader.pull(queue, offset, &options).await {
                Ok(pulled) => pulled,
                Err(error) => {
                    assert!(is_over.load(Ordering::SeqCst), "pull failed: {error}");
                    return told;
                }
            };
            let Some(last) = pulled.messages.last() else { continue };
            assert_eq!(pulled.messages[0].queue_offset, offset, "{queue:?}");
            let next = last.queue_offset + 1;
            told.exact.insert(key.clone(), (offset, next));
            if let Err(error) = reader.commit_offset(queue, next).await {
                assert!(is_over.load(Ordering::SeqCst), "commit failed: {error}");
                return told;
            }
            told.exact.insert(key, (next, next));
            told.commits += 1;
        }
    }
    told
}

/// Makes topics and groups, and deletes every third topic.
async fn administer(client: Client, round: u64, is_over: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let admin = Admin::new(&client);
    for at in 0..40 {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let topic = format!("made-{round}-{at}");
        let group = format!("group-{round}-{at}");
        let made = admin.create_topic(CLUSTER, &topic_config(&topic)).await;
        if made.is_ok() {
            told.topics.push(topic.clone());
        }
        let grouped = admin.create_group(CLUSTER, &group_config(&group)).await;
        if grouped.is_ok() {
            told.groups.push(group);
        }
        let mut deleted = Ok(());
        if at % 3 == 2 && made.is_ok() {
            deleted = admin.delete_topic(CLUSTER, &topic).await;
            let list = match deleted {
                Ok(()) => &mut told.deleted_topics,
                Err(_) => &mut told.doubtful_topics,
            };
            list.push(topic);
        }
        for error in [made.err(), grouped.err(), deleted.err()].into_iter().flatten() {
            assert!(is_over.load(Ordering::SeqCst), "administration failed: {error}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    told
}

/// Commits without an answer every few milliseconds. Answers when which offset went out.
async fn commit_one_way(
    broker: String,
    from: u64,
    is_over: Arc<AtomicBool>,
) -> Vec<(Instant, u64)> {
    let timeout = Duration::from_secs(3);
    let connected = connect(&broker, timeout, Limits::default(), |_| NoRequests).await;
    let Ok(connection) = connected else {
        assert!(is_over.load(Ordering::SeqCst), "no connection");
        return Vec::new();
    };
    let mut sent = Vec::new();
    let mut offset = from;
    while !is_over.load(Ordering::SeqCst) {
        offset += 1;
        let header = UpdateConsumerOffsetHeader {
            consumer_group: Text::from(LOOSE_GROUP),
            topic: Text::from(TOPICS[0]),
            queue_id: 0,
            commit_offset: offset as i64,
        };
        let code = RequestCode::UpdateConsumerOffset.number();
        let fields = |writer: &mut weirmq_remoting::command::HeaderWriter<'_>| {
            header.encode(writer);
        };
        if connection.send_one_way(SerializeType::Json, code, fields, b"").is_err() {
            assert!(is_over.load(Ordering::SeqCst), "the connection ended");
            break;
        }
        sent.push((Instant::now(), offset));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sent
}
