//! What clients ask their broker, and what is asked about clients.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::reader::{known, known_or_default};
use super::{MessageModel, MessageQueue, SubscriptionData, bodies};

/// The live clients of a group (code 38). Source:
/// `org.apache.rocketmq.remoting.protocol.header.GetConsumerListByGroupResponseBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetConsumerListByGroupResponseBody {
    pub consumer_id_list: Vec<String>,
}

/// Asks whether the broker can serve a subscription (code 46). Source: `…body.CheckClientRequestBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CheckClientRequestBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}

/// Asks which queues a client shall consume (code 400). Source: `…body.QueryAssignmentRequestBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryAssignmentRequestBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consumer_group: String,
    #[serde(deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub message_model: Option<MessageModel>,
    /// `AVG`, `AVG_BY_CIRCLE` and so on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub strategy_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

/// Source: `org.apache.rocketmq.remoting.protocol.body.QueryAssignmentResponseBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryAssignmentResponseBody {
    pub message_queue_assignments: Vec<MessageQueueAssignment>,
}

/// Source: `org.apache.rocketmq.common.message.MessageQueueAssignment`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueueAssignment {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachments: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue: Option<MessageQueue>,
    #[serde(deserialize_with = "known_or_default")]
    pub mode: MessageRequestMode,
}

/// How a group gets the messages of a topic. Source:
/// `org.apache.rocketmq.common.message.MessageRequestMode`, variants in Java's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageRequestMode {
    #[default]
    Pull,
    Pop,
}

/// Switches a group between pull and pop (code 401). Source: `…body.SetMessageRequestModeRequestBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SetMessageRequestModeRequestBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consumer_group: String,
    #[serde(deserialize_with = "known_or_default")]
    pub mode: MessageRequestMode,
    /// With pop, how many neighbours share each queue; 0 for no limit.
    pub pop_share_queue_num: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

/// All request modes (code 402, file `messageRequestMode.json`).
/// Source: `…body.MessageRequestModeSerializeWrapper`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageRequestModeSerializeWrapper {
    /// Topic → group → mode.
    pub message_request_mode_map:
        BTreeMap<String, BTreeMap<String, SetMessageRequestModeRequestBody>>,
}

/// Names of consumer groups (code 300). Source: `…body.GroupList`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupList {
    pub group_list: BTreeSet<String>,
}

/// What a group wants of a topic (code 345). Source: `…body.QuerySubscriptionResponseBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QuerySubscriptionResponseBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// None while nobody of the group is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

/// Acknowledges many popped messages (code 200151). Source: `…body.BatchAckMessageRequestBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BatchAckMessageRequestBody {
    pub acks: Vec<BatchAck>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker_name: String,
}

/// Messages of one pop that are acknowledged. Times in milliseconds.
/// Source: `org.apache.rocketmq.remoting.protocol.body.BatchAck`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// Java's `BitSet.toByteArray` in Base64: bit n (byte n / 8, lowest bit first) stands for the
    /// message at `start_offset` + n.
    #[serde(rename = "b", skip_serializing_if = "String::is_empty")]
    pub bit_set: String,
    #[serde(rename = "c", skip_serializing_if = "String::is_empty")]
    pub consumer_group: String,
    #[serde(rename = "it")]
    pub invisible_time_ms: i64,
    /// Since 1970.
    #[serde(rename = "pt")]
    pub pop_time_ms: i64,
    #[serde(rename = "q")]
    pub queue_id: i32,
    /// `0` normal, `1` and `2` retry topics of version 1 and 2.
    #[serde(rename = "r", skip_serializing_if = "String::is_empty")]
    pub retry: String,
    #[serde(rename = "rq")]
    pub revive_queue_id: i32,
    #[serde(rename = "so")]
    pub start_offset: i64,
    #[serde(rename = "t", skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

bodies!(
    GetConsumerListByGroupResponseBody,
    CheckClientRequestBody,
    QueryAssignmentRequestBody,
    QueryAssignmentResponseBody,
    SetMessageRequestModeRequestBody,
    MessageRequestModeSerializeWrapper,
    GroupList,
    QuerySubscriptionResponseBody,
    BatchAckMessageRequestBody,
);
