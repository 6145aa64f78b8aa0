//! What replicas send each other, as bytes.
//!
//! A frame is its length (4 bytes, of what follows them), its kind (1 byte) and its contents; all
//! numbers are big-endian. Contents are JSON, of which a receiver ignores fields that it does not
//! know, except those of log bytes, which a block that another replica had lost also comes as:
//!
//! | log: bytes | field |
//! |---|---|
//! | 8 | epoch in which the sender leads; or that wrote the end of the block, 0 for none |
//! | 8 | position in the log |
//! | 4 | CRC-32 of the rest |
//! | rest | records as they stand in the log, whole; or the block |

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weirmq_authority::{EpochStart, EpochTable, Member, Record, Report};

use crate::offsets::CommittedOffset;

/// The longest frame before the peer has shown who it is.
pub(super) const STRANGER_BYTES_MAX: usize = 16 << 10;
/// The longest [`Lead`], which names each queue whose messages have all expired: 200,000 topics, which is
/// `limits.topics_max`, of 64 queues and the longest names.
const LEAD_BYTES_MAX: usize = 256 << 20;
/// Length and kind.
pub(super) const HEAD_BYTES: usize = 5;
/// Epoch, position and checksum in front of log bytes.
const LOG_HEAD_BYTES: usize = 20;

/// Who somebody is, as it says itself; proved by what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hello {
    /// The newest version of this protocol that it speaks, and the oldest.
    pub(super) protocol: u32,
    pub(super) protocol_min: u32,
    pub(super) cluster: String,
    /// The broker group's name.
    pub(super) group: String,
    pub(super) member: Member,
    /// Length of its log segments.
    pub(super) segment_bytes: u64,
    /// Random, so that no earlier handshake can be shown again.
    pub(super) nonce: Uuid,
    /// Where clients reach it, for people.
    pub(super) address: String,
}

/// A follower's wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Follow {
    pub(super) epoch: u64,
}

/// What a follower has to know of its master's log before it takes any of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lead {
    pub(super) epoch: u64,
    /// Which log it is: a copy has the id of its original.
    pub(super) store_id: Uuid,
    pub(super) epochs: EpochTable,
    /// Where the log begins and ends.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where the newest image of the state begins in it; 0 without one.
    #[serde(default)]
    pub(super) image: u64,
    /// What the log does not say any more: the next offsets of queues whose messages have expired.
    #[serde(default)]
    pub(super) next_offsets: BTreeMap<String, BTreeMap<i32, u64>>,
    /// With roles by configuration, since which epoch the sender alone was master; 0 where nobody knows.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub(super) since: u64,
}

/// What is not known is not said: then the frame is what it was before there was the field.
fn is_unknown(since: &u64) -> bool {
    *since == 0
}

/// From where a follower wants the log, from which it has everything before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fetch {
    pub(super) epoch: u64,
    pub(super) from: u64,
}

/// A block of its log that a replica has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Who wrote the end of it: logs that both have that are the same up to there.
    pub(super) epoch: Option<EpochStart>,
}

/// That another one does not have it either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lacking {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Where its log begins.
    pub(super) start: u64,
    /// In words for people.
    pub(super) why: String,
}

/// Whole records of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogBytes {
    pub(super) epoch: u64,
    pub(super) position: u64,
    pub(super) bytes: Bytes,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Hello(Hello),
    /// Shows that the sender knows the group's secret; empty where none is asked for.
    Proof(Vec<u8>),
    /// Why nothing comes of this connection, or of what was asked for.
    Refused(String),
    Report(Report),
    Follow(Follow),
    Lead(Lead),
    Fetch(Fetch),
    Log(LogBytes),
    /// The authority record by which the sender leads.
    Record(Record),
    /// What consumers committed at the sender, which is a slave.
    Offsets(Vec<CommittedOffset>),
    /// From version 2 of the protocol on, as the answers to it.
    Lost(Lost),
    Found(LogBytes),
    Lacking(Lacking),
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {bytes} bytes, the limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("frame kind {0}, which nobody knows")]
    Kind(u8),
    #[error("frame kind {kind} is cut short")]
    Short { kind: u8 },
    #[error("log bytes for position {position} were changed on their way")]
    Checksum { position: u64 },
    #[error("frame kind {kind}: {error}")]
    Json { kind: u8, error: serde_json::Error },
}

const HELLO: u8 = 1;
const PROOF: u8 = 2;
const REFUSED: u8 = 3;
const REPORT: u8 = 4;
const FOLLOW: u8 = 5;
const LEAD: u8 = 6;
const FETCH: u8 = 7;
const LOG: u8 = 8;
const RECORD: u8 = 9;
const OFFSETS: u8 = 10;
const LOST: u8 = 11;
const FOUND: u8 = 12;
const LACKING: u8 = 13;

/// How long the frame is whose head this is, head excluded.
///
/// # Errors
/// [`FrameError::TooLong`] above `limit`.
pub(super) fn contents_bytes(
    head: [u8; HEAD_BYTES],
    limit: usize,
) -> Result<(u8, usize), FrameError> {
    let [a, b, c, d, kind] = head;
    let bytes = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(1);
    if bytes > limit {
        return Err(FrameError::TooLong { bytes, limit });
    }
    Ok((kind, bytes))
}

/// The same of a peer that has shown who it is: a master's word on its log grows with its queues, and may
/// be longer than `limit`.
pub(super) fn contents_bytes_of_peer(
    head: [u8; HEAD_BYTES],
    limit: usize,
) -> Result<(u8, usize), FrameError> {
    let is_lead = head[HEAD_BYTES - 1] == LEAD;
    contents_bytes(head, if is_lead { limit.max(LEAD_BYTES_MAX) } else { limit })
}

impl Frame {
    /// Appends the frame to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => json(out, HELLO, hello),
            Self::Proof(proof) => framed(out, PROOF, |out| out.extend_from_slice(proof)),
            Self::Refused(reason) => {
                framed(out, REFUSED, |out| out.extend_from_slice(reason.as_bytes()));
            }
            Self::Report(report) => json(out, REPORT, report),
            Self::Follow(follow) => json(out, FOLLOW, follow),
            Self::Lead(lead) => json(out, LEAD, lead),
            Self::Fetch(fetch) => json(out, FETCH, fetch),
            Self::Record(record) => json(out, RECORD, record),
            Self::Offsets(offsets) => json(out, OFFSETS, offsets),
            Self::Log(log) => log.encode(out, LOG),
            Self::Lost(lost) => json(out, LOST, lost),
            Self::Found(log) => log.encode(out, FOUND),
            Self::Lacking(lacking) => json(out, LACKING, lacking),
        }
    }

    /// The frame of this kind with these contents.
    pub(super) fn decode(kind: u8, mut contents: Bytes) -> Result<Self, FrameError> {
        Ok(match kind {
            HELLO => Self::Hello(from_json(kind, &contents)?),
            PROOF => Self::Proof(contents.to_vec()),
            REFUSED => Self::Refused(String::from_utf8_lossy(&contents).into_owned()),
            REPORT => Self::Report(from_json(kind, &contents)?),
            FOLLOW => Self::Follow(from_json(kind, &contents)?),
            LEAD => Self::Lead(from_json(kind, &contents)?),
            FETCH => Self::Fetch(from_json(kind, &contents)?),
            LOG | FOUND => {
                if contents.len() < LOG_HEAD_BYTES {
                    return Err(FrameError::Short { kind });
                }
                let (epoch, position) = (contents.get_u64(), contents.get_u64());
                if contents.get_u32() != crc32fast::hash(&contents) {
                    return Err(FrameError::Checksum { position });
                }
                let log = LogBytes { epoch, position, bytes: contents };
                if kind == LOG { Self::Log(log) } else { Self::Found(log) }
            }
            RECORD => Self::Record(from_json(kind, &contents)?),
            OFFSETS => Self::Offsets(from_json(kind, &contents)?),
            LOST => Self::Lost(from_json(kind, &contents)?),
            LACKING => Self::Lacking(from_json(kind, &contents)?),
            other => return Err(FrameError::Kind(other)),
        })
    }
}

impl LogBytes {
    fn encode(&self, out: &mut Vec<u8>, kind: u8) {
        let read = |out: &mut Vec<u8>| {
            out.extend_from_slice(&self.bytes);
            Some(())
        };
        encode_bytes(out, kind, self.epoch, self.position, read).unwrap_or_default();
    }
}

/// Appends a frame of log bytes, which `read` appends; with nothing from it, nothing.
pub(super) fn encode_log<T>(
    out: &mut Vec<u8>,
    epoch: u64,
    position: u64,
    read: impl FnOnce(&mut Vec<u8>) -> Option<T>,
) -> Option<T> {
    encode_bytes(out, LOG, epoch, position, read)
}

fn encode_bytes<T>(
    out: &mut Vec<u8>,
    kind: u8,
    epoch: u64,
    position: u64,
    read: impl FnOnce(&mut Vec<u8>) -> Option<T>,
) -> Option<T> {
    let before = out.len();
    out.resize(before + HEAD_BYTES + LOG_HEAD_BYTES, 0);
    let Some(read) = read(out) else {
        out.truncate(before);
        return None;
    };
    let crc = crc32fast::hash(&out[before + HEAD_BYTES + LOG_HEAD_BYTES..]);
    let length = (out.len() - before - 4) as u32;
    let mut head = &mut out[before..];
    head.put_u32(length);
    head.put_u8(kind);
    head.put_u64(epoch);
    head.put_u64(position);
    head.put_u32(crc);
    Some(read)
}

fn framed(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let before = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    write(out);
    let length = (out.len() - before - 4) as u32;
    out[before..before + 4].copy_from_slice(&length.to_be_bytes());
}

fn json(out: &mut Vec<u8>, kind: u8, value: &impl Serialize) {
    // Only maps with keys that are no text fail to become JSON, and there are none.
    framed(out, kind, |out| out.extend(serde_json::to_vec(value).unwrap_or_default()));
}

fn from_json<T: DeserializeOwned>(kind: u8, contents: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(contents).map_err(|error| FrameError::Json { kind, error })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use weirmq_authority::{Incarnation, LogPosition, ReplicaId};

    use super::*;

    fn back(frame: &Frame) -> Frame {
        let mut out = Vec::new();
        frame.encode(&mut out);
        let (kind, bytes) = contents_bytes(*out.first_chunk().unwrap(), 1 << 20).unwrap();
        assert_eq!(bytes, out.len() - HEAD_BYTES);
        Frame::decode(kind, Bytes::from(out).slice(HEAD_BYTES..)).unwrap()
    }

    #[test]
    fn frames_come_back() {
        let member = Member { replica: ReplicaId(2), incarnation: Incarnation(u64::MAX - 5) };
        let mut epochs = EpochTable::default();
        assert!(epochs.begin(3, 100));
        let hello = Hello {
            protocol: 1,
            protocol_min: 1,
            cluster: "c".into(),
            group: "g".into(),
            member,
            segment_bytes: 1 << 30,
            nonce: Uuid::new_v4(),
            address: "here:1".into(),
        };
        let report = Report {
            from: member,
            promised: 4,
            promised_version: 9,
            refuses: false,
            leaves: true,
            hands_over: true,
            position: LogPosition { epoch: 3, end: 200, flushed: 150, lacks_state: false },
            leads: None,
            follows: Some(4),
            lost: None,
            confirmed: 120,
            sent: Duration::from_nanos(123_456_789_012),
            echo: Some(Duration::from_millis(7)),
        };
        let lead = Lead {
            epoch: 4,
            store_id: Uuid::new_v4(),
            epochs,
            start: 0,
            end: 9,
            image: 3,
            next_offsets: [("t".to_owned(), [(0, 7)].into())].into(),
            since: 2,
        };
        for frame in [
            Frame::Hello(hello),
            Frame::Proof(vec![1, 2, 3]),
            Frame::Refused("no".into()),
            Frame::Report(report),
            Frame::Report(Report {
                leads: Some(0),
                follows: None,
                lost: Some(8),
                echo: None,
                ..report
            }),
            Frame::Follow(Follow { epoch: 7 }),
            Frame::Lead(lead),
            Frame::Fetch(Fetch { epoch: 7, from: 1 << 50 }),
            Frame::Record(Record { epoch: 3, master: Some(member), ..Record::default() }),
            Frame::Offsets(vec![CommittedOffset {
                group: "g".into(),
                topic: "%RETRY%g".into(),
                queue: 3,
                offset: 1 << 40,
            }]),
            Frame::Log(LogBytes { epoch: 1, position: 2, bytes: Bytes::from_static(b"records") }),
            Frame::Lost(Lost { from: 1 << 50, to: (1 << 50) + 16_384, epoch: None }),
            Frame::Found(LogBytes { epoch: 0, position: 2, bytes: Bytes::from_static(b"block") }),
            Frame::Lacking(Lacking { from: 1, to: 2, start: 3, why: "no".into() }),
        ] {
            assert_eq!(back(&frame), frame);
        }
    }

    #[test]
    fn a_report_of_another_version_may_say_less_or_more() {
        let report = |of_others: &str| {
            let json = format!(
                "{{{of_others}\"from\":{{\"replica\":1,\"incarnation\":\"0000000000000002\"}},\"promised\":3,\
                 \"promised_version\":4,\"refuses\":false,\
                 \"position\":{{\"epoch\":3,\"end\":9,\"flushed\":9}},\"confirmed\":0,\
                 \"sent\":{{\"secs\":1,\"nanos\":0}}}}"
            );
            match Frame::decode(REPORT, Bytes::from(json)) {
                Ok(Frame::Report(report)) => report,
                other => panic!("{other:?}"),
            }
        };
        assert!(!report("").leaves && !report("").hands_over);
        assert!(report("\"leaves\":true,\"later\":[1],").leaves);
        assert!(report("\"hands_over\":true,").hands_over);
    }

    #[test]
    fn what_was_changed_on_the_way_and_what_is_too_long_is_refused() {
        let mut out = Vec::new();
        let log = LogBytes { epoch: 1, position: 2, bytes: Bytes::from_static(b"records") };
        Frame::Log(log).encode(&mut out);
        *out.last_mut().unwrap() ^= 1;
        let changed = Frame::decode(LOG, Bytes::from(out).slice(HEAD_BYTES..));
        assert!(matches!(changed, Err(FrameError::Checksum { position: 2 })));
        let long = contents_bytes([0xff, 0xff, 0xff, 0xff, LOG], 1 << 20).unwrap_err();
        assert!(long.to_string().contains("the limit is 1048576"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_more_than_an_error(kind: u8, bytes: Vec<u8>) {
            let _ = Frame::decode(kind, bytes.into());
        }
    }
}
