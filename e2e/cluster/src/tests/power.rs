//! Power cuts: a node dies, and its disks have no more than what had reached them.
//!
//! Brokers get disks of their own for that, an ext4 in a file on each node, whose power can be cut.

use anyhow::{Context as _, bail, ensure};

use super::faults::{Fault, others, strike};
use super::operator::{BROKER, Deployed, TOPIC, deploy};
use crate::client::{Load, moment, outcome};
use crate::cluster::Namespace;
use crate::load::Account;
use crate::run::Skipped;

/// Sparse, so it costs what is written to it.
const DISK_MIB: &str = "1024";
/// How often the control is tried: a cut may come right after a flush.
const CONTROL_TRIES: u32 = 5;

/// The class of the disks, a disk on each node, and how a Broker asks for them.
pub(super) struct Disks<'a> {
    namespace: &'a Namespace<'a>,
}

impl<'a> Disks<'a> {
    pub(super) fn make(namespace: &'a Namespace<'a>) -> anyhow::Result<Self> {
        let removed = remove(namespace);
        if removed.is_err_and(|error| format!("{error:#}").contains("has no fault undisk")) {
            return Err(Skipped("there are no disks whose power can be cut".to_owned()).into());
        }
        let disks = Self { namespace };
        let class = &namespace.name;
        let mut manifests = format!(
            "{{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {{name: {class}}}, \
             provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer}}\n"
        );
        for node in &namespace.cluster.nodes {
            let name = format!("{class}-{node}");
            namespace.cluster.fault(&[node, "disk", &name, DISK_MIB])?;
            manifests.push_str(&format!(
                "---\n{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{\
                 capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], storageClassName: {class}, \
                 persistentVolumeReclaimPolicy: Retain, local: {{path: /tmp/hostpath_pv/{name}}}, \
                 nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [\
                 {{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}}}}}\n"
            ));
        }
        namespace.cluster.kubectl_with(&["apply", "-f", "-"], &manifests)?;
        Ok(disks)
    }

    /// Fields of a Broker on these disks; `fields` has no storage.
    pub(super) fn broker(&self, fields: &str) -> String {
        format!("storage: {{size: 1Gi, storageClassName: {}}}, {fields}", self.namespace.name)
    }
}

impl Drop for Disks<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(self.namespace) {
            eprintln!("volumes of {} were not removed: {error:#}", self.namespace.name);
        }
    }
}

/// Volumes and their class are of no namespace, so they would stay.
fn remove(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let (cluster, class) = (namespace.cluster, namespace.name.as_str());
    let delete = ["delete", "--ignore-not-found", "--wait=false"];
    cluster.kubectl(&[&delete[..], &["storageclass", class]].concat())?;
    for node in &cluster.nodes {
        let volume = format!("{class}-{node}");
        cluster.kubectl(&[&delete[..], &["persistentvolume", &volume]].concat())?;
        cluster.fault(&[node, "undisk", &volume])?;
    }
    Ok(())
}

/// The master's node of a group of three loses power under load.
pub(crate) fn of_a_master(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let disks = Disks::make(namespace)?;
    let deployed = deploy(namespace, &disks.broker("replicasPerGroup: 3"))?;
    let outcome = strike(&deployed.group()?, &deployed.namesrv, TOPIC, Fault::PowerLoss)?;
    deployed.ready("broker", BROKER, 60).context("after the power cut")?;
    Ok(outcome)
}

/// A broker without slaves, which flushes before it answers.
pub(crate) fn of_a_single_broker(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let disks = Disks::make(namespace)?;
    let deployed = deploy(namespace, &disks.broker("replicasPerGroup: 1, flush: Sync"))?;
    let (account, cut) = cut_single(&deployed)?;
    ensure!(account.problems.is_empty(), "{}", account.problems.join("; "));
    Ok(outcome(namespace, &account, cut))
}

/// The same without waiting for flushes has to lose something, or the cuts cut nothing.
pub(crate) fn control(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let disks = Disks::make(namespace)?;
    let deployed = deploy(namespace, &disks.broker("replicasPerGroup: 1, flush: Async"))?;
    for cuts in 1..=CONTROL_TRIES {
        let (account, _) = cut_single(&deployed)?;
        // What was lost is missing, or its place was given to another message.
        let lost = account.problems.iter().find(|problem| {
            problem.contains("was acknowledged") || problem.contains("was given to")
        });
        if let Some(lost) = lost {
            namespace.measured("cuts", f64::from(cuts));
            return Ok(format!("lost at cut {cuts}, as it should: {lost}"));
        }
    }
    bail!("nothing acknowledged was lost in {CONTROL_TRIES} cuts with asynchronous flush")
}

/// Cuts the power of the only broker's node under load, and boots it again.
fn cut_single(deployed: &Deployed<'_>) -> anyhow::Result<(Account, u64)> {
    let namespace = deployed.namespace;
    let pod = deployed.group()?.pods.first().context("no pod")?.clone();
    let node = namespace.node_of(&pod)?;
    let other = others(namespace, &node).next().context("there is one node only")?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, Some(other))?;
    load.until_more(200, 60)?;
    let cut = moment();
    let done = namespace.cluster.fault(&[&node, "power"]);
    namespace.cluster.fault(&[&node, "boot"])?;
    done?;
    load.until_more(200, 120).context("after the power cut")?;
    Ok((load.close()?, cut))
}
