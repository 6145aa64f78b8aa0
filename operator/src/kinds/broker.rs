//! `Broker`: broker groups, each a master and its slaves.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weirmq_authority::kubernetes::{AckPolicy, Flush, ReplicationMode};

use super::common::{ExternalType, LocalRef, PodSettings, SecretName, Storage, segment_size};
use super::rules::{self, rule};

/// Broker groups of one RocketMQ cluster. Each group keeps its own messages on `replicasPerGroup`
/// disks; more groups carry more.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weirmq.io",
    version = "v1alpha1",
    kind = "Broker",
    namespaced,
    status = "BrokerStatus",
    shortname = "mq",
    category = "weirmq",
    doc = "Broker groups: a master and its slaves each.",
    scale(
        spec_replicas_path = ".spec.groups",
        status_replicas_path = ".status.groupCount",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".spec.groups"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicasPerGroup"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Masters", type_ = "string", json_path = ".status.masters"),
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.readyPods"),
    printcolumn(name = "Replication", type_ = "string", json_path = ".spec.replication.mode", priority = 1),
    printcolumn(name = "Flush", type_ = "string", json_path = ".spec.flush", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = rules::name_at_most(40)
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.nameServerRef) != has(self.nameServers)",
         "give nameServerRef, a NameServer of this namespace, or nameServers, a list of host:port; one of them"),
    rule("self.replicasPerGroup != 2 || self.replication.mode == 'Async' || has(self.replication.minInSync)",
         "with two replicas choose replication.minInSync: 1 loses what only the master acknowledged when its disk is lost while the slave is away; 2 takes no messages while one of them is away"),
    rule("!has(self.replication.minInSync) || self.replication.minInSync <= self.replicasPerGroup",
         "replication.minInSync must not be above replicasPerGroup: nothing would ever be acknowledged"),
    rule("self.replication.mode == 'Sync' || !has(self.replication.minInSync)",
         "replication.minInSync is of Sync replication; with Async nothing waits for slaves"),
    rule("self.replication.ackPolicy != 'Quorum' || self.replication.mode == 'Sync' && self.replicasPerGroup > 2 && (!has(self.replication.minInSync) || 2 * self.replication.minInSync > self.replicasPerGroup)",
         "replication.ackPolicy Quorum takes mode Sync, three replicas or more, and a minInSync of more than half of replicasPerGroup"),
    rule("!has(self.failover.mode) || self.failover.mode == 'Disabled' || self.replicasPerGroup > 1",
         "failover.mode Automatic or Manual needs another replica to fail over to: replicasPerGroup is 1"),
    rule("self.replication.mode == oldSelf.replication.mode && self.replication.ackPolicy == oldSelf.replication.ackPolicy && self.flush == oldSelf.flush",
         "replication.mode, replication.ackPolicy and flush have to be the same at all replicas of a group and do not change; make another Broker"),
    rule("(self.replicasPerGroup == 1) == (oldSelf.replicasPerGroup == 1)",
         "a single replica keeps no epochs and cannot get slaves, nor a group lose all of them; make another Broker"),
    rule("(has(self.failover.mode) && self.failover.mode == 'Disabled') == (has(oldSelf.failover.mode) && oldSelf.failover.mode == 'Disabled')",
         "failover.mode does not change to or from Disabled: roles stand in the authority record or in the configuration; make another Broker"),
    rule("self.replicasPerGroup == 1 || has(self.failover.mode) && self.failover.mode == 'Disabled' || (has(self.failover.leaseSeconds) ? self.failover.leaseSeconds : 6) == (has(oldSelf.failover.leaseSeconds) ? oldSelf.failover.leaseSeconds : 6)",
         "failover.leaseSeconds has to be the same at all replicas of a group and does not change (6 where it is not given): one with a shorter lease would take over while the master still acknowledges by a longer one; make another Broker"),
    rule("(has(self.clusterName) ? self.clusterName : '') == (has(oldSelf.clusterName) ? oldSelf.clusterName : '')",
         "clusterName is written into each data directory and does not change"),
    rule("(has(self.config.segmentSize) ? self.config.segmentSize : '') == (has(oldSelf.config.segmentSize) ? oldSelf.config.segmentSize : '')",
         "config.segmentSize does not change: data directories keep the length that they began with; make another Broker"),
    rule("(has(self.config.messageBytesMax) ? self.config.messageBytesMax : 4194304) >= (has(oldSelf.config.messageBytesMax) ? oldSelf.config.messageBytesMax : 4194304)",
         "config.messageBytesMax never gets smaller (4194304 where it is not given): messages of the old length may be stored, and a replica that has to copy them would refuse them; have producers keep to less, or make another Broker"),
    rule("!has(self.config.messageBytesMax) || !has(self.config.segmentSize) || !isQuantity(self.config.segmentSize) || !quantity(self.config.segmentSize).isInteger() || quantity(self.config.segmentSize).asInteger() > self.config.messageBytesMax",
         "config.messageBytesMax is not below config.segmentSize: a message has to fit into a segment"),
    rule("!has(self.external) || !has(self.external.host) || self.external.type == 'NodePort'",
         "external.host is of type NodePort; a LoadBalancer has an address of its own"),
    rule("!has(self.tls) || !has(self.tls.secret) || !has(self.tls.issuerRef)",
         "give tls.secret, a certificate for clients, or tls.issuerRef, or neither to have the operator make certificates"),
    rule("self.replicasPerGroup == 1 || (has(self.tls) && !has(self.tls.secret) ? (has(self.tls.issuerRef) ? 2 : 1) : 0) == (has(oldSelf.tls) && !has(oldSelf.tls.secret) ? (has(oldSelf.tls.issuerRef) ? 2 : 1) : 0)",
         "replicas know each other by the certificates of tls, or all of them do without: whether they do, and who issues them, does not change; make another Broker"),
    rule("!has(oldSelf.tls) || !has(oldSelf.tls.issuerRef) || !has(self.tls) || has(self.tls.secret) || has(self.tls.issuerRef)",
         "the operator does not make certificates while cert-manager writes them into the same Secret: take tls away, or give tls.secret, delete the Certificate NAME-certificates and then the Secret of this name, and set tls: {} after that"),
    rules::storage_grows_only(),
    rules::storage_class_stays(),
]))]
pub struct BrokerSpec {
    /// A NameServer of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_server_ref: Option<LocalRef>,
    /// NameServers that nobody declared here, `host:port` each.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 3, max = 260),
            regex(
                pattern = r"^[A-Za-z0-9.\-_\[\]:]+:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$"
            )
        )
    )]
    pub name_servers: Option<Vec<String>>,
    /// The RocketMQ cluster that the groups belong to. Default: the resource's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[%|a-zA-Z0-9_\-]+$"))]
    pub cluster_name: Option<String>,
    /// How many groups; 1 to 32. Default: 1.
    #[serde(default = "default_groups")]
    #[schemars(range(min = 1, max = 32))]
    pub groups: u32,
    /// Replicas of each group, the master counted; 1 to 7. Default: 3.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 7))]
    pub replicas_per_group: u32,
    #[serde(default)]
    pub replication: Replication,
    /// Whether a message counts once it is written, or once it is flushed. Default: Sync.
    #[serde(default = "default_flush")]
    pub flush: Flush,
    #[serde(default)]
    pub failover: Failover,
    pub storage: Storage,
    #[serde(default)]
    pub config: BrokerSettings,
    /// Addresses for clients outside of the cluster. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<BrokerExternal>,
    /// Certificates: `{}` has the operator make them by an authority of its own, and renew both. Then
    /// replicas encrypt what they send each other, and know each other by them. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<BrokerTls>,
    #[serde(default)]
    pub pod: PodSettings,
}

fn default_groups() -> u32 {
    1
}

fn default_replicas() -> u32 {
    3
}

fn default_flush() -> Flush {
    Flush::Sync
}

/// When a message is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replication {
    /// Default: Sync.
    #[serde(default = "default_mode")]
    pub mode: ReplicationMode,
    /// For whom an acknowledgement waits. It does not change. Default: AllInSync.
    #[serde(default)]
    pub ack_policy: AckPolicy,
    /// With Sync no message is taken while fewer replicas are in sync, the master counted. Default: 2,
    /// and 1 for a single replica; with two replicas it has to be chosen. With Quorum more than half.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7))]
    pub min_in_sync: Option<u32>,
}

fn default_mode() -> ReplicationMode {
    ReplicationMode::Sync
}

impl Default for Replication {
    fn default() -> Self {
        Self { mode: default_mode(), ack_policy: AckPolicy::default(), min_in_sync: None }
    }
}

/// What happens when a master is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failover {
    /// Default: Automatic with several replicas, Disabled with one. Automatic and Manual may take turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<FailoverMode>,
    /// A master that is neither heard nor renews its lease for this long is replaced; 2 to 60. Default:
    /// 6. Shorter is faster, and takes a slow network for a dead master more often. It does not change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 60))]
    pub lease_seconds: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverMode {
    /// The replicas elect another one, also while the operator is down.
    Automatic,
    /// A replica takes over once somebody writes so into `spec.promote` of the BrokerGroup; until then
    /// nobody takes messages while the master is away. Hand-overs in rolling updates and drains go on.
    Manual,
    /// Replica 0 is the master. While it is away its slaves serve readers and nobody takes messages.
    // Not `Off`: YAML 1.1, and so kubectl, reads that as `false`.
    Disabled,
}

/// What of a broker's configuration can be chosen; see `weir broker --print-config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BrokerSettings {
    /// Create a topic at the first send to it. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_create_topics: Option<bool>,
    /// Create a consumer group when its first member appears. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_create_groups: Option<bool>,
    /// The most queues of an automatically created topic. Default: 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub default_topic_queues: Option<u32>,
    /// Messages older than this may be deleted. Default: 72.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 87600))]
    pub retention_hours: Option<u64>,
    /// In these hours of the day (UTC) what has expired is deleted. Default: 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), inner(range(min = 0, max = 23)))]
    pub retention_at_hours: Option<Vec<u8>>,
    /// From this share of the disk on, in percent, what has expired is deleted at once. Default: 75.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 95))]
    pub retention_disk_percent: Option<u8>,
    /// Delete messages before their time rather than refuse new ones on a full disk. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_force: Option<bool>,
    /// Length of a CommitLog segment, 64Mi to 4Gi. Default: 1Gi. It does not change.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "segment_size")]
    pub segment_size: Option<Quantity>,
    /// The longest body of a message, in bytes. Default: 4 MiB. It never gets smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 134_217_728))]
    pub message_bytes_max: Option<u64>,
    /// Connections of clients. Default: 20,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_000_000))]
    pub connections_max: Option<u64>,
    /// Topics. Default: 200,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub topics_max: Option<u64>,
    /// Threads that serve connections. Default: by the number of processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub io_threads: Option<u32>,
}

/// How clients outside of the cluster reach each broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BrokerExternal {
    #[serde(rename = "type")]
    pub type_: ExternalType,
    /// The host that clients are told, with NodePort: a name, or an address without brackets; no port.
    /// Default: the address of the pod's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(
            pattern = r"^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)$"
        )
    )]
    pub host: Option<String>,
}

/// Where certificates come from: a Secret with one for clients, or an issuer of cert-manager, or neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BrokerTls {
    /// A Secret of type `kubernetes.io/tls`, for clients only. Brokers read it again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// An issuer of cert-manager that issues for names of the cluster and says who it is (`ca.crt`), such
    /// as a CA. Default: an authority of the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
}

/// As `issuerRef` of cert-manager's `Certificate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Issuer or ClusterIssuer, or the kind of another group. Default: Issuer.
    #[serde(default = "default_issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Default: cert-manager.io.
    #[serde(default = "default_issuer_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

fn default_issuer_kind() -> String {
    "Issuer".to_owned()
}

fn default_issuer_group() -> String {
    "cert-manager.io".to_owned()
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatus {
    /// The generation that the rest speaks of.
    pub observed_generation: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Groups there are; for the scale subresource.
    pub group_count: i32,
    /// For the scale subresource.
    pub selector: String,
    /// Groups with a master that serves, of all: `2/2`.
    pub masters: String,
    /// Pods that are ready, of all: `6/6`.
    pub ready_pods: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupStatus>,
}

/// One broker group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupStatus {
    /// The group's name, which clients know as the broker's.
    pub name: String,
    /// The master's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Grows with each change of the master.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Replicas that have every acknowledged message, by number. With Quorum those that keep up with the
    /// master, of which more than half have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_sync: Option<String>,
    /// The group has the topics and consumer groups of the others.
    pub has_topics: bool,
    /// The group is leaving: it takes no messages, and this is what is left to be consumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica of a group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaStatus {
    pub pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Master, Slave, or Unknown.
    pub role: String,
    pub ready: bool,
    /// What it does not have of its master's log, rounded up to a power of two so that it does not
    /// change with each message. While no master serves: of the log of the replica that has most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<i64>,
    /// Whether it runs what the resource says, or waits to be started anew.
    pub up_to_date: bool,
}
