//! The operator is killed in the middle of a change: it stops where it is, and the next one finishes it.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::OPERATOR_NAMESPACE;
use super::lifecycle::{all_run, end_smoothly, images};
use super::operator::{BROKER, DEPLOYMENT, Deployed, TOPIC, deploy, scale_operator};
use super::operator_away::OPERATOR_PODS;
use super::scale::end_after_a_group;
use super::sizes::{asked, expansion, grown, of_replicas};
use crate::client::{Load, moment};
use crate::cluster::{Cluster, Namespace, is_ready, wait};
use crate::group::Group;
use crate::images::{NEXT, WEIR};

/// The operator is killed in the middle of a roll, and the next one finishes it.
pub(crate) fn in_a_roll(namespace: &Namespace<'_>) -> anyhow::Result<String> {
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
    let outcome = end_smoothly(namespace, load, begun)?;
    Ok(format!("killed with {left} pods to go; {outcome}"))
}

/// The same with a change of the configuration.
pub(crate) fn in_a_change(namespace: &Namespace<'_>) -> anyhow::Result<String> {
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
    let outcome = end_smoothly(namespace, load, begun)?;
    Ok(format!("killed with {left} pods to go; {outcome}"))
}

/// The operator is killed while a second group comes, and again while it leaves.
pub(crate) fn in_scaling(namespace: &Namespace<'_>) -> anyhow::Result<String> {
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
    end_after_a_group(namespace, load, begun)
}

/// The operator is killed while two replicas come, and again while they leave, one of which is master.
pub(crate) fn with_replicas(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let cluster = namespace.cluster;
    let deployed = deploy(namespace, "")?;
    let name = deployed.group()?.name;
    let replicas = |kind: &str| asked(namespace, kind, &name, |it| it["spec"]["replicas"].clone());
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    deployed.patch("{\"replicasPerGroup\":5}")?;
    wait("the StatefulSet asks for five pods", 60, || {
        Ok((replicas("statefulset")? == 5).then_some(()))
    })?;
    kill_operator(cluster)?;
    let came = is_ready_pod(namespace, &format!("{name}-4"))?;
    ensure!(!came, "all replicas were there before the operator was killed");
    next_operator(cluster)?;
    let five = of_replicas(&deployed, 5)?;
    let before = five.settled(180).context("with five replicas")?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;

    let to_the_last = format!("weirmq.io/switch-over={name}=4");
    namespace.kubectl(&["annotate", "broker", BROKER, &to_the_last])?;
    five.another_master(&before, 60).context("it was asked to hand over")?;
    five.settled(60)?;
    five.pods[3..].iter().try_for_each(|pod| finalizers(namespace, "pod", pod, &held()))?;
    let left = kill_while_they_leave(&deployed, &five.pods[3..]);
    // Mended whatever happened, or the namespace would stay.
    for pod in five.pods[3..].iter().filter(|_| left.is_err()) {
        let _ = finalizers(namespace, "pod", pod, "null");
    }
    left?;
    of_replicas(&deployed, 3)?.settled(120).context("with three replicas again")?;
    deployed.ready("broker", BROKER, 60)?;
    load.until_more(200, 60)?;
    end_smoothly(namespace, load, begun)
}

fn kill_while_they_leave(deployed: &Deployed<'_>, pods: &[String]) -> anyhow::Result<()> {
    let namespace = deployed.namespace;
    deployed.patch("{\"replicasPerGroup\":3}")?;
    wait("the pods of replicas 3 and 4 are ending", 60, || {
        let ending = |pod: &String| -> anyhow::Result<bool> {
            let metadata = asked(namespace, "pod", pod, |pod| pod["metadata"].clone())?;
            Ok(!metadata["deletionTimestamp"].is_null())
        };
        let are_ending: Vec<bool> = pods.iter().map(ending).collect::<anyhow::Result<_>>()?;
        Ok(are_ending.into_iter().all(|is_ending| is_ending).then_some(()))
    })?;
    kill_operator(namespace.cluster)?;
    pods.iter().try_for_each(|pod| finalizers(namespace, "pod", pod, "null"))?;
    next_operator(namespace.cluster)?;
    wait("the pods of replicas 3 and 4 are gone", 180, || {
        let mut left = pods.iter().map(|pod| namespace.object("pod", pod));
        Ok(left.all(|pod| matches!(pod, Ok(None))).then_some(()))
    })
}

/// Keeps what is deleted until it is taken off, or it would be over before anybody could look.
const HOLD: &str = "e2e.weirmq.io/hold";

fn held() -> String {
    format!("[\"{HOLD}\"]")
}

/// The operator is killed while it has deleted a StatefulSet, to make it anew with larger disks. Nobody has
/// made it anew when the next operator comes, and no pod notices.
pub(crate) fn without_a_set(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let claim = format!("data-{}", group.pods[0]);
    let class = asked(namespace, "persistentvolumeclaim", &claim, |claim| {
        claim["spec"]["storageClassName"].clone()
    })?;
    let class = class.as_str().context("the claim has no class")?.to_owned();
    let before = group.settled(60)?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    finalizers(namespace, "statefulset", &group.name, &held())?;
    expansion(namespace, &class, true)?;
    let done = grow(&deployed, &group, &claim, &load);
    // Mended whatever happened, or no other test could run.
    expansion(namespace, &class, false)?;
    if done.is_err() {
        let _ = finalizers(namespace, "statefulset", &group.name, "null");
        scale_operator(namespace.cluster, 1)?;
    }
    done?;
    let after = group.settled(60)?;
    ensure!(after == before, "{after:?} took the office of {before:?} without need");
    load.until_more(200, 60)?;
    end_smoothly(namespace, load, begun)
}

fn grow(
    deployed: &Deployed<'_>,
    group: &Group<'_>,
    claim: &str,
    load: &Load<'_>,
) -> anyhow::Result<()> {
    let namespace = deployed.namespace;
    let cluster = namespace.cluster;
    let before = group.uids()?;
    deployed.patch("{\"storage\":{\"size\":\"2Gi\"}}")?;
    // The garbage collector has let go of the pods once nothing but the hold is left.
    wait("the StatefulSet is deleted but for the hold", 60, || {
        let metadata = asked(namespace, "statefulset", &group.name, |set| set["metadata"].clone())?;
        let is_held = metadata["finalizers"] == json!([HOLD]);
        Ok((is_held && !metadata["deletionTimestamp"].is_null()).then_some(()))
    })?;
    let system = cluster.existing(OPERATOR_NAMESPACE);
    // The next one would have to wait for the Lease first, which nobody gave up.
    kill_operator(cluster)?;
    system.kubectl(&["scale", DEPLOYMENT, "--replicas=0"])?;
    finalizers(namespace, "statefulset", &group.name, "null")?;
    wait("the StatefulSet is gone", 30, || {
        Ok(namespace.object("statefulset", &group.name)?.is_none().then_some(()))
    })?;
    load.until_more(500, 60).context("without a StatefulSet")?;
    ensure!(group.uids()? == before, "a pod went with the StatefulSet");
    scale_operator(cluster, 1)?;
    grown(deployed, group, claim)?;
    deployed.ready("broker", BROKER, 60)?;
    ensure!(group.uids()? == before, "a pod was started anew for a larger disk");
    Ok(())
}

/// Sets the finalizers of an object; `null` takes them off.
fn finalizers(namespace: &Namespace<'_>, kind: &str, name: &str, list: &str) -> anyhow::Result<()> {
    let patch = format!("{{\"metadata\":{{\"finalizers\":{list}}}}}");
    namespace.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch]).map(drop)
}

fn is_ready_pod(namespace: &Namespace<'_>, pod: &str) -> anyhow::Result<bool> {
    Ok(namespace.object("pod", pod)?.is_some_and(|pod| is_ready(&pod)))
}

/// What the Broker says of a group of this name; `None` where it has none.
fn group_status(namespace: &Namespace<'_>, name: &str) -> anyhow::Result<Option<Value>> {
    let broker = namespace.object("broker", BROKER)?.context("the Broker is gone")?;
    let groups = broker["status"]["groups"].as_array().cloned().unwrap_or_default();
    Ok(groups.into_iter().find(|group| group["name"] == name))
}

fn has_topics(namespace: &Namespace<'_>, group: &str) -> anyhow::Result<bool> {
    Ok(group_status(namespace, group)?.is_some_and(|group| group["hasTopics"] == true))
}

/// Ends the processes of all operators at once, without a word. Their pods go as well, since kubelet waits longer each
/// time before it starts a process again.
fn kill_operator(cluster: &Cluster) -> anyhow::Result<()> {
    let system = cluster.existing(OPERATOR_NAMESPACE);
    let pods = system.objects("pods", OPERATOR_PODS)?;
    let killed = pods.iter().filter(|pod| {
        // One that ends or begins has no process.
        let (name, node) = (pod["metadata"]["name"].as_str(), pod["spec"]["nodeName"].as_str());
        let place = name.zip(node);
        place.is_some_and(|(name, node)| {
            cluster.fault(&[node, "kill", &format!("{OPERATOR_NAMESPACE}/{name}")]).is_ok()
        })
    });
    ensure!(killed.count() > 0, "no operator was running");
    let delete = ["delete", "pods", "-l", OPERATOR_PODS, "--force", "--grace-period=0"];
    system.kubectl(&delete).map(drop)
}

fn next_operator(cluster: &Cluster) -> anyhow::Result<()> {
    let system = cluster.existing(OPERATOR_NAMESPACE);
    system.kubectl(&["rollout", "status", DEPLOYMENT, "--timeout=60s"]).map(drop)
}
