//! Services, and who may connect to what.

use serde_json::{Value, json};

use super::{Group, PORT, Plan, REPLICATION_PORT, ROLE, VIP_PORT, group_selector, master_service};
use crate::pods::{self, ADMIN_PORT};

/// Gives each pod a name of its own, also while it is not ready: replicas find each other by it.
pub(super) fn pods(plan: &Plan<'_>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": plan.metadata(&plan.pods_service()),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": pods::selector(ROLE, &plan.name()),
            "ports": [
                { "name": "broker", "port": PORT, "targetPort": "broker", "protocol": "TCP" },
                { "name": "replication", "port": REPLICATION_PORT, "targetPort": "replication", "protocol": "TCP" },
            ],
        },
    })
}

/// An address that stays while masters change. It has no selector: the master moves its endpoint.
pub(super) fn master(plan: &Plan<'_>, group: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": plan.group_metadata(group, &master_service(group)),
        "spec": {
            "ports": [{ "name": "broker", "port": PORT, "targetPort": PORT, "protocol": "TCP" }],
        },
    })
}

/// The endpoint of the master Service before there is a master. It is made here so that brokers need no
/// right to make others.
pub(in crate::broker) fn endpoint_slice(plan: &Plan<'_>, group: &str) -> Value {
    let service = master_service(group);
    let mut metadata = plan.group_metadata(group, &format!("{service}-ipv4"));
    metadata["labels"]["kubernetes.io/service-name"] = json!(service);
    metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("weirmq.io");
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata, "addressType": "IPv4", "endpoints": [],
        "ports": [{ "name": "broker", "port": PORT, "protocol": "TCP" }],
    })
}

/// Kubernetes counts pods that are ready; a replica that is and catches up can take nothing over. One that is not
/// ready and not needed may leave its node, also when none of the others can be spared.
pub(super) fn disruption_budget(plan: &Plan<'_>, group: &Group) -> Value {
    let name = &group.name;
    let mut spec = json!({
        "maxUnavailable": u32::from(group.may_lose_one),
        "selector": { "matchLabels": group_selector(&plan.name(), name) },
    });
    if !group.may_lose_one && group.may_lose_unready {
        spec["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
    }
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": plan.group_metadata(name, name),
        "spec": spec,
    })
}

/// Replicas are reached by replicas of the same resource only.
pub(super) fn network_policy(plan: &Plan<'_>) -> Value {
    let port = |port: u16| json!({ "port": port, "protocol": "TCP" });
    let brokers = pods::selector(ROLE, &plan.name());
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": plan.metadata(&format!("{}-brokers", plan.name())),
        "spec": {
            "podSelector": { "matchLabels": brokers },
            "policyTypes": ["Ingress"],
            "ingress": [
                { "ports": [port(PORT), port(VIP_PORT), port(ADMIN_PORT)] },
                {
                    "from": [{ "podSelector": { "matchLabels": brokers } }],
                    "ports": [port(REPLICATION_PORT)],
                },
            ],
        },
    })
}
