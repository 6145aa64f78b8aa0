//! Takes the end of a damaged log away, after a copy of it was made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use weirmq_message::record::Record;

use super::cut_queues::cut_apache_queues;
use super::directory::Directory;
use super::report::VerifyReport;
use crate::apache_ahead::{Ahead, LogEnd};
use crate::clock::Clock;
use crate::disk::{Disk, Listed, OpenMode, erase, read_exact_at};
use crate::durable_mark::DurableMark;
use crate::error::StoreError;
use crate::format::{Layout, file_name, parse_file_name};
use crate::open::{self, lock};
use crate::queue_table::QueueState;
use crate::scan::{Scanner, Step, next_record};
use crate::segment::{Segment, remove_if_there};
use crate::small_file::{self, LOST_FILE};

const CHUNK_BYTES: usize = 1 << 20;
/// Topics that a plan names; the records of others are only counted.
const TOPICS_MAX: usize = 1000;

/// What a cut would take away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CutPlan {
    /// Everything from this position of the log on.
    pub at: u64,
    /// Behind the last byte that is not zero.
    pub to: u64,
    /// Whole valid records.
    pub records: u64,
    /// How many of them by topic; at most 1,000 topics.
    pub records_by_topic: BTreeMap<String, u64>,
    /// When the first and the last of them were stored, milliseconds since 1970.
    pub first_stored: Option<i64>,
    pub last_stored: Option<i64>,
    /// Messages that Apache's queues know from there on, those in files of the log that are missing as
    /// well; 0 where Apache's broker was not the last to use the directory.
    pub queued: u64,
    /// Whether anything of the log goes. Otherwise `at` is its end.
    pub cuts_log: bool,
    /// What stands behind the ends of full segments, and goes without anything else.
    pub excess: Vec<Excess>,
    /// Whether `weir/durable-mark`, of which no version is whole, is written anew: what lies below `at` is
    /// whole, and counts as what was there.
    pub renews_mark: bool,
    /// Length of a segment, never 0. A file that is shorter gets it.
    #[serde(skip)]
    segment_bytes: u64,
}

/// Bytes behind the end of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Excess {
    pub path: PathBuf,
    pub bytes: u64,
}

/// What was cut, and where its copy lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    #[serde(flatten)]
    pub plan: CutPlan,
    /// A file for each segment, named by the position of its first byte, and `plan.json`; what stood
    /// behind the end of a segment is in one with its name and `.excess`.
    pub backup: PathBuf,
}

/// Says what cutting at the first damage of `report` takes away, and what else a cut mends; `None` where
/// there is nothing for it to do.
///
/// # Errors
/// [`StoreError::Io`].
pub fn plan_cut(
    directory: &Directory,
    report: &VerifyReport,
) -> Result<Option<CutPlan>, StoreError> {
    let segment_bytes = directory.segment_bytes;
    let excess = find_excess(&*directory.disk, &directory.layout, segment_bytes)?;
    let renews_mark = directory.is_mark_damaged;
    let damage = report.first_log_damage();
    if damage.is_none() && excess.is_empty() && !renews_mark {
        return Ok(None);
    }
    let at = match damage {
        Some(damage) => start_of_record(directory, damage)?,
        None => report.log_end,
    };
    let cuts_log = damage.is_some();
    let mut plan =
        CutPlan { at, to: at, segment_bytes, excess, cuts_log, renews_mark, ..CutPlan::default() };
    if !cuts_log {
        return Ok(Some(plan));
    }
    if directory.was_apache {
        let log = LogEnd { position: at, files: at, last_store_time: None };
        let ahead = Ahead::find(&*directory.disk, &directory.layout, log)?;
        plan.queued = ahead.map_or(0, |ahead| ahead.entries);
    }
    for segment in directory.segments.iter().filter(|segment| segment.end() > at) {
        let from = segment.start.max(at);
        if let Some(end) = last_byte(segment, from)? {
            plan.to = plan.to.max(end);
        }
        count_records(segment, from, &mut plan)?;
    }
    Ok(Some(plan))
}

/// Copies everything from `plan.at` on into the directory `backup` and then takes it out of the
/// log; both are durable on return. After a crash in between the directory is as damaged as it
/// was, or is cut: the same call brings it to its end.
///
/// # Errors
/// [`StoreError::InUse`] while a broker holds the directory; [`StoreError::Unreadable`] for a `backup`
/// that has files or lies below `root`; [`StoreError::Io`], with the log untouched when the copy is what
/// failed.
pub fn cut(
    root: &Path,
    disk: &Arc<dyn Disk>,
    plan: CutPlan,
    backup: Option<PathBuf>,
    clock: &dyn Clock,
) -> Result<Cut, StoreError> {
    let layout = Layout::under(root);
    let _lock = lock(&**disk, &layout)?;
    let name = format!("backup-{}-{}", file_name(plan.at), clock.now_ms());
    let backup = match backup {
        Some(backup) => {
            check_backup(&**disk, root, &backup)?;
            backup
        }
        None => layout.weir.join(name),
    };
    let bytes = plan.segment_bytes;
    let segments = list(&**disk, &layout, bytes)?;
    let is_cut = |start: &u64| plan.cuts_log && start.saturating_add(bytes) > plan.at;
    let segments: Vec<u64> = segments.into_iter().filter(is_cut).collect();
    disk.create_directory(&backup).map_err(StoreError::io("create directory", &backup))?;
    let excess = find_excess(&**disk, &layout, bytes)?;
    copy_excess(&**disk, &excess, bytes, &backup)?;
    if plan.renews_mark {
        copy_mark(&**disk, &layout, &backup)?;
    }
    copy(&**disk, &layout, &segments, bytes, &plan, &backup)?;
    excess.iter().try_for_each(|excess| set_length(&**disk, &excess.path, bytes))?;
    if !plan.cuts_log && !plan.renews_mark {
        return Ok(Cut { plan, backup });
    }
    // Who counted on records that are gone, or may be, must not do so any more.
    for directory in [&layout.weir, &layout.user] {
        // A directory that only Apache's broker has used has neither.
        disk.create_directory(directory).map_err(StoreError::io("create", directory))?;
    }
    small_file::write(&**disk, &layout.user.join(LOST_FILE), b"cut by hand")?;
    renew_mark(&**disk, &layout, &plan)?;
    if !plan.cuts_log {
        return Ok(Cut { plan, backup });
    }
    cut_apache_queues(&**disk, &layout, plan.at, &backup)?;
    lengthen(&**disk, &layout, &plan)?;
    take_away(disk, &layout, plan.at, bytes)?;
    Ok(Cut { plan, backup })
}

/// A copy has to be the only thing in its folder, and must not lie among the files that the cut, or a
/// broker, takes away.
fn check_backup(disk: &dyn Disk, root: &Path, backup: &Path) -> Result<(), StoreError> {
    let refuse = |reason: &str| {
        Err(StoreError::Unreadable { path: backup.to_path_buf(), reason: reason.to_owned() })
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let absolute = std::path::absolute(backup).map_err(StoreError::io("find", backup))?;
    let absolute_root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
    if absolute.ancestors().any(|above| real(above) == real(&absolute_root)) {
        return refuse("lies in the store's own directory; name a folder outside of it");
    }
    match disk.list(backup) {
        Ok(files) if !files.is_empty() => refuse("is not empty; name a folder for this copy alone"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("list", backup)(error)),
    }
}

/// Gives the file that will be the last one its full length.
fn lengthen(disk: &dyn Disk, layout: &Layout, plan: &CutPlan) -> Result<(), StoreError> {
    let segments = list(disk, layout, plan.segment_bytes)?;
    let Some(start) = segments.into_iter().rfind(|start| *start <= plan.at) else { return Ok(()) };
    set_length(disk, &layout.commit_log.join(file_name(start)), plan.segment_bytes)
}

/// Gives a segment its length, durably.
fn set_length(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<(), StoreError> {
    let set = || {
        let file = disk.open(path, OpenMode::Write)?;
        if file.size()? != bytes {
            file.set_len(bytes)?;
            file.sync()?;
        }
        Ok(())
    };
    set().map_err(StoreError::io("set the length of", path))
}

/// The segments whose files hold more than a segment of so many `bytes`.
fn find_excess(disk: &dyn Disk, layout: &Layout, bytes: u64) -> Result<Vec<Excess>, StoreError> {
    let directory = &layout.commit_log;
    let files = disk.list(directory).map_err(StoreError::io("list", directory))?;
    let is_segment = |name: &str| parse_file_name(name).is_some_and(|at| at.is_multiple_of(bytes));
    let long = files.iter().filter(|file| file.bytes > bytes && is_segment(&file.name));
    let excess =
        |file: &Listed| Excess { path: directory.join(&file.name), bytes: file.bytes - bytes };
    Ok(long.map(excess).collect())
}

fn copy_excess(
    disk: &dyn Disk,
    excess: &[Excess],
    bytes: u64,
    backup: &Path,
) -> Result<(), StoreError> {
    for Excess { path, bytes: excess } in excess {
        let name = path.file_name().unwrap_or_default().display();
        copy_range(disk, path, bytes..bytes + excess, &backup.join(format!("{name}.excess")))?;
    }
    Ok(())
}

/// Takes everything from `at` on out of a log whose segments have so many `bytes`, durably.
pub(super) fn take_away(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    at: u64,
    bytes: u64,
) -> Result<(), StoreError> {
    let all = list(&**disk, layout, bytes)?;
    let is_cut = |start: &&u64| start.saturating_add(bytes) > at;
    let segments: Vec<u64> = all.iter().filter(is_cut).copied().collect();
    // First the marks: a log that is cut and still promised would be refused for ever, one that
    // is not cut yet and no longer promised is refused until this is repeated.
    lower_marks(&**disk, layout, at, all.first().copied().unwrap_or(0))?;
    remove_derived(&**disk, layout, &segments)?;
    for start in segments.iter().rev() {
        let path = layout.commit_log.join(file_name(*start));
        // The very first segment stays, empty: it says where the log begins.
        if *start > at || (*start == at && Some(start) != all.first()) {
            remove_if_there(&**disk, &path)?;
        } else {
            zero(&**disk, &path, at - start, bytes)?;
        }
    }
    disk.sync_directory(&layout.commit_log).map_err(StoreError::io("sync", &layout.commit_log))
}

fn copy_mark(disk: &dyn Disk, layout: &Layout, backup: &Path) -> Result<(), StoreError> {
    let mark = layout.durable_mark();
    for version in [small_file::last_version(&mark), mark] {
        let size = disk.open(&version, OpenMode::Read).and_then(|file| file.size());
        let Ok(size) = size else { continue };
        let name = version.file_name().unwrap_or_default();
        copy_range(disk, &version, 0..size, &backup.join(name))?;
    }
    Ok(())
}

/// Writes a durable mark of which no version is whole anew: for a log that was proved up to `plan.at`,
/// and is made durable up to there first. Nothing valid may follow on it, so the bound that it says is 0.
fn renew_mark(disk: &dyn Disk, layout: &Layout, plan: &CutPlan) -> Result<(), StoreError> {
    match DurableMark::read(disk, layout) {
        Err(StoreError::Unreadable { .. }) => {}
        other => return other.map(drop),
    }
    for start in list(disk, layout, plan.segment_bytes)? {
        if start < plan.at {
            let path = layout.commit_log.join(file_name(start));
            let synced = disk.open(&path, OpenMode::Write).and_then(|file| file.sync());
            synced.map_err(StoreError::io("sync", &path))?;
        }
    }
    disk.sync_directory(&layout.commit_log).map_err(StoreError::io("sync", &layout.commit_log))?;
    let renewed = DurableMark { flushed: plan.at, unflushed_bytes_max: 0 };
    // Twice, so that the version before is whole as well.
    renewed.write(disk, layout)?;
    renewed.write(disk, layout)
}

/// The first damaged byte may lie inside a record or behind the last one; the cut is where a
/// record ends.
fn start_of_record(directory: &Directory, damage: u64) -> Result<u64, StoreError> {
    let Some(segment) = directory.segment_at(damage) else { return Ok(damage) };
    let mut scanner = Scanner::new(segment, segment.start, true);
    loop {
        let position = scanner.position();
        match scanner.step()? {
            Step::Record(_, size) if position + size <= damage => {}
            _ => return Ok(position.min(damage)),
        }
    }
}

fn last_byte(segment: &Segment, from: u64) -> Result<Option<u64>, StoreError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut position, mut last) = (from, None);
    while position < segment.end() {
        let Some(data) = segment.next_data(position)? else { break };
        position = position.max(data.start);
        let length = (data.end - position).min(CHUNK_BYTES as u64) as usize;
        segment.read_exact(&mut chunk[..length], position)?;
        if let Some(at) = chunk[..length].iter().rposition(|byte| *byte != 0) {
            last = Some(position + at as u64 + 1);
        }
        position += length as u64;
    }
    Ok(last)
}

fn count_records(segment: &Segment, from: u64, plan: &mut CutPlan) -> Result<(), StoreError> {
    let mut position = from;
    while let Some(next) = next_record(segment, position)? {
        let mut scanner = Scanner::new(segment, next, true);
        while let Step::Record(record, _) = scanner.step()? {
            plan.count(&record);
        }
        position = scanner.position().max(next + 1);
    }
    Ok(())
}

impl CutPlan {
    fn count(&mut self, record: &Record<'_>) {
        self.records += 1;
        self.first_stored.get_or_insert(record.store_timestamp);
        self.last_stored = Some(record.store_timestamp);
        if let Some(count) = self.records_by_topic.get_mut(record.topic) {
            *count += 1;
        } else if self.records_by_topic.len() < TOPICS_MAX {
            self.records_by_topic.insert(record.topic.to_owned(), 1);
        }
    }
}

/// Starts of the segments of so many `bytes`, in order. Files that are none by their names are not meant.
pub(super) fn list(disk: &dyn Disk, layout: &Layout, bytes: u64) -> Result<Vec<u64>, StoreError> {
    let files =
        disk.list(&layout.commit_log).map_err(StoreError::io("list", &layout.commit_log))?;
    let starts = files.iter().filter_map(|file| parse_file_name(&file.name));
    Ok(starts.filter(|start| start.is_multiple_of(bytes)).collect())
}

fn copy(
    disk: &dyn Disk,
    layout: &Layout,
    segments: &[u64],
    bytes: u64,
    plan: &CutPlan,
    backup: &Path,
) -> Result<(), StoreError> {
    for start in segments {
        let from = plan.at.max(*start);
        let to = plan.to.min(start.saturating_add(bytes));
        if from < to {
            let source = layout.commit_log.join(file_name(*start));
            copy_range(disk, &source, from - start..to - start, &backup.join(file_name(from)))?;
        }
    }
    let path = backup.join("plan.json");
    let text = serde_json::to_vec_pretty(plan).unwrap_or_default();
    let write = || {
        let file = disk.open(&path, OpenMode::Replace)?;
        file.write_all_at(&text, 0)?;
        file.sync()?;
        disk.sync_directory(backup)?;
        disk.sync_directory(small_file::parent(backup))
    };
    write().map_err(StoreError::io("write", &path))
}

pub(super) fn copy_range(
    disk: &dyn Disk,
    source: &Path,
    range: std::ops::Range<u64>,
    target: &Path,
) -> Result<(), StoreError> {
    let from = disk.open(source, OpenMode::Read).map_err(StoreError::io("open", source))?;
    let to = disk.open(target, OpenMode::Replace).map_err(StoreError::io("create", target))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut position = range.start;
    while position < range.end {
        let length = (range.end - position).min(chunk.len() as u64) as usize;
        match read_exact_at(&*from, &mut chunk[..length], position) {
            Ok(()) => {
                to.write_all_at(&chunk[..length], position - range.start)
                    .map_err(StoreError::io("write", target))?;
                position += length as u64;
            }
            // What the disk does not give stays a hole in the copy, page by page.
            Err(_) if length > 4096 => chunk.truncate(4096),
            Err(_) => position += length as u64,
        }
    }
    to.set_len(range.end - range.start).map_err(StoreError::io("write", target))?;
    to.sync().map_err(StoreError::io("sync", target))
}

pub(super) fn zero(disk: &dyn Disk, path: &Path, from: u64, to: u64) -> Result<(), StoreError> {
    let file = disk.open(path, OpenMode::Write).map_err(StoreError::io("open", path))?;
    erase(&*file, from..to).map_err(StoreError::io("write", path))?;
    file.sync().map_err(StoreError::io("sync", path))
}

/// Removes what was derived from the segments, their checksums included, durably.
fn remove_derived(disk: &dyn Disk, layout: &Layout, segments: &[u64]) -> Result<(), StoreError> {
    for directory in [&layout.queues, &layout.keys, &layout.blocks] {
        for start in segments {
            remove_if_there(disk, &directory.join(file_name(*start)))?;
        }
        match disk.sync_directory(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("sync", directory)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn lower_marks(disk: &dyn Disk, layout: &Layout, at: u64, start: u64) -> Result<(), StoreError> {
    if let Some(mark) = DurableMark::read(disk, layout)?
        && mark.flushed > at
    {
        let lowered = DurableMark { flushed: at, ..mark };
        // Twice, so that the version before does not promise more either.
        lowered.write(disk, layout)?;
        lowered.write(disk, layout)?;
    }
    let state = QueueState::read(disk, layout)?;
    let mut fitted = state.clone();
    if fitted.take_back(at) {
        open::remove_derived(disk, layout)?;
    }
    fitted.fit(start, at);
    if fitted != state {
        fitted.write(disk, layout)?;
    }
    Ok(())
}
