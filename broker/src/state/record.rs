//! What a state record says.

use serde::{Deserialize, Serialize};
use weirmq_remoting::body::SubscriptionGroupConfig;

use super::log::StateError;
use crate::offsets::CommittedOffset;
use crate::topics::Topic;

/// The version that this program writes.
const VERSION: u32 = 1;
/// How all records of this program begin. A start reads them by the hundred thousand.
const OWN_HEAD: &[u8] = br#"{"version":1,"#;

/// One change of the broker's state. In the log it is JSON: `{"version":1,"kind":"topic",…}`.
///
/// A record of an unknown kind or a newer version stops the broker rather than being skipped:
/// skipping would make a state that no broker ever had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum StateRecord {
    /// A topic was created or changed.
    Topic {
        topic: Topic,
    },
    TopicDeleted {
        name: String,
    },
    /// A consumer group was created or changed.
    Group {
        group: Box<SubscriptionGroupConfig>,
    },
    GroupDeleted {
        name: String,
        with_offsets: bool,
    },
    /// Consumer groups came this far.
    Offsets {
        offsets: Vec<CommittedOffset>,
    },
    /// A queue of an orderly consumed topic got another owner, or none.
    QueueLock {
        group: String,
        topic: String,
        queue: i32,
        owner: Option<String>,
    },
    /// Delayed messages of this level are delivered up to this entry of its queue.
    DelayProgress {
        level: usize,
        offset: u64,
    },
    /// A replica became master: from here on the log is its own. Nothing of the state changes.
    Epoch {
        epoch: u64,
        replica: u32,
    },
    /// The state as a whole follows, up to the end record of the same number.
    ImageBegin {
        number: u64,
    },
    ImageEnd {
        number: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Versioned<R> {
    version: u32,
    #[serde(flatten)]
    record: R,
}

/// Why a record of the log cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("state record has version {0}, this program knows {VERSION}; use a newer program")]
    Version(u32),
    #[error("state record cannot be read: {0}")]
    Shape(#[from] serde_json::Error),
}

impl StateRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Only maps with keys that are no text fail to become JSON, and there are none.
        serde_json::to_vec(&self.versioned()).unwrap_or_default()
    }

    /// What [`StateRecord::encode`] writes, as a part of something larger.
    pub(super) fn versioned(&self) -> impl Serialize {
        Versioned { version: VERSION, record: self }
    }

    /// The change that a record of the state topic says, which another replica logged.
    pub(crate) fn decode_copied(record: &weirmq_message::Record<'_>) -> Result<Self, StateError> {
        Self::decode(record.body)
            .map_err(|error| StateError::Record { entry: record.queue_offset, error })
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Self, RecordError> {
        if let Some(fields) = body.strip_prefix(OWN_HEAD) {
            return Ok(serde_json::from_slice(&[b"{", fields].concat())?);
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(body)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        #[derive(Deserialize)]
        struct AnyRecord(serde_json::Map<String, serde_json::Value>);
        let AnyRecord(mut fields) = serde_json::from_slice(body)?;
        fields.remove("version");
        Ok(serde_json::from_value(serde_json::Value::Object(fields))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_unknown_ones_are_refused() {
        let offset =
            CommittedOffset { group: "g".into(), topic: "t".into(), queue: 3, offset: 1 << 40 };
        let group = SubscriptionGroupConfig {
            group_name: "g".into(),
            ..SubscriptionGroupConfig::default()
        };
        for record in [
            StateRecord::Topic { topic: Topic::new("t", 4) },
            StateRecord::Group { group: Box::new(group) },
            StateRecord::Offsets { offsets: vec![offset] },
            StateRecord::QueueLock { group: "g".into(), topic: "t".into(), queue: 0, owner: None },
            StateRecord::ImageEnd { number: 7 },
        ] {
            let encoded = record.encode();
            assert!(encoded.starts_with(OWN_HEAD));
            assert_eq!(StateRecord::decode(&encoded).unwrap(), record);
            let spaced = [b" ", &encoded[..]].concat();
            assert_eq!(StateRecord::decode(&spaced).unwrap(), record);
        }
        for refused in [
            &br#"{"version":1,"kind":"futureThing"}"#[..],
            br#"{"version":2,"kind":"imageEnd","number":1}"#,
            br#"{"version":1,"kind":"imageEnd","number":1,"extra":0}"#,
            br#"{"version":1,"kind":"imageEnd","number":1,"version":2}"#,
            br#"{"version":1,"#,
            b"",
        ] {
            assert!(StateRecord::decode(refused).is_err());
        }
    }
}
