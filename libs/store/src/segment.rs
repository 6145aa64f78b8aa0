//! One file of the CommitLog, with the derived files that belong to it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{RwLock, RwLockReadGuard};

use crate::block_sums::BlockSums;
use crate::disk::{Disk, DiskFile, Mapping, OpenMode, erase, read_exact_at, write_zeros};
use crate::error::StoreError;
use crate::format::{Layout, file_name};
use crate::key_file::KeyFile;
use crate::proof::PROOF_BYTES;
use crate::queue_file::QueueFile;
use crate::read_ahead::{Announcement, Readers};

/// `commitlog/<start>`: `bytes` of log from position `start`. The last record leaves room for a
/// padding head of 8 bytes, which is written when the next record goes to the next segment, and
/// for the proofs behind it ([`crate::proof`]).
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
    file: Arc<dyn DiskFile>,
    map: RwLock<Map>,
    readers: Readers,
    /// Whether the file's name is known to be durable. Nobody knows of a prepared segment that a
    /// process left which closed the store.
    pub(crate) is_listed: AtomicBool,
    /// When its first record was stored, in milliseconds since 1970, once somebody wanted to know.
    pub(crate) first_stored_ms: OnceLock<i64>,
    /// Whether both derived files are complete and durable.
    pub(crate) is_sealed: AtomicBool,
    /// Whether the file had another life before, so that all of it was written once and what is
    /// unwritten in this life is not zeros.
    is_recycled: AtomicBool,
    pub(crate) queues: Arc<QueueFile>,
    pub(crate) keys: KeyFile,
    pub(crate) blocks: BlockSums,
}

/// A segment's mapping, which the first read that may use it makes.
enum Map {
    NotYet,
    Here(Mapping),
    /// The disk gives none, the segment is too old for one, or what was read is being written again.
    Never,
}

impl Segment {
    /// Makes a segment of full length without writing a byte of it.
    pub(crate) fn create(
        disk: &Arc<dyn Disk>,
        layout: &Layout,
        start: u64,
        bytes: u64,
    ) -> Result<Self, StoreError> {
        let path = layout.commit_log.join(file_name(start));
        let create = || {
            let file = disk.open(&path, OpenMode::Write)?;
            file.set_len(bytes)?;
            Ok(file)
        };
        let file = create().map_err(StoreError::io("create", &path))?;
        Ok(Self::around(disk, layout, start, bytes, path, file))
    }

    /// Opens a segment found on disk. One that lost its length in a crash gets it back: its
    /// missing bytes are zeros, which recovery judges like any others.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        layout: &Layout,
        start: u64,
        bytes: u64,
    ) -> Result<Self, StoreError> {
        let path = layout.commit_log.join(file_name(start));
        let open = || {
            let file = disk.open(&path, OpenMode::Write)?;
            if file.size()? < bytes {
                file.set_len(bytes)?;
            }
            Ok(file)
        };
        let file = open().map_err(StoreError::io("open", &path))?;
        Ok(Self::around(disk, layout, start, bytes, path, file))
    }

    /// A segment around a file that waits to become one.
    pub(crate) fn of_spare(
        disk: &Arc<dyn Disk>,
        layout: &Layout,
        start: u64,
        bytes: u64,
        file: Arc<dyn DiskFile>,
    ) -> Self {
        let path = layout.commit_log.join(file_name(start));
        let segment = Self::around(disk, layout, start, bytes, path, file);
        segment.set_recycled();
        segment
    }

    /// A segment of a directory that is only looked at: `disk` refuses changes, `file` reads as if
    /// it had its full length.
    pub(crate) fn look_at(
        disk: &Arc<dyn Disk>,
        layout: &Layout,
        start: u64,
        bytes: u64,
        file: Arc<dyn DiskFile>,
    ) -> Self {
        let path = layout.commit_log.join(file_name(start));
        Self::around(disk, layout, start, bytes, path, file)
    }

    fn around(
        disk: &Arc<dyn Disk>,
        layout: &Layout,
        start: u64,
        bytes: u64,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
    ) -> Self {
        let name = file_name(start);
        Self {
            start,
            bytes,
            path,
            file,
            map: RwLock::new(Map::NotYet),
            readers: Readers::default(),
            is_listed: AtomicBool::new(false),
            first_stored_ms: OnceLock::new(),
            is_sealed: AtomicBool::new(false),
            is_recycled: AtomicBool::new(false),
            queues: Arc::new(QueueFile::new(Arc::clone(disk), layout.queues.join(&name))),
            keys: KeyFile::new(Arc::clone(disk), layout.keys.join(&name)),
            blocks: BlockSums::new(Arc::clone(disk), layout.blocks.join(&name), start),
        }
    }

    /// The position behind the segment.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// Behind the last byte that a record or padding may take.
    pub(crate) fn records_end(&self) -> u64 {
        self.end() - PROOF_BYTES
    }

    pub(crate) fn is_recycled(&self) -> bool {
        self.is_recycled.load(Ordering::Acquire)
    }

    pub(crate) fn set_recycled(&self) {
        self.is_recycled.store(true, Ordering::Release);
    }

    /// Fills `bytes` from `position`; all of it must lie in the segment.
    pub(crate) fn read_exact(&self, bytes: &mut [u8], position: u64) -> Result<(), StoreError> {
        read_exact_at(&*self.file, bytes, position - self.start)
            .map_err(StoreError::io("read", &self.path))
    }

    /// Fills `bytes` from `position` without the disk; `false` when that cannot be.
    pub(crate) fn read_cached(&self, bytes: &mut [u8], position: u64) -> Result<bool, StoreError> {
        self.file
            .read_cached(bytes, position - self.start)
            .map_err(StoreError::io("read", &self.path))
    }

    /// Notes a read of old records, and says what the kernel should know for the next ones.
    #[must_use = "nobody else tells the kernel"]
    pub(crate) fn read_through(&self, position: u64, length: u64) -> Option<Announcement> {
        let from = position - self.start;
        self.readers.read(&self.file, from..from + length, self.bytes)
    }

    /// Appends `length` bytes from `position` to `out`, through the mapping. `false`, with nothing
    /// appended, when there is none. The bytes must be visible, so that nobody writes them again.
    pub(crate) fn append_mapped(&self, position: u64, length: usize, out: &mut Vec<u8>) -> bool {
        let Ok(from) = usize::try_from(position - self.start) else { return false };
        match &*self.map() {
            Map::Here(mapping) => mapping.append_to(from..from + length, out),
            Map::NotYet | Map::Never => false,
        }
    }

    /// How many bytes from `position` on are in memory and mapped; those behind `length` do not
    /// count, nor those behind the segment's end.
    pub(crate) fn bytes_in_memory(&self, position: u64, length: u64) -> u64 {
        let (from, to) = (position - self.start, (position - self.start + length).min(self.bytes));
        match (&*self.map(), usize::try_from(from), usize::try_from(to)) {
            (Map::Here(mapping), Ok(from), Ok(to)) => mapping.bytes_in_memory(from..to) as u64,
            _ => 0,
        }
    }

    fn map(&self) -> RwLockReadGuard<'_, Map> {
        let map = self.map.read();
        if !matches!(*map, Map::NotYet) {
            return map;
        }
        drop(map);
        self.make_map();
        self.map.read()
    }

    fn make_map(&self) {
        let mut map = self.map.write();
        if let Map::NotYet = *map {
            *map = self.file.map(self.bytes).map_or(Map::Never, Map::Here);
        }
    }

    /// Gives the mapping up for good.
    pub(crate) fn unmap(&self) {
        if let Map::Never = *self.map.read() {
            return;
        }
        let old = std::mem::replace(&mut *self.map.write(), Map::Never);
        // Takes a while for a full segment, so not under the lock.
        drop(old);
    }

    /// Writes what readers may have seen, while none reads through the mapping, which is back
    /// afterwards. One caller at a time.
    pub(crate) fn write_again(&self, bytes: &[u8], position: u64) -> Result<(), StoreError> {
        // Waits for whoever reads. Not under the lock afterwards: who finds no mapping need not wait.
        let map = std::mem::replace(&mut *self.map.write(), Map::Never);
        let written = self.write(bytes, position);
        *self.map.write() = map;
        written
    }

    pub(crate) fn write(&self, bytes: &[u8], position: u64) -> Result<(), StoreError> {
        self.file
            .write_all_at(bytes, position - self.start)
            .map_err(StoreError::io("write", &self.path))
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync().map_err(StoreError::io("sync", &self.path))
    }

    /// The first written range at or after `position`, as positions of the log.
    pub(crate) fn next_data(
        &self,
        position: u64,
    ) -> Result<Option<std::ops::Range<u64>>, StoreError> {
        let found = self.file.next_data(position - self.start);
        let found = found.map_err(StoreError::io("read", &self.path))?;
        Ok(found
            .map(|range| range.start + self.start..(range.end + self.start).min(self.end()))
            .filter(|range| !range.is_empty()))
    }

    /// Overwrites positions with zeros, without making that durable.
    pub(crate) fn write_zeros(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let range = from - self.start..to - self.start;
        write_zeros(&*self.file, range).map_err(StoreError::io("write", &self.path))
    }

    /// Makes positions read as zeros, without making that durable; holes stay holes.
    pub(crate) fn erase(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let range = from - self.start..to - self.start;
        erase(&*self.file, range).map_err(StoreError::io("write", &self.path))
    }

    /// Makes a recycled segment one that was never written from `position` on, durably, for records that
    /// need the place of its proofs.
    pub(crate) fn end_life_before(&self, position: u64) -> Result<(), StoreError> {
        self.clear_from(position)?;
        self.is_recycled.store(false, Ordering::Release);
        Ok(())
    }

    /// Makes everything from `position` on read as zeros, durably: what the file held in its life
    /// before, and then the proofs, without which none of that may be left. Fast where the file
    /// system knows holes.
    pub(crate) fn clear_from(&self, position: u64) -> Result<(), StoreError> {
        let records_end = self.records_end();
        if position < records_end {
            match self.file.punch_hole(position - self.start..records_end - self.start) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.write_zeros(position, records_end)?;
                }
                other => other.map_err(StoreError::io("clear", &self.path))?,
            }
            self.sync()?;
        }
        self.write_zeros(records_end.max(position), self.end())?;
        self.sync()
    }

    /// Deletes the segment's files, derived ones first: they mean nothing without it.
    pub(crate) fn remove_files(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        self.remove_derived_files(disk)?;
        remove_if_there(disk, &self.path)
    }

    pub(crate) fn remove_derived_files(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        remove_if_there(disk, self.queues.path())?;
        remove_if_there(disk, self.keys.path())?;
        remove_if_there(disk, self.blocks.path())
    }
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Weak;

    use super::*;
    use crate::disk::RealDisk;

    /// Tries to read through its segment's mapping while it is written to.
    struct Watching {
        file: Arc<dyn DiskFile>,
        segment: OnceLock<Weak<Segment>>,
        was_read: AtomicBool,
    }

    impl DiskFile for Watching {
        fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            let segment = self.segment.get().unwrap().upgrade().unwrap();
            self.was_read.store(segment.append_mapped(0, 1, &mut Vec::new()), Ordering::Relaxed);
            self.file.write_all_at(bytes, at)
        }

        fn map(&self, bytes: u64) -> Option<Mapping> {
            self.file.map(bytes)
        }

        fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
            self.file.read_at(bytes, at)
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            unreachable!()
        }

        fn size(&self) -> io::Result<u64> {
            unreachable!()
        }

        fn sync(&self) -> io::Result<()> {
            unreachable!()
        }

        fn next_data(&self, _: u64) -> io::Result<Option<Range<u64>>> {
            unreachable!()
        }
    }

    #[test]
    fn nobody_reads_through_the_mapping_while_what_was_read_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::under(directory.path());
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let file = disk.open(&directory.path().join("segment"), OpenMode::Write).unwrap();
        file.set_len(8192).unwrap();
        let (segment, was_read) = (OnceLock::new(), AtomicBool::new(false));
        let watching = Arc::new(Watching { file, segment, was_read });
        let segment = Arc::new(Segment::look_at(&disk, &layout, 0, 8192, watching.clone()));
        watching.segment.set(Arc::downgrade(&segment)).unwrap();
        let was_read = |written: Result<(), StoreError>| {
            written.unwrap();
            watching.was_read.load(Ordering::Relaxed)
        };
        assert!(was_read(segment.write(b"one", 0)));
        assert!(!was_read(segment.write_again(b"two", 0)));
        let mut read = Vec::new();
        assert!(segment.append_mapped(0, 3, &mut read) && read == b"two");
    }
}
