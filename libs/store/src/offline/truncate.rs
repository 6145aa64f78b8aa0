//! What a replica does to its directory before it follows a master: cuts off what the master does
//! not have, or begins where the master's log does.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cut::{list, take_away};
use crate::config::is_segment_length;
use crate::disk::Disk;
use crate::durable_mark::DurableMark;
use crate::error::StoreError;
use crate::format::{Format, Layout, known_segment_bytes};
use crate::log_start::LogStart;
use crate::open::lock;
use crate::segment::{Segment, remove_if_there};
use crate::small_file::{self, LOST_FILE};

/// A cut that was begun: `weir/cut`. Its zeros reach the disk in any order, and what they leave
/// meanwhile would be taken for damage, so the next open brings it to its end first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cut {
    /// Nothing from here on is left.
    pub(super) at: u64,
    /// The log begins elsewhere from then on.
    #[serde(default)]
    pub(super) begin: Option<Begin>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Begin {
    pub(super) start: u64,
    store_id: Uuid,
}

/// The cut that was begun, if one was.
///
/// # Errors
/// [`StoreError::Unreadable`], as the next open.
pub(super) fn pending(disk: &dyn Disk, layout: &Layout) -> Result<Option<Cut>, StoreError> {
    let path = layout.cut();
    let Some(text) = small_file::read(disk, &path)? else { return Ok(None) };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| StoreError::Unreadable { path, reason: error.to_string() })
}

/// Takes everything from `at` on out of the log, where a record ends, and small files of the
/// store's user that presuppose it. Durable on return; after a crash in between nothing of it has
/// happened, or the next open brings it to its end.
///
/// # Errors
/// [`StoreError::InUse`] while somebody has the store open; [`StoreError::Io`].
pub fn truncate(
    root: &Path,
    disk: &Arc<dyn Disk>,
    at: u64,
    user_files: &[&'static str],
) -> Result<(), StoreError> {
    let layout = Layout::under(root);
    let _lock = lock(&**disk, &layout)?;
    begin_cut(disk, &layout, &Cut { at, begin: None }, user_files)
}

fn begin_cut(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    cut: &Cut,
    user_files: &[&'static str],
) -> Result<(), StoreError> {
    // One that was begun before and not finished reaches further, or elsewhere.
    finish(disk, layout)?;
    for name in user_files {
        small_file::remove(&**disk, &layout.user.join(name))?;
    }
    small_file::write_json(&**disk, &layout.cut(), cut)?;
    finish(disk, layout)
}

/// Makes the cut that was begun, if one was.
pub(crate) fn finish(disk: &Arc<dyn Disk>, layout: &Layout) -> Result<(), StoreError> {
    let Some(cut) = pending(&**disk, layout)? else { return Ok(()) };
    tracing::warn!(position = cut.at, "what this replica has beyond its master's log is cut off");
    // Without a segment there is nothing to take away but marks.
    let bytes = known_segment_bytes(&**disk, layout)?.unwrap_or(1);
    take_away(disk, layout, cut.at, bytes)?;
    if let Some(begin) = cut.begin {
        begin_empty(disk, layout, begin)?;
    }
    small_file::remove(&**disk, &layout.cut())
}

/// Has an empty log begin at `start`. May be done again after a crash in between.
fn begin_empty(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    Begin { start, store_id }: Begin,
) -> Result<(), StoreError> {
    let Some(format) = Format::read(&**disk, layout)? else { return Ok(()) };
    let bytes = format.segment_bytes;
    // Twice, so that the version before does not promise anything either.
    for _ in 0..2 {
        if let Some(mark) = DurableMark::read(&**disk, layout)? {
            DurableMark { flushed: 0, ..mark }.write(&**disk, layout)?;
        }
    }
    small_file::remove(&**disk, &layout.queue_state())?;
    small_file::write_json(&**disk, &layout.format(), &Format { store_id, ..format })?;
    for old in list(&**disk, layout, bytes)? {
        remove_if_there(&**disk, &layout.commit_log.join(crate::format::file_name(old)))?;
    }
    Segment::create(disk, layout, start, bytes)?.sync()?;
    disk.sync_directory(&layout.commit_log).map_err(StoreError::io("sync", &layout.commit_log))?;
    LogStart { start }.write(&**disk, layout)
}

/// Has the log of a store begin at `start`, empty, and makes it one of the logs of `store_id`:
/// what it had is gone, which [`crate::Store::lost`] says from then on, and so are these small files of
/// the store's user. Durable on return; after a crash in between nothing of it has happened, or the
/// next open brings it to its end.
///
/// # Errors
/// [`StoreError::InUse`] while somebody has the store open; [`StoreError::Unreadable`] if its
/// segments have another length; [`StoreError::Io`].
pub fn begin_at(
    root: &Path,
    disk: &Arc<dyn Disk>,
    start: u64,
    store_id: Uuid,
    user_files: &[&'static str],
) -> Result<(), StoreError> {
    let layout = Layout::under(root);
    let unreadable = |reason: &str| {
        Err(StoreError::Unreadable { path: layout.root.clone(), reason: reason.to_owned() })
    };
    let Some(format) = Format::read(&**disk, &layout)? else {
        return unreadable("nobody has opened this store yet");
    };
    let bytes = format.segment_bytes;
    if !is_segment_length(bytes) || !start.is_multiple_of(bytes) {
        return unreadable("no segment of this store's length begins there");
    }
    let _lock = lock(&**disk, &layout)?;
    let at = list(&**disk, &layout, bytes)?.first().copied().unwrap_or(0);
    let begin = Some(Begin { start, store_id });
    // Before anything is gone: who is believed to have what it confirmed could be elected without it.
    small_file::write(&**disk, &layout.user.join(LOST_FILE), b"its log began anew")?;
    begin_cut(disk, &layout, &Cut { at, begin }, user_files)
}
