//! Apache's `checkpoint`: how far its broker knows its files to be on disk.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | store time of the last message that was on disk, ms since 1970 |
//! | 8 | the same for the ConsumeQueue |
//! | 8 | the same for the index |
//! | 8 | flushed end of the master's log, in bytes |
//! | 8 | confirmed end of the log, in bytes |
//! | 8 | from 5.5 on: the position up to which the ConsumeQueue was on disk |
//!
//! Big-endian, in a file of 4 KiB. Source: `StoreCheckpoint`.

use crate::disk::{Disk, OpenMode};
use crate::error::StoreError;
use crate::format::Layout;
use crate::segment::remove_if_there;

const FILE_BYTES: u64 = 4096;

/// When the last message was stored that Apache knew to be on disk, in milliseconds since 1970.
/// 0 without a checkpoint, or with one that is shorter than its first field.
pub(crate) fn flushed_until_ms(disk: &dyn Disk, layout: &Layout) -> Result<i64, StoreError> {
    field(disk, layout, 0)
}

/// The same for the last message whose ConsumeQueue entry was on disk.
pub(crate) fn queues_flushed_until_ms(disk: &dyn Disk, layout: &Layout) -> Result<i64, StoreError> {
    field(disk, layout, 1)
}

fn field(disk: &dyn Disk, layout: &Layout, number: u64) -> Result<i64, StoreError> {
    let path = layout.checkpoint();
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    let mut field = [0; 8];
    let read = file.read_at(&mut field, number * 8).map_err(StoreError::io("read", &path))?;
    Ok(if read == field.len() { i64::from_be_bytes(field) } else { 0 })
}

/// Writes what is true of a log that is on disk up to `end`, where the last message was stored at
/// `flushed_until_ms` or earlier. The fields of ConsumeQueue and index are 0: there is none of
/// Apache's, so it has to derive them from the beginning.
pub(crate) fn write(
    disk: &dyn Disk,
    layout: &Layout,
    flushed_until_ms: i64,
    end: u64,
) -> Result<(), StoreError> {
    let path = layout.checkpoint();
    remove_if_there(disk, &path)?;
    let mut page = Vec::with_capacity(48);
    for field in [flushed_until_ms, 0, 0, end as i64, end as i64, 0] {
        page.extend_from_slice(&field.to_be_bytes());
    }
    let write = || {
        let file = disk.open(&path, OpenMode::Replace)?;
        file.set_len(FILE_BYTES)?;
        file.write_all_at(&page, 0)?;
        Ok(file)
    };
    let file = write().map_err(StoreError::io("write", &path))?;
    file.sync().map_err(StoreError::io("sync", &path))
}
