//! How far the log has come, in four senses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::planted::{self, Planted};

/// Positions in the log, each only ever growing while the store is open.
///
/// `visible <= min(written, confirmed)`, with synchronous flush also `visible <= flushed`, and
/// always `flushed <= written`.
#[derive(Debug)]
pub struct Watermarks {
    written: AtomicU64,
    flushed: AtomicU64,
    confirmed: AtomicU64,
    visible: AtomicU64,
    visible_needs_flush: bool,
    /// Whether only [`Watermarks::confirm`] moves `confirmed`.
    is_replicated: AtomicBool,
}

impl Watermarks {
    pub(crate) fn at(position: u64, visible_needs_flush: bool) -> Self {
        Self {
            written: AtomicU64::new(position),
            flushed: AtomicU64::new(position),
            confirmed: AtomicU64::new(position),
            visible: AtomicU64::new(position),
            visible_needs_flush,
            is_replicated: AtomicBool::new(false),
        }
    }

    /// Where the next record goes. Everything below survives the end of the process.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Everything below survives the loss of power.
    pub fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// Everything below stays, whatever happens to this replica or to its master.
    pub fn safe(&self) -> u64 {
        self.flushed().min(self.confirmed())
    }

    /// Bytes that are written and not flushed. Both marks move meanwhile, so the one that follows is
    /// looked at first.
    pub fn unflushed(&self) -> u64 {
        let flushed = self.flushed();
        self.written().saturating_sub(flushed)
    }

    /// Everything below has as many copies as the profile demands. Follows `written` as long as
    /// nobody replicates.
    pub fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    /// Everything below may be read. Queue entries are in place before this moves past them.
    pub fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// Notes that everything below `position` has as many copies as the profile demands. Until
    /// [`crate::Store::hide_unconfirmed`] was called this follows `written` by itself.
    pub fn confirm(&self, position: u64) {
        self.confirmed.fetch_max(position, Ordering::AcqRel);
        self.advance_visible();
    }

    /// From now on only [`Watermarks::confirm`] makes anything visible, and nothing is yet.
    pub(crate) fn hide_unconfirmed(&self) {
        self.is_replicated.store(true, Ordering::SeqCst);
        self.confirmed.store(0, Ordering::SeqCst);
        self.visible.store(0, Ordering::SeqCst);
    }

    pub(crate) fn advance_written(&self, position: u64) {
        // SeqCst pairs with the flush thread, which announces that it sleeps and then looks again.
        self.written.store(position, Ordering::SeqCst);
        if !self.is_replicated.load(Ordering::Acquire) {
            self.confirmed.fetch_max(position, Ordering::AcqRel);
        }
        self.advance_visible();
    }

    pub(crate) fn advance_flushed(&self, position: u64) {
        self.flushed.fetch_max(position, Ordering::AcqRel);
        self.advance_visible();
    }

    fn advance_visible(&self) {
        let written = self.written();
        let waits = self.visible_needs_flush && !planted::is_on(Planted::VisiblePastFlushed);
        let local = if waits { self.flushed().min(written) } else { written };
        self.visible.fetch_max(local.min(self.confirmed()), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_synchronous_flush_only_flushed_records_are_visible() {
        let marks = Watermarks::at(10, true);
        marks.advance_written(30);
        assert_eq!((marks.written(), marks.visible()), (30, 10));
        marks.advance_flushed(20);
        assert_eq!((marks.flushed(), marks.visible()), (20, 20));
    }

    #[test]
    fn a_replicated_store_shows_what_was_confirmed_and_nothing_before() {
        let marks = Watermarks::at(10, true);
        marks.hide_unconfirmed();
        marks.advance_written(30);
        marks.advance_flushed(20);
        assert_eq!(marks.visible(), 0);
        marks.confirm(25);
        assert_eq!((marks.confirmed(), marks.visible()), (25, 20));
        marks.confirm(15);
        assert_eq!(marks.confirmed(), 25);
    }

    #[test]
    fn with_asynchronous_flush_written_records_are_visible() {
        let marks = Watermarks::at(0, false);
        marks.advance_written(30);
        assert_eq!((marks.flushed(), marks.visible()), (0, 30));
    }
}
