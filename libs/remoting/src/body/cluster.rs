//! Who is in the cluster.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{BrokerData, bodies};

/// The answer to code 106. Source: `org.apache.rocketmq.remoting.protocol.body.ClusterInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Broker name → its addresses.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Cluster name → its broker names.
    pub cluster_addr_table: BTreeMap<String, BTreeSet<String>>,
}

/// The live members of a broker group. Source:
/// `org.apache.rocketmq.remoting.protocol.body.BrokerMemberGroup`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerMemberGroup {
    /// Broker id → `host:port`.
    pub broker_addrs: BTreeMap<i64, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
}

/// The answer to code 901. Source:
/// `org.apache.rocketmq.remoting.protocol.body.GetBrokerMemberGroupResponseBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GetBrokerMemberGroupResponseBody {
    /// None when the name server does not know the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_member_group: Option<BrokerMemberGroup>,
}

/// The answer to code 1002. Source:
/// `org.apache.rocketmq.remoting.protocol.body.ElectMasterResponseBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ElectMasterResponseBody {
    /// All replicas whose address is known, by their ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_member_group: Option<BrokerMemberGroup>,
    /// Ids of those that are in sync.
    pub sync_state_set: BTreeSet<i64>,
}

bodies!(ClusterInfo, BrokerMemberGroup, GetBrokerMemberGroupResponseBody, ElectMasterResponseBody);
