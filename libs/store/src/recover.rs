//! Finds the end of the log after any kind of stop.
//!
//! Everything below the durable mark was on disk before the mark was written, so the walk starts
//! there and proves every record. Write-back happens in any order, so behind the first invalid
//! byte there may be whole records in a healthy machine too: a *torn tail*, which is cut. But the
//! append path never runs further ahead of the disk than `unflushed_bytes_max`. A valid record
//! beyond that proves that something is missing which had been promised: *damage*, which is not
//! touched.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::apache_ahead::{Ahead, LogEnd};
use crate::apache_cut::ApacheCut;
use crate::block_sums::is_intact;
use crate::block_tail::BlockTail;
use crate::clean_end::found_behind;
use crate::commit_log::sync_names;
use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::durable_mark::DurableMark;
use crate::error::StoreError;
use crate::format::{Layout, PADDING_HEAD_BYTES, parse_file_name};
use crate::planted::{self, Planted};
use crate::proof::Proofs;
use crate::scan::{Remains, Scanner, Step, search};
use crate::segment::{Segment, remove_if_there};

/// What of a directory that Apache's broker used last has no place in our queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApacheUse {
    /// Light message queues (LMQ): queues whose entries point to messages of other topics.
    pub light_queues: usize,
    /// Topics whose queues count batches.
    pub batch_topics: Vec<String>,
}

/// What opening a store found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the last user closed the store.
    pub was_clean: bool,
    /// What Apache's broker left, if it was the last user; everything derived was derived again.
    pub apache: Option<ApacheUse>,
    /// The log's first position.
    pub log_start: u64,
    /// Where the next record goes.
    pub log_end: u64,
    /// Where the durable mark stood.
    pub durable_mark: u64,
    /// Bytes from the durable mark on whose records were proved.
    pub proved_bytes: u64,
    /// Length of the torn tail that was cut, 0 when there was none.
    pub cut_bytes: u64,
    /// Whole records in it.
    pub cut_records: u64,
    /// Messages that Apache's queues know and the log does not have: its broker was not stopped, and
    /// what it wrote last was not on disk; or it has cut them off itself.
    pub unlogged_entries: u64,
    /// Segments that were read again to derive their queue and key entries.
    pub rebuilt_segments: usize,
    /// Records in those.
    pub rebuilt_records: u64,
}

/// A log whose end is known and durable.
pub(crate) struct RecoveredLog {
    /// Those with records, oldest first.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) prepared: Vec<Arc<Segment>>,
    pub(crate) report: RecoveryReport,
}

/// What `commitlog/` holds.
struct FoundSegments {
    /// From the first one on, without a gap.
    connected: Vec<Arc<Segment>>,
    /// Those that a crash left behind one whose name it lost.
    beyond_gap: Vec<Arc<Segment>>,
}

/// What segments say about themselves from the durable mark on.
pub(crate) struct Tail {
    /// Of each segment that may hold something behind the mark.
    proofs: Vec<(u64, Proofs)>,
    /// Everything below was on disk: the mark, or further.
    pub(crate) flushed: u64,
}

impl Tail {
    /// After Apache's broker (`was_apache`) proofs are those of our last stop. It leaves none, and
    /// may have cut the log and written on, so they say nothing any more about what counts.
    pub(crate) fn read(
        segments: &[Arc<Segment>],
        mark: u64,
        was_apache: bool,
    ) -> Result<Self, StoreError> {
        let mut proofs = Vec::new();
        for segment in segments.iter().filter(|segment| segment.end() > mark) {
            let found = Proofs::read(segment)?;
            if found.is_recycled() {
                segment.set_recycled();
            }
            if !was_apache {
                proofs.push((segment.start, found));
            }
        }
        let flushed = proofs.iter().map(|(_, proofs)| proofs.flushed()).max();
        Ok(Self { proofs, flushed: flushed.unwrap_or(0).max(mark) })
    }

    /// The proofs of a segment whose records need them.
    pub(crate) fn needed(&self, segment: &Segment) -> Option<&Proofs> {
        let of_segment = self.proofs.iter().find(|(start, _)| *start == segment.start);
        of_segment.map(|(_, proofs)| proofs).filter(|proofs| proofs.is_recycled())
    }

    /// Up to where remains of a log that stops at `stop` are looked for. Proofs say exactly what was
    /// promised, so nothing further on can be damage.
    pub(crate) fn search_end(&self, segment: &Segment, stop: u64, evidence: Evidence) -> u64 {
        match (self.needed(segment), evidence) {
            (Some(_), Evidence::UnflushedBytes(bound)) => {
                segment.end().min(stop.saturating_add(bound))
            }
            (Some(_) | None, _) => segment.end(),
        }
    }

    /// Up to where the records of a segment count.
    pub(crate) fn proved_end(&self, segment: &Segment) -> Result<u64, StoreError> {
        match self.needed(segment) {
            None => Ok(segment.end()),
            Some(_) if self.flushed >= segment.end() => Ok(segment.end()),
            Some(proofs) => proofs.proved_from(segment, self.flushed.max(segment.start)),
        }
    }
}

/// Where the walk stopped.
struct Stop {
    position: u64,
    /// Why, if bytes stand there that are not a record.
    invalid: Option<String>,
    /// When the record in front of it was stored; `None` without one.
    last_store_time: Option<i64>,
}

/// What is known about the last moments before the stop, to tell damage from a torn tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// No record stood further ahead of the disk than so many bytes.
    UnflushedBytes(u64),
    /// What was stored before this time was on disk, in milliseconds since 1970. Apache's broker
    /// keeps no bound, but such a time; after a clean stop it holds for everything.
    FlushedBefore(i64),
}

impl Evidence {
    /// Why valid records behind the stop prove that promised ones are missing; `None`: they do not.
    pub(crate) fn of_damage(self, stop: u64, remains: &Remains) -> Option<&'static str> {
        match self {
            _ if planted::is_on(Planted::CutAtFirstBadRecord) => None,
            Self::UnflushedBytes(bound) => remains
                .last_record
                .filter(|last| *last > stop.saturating_add(bound))
                .map(|_| "further on than can be unflushed"),
            // Store times grow along the log, so the first record decides.
            Self::FlushedBefore(time_ms) => {
                remains.first_store_time.filter(|first| *first < time_ms).map(|_| {
                    "which were on disk when Apache's broker ended; if it had cut its log there \
                     after a crash, and cannot be seen to have written on, `weir store repair \
                     --cut-at-damage` takes them out and keeps a copy"
                })
            }
        }
    }
}

/// What the last user of the directory left beside the log.
pub(crate) struct LastUse {
    /// Nothing that somebody else may have made untrue since.
    pub(crate) mark: Option<DurableMark>,
    /// The log begins here or before.
    pub(crate) noted_start: Option<u64>,
    pub(crate) evidence: Evidence,
    pub(crate) was_clean: bool,
    /// Set if it was Apache's broker.
    pub(crate) apache: Option<ApacheCut>,
}

pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    config: &StoreConfig,
    last: &LastUse,
) -> Result<RecoveredLog, StoreError> {
    let LastUse { mark, noted_start, evidence, was_clean, apache } = *last;
    let FoundSegments { connected: mut segments, beyond_gap } =
        open_segments(disk, layout, config, mark)?;
    check_beginning(&segments, noted_start, mark, config.segment_bytes)?;
    let start = segments.first().map_or(0, |segment| segment.start);
    let from = mark.map_or(start, |mark| mark.flushed).max(start);
    let known_end = segments.last().map_or(0, |segment| segment.end());
    if from > known_end {
        return Err(StoreError::Damaged {
            from: known_end,
            to: from,
            reason: "segments are missing whose records were on disk".to_owned(),
        });
    }
    let tail = Tail::read(&segments, from, apache.is_some())?;
    let stop = walk(&segments, from, &tail)?;
    let end = stop.position;
    if end < tail.flushed && !planted::is_on(Planted::CutAtFirstBadRecord) {
        let why = stop.invalid.unwrap_or_else(|| "zeros".to_owned());
        let reason = format!("{why}, but everything up to there was on disk");
        return Err(StoreError::Damaged { from: end, to: tail.flushed, reason });
    }
    if planted::is_on(Planted::CutAtFirstBadRecord) {
        // The sums would tell.
    } else if mark.is_some() {
        check_block_sums(&segments, from, &stop)?;
    } else {
        forget_newest_sums(&**disk, layout)?;
    }
    let mut report = RecoveryReport {
        was_clean,
        log_start: start,
        log_end: end,
        durable_mark: from,
        proved_bytes: end - from,
        ..RecoveryReport::default()
    };
    let is_as_closed = was_clean && end == from && stop.invalid.is_none();
    let has_apache_cut = Cell::new(false);
    let remains = match is_as_closed {
        true => Vec::new(),
        false => {
            let suspects = segments.iter().chain(&beyond_gap);
            let is_cut = |remains: &Remains| {
                let is_cut = match apache {
                    Some(apache) => {
                        apache.explains(&**disk, layout, end, stop.last_store_time, remains)?
                    }
                    None => false,
                };
                has_apache_cut.set(has_apache_cut.get() || is_cut);
                Ok(is_cut)
            };
            find_remains(suspects, &stop, &tail, evidence, is_cut)?
        }
    };
    if apache.is_some() {
        let (position, last_store_time) = (end, stop.last_store_time);
        let log = LogEnd { position, files: known_end, last_store_time };
        report.unlogged_entries =
            check_queues(&**disk, layout, was_clean, log, has_apache_cut.get())?;
    }
    if is_as_closed {
        if let Some(damage) = found_behind(segments.iter().chain(&beyond_gap), end)? {
            return Err(damage);
        }
        for empty in beyond_gap.iter().rev() {
            empty.remove_files(&**disk)?;
        }
    } else {
        cut(disk, layout, &mut segments, beyond_gap, &stop, &remains, &mut report)?;
        // The process that wrote these bytes may have died before it synced them.
        make_durable(&**disk, layout, &segments, from, end)?;
    }
    let has_records = segments.iter().filter(|segment| segment.start < end).count();
    let mut prepared = segments.split_off(has_records);
    // A crash in an append that needed several segments leaves more than one.
    for surplus in prepared.drain(prepared.len().min(1)..).rev() {
        surplus.remove_files(&**disk)?;
    }
    Ok(RecoveredLog { segments: segments.into(), prepared, report })
}

/// Compares the log's end with what Apache's queues know; says how many messages they know behind it.
/// Fails if those are lost, which they are not where Apache `has_cut` the log itself.
fn check_queues(
    disk: &dyn Disk,
    layout: &Layout,
    was_clean: bool,
    log: LogEnd,
    has_cut: bool,
) -> Result<u64, StoreError> {
    let Some(ahead) = Ahead::find(disk, layout, log)? else { return Ok(0) };
    if !has_cut && let Some(reason) = ahead.loss(disk, layout, was_clean, log)? {
        return Err(StoreError::Damaged { from: log.position, to: ahead.to, reason });
    }
    tracing::warn!(
        log_end = log.position,
        to = ahead.to,
        messages = ahead.entries,
        queues = ahead.queues,
        "Apache's queues know messages that are not in the log: they were not on disk when its broker \
         ended without being stopped"
    );
    Ok(ahead.entries)
}

/// Why a segment's file is shorter than what was written. `None`: it has its full length, or
/// is what a crash left of one that was being made: without its length, or with a part of it behind
/// which nothing was ever on disk. Without a mark, as after Apache's broker, nobody says what was;
/// it makes files at full length, and of a newest one that is empty it thinks as we do
/// (`MappedFileQueue.doLoad`).
pub(crate) fn length_problem(
    found_bytes: u64,
    segment: std::ops::Range<u64>,
    mark: Option<DurableMark>,
    is_newest: bool,
) -> Option<String> {
    let length = segment.end - segment.start;
    let is_part = match mark {
        Some(mark) => segment.start + found_bytes >= mark.flushed.min(segment.end),
        None => is_newest && found_bytes == 0,
    };
    (found_bytes < length && !is_part).then(|| {
        format!(
            "is {found_bytes} bytes long, segments have {length}; put the whole file back, from where \
             the directory was copied, or have `weir store repair --cut-at-damage` give up what is \
             missing, and all that follows on it"
        )
    })
}

/// Why a segment's file holds more than a segment, by its length: nobody of ours wrote that.
pub(crate) fn excess_problem(found_bytes: u64, length: u64) -> Option<String> {
    (found_bytes > length).then(|| {
        format!(
            "is {found_bytes} bytes long, segments have {length}; put the file back as it was, from where \
             the directory was copied, or have `weir store repair --cut-at-damage` take away the {} \
             behind its end, of which it keeps a copy",
            found_bytes - length
        )
    })
}

/// Opens the segments that follow each other from the first on, and those behind a gap.
fn open_segments(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    config: &StoreConfig,
    mark: Option<DurableMark>,
) -> Result<FoundSegments, StoreError> {
    let directory = &layout.commit_log;
    let files = disk.list(directory).map_err(StoreError::io("list", directory))?;
    let newest = files.iter().filter_map(|file| parse_file_name(&file.name)).max();
    let mut connected: Vec<Arc<Segment>> = Vec::new();
    let mut beyond_gap = Vec::new();
    for file in files {
        let path = directory.join(&file.name);
        let unreadable = |reason| Err(StoreError::Unreadable { path: path.clone(), reason });
        let Some(start) = parse_file_name(&file.name) else {
            tracing::warn!(path = %path.display(), "file is no segment and is left alone");
            continue;
        };
        let length = config.segment_bytes;
        if !start.is_multiple_of(length) || start.checked_add(length).is_none() {
            return unreadable(format!("a segment of {length} bytes cannot begin at {start}"));
        }
        let is_newest = newest == Some(start);
        let problem = excess_problem(file.bytes, length)
            .or_else(|| length_problem(file.bytes, start..start + length, mark, is_newest));
        if let Some(problem) = problem {
            return unreadable(problem);
        }
        let segment = Arc::new(Segment::open(disk, layout, start, length)?);
        let continues = connected.last().is_none_or(|last| last.end() == start);
        if continues && beyond_gap.is_empty() {
            connected.push(segment);
        } else {
            beyond_gap.push(segment);
        }
    }
    Ok(FoundSegments { connected, beyond_gap })
}

/// What has expired is noted before it is deleted, so a log that begins later has lost its
/// beginning. One without any segment may be new.
fn check_beginning(
    segments: &[Arc<Segment>],
    noted_start: Option<u64>,
    mark: Option<DurableMark>,
    segment_bytes: u64,
) -> Result<(), StoreError> {
    let Some(from) = noted_start else { return Ok(()) };
    let to = match segments.first() {
        Some(first) => first.start,
        None if from == 0 && mark.is_none_or(|mark| mark.flushed == 0) => 0,
        None => mark.map_or(0, |mark| mark.flushed).max(from.saturating_add(segment_bytes)),
    };
    if to <= from {
        return Ok(());
    }
    let reason = "the segments with which the log began are missing, and have not expired";
    Err(StoreError::Damaged { from, to, reason: reason.to_owned() })
}

/// Proves record after record until there is none.
fn walk(segments: &[Arc<Segment>], from: u64, tail: &Tail) -> Result<Stop, StoreError> {
    let mut position = from;
    let mut last_store_time = None;
    for segment in segments.iter().filter(|segment| segment.end() > from) {
        let proved_end = tail.proved_end(segment)?;
        let mut scanner = Scanner::new(segment, position, true);
        loop {
            let position = scanner.position();
            let stop = |invalid| Ok(Stop { position, invalid, last_store_time });
            let (end, is_last, store_time) = match scanner.step()? {
                Step::Record(record, length) => {
                    (position + length, false, Some(record.store_timestamp))
                }
                Step::SegmentEnd => {
                    (position + PADDING_HEAD_BYTES.min(segment.end() - position), true, None)
                }
                Step::Nothing => return stop(None),
                Step::Invalid(reason) => return stop(Some(reason)),
            };
            if end > proved_end {
                return stop(Some(format!("at {position}: nothing proves that it is not old")));
            }
            last_store_time = store_time.or(last_store_time);
            if is_last {
                break;
            }
        }
        position = segment.end();
    }
    Ok(Stop { position, invalid: None, last_store_time })
}

/// Compares what the walk proved with the checksums that its blocks have. They were written for
/// what was on disk, so neither a sum that does not fit nor one behind the stop is a torn tail.
fn check_block_sums(segments: &[Arc<Segment>], from: u64, stop: &Stop) -> Result<(), StoreError> {
    let mut buffer = Vec::new();
    for segment in segments.iter().filter(|segment| segment.end() > from) {
        let first = BlockTail::block_start(from.max(segment.start), segment.bytes);
        for summed in segment.blocks.read(first, segment.end())? {
            let damaged = |reason: &str| StoreError::Damaged {
                from: summed.position,
                to: summed.end(),
                reason: reason.to_owned(),
            };
            if summed.end() > stop.position {
                let why = stop.invalid.as_deref().unwrap_or("zeros");
                let reason =
                    format!("the log ends at {}: {why}; but this was on disk", stop.position);
                return Err(damaged(&reason));
            }
            if !is_intact(segment, &summed, &mut buffer)? {
                return Err(damaged("a block is not what was written"));
            }
        }
    }
    Ok(())
}

/// Without our mark somebody else used the directory last. Apache's broker only ever changes the
/// end of a log, so the sums of the newest two segments are computed anew, and not judged.
fn forget_newest_sums(disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
    let files = disk.list(&layout.blocks).map_err(StoreError::io("list", &layout.blocks))?;
    for file in files.iter().rev().take(2) {
        remove_if_there(disk, &layout.blocks.join(&file.name))?;
    }
    disk.sync_directory(&layout.blocks).map_err(StoreError::io("sync", &layout.blocks))
}

/// What stands behind the stop, segment by segment. Fails if it is more than a torn tail, unless
/// `is_cut` says that it was cut before.
fn find_remains<'a>(
    segments: impl Iterator<Item = &'a Arc<Segment>>,
    stop: &Stop,
    tail: &Tail,
    evidence: Evidence,
    is_cut: impl Fn(&Remains) -> Result<bool, StoreError>,
) -> Result<Vec<(u64, Remains)>, StoreError> {
    let mut found = Vec::new();
    for segment in segments.filter(|segment| segment.end() > stop.position) {
        let from = segment.start.max(stop.position);
        let to = tail.search_end(segment, stop.position, evidence);
        let remains = search(segment, from, to)?;
        if let Some(last) = remains.last_record
            && tail.needed(segment).is_none()
            && let Some(proof) = evidence.of_damage(stop.position, &remains)
            && !is_cut(&remains)?
        {
            let reason = stop.invalid.clone().unwrap_or_else(|| "zeros".to_owned());
            return Err(StoreError::Damaged {
                from: stop.position,
                to: last,
                reason: format!("{reason}, but valid records follow {proof}"),
            });
        }
        found.push((segment.start, remains));
    }
    Ok(found)
}

/// Takes the torn tail out of the log: zeros in the segment where it begins, and no segments
/// behind that. Durable on return, because the first new record may not meet old ones.
fn cut(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    segments: &mut Vec<Arc<Segment>>,
    beyond_gap: Vec<Arc<Segment>>,
    stop: &Stop,
    remains: &[(u64, Remains)],
    report: &mut RecoveryReport,
) -> Result<(), StoreError> {
    let remains_of =
        |start: u64| remains.iter().find(|found| found.0 == start).map(|found| found.1);
    let ends = remains.iter().filter_map(|(_, remains)| remains.end);
    report.cut_bytes = ends.max().map_or(0, |end| end - stop.position);
    report.cut_records = remains.iter().map(|(_, remains)| remains.records).sum();
    if report.cut_bytes > 0 {
        tracing::warn!(
            position = stop.position,
            bytes = report.cut_bytes,
            records = report.cut_records,
            "the log ended in records that were not all on disk, or that were cut before; they are cut"
        );
    }
    // From the back, so that a crash in between leaves nothing behind a gap that was not there.
    for segment in beyond_gap.iter().rev() {
        segment.remove_files(&**disk)?;
    }
    while let Some(last) = segments.pop_if(|last| last.start > stop.position) {
        last.remove_files(&**disk)?;
    }
    disk.sync_directory(&layout.commit_log).map_err(StoreError::io("sync", &layout.commit_log))?;
    if let Some(last) = segments.last() {
        let end = remains_of(last.start).and_then(|remains| remains.end);
        // In a recycled segment what stands there is old if nothing else.
        let needed = if last.is_recycled() { PADDING_HEAD_BYTES } else { 0 };
        let to = end.unwrap_or(0).max(stop.position + needed).min(last.end());
        if to > stop.position {
            last.erase(stop.position, to)?;
            last.sync()?;
        }
    }
    Ok(())
}

fn make_durable(
    disk: &dyn Disk,
    layout: &Layout,
    segments: &[Arc<Segment>],
    from: u64,
    end: u64,
) -> Result<(), StoreError> {
    let touched =
        |segment: &&Arc<Segment>| segment.end() > from && segment.start < end.max(from + 1);
    for segment in segments.iter().filter(touched) {
        segment.sync()?;
    }
    sync_names(disk, layout)?;
    segments.iter().for_each(|segment| segment.is_listed.store(true, Ordering::Release));
    Ok(())
}
