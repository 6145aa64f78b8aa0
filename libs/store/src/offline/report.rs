//! What a verification found.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// So many findings are listed; the others are only counted.
pub(super) const FINDINGS_MAX: usize = 10_000;

/// How far a verification has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// What is wrong, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub kind: FindingKind,
    /// The file, relative to nothing: as the directory was named.
    pub path: PathBuf,
    /// First position of the log that is concerned; `None` where the file is no part of the log.
    pub from: Option<u64>,
    /// Position behind the last one.
    pub to: Option<u64>,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FindingKind {
    /// A file in `commitlog/` that is no segment by its name or length, or cannot be opened.
    SegmentFile,
    /// A segment with bytes behind its end, which are no part of the log.
    ExcessBytes,
    /// There is log before and behind this range, and no file with it.
    MissingSegment,
    /// The log began earlier than the first file that is there, and that part has not expired.
    MissingStart,
    /// Bytes of the log that are no records.
    Log,
    /// Bytes that the disk does not give.
    Unreadable,
    /// A block that is not what its checksum says.
    Block,
    /// A queue that leaves an offset out or has one twice.
    QueueOrder,
    /// A queue file that says something else than the log.
    QueueFile,
    /// A key file that says something else than the log.
    KeyFile,
    /// A small file without a good version.
    SmallFile,
}

impl Finding {
    pub(super) fn file(kind: FindingKind, path: &Path, reason: String) -> Self {
        Self { kind, path: path.to_path_buf(), from: None, to: None, reason }
    }

    pub(super) fn range(
        kind: FindingKind,
        path: &Path,
        from: u64,
        to: u64,
        reason: String,
    ) -> Self {
        Self { kind, path: path.to_path_buf(), from: Some(from), to: Some(to), reason }
    }
}

/// What the next open will cut: the end of a log that was not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TornTail {
    pub from: u64,
    pub to: u64,
    /// Whole records in it.
    pub records: u64,
}

/// A part of the log, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRange {
    pub from: u64,
    /// Behind the last one.
    pub to: u64,
}

/// What [`super::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    pub directory: PathBuf,
    /// No damage at all. A torn tail is none, nor is a file that the next open derives again, nor what
    /// a cut takes away that was begun.
    pub is_sound: bool,
    pub was_closed: bool,
    pub log_start: u64,
    pub log_end: u64,
    pub durable_mark: Option<u64>,
    pub segments: usize,
    /// Whole valid records, those behind damage included.
    pub records: u64,
    pub queues: usize,
    /// ConsumeQueue entries that were compared with the log.
    pub queue_entries: u64,
    /// Key index entries that were compared with the log.
    pub key_entries: u64,
    /// Blocks of 16 KiB that were compared with their checksums.
    pub blocks: u64,
    /// Blocks, or the last part of one, that hold something of the log and have no checksum to compare
    /// with; the broker's scrub gives them one. No damage, but what rots there in a head, a topic
    /// or properties is not noticed.
    pub blocks_without_checksum: u64,
    /// Where those are, neighbours as one, in the order of the log; at most 10,000.
    pub without_checksum: Vec<LogRange>,
    pub torn_tail: Option<TornTail>,
    /// In the order of the log; at most 10,000.
    pub findings: Vec<Finding>,
    /// Those that are not listed.
    pub more_findings: u64,
    /// What is worth knowing and no damage.
    pub notes: Vec<String>,
}

impl VerifyReport {
    pub(super) fn found(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }

    pub(super) fn has_no_checksum(&mut self, from: u64, to: u64) {
        self.blocks_without_checksum += 1;
        let count = self.without_checksum.len();
        match self.without_checksum.last_mut() {
            Some(last) if last.to == from => last.to = to,
            _ if count >= FINDINGS_MAX => {}
            _ => self.without_checksum.push(LogRange { from, to }),
        }
    }

    /// Where the log stops being whole: the first position of a finding that only a cut, or a
    /// replica, can mend. Where a record is to blame it names the record, not the whole block.
    pub fn first_log_damage(&self) -> Option<u64> {
        let of = |is_meant: fn(FindingKind) -> bool| {
            let meant = self.findings.iter().filter(move |finding| is_meant(finding.kind));
            meant.filter_map(|finding| Some(finding.from?..finding.to?))
        };
        let records = of(|kind| {
            use FindingKind::{Log, MissingSegment, SegmentFile, Unreadable};
            matches!(kind, Log | MissingSegment | SegmentFile | Unreadable)
        });
        let is_explained = |block: &Range<u64>| {
            records.clone().any(|damage| damage.start < block.end && block.start < damage.end)
        };
        let blocks = of(|kind| kind == FindingKind::Block).filter(|block| !is_explained(block));
        records.clone().chain(blocks).map(|damage| damage.start).min()
    }
}
