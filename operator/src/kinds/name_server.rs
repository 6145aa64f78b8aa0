//! `NameServer`: a set of NameServers that know the same brokers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{ExternalType, PodSettings, Storage};
use super::rules;

/// NameServers. Each broker registers with every one of them, and clients ask any.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weirmq.io",
    version = "v1alpha1",
    kind = "NameServer",
    namespaced,
    status = "NameServerStatus",
    shortname = "mqns",
    category = "weirmq",
    doc = "NameServers: they tell clients which brokers there are.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = rules::name_at_most(40)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    rules::storage_stays(),
    rules::storage_grows_only(),
    rules::storage_class_stays(),
]))]
pub struct NameServerSpec {
    /// How many; 1 to 9. Default: 2.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: i32,
    /// Keeps the key-value configuration. Default: none, it is lost with the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// A port for clients outside of the cluster. They are told the brokers' outside addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<NameServerExternal>,
    #[serde(default)]
    pub pod: PodSettings,
}

fn default_replicas() -> i32 {
    2
}

/// How clients outside of the cluster reach the NameServers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NameServerExternal {
    #[serde(rename = "type")]
    pub type_: ExternalType,
    /// The port on every node. Default: Kubernetes chooses one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NameServerStatus {
    /// The generation that the rest speaks of.
    pub observed_generation: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Pods there are.
    pub replicas: i32,
    pub ready_replicas: i32,
    /// For the scale subresource.
    pub selector: String,
    /// For clients in the cluster: `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}
