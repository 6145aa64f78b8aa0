//! What the operator does to a Broker that is in use, and what happens to it by itself: faults of a
//! master, rolling, scaling, deletion.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::OPERATOR_NAMESPACE;
use super::faults::{Fault, strike};
use super::operator::{BROKER, DEPLOYMENT, Deployed, TOPIC, deploy};
use crate::client::{self, Load, moment, outcome};
use crate::cluster::{Namespace, condition, output_of, wait};
use crate::images::NEXT;
use crate::load::Account;

/// How long the API server stands still.
const API_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause of writes that a planned change of the master may make.
const PLANNED_PAUSE_MS: u64 = 1000;

/// A fault of the master under load.
pub(crate) fn struck(namespace: &Namespace<'_>, fault: Fault) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let outcome = strike(&deployed.group()?, &deployed.namesrv, TOPIC, fault)?;
    deployed.ready("broker", BROKER, 60).context("after the fault")?;
    Ok(outcome)
}

/// Another image under load: slaves first, then the master, which hands over.
pub(crate) fn roll_image(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    namespace.cluster.provide(NEXT)?;
    deployed.patch(&format!("{{\"pod\":{{\"image\":\"{NEXT}\"}}}}"))?;
    all_run(&deployed, NEXT, 180)?;
    deployed.ready("broker", BROKER, 60)?;
    deployed.group()?.settled(60)?;
    let account = load.end()?;
    let outcome = outcome(namespace, &account, begun);
    smooth(&account, begun)?;
    Ok(outcome)
}

/// A setting that a broker reads when it starts, changed under load.
pub(crate) fn roll_config(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let before = group.uids()?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    deployed.patch("{\"config\":{\"connectionsMax\":777}}")?;
    group.all_anew(&before, 180)?;
    deployed.ready("broker", BROKER, 60)?;
    group.settled(60)?;
    let account = load.end()?;
    let outcome = outcome(namespace, &account, begun);
    smooth(&account, begun)?;
    Ok(outcome)
}

/// Settings that brokers take while they run, changed under load: no pod is started anew, the Broker says
/// when all have them, and they are in effect.
pub(crate) fn live_config(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let before = (group.uids()?, group.settled(60)?);
    client::start(namespace, "client", &["idle"])?;
    let send = |topic: &str| {
        let words = ["/weir", "produce", topic, "-m", "x", "--namesrv", &deployed.namesrv];
        namespace.exec("client", &words)
    };
    send("made-before").context("topics are made by the first send")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    deployed.patch("{\"config\":{\"retentionHours\":7,\"autoCreateTopics\":false}}")?;
    let name = format!("{}-config", group.name);
    let file = wait("the ConfigMap has the settings", 30, || {
        let map = namespace.object("configmap", &name)?.context("it is gone")?;
        let file = map["data"]["broker.toml"].as_str().context("no file")?.to_owned();
        Ok(file.contains("retention_hours = 7").then_some(file))
    })?;
    let sha256 = output_of(&mut Command::new("sha256sum"), &file)?;
    let sha256 = sha256.split(' ').next().context("no sum")?.to_owned();
    wait("the Broker says that all brokers have them", 180, || {
        let broker = namespace.object("broker", BROKER)?.context("it is gone")?;
        let is_seen = broker["status"]["observedGeneration"] == broker["metadata"]["generation"];
        Ok((is_seen && condition(&broker, "Progressing") == Some("False")).then_some(()))
    })?;
    namespace.measured("taken_after_s", (moment() - begun) as f64 / 1000.0);
    for pod in &group.pods {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:10908/proxy/config", namespace.name);
        let said: Value = serde_json::from_str(&namespace.kubectl(&["get", "--raw", &path])?)?;
        ensure!(said["sha256"] == sha256.as_str(), "{pod} goes by {said}, not by {sha256}");
    }
    ensure!(send("made-after").is_err(), "a topic was made though autoCreateTopics is false");
    let events = namespace.kubectl(&["get", "events", "-o", "json"])?;
    ensure!(events.contains("store.retention_hours default -> 7"), "no event names the setting");
    load.until_more(200, 60)?;
    let account = load.end()?;
    let outcome = outcome(namespace, &account, begun);
    smooth(&account, begun)?;
    let after = (group.uids()?, group.settled(60)?);
    ensure!(after == before, "pods or office changed: {before:?}, {after:?}");
    Ok(outcome)
}

/// Nobody can ask the API server for a minute: messages go on, and nobody loses office.
pub(crate) fn api_paused(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let cluster = namespace.cluster;
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let before = group.settled(60)?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let paused = moment();
    cluster.fault(&["api", "pause"])?;
    std::thread::sleep(API_PAUSE);
    cluster.fault(&["api", "resume"])?;
    load.until_more(200, 60)?;
    let after = group.settled(60)?;
    let account = load.end()?;
    let outage = account.outage_ms_since(paused);
    ensure!(outage < 2000, "nothing was acknowledged for {outage} ms");
    ensure!(after == before, "{after:?} took the office of {before:?} without need");
    Ok(outcome(namespace, &account, paused))
}

/// Another group and away with it again under load, with its topics; its disk stays.
pub(crate) fn scale(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "replicasPerGroup: 1")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let scaled = moment();
    namespace.kubectl(&["scale", "broker", BROKER, "--replicas=2"])?;
    let groups = wait("there are two groups with topics", 120, || {
        deployed.ready("broker", BROKER, 1)?;
        let groups = deployed.groups()?;
        Ok((groups.len() == 2).then_some(groups))
    })?;
    deployed.ready("topic", TOPIC, 30)?;
    load.until_more(500, 60)?;

    let disks =
        |labels: &str| anyhow::Ok(namespace.objects("persistentvolumeclaims", labels)?.len());
    let before = disks("")?;
    namespace.kubectl(&["scale", "broker", BROKER, "--replicas=1"])?;
    wait("there is one group again", 300, || Ok((deployed.groups()?.len() == 1).then_some(())))?;
    let gone = groups.last().and_then(|group| group.pods.first()).context("no pod")?;
    wait("its pod is gone", 60, || Ok(namespace.object("pod", gone)?.is_none().then_some(())))?;
    ensure!(disks("")? == before, "a disk went with its group");
    load.until_more(200, 60)?;
    let account = load.end_without_groups()?;
    ensure!(account.left > 0, "the group that left had no messages, which shows nothing");
    namespace.measured("left_with_the_group", account.left as f64);
    let outcome = outcome(namespace, &account, scaled);
    Ok(format!("{outcome}; {} of them were in the group that left", account.left))
}

/// What is deleted with a Broker, and what stays.
pub(crate) fn deletion(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "replicasPerGroup: 1")?;
    namespace.kubectl(&["delete", "broker", BROKER, "--timeout=90s"])?;
    let kinds = "statefulsets,pods,services,configmaps,leases,poddisruptionbudgets,brokergroups";
    let of_broker = format!("app.kubernetes.io/instance={BROKER}");
    wait("everything that the operator made is gone", 60, || {
        Ok(namespace.objects(kinds, &of_broker)?.is_empty().then_some(()))
    })?;
    let disks = namespace.objects("persistentvolumeclaims", "")?.len();
    ensure!(disks > 0, "the disks went with a Broker whose storage.whenDeleted is Retain");
    namespace
        .kubectl(&["delete", "topic", TOPIC, "--timeout=60s"])
        .context("without its Broker")?;
    drop(deployed);

    // The same name finds its disks again, and now says that they go with it.
    let deployed = deploy(namespace, "replicasPerGroup: 1")?;
    deployed.patch("{\"storage\":{\"whenDeleted\":\"Delete\"}}")?;
    deployed.ready("broker", BROKER, 60)?;
    namespace.kubectl(&["delete", "broker", BROKER, "--timeout=90s"])?;
    wait("the disks are gone as well", 60, || {
        let left = namespace.objects("persistentvolumeclaims", &of_broker)?;
        Ok(left.is_empty().then_some(()))
    })?;
    Ok(format!("{disks} disks kept with Retain, none with Delete"))
}

/// The accounts of operator and brokers may do what they need, and nothing more.
pub(crate) fn rights(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let pod = group.pods.first().context("no pod")?;
    let pod = namespace.object("pod", pod)?.context("the pod is gone")?;
    let account = pod["spec"]["serviceAccountName"].as_str().context("no account")?.to_owned();
    let broker = format!("system:serviceaccount:{}:{account}", namespace.name);
    let own = group.name.as_str();
    let may = |who: &str, words: &[&str]| -> anyhow::Result<bool> {
        let mut all = vec!["auth", "can-i", "--as", who];
        all.extend(words);
        // `no` comes with exit code 1.
        match namespace.kubectl(&all) {
            Ok(answer) => Ok(answer.trim() == "yes"),
            Err(error) if format!("{error:#}").ends_with("no") => Ok(false),
            Err(error) => Err(error),
        }
    };
    let record = format!("brokergroups.weirmq.io/{own}");
    let lease = format!("leases.coordination.k8s.io/{own}");
    for words in [
        &["get", &record] as &[&str],
        &["update", &record, "--subresource=status"],
        &["patch", &lease],
    ] {
        ensure!(may(&broker, words)?, "a broker may not {}", words.join(" "));
    }
    let mut denied = 0;
    for words in [
        &["update", &record] as &[&str],
        &["delete", &record],
        &["update", "brokergroups.weirmq.io/other", "--subresource=status"],
        &["patch", "leases.coordination.k8s.io/other"],
        &["create", "leases.coordination.k8s.io"],
        &["get", "secrets"],
        &["list", "pods"],
        &["delete", "pods"],
        &["create", "pods"],
        &["patch", "statefulsets.apps"],
        &["get", "configmaps"],
        &["patch", "brokers.weirmq.io"],
        &["get", "nodes"],
        &["create", "serviceaccounts", "--subresource=token"],
    ] {
        ensure!(!may(&broker, words)?, "a broker may {}", words.join(" "));
        denied += 1;
    }
    let operator = operator_account(namespace)?;
    for words in [
        &["patch", "statefulsets.apps"] as &[&str],
        &["patch", "brokers.weirmq.io", "--subresource=status"],
    ] {
        ensure!(may(&operator, words)?, "the operator may not {}", words.join(" "));
    }
    for words in [
        &["create", "pods"] as &[&str],
        &["create", "pods", "--subresource=exec"],
        &["get", "pods", "--subresource=log"],
        &["delete", "nodes"],
        &["patch", "nodes"],
        &["create", "clusterroles.rbac.authorization.k8s.io"],
        &["create", "clusterrolebindings.rbac.authorization.k8s.io"],
        &["bind", "clusterroles.rbac.authorization.k8s.io"],
        &["escalate", "roles.rbac.authorization.k8s.io"],
        &["impersonate", "users"],
        &["delete", "namespaces"],
        &["delete", "customresourcedefinitions.apiextensions.k8s.io"],
        &["delete", "persistentvolumes"],
        &["update", &lease],
        &["watch", "leases.coordination.k8s.io"],
        &["list", "leases.coordination.k8s.io"],
        &["list", "secrets"],
        &["get", "secrets"],
        &["patch", "secrets"],
        &["delete", "secrets"],
        &["*", "*"],
    ] {
        ensure!(!may(&operator, words)?, "the operator may {}", words.join(" "));
        denied += 1;
    }
    Ok(format!("{denied} things denied to a broker or the operator"))
}

fn operator_account(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let system = namespace.cluster.existing(OPERATOR_NAMESPACE);
    let words = ["get", DEPLOYMENT, "-o", "jsonpath={.spec.template.spec.serviceAccountName}"];
    let account = system.kubectl(&words)?;
    ensure!(!account.is_empty(), "the operator has no account of its own");
    Ok(format!("system:serviceaccount:{}:{account}", system.name))
}

/// The image of each pod of the only group.
pub(super) fn images(deployed: &Deployed<'_>) -> anyhow::Result<Vec<String>> {
    let image = |pod: Option<Value>| {
        let pod = pod.unwrap_or_default();
        pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
    };
    let group = deployed.group()?;
    group.pods.iter().map(|pod| Ok(image(deployed.namespace.object("pod", pod)?))).collect()
}

pub(super) fn all_run(deployed: &Deployed<'_>, wanted: &str, seconds: u64) -> anyhow::Result<()> {
    wait(&format!("all pods run {wanted}"), seconds, || {
        let images = images(deployed)?;
        Ok(images.iter().all(|image| image == wanted).then_some(()))
    })
}

/// A planned change costs short pauses and no message.
fn smooth(account: &Account, since_ms: u64) -> anyhow::Result<()> {
    let outage = account.outage_ms_since(since_ms);
    if outage >= PLANNED_PAUSE_MS || account.failed > 0 {
        bail!(
            "writes paused for {outage} ms and {} sends failed; pauses: {:?}, failures: {}",
            account.failed,
            account.gaps,
            account.causes()
        );
    }
    Ok(())
}
