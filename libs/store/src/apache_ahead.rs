//! Compares the log's end with Apache's queues, which may know of records behind it.
//!
//! Apache derives its queues from the log, so they know no more than it after a clean stop, nor after
//! a kill. They do where a file of the log is missing or older than they are; after a power cut, which
//! may keep the page of a queue and lose that of the log; and where Apache cut both after such a
//! crash, because it cuts a queue by moving its write position back and leaves the entries
//! (`ConsumeQueue.truncateDirtyLogicFiles`). Apache itself cuts its queues in all three cases
//! (`CommitLog.recoverNormally`, `recoverAbnormally`), and removes them all where the log is empty.

use std::path::Path;

use crate::apache::{FILLER_SIZE, LIGHT_PREFIX, UNIT_BYTES, Unit, UnitFile, directories};
use crate::checkpoint;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::{Layout, file_name, parse_file_name};

/// Apache flushes its log at least so often, and its queues on their own.
/// Source: `MessageStoreConfig.flushCommitLogThoroughInterval`.
const UNFLUSHED_MS: i64 = 10_000;

/// What Apache's queues know of records that do not lie in front of the log's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) entries: u64,
    /// How many queues these are of.
    pub(crate) queues: u64,
    /// Where the furthest of them ends.
    pub(crate) to: u64,
}

/// Where a log ends, as far as its files say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogEnd {
    /// Behind the last record.
    pub(crate) position: u64,
    /// Behind the last file, from the first on without a gap.
    pub(crate) files: u64,
    /// When the last record was stored, in milliseconds since 1970; `None` without one.
    pub(crate) last_store_time: Option<i64>,
}

impl Ahead {
    /// Looks at the end of each queue. `None`: all that they know lies in front of the log's end.
    pub(crate) fn find(
        disk: &dyn Disk,
        layout: &Layout,
        LogEnd { position, .. }: LogEnd,
    ) -> Result<Option<Self>, StoreError> {
        let mut ahead = Self::default();
        let queues = layout.root.join("consumequeue");
        // Light queues point to records that other queues have as well.
        let topics = directories(disk, &queues)?.into_iter();
        for topic in topics.filter(|topic| !topic.starts_with(LIGHT_PREFIX)) {
            for queue in directories(disk, &queues.join(&topic))? {
                ahead.look(disk, &queues.join(&topic).join(queue), position)?;
            }
        }
        Ok(Some(ahead).filter(|ahead| ahead.entries > 0))
    }

    fn look(&mut self, disk: &dyn Disk, directory: &Path, position: u64) -> Result<(), StoreError> {
        let mut entries = 0;
        for name in unit_files(disk, directory)?.iter().rev() {
            let units = open_units(disk, directory, name)?;
            let used = units.partition_point(|unit| unit.size > 0)?;
            if used == 0 {
                continue;
            }
            let last = units.read(used - 1)?;
            if !is_behind(&last, position) {
                break;
            }
            self.to = self.to.max(last.physical_offset.saturating_add(u64::from(last.size)));
            let known =
                units.partition_point(|unit| unit.size > 0 && !is_behind(unit, position))?;
            entries += used - known.min(used);
            if known > 0 {
                break;
            }
        }
        self.entries += entries;
        self.queues += u64::from(entries > 0);
        Ok(())
    }

    /// Why these records are lost; `None` where they are such as a power cut takes, or were cut
    /// before.
    ///
    /// A power cut does not take a file that Apache made before it wrote the first entry for it.
    /// Otherwise `checkpoint` says what is certain: what was stored before its first time was on
    /// disk; and after a clean stop its second time is that of the message that went into queues
    /// last, or was left as it was by one that crashed and had written its queues before its log.
    pub(crate) fn loss(
        &self,
        disk: &dyn Disk,
        layout: &Layout,
        was_clean: bool,
        log: LogEnd,
    ) -> Result<Option<String>, StoreError> {
        let flushed_ms = checkpoint::flushed_until_ms(disk, layout)?;
        let queued_ms = checkpoint::queues_flushed_until_ms(disk, layout)?;
        let last_ms = log.last_store_time.unwrap_or(0);
        let is_file_missing = self.to > log.files;
        let is_of_a_cut =
            was_clean && queued_ms > 0 && queued_ms <= last_ms && flushed_ms <= last_ms;
        let why = if is_file_missing && !is_of_a_cut {
            let path = layout.commit_log.join(file_name(log.files));
            format!("and the file {} is not there; put it back", path.display())
        } else if flushed_ms > last_ms {
            "some of which were on disk when it ended; put back what stood there".to_owned()
        } else if was_clean && queued_ms > last_ms.saturating_add(UNFLUSHED_MS) {
            "although it was stopped cleanly; put back what stood there".to_owned()
        } else {
            return Ok(None);
        };
        Ok(Some(format!("{self} {why}")))
    }
}

impl std::fmt::Display for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entries, queues, to } = self;
        write!(
            f,
            "{queues} queues of Apache's broker know {entries} messages behind it, up to {to},"
        )
    }
}

/// Whether an entry's record does not lie in front of a position.
pub(crate) fn is_behind(unit: &Unit, position: u64) -> bool {
    unit.size != FILLER_SIZE && unit.physical_offset >= position
}

/// The files of a queue, oldest first.
pub(crate) fn unit_files(disk: &dyn Disk, directory: &Path) -> Result<Vec<String>, StoreError> {
    let files = disk.list(directory).map_err(StoreError::io("list", directory))?;
    let names = files.into_iter().map(|file| file.name);
    Ok(names.filter(|name| parse_file_name(name).is_some()).collect())
}

pub(crate) fn open_units(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
) -> Result<UnitFile, StoreError> {
    let path = directory.join(name);
    let open = || disk.open(&path, crate::disk::OpenMode::Read)?.size();
    let bytes = open().map_err(StoreError::io("open", &path))?;
    UnitFile::open(disk, path, bytes / UNIT_BYTES)
}
