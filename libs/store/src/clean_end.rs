//! What lies behind the end of a log that was closed: nothing.
//!
//! A clean stop leaves one prepared segment there at most, and no byte in it. After a crash records
//! may stand in files behind the end, and recovery judges them; after a clean stop somebody has put
//! them there, or what stood between is gone. Neither may be written over or deleted.

use std::sync::Arc;

use crate::error::StoreError;
use crate::scan::search;
use crate::segment::Segment;

/// The first file behind `end` that holds something, as the damage that it is. `None`: all is well.
///
/// # Errors
/// [`StoreError::Io`] when a file cannot be read.
pub(crate) fn found_behind<'a>(
    segments: impl IntoIterator<Item = &'a Arc<Segment>>,
    end: u64,
) -> Result<Option<StoreError>, StoreError> {
    for segment in segments.into_iter().filter(|segment| segment.start >= end) {
        let remains = search(segment, segment.start, segment.end())?;
        let Some(to) = remains.end else { continue };
        let (path, records) = (segment.path.display(), remains.records);
        let reason = format!(
            "the log was closed with its end there, but {path} behind it holds {records} whole records \
             or other bytes; somebody put it there, then move it away, or the log lost what stood \
             between, then put that back"
        );
        return Ok(Some(StoreError::Damaged { from: end, to, reason }));
    }
    Ok(None)
}
