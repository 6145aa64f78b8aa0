//! The shape that queue and key files share: data, and behind it a directory that proves it.
//!
//! | bytes | field |
//! |---|---|
//! | … | data, appended while the segment is written |
//! | n | directory |
//! | 8 | magic: `WEIRQUE2` or `WEIRKEY2` |
//! | 8 | start of the segment |
//! | 8 | covered: the position of the log up to which the file is complete |
//! | 8 | where the directory begins |
//! | 4 | CRC-32 of the directory |
//! | 4 | CRC-32 of the 36 bytes before |
//!
//! Numbers are big-endian. The data is synced before the directory is written, so a directory
//! with a good checksum at the end of the file vouches for the data in front of it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};
use crate::error::StoreError;

const FOOTER_BYTES: usize = 40;
/// A directory is read whole; one that is larger was not written by us.
const DIRECTORY_BYTES_MAX: u64 = 1 << 30;

/// What a good footer says.
pub(crate) struct Sealed {
    /// The file is complete up to this position of the log.
    pub(crate) covered: u64,
    pub(crate) directory: Vec<u8>,
    /// Length of the file.
    pub(crate) bytes: u64,
}

/// Makes the data of the file at `path` durable, then the directory behind it at `at`.
pub(crate) fn seal(
    file: &dyn DiskFile,
    path: &Path,
    at: u64,
    magic: [u8; 8],
    start: u64,
    covered: u64,
    directory: &[u8],
) -> Result<(), StoreError> {
    file.sync().map_err(StoreError::io("sync", path))?;
    let mut bytes = directory.to_vec();
    let footer_at = bytes.len();
    bytes.extend_from_slice(&magic);
    for number in [start, covered, at] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(directory).to_be_bytes());
    let crc = crc32fast::hash(&bytes[footer_at..]);
    bytes.extend_from_slice(&crc.to_be_bytes());
    // Something older may stand behind; the footer must be the end.
    let write = || {
        file.write_all_at(&bytes, at)?;
        file.set_len(at + bytes.len() as u64)
    };
    write().map_err(StoreError::io("complete", path))?;
    file.sync().map_err(StoreError::io("sync", path))
}

/// The directory of a file that was sealed and not appended to since. `None` otherwise.
pub(crate) fn read_sealed(
    file: &dyn DiskFile,
    magic: [u8; 8],
    start: u64,
) -> io::Result<Option<Sealed>> {
    let bytes = file.size()?;
    let Some(footer_at) = bytes.checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
    let mut footer = [0; FOOTER_BYTES];
    read_exact_at(file, &mut footer, footer_at)?;
    let number = |at: usize| u64::from_be_bytes(footer[at..at + 8].try_into().expect("8 bytes"));
    let crc = |at: usize| u32::from_be_bytes(footer[at..at + 4].try_into().expect("4 bytes"));
    let directory_at = number(24);
    let is_ours = footer[..8] == magic
        && crc(36) == crc32fast::hash(&footer[..36])
        && number(8) == start
        && directory_at <= footer_at
        && footer_at - directory_at <= DIRECTORY_BYTES_MAX;
    if !is_ours {
        return Ok(None);
    }
    let mut directory = vec![0; (footer_at - directory_at) as usize];
    read_exact_at(file, &mut directory, directory_at)?;
    let is_whole = crc32fast::hash(&directory) == crc(32);
    Ok(is_whole.then_some(Sealed { covered: number(16), directory, bytes }))
}

/// Opens a file for reading and writing, but only one that exists.
pub(crate) fn open_existing(disk: &dyn Disk, path: &Path) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.open(path, OpenMode::Read) {
        Ok(_) => disk.open(path, OpenMode::Write).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes fields off the front of a directory; `None` once something is missing.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    const MAGIC: [u8; 8] = *b"WEIRQUE2";

    #[test]
    fn a_directory_vouches_only_while_it_is_whole_and_last() {
        let disk = SimulatedDisk::new();
        disk.create_directory(Path::new("/d")).unwrap();
        let path = Path::new("/d/f");
        let file = disk.open(path, OpenMode::Write).unwrap();
        assert!(read_sealed(&*file, MAGIC, 7).unwrap().is_none());
        file.write_all_at(b"data", 0).unwrap();
        seal(&*file, path, 4, MAGIC, 7, 99, b"directory").unwrap();
        let sealed = read_sealed(&*file, MAGIC, 7).unwrap().unwrap();
        assert_eq!((sealed.covered, sealed.directory.as_slice()), (99, &b"directory"[..]));
        assert!(read_sealed(&*file, MAGIC, 8).unwrap().is_none());
        assert!(read_sealed(&*file, *b"WEIRKEY2", 7).unwrap().is_none());

        let length = file.size().unwrap();
        for at in 4..length {
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert!(read_sealed(&*file, MAGIC, 7).unwrap().is_none(), "flipped byte {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        file.write_all_at(b"more", length).unwrap();
        assert!(read_sealed(&*file, MAGIC, 7).unwrap().is_none());
    }
}
