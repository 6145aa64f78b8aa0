//! Finds messages by time and by key.

use std::ops::RangeInclusive;

use weirmq_message::record::{Decoded, Record};

use crate::consume_queue::Queue;
use crate::dispatch::{for_each_key, key_hash, topic_seed};
use crate::error::StoreError;
use crate::read::read_head;
use crate::store::Inner;

/// Records that one query by key looks at; a key with more matches finds its newest ones.
const KEY_CANDIDATES_MAX: usize = 16_384;

/// Which of the messages around a point in time is meant. Source: Apache's `BoundaryType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at that time or later.
    Lower,
    /// The last message stored at that time or earlier.
    Upper,
}

impl Inner {
    /// See [`crate::Store::offset_by_time`].
    pub(crate) fn offset_by_time(
        &self,
        queue: &Queue,
        timestamp_ms: i64,
        boundary: Boundary,
    ) -> Result<u64, StoreError> {
        let range = queue.range(self.marks.visible());
        let (mut low, mut high) = (range.min, range.max);
        // Store timestamps grow along a queue, so one cut parts earlier from later.
        while low < high {
            let middle = low + (high - low) / 2;
            let is_before = match self.store_time(queue, middle)? {
                Some(time) if boundary == Boundary::Lower => time < timestamp_ms,
                Some(time) => time <= timestamp_ms,
                // Expired meanwhile, or a gap: whatever is asked for is further on.
                None => true,
            };
            if is_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(match boundary {
            Boundary::Lower => low,
            // Apache answers 0, not the minimum, when all messages are later
            // (ConsumeQueue.binarySearchInQueueByTime).
            Boundary::Upper if low == range.min => 0,
            Boundary::Upper => low - 1,
        })
    }

    /// See [`crate::Store::store_time`].
    pub(crate) fn store_time(&self, queue: &Queue, offset: u64) -> Result<Option<i64>, StoreError> {
        let Some(entry) = self.queue_entry(queue, offset, true)? else { return Ok(None) };
        let Some(segment) = self.log.segment_at(entry.physical_offset) else { return Ok(None) };
        let suspect = || self.suspect(entry.physical_offset, entry.end_offset());
        let head = read_head(&segment, entry.physical_offset).inspect_err(|_| suspect())?;
        let meant = head.filter(|head| head.physical_offset == entry.physical_offset);
        if meant.is_none() {
            suspect();
        }
        Ok(meant.map(|head| head.store_timestamp))
    }

    /// See [`crate::Store::query_key`].
    pub(crate) fn query_key(
        &self,
        topic: &str,
        key: &str,
        max: usize,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<u64>, StoreError> {
        let hash = key_hash(topic_seed(topic), key.as_bytes());
        let (mut found, mut candidates, mut record) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = KEY_CANDIDATES_MAX;
        let visible = self.marks.visible();
        for segment in self.log.all().iter().rev() {
            candidates.clear();
            segment.keys.find(hash, left, &mut candidates)?;
            candidates.sort_unstable_by(|a, b| b.cmp(a));
            candidates.dedup();
            left -= candidates.len().min(left);
            for position in &candidates {
                if found.len() >= max {
                    return Ok(found);
                }
                if !self.may_be_of(*position, from_ms..=to_ms) {
                    continue;
                }
                record.clear();
                let size = self.read_record(*position, &mut record)?;
                let is_expired = self.log.segment_at(*position).is_none();
                if size.is_none() && *position < visible && !is_expired {
                    // The index says that one begins there, so this is no miss.
                    return Err(self.damaged_record(*position, 1));
                }
                if size.is_some() && is_match(&record, topic, key, from_ms, to_ms) {
                    found.push(*position);
                }
            }
        }
        Ok(found)
    }

    /// Whether the record at a position may have been stored in that time. Where its head does not
    /// say so, whoever reads all of it finds out what is wrong.
    fn may_be_of(&self, position: u64, time: RangeInclusive<i64>) -> bool {
        let segment = self.log.segment_at(position);
        let head = segment.and_then(|segment| read_head(&segment, position).ok().flatten());
        let meant = head.filter(|head| head.physical_offset == position);
        meant.is_none_or(|head| time.contains(&head.store_timestamp))
    }
}

fn is_match(bytes: &[u8], topic: &str, key: &str, from_ms: i64, to_ms: i64) -> bool {
    // The record was checked when it was read.
    let Ok(Decoded::Record(record, _)) = Record::decode(bytes, false) else { return false };
    let mut has_key = false;
    for_each_key(record.properties, |found| has_key |= found == key.as_bytes());
    has_key && record.topic == topic && (from_ms..=to_ms).contains(&record.store_timestamp)
}
