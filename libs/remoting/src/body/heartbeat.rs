//! What clients say about themselves every 30 seconds.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::bodies;
use super::reader::known;

/// A client with all its producers and consumers (code 34).
/// Source: `org.apache.rocketmq.remoting.protocol.heartbeat.HeartbeatData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeartbeatData {
    /// `ip@instance`, chosen by the client, unique among the live ones.
    #[serde(rename = "clientID", skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    pub consumer_data_set: Vec<ConsumerData>,
    /// Heartbeat V2: a hash of the subscriptions; 0 from clients that do not use it.
    pub heartbeat_fingerprint: i32,
    pub producer_data_set: Vec<ProducerData>,
    /// Heartbeat V2: the subscriptions are left out because the broker knows the fingerprint.
    pub without_sub: bool,
}

/// Source: `org.apache.rocketmq.remoting.protocol.heartbeat.ProducerData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerData {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_name: String,
}

/// One consumer group of a client. Source:
/// `org.apache.rocketmq.remoting.protocol.heartbeat.ConsumerData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerData {
    /// None when absent, or when the client is newer and names one that we do not know.
    #[serde(deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub consume_from_where: Option<ConsumeFromWhere>,
    #[serde(deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub consume_type: Option<ConsumeType>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_name: String,
    #[serde(deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub message_model: Option<MessageModel>,
    pub subscription_data_set: Vec<SubscriptionData>,
    pub unit_mode: bool,
}

/// What a consumer group wants of one topic. Source:
/// `org.apache.rocketmq.remoting.protocol.heartbeat.SubscriptionData`; its `filterClassSource`
/// never goes on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionData {
    /// A filter class is used; a relic of 3.x.
    pub class_filter_mode: bool,
    /// Java's `hashCode` of each tag in `tags_set`.
    pub code_set: BTreeSet<i32>,
    /// `TAG` or `SQL92`; default `TAG`.
    pub expression_type: String,
    /// The expression as the user wrote it; `*` for everything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub_string: String,
    /// Milliseconds since 1970 when the client subscribed; the newest wins. Default 0, where
    /// Apache takes the time of decoding.
    pub sub_version: i64,
    pub tags_set: BTreeSet<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        Self {
            class_filter_mode: false,
            code_set: BTreeSet::new(),
            expression_type: "TAG".to_owned(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: BTreeSet::new(),
            topic: String::new(),
        }
    }
}

bodies!(HeartbeatData, ProducerData, ConsumerData, SubscriptionData);

/// How a consumer gets its messages. Source: `…heartbeat.ConsumeType`, variants in Java's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConsumeType {
    /// Pull consumers.
    #[serde(rename = "CONSUME_ACTIVELY")]
    Actively,
    /// Push consumers, which pull underneath.
    #[serde(rename = "CONSUME_PASSIVELY")]
    Passively,
    #[serde(rename = "CONSUME_POP")]
    Pop,
}

/// Who of a group gets a message. Source: `…heartbeat.MessageModel`, variants in Java's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageModel {
    Broadcasting,
    Clustering,
    /// Lite topics, since 5.5.
    LiteSelective,
}

/// Where a group without offsets begins. Source:
/// `org.apache.rocketmq.common.consumer.ConsumeFromWhere`, variants in Java's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConsumeFromWhere {
    #[serde(rename = "CONSUME_FROM_LAST_OFFSET")]
    LastOffset,
    #[serde(rename = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST")]
    LastOffsetAndFromMinWhenBootFirst,
    #[serde(rename = "CONSUME_FROM_MIN_OFFSET")]
    MinOffset,
    #[serde(rename = "CONSUME_FROM_MAX_OFFSET")]
    MaxOffset,
    #[serde(rename = "CONSUME_FROM_FIRST_OFFSET")]
    FirstOffset,
    #[serde(rename = "CONSUME_FROM_TIMESTAMP")]
    Timestamp,
}
