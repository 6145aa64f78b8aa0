//! The two objects, as an API server keeps them, and what becomes of the record when somebody
//! restores or deletes it.

use super::random::Random;
use crate::planted::{self, Planted};
use crate::{Lease, Record, Regression, Version};

/// What a read finds.
pub(super) type Found = ((Version, Record), (Version, Lease));

/// So many of the last states can still be read by a stale read.
const STALE_MAX: usize = 6;

#[derive(Default)]
pub(super) struct Objects {
    record: (u64, Record),
    lease: (u64, Lease),
    /// What stood there before, oldest first.
    past: Vec<Record>,
    stale: Vec<Found>,
    marked: Record,
    /// The record from before it was damaged, while it is.
    newest: Option<Record>,
    /// Whether it was damaged ever.
    pub(super) was_damaged: bool,
    /// Somebody swapped a record that was damaged.
    pub(super) is_forked: bool,
}

impl Objects {
    pub(super) fn read(&self) -> Found {
        let record = (version(self.record.0), self.record.1.clone());
        (record, (version(self.lease.0), self.lease.1))
    }

    pub(super) fn record_version(&self) -> u64 {
        self.record.0
    }

    /// What stood there a moment ago.
    pub(super) fn read_stale(&self, random: &mut Random) -> Found {
        let place = random.below(self.stale.len() as u64) as usize;
        self.stale.get(place).cloned().unwrap_or_else(|| self.read())
    }

    /// The new version, or nothing where the expected one is not there.
    ///
    /// # Errors
    /// A change that no correct replica makes.
    pub(super) fn swap_record(
        &mut self,
        expected: &Version,
        next: Record,
    ) -> Result<Option<Version>, Regression> {
        if *expected != version(self.record.0) {
            return Ok(None);
        }
        match self.record.1.check_next(&next) {
            // What a replica asks for has to be right without this last line of defence.
            Err(Regression::ElectedOutside(_)) if planted::is_on(Planted::ElectOutsideTheSet) => {}
            checked => checked?,
        }
        self.is_forked |= self.newest.is_some();
        self.put(next);
        Ok(Some(version(self.record.0)))
    }

    pub(super) fn swap_lease(&mut self, expected: &Version, next: Lease) -> Option<Version> {
        if *expected != version(self.lease.0) {
            return None;
        }
        self.remember();
        self.lease = (self.lease.0 + 1, next);
        Some(version(self.lease.0))
    }

    /// Somebody puts an old copy in its place.
    pub(super) fn restore(&mut self, random: &mut Random) {
        // Mostly a young one.
        let back = 1 + random.below(4) * random.below(4);
        let place = self.past.len().saturating_sub(back as usize);
        let Some(copy) = self.past.get(place).cloned() else { return };
        self.damage(copy);
    }

    /// Somebody makes a copy of it.
    pub(super) fn mark(&mut self) {
        self.marked = self.record.1.clone();
    }

    /// Somebody puts that copy in its place.
    pub(super) fn restore_marked(&mut self) {
        self.damage(self.marked.clone());
    }

    /// Somebody deletes it, and makes another one.
    pub(super) fn delete(&mut self) {
        self.damage(Record::default());
    }

    pub(super) fn delete_lease(&mut self) {
        self.remember();
        self.lease = (self.lease.0 + 1, Lease::default());
    }

    /// Somebody puts the record from before it was damaged back.
    pub(super) fn put_back(&mut self) {
        if let Some(newest) = self.newest.take() {
            self.put(newest);
        }
    }

    fn damage(&mut self, copy: Record) {
        self.was_damaged = true;
        let newest = self.record.1.clone();
        self.newest.get_or_insert(newest);
        self.put(copy);
    }

    fn put(&mut self, record: Record) {
        self.remember();
        self.past.push(self.record.1.clone());
        self.record = (self.record.0 + 1, record);
    }

    fn remember(&mut self) {
        self.stale.push(self.read());
        let surplus = self.stale.len().saturating_sub(STALE_MAX);
        self.stale.drain(..surplus);
    }
}

fn version(number: u64) -> Version {
    Version(number.to_string())
}
