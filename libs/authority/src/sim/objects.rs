//! The two objects, as an API server keeps them.

use crate::planted::{self, Planted};
use crate::{Lease, Record, Regression, Version};

#[derive(Default)]
pub(super) struct Objects {
    record: (u64, Record),
    lease: (u64, Lease),
}

impl Objects {
    pub(super) fn read(&self) -> ((Version, Record), (Version, Lease)) {
        let record = (version(self.record.0), self.record.1.clone());
        (record, (version(self.lease.0), self.lease.1))
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
        self.record = (self.record.0 + 1, next);
        Ok(Some(version(self.record.0)))
    }

    pub(super) fn swap_lease(&mut self, expected: &Version, next: Lease) -> Option<Version> {
        if *expected != version(self.lease.0) {
            return None;
        }
        self.lease = (self.lease.0 + 1, next);
        Some(version(self.lease.0))
    }
}

fn version(number: u64) -> Version {
    Version(number.to_string())
}
