//! `weir topic`: creating, changing and looking at topics.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use weirmq_client::{Admin, ClientError};
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::TopicConfig;

use super::place::Place;
use crate::client::{BrokerAddress, Brokers, ClientArgs};
use crate::exit::Failure;
use crate::output::{Output, Row};
use crate::units::format_time;

/// Topics that brokers make for themselves. Source: `TopicValidator`.
const SYSTEM_TOPICS: [&str; 10] = [
    "TBW102",
    "SCHEDULE_TOPIC_XXXX",
    "BenchmarkTest",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "DefaultHeartBeatSyncerTopic",
];

/// Create, change and look at topics
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir topic create orders --queues 8\n  \
    weir topic list -o json\n  weir topic status orders")]
pub(crate) struct TopicArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List topics
    List {
        /// Also those of brokers, retries and dead letters
        #[arg(short, long)]
        all: bool,
    },
    /// Create a topic
    Create {
        topic: String,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        place: Place,
        /// Do nothing if the topic exists, whatever its settings
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Change a topic; what is not named stays as it is
    Update {
        topic: String,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        place: Place,
    },
    /// Delete a topic with its messages and offsets
    Delete {
        topic: String,
        /// Only on this cluster [default: every cluster]
        #[arg(long, value_name = "NAME", env = "WEIRMQ_CLUSTER", hide_env = true)]
        cluster: Option<String>,
    },
    /// Show the offsets of each queue of a topic
    #[command(visible_alias = "describe")]
    Status { topic: String },
    /// Show which brokers serve a topic
    Route { topic: String },
}

#[derive(clap::Args)]
struct Settings {
    /// Queues on each broker [default for a new topic: 8]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    queues: Option<i32>,
    /// Queues that producers use, where that differs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    write_queues: Option<i32>,
    /// Queues that consumers use, where that differs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    read_queues: Option<i32>,
    /// What clients may do: rw, r or w [default for a new topic: rw]
    #[arg(long, value_parser = parse_permission)]
    perm: Option<i32>,
    /// What kind of messages the topic is for [default for a new topic: normal]
    #[arg(long = "type", value_enum)]
    kind: Option<MessageType>,
    /// An attribute, for example reserve.time=3h; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = parse_attribute)]
    attributes: Vec<(String, String)>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum MessageType {
    Normal,
    Fifo,
    Delay,
    Transaction,
    Mixed,
}

impl MessageType {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Fifo => "FIFO",
            Self::Delay => "DELAY",
            Self::Transaction => "TRANSACTION",
            Self::Mixed => "MIXED",
        }
    }
}

impl Settings {
    fn apply(&self, config: &mut TopicConfig) {
        if let Some(queues) = self.queues {
            (config.read_queue_nums, config.write_queue_nums) = (queues, queues);
        }
        config.write_queue_nums = self.write_queues.unwrap_or(config.write_queue_nums);
        config.read_queue_nums = self.read_queues.unwrap_or(config.read_queue_nums);
        config.perm = self.perm.unwrap_or(config.perm);
        config.attributes.extend(self.attributes.iter().cloned());
        if let Some(kind) = self.kind {
            config.attributes.insert("message.type".to_owned(), kind.name().to_owned());
        }
    }
}

fn parse_permission(text: &str) -> Result<i32, String> {
    match text {
        "rw" | "6" => Ok(6),
        "r" | "4" => Ok(4),
        "w" | "2" => Ok(2),
        _ => Err("use rw, r or w".to_owned()),
    }
}

fn parse_attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.contains(',') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write key=value, without commas".to_owned()),
    }
}

fn permission_text(perm: i32) -> String {
    let bits = [(4, 'r'), (2, 'w')];
    let text: String = bits.iter().filter(|(bit, _)| perm & bit != 0).map(|(_, c)| c).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

pub(crate) async fn run(args: TopicArgs) -> anyhow::Result<()> {
    let admin = args.client.admin()?;
    let output = args.client.output();
    match args.command {
        Command::List { all } => list(&admin, &output, all).await,
        Command::Create { topic, settings, place, if_not_exists } => {
            create(&admin, &output, &topic, &settings, &place, if_not_exists).await
        }
        Command::Update { topic, settings, place } => {
            update(&admin, &output, &topic, &settings, &place).await
        }
        Command::Delete { topic, cluster } => {
            delete(&admin, &output, &topic, cluster.as_deref()).await
        }
        Command::Status { topic } => status(&admin, &output, &topic).await,
        Command::Route { topic } => route(&admin, &output, &topic).await,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TopicRow {
    topic: String,
    brokers: Vec<String>,
    read_queues: i32,
    write_queues: i32,
    perm: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Row for TopicRow {
    const HEADER: &'static [&'static str] =
        &["TOPIC", "READ QUEUES", "WRITE QUEUES", "PERM", "TYPE", "BROKERS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.clone(),
            self.read_queues.to_string(),
            self.write_queues.to_string(),
            self.perm.clone(),
            self.kind.clone(),
            self.brokers.join(","),
        ]
    }
}

async fn list(admin: &Admin, output: &Output, all: bool) -> anyhow::Result<()> {
    let masters = Brokers::find(admin).await?.masters(&Place::default())?;
    let mut rows: BTreeMap<String, TopicRow> = BTreeMap::new();
    for master in &masters {
        for (topic, config) in admin.topic_configs(&master.address).await? {
            if !all && is_system(&topic, &masters) {
                continue;
            }
            let row = rows.entry(topic.clone()).or_insert_with(|| TopicRow {
                topic,
                brokers: Vec::new(),
                read_queues: 0,
                write_queues: 0,
                perm: permission_text(config.perm),
                kind: config
                    .attributes
                    .get("message.type")
                    .map_or("NORMAL", |kind| kind)
                    .to_owned(),
            });
            row.brokers.push(master.broker.clone());
            row.read_queues += config.read_queue_nums;
            row.write_queues += config.write_queue_nums;
        }
    }
    Ok(output.rows(&rows.into_values().collect::<Vec<_>>())?)
}

fn is_system(topic: &str, masters: &[BrokerAddress]) -> bool {
    SYSTEM_TOPICS.contains(&topic)
        || ["%RETRY%", "%DLQ%", "rmq_sys_", "RMQ_SYS_", "%SYS%", "rocketmq-"]
            .iter()
            .any(|prefix| topic.starts_with(prefix))
        || topic.ends_with("_REPLY_TOPIC")
        || masters.iter().any(|master| topic == master.cluster || topic == master.broker)
}

async fn create(
    admin: &Admin,
    output: &Output,
    topic: &str,
    settings: &Settings,
    place: &Place,
    if_not_exists: bool,
) -> anyhow::Result<()> {
    ResourceName::topic(topic).map_err(|error| Failure::Usage(error.to_string()))?;
    let masters = Brokers::find(admin).await?.masters(place)?;
    let mut missing = Vec::new();
    for master in &masters {
        if config_on(admin, &master.address, topic).await?.is_none() {
            missing.push(master);
        }
    }
    if missing.is_empty() {
        if if_not_exists {
            let text = format!("topic {topic} exists already");
            return Ok(
                output.done(&text, &serde_json::json!({ "topic": topic, "created": false }))?
            );
        }
        anyhow::bail!(
            "topic {topic} exists already; change it with `weir topic update`, or add --if-not-exists"
        );
    }
    let mut config = TopicConfig {
        topic_name: topic.to_owned(),
        read_queue_nums: 8,
        write_queue_nums: 8,
        ..TopicConfig::default()
    };
    settings.apply(&mut config);
    for master in &missing {
        admin.create_topic_on(&master.address, &config).await?;
    }
    let names: Vec<_> = missing.iter().map(|master| master.broker.as_str()).collect();
    let text = format!(
        "topic {topic} created with {} queues on {}",
        config.write_queue_nums,
        names.join(", ")
    );
    let object = serde_json::json!({ "topic": topic, "created": true, "brokers": names });
    Ok(output.done(&text, &object)?)
}

async fn update(
    admin: &Admin,
    output: &Output,
    topic: &str,
    settings: &Settings,
    place: &Place,
) -> anyhow::Result<()> {
    let masters = having(admin, topic, place).await?;
    for (master, config) in &masters {
        let mut config = config.clone();
        settings.apply(&mut config);
        admin.create_topic_on(&master.address, &config).await?;
    }
    let names: Vec<_> = masters.iter().map(|(master, _)| master.broker.as_str()).collect();
    let text = format!("topic {topic} updated on {}", names.join(", "));
    Ok(output.done(&text, &serde_json::json!({ "topic": topic, "brokers": names }))?)
}

async fn delete(
    admin: &Admin,
    output: &Output,
    topic: &str,
    cluster: Option<&str>,
) -> anyhow::Result<()> {
    let place = Place { cluster: cluster.map(str::to_owned), broker: None };
    let masters = having(admin, topic, &place).await?;
    let clusters: BTreeSet<_> = masters.iter().map(|(master, _)| &master.cluster).collect();
    for cluster in clusters {
        admin.delete_topic(cluster, topic).await?;
    }
    let names: Vec<_> = masters.iter().map(|(master, _)| master.broker.as_str()).collect();
    let text = format!("topic {topic} deleted from {}", names.join(", "));
    Ok(output.done(&text, &serde_json::json!({ "topic": topic, "brokers": names }))?)
}

/// The masters that have the topic, with its settings there; at least one.
async fn having(
    admin: &Admin,
    topic: &str,
    place: &Place,
) -> anyhow::Result<Vec<(BrokerAddress, TopicConfig)>> {
    let masters = Brokers::find(admin).await?.masters(place)?;
    let mut found = Vec::new();
    for master in masters {
        if let Some(config) = config_on(admin, &master.address, topic).await? {
            found.push((master, config));
        }
    }
    if found.is_empty() {
        let problem = format!("topic {topic} does not exist there; see `weir topic list`");
        return Err(Failure::NotFound(problem).into());
    }
    Ok(found)
}

/// `None` when the broker does not have the topic.
async fn config_on(
    admin: &Admin,
    address: &str,
    topic: &str,
) -> Result<Option<TopicConfig>, ClientError> {
    match admin.topic_config(address, topic).await {
        Ok(config) => Ok(Some(config)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueRow {
    broker: String,
    queue: i32,
    min_offset: i64,
    max_offset: i64,
    messages: i64,
    /// Milliseconds since 1970; 0 for never.
    last_update: i64,
}

impl Row for QueueRow {
    const HEADER: &'static [&'static str] =
        &["BROKER", "QUEUE", "MIN OFFSET", "MAX OFFSET", "MESSAGES", "LAST UPDATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.broker.clone(),
            self.queue.to_string(),
            self.min_offset.to_string(),
            self.max_offset.to_string(),
            self.messages.to_string(),
            format_time(self.last_update),
        ]
    }
}

async fn status(admin: &Admin, output: &Output, topic: &str) -> anyhow::Result<()> {
    let stats = admin.topic_stats(topic).await?;
    let rows = stats.offset_table.into_iter().map(|(queue, offset)| QueueRow {
        broker: queue.broker_name,
        queue: queue.queue_id,
        min_offset: offset.min_offset,
        max_offset: offset.max_offset,
        messages: offset.max_offset - offset.min_offset,
        last_update: offset.last_update_timestamp,
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by(|a, b| (&a.broker, a.queue).cmp(&(&b.broker, b.queue)));
    Ok(output.rows(&rows)?)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteRow {
    cluster: String,
    broker: String,
    read_queues: i32,
    write_queues: i32,
    perm: String,
    /// Broker id → address.
    addresses: BTreeMap<i64, String>,
}

impl Row for RouteRow {
    const HEADER: &'static [&'static str] =
        &["CLUSTER", "BROKER", "READ QUEUES", "WRITE QUEUES", "PERM", "ADDRESSES"];

    fn cells(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(|(id, address)| format!("{id}={address}"));
        vec![
            self.cluster.clone(),
            self.broker.clone(),
            self.read_queues.to_string(),
            self.write_queues.to_string(),
            self.perm.clone(),
            addresses.collect::<Vec<_>>().join(","),
        ]
    }
}

async fn route(admin: &Admin, output: &Output, topic: &str) -> anyhow::Result<()> {
    let route = admin.route(topic).await?;
    let rows = route.queue_datas.iter().map(|data| {
        let broker = route.broker_datas.iter().find(|b| b.broker_name == data.broker_name);
        RouteRow {
            cluster: broker.map(|broker| broker.cluster.clone()).unwrap_or_default(),
            broker: data.broker_name.clone(),
            read_queues: data.read_queue_nums,
            write_queues: data.write_queue_nums,
            perm: permission_text(data.perm),
            addresses: broker.map(|broker| broker.broker_addrs.clone()).unwrap_or_default(),
        }
    });
    Ok(output.rows(&rows.collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_permissions_are_read_as_people_write_them() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(parse_attribute("reserve.time=3h"), pair("reserve.time", "3h"));
        assert!(parse_attribute("a").is_err() && parse_attribute("=b").is_err());
        assert!(parse_attribute("a=b,c=d").is_err());
        assert_eq!(
            (permission_text(6), permission_text(4), permission_text(0)),
            ("rw".into(), "r".into(), "-".into())
        );
        assert!(parse_permission("x").is_err());
    }
}
