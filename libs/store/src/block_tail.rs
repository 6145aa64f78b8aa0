//! Sums of the log's blocks as they fill, on the append path.
//!
//! The bytes are in the cache when they are written, so their CRC costs a fraction of reading
//! them back: 20 to 90 ns a KiB, against 100 to 200 for a read from the page cache.

use crc32fast::Hasher;

use crate::block_sums::{BLOCK_BYTES, Sum, Summed};

/// Sums that nobody takes are dropped beyond this, which is a GiB of log; the scrub computes them.
const DONE_MAX: usize = 1 << 16;

/// The block that is being filled, and those that are full. Guarded by the append lock.
pub(crate) struct BlockTail {
    segment_bytes: u64,
    /// Behind the last byte taken.
    position: u64,
    hasher: Hasher,
    /// `None` when the block's first bytes were not seen.
    is_known: bool,
    done: Vec<Summed>,
}

impl BlockTail {
    /// Begins at `position`; `before` are the bytes between the start of its block and there, and
    /// `None` when they could not be read.
    pub(crate) fn at(position: u64, segment_bytes: u64, before: Option<&[u8]>) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(before.unwrap_or_default());
        Self { segment_bytes, position, hasher, is_known: before.is_some(), done: Vec::new() }
    }

    /// Where the block of a position begins.
    pub(crate) fn block_start(position: u64, segment_bytes: u64) -> u64 {
        let in_segment = position % segment_bytes;
        position - in_segment % BLOCK_BYTES
    }

    /// Takes what was written at `position`. A jump ahead is the end of a segment: what lies
    /// behind its padding's head belongs to nobody and has no sum.
    pub(crate) fn take(&mut self, position: u64, mut bytes: &[u8]) {
        if position != self.position {
            self.finish_block();
            self.position = position;
            self.is_known = position.is_multiple_of(self.segment_bytes);
        }
        while !bytes.is_empty() {
            let in_segment = self.position % self.segment_bytes;
            let left = BLOCK_BYTES - in_segment % BLOCK_BYTES;
            let left = left.min(self.segment_bytes - in_segment);
            let (piece, rest) = bytes.split_at(bytes.len().min(left as usize));
            self.hasher.update(piece);
            self.position += piece.len() as u64;
            bytes = rest;
            if piece.len() as u64 == left {
                self.finish(self.position);
            }
        }
    }

    /// The full blocks that end at or before `flushed`, to be written. They are given once,
    /// unless they are put back.
    pub(crate) fn take_done(&mut self, flushed: u64) -> Vec<Summed> {
        let count = self.done.partition_point(|summed| summed.end() <= flushed);
        self.done.drain(..count).collect()
    }

    /// Takes back what could not be written, for the next time.
    pub(crate) fn put_back(&mut self, sums: Vec<Summed>) {
        let later = std::mem::replace(&mut self.done, sums);
        self.done.extend(later);
        // Two who failed may come in any order.
        self.done.sort_by_key(Summed::end);
        self.done.truncate(DONE_MAX);
    }

    /// The sum of the block that is being filled, as far as it goes.
    pub(crate) fn partial(&self) -> Option<Summed> {
        let start = Self::block_start(self.position, self.segment_bytes);
        let bytes = (self.position - start) as u32;
        let crc = self.hasher.clone().finalize();
        (self.is_known && bytes > 0).then_some(Summed { position: start, sum: Sum { crc, bytes } })
    }

    fn finish_block(&mut self) {
        if let Some(summed) = self.partial() {
            self.finish(summed.end());
        } else {
            self.hasher.reset();
        }
    }

    fn finish(&mut self, end: u64) {
        let start = Self::block_start(end - 1, self.segment_bytes);
        let crc = self.hasher.clone().finalize();
        if self.is_known && self.done.len() < DONE_MAX {
            self.done
                .push(Summed { position: start, sum: Sum { crc, bytes: (end - start) as u32 } });
        }
        self.hasher.reset();
        self.is_known = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 40 << 10;

    #[test]
    fn sums_do_not_depend_on_how_bytes_came() {
        let bytes: Vec<u8> = (0..SEGMENT_BYTES).map(|n| (n * 31 + n / 7) as u8).collect();
        for step in [1, 7, 1000, 16384, 30_000, 40_960] {
            let mut tail = BlockTail::at(0, SEGMENT_BYTES, Some(&[]));
            for (at, piece) in (0..).step_by(step).zip(bytes.chunks(step)) {
                tail.take(at, piece);
            }
            assert_eq!(tail.partial(), None);
            let done = tail.take_done(u64::MAX);
            let expected = bytes.chunks(BLOCK_BYTES as usize).zip((0..).step_by(16384));
            let expected: Vec<_> = expected
                .map(|(block, position)| {
                    let sum = Sum { crc: crc32fast::hash(block), bytes: block.len() as u32 };
                    Summed { position, sum }
                })
                .collect();
            assert_eq!(done, expected, "step {step}");
        }
    }

    #[test]
    fn a_tail_goes_on_where_the_log_ended_and_jumps_with_it() {
        let mut tail = BlockTail::at(20_000, SEGMENT_BYTES, Some(&[5; 20_000 - 16_384]));
        tail.take(20_000, &[6; 100]);
        let mut whole = vec![5; 20_000 - 16_384];
        whole.extend([6; 100]);
        assert_eq!(tail.partial().unwrap().sum.crc, crc32fast::hash(&whole));
        // The rest of the segment is padding.
        tail.take(SEGMENT_BYTES, &[7; 10]);
        let done = tail.take_done(20_099);
        assert!(done.is_empty());
        let done = tail.take_done(20_100);
        assert_eq!((done[0].position, done[0].sum.bytes), (16_384, 3716));
        assert_eq!(tail.partial().unwrap().end(), SEGMENT_BYTES + 10);
    }

    #[test]
    fn what_is_put_back_comes_again_in_order() {
        let mut tail = BlockTail::at(0, SEGMENT_BYTES, Some(&[]));
        tail.take(0, &[1; 20_000]);
        let first = tail.take_done(u64::MAX);
        tail.take(20_000, &[1; 20_000]);
        let second = tail.take_done(u64::MAX);
        tail.take(40_000, &[1; 960]);
        assert_eq!((first.len(), second.len()), (1, 1));
        tail.put_back(first);
        tail.put_back(second);
        let all = tail.take_done(u64::MAX);
        assert_eq!(all.iter().map(|summed| summed.position).collect::<Vec<_>>(), [0, 16384, 32768]);
    }

    #[test]
    fn without_its_first_bytes_a_block_has_no_sum() {
        let mut tail = BlockTail::at(100, SEGMENT_BYTES, None);
        tail.take(100, &[1; 20_000]);
        assert_eq!(tail.take_done(u64::MAX), []);
        assert_eq!(tail.partial().unwrap().position, BLOCK_BYTES);
    }
}
