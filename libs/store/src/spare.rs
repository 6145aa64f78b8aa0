//! Segments that wait for their next life: `weir/spare/`.
//!
//! Their blocks were written once, so a sync of new records in them has no allocation to journal.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, OpenMode};
use crate::error::StoreError;
use crate::format::{Layout, parse_file_name};
use crate::proof;
use crate::segment::{Segment, remove_if_there};

/// So much of a recycled file is overwritten with zeros before it takes its new name, so that
/// neither we nor Apache's broker find a record at its start.
const HEAD_BYTES: u64 = 4096;

/// Files of full length under the name they had as segments.
pub(crate) struct SpareSegments {
    disk: Arc<dyn Disk>,
    layout: Layout,
    segment_bytes: u64,
    max: AtomicUsize,
    /// Locked for a few instructions only: I/O threads count them.
    names: Mutex<Vec<String>>,
}

impl SpareSegments {
    /// Takes over what a former process left; files that are of no use are removed, and so is the name of
    /// one that is a segment as well, or a spare file under another name: what a power cut may leave of a
    /// rename that is not atomic. Its bytes are the log's.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        layout: &Layout,
        segment_bytes: u64,
        max: usize,
    ) -> Result<Self, StoreError> {
        let directory = &layout.spare;
        let commit_log = &layout.commit_log;
        let segments = disk.list(commit_log).map_err(StoreError::io("list", commit_log))?;
        let mut known: HashSet<u64> = segments.into_iter().map(|file| file.inode).collect();
        let mut names = Vec::new();
        for file in disk.list(directory).map_err(StoreError::io("list", directory))? {
            let is_segment = parse_file_name(&file.name).is_some() && file.bytes == segment_bytes;
            if is_segment && names.len() < max && known.insert(file.inode) {
                names.push(file.name);
            } else {
                remove_if_there(&**disk, &directory.join(file.name))?;
            }
        }
        let (disk, layout) = (Arc::clone(disk), layout.clone());
        Ok(Self { disk, layout, segment_bytes, max: max.into(), names: Mutex::new(names) })
    }

    /// How many are kept from the next one on; those that there are stay.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.names.lock().len()
    }

    /// Takes the file of an expired segment, or deletes it when there are enough. Durable on
    /// return. Nobody else may have the segment, because its bytes will change.
    ///
    /// After an error nobody knows the file under either name, and it is not used again.
    pub(crate) fn keep(&self, segment: Segment) -> Result<(), StoreError> {
        self.keep_file(&segment.path)
    }

    /// As [`SpareSegments::keep`], for a file of which nobody says that it is free.
    pub(crate) fn keep_file(&self, path: &Path) -> Result<(), StoreError> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Ok(());
        };
        if self.count() >= self.max.load(Ordering::Relaxed) {
            remove_if_there(&*self.disk, path)?;
            return self.sync(&self.layout.commit_log);
        }
        self.move_here(path, name).map_err(StoreError::io("rename", path))?;
        self.sync(&self.layout.spare)?;
        self.sync(&self.layout.commit_log)?;
        // Not before: a file that changes must not come back under the name it had in the log.
        self.names.lock().push(name.to_owned());
        Ok(())
    }

    fn move_here(&self, path: &Path, name: &str) -> io::Result<()> {
        let to = self.layout.spare.join(name);
        match self.disk.rename(path, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.create_directory(&self.layout.spare)?;
                self.disk.rename(path, &to)
            }
            renamed => renamed,
        }
    }

    /// A file whose start is made safe for a segment at `start`, durably, and which still waits
    /// under its old name. It takes a while, so it is done without any lock.
    pub(crate) fn make_ready(&self, start: u64) -> Result<Option<ReadySpare>, StoreError> {
        while let Some(name) = self.pop() {
            match self.make_file_ready(&name, start) {
                Ok(Some(segment)) => return Ok(Some(ReadySpare { segment, name })),
                Ok(None) => tracing::warn!(name, "somebody else has removed a spare file"),
                Err(error) => {
                    self.names.lock().push(name);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    fn make_file_ready(&self, name: &str, start: u64) -> Result<Option<Segment>, StoreError> {
        let path = self.layout.spare.join(name);
        let file = match self.disk.open(&path, OpenMode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(StoreError::io("open", &path))?,
        };
        if file.size().map_err(StoreError::io("read", &path))? != self.segment_bytes {
            // Opened, it is there again, of no length.
            remove_if_there(&*self.disk, &path)?;
            return Ok(None);
        }
        let segment = Segment::of_spare(&self.disk, &self.layout, start, self.segment_bytes, file);
        segment.write_zeros(start, start + HEAD_BYTES.min(self.segment_bytes))?;
        // Nobody knows here how far the log before it is on disk.
        proof::begin(&segment, start, 0)?;
        segment.sync()?;
        Ok(Some(segment))
    }

    /// Gives the file its new name, which is durable with the segment's first flush.
    pub(crate) fn put_in_place(&self, ready: ReadySpare) -> Result<Arc<Segment>, StoreError> {
        let from = self.layout.spare.join(&ready.name);
        if let Err(error) = self.disk.rename(&from, &ready.segment.path) {
            self.put_back(ready);
            return Err(StoreError::io("rename", &from)(error));
        }
        Ok(Arc::new(ready.segment))
    }

    /// Takes a file back that nobody needed after all.
    pub(crate) fn put_back(&self, ready: ReadySpare) {
        self.names.lock().push(ready.name);
    }

    /// Deletes all files, for the space they take; says how many those were.
    pub(crate) fn remove_all(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        while let Some(name) = self.pop() {
            if let Err(error) = remove_if_there(&*self.disk, &self.layout.spare.join(&name)) {
                self.names.lock().push(name);
                return Err(error);
            }
            removed += 1;
        }
        if removed > 0 {
            sync_names(&*self.disk, &self.layout)?;
        }
        Ok(removed)
    }

    fn pop(&self) -> Option<String> {
        self.names.lock().pop()
    }

    fn sync(&self, directory: &std::path::Path) -> Result<(), StoreError> {
        self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))
    }
}

/// Makes durable which spare files there are. Without the directory there are none: whoever needs the
/// space may remove it.
pub(crate) fn sync_names(disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
    match disk.sync_directory(&layout.spare) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(StoreError::io("sync", &layout.spare)),
    }
}

/// A spare file that may become the segment at the start it was made ready for.
pub(crate) struct ReadySpare {
    segment: Segment,
    name: String,
}
