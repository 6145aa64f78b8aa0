//! The operating system's files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Disk, DiskFile, DiskSpace, Listed, Mapping, OpenMode};

/// Files by `pread`, `pwrite` and `fdatasync`, and by `mmap` for reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        if mode != OpenMode::Read {
            options.write(true).create(true).truncate(mode == OpenMode::Replace);
        }
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push(Listed { name, bytes: metadata.len(), inode: metadata.ino() });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if let (true, Ok(name)) = (entry.file_type()?.is_dir(), entry.file_name().into_string())
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(DiskSpace {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        try_lock(file, FlockOperation::NonBlockingLockExclusive)
    }

    fn lock_existing(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        match File::open(path) {
            // Who only reads may not take the exclusive kind; a shared one does as well.
            Ok(file) => try_lock(file, FlockOperation::NonBlockingLockShared).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn try_lock(file: File, against_apache: FlockOperation) -> io::Result<Box<dyn Send + Sync>> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Apache's broker takes another kind of lock (FileChannel.tryLock), which does not see the one
    // above. It ends when any descriptor of the file is closed, so it comes second.
    match rustix::fs::fcntl_lock(&file, against_apache) {
        Ok(()) => Ok(Box::new(file)),
        Err(Errno::AGAIN | Errno::ACCESS) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.0.read_at(&mut bytes[done..], at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_cached(&self, bytes: &mut [u8], at: u64) -> io::Result<bool> {
        let length = bytes.len();
        let mut target = [io::IoSliceMut::new(bytes)];
        match rustix::io::preadv2(&self.0, &mut target, at, ReadWriteFlags::NOWAIT) {
            // A part is what memory had; the end of the file is as much a matter for who may wait.
            Ok(read) => Ok(read == length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            // A file system that keeps all in memory, or cannot tell.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                super::read_exact_at(self, bytes, at).map(|()| true)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn expect(&self, range: Range<u64>, is_read_soon: bool) {
        let advice = if is_read_soon { Advice::WillNeed } else { Advice::DontNeed };
        let length = NonZeroU64::new(range.end.saturating_sub(range.start));
        if length.is_some() {
            if is_read_soon {
                // Who says what he will read has no use for guesses: those of the kernel are 8 MiB
                // long where `read_ahead_kb` says so, and keep the disk busy for as long.
                let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::Random);
            }
            // Without it the pages come and go as the kernel thinks best.
            let _ = rustix::fs::fadvise(&self.0, range.start, length, advice);
        }
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let length = range.end.saturating_sub(range.start);
        match rustix::fs::fallocate(&self.0, flags, range.start, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            other => Ok(other?),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let len = self.size()?;
        if from >= len {
            return Ok(None);
        }
        // Only positioned reads and writes use this descriptor, so moving its cursor is harmless.
        let start = match rustix::fs::seek(&self.0, SeekFrom::Data(from)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A file system that knows no holes: everything counts as written.
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(Some(from..len)),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&self.0, SeekFrom::Hole(start)).unwrap_or(len);
        Ok(Some(start..end.max(start + 1)))
    }

    fn map(&self, bytes: u64) -> Option<Mapping> {
        Mapping::of(&self.0, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_reads_as_zeros_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&directory.path().join("f"), OpenMode::Write).unwrap();
        file.write_all_at(&[7; 100_000], 0).unwrap();
        if let Err(error) = file.punch_hole(5000..90_000) {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            // Past the test harness, as in the tests' own `skipped`.
            let path = directory.path().display();
            let line = format!("skipped: the file system of {path} has no holes\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            return;
        }
        let mut bytes = vec![1; 100_000];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 100_000);
        assert!(
            (0..)
                .zip(&bytes)
                .all(|(at, byte)| *byte == u8::from(!(5000..90_000).contains(&at)) * 7)
        );
    }
}
