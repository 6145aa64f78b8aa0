//! A disk that is looked at and never changed.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskSpace, Listed, OpenMode};

/// What is tried on its own where a longer read fails.
const PAGE_BYTES: u64 = 4096;
/// So many ranges that cannot be read are kept for the report.
const UNREADABLE_MAX: usize = 10_000;

/// Passes reads on and refuses everything else, so that whoever works on it can prove by its type
/// that it leaves a directory as it is.
pub(crate) struct ReadOnlyDisk(pub(crate) Arc<dyn Disk>);

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading only")
}

impl Disk for ReadOnlyDisk {
    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn open(&self, path: &Path, _mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(path, OpenMode::Read)?;
        Ok(Arc::new(ReadOnlyFile { file, length: None, unreadable: None }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        self.0.list(directory)
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.0.list_directories(directory)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_tree(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.0.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let held = self.0.lock_existing(path)?;
        Ok(held.unwrap_or_else(|| Box::new(())))
    }

    fn lock_existing(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.0.lock_existing(path)
    }
}

/// Where a file could not be read, and what the disk said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) path: PathBuf,
    /// Bytes from the start of the file.
    pub(crate) range: Range<u64>,
    pub(crate) error: String,
}

/// One file of such a disk.
pub(crate) struct ReadOnlyFile {
    file: Arc<dyn DiskFile>,
    /// Zeros stand between the end of the file and here.
    length: Option<u64>,
    /// Where to note pages that cannot be read; they read as zeros then.
    unreadable: Option<(PathBuf, Arc<Mutex<Vec<Unreadable>>>)>,
}

impl ReadOnlyFile {
    /// A file that reads as if it had `length` bytes, with zeros for what is missing at its end
    /// and for pages that the disk does not give. Those are noted in `unreadable`.
    pub(crate) fn patched(
        file: Arc<dyn DiskFile>,
        length: u64,
        path: &Path,
        unreadable: &Arc<Mutex<Vec<Unreadable>>>,
    ) -> Self {
        let unreadable = Some((path.to_path_buf(), Arc::clone(unreadable)));
        Self { file, length: Some(length), unreadable }
    }

    /// Reads page by page what could not be read at once.
    fn read_pages(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let from = at + done as u64;
            let piece = (PAGE_BYTES - from % PAGE_BYTES).min((bytes.len() - done) as u64) as usize;
            let page = &mut bytes[done..done + piece];
            match self.file.read_at(page, from) {
                Ok(read) if read < piece => return Ok(done + read),
                Ok(_) => {}
                Err(error) => self.note(page, from, &error),
            }
            done += piece;
        }
        Ok(done)
    }

    fn note(&self, page: &mut [u8], at: u64, error: &io::Error) {
        page.fill(0);
        let Some((path, unreadable)) = &self.unreadable else { return };
        let (mut unreadable, end) = (unreadable.lock(), at + page.len() as u64);
        // One page is read several times while records are looked for.
        if unreadable
            .iter()
            .any(|known| known.path == *path && known.range.start <= at && end <= known.range.end)
        {
            return;
        }
        let is_full = unreadable.len() >= UNREADABLE_MAX;
        match unreadable.last_mut() {
            Some(last) if last.path == *path && last.range.end == at => last.range.end = end,
            _ if is_full => {}
            _ => unreadable.push(Unreadable {
                path: path.clone(),
                range: at..end,
                error: error.to_string(),
            }),
        }
    }
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let read = match self.file.read_at(bytes, at) {
            Err(_) if self.unreadable.is_some() => self.read_pages(bytes, at)?,
            other => other?,
        };
        let Some(length) = self.length else { return Ok(read) };
        let wanted = length.saturating_sub(at).min(bytes.len() as u64) as usize;
        let rest = &mut bytes[read..wanted.max(read)];
        rest.fill(0);
        Ok(wanted.max(read))
    }

    fn write_all_at(&self, _bytes: &[u8], _at: u64) -> io::Result<()> {
        Err(refused())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(refused())
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size().map(|size| self.length.unwrap_or(size))
    }

    fn sync(&self) -> io::Result<()> {
        Err(refused())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.file.next_data(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimulatedDisk, read_exact_at};

    /// Gives nothing of its second page.
    struct Broken(Arc<dyn DiskFile>);

    impl DiskFile for Broken {
        fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
            match at < 8192 && at + bytes.len() as u64 > 4096 {
                true => Err(io::Error::other("no such sector")),
                false => self.0.read_at(bytes, at),
            }
        }

        fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            self.0.write_all_at(bytes, at)
        }

        fn set_len(&self, bytes: u64) -> io::Result<()> {
            self.0.set_len(bytes)
        }

        fn size(&self) -> io::Result<u64> {
            self.0.size()
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }

        fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
            self.0.next_data(from)
        }
    }

    fn disk_with_file() -> (SimulatedDisk, Arc<dyn DiskFile>) {
        let disk = SimulatedDisk::new();
        disk.create_directory(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f"), OpenMode::Write).unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        (disk, file)
    }

    #[test]
    fn nothing_can_be_changed_through_it() {
        let (disk, _) = disk_with_file();
        let steps = disk.steps();
        let looked_at = ReadOnlyDisk(Arc::new(disk.clone()));
        let path = Path::new("/d/f");
        let file = looked_at.open(path, OpenMode::Replace).unwrap();
        assert_eq!(file.size().unwrap(), 10_000);
        assert!(file.write_all_at(b"x", 0).is_err() && file.set_len(1).is_err());
        assert!(file.sync().is_err() && looked_at.remove(path).is_err());
        assert!(looked_at.rename(path, Path::new("/d/g")).is_err());
        assert!(looked_at.open(Path::new("/d/new"), OpenMode::Write).is_err());
        assert_eq!(disk.steps(), steps);
    }

    #[test]
    fn what_is_missing_or_unreadable_reads_as_zeros_and_is_noted_once() {
        let (_, file) = disk_with_file();
        let unreadable = Arc::default();
        let path = Path::new("/d/f");
        let file = ReadOnlyFile::patched(Arc::new(Broken(file)), 12_288, path, &unreadable);
        for _ in 0..2 {
            let mut bytes = vec![1; 12_000];
            read_exact_at(&file, &mut bytes, 100).unwrap();
            let expected = |at: u64| u8::from(!(4096..8192).contains(&at) && at < 10_000) * 7;
            assert!((100..).zip(&bytes).all(|(at, byte)| *byte == expected(at)));
        }
        let noted = unreadable.lock().clone();
        assert_eq!(noted.len(), 1);
        assert_eq!((noted[0].range.clone(), noted[0].path.as_path()), (4096..8192, path));
        assert!(read_exact_at(&file, &mut [0; 8], 12_284).is_err());
    }
}
