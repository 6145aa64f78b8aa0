//! How the replicas of a broker group stand (codes 907, 1006 and 1007).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bodies;

/// The answer to code 907. Source: `org.apache.rocketmq.remoting.protocol.body.HARuntimeInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HaRuntimeInfo {
    /// What a slave says of its master; a master leaves it as it is.
    pub ha_client_runtime_info: HaClientRuntimeInfo,
    /// A master's slaves.
    pub ha_connection_info: Vec<HaConnectionRuntimeInfo>,
    /// Slaves in sync.
    pub in_sync_slave_nums: i32,
    pub master: bool,
    /// Where a master's log ends.
    pub master_commit_log_max_offset: i64,
}

/// One slave of a master. Source: `HARuntimeInfo.HAConnectionRuntimeInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HaConnectionRuntimeInfo {
    pub addr: String,
    /// Bytes of the master's log that it does not have.
    pub diff: i64,
    pub in_sync: bool,
    /// WeirMQ's own: for how many milliseconds it has not had all that the master had written by
    /// then; Apache's tools do not look at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_millis: Option<i64>,
    /// Where its log ends.
    pub slave_ack_offset: i64,
    /// From where on it is sent the log.
    pub transfer_from_where: i64,
    pub transferred_byte_in_second: i64,
}

/// Source: `HARuntimeInfo.HAClientRuntimeInfo`. Times in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HaClientRuntimeInfo {
    /// Whether the slave is connected to its master.
    pub activated: bool,
    pub last_read_timestamp: i64,
    pub last_write_timestamp: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub master_addr: String,
    pub master_flush_offset: i64,
    /// Where the slave's log ends.
    pub max_offset: i64,
    pub transferred_byte_in_second: i64,
}

/// The answer to code 1006. Source:
/// `org.apache.rocketmq.remoting.protocol.body.BrokerReplicasInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerReplicasInfo {
    /// Broker name → its group's replicas.
    pub replicas_info_table: BTreeMap<String, ReplicasInfo>,
}

/// Source: `BrokerReplicasInfo.ReplicasInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicasInfo {
    pub in_sync_replicas: Vec<ReplicaIdentity>,
    /// None where nobody is master.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_broker_id: Option<i64>,
    pub master_epoch: i32,
    pub not_in_sync_replicas: Vec<ReplicaIdentity>,
    /// Grows with each change of the set.
    pub sync_state_set_epoch: i32,
}

/// Source: `BrokerReplicasInfo.ReplicaIdentity`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReplicaIdentity {
    /// Whether it is connected to the one who answers.
    pub alive: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker_address: String,
    pub broker_id: i64,
    pub broker_name: String,
}

/// The answer to code 1007. Source:
/// `org.apache.rocketmq.remoting.protocol.body.EpochEntryCache`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EpochEntryCache {
    pub broker_id: i64,
    pub broker_name: String,
    pub cluster_name: String,
    /// In order.
    pub epoch_list: Vec<EpochEntry>,
    pub max_offset: i64,
}

/// The part of a log that one master wrote. Source:
/// `org.apache.rocketmq.remoting.protocol.EpochEntry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EpochEntry {
    /// Exclusive.
    pub end_offset: i64,
    pub epoch: i32,
    pub start_offset: i64,
}

bodies!(HaRuntimeInfo, BrokerReplicasInfo, EpochEntryCache);
