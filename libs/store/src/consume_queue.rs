//! One queue: which records it has, in order.
//!
//! A queue is a list of *parts*, one per log segment in which it has messages (more only where a
//! damaged log left a gap). A part's full blocks stand in the segment's queue file; the newest
//! entries, less than a block, are the *tail* and stand in memory until the block is full or the
//! segment is sealed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::dispatch;
use crate::error::StoreError;
use crate::queue_file::{QueueEntry, QueueFile, StoredPart, block_entries, block_of, block_start};
use crate::segment::Segment;

/// The queue offsets that can be asked for: `min` inclusive, `max` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRange {
    /// Offset of the oldest message that the log still has.
    pub min: u64,
    /// One more than the offset of the newest visible message.
    pub max: u64,
}

pub(crate) struct Queue {
    pub(crate) topic: Arc<str>,
    pub(crate) queue_id: i32,
    /// See [`dispatch::topic_seed`].
    pub(crate) topic_seed: u64,
    /// The queue offset of the next append; touched under the append lock only. It runs ahead of
    /// the entries while an append is being written.
    assigned: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Queue offset of the next entry.
    next: u64,
    /// Entries before this offset were visible when somebody last asked.
    known_visible: u64,
    /// Oldest first; never an empty part.
    parts: VecDeque<Part>,
    /// Entries of the last part that are in no block yet.
    tail: Vec<QueueEntry>,
}

struct Part {
    /// Start of the segment.
    segment: u64,
    file: Arc<QueueFile>,
    /// Queue offset of the first entry.
    first: u64,
    /// Entries, those of the tail included.
    count: u64,
    blocks: Vec<u32>,
}

impl Part {
    fn end(&self) -> u64 {
        self.first + self.count
    }
}

impl Queue {
    /// A queue without messages whose next one gets offset `next`.
    pub(crate) fn new(topic: &str, queue_id: i32, next: u64) -> Self {
        Self {
            topic: Arc::from(topic),
            queue_id,
            topic_seed: dispatch::topic_seed(topic),
            assigned: AtomicU64::new(next),
            state: Mutex::new(State { next, known_visible: next, ..State::default() }),
        }
    }

    /// Takes the next queue offset. Under the append lock.
    pub(crate) fn assign(&self) -> u64 {
        let offset = self.assigned.load(Ordering::Relaxed);
        self.assigned.store(offset + 1, Ordering::Relaxed);
        offset
    }

    /// The queue offset of the next append. Under the append lock.
    pub(crate) fn next_to_assign(&self) -> u64 {
        self.assigned.load(Ordering::Relaxed)
    }

    /// Takes this queue offset, whichever was next. Under the append lock.
    pub(crate) fn assign_at(&self, offset: u64) {
        self.assigned.store(offset + 1, Ordering::Relaxed);
    }

    /// Gives all offsets back that were taken and not published. Under the append lock.
    pub(crate) fn unassign(&self) {
        self.assigned.store(self.state.lock().next, Ordering::Relaxed);
    }

    /// Adds the entry of a record of `segment` at `offset`.
    ///
    /// An append always continues the queue. A log that is read again may not: an offset ahead
    /// leaves a gap, and one behind means that the topic was deleted and made again, so what was
    /// before is forgotten.
    pub(crate) fn push(&self, segment: &Segment, offset: u64, entry: QueueEntry) {
        let mut state = self.state.lock();
        if offset < state.next {
            state.begin_anew(offset);
        }
        let continues = state
            .parts
            .back()
            .is_some_and(|part| part.segment == segment.start && part.end() == offset);
        if !continues {
            state.flush_tail();
            state.parts.push_back(Part {
                segment: segment.start,
                file: Arc::clone(&segment.queues),
                first: offset,
                count: 0,
                blocks: Vec::new(),
            });
        }
        state.push(entry);
        state.next = offset + 1;
        self.assigned.store(state.next, Ordering::Relaxed);
    }

    /// Takes over a part that a sealed file has. If more entries may follow in this segment
    /// (`is_newest`), a last block that is not full becomes the tail again.
    pub(crate) fn restore(
        &self,
        segment: &Segment,
        stored: StoredPart,
        is_newest: bool,
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if stored.first < state.next {
            state.begin_anew(stored.first);
        }
        state.flush_tail();
        let mut part = Part {
            segment: segment.start,
            file: Arc::clone(&segment.queues),
            first: stored.first,
            count: stored.count,
            blocks: stored.blocks,
        };
        let in_full_blocks = block_start(part.blocks.len());
        if is_newest
            && in_full_blocks > part.count
            && let Some(last) = part.blocks.pop()
        {
            let count = part.count - block_start(part.blocks.len());
            let mut tail = Vec::new();
            part.file.read_block(last, count, 0..count, true, &mut tail)?;
            state.tail = tail;
        }
        state.next = part.end();
        self.assigned.store(state.next, Ordering::Relaxed);
        state.parts.push_back(part);
        Ok(())
    }

    /// Notes that all entries are visible, as after a recovery: what the log has is durable then.
    pub(crate) fn show_all(&self) {
        let mut state = self.state.lock();
        state.known_visible = state.next;
    }

    /// Forgets what was visible, until positions of the log are confirmed again.
    pub(crate) fn hide_all(&self) {
        self.state.lock().known_visible = 0;
    }

    /// Moves the tail into the file of `segment` and says what the queue has there.
    pub(crate) fn seal(&self, segment: u64) -> Vec<StoredPart> {
        let mut state = self.state.lock();
        if state.parts.back().is_some_and(|part| part.segment == segment) {
            state.flush_tail();
        }
        let stored = |part: &Part| StoredPart {
            topic: self.topic.to_string(),
            queue_id: self.queue_id,
            first: part.first,
            count: part.count,
            blocks: part.blocks.clone(),
        };
        state.parts.iter().filter(|part| part.segment == segment).map(stored).collect()
    }

    /// The offset that a queue without the segments before `position` has to go on from, unless
    /// a record that is left and lies below `flushed` says so itself. One that lies further on may
    /// be gone after a crash, and one whose entry cannot be read says nothing.
    pub(crate) fn offset_to_keep(&self, position: u64, flushed: u64) -> Option<u64> {
        let (first_left, kept) = {
            let state = self.state.lock();
            let gone = state.parts.partition_point(|part| part.segment < position);
            let Some(part) = state.parts.get(gone) else { return Some(state.next) };
            let before = gone.checked_sub(1).map_or(part.first, |last| state.parts[last].end());
            (part.first, before)
        };
        let mut entries = Vec::with_capacity(1);
        if let Err(error) = self.entries(first_left, 1, &mut entries) {
            let (topic, queue_id) = (&self.topic, self.queue_id);
            tracing::warn!(%topic, queue_id, %error, "queue entry cannot be read, its offset is kept");
        }
        let is_durable = entries.first().is_some_and(|(_, entry)| entry.end_offset() <= flushed);
        (!is_durable).then_some(kept)
    }

    /// Drops the parts of segments before `position`.
    pub(crate) fn forget_before(&self, position: u64) {
        let mut state = self.state.lock();
        while state.parts.front().is_some_and(|part| part.segment < position) {
            state.parts.pop_front();
        }
        if state.parts.is_empty() {
            state.tail.clear();
        }
    }

    /// The offsets whose records lie below `visible`.
    ///
    /// Entries that decide it nearly always stand in memory. If they must be read and cannot be,
    /// the answer is the range that was known before.
    pub(crate) fn range(&self, visible: u64) -> QueueRange {
        let (min, mut low, mut high) = {
            let mut state = self.state.lock();
            let min = state.parts.front().map_or(state.next, |part| part.first);
            let in_blocks_end = state.next - state.tail.len() as u64;
            let in_tail = state.tail.partition_point(|entry| entry.end_offset() <= visible) as u64;
            if in_tail > 0 {
                state.known_visible = in_blocks_end + in_tail;
            }
            if in_tail > 0 || state.known_visible == in_blocks_end {
                return QueueRange { min, max: state.known_visible };
            }
            (min, state.known_visible.max(min), in_blocks_end)
        };
        // Records of a queue lie in the log in the queue's order, so visibility is one cut. The
        // newest entry is asked first: mostly all are visible.
        let mut probe = Vec::new();
        let mut middle = high.saturating_sub(1);
        while low < high {
            probe.clear();
            if let Err(error) = self.entries(middle, 1, &mut probe) {
                tracing::error!(topic = %self.topic, queue_id = self.queue_id, %error, "queue entry cannot be read");
                break;
            }
            // In a gap the next entry behind it answers for the middle.
            match probe.first() {
                Some((offset, entry)) if entry.end_offset() <= visible => low = offset + 1,
                Some(_) | None => high = middle,
            }
            middle = low + high.saturating_sub(low) / 2;
        }
        let mut state = self.state.lock();
        state.known_visible = state.known_visible.max(low).min(state.next);
        QueueRange { min, max: low }
    }

    /// Appends entries from `from` on to `out`, with their offsets: at most `count`, at least one
    /// if there is one at or behind `from`. They stand in one block or in the tail.
    pub(crate) fn entries(
        &self,
        from: u64,
        count: u64,
        out: &mut Vec<(u64, QueueEntry)>,
    ) -> Result<(), StoreError> {
        self.entries_if(from, count, true, out).map(|_| ())
    }

    /// The same for who may not wait for the disk: `false`, with nothing appended, where that would
    /// be needed.
    pub(crate) fn entries_if(
        &self,
        from: u64,
        count: u64,
        may_wait: bool,
        out: &mut Vec<(u64, QueueEntry)>,
    ) -> Result<bool, StoreError> {
        let state = self.state.lock();
        let index = state.parts.partition_point(|part| part.end() <= from);
        let Some(part) = state.parts.get(index) else { return Ok(true) };
        let from = from.max(part.first);
        let place = from - part.first;
        let in_blocks = if index + 1 == state.parts.len() {
            part.count - state.tail.len() as u64
        } else {
            part.count
        };
        if place >= in_blocks {
            let tail = state.tail[(place - in_blocks) as usize..].iter();
            out.extend((from..).zip(tail.copied()).take(count as usize));
            return Ok(true);
        }
        let (block, skip) = block_of(place);
        let held = block_entries(block).min(in_blocks - block_start(block));
        let left = held - skip;
        let (at, file) = (part.blocks[block], Arc::clone(&part.file));
        drop(state);
        let mut entries = Vec::with_capacity(left.min(count) as usize);
        let places = skip..skip + left.min(count);
        let is_read = file.read_block(at, held, places, may_wait, &mut entries)?;
        out.extend((from..).zip(entries));
        Ok(is_read)
    }
}

impl State {
    fn begin_anew(&mut self, offset: u64) {
        self.parts.clear();
        self.tail.clear();
        self.known_visible = offset;
    }

    fn push(&mut self, entry: QueueEntry) {
        self.tail.push(entry);
        let part = self.parts.back_mut().expect("the caller made a part");
        part.count += 1;
        if self.tail.len() as u64 == block_entries(part.blocks.len()) {
            self.flush_tail();
        }
    }

    /// Moves the tail into a block, full or not; the part takes no more entries if it was not.
    fn flush_tail(&mut self) {
        if let (Some(part), false) = (self.parts.back_mut(), self.tail.is_empty()) {
            part.blocks.push(part.file.append_block(&self.tail));
            self.tail.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Disk, SimulatedDisk};
    use crate::format::Layout;

    const SEGMENT_BYTES: u64 = 4096;

    fn segments(count: u64) -> Vec<Segment> {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        let layout = Layout::under(std::path::Path::new("/s"));
        for directory in [&layout.commit_log, &layout.queues, &layout.keys] {
            disk.create_directory(directory).unwrap();
        }
        (0..count)
            .map(|n| Segment::create(&disk, &layout, n * SEGMENT_BYTES, SEGMENT_BYTES).unwrap())
            .collect()
    }

    fn read_all(queue: &Queue, from: u64) -> Vec<(u64, QueueEntry)> {
        let mut out = Vec::new();
        loop {
            let next = out.last().map_or(from, |(offset, _): &(u64, _)| offset + 1);
            let before = out.len();
            queue.entries(next, 1000, &mut out).unwrap();
            if out.len() == before {
                return out;
            }
        }
    }

    proptest! {
        /// The model is a plain list; what was pushed is what is read, wherever a read begins,
        /// whatever was sealed or dropped meanwhile.
        #[test]
        fn a_queue_is_a_list(
            steps in proptest::collection::vec((0u8..10, 1u64..300), 1..12),
            from in 0u64..2000, visible_at in 0u64..2000,
        ) {
            let segments = segments(13);
            let queue = Queue::new("t", 0, 0);
            let mut model: Vec<(u64, QueueEntry)> = Vec::new();
            let (mut segment, mut next, mut min) = (0, 0, 0);
            for (kind, count) in steps {
                match kind {
                    0 => { queue.seal(segment as u64 * SEGMENT_BYTES); segment += 1; }
                    1 => segment += 1,
                    2 => {
                        let start = segment as u64 * SEGMENT_BYTES;
                        queue.forget_before(start);
                        model.retain(|(_, entry)| entry.physical_offset >= start);
                        min = model.first().map_or(next, |(offset, _)| *offset);
                    }
                    _ => for n in 0..count {
                        // Positions only need an order here.
                        let entry = QueueEntry {
                            physical_offset: segment as u64 * SEGMENT_BYTES + n + model.len() as u64 % 7,
                            size: 1,
                            tag_hash: next as i64,
                        };
                        queue.push(&segments[segment], next, entry);
                        model.push((next, entry));
                        next += 1;
                    }
                }
            }
            let expected: Vec<_> = model.iter().copied().filter(|(offset, _)| *offset >= from).collect();
            prop_assert_eq!(read_all(&queue, from), expected);
            prop_assert_eq!(queue.range(u64::MAX), QueueRange { min, max: next });
            let _ = visible_at;
        }

        #[test]
        fn visibility_is_one_cut(count in 1u64..900, visible in 0u64..1000) {
            let segments = segments(1);
            let queue = Queue::new("t", 0, 5);
            for n in 0..count {
                queue.push(&segments[0], 5 + n, QueueEntry { physical_offset: n, size: 1, tag_hash: 0 });
            }
            let range = queue.range(visible);
            prop_assert_eq!(range, QueueRange { min: 5, max: 5 + visible.min(count) });
        }
    }

    #[test]
    fn an_offset_behind_starts_the_queue_anew_and_one_ahead_leaves_a_gap() {
        let segments = segments(1);
        let queue = Queue::new("t", 0, 0);
        let entry = |n| QueueEntry { physical_offset: n, size: 1, tag_hash: 0 };
        (0..5).for_each(|n| queue.push(&segments[0], n, entry(n)));
        queue.push(&segments[0], 0, entry(10));
        assert_eq!(queue.range(u64::MAX), QueueRange { min: 0, max: 1 });
        queue.push(&segments[0], 4, entry(11));
        assert_eq!(read_all(&queue, 0), [(0, entry(10)), (4, entry(11))]);
        assert_eq!(queue.range(11), QueueRange { min: 0, max: 1 });
        assert_eq!(queue.range(u64::MAX), QueueRange { min: 0, max: 5 });
    }
}
