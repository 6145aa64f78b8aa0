//! The operator from its chart, and clusters of one Broker that it runs.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::OPERATOR_NAMESPACE;
use crate::client;
use crate::cluster::{Cluster, Namespace, is_ready, wait};
use crate::group::Group;
use crate::images::WEIR;

const CHART: &str = "charts/weirmq-operator";
pub(super) const RELEASE: &str = "weirmq-operator";
/// The Deployment that the chart makes.
pub(crate) const DEPLOYMENT: &str = "deployment/weirmq-operator";

/// Installs the chart, if it is not there yet, and waits until the operator is ready.
pub(crate) fn install(cluster: &Cluster) -> anyhow::Result<()> {
    install_with(cluster, &[])
}

/// The same with these values, `path=value` each; another installation takes them back.
pub(crate) fn install_with(cluster: &Cluster, values: &[&str]) -> anyhow::Result<()> {
    install_chart(cluster, CHART, WEIR, values)
}

/// The same with a chart in another folder and another image.
pub(crate) fn install_chart(
    cluster: &Cluster,
    chart: &str,
    image: &'static str,
    values: &[&str],
) -> anyhow::Result<()> {
    cluster.provide(image)?;
    let (repository, tag) = image.rsplit_once(':').context("the image has no tag")?;
    let system = cluster.namespace(OPERATOR_NAMESPACE)?;
    let image = [format!("image.repository={repository}"), format!("image.tag={tag}")];
    let mut words = vec!["upgrade", "--install", RELEASE, chart, "--namespace", &system.name];
    // Tests without the operator put the kinds there with kubectl, and those stay.
    words.push("--take-ownership");
    words.extend(["--wait", "--timeout", "120s", "--set", "image.pullPolicy=Never"]);
    let own = image.iter().map(String::as_str).chain(values.iter().copied());
    words.extend(own.flat_map(|value| ["--set-string", value]));
    cluster.helm(&words).map(drop)
}

/// Takes the release away, if there is one. Kinds and resources stay.
pub(crate) fn uninstall(cluster: &Cluster) -> anyhow::Result<()> {
    let words = ["uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE];
    cluster.helm(&[&words[..], &["--ignore-not-found", "--wait"]].concat()).map(drop)
}

/// Stops the operator, or starts it again.
pub(crate) fn scale_operator(cluster: &Cluster, replicas: u32) -> anyhow::Result<()> {
    let system = cluster.existing(OPERATOR_NAMESPACE);
    system.kubectl(&["scale", DEPLOYMENT, &format!("--replicas={replicas}")])?;
    wait(&format!("the operator has {replicas} pods"), 60, || {
        let pods = system.objects("pods", "app.kubernetes.io/name=weirmq-operator")?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        Ok((pods.len() == replicas as usize && ready == pods.len()).then_some(()))
    })
}

/// One Broker, its NameServers and a topic.
pub(crate) struct Deployed<'a> {
    pub(crate) namespace: &'a Namespace<'a>,
    /// Where clients ask, in the cluster.
    pub(crate) namesrv: String,
}

/// The Broker of the tests.
pub(crate) const BROKER: &str = "mq";
pub(crate) const TOPIC: &str = "load";

const NAME_SERVER: &str =
    "{apiVersion: weirmq.io/v1alpha1, kind: NameServer, metadata: {name: ns}, spec: {replicas: 2}}";

/// Applies a Broker with these fields beside its NameServer and storage, and waits until it is ready.
pub(crate) fn deploy<'a>(
    namespace: &'a Namespace<'a>,
    fields: &str,
) -> anyhow::Result<Deployed<'a>> {
    install(namespace.cluster)?;
    deploy_only(namespace, fields)
}

/// The same where an operator is already.
pub(crate) fn deploy_only<'a>(
    namespace: &'a Namespace<'a>,
    fields: &str,
) -> anyhow::Result<Deployed<'a>> {
    namespace.apply(&manifests(fields))?;
    let namesrv = wait("the NameServers have an address", 60, || {
        let object = namespace.object("nameserver", "ns")?;
        Ok(object.and_then(|object| object["status"]["address"].as_str().map(str::to_owned)))
    })?;
    let deployed = Deployed { namespace, namesrv };
    deployed.ready("broker", BROKER, 120)?;
    deployed.ready("topic", TOPIC, 60)?;
    Ok(deployed)
}

/// NameServer, Broker and Topic.
pub(crate) fn manifests(fields: &str) -> String {
    let fields = if fields.is_empty() { String::new() } else { format!(", {fields}") };
    format!("{NAME_SERVER}\n---\n{}\n---\n{}\n", broker(&fields), topic(TOPIC))
}

fn broker(fields: &str) -> String {
    let storage = if fields.contains("storage:") { "" } else { ", storage: {size: 1Gi}" };
    format!(
        "{{apiVersion: weirmq.io/v1alpha1, kind: Broker, metadata: {{name: {BROKER}}}, spec: {{\
         nameServerRef: {{name: ns}}, config: {{segmentSize: 64Mi}}{storage}{fields}}}}}"
    )
}

pub(crate) fn topic(name: &str) -> String {
    format!(
        "{{apiVersion: weirmq.io/v1alpha1, kind: Topic, metadata: {{name: {name}}}, \
         spec: {{brokerRef: {{name: {BROKER}}}, queues: 4}}}}"
    )
}

impl<'a> Deployed<'a> {
    /// Waits until the object says of its newest generation that it is ready.
    pub(crate) fn ready(&self, kind: &str, name: &str, seconds: u64) -> anyhow::Result<Value> {
        wait(&format!("{kind} {name} is ready"), seconds, || {
            let object = self.namespace.object(kind, name)?;
            Ok(object.filter(|object| {
                is_ready(object)
                    && object["status"]["observedGeneration"] == object["metadata"]["generation"]
            }))
        })
    }

    /// The broker groups, as the Broker's status names them.
    pub(crate) fn groups(&self) -> anyhow::Result<Vec<Group<'a>>> {
        let broker = self.namespace.object("broker", BROKER)?.context("the Broker is gone")?;
        let groups = broker["status"]["groups"].as_array().cloned().unwrap_or_default();
        let named = groups.iter().map(|group| {
            let pods = group["replicas"].as_array().cloned().unwrap_or_default();
            let pods = pods.iter().filter_map(|replica| replica["pod"].as_str().map(str::to_owned));
            let name = group["name"].as_str().unwrap_or_default().to_owned();
            Group { namespace: self.namespace, name, pods: pods.collect() }
        });
        Ok(named.collect())
    }

    /// The only group.
    pub(crate) fn group(&self) -> anyhow::Result<Group<'a>> {
        let mut groups = self.groups()?;
        ensure!(groups.len() == 1, "{} groups where there should be one", groups.len());
        groups.pop().context("no group")
    }

    /// Changes fields of the Broker's spec (a merge patch).
    pub(crate) fn patch(&self, spec: &str) -> anyhow::Result<()> {
        let patch = format!("{{\"spec\":{spec}}}");
        let words = ["patch", "broker", BROKER, "--type=merge", "-p", &patch];
        self.namespace.kubectl(&words).map(drop)
    }
}

pub(crate) fn install_from_chart(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let cluster = namespace.cluster;
    let begun = std::time::Instant::now();
    install(cluster)?;
    let took = begun.elapsed().as_secs_f64();
    let system = cluster.existing(OPERATOR_NAMESPACE);
    system.kubectl(&["rollout", "status", DEPLOYMENT, "--timeout=60s"])?;
    let kinds = cluster.kubectl(&["get", "crds", "-o", "name"])?;
    for kind in ["nameservers", "brokers", "brokergroups", "topics", "consumergroups"] {
        let name = format!("{kind}.weirmq.io");
        ensure!(kinds.contains(&name), "the chart did not install {name}");
    }
    install(cluster).context("a second time")?;
    let bad = "{apiVersion: weirmq.io/v1alpha1, kind: Broker, metadata: {name: bad}, \
               spec: {storage: {size: 1Gi}, nameServerRef: {name: ns}, replicasPerGroup: 2}}";
    let answer = namespace.apply(bad);
    let error = answer.err().context("a Broker that has to say what it loses was accepted")?;
    ensure!(
        error.to_string().contains("choose replication.minInSync"),
        "it is refused with {error}"
    );
    Ok(format!("installed and ready in {took:.1} s"))
}

/// What each file of examples/ declares becomes ready, and passes messages to a client in the cluster.
pub(crate) fn modes(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    // One of them has certificates.
    install_with(namespace.cluster, &["rbac.certificates={*}"])?;
    let mut files: Vec<_> = std::fs::read_dir("examples")
        .context("read examples/")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    ensure!(files.len() >= 4, "examples/ has {} files, and there are four modes", files.len());
    let mut times = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let own = namespace.cluster.namespace(&format!("{}-{name}", namespace.name))?;
        let took = mode(&own, &file).with_context(|| format!("examples/{name}.yaml"))?;
        times.push(format!("{name} {took:.1} s"));
        own.kubectl(&["delete", "namespace", &own.name, "--timeout=120s"])?;
    }
    Ok(format!("from apply to Ready: {}", times.join(", ")))
}

fn mode(namespace: &Namespace<'_>, file: &std::path::Path) -> anyhow::Result<f64> {
    let manifests = std::fs::read_to_string(file)?;
    let begun = std::time::Instant::now();
    namespace.apply(&manifests)?;
    let all_ready = |kind: &str, seconds| {
        wait(&format!("every {kind} is ready"), seconds, || {
            let objects = namespace.objects(kind, "")?;
            Ok((!objects.is_empty() && objects.iter().all(is_ready)).then_some(objects))
        })
    };
    let brokers = all_ready("broker", 120)?;
    let took = begun.elapsed().as_secs_f64();
    let name_servers = all_ready("nameserver", 60)?;
    let namesrv = name_servers[0]["status"]["address"].as_str().context("no address")?.to_owned();
    client::start(namespace, "client", &["idle"])?;
    for broker in brokers {
        for group in broker["status"]["groups"].as_array().context("no groups")? {
            let name = group["name"].as_str().context("a group without a name")?;
            ensure!(group["master"].is_string(), "group {name} has no master");
        }
    }
    let weir = |words: &[&str]| {
        let mut all = vec!["/weir"];
        all.extend(words);
        all.extend(["--namesrv", &namesrv]);
        namespace.exec("client", &all)
    };
    weir(&["topic", "create", "tried", "--queues", "2"])?;
    weir(&["produce", "tried", "-m", "one", "-m", "two", "-m", "three", "-m", "four"])?;
    let read = weir(&["consume", "tried", "--from", "earliest", "-n", "4"])?;
    let mut read: Vec<_> = read.lines().collect();
    read.sort_unstable();
    ensure!(read == ["four", "one", "three", "two"], "consumed {read:?}");
    Ok(took)
}
