//! Why the store refused or failed.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One variant per cause; the text says what happened to what and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operator's configuration.
    #[error("store configuration: {field} {reason}")]
    Config { field: &'static str, reason: String },
    #[error("data directory {} is in use by another process; stop it or choose another directory", .path.display())]
    InUse { path: PathBuf },
    #[error("cannot {action} {}: {source}{}", .path.display(), hint(.source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// The operator's set-up.
    #[error(
        "cannot {action} {}: it belongs to user {owner} and this process runs as user {user}; give \
         the data directory and all in it to that user (chown -R {user} {}), or run as user {owner}",
        .path.display(), .root.display()
    )]
    OtherOwner { action: &'static str, path: PathBuf, root: PathBuf, owner: u32, user: u32 },
    #[error("{} has format version {found}, this program knows up to {known}; use a newer program", .path.display())]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    #[error("{} says {field} is {found}, the configuration says {expected}; this directory belongs to another store", .path.display())]
    OtherStore { path: PathBuf, field: &'static str, found: String, expected: String },
    /// A file that is not what its name says, and cannot be derived again.
    #[error("{}: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    /// Records that were promised are gone. The store does not open or answer over this range.
    #[error(
        "the CommitLog is damaged from {from} to {to}: {reason}; a replica \
             has it whole, and where there is none `weir store verify` says what is lost and `weir store \
             repair` cuts it off"
    )]
    Damaged { from: u64, to: u64, reason: String },
    /// Nothing is wrong with the log; somebody asked for the wrong place.
    #[error("no record begins at {position}: {reason}")]
    NoRecord { position: u64, reason: String },
    /// Nothing was written. `floor` is what has to stay free; where it is not reached yet the disk
    /// itself has refused, by a quota for instance.
    #[error("the disk of {} is full: {free} of {total} bytes are free, writes stop below {floor}; \
             free or add disk space, or shorten the retention", .path.display())]
    Full { path: PathBuf, free: u64, total: u64, floor: u64 },
    /// A write-back failed, so nobody knows what is on disk. For ever: end the process.
    #[error("the store stopped after a failed write-back: {cause}")]
    Poisoned { cause: String },
    /// The caller's message or batch.
    #[error("{what} takes {bytes} bytes, the limit is {limit}")]
    TooLarge { what: &'static str, bytes: usize, limit: usize },
    /// The disk does not keep up; nothing was written.
    #[error("the disk does not keep up, waited {} ms for it; try again", .waited.as_millis())]
    Busy { waited: Duration },
    #[error("position {position} was not flushed within {} ms", .waited.as_millis())]
    NotFlushed { position: u64, waited: Duration },
    #[error("the store is closed")]
    Closed,
    /// Nothing was written: who replicates this store says when it may be appended to.
    #[error(
        "this replica takes no messages: it is not the master of its group, or not sure that it still is"
    )]
    NotMaster,
    /// What another replica sent as the continuation of this log is none; nothing was written.
    #[error("what was sent for position {position} does not continue this log: {reason}")]
    NoContinuation { position: u64, reason: String },
}

/// What to do about a disk error, for those that have one cause.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "; mount the file system for writing",
        io::ErrorKind::PermissionDenied => {
            "; give the directory and its files to the user that this process runs as"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free or add disk space",
        _ => "",
    }
}

impl StoreError {
    /// Says whose a file of the directory `root` is where the disk has refused it because it is
    /// somebody else's. Of one that is not there, whose the directory is that it would be in.
    pub(crate) fn name_owner(self, root: &Path) -> Self {
        let Self::Io { action, path, source } = &self else { return self };
        // An error without a number is not of the operating system.
        if source.kind() != io::ErrorKind::PermissionDenied || source.raw_os_error().is_none() {
            return self;
        }
        let owned =
            path.ancestors().find_map(|path| Some((path, std::fs::metadata(path).ok()?.uid())));
        let user = rustix::process::geteuid().as_raw();
        match owned {
            Some((path, owner)) if owner != user => {
                let (path, root) = (path.to_path_buf(), root.to_path_buf());
                Self::OtherOwner { action, path, root, owner, user }
            }
            Some(_) | None => self,
        }
    }

    /// Whether the process, or the machine, has no file descriptor left.
    pub fn lacks_descriptors(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        let errno = source.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
        let too_many_files = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
        errno.is_some_and(|errno| too_many_files.contains(&errno))
    }

    /// Whether the disk failed to take what was written: anything but a lack of space, of
    /// descriptors or of memory, which may pass, and but a failed read, which is its reader's.
    ///
    /// A sync that fails for want of space is no different from others: what was written before it is
    /// lost, and the kernel says so once.
    pub(crate) fn is_disk_failure(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
        match self {
            Self::Io { action, source, .. } => {
                let passes = [StorageFull, QuotaExceeded, FileTooLarge, OutOfMemory];
                *action != "read"
                    && (*action == "sync" || !passes.contains(&source.kind()))
                    && !self.lacks_descriptors()
            }
            _ => false,
        }
    }

    /// Whether the disk, or a quota on it, has no room for what was to be written, and said so before
    /// it took anything.
    pub fn is_no_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Io { action, source, .. } => {
                *action != "sync" && matches!(source.kind(), StorageFull | QuotaExceeded)
            }
            Self::Full { .. } => true,
            _ => false,
        }
    }

    /// Puts a disk error beside what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}
