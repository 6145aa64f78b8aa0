//! What becomes of a cluster while no operator runs: masters fail, and changes stop where they are until the
//! next one finishes them.

use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::OPERATOR_NAMESPACE;
use super::bad_input::says;
use super::faults::{Fault, others, strike};
use super::lifecycle::{all_run, images};
use super::operator::{BROKER, DEPLOYMENT, Deployed, TOPIC, deploy, scale_operator};
use super::power::Disks;
use crate::client::{Load, moment, outcome};
use crate::cluster::{Cluster, Namespace, is_ready, wait};
use crate::images::{NEXT, WEIR};

const OPERATOR_PODS: &str = "app.kubernetes.io/name=weirmq-operator";

/// A failover while no operator runs.
pub(crate) fn struck(namespace: &Namespace<'_>, fault: Fault) -> anyhow::Result<String> {
    without_operator(&deploy(namespace, "")?, fault)
}

fn without_operator(deployed: &Deployed<'_>, fault: Fault) -> anyhow::Result<String> {
    let group = deployed.group()?;
    scale_operator(deployed.namespace.cluster, 0)?;
    let outcome = strike(&group, &deployed.namesrv, TOPIC, fault);
    scale_operator(deployed.namespace.cluster, 1)?;
    deployed.ready("broker", BROKER, 60).context("after the operator is back")?;
    outcome
}

pub(crate) fn power(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let disks = Disks::make(namespace)?;
    let deployed = deploy(namespace, &disks.broker("replicasPerGroup: 3"))?;
    without_operator(&deployed, Fault::PowerLoss)
}

/// The operator's node dies: another one is at work long before Kubernetes would move it by itself, which
/// takes 5 minutes, and sees what else was on that node.
pub(crate) fn its_node_dies(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let cluster = namespace.cluster;
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    group.settled(60)?;
    let system = cluster.existing(OPERATOR_NAMESPACE);
    let at_work = || -> anyhow::Result<Option<String>> {
        let pods = system.objects("pods", OPERATOR_PODS)?;
        let name = pods.iter().find(|pod| is_ready(pod)).map(|pod| &pod["metadata"]["name"]);
        Ok(name.and_then(|name| name.as_str()).map(str::to_owned))
    };
    let before = at_work()?.context("no operator is ready")?;
    let node = system.node_of(&before)?;
    let other = others(namespace, &node).next().context("there is one node only")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, Some(other))?;
    let crashed = moment();
    let begun = Instant::now();
    cluster.fault(&[&node, "crash"])?;
    let another = wait("another operator is ready", 120, || {
        Ok(at_work()?.filter(|now| *now != before).map(|_| begun.elapsed()))
    });
    let seen = another.and_then(|took| {
        says(namespace, "broker", BROKER, ("Degraded", "True", "PodsNotReady"))?;
        Ok(took.as_secs_f64())
    });
    // Mended whatever happened, or no other test could run.
    cluster.fault(&[&node, "boot"])?;
    let took = seen?;
    group.settled(120)?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;
    let account = load.end()?;
    namespace.measured("operator_back_s", took);
    let outcome = outcome(namespace, &account, crashed);
    Ok(format!("another operator is ready after {took:.0} s; {outcome}"))
}

/// The operator is killed in the middle of a roll, and the next one finishes it.
pub(crate) fn killed_in_a_roll(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    namespace.cluster.provide(NEXT)?;
    deployed.patch(&format!("{{\"pod\":{{\"image\":\"{NEXT}\"}}}}"))?;
    wait("one pod runs the next image", 120, || {
        Ok((images(&deployed)?.iter().any(|image| image == NEXT)).then_some(()))
    })?;
    kill_operator(namespace.cluster)?;
    let left = images(&deployed)?.iter().filter(|image| *image == WEIR).count();
    ensure!(left > 0, "the roll was over before the operator was killed");
    next_operator(namespace.cluster)?;
    all_run(&deployed, NEXT, 180)?;
    deployed.group()?.settled(60)?;
    let account = load.end()?;
    Ok(format!("killed with {left} pods to go; {}", outcome(namespace, &account, begun)))
}

/// The same with a change of the configuration.
pub(crate) fn killed_in_a_change(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let before = group.uids()?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    deployed.patch("{\"config\":{\"connectionsMax\":777}}")?;
    wait("one pod was started anew", 120, || {
        Ok(group.uids()?.iter().any(|uid| uid.is_some() && !before.contains(uid)).then_some(()))
    })?;
    kill_operator(namespace.cluster)?;
    let left = group.uids()?.iter().filter(|uid| before.contains(uid)).count();
    ensure!(left > 0, "the change was over before the operator was killed");
    next_operator(namespace.cluster)?;
    group.all_anew(&before, 180)?;
    deployed.ready("broker", BROKER, 60)?;
    group.settled(60)?;
    let account = load.end()?;
    Ok(format!("killed with {left} pods to go; {}", outcome(namespace, &account, begun)))
}

/// The operator is killed while a second group comes, and again while it leaves.
pub(crate) fn killed_in_scaling(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let cluster = namespace.cluster;
    let deployed = deploy(namespace, "replicasPerGroup: 1")?;
    let second = format!("{BROKER}-1");
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    namespace.kubectl(&["scale", "broker", BROKER, "--replicas=2"])?;
    wait("the second group has a StatefulSet", 60, || namespace.object("statefulset", &second))?;
    kill_operator(cluster)?;
    ensure!(!has_topics(namespace, &second)?, "it was there before the operator was killed");
    next_operator(cluster)?;
    wait("the second group has the topics", 120, || {
        Ok(has_topics(namespace, &second)?.then_some(()))
    })?;
    deployed.ready("broker", BROKER, 60)?;
    deployed.ready("topic", TOPIC, 60)?;
    load.until_more(500, 60)?;

    namespace.kubectl(&["scale", "broker", BROKER, "--replicas=1"])?;
    wait("the second group begins to leave", 60, || {
        let group = group_status(namespace, &second)?.context("it is gone already")?;
        Ok(group["draining"].is_string().then_some(()))
    })?;
    kill_operator(cluster)?;
    let there = namespace.object("statefulset", &second)?;
    let is_leaving = there.is_some_and(|set| set["metadata"]["deletionTimestamp"].is_null());
    ensure!(is_leaving, "it was gone before the operator was killed");
    next_operator(cluster)?;
    wait("the second group is gone", 300, || {
        let is_gone = group_status(namespace, &second)?.is_none();
        let pod = namespace.object("pod", &format!("{second}-0"))?;
        Ok((is_gone && pod.is_none()).then_some(()))
    })?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;
    let account = load.end_without_groups()?;
    ensure!(account.left > 0, "the group that left had no messages, which shows nothing");
    namespace.measured("left_with_the_group", account.left as f64);
    let outcome = outcome(namespace, &account, begun);
    Ok(format!("{outcome}; {} of them were in the group that left", account.left))
}

/// What the Broker says of a group of this name; `None` where it has none.
fn group_status(
    namespace: &Namespace<'_>,
    name: &str,
) -> anyhow::Result<Option<serde_json::Value>> {
    let broker = namespace.object("broker", BROKER)?.context("the Broker is gone")?;
    let groups = broker["status"]["groups"].as_array().cloned().unwrap_or_default();
    Ok(groups.into_iter().find(|group| group["name"] == name))
}

fn has_topics(namespace: &Namespace<'_>, group: &str) -> anyhow::Result<bool> {
    Ok(group_status(namespace, group)?.is_some_and(|group| group["hasTopics"] == true))
}

/// Has the operator end at once and without a word; Kubernetes starts another one.
fn kill_operator(cluster: &Cluster) -> anyhow::Result<()> {
    let system = cluster.existing(OPERATOR_NAMESPACE);
    let delete = ["delete", "pods", "-l", OPERATOR_PODS, "--force", "--grace-period=0"];
    system.kubectl(&delete).map(drop)
}

fn next_operator(cluster: &Cluster) -> anyhow::Result<()> {
    let system = cluster.existing(OPERATOR_NAMESPACE);
    system.kubectl(&["rollout", "status", DEPLOYMENT, "--timeout=60s"]).map(drop)
}
