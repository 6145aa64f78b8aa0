//! Requests to a NameServer.

use std::borrow::Cow;

use super::field::headers;
use crate::command::Text;

headers! {
    /// Code 103. Source: `RegisterBrokerRequestHeader`.
    pub struct RegisterBrokerHeader<'a> {
        broker_name: Text<'a> = "brokerName",
        broker_addr: Text<'a> = "brokerAddr",
        cluster_name: Text<'a> = "clusterName",
        ha_server_addr: Text<'a> = "haServerAddr",
        broker_id: i64 = "brokerId",
        /// After so many milliseconds without a sign of life the broker is forgotten.
        heartbeat_timeout_millis: Option<i64> = "heartbeatTimeoutMillis",
        enable_acting_master: Option<bool> = "enableActingMaster",
        compressed: Option<bool> = "compressed",
        /// CRC-32 of the body; 0 or absent: not checked.
        body_crc32: Option<i32> = "bodyCrc32",
        /// Topics that are not in the body are none to be forgotten. WeirMQ's own; Apache's name
        /// servers ignore it.
        is_part: Option<bool> = "isPart",
    }

    /// Answers 103.
    pub struct RegisterBrokerResponseHeader<'a> {
        ha_server_addr: Option<Cow<'a, str>> = "haServerAddr",
        master_addr: Option<Cow<'a, str>> = "masterAddr",
    }

    /// Codes 104 and 322.
    pub struct BrokerIdentityHeader<'a> {
        broker_name: Text<'a> = "brokerName",
        broker_addr: Text<'a> = "brokerAddr",
        cluster_name: Text<'a> = "clusterName",
        broker_id: i64 = "brokerId",
    }

    /// Code 1002. Source: `ElectMasterRequestHeader`.
    pub struct ElectMasterHeader<'a> {
        cluster_name: Option<Text<'a>> = "clusterName",
        broker_name: Text<'a> = "brokerName",
        /// The id of the slave that is to be master, if `designate_elect`.
        broker_id: Option<i64> = "brokerId",
        designate_elect: Option<bool> = "designateElect",
    }

    /// Answers 1002. Source: `ElectMasterResponseHeader`.
    pub struct ElectMasterResponseHeader<'a> {
        master_broker_id: Option<i64> = "masterBrokerId",
        master_address: Option<Text<'a>> = "masterAddress",
        master_epoch: i32 = "masterEpoch",
        sync_state_set_epoch: i32 = "syncStateSetEpoch",
    }

    /// Answers 322.
    pub struct ChangedHeader {
        changed: bool = "changed",
    }

    /// Code 904.
    pub struct BrokerHeartbeatHeader<'a> {
        cluster_name: Text<'a> = "clusterName",
        broker_addr: Text<'a> = "brokerAddr",
        broker_name: Text<'a> = "brokerName",
        broker_id: Option<i64> = "brokerId",
        heartbeat_timeout_millis: Option<i64> = "heartbeatTimeoutMills",
    }

    /// Code 105.
    pub struct RouteHeader<'a> {
        topic: Text<'a> = "topic",
        /// The client reads strict JSON; see `TopicRouteData::to_json`.
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }

    /// Code 216.
    pub struct DeleteTopicHeader<'a> {
        topic: Text<'a> = "topic",
        cluster_name: Option<Text<'a>> = "clusterName",
    }

    /// Code 217.
    pub struct RegisterTopicHeader<'a> {
        topic: Text<'a> = "topic",
    }

    /// Codes 205 and 327.
    pub struct BrokerNameHeader<'a> {
        broker_name: Text<'a> = "brokerName",
    }

    /// Answers 205.
    pub struct WipeResponseHeader {
        wipe_topic_count: i32 = "wipeTopicCount",
    }

    /// Answers 327.
    pub struct AddResponseHeader {
        add_topic_count: i32 = "addTopicCount",
    }

    /// Code 224.
    pub struct ClusterHeader<'a> {
        cluster: Text<'a> = "cluster",
    }

    /// Code 901.
    pub struct MemberGroupHeader<'a> {
        cluster_name: Text<'a> = "clusterName",
        broker_name: Text<'a> = "brokerName",
    }

    /// Code 100.
    pub struct PutKvHeader<'a> {
        namespace: Cow<'a, str> = "namespace",
        key: Cow<'a, str> = "key",
        value: Cow<'a, str> = "value",
    }

    /// Codes 101 and 102.
    pub struct KvKeyHeader<'a> {
        namespace: Cow<'a, str> = "namespace",
        key: Cow<'a, str> = "key",
    }

    /// Answers 101.
    pub struct KvValueHeader<'a> {
        value: Option<Cow<'a, str>> = "value",
    }

    /// Code 219.
    pub struct NamespaceHeader<'a> {
        namespace: Cow<'a, str> = "namespace",
    }
}
