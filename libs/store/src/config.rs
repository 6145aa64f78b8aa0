//! What an operator may choose about a store.

use std::path::PathBuf;
use std::time::Duration;

use crate::dispatch::{self, DispatchRule};
use crate::error::StoreError;
use crate::proof::PROOF_BYTES;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// When written records become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// After `bytes` or `interval`, whichever comes first. A record is visible once written.
    Async { bytes: u64, interval: Duration },
    /// At once, with everything that gathered while the last flush ran. A record is visible once
    /// flushed.
    Sync,
}

impl FlushMode {
    /// 16 MiB or 200 ms.
    pub const ASYNC: Self = Self::Async { bytes: 16 * MIB, interval: Duration::from_millis(200) };
}

/// Settings of one store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where everything lies; made when missing. Default: `weir-data/store`.
    pub directory: PathBuf,
    /// Default: `DefaultCluster`.
    pub cluster: String,
    /// The broker name. Default: `broker-a`.
    pub group: String,
    /// Length of a CommitLog segment; a multiple of 4 KiB, from 4 KiB to 4 GiB. Holds for a
    /// new directory; one that has segments keeps its own length. Default: 1 GiB.
    pub segment_bytes: u64,
    /// Default: [`FlushMode::ASYNC`].
    pub flush: FlushMode,
    /// How far the log may run ahead of the disk. Appends wait at this bound, and recovery tells a
    /// torn tail from damage by it. `None`: 256 MiB, with synchronous flush 8 MiB and 8 KiB.
    pub unflushed_bytes_max: Option<u64>,
    /// Body plus properties of one message. Default: 4 MiB.
    pub message_bytes_max: usize,
    /// How the store looks after itself, as it begins.
    pub upkeep: Upkeep,
    /// How long an append waits at `unflushed_bytes_max` before it gives up. Default: 5 s.
    pub busy_timeout: Duration,
    /// What recovery puts into ConsumeQueue and index for a record that it finds in the log.
    /// Default: [`dispatch::apache_rule`].
    pub dispatch: DispatchRule,
    /// Whether the store runs its flush and background threads. Without them nothing happens
    /// unless [`crate::Store::flush`] and [`crate::Store::maintain`] are called, which is what a
    /// simulation needs. Default: true.
    pub threads: bool,
}

/// How a store looks after itself. This may change while it is open: [`crate::Store::set_upkeep`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// Segments whose newest record is older have expired. Default: 72 h.
    pub retention: Duration,
    /// In these hours of the day, 0 to 23 in the machine's time zone, what has expired is deleted.
    /// Default: 4.
    pub retention_hours: Vec<u8>,
    /// From this share of the disk on, in percent, what has expired is deleted at once, and no
    /// segment is kept for another life. Default: 75.
    pub retention_disk_percent: u8,
    /// Whether segments that have not expired are deleted too, oldest first, from
    /// [`StoreConfig::FORCED_DISK_PERCENT`] of the disk on, or when writes would be refused.
    /// Default: false.
    pub retention_force: bool,
    /// Expired segments that are kept for their next life, whose syncs then cost half. They take
    /// disk space meanwhile; when that is short they are deleted. Default: 8.
    pub spare_segments_max: usize,
    /// Writes are refused below this much free disk. `None`: two segments, or a tenth of the disk
    /// up to 5 GiB, whichever is more. With small segments in a test it is the 5 GiB that count.
    pub free_bytes_min: Option<u64>,
    /// How long the scrub takes to compare the whole log with its checksums; zero: it does not.
    /// Default: 24 h.
    pub scrub_interval: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(72 * 3600),
            retention_hours: vec![4],
            retention_disk_percent: 75,
            retention_force: false,
            spare_segments_max: 8,
            free_bytes_min: None,
            scrub_interval: Duration::from_secs(24 * 3600),
        }
    }
}

impl Upkeep {
    pub(crate) fn retention_ms(&self) -> i64 {
        i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("weir-data/store"),
            cluster: "DefaultCluster".to_owned(),
            group: "broker-a".to_owned(),
            segment_bytes: 1 << 30,
            flush: FlushMode::ASYNC,
            unflushed_bytes_max: None,
            message_bytes_max: 4 << 20,
            upkeep: Upkeep::default(),
            busy_timeout: Duration::from_secs(5),
            dispatch: dispatch::apache_rule,
            threads: true,
        }
    }
}

impl StoreConfig {
    /// Apache's `diskSpaceCleanForciblyRatio`.
    pub const FORCED_DISK_PERCENT: u8 = 85;

    /// # Errors
    /// [`StoreError::Config`] with the first field that cannot work.
    pub fn validate(&self) -> Result<(), StoreError> {
        let refuse = |field, reason: String| Err(StoreError::Config { field, reason });
        let segment = self.segment_bytes;
        if !is_segment_length(segment) {
            return refuse(
                "segment_bytes",
                format!("is {segment}; it must be a multiple of 4096 from 4096 to 4294967296"),
            );
        }
        if self.cluster.is_empty() || self.group.is_empty() {
            return refuse("cluster and group", "must not be empty".to_owned());
        }
        if self.message_bytes_max == 0 || self.message_bytes_max > 1 << 30 {
            return refuse(
                "message_bytes_max",
                format!("is {}; it must be from 1 to 1073741824", self.message_bytes_max),
            );
        }
        // Padding at a segment's end can be nearly as long as the record that did not fit.
        let record_max = (self.message_bytes_max as u64 + 4 * KIB).min(segment);
        let needed = 2 * record_max;
        if self.unflushed_bytes() < needed {
            return refuse(
                "unflushed_bytes_max",
                format!(
                    "is {}; one message of message_bytes_max may need {needed}",
                    self.unflushed_bytes()
                ),
            );
        }
        let hours = &self.upkeep.retention_hours;
        if hours.iter().any(|hour| *hour > 23) {
            return refuse("retention_hours", format!("are {hours:?}; hours go from 0 to 23"));
        }
        let percent = self.upkeep.retention_disk_percent;
        if !(10..=95).contains(&percent) {
            let reason = format!("is {percent}; it must be from 10 to 95");
            return refuse("retention_disk_percent", reason);
        }
        if matches!(self.flush, FlushMode::Async { bytes: 0, .. }) {
            return refuse("flush.bytes", "is 0; choose sync flush instead".to_owned());
        }
        Ok(())
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.flush == FlushMode::Sync
    }

    /// The bound in force.
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        let default = if self.is_sync() { 8 * MIB + 8 * KIB } else { 256 * MIB };
        self.unflushed_bytes_max.unwrap_or(default)
    }

    /// No append takes a longer record: the longest message with the longest topic, and heads.
    pub(crate) fn taken_record_bytes_max(&self) -> usize {
        const HEADS_BYTES: usize = 1024;
        self.record_bytes_max().min(self.message_bytes_max.saturating_add(HEADS_BYTES))
    }

    /// The longest record that a segment takes: behind it is room for the padding's head and for
    /// proofs.
    pub(crate) fn record_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes - PROOF_BYTES - 8).unwrap_or(usize::MAX)
    }
}

/// Whether segments may be so many bytes long.
pub(crate) fn is_segment_length(bytes: u64) -> bool {
    (4 * KIB..=4 << 30).contains(&bytes) && bytes.is_multiple_of(4 * KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_refused_by_name() {
        StoreConfig::default().validate().unwrap();
        StoreConfig { flush: FlushMode::Sync, ..StoreConfig::default() }.validate().unwrap();
        let odd = StoreConfig { segment_bytes: 5000, ..StoreConfig::default() };
        assert!(odd.validate().unwrap_err().to_string().contains("segment_bytes is 5000"));
        let tight = StoreConfig { unflushed_bytes_max: Some(1 << 20), ..StoreConfig::default() };
        assert!(tight.validate().unwrap_err().to_string().contains("unflushed_bytes_max"));
    }
}
