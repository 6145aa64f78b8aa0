//! What users get wrong, on a cluster that works: it says so in a condition and an event, and neither
//! falls over nor runs hot.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::numbers::metric;
use super::operator::{BROKER, TOPIC, deploy, install};
use crate::client;
use crate::cluster::{Namespace, is_ready, wait};

/// How long what is wrong is left alone, to see whether somebody runs hot.
const QUIET: Duration = Duration::from_secs(30);
/// Rounds of all controllers in that time: each of a dozen resources every two seconds would be 180.
const ROUNDS_MAX: f64 = 120.0;

/// Waits until a condition of an object has this status and reason, and gives its message.
pub(super) fn says(
    namespace: &Namespace<'_>,
    kind: &str,
    name: &str,
    (type_, status, reason): (&str, &str, &str),
) -> anyhow::Result<String> {
    wait(&format!("{kind} {name} says {type_}={status}, {reason}"), 90, || {
        let object = namespace.object(kind, name)?.context("it is gone")?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == type_);
        let Some(found) = found else { bail!("it has no condition {type_}") };
        ensure!(found["status"] == status && found["reason"] == reason, "it says {found}");
        Ok(found["message"].as_str().map(str::to_owned))
    })
}

/// Waits until a condition of a Broker names what is wrong with it, and says which one.
fn names(namespace: &Namespace<'_>, broker: &str, what: &str) -> anyhow::Result<String> {
    wait(&format!("a condition of {broker} names {what}"), 90, || {
        let object = namespace.object("broker", broker)?.context("it is gone")?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let naming = conditions.iter().find(|condition| {
            condition["message"].as_str().is_some_and(|message| message.contains(what))
        });
        ensure!(naming.is_some(), "it says {conditions:?}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(naming.map(|one| format!("{} {}", text(&one["type"]), text(&one["reason"]))))
    })
}

/// Waits for an event about an object with this reason, and gives what it says.
pub(super) fn event(namespace: &Namespace<'_>, name: &str, reason: &str) -> anyhow::Result<String> {
    wait(&format!("{name} has an event {reason}"), 30, || {
        let events = namespace.objects("events.events.k8s.io", "")?;
        let is_it =
            |event: &&Value| event["regarding"]["name"] == name && event["reason"] == reason;
        let all: Vec<_> = events.iter().map(|event| event["reason"].as_str()).collect();
        let found = events.iter().find(is_it);
        let found = found.with_context(|| format!("its events are {all:?}"))?;
        Ok(Some(found["note"].as_str().unwrap_or_default().to_owned()))
    })
}

/// How often containers of brokers were started again.
fn restarts(namespace: &Namespace<'_>) -> anyhow::Result<u64> {
    let pods = namespace.objects("pods", "app.kubernetes.io/name=weirmq-broker")?;
    let counts =
        pods.iter().map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64());
    Ok(counts.map(Option::unwrap_or_default).sum())
}

/// What the API server refuses, and what it takes though nobody can do it yet.
pub(crate) fn declaration(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    install(namespace.cluster)?;
    let refused =
        namespace.apply(&broker("mq", "nameServers: ['ns:9876'], replication: {minInSync: 4}"));
    let refused = refused.err().context("a Broker with minInSync 4 of 1 replica was taken")?;
    let refused = format!("{refused:#}");
    ensure!(
        refused.contains("must not be above replicasPerGroup"),
        "it does not say why: {refused}"
    );
    topic_of_no_broker(namespace)?;
    Ok("a Broker that contradicts itself is refused, a Topic without its Broker says so".to_owned())
}

fn topic_of_no_broker(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    namespace.apply(&topic("early", "later", "early"))?;
    let message = says(namespace, "topic", "early", ("Ready", "False", "BrokerMissing"))?;
    ensure!(message.contains("later"), "it does not name the Broker: {message}");
    event(namespace, "early", "BrokerMissing")?;
    Ok(())
}

fn topic(name: &str, broker: &str, topic: &str) -> String {
    format!(
        "{{apiVersion: weirmq.io/v1alpha1, kind: Topic, metadata: {{name: {name}}}, spec: {{\
         brokerRef: {{name: {broker}}}, topicName: {topic}, queues: 2}}}}"
    )
}

fn broker(name: &str, fields: &str) -> String {
    format!(
        "{{apiVersion: weirmq.io/v1alpha1, kind: Broker, metadata: {{name: {name}}}, spec: {{\
         replicasPerGroup: 1, storage: {{size: 1Gi}}, config: {{segmentSize: 64Mi}}, {fields}}}}}"
    )
}

/// Resources that cannot be as they say.
pub(crate) fn resources(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    namespace.apply(&topic("twice", BROKER, TOPIC))?;
    let message = says(namespace, "topic", "twice", ("Ready", "False", "AlreadyDeclared"))?;
    ensure!(message.contains(TOPIC), "it does not name the other: {message}");
    event(namespace, "twice", "AlreadyDeclared")?;

    topic_of_no_broker(namespace)?;

    namespace.apply(&broker("lost", "nameServerRef: {name: nowhere}"))?;
    let message = says(namespace, "broker", "lost", ("Ready", "False", "ReferenceMissing"))?;
    ensure!(message.contains("nowhere"), "it does not name the NameServer: {message}");
    event(namespace, "lost", "ReferenceMissing")?;

    namespace.apply(&broker("deaf", "nameServers: ['192.0.2.1:9876']"))?;
    namespace.apply(&broker(
        "secretless",
        "nameServerRef: {name: ns}, tls: {secret: {name: nowhere}}",
    ))?;
    let message = says(namespace, "broker", "secretless", ("Ready", "False", "ReferenceMissing"))?;
    ensure!(message.contains("Secret nowhere"), "it does not name the Secret: {message}");
    let note = event(namespace, "secretless", "ReferenceMissing")?;
    ensure!(note.contains("Secret nowhere"), "its event does not name the Secret: {note}");
    let deaf = names(namespace, "deaf", "192.0.2.1:9876")?;

    let (rounds, writes) = counts(namespace)?;
    let before = restarts(namespace)?;
    std::thread::sleep(QUIET);
    let (rounds, writes) = (counts(namespace)?.0 - rounds, counts(namespace)?.1 - writes);
    let again = restarts(namespace)? - before;
    namespace.measured("rounds", rounds);
    namespace.measured("writes", writes);
    namespace.measured("broker_restarts", again as f64);
    ensure!(again == 0, "brokers were started again {again} times in {QUIET:?}");
    ensure!(rounds <= ROUNDS_MAX, "{rounds} rounds in {QUIET:?}");
    ensure!(writes == 0.0, "{writes} objects were written in {QUIET:?}");

    // Its pods cannot start, and nobody starts them again and again.
    let secretless = namespace.object("broker", "secretless")?.context("it is gone")?;
    ensure!(!is_ready(&secretless), "a Broker without its Secret is ready");

    // What was missing comes, and nobody has to touch the resource.
    namespace.apply(&broker("later", "nameServerRef: {name: ns}"))?;
    deployed.ready("topic", "early", 90)?;
    deployed.ready("broker", BROKER, 30)?;
    Ok(format!(
        "the NameServer is named by {deaf}; {rounds} rounds and {writes} writes in {} s",
        QUIET.as_secs()
    ))
}

fn counts(namespace: &Namespace<'_>) -> anyhow::Result<(f64, f64)> {
    let rounds = metric(namespace.cluster, "weirmq_operator_reconciles_total")?;
    Ok((rounds, metric(namespace.cluster, "weirmq_operator_writes_total")?))
}

/// Somebody edits and deletes what the operator made.
pub(crate) fn hands_in_the_works(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let set = group.name.clone();
    client::start(namespace, "client", &["idle"])?;
    let weir = |words: &[&str]| {
        let namesrv = ["--namesrv", &deployed.namesrv];
        namespace.exec("client", &[&["/weir"][..], words, &namesrv].concat())
    };
    // kube-proxy may have the address of the NameServer yet to write.
    wait("a message goes through", 30, || weir(&["produce", TOPIC, "-m", "kept"]).map(Some))?;

    namespace.kubectl(&["scale", "statefulset", &set, "--replicas=1"])?;
    let arguments = "[{\"op\":\"add\",\"path\":\"/spec/template/spec/terminationGracePeriodSeconds\",\"value\":1}]";
    namespace.kubectl(&["patch", "statefulset", &set, "--type=json", "-p", arguments])?;
    wait("the StatefulSet is as it was", 60, || {
        let found = namespace.object("statefulset", &set)?.context("it is gone")?;
        let grace = &found["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
        Ok((found["spec"]["replicas"] == 3 && *grace != 1).then_some(()))
    })?;
    let note = event(namespace, BROKER, "PutBack")?;
    ensure!(note.contains(&set), "its event does not name the StatefulSet: {note}");
    let master = group.settled(180).context("after the StatefulSet was edited")?;

    let slave = group.pods.iter().find(|pod| **pod != master.pod).context("no slave")?;
    let claim = format!("data-{slave}");
    let uid = |kind: &str, name: &str| {
        anyhow::Ok(namespace.object(kind, name)?.map(|object| object["metadata"]["uid"].clone()))
    };
    let before = uid("persistentvolumeclaim", &claim)?;
    namespace.kubectl(&["delete", "persistentvolumeclaim", &claim, "--wait=false"])?;
    namespace.kubectl(&["delete", "pod", slave, "--wait=false"])?;
    wait("the slave has another disk", 120, || {
        let now = uid("persistentvolumeclaim", &claim)?;
        Ok((now.is_some() && now != before).then_some(()))
    })?;
    group.settled(180).context("with an empty disk")?;

    namespace.kubectl(&["delete", "service", &format!("{set}-master")])?;
    namespace.kubectl(&["delete", "configmap", &format!("{set}-config")])?;
    wait("Service and ConfigMap are back", 60, || {
        let service = namespace.object("service", &format!("{set}-master"))?;
        let config = namespace.object("configmap", &format!("{set}-config"))?;
        Ok((service.is_some() && config.is_some()).then_some(()))
    })?;
    group.settled(120)?;
    deployed.ready("broker", BROKER, 60)?;
    let read = wait("the message is read", 60, || {
        weir(&["consume", TOPIC, "--from", "earliest", "-n", "1"]).map(Some)
    })?;
    ensure!(read == "kept\n", "consumed {read:?}");
    Ok("a StatefulSet, a disk, a Service and a ConfigMap".to_owned())
}
