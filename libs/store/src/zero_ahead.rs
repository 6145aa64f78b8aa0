//! Zeros in front of the append position.
//!
//! `fdatasync` of blocks that were never written also journals their allocation and costs half as
//! much again, so with synchronous flush the background thread writes zeros ahead. It claims a
//! range under the append lock and writes without it. An append that gets as far as a claimed range
//! waits for the few microseconds that are left, and keeps the append lock: the batch that it has
//! encoded is in the only buffer there is, and another append would encode its own over it.

use std::ops::Range;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;
use crate::store::Inner;

/// How far ahead of the append position zeros are written.
const AHEAD_BYTES: u64 = 64 << 20;
/// Zeros are written again once fewer than this are ahead.
const SHORT_BYTES: u64 = 32 << 20;
/// Claims begin at least this far ahead, so that an append seldom meets one.
const DISTANCE_BYTES: u64 = 1 << 20;
const CLAIM_BYTES: u64 = 1 << 20;

/// How far zeros go, and where some are being written. Its lock is taken after the append lock, or
/// without it.
#[derive(Default)]
pub(crate) struct ZeroAhead {
    state: Mutex<State>,
    zeroed: Condvar,
}

#[derive(Default)]
struct State {
    /// Zeros, or records, reach up to here.
    to: u64,
    claimed: Option<Range<u64>>,
    /// Set once the end of the segment is reached, or the disk refused.
    done_up_to: u64,
}

impl ZeroAhead {
    pub(crate) fn is_short(&self, position: u64) -> bool {
        let state = self.state.lock();
        position >= state.done_up_to && state.to < position + SHORT_BYTES
    }

    /// Returns once nobody writes zeros between `from` and `to`. With the append lock nobody claims
    /// them afterwards.
    pub(crate) fn wait_for(&self, from: u64, to: u64) {
        let mut state = self.state.lock();
        self.zeroed.wait_while(&mut state, |state| {
            state.claimed.as_ref().is_some_and(|claimed| claimed.start < to && from < claimed.end)
        });
    }
}

impl Inner {
    /// Writes zeros up to the distance, or to the end of the segment.
    pub(crate) fn write_zeros_ahead(&self) -> Result<(), StoreError> {
        loop {
            let appender = self.appender.lock();
            let position = appender.position();
            let Some(segment) = self.log.segment_at(position) else { return Ok(()) };
            let mut state = self.zero_ahead.state.lock();
            if segment.is_recycled() {
                // All its blocks were written in its life before.
                state.done_up_to = segment.end();
                return Ok(());
            }
            let from = state.to.max((position + DISTANCE_BYTES).next_multiple_of(4096));
            let target = (position + AHEAD_BYTES).min(segment.end());
            if from >= target || self.is_closed.load(Ordering::Acquire) {
                if target == segment.end() {
                    state.done_up_to = segment.end();
                }
                return Ok(());
            }
            let to = (from + CLAIM_BYTES).min(target);
            state.claimed = Some(from..to);
            drop((state, appender));
            let written = segment.write_zeros(from, to);
            let mut state = self.zero_ahead.state.lock();
            state.claimed = None;
            state.to = to;
            if written.is_err() {
                // The append that needs the space will say so; until then there is no hurry.
                state.done_up_to = segment.end();
            }
            drop(state);
            self.zero_ahead.zeroed.notify_all();
            written?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::{FlushMode, StoreConfig};
    use crate::disk::SimulatedDisk;
    use crate::message::{Appended, NewMessage};

    #[test]
    fn who_waits_for_zeros_lets_no_other_append_pass() {
        let config = StoreConfig {
            directory: "/s".into(),
            flush: FlushMode::Sync,
            threads: false,
            ..StoreConfig::default()
        };
        let clock = Arc::new(ManualClock::at_ms(1000));
        let inner = Inner::open(config, Arc::new(SimulatedDisk::new()), clock).unwrap();
        let append = |topic| {
            let mut appended = Vec::new();
            inner.append(&[NewMessage::plain(topic, 0, b"body")], &mut appended).unwrap();
            appended[0]
        };
        let first = append("a");
        inner.zero_ahead.state.lock().claimed = Some(0..4096);
        let (a, b) = std::thread::scope(|scope| {
            let a = scope.spawn(|| append("a"));
            let deadline = Instant::now() + Duration::from_secs(30);
            while inner.appender.try_lock().is_some() {
                assert!(Instant::now() < deadline, "the append does not keep its lock");
                std::thread::yield_now();
            }
            let b = scope.spawn(|| append("b"));
            std::thread::yield_now();
            assert!(inner.appender.is_locked());
            inner.zero_ahead.state.lock().claimed = None;
            inner.zero_ahead.zeroed.notify_all();
            (a.join().unwrap(), b.join().unwrap())
        });
        let place = |appended: Appended| (appended.physical_offset, appended.end_offset);
        assert_eq!((place(a).0, place(b).0), (place(first).1, place(a).1));
        for (topic, last) in [("a", a), ("b", b)] {
            let mut entries = Vec::new();
            let queue = inner.queues.find(topic, 0).unwrap();
            queue.entries(last.queue_offset, 1, &mut entries).unwrap();
            assert_eq!(entries[0].1.physical_offset, last.physical_offset);
        }
    }
}
