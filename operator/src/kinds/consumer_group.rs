//! `ConsumerGroup`: a consumer group on every group of a Broker.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{LocalRef, WhenDeleted};
use super::rules::rule;

/// A consumer group. It is made on every group of the Broker, and put right when somebody changes it there.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weirmq.io",
    version = "v1alpha1",
    kind = "ConsumerGroup",
    namespaced,
    status = "ConsumerGroupStatus",
    shortname = "cg",
    category = "weirmq",
    doc = "A consumer group on every group of a Broker.",
    printcolumn(name = "Group", type_ = "string", json_path = ".status.groupName"),
    printcolumn(name = "Broker", type_ = "string", json_path = ".spec.brokerRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("has(self.spec.groupName) || size(self.metadata.name) <= 120 && !self.metadata.name.contains('.')")
        .message("metadata.name is the group's name, which has at most 120 characters and no dots; give spec.groupName")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    rule("self.brokerRef.name == oldSelf.brokerRef.name", "brokerRef does not change; make another ConsumerGroup"),
    rule("(has(self.groupName) ? self.groupName : '') == (has(oldSelf.groupName) ? oldSelf.groupName : '')",
         "groupName does not change; make another ConsumerGroup"),
    rule("!has(self.groupName) || !(self.groupName in ['TOOLS_CONSUMER', 'FILTERSRV_CONSUMER', 'SELF_TEST_C_GROUP', 'CID_ONS-HTTP-PROXY', 'CID_ONSAPI_PULL', 'CID_ONSAPI_PERMISSION', 'CID_ONSAPI_OWNER']) && !self.groupName.startsWith('CID_RMQ_SYS_')",
         "groupName is one of the broker's own consumer groups; choose another"),
    rule("!has(self.groupName) || !self.groupName.startsWith('%RETRY%') && !self.groupName.startsWith('%DLQ%')",
         "groupName begins as a retry topic or a dead letter topic; give the name of the group, whose topics come with it"),
]))]
pub struct ConsumerGroupSpec {
    /// The Broker of this namespace that has the group.
    pub broker_ref: LocalRef,
    /// The group's name. Default: the resource's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 120), regex(pattern = r"^[%|a-zA-Z0-9_\-]+$"))]
    pub group_name: Option<String>,
    /// Messages of a queue are consumed in order. Default: false.
    #[serde(default)]
    pub ordered: bool,
    /// Whether the group may consume at all. Default: true.
    #[serde(default = "yes")]
    pub consume: bool,
    /// Whether it may consume in broadcasting mode. Default: true.
    #[serde(default = "yes")]
    pub broadcast: bool,
    #[serde(default)]
    pub retry: Retry,
    /// Whether the group and its offsets go with the resource. Default: Retain.
    #[serde(default)]
    pub deletion_policy: WhenDeleted,
}

fn yes() -> bool {
    true
}

/// What happens to messages that could not be consumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// A message is offered again this many times and then becomes a dead letter (topic
    /// `%DLQ%GROUP`); 0 makes it one at once. 0 to 1,000. Default: 16.
    #[serde(default = "default_max_times")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_times: i32,
    /// Queues of the retry topic on each group; 1 to 64. Default: 1.
    #[serde(default = "default_retry_queues")]
    #[schemars(range(min = 1, max = 64))]
    pub queues: i32,
}

fn default_max_times() -> i32 {
    16
}

fn default_retry_queues() -> i32 {
    1
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_times: default_max_times(), queues: default_retry_queues() }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerGroupStatus {
    /// The generation that the rest speaks of.
    pub observed_generation: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The group's name at the brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_name: Option<String>,
    /// Broker groups that have it as it is declared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}
