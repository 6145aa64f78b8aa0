//! A node that is cordoned or drained under load.

use anyhow::{Context as _, ensure};

use super::bad_input::event;
use super::faults::others;
use super::lifecycle::{PLANNED_MS, end_smoothly};
use super::numbers::metric_of_pod;
use super::operator::{BROKER, TOPIC, deploy};
use crate::client::{Load, moment};
use crate::cluster::Namespace;
use crate::group::Master;

/// `kubectl drain` of the master's node: it hands over, and its pod goes elsewhere or waits.
pub(crate) fn of_the_masters_node(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let master = group.settled(60)?;
    let node = others(namespace, &master.node).next().context("there is one node only")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, Some(node))?;
    let begun = moment();
    let cluster = namespace.cluster;
    let drained = cluster.kubectl(&[
        "drain",
        &master.node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=120s",
    ]);
    let after = drained.and_then(|_| {
        let next = group.another_master(&master, 30)?;
        load.until_more(200, 60).context("while the node is drained")?;
        Ok(next)
    });
    // It takes pods again whatever happened, or no other test could run.
    cluster.kubectl(&["uncordon", &master.node])?;
    let next = after?;
    ensure!(next.node != master.node, "the master is still on {}", next.node);
    let without_master = without_master_ms(namespace, &next)?;
    group.settled(120).context("after the node takes pods again")?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;
    let note = end_smoothly(namespace, load, begun)?;
    Ok(format!("without a master for {without_master} ms; {note}"))
}

/// How many milliseconds passed from the word of the master before that it hands over until this one took messages,
/// by its own account. It is less than [`PLANNED_MS`], on a busy machine as well.
fn without_master_ms(namespace: &Namespace<'_>, master: &Master) -> anyhow::Result<f64> {
    let of_planned = |name: &str| metric_of_pod(namespace, &master.pod, name, "planned=\"true\"");
    let number = of_planned("weirmq_failovers_total")?;
    ensure!(number == 1.0, "{} was handed its office {number} times", master.pod);
    let took = of_planned("weirmq_failover_milliseconds_total")?;
    namespace.measured("without_master_ms", took);
    ensure!(took < PLANNED_MS as f64, "there was no master for {took} ms");
    Ok(took)
}

/// `kubectl cordon` of the master's node, without a drain: it hands over before anybody evicts it, and all pods
/// stay where they are.
pub(crate) fn cordon_alone(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let master = group.settled(60)?;
    let before = group.uids()?;
    let node = others(namespace, &master.node).next().context("there is one node only")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, Some(node))?;
    let begun = moment();
    let cluster = namespace.cluster;
    let after = cluster.kubectl(&["cordon", &master.node]).and_then(|_| {
        let next = group.another_master(&master, 60)?;
        load.until_more(200, 60)?;
        Ok(next)
    });
    // It takes pods again whatever happened, or no other test could run.
    cluster.kubectl(&["uncordon", &master.node])?;
    let next = after?;
    ensure!(next.node != master.node, "the master is still on {}", next.node);
    event(namespace, BROKER, "NodeCordoned")?;
    let settled = group.settled(60)?;
    ensure!(settled == next, "{settled:?} took the office of {next:?} for no reason");
    ensure!(group.uids()? == before, "a pod was started anew for a cordon");
    let without_master = without_master_ms(namespace, &next)?;
    let note = end_smoothly(namespace, load, begun)?;
    Ok(format!("without a master for {without_master} ms; {note}"))
}
