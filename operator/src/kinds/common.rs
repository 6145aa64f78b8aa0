//! What several kinds have in common.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How the pods of a role are made, beside what the role itself says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSettings {
    /// The image. Default: the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// When the image is fetched. Default: as Kubernetes does it, by the image's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets to fetch it with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<SecretName>,
    /// Processor and memory of each pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Laid over the pod template that the operator makes: maps are merged, lists whose entries have
    /// a `name` are merged by it, everything else takes the place of what was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub template: Option<Map<String, Value>>,
}

/// As `resources` of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub requests: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "quantities")]
    pub limits: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretName {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The disk of each pod. It may grow while it is in use where its class allows it; it never shrinks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// Its size, for example `10Gi`.
    #[schemars(schema_with = "quantity")]
    pub size: Quantity,
    /// Its StorageClass. Default: the cluster's default. It does not change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Whether the disks outlive the resource. Default: Retain.
    #[serde(default)]
    pub when_deleted: WhenDeleted,
}

/// What becomes of disks, topics or groups when the resource that declared them is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenDeleted {
    /// They stay.
    #[default]
    Retain,
    /// They go with it.
    Delete,
}

/// A Service through which clients outside of the cluster come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExternalType {
    NodePort,
    LoadBalancer,
}

/// An object of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A schema for an object that is not looked into.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Quantities by name, as text or whole numbers.
fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        },
    })
}

/// A quantity of Kubernetes as text, for a disk: `10` alone would be ten bytes.
pub(super) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [
            { "rule": "isQuantity(self) && quantity(self).compareTo(quantity('1Mi')) >= 0",
              "message": "must be a quantity of 1Mi or more, for example 10Gi" },
        ],
    })
}

/// The length of a segment. The broker knows no fractions of a byte and no other units.
pub(super) fn segment_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "pattern": r"^[0-9]+(\.[0-9]+)?(k|M|G|Ki|Mi|Gi)?$",
        "x-kubernetes-validations": [
            { "rule": "isQuantity(self) && quantity(self).isInteger() && quantity(self).asInteger() >= 67108864 && quantity(self).asInteger() <= 4294967296 && quantity(self).asInteger() % 4096 == 0",
              "message": "must be 64Mi to 4Gi and a multiple of 4Ki, for example 256Mi" },
        ],
    })
}
