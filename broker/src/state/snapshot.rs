//! A copy of the state in a file, so that a start does not replay from the newest image.

use serde::{Deserialize, Serialize};
use weirmq_store::{QueueRange, Store, StoreError};

use super::image::Image;
use super::log::State;
use super::record::StateRecord;

/// The file's name under the store's `weir/`.
pub(crate) const FILE: &str = "state-snapshot.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    /// Entries of the state topic's queue that are contained.
    applied: u64,
    /// Bytes of the log that it presupposes.
    position: u64,
    /// Where the newest image of the log begins and ends.
    newest_image: (u64, u64),
    records: Vec<serde_json::Value>,
}

/// The snapshot in the store's directory, if it is one of this log.
///
/// A snapshot that cannot be read, or that presupposes more log than there is, is left aside: the
/// log says the same, only slower.
pub(super) fn load(store: &Store, range: &QueueRange) -> Option<Image> {
    let bytes = match store.read_small_file(FILE) {
        Ok(bytes) => bytes?,
        Err(error) => {
            tracing::warn!(%error, "state snapshot left aside, the log is replayed instead");
            return None;
        }
    };
    let snapshot: Snapshot = match serde_json::from_slice(&bytes) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::warn!(%error, "state snapshot left aside, the log is replayed instead");
            return None;
        }
    };
    let is_covered = snapshot.position <= store.watermarks().written()
        && (range.min..=range.max).contains(&snapshot.applied);
    if !is_covered {
        tracing::warn!("state snapshot is ahead of the log, the log is replayed instead");
        return None;
    }
    let records = snapshot.records.iter().map(|record| {
        let bytes = record.to_string();
        StateRecord::decode(bytes.as_bytes())
    });
    let records: Result<Vec<_>, _> = records.collect();
    match records {
        Ok(records) => Some(Image::from_parts(
            records,
            snapshot.applied,
            snapshot.position,
            snapshot.newest_image,
        )),
        Err(error) => {
            tracing::warn!(%error, "state snapshot left aside, the log is replayed instead");
            None
        }
    }
}

impl State {
    /// Writes a snapshot of this moment, after making the log durable up to it.
    pub(crate) fn write_snapshot(&self) -> Result<(), StoreError> {
        let image = self.image();
        // A snapshot may never know more than the log does after a power cut.
        if self.store().watermarks().flushed() < image.position() {
            self.store().flush()?;
        }
        let records = image.records().iter().map(|record| {
            serde_json::from_slice(&record.encode()).unwrap_or(serde_json::Value::Null)
        });
        let snapshot = Snapshot {
            applied: image.applied(),
            position: image.position(),
            newest_image: image.newest_image(),
            records: records.collect(),
        };
        let bytes = serde_json::to_vec(&snapshot).unwrap_or_default();
        self.store().write_small_file(FILE, &bytes)
    }
}
