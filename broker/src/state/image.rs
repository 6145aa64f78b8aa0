//! The state as a whole, as a list of ordinary state records.

use super::log::State;
use super::record::StateRecord;

/// So many offsets go into one record: it stays far below 1 MiB with names of any length.
pub(super) const OFFSETS_PER_RECORD: usize = 1000;

/// A complete copy of the state at one moment.
pub(crate) struct Image {
    records: Vec<StateRecord>,
    /// Entries of the state topic's queue that the copy contains.
    applied: u64,
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
        Self { records, applied: 0, position: 0, newest_image: state.newest_image() }
    }

    pub(super) fn at(self, applied: u64, position: u64) -> Self {
        Self { applied, position, ..self }
    }

    pub(super) fn from_parts(
        records: Vec<StateRecord>,
        applied: u64,
        position: u64,
        newest_image: (u64, u64),
    ) -> Self {
        Self { records, applied, position, newest_image }
    }

    pub(super) fn records(&self) -> &[StateRecord] {
        &self.records
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    pub(super) fn newest_image(&self) -> (u64, u64) {
        self.newest_image
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }
}
