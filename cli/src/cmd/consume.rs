//! `weir consume`: reading messages to stdout.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use weirmq_client::{Admin, Client};
use weirmq_remoting::ResourceName;

use super::member::GroupMember;
use super::reader::{Reader, filter};
use crate::client::{ClientArgs, Message};
use crate::exit::Failure;
use crate::output::Output;
use crate::signals::Signals;
use crate::units::{ReadFrom, format_time, parse_duration, parse_from};

/// Read messages
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir consume hello -n 1\n  \
    weir consume orders --group billing --timeout 1m -o json\n  \
    weir consume orders --from 1h --tags 'paid || refunded' --details\n\n\
    Prints bodies, one a line; --details or -o json print the rest as well.\n\
    Ends with exit code 3 if the time is up before -n messages came.")]
pub(crate) struct ConsumeArgs {
    topic: String,

    /// Join this consumer group: share the queues with its members, go on where it is, and commit
    /// its offsets
    #[arg(short, long, conflicts_with = "queue")]
    group: Option<String>,
    /// End after so many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Where to begin a queue that the group has no offset of: earliest, latest, a time, or 10m
    /// for ten minutes ago
    #[arg(long, value_name = "WHEN", default_value = "earliest", value_parser = parse_from)]
    from: ReadFrom,
    /// End when no message came for this long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    print: PrintArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// Flags that `consume` and `tail` share.
#[derive(clap::Args)]
pub(crate) struct PrintArgs {
    /// Only messages with one of these tags: `a || b`
    #[arg(long, value_name = "EXPRESSION")]
    pub(super) tags: Option<String>,
    /// Only this queue
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) queue: Option<i32>,
    /// Print where and when each message was stored, its key and its tag before its body
    #[arg(short, long)]
    pub(super) details: bool,
}

pub(crate) async fn run(args: ConsumeArgs) -> anyhow::Result<()> {
    ResourceName::topic(&args.topic).map_err(|error| Failure::Usage(error.to_string()))?;
    let client = args.client.client()?;
    // A member of a group would wait for its topic to appear.
    Admin::new(&client).route(&args.topic).await?;
    let printer = Printer::new(&args.client, &args.print);
    let consumed = match &args.group {
        Some(group) => consume_in_group(&args, &client, group, &printer).await,
        None => consume_alone(&args, &client, &printer).await,
    };
    client.shutdown().await;
    consumed.with_context(|| format!("consume topic {}", args.topic))
}

async fn consume_alone(
    args: &ConsumeArgs,
    client: &Client,
    printer: &Printer,
) -> anyhow::Result<()> {
    let mut reader = Reader::start(client, &args.topic, args.from, &args.print).await?;
    let mut count = Count::new(args)?;
    while let Some(next) = count.until_timeout(reader.next()).await? {
        printer.print(&next?)?;
        if count.is_full() {
            break;
        }
    }
    Ok(())
}

async fn consume_in_group(
    args: &ConsumeArgs,
    client: &Client,
    group: &str,
    printer: &Printer,
) -> anyhow::Result<()> {
    let filter = filter(&args.print);
    let mut count = Count::new(args)?;
    let mut member = GroupMember::join(client, group, &args.topic, filter, args.from).await?;
    let consumed = loop {
        let offered = match count.until_timeout(member.next()).await {
            Ok(Some(offered)) => offered,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        if let Err(error) = printer.print(&offered.message) {
            break Err(error);
        }
        offered.done();
        if count.is_full() {
            break Ok(());
        }
    };
    // What was printed is consumed, however it ended.
    member.leave().await;
    consumed
}

/// How many messages are still wanted, and until when.
struct Count {
    signals: Signals,
    wanted: Option<u64>,
    came: u64,
    timeout: Duration,
}

impl Count {
    fn new(args: &ConsumeArgs) -> anyhow::Result<Self> {
        let signals = Signals::install()?;
        Ok(Self { signals, wanted: args.count, came: 0, timeout: args.timeout })
    }

    fn is_full(&self) -> bool {
        self.wanted == Some(self.came)
    }

    /// What `next` brings; `None` after a signal, or when nothing came in time and no number of
    /// messages was asked for.
    async fn until_timeout<T>(
        &mut self,
        next: impl Future<Output = T>,
    ) -> anyhow::Result<Option<T>> {
        let next = tokio::select! {
            next = tokio::time::timeout(self.timeout, next) => next,
            () = self.signals.next() => return Ok(None),
        };
        match (next, self.wanted) {
            (Ok(next), _) => {
                self.came += 1;
                Ok(Some(next))
            }
            (Err(_), None) => Ok(None),
            (Err(_), Some(wanted)) => Err(Failure::Timeout(format!(
                "{} of {wanted} messages came, and no further one within {:?}; \
                 wait longer with --timeout",
                self.came, self.timeout
            ))
            .into()),
        }
    }
}

/// Prints messages one by one.
pub(super) struct Printer {
    output: Output,
    has_details: bool,
    is_terminal: bool,
}

impl Printer {
    pub(super) fn new(client: &ClientArgs, args: &PrintArgs) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        Self { output: client.output(), has_details: args.details, is_terminal }
    }

    pub(super) fn print(&self, message: &Message) -> anyhow::Result<()> {
        if self.output.is_json() {
            return Ok(self.output.json_line(message)?);
        }
        let mut out = std::io::stdout().lock();
        if self.has_details {
            let cells = [
                format_time(message.store_timestamp),
                message.broker.clone(),
                message.queue.to_string(),
                message.queue_offset.to_string(),
                message.msg_id.clone(),
                match message.keys.is_empty() {
                    true => "-".to_owned(),
                    false => message.keys.join(" "),
                },
                message.tag.clone().unwrap_or_else(|| "-".to_owned()),
            ];
            write!(out, "{}\t", cells.join("\t"))?;
        }
        // A program gets the bytes as they are; a terminal must not be steered by a message.
        if self.is_terminal {
            writeln!(out, "{}", message.printable_body())?;
        } else {
            out.write_all(&message.body)?;
            writeln!(out)?;
        }
        Ok(out.flush()?)
    }
}
