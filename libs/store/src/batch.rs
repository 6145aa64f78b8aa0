//! What one append writes: records, and the entries that queues and key index get of them.

use std::ops::Range;
use std::sync::Arc;

use weirmq_message::record::MAGIC_BLANK;

use crate::consume_queue::Queue;
use crate::dispatch::{KeySource, for_each_key, key_hash};
use crate::error::StoreError;
use crate::key_file::KeyEntry;
use crate::message::{Appended, NewMessage};
use crate::proof::PROOF_BYTES;
use crate::queue_file::QueueEntry;
use crate::queue_table::QueueTable;
use crate::store::Inner;

/// Every write ends with this many zeros, so that whatever stood there cannot pass for a record.
pub(crate) const TRAILER: [u8; 8] = [0; 8];
/// What a file system reads, writes and allocates at once, or a part of it.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Buffers that one huge batch blew up beyond this are given back.
const BUFFER_BYTES_KEPT: usize = 8 << 20;
/// How many of a batch's queues a message is compared with.
const RECENT_QUEUES: usize = 8;

/// A batch between encoding and publication. All buffers are reused.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) entries: Vec<Staged>,
    pub(crate) keys: Vec<KeyEntry>,
    pub(crate) queues: Vec<Arc<Queue>>,
    pub(crate) end: u64,
}

/// What a batch puts into one segment.
pub(crate) struct Piece {
    pub(crate) position: u64,
    pub(crate) bytes: Range<usize>,
    pub(crate) entries: Range<usize>,
    pub(crate) keys: Range<usize>,
}

pub(crate) struct Staged {
    /// Index into the batch's queues.
    pub(crate) queue: usize,
    pub(crate) offset: u64,
    pub(crate) entry: QueueEntry,
}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        self.pieces.clear();
        self.entries.clear();
        self.keys.clear();
        self.keys.shrink_to(BUFFER_BYTES_KEPT / size_of::<KeyEntry>());
        self.queues.clear();
    }

    /// Lays messages out from `position` on. Where one does not fit with 8 bytes and the proofs'
    /// to spare the segment is padded, as Apache does (`CommitLog.DefaultAppendMessageCallback`).
    pub(crate) fn encode(
        &mut self,
        messages: &[NewMessage<'_>],
        position: u64,
        now_ms: i64,
        inner: &Inner,
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.clear();
        let segment_bytes = inner.config.segment_bytes;
        self.begin_piece(position);
        let mut position = position;
        for message in messages {
            let size = message.to_record(0, 0, 0).encoded_len() as u64;
            let left = segment_bytes - position % segment_bytes;
            if size + TRAILER.len() as u64 + PROOF_BYTES > left {
                self.bytes.extend_from_slice(&(left as u32).to_be_bytes());
                self.bytes.extend_from_slice(&MAGIC_BLANK.to_be_bytes());
                self.end_piece();
                position += left;
                self.begin_piece(position);
            }
            let queue_offset = if message.dispatch || message.index_keys != KeySource::None {
                self.stage(message, position, size as u32, &inner.queues)
            } else {
                0
            };
            let record = message.to_record(queue_offset, position, now_ms);
            record.encode(&mut self.bytes).map_err(|_| StoreError::TooLarge {
                what: "record",
                bytes: size as usize,
                limit: inner.config.record_bytes_max(),
            })?;
            appended.push(Appended {
                physical_offset: position,
                end_offset: position + size,
                queue_offset,
                store_timestamp: now_ms,
                size: size as u32,
            });
            position += size;
        }
        self.bytes.extend_from_slice(&TRAILER);
        self.end_piece();
        self.end = position;
        Ok(())
    }

    /// Ends what was copied, at `end`. Behind padding nothing has begun yet, and another writer's
    /// record may end where the segment does.
    pub(crate) fn end_copy(&mut self, end: u64, segment_bytes: u64) {
        if self.pieces.last().is_some_and(|piece| piece.position < end) {
            let left = end.next_multiple_of(segment_bytes) - end;
            self.bytes.extend_from_slice(&TRAILER[..TRAILER.len().min(left as usize)]);
            self.end_piece();
        } else {
            self.pieces.pop();
        }
        self.end = end;
    }

    /// Lengthens the last piece by zeros up to the end of the page that it ends in, if it is the
    /// first to write there, but not beyond `end_max`.
    ///
    /// In a file that was written in a life before, a page that is written in part has to be read
    /// from the disk first.
    pub(crate) fn fill_page(&mut self, end_max: u64) {
        let Some(piece) = self.pieces.last_mut() else { return };
        let end = piece.position + piece.bytes.len() as u64;
        let page_end = end.next_multiple_of(PAGE_BYTES as u64);
        let is_first = page_end - PAGE_BYTES as u64 >= piece.position;
        if is_first && page_end.min(end_max) > end {
            self.bytes.resize(piece.bytes.end + (page_end.min(end_max) - end) as usize, 0);
            piece.bytes.end = self.bytes.len();
        }
    }

    pub(crate) fn begin_piece(&mut self, position: u64) {
        let (bytes, entries, keys) = (self.bytes.len(), self.entries.len(), self.keys.len());
        self.pieces.push(Piece {
            position,
            bytes: bytes..bytes,
            entries: entries..entries,
            keys: keys..keys,
        });
    }

    pub(crate) fn end_piece(&mut self) {
        if let Some(piece) = self.pieces.last_mut() {
            piece.bytes.end = self.bytes.len();
            piece.entries.end = self.entries.len();
            piece.keys.end = self.keys.len();
        }
    }

    /// Notes the derived entries of a message and takes its queue offset, 0 without one.
    fn stage(
        &mut self,
        message: &NewMessage<'_>,
        position: u64,
        size: u32,
        queues: &QueueTable,
    ) -> u64 {
        let queue = self.queue_of(message.topic, message.queue_id, queues);
        if message.index_keys == KeySource::Properties {
            self.stage_keys(queue, message.properties, position);
        }
        if !message.dispatch {
            return 0;
        }
        let offset = self.queues[queue].assign();
        self.stage_entry(queue, offset, position, size, message.tag_hash);
        offset
    }

    /// Notes the keys of a record of a queue of this batch.
    pub(crate) fn stage_keys(&mut self, queue: usize, properties: &[u8], position: u64) {
        let seed = self.queues[queue].topic_seed;
        for_each_key(properties, |key| self.keys.push((key_hash(seed, key), position)));
    }

    /// Notes the queue entry of a record.
    pub(crate) fn stage_entry(
        &mut self,
        queue: usize,
        offset: u64,
        position: u64,
        size: u32,
        tag_hash: i64,
    ) {
        let entry = QueueEntry { physical_offset: position, size, tag_hash };
        self.entries.push(Staged { queue, offset, entry });
    }

    /// The queue's place among those of the batch. Batches have few queues, so the last ones are
    /// compared before the table is asked.
    pub(crate) fn queue_of(&mut self, topic: &str, queue_id: i32, queues: &QueueTable) -> usize {
        let recent = self.queues.len().saturating_sub(RECENT_QUEUES);
        let known = self.queues[recent..]
            .iter()
            .position(|queue| queue.queue_id == queue_id && *queue.topic == *topic);
        known.map_or_else(
            || {
                self.queues.push(queues.find_or_add(topic, queue_id, 0));
                self.queues.len() - 1
            },
            |index| recent + index,
        )
    }
}
