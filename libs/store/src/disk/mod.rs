//! The seam to the disk: files and directories, and nothing that knows what is in them.
//!
//! [`RealDisk`] is the operating system's; [`SimulatedDisk`] forgets at a crash what was not
//! synced, so that every ordering rule of the store can be tried over thousands of crash states.

#[allow(unsafe_code, reason = "pages of a file without a system call")]
mod mapping;
mod read_only;
mod real;
mod simulated;
mod simulated_image;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use mapping::Mapping;
pub(crate) use read_only::{ReadOnlyDisk, ReadOnlyFile, Unreadable};
pub use real::RealDisk;
pub use simulated::SimulatedDisk;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading; the file must exist.
    Read,
    /// Reading and writing; made when missing, contents kept.
    Write,
    /// Reading and writing; made when missing, emptied when not.
    Replace,
}

/// One file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub bytes: u64,
    /// Which file of the file system it is: a file that has two names is listed twice.
    pub inode: u64,
}

/// What a file system has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What an unprivileged process may still write.
    pub free: u64,
    pub total: u64,
}

/// Files and directories. Paths are absolute or relative to the process, as the caller chose.
pub trait Disk: Send + Sync {
    /// Makes a directory with its parents; one that exists is fine.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// The regular files of a directory, by name; those with names that are not UTF-8 are left out.
    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>>;

    /// The directories in a directory, by name; those with names that are not UTF-8 are left out.
    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Renames a file or a directory; replaces a file that stands at `to`. From one directory to another
    /// that is two changes, each durable with its own directory: not every file system has a journal.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with everything in it.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    fn space(&self, path: &Path) -> io::Result<DiskSpace>;

    /// Takes a file's exclusive lock; it ends when the guard is dropped or the process dies.
    /// [`io::ErrorKind::WouldBlock`] when somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// As [`Disk::lock`], but makes no file. `None` when there is none, and so nobody who holds it.
    fn lock_existing(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
}

/// One open file. All positions are bytes from its start.
pub trait DiskFile: Send + Sync {
    /// Reads up to `bytes.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;

    /// Fills `bytes` if all of them are in memory; `false`, with anything in `bytes`, when the
    /// disk would have to be asked. A file that cannot tell reads.
    fn read_cached(&self, bytes: &mut [u8], at: u64) -> io::Result<bool> {
        read_all(self.read_at(bytes, at)?, bytes.len()).map(|()| true)
    }

    /// Says that `range` will be read soon, or that nobody will read it again for a while. A hint:
    /// nothing depends on it.
    fn expect(&self, range: Range<u64>, is_read_soon: bool) {
        let _ = (range, is_read_soon);
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes `range`, which lies inside the file, read as zeros without writing it.
    /// [`io::ErrorKind::Unsupported`] where only writing them helps.
    fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        let _ = range;
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Makes contents and length durable (`fdatasync`). After an error nobody may try again: the
    /// kernel reports a lost page once and calls it clean from then on.
    fn sync(&self) -> io::Result<()>;

    /// The first range at or after `from` that was ever written; `None` when only holes follow.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>>;

    /// The first `bytes` bytes as a mapping, where there is such a thing. Whoever has one never
    /// shortens the file, and reads from it only what is not written any more.
    fn map(&self, bytes: u64) -> Option<Mapping> {
        let _ = bytes;
        None
    }
}

/// Overwrites `range` with zeros, without making that durable, where anything was ever written: a hole reads
/// as zeros as well, and to write into it takes room that a full disk does not have.
pub(crate) fn erase(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while let Some(data) = file.next_data(at)?.filter(|data| data.start < range.end) {
        let end = data.end.min(range.end);
        write_zeros(file, at.max(data.start)..end)?;
        at = end;
    }
    Ok(())
}

/// Overwrites `range` with zeros, without making that durable, holes as well.
pub(crate) fn write_zeros(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..length as usize], at)?;
        at += length;
    }
    Ok(())
}

/// Fills `bytes` or fails with [`io::ErrorKind::UnexpectedEof`].
pub(crate) fn read_exact_at(file: &dyn DiskFile, bytes: &mut [u8], at: u64) -> io::Result<()> {
    read_all(file.read_at(bytes, at)?, bytes.len())
}

fn read_all(read: usize, wanted: usize) -> io::Result<()> {
    if read == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
