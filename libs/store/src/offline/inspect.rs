//! What is in a directory: the segments, and single records and entries.

use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;
use weirmq_message::record::{Decoded, Record};

use super::directory::Directory;
use super::entries::read_part;
use super::report::Finding;
use crate::dispatch::DispatchRule;
use crate::error::StoreError;
use crate::format::Format;
use crate::proof::Proofs;
use crate::queue_file::QueueEntry;
use crate::scan::{Scanner, Step, next_record};
use crate::segment::Segment;

/// A directory at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    pub directory: PathBuf,
    /// `None` when only Apache's broker has used it.
    pub format: Option<Format>,
    pub segment_bytes: u64,
    /// A process uses it, so all figures may be of different moments.
    pub is_in_use: bool,
    /// Whoever used it last closed it.
    pub was_closed: bool,
    pub durable_mark: Option<u64>,
    pub log_start: u64,
    /// Behind the last record that can be walked to; torn tail or damage may follow.
    pub log_end: u64,
    pub segments: Vec<SegmentView>,
    pub problems: Vec<Finding>,
}

/// One segment at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentView {
    pub path: PathBuf,
    pub start: u64,
    /// Behind its last record, which may be anywhere before its end.
    pub end: u64,
    /// Whole records from the start on; `None` when only the queue file was asked.
    pub records: Option<u64>,
    /// Milliseconds since 1970; `None` when there is no record.
    pub first_stored: Option<i64>,
    pub last_stored: Option<i64>,
    pub first_record: Option<u64>,
    pub last_record: Option<u64>,
    pub queue_file: DerivedState,
    pub key_file: DerivedState,
    /// What a segment that had another life before says about its end; `None` without proofs, as
    /// after a clean stop.
    pub proofs: Option<ProofsView>,
    /// Where no record could be read although something stands there; `None` when that was not met.
    pub broken: Option<Broken>,
}

/// What stands where a record should: damage, or a torn tail. `weir store verify` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Broken {
    /// Position of the log.
    pub at: u64,
    pub reason: String,
    /// The next whole record of the segment, if there is one.
    pub next_record: Option<u64>,
}

/// The proofs of a recycled segment. A record counts up to `flushed`, or up to `proved_to` if
/// that is further on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProofsView {
    /// Places that hold one, of 16.
    pub count: usize,
    /// Everything below was on disk when the newest of them was written.
    pub flushed: u64,
    /// How far they reach from there on, each with the checksum of the bytes that are there.
    pub proved_to: u64,
}

impl ProofsView {
    fn of(segment: &Segment) -> Result<Option<Self>, StoreError> {
        let proofs = Proofs::read(segment)?;
        if !proofs.is_recycled() {
            return Ok(None);
        }
        let flushed = proofs.flushed();
        let proved_to = proofs.proved_from(segment, flushed.max(segment.start))?;
        Ok(Some(Self { count: proofs.count(), flushed, proved_to }))
    }
}

/// How a derived file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DerivedState {
    /// It covers all records of its segment.
    Complete,
    /// Not there, or not complete: the next open derives it.
    Open,
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordView {
    pub position: u64,
    pub bytes: Vec<u8>,
}

impl RecordView {
    /// The record; it was proved when it was read.
    pub fn record(&self) -> Option<Record<'_>> {
        match Record::decode(&self.bytes, true) {
            Ok(Decoded::Record(record, _)) => Some(record),
            Ok(Decoded::Blank(_) | Decoded::End) | Err(_) => None,
        }
    }
}

/// A ConsumeQueue entry with its queue offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredEntry {
    pub queue_offset: u64,
    pub physical_offset: u64,
    pub size: u32,
    pub tag_hash: i64,
}

impl Directory {
    /// Looks at every segment. Only those without a complete queue file are read to their end. Those
    /// without a byte, which are prepared, are left out.
    ///
    /// # Errors
    /// [`StoreError::Io`] on derived files; the log itself reads as zeros where it is unreadable.
    pub fn inspect(&self) -> Result<Inspection, StoreError> {
        let mut segments = Vec::new();
        for segment in &self.segments {
            segments.push(self.look_at(segment)?);
        }
        let is_used = |view: &SegmentView| view.first_record.is_some() || view.broken.is_some();
        segments.retain(|view| is_used(view) || view.start == self.log_start());
        let log_end = segments.last().map_or(0, |view| view.end);
        Ok(Inspection {
            directory: self.layout.root.clone(),
            format: self.format.clone(),
            segment_bytes: self.segment_bytes,
            is_in_use: self.is_in_use,
            was_closed: self.was_closed,
            durable_mark: self.mark.map(|mark| mark.flushed),
            log_start: self.log_start(),
            log_end,
            segments,
            problems: self.problems.clone(),
        })
    }

    fn look_at(&self, segment: &Segment) -> Result<SegmentView, StoreError> {
        let mut view = SegmentView {
            path: segment.path.clone(),
            start: segment.start,
            end: segment.start,
            records: None,
            first_stored: None,
            last_stored: None,
            first_record: None,
            last_record: None,
            queue_file: DerivedState::Open,
            key_file: DerivedState::Open,
            // Of a directory that Apache's broker used last they are old ones.
            proofs: if self.was_apache { None } else { ProofsView::of(segment)? },
            broken: None,
        };
        match self.one_record(segment, segment.start)? {
            Some(first) => {
                view.first_record = Some(first.position);
                view.first_stored = first.record().map(|record| record.store_timestamp);
            }
            None => view.broken = broken_at(segment, segment.start)?,
        }
        let known = match self.last_by_queue_file(segment, segment.end()) {
            // Its segment says the same.
            Err(StoreError::Unreadable { .. }) => None,
            known => known?,
        };
        if let Some(last) = known.and_then(|at| self.one_record(segment, at).transpose()) {
            let last = last?;
            view.queue_file = DerivedState::Complete;
            view.last_record = Some(last.position);
            view.last_stored = last.record().map(|record| record.store_timestamp);
            view.end = segment.end();
        } else {
            walk_to_end(segment, &mut view)?;
            if view.broken.is_none() && view.end < segment.end() {
                view.broken = broken_at(segment, view.end)?;
            }
            if segment.queues.load(segment.start, view.end)?.is_some() {
                view.queue_file = DerivedState::Complete;
            }
        }
        if segment.keys.load(segment.start, view.end)? {
            view.key_file = DerivedState::Complete;
        }
        Ok(view)
    }

    /// The position of the last record that the queue file has an entry for.
    fn last_by_queue_file(
        &self,
        segment: &Segment,
        covered: u64,
    ) -> Result<Option<u64>, StoreError> {
        let Some(parts) = self.parts(segment, covered)? else { return Ok(None) };
        let mut last = None;
        let mut entries = Vec::new();
        for part in &parts {
            let Some(block) = part.blocks.len().checked_sub(1) else { continue };
            let count = part.count - crate::queue_file::block_start(block);
            entries.clear();
            segment.queues.read_block(part.blocks[block], count, 0..count, true, &mut entries)?;
            last = last.max(entries.last().map(|entry| entry.physical_offset));
        }
        Ok(last.filter(|position| (segment.start..segment.end()).contains(position)))
    }

    /// The record that begins at `position`.
    ///
    /// # Errors
    /// [`StoreError::NoRecord`] where none begins because the log is not there, or because the position
    /// lies inside a record or behind the last one; [`StoreError::Damaged`] where one should begin.
    pub fn record_at(&self, position: u64) -> Result<RecordView, StoreError> {
        let none = |reason| Err(StoreError::NoRecord { position, reason });
        let Some(segment) = self.segment_at(position) else {
            return none("no segment has this position".to_owned());
        };
        if let Some(found) = self.one_record(segment, position)? {
            return Ok(found);
        }
        let damage = match Scanner::of_one(segment, position).step()? {
            Step::SegmentEnd => return none("the segment is filled up from there on".to_owned()),
            Step::Nothing => return none("zeros: nothing was written there".to_owned()),
            Step::Record(..) => "a record".to_owned(),
            Step::Invalid(reason) => reason,
        };
        match around(segment, position)? {
            Some(record) => none(format!("it lies in the record from {}", record.start)),
            None => Err(StoreError::Damaged { from: position, to: segment.end(), reason: damage }),
        }
    }

    /// Up to `count` records from the one at `position` on, across segments.
    ///
    /// # Errors
    /// As [`Directory::record_at`], for the first record.
    pub fn records_from(
        &self,
        position: u64,
        count: usize,
        found: &mut dyn FnMut(RecordView),
    ) -> Result<(), StoreError> {
        if count == 0 {
            return Ok(());
        }
        found(self.record_at(position)?);
        let mut left = count - 1;
        for segment in self.segments.iter().filter(|segment| segment.end() > position) {
            let from = position.max(segment.start);
            let mut scanner = Scanner::new(segment, from, true);
            if from == position {
                scanner.step()?;
            }
            while left > 0 {
                let at = scanner.position();
                match scanner.step()? {
                    Step::Record(_, size) => {
                        found(read_raw(segment, at, size)?);
                        left -= 1;
                    }
                    Step::SegmentEnd => break,
                    Step::Nothing | Step::Invalid(_) => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// Up to `count` entries of a queue, from offset `from` on. Complete queue files are asked,
    /// other segments are read.
    ///
    /// # Errors
    /// [`StoreError::Io`], on derived files.
    pub fn queue_entries(
        &self,
        topic: &str,
        queue_id: i32,
        from: u64,
        count: usize,
        rule: DispatchRule,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let mut found: Vec<(u64, QueueEntry)> = Vec::new();
        for segment in &self.segments {
            let mut own = Vec::new();
            if !self.entries_by_file(segment, topic, queue_id, &mut own)? {
                entries_by_log(segment, topic, queue_id, rule, &mut own)?;
            }
            own.retain(|(_, entry)| !self.queue_state.is_forgotten(topic, entry.physical_offset));
            for (offset, entry) in own {
                if found.last().is_some_and(|(last, _)| *last >= offset) {
                    found.clear();
                }
                if offset >= from {
                    found.push((offset, entry));
                }
            }
        }
        found.truncate(count);
        let view = |(queue_offset, entry): (u64, QueueEntry)| StoredEntry {
            queue_offset,
            physical_offset: entry.physical_offset,
            size: entry.size,
            tag_hash: entry.tag_hash,
        };
        Ok(found.into_iter().map(view).collect())
    }

    fn entries_by_file(
        &self,
        segment: &Segment,
        topic: &str,
        queue_id: i32,
        out: &mut Vec<(u64, QueueEntry)>,
    ) -> Result<bool, StoreError> {
        let end = segment.end().min(self.mark.map_or(segment.end(), |mark| mark.flushed));
        for covered in [segment.end(), end] {
            let Some(parts) = self.parts(segment, covered)? else { continue };
            let own = parts.iter().filter(|part| part.topic == topic && part.queue_id == queue_id);
            for part in own {
                read_part(segment, part, out)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn one_record(
        &self,
        segment: &Segment,
        position: u64,
    ) -> Result<Option<RecordView>, StoreError> {
        match Scanner::of_one(segment, position).step()? {
            Step::Record(_, size) => read_raw(segment, position, size).map(Some),
            Step::SegmentEnd | Step::Nothing | Step::Invalid(_) => Ok(None),
        }
    }
}

fn read_raw(segment: &Segment, position: u64, size: u64) -> Result<RecordView, StoreError> {
    let mut bytes = vec![0; size as usize];
    segment.read_exact(&mut bytes, position)?;
    Ok(RecordView { position, bytes })
}

/// The record of a segment that a position lies in, found by walking.
fn around(segment: &Segment, position: u64) -> Result<Option<Range<u64>>, StoreError> {
    let mut scanner = Scanner::new(segment, segment.start, false);
    while scanner.position() < position {
        let start = scanner.position();
        match scanner.step()? {
            Step::Record(_, size) if start + size > position => {
                return Ok(Some(start..start + size));
            }
            Step::Record(..) => {}
            Step::SegmentEnd | Step::Nothing | Step::Invalid(_) => break,
        }
    }
    Ok(None)
}

/// Why no record begins at `position`, where the walk ended; `None` where nothing was written from
/// there on.
fn broken_at(segment: &Segment, position: u64) -> Result<Option<Broken>, StoreError> {
    let reason = match Scanner::of_one(segment, position).step()? {
        Step::Record(..) | Step::SegmentEnd => return Ok(None),
        Step::Nothing => None,
        Step::Invalid(reason) => Some(reason),
    };
    let next_record = next_record(segment, position + 1)?;
    let zeros = || next_record.map(|_| "zeros stand where a record should".to_owned());
    Ok(reason.or_else(zeros).map(|reason| Broken { at: position, reason, next_record }))
}

fn walk_to_end(segment: &Segment, view: &mut SegmentView) -> Result<(), StoreError> {
    let mut scanner = Scanner::new(segment, segment.start, false);
    let mut records = 0;
    loop {
        let at = scanner.position();
        match scanner.step()? {
            Step::Record(record, size) => {
                records += 1;
                view.last_record = Some(at);
                view.last_stored = Some(record.store_timestamp);
                view.end = at + size;
            }
            Step::SegmentEnd => {
                view.end = segment.end();
                break;
            }
            Step::Nothing | Step::Invalid(_) => break,
        }
    }
    view.records = Some(records);
    Ok(())
}

fn entries_by_log(
    segment: &Segment,
    topic: &str,
    queue_id: i32,
    rule: DispatchRule,
    out: &mut Vec<(u64, QueueEntry)>,
) -> Result<(), StoreError> {
    let mut scanner = Scanner::new(segment, segment.start, false);
    while let Step::Record(record, size) = scanner.step()? {
        let dispatch = rule(&record);
        if record.topic != topic || record.queue_id != queue_id || !dispatch.queue {
            continue;
        }
        let entry = QueueEntry {
            physical_offset: record.physical_offset,
            size: u32::try_from(size).unwrap_or(u32::MAX),
            tag_hash: dispatch.tag_hash,
        };
        out.push((record.queue_offset, entry));
    }
    Ok(())
}
