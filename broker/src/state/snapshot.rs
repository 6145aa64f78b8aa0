//! A copy of the state in a file, so that a start does not replay from the newest image.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weirmq_store::{QueueRange, Store, StoreError};

use super::image::Image;
use super::log::State;
use super::planted;
use super::record::StateRecord;

/// The file's name under the store's `weir/`.
pub(crate) const FILE: &str = "state-snapshot.json";

/// What the file says. The records, `R`, are written and read one by one: all at once, as values of
/// JSON, those of 100,000 topics take 200 MB.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot<R> {
    /// Entries of the state topic's queue that are contained.
    applied: u64,
    /// Bytes of the log that it presupposes.
    position: u64,
    /// Where the newest image of the log begins and ends.
    newest_image: (u64, u64),
    records: R,
}

struct Written<'a>(&'a [StateRecord]);

struct Read(StateRecord);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.collect_seq(self.0.iter().map(StateRecord::versioned))
    }
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = serde_json::Value::deserialize(from)?.to_string();
        StateRecord::decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
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
    let snapshot: Snapshot<Vec<Read>> = match serde_json::from_slice(&bytes) {
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
    let records = snapshot.records.into_iter().map(|Read(record)| record).collect();
    Some(Image::from_parts(records, snapshot.applied, snapshot.position, snapshot.newest_image))
}

impl State {
    /// Writes a snapshot of this moment, after making the log durable up to it.
    pub(crate) fn write_snapshot(&self) -> Result<(), StoreError> {
        let image = self.image();
        // A snapshot may never know more than the log does after a power cut.
        let is_on_disk = self.store().watermarks().flushed() >= image.position();
        if !is_on_disk && !planted::is_snapshot_ahead() {
            self.store().flush()?;
        }
        let snapshot = Snapshot {
            applied: image.applied(),
            position: image.position(),
            newest_image: image.newest_image(),
            records: Written(image.records()),
        };
        let bytes = serde_json::to_vec(&snapshot).unwrap_or_default();
        self.store().write_small_file(FILE, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::Topic;

    #[test]
    fn records_come_back_in_whatever_order_their_fields_stand() {
        let records = [
            StateRecord::Topic { topic: Topic::new("t", 4) },
            StateRecord::TopicDeleted { name: "gone".into() },
        ];
        let (applied, position, newest_image) = (7, 1 << 40, (1, 2));
        let written = Snapshot { applied, position, newest_image, records: Written(&records) };
        let text = serde_json::to_string(&written).unwrap();
        // As a value the fields are sorted by name, as they stand in the files of older programs.
        let sorted = serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string();
        assert_ne!(text, sorted);
        for text in [text, sorted] {
            let read: Snapshot<Vec<Read>> = serde_json::from_str(&text).unwrap();
            assert_eq!((read.applied, read.position), (applied, position));
            assert!(read.records.iter().map(|Read(record)| record).eq(&records));
        }
        let future = r#"{"applied":1,"position":1,"newest_image":[0,0],"records":[{"version":2}]}"#;
        assert!(serde_json::from_str::<Snapshot<Vec<Read>>>(future).is_err());
    }
}
