//! Takes the end of Apache's queues away, together with that of the log.

use std::path::Path;

use super::cut::{copy_range, zero};
use crate::apache::{UNIT_BYTES, directories};
use crate::apache_ahead::{is_behind, open_units, unit_files};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::Layout;

/// Overwrites the entries of Apache's queues for what lies at or behind `at` with zeros, durably, which is
/// where Apache's broker and we take a queue to end. Files that are changed are copied to
/// `backup/consumequeue` before. May be done again after a crash in between.
pub(super) fn cut_apache_queues(
    disk: &dyn Disk,
    layout: &Layout,
    at: u64,
    backup: &Path,
) -> Result<(), StoreError> {
    let (queues, backup) = (layout.root.join("consumequeue"), backup.join("consumequeue"));
    for topic in directories(disk, &queues)? {
        for queue in directories(disk, &queues.join(&topic))? {
            let (from, to) = (queues.join(&topic).join(&queue), backup.join(&topic).join(&queue));
            for name in unit_files(disk, &from)? {
                cut_file(disk, &from, &to, &name, at)?;
            }
        }
    }
    Ok(())
}

fn cut_file(
    disk: &dyn Disk,
    directory: &Path,
    backup: &Path,
    name: &str,
    at: u64,
) -> Result<(), StoreError> {
    let units = open_units(disk, directory, name)?;
    let used = units.partition_point(|unit| unit.size > 0)?;
    let kept = units.partition_point(|unit| unit.size > 0 && !is_behind(unit, at))?;
    if kept >= used {
        return Ok(());
    }
    let path = directory.join(name);
    disk.create_directory(backup).map_err(StoreError::io("create directory", backup))?;
    copy_range(disk, &path, 0..used * UNIT_BYTES, &backup.join(name))?;
    disk.sync_directory(backup).map_err(StoreError::io("sync", backup))?;
    zero(disk, &path, kept * UNIT_BYTES, used * UNIT_BYTES)
}
