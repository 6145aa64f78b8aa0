//! `Topic`: a topic on every group of a Broker.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{LocalRef, WhenDeleted};
use super::rules::rule;

/// A topic. It is made on every group of the Broker, and put right when somebody changes it there.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weirmq.io",
    version = "v1alpha1",
    kind = "Topic",
    namespaced,
    status = "TopicStatus",
    shortname = "mqt",
    category = "weirmq",
    doc = "A topic on every group of a Broker.",
    printcolumn(name = "Topic", type_ = "string", json_path = ".status.topicName"),
    printcolumn(name = "Broker", type_ = "string", json_path = ".spec.brokerRef.name"),
    printcolumn(name = "Queues", type_ = "integer", json_path = ".spec.queues"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("has(self.spec.topicName) || size(self.metadata.name) <= 127 && !self.metadata.name.contains('.')")
        .message("metadata.name is the topic's name, which has at most 127 characters and no dots; give spec.topicName")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    rule("self.brokerRef.name == oldSelf.brokerRef.name", "brokerRef does not change; make another Topic"),
    rule("(has(self.topicName) ? self.topicName : '') == (has(oldSelf.topicName) ? oldSelf.topicName : '')",
         "topicName does not change; make another Topic"),
    rule("self.type == oldSelf.type", "type does not change: messages of the old type are there; make another Topic"),
    rule("self.queues >= oldSelf.queues", "queues never gets fewer: messages in the last ones would not be consumed; set perm to ReadOnly and make another Topic"),
    rule("!has(self.topicName) || !(self.topicName in ['TBW102', 'BenchmarkTest', 'SELF_TEST_TOPIC', 'OFFSET_MOVED_EVENT', 'SCHEDULE_TOPIC_XXXX', 'RMQ_SYS_TRANS_HALF_TOPIC', 'RMQ_SYS_TRANS_OP_HALF_TOPIC', 'TRANS_CHECK_MAX_TIME_TOPIC', 'RMQ_SYS_TRACE_TOPIC', 'CHECKPOINT_TOPIC']) && !self.topicName.startsWith('rmq_sys_') && !self.topicName.startsWith('%RETRY%') && !self.topicName.startsWith('%DLQ%')",
         "topicName is one of the broker's own topics; choose another"),
]))]
pub struct TopicSpec {
    /// The Broker of this namespace that has the topic.
    pub broker_ref: LocalRef,
    /// The topic's name. Default: the resource's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[%|a-zA-Z0-9_\-]+$"))]
    pub topic_name: Option<String>,
    /// Queues on each group; 1 to 1,024. Default: 8. It never gets fewer.
    #[serde(default = "default_queues")]
    #[schemars(range(min = 1, max = 1024))]
    pub queues: u32,
    /// Default: ReadWrite.
    #[serde(default)]
    pub perm: Perm,
    /// What kind of messages it takes. Default: Unspecified, any.
    #[serde(default, rename = "type")]
    pub type_: MessageType,
    /// Further attributes, for example `cleanup.policy`. One that is taken out here is taken away at the
    /// brokers; those that never stood here stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    #[schemars(extend("additionalProperties" = { "type": "string", "maxLength": 1024 }))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule("!('message.type' in self)", "message.type is what spec.type says"),
        // Brokers are told `+key=value,-key`, and take blanks off the ends of each (`AttributeParser`).
        rule(r"self.all(key, key.matches(r'^[^\s\p{Z}\p{Cc},=+-]([^\p{Cc},=]*[^\s\p{Z}\p{Cc},=])?$'))",
             "a key has at least one character, no comma, equals sign or control character, no plus or minus sign at its start and no blank at an end: brokers are told +key=value,+key=value"),
        rule(r"self.all(key, self[key].matches(r'^([^\s\p{Z}\p{Cc},=+]([^\p{Cc},=]*[^\s\p{Z}\p{Cc},=])?)?$'))",
             "a value has no comma, equals sign or control character, no plus sign at its start and no blank at an end: brokers are told +key=value,+key=value"),
    ]))]
    pub attributes: BTreeMap<String, String>,
    /// Whether the topic and its messages go with the resource. Default: Retain.
    #[serde(default)]
    pub deletion_policy: WhenDeleted,
}

fn default_queues() -> u32 {
    8
}

/// What clients may do with a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Perm {
    #[default]
    ReadWrite,
    ReadOnly,
    WriteOnly,
}

/// The attribute `message.type`, in Apache's words (`TopicMessageType`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MessageType {
    #[default]
    Unspecified,
    Normal,
    Fifo,
    Delay,
    Transaction,
    Mixed,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatus {
    /// The generation that the rest speaks of.
    pub observed_generation: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The topic's name at the brokers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_name: Option<String>,
    /// Groups that have the topic as it is declared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Keys of attributes that were declared and that some group may have: those that are not declared any
    /// more are taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
}
