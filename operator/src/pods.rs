//! What all pods have in common, and how a resource's own template is laid over them.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::annotations::{CONFIG, RESTARTED_AT};
use crate::children::{INSTANCE, MANAGED_BY, NAME};
use crate::context::MANAGER;
use crate::kinds::{PodSettings, Storage, WhenDeleted};

/// The user in the image; nobody else owns the files of `/data`.
const USER: u32 = 65_532;
/// Health and metrics.
pub(crate) const ADMIN_PORT: u16 = 10_908;
/// A hand-over, what is under way, and the last flush.
const GRACE_SECONDS: u32 = 60;

/// A NameServer that starts knows no route before brokers have found it, which they look for every 5 s,
/// and told it: until then it would say of every topic that there is none.
const ROUTES_KNOWN_SECONDS: u32 = 8;

/// What pods of one kind are called: the label `app.kubernetes.io/name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    NameServer,
    Broker,
}

impl Role {
    /// Of the pods that a resource of this kind gets.
    pub(crate) fn of_kind(kind: &str) -> Option<Self> {
        match kind {
            "NameServer" => Some(Self::NameServer),
            "Broker" => Some(Self::Broker),
            _ => None,
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NameServer => "weirmq-nameserver",
            Self::Broker => "weirmq-broker",
        }
    }

    /// The name of its container.
    pub(crate) fn container(self) -> &'static str {
        match self {
            Self::NameServer => "namesrv",
            Self::Broker => "broker",
        }
    }

    /// The image of its container, of a pod of this kind.
    pub(crate) fn image(self, pod: &PodSpec) -> Option<String> {
        let mut containers = pod.containers.iter();
        containers.find(|container| container.name == self.container())?.image.clone()
    }
}

/// What selects the pods of a resource.
pub(crate) fn selector(role: Role, instance: &str) -> Map<String, Value> {
    let labels = [(NAME, role.label()), (INSTANCE, instance)];
    labels.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect()
}

/// The same as text, for the scale subresource.
pub(crate) fn selector_text(role: Role, instance: &str) -> String {
    format!("{INSTANCE}={instance},{NAME}={}", role.label())
}

/// The labels of everything that belongs to a resource.
pub(crate) fn labels(role: Role, instance: &str) -> Map<String, Value> {
    let mut labels = selector(role, instance);
    labels.insert(MANAGED_BY.to_owned(), json!(MANAGER));
    labels
}

/// The metadata of an object that goes when `owner` goes.
pub(crate) fn metadata(
    role: Role,
    instance: &str,
    namespace: &str,
    name: &str,
    owner: &Value,
) -> Value {
    json!({
        "name": name,
        "namespace": namespace,
        "labels": labels(role, instance),
        "ownerReferences": [owner],
    })
}

/// A pod's one container.
pub(crate) struct Container {
    pub(crate) role: Role,
    pub(crate) image: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<Value>,
    pub(crate) ports: Vec<(&'static str, u16)>,
    pub(crate) mounts: Vec<Value>,
}

/// A pod template under restricted pod security, with the resource's own laid over it.
pub(crate) fn template(
    container: Container,
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    service_account: Option<&str>,
    volumes: Vec<Value>,
    settings: &PodSettings,
) -> Value {
    let Container { role, image, args, env, ports, mounts } = container;
    let ports: Vec<Value> = ports
        .into_iter()
        .map(|(name, port)| json!({ "name": name, "containerPort": port, "protocol": "TCP" }))
        .collect();
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": { "path": path, "port": "admin", "scheme": "HTTP" },
            "periodSeconds": period, "failureThreshold": failures, "timeoutSeconds": 3,
        })
    };
    let mut readiness = probe("/readyz", 2, 3);
    if role == Role::NameServer {
        readiness["initialDelaySeconds"] = json!(ROUTES_KNOWN_SECONDS);
    }
    let mut container = json!({
        "name": role.container(),
        "image": image,
        "args": args,
        "env": env,
        "ports": ports,
        "volumeMounts": mounts,
        // A store that was killed may have much to prove before it serves; a process that ended is
        // started again at once, so the patience costs nothing.
        "startupProbe": probe("/startupz", 1, 600),
        "livenessProbe": probe("/livez", 10, 6),
        "readinessProbe": readiness,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
    });
    if let Some(policy) = settings.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if let Some(resources) = &settings.resources {
        container["resources"] = json!(resources);
    }
    let same_pods: Map<String, Value> = labels
        .iter()
        .filter(|(key, _)| *key != MANAGED_BY)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut spec = json!({
        "containers": [container],
        "volumes": volumes,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": service_account.is_some(),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": same_pods },
        }],
    });
    if let Some(account) = service_account {
        spec["serviceAccountName"] = json!(account);
    }
    if !settings.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = json!(settings.image_pull_secrets);
    }
    let mut template =
        json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": spec });
    if let Some(over) = &settings.template {
        lay_over(&mut template, &Value::Object(over.clone()));
    }
    template
}

/// What of a pod, or of a template, tells why it is not like another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    image: Option<String>,
    config: Option<String>,
    restarted_at: Option<String>,
}

impl Marks {
    pub(crate) fn of(role: Role, metadata: &ObjectMeta, spec: Option<&PodSpec>) -> Self {
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
        Self {
            image: spec.and_then(|spec| role.image(spec)),
            config: annotation(CONFIG),
            restarted_at: annotation(RESTARTED_AT),
        }
    }

    /// Of the pods that a StatefulSet makes now.
    pub(crate) fn of_template(role: Role, set: &StatefulSet) -> Self {
        let Some(template) = set.spec.as_ref().map(|spec| &spec.template) else {
            return Self::default();
        };
        let metadata = template.metadata.clone().unwrap_or_default();
        Self::of(role, &metadata, template.spec.as_ref())
    }

    /// Why pods like these are started anew to become like others: the reason of an event.
    pub(crate) fn change_to(&self, newest: &Self) -> &'static str {
        if self.image != newest.image {
            "ImageChanged"
        } else if self.config != newest.config {
            "ConfigurationChanged"
        } else if self.restarted_at != newest.restarted_at {
            "RestartRequested"
        } else {
            "TemplateChanged"
        }
    }
}

/// The claim of the volume `data`, and what becomes of it.
pub(crate) fn claim(storage: &Storage, labels: Map<String, Value>) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": storage.size } },
    });
    if let Some(class) = &storage.storage_class_name {
        spec["storageClassName"] = json!(class);
    }
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": "data", "labels": labels }, "spec": spec,
    })
}

/// Disks of replicas that were taken away stay in any case: they may be wanted again. So do those of a
/// set that leaves while its resource stays.
pub(crate) fn claim_retention(storage: &Storage, leaves: bool) -> Value {
    let when_deleted = match storage.when_deleted {
        WhenDeleted::Delete if !leaves => "Delete",
        WhenDeleted::Delete | WhenDeleted::Retain => "Retain",
    };
    json!({ "whenDeleted": when_deleted, "whenScaled": "Retain" })
}

/// Merges maps, and lists whose entries all have a `name`; replaces everything else.
fn lay_over(below: &mut Value, over: &Value) {
    match (below, over) {
        (Value::Object(below), Value::Object(over)) => {
            for (key, value) in over {
                match below.get_mut(key) {
                    Some(known) => lay_over(known, value),
                    None => {
                        below.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(below), Value::Array(over)) if are_named(below) && are_named(over) => {
            for entry in over {
                match below.iter_mut().find(|known| known["name"] == entry["name"]) {
                    Some(known) => lay_over(known, entry),
                    None => below.push(entry.clone()),
                }
            }
        }
        (below, over) => *below = over.clone(),
    }
}

fn are_named(list: &[Value]) -> bool {
    list.iter().all(|entry| entry["name"].is_string())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn a_name_server_takes_clients_once_brokers_had_time_to_tell_it_their_routes() {
        let delay = |role| {
            let container = Container {
                role,
                image: String::new(),
                args: Vec::new(),
                env: Vec::new(),
                ports: Vec::new(),
                mounts: Vec::new(),
            };
            let settings = PodSettings::default();
            let labels = Map::new();
            let template = template(container, labels, Map::new(), None, Vec::new(), &settings);
            template["spec"]["containers"][0]["readinessProbe"]["initialDelaySeconds"].as_u64()
        };
        assert_eq!(delay(Role::NameServer), Some(8));
        assert_eq!(delay(Role::Broker), None);
    }

    #[test]
    fn the_reason_of_a_restart_is_what_changed() {
        let marks = |image: &str, annotations: &Value| {
            let pod = json!({
                "metadata": { "annotations": annotations },
                "spec": { "containers": [{ "name": "sidecar" }, { "name": "broker", "image": image }] },
            });
            let pod: Pod = serde_json::from_value(pod).unwrap();
            Marks::of(Role::Broker, &pod.metadata, pod.spec.as_ref())
        };
        let old = marks("a", &json!({ CONFIG: "1" }));
        for (newest, why) in [
            (marks("b", &json!({ CONFIG: "2" })), "ImageChanged"),
            (marks("a", &json!({ CONFIG: "2", RESTARTED_AT: "now" })), "ConfigurationChanged"),
            (marks("a", &json!({ CONFIG: "1", RESTARTED_AT: "now" })), "RestartRequested"),
            (marks("a", &json!({ CONFIG: "1", "more": "x" })), "TemplateChanged"),
        ] {
            assert_eq!(old.change_to(&newest), why);
        }
    }

    #[test]
    fn a_template_is_merged_by_name() {
        let mut below = json!({
            "metadata": { "labels": { "a": "1" } },
            "spec": {
                "containers": [{ "name": "broker", "image": "x", "args": ["a", "b"], "env": [{ "name": "A", "value": "1" }] }],
                "topologySpreadConstraints": [{ "maxSkew": 1 }],
            },
        });
        let over = json!({
            "metadata": { "labels": { "b": "2" } },
            "spec": {
                "nodeSelector": { "disk": "fast" },
                "containers": [
                    { "name": "broker", "env": [{ "name": "B", "value": "2" }] },
                    { "name": "sidecar", "image": "y" },
                ],
                "topologySpreadConstraints": [],
            },
        });
        lay_over(&mut below, &over);
        assert_eq!(below["metadata"]["labels"], json!({ "a": "1", "b": "2" }));
        let containers = &below["spec"]["containers"];
        assert_eq!(containers[0]["image"], "x");
        assert_eq!(containers[0]["env"].as_array().unwrap().len(), 2);
        assert_eq!(containers[1]["name"], "sidecar");
        assert_eq!(below["spec"]["topologySpreadConstraints"], json!([]));
        assert_eq!(below["spec"]["nodeSelector"]["disk"], "fast");
    }
}
