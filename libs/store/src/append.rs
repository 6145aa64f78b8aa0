//! The append path: offsets, encoding, one write, and the derived entries, under one lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::background;
use crate::batch::{Batch, PAGE_BYTES, Piece, TRAILER};
use crate::block_tail::BlockTail;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::message::{Appended, NewMessage};
use crate::segment::Segment;
use crate::store::Inner;

/// The longest topic, in bytes: Apache's limit for retry topics.
const TOPIC_BYTES_MAX: usize = 255;
/// The longest properties, in bytes.
const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;
/// Recovery takes a sector of zeros for one that was lost, so no properties may have one.
const ZERO_RUN_BYTES_MAX: usize = 511;
/// How many bytes of log lie between two looks at the free disk space.
const SPACE_CHECK_BYTES: u64 = 64 << 20;

/// This part of what may be unflushed is left to appends that do not ask for room first.
const ROOM_KEPT: u64 = 8;

/// Who writes: everything that the append lock guards.
pub(crate) struct Appender {
    /// Where the next record goes; the same as the `written` watermark.
    position: u64,
    pub(crate) batch: Batch,
    /// Checksums of the log's blocks, of everything before `position`.
    pub(crate) tail: BlockTail,
    next_space_check: u64,
    gate: Gate,
}

/// Whether new messages may be appended. Copies of another log may always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// Until [`Clock::uptime`] says this.
    OpenUntil(Duration),
    Closed,
}

/// What is appended, which decides what may keep it from being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Appending {
    Messages,
    /// What has to be in the log before anything of it can be freed: on a full disk too.
    FromReserve,
    /// What a master's time begins with: while the gate is closed as well.
    Epoch,
}

impl Appender {
    pub(crate) fn at(position: u64, tail: BlockTail) -> Self {
        Self {
            position,
            batch: Batch::default(),
            tail,
            next_space_check: position + SPACE_CHECK_BYTES,
            gate: Gate::Open,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Takes back what the encoded batch took.
    pub(crate) fn forget_batch(&mut self) {
        self.batch.queues.iter().for_each(|queue| queue.unassign());
        self.batch.clear();
    }

    /// Whether who heeds the gate may append now.
    fn is_open(&self, clock: &dyn Clock) -> bool {
        match self.gate {
            Gate::Open => true,
            Gate::OpenUntil(end) => clock.uptime() < end,
            Gate::Closed => false,
        }
    }

    /// With the append lock, so that after closing it nothing is under way.
    pub(crate) fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
    }
}

impl Inner {
    /// See [`crate::Store::is_open_for_appends`].
    pub(crate) fn is_open_for_appends(&self) -> bool {
        self.appender.lock().is_open(&*self.clock)
    }

    /// See [`crate::Store::append`].
    pub(crate) fn append(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.when_not_busy(|| self.append_now(messages, appended))
    }

    /// Tries again while the disk is behind, until it has been for too long.
    pub(crate) fn when_not_busy<T>(
        &self,
        mut append: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let waited = self.config.busy_timeout;
        let deadline = Instant::now() + waited;
        loop {
            let flushed = self.marks.flushed();
            match append() {
                Err(StoreError::Busy { .. }) => {}
                done => return done,
            }
            // Without the append lock, so that nobody else waits for it who must not.
            if !self.config.threads {
                self.flush()?;
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.flusher.wait_flushed(&self.marks, flushed + 1, left)? {
                return Err(StoreError::Busy { waited });
            }
        }
    }

    /// See [`crate::Store::append_now`].
    pub(crate) fn append_now(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.append_as(Appending::Messages, messages, appended)
    }

    /// See [`crate::Store::append_while_closed`].
    pub(crate) fn append_while_closed(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.when_not_busy(|| self.append_as(Appending::Epoch, messages, appended))
    }

    /// See [`crate::Store::append_from_reserve`].
    pub(crate) fn append_from_reserve(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.when_not_busy(|| self.append_as(Appending::FromReserve, messages, appended))
    }

    fn append_as(
        &self,
        what: Appending,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        appended.clear();
        self.check_open()?;
        if what == Appending::Messages {
            self.check_writable()?;
        }
        messages.iter().try_for_each(|message| self.check_sizes(message))?;
        if messages.is_empty() {
            return Ok(());
        }
        let mut appender = self.appender.lock();
        // Closing takes this lock after it said so; nobody may write behind its back.
        self.check_open()?;
        if what != Appending::Epoch && !appender.is_open(&*self.clock) {
            return Err(StoreError::NotMaster);
        }
        let now_ms = self.clock.now_ms();
        let position = appender.position;
        if let Err(error) = appender.batch.encode(messages, position, now_ms, self, appended) {
            appender.forget_batch();
            appended.clear();
            return Err(error);
        }
        let done = self.write_and_publish(appender);
        if done.is_err() {
            appended.clear();
        }
        done
    }

    /// Writes the encoded batch and makes it readable. After an error nothing of it is there.
    pub(crate) fn write_and_publish(
        &self,
        mut appender: MutexGuard<'_, Appender>,
    ) -> Result<(), StoreError> {
        if let Err(error) = self.write(&mut appender) {
            appender.forget_batch();
            drop(appender);
            // A broker that refuses every send for ever only looks alive.
            if error.is_disk_failure() || self.flusher.poisoned().is_some() {
                self.stop_for_ever(&error.to_string());
            }
            return Err(error);
        }
        self.publish(&mut appender);
        drop(appender);
        if let Some(cause) = self.flusher.poisoned() {
            self.stop_for_ever(cause);
        }
        if let Some(listener) = self.append_listener.read().as_ref() {
            listener();
        }
        Ok(())
    }

    /// Appends, and does `between` when the batch is written and not yet published. Other threads may
    /// do then what needs no append lock.
    #[cfg(test)]
    pub(crate) fn append_around(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
        between: impl FnOnce(),
    ) -> Result<(), StoreError> {
        self.check_open()?;
        let mut appender = self.appender.lock();
        let position = appender.position;
        appender.batch.encode(messages, position, self.clock.now_ms(), self, appended)?;
        if let Err(error) = self.write(&mut appender) {
            appender.forget_batch();
            return Err(error);
        }
        between();
        self.publish(&mut appender);
        Ok(())
    }

    fn check_sizes(&self, message: &NewMessage<'_>) -> Result<(), StoreError> {
        let sizes = [
            ("topic", message.topic.len(), TOPIC_BYTES_MAX),
            ("properties", message.properties.len(), PROPERTIES_BYTES_MAX),
            (
                "message",
                message.body.len() + message.properties.len(),
                self.config.message_bytes_max,
            ),
            ("record", message.to_record(0, 0, 0).encoded_len(), self.config.record_bytes_max()),
        ];
        let (at_end, longest) = zero_bytes(message.properties);
        let mut sizes = sizes.into_iter().chain([
            ("zeros at the end of properties", at_end, 0),
            ("a run of zeros in properties", longest, ZERO_RUN_BYTES_MAX),
        ]);
        match sizes.find(|(_, bytes, limit)| bytes > limit) {
            Some((what, bytes, limit)) => Err(StoreError::TooLarge { what, bytes, limit }),
            None => Ok(()),
        }
    }

    /// Writes the batch's pieces. After an error nothing of it can be found in the log.
    fn write(&self, appender: &mut Appender) -> Result<(), StoreError> {
        self.check_room(appender.position, appender.batch.end)?;
        let end = appender.batch.end + TRAILER.len() as u64;
        self.zero_ahead.wait_for(appender.position, end);
        let batch = &mut appender.batch;
        // Files are made before anything is written, so that most errors leave no trace at all.
        let mut segments = Vec::with_capacity(batch.pieces.len());
        for piece in &batch.pieces {
            let segment = self.segment_for(piece.position).map_err(|error| self.explain(error))?;
            if !piece.keys.is_empty() {
                segment.keys.make_room().map_err(|error| self.explain(error))?;
            }
            segments.push(segment);
        }
        for (piece, segment) in batch.pieces.iter().zip(&segments) {
            // A copy of what Apache's broker wrote may reach into the place of proofs. Ours do not.
            let end = piece.position + piece.bytes.len() as u64;
            if segment.is_recycled() && end > segment.records_end() {
                self.end_life_before(segment, piece.position)?;
            }
        }
        if let Some(segment) = segments.last().filter(|segment| segment.is_recycled()) {
            batch.fill_page(segment.records_end());
        }
        for (index, (piece, segment)) in batch.pieces.iter().zip(&segments).enumerate() {
            if let Err(error) = segment.write(&batch.bytes[piece.bytes.clone()], piece.position) {
                self.undo(&batch.pieces[..=index], &segments);
                self.log.remove_prepared_but_first();
                return Err(self.explain(error));
            }
        }
        if segments.iter().any(|segment| segment.is_recycled()) {
            self.prove(batch, &segments)?;
        }
        Ok(())
    }

    /// Gives the proofs of a recycled segment up, for records that need their place. Whoever syncs a file
    /// is told of a failed write-back, and nobody else, so no flush comes between the failure and the
    /// stop, whatever failed.
    fn end_life_before(&self, segment: &Segment, position: u64) -> Result<(), StoreError> {
        let _flushing = self.flusher.flushing.lock();
        self.flusher.check_poison()?;
        let ended = segment.end_life_before(position);
        ended.inspect_err(|error| self.flusher.poison(&error.to_string()))
    }

    /// Proves what was just written to recycled segments.
    fn prove(&self, batch: &Batch, segments: &[Arc<Segment>]) -> Result<(), StoreError> {
        let mut open = self.proof.lock();
        let before = open.clone();
        for (piece, segment) in batch.pieces.iter().zip(segments) {
            let bytes = &batch.bytes[piece.bytes.clone()];
            let bytes = &bytes[..bytes.len().min((batch.end - piece.position) as usize)];
            if !segment.is_recycled() || bytes.is_empty() {
                continue;
            }
            open.extend(piece.position, bytes);
            if let Err(error) = open.write(segment, self.marks.flushed()) {
                *open = before;
                self.undo(&batch.pieces, segments);
                // What this proof takes in beside what is gone has no other one.
                self.flusher.poison(&format!("a proof could not be written: {error}"));
                return Err(error);
            }
        }
        Ok(())
    }

    /// The segment that holds `position`, made if it would be the next one.
    fn segment_for(&self, position: u64) -> Result<Arc<Segment>, StoreError> {
        match self.log.segment_at(position) {
            Some(segment) => Ok(segment),
            None => self.log.prepare(position - position % self.config.segment_bytes),
        }
    }

    /// Overwrites what a failed write may have left of these pieces with zeros. The next append
    /// begins where they do; a rest of them behind it would be records with the right offsets,
    /// and if a crash took the zeros that end the log in front of it, they would be found.
    fn undo(&self, pieces: &[Piece], segments: &[Arc<Segment>]) {
        for (piece, segment) in pieces.iter().zip(segments) {
            let end = piece.position + piece.bytes.len() as u64;
            let mut at = piece.position;
            while at < end {
                // By pages: a full disk refuses those that it refused before.
                let to = (at + 1).next_multiple_of(PAGE_BYTES as u64).min(end);
                if let Err(error) = clear(segment, at, (to - at) as usize) {
                    self.flusher.poison(&format!("a failed append could not be undone: {error}"));
                    return;
                }
                at = to;
            }
        }
    }

    /// Whether the batch may run ahead of the disk by what the configuration allows.
    fn check_room(&self, position: u64, end: u64) -> Result<(), StoreError> {
        let limit = self.config.unflushed_bytes();
        if end - position > limit {
            let (bytes, limit) = ((end - position) as usize, limit as usize);
            return Err(StoreError::TooLarge { what: "batch", bytes, limit });
        }
        match end - self.marks.flushed() <= limit {
            true => Ok(()),
            false => Err(StoreError::Busy { waited: Duration::ZERO }),
        }
    }

    /// See [`crate::Store::has_room`].
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let limit = self.config.unflushed_bytes();
        let unflushed = self.marks.unflushed();
        unflushed == 0 || unflushed.saturating_add(bytes) <= limit - limit / ROOM_KEPT
    }

    /// Makes a written batch readable: entries and keys first, then the watermarks.
    fn publish(&self, appender: &mut Appender) {
        let batch = &mut appender.batch;
        let mut work = 0;
        for piece in &batch.pieces {
            let segment = match self.log.segment_at(piece.position) {
                Some(segment) => segment,
                None => {
                    // Whoever sees this segment may take the one before for complete, so the
                    // entries of the piece before are in place by now.
                    let Ok(segment) = self.segment_for(piece.position) else { break };
                    self.log.adopt(&segment);
                    work |= background::SEAL;
                    segment
                }
            };
            for staged in &batch.entries[piece.entries.clone()] {
                batch.queues[staged.queue].push(&segment, staged.offset, staged.entry);
            }
            if let Some(error) = segment.queues.take_failure() {
                // Not from here: whoever is told may want the append lock.
                self.flusher.poison(&error.to_string());
            }
            let keys = &batch.keys[piece.keys.clone()];
            if !keys.is_empty() && segment.keys.add(keys) {
                work |= background::RUNS;
            }
        }
        for piece in &batch.pieces {
            let bytes = &batch.bytes[piece.bytes.clone()];
            let to = (batch.end - piece.position).min(bytes.len() as u64);
            appender.tail.take(piece.position, &bytes[..to as usize]);
        }
        let from = appender.position;
        appender.position = batch.end;
        batch.clear();
        self.marks.advance_written(appender.position);
        self.flusher.written(&self.marks);
        self.request_background_work(appender, from, work);
    }

    fn request_background_work(&self, appender: &mut Appender, from: u64, mut work: u32) {
        let half = self.config.segment_bytes / 2;
        if (from + half) / self.config.segment_bytes
            != (appender.position + half) / self.config.segment_bytes
        {
            work |= background::PREPARE;
        }
        if appender.position >= appender.next_space_check {
            appender.next_space_check = appender.position + SPACE_CHECK_BYTES;
            work |= background::SPACE;
        }
        if self.config.is_sync() && self.zero_ahead.is_short(appender.position) {
            work |= background::ZEROS;
        }
        if work != 0 {
            self.background.request(work);
        }
    }
}

/// Overwrites a part of a page with zeros, unless that fails and it holds nothing else anyway.
fn clear(segment: &Segment, position: u64, length: usize) -> Result<(), StoreError> {
    let Err(error) = segment.write(&[0; PAGE_BYTES][..length], position) else { return Ok(()) };
    let mut found = [0; PAGE_BYTES];
    let is_read = segment.read_exact(&mut found[..length], position).is_ok();
    if is_read && found.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(error) }
}

/// Zeros at the end of `properties`, and the longest run of them.
fn zero_bytes(properties: &[u8]) -> (usize, usize) {
    let at_end = properties.iter().rev().take_while(|byte| **byte == 0).count();
    if properties.len() <= ZERO_RUN_BYTES_MAX {
        return (at_end, at_end);
    }
    let runs = properties.split(|byte| *byte != 0).map(<[u8]>::len);
    (at_end, runs.max().unwrap_or(0))
}
