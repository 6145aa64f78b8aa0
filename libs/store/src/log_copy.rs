//! The log as one replica gives it and another takes it: byte for byte.

use weirmq_message::record::{BLANK_HEAD_BYTES, Decoded, MAGIC_BLANK, Record};

use crate::batch::Batch;
use crate::block_sums::is_intact;
use crate::block_tail::BlockTail;
use crate::commit_log::Found;
use crate::dispatch::KeySource;
use crate::error::StoreError;
use crate::format::PADDING_HEAD_BYTES;
use crate::scan::has_lost_sector;
use crate::store::Inner;

/// What a read of the log gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRead {
    /// Records, or padding; what follows is at `next`.
    Read { next: u64 },
    /// The log ends there.
    End,
    /// The log begins later, or not with a record there.
    Gone,
    /// The records are not in memory, and the read was not to wait.
    OnDisk,
}

impl Inner {
    /// See [`crate::Store::read_log`].
    pub(crate) fn read_log(
        &self,
        from: u64,
        bytes_max: usize,
        may_wait: bool,
        out: &mut Vec<u8>,
    ) -> Result<LogRead, StoreError> {
        let written = self.marks.written();
        if from >= written {
            return Ok(if from == written { LogRead::End } else { LogRead::Gone });
        }
        let Some(segment) = self.log.segment_at(from) else { return Ok(LogRead::Gone) };
        let left = segment.end() - from;
        if left < PADDING_HEAD_BYTES {
            // Apache's broker leaves no padding where its head does not fit.
            return Ok(LogRead::Read { next: segment.end() });
        }
        let left = left.min(written - from) as usize;
        if left < BLANK_HEAD_BYTES {
            return Ok(LogRead::Gone);
        }
        let before = out.len();
        let mut wanted = bytes_max.clamp(BLANK_HEAD_BYTES, left);
        let mut in_memory = 0..0;
        let is_recent = from >= self.recent_from();
        let (taken, is_end) = loop {
            // Neither the disk nor what it did to a page is anybody's concern who must not wait.
            let is_cold =
                may_wait || !is_recent && !self.log.is_in_memory(from, wanted, &mut in_memory);
            let found = self.log.read_visible(from, wanted, is_cold, may_wait, out);
            let failed = |_: &_| self.suspect(from, from + wanted as u64);
            match found.inspect_err(failed).inspect_err(|_| out.truncate(before))? {
                Found::Mapped => {}
                // It has to be compared with its checksums, and that may take the disk.
                Found::Read if !may_wait => {
                    out.truncate(before);
                    return Ok(LogRead::OnDisk);
                }
                Found::Read => {}
                Found::Gone => return Ok(LogRead::Gone),
                Found::OnDisk => return Ok(LogRead::OnDisk),
            }
            match whole_records(&out[before..]) {
                Whole { taken: 0, next_bytes: Some(bytes), .. }
                    if bytes > wanted && bytes <= left =>
                {
                    out.truncate(before);
                    wanted = bytes;
                }
                Whole { taken: 0, .. } => {
                    out.truncate(before);
                    return Ok(LogRead::Gone);
                }
                Whole { taken, is_end, .. } => break (taken, is_end),
            }
        };
        out.truncate(before + taken);
        let next = from + taken as u64;
        let checked = self.scrub.check(from, next).and_then(|()| match is_recent && !may_wait {
            true => Ok(()),
            // It may have left memory and come back.
            false => self.check_blocks(from, next),
        });
        checked.inspect_err(|_| out.truncate(before))?;
        Ok(LogRead::Read { next: if is_end { segment.end() } else { next } })
    }

    /// Compares what comes from the disk with the checksums of its blocks: damage must not travel.
    fn check_blocks(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let Some(segment) = self.log.segment_at(from) else { return Ok(()) };
        let first = BlockTail::block_start(from, segment.bytes);
        let mut buffer = Vec::new();
        for summed in segment.blocks.read(first, to)? {
            let suspect = || self.suspect(summed.position, summed.end());
            if !is_intact(&segment, &summed, &mut buffer).inspect_err(|_| suspect())? {
                suspect();
                return Err(StoreError::Damaged {
                    from: summed.position,
                    to: summed.end(),
                    reason: "a block is not what was written".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// See [`crate::Store::append_copy`].
    pub(crate) fn append_copy(&self, position: u64, bytes: &[u8]) -> Result<u64, StoreError> {
        self.when_not_busy(|| self.append_copy_now(position, bytes))
    }

    fn append_copy_now(&self, position: u64, bytes: &[u8]) -> Result<u64, StoreError> {
        self.check_open()?;
        self.check_writable()?;
        let mut appender = self.appender.lock();
        self.check_open()?;
        let end = appender.position();
        let segment_end = (end + 1).next_multiple_of(self.config.segment_bytes);
        let is_padded = segment_end - end < PADDING_HEAD_BYTES && position == segment_end;
        if end != position && !is_padded {
            let reason = format!("it ends at {end}");
            return Err(StoreError::NoContinuation { position, reason });
        }
        if bytes.is_empty() {
            return Ok(end);
        }
        if let Err(error) = appender.batch.take_copy(bytes, position, self) {
            appender.forget_batch();
            return Err(error);
        }
        let end = appender.batch.end;
        self.write_and_publish(appender)?;
        Ok(end)
    }
}

/// How far bytes of the log consist of whole records.
struct Whole {
    taken: usize,
    /// Whether they end in padding.
    is_end: bool,
    /// How long the record is that is not whole, if its length is there.
    next_bytes: Option<usize>,
}

/// Hops from record to record by their lengths. These are our own bytes; who takes them proves
/// them.
fn whole_records(bytes: &[u8]) -> Whole {
    let mut taken = 0;
    loop {
        let word =
            |at: usize| bytes.get(taken + at..)?.first_chunk().copied().map(u32::from_be_bytes);
        let (Some(length), Some(magic)) = (word(0), word(4)) else {
            return Whole { taken, is_end: false, next_bytes: None };
        };
        if magic == MAGIC_BLANK {
            return Whole { taken: taken + BLANK_HEAD_BYTES, is_end: true, next_bytes: None };
        }
        let length = length as usize;
        if length < BLANK_HEAD_BYTES || length > bytes.len() - taken {
            let next_bytes = (length >= BLANK_HEAD_BYTES).then_some(length);
            return Whole { taken, is_end: false, next_bytes };
        }
        taken += length;
    }
}

impl Batch {
    /// Takes records that another replica has at `position` as they are. Everything is proved
    /// before anything is believed: a peer may be damaged.
    fn take_copy(&mut self, bytes: &[u8], position: u64, inner: &Inner) -> Result<(), StoreError> {
        self.clear();
        let segment_bytes = inner.config.segment_bytes;
        let no_continuation =
            |position: u64, reason: String| StoreError::NoContinuation { position, reason };
        self.begin_piece(position);
        let (mut position, mut rest) = (position, bytes);
        while !rest.is_empty() {
            let left = segment_bytes - position % segment_bytes;
            let decoded = Record::decode(rest, true);
            let decoded = decoded.map_err(|error| no_continuation(position, error.to_string()))?;
            let (record, size) = match decoded {
                Decoded::Record(record, size) => (record, size),
                Decoded::Blank(length) if length as u64 == left => {
                    let (head, others) = rest.split_at(BLANK_HEAD_BYTES);
                    self.bytes.extend_from_slice(head);
                    self.end_piece();
                    position += left;
                    self.begin_piece(position);
                    rest = others;
                    continue;
                }
                Decoded::Blank(length) => {
                    let reason = format!("padding of {length} bytes where {left} are left");
                    return Err(no_continuation(position, reason));
                }
                Decoded::End => return Err(no_continuation(position, "zeros".to_owned())),
            };
            let (bytes, others) = rest.split_at(size);
            if record.physical_offset != position {
                let reason = format!("the record belongs to {}", record.physical_offset);
                return Err(no_continuation(position, reason));
            }
            if size as u64 > left || has_lost_sector(bytes, position, &record) {
                let reason = "the record cannot stand there".to_owned();
                return Err(no_continuation(position, reason));
            }
            let limit = inner.config.taken_record_bytes_max();
            if size > limit {
                let what = "the master's record; raise limits.message_bytes_max here: it";
                return Err(StoreError::TooLarge { what, bytes: size, limit });
            }
            self.stage_copy(&record, position, size as u32, inner)?;
            self.bytes.extend_from_slice(bytes);
            position += size as u64;
            rest = others;
        }
        self.end_copy(position, segment_bytes);
        Ok(())
    }

    /// Notes the derived entries of a record. Its queue goes on where it stood, or begins: anew after
    /// its topic was deleted, and anywhere in a log whose beginning was never here.
    fn stage_copy(
        &mut self,
        record: &Record<'_>,
        position: u64,
        size: u32,
        inner: &Inner,
    ) -> Result<(), StoreError> {
        let dispatch = (inner.config.dispatch)(record);
        if !dispatch.queue && dispatch.keys == KeySource::None {
            return Ok(());
        }
        let queue = self.queue_of(record.topic, record.queue_id, &inner.queues);
        if dispatch.keys == KeySource::Properties {
            self.stage_keys(queue, record.properties, position);
        }
        if !dispatch.queue {
            return Ok(());
        }
        let expected = self.queues[queue].next_to_assign();
        if expected > 0 && record.queue_offset > expected {
            let (topic, queue_id) = (record.topic, record.queue_id);
            let reason = format!(
                "queue {queue_id} of {topic} goes on with {expected}, not {}",
                record.queue_offset
            );
            return Err(StoreError::NoContinuation { position, reason });
        }
        self.queues[queue].assign_at(record.queue_offset);
        self.stage_entry(queue, record.queue_offset, position, size, dispatch.tag_hash);
        Ok(())
    }
}
