//! How far each level has been delivered: a state table.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::state::StateRecord;

/// The next entry to deliver, by level.
#[derive(Default)]
pub(crate) struct DelayProgress {
    next: Mutex<BTreeMap<usize, u64>>,
}

impl DelayProgress {
    pub(crate) fn get(&self, level: usize) -> u64 {
        self.next.lock().get(&level).copied().unwrap_or_default()
    }

    pub(crate) fn all(&self) -> BTreeMap<usize, u64> {
        self.next.lock().clone()
    }

    pub(crate) fn apply(&self, level: usize, next: u64) {
        self.next.lock().insert(level, next);
    }

    pub(crate) fn records(&self) -> Vec<StateRecord> {
        let levels = self.all().into_iter();
        levels.map(|(level, offset)| StateRecord::DelayProgress { level, offset }).collect()
    }

    pub(crate) fn clear(&self) {
        self.next.lock().clear();
    }
}
