//! Small files that are replaced as a whole and never half.
//!
//! A file is one line `weir1 <CRC-32 of the rest, 8 hex digits>` and then its contents, so that
//! people can read it. A new version goes through a temporary file, and the version before stays
//! as `<name>.last`.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::disk::{Disk, OpenMode};
use crate::error::StoreError;

/// Under `weir/user`: says that records which were flushed, or called so, may be gone. The store's
/// user removes it once it has drawn its conclusions.
pub(crate) const LOST_FILE: &str = "lost";

const MAGIC: &str = "weir1 ";
/// Magic, eight digits, line feed.
const HEAD_BYTES: usize = MAGIC.len() + 8 + 1;
/// Nothing that goes through here is larger; a file that is was not written by us.
const BYTES_MAX: u64 = 256 << 20;

/// The contents, or `None` when neither the file nor its last version exists.
///
/// # Errors
/// [`StoreError::Unreadable`] when versions exist but all are damaged.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let mut damage = None;
    for version in [path.to_path_buf(), last_version(path)] {
        match read_version(disk, &version) {
            Ok(contents) => return Ok(Some(contents)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(path = %version.display(), "small file is damaged, its last version is tried");
                damage = Some(version);
            }
            Err(source) => return Err(StoreError::io("read", &version)(source)),
        }
    }
    match damage {
        None => Ok(None),
        Some(path) => Err(StoreError::Unreadable {
            path,
            reason: "the checksum is wrong and no good earlier version is left".to_owned(),
        }),
    }
}

/// The same without the last version: `None` when the file itself is not there or damaged.
pub(crate) fn read_newest(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match read_version(disk, path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(path = %path.display(), "small file is damaged and counts for nothing");
            Ok(None)
        }
        Err(source) => Err(StoreError::io("read", path)(source)),
    }
}

/// The same where an earlier version must not stand in for a damaged one, because what it says is
/// not true any more. It does where the file is not there: then its replacement never was in force.
pub(crate) fn read_current(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match read_version(disk, path) {
        Ok(contents) => Ok(Some(contents)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => read(disk, path),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(StoreError::Unreadable {
            path: path.to_path_buf(),
            reason: "the checksum is wrong".to_owned(),
        }),
        Err(source) => Err(StoreError::io("read", path)(source)),
    }
}

/// Reads one version of a file and compares it with its checksum.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is not what was written.
pub(crate) fn prove(disk: &dyn Disk, version: &Path) -> io::Result<()> {
    read_version(disk, version).map(drop)
}

/// Where the version before stands.
pub(crate) fn last_version(path: &Path) -> PathBuf {
    suffixed(path, ".last")
}

fn read_version(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let length = file.size()?;
    if length > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    let (head, contents) = bytes.split_at_checked(HEAD_BYTES).ok_or(io::ErrorKind::InvalidData)?;
    if head != head_of(contents).as_bytes() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(contents.to_vec())
}

fn head_of(contents: &[u8]) -> String {
    format!("{MAGIC}{:08x}\n", crc32fast::hash(contents))
}

/// Replaces the contents. On return the new version is durable; after an error or a crash the
/// file is the old version or the new one.
///
/// # Errors
/// [`StoreError::Io`], with nothing written, for contents of more than 256 MiB: nobody could read them
/// again.
pub(crate) fn write(disk: &dyn Disk, path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    let length = HEAD_BYTES + contents.len();
    if length as u64 > BYTES_MAX {
        let reason = format!("it would have {length} bytes, the limit is {BYTES_MAX}");
        let error = io::Error::new(io::ErrorKind::FileTooLarge, reason);
        return Err(StoreError::io("write", path)(error));
    }
    let mut bytes = head_of(contents).into_bytes();
    bytes.extend_from_slice(contents);
    let temporary = suffixed(path, ".tmp");
    let write = || {
        let file = disk.open(&temporary, OpenMode::Replace)?;
        file.write_all_at(&bytes, 0)?;
        Ok(file)
    };
    let file = write().map_err(StoreError::io("write", path))?;
    file.sync().map_err(StoreError::io("sync", path))?;
    let put_in_place = || {
        match disk.rename(path, &last_version(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        disk.rename(&temporary, path)
    };
    put_in_place().map_err(StoreError::io("write", path))?;
    disk.sync_directory(parent(path)).map_err(StoreError::io("sync", path))
}

/// The folder of a file; of a bare name it is the one where the process is.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes all versions, durably.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    for version in [last_version(path), path.to_path_buf()] {
        crate::segment::remove_if_there(disk, &version)?;
    }
    let directory = parent(path);
    match disk.sync_directory(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::io("sync", directory)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(crate) fn write_json(
    disk: &dyn Disk,
    path: &Path,
    value: &impl Serialize,
) -> Result<(), StoreError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| StoreError::Unreadable {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    text.push(b'\n');
    write(disk, path, &text)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    fn damage(disk: &SimulatedDisk, path: &str) {
        let file = disk.open(Path::new(path), OpenMode::Write).unwrap();
        file.write_all_at(b"?", HEAD_BYTES as u64).unwrap();
    }

    #[test]
    fn the_last_version_stands_in_for_a_damaged_one() {
        let disk = SimulatedDisk::new();
        disk.create_directory(Path::new("/d")).unwrap();
        let path = Path::new("/d/mark");
        assert_eq!(read(&disk, path).unwrap(), None);
        write(&disk, path, b"one").unwrap();
        write(&disk, path, b"two").unwrap();
        assert_eq!(read(&disk, path).unwrap().unwrap(), b"two");
        damage(&disk, "/d/mark");
        assert_eq!(read(&disk, path).unwrap().unwrap(), b"one");
        assert!(matches!(read_current(&disk, path), Err(StoreError::Unreadable { .. })));
        damage(&disk, "/d/mark.last");
        assert!(matches!(read(&disk, path), Err(StoreError::Unreadable { .. })));
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let disk = SimulatedDisk::new();
        disk.create_directory(Path::new("/d")).unwrap();
        let path = Path::new("/d/state");
        write(&disk, path, b"old").unwrap();
        let too_long = vec![0; BYTES_MAX as usize - HEAD_BYTES + 1];
        let error = write(&disk, path, &too_long).unwrap_err();
        assert!(error.to_string().contains("the limit is 268435456"), "{error}");
        assert!(!error.is_disk_failure() && !error.is_no_space());
        assert_eq!(read_newest(&disk, path).unwrap().unwrap(), b"old");
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_version_or_the_new_one() {
        for step in 0..8 {
            for seed in 0..50 {
                let disk = SimulatedDisk::new();
                disk.create_directory(Path::new("/d")).unwrap();
                let path = Path::new("/d/mark");
                write(&disk, path, b"zero").unwrap();
                write(&disk, path, b"old").unwrap();
                disk.fail_after(step);
                let written = write(&disk, path, b"new").is_ok();
                let crashed = disk.crash(seed);
                let found = read(&crashed, path).unwrap().unwrap();
                assert_eq!(read_current(&crashed, path).unwrap().unwrap(), found);
                let wanted: &[&[u8]] = if written { &[b"new"] } else { &[b"old", b"new"] };
                assert!(wanted.contains(&found.as_slice()), "step {step} seed {seed}: {found:?}");
            }
        }
    }
}
