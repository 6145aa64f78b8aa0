//! Queues, and locking them for ordered consumption.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::bodies;

/// A queue of a topic in one broker group. As a key of a map it travels as a whole object.
/// Source: `org.apache.rocketmq.common.message.MessageQueue`.
///
/// Ordered by topic, broker name and queue id, as in Java: clients that share out the queues of a
/// topic among themselves must all see them in the same order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MessageQueue {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker_name: String,
    pub queue_id: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

impl MessageQueue {
    /// In Java's order of arguments: topic, broker name, queue id.
    pub fn new(topic: impl Into<String>, broker_name: impl Into<String>, queue_id: i32) -> Self {
        Self { broker_name: broker_name.into(), queue_id, topic: topic.into() }
    }
}

impl Ord for MessageQueue {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_topic = self.topic.cmp(&other.topic);
        by_topic
            .then_with(|| self.broker_name.cmp(&other.broker_name))
            .then_with(|| self.queue_id.cmp(&other.queue_id))
    }
}

impl PartialOrd for MessageQueue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Asks for locks (code 41). Source: `…body.LockBatchRequestBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LockBatchRequestBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consumer_group: String,
    pub mq_set: BTreeSet<MessageQueue>,
    /// Sent from broker to broker: do not ask further ones.
    pub only_this_broker: bool,
}

/// The queues that the client now holds. Source: `…body.LockBatchResponseBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchResponseBody {
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: BTreeSet<MessageQueue>,
}

/// Gives locks back (code 42). Source: `…body.UnlockBatchRequestBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct UnlockBatchRequestBody {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consumer_group: String,
    pub mq_set: BTreeSet<MessageQueue>,
    pub only_this_broker: bool,
}

bodies!(MessageQueue, LockBatchRequestBody, LockBatchResponseBody, UnlockBatchRequestBody);
