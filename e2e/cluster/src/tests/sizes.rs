//! More and fewer replicas of a group that is in use, and disks that should grow.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::bad_input::says;
use super::lifecycle::end_smoothly;
use super::operator::{BROKER, Deployed, TOPIC, deploy};
use crate::client::{Load, moment, outcome};
use crate::cluster::{Namespace, condition, wait};
use crate::group::Group;

/// Three replicas become five and three again under load. The master is one of those that leave.
pub(crate) fn replicas(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    deployed.patch("{\"replicasPerGroup\":5}")?;
    let five = of_replicas(&deployed, 5)?;
    let before = five.settled(180).context("with five replicas")?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;

    let asked = format!("weirmq.io/switch-over={}=4", five.name);
    namespace.kubectl(&["annotate", "broker", BROKER, &asked])?;
    five.another_master(&before, 60).context("it was asked to hand over")?;
    let leaving = five.settled(60)?;
    ensure!(leaving.pod == five.pods[4], "{leaving:?} is master, not replica 4");

    deployed.patch("{\"replicasPerGroup\":3}")?;
    wait("the pods of replicas 3 and 4 are gone", 180, || {
        let mut left = five.pods[3..].iter().map(|pod| namespace.object("pod", pod));
        Ok(left.all(|pod| matches!(pod, Ok(None))).then_some(()))
    })?;
    let three = of_replicas(&deployed, 3)?;
    three.settled(120).context("with three replicas again")?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;
    end_smoothly(namespace, load, begun)
}

/// The only group, once the Broker says that it has so many replicas.
pub(super) fn of_replicas<'a>(
    deployed: &Deployed<'a>,
    replicas: usize,
) -> anyhow::Result<Group<'a>> {
    wait(&format!("the group has {replicas} replicas"), 120, || {
        let group = deployed.group()?;
        Ok((group.pods.len() == replicas).then_some(group))
    })
}

/// A disk that may not grow: the Broker says so and goes on. Then its class allows it, and the claims ask
/// for more without an end of a pod. No volume of this cluster grows, so that is as far as it goes.
pub(crate) fn storage(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "replicasPerGroup: 1")?;
    let group = deployed.group()?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let claim = format!("data-{}", group.pods.first().context("no pod")?);
    let class = asked(namespace, "persistentvolumeclaim", &claim, |claim| {
        claim["spec"]["storageClassName"].clone()
    })?;
    let class = class.as_str().context("the claim has no class")?.to_owned();
    let before = group.uids()?;
    let begun = moment();
    deployed.patch("{\"storage\":{\"size\":\"2Gi\"}}")?;
    let refusal = ("StorageNotExpanded", "True", "Refused");
    let message = says(namespace, "broker", BROKER, refusal)?;
    ensure!(message.contains(&claim), "it does not name {claim}: {message}");
    ensure!(message.contains("allowVolumeExpansion"), "it does not say what to do: {message}");
    ensure!(claim_size(namespace, &claim)? == "1Gi", "{claim} asks for more");
    deployed.ready("broker", BROKER, 60).context("while its disk cannot grow")?;
    ensure!(group.uids()? == before, "a pod was started anew for a disk that cannot grow");

    deployed.patch("{\"config\":{\"connectionsMax\":777}}")?;
    group.all_anew(&before, 120).context("another change, while the disk cannot grow")?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;
    let before = group.uids()?;
    expansion(namespace, &class, true)?;
    let grown = grown(&deployed, &group, &claim);
    expansion(namespace, &class, false)?;
    grown?;
    ensure!(group.uids()? == before, "a pod was started anew for a larger disk");
    load.until_more(200, 60)?;
    let account = load.end()?;
    let outcome = outcome(namespace, &account, begun);
    Ok(format!("refused, then {claim} asks for 2Gi; with the restart of another change {outcome}"))
}

/// Waits until claim and StatefulSet ask for the larger size and the Broker has nothing to say.
pub(super) fn grown(deployed: &Deployed<'_>, group: &Group<'_>, claim: &str) -> anyhow::Result<()> {
    let namespace = deployed.namespace;
    // The operator asks ever less often, at last every 2 minutes.
    wait("the claim asks for more", 180, || {
        Ok((claim_size(namespace, claim)? == "2Gi").then_some(()))
    })?;
    wait("the StatefulSet was made anew with it", 60, || {
        let size = asked(namespace, "statefulset", &group.name, |set| {
            let claim = &set["spec"]["volumeClaimTemplates"][0];
            claim["spec"]["resources"]["requests"]["storage"].clone()
        })?;
        Ok((size == "2Gi").then_some(()))
    })?;
    wait("the Broker says no more that its disk cannot grow", 60, || {
        let broker = deployed.ready("broker", BROKER, 1)?;
        Ok((condition(&broker, "StorageNotExpanded") != Some("True")).then_some(()))
    })
}

fn claim_size(namespace: &Namespace<'_>, claim: &str) -> anyhow::Result<Value> {
    asked(namespace, "persistentvolumeclaim", claim, |claim| {
        claim["spec"]["resources"]["requests"]["storage"].clone()
    })
}

/// A field of an object that is there.
pub(super) fn asked(
    namespace: &Namespace<'_>,
    kind: &str,
    name: &str,
    field: impl Fn(&Value) -> Value,
) -> anyhow::Result<Value> {
    let object = namespace.object(kind, name)?;
    Ok(field(&object.with_context(|| format!("{kind} {name} is gone"))?))
}

/// Whether volumes of this class may grow. The class is of all tests.
pub(super) fn expansion(
    namespace: &Namespace<'_>,
    class: &str,
    is_allowed: bool,
) -> anyhow::Result<()> {
    let patch = format!("{{\"allowVolumeExpansion\":{is_allowed}}}");
    let words = ["patch", "storageclass", class, "--type=merge", "-p", &patch];
    namespace.cluster.kubectl(&words).map(drop)
}
