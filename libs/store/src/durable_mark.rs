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
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when all versions are damaged: the log may have lost its end with it.
    pub(crate) fn read(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, StoreError> {
        let path = layout.durable_mark();
        let found = small_file::read(disk, &path).and_then(|text| {
            let unreadable = |error: serde_json::Error| StoreError::Unreadable {
                path: path.clone(),
                reason: error.to_string(),
            };
            text.map(|text| serde_json::from_slice(&text).map_err(unreadable)).transpose()
        });
        found.map_err(|error| match error {
            StoreError::Unreadable { path, reason } => StoreError::Unreadable {
                path,
                reason: format!(
                    "{reason}, so nobody says how far the log was on disk; begin anew from a replica, or \
                     have `weir store repair --cut-at-damage` prove the whole log and write this anew"
                ),
            },
            other => other,
        })
    }

    pub(crate) fn write(&self, disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
        small_file::write_json(disk, &layout.durable_mark(), self)
    }
}
