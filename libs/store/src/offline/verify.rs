//! Reads a whole log and says whether every byte of it is what was promised.

use std::collections::HashMap;
use std::ops::Range;

use weirmq_message::record::Record;

use super::directory::Directory;
use super::entries::Derived;
use super::report::{Finding, FindingKind, Progress, TornTail, VerifyReport};
use super::verify_derived::{compare, compare_blocks};
use super::verify_files::{check_small_files, foretell, note_scrub};
use crate::apache_ahead::{Ahead, LogEnd};
use crate::apache_cut::ApacheCut;
use crate::clean_end::found_behind;
use crate::dispatch::DispatchRule;
use crate::error::StoreError;
use crate::format::PADDING_HEAD_BYTES;
use crate::recover::{Evidence, Tail};
use crate::scan::{Remains, Scanner, Step, next_record, search};
use crate::segment::Segment;

/// Progress is told each time this much was read.
const PROGRESS_BYTES: u64 = 16 << 20;

/// Proves every record of the log (lengths, checksum, place), that queue offsets follow each
/// other, and that queue and key files say what the log says. Behind damage it goes on with the
/// next valid record, so one run lists all of it. Nothing is changed.
///
/// # Errors
/// [`StoreError::InUse`]; [`StoreError::Io`] on directories. Files that cannot be read are findings.
pub fn verify(
    directory: &Directory,
    rule: DispatchRule,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, StoreError> {
    directory.check_unused()?;
    let mut run = Run::of(directory, rule, progress)?;
    run.walk()?;
    run.note_apache();
    run.check_apache_queues()?;
    check_small_files(directory, &mut run.report)?;
    let mut report = run.finish();
    note_scrub(directory, &mut report)?;
    if let Some(cut) = &directory.pending_cut {
        foretell(cut, &mut report);
    }
    report.is_sound = report.findings.is_empty();
    Ok(report)
}

struct Run<'a> {
    directory: &'a Directory,
    rule: DispatchRule,
    progress: &'a mut dyn FnMut(Progress),
    next_progress: u64,
    /// What proofs say about the end of the log.
    tail: Tail,
    evidence: Evidence,
    /// When the newest record that was read was stored.
    last_store_time: Option<i64>,
    /// Whether Apache's broker has cut the log and written on.
    has_apache_cut: bool,
    total_bytes: u64,
    /// Queue offset that the next record of a queue should have, by topic and queue id.
    expected: HashMap<String, HashMap<i32, u64>>,
    report: VerifyReport,
}

/// What was found in one segment.
#[derive(Default)]
pub(super) struct InSegment {
    pub(super) derived: Derived,
    /// Ranges that hold no records.
    pub(super) damage: Vec<Range<u64>>,
    /// Behind the head of the padding, or the segment's end; `None` where the log ends before it.
    written: Option<u64>,
}

/// Why a segment's walk ended.
enum End {
    /// At its padding.
    Full,
    /// The log ends at this position.
    Log(u64),
}

impl<'a> Run<'a> {
    fn of(
        directory: &'a Directory,
        rule: DispatchRule,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Self, StoreError> {
        let mark = directory.mark.map_or(0, |mark| mark.flushed);
        let report = VerifyReport {
            directory: directory.layout.root.clone(),
            was_closed: directory.was_closed,
            log_start: directory.log_start(),
            log_end: directory.log_start(),
            durable_mark: directory.mark.map(|mark| mark.flushed),
            findings: directory.problems.clone(),
            ..VerifyReport::default()
        };
        let total_bytes = directory.segments.iter().map(|segment| segment.bytes).sum();
        Ok(Self {
            directory,
            rule,
            progress,
            next_progress: 0,
            tail: Tail::read(&directory.segments, mark, directory.was_apache)?,
            evidence: directory.evidence()?,
            last_store_time: None,
            has_apache_cut: false,
            total_bytes,
            expected: HashMap::new(),
            report,
        })
    }

    /// Everything below was on disk: the durable mark, or what proofs say.
    fn marked(&self) -> u64 {
        self.tail.flushed
    }

    /// What was promised before Apache's broker came may rightly be gone, but not silently.
    fn note_apache(&mut self) {
        if !self.directory.was_apache {
            return;
        }
        self.report.notes.push(
            "Apache's broker used this directory last; the next open reads the whole log and derives \
             queues, keys and the newest block checksums again, so they were not compared"
                .to_owned(),
        );
        let end = self.report.log_end;
        if let Some(marked) = self.directory.marked_before_apache.filter(|marked| *marked > end) {
            self.report.notes.push(format!(
                "the log ends at {end} and reached to {marked} before: Apache's broker has cut it"
            ));
        }
    }

    /// Says of what Apache's queues know behind the log's end whether the next open refuses that.
    /// Where the log is damaged anyhow that is all there is to say.
    fn check_apache_queues(&mut self) -> Result<(), StoreError> {
        let directory = self.directory;
        if !directory.was_apache || self.report.first_log_damage().is_some() {
            return Ok(());
        }
        let (disk, layout) = (&*directory.disk, &directory.layout);
        let (position, last_store_time) = (self.report.log_end, self.last_store_time);
        let files = directory.segments.iter().fold(directory.log_start(), |end, segment| {
            if segment.start == end { segment.end() } else { end }
        });
        let log = LogEnd { position, files, last_store_time };
        let Some(ahead) = Ahead::find(disk, layout, log)? else { return Ok(()) };
        let loss = match self.has_apache_cut {
            true => None,
            false => ahead.loss(disk, layout, directory.was_closed, log)?,
        };
        match loss {
            Some(reason) => {
                let (kind, path) = (FindingKind::Log, &layout.commit_log);
                self.report.found(Finding::range(kind, path, position, ahead.to, reason));
            }
            None => self.report.notes.push(format!(
                "the log ends at {position}; {ahead} which were not on disk when it ended without being \
                 stopped; the next open goes on without them"
            )),
        }
        Ok(())
    }

    fn walk(&mut self) -> Result<(), StoreError> {
        let segments = &self.directory.segments;
        let mut behind = self.directory.log_start();
        if let (Some(noted), Some(_)) = (self.directory.noted_start, segments.first())
            && noted < behind
        {
            let reason = "the log began here, and this part has not expired".to_owned();
            let (kind, path) = (FindingKind::MissingStart, &self.directory.layout.commit_log);
            self.report.found(Finding::range(kind, path, noted, behind, reason));
        }
        for segment in segments {
            if segment.start > behind {
                if self.may_end_at(behind, false)? {
                    break;
                }
                let reason = "there is no file with this part of the log".to_owned();
                let (kind, path) = (FindingKind::MissingSegment, &self.directory.layout.commit_log);
                self.report.found(Finding::range(kind, path, behind, segment.start, reason));
            }
            behind = segment.end();
            let mut found = InSegment::default();
            let end = self.walk_segment(segment, &mut found)?;
            let covered = match end {
                End::Full => segment.end(),
                End::Log(position) => position,
            };
            self.report.log_end = self.report.log_end.max(covered);
            let written = found.written.unwrap_or(segment.end()).min(covered);
            if covered > segment.start {
                self.report.segments += 1;
                if !self.directory.was_apache {
                    compare(self.directory, segment, covered, found, &mut self.report);
                }
                let is_judged = !self.directory.unjudged.contains(&segment.start);
                compare_blocks(segment, covered, written, is_judged, &mut self.report);
            }
            if let End::Log(_) = end {
                break;
            }
        }
        let end = self.report.log_end;
        if end < self.marked() {
            let reason = "the log ends before what was on disk".to_owned();
            let path = &self.directory.layout.commit_log;
            self.report.found(Finding::range(FindingKind::Log, path, end, self.marked(), reason));
        }
        Ok(())
    }

    fn walk_segment(
        &mut self,
        segment: &Segment,
        found: &mut InSegment,
    ) -> Result<End, StoreError> {
        let mut scanner = Scanner::new(segment, segment.start, true);
        let proved_end = self.tail.proved_end(segment)?;
        loop {
            let position = scanner.position();
            self.tell(position);
            let invalid = match scanner.step()? {
                Step::Record(_, size) if position + size > proved_end => {
                    Some("nothing proves that it is not old".to_owned())
                }
                Step::Record(record, size) => {
                    self.report.records += 1;
                    self.last_store_time = Some(record.store_timestamp);
                    self.check_order(&record, segment);
                    found.derived.add(&record, size, self.rule);
                    continue;
                }
                Step::SegmentEnd if position + PADDING_HEAD_BYTES > proved_end => {
                    Some("nothing proves that it is not old".to_owned())
                }
                Step::SegmentEnd => {
                    found.written = Some((position + PADDING_HEAD_BYTES).min(segment.end()));
                    return Ok(End::Full);
                }
                Step::Nothing => None,
                Step::Invalid(reason) => Some(reason),
            };
            if self.may_end_at(position, invalid.is_some())? {
                return Ok(End::Log(position));
            }
            let next = next_record(segment, position + 1)?;
            // Where nothing valid follows, what was promised reaches to the mark.
            let marked = self.marked();
            let is_last = next.is_none()
                && (position..=segment.end()).contains(&marked)
                && self.may_end_at(marked, false)?;
            let to = if is_last { marked } else { next.unwrap_or(segment.end()) };
            let reason = invalid.unwrap_or_else(|| "zeros stand where a record should".to_owned());
            let (kind, path) = (FindingKind::Log, &segment.path);
            self.report.found(Finding::range(kind, path, position, to, reason));
            found.damage.push(position..to);
            match next {
                Some(next) => scanner = Scanner::new(segment, next, true),
                None if is_last => return Ok(End::Log(to)),
                None => return Ok(End::Full),
            }
        }
    }

    /// Whether recovery would end the log at `position`, which it does unless a valid record
    /// stands further on than can be unflushed. Notes the torn tail then.
    fn may_end_at(&mut self, position: u64, is_invalid: bool) -> Result<bool, StoreError> {
        let marked = self.marked();
        if position < marked {
            return Ok(false);
        }
        if position == marked && self.directory.was_closed && !is_invalid {
            return Ok(found_behind(&self.directory.segments, position)?.is_none());
        }
        let mut all = Remains::default();
        for segment in self.directory.segments.iter().filter(|other| other.end() > position) {
            let to = self.tail.search_end(segment, position, self.evidence);
            let remains = search(segment, segment.start.max(position), to)?;
            if self.tail.needed(segment).is_none()
                && self.evidence.of_damage(position, &remains).is_some()
                && !self.is_cut(position, &remains)?
            {
                return Ok(false);
            }
            all.records += remains.records;
            all.end = all.end.max(remains.end);
        }
        let is_torn = is_invalid || all.records > 0;
        let tail = |to| TornTail { from: position, to, records: all.records };
        self.report.torn_tail = all.end.filter(|end| is_torn && *end > position).map(tail);
        Ok(true)
    }

    /// Whether Apache's broker cut off what stands behind `position` and wrote on up to there.
    fn is_cut(&mut self, position: u64, remains: &Remains) -> Result<bool, StoreError> {
        let (disk, layout) = (&*self.directory.disk, &self.directory.layout);
        if !self.directory.was_apache {
            return Ok(false);
        }
        let apache = ApacheCut::read(disk, layout, self.directory.was_closed)?;
        let is_cut = apache.explains(disk, layout, position, self.last_store_time, remains)?;
        self.has_apache_cut |= is_cut;
        Ok(is_cut)
    }

    fn check_order(&mut self, record: &Record<'_>, segment: &Segment) {
        if !(self.rule)(record).queue {
            return;
        }
        let position = record.physical_offset;
        if self.directory.queue_state.is_forgotten(record.topic, position) {
            return;
        }
        if !self.expected.contains_key(record.topic) {
            self.expected.insert(record.topic.to_owned(), HashMap::new());
        }
        let queues = self.expected.get_mut(record.topic).expect("inserted above");
        let (found, next) = (record.queue_offset, record.queue_offset.saturating_add(1));
        let Some(expected) = queues.insert(record.queue_id, next) else {
            self.report.queues += 1;
            return;
        };
        // Offset 0 again is a topic that was deleted and made anew, as Apache does it.
        if found == expected || found == 0 {
            return;
        }
        let reason = format!(
            "queue {} of {} goes on with offset {found}, not {expected}",
            record.queue_id, record.topic
        );
        let end = position + record.encoded_len() as u64;
        let (kind, path) = (FindingKind::QueueOrder, &segment.path);
        self.report.found(Finding::range(kind, path, position, end, reason));
    }

    fn tell(&mut self, position: u64) {
        let done_bytes = position.saturating_sub(self.report.log_start);
        if done_bytes >= self.next_progress {
            self.next_progress = done_bytes + PROGRESS_BYTES;
            (self.progress)(Progress { done_bytes, total_bytes: self.total_bytes });
        }
    }

    fn finish(mut self) -> VerifyReport {
        let unreadable = std::mem::take(&mut *self.directory.unreadable.lock());
        for bad in unreadable {
            let start = self.directory.segments.iter().find(|segment| segment.path == bad.path);
            let start = start.map_or(0, |segment| segment.start);
            let (from, to) = (start + bad.range.start, start + bad.range.end);
            let kind = FindingKind::Unreadable;
            self.report.found(Finding::range(kind, &bad.path, from, to, bad.error));
        }
        self.report.findings.sort_by_key(|finding| (finding.from, finding.kind));
        let done = Progress { done_bytes: self.total_bytes, total_bytes: self.total_bytes };
        (self.progress)(done);
        self.report
    }
}
