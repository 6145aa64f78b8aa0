//! Reads messages by queue offset and records by position, never beyond what is visible.

use std::ops::Range;

use weirmq_message::record::{Decoded, MAGIC_V1, MAGIC_V2, PHYSICAL_OFFSET_AT, Record};
use weirmq_message::sys_flag;

use crate::commit_log::Found;
use crate::consume_queue::{Queue, QueueRange};
use crate::error::StoreError;
use crate::queue_file::QueueEntry;
use crate::segment::Segment;
use crate::store::Inner;

/// Entries that one read looks at before it comes back, so that a filter that fits nothing cannot
/// keep it for ever.
const SCANNED_ENTRIES_MAX: u64 = 16_384;
/// Records that follow each other are read at once up to this size.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a record up to its store timestamp, with an IPv6 born host.
const HEAD_BYTES: usize = 76;

/// What one read may return.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    pub messages: usize,
    /// The first message is returned even if it is larger.
    pub bytes: usize,
}

/// What one read returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRead {
    /// Where the next read should begin. A read from outside `range` returns nothing, and here
    /// the nearest offset inside.
    pub next: u64,
    /// Messages appended to the output.
    pub found: usize,
    /// Bytes appended to the output.
    pub bytes: usize,
    /// Of these, what came from files: what was not written just now.
    pub bytes_of_old: usize,
    /// Entries looked at, those refused by the filter included.
    pub scanned: usize,
    /// What could be read at the time.
    pub range: QueueRange,
}

impl QueueRead {
    /// What there is in a queue that does not exist.
    pub(crate) const NOTHING: Self = Self::begin(0, QueueRange { min: 0, max: 0 });

    const fn begin(next: u64, range: QueueRange) -> Self {
        Self { next, found: 0, bytes: 0, bytes_of_old: 0, scanned: 0, range }
    }
}

/// Consecutive records that will be read at once.
#[derive(Default)]
struct Run {
    position: u64,
    /// With their queue offsets.
    entries: Vec<(u64, QueueEntry)>,
    bytes: u64,
    /// Records from here on are in memory, and nobody asks.
    recent_from: u64,
    /// What else is known to be in memory.
    in_memory: Range<u64>,
    /// Whether the disk may be asked.
    may_wait: bool,
    /// Whether it had to be and was not.
    is_put_off: bool,
    /// Whether damage ended the read.
    is_ended: bool,
}

impl Inner {
    /// Records from here on are in memory on any machine that can keep up; nobody asks whether they are.
    pub(crate) fn recent_from(&self) -> u64 {
        let now_ms = i64::try_from(self.clock.uptime().as_millis()).unwrap_or(i64::MAX);
        self.recent.from(now_ms, self.marks.written())
    }

    /// See [`crate::Store::read_queue`].
    pub(crate) fn read_queue(
        &self,
        queue: &Queue,
        from: u64,
        limits: ReadLimits,
        may_wait: bool,
        accept: &mut dyn FnMut(&QueueEntry) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<QueueRead>, StoreError> {
        let range = queue.range(self.marks.visible());
        let next = from.max(range.min).min(range.max);
        let mut read = QueueRead::begin(next, range);
        if next != from {
            return Ok(Some(read));
        }
        let before = out.len();
        let mut run = Run { may_wait, recent_from: self.recent_from(), ..Run::default() };
        let result = self.collect(queue, &mut run, limits, accept, &mut read, out);
        if result.is_err() || run.is_put_off {
            out.truncate(before);
        }
        result.map(|()| (!run.is_put_off).then_some(read))
    }

    fn collect(
        &self,
        queue: &Queue,
        run: &mut Run,
        limits: ReadLimits,
        accept: &mut dyn FnMut(&QueueEntry) -> bool,
        read: &mut QueueRead,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        let (mut planned, mut planned_bytes) = (0, 0);
        'read: while read.next < read.range.max && (read.scanned as u64) < SCANNED_ENTRIES_MAX {
            let count = (read.range.max - read.next).min(SCANNED_ENTRIES_MAX - read.scanned as u64);
            entries.clear();
            if !queue.entries_if(read.next, count, run.may_wait, &mut entries)? {
                run.is_put_off = true;
                return Ok(());
            }
            if entries.is_empty() {
                break;
            }
            for (offset, entry) in &entries {
                let size = entry.size as usize;
                let has_room = planned < limits.messages
                    && (planned == 0 || planned_bytes + size <= limits.bytes);
                if *offset >= read.range.max || !has_room {
                    break 'read;
                }
                let is_wanted = accept(entry);
                if is_wanted {
                    // Damage that nobody wants is passed by.
                    match self.scrub.check(entry.physical_offset, entry.end_offset()) {
                        // What stands in front of it is served; who reads on gets the error.
                        Err(_) if planned > 0 => break 'read,
                        checked => checked?,
                    }
                }
                read.scanned += 1;
                read.next = offset + 1;
                if !is_wanted {
                    continue;
                }
                if run.position + run.bytes != entry.physical_offset || run.bytes >= RUN_BYTES_MAX {
                    self.read_run(queue, run, read, out)?;
                    if run.is_put_off || run.is_ended {
                        return Ok(());
                    }
                    run.position = entry.physical_offset;
                }
                run.bytes += u64::from(entry.size);
                run.entries.push((*offset, *entry));
                planned += 1;
                planned_bytes += size;
            }
        }
        self.read_run(queue, run, read, out)
    }

    /// Reads a run and checks that its records are the ones that the queue means.
    fn read_run(
        &self,
        queue: &Queue,
        run: &mut Run,
        read: &mut QueueRead,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        if run.entries.is_empty() {
            return Ok(());
        }
        let start = out.len();
        let mut at = start;
        let (position, length) = (run.position, run.bytes as usize);
        // A page of a mapping that is not in memory would hold up whoever touches it.
        let is_recent = position >= run.recent_from;
        let is_cold = !is_recent && !self.log.is_in_memory(position, length, &mut run.in_memory);
        let found = self
            .log
            .read_visible(position, length, is_cold, run.may_wait, out)
            .inspect_err(|_| self.suspect(position, position + length as u64))?;
        read.bytes_of_old += if found == Found::Read { length } else { 0 };
        run.is_put_off = found == Found::OnDisk;
        // A segment that expired meanwhile takes its messages with it. Nothing else does.
        if found == Found::Gone && self.log.start().is_some_and(|start| position >= start) {
            return Err(StoreError::Damaged {
                from: position,
                to: position + length as u64,
                reason: "a queue entry means a record outside of the log".to_owned(),
            });
        }
        if matches!(found, Found::Mapped | Found::Read) {
            for (index, (offset, entry)) in run.entries.iter().enumerate() {
                let record = &out[at..at + entry.size as usize];
                let problem = match found {
                    // Older ones may have left memory and come back, for another reader.
                    Found::Mapped if is_recent => head_problem(record, entry),
                    _ => head_problem(record, entry)
                        .or_else(|| record_problem(record, queue, *offset)),
                };
                if problem.is_some() {
                    self.suspect(entry.physical_offset, entry.end_offset());
                }
                if problem.is_some() && read.found + index > 0 {
                    // What stands in front of damage is served; who reads on gets the error.
                    out.truncate(at);
                    (read.found, read.next) = (read.found + index, *offset);
                    read.bytes += at - start;
                    run.is_ended = true;
                    return Ok(());
                }
                if let Some(reason) = problem {
                    return Err(StoreError::Damaged {
                        from: entry.physical_offset,
                        to: entry.end_offset(),
                        reason: reason.to_owned(),
                    });
                }
                at += record.len();
            }
            read.found += run.entries.len();
            read.bytes += run.bytes as usize;
        }
        run.entries.clear();
        run.bytes = 0;
        Ok(())
    }

    /// See [`crate::Store::read_record`].
    pub(crate) fn read_record(
        &self,
        position: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, StoreError> {
        let visible = self.marks.visible();
        let Some(segment) = self.log.segment_at(position) else { return Ok(None) };
        let left = segment.end().min(visible).saturating_sub(position);
        let head = read_head(&segment, position);
        let head = head.inspect_err(|_| self.suspect(position, position + 1))?;
        let Some(head) = head else { return Ok(None) };
        let size = head.size as usize;
        if head.physical_offset != position || u64::from(head.size) > left {
            return Ok(None);
        }
        self.scrub.check(position, position + u64::from(head.size))?;
        // What begins like the record of this place, and is none, was one once.
        let damaged = || self.damaged_record(position, size);
        // A size proves nothing, and must not make anybody ask for so much memory. Records that are
        // larger than what is taken now come from other configurations, or from Apache's broker.
        if size > self.config.taken_record_bytes_max() && !has_whole_body(&segment, position, size)?
        {
            return Err(damaged());
        }
        let at = out.len();
        out.resize(at + size, 0);
        let result = segment.read_exact(&mut out[at..], position);
        let is_whole = result.is_ok()
            && matches!(
                Record::decode(&out[at..], true),
                Ok(Decoded::Record(_, length)) if length == size
            );
        if !is_whole {
            out.truncate(at);
        }
        result.inspect_err(|_| self.suspect(position, position + u64::from(head.size)))?;
        if is_whole { Ok(Some(size)) } else { Err(damaged()) }
    }

    /// A record of which something else says that it stands there, and which does not: noted, and the
    /// answer to who wanted it. `size` is only believed as far as records are taken today.
    pub(crate) fn damaged_record(&self, position: u64, size: usize) -> StoreError {
        let size = size.clamp(1, self.config.taken_record_bytes_max());
        let (from, to) = (position, position + size as u64);
        self.suspect(from, to);
        let reason = "the record or its body's checksum is wrong".to_owned();
        StoreError::Damaged { from, to, reason }
    }

    /// The entry at an offset, if it is visible, and if it is in memory or the disk may be asked.
    pub(crate) fn queue_entry(
        &self,
        queue: &Queue,
        offset: u64,
        may_wait: bool,
    ) -> Result<Option<QueueEntry>, StoreError> {
        let mut entries = Vec::with_capacity(1);
        queue.entries_if(offset, 1, may_wait, &mut entries)?;
        let visible = self.marks.visible();
        let found = entries.first().filter(|(found, _)| *found == offset).map(|(_, entry)| *entry);
        Ok(found.filter(|entry| entry.end_offset() <= visible))
    }
}

/// Why bytes read for an entry are not the record that it means.
fn head_problem(bytes: &[u8], entry: &QueueEntry) -> Option<&'static str> {
    let is_meant = parse_head(bytes).is_some_and(|head| {
        head.size == entry.size && head.physical_offset == entry.physical_offset
    });
    (!is_meant).then_some("the record of a queue entry is not there")
}

/// Why a record that comes from a disk is not what was stored at an offset of a queue. A damaged
/// body is never served, nor one message for another.
fn record_problem(bytes: &[u8], queue: &Queue, offset: u64) -> Option<&'static str> {
    match Record::decode(bytes, true) {
        Ok(Decoded::Record(record, _))
            if record.queue_offset == offset
                && record.queue_id == queue.queue_id
                && *record.topic == *queue.topic =>
        {
            None
        }
        Ok(_) => Some("the record belongs to another place in a queue"),
        Err(_) => Some("the record or its body's checksum is wrong"),
    }
}

/// The fields that tell a record's place and time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordHead {
    pub(crate) size: u32,
    pub(crate) physical_offset: u64,
    pub(crate) store_timestamp: i64,
}

/// The head of what stands at `position`; `None` when that is no record.
pub(crate) fn read_head(
    segment: &Segment,
    position: u64,
) -> Result<Option<RecordHead>, StoreError> {
    let mut bytes = [0; HEAD_BYTES];
    if segment.end() - position < HEAD_BYTES as u64 {
        return Ok(None);
    }
    segment.read_exact(&mut bytes, position)?;
    Ok(parse_head(&bytes))
}

/// Whether a record of `size` bytes can be as long, and its body, read in pieces, has its checksum.
fn has_whole_body(segment: &Segment, position: u64, size: usize) -> Result<bool, StoreError> {
    const PIECE_BYTES: usize = 256 << 10;
    // Up to the length of the body, with two IPv6 hosts.
    let mut head = [0; 112];
    if size < head.len() {
        return Ok(false);
    }
    segment.read_exact(&mut head, position)?;
    let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let v6_bytes = |bit: i32| if number(36) as i32 & bit == 0 { 0 } else { 12 };
    let length_at = 84 + v6_bytes(sys_flag::BORN_HOST_V6) + v6_bytes(sys_flag::STORE_HOST_V6);
    let (body_at, length) = (length_at + 4, number(length_at) as usize);
    // Topic and properties have lengths of two bytes, with a sign.
    const BEHIND_BODY_BYTES_MAX: usize = 2 * (2 + i16::MAX as usize);
    let behind_body = size.checked_sub(body_at.saturating_add(length));
    if behind_body.is_none_or(|bytes| bytes > BEHIND_BODY_BYTES_MAX) {
        return Ok(false);
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; length.min(PIECE_BYTES)];
    let (mut at, end) = (position + body_at as u64, position + (body_at + length) as u64);
    while at < end {
        piece.truncate((end - at) as usize);
        segment.read_exact(&mut piece, at)?;
        hasher.update(&piece);
        at += piece.len() as u64;
    }
    // The top bit does not count, as in `Record::decode`.
    Ok((hasher.finalize() ^ number(8)) & 0x7FFF_FFFF == 0)
}

fn parse_head(bytes: &[u8]) -> Option<RecordHead> {
    let number = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let magic = number(4)?;
    let sys_flag = number(36)? as i32;
    let born_host_bytes = if sys_flag & sys_flag::BORN_HOST_V6 == 0 { 8 } else { 20 };
    (magic == MAGIC_V1 || magic == MAGIC_V2).then_some(RecordHead {
        size: number(0).filter(|size| *size >= 8)?,
        physical_offset: long(PHYSICAL_OFFSET_AT)?,
        store_timestamp: long(48 + born_host_bytes)? as i64,
    })
}
