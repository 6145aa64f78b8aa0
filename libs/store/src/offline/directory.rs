//! Opens a directory without changing it.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::report::{Finding, FindingKind};
use super::truncate;
use crate::apache;
use crate::config::{StoreConfig, Upkeep, is_segment_length};
use crate::disk::{Disk, OpenMode, ReadOnlyDisk, ReadOnlyFile, Unreadable};
use crate::durable_mark::DurableMark;
use crate::error::StoreError;
use crate::format::{Format, Layout, parse_file_name, segment_bytes_of};
use crate::log_start::LogStart;
use crate::open::{evidence, was_closed};
use crate::proof::Proofs;
use crate::queue_table::QueueState;
use crate::recover::{Evidence, excess_problem, length_problem};
use crate::segment::Segment;

/// A segment's length where nothing says it.
const SEGMENT_BYTES_DEFAULT: u64 = 1 << 30;

/// A directory that is only looked at. While it lives no broker can open the directory.
pub struct Directory {
    /// Refuses changes.
    pub(super) disk: Arc<dyn Disk>,
    pub(super) layout: Layout,
    pub(super) format: Option<Format>,
    pub(super) segment_bytes: u64,
    /// Not after Apache's broker, which may have cut the log below it and written on.
    pub(super) mark: Option<DurableMark>,
    /// There is a durable mark, and no version of it is whole.
    pub(super) is_mark_damaged: bool,
    /// Apache's broker used the directory last. The next open reads the whole log then, and derives
    /// everything again.
    pub(super) was_apache: bool,
    /// Up to where everything was on disk before Apache's broker came.
    pub(super) marked_before_apache: Option<u64>,
    /// Segments whose block checksums the next open computes anew, because somebody without them
    /// may have changed the end of the log.
    pub(super) unjudged: Vec<u64>,
    /// Nothing from here on has expired; `None` where nobody says so.
    pub(super) noted_start: Option<u64>,
    pub(super) queue_state: QueueState,
    /// A replica had begun to cut its log, and the next open goes on with that.
    pub(super) pending_cut: Option<truncate::Cut>,
    /// Whoever used the directory last closed it.
    pub(super) was_closed: bool,
    /// Oldest first; there may be gaps.
    pub(super) segments: Vec<Arc<Segment>>,
    /// What was wrong with names, lengths and small files.
    pub(super) problems: Vec<Finding>,
    pub(super) unreadable: Arc<Mutex<Vec<Unreadable>>>,
    /// A process uses the directory, so everything may change while it is looked at.
    pub(super) is_in_use: bool,
    _lock: Option<Box<dyn Send + Sync>>,
}

impl Directory {
    /// Opens the directory of a store, Apache's or ours, however damaged.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be listed, [`StoreError::Unreadable`] when it holds no
    /// CommitLog, [`StoreError::OtherOwner`], [`StoreError::NewerFormat`].
    pub fn open(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        Self::open_unnamed(path, disk).map_err(|error| error.name_owner(path))
    }

    fn open_unnamed(path: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk(disk));
        let layout = Layout::under(path);
        let (lock, is_in_use) = match disk.lock_existing(&layout.lock()) {
            Ok(lock) => (lock, false),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (None, true),
            Err(error) => return Err(StoreError::io("lock", &layout.lock())(error)),
        };
        let mut problems = Vec::new();
        let was_apache = apache::was_here(&*disk, &layout)?;
        let format = tolerate(Format::read(&*disk, &layout), &mut problems)?.flatten();
        let mark = DurableMark::read(&*disk, &layout);
        let is_mark_damaged = matches!(mark, Err(StoreError::Unreadable { .. }));
        let mark = tolerate(mark, &mut problems)?.flatten();
        let marked_before_apache = mark.filter(|_| was_apache).map(|mark| mark.flushed);
        let mark = mark.filter(|_| !was_apache);
        let unjudged = match mark {
            Some(_) => Vec::new(),
            None if is_mark_damaged && !was_apache => Vec::new(),
            None => newest_sums(&*disk, &layout)?,
        };
        let noted = tolerate(LogStart::read(&*disk, &layout), &mut problems)?.flatten();
        // Apache's broker may have deleted what had expired.
        let noted = noted.filter(|_| !was_apache);
        let queue_state = tolerate(QueueState::read(&*disk, &layout), &mut problems)?;
        let pending_cut = tolerate(truncate::pending(&*disk, &layout), &mut problems)?.flatten();
        let mut directory = Self {
            pending_cut,
            was_closed: was_closed(&*disk, &layout, mark)?,
            segment_bytes: 0,
            segments: Vec::new(),
            unreadable: Arc::default(),
            queue_state: queue_state.unwrap_or_default(),
            disk,
            layout,
            format,
            mark,
            is_mark_damaged,
            was_apache,
            marked_before_apache,
            unjudged,
            noted_start: noted.map(|noted| noted.start),
            problems,
            is_in_use,
            _lock: lock,
        };
        directory.find_segments()?;
        Ok(directory)
    }

    /// # Errors
    /// [`StoreError::InUse`] when a process uses the directory.
    pub fn check_unused(&self) -> Result<(), StoreError> {
        match self.is_in_use {
            true => Err(StoreError::InUse { path: self.layout.root.clone() }),
            false => Ok(()),
        }
    }

    /// What `weir/format.json` says; `None` in a directory that only Apache's broker has used.
    pub fn format(&self) -> Option<&Format> {
        self.format.as_ref()
    }

    /// The configuration with which [`crate::Store::open`] opens this directory. `None` without a
    /// `weir/format.json`.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when that file is damaged.
    pub fn store_config(&self) -> Result<Option<StoreConfig>, StoreError> {
        let path = self.layout.format();
        if let Some(problem) = self.problems.iter().find(|problem| problem.path == path) {
            return Err(StoreError::Unreadable { path, reason: problem.reason.clone() });
        }
        let Some(format) = &self.format else { return Ok(None) };
        let marked = self.mark.map(|mark| mark.unflushed_bytes_max);
        let default = StoreConfig::default();
        Ok(Some(StoreConfig {
            directory: self.layout.root.clone(),
            cluster: format.cluster.clone(),
            group: format.group.clone(),
            segment_bytes: format.segment_bytes,
            unflushed_bytes_max: marked.map(|bytes| bytes.max(default.unflushed_bytes())),
            upkeep: Upkeep { free_bytes_min: Some(0), ..Upkeep::default() },
            ..default
        }))
    }

    /// First position of the log.
    pub(super) fn log_start(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.start)
    }

    /// What tells damage from a torn tail.
    pub(super) fn evidence(&self) -> Result<Evidence, StoreError> {
        if self.is_mark_damaged && !self.was_apache {
            // It said so, and nobody else does: so nothing valid that follows may go as a torn tail.
            return Ok(Evidence::UnflushedBytes(0));
        }
        evidence(&*self.disk, &self.layout, self.mark, self.was_closed)
    }

    pub(super) fn segment_at(&self, position: u64) -> Option<&Arc<Segment>> {
        self.segments.iter().find(|segment| (segment.start..segment.end()).contains(&position))
    }

    fn find_segments(&mut self) -> Result<(), StoreError> {
        let directory = self.layout.commit_log.clone();
        let files = match self.disk.list(&directory) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let reason = "holds no commitlog folder; it is no store's directory".to_owned();
                return Err(StoreError::Unreadable { path: self.layout.root.clone(), reason });
            }
            Err(error) => return Err(StoreError::io("list", &directory)(error)),
        };
        let said = self.format.as_ref().map(|format| format.segment_bytes);
        let bytes = said.filter(|bytes| is_segment_length(*bytes));
        let bytes = bytes.or_else(|| segment_bytes_of(&files));
        self.segment_bytes = bytes.unwrap_or(SEGMENT_BYTES_DEFAULT);
        let bytes = self.segment_bytes;
        let newest = files.iter().filter_map(|file| parse_file_name(&file.name)).max();
        for file in files {
            let path = directory.join(&file.name);
            let kind = FindingKind::SegmentFile;
            let problem = |reason| Finding::file(kind, &path, reason);
            let Some(start) = parse_file_name(&file.name) else { continue };
            if !start.is_multiple_of(bytes) || start.checked_add(bytes).is_none() {
                let reason = format!("a segment of {bytes} bytes cannot begin at {start}");
                self.problems.push(problem(reason));
                continue;
            }
            if let Some(reason) = excess_problem(file.bytes, bytes) {
                self.problems.push(Finding::file(FindingKind::ExcessBytes, &path, reason));
            }
            let (end, is_newest) = (start + bytes, newest == Some(start));
            if let Some(reason) = length_problem(file.bytes, start..end, self.mark, is_newest) {
                let missing = start + file.bytes.min(bytes);
                self.problems.push(Finding::range(kind, &path, missing, end, reason));
            }
            let opened = match self.disk.open(&path, OpenMode::Read) {
                Ok(opened) => opened,
                Err(error) => {
                    self.problems.push(problem(format!("cannot be opened: {error}")));
                    continue;
                }
            };
            let patched = ReadOnlyFile::patched(opened, bytes, &path, &self.unreadable);
            let (disk, file) = (&self.disk, Arc::new(patched));
            let segment = Segment::look_at(disk, &self.layout, start, bytes, file);
            if Proofs::read(&segment)?.is_recycled() {
                segment.set_recycled();
            }
            self.segments.push(Arc::new(segment));
        }
        Ok(())
    }
}

/// The segments whose sums recovery forgets without a durable mark.
fn newest_sums(disk: &dyn Disk, layout: &Layout) -> Result<Vec<u64>, StoreError> {
    let files = match disk.list(&layout.blocks) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("list", &layout.blocks)(error)),
    };
    Ok(files.iter().rev().take(2).filter_map(|file| parse_file_name(&file.name)).collect())
}

/// Notes a file that is damaged and goes on without it.
fn tolerate<T>(
    read: Result<T, StoreError>,
    problems: &mut Vec<Finding>,
) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Unreadable { path, reason }) => {
            problems.push(Finding::file(FindingKind::SmallFile, &path, reason));
            Ok(None)
        }
        Err(StoreError::Io { action, path, source }) => {
            let reason = format!("cannot {action}: {source}");
            problems.push(Finding::file(FindingKind::SmallFile, &path, reason));
            Ok(None)
        }
        Err(other) => Err(other),
    }
}
