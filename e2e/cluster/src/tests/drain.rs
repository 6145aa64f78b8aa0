//! A node that is cordoned or drained under load.

use anyhow::{Context as _, ensure};

use super::bad_input::event;
use super::faults::others;
use super::lifecycle::end_smoothly;
use super::operator::{BROKER, TOPIC, deploy};
use crate::client::{Load, moment};
use crate::cluster::Namespace;

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
    group.settled(120).context("after the node takes pods again")?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;
    end_smoothly(namespace, load, begun)
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
    end_smoothly(namespace, load, begun)
}
