//! `weir produce`: sending messages from the command line.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::time::{Instant, sleep_until};
use weirmq_client::{
    Delivery, Message, MessageQueue, Producer, ProducerConfig, SendResult, SendStatus,
};
use weirmq_remoting::ResourceName;

use crate::client::ClientArgs;
use crate::exit::Failure;
use crate::output::Output;

/// From so many messages on, a terminal shows a bar instead of a line for each.
const BAR_FROM: u64 = 100;
/// The group that brokers see. Source: `MixAll.CLIENT_INNER_PRODUCER_GROUP`.
const PRODUCER_GROUP: &str = "CLIENT_INNER_PRODUCER";

/// Send messages
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir produce hello -m 'first message'\n  \
    weir produce orders --file order.json --key order-17 --tag paid\n  \
    seq 1000 | weir produce numbers --batch 100\n  \
    weir produce load -m x --count 10000 --rate 500\n\n\
    Prints for each message: its id, broker, queue and queue offset.")]
pub(crate) struct ProduceArgs {
    topic: String,

    /// The body of a message; may be repeated. Without it and without --file every line of stdin
    /// is a message
    #[arg(short, long = "message", value_name = "TEXT", allow_hyphen_values = true)]
    messages: Vec<String>,
    /// Send the content of a file as one message
    #[arg(short, long, value_name = "PATH", conflicts_with = "messages")]
    file: Option<PathBuf>,

    /// Key to find the message by; several parted by blanks
    #[arg(short, long)]
    key: Option<String>,
    /// Tag to filter by
    #[arg(short, long)]
    tag: Option<String>,
    /// A property of your own; may be repeated
    #[arg(short, long = "property", value_name = "KEY=VALUE", value_parser = parse_property)]
    properties: Vec<(String, String)>,
    /// Deliver later: 1 is 1 s, 5 is 1 min, 14 is 10 min, 18 is 2 h
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=18))]
    delay_level: Option<u32>,

    /// Send the message so many times
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Send to this queue only [default: all in turn]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    queue: Option<i32>,
    /// Send so many messages with each request; a request is stored all or not at all
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["queue", "delay_level"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Send at most so many messages a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Do not print a line for each message
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    client: ClientArgs,
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("the key is empty; write key=value".to_owned()),
        Some((key, value)) if (key.to_owned() + value).contains(['\u{1}', '\u{2}']) => {
            Err(format!("property {key} holds U+0001 or U+0002, which part properties"))
        }
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("write key=value".to_owned()),
    }
}

/// Where bodies come from.
enum Source {
    /// All of them, as often as asked for.
    Given {
        bodies: Vec<Vec<u8>>,
        left: u64,
    },
    Lines(Lines<BufReader<Stdin>>),
}

impl Source {
    async fn new(args: &ProduceArgs) -> anyhow::Result<Self> {
        let bodies = match &args.file {
            Some(path) => {
                let read = std::fs::read(path);
                vec![read.with_context(|| format!("read message from {}", path.display()))?]
            }
            None => args.messages.iter().map(|text| text.clone().into_bytes()).collect(),
        };
        if !bodies.is_empty() {
            let left = args.count * bodies.len() as u64;
            return Ok(Self::Given { bodies, left });
        }
        if args.count > 1 {
            let problem = "--count repeats a message; give one with --message or --file";
            return Err(Failure::Usage(problem.to_owned()).into());
        }
        if std::io::stdin().is_terminal() {
            eprintln!("type messages, one a line; Ctrl-D ends");
        }
        Ok(Self::Lines(BufReader::new(tokio::io::stdin()).lines()))
    }

    /// The bodies of the next request; none at the end.
    async fn next(&mut self, most: u64) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut next = Vec::new();
        match self {
            Self::Given { bodies, left } => {
                while *left > 0 && (next.len() as u64) < most {
                    let at = (*left % bodies.len() as u64) as usize;
                    // Counting down from a multiple of their number: the first comes first.
                    next.push(bodies[(bodies.len() - at) % bodies.len()].clone());
                    *left -= 1;
                }
            }
            Self::Lines(lines) => {
                while (next.len() as u64) < most {
                    let Some(line) = lines.next_line().await.context("read messages from stdin")?
                    else {
                        break;
                    };
                    next.push(line.into_bytes());
                }
            }
        }
        Ok(next)
    }

    fn total(&self) -> Option<u64> {
        match self {
            Self::Given { left, .. } => Some(*left),
            Self::Lines(_) => None,
        }
    }
}

pub(crate) async fn run(args: ProduceArgs) -> anyhow::Result<()> {
    ResourceName::topic(&args.topic).map_err(|error| Failure::Usage(error.to_string()))?;
    let client = args.client.client()?;
    let config = ProducerConfig {
        group: PRODUCER_GROUP.to_owned(),
        send_timeout: args.client.request_timeout().max(ProducerConfig::default().send_timeout),
        ..ProducerConfig::default()
    };
    let producer = Producer::start(&client, config)?;
    let queues = queues(&args, &producer).await?;
    let mut source = Source::new(&args).await?;
    let mut report = Report::new(&args, source.total());
    let sent = send_all(&args, &producer, &queues, &mut source, &mut report).await;
    report.finish();
    client.shutdown().await;
    sent.with_context(|| match report.sent {
        0 => format!("send to topic {}", args.topic),
        sent => format!("send to topic {}, after {sent} messages", args.topic),
    })
}

/// The queues to send to in turn; none where the producer chooses.
async fn queues(args: &ProduceArgs, producer: &Producer) -> anyhow::Result<Vec<MessageQueue>> {
    let Some(wanted) = args.queue else { return Ok(Vec::new()) };
    let mut queues = producer.queues(&args.topic).await?;
    let last = queues.iter().map(|queue| queue.queue_id).max().unwrap_or_default();
    queues.retain(|queue| queue.queue_id == wanted);
    if queues.is_empty() {
        let problem =
            format!("topic {} has no queue {wanted} to write to; use 0 to {last}", args.topic);
        return Err(Failure::NotFound(problem).into());
    }
    Ok(queues)
}

async fn send_all(
    args: &ProduceArgs,
    producer: &Producer,
    queues: &[MessageQueue],
    source: &mut Source,
    report: &mut Report,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut queues = queues.iter().cycle();
    loop {
        let bodies = source.next(args.batch).await?;
        if bodies.is_empty() {
            return Ok(());
        }
        if let Some(rate) = args.rate {
            sleep_until(started + Duration::from_secs_f64(report.sent as f64 / rate as f64)).await;
        }
        let mut messages: Vec<_> = bodies.into_iter().map(|body| message(args, body)).collect();
        let results = match (messages.len(), queues.next()) {
            (1, Some(queue)) => vec![producer.send_to(queue, messages.remove(0)).await?],
            (1, None) => vec![producer.send(messages.remove(0)).await?],
            _ => producer.send_batch(messages).await?,
        };
        for result in results {
            report.sent(&result)?;
        }
    }
}

fn message(args: &ProduceArgs, body: Vec<u8>) -> Message {
    Message {
        tag: args.tag.clone(),
        keys: args.key.iter().flat_map(|keys| keys.split_whitespace()).map(str::to_owned).collect(),
        properties: args.properties.iter().cloned().collect(),
        delivery: args.delay_level.map_or(Delivery::Now, Delivery::Level),
        ..Message::new(&args.topic, body)
    }
}

/// What is printed of a message that was sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    msg_id: &'a str,
    offset_msg_id: &'a str,
    broker: &'a str,
    queue: i32,
    queue_offset: u64,
    /// Apache's name: `SEND_OK`, or what kept the broker from more than storing the message.
    status: &'static str,
}

impl<'a> From<&'a SendResult> for Sent<'a> {
    fn from(result: &'a SendResult) -> Self {
        Self {
            msg_id: &result.message_id,
            offset_msg_id: &result.offset_message_id,
            broker: &result.queue.broker_name,
            queue: result.queue.queue_id,
            queue_offset: result.queue_offset,
            status: match result.status {
                SendStatus::Ok => "SEND_OK",
                SendStatus::FlushDiskTimeout => "FLUSH_DISK_TIMEOUT",
                SendStatus::SlaveNotAvailable => "SLAVE_NOT_AVAILABLE",
                SendStatus::FlushSlaveTimeout => "FLUSH_SLAVE_TIMEOUT",
            },
        }
    }
}

/// Tells how it goes: a line for each message, or a bar.
struct Report {
    output: Output,
    is_terminal: bool,
    prints_each: bool,
    bar: ProgressBar,
    sent: u64,
    started: Instant,
}

impl Report {
    fn new(args: &ProduceArgs, total: Option<u64>) -> Self {
        let output = args.client.output();
        let is_terminal = std::io::stdout().is_terminal();
        let is_long = total.is_some_and(|total| total >= BAR_FROM);
        let is_for_people = is_terminal && !output.is_json();
        let prints_each = !(args.quiet || is_for_people && is_long);
        let bar = match total {
            // indicatif hides the bar where stderr is no terminal.
            Some(total) if is_long && !(is_terminal && prints_each) => bar(total),
            _ => ProgressBar::hidden(),
        };
        Self { output, is_terminal, prints_each, bar, sent: 0, started: Instant::now() }
    }

    fn sent(&mut self, result: &SendResult) -> std::io::Result<()> {
        let sent = Sent::from(result);
        self.sent += 1;
        self.bar.inc(1);
        if !self.prints_each {
            return Ok(());
        }
        if self.output.is_json() {
            return self.output.json_line(&sent);
        }
        let Sent { msg_id, broker, queue, queue_offset, status, .. } = sent;
        if self.is_terminal {
            let status = if status == "SEND_OK" { "" } else { status };
            let line =
                format!("{msg_id}  {broker}  queue {queue}  offset {queue_offset}  {status}");
            self.output.line(line.trim_end())
        } else {
            writeln!(std::io::stdout(), "{msg_id}\t{broker}\t{queue}\t{queue_offset}\t{status}")
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
        if !self.prints_each {
            let seconds = self.started.elapsed().as_secs_f64();
            let rate = self.sent as f64 / seconds.max(0.001);
            eprintln!("{} messages sent in {seconds:.1} s, {rate:.0} a second", self.sent);
        }
    }
}

fn bar(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {per_sec}  {eta} left");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn given_messages_come_in_order_and_as_often_as_asked_for() {
        let bodies = vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        let mut source = Source::Given { bodies, left: 6 };
        let mut all = Vec::new();
        loop {
            let next = source.next(4).await.unwrap();
            if next.is_empty() {
                break;
            }
            all.extend(next.concat());
        }
        assert_eq!(all, b"abcabc");
    }

    #[test]
    fn a_property_has_a_key_and_no_separators() {
        assert_eq!(parse_property("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_property("a").is_err() && parse_property("=b").is_err());
        assert!(parse_property("a=\u{1}").is_err());
    }
}
