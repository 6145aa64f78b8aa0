//! The kind `BrokerGroup` of Kubernetes, whose status is the [`Record`].
//!
//! `weir crds` prints its definition, which stands in `crds/`. The API server keeps the schema and
//! the rules below whoever writes: they are [`Record::check_next`] once more, in CEL.

use std::borrow::Cow;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::{AcknowledgedBy, Promotion, Record, ReplicaId, Replication, Settings};

/// The largest number that the API server keeps exactly in an integer field.
const NUMBER_MAX: u64 = i64::MAX as u64;

/// How many replicas a group can have.
const REPLICAS_MAX: u32 = 16;

/// One broker group. The operator makes it; its brokers keep the authority record in its status.
///
/// `replicas` and `minInSync` may change while the group runs, and replicas may learn of it one
/// after the other. How messages are replicated and flushed has to be the same at all of them, so
/// it does not change.
// Unknown fields are those of a newer operator, and no reason to do without an authority.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "weirmq.io",
    version = "v1alpha1",
    kind = "BrokerGroup",
    namespaced,
    status = "BrokerGroupStatus",
    shortname = "bg",
    category = "weirmq",
    doc = "One broker group and its authority record. Made by the operator, not by hand.",
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Master", type_ = "integer", json_path = ".status.master.replica"),
    printcolumn(name = "In-Sync", type_ = "string", json_path = ".status.inSyncReplicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = kube::core::Rule::new("!has(oldSelf.status) || has(self.status)")
        .message("the authority record cannot be taken away; delete the BrokerGroup to give up what its replicas agreed on")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    json!({
        "rule": "self.replication.mode == oldSelf.replication.mode && self.replication.ackPolicy == oldSelf.replication.ackPolicy && self.flush == oldSelf.flush",
        "message": "replication.mode, replication.ackPolicy and flush have to be the same at all replicas and do not change; make another group"
    }),
    json!({
        "rule": "self.replication.minInSync <= self.replicas",
        "message": "minInSync must not be above replicas: nothing would ever be acknowledged"
    }),
    json!({
        "rule": "self.replication.ackPolicy != 'Quorum' || self.replication.mode == 'Sync' && self.replicas > 2 && 2 * self.replication.minInSync > self.replicas",
        "message": "replication.ackPolicy Quorum takes mode Sync, three replicas or more, and a minInSync of more than half of the replicas"
    }),
]))]
pub struct BrokerGroupSpec {
    /// How many replicas the group has; 1 to 16. Replica 0 is the pod with ordinal 0.
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub replicas: u32,
    pub replication: ReplicationSpec,
    pub flush: Flush,
    /// Whether another replica takes over by itself when the master is gone. Default: Automatic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// Has a replica take office. An administrator writes it here, so that it can be done without the
    /// operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promote: Option<Promote>,
}

/// Who decides that another replica becomes master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Failover {
    /// The replicas themselves.
    Automatic,
    /// Whoever writes `spec.promote`. The first election, hand-overs, and a master that was started
    /// again need nobody.
    Manual,
}

/// Which replica takes office, once the master of `epoch` is not heard and its Lease is over. One that
/// is outside of `inSync` and `eligible` does not, unless `acceptLoss` is there. In another epoch it
/// means nothing, so it need not be taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Promote {
    /// Its number.
    #[schemars(range(max = REPLICAS_MAX))]
    pub replica: u32,
    /// `status.epoch` as it was when this was decided.
    #[schemars(range(min = 1))]
    pub epoch: u64,
    /// Lets a replica be promoted that does not have every acknowledged message. What only the others
    /// had is lost, and `status.lossEpoch` says so for ever. Make sure that the old master is down:
    /// cut off from the API server it may go on for clients that reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_loss: Option<AcceptLoss>,
}

/// Written out, so that nobody says it by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AcceptLoss {
    AcknowledgedMessagesMayBeLost,
}

/// When a message is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationSpec {
    pub mode: ReplicationMode,
    #[serde(default)]
    pub ack_policy: AckPolicy,
    /// Synchronous replication takes no messages with fewer members in sync, the master counted.
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub min_in_sync: u32,
}

/// Whether an acknowledgement waits for other replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicationMode {
    /// It does not. What no other replica had is lost with the master.
    Async,
    /// It does.
    Sync,
}

/// For whom an acknowledgement waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum AckPolicy {
    /// For every member of the in-sync set.
    #[default]
    AllInSync,
    /// For more than half of the set, and at least `minInSync` of it, the master counted. A slow replica
    /// holds up nobody; in return nobody is elected before most of the set can be asked what they have.
    Quorum,
}

/// Whether a message counts once it is written, or once it is flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Flush {
    /// Written: it survives the process, not a power cut.
    Async,
    /// Flushed: it survives a power cut.
    Sync,
}

impl BrokerGroupSpec {
    /// What the group's replicas are told; the times are the defaults.
    ///
    /// # Errors
    /// What the schema refuses as well, as a sentence: `spec.…` and its range.
    pub fn settings(&self) -> Result<Settings, String> {
        let (replicas, min_in_sync) = (self.replicas, self.replication.min_in_sync);
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return Err(format!("spec.replicas is {replicas}; 1 to {REPLICAS_MAX} are possible"));
        }
        if !(1..=replicas).contains(&min_in_sync) {
            let of = "spec.replication.minInSync is";
            return Err(format!(
                "{of} {min_in_sync}; 1 to spec.replicas ({replicas}) are possible"
            ));
        }
        let is_by_quorum = self.replication.ack_policy == AckPolicy::Quorum;
        let is_sync = self.replication.mode == ReplicationMode::Sync;
        if is_by_quorum && (!is_sync || replicas < 3 || 2 * min_in_sync <= replicas) {
            return Err(format!(
                "spec.replication.ackPolicy Quorum takes mode Sync, three replicas or more, and a \
                 minInSync of more than half of spec.replicas ({replicas})"
            ));
        }
        let promotion = self.promote.as_ref().map(|promote| Promotion {
            replica: ReplicaId(promote.replica),
            epoch: promote.epoch,
            accepts_loss: promote.accept_loss.is_some(),
        });
        Ok(Settings {
            takes_over: self.failover != Some(Failover::Manual),
            promotion,
            group: (0..replicas).map(ReplicaId).collect(),
            replication: match self.replication.mode {
                ReplicationMode::Async => Replication::Async,
                ReplicationMode::Sync => Replication::Sync,
            },
            acknowledged_by: match is_by_quorum {
                true => AcknowledgedBy::Quorum,
                false => AcknowledgedBy::All,
            },
            sync_flush: self.flush == Flush::Sync,
            min_in_sync: min_in_sync as usize,
            ..Settings::new(replicas)
        })
    }
}

/// The status: the record, and beside it `inSyncReplicas` (the set's replicas as `0,2`, for people)
/// and `write`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BrokerGroupStatus {
    pub record: Record,
    /// Another word for each write, up to 36 bytes. The API server takes a write that changes nothing
    /// for done and leaves the version as it is, while the replicas count on it that a swap which
    /// succeeded makes all others of the same version fail.
    pub write: String,
}

impl BrokerGroupStatus {
    /// The record in a `BrokerGroup` as it was read: the first one where there is no status yet.
    ///
    /// # Errors
    /// What of the status is not a record.
    pub fn record_in(status: Option<&Value>) -> Result<Record, String> {
        let Some(status) = status.filter(|status| !status.is_null()) else {
            return Ok(Record::default());
        };
        let record = Record::deserialize(status).map_err(|error| error.to_string())?;
        let largest = record.epoch.max(record.in_sync_version).max(record.loss_epoch);
        // One less, so that counting on from there fits as well.
        if largest >= NUMBER_MAX {
            return Err(format!("the number {largest} is above {}", NUMBER_MAX - 1));
        }
        Ok(record)
    }
}

impl Serialize for BrokerGroupStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Status<'a> {
            #[serde(flatten)]
            record: &'a Record,
            in_sync_replicas: String,
            write: &'a str,
        }
        let Self { record, write } = self;
        let in_sync = record.in_sync.iter().map(|member| member.replica.0.to_string());
        let in_sync_replicas = in_sync.collect::<Vec<_>>().join(",");
        Status { record, in_sync_replicas, write }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BrokerGroupStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Through a value, because serde's `flatten` takes no numbers as keys of a map.
        let status = Value::deserialize(deserializer)?;
        let record = Self::record_in(Some(&status)).map_err(D::Error::custom)?;
        let write = status.get("write").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { record, write })
    }
}

impl JsonSchema for BrokerGroupStatus {
    fn schema_name() -> Cow<'static, str> {
        "BrokerGroupStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = |description| json!({"type": "integer", "format": "int64", "minimum": 0, "description": description});
        let digits = json!({"type": "string", "pattern": "^[0-9a-f]{16}$", "maxLength": 16});
        let members = |description| {
            json!({
                "type": "object", "maxProperties": REPLICAS_MAX, "description": description,
                "additionalProperties": digits,
            })
        };
        let master = json!({
            "type": "object", "nullable": true, "required": ["replica", "incarnation"],
            "description": "Which start of which replica is master.",
            "properties": {
                "replica": {"type": "integer", "format": "int64", "minimum": 0},
                "incarnation": digits,
            },
        });
        json_schema!({
            "type": "object",
            "description": "The authority record. Only the group's brokers write it, by compare-and-swap.",
            "required": ["epoch", "phase", "inSync", "inSyncVersion", "eligible", "lossEpoch", "trail"],
            "properties": {
                "epoch": number("Grows by one with each change of the master; 0 before the first."),
                "phase": {
                    "type": "string", "enum": ["New", "Promoting", "Stable", "Fencing"],
                    "description": "Promoting: the master was elected and does not serve yet. Fencing: nobody follows it any more, and the next one is looked for.",
                },
                "master": master,
                "inSync": members("Replicas with every acknowledged message, and which start of them. With ackPolicy Quorum more than half of them have it."),
                "inSyncVersion": number("Grows by one with each change of the record."),
                "eligible": members("Replicas that have every acknowledged message as well."),
                "lossEpoch": number("The last epoch before which acknowledged messages may have been lost; 0: none."),
                "trail": {
                    "type": "array", "maxItems": 64, "items": digits,
                    "description": "Digests of the record's last versions, the newest last.",
                },
                "inSyncReplicas": {
                    "type": "string", "maxLength": 64,
                    "description": "The replicas of inSync, for people.",
                },
                "write": {
                    "type": "string", "maxLength": 36,
                    "description": "Another word for each write, so that each is a new version.",
                },
            },
            "x-kubernetes-validations": RULES
                .map(|(rule, message)| json!({"rule": rule, "message": message})),
        })
    }
}

/// What [`Record::check_next`] checks, in CEL. A null master is an absent one there.
const RULES: [(&str, &str); 7] = [
    ("self.epoch >= oldSelf.epoch", "the epoch never falls"),
    ("self.inSyncVersion >= oldSelf.inSyncVersion", "the version of the in-sync set never falls"),
    (
        "self.inSyncVersion > oldSelf.inSyncVersion || self.epoch == oldSelf.epoch && self.phase == oldSelf.phase && self.inSync == oldSelf.inSync && self.eligible == oldSelf.eligible && self.lossEpoch == oldSelf.lossEpoch && self.trail == oldSelf.trail",
        "the record changes only with a new version",
    ),
    (
        "size(oldSelf.trail) == 0 || self.inSyncVersion - oldSelf.inSyncVersion < size(self.trail) && self.trail[size(self.trail) - 1 - (self.inSyncVersion - oldSelf.inSyncVersion)] == oldSelf.trail[size(oldSelf.trail) - 1]",
        "the record is made from the one that is there; to put a copy back delete the BrokerGroup and make it again",
    ),
    (
        "self.epoch > oldSelf.epoch || has(self.master) == has(oldSelf.master) && (!has(self.master) || self.master == oldSelf.master)",
        "the master changes only with a new epoch",
    ),
    (
        "self.epoch == oldSelf.epoch || has(self.master) && string(self.master.replica) in self.inSync && self.inSync[string(self.master.replica)] == self.master.incarnation",
        "a new master is in the in-sync set",
    ),
    (
        "self.epoch == oldSelf.epoch || oldSelf.epoch == 0 || self.lossEpoch == self.epoch || has(self.master) && [oldSelf.inSync, oldSelf.eligible].exists(known, string(self.master.replica) in known && known[string(self.master.replica)] == self.master.incarnation)",
        "a new master was in sync or eligible before",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::CustomResourceExt as _;

    use super::*;
    use crate::{Incarnation, Member, Phase};

    fn member(replica: u32, incarnation: u64) -> Member {
        Member { replica: ReplicaId(replica), incarnation: Incarnation(incarnation) }
    }

    fn record() -> Record {
        let record = Record {
            epoch: 3,
            phase: Phase::Promoting,
            master: Some(member(0, 1)),
            in_sync: [member(0, 1), member(2, u64::MAX)].into_iter().collect(),
            in_sync_version: 4,
            eligible: [member(1, 7)].into_iter().collect(),
            loss_epoch: 2,
            ..Record::default()
        };
        record.serving()
    }

    fn written() -> Value {
        let status = BrokerGroupStatus { record: record(), write: "a".to_owned() };
        serde_json::to_value(status).unwrap()
    }

    #[test]
    fn a_record_passes_through_the_status() {
        for record in [record(), Record::default()] {
            let status = BrokerGroupStatus { record, write: "a".to_owned() };
            let written = serde_json::to_value(&status).unwrap();
            assert_eq!(BrokerGroupStatus::deserialize(&written).unwrap(), status);
        }
        let status = written();
        assert_eq!(status["inSyncReplicas"], "0,2");
        assert_eq!(status["inSync"]["2"], "ffffffffffffffff");
        assert_eq!(BrokerGroupStatus::record_in(None), Ok(Record::default()));
    }

    #[test]
    fn what_is_not_a_record_is_not_taken_for_a_new_one() {
        let whole = written();
        let damaged = |field: &str, value: Value| {
            let mut status = whole.clone();
            status[field] = value;
            BrokerGroupStatus::record_in(Some(&status)).unwrap_err()
        };
        damaged("epoch", json!(-1));
        damaged("epoch", json!(1.5));
        damaged("epoch", json!(u64::MAX));
        damaged("phase", json!("Waning"));
        damaged("trail", json!(["a word"]));
        damaged("inSync", json!({"first": "0000000000000001"}));
        damaged("inSync", json!({"0": "a word"}));
        damaged("master", json!({"replica": 4_294_967_296_u64, "incarnation": "1"}));
        BrokerGroupStatus::record_in(Some(&json!({}))).unwrap_err();
        BrokerGroupStatus::record_in(Some(&json!([]))).unwrap_err();
    }

    #[test]
    fn the_schema_has_every_field_of_the_record() {
        let status = written();
        let written: BTreeSet<&String> = status.as_object().unwrap().keys().collect();
        let crd = serde_json::to_value(BrokerGroup::crd()).unwrap();
        let schema =
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert_eq!(written, schema["properties"].as_object().unwrap().keys().collect());
        let size = crd.to_string().len();
        assert!(size < 100 << 10, "{size} bytes");
    }

    #[test]
    fn settings_come_from_the_spec() {
        let mut spec: BrokerGroupSpec = serde_json::from_value(json!({
            "replicas": 3, "replication": {"mode": "Async", "minInSync": 2}, "flush": "Async",
        }))
        .unwrap();
        let settings = spec.settings().unwrap();
        assert_eq!((settings.group.len(), settings.min_in_sync), (3, 2));
        assert_eq!((settings.replication, settings.sync_flush), (Replication::Async, false));
        spec.replication.min_in_sync = 4;
        assert!(spec.settings().unwrap_err().contains("1 to spec.replicas (3)"));
        spec.replication.min_in_sync = 2;
        spec.replication.ack_policy = AckPolicy::Quorum;
        assert!(spec.settings().unwrap_err().contains("Quorum takes mode Sync"));
        spec.replication.mode = ReplicationMode::Sync;
        assert_eq!(spec.settings().unwrap().acknowledged_by, AcknowledgedBy::Quorum);
        spec.replicas = 4;
        assert!(spec.settings().unwrap_err().contains("more than half of spec.replicas (4)"));
        spec.replicas = 2;
        assert!(spec.settings().unwrap_err().contains("three replicas or more"));
        spec.replicas = 3;
        spec.failover = Some(Failover::Manual);
        let accept_loss = Some(AcceptLoss::AcknowledgedMessagesMayBeLost);
        spec.promote = Some(Promote { replica: 2, epoch: 7, accept_loss });
        let settings = spec.settings().unwrap();
        let told = Promotion { replica: ReplicaId(2), epoch: 7, accepts_loss: true };
        assert_eq!((settings.takes_over, settings.promotion), (false, Some(told)));
        // One that is not there any more, of a group that had more once.
        spec.promote = Some(Promote { replica: 3, epoch: 7, accept_loss: None });
        spec.settings().unwrap();
        spec.replicas = 0;
        assert!(spec.settings().unwrap_err().contains("spec.replicas is 0"));
    }
}
