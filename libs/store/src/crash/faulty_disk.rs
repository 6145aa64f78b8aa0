//! Disks that break a promise for the store: bugs that it could have, planted below it.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, DiskSpace, Listed, OpenMode, SimulatedDisk};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// None at all.
    Sound,
    SkipSync,
    /// A sync returns at once and happens with the next one.
    SyncLate,
    SkipDirectorySync,
    /// What recovery cuts stays on the disk.
    CutInMemoryOnly,
    /// Nothing that recovery does is synced.
    RecoverWithoutSync,
    /// A sync that failed is tried again, and the kernel says that all is well.
    RetrySync,
}

#[derive(Clone)]
pub(super) struct FaultyDisk {
    disk: SimulatedDisk,
    fault: Fault,
    /// Whether a store is being opened.
    is_recovering: Arc<AtomicBool>,
    late: Arc<Mutex<Vec<Arc<dyn DiskFile>>>>,
}

impl FaultyDisk {
    pub(super) fn new(disk: SimulatedDisk, fault: Fault) -> Self {
        Self { disk, fault, is_recovering: Arc::default(), late: Arc::default() }
    }

    pub(super) fn set_recovering(&self, is_recovering: bool) {
        self.is_recovering.store(is_recovering, Ordering::Relaxed);
    }

    fn cuts_with(&self, fault: Fault) -> bool {
        self.fault == fault && self.is_recovering.load(Ordering::Relaxed)
    }
}

fn is_of_log(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with("commitlog"))
}

impl Disk for FaultyDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(FaultyFile { file, disk: self.clone(), is_of_log: is_of_log(path) }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        self.disk.list(directory)
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list_directories(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_tree(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match is_of_log(path) && self.cuts_with(Fault::CutInMemoryOnly) {
            true => Ok(()),
            false => self.disk.remove(path),
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        match self.fault == Fault::SkipDirectorySync {
            true => Ok(()),
            false => self.disk.sync_directory(path),
        }
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.disk.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }

    fn lock_existing(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.disk.lock_existing(path)
    }
}

struct FaultyFile {
    file: Arc<dyn DiskFile>,
    disk: FaultyDisk,
    is_of_log: bool,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(bytes, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let is_cut = self.is_of_log && bytes.iter().all(|byte| *byte == 0);
        match is_cut && self.disk.cuts_with(Fault::CutInMemoryOnly) {
            true => Ok(()),
            false => self.file.write_all_at(bytes, at),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn sync(&self) -> io::Result<()> {
        match self.disk.fault {
            Fault::SkipSync if self.is_of_log => Ok(()),
            Fault::SyncLate if self.is_of_log => {
                let late =
                    std::mem::replace(&mut *self.disk.late.lock(), vec![Arc::clone(&self.file)]);
                late.iter().try_for_each(|file| file.sync())
            }
            Fault::RecoverWithoutSync
                if self.is_of_log && self.disk.cuts_with(Fault::RecoverWithoutSync) =>
            {
                Ok(())
            }
            Fault::RetrySync => self.file.sync().or_else(|_| self.file.sync()),
            Fault::Sound
            | Fault::SkipSync
            | Fault::SyncLate
            | Fault::SkipDirectorySync
            | Fault::CutInMemoryOnly
            | Fault::RecoverWithoutSync => self.file.sync(),
        }
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.file.next_data(from)
    }
}
