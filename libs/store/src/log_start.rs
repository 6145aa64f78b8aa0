//! Where the log begins, so that a lost first segment is not taken for an expired one:
//! `weir/log-start`.

use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::Layout;
use crate::small_file;

/// Nothing from `start` on was ever deleted. What lies before may still be there: this is written
/// before the segments that it gives up are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogStart {
    /// The position where a segment begins.
    pub(crate) start: u64,
}

impl LogStart {
    /// `None` when nobody wrote one yet, and when it is damaged: its last version may claim what
    /// has expired since.
    pub(crate) fn read(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, StoreError> {
        let path = layout.log_start();
        let Some(text) = small_file::read_newest(disk, &path)? else { return Ok(None) };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| StoreError::Unreadable { path, reason: error.to_string() })
    }

    pub(crate) fn write(&self, disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
        small_file::write_json(disk, &layout.log_start(), self)
    }
}
