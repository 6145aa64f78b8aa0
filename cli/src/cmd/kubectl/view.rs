//! What is known of a Broker: what the operator says in its status, and the authority records, which
//! the brokers write and which are newer, also while no operator runs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use serde::Serialize;
use weirmq_authority::{Phase, Record};
use weirmq_operator::annotations::is_paused;
use weirmq_operator::kinds::{Broker, BrokerGroup, GroupStatus, ReplicaStatus};

/// Conditions of which `False` is the good news; of the others it is `True` that is worth a line.
const GOOD: [&str; 3] = ["Ready", "ReplicationHealthy", "FailoverPossible"];
/// It is so until there are accounts, and `kubectl describe` says why.
const KNOWN: [&str; 1] = ["Insecure"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BrokerView {
    pub(super) namespace: String,
    pub(super) name: String,
    /// `null`: the operator has not said so.
    pub(super) ready: Option<bool>,
    pub(super) paused: bool,
    /// Groups with a master that serves, of all: `2/2`.
    pub(super) masters: String,
    /// Pods that are ready, of all: `6/6`.
    pub(super) pods: String,
    pub(super) groups: Vec<GroupView>,
    pub(super) conditions: Vec<Condition>,
    /// Whether the conditions speak of the resource as it is now.
    pub(super) observed: bool,
}

/// What is `null` is not known.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupView {
    pub(super) name: String,
    /// The pod of the master that serves.
    pub(super) master: Option<String>,
    pub(super) epoch: Option<u64>,
    /// What is left on a group that leaves.
    pub(super) draining: Option<String>,
    pub(super) replicas: Vec<ReplicaView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplicaView {
    pub(super) pod: String,
    /// Master, Slave, or Unknown.
    pub(super) role: String,
    pub(super) ready: bool,
    pub(super) in_sync: Option<bool>,
    /// What it does not have of its master's log, rounded up to a power of two.
    pub(super) lag_bytes: Option<i64>,
    pub(super) node: Option<String>,
    pub(super) up_to_date: bool,
}

impl BrokerView {
    /// `groups` are the records of the namespace, by name.
    pub(super) fn new(broker: &Broker, groups: &BTreeMap<String, BrokerGroup>) -> Self {
        let status = broker.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        let views = status.groups.iter().map(|group| {
            let record = groups.get(&group.name).and_then(|group| group.status.as_ref());
            GroupView::new(group, record.map(|status| &status.record))
        });
        Self {
            namespace: broker.namespace().unwrap_or_default(),
            name: broker.name_any(),
            ready: ready.map(|ready| ready.status == "True"),
            paused: is_paused(broker),
            groups: views.collect(),
            observed: Some(status.observed_generation) == broker.metadata.generation,
            masters: status.masters,
            pods: status.ready_pods,
            conditions: status.conditions,
        }
    }

    /// A line for each thing that is not as it should be.
    pub(super) fn complaints(&self) -> Vec<String> {
        let is_bad = |condition: &&Condition| {
            let wanted = if GOOD.contains(&&*condition.type_) { "True" } else { "False" };
            condition.status != wanted && !KNOWN.contains(&&*condition.type_)
        };
        let told = self.conditions.iter().filter(is_bad).map(|condition| {
            let is = if condition.status == "True" { "" } else { "not " };
            let (type_, reason) = (&condition.type_, &condition.reason);
            let message = Some(condition.message.as_str()).filter(|message| !message.is_empty());
            let message = message.map(|message| format!(": {message}")).unwrap_or_default();
            format!("{}: {is}{type_} ({reason}){message}", self.name)
        });
        let unseen = (!self.observed)
            .then(|| format!("{}: the operator has not looked at it as it is now", self.name));
        told.chain(unseen).collect()
    }
}

impl GroupView {
    fn new(status: &GroupStatus, record: Option<&Record>) -> Self {
        let Some(record) = record else {
            return Self {
                name: status.name.clone(),
                master: status.master.clone(),
                epoch: status.epoch.and_then(|epoch| u64::try_from(epoch).ok()),
                draining: status.draining.clone(),
                replicas: status.replicas.iter().map(|pod| ReplicaView::new(pod, None)).collect(),
            };
        };
        let serving = record.master.filter(|_| record.phase == Phase::Stable);
        let master = serving.map(|master| format!("{}-{}", status.name, master.replica.0));
        let replicas = status.replicas.iter().map(|pod| {
            let role = match &master {
                Some(master) if *master == pod.pod => "Master",
                Some(_) => "Slave",
                None => "Unknown",
            };
            let is_in_sync = record
                .in_sync
                .iter()
                .any(|member| pod.pod == format!("{}-{}", status.name, member.replica.0));
            ReplicaView::new(pod, Some((role, is_in_sync)))
        });
        Self {
            replicas: replicas.collect(),
            name: status.name.clone(),
            epoch: Some(record.epoch),
            draining: status.draining.clone(),
            master,
        }
    }

    /// How many are in sync, of all: `2/3`; `None` where nothing says so.
    pub(super) fn in_sync(&self) -> Option<String> {
        let known: Option<Vec<bool>> =
            self.replicas.iter().map(|replica| replica.in_sync).collect();
        let known = known.filter(|known| !known.is_empty())?;
        Some(format!("{}/{}", known.iter().filter(|is| **is).count(), known.len()))
    }
}

impl ReplicaView {
    /// `standing`: its role and whether it is in sync, by the record.
    fn new(status: &ReplicaStatus, standing: Option<(&str, bool)>) -> Self {
        Self {
            pod: status.pod.clone(),
            role: standing.map_or_else(|| status.role.clone(), |(role, _)| role.to_owned()),
            ready: status.ready,
            in_sync: standing.map(|(_, is)| is),
            lag_bytes: status.lag_bytes,
            node: status.node.clone(),
            up_to_date: status.up_to_date,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weirmq_authority::kubernetes::BrokerGroupStatus;
    use weirmq_authority::{Incarnation, Member, ReplicaId};

    use super::*;

    fn broker() -> Broker {
        let replica = |number: u32, role: &str| json!({ "pod": format!("mq-0-{number}"), "role": role, "ready": true, "upToDate": true });
        let condition = |type_: &str, status: &str| {
            json!({ "type": type_, "status": status, "reason": "Because", "message": "so it is",
                    "lastTransitionTime": "2026-11-27T21:00:00Z" })
        };
        serde_json::from_value(json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": "Broker",
            "metadata": { "name": "mq", "namespace": "shop", "generation": 2 },
            "spec": { "nameServerRef": { "name": "ns" }, "storage": { "size": "1Gi" } },
            "status": {
                "observedGeneration": 1, "groupCount": 1, "selector": "", "masters": "1/1", "readyPods": "2/2",
                "conditions": [condition("Ready", "True"), condition("FailoverPossible", "False"),
                               condition("Degraded", "False"), condition("Insecure", "True")],
                "groups": [{ "name": "mq-0", "master": "mq-0-0", "epoch": 1, "inSync": "0,1", "hasTopics": true,
                             "replicas": [replica(0, "Master"), replica(1, "Slave")] }],
            },
        }))
        .unwrap()
    }

    fn group(status: serde_json::Value) -> BrokerGroup {
        serde_json::from_value(json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": "BrokerGroup", "metadata": { "name": "mq-0" },
            "spec": { "replicas": 2, "flush": "Sync", "replication": { "mode": "Sync", "minInSync": 1 } },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_record_is_believed_before_the_operator() {
        let view = BrokerView::new(&broker(), &BTreeMap::new());
        assert_eq!(view.groups[0].master.as_deref(), Some("mq-0-0"));
        assert_eq!((view.groups[0].epoch, view.groups[0].in_sync()), (Some(1), None));

        let mut record = Record {
            epoch: 5,
            phase: Phase::Stable,
            master: Some(Member { replica: ReplicaId(1), incarnation: Incarnation(1) }),
            ..Record::default()
        };
        record.in_sync = record.master.into_iter().collect();
        let view = |record: &Record| {
            let mut group = group(json!(null));
            group.status = Some(BrokerGroupStatus { record: record.clone(), write: String::new() });
            BrokerView::new(&broker(), &BTreeMap::from([("mq-0".to_owned(), group)]))
        };
        let after = view(&record);
        let group = &after.groups[0];
        assert_eq!((group.master.as_deref(), group.epoch), (Some("mq-0-1"), Some(5)));
        assert_eq!(group.in_sync().as_deref(), Some("1/2"));
        let roles: Vec<&str> = group.replicas.iter().map(|replica| &*replica.role).collect();
        assert_eq!(roles, ["Slave", "Master"]);

        record.phase = Phase::Promoting;
        let group = &view(&record).groups[0];
        assert_eq!((group.master.as_deref(), &*group.replicas[1].role), (None, "Unknown"));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told() {
        let complaints = BrokerView::new(&broker(), &BTreeMap::new()).complaints();
        assert_eq!(
            complaints,
            [
                "mq: not FailoverPossible (Because): so it is",
                "mq: the operator has not looked at it as it is now",
            ]
        );
    }
}
