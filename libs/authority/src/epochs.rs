//! Which epoch wrote which part of a log, and where two logs part.

use serde::{Deserialize, Serialize};

/// The first offset that an epoch wrote, which is its epoch record's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    pub epoch: u64,
    pub start: u64,
}

/// The epochs of a log, oldest first, with growing epochs and starts. A cache of the epoch records
/// in the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochTable(Vec<EpochStart>);

impl EpochTable {
    /// The epoch of the log's end; 0 in a log without epochs.
    pub fn last(&self) -> u64 {
        self.0.last().map_or(0, |last| last.epoch)
    }

    /// All of them, oldest first.
    pub fn starts(&self) -> &[EpochStart] {
        &self.0
    }

    /// The epoch that wrote a position of the log; `None` before the first one. Two logs that have
    /// the same there are the same up to there.
    pub fn at(&self, position: u64) -> Option<EpochStart> {
        self.0.iter().rev().find(|entry| entry.start <= position).copied()
    }

    /// Notes an epoch that begins at the log's end. Returns false, and changes nothing, where it
    /// is not above all that are there: such a record is damage or another store's.
    #[must_use]
    pub fn begin(&mut self, epoch: u64, start: u64) -> bool {
        let grows = self.0.last().is_none_or(|last| epoch > last.epoch && start > last.start);
        if grows && epoch > 0 {
            self.0.push(EpochStart { epoch, start });
        }
        grows && epoch > 0
    }

    /// Forgets what a cut at `end` took away.
    pub fn truncate(&mut self, end: u64) {
        self.0.retain(|entry| entry.start < end);
    }

    /// Up to where a log with this table that ends at `end` is the same as the master's.
    ///
    /// Two logs that both have an epoch are the same up to the end of it in the shorter one,
    /// because one master writes an epoch, and follows on what it shared before. Without a common
    /// epoch that is what both had before their first.
    pub fn common_end(&self, end: u64, master: &Self, master_end: u64) -> u64 {
        let common = self.0.iter().rev().find(|own| {
            master.0.iter().any(|other| other.epoch == own.epoch && other.start == own.start)
        });
        let epoch = common.map_or(0, |common| common.epoch);
        self.end_of(epoch, end).min(master.end_of(epoch, master_end))
    }

    /// Where the epoch after this one begins, or the log's end.
    fn end_of(&self, epoch: u64, end: u64) -> u64 {
        self.0.iter().find(|entry| entry.epoch > epoch).map_or(end, |next| next.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(starts: &[(u64, u64)]) -> EpochTable {
        let mut table = EpochTable::default();
        for &(epoch, start) in starts {
            assert!(table.begin(epoch, start));
        }
        table
    }

    #[test]
    fn logs_part_at_the_end_of_the_last_common_epoch() {
        let master = table(&[(1, 0), (2, 100), (4, 300)]);
        assert_eq!(table(&[(1, 0), (2, 100)]).common_end(200, &master, 500), 200);
        assert_eq!(table(&[(1, 0), (2, 100)]).common_end(350, &master, 500), 300);
        assert_eq!(table(&[(1, 0), (2, 100), (3, 250)]).common_end(400, &master, 500), 250);
        assert_eq!(table(&[(1, 0), (2, 100), (4, 300)]).common_end(600, &master, 500), 500);
        assert_eq!(table(&[(3, 0)]).common_end(50, &master, 500), 0);
        assert_eq!(table(&[]).common_end(0, &master, 500), 0);
        assert_eq!(master.at(299), Some(EpochStart { epoch: 2, start: 100 }));
        assert_eq!(table(&[(3, 10)]).at(9), None);
    }

    #[test]
    fn epochs_only_grow() {
        let mut epochs = table(&[(3, 10)]);
        assert!(!epochs.begin(3, 20));
        assert!(!epochs.begin(4, 10));
        assert!(!EpochTable::default().begin(0, 0));
        epochs.truncate(10);
        assert_eq!(epochs.last(), 0);
    }
}
