//! What the operator does to a Broker that is in use, and what happens to it by itself: faults of a
//! master, rolling, deletion.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::OPERATOR_NAMESPACE;
use super::faults::{Fault, strike};
use super::operator::{BROKER, DEPLOYMENT, Deployed, TOPIC, deploy};
use crate::client::{Load, moment, outcome};
use crate::cluster::{Namespace, wait};
use crate::images::NEXT;
use crate::load::Account;
use crate::results::is_busy;

/// How long the API server stands still.
const API_PAUSE: Duration = Duration::from_secs(60);
/// How long a planned change of the master may leave a group without one, by the next one's own account.
pub(super) const PLANNED_MS: u64 = 1000;
/// The longest pause of writes that clients may see then, and on a machine that is busy with other things. kube-proxy
/// writes its rules once a second: where it has just written those of others, clients find the next master a second
/// later. A failover that nobody planned takes 2.8 s.
const PAUSE_MS: u64 = PLANNED_MS + 500;
const BUSY_PAUSE_MS: u64 = PAUSE_MS + 1000;

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
    end_smoothly(namespace, load, begun)
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

/// What goes with a Broker, as kinds; of each it has one at least.
const GO: [&str; 11] = [
    "statefulsets",
    "pods",
    "services",
    "endpointslices",
    "configmaps",
    "secrets",
    "poddisruptionbudgets",
    "networkpolicies",
    "serviceaccounts",
    "roles",
    "rolebindings",
];
/// What lives as long as the disks.
const STAY: [&str; 3] = ["persistentvolumeclaims", "brokergroups", "leases"];

/// What is deleted with a Broker, and what stays.
pub(crate) fn deletion(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let of_broker = format!("app.kubernetes.io/instance={BROKER}");
    let count = |kind: &str| anyhow::Ok(namespace.objects(kind, &of_broker)?.len());
    let delete = || {
        for kind in GO.iter().chain(&STAY) {
            ensure!(count(kind)? > 0, "the Broker has no {kind}, so this shows nothing of them");
        }
        namespace.kubectl(&["delete", "broker", BROKER, "--timeout=90s"])?;
        GO.iter().try_for_each(|kind| {
            let what = format!("no {kind} of the Broker are left");
            wait(&what, 60, || Ok((count(kind)? == 0).then_some(())))
        })
    };
    let deployed = deploy(namespace, "")?;
    let kept = STAY.iter().map(|kind| count(kind)).collect::<anyhow::Result<Vec<_>>>()?;
    delete()?;
    for (kind, kept) in STAY.iter().zip(&kept) {
        let left = count(kind)?;
        ensure!(
            left == *kept,
            "{left} of {kept} {kind} stayed though storage.whenDeleted is Retain"
        );
    }
    namespace
        .kubectl(&["delete", "topic", TOPIC, "--timeout=60s"])
        .context("without its Broker")?;
    drop(deployed);

    // The same name finds its disks again, and now says that they go with it.
    let deployed = deploy(namespace, "")?;
    deployed.patch("{\"storage\":{\"whenDeleted\":\"Delete\"}}")?;
    deployed.ready("broker", BROKER, 60)?;
    delete()?;
    for kind in STAY {
        let what = format!("no {kind} are left");
        wait(&what, 60, || Ok((count(kind)? == 0).then_some(())))?;
    }
    let kept: Vec<_> = STAY.iter().zip(kept).map(|(kind, kept)| format!("{kept} {kind}")).collect();
    Ok(format!("{} kept with Retain, none with Delete", kept.join(", ")))
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

/// Ends a load of which only planned changes have been asked, and says what became of it.
pub(super) fn end_smoothly(
    namespace: &Namespace<'_>,
    load: Load<'_>,
    since_ms: u64,
) -> anyhow::Result<String> {
    let account = load.end()?;
    let outcome = outcome(namespace, &account, since_ms);
    smooth(&account, since_ms)?;
    Ok(outcome)
}

/// A planned change costs short pauses and no message.
fn smooth(account: &Account, since_ms: u64) -> anyhow::Result<()> {
    let outage = account.outage_ms_since(since_ms);
    let pause_max = if is_busy() { BUSY_PAUSE_MS } else { PAUSE_MS };
    if outage >= pause_max || account.failed > 0 {
        bail!(
            "writes paused for {outage} ms and {} sends failed; pauses: {:?}, failures: {}",
            account.failed,
            account.gaps,
            account.causes()
        );
    }
    Ok(())
}
