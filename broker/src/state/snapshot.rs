//! A copy of the state in a file, so that a start does not replay from the newest image.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weirmq_message::record::records;
use weirmq_store::{Store, StoreError};

use super::image::{Image, LastRecord};
use super::log::{STATE_QUEUE, State};
use super::planted;
use super::record::StateRecord;
use crate::topics::STATE_TOPIC;

/// The file's name under the store's `weir/`.
pub(crate) const FILE: &str = "state-snapshot.json";

/// What the file says. The records, `R`, are written and read one by one: all at once, as values of
/// JSON, those of 100,000 topics take 200 MB.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot<R> {
    /// Entries of the state topic's queue that are contained.
    applied: u64,
    /// The last of them. Without one the file counts for nothing.
    last: Option<LastRecord>,
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
/// One that cannot be read is left aside: the log says the same, only slower. One that presupposes
/// more log than there is, or another one, is removed: the log lost its end to a cut, will be as long
/// again some day, and will not say then what it said.
///
/// # Errors
/// When it has to be removed and cannot be.
pub(super) fn load(store: &Store) -> Result<Option<Image>, StoreError> {
    let image = match read(store) {
        Ok(image) => image,
        Err(error) => return Ok(leave_aside(error)),
    };
    let Some(image) = image else { return Ok(None) };
    match is_of_this_log(store, &image) {
        Ok(true) => Ok(Some(image)),
        Ok(false) => {
            tracing::warn!("state snapshot is not one of this log, which is replayed instead");
            if !planted::is_any_snapshot_believed() {
                store.remove_small_file(FILE)?;
            }
            Ok(None)
        }
        Err(error) => Ok(leave_aside(error)),
    }
}

fn leave_aside(error: impl std::fmt::Display) -> Option<Image> {
    tracing::warn!(%error, "state snapshot left aside, the log is replayed instead");
    None
}

fn read(store: &Store) -> Result<Option<Image>, Box<dyn std::error::Error>> {
    let Some(bytes) = store.read_small_file(FILE)? else { return Ok(None) };
    let Snapshot { applied, last, position, newest_image, records } =
        serde_json::from_slice::<Snapshot<Vec<Read>>>(&bytes)?;
    let records = records.into_iter().map(|Read(record)| record).collect();
    Ok(Some(Image::from_parts(records, applied, last, position, newest_image)))
}

/// Whether the log is as long as the image presupposes and has its last record where that was.
fn is_of_this_log(store: &Store, image: &Image) -> Result<bool, StoreError> {
    if image.position() > store.watermarks().written() {
        return Ok(false);
    }
    if planted::is_any_snapshot_believed() {
        let range = store.queue_range(STATE_TOPIC, STATE_QUEUE);
        return Ok(range.is_some_and(|range| image.applied() <= range.max));
    }
    let (Some(last), Some(offset)) = (image.last(), image.applied().checked_sub(1)) else {
        return Ok(false);
    };
    let entry = store.queue_entry(STATE_TOPIC, STATE_QUEUE, offset)?;
    if entry.is_none_or(|entry| entry.physical_offset != last.position) {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    store.read_record(last.position, &mut bytes)?;
    let record = records(&bytes).next();
    Ok(matches!(record, Some(Ok(record)) if LastRecord::of(&record) == last))
}

impl State {
    /// Writes a snapshot of this moment, after making the log durable up to it.
    pub(crate) fn write_snapshot(&self) -> Result<(), StoreError> {
        // A start from here does not read the record that says that a topic was deleted.
        self.finish_deletions()?;
        let image = self.image();
        // A snapshot may never know more than the log does after a power cut.
        if self.store().watermarks().flushed() < image.position() {
            self.store().flush()?;
        }
        let snapshot = Snapshot {
            applied: image.applied(),
            last: image.last(),
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
        let last = Some(LastRecord::new(5, 6, b"body"));
        let written =
            Snapshot { applied, last, position, newest_image, records: Written(&records) };
        let text = serde_json::to_string(&written).unwrap();
        // As a value the fields are sorted by name, as they stand in the files of older programs.
        let sorted = serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string();
        assert_ne!(text, sorted);
        for text in [text, sorted] {
            let read: Snapshot<Vec<Read>> = serde_json::from_str(&text).unwrap();
            assert_eq!((read.applied, read.last, read.position), (applied, last, position));
            assert!(read.records.iter().map(|Read(record)| record).eq(&records));
        }
        let future = r#"{"applied":1,"last":null,"position":1,"newest_image":[0,0],"records":[{"version":2}]}"#;
        assert!(serde_json::from_str::<Snapshot<Vec<Read>>>(future).is_err());
    }
}
