//! `weir cluster`: which brokers there are and how they do.

use std::collections::BTreeMap;

use serde::Serialize;
use weirmq_client::Admin;
use weirmq_remoting::body::{HaRuntimeInfo, ReplicasInfo};

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
        Self { cluster, broker, id, role: role(id), address }
    }
}

fn role(id: i64) -> &'static str {
    if id == MASTER_ID { "master" } else { "slave" }
}

/// Figures are texts as the broker sends them; `-` where it does not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusRow {
    broker: String,
    id: i64,
    address: String,
    role: &'static str,
    #[serde(flatten)]
    standing: Standing,
    version: String,
    in_per_second: String,
    out_per_second: String,
    log_begin: String,
    log_end: String,
    /// Bytes of the log that cannot be read, and that came back from other replicas since the start.
    log_damaged: String,
    log_repaired: String,
    disk: String,
    up_since: String,
}

/// How a replica stands in its group, as far as its master says; without one, as it says itself.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Standing {
    /// Grows with each change of the master; 0 for a broker that is alone.
    epoch: Option<i32>,
    in_sync: Option<bool>,
    /// What it does not have of its master's log.
    lag_bytes: Option<i64>,
    /// For how long it has not had all that its master had written by then.
    lag_millis: Option<i64>,
}

impl Standing {
    fn new(
        broker: &BrokerAddress,
        set: Option<ReplicasInfo>,
        status: Option<HaRuntimeInfo>,
    ) -> Self {
        let mut standing = Self::default();
        if let Some(set) = set {
            standing.epoch = Some(set.master_epoch);
            // The set names replicas by the ids that they have as slaves. Addresses would not do: a
            // master on Kubernetes is registered under that of its Service.
            let id = if broker.id == MASTER_ID { set.master_broker_id } else { Some(broker.id) };
            standing.in_sync =
                id.map(|id| set.in_sync_replicas.iter().any(|replica| replica.broker_id == id));
        }
        if let Some(status) = status {
            let mut slaves = status.ha_connection_info.into_iter();
            if let Some(slave) = slaves.find(|slave| slave.addr == broker.address) {
                standing.lag_bytes = Some(slave.diff);
                standing.lag_millis = slave.lag_millis;
            } else if status.master && broker.id == MASTER_ID {
                standing.lag_bytes = Some(0);
                standing.lag_millis = Some(0);
            }
        }
        standing
    }

    fn cells(&self) -> [String; 4] {
        fn text<T>(known: Option<T>, text: impl FnOnce(T) -> String) -> String {
            known.map_or_else(|| "-".to_owned(), text)
        }
        [
            text(self.epoch, |epoch| epoch.to_string()),
            text(self.in_sync, |is| if is { "yes" } else { "no" }.to_owned()),
            text(self.lag_bytes, |bytes| bytes.to_string()),
            text(self.lag_millis, |millis| format!("{:.1}", millis as f64 / 1000.0)),
        ]
    }
}

impl Row for StatusRow {
    const HEADER: &'static [&'static str] = &[
        "BROKER",
        "ID",
        "ADDRESS",
        "ROLE",
        "EPOCH",
        "IN SYNC",
        "LAG BYTES",
        "LAG S",
        "VERSION",
        "IN/S",
        "OUT/S",
        "LOG BEGIN",
        "LOG END",
        "DAMAGED",
        "REPAIRED",
        "DISK",
        "UP SINCE",
    ];

    fn cells(&self) -> Vec<String> {
        let [epoch, in_sync, lag_bytes, lag_seconds] = self.standing.cells();
        vec![
            self.broker.clone(),
            self.id.to_string(),
            self.address.clone(),
            self.role.to_owned(),
            epoch,
            in_sync,
            lag_bytes,
            lag_seconds,
            self.version.clone(),
            self.in_per_second.clone(),
            self.out_per_second.clone(),
            self.log_begin.clone(),
            self.log_end.clone(),
            self.log_damaged.clone(),
            self.log_repaired.clone(),
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
            let brokers = Brokers::find(&admin).await?.0;
            for broker in &brokers {
                match admin.runtime_info(&broker.address).await {
                    Ok(info) => {
                        let is_master = |other: &&BrokerAddress| {
                            other.broker == broker.broker && other.id == MASTER_ID
                        };
                        let master = brokers.iter().find(is_master).unwrap_or(broker);
                        let standing = standing(&admin, broker, master).await;
                        rows.push(status_row(broker.clone(), standing, &info));
                    }
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

/// Brokers of Apache's may not answer; what they do not say is not known.
async fn standing(admin: &Admin, broker: &BrokerAddress, master: &BrokerAddress) -> Standing {
    let (set, status) = tokio::join!(
        admin.in_sync_set(&master.address, &master.broker),
        admin.ha_status(&master.address)
    );
    Standing::new(broker, set.ok(), status.ok())
}

fn status_row(
    broker: BrokerAddress,
    standing: Standing,
    info: &BTreeMap<String, String>,
) -> StatusRow {
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
        role: role(broker.id),
        standing,
        version: text("brokerVersionDesc"),
        in_per_second: rate("putTps"),
        out_per_second: rate("getTransferredTps"),
        log_begin: text("commitLogMinOffset"),
        log_end: text("commitLogMaxOffset"),
        log_damaged: text("commitLogDamagedBytes"),
        log_repaired: text("commitLogRepairedBytes"),
        disk: disk.map_or_else(|| "-".to_owned(), |ratio| format!("{:.0} %", ratio * 100.0)),
        up_since: booted.map_or_else(|| "-".to_owned(), crate::units::format_time),
    }
}

#[cfg(test)]
mod tests {
    use weirmq_remoting::body::ReplicaIdentity;

    use super::*;

    #[test]
    fn a_master_that_is_registered_under_its_service_is_in_sync() {
        // Replica 1 of 0 to 2 that elect their master; 2 catches up.
        let replica = |broker_id: i64| ReplicaIdentity {
            broker_address: format!("mq-0-{}.mq:10911", broker_id - 1),
            broker_id,
            ..ReplicaIdentity::default()
        };
        let set = ReplicasInfo {
            in_sync_replicas: vec![replica(1), replica(2)],
            master_address: Some(replica(2).broker_address),
            master_broker_id: Some(2),
            not_in_sync_replicas: vec![replica(3)],
            ..ReplicasInfo::default()
        };
        let is_in_sync = |id: i64, address: &str, set: &ReplicasInfo| {
            let broker = BrokerAddress {
                cluster: "c".to_owned(),
                broker: "mq-0".to_owned(),
                id,
                address: address.to_owned(),
            };
            Standing::new(&broker, Some(set.clone()), None).in_sync
        };
        assert_eq!(is_in_sync(MASTER_ID, "mq-0-master.ns.svc:10911", &set), Some(true));
        assert_eq!(is_in_sync(1, "mq-0-0.mq:10911", &set), Some(true));
        assert_eq!(is_in_sync(3, "mq-0-2.mq:10911", &set), Some(false));
        let nobody = ReplicasInfo { master_broker_id: None, ..set };
        assert_eq!(is_in_sync(MASTER_ID, "mq-0-master.ns.svc:10911", &nobody), None);
    }
}
