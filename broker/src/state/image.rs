//! The state as a whole, as a list of ordinary state records.

use serde::{Deserialize, Serialize};
use weirmq_message::Record;

use super::log::State;
use super::record::StateRecord;

/// So many offsets go into one record: it stays far below 1 MiB with names of any length.
pub(super) const OFFSETS_PER_RECORD: usize = 1000;

/// The newest record of state that a copy contains. A log that has another one in its place is not the
/// log that the copy was made of, or not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LastRecord {
    pub(super) position: u64,
    stored: i64,
    body_crc: u32,
}

impl LastRecord {
    pub(super) fn new(position: u64, stored: i64, body: &[u8]) -> Self {
        Self { position, stored, body_crc: crc32fast::hash(body) }
    }

    pub(super) fn of(record: &Record<'_>) -> Self {
        Self::new(record.physical_offset, record.store_timestamp, record.body)
    }
}

/// A complete copy of the state at one moment.
pub(crate) struct Image {
    records: Vec<StateRecord>,
    /// Entries of the state topic's queue that the copy contains.
    applied: u64,
    /// The last of them; `None` where this process has read none.
    last: Option<LastRecord>,
    /// Position in the log that has to be durable before the copy may stand for it.
    position: u64,
    /// Where the newest image of the log begins and ends; both 0 before the first.
    newest_image: (u64, u64),
}

impl Image {
    pub(super) fn of(state: &State) -> Self {
        let topics = state.topics.logged().into_iter();
        let mut records: Vec<_> =
            topics.map(|topic| StateRecord::Topic { topic: (*topic).clone() }).collect();
        let groups = state.groups.logged().into_iter();
        records.extend(groups.map(|g| StateRecord::Group { group: Box::new((*g).clone()) }));
        for chunk in state.offsets.all().chunks(OFFSETS_PER_RECORD) {
            records.push(StateRecord::Offsets { offsets: chunk.to_vec() });
        }
        records.extend(state.order_locks.records());
        records.extend(state.delay.records());
        Self { records, applied: 0, last: None, position: 0, newest_image: state.newest_image() }
    }

    pub(super) fn at(self, applied: u64, last: Option<LastRecord>, position: u64) -> Self {
        Self { applied, last, position, ..self }
    }

    pub(super) fn from_parts(
        records: Vec<StateRecord>,
        applied: u64,
        last: Option<LastRecord>,
        position: u64,
        newest_image: (u64, u64),
    ) -> Self {
        Self { records, applied, last, position, newest_image }
    }

    pub(super) fn records(&self) -> &[StateRecord] {
        &self.records
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    pub(super) fn last(&self) -> Option<LastRecord> {
        self.last
    }

    pub(super) fn newest_image(&self) -> (u64, u64) {
        self.newest_image
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }
}
