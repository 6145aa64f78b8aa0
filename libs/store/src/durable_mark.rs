//! How far the log is known to be on disk: `weir/durable-mark`.

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::Layout;
use crate::small_file;

/// Recovery believes everything below `flushed` and starts there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DurableMark {
    /// A position at which a record ends, or at which a segment does.
    pub(crate) flushed: u64,
    /// The bound in force when the mark was written: no record stood further ahead of the disk.
    pub(crate) unflushed_bytes_max: u64,
}

impl DurableMark {
    /// `None` when nobody wrote one yet, as in a directory that Apache made.
    pub(crate) fn read(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, StoreError> {
        let path = layout.durable_mark();
        let Some(text) = small_file::read(disk, &path)? else { return Ok(None) };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| StoreError::Unreadable { path, reason: error.to_string() })
    }

    pub(crate) fn write(&self, disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
        small_file::write_json(disk, &layout.durable_mark(), self)
    }
}
