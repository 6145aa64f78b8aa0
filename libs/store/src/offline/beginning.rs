//! Accepts that the first segments of a log are gone.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::is_segment_length;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::{Format, Layout, file_name, parse_file_name};
use crate::log_start::LogStart;
use crate::open::lock;
use crate::queue_file::{QueueFile, StoredPart, block_start};
use crate::queue_table::QueueState;

/// What was given up.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Of the log.
    pub range: Range<u64>,
    /// Queue files of lost segments that are gone as well, or not whole: nobody knows the next
    /// offsets of queues whose messages were all there.
    pub unknown: Vec<PathBuf>,
}

/// Notes that the log begins with the first segment that is there, durably, so that a broker opens
/// the directory, and where the queues of the lost segments go on, as far as queue files still say.
/// `None`, with nothing changed, when nothing is missing there.
///
/// # Errors
/// [`StoreError::InUse`] while a broker holds the directory; [`StoreError::Io`].
pub fn accept_missing_start(
    root: &Path,
    disk: &Arc<dyn Disk>,
) -> Result<Option<GivenUp>, StoreError> {
    let layout = Layout::under(root);
    let _lock = lock(&**disk, &layout)?;
    let directory = &layout.commit_log;
    let files = disk.list(directory).map_err(StoreError::io("list", directory))?;
    let Some(LogStart { start: from }) = LogStart::read(&**disk, &layout)? else {
        return Ok(None);
    };
    let length = segment_bytes(&**disk, &layout)?;
    // A file where no segment can begin is none; the open names it.
    let mut starts = files.iter().filter_map(|file| parse_file_name(&file.name));
    let Some(to) = starts.find(|start| start.is_multiple_of(length)) else {
        return Ok(None);
    };
    if from >= to {
        return Ok(None);
    }
    let mut state = QueueState::read(&**disk, &layout)?;
    let mut unknown = Vec::new();
    for start in (from..to).step_by(length as usize) {
        let path = layout.queues.join(file_name(start));
        let file = QueueFile::new(Arc::clone(disk), path.clone());
        match file.load(start, start + length)? {
            Some(parts) => carry_over(&file, &parts, start, &mut state)?,
            None => unknown.push(path),
        }
    }
    // First: until the start is noted the directory is refused, and this can be done again.
    state.write(&**disk, &layout)?;
    LogStart { start: to }.write(&**disk, &layout)?;
    Ok(Some(GivenUp { range: from..to, unknown }))
}

fn segment_bytes(disk: &dyn Disk, layout: &Layout) -> Result<u64, StoreError> {
    let format = Format::read(disk, layout)?;
    let length = format.map(|format| format.segment_bytes);
    length.filter(|length| is_segment_length(*length)).ok_or_else(|| StoreError::Unreadable {
        path: layout.format(),
        reason: "does not say how long segments are; restore it from a backup".to_owned(),
    })
}

/// Notes where queues go on behind what they have in a segment that is lost. A queue with messages
/// in the segments that are left goes by those.
fn carry_over(
    file: &QueueFile,
    parts: &[StoredPart],
    start: u64,
    state: &mut QueueState,
) -> Result<(), StoreError> {
    for part in parts {
        let is_later = state.forgotten_before(&part.topic) > start;
        // The topic was deleted since this segment began, so its last entry decides.
        if is_later && !outlives(file, part, state)? {
            continue;
        }
        let queues = state.next_offsets.entry(part.topic.clone()).or_default();
        // Segments come in the log's order. A lower offset is that of a topic made anew.
        queues.insert(part.queue_id, part.first + part.count);
    }
    Ok(())
}

/// Whether a part has entries of the topic as it is now.
fn outlives(file: &QueueFile, part: &StoredPart, state: &QueueState) -> Result<bool, StoreError> {
    let Some(last) = part.blocks.len().checked_sub(1) else { return Ok(false) };
    let held = part.count - block_start(last);
    let mut entries = Vec::new();
    file.read_block(part.blocks[last], held, held - 1..held, true, &mut entries)?;
    let position = entries.first().map(|entry| entry.physical_offset);
    Ok(position.is_some_and(|position| !state.is_forgotten(&part.topic, position)))
}
