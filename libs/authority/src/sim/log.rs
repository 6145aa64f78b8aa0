//! A log of records of length one, as a disk keeps it, with what a broker knows of it.

use crate::planted::{self, Planted};
use crate::{EpochTable, LogPosition};

/// So many records are one segment: retention takes whole ones.
const SEGMENT: u64 = 16;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Its epoch begins.
    Epoch,
    Message(u64),
    /// How far the consumers have come.
    Offset(u64),
    /// All that the log before it says of the state, in one piece.
    Image(Option<u64>),
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) epoch: u64,
    pub(super) what: What,
}

#[derive(Default)]
pub(super) struct Log {
    /// Whose log it is a copy of.
    id: u32,
    /// Where it begins: what was before has expired.
    start: u64,
    entries: Vec<Entry>,
    /// The end of what a power cut leaves.
    flushed: u64,
    epochs: EpochTable,
    /// Where the newest image is.
    image: Option<u64>,
    /// How far the consumers have come by what it says.
    committed: Option<u64>,
    /// Whether it has no beginning and no image, so that nobody knows what state it presupposes.
    is_incomplete: bool,
}

impl Log {
    /// A log that nobody has copied.
    pub(super) fn new(id: u32) -> Self {
        Self { id, ..Self::default() }
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    pub(super) fn flushed(&self) -> u64 {
        self.flushed
    }

    pub(super) fn epochs(&self) -> &EpochTable {
        &self.epochs
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.is_incomplete
    }

    pub(super) fn committed(&self) -> Option<u64> {
        self.committed
    }

    /// The newest image; 0 before the first.
    pub(super) fn image(&self) -> u64 {
        self.image.unwrap_or(0)
    }

    pub(super) fn get(&self, at: u64) -> Option<Entry> {
        self.entries.get(at.checked_sub(self.start)? as usize).copied()
    }

    pub(super) fn last(&self) -> Option<Entry> {
        self.entries.last().copied()
    }

    /// The newest message.
    pub(super) fn last_message(&self) -> u64 {
        let messages = self.entries.iter().rev().find_map(|entry| match entry.what {
            What::Message(message) => Some(message),
            What::Epoch | What::Offset(_) | What::Image(_) => None,
        });
        messages.unwrap_or(0)
    }

    /// So many records at most from a place on that has not expired.
    pub(super) fn from(&self, at: u64, most: usize) -> Vec<Entry> {
        self.entries.iter().skip((at - self.start) as usize).take(most).copied().collect()
    }

    pub(super) fn position(&self) -> LogPosition {
        let epoch = self.last().map_or(0, |last| last.epoch);
        let lacks_state = self.is_incomplete;
        LogPosition { epoch, end: self.end(), flushed: self.flushed, lacks_state }
    }

    /// `false` where an epoch begins that is not above all that are there.
    #[must_use]
    pub(super) fn push(&mut self, entry: Entry) -> bool {
        let at = self.end();
        self.entries.push(entry);
        match entry.what {
            What::Epoch => return self.epochs.begin(entry.epoch, at),
            What::Offset(offset) => self.committed = Some(offset),
            What::Image(committed) => {
                (self.image, self.is_incomplete) = (Some(at), false);
                self.committed = committed;
            }
            What::Message(_) => {}
        }
        true
    }

    pub(super) fn flush(&mut self, end: u64) {
        self.flushed = self.flushed.max(end.min(self.end()));
    }

    /// Cuts it, durably.
    pub(super) fn truncate(&mut self, end: u64) {
        self.entries.truncate(end.saturating_sub(self.start) as usize);
        self.flushed = self.flushed.min(end);
        self.epochs.truncate(end);
        self.replay();
    }

    /// Has it begin here, empty, as a copy of this one.
    pub(super) fn begin_at(&mut self, start: u64, id: u32) {
        *self = Self { id, start, flushed: start, ..Self::default() };
        self.replay();
    }

    /// A process that starts reads what the log says.
    pub(super) fn replay(&mut self) {
        let image = self.entries.iter().rposition(is_image);
        self.image = image.map(|place| self.start + place as u64);
        let said = self.entries.iter().skip(image.unwrap_or(0)).rev();
        let committed = said.map(|entry| entry.what).find_map(|what| match what {
            What::Offset(offset) => Some(Some(offset)),
            What::Image(committed) => Some(committed),
            What::Epoch | What::Message(_) => None,
        });
        self.committed = committed.flatten();
        self.is_incomplete = self.start > 0 && image.is_none();
    }

    /// The log is its master's as far as it goes, so these are its epochs.
    pub(super) fn adopt(&mut self, mut epochs: EpochTable) {
        epochs.truncate(self.end());
        self.epochs = epochs;
    }

    /// Retention takes nothing from here on, where so much can be cut by nobody any more: not the newest
    /// image of that.
    pub(super) fn kept_from(&self, safe: u64) -> u64 {
        let safe = safe.min(self.flushed);
        if planted::is_on(Planted::ExpireTheImage) {
            return safe;
        }
        let settled = safe.saturating_sub(self.start) as usize;
        let mut images = self.entries.iter().take(settled);
        let image = images.rposition(is_image);
        self.start + image.unwrap_or(0) as u64
    }

    /// Retention takes whole segments before `end`; says whether there were any.
    pub(super) fn expire(&mut self, end: u64) -> bool {
        let start = end / SEGMENT * SEGMENT;
        let is_later = start > self.start && start < self.end();
        if is_later {
            self.entries.drain(..(start - self.start) as usize);
            self.start = start;
        }
        is_later
    }

    /// Somebody takes away all segments up to the one with the newest image; `false` where that is the last
    /// one.
    pub(super) fn take_image_away(&mut self) -> bool {
        self.expire(self.image.map_or(0, |image| image + SEGMENT))
    }
}

fn is_image(entry: &Entry) -> bool {
    matches!(entry.what, What::Image(_))
}
