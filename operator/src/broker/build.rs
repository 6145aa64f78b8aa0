//! The objects of one `Broker`. Pure: from the resource and what was looked up for it.

pub(in crate::broker) mod config;
pub(super) mod external;
mod rights;
mod services;
mod stateful_set;
pub(super) mod tls;

use std::collections::BTreeSet;

use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use weirmq_authority::kubernetes::{AckPolicy, Failover, ReplicationMode};

use crate::children::MANAGED_BY;
use crate::context::MANAGER;
use crate::kinds::{Broker, FailoverMode, WhenDeleted};
use crate::pods::{self, Role};

pub(super) use services::endpoint_slice;
pub(super) use stateful_set::hashed_whole;

/// For clients; two below it is open for old ones.
pub(super) const PORT: u16 = 10_911;
const VIP_PORT: u16 = 10_909;
pub(super) const REPLICATION_PORT: u16 = 10_912;

/// The label of the group, on its pods and objects.
pub(super) const GROUP: &str = "weirmq.io/broker-group";

pub(super) const ROLE: Role = Role::Broker;

/// What a `Broker` needs beside what it says.
pub(super) struct Plan<'a> {
    pub(super) resource: &'a Broker,
    /// The image of pods where the resource names none.
    pub(super) image: &'a str,
    /// The domain of the cluster's DNS.
    pub(super) domain: &'a str,
    /// What brokers are told, `host:port` each.
    pub(super) name_servers: Vec<String>,
    /// Addresses for clients outside of the cluster, as far as they are known.
    pub(super) external: external::Addresses,
    /// Groups that are there or are to be; the last ones may be leaving.
    pub(super) groups: Vec<Group>,
}

/// One broker group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    /// It is leaving, and takes no messages any more.
    pub(super) is_draining: bool,
    /// Replicas that the StatefulSet keeps, at least those that are wanted.
    pub(super) replicas: u32,
    /// Whether a drain may take one of them away.
    pub(super) may_lose_one: bool,
    /// Whether a drain may take those away at least that are not ready.
    pub(super) may_lose_unready: bool,
    /// What its brokers' file says now.
    pub(super) file: Option<String>,
    /// Images of pods that read their file at the start only.
    pub(super) not_rereading: BTreeSet<String>,
    /// The image for which the template has the hash of everything.
    pub(super) hashed_whole: Option<String>,
}

impl Plan<'_> {
    pub(super) fn name(&self) -> String {
        self.resource.name_any()
    }

    pub(super) fn namespace(&self) -> String {
        self.resource.namespace().unwrap_or_default()
    }

    /// The RocketMQ cluster.
    pub(super) fn cluster(&self) -> String {
        cluster(self.resource)
    }

    pub(super) fn is_elected(&self) -> bool {
        is_elected(self.resource)
    }

    /// The Service that gives each pod a name.
    fn pods_service(&self) -> String {
        format!("{}-brokers", self.name())
    }

    /// A pod's name for others in the cluster.
    fn host(&self, group: &str, replica: &str) -> String {
        let (namespace, domain) = (self.namespace(), self.domain);
        format!("{group}-{replica}.{}.{namespace}.svc.{domain}", self.pods_service())
    }

    pub(super) fn metadata(&self, name: &str) -> Value {
        let owner = self.resource.controller_owner_ref(&());
        pods::metadata(ROLE, &self.name(), &self.namespace(), name, &json!(owner))
    }

    fn group_metadata(&self, group: &str, name: &str) -> Value {
        let mut metadata = self.metadata(name);
        metadata["labels"][GROUP] = json!(group);
        metadata
    }

    /// Services whose addresses brokers have to be told, so that they are made before everything else.
    pub(super) fn external_services(&self) -> Vec<Value> {
        self.groups.iter().flat_map(|group| external::services(self, group)).collect()
    }

    /// Everything that is watched, in the order in which it is made.
    pub(super) fn objects(&self) -> Vec<Value> {
        let mut objects = vec![services::pods(self), services::network_policy(self)];
        if self.is_elected() {
            objects.push(rights::service_account(self));
            objects.push(rights::role(self));
            objects.push(rights::binding(self));
        }
        for group in &self.groups {
            objects.extend(external::services(self, group));
            objects.push(config::config_map(self, group));
            if self.is_elected() {
                objects.push(authority_record(self, &group.name));
                objects.push(services::master(self, &group.name));
            }
            if self.resource.spec.replicas_per_group > 1 {
                objects.push(services::disruption_budget(self, group));
            }
            objects.push(stateful_set::stateful_set(self, group));
        }
        objects
    }

    /// The secret by which replicas know each other; made once and never changed.
    pub(super) fn secret(&self, random: &[u8]) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": self.metadata(&secret_name(&self.name())),
            "stringData": { "secret": random.iter().map(|byte| format!("{byte:02x}")).collect::<String>() },
        })
    }

    /// The lease of a group; its replicas write it from then on.
    pub(super) fn lease(&self, group: &str) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": self.record_metadata(group), "spec": {},
        })
    }

    /// Of record and lease: they live as long as the disks, because replicas remember what they agreed on. Disks
    /// of a group that leaves stay in any case (`pods::claim_retention`).
    fn record_metadata(&self, group: &str) -> Value {
        let mut metadata = self.group_metadata(group, group);
        let leaves = self.groups.iter().any(|known| known.name == group && known.is_draining);
        if (leaves || self.resource.spec.storage.when_deleted == WhenDeleted::Retain)
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.remove("ownerReferences");
        }
        metadata
    }
}

fn authority_record(plan: &Plan<'_>, group: &str) -> Value {
    let spec = &plan.resource.spec;
    json!({
        "apiVersion": "weirmq.io/v1alpha1", "kind": "BrokerGroup",
        "metadata": plan.record_metadata(group),
        "spec": {
            "replicas": spec.replicas_per_group,
            "flush": spec.flush,
            "failover": if is_manual(plan.resource) { Failover::Manual } else { Failover::Automatic },
            "replication": {
                "mode": spec.replication.mode,
                "ackPolicy": spec.replication.ack_policy,
                "minInSync": min_in_sync(plan.resource),
            },
        },
    })
}

/// The name of a group: the broker's name for clients, and what its objects are called.
pub(super) fn group_name(broker: &str, index: u32) -> String {
    format!("{broker}-{index}")
}

pub(super) fn secret_name(broker: &str) -> String {
    format!("{broker}-replication")
}

/// The Service that leads to a group's master.
pub(super) fn master_service(group: &str) -> String {
    format!("{group}-master")
}

pub(crate) fn cluster(resource: &Broker) -> String {
    resource.spec.cluster_name.clone().unwrap_or_else(|| resource.name_any())
}

/// Whether replicas elect their master.
pub(super) fn is_elected(resource: &Broker) -> bool {
    let spec = &resource.spec;
    spec.replicas_per_group > 1 && spec.failover.mode != Some(FailoverMode::Disabled)
}

/// Whether a replica has to be told to take over.
pub(super) fn is_manual(resource: &Broker) -> bool {
    resource.spec.failover.mode == Some(FailoverMode::Manual)
}

/// With asynchronous replication it means nothing, and is 1.
pub(super) fn min_in_sync(resource: &Broker) -> u32 {
    let spec = &resource.spec;
    match spec.replication.mode {
        ReplicationMode::Async => 1,
        ReplicationMode::Sync => {
            let least = match spec.replication.ack_policy {
                AckPolicy::AllInSync => 2,
                AckPolicy::Quorum => spec.replicas_per_group / 2 + 1,
            };
            spec.replication.min_in_sync.unwrap_or(least).min(spec.replicas_per_group)
        }
    }
}

/// Labels of a group's pods.
fn pod_labels(broker: &str, group: &str) -> serde_json::Map<String, Value> {
    let mut labels = group_selector(broker, group);
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    labels
}

/// What selects a group's pods.
fn group_selector(broker: &str, group: &str) -> serde_json::Map<String, Value> {
    let mut labels = pods::selector(ROLE, broker);
    labels.insert(GROUP.to_owned(), json!(group));
    labels
}
