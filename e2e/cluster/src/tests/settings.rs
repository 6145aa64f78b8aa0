//! Settings of brokers that are in use: those that they read when they start, and those that they take while
//! they run.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::bad_input::event;
use super::lifecycle::end_smoothly;
use super::operator::{BROKER, Deployed, TOPIC, deploy};
use crate::client::{self, Load, moment, outcome};
use crate::cluster::{Namespace, condition, output_of, wait};
use crate::group::Group;

/// How long it may take until all brokers have a setting: a kubelet brings a changed file into a pod within
/// a minute or so.
const TAKEN_SECONDS: u64 = 180;

/// A setting that a broker reads when it starts, changed under load.
pub(crate) fn at_start(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let before = group.uids()?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    deployed.patch("{\"config\":{\"connectionsMax\":777}}")?;
    group.all_anew(&before, 180)?;
    deployed.ready("broker", BROKER, 60)?;
    group.settled(60)?;
    end_smoothly(namespace, load, begun)
}

/// The same where nobody is elected: no message is taken while a replica is away, and it ends all the same.
pub(crate) fn without_elections(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "failover: {mode: Disabled}")?;
    let group = deployed.group()?;
    let before = group.uids()?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    deployed.patch("{\"config\":{\"connectionsMax\":777}}")?;
    group.all_anew(&before, 240)?;
    done(&deployed, 120)?;
    load.until_more(200, 60)?;
    let account = load.end()?;
    Ok(outcome(namespace, &account, begun))
}

/// Settings that brokers take while they run, changed under load, and NameServers that come: no pod is started
/// anew, the Broker says when all have them, and they are in effect.
pub(crate) fn live(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let before = (group.uids()?, group.settled(60)?);
    client::start(namespace, "client", &["idle"])?;
    let weir = |words: &[&str]| namespace.exec("client", &[&["/weir"][..], words].concat());
    let send = |topic: &str| weir(&["produce", topic, "-m", "x", "--namesrv", &deployed.namesrv]);
    send("made-before").context("topics are made by the first send")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;

    let begun = moment();
    // The list names what the reference named: their pods, all of them.
    let pods = format!("ns-namesrv-pods.{}.svc:9876", namespace.name);
    deployed.patch(&format!(
        "{{\"config\":{{\"retentionHours\":7,\"autoCreateTopics\":false}},\
         \"nameServerRef\":null,\"nameServers\":[\"{pods}\"]}}"
    ))?;
    taken(&deployed, &group, "retention_hours = 7")?;
    namespace.measured("taken_after_s", (moment() - begun) as f64 / 1000.0);
    ensure!(send("made-after").is_err(), "a topic was made though autoCreateTopics is false");
    let said = event(namespace, BROKER, "SettingsChanged")?;
    ensure!(said.contains("store.retention_hours default -> 7"), "it says {said}");

    let edited = moment();
    namespace.kubectl(&["scale", "nameserver", "ns", "--replicas=3"])?;
    let any = format!("ns-namesrv.{}.svc:9876", namespace.name);
    deployed.patch(&format!("{{\"nameServers\":[\"{pods}\",\"{any}\"]}}"))?;
    taken(&deployed, &group, &any)?;
    namespace.measured("list_taken_after_s", (moment() - edited) as f64 / 1000.0);
    let third = wait("the third NameServer is there", 60, || {
        let pod = namespace.object("pod", "ns-namesrv-2")?;
        Ok(pod.and_then(|pod| Some(format!("{}:9876", pod["status"]["podIP"].as_str()?))))
    })?;
    wait("the third NameServer knows the route", 60, || {
        weir(&["consume", TOPIC, "-n", "1", "--namesrv", &third]).map(Some)
    })?;

    load.until_more(200, 60)?;
    let outcome = end_smoothly(namespace, load, begun)?;
    let after = (group.uids()?, group.settled(60)?);
    ensure!(after == before, "pods or office changed: {before:?}, {after:?}");
    Ok(outcome)
}

/// Waits until the file of the group has `text`, the Broker says that all brokers go by it, and each says so.
fn taken(deployed: &Deployed<'_>, group: &Group<'_>, text: &str) -> anyhow::Result<()> {
    let namespace = deployed.namespace;
    let name = format!("{}-config", group.name);
    let file = wait(&format!("the ConfigMap has {text}"), 30, || {
        let map = namespace.object("configmap", &name)?.context("it is gone")?;
        let file = map["data"]["broker.toml"].as_str().context("no file")?.to_owned();
        Ok(file.contains(text).then_some(file))
    })?;
    let sha256 = output_of(&mut Command::new("sha256sum"), &file)?;
    let sha256 = sha256.split(' ').next().context("no sum")?.to_owned();
    done(deployed, TAKEN_SECONDS)?;
    for pod in &group.pods {
        let said = said(namespace, pod)?;
        ensure!(said["sha256"] == sha256.as_str(), "{pod} goes by {said}, not by {sha256}");
    }
    Ok(())
}

/// Waits until the Broker says that nothing of its newest generation is under way.
pub(super) fn done(deployed: &Deployed<'_>, seconds: u64) -> anyhow::Result<()> {
    wait("the Broker says that nothing is under way", seconds, || {
        let broker = deployed.namespace.object("broker", BROKER)?.context("it is gone")?;
        let is_seen = broker["status"]["observedGeneration"] == broker["metadata"]["generation"];
        Ok((is_seen && condition(&broker, "Progressing") == Some("False")).then_some(()))
    })
}

/// What a broker says on its admin port of the file that it goes by. A version that reads its file when it
/// starts only has no such page, and that is an error.
pub(super) fn said(namespace: &Namespace<'_>, pod: &str) -> anyhow::Result<Value> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:10908/proxy/config", namespace.name);
    let text = namespace.kubectl(&["get", "--raw", &path])?;
    serde_json::from_str(&text).with_context(|| format!("read what {pod} says"))
}
