//! Who is master where people have a say: failover by hand, and a record that somebody deletes.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::bad_input::event;
use super::operator::{BROKER, Deployed, TOPIC, deploy, scale_operator};
use crate::client::{Load, moment, outcome};
use crate::cluster::{Namespace, condition, wait};
use crate::group::{Group, Master};

/// More than two leases: by then a replica would have taken over by itself.
const NOBODY_TAKES_OVER: Duration = Duration::from_secs(15);

/// With `failover.mode: Manual` a group waits for a word, and has lost nothing by it.
pub(crate) fn manual(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "failover: {mode: Manual}")?;
    let group = deployed.group()?;
    let master = group.settled(120)?;
    let load = load_elsewhere(namespace, &deployed, &master)?;
    let crashed = moment();
    namespace.cluster.fault(&[&master.node, "crash"])?;
    let promoted = promote_after(&deployed, &group, &master, &load);
    // Mended whatever happened, or no other test could run.
    namespace.cluster.fault(&[&master.node, "boot"])?;
    let promoted = promoted?;
    ensure!(group.settled(120)? == promoted, "{promoted:?} lost its office for no reason");
    deployed.ready("broker", BROKER, 60)?;
    let account = load.end()?;
    Ok(outcome(namespace, &account, crashed))
}

/// Waits in vain, promotes a replica, and waits until it serves.
fn promote_after(
    deployed: &Deployed<'_>,
    group: &Group<'_>,
    before: &Master,
    load: &Load<'_>,
) -> anyhow::Result<Master> {
    let says = wait("the Broker says how to promote a replica", 120, || {
        let broker = deployed.namespace.object("broker", BROKER)?.context("the Broker is gone")?;
        let message = message(&broker, "Ready");
        Ok(message.filter(|message| message.contains("To promote one")))
    })?;
    std::thread::sleep(NOBODY_TAKES_OVER);
    let now = group.master()?.context("nobody stands in the record")?;
    ensure!(now == *before, "{now:?} took over from {before:?} and nobody said so");
    let (namespace, cluster) = (deployed.namespace, deployed.namespace.cluster);
    let command = format!("kubectl weir -n {} promote {BROKER} {};", namespace.name, group.name);
    ensure!(says.contains(&command), "the Broker does not say {command}: {says}");
    let folder = tempfile::tempdir().context("make a folder")?;
    cluster.link_plugin(folder.path())?;
    let words = ["promote", "-n", &namespace.name, BROKER, &group.name, "--yes", "-o", "json"];
    let said = cluster.kubectl_weir(folder.path(), &words)?;
    let said: Value = serde_json::from_str(&said).context("read what the plugin says")?;
    let promoted = group.another_master(before, 60)?;
    ensure!(said["master"] == promoted.pod && said["loss"] == false, "{promoted:?}, but {said}");
    load.until_more(200, 60).context("after the promotion")?;
    Ok(promoted)
}

/// A `BrokerGroup` that was deleted by hand: messages go on. An operator that saw it puts it back; if none
/// did, the Broker says what is wrong until somebody puts a copy back.
pub(crate) fn record_deleted(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let master = group.settled(120)?;
    let load = load_elsewhere(namespace, &deployed, &master)?;
    let mut copy = namespace.object("brokergroup", &group.name)?.context("no BrokerGroup")?;
    let deleted = moment();
    namespace.kubectl(&["delete", "brokergroup", &group.name])?;
    wait("the record is back", 60, || {
        let now = namespace.object("brokergroup", &group.name)?;
        Ok(now.filter(|now| now["status"]["epoch"] == copy["status"]["epoch"]).map(drop))
    })?;
    event(namespace, BROKER, "RecordPutBack")?;
    deployed.ready("broker", BROKER, 60)?;
    ensure!(group.settled(60)?.pod == master.pod, "another master, without need");

    scale_operator(namespace.cluster, 0)?;
    copy = namespace.object("brokergroup", &group.name)?.context("no BrokerGroup")?;
    namespace.kubectl(&["delete", "brokergroup", &group.name])?;
    scale_operator(namespace.cluster, 1)?;
    wait("the Broker says that the record is older", 60, || {
        let broker = namespace.object("broker", BROKER)?.context("the Broker is gone")?;
        let is_said = condition(&broker, "AuthorityRegressed") == Some("True");
        Ok((is_said && condition(&broker, "Ready") == Some("False")).then_some(()))
    })?;
    event(namespace, BROKER, "AuthorityRegressed")?;
    load.until_more(200, 60).context("without a record")?;
    let metadata = copy["metadata"].as_object_mut().context("no metadata")?;
    metadata.remove("resourceVersion");
    metadata.remove("uid");
    let words = ["-n", &namespace.name, "replace", "--subresource=status", "-f", "-"];
    namespace.cluster.kubectl_with(&words, &copy.to_string()).context("put the copy back")?;
    deployed.ready("broker", BROKER, 60)?;
    let after = group.settled(60)?;
    ensure!(after.pod == master.pod, "{after:?} took the office of {master:?} without need");
    let account = load.end()?;
    Ok(outcome(namespace, &account, deleted))
}

/// Clients on another node than the master's.
fn load_elsewhere<'a>(
    namespace: &'a Namespace<'a>,
    deployed: &Deployed<'_>,
    master: &Master,
) -> anyhow::Result<Load<'a>> {
    let mut nodes = namespace.cluster.nodes.iter();
    let node = nodes.find(|node| **node != master.node).context("there is one node only")?;
    Load::start(namespace, &deployed.namesrv, TOPIC, Some(node))
}

/// What a condition says.
fn message(object: &Value, kind: &str) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    found["message"].as_str().map(str::to_owned)
}
