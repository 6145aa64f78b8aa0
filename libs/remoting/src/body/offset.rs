//! Offsets of consumer groups. All offsets count messages within their queue.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DataVersion, MessageQueue, bodies};

/// How far a group is (code 208). Source: `org.apache.rocketmq.remoting.protocol.admin.ConsumeStats`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStats {
    /// Messages a second.
    pub consume_tps: f64,
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
}

/// Source: `org.apache.rocketmq.remoting.protocol.admin.OffsetWrapper`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OffsetWrapper {
    /// One past the newest message of the queue.
    pub broker_offset: i64,
    /// What the group has committed.
    pub consumer_offset: i64,
    /// Store time of the last consumed message in milliseconds since 1970.
    pub last_timestamp: i64,
    /// What the group has pulled; at least `consumer_offset`.
    pub pull_offset: i64,
}

/// How far all groups of a broker are (code 317). Source: `…body.ConsumeStatsList`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeStatsList {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    /// One map a group: group → its stats, one entry a topic.
    pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    pub total_diff: i64,
    pub total_inflight_diff: i64,
}

/// All committed offsets: the answer to code 43 and the file `consumerOffset.json`.
/// Source: `…body.ConsumerOffsetSerializeWrapper`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerOffsetSerializeWrapper {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_version: Option<DataVersion>,
    /// `topic@group` → queue id → offset.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// How far delivery of delayed messages is: the answer to code 45 and the file
/// `delayOffset.json`. Source: `DelayOffsetSerializeWrapper`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DelayOffsetSerializeWrapper {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_version: Option<DataVersion>,
    /// Delay level, from 1 → offset.
    pub offset_table: BTreeMap<i32, i64>,
}

/// Between which times a group's messages lie (code 303). Source: `…body.QueryConsumeTimeSpanBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryConsumeTimeSpanBody {
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// Times in milliseconds since 1970. Source: `…body.QueueTimeSpan`; the three readable texts that
/// it also writes are left out, Java computes them itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueTimeSpan {
    /// Store time of the last consumed message.
    pub consume_time_stamp: i64,
    /// How old the next message to be consumed is, in milliseconds.
    pub delay_time: i64,
    pub max_time_stamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue: Option<MessageQueue>,
    pub min_time_stamp: i64,
}

/// Tells a client where to go on (codes 220, 222). Source: `…body.ResetOffsetBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResetOffsetBody {
    pub offset_table: BTreeMap<MessageQueue, i64>,
}

/// [`ResetOffsetBody`] for C++ clients, whose JSON has no object keys.
/// Source: `…body.ResetOffsetBodyForC`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ResetOffsetBodyForC {
    pub offset_table: Vec<MessageQueueForC>,
}

/// Source: `org.apache.rocketmq.common.message.MessageQueueForC`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueueForC {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker_name: String,
    pub offset: i64,
    pub queue_id: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

/// Where clients are (codes 221, 223). Source: `…body.GetConsumerStatusBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetConsumerStatusBody {
    /// Client id → its offsets, in the broker's answer.
    pub consumer_table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
    /// The offsets of one client, in the client's answer.
    pub message_queue_table: BTreeMap<MessageQueue, i64>,
}

/// Offsets to go back to (code 308). Source: `…body.QueryCorrectionOffsetBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryCorrectionOffsetBody {
    /// Queue id → offset.
    pub correction_offsets: BTreeMap<i32, i64>,
}

/// Entries of a consume queue (code 321). Source: `…body.QueryConsumeQueueResponseBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueryConsumeQueueResponseBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    pub max_queue_index: i64,
    pub min_queue_index: i64,
    pub queue_data: Vec<ConsumeQueueData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<super::SubscriptionData>,
}

/// Source: `org.apache.rocketmq.remoting.protocol.body.ConsumeQueueData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumeQueueData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bit_map: Option<String>,
    /// Whether the group's filter lets it through.
    pub eval: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend_data_json: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    pub physic_offset: i64,
    pub physic_size: i32,
    pub tags_code: i64,
}

bodies!(
    ConsumeStats,
    ConsumeStatsList,
    ConsumerOffsetSerializeWrapper,
    DelayOffsetSerializeWrapper,
    QueryConsumeTimeSpanBody,
    ResetOffsetBody,
    ResetOffsetBodyForC,
    GetConsumerStatusBody,
    QueryCorrectionOffsetBody,
    QueryConsumeQueueResponseBody,
);
