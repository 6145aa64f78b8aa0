//! Damaged blocks of the log: what readers meet, what other replicas are given, what is written again.
//!
//! What a block was is what its sum says, which stands beside the log: whoever sends its bytes need
//! not be believed. Where the sum is lost as well, the records of the block have to hold, and that
//! they stand so in another log with the same past, where they have a sum, is the caller's to know.

use parking_lot::Mutex;
use weirmq_message::record::{BLANK_HEAD_BYTES, Decoded, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, Record};

use crate::background::SUSPECTS;
use crate::block_sums::{BLOCK_BYTES, Sum, Summed, is_intact};
use crate::block_tail::BlockTail;
use crate::error::StoreError;
use crate::format::PADDING_HEAD_BYTES;
use crate::scan::has_lost_sector;
use crate::segment::Segment;
use crate::store::Inner;

/// Ranges that wait to be looked at; what is met beyond that is met again.
const SUSPECTS_MAX: usize = 64;

/// Ranges of the log in which somebody read what was not written, from and to.
#[derive(Default)]
pub(crate) struct Suspects(Mutex<Vec<(u64, u64)>>);

/// What the records of a block say about its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    Hold,
    Broken,
    /// What stands in front of the block does not lead to it.
    OutOfReach,
}

impl Inner {
    /// A reader met something there that was never written. Its blocks are looked at on the
    /// background thread, before the scrub comes by: the caller may be one who must not wait for the disk.
    pub(crate) fn suspect(&self, from: u64, to: u64) {
        let mut suspects = self.suspects.0.lock();
        if suspects.len() < SUSPECTS_MAX && !suspects.contains(&(from, to)) {
            suspects.push((from, to));
            self.background.request(SUSPECTS);
        }
    }

    /// Notes what is damaged of the ranges that readers met.
    pub(crate) fn look_at_suspects(&self) -> Result<(), StoreError> {
        let suspects = std::mem::take(&mut *self.suspects.0.lock());
        let mut is_news = false;
        for (from, to) in suspects {
            let mut position = BlockTail::block_start(from, self.config.segment_bytes);
            while position < to {
                let Some(segment) = self.log.segment_at(position) else { break };
                let block_end = (position + BLOCK_BYTES).min(segment.end());
                if block_end > self.marks.flushed() {
                    break;
                }
                is_news |= self.look_at(&segment, position, block_end)?;
                position = block_end;
            }
        }
        self.scrub_news(is_news)
    }

    fn look_at(&self, segment: &Segment, from: u64, to: u64) -> Result<bool, StoreError> {
        if sum_of(segment, from, to)?.is_some() {
            return self.scrub_range(segment, from, to);
        }
        // The pass would give it a sum, whatever it is.
        let mut bytes = vec![0; (to - from) as usize];
        let reason = match segment.read_exact(&mut bytes, from) {
            Err(error) => error.to_string(),
            Ok(()) if self.records_in(segment, from, &bytes)? == Records::Broken => {
                "a record or its body's checksum is wrong".to_owned()
            }
            Ok(()) => return Ok(false),
        };
        Ok(self.scrub.note(from, to, reason))
    }

    /// See [`crate::Store::read_block`].
    pub(crate) fn read_block(&self, from: u64, to: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let _closing_waits = self.guests.read();
        self.check_readable()?;
        let Some(segment) = self.block_segment(from, to) else { return Ok(None) };
        if to > self.marks.flushed() || self.scrub.check(from, to).is_err() {
            return Ok(None);
        }
        let Some(summed) = sum_of(&segment, from, to)? else { return Ok(None) };
        if !matches!(is_intact(&segment, &summed, &mut Vec::new()), Ok(true)) {
            let is_news = self.scrub_range(&segment, from, to)?;
            self.scrub_news(is_news).inspect_err(|error| self.stop_if_disk_failed(error))?;
            return Ok(None);
        }
        let mut bytes = vec![0; (to - from) as usize];
        segment.read_exact(&mut bytes, from)?;
        Ok(Some(bytes))
    }

    /// See [`crate::Store::repair_block`].
    pub(crate) fn repair_block(&self, from: u64, bytes: &[u8]) -> Result<bool, StoreError> {
        let _closing_waits = self.guests.read();
        self.check_open()?;
        let to = from.saturating_add(bytes.len() as u64);
        let is_known =
            self.scrub.damaged().iter().any(|range| (range.from, range.to) == (from, to));
        let Some(segment) = self.block_segment(from, to).filter(|_| is_known) else {
            return Ok(false);
        };
        let known = sum_of(&segment, from, to)?;
        let Some(bytes) = self.proved(&segment, from, bytes, known)? else { return Ok(false) };
        let written = self.write_again(&segment, from, &bytes, known.is_none());
        written.inspect_err(|error| self.stop_if_disk_failed(error))?;
        // From the file: what it gives now is what counts.
        let is_news = self.scrub_range(&segment, from, to)?;
        let is_whole = self.scrub.check(from, to).is_ok();
        if is_whole {
            self.scrub.count_repaired(to - from);
        }
        self.scrub_news(is_news).inspect_err(|error| self.stop_if_disk_failed(error))?;
        Ok(is_whole)
    }

    /// The segment in which these are the bounds of a block.
    fn block_segment(&self, from: u64, to: u64) -> Option<std::sync::Arc<Segment>> {
        let segment = self.log.segment_at(from)?;
        let is_start = BlockTail::block_start(from, segment.bytes) == from;
        let is_end = to == from.checked_add(BLOCK_BYTES)?.min(segment.end());
        Some(segment).filter(|_| is_start && is_end)
    }

    /// What is to be written for `bytes`, if they are what was there.
    fn proved(
        &self,
        segment: &Segment,
        from: u64,
        bytes: &[u8],
        known: Option<Summed>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut proved = bytes.to_vec();
        let to = from + bytes.len() as u64;
        if to == segment.end()
            && let Some(end) = padding_head_end(bytes)
        {
            // What lies behind belongs to nobody, and is another replica's own.
            let mut own = vec![0; bytes.len()];
            if segment.read_exact(&mut own, from).is_ok() {
                proved[end..].copy_from_slice(&own[end..]);
            }
        }
        let holds = match known {
            Some(Summed { sum, .. }) => {
                let covered = proved.get(..sum.bytes as usize);
                covered.is_some_and(|covered| crc32fast::hash(covered) == sum.crc)
            }
            None => self.records_in(segment, from, &proved)? == Records::Hold,
        };
        Ok(holds.then_some(proved))
    }

    /// Durably, and never into a log that was cut there: a store that is closed is not written to.
    fn write_again(
        &self,
        segment: &Segment,
        from: u64,
        bytes: &[u8],
        needs_sum: bool,
    ) -> Result<(), StoreError> {
        {
            let _appends_wait = self.appender.lock();
            self.check_open()?;
            segment.write_again(bytes, from)?;
        }
        {
            // Whoever syncs a file is told of a failed write-back, and nobody else. It may be what the
            // flush waits for, so no flush comes between the failure and the stop, whatever failed.
            let _flushing = self.flusher.flushing.lock();
            self.flusher.check_poison()?;
            segment.sync().inspect_err(|error| self.stop_for_ever(&error.to_string()))?;
        }
        if needs_sum {
            let sum = Sum { crc: crc32fast::hash(bytes), bytes: bytes.len() as u32 };
            segment.blocks.write(&[Summed { position: from, sum }])?;
            segment.blocks.sync()?;
        }
        Ok(())
    }

    /// Whether the records that have a part in a block hold, with `block` as what stands there: each
    /// where it belongs, with its body's checksum. Reads the heads of all in front of it.
    pub(crate) fn records_in(
        &self,
        segment: &Segment,
        from: u64,
        block: &[u8],
    ) -> Result<Records, StoreError> {
        let to = from + block.len() as u64;
        let mut position = segment.start;
        let mut record = Vec::new();
        while position < to && segment.end() - position >= PADDING_HEAD_BYTES {
            let mut head = [0; 8];
            read_with(segment, from, block, position, &mut head)?;
            let [a, b, c, d, e, f, g, h] = head;
            let (size, magic) =
                (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes([e, f, g, h]));
            let wrong = match position + BLANK_HEAD_BYTES as u64 > from {
                true => Records::Broken,
                false => Records::OutOfReach,
            };
            let left = segment.end() - position;
            match magic {
                MAGIC_BLANK if size as u64 == left => return Ok(Records::Hold),
                MAGIC_V1 | MAGIC_V2
                    if (BLANK_HEAD_BYTES as u64..=left).contains(&(size as u64)) => {}
                _ => return Ok(wrong),
            }
            if position + size as u64 > from {
                if size > self.config.taken_record_bytes_max() {
                    return Ok(Records::OutOfReach);
                }
                record.resize(size, 0);
                read_with(segment, from, block, position, &mut record)?;
                match Record::decode(&record, true) {
                    Ok(Decoded::Record(found, _))
                        if found.physical_offset == position
                            && !has_lost_sector(&record, position, &found) => {}
                    _ => return Ok(Records::Broken),
                }
            }
            position += size as u64;
        }
        Ok(Records::Hold)
    }
}

fn sum_of(segment: &Segment, from: u64, to: u64) -> Result<Option<Summed>, StoreError> {
    Ok(segment.blocks.read(from, to)?.into_iter().find(|summed| summed.position == from))
}

/// Fills `bytes` from `position`, from `block` where that lies: what the disk has there is not read.
fn read_with(
    segment: &Segment,
    block_from: u64,
    block: &[u8],
    position: u64,
    bytes: &mut [u8],
) -> Result<(), StoreError> {
    let length = bytes.len() as u64;
    let within = |at: u64| at.saturating_sub(position).min(length) as usize;
    let (begin, end) = (within(block_from), within(block_from + block.len() as u64));
    if begin > 0 {
        segment.read_exact(&mut bytes[..begin], position)?;
    }
    if begin < end {
        let at = (position + begin as u64 - block_from) as usize;
        bytes[begin..end].copy_from_slice(&block[at..at + end - begin]);
    }
    if end < bytes.len() {
        segment.read_exact(&mut bytes[end..], position + end as u64)?;
    }
    Ok(())
}

/// Behind the head of the padding that ends a segment, whose last block these are.
fn padding_head_end(block: &[u8]) -> Option<usize> {
    let is_head = |at: &usize| {
        let word = |at: usize| u32::from_be_bytes(block[at..at + 4].try_into().expect("4 bytes"));
        word(*at + 4) == MAGIC_BLANK && word(*at) as usize == block.len() - at
    };
    (0..=block.len().checked_sub(BLANK_HEAD_BYTES)?).find(is_head).map(|at| at + BLANK_HEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::{StoreConfig, Upkeep};
    use crate::disk::RealDisk;
    use crate::log_copy::LogRead;
    use crate::message::NewMessage;

    #[test]
    fn a_segment_of_which_a_block_was_written_again_is_read_through_its_mapping_as_before() {
        let directory = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            directory: directory.path().to_path_buf(),
            segment_bytes: 64 << 10,
            message_bytes_max: 2000,
            upkeep: Upkeep { free_bytes_min: Some(0), ..Upkeep::default() },
            threads: false,
            ..StoreConfig::default()
        };
        let clock = Arc::new(ManualClock::at_ms(1000));
        let inner = Inner::open(config, Arc::new(RealDisk), clock).unwrap();
        for _ in 0..30 {
            inner.append(&[NewMessage::plain("t", 0, &[7; 1000])], &mut Vec::new()).unwrap();
        }
        inner.flush().unwrap();
        inner.write_durable_mark().unwrap();
        let segment = inner.log.newest().unwrap();
        assert!(segment.append_mapped(0, 100, &mut Vec::new()));
        let block = inner.read_block(0, BLOCK_BYTES).unwrap().unwrap();
        segment.write(b"rot", 500).unwrap();
        inner.suspect(0, 1);
        inner.look_at_suspects().unwrap();
        assert!(inner.repair_block(0, &block).unwrap());
        let mut read = Vec::new();
        assert!(segment.append_mapped(0, block.len(), &mut read));
        assert!(read == block);
        // A slave gets what was just written without the disk.
        let mut read = Vec::new();
        let given = inner.read_log(0, 4096, false, &mut read).unwrap();
        assert!(matches!(given, LogRead::Read { .. }), "{given:?}");
    }
}
