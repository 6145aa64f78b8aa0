//! The StatefulSet of one group. An ordinal is a replica, not a role.

use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};

use super::config::{self, FOLDER, SECRET_FOLDER, TLS_FOLDER};
use super::{
    Group, PORT, Plan, REPLICATION_PORT, ROLE, VIP_PORT, group_selector, pod_labels, secret_name,
    tls,
};
use crate::annotations::{self, CONFIG};
use crate::children::short_digest;
use crate::pods::{self, ADMIN_PORT, Container};

/// Before the hash of everything, for brokers that read their file at the start only.
const WHOLE: &str = "whole-";

pub(super) fn stateful_set(plan: &Plan<'_>, group: &Group) -> Value {
    let (name, spec) = (plan.name(), &plan.resource.spec);
    let labels = pod_labels(&name, &group.name);
    let annotations = annotations::of_pods(plan.resource);
    let account = plan.is_elected().then(|| format!("{name}-broker"));
    let mut template = pods::template(
        container(plan),
        labels.clone(),
        annotations,
        account.as_deref(),
        volumes(plan, &group.name),
        &spec.pod,
    );
    let file = config::text(plan, group);
    template["metadata"]["annotations"][CONFIG] =
        json!(match needs_whole(group, &template, &file) {
            true => format!("{WHOLE}{}", short_digest(&file)),
            false => short_digest(&config::needing_restart(plan, group)),
        });
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": plan.group_metadata(&group.name, &group.name),
        "spec": {
            "replicas": group.replicas,
            "serviceName": plan.pods_service(),
            // All at once: replicas wait for each other.
            "podManagementPolicy": "Parallel",
            // The operator restarts pods, one by one and only when the broker says that it is safe.
            "updateStrategy": { "type": "OnDelete" },
            "selector": { "matchLabels": group_selector(&name, &group.name) },
            "template": template,
            "volumeClaimTemplates": [pods::claim(&spec.storage, labels)],
            "persistentVolumeClaimRetentionPolicy": pods::claim_retention(&spec.storage, group.is_draining),
        },
    })
}

/// The image of a template's broker.
fn image(template: &Value) -> Option<&str> {
    let containers = template["spec"]["containers"].as_array()?;
    let broker = containers.iter().find(|container| container["name"] == ROLE.container())?;
    broker["image"].as_str()
}

/// Whether any change of the file has to start pods anew, because they do not read it again. That begins
/// with a change: a template must not change before anything else does.
fn needs_whole(group: &Group, template: &Value, file: &str) -> bool {
    let Some(image) = image(template) else { return false };
    let is_changed = group.file.as_ref().is_some_and(|known| known != file);
    group.hashed_whole.as_deref() == Some(image)
        || is_changed && group.not_rereading.contains(image)
}

/// The image for which a StatefulSet has the hash of everything.
pub(in crate::broker) fn hashed_whole(set: &StatefulSet) -> Option<String> {
    let template = &set.spec.as_ref()?.template;
    let hash = template.metadata.as_ref()?.annotations.as_ref()?.get(CONFIG)?;
    ROLE.image(template.spec.as_ref()?).filter(|_| hash.starts_with(WHOLE))
}

fn container(plan: &Plan<'_>) -> Container {
    let spec = &plan.resource.spec;
    let (namespace, domain) = (plan.namespace(), plan.domain);
    let field = |path: &str| json!({ "fieldRef": { "apiVersion": "v1", "fieldPath": path } });
    let from = |name: &str, path: &str| json!({ "name": name, "valueFrom": field(path) });
    let mut env = vec![
        json!({ "name": "WEIRMQ_LOG_FORMAT", "value": "json" }),
        from("POD_NAME", "metadata.name"),
        from("POD_IP", "status.podIP"),
        from("NODE_NAME", "spec.nodeName"),
        from("NODE_ADDRESS", "status.hostIP"),
        json!({
            "name": "WEIRMQ_ADVERTISE",
            "value": format!("$(POD_NAME).{}.{namespace}.svc.{domain}:{PORT}", plan.pods_service()),
        }),
    ];
    if spec.replicas_per_group > 1 {
        env.push(from("WEIRMQ_BROKER_ID", "metadata.labels['apps.kubernetes.io/pod-index']"));
    }
    let mut mounts = vec![
        json!({ "name": "data", "mountPath": "/data" }),
        json!({ "name": "config", "mountPath": FOLDER, "readOnly": true }),
    ];
    if spec.replicas_per_group > 1 {
        mounts.push(json!({ "name": "replication", "mountPath": SECRET_FOLDER, "readOnly": true }));
    }
    if spec.tls.is_some() {
        mounts.push(json!({ "name": "tls", "mountPath": TLS_FOLDER, "readOnly": true }));
    }
    let image = spec.pod.image.clone().unwrap_or_else(|| plan.image.to_owned());
    let args = ["broker", "--config", &format!("{FOLDER}/{}", config::FILE)].map(str::to_owned);
    Container {
        role: ROLE,
        image,
        args: args.to_vec(),
        env,
        ports: vec![
            ("broker", PORT),
            ("vip", VIP_PORT),
            ("replication", REPLICATION_PORT),
            ("admin", ADMIN_PORT),
        ],
        mounts,
    }
}

fn volumes(plan: &Plan<'_>, group: &str) -> Vec<Value> {
    let spec = &plan.resource.spec;
    let mut volumes =
        vec![json!({ "name": "config", "configMap": { "name": config::name(group) } })];
    if spec.replicas_per_group > 1 {
        let secret = secret_name(&plan.name());
        volumes.push(json!({ "name": "replication", "secret": { "secretName": secret } }));
    }
    if let Some(tls) = &spec.tls {
        let mounted = tls::mounted(&plan.name(), tls);
        volumes.push(json!({ "name": "tls", "secret": { "secretName": mounted } }));
    }
    volumes
}
