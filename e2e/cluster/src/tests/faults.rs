//! What happens to a group whose master is hit, while clients send and receive.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::by_hand;
use crate::client::{Load, moment, outcome};
use crate::cluster::Namespace;
use crate::group::{Group, Master};
use crate::load::Account;

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

/// After so long without a renewal no master acknowledges anything.
const LEASE: Duration = Duration::from_secs(6);
/// How long a freeze lasts, and a partition from the peers only.
const TWO_LEASES: Duration = Duration::from_secs(12);
/// How long a partition lasts: until brokers have told NameServers everything again, in vain where those are
/// cut off, and Kubernetes does without the node.
const PARTITION: Duration = Duration::from_secs(35);

/// The topic of the clients beside a master that is cut off.
const BESIDE: &str = "beside";
/// In so many seconds at least such a master has to refuse something, or its silence shows nothing.
const REFUSED_MIN: usize = 3;

/// Longer than that nobody may be without a master, whatever happened to the one before.
const OUTAGE_MAX_MS: u64 = 12_000;

impl Fault {
    /// How long it lasts at least; the others end as soon as somebody else is master and at work.
    fn lasts(self) -> Duration {
        match self {
            Self::Partition => PARTITION,
            Self::Freeze | Self::PeersOnly => TWO_LEASES,
            Self::Kill | Self::Crash | Self::PowerLoss => Duration::ZERO,
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
/// back as a slave. One that is cut off and runs on is asked to write all the while, by clients on its node.
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
    let beside = match fault {
        Fault::Partition | Fault::PeersOnly => Some(start_beside(namespace, namesrv, &master)?),
        _ => None,
    };
    let struck = moment();
    fault.begin(namespace, &master)?;
    let struck_at = std::time::Instant::now();
    let cut = moment();
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
    let mended = moment();
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
    let Some(beside) = beside else { return Ok(outcome) };
    let account = beside.end().context("what was sent to the master that was cut off")?;
    let refused = nobody_wrote(&account, cut, mended)?;
    namespace.measured("beside_acknowledged", account.acknowledged as f64);
    namespace.measured("beside_refused_s", refused as f64);
    Ok(format!(
        "{outcome}; of what was sent to the one that was cut off {} kept, and none after the lease, in {refused} s of \
         which it refused",
        account.acknowledged
    ))
}

/// Clients on the master's own node that know its address and send nowhere else.
fn start_beside<'a>(
    namespace: &'a Namespace<'a>,
    namesrv: &str,
    master: &Master,
) -> anyhow::Result<Load<'a>> {
    let create = ["/weir", "topic", "create", BESIDE, "--queues", "4", "--namesrv", namesrv];
    namespace.exec(&master.pod, &create)?;
    let pod = namespace.object("pod", &master.pod)?.context("the master's pod is gone")?;
    let address = pod["status"]["podIP"].as_str().context("the master's pod has no address")?;
    Load::start_beside(namespace, namesrv, BESIDE, &master.node, &format!("{address}:10911"))
}

/// A master that was cut off from `cut_ms` to `mended_ms` acknowledged nothing once its lease was over; in how many
/// seconds of that time it said so.
fn nobody_wrote(beside: &Account, cut_ms: u64, mended_ms: u64) -> anyhow::Result<usize> {
    let over_ms = cut_ms + LEASE.as_millis() as u64;
    ensure!(
        beside.is_silent(over_ms, mended_ms),
        "there was a second writer: the master that was cut off acknowledged something between {over_ms} and \
         {mended_ms}; pauses: {:?}",
        beside.gaps
    );
    let refused = beside.seconds_refused(over_ms, mended_ms);
    ensure!(
        refused >= REFUSED_MIN,
        "the master that was cut off was hardly asked: it refused something in {refused} s; {}",
        beside.causes()
    );
    Ok(refused)
}

/// A fault of a master that no operator looks after.
pub(crate) fn by_hand(namespace: &Namespace<'_>, fault: Fault) -> anyhow::Result<String> {
    let group = by_hand::replicated(namespace)?;
    strike(&group, by_hand::NAMESRV, by_hand::TOPIC, fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Gap;

    /// Cut off at 100 s and mended at 135 s: the lease is over at 106 s.
    fn judge(gaps: &[(u64, u64)], refused_s: std::ops::Range<u64>) -> anyhow::Result<usize> {
        let gap =
            |(from_ms, to_ms): &(u64, u64)| Gap { from_ms: *from_ms, length_ms: to_ms - from_ms };
        let account = Account {
            gaps: gaps.iter().map(gap).collect(),
            refused_s: refused_s.collect(),
            ..Account::default()
        };
        nobody_wrote(&account, 100_000, 135_000)
    }

    #[test]
    fn an_acknowledgement_after_the_lease_is_a_second_writer() {
        assert_eq!(judge(&[(105_900, 180_000)], 104..140).unwrap(), 29);
        for two in [
            // In the middle, just after the lease, and just before the end.
            &[(101_000, 120_000), (120_000, 180_000)][..],
            &[(106_001, 180_000)],
            &[(101_000, 134_999)],
            // It went on as if nothing had happened.
            &[],
        ] {
            let error = judge(two, 104..140).unwrap_err().to_string();
            assert!(error.contains("a second writer"), "{error}");
        }
    }

    #[test]
    fn the_silence_of_a_master_that_nobody_reached_shows_nothing() {
        for seldom in [0..0, 90..106, 135..180, 106..108] {
            let error = judge(&[(101_000, 180_000)], seldom).unwrap_err().to_string();
            assert!(error.contains("hardly asked"), "{error}");
        }
    }
}
