//! Counters of a broker.

use serde::{Deserialize, Serialize};

use super::bodies;

/// One counter over three spans of time (code 315). Source: `…body.BrokerStatsData`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerStatsData {
    pub stats_day: BrokerStatsItem,
    pub stats_hour: BrokerStatsItem,
    pub stats_minute: BrokerStatsItem,
}

/// Source: `org.apache.rocketmq.remoting.protocol.body.BrokerStatsItem`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerStatsItem {
    /// Average of the counted values, in the counter's unit.
    pub avgpt: f64,
    pub sum: i64,
    /// Events a second.
    pub tps: f64,
}

bodies!(BrokerStatsData);
