//! Tells what Apache's broker once cut off its log from what was lost to it.
//!
//! Apache cuts by moving its write position back (`MappedFileQueue.truncateDirtyFiles`) and writes
//! on over what stands there. Whole records of before may stay behind the end, and look like those
//! that follow on damage. Its queues are cut in the same way (`ConsumeQueue.truncateDirtyLogicFiles`),
//! so they may have entries for such remains, but none for a record that begins where the log ends:
//! something else was written up to there.

use std::path::Path;

use crate::apache::{FILLER_SIZE, UNIT_BYTES, Unit, UnitFile, directories};
use crate::checkpoint;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::{Layout, parse_file_name};
use crate::scan::Remains;

/// Entries that are read at once.
const CHUNK_UNITS: u64 = 8192;
/// What Apache deducts from its checkpoint, which it writes while entries are added.
/// Source: `StoreCheckpoint.getMinTimestamp`.
const MARGIN_MS: i64 = 3000;

/// What Apache's queues are good for as witnesses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ApacheCut {
    /// Records that were stored before have their entries on disk, in milliseconds since 1970.
    queues_until_ms: i64,
}

impl ApacheCut {
    /// After a clean stop Apache has written all entries, else those that its checkpoint vouches for.
    pub(crate) fn read(
        disk: &dyn Disk,
        layout: &Layout,
        was_clean: bool,
    ) -> Result<Self, StoreError> {
        let queues_until_ms = match was_clean {
            true => i64::MAX,
            false => checkpoint::queues_flushed_until_ms(disk, layout)?.saturating_sub(MARGIN_MS),
        };
        Ok(Self { queues_until_ms })
    }

    /// Whether `remains` behind `end`, where the log stops being valid, are what Apache cut before
    /// it wrote the last record, which was stored at `last_store_time`.
    ///
    /// Two witnesses have to agree. Apache's queues know the record that ends at `end`, and none
    /// that begins there. And all remains are older than the record in front of them, so they
    /// did not follow on it. A clock that went back deceives only the second, the deletion of
    /// a topic, whose queues go with it, only the first.
    pub(crate) fn explains(
        self,
        disk: &dyn Disk,
        layout: &Layout,
        end: u64,
        last_store_time: Option<i64>,
        remains: &Remains,
    ) -> Result<bool, StoreError> {
        let (Some(newest), Some(last)) = (remains.newest_store_time, last_store_time) else {
            return Ok(false);
        };
        Ok(newest < last && newest < self.queues_until_ms && queues_end_at(disk, layout, end)?)
    }
}

/// Whether Apache's queues know a record that ends at `position` and none that begins there.
fn queues_end_at(disk: &dyn Disk, layout: &Layout, position: u64) -> Result<bool, StoreError> {
    let mut known = Known::default();
    let queues = layout.root.join("consumequeue");
    for topic in directories(disk, &queues)? {
        for queue in directories(disk, &queues.join(&topic))? {
            known.look(disk, &queues.join(&topic).join(queue), position)?;
            if known.begins {
                return Ok(false);
            }
        }
    }
    Ok(known.ends)
}

/// What queues know about a position of the log.
#[derive(Default)]
struct Known {
    /// A record ends there.
    ends: bool,
    /// A record begins there.
    begins: bool,
}

impl Known {
    /// Looks at one queue. Entries lie in the order of the log, except behind the place where the
    /// queue was cut, which is in its newest file with entries or the one before; those are
    /// read through.
    fn look(&mut self, disk: &dyn Disk, directory: &Path, position: u64) -> Result<(), StoreError> {
        let listed = disk.list(directory).map_err(StoreError::io("list", directory))?;
        let mut files = Vec::new();
        for file in listed.iter().filter(|file| parse_file_name(&file.name).is_some()) {
            let path = directory.join(&file.name);
            let units = UnitFile::open(disk, path, file.bytes / UNIT_BYTES)?;
            let used = units.partition_point(|unit| unit.size > 0)?;
            if used > 0 {
                files.push((units, used));
            }
        }
        let newest = files.split_off(files.len().saturating_sub(2));
        for (units, used) in files {
            let at = units.partition_point(|unit| {
                unit.size > 0 && (unit.size == FILLER_SIZE || unit.physical_offset < position)
            })?;
            for unit in units.read_many(at.saturating_sub(1)..(at + 1).min(used))? {
                self.note(&unit, position);
            }
        }
        for (units, used) in newest {
            for from in (0..used).step_by(CHUNK_UNITS as usize) {
                for unit in units.read_many(from..(from + CHUNK_UNITS).min(used))? {
                    self.note(&unit, position);
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, unit: &Unit, position: u64) {
        if unit.size != FILLER_SIZE {
            self.begins |= unit.physical_offset == position;
            self.ends |= unit.physical_offset.saturating_add(u64::from(unit.size)) == position;
        }
    }
}
