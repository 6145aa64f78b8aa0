//! What there is of a group: pods, their state, and the authority record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use weirmq_authority::kubernetes::{AckPolicy, Promote, ReplicationMode};
use weirmq_authority::{Phase, Record};
use weirmq_client::Admin;

use super::build::{self, GROUP, PORT, ROLE};
use crate::children::{Children, sha256};
use crate::context::Context;
use crate::kinds::{Broker, BrokerGroup};
use crate::pods::Marks;
use crate::restart::{self, Configuration};
use crate::trouble::{self, Trouble};

/// A broker that does not answer must not hold the others up.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Pods whose configuration is remembered.
const CONFIGURATIONS_MAX: usize = 10_000;

/// One group, as it was seen last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct GroupView {
    pub(super) name: String,
    pub(super) is_draining: bool,
    pub(super) is_elected: bool,
    /// Messages wait for slaves.
    pub(super) is_sync: bool,
    /// A member of the in-sync set may lack what was acknowledged.
    pub(super) is_by_quorum: bool,
    /// Replicas that the StatefulSet has or should have.
    pub(super) wanted: u32,
    /// Replicas that the resource asks for; those above leave.
    pub(super) declared: u32,
    /// Replicas that have to be in sync.
    pub(super) min_in_sync: u32,
    /// The StatefulSet controller has seen the newest template.
    pub(super) is_current: bool,
    /// Of replicas that elect their master.
    pub(super) record: Option<Record>,
    /// What somebody wrote into the `BrokerGroup`.
    pub(super) promote: Option<Promote>,
    /// The file that its brokers are to go by, once it is there.
    pub(super) file: Option<String>,
    /// The image for which its template has the hash of everything.
    pub(super) hashed_whole: Option<String>,
    /// With roles by configuration: the replicas that its master counts on, as it says itself.
    pub(super) counted: Option<BTreeSet<u32>>,
    /// By ordinal.
    pub(super) pods: Vec<PodView>,
}

/// One pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PodView {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) replica: u32,
    pub(super) node: Option<String>,
    pub(super) address: Option<String>,
    pub(super) is_ready: bool,
    pub(super) is_up_to_date: bool,
    /// What is another in the newest template, if something is: the reason of a restart.
    pub(super) changed: &'static str,
    pub(super) is_terminating: bool,
    /// What it does not have of its master's log, as the master says. While there is none: of the log that is
    /// best.
    pub(super) lag_bytes: Option<i64>,
    /// Whether it is connected and has what its master has, or nearly, as the master says.
    pub(super) keeps_up: Option<bool>,
    /// The last epoch of its log and where that ends, where it was asked.
    pub(super) position: Option<(u64, u64)>,
    /// Why it is not running, or another of its containers, where the kubelet or the scheduler says so.
    pub(super) trouble: Option<String>,
    /// Its broker does not run for a reason that waiting does not take away.
    pub(super) is_stuck: bool,
    /// Its broker is ready, and another container keeps the pod from being so.
    pub(super) is_held_up: bool,
    /// Why it runs and is not ready, as it says itself.
    pub(super) complaint: Option<String>,
    pub(super) image: Option<String>,
    /// By which file it goes, as it says itself.
    pub(super) configuration: Configuration,
}

impl PodView {
    pub(super) fn why_not_ready(&self) -> Option<&String> {
        self.trouble.as_ref().or(self.complaint.as_ref())
    }

    /// Whether its broker is ready, whatever else is in the pod.
    pub(super) fn has_broker(&self) -> bool {
        self.is_ready || self.is_held_up
    }
}

impl PodView {
    /// Where its broker takes requests.
    pub(super) fn broker_address(&self) -> Option<String> {
        let address = self.address.as_ref()?;
        Some(match address.contains(':') {
            true => format!("[{address}]:{PORT}"),
            false => format!("{address}:{PORT}"),
        })
    }
}

impl GroupView {
    /// Which replica is master and serves.
    pub(super) fn master(&self) -> Option<u32> {
        if !self.is_elected {
            return self.pods.iter().find(|pod| pod.replica == 0 && pod.has_broker()).map(|_| 0);
        }
        let record = self.record.as_ref().filter(|record| record.phase == Phase::Stable)?;
        record.master.map(|master| master.replica.0)
    }

    pub(super) fn pod(&self, replica: u32) -> Option<&PodView> {
        self.pods.iter().find(|pod| pod.replica == replica)
    }

    /// The master's pod, if its broker answers, whatever else is in it.
    pub(super) fn answering_master(&self) -> Option<&PodView> {
        self.pod(self.master()?).filter(|pod| pod.has_broker() && !pod.is_terminating)
    }

    /// The master's pod, if it is there and ready.
    pub(super) fn serving(&self) -> Option<&PodView> {
        self.pod(self.master()?).filter(|pod| pod.is_ready && !pod.is_terminating)
    }

    /// Where the master takes requests.
    pub(super) fn master_address(&self) -> Option<String> {
        self.serving()?.broker_address()
    }

    /// Where those replicas take requests that are not about to end.
    pub(super) fn broker_addresses(&self) -> impl Iterator<Item = String> {
        self.pods.iter().filter(|pod| !pod.is_terminating).filter_map(PodView::broker_address)
    }

    /// The record's; 0 where nobody was ever elected.
    pub(super) fn epoch(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.epoch)
    }

    /// Whether a replica has what was acknowledged, or nearly. Where a quorum acknowledges, members of the set
    /// do not leave it for being late, and what the master says counts as well, if that is known.
    pub(super) fn is_in_sync(&self, replica: u32) -> bool {
        let pod = self.pod(replica);
        match &self.record {
            Some(record) => {
                let is_late =
                    self.is_by_quorum && pod.is_some_and(|pod| pod.keeps_up == Some(false));
                !is_late && record.in_sync.iter().any(|member| member.replica.0 == replica)
            }
            None => !self.is_elected && pod.is_some_and(|pod| pod.is_ready),
        }
    }

    /// Whether it could take over now, as far as that is known.
    pub(super) fn can_take_over(&self, pod: &PodView) -> bool {
        pod.is_ready && self.is_in_sync(pod.replica)
    }

    /// Whether who could take over depends on what nobody said.
    pub(super) fn is_in_the_dark(&self) -> bool {
        self.is_by_quorum && self.pods.iter().any(|pod| pod.keeps_up.is_none())
    }

    /// What each lacks of the log that is best, where nobody serves: by the ends of the logs. One that knows
    /// nothing of the last epoch cannot be compared by them.
    pub(super) fn compare_logs(&mut self) {
        if self.serving().is_some() {
            return;
        }
        let Some(best) = self.pods.iter().filter_map(|pod| pod.position).max() else { return };
        for pod in &mut self.pods {
            let same_epoch = pod.position.filter(|(epoch, _)| *epoch == best.0);
            pod.lag_bytes = same_epoch.and_then(|(_, end)| i64::try_from(best.1 - end).ok());
        }
    }

    /// Whether somebody may write, so that what others lack changes all the time: a master that serves, or one
    /// that answers, though no NameServer knows it and so nobody calls it ready.
    pub(super) fn may_be_written(&self) -> bool {
        let master = self.master().and_then(|master| self.pod(master));
        self.serving().is_some() || master.is_some_and(|master| master.position.is_some())
    }

    /// Whether the group goes on to take messages when any one pod is taken away. True also where that is
    /// never so, or not known: then nothing is gained by keeping the pods.
    pub(super) fn may_lose_one(&self) -> bool {
        let is_never_safe = self.min_in_sync >= self.wanted || self.wanted < 2;
        let was_anybody_elected = self.is_elected && self.epoch() > 0;
        if !was_anybody_elected || is_never_safe {
            return true;
        }
        self.able() > self.min_in_sync as usize
    }

    /// Whether the group takes messages without those pods that are not ready.
    pub(super) fn may_lose_unready(&self) -> bool {
        self.serving().is_some() && self.able() >= self.min_in_sync as usize
    }

    /// How many could be master.
    fn able(&self) -> usize {
        self.pods.iter().filter(|pod| self.can_take_over(pod)).count()
    }

    /// Has pods count as outdated whose brokers have read the newest file and say that some of it counts at their
    /// next start: what the template has no hash of, as a port that Kubernetes gave. One that was started by this file
    /// says nothing of the kind.
    pub(super) fn note_restarts_needed(&mut self) {
        let Some(wanted) = self.file.as_deref().map(sha256) else { return };
        for pod in self.pods.iter_mut().filter(|pod| pod.is_up_to_date) {
            if let Configuration::File { sha256: Some(sha256), needs_restart: true, .. } =
                &pod.configuration
                && *sha256 == wanted
            {
                (pod.is_up_to_date, pod.changed) = (false, "ConfigurationChanged");
            }
        }
    }

    /// Which pod does not go by the newest file, though it can while it runs, and why.
    pub(super) fn not_configured(&self) -> Option<String> {
        let wanted = &sha256(self.file.as_ref()?);
        let ready = self.pods.iter().filter(|pod| pod.is_ready && !pod.is_terminating);
        let mut behind = ready.filter_map(|pod| match &pod.configuration {
            Configuration::File { sha256, .. }
                if sha256.as_ref().is_none_or(|sha| sha == wanted) =>
            {
                None
            }
            Configuration::AsStarted => None,
            Configuration::File { error: Some(error), .. } => {
                Some(format!("{} does not use the changed configuration: {error}", pod.name))
            }
            Configuration::File { error: None, .. } => {
                Some(format!("{} has not read the changed configuration yet", pod.name))
            }
            Configuration::Unknown => {
                Some(format!("{} does not say which configuration it goes by", pod.name))
            }
        });
        behind.next()
    }

    /// With roles by configuration and synchronous replication: how many replicas are there that messages wait for,
    /// and how many have to be. Who is counted on stays so while it is away; until the master says who that is,
    /// it is everybody.
    pub(super) fn acknowledging(&self) -> (usize, usize) {
        let counted = self.counted.clone().unwrap_or_else(|| (0..self.wanted).collect());
        let is_there = |pod: &PodView| pod.has_broker() && pod.keeps_up != Some(false);
        let there = counted.iter().filter(|replica| self.pod(**replica).is_some_and(is_there));
        let needed = match self.is_by_quorum {
            true => self.wanted as usize / 2 + 1,
            false => counted.len(),
        };
        (there.count(), needed.max(self.min_in_sync as usize))
    }

    pub(super) fn in_sync_count(&self) -> usize {
        self.pods.iter().filter(|pod| self.is_in_sync(pod.replica)).count()
    }
}

/// The groups that are there, by name: those that have a StatefulSet, also one that is being made anew around its
/// pods (see [`crate::storage`]), and those whose pods have none at the moment.
pub(super) fn groups_there(children: &Children, namespace: &str, broker: &str) -> BTreeSet<String> {
    let owner = (ROLE.label(), broker);
    let sets = children.objects_of("StatefulSet", namespace, owner);
    let pods = children.objects_of("Pod", namespace, owner);
    there(sets.iter().map(|set| &set.metadata), pods.iter().map(|pod| &pod.metadata))
}

fn there<'a>(
    sets: impl Iterator<Item = &'a ObjectMeta>,
    pods: impl Iterator<Item = &'a ObjectMeta>,
) -> BTreeSet<String> {
    // The garbage collector takes this finalizer off once the pods have no owner any more.
    let is_orphaning = |set: &ObjectMeta| set.finalizers.iter().flatten().any(|it| it == "orphan");
    let stays = |set: &&ObjectMeta| set.deletion_timestamp.is_none() || is_orphaning(set);
    let is_orphan = |pod: &&ObjectMeta| {
        pod.deletion_timestamp.is_none() && pod.owner_references.as_ref().is_none_or(Vec::is_empty)
    };
    let with_set = sets.filter(stays).filter_map(|set| set.name.clone());
    let without = pods.filter(is_orphan).filter_map(group_of).map(str::to_owned);
    with_set.chain(without).collect()
}

/// Which group a pod is of, by its label.
fn group_of(pod: &ObjectMeta) -> Option<&str> {
    pod.labels.as_ref()?.get(GROUP).map(String::as_str)
}

/// How many replicas the StatefulSet keeps: what is wanted, and meanwhile those that the authority
/// record still counts on.
pub(super) fn replicas_to_keep(
    children: &Children,
    (namespace, broker): (&str, &str),
    group: &str,
    is_elected: bool,
    wanted: u32,
) -> u32 {
    let set: Option<Arc<StatefulSet>> = children.get("StatefulSet", namespace, group);
    let replicas = set.and_then(|set| set.spec.as_ref()?.replicas);
    let there = match replicas.and_then(|replicas| u32::try_from(replicas).ok()) {
        Some(replicas) => replicas,
        // One that is being made anew: its pods go on.
        None => {
            let pods = children.objects_of("Pod", namespace, (ROLE.label(), broker));
            replicas_of(pods.iter().filter_map(|pod| pod.metadata.name.as_deref()), group)
        }
    };
    if there <= wanted {
        return wanted;
    }
    let record: Option<Arc<BrokerGroup>> = children.get("BrokerGroup", namespace, group);
    let record = record.as_ref().and_then(|group| group.status.as_ref());
    let Some(record) = record.map(|status| &status.record) else {
        // Who is counted on is not known.
        return if is_elected { there } else { wanted };
    };
    let members =
        record.in_sync.iter().chain(record.eligible.iter()).map(|member| member.replica.0);
    let master = record.master.map(|master| master.replica.0);
    let needed = members.chain(master).map(|replica| replica + 1).max().unwrap_or_default();
    needed.clamp(wanted, there)
}

/// How many replicas a group has by the names of its pods.
fn replicas_of<'a>(pods: impl Iterator<Item = &'a str>, group: &str) -> u32 {
    let replicas = pods.filter_map(|pod| replica_of(pod, group));
    replicas.map(|replica| replica.saturating_add(1)).max().unwrap_or_default()
}

/// The number of a pod in its group.
fn replica_of(pod: &str, group: &str) -> Option<u32> {
    pod.strip_prefix(group)?.strip_prefix('-')?.parse().ok()
}

/// What the watches know of a group.
pub(super) fn group(
    children: &Children,
    resource: &Broker,
    name: &str,
    is_draining: bool,
) -> GroupView {
    let namespace = &*resource.namespace().unwrap_or_default();
    let is_elected = build::is_elected(resource);
    let set: Option<Arc<StatefulSet>> = children.get("StatefulSet", namespace, name);
    let set = set.as_deref();
    let generation = set.and_then(|set| set.metadata.generation);
    let replicas = set.and_then(|set| set.spec.as_ref()?.replicas);
    let hashed_whole = set.and_then(build::hashed_whole);
    let newest = set.map(|set| Marks::of_template(ROLE, set)).unwrap_or_default();
    let file: Option<Arc<ConfigMap>> =
        children.get("ConfigMap", namespace, &build::config::name(name));
    let file = file.and_then(|file| file.data.as_ref()?.get(build::config::FILE).cloned());
    let status = set.and_then(|set| set.status.as_ref());
    let revision = status.and_then(|status| status.update_revision.as_deref());
    let observed = status.and_then(|status| status.observed_generation);
    let owner = (ROLE.label(), &*resource.name_any());
    let pods: Vec<Arc<Pod>> = children
        .of("Pod", namespace, owner, |pod| group_of(pod).is_some_and(|group| group == name));
    // While the set is made anew its pods go on.
    let wanted = replicas.and_then(|replicas| u32::try_from(replicas).ok());
    let wanted = wanted.unwrap_or_else(|| {
        replicas_of(pods.iter().filter_map(|pod| pod.metadata.name.as_deref()), name)
    });
    let mut pods: Vec<PodView> =
        pods.iter().filter_map(|pod| pod_view(pod, name, revision, &newest)).collect();
    pods.sort_by_key(|pod| pod.replica);
    let authority: Option<Arc<BrokerGroup>> =
        is_elected.then(|| children.get("BrokerGroup", namespace, name)).flatten();
    let promote = authority.as_ref().and_then(|group| group.spec.promote.clone());
    GroupView {
        name: name.to_owned(),
        is_draining,
        is_elected,
        is_sync: resource.spec.replication.mode == ReplicationMode::Sync,
        is_by_quorum: resource.spec.replication.ack_policy == AckPolicy::Quorum,
        wanted,
        declared: resource.spec.replicas_per_group,
        min_in_sync: build::min_in_sync(resource),
        is_current: generation.is_some()
            && generation == observed
            && generation >= children.applied_generation("StatefulSet", namespace, name),
        record: authority.and_then(|group| Some(group.status.as_ref()?.record.clone())),
        promote,
        file,
        hashed_whole,
        counted: None,
        pods,
    }
}

fn pod_view(pod: &Pod, group: &str, revision: Option<&str>, newest: &Marks) -> Option<PodView> {
    let name = pod.name_any();
    let replica = replica_of(&name, group)?;
    let status = pod.status.as_ref();
    let is_ready = trouble::is_ready(pod);
    let Trouble { why, is_stuck } = Trouble::of(ROLE, pod);
    let own = trouble::container(ROLE, pod);
    // Of a node that is gone it is said that its pods are not ready, and nothing new of their containers.
    let are_ready = trouble::condition(pod, "ContainersReady");
    let are_ready = are_ready.is_none_or(|ready| ready.status == "True");
    let is_held_up = !is_ready && !are_ready && own.is_some_and(|own| own.ready);
    Some(PodView {
        uid: pod.uid(),
        replica,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        image: pod.spec.as_ref().and_then(|spec| ROLE.image(spec)),
        address: status.and_then(|status| status.pod_ip.clone()),
        is_ready,
        is_up_to_date: revision.is_none_or(|revision| {
            pod.labels().get("controller-revision-hash").is_some_and(|hash| hash == revision)
        }),
        changed: Marks::of(ROLE, &pod.metadata, pod.spec.as_ref()).change_to(newest),
        is_terminating: pod.metadata.deletion_timestamp.is_some(),
        lag_bytes: None,
        keeps_up: None,
        position: None,
        trouble: why,
        is_stuck,
        is_held_up,
        complaint: None,
        configuration: Configuration::Unknown,
        name,
    })
}

/// Asks pods that run and are not ready what they wait for: Kubernetes does not know.
pub(super) async fn ask_for_complaints(view: &mut GroupView) {
    let asked = view.pods.iter_mut().map(async |pod| {
        if pod.is_ready || pod.is_terminating || pod.trouble.is_some() {
            return;
        }
        if let Some(address) = &pod.address {
            pod.complaint = restart::why_not_ready(address).await;
        }
    });
    join_all(asked).await;
}

/// Takes in what pods said of their configuration, and asks those anew that did not go by the newest
/// file.
pub(super) async fn ask_for_configurations(view: &mut GroupView, context: &Context) {
    let wanted = view.file.as_deref().map(sha256);
    let asked = view.pods.iter_mut().map(async |pod| {
        recall_configuration(pod, context);
        let is_known = match &pod.configuration {
            // Its container may have been started anew since.
            Configuration::File { needs_restart: true, .. } => false,
            Configuration::File { sha256, .. } => *sha256 == wanted,
            Configuration::AsStarted => true,
            Configuration::Unknown => false,
        };
        let (Some(address), Some(uid)) = (&pod.address, &pod.uid) else { return };
        if is_known || !pod.is_ready || pod.is_terminating {
            return;
        }
        pod.configuration = restart::configuration(address).await;
        let mut known = context.configurations.lock();
        if known.len() >= CONFIGURATIONS_MAX {
            known.clear();
        }
        known.insert(uid.clone(), pod.configuration.clone());
    });
    join_all(asked).await;
}

/// Takes in what a pod said of its configuration when it was asked last.
pub(super) fn recall_configuration(pod: &mut PodView, context: &Context) {
    let known = context.configurations.lock();
    let said = pod.uid.as_ref().and_then(|uid| known.get(uid));
    pod.configuration = said.cloned().unwrap_or_default();
}

/// Asks replicas where their logs end. Of one that does not answer that stays unknown.
pub(super) async fn ask_for_positions(view: &mut GroupView, admin: &Admin) {
    let asked = view.pods.iter_mut().filter(|pod| !pod.is_terminating).map(async |pod| {
        if let Some(address) = pod.broker_address() {
            pod.position = position(admin, &address).await;
        }
    });
    join_all(asked).await;
}

async fn position(admin: &Admin, address: &str) -> Option<(u64, u64)> {
    let asked = tokio::time::timeout(ASK_TIMEOUT, admin.epochs(address)).await;
    let log = asked.ok()?.ok()?;
    let epochs = log.epoch_list.iter().filter_map(|entry| u64::try_from(entry.epoch).ok());
    Some((epochs.max()?, u64::try_from(log.max_offset).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(metadata: &str) -> ObjectMeta {
        serde_yaml::from_str(&format!("{{{metadata}}}")).unwrap()
    }

    fn pod(name: &str, group: &str, more: &str) -> ObjectMeta {
        set(&format!("name: {name}, labels: {{{GROUP}: {group}}}{more}"))
    }

    #[test]
    fn a_group_whose_set_is_made_anew_is_there() {
        let deleted = ", deletionTimestamp: '2026-11-28T09:00:00Z'";
        let owned =
            ", ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: x, uid: x}]";
        let names = |sets: Vec<ObjectMeta>, pods: Vec<ObjectMeta>| -> Vec<String> {
            there(sets.iter(), pods.iter()).into_iter().collect()
        };
        assert_eq!(names(vec![set("name: mq-0")], vec![]), ["mq-0"]);
        let orphaning = set(&format!("name: mq-1, finalizers: [orphan]{deleted}"));
        assert_eq!(names(vec![orphaning], vec![pod("mq-1-0", "mq-1", owned)]), ["mq-1"]);
        assert_eq!(names(vec![], vec![pod("mq-1-0", "mq-1", "")]), ["mq-1"]);
        // One that is taken away with its pods is not made again.
        let gone = set(&format!("name: mq-1{deleted}"));
        assert!(names(vec![gone], vec![pod("mq-1-0", "mq-1", owned)]).is_empty());
        assert!(names(vec![], vec![pod("mq-1-0", "mq-1", deleted)]).is_empty());
    }

    #[test]
    fn a_pod_is_stuck_by_its_broker_and_not_by_what_runs_beside_it() {
        let look = |containers: &str, before: &str| {
            let condition = |type_: &str| format!("{{type: {type_}, status: 'False'}}");
            let conditions = [condition("Ready"), condition("ContainersReady")].join(", ");
            let status = format!(
                "status: {{conditions: [{conditions}], containerStatuses: [{containers}], \
                 initContainerStatuses: [{before}]}}"
            );
            let pod = format!("{{metadata: {{name: mq-0-1}}, {status}}}");
            let pod =
                pod_view(&serde_yaml::from_str(&pod).unwrap(), "mq-0", None, &Marks::default());
            let pod = pod.unwrap();
            (pod.is_stuck, pod.is_held_up, pod.trouble)
        };
        let one = |name: &str, ready: bool, state: &str| {
            let image = "image: x, imageID: x, restartCount: 0";
            format!("{{name: {name}, ready: {ready}, {image}, state: {{{state}}}}}")
        };
        let waits = |reason: &str| format!("waiting: {{reason: {reason}}}");
        let [broken, initializing] = [waits("CrashLoopBackOff"), waits("PodInitializing")];
        let told = |text: &str| Some(text.to_owned());
        let sidecar = one("a", false, &broken);
        let with_sidecar = |broker: String| look(&format!("{sidecar}, {broker}"), "");
        let running = "running: {}";
        let beside = (false, true, told("CrashLoopBackOff"));
        assert_eq!(with_sidecar(one("broker", true, running)), beside);
        // It may be reading its store.
        let reads = (false, false, told("CrashLoopBackOff"));
        assert_eq!(with_sidecar(one("broker", false, running)), reads);
        let pull = one("broker", false, &waits("ImagePullBackOff"));
        assert_eq!(with_sidecar(pull), (true, false, told("ImagePullBackOff")));
        let starts = one("broker", false, &initializing);
        assert_eq!(look(&starts, &one("before", false, running)), (false, false, None));
        let before = one("before", false, &broken);
        assert_eq!(look(&starts, &before), (true, false, told("CrashLoopBackOff")));
        assert_eq!(look(&one("broker", true, running), &before), beside);
    }

    #[test]
    fn without_a_set_the_pods_say_how_many_replicas_there_are() {
        let pods = ["mq-1-0", "mq-1-4", "mq-10-6"];
        assert_eq!(replicas_of(pods.into_iter(), "mq-1"), 5);
        assert_eq!(replicas_of(pods.into_iter(), "mq-2"), 0);
    }
}
