//! Groups that come and leave.

use anyhow::{Context as _, ensure};

use super::operator::{BROKER, Deployed, TOPIC, deploy, topic};
use crate::client::{self, Load, moment, outcome};
use crate::cluster::{Namespace, wait};
use crate::group::Group;

/// A topic whose messages nobody wants.
const UNWANTED: &str = "unwanted";
/// The consumer group that rejects them.
const REJECTS: &str = "rejects";
/// So many of them that each group gets some: two for each queue.
const UNWANTED_MESSAGES: &str = "16";

/// Another group and away with it again under load, with its topics; its disk stays.
pub(crate) fn there_and_back(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "replicasPerGroup: 1")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let scaled = moment();
    let groups = two_groups(&deployed)?;
    load.until_more(500, 60)?;

    let before = disks(namespace)?;
    namespace.kubectl(&["scale", "broker", BROKER, "--replicas=1"])?;
    second_is_gone(&deployed, &groups)?;
    ensure!(disks(namespace)? == before, "a disk went with its group");
    end_after_a_group(namespace, load, scaled)
}

/// A second group that elects its master comes, leaves, comes back to its disks and its record, and leaves again.
pub(crate) fn of_elected(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let scaled = moment();
    let mut before = None;
    for time in ["it comes", "it comes back"] {
        let groups = two_groups(&deployed).context(time)?;
        let master = groups[1].settled(180).context(time)?;
        load.until_more(500, 60).context(time)?;
        let disks_now = disks(namespace)?;
        if let Some((epoch, disks)) = &before {
            ensure!(disks_now == *disks, "it has other disks than before");
            ensure!(master.epoch > *epoch, "its record was begun anew: epoch {}", master.epoch);
        }
        namespace.kubectl(&["scale", "broker", BROKER, "--replicas=1"])?;
        second_is_gone(&deployed, &groups)?;
        ensure!(disks(namespace)? == disks_now, "a disk went with its group");
        before = Some((master.epoch, disks_now));
    }
    end_after_a_group(namespace, load, scaled)
}

/// Ends a load of which messages have left with a group, and says what came of it.
pub(super) fn end_after_a_group(
    namespace: &Namespace<'_>,
    load: Load<'_>,
    begun: u64,
) -> anyhow::Result<String> {
    load.until_more(200, 60)?;
    let account = load.end_without_groups()?;
    ensure!(account.left > 0, "the group that left had no messages, which shows nothing");
    namespace.measured("left_with_the_group", account.left as f64);
    let outcome = outcome(namespace, &account, begun);
    Ok(format!("{outcome}; {} of them were in the group that left", account.left))
}

/// A group on which delayed messages and dead letters are left does not leave, and says so, until somebody says
/// that it may. When it comes back it has them, as its disk stayed.
pub(crate) fn undrained(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "replicasPerGroup: 1")?;
    let groups = two_groups(&deployed)?;
    namespace.apply(&topic(UNWANTED))?;
    deployed.ready("topic", UNWANTED, 60)?;
    client::start(namespace, "client", &["idle"])?;
    let place = ["--topic", UNWANTED, "--namesrv", &deployed.namesrv];
    let produce = |more: &[&str]| {
        let words = ["/weir", "produce", UNWANTED, "-m", "x", "-n", UNWANTED_MESSAGES, "-q"];
        namespace.exec("client", &[&words[..], &place[2..], more].concat())
    };
    produce(&[])?;
    let reject = ["/e2e-cluster", "reject", "--group", REJECTS, "--count", UNWANTED_MESSAGES];
    namespace.exec("client", &[&reject[..], &place].concat())?;
    // Two hours.
    produce(&["--delay-level", "18"])?;

    let before = disks(namespace)?;
    let second = groups[1].name.clone();
    namespace.kubectl(&["scale", "broker", BROKER, "--replicas=1"])?;
    let left = is_blocked(&deployed, &second)?;
    let drop = format!("weirmq.io/drop-undrained={second}");
    namespace.kubectl(&["annotate", "broker", BROKER, &drop])?;
    second_is_gone(&deployed, &groups)?;
    ensure!(disks(namespace)? == before, "a disk went with its group");
    let broker = deployed.ready("broker", BROKER, 60)?;
    let asked = &broker["metadata"]["annotations"]["weirmq.io/drop-undrained"];
    ensure!(asked.is_null(), "the next group of its name would leave with what is left on it");

    two_groups(&deployed).context("it comes back")?;
    ensure!(disks(namespace)? == before, "it has another disk than before");
    namespace.kubectl(&["scale", "broker", BROKER, "--replicas=1"])?;
    let again = is_blocked(&deployed, &second).context("after it came back")?;
    ensure!(again == left, "{left} when it left, and now {again}");
    Ok(format!("{left}, and so again after it had left and come back"))
}

/// Asks for two groups and waits until both have the topics.
fn two_groups<'a>(deployed: &Deployed<'a>) -> anyhow::Result<Vec<Group<'a>>> {
    deployed.namespace.kubectl(&["scale", "broker", BROKER, "--replicas=2"])?;
    let groups = wait("there are two groups with topics", 120, || {
        deployed.ready("broker", BROKER, 1)?;
        let groups = deployed.groups()?;
        Ok((groups.len() == 2).then_some(groups))
    })?;
    deployed.ready("topic", TOPIC, 30)?;
    Ok(groups)
}

fn second_is_gone(deployed: &Deployed<'_>, groups: &[Group<'_>]) -> anyhow::Result<()> {
    wait("there is one group again", 300, || Ok((deployed.groups()?.len() == 1).then_some(())))?;
    let pods = &groups.last().context("no group")?.pods;
    wait("its pods are gone", 60, || {
        for pod in pods {
            if deployed.namespace.object("pod", pod)?.is_some() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// The volume of each disk, by the claim's name.
fn disks(namespace: &Namespace<'_>) -> anyhow::Result<Vec<String>> {
    let claims = namespace.objects("persistentvolumeclaims", "")?;
    let named = claims
        .iter()
        .map(|claim| format!("{} {}", claim["metadata"]["name"], claim["spec"]["volumeName"]));
    Ok(named.collect())
}

/// Waits until the Broker says that delayed messages and dead letters keep `group` from leaving; what it says of
/// the group.
fn is_blocked(deployed: &Deployed<'_>, group: &str) -> anyhow::Result<String> {
    // Its broker has to learn first that it leaves, from a file that the kubelet brings.
    wait("ScaleInBlocked names delayed messages and dead letters", 180, || {
        let broker = deployed.namespace.object("broker", BROKER)?.context("it is gone")?;
        let conditions = broker["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let blocked = conditions.iter().find(|one| one["type"] == "ScaleInBlocked");
        let message = blocked.and_then(|one| one["message"].as_str()).unwrap_or_default();
        let left = message.split(';').next().unwrap_or_default();
        let dead_letters = format!("topic %DLQ%{REJECTS}");
        let wanted = [group, "delayed messages", &dead_letters];
        ensure!(wanted.iter().all(|what| left.contains(what)), "it says {message:?}");
        Ok(Some(left.to_owned()))
    })
}
