//! What happens to a group whose master is hit, while clients send and receive.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::by_hand;
use crate::client::{Load, moment, outcome};
use crate::cluster::Namespace;
use crate::group::{Group, Master};

/// What is done to the master.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// SIGKILL of its process.
    Kill,
    /// Its node dies; what was written stays in the page cache.
    Crash,
    /// Its node loses power, and its disks what had not reached them; see [`super::power`].
    PowerLoss,
    /// Its node's cable is pulled: the pod runs on, and nobody reaches it.
    Partition,
    /// Its node reaches no other node, but the API server.
    PeersOnly,
    /// Its node's containers are frozen for longer than a lease.
    Freeze,
}

/// How long a freeze lasts: twice the lease.
const FREEZE: Duration = Duration::from_secs(12);
/// How long a partition lasts: until brokers have told NameServers everything again, in vain where those are
/// cut off, and Kubernetes does without the node.
const PARTITION: Duration = Duration::from_secs(35);

/// Longer than that nobody may be without a master, whatever happened to the one before.
const OUTAGE_MAX_MS: u64 = 12_000;

impl Fault {
    /// How long it lasts at least; the others end as soon as somebody else is master and at work.
    fn lasts(self) -> Duration {
        match self {
            Self::Partition => PARTITION,
            Self::Freeze => FREEZE,
            Self::Kill | Self::Crash | Self::PowerLoss | Self::PeersOnly => Duration::ZERO,
        }
    }

    fn begin(self, namespace: &Namespace<'_>, master: &Master) -> anyhow::Result<()> {
        let cluster = namespace.cluster;
        let node = master.node.as_str();
        match self {
            Self::Kill => {
                cluster.fault(&[node, "kill", &format!("{}/{}", namespace.name, master.pod)])
            }
            Self::Crash => cluster.fault(&[node, "crash"]),
            Self::PowerLoss => cluster.fault(&[node, "power"]),
            Self::Partition => cluster.fault(&[node, "partition"]),
            Self::PeersOnly => {
                others(namespace, node).try_for_each(|other| cluster.fault(&[node, "cut", other]))
            }
            Self::Freeze => cluster.fault(&[node, "pause"]),
        }
    }

    fn end(self, namespace: &Namespace<'_>, master: &Master) -> anyhow::Result<()> {
        let cluster = namespace.cluster;
        let node = master.node.as_str();
        match self {
            Self::Kill => Ok(()),
            Self::Crash | Self::PowerLoss => cluster.fault(&[node, "boot"]),
            Self::Partition => cluster.fault(&[node, "heal"]),
            Self::PeersOnly => {
                others(namespace, node).try_for_each(|other| cluster.fault(&[node, "join", other]))
            }
            Self::Freeze => cluster.fault(&[node, "resume"]),
        }
    }
}

/// The nodes beside `node`.
pub(crate) fn others<'a>(
    namespace: &'a Namespace<'_>,
    node: &'a str,
) -> impl Iterator<Item = &'a str> {
    namespace.cluster.nodes.iter().map(String::as_str).filter(move |other| *other != node)
}

/// Does `fault` to the master of `group` while clients on another node are at work: somebody else
/// becomes master, what was acknowledged stays, nobody else writes, and the one that was hit comes
/// back as a slave.
pub(crate) fn strike(
    group: &Group<'_>,
    namesrv: &str,
    topic: &str,
    fault: Fault,
) -> anyhow::Result<String> {
    let namespace = group.namespace;
    let master = group.settled(120)?;
    let node = others(namespace, &master.node).next().context("there is one node only")?;
    let load = Load::start(namespace, namesrv, topic, Some(node))?;
    let struck = moment();
    fault.begin(namespace, &master)?;
    let struck_at = std::time::Instant::now();
    let after = (|| {
        let next = match fault {
            // Kubernetes starts the process again at once: it may come back before it is missed.
            Fault::Kill => None,
            _ => Some(group.another_master(&master, 60)?),
        };
        load.until_more(200, 60).context("after the fault")?;
        std::thread::sleep(fault.lasts().saturating_sub(struck_at.elapsed()));
        anyhow::Ok(next)
    })();
    // Mended whatever happened, or no other test could run.
    fault.end(namespace, &master)?;
    let next = after?;
    let settled = group.settled(120).context("after it was mended")?;
    if let Some(next) = next {
        ensure!(settled == next, "{settled:?} took the office of {next:?} for no reason");
    }
    load.until_more(200, 60).context("after it was mended")?;
    let account = load.end()?;
    if account.acknowledged < 500 {
        bail!("only {} messages were acknowledged; that shows nothing", account.acknowledged);
    }
    let outage = account.outage_ms_since(struck);
    let outcome = outcome(namespace, &account, struck);
    ensure!(outage <= OUTAGE_MAX_MS, "longer than {OUTAGE_MAX_MS} ms: {outcome}");
    Ok(outcome)
}

/// A fault of a master that no operator looks after.
pub(crate) fn by_hand(namespace: &Namespace<'_>, fault: Fault) -> anyhow::Result<String> {
    let group = by_hand::replicated(namespace)?;
    strike(&group, by_hand::NAMESRV, by_hand::TOPIC, fault)
}
