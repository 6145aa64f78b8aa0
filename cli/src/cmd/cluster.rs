//! `weir cluster`: which brokers there are and how they do.

use std::collections::BTreeMap;

use serde::Serialize;

use super::place::Place;
use crate::client::{BrokerAddress, Brokers, ClientArgs, MASTER_ID};
use crate::output::Row;

/// Look at clusters and brokers
#[derive(clap::Args)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List clusters, brokers and their addresses
    List,
    /// Delete at once what is of no use any more, whatever the hour
    Clean {
        /// log: messages older than the retention time; queues: entries of messages that are gone
        /// (here they go with the messages); topics: queues of topics that do not exist
        what: Rubbish,
        #[command(flatten)]
        place: Place,
    },
    /// Have the master of a broker group hand over to a slave; producers wait for a moment
    Switch {
        /// The broker group
        broker: String,
        /// The id of the slave that is to be master [default: the one that has most]
        #[arg(long, value_name = "ID")]
        to: Option<i64>,
    },
    /// Ask each broker how it does
    Status {
        /// Everything that this broker says about itself
        #[arg(long, value_name = "NAME")]
        broker: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Rubbish {
    Log,
    Queues,
    Topics,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListRow {
    cluster: String,
    broker: String,
    id: i64,
    role: &'static str,
    address: String,
}

impl Row for ListRow {
    const HEADER: &'static [&'static str] = &["CLUSTER", "BROKER", "ID", "ROLE", "ADDRESS"];

    fn cells(&self) -> Vec<String> {
        let id = self.id.to_string();
        vec![self.cluster.clone(), self.broker.clone(), id, self.role.into(), self.address.clone()]
    }
}

impl From<BrokerAddress> for ListRow {
    fn from(broker: BrokerAddress) -> Self {
        let BrokerAddress { cluster, broker, id, address } = broker;
        let role = if id == MASTER_ID { "master" } else { "slave" };
        Self { cluster, broker, id, role, address }
    }
}

/// Figures are texts as the broker sends them; `-` where it does not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusRow {
    broker: String,
    id: i64,
    address: String,
    version: String,
    in_per_second: String,
    out_per_second: String,
    log_begin: String,
    log_end: String,
    disk: String,
    up_since: String,
}

impl Row for StatusRow {
    const HEADER: &'static [&'static str] = &[
        "BROKER",
        "ID",
        "ADDRESS",
        "VERSION",
        "IN/S",
        "OUT/S",
        "LOG BEGIN",
        "LOG END",
        "DISK",
        "UP SINCE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.broker.clone(),
            self.id.to_string(),
            self.address.clone(),
            self.version.clone(),
            self.in_per_second.clone(),
            self.out_per_second.clone(),
            self.log_begin.clone(),
            self.log_end.clone(),
            self.disk.clone(),
            self.up_since.clone(),
        ]
    }
}

pub(crate) async fn run(args: ClusterArgs) -> anyhow::Result<()> {
    let admin = args.client.admin()?;
    let output = args.client.output();
    match args.command {
        Command::List => {
            let Brokers(brokers) = Brokers::find(&admin).await?;
            let rows: Vec<_> = brokers.into_iter().map(ListRow::from).collect();
            output.rows(&rows)?;
        }
        Command::Clean { what, place } => {
            for master in Brokers::find(&admin).await?.masters(&place)? {
                let address = &master.address;
                match what {
                    Rubbish::Log => admin.delete_expired_log(address).await?,
                    Rubbish::Queues => admin.clean_expired_queues(address).await?,
                    Rubbish::Topics => admin.clean_unused_topics(address).await?,
                }
                let done = ListRow::from(master);
                output.done(&format!("{} was asked to clean", done.broker), &done)?;
            }
        }
        Command::Switch { broker, to } => {
            let place = Place { broker: Some(broker.clone()), ..Place::default() };
            let masters = Brokers::find(&admin).await?.masters(&place)?;
            admin.switch_master(&masters[0].address, &broker, to).await?;
            let was = ListRow::from(masters[0].clone());
            output.done(&format!("{} handed over", was.address), &was)?;
        }
        Command::Status { broker: Some(broker) } => {
            let place = Place { broker: Some(broker), ..Place::default() };
            let masters = Brokers::find(&admin).await?.masters(&place)?;
            let info = admin.runtime_info(&masters[0].address).await?;
            if output.is_json() {
                return Ok(output.json(&info)?);
            }
            let fields: Vec<_> =
                info.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            output.fields(&fields)?;
        }
        Command::Status { broker: None } => {
            let mut rows = Vec::new();
            let mut failed = Vec::new();
            for broker in Brokers::find(&admin).await?.0 {
                match admin.runtime_info(&broker.address).await {
                    Ok(info) => rows.push(status_row(broker, &info)),
                    Err(error) => failed.push(format!("{}: {error}", broker.broker)),
                }
            }
            output.rows(&rows)?;
            if !failed.is_empty() {
                anyhow::bail!("not every broker answered: {}", failed.join("; "));
            }
        }
    }
    Ok(())
}

fn status_row(broker: BrokerAddress, info: &BTreeMap<String, String>) -> StatusRow {
    let text = |key: &str| info.get(key).cloned().unwrap_or_else(|| "-".to_owned());
    // Rates come as the last ten seconds, the last minute and the last ten minutes.
    let rate = |key: &str| {
        let first = info.get(key).and_then(|rates| rates.split_whitespace().next());
        let rate = first.and_then(|rate| rate.parse::<f64>().ok());
        rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"))
    };
    let disk = info.get("commitLogDiskRatio").and_then(|ratio| ratio.parse::<f64>().ok());
    let booted = info.get("bootTimestamp").and_then(|time| time.parse::<i64>().ok());
    StatusRow {
        broker: broker.broker,
        id: broker.id,
        address: broker.address,
        version: text("brokerVersionDesc"),
        in_per_second: rate("putTps"),
        out_per_second: rate("getTransferredTps"),
        log_begin: text("commitLogMinOffset"),
        log_end: text("commitLogMaxOffset"),
        disk: disk.map_or_else(|| "-".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0)),
        up_since: booted.map_or_else(|| "-".to_owned(), crate::units::format_time),
    }
}
