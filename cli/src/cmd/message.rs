//! `weir message`: finding single messages.

use serde::Serialize;
use weirmq_client::Admin;
use weirmq_message::id::OffsetMessageId;

use crate::client::{ClientArgs, Message};
use crate::exit::Failure;
use crate::output::{Output, Row};
use crate::units::{format_time, parse_time};

/// Find messages by id or key
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir message view 7F00000100002A9F0000000000000000\n  \
    weir message view --topic orders AC11000200017D1B1B3A5D2F8C8E0000\n  \
    weir message query --topic orders --key order-17")]
pub(crate) struct MessageArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show one message by its offset id, or with --topic by the id that its producer printed
    View {
        id: String,
        /// The topic of the message; needed for ids that producers make
        #[arg(long)]
        topic: Option<String>,
    },
    /// List the messages with a key
    Query {
        #[arg(long)]
        topic: String,
        /// One of the keys that the producer gave the message
        #[arg(long)]
        key: String,
        /// Only messages stored from this time on: 10m, 2026-01-31, …
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        begin: Option<i64>,
        /// Only messages stored until this time
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        end: Option<i64>,
        /// The most messages from each broker
        #[arg(long, value_name = "N", default_value_t = 32)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
        max: u32,
    },
}

pub(crate) async fn run(args: MessageArgs) -> anyhow::Result<()> {
    let admin = args.client.admin()?;
    let output = args.client.output();
    match args.command {
        Command::View { id, topic } => {
            let message = view(&admin, &id, topic.as_deref()).await?;
            show(&output, &message)
        }
        Command::Query { topic, key, begin, end, max } => {
            let (begin, end) = (begin.unwrap_or(0), end.unwrap_or(i64::MAX));
            let found = admin.query_by_key(&topic, &key, max, begin, end).await?;
            let unreadable = found.unreadable.into_iter().map(Message::from);
            let mut found: Vec<_> =
                found.messages.into_iter().map(Message::from).chain(unreadable).collect();
            if found.is_empty() {
                let problem = format!("no message of topic {topic} has the key {key} at that time");
                return Err(Failure::NotFound(problem).into());
            }
            found.sort_by_key(|message| message.store_timestamp);
            Ok(output.rows(&found.into_iter().map(FoundRow).collect::<Vec<_>>())?)
        }
    }
}

async fn view(admin: &Admin, id: &str, topic: Option<&str>) -> anyhow::Result<Message> {
    if let Some(topic) = topic {
        let found = admin.query_by_unique_key(topic, id).await?;
        if let Some(message) = found.messages.into_iter().next() {
            return Ok(message.into());
        }
        if let Some(unreadable) = found.unreadable.into_iter().next() {
            return Ok(unreadable.into());
        }
    }
    if OffsetMessageId::parse(id).is_some() {
        return Ok(admin.view_message(id).await?.into());
    }
    Err(match topic {
        Some(topic) => Failure::NotFound(format!(
            "no message of topic {topic} has the id {id}; it may have expired"
        )),
        None => Failure::Usage(format!(
            "{id} is no offset id (32 or 56 hex digits with an address in them); \
             for an id that a producer made add --topic"
        )),
    }
    .into())
}

fn show(output: &Output, message: &Message) -> anyhow::Result<()> {
    if output.is_json() {
        return Ok(output.json(message)?);
    }
    let mut fields = vec![
        ("Message id", message.msg_id.clone()),
        ("Offset id", message.offset_msg_id.clone()),
        ("Topic", message.topic.clone()),
        ("Broker", message.broker.clone()),
        ("Queue", message.queue.to_string()),
        ("Queue offset", message.queue_offset.to_string()),
        ("Born", format!("{} at {}", format_time(message.born_timestamp), message.born_host)),
        ("Stored", format!("{} at {}", format_time(message.store_timestamp), message.store_host)),
        ("Delivered again", message.reconsume_times.to_string()),
        ("Stored bytes", message.stored_bytes.to_string()),
    ];
    for (name, value) in &message.properties {
        fields.push((name, value.clone()));
    }
    output.fields(&fields)?;
    Ok(output.line(format_args!("\n{}", message.printable_body()))?)
}

/// A message in a list; JSON has all of it.
#[derive(Serialize)]
#[serde(transparent)]
struct FoundRow(Message);

impl Row for FoundRow {
    const HEADER: &'static [&'static str] =
        &["MESSAGE ID", "BROKER", "QUEUE", "OFFSET", "STORED", "KEY", "TAG", "SIZE"];

    fn cells(&self) -> Vec<String> {
        let message = &self.0;
        vec![
            message.msg_id.clone(),
            message.broker.clone(),
            message.queue.to_string(),
            message.queue_offset.to_string(),
            format_time(message.store_timestamp),
            message.keys.join(" "),
            message.tag.clone().unwrap_or_default(),
            message.stored_bytes.to_string(),
        ]
    }
}
