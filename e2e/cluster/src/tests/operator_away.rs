//! What becomes of a cluster while no operator runs: masters fail and are replaced all the same.

use std::time::Instant;

use anyhow::Context as _;

use super::OPERATOR_NAMESPACE;
use super::bad_input::says;
use super::faults::{Fault, others, strike};
use super::operator::{BROKER, Deployed, TOPIC, deploy, scale_operator};
use super::power::Disks;
use crate::client::{Load, moment, outcome};
use crate::cluster::{Namespace, is_ready, wait};

pub(super) const OPERATOR_PODS: &str = "app.kubernetes.io/name=weirmq-operator";

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
