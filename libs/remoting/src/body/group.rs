//! Consumer groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reader::known_or_default;
use super::{DataVersion, bodies};

/// One consumer group on one broker (codes 200, 352).
/// Source: `org.apache.rocketmq.remoting.protocol.subscription.SubscriptionGroupConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupConfig {
    pub attributes: BTreeMap<String, String>,
    /// The broker of the group that consumers begin with; default 0, the master.
    pub broker_id: i64,
    /// Default true.
    pub consume_broadcast_enable: bool,
    /// Default true.
    pub consume_enable: bool,
    /// Default true.
    pub consume_from_min_enable: bool,
    /// Default false.
    pub consume_message_orderly: bool,
    /// Default 15.
    pub consume_timeout_minute: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group_name: String,
    pub group_retry_policy: GroupRetryPolicy,
    pub group_sys_flag: i32,
    /// Default true.
    pub notify_consumer_ids_changed_enable: bool,
    /// Default 16.
    pub retry_max_times: i32,
    /// Default 1.
    pub retry_queue_nums: i32,
    /// Subscriptions fixed by the operator; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data_set: Option<Vec<SimpleSubscriptionData>>,
    /// Where slow consumers are sent to; default 1, a slave.
    pub which_broker_when_consume_slowly: i64,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// How long to wait before each redelivery. Source: `…subscription.GroupRetryPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupRetryPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customized_retry_policy: Option<CustomizedRetryPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_retry_policy: Option<ExponentialRetryPolicy>,
    /// Which of the two counts; the default of that kind if it is absent.
    #[serde(rename = "type", deserialize_with = "known_or_default")]
    pub kind: GroupRetryPolicyType,
}

/// Source: `…subscription.GroupRetryPolicyType`, variants in Java's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GroupRetryPolicyType {
    Exponential,
    #[default]
    Customized,
}

/// A fixed table of delays. Source: `…subscription.CustomizedRetryPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CustomizedRetryPolicy {
    /// Milliseconds before the first, second, … redelivery; the last holds for all later ones.
    /// Default: 18 steps from 1 s to 2 h.
    pub next: Vec<i64>,
}

impl Default for CustomizedRetryPolicy {
    fn default() -> Self {
        let seconds =
            [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
        Self { next: seconds.iter().map(|seconds| seconds * 1000).collect() }
    }
}

/// Delays that grow. Source: `…subscription.ExponentialRetryPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExponentialRetryPolicy {
    /// Milliseconds; default 5 s.
    pub initial: i64,
    /// Milliseconds; default 2 h.
    pub max: i64,
    /// Default 2.
    pub multiplier: i64,
}

impl Default for ExponentialRetryPolicy {
    fn default() -> Self {
        Self { initial: 5_000, max: 7_200_000, multiplier: 2 }
    }
}

/// A subscription as the operator writes it. Source: `…subscription.SimpleSubscriptionData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SimpleSubscriptionData {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expression: String,
    /// `TAG` or `SQL92`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub expression_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    pub version: i64,
}

/// All groups of a broker: the answer to code 201 and the file `subscriptionGroup.json`.
/// Source: `org.apache.rocketmq.remoting.protocol.body.SubscriptionGroupWrapper`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupWrapper {
    pub data_version: DataVersion,
    /// Group → topic → bits of what is forbidden (bit 0: reading).
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}

/// Many groups to create at once (code 225). Source: `…body.SubscriptionGroupList`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SubscriptionGroupList {
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

/// The answer to code 353. Source: `…subscription.GroupForbidden`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GroupForbidden {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
}

bodies!(
    SubscriptionGroupConfig,
    GroupRetryPolicy,
    SubscriptionGroupWrapper,
    SubscriptionGroupList,
    GroupForbidden,
);
