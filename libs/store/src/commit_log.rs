//! The segments that make up the log, and which of them holds a position.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::Layout;
use crate::read_ahead::Announcements;
use crate::segment::Segment;
use crate::spare::{self, SpareSegments};

/// So many of the newest segments are read through mappings.
const MAPPED_SEGMENTS: usize = 2;

/// A question for what is in memory takes in so much.
const LOOK_BYTES: u64 = 256 << 10;
/// Records no further apart than this are asked for together.
const NEAR_BYTES: u64 = 32 << 10;

/// What came of a look for records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Here, through the mapping: this process wrote them and they never left memory.
    Mapped,
    /// Here, read from the file. What the disk did to them is not known.
    Read,
    /// The log does not hold all of it inside one segment.
    Gone,
    /// They are not in memory.
    OnDisk,
}

/// Segments without a gap, oldest first. All but the newest end in padding.
///
/// Lock order: `prepared` before `segments`; both are held for a few instructions except where
/// a file is created.
pub(crate) struct CommitLog {
    disk: Arc<dyn Disk>,
    layout: Layout,
    segment_bytes: u64,
    /// Where the log ended at open. What was appended since is likely to be in the page cache and
    /// is read through mappings; what is older may not be, and `pread` reads it ahead.
    opened_at: u64,
    segments: RwLock<VecDeque<Arc<Segment>>>,
    /// Segments that exist on disk behind the newest one and hold no record. More than one only
    /// after an append failed that needed several.
    prepared: Mutex<Vec<Arc<Segment>>>,
    pub(crate) announcements: Announcements,
}

impl CommitLog {
    /// A log of segments found on disk, which follow each other up to the position `end`; those of
    /// `prepared` hold nothing.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        layout: Layout,
        segment_bytes: u64,
        segments: VecDeque<Arc<Segment>>,
        prepared: Vec<Arc<Segment>>,
        end: u64,
    ) -> Self {
        let (segments, prepared) = (RwLock::new(segments), Mutex::new(prepared));
        let announcements = Announcements::default();
        Self { disk, layout, segment_bytes, opened_at: end, segments, prepared, announcements }
    }

    /// Where the oldest segment begins. `None` before the first record.
    pub(crate) fn start(&self) -> Option<u64> {
        self.segments.read().front().map(|segment| segment.start)
    }

    /// The segment that holds a position.
    pub(crate) fn segment_at(&self, position: u64) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let ahead = position.checked_sub(segments.front()?.start)?;
        segments.get(usize::try_from(ahead / self.segment_bytes).ok()?).cloned()
    }

    pub(crate) fn newest(&self) -> Option<Arc<Segment>> {
        self.segments.read().back().cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.segments.read().len()
    }

    /// The segments that hold anything of `[from, to)`, oldest first, and no others: one that
    /// somebody holds while it expires is not recycled.
    pub(crate) fn between(&self, from: u64, to: u64) -> Vec<Arc<Segment>> {
        let holds = |segment: &&Arc<Segment>| segment.start < to && segment.end() > from;
        self.segments.read().iter().filter(holds).cloned().collect()
    }

    /// All segments as they are now, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.segments.read().iter().cloned().collect()
    }

    /// The segment that will begin at `start`: the prepared one, or a new one. It takes no part in
    /// reads before [`CommitLog::adopt`].
    pub(crate) fn prepare(&self, start: u64) -> Result<Arc<Segment>, StoreError> {
        let mut prepared = self.prepared.lock();
        if let Some(found) = prepared.iter().find(|segment| segment.start == start) {
            return Ok(Arc::clone(found));
        }
        // An append may have got there first; its segment must not be taken for an empty one.
        if let Some(found) = self.segment_at(start) {
            return Ok(found);
        }
        let created = Segment::create(&self.disk, &self.layout, start, self.segment_bytes)?;
        if self.segments.read().is_empty() {
            // Later segments may reach the disk in any order, a gap behind the first one shows.
            // Without the first one itself the log would seem to begin with the second.
            self.sync_names()?;
            created.is_listed.store(true, Ordering::Release);
        }
        let created = Arc::new(created);
        prepared.push(Arc::clone(&created));
        Ok(created)
    }

    /// Has the segment behind the newest one prepared before an append needs it, from a spare one
    /// if there is any.
    pub(crate) fn prepare_next(&self, spares: &SpareSegments) -> Result<(), StoreError> {
        let Some(start) = self.newest().map(|newest| newest.end()) else { return Ok(()) };
        if self.prepared.lock().iter().any(|segment| segment.start == start) {
            return Ok(());
        }
        let Some(spare) = spares.make_ready(start)? else { return self.prepare(start).map(|_| ()) };
        let mut prepared = self.prepared.lock();
        // While that took its time an append may have made the segment and even filled it.
        let is_wanted =
            prepared.is_empty() && self.newest().is_some_and(|newest| newest.end() == start);
        if is_wanted {
            prepared.push(spares.put_in_place(spare)?);
        } else {
            spares.put_back(spare);
        }
        Ok(())
    }

    /// The prepared segments, nearest first.
    pub(crate) fn prepared(&self) -> Vec<Arc<Segment>> {
        self.prepared.lock().clone()
    }

    /// After an append failed that needed several segments: `commitlog/` has at most one that
    /// holds nothing.
    pub(crate) fn remove_prepared_but_first(&self) {
        let mut prepared = self.prepared.lock();
        let end = self.newest().map_or(0, |newest| newest.end());
        prepared.retain(|segment| segment.start >= end);
        let kept = prepared.len().min(1);
        for segment in prepared.drain(kept..) {
            if let Err(error) = segment.remove_files(&*self.disk) {
                tracing::warn!(%error, "an empty segment is left behind");
            }
        }
    }

    /// Makes a prepared segment the newest one.
    pub(crate) fn adopt(&self, segment: &Arc<Segment>) {
        let mut prepared = self.prepared.lock();
        prepared.retain(|other| other.start != segment.start);
        self.segments.write().push_back(Arc::clone(segment));
    }

    /// Makes everything in `[from, to)` durable, names of new files included.
    pub(crate) fn sync(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let dirty = self.between(from, to);
        let mut names_pending = false;
        for segment in &dirty {
            segment.sync()?;
            names_pending |= !segment.is_listed.load(Ordering::Acquire);
        }
        if names_pending {
            self.sync_names()?;
            dirty.iter().for_each(|segment| segment.is_listed.store(true, Ordering::Release));
        }
        Ok(())
    }

    fn sync_names(&self) -> Result<(), StoreError> {
        sync_names(&*self.disk, &self.layout)
    }

    /// Whether a segment has left those that most consumers read.
    pub(crate) fn is_old(&self, segment: &Segment) -> bool {
        let segments = self.segments.read();
        segments.iter().rev().take(MAPPED_SEGMENTS).all(|newer| newer.start > segment.start)
    }

    /// Gives up the mappings of all but the newest segments.
    pub(crate) fn unmap_old(&self) {
        self.all().iter().rev().skip(MAPPED_SEGMENTS).for_each(|segment| segment.unmap());
    }

    /// Takes the oldest segment out of the log; readers that hold it may finish.
    pub(crate) fn forget_oldest(&self) {
        self.segments.write().pop_front();
    }

    /// Whether `[position, position + length)` can be read through a mapping without the disk.
    /// `known` is what the caller heard before, so that records near each other are one question.
    pub(crate) fn is_in_memory(
        &self,
        position: u64,
        length: usize,
        known: &mut Range<u64>,
    ) -> bool {
        let end = position + length as u64;
        if position < self.opened_at {
            // Never read through a mapping, so none is made for it.
            return false;
        }
        if !(known.start <= position && end <= known.end) {
            let segment = self.segment_at(position).filter(|segment| end <= segment.end());
            // Each page costs, so of records far apart only their own are asked for.
            let is_near = known.is_empty() || position.abs_diff(known.end) <= NEAR_BYTES;
            let looked_at = if is_near { LOOK_BYTES } else { 0 }.max(length as u64);
            let found = segment.map_or(0, |segment| segment.bytes_in_memory(position, looked_at));
            *known = position..position + found;
        }
        end <= known.end
    }

    /// Appends `[position, position + length)` to `out`, all of it visible records; `is_cold` when
    /// they have left the page cache. Unless the read may wait, the disk is not asked.
    pub(crate) fn read_visible(
        &self,
        position: u64,
        length: usize,
        is_cold: bool,
        may_wait: bool,
        out: &mut Vec<u8>,
    ) -> Result<Found, StoreError> {
        let Some(segment) = self.segment_at(position) else { return Ok(Found::Gone) };
        if segment.end() - position < length as u64 {
            return Ok(Found::Gone);
        }
        let is_hot = position >= self.opened_at && !is_cold;
        if is_hot && segment.append_mapped(position, length, out) {
            return Ok(Found::Mapped);
        }
        let at = out.len();
        out.resize(at + length, 0);
        if let Some(announcement) = segment.read_through(position, length as u64) {
            self.announcements.add(announcement);
        }
        let read = match may_wait {
            false => segment.read_cached(&mut out[at..], position),
            true => segment.read_exact(&mut out[at..], position).map(|()| true),
        };
        match read {
            Ok(true) => Ok(Found::Read),
            Ok(false) => {
                out.truncate(at);
                Ok(Found::OnDisk)
            }
            Err(error) => {
                out.truncate(at);
                Err(error)
            }
        }
    }
}

/// Makes the names of segments durable, and that those which were spare files are none any more: where
/// renames are not atomic a power cut could leave such a one both names, and its next life would take
/// what was promised in this one.
pub(crate) fn sync_names(disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
    let directory = &layout.commit_log;
    disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
    spare::sync_names(disk, layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    #[test]
    fn a_segment_with_records_is_never_prepared_again_nor_removed_as_an_empty_one() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        let layout = Layout::under(std::path::Path::new("/s"));
        layout.directories().iter().for_each(|path| disk.create_directory(path).unwrap());
        let log =
            CommitLog::new(disk.clone(), layout.clone(), 8192, VecDeque::new(), Vec::new(), 0);
        for start in [0, 8192, 16384] {
            log.adopt(&log.prepare(start).unwrap());
        }
        // The background thread looked at the log before these were adopted.
        let late = log.prepare(8192).unwrap();
        assert!(Arc::ptr_eq(&late, &log.segment_at(8192).unwrap()));
        assert!(log.prepared().is_empty());
        log.prepare(24576).unwrap();
        log.prepare(32768).unwrap();
        log.remove_prepared_but_first();
        let names = disk.list(&layout.commit_log).unwrap();
        assert_eq!(names.len(), 4, "three with records and one prepared");
    }
}
