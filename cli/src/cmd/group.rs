//! `weir group`: consumer groups, their members and how far they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use weirmq_client::{Admin, ClientError};
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{ConsumerConnection, SubscriptionGroupConfig};

use super::place::Place;
use crate::client::{BrokerAddress, Brokers, ClientArgs};
use crate::exit::Failure;
use crate::output::{Output, Row};
use crate::units::format_time;

/// Groups that every broker has. Source: `SubscriptionGroupManager`.
const SYSTEM_GROUPS: [&str; 8] = [
    "DEFAULT_CONSUMER",
    "DEFAULT_PRODUCER",
    "TOOLS_CONSUMER",
    "SCHEDULE_CONSUMER",
    "FILTERSRV_CONSUMER",
    "__MONITOR_CONSUMER",
    "CLIENT_INNER_PRODUCER",
    "SELF_TEST_C_GROUP",
];

/// Create, change and look at consumer groups
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir group describe billing\n  \
    weir group create billing --orderly --retries 3")]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List consumer groups
    List {
        /// Also those of brokers and tools
        #[arg(short, long)]
        all: bool,
    },
    /// Create a consumer group
    Create {
        group: String,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        place: Place,
        /// Do nothing if the group exists, whatever its settings
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Change a consumer group; what is not named stays as it is
    Update {
        group: String,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        place: Place,
    },
    /// Delete a consumer group with its offsets
    Delete {
        group: String,
        /// Leave the offsets, for a group that will come back
        #[arg(long)]
        keep_offsets: bool,
        /// Only on this cluster [default: every cluster]
        #[arg(long, value_name = "NAME", env = "WEIRMQ_CLUSTER", hide_env = true)]
        cluster: Option<String>,
    },
    /// Show the members of a group and its lag on each queue
    #[command(visible_alias = "status")]
    Describe {
        group: String,
        /// Only this topic
        #[arg(long)]
        topic: Option<String>,
    },
}

#[derive(clap::Args)]
struct Settings {
    /// How often a message is delivered again before it goes to the dead letters [default for a
    /// new group: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    retries: Option<i32>,
    /// Whether the group may consume [default for a new group: true]
    #[arg(long, value_name = "BOOL")]
    consume: Option<bool>,
    /// Whether it may consume by broadcast [default for a new group: true]
    #[arg(long, value_name = "BOOL")]
    broadcast: Option<bool>,
    /// Whether it consumes each queue in order, which matters to gRPC clients [default for a new
    /// group: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    orderly: Option<bool>,
}

impl Settings {
    fn apply(&self, config: &mut SubscriptionGroupConfig) {
        config.retry_max_times = self.retries.unwrap_or(config.retry_max_times);
        config.consume_enable = self.consume.unwrap_or(config.consume_enable);
        config.consume_broadcast_enable = self.broadcast.unwrap_or(config.consume_broadcast_enable);
        config.consume_message_orderly = self.orderly.unwrap_or(config.consume_message_orderly);
    }
}

pub(crate) async fn run(args: GroupArgs) -> anyhow::Result<()> {
    let admin = args.client.admin()?;
    let output = args.client.output();
    match args.command {
        Command::List { all } => list(&admin, &output, all).await,
        Command::Create { group, settings, place, if_not_exists } => {
            create(&admin, &output, &group, &settings, &place, if_not_exists).await
        }
        Command::Update { group, settings, place } => {
            update(&admin, &output, &group, &settings, &place).await
        }
        Command::Delete { group, keep_offsets, cluster } => {
            delete(&admin, &output, &group, keep_offsets, cluster.as_deref()).await
        }
        Command::Describe { group, topic } => {
            describe(&admin, &output, &group, topic.as_deref()).await
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupRow {
    group: String,
    consume: bool,
    broadcast: bool,
    orderly: bool,
    retries: i32,
    brokers: Vec<String>,
}

impl Row for GroupRow {
    const HEADER: &'static [&'static str] =
        &["GROUP", "CONSUME", "BROADCAST", "ORDERLY", "RETRIES", "BROKERS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.clone(),
            self.consume.to_string(),
            self.broadcast.to_string(),
            self.orderly.to_string(),
            self.retries.to_string(),
            self.brokers.join(","),
        ]
    }
}

async fn list(admin: &Admin, output: &Output, all: bool) -> anyhow::Result<()> {
    let mut rows: BTreeMap<String, GroupRow> = BTreeMap::new();
    for master in Brokers::find(admin).await?.masters(&Place::default())? {
        for (group, config) in admin.groups(&master.address).await? {
            if !all && is_system(&group) {
                continue;
            }
            let row = rows.entry(group.clone()).or_insert_with(|| GroupRow {
                group,
                consume: config.consume_enable,
                broadcast: config.consume_broadcast_enable,
                orderly: config.consume_message_orderly,
                retries: config.retry_max_times,
                brokers: Vec::new(),
            });
            row.brokers.push(master.broker.clone());
        }
    }
    Ok(output.rows(&rows.into_values().collect::<Vec<_>>())?)
}

fn is_system(group: &str) -> bool {
    SYSTEM_GROUPS.contains(&group)
        || group.starts_with("CID_ONS")
        || group.starts_with("CID_RMQ_SYS_")
        || group.starts_with("CID_SYS_RMQ_")
}

async fn create(
    admin: &Admin,
    output: &Output,
    group: &str,
    settings: &Settings,
    place: &Place,
    if_not_exists: bool,
) -> anyhow::Result<()> {
    ResourceName::group(group).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut missing = Vec::new();
    for master in Brokers::find(admin).await?.masters(place)? {
        if !admin.groups(&master.address).await?.contains_key(group) {
            missing.push(master);
        }
    }
    if missing.is_empty() {
        if if_not_exists {
            let text = format!("group {group} exists already");
            return Ok(
                output.done(&text, &serde_json::json!({ "group": group, "created": false }))?
            );
        }
        anyhow::bail!(
            "group {group} exists already; change it with `weir group update`, or add --if-not-exists"
        );
    }
    let mut config = SubscriptionGroupConfig {
        group_name: group.to_owned(),
        ..SubscriptionGroupConfig::default()
    };
    settings.apply(&mut config);
    for master in &missing {
        admin.create_group_on(&master.address, &config).await?;
    }
    let names: Vec<_> = missing.iter().map(|master| master.broker.as_str()).collect();
    let text = format!("group {group} created on {}", names.join(", "));
    let object = serde_json::json!({ "group": group, "created": true, "brokers": names });
    Ok(output.done(&text, &object)?)
}

async fn update(
    admin: &Admin,
    output: &Output,
    group: &str,
    settings: &Settings,
    place: &Place,
) -> anyhow::Result<()> {
    let having = having(admin, group, place).await?;
    for (master, config) in &having {
        let mut config = config.clone();
        settings.apply(&mut config);
        admin.create_group_on(&master.address, &config).await?;
    }
    let names: Vec<_> = having.iter().map(|(master, _)| master.broker.as_str()).collect();
    let text = format!("group {group} updated on {}", names.join(", "));
    Ok(output.done(&text, &serde_json::json!({ "group": group, "brokers": names }))?)
}

async fn delete(
    admin: &Admin,
    output: &Output,
    group: &str,
    keep_offsets: bool,
    cluster: Option<&str>,
) -> anyhow::Result<()> {
    let place = Place { cluster: cluster.map(str::to_owned), broker: None };
    let having = having(admin, group, &place).await?;
    let clusters: BTreeSet<_> = having.iter().map(|(master, _)| &master.cluster).collect();
    for cluster in clusters {
        admin.delete_group(cluster, group, !keep_offsets).await?;
    }
    let names: Vec<_> = having.iter().map(|(master, _)| master.broker.as_str()).collect();
    let text = format!("group {group} deleted from {}", names.join(", "));
    Ok(output.done(&text, &serde_json::json!({ "group": group, "brokers": names }))?)
}

/// The masters that have the group, with its settings there; at least one.
async fn having(
    admin: &Admin,
    group: &str,
    place: &Place,
) -> anyhow::Result<Vec<(BrokerAddress, SubscriptionGroupConfig)>> {
    let mut found = Vec::new();
    for master in Brokers::find(admin).await?.masters(place)? {
        if let Some(config) = admin.groups(&master.address).await?.remove(group) {
            found.push((master, config));
        }
    }
    if found.is_empty() {
        let problem = format!("group {group} does not exist there; see `weir group list`");
        return Err(Failure::NotFound(problem).into());
    }
    Ok(found)
}

/// What `describe` prints as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    group: String,
    members: Vec<MemberRow>,
    queues: Vec<LagRow>,
    /// Over all queues.
    lag: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberRow {
    client_id: String,
    address: String,
    language: String,
    subscriptions: Vec<String>,
}

impl Row for MemberRow {
    const HEADER: &'static [&'static str] = &["MEMBER", "ADDRESS", "LANGUAGE", "SUBSCRIPTIONS"];

    fn cells(&self) -> Vec<String> {
        let subscriptions = self.subscriptions.join(", ");
        vec![self.client_id.clone(), self.address.clone(), self.language.clone(), subscriptions]
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LagRow {
    topic: String,
    broker: String,
    queue: i32,
    committed: i64,
    max_offset: i64,
    lag: i64,
    /// Store time of the last consumed message in milliseconds since 1970; 0 for none.
    last_consumed: i64,
}

impl Row for LagRow {
    const HEADER: &'static [&'static str] =
        &["TOPIC", "BROKER", "QUEUE", "COMMITTED", "MAX OFFSET", "LAG", "LAST CONSUMED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.topic.clone(),
            self.broker.clone(),
            self.queue.to_string(),
            self.committed.to_string(),
            self.max_offset.to_string(),
            self.lag.to_string(),
            format_time(self.last_consumed),
        ]
    }
}

async fn describe(
    admin: &Admin,
    output: &Output,
    group: &str,
    topic: Option<&str>,
) -> anyhow::Result<()> {
    // Also fails where the group exists nowhere; the requests below cannot tell.
    having(admin, group, &Place::default()).await?;
    let connected = or_nothing(admin.consumer_connections(group).await)?.flatten();
    let members = connected.map(members).unwrap_or_default();
    let stats = or_nothing(admin.consume_stats(group, topic).await)?.unwrap_or_default();
    let queues = stats.offset_table.into_iter().map(|(queue, offset)| LagRow {
        topic: queue.topic,
        broker: queue.broker_name,
        queue: queue.queue_id,
        committed: offset.consumer_offset,
        max_offset: offset.broker_offset,
        lag: offset.broker_offset - offset.consumer_offset,
        last_consumed: offset.last_timestamp,
    });
    let mut queues: Vec<_> = queues.collect();
    queues.sort_by(|a, b| (&a.topic, &a.broker, a.queue).cmp(&(&b.topic, &b.broker, b.queue)));
    let lag = queues.iter().map(|row| row.lag).sum();
    let description = Description { group: group.to_owned(), members, queues, lag };
    if output.is_json() {
        return Ok(output.json(&description)?);
    }
    if description.members.is_empty() {
        output.line("no member is connected")?;
    } else {
        output.rows(&description.members)?;
    }
    output.line("")?;
    output.rows(&description.queues)?;
    output.line(format_args!("\ntotal lag: {lag}"))?;
    Ok(())
}

/// A group that never had a member has no retry topic, by which its brokers are found.
fn or_nothing<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn members(connected: ConsumerConnection) -> Vec<MemberRow> {
    let subscriptions = connected.subscription_table.values();
    let subscriptions = subscriptions.map(|data| format!("{} {}", data.topic, data.sub_string));
    let subscriptions: Vec<_> = subscriptions.collect();
    let mut members = connected.connection_set;
    members.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    let rows = members.into_iter().map(|member| MemberRow {
        client_id: member.client_id,
        address: member.client_addr,
        language: member.language.map_or("-", |language| language.name()).to_owned(),
        subscriptions: subscriptions.clone(),
    });
    rows.collect()
}
