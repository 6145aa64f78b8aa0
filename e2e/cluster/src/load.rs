//! Producers and consumers in a pod, and the account of what they were promised.
//!
//! Each message has a number of its own. What is acknowledged is remembered with its place; at the
//! end everything is read again and compared. `status` and `end` are run in the same pod by
//! `kubectl exec`, and talk to `run` through files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weirmq_client::{
    Client, ClientConfig, ClientError, ConsumeFrom, ConsumeStatus, Message, MessageQueue, Producer,
    ProducerConfig, PullConsumer, PullOptions, PullStatus, PushConsumer, PushConsumerConfig,
    SendStatus,
};

use crate::direct::Direct;

/// The shortest time without an acknowledgement that is noted.
const GAP: Duration = Duration::from_millis(100);
/// A producer that failed waits so long before its next message.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the group may take to see what is still missing, once producers have ended.
const DRAIN: Duration = Duration::from_secs(60);

/// Send and receive, and keep account
#[derive(Args)]
pub(crate) struct LoadArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send and receive until `end` is called
    Run(RunArgs),
    /// Print the account so far
    Status(StateArgs),
    /// End producers, read everything again, and print the whole account
    End(StateArgs),
}

#[derive(Args)]
struct RunArgs {
    /// NameServers, parted by `;`
    #[arg(short, long)]
    namesrv: String,
    /// A topic that is there
    #[arg(short, long)]
    topic: String,
    #[arg(long, default_value_t = 4)]
    producers: u64,
    /// Most messages a second and producer
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Send to the broker at this address, `host:port`, and to no other, whoever is master
    #[arg(long)]
    address: Option<String>,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Args)]
struct StateArgs {
    /// Where the account is kept
    #[arg(long, default_value = "/tmp")]
    state: PathBuf,
}

impl StateArgs {
    fn file(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }
}

/// What became of a load.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Messages that are stored, as a broker said.
    pub(crate) acknowledged: u64,
    /// Sends that failed, with all attempts: those may be stored or not.
    pub(crate) failed: u64,
    /// Numbers that the consumer group saw.
    pub(crate) consumed: u64,
    /// What was promised and is not so, at most [`PROBLEMS_MAX`]; none before the end.
    pub(crate) problems: Vec<String>,
    /// What was acknowledged in queues that are in no route any more, and consumed.
    pub(crate) left: u64,
    /// Numbers that are stored more than once: an attempt whose answer was lost.
    pub(crate) duplicates: u64,
    /// Times without any acknowledgement, when each began and how long it lasted.
    pub(crate) gaps: Vec<Gap>,
    /// Why sends failed, and how often; at most [`FAILURES_MAX`] kinds.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Of a load with `--address`: the seconds since 1970 in which that broker answered without an acknowledgement.
    pub(crate) refused_s: BTreeSet<u64>,
}

/// A time without an acknowledgement.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// Milliseconds since 1970.
    pub(crate) from_ms: u64,
    pub(crate) length_ms: u64,
}

const PROBLEMS_MAX: usize = 20;
const FAILURES_MAX: usize = 20;

impl Account {
    /// Why sends failed, the most frequent first.
    pub(crate) fn causes(&self) -> String {
        let mut causes: Vec<_> = self.failures.iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let causes = causes.iter().map(|(cause, count)| format!("{count}× {cause}"));
        causes.collect::<Vec<_>>().join("; ")
    }

    /// How long the longest of [`Account::gaps_since`] was; 0 if there is none.
    pub(crate) fn outage_ms_since(&self, time_ms: u64) -> u64 {
        self.gaps_since(time_ms).map(|gap| gap.length_ms).max().unwrap_or(0)
    }

    /// The gaps that had not ended at `time_ms`, or began later, in their order.
    pub(crate) fn gaps_since(&self, time_ms: u64) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().filter(move |gap| gap.from_ms + gap.length_ms >= time_ms)
    }

    /// Whether nothing was acknowledged from the one time to the other.
    pub(crate) fn is_silent(&self, from_ms: u64, to_ms: u64) -> bool {
        self.gaps.iter().any(|gap| gap.from_ms <= from_ms && gap.from_ms + gap.length_ms >= to_ms)
    }

    /// How many whole seconds from the one time to the other are among [`Account::refused_s`].
    pub(crate) fn seconds_refused(&self, from_ms: u64, to_ms: u64) -> usize {
        self.refused_s.iter().filter(|s| **s * 1000 >= from_ms && (**s + 1) * 1000 <= to_ms).count()
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn run(args: LoadArgs) -> anyhow::Result<()> {
    match args.command {
        Command::Run(args) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(load(args))
        }
        Command::Status(state) => {
            print!("{}", std::fs::read_to_string(state.file("status")).context("read status")?);
            Ok(())
        }
        Command::End(state) => {
            std::fs::write(state.file("end"), "").context("ask for the end")?;
            let end = Instant::now() + DRAIN * 3;
            while Instant::now() < end {
                if let Ok(text) = std::fs::read_to_string(state.file("result")) {
                    print!("{text}");
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            bail!("no result after {:?}; the log of the load says more", DRAIN * 3)
        }
    }
}

/// What producers and consumers note while they work.
#[derive(Default)]
struct Notes {
    account: Account,
    /// Queue → offset → number that was acknowledged there.
    acknowledged: HashMap<MessageQueue, BTreeMap<u64, u64>>,
    /// Numbers that were acknowledged and not yet consumed.
    unread: BTreeSet<u64>,
    consumed: BTreeSet<u64>,
    /// Queue → offset → number that the reader saw there.
    seen: HashMap<MessageQueue, BTreeMap<u64, u64>>,
    last_success: Option<Instant>,
}

impl Notes {
    fn problem(&mut self, text: String) {
        eprintln!("{text}");
        if self.account.problems.len() < PROBLEMS_MAX {
            self.account.problems.push(text);
        }
    }

    fn acknowledge(&mut self, queue: MessageQueue, offset: u64, number: u64) {
        self.close_gap();
        self.last_success = Some(Instant::now());
        self.account.acknowledged += 1;
        if !self.consumed.contains(&number) {
            self.unread.insert(number);
        }
        let before = self.acknowledged.entry(queue.clone()).or_default().insert(offset, number);
        if let Some(other) = before.filter(|other| *other != number) {
            self.problem(format!("{queue:?} offset {offset} was given to {other} and {number}"));
        }
    }

    /// Notes the time since the last success, if it was long.
    fn close_gap(&mut self) {
        let Some(since) = self.last_success.map(|last| last.elapsed()) else { return };
        if since >= GAP {
            let length_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            self.account.gaps.push(Gap { from_ms: now_ms() - length_ms, length_ms });
        }
    }

    fn fail(&mut self, error: String) {
        self.account.failed += 1;
        let failures = &mut self.account.failures;
        if failures.len() < FAILURES_MAX || failures.contains_key(&error) {
            *failures.entry(error).or_default() += 1;
        }
    }

    fn consume(&mut self, number: u64) {
        self.unread.remove(&number);
        if self.consumed.insert(number) {
            self.account.consumed += 1;
        }
    }
}

type Shared = Arc<Mutex<Notes>>;

async fn load(args: RunArgs) -> anyhow::Result<()> {
    let notes = Shared::default();
    let client = Client::start(ClientConfig::new(&args.namesrv))?;
    let is_over = Arc::new(AtomicBool::new(false));
    let group = consume(&client, &args.topic, &notes).await?;
    let mut tasks = tokio::task::JoinSet::new();
    let producer = Producer::start(&client, ProducerConfig::default())?;
    for number in 0..args.producers {
        let every = Duration::from_secs(1) / args.rate;
        let (base, notes, is_over) = (number << 40, notes.clone(), is_over.clone());
        if let Some(address) = &args.address {
            let broker = Direct::new(address.clone());
            let queues = producer.queues(&args.topic).await?;
            tasks.spawn(produce_at(broker, queues, base, every, notes, is_over));
        } else {
            let topic = args.topic.clone();
            tasks.spawn(produce(producer.clone(), topic, base, every, notes, is_over));
        }
    }
    tasks.spawn(read_along(client.clone(), args.topic.clone(), notes.clone(), is_over.clone()));
    while !args.state.file("end").exists() {
        write(&args.state.file("status"), &notes.lock().account)?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the load")?;
    }
    notes.lock().close_gap();
    let drained = tokio::time::timeout(DRAIN, async {
        while !notes.lock().unread.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if drained.await.is_err() {
        let mut notes = notes.lock();
        let first: Vec<_> = notes.unread.iter().take(5).copied().collect();
        let text = format!("{} were acknowledged and not consumed: {first:?}…", notes.unread.len());
        notes.problem(text);
    }
    group.shutdown().await;
    if let Err(error) = compare(&client, &args.topic, &notes).await {
        notes.lock().problem(format!("read everything again: {error:#}"));
    }
    client.shutdown().await;
    write(&args.state.file("result"), &notes.lock().account)?;
    // The result is fetched by `end`; the pod is deleted afterwards.
    std::future::pending().await
}

/// When a producer sends; what it came too late for is left out.
fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

async fn produce(
    producer: Producer,
    topic: String,
    base: u64,
    every: Duration,
    notes: Shared,
    is_over: Arc<AtomicBool>,
) {
    let mut ticks = ticks(every);
    let mut number = base;
    while !is_over.load(Ordering::Relaxed) {
        ticks.tick().await;
        number += 1;
        match producer.send(Message::new(&topic, body(number))).await {
            Ok(result) if result.status == SendStatus::Ok => {
                notes.lock().acknowledge(result.queue, result.queue_offset, number);
            }
            // Stored, and nobody knows yet whether it stays.
            Ok(result) => notes.lock().fail(format!("{:?}", result.status)),
            Err(error) => {
                // Without the message's own id, so that failures of one kind are counted as one.
                let cause = match &error {
                    ClientError::SendFailed { last, .. } => last.to_string(),
                    other => other.to_string(),
                };
                notes.lock().fail(cause);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// As [`produce`], to one broker alone, whatever it answers.
async fn produce_at(
    mut broker: Direct,
    queues: Vec<MessageQueue>,
    base: u64,
    every: Duration,
    notes: Shared,
    is_over: Arc<AtomicBool>,
) {
    let mut ticks = ticks(every);
    let mut number = base;
    for queue in queues.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        ticks.tick().await;
        number += 1;
        let answer = broker.send(queue, &body(number)).await;
        let mut notes = notes.lock();
        match answer {
            Ok(Ok(offset)) => notes.acknowledge(queue.clone(), offset, number),
            Ok(Err(refusal)) => {
                notes.account.refused_s.insert(now_ms() / 1000);
                notes.fail(refusal);
            }
            Err(error) => notes.fail(format!("{error:#}")),
        }
    }
}

/// A message's number, and up to 900 bytes more.
fn body(number: u64) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(8 + (number * 37 % 900) as usize, b'.');
    body
}

/// A consumer group of one, as applications have it; each topic has its own.
async fn consume(client: &Client, topic: &str, notes: &Shared) -> anyhow::Result<PushConsumer> {
    let config = PushConsumerConfig {
        group: topic.to_owned(),
        subscriptions: vec![(topic.to_owned(), "*".into())],
        consume_from: ConsumeFrom::First,
        ..PushConsumerConfig::default()
    };
    let notes = notes.clone();
    let listener = move |messages: Vec<weirmq_client::ReceivedMessage>| {
        for message in messages {
            match number(&message.body) {
                Some(number) => notes.lock().consume(number),
                None => notes.lock().problem("a body without a number was consumed".to_owned()),
            }
        }
        async { ConsumeStatus::Success }
    };
    Ok(PushConsumer::start(client, config, listener).await?)
}

fn number(body: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(body.get(..8)?.try_into().ok()?))
}

/// Reads all queues as they grow: what was visible once has to stay where it was.
async fn read_along(client: Client, topic: String, notes: Shared, is_over: Arc<AtomicBool>) {
    let Ok(reader) = PullConsumer::new(&client, "load-reader") else { return };
    let mut next: HashMap<MessageQueue, u64> = HashMap::new();
    while !is_over.load(Ordering::Relaxed) {
        for queue in reader.queues(&topic).await.unwrap_or_default() {
            let at = next.entry(queue.clone()).or_default();
            let Ok(pulled) = reader.pull(&queue, *at, &options()).await else { continue };
            let mut notes = notes.lock();
            if pulled.status == PullStatus::OffsetIllegal {
                notes.problem(format!("{queue:?}: a reader at {at} was sent elsewhere"));
                continue;
            }
            let seen = notes.seen.entry(queue.clone()).or_default();
            for message in &pulled.messages {
                seen.extend(number(&message.body).map(|number| (message.queue_offset, number)));
            }
            *at = pulled.next_offset;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn options() -> PullOptions {
    PullOptions { messages_max: 256, wait: Duration::ZERO, ..PullOptions::default() }
}

/// Reads everything and compares it with what was promised and what was seen.
async fn compare(client: &Client, topic: &str, notes: &Shared) -> anyhow::Result<()> {
    let reader = PullConsumer::new(client, "load-checker")?;
    let mut times: HashMap<u64, u64> = HashMap::new();
    let mut found: HashMap<MessageQueue, BTreeMap<u64, u64>> = HashMap::new();
    for queue in reader.queues(topic).await? {
        let (mut at, end) = (reader.min_offset(&queue).await?, reader.max_offset(&queue).await?);
        let there = found.entry(queue.clone()).or_default();
        while at < end {
            let pulled = reader.pull(&queue, at, &options()).await?;
            if pulled.status != PullStatus::Found {
                bail!("{queue:?}: {:?} at {at} of {end}", pulled.status);
            }
            for message in &pulled.messages {
                let number = number(&message.body).context("a body without a number")?;
                *times.entry(number).or_default() += 1;
                there.insert(message.queue_offset, number);
            }
            at = pulled.next_offset;
        }
    }
    let mut notes = notes.lock();
    notes.account.duplicates = times.values().filter(|times| **times > 1).count() as u64;
    let promised = [
        ("acknowledged", std::mem::take(&mut notes.acknowledged)),
        ("seen by a reader", std::mem::take(&mut notes.seen)),
    ];
    for (what, queues) in promised {
        for (queue, numbers) in queues {
            if !found.contains_key(&queue) {
                // Its group was taken away: what is there cannot be read, so it has to be consumed.
                let unread = numbers.values().filter(|number| !notes.consumed.contains(number));
                let unread = unread.count();
                if unread > 0 {
                    notes.problem(format!(
                        "{queue:?} is gone with {unread} messages {what} and not consumed"
                    ));
                }
                if what == "acknowledged" {
                    notes.account.left += numbers.len() as u64;
                }
                continue;
            }
            for (offset, number) in numbers {
                let there = found.get(&queue).and_then(|queue| queue.get(&offset));
                if there != Some(&number) {
                    let text =
                        format!("{queue:?} {offset}: {number} was {what}, {there:?} is there");
                    notes.problem(text);
                }
            }
        }
    }
    Ok(())
}

/// Whoever reads the file gets all of it.
fn write(path: &Path, account: &Account) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, serde_json::to_vec(account)?).context("write the account")?;
    std::fs::rename(&part, path).context("write the account")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_the_longest_gap_that_was_open_at_the_fault_or_began_after_it() {
        let gaps = vec![
            Gap { from_ms: 1_000, length_ms: 9_000 },
            Gap { from_ms: 20_000, length_ms: 700 },
            Gap { from_ms: 30_000, length_ms: 400 },
        ];
        let account = Account { gaps, ..Account::default() };
        assert_eq!(account.outage_ms_since(5_000), 9_000);
        assert_eq!(account.outage_ms_since(10_001), 700);
        assert_eq!(account.outage_ms_since(25_000), 400);
        assert_eq!(account.outage_ms_since(40_000), 0);
    }

    #[test]
    fn two_messages_at_one_place_are_a_problem_and_one_twice_is_not() {
        let mut notes = Notes::default();
        let queue = MessageQueue { topic: "t".into(), broker_name: "b".into(), queue_id: 0 };
        notes.acknowledge(queue.clone(), 0, 7);
        notes.acknowledge(queue.clone(), 0, 7);
        assert!(notes.account.problems.is_empty());
        notes.acknowledge(queue, 0, 8);
        assert_eq!(notes.account.problems.len(), 1);
        notes.consume(7);
        assert_eq!(notes.unread.iter().collect::<Vec<_>>(), [&8]);
    }
}
