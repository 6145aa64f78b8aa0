//! Accepts that the first segments of a log are gone.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::{Layout, parse_file_name};
use crate::log_start::LogStart;
use crate::open::lock;

/// Notes that the log begins with the first segment that is there, durably, so that a broker opens
/// the directory; the answer is the range of the log that is given up. `None`, with nothing
/// changed, when nothing is missing there.
///
/// # Errors
/// [`StoreError::InUse`] while a broker holds the directory; [`StoreError::Io`].
pub fn accept_missing_start(
    root: &Path,
    disk: &Arc<dyn Disk>,
) -> Result<Option<Range<u64>>, StoreError> {
    let layout = Layout::under(root);
    let _lock = lock(&**disk, &layout)?;
    let directory = &layout.commit_log;
    let files = disk.list(directory).map_err(StoreError::io("list", directory))?;
    let first = files.iter().find_map(|file| parse_file_name(&file.name));
    let noted = LogStart::read(&**disk, &layout)?;
    match (noted, first) {
        (Some(LogStart { start: from }), Some(to)) if from < to => {
            LogStart { start: to }.write(&**disk, &layout)?;
            Ok(Some(from..to))
        }
        _ => Ok(None),
    }
}
