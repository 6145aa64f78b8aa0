//! What the brokers themselves may ask the API server: their own records, and nothing else.

use serde_json::{Value, json};

use super::{Plan, master_service};

fn name(plan: &Plan<'_>) -> String {
    format!("{}-broker", plan.name())
}

pub(super) fn service_account(plan: &Plan<'_>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": plan.metadata(&name(plan)),
        // The pods that need its token say so.
        "automountServiceAccountToken": false,
    })
}

pub(super) fn role(plan: &Plan<'_>) -> Value {
    let groups: Vec<&str> = plan.groups.iter().map(|group| group.name.as_str()).collect();
    let slices: Vec<String> = groups
        .iter()
        .flat_map(|group| {
            ["ipv4", "ipv6"].map(|family| format!("{}-{family}", master_service(group)))
        })
        .collect();
    let rule = |api: &str, resource: &str, names: Value, verbs: &[&str]| json!({ "apiGroups": [api], "resources": [resource], "resourceNames": names, "verbs": verbs });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": plan.metadata(&name(plan)),
        "rules": [
            rule("weirmq.io", "brokergroups", json!(groups), &["get", "watch"]),
            rule("weirmq.io", "brokergroups/status", json!(groups), &["update"]),
            rule("coordination.k8s.io", "leases", json!(groups), &["get", "patch"]),
            rule("discovery.k8s.io", "endpointslices", json!(slices), &["get", "patch"]),
        ],
    })
}

pub(super) fn binding(plan: &Plan<'_>) -> Value {
    let name = name(plan);
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": plan.metadata(&name),
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": plan.namespace() }],
    })
}
