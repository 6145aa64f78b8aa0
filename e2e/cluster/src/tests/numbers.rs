//! What is measured without a fault: how long things take, and what the operator needs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::OPERATOR_NAMESPACE;
use super::operator::{BROKER, Deployed, deploy, install, topic};
use crate::cluster::{Cluster, Namespace, is_ready, wait};
use crate::results::is_busy;

const TOPICS: usize = 200;
/// From the first of so many Topics to the last one that is ready.
const TOPICS_MAX: Duration = Duration::from_secs(20);
/// From `kubectl apply` to a Broker that is ready, in seconds, and on a machine that is busy with other things.
const READY_MAX_S: f64 = 10.0;
const BUSY_READY_MAX_S: f64 = 20.0;
const OPERATOR_MIB_MAX: f64 = 40.0;
/// How long a look at a resource that is as it is declared may take on average, with the answers of brokers; on a
/// busy machine only something that is done again and again takes longer.
const LOOK_MS_MAX: f64 = 5.0;
const BUSY_LOOK_MS_MAX: f64 = 100.0;

/// 200 Topics at once, and the memory of the operator that looks after them.
pub(crate) fn topics(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    deploy(namespace, "")?;
    let before = resident_mib(namespace.cluster)?;
    let manifests: Vec<_> = (0..TOPICS).map(|number| topic(&format!("t{number}"))).collect();
    let begun = Instant::now();
    namespace.apply(&manifests.join("\n---\n"))?;
    let applied = begun.elapsed().as_secs_f64();
    wait(&format!("{TOPICS} topics are ready"), 120, || {
        let topics = namespace.objects("topics", "")?;
        Ok((topics.iter().filter(|topic| is_ready(topic)).count() > TOPICS).then_some(()))
    })?;
    let took = begun.elapsed();
    let after = resident_mib(namespace.cluster)?;
    let looks = looks(namespace.cluster)?;
    let seconds = took.as_secs_f64();
    for (kind, milliseconds) in &looks {
        namespace.measured(&format!("reconcile_{}_ms", kind.to_lowercase()), *milliseconds);
    }
    namespace.measured("kubectl_apply_s", applied);
    namespace.measured("apply_to_ready_s", seconds);
    namespace.measured("operator_before_mib", before);
    namespace.measured("operator_after_mib", after);
    let longest = looks.iter().map(|(_, milliseconds)| *milliseconds).fold(0.0, f64::max);
    let looks: Vec<String> =
        looks.iter().map(|(kind, milliseconds)| format!("{kind} {milliseconds:.1} ms")).collect();
    let note = format!(
        "{TOPICS} topics in {seconds:.1} s, {applied:.1} s of it kubectl; operator {before:.0} MiB \
         before and {after:.0} MiB after; a look: {}",
        looks.join(", ")
    );
    ensure!(took <= TOPICS_MAX, "longer than {TOPICS_MAX:?}: {note}");
    ensure!(after <= OPERATOR_MIB_MAX, "more than {OPERATOR_MIB_MAX} MiB: {note}");
    let max = if is_busy() { BUSY_LOOK_MS_MAX } else { LOOK_MS_MAX };
    ensure!(longest < max, "a look takes {max} ms and more: {note}");
    Ok(note)
}

/// How long it takes on average, in milliseconds, to look at a resource that is as it is declared; with what
/// brokers are asked.
fn looks(cluster: &Cluster) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let now = |what: &str, kind: &str| {
        let name = format!("weirmq_operator_reconcile_seconds_{what}");
        metric_of(cluster, &name, &format!("kind=\"{kind}\""))
    };
    let kinds = ["Broker", "Topic"];
    let before: Vec<_> = kinds
        .iter()
        .map(|kind| Ok((now("sum", kind)?, now("count", kind)?)))
        .collect::<anyhow::Result<_>>()?;
    // Topics are looked at each minute, and Brokers twice as often.
    wait("every topic was looked at again", 180, || {
        Ok((now("count", "Topic")? >= before[1].1 + TOPICS as f64).then_some(()))
    })?;
    let looked = kinds.iter().zip(before).map(|(kind, (sum, count))| {
        let (seconds, looks) = (now("sum", kind)? - sum, now("count", kind)? - count);
        Ok((*kind, seconds * 1_000.0 / looks.max(1.0)))
    });
    looked.collect()
}

/// From `kubectl apply` of NameServer and Broker to a Broker that is ready: three replicas, the image is
/// there.
pub(crate) fn ready(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    install(namespace.cluster)?;
    let mut times: Vec<f64> = Vec::new();
    for round in 0..3 {
        let own = namespace.cluster.namespace(&format!("{}-{round}", namespace.name))?;
        let begun = Instant::now();
        own.apply(&super::operator::manifests(""))?;
        let deployed = Deployed { namespace: &own, namesrv: String::new() };
        let became = deployed.ready("broker", BROKER, 120).map(|_| begun.elapsed().as_secs_f64());
        own.kubectl(&["delete", "namespace", &own.name, "--timeout=120s"])?;
        let took = became?;
        namespace.measured(&format!("apply_to_ready_{round}_s"), took);
        times.push(took);
    }
    let max = if is_busy() { BUSY_READY_MAX_S } else { READY_MAX_S };
    let note: Vec<_> = times.iter().map(|took| format!("{took:.1}")).collect();
    let note = format!("{} s", note.join(", "));
    ensure!(times.iter().all(|took| *took <= max), "longer than {max} s: {note}");
    Ok(note)
}

/// What the operator's process has in memory, as it says itself.
fn resident_mib(cluster: &Cluster) -> anyhow::Result<f64> {
    let bytes = metric(cluster, "process_resident_memory_bytes")?;
    Ok(bytes / f64::from(1 << 20))
}

/// The sum of a metric of the operator over all its labels.
pub(crate) fn metric(cluster: &Cluster, name: &str) -> anyhow::Result<f64> {
    metric_of(cluster, name, "")
}

/// The same over those whose labels contain this.
fn metric_of(cluster: &Cluster, name: &str, label: &str) -> anyhow::Result<f64> {
    let system = cluster.existing(OPERATOR_NAMESPACE);
    let pods = system.objects("pods", "app.kubernetes.io/name=weirmq-operator")?;
    let pod = pods.iter().find(|pod| is_ready(pod)).context("no operator is ready")?;
    let pod = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    metric_of_pod(&system, pod, name, label)
}

/// The sum of a metric of one pod over all its labels that contain this.
pub(crate) fn metric_of_pod(
    namespace: &Namespace<'_>,
    pod: &str,
    name: &str,
    label: &str,
) -> anyhow::Result<f64> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:10908/proxy/metrics", namespace.name);
    let text = namespace.cluster.kubectl(&["get", "--raw", &path])?;
    let of_name =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values: Vec<f64> = text
        .lines()
        .filter(|line| of_name(line) && line.contains(label))
        .map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>())
        .collect::<Result<_, _>>()
        .with_context(|| format!("read {name}"))?;
    ensure!(!values.is_empty(), "{pod} has no metric {name}");
    Ok(values.iter().sum())
}
