//! Zeros in front of the append position.
//!
//! `fdatasync` of blocks that were never written also journals their allocation and costs half as
//! much again, so with synchronous flush the background thread writes zeros ahead. It claims a
//! range under the append lock, writes without it, and an append that gets as far as a claimed
//! range waits for the few microseconds that are left.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::error::StoreError;
use crate::store::Inner;

/// How far ahead of the append position zeros are written.
const AHEAD_BYTES: u64 = 64 << 20;
/// Zeros are written again once fewer than this are ahead.
const SHORT_BYTES: u64 = 32 << 20;
/// Claims begin at least this far ahead, so that an append seldom meets one.
const DISTANCE_BYTES: u64 = 1 << 20;
const CLAIM_BYTES: u64 = 1 << 20;

/// Guarded by the append lock.
#[derive(Default)]
pub(crate) struct ZeroAhead {
    /// Zeros, or records, reach up to here.
    to: u64,
    claimed: Option<Range<u64>>,
    /// Set once the end of the segment is reached, or the disk refused.
    done_up_to: u64,
}

impl ZeroAhead {
    pub(crate) fn is_short(&self, position: u64) -> bool {
        position >= self.done_up_to && self.to < position + SHORT_BYTES
    }

    pub(crate) fn is_writing_into(&self, from: u64, to: u64) -> bool {
        self.claimed.as_ref().is_some_and(|claimed| claimed.start < to && from < claimed.end)
    }
}

impl Inner {
    /// Writes zeros up to the distance, or to the end of the segment.
    pub(crate) fn write_zeros_ahead(&self) -> Result<(), StoreError> {
        loop {
            let mut appender = self.appender.lock();
            let position = appender.position();
            let Some(segment) = self.log.segment_at(position) else { return Ok(()) };
            if segment.is_recycled() {
                // All its blocks were written in its life before.
                appender.zero_ahead.done_up_to = segment.end();
                return Ok(());
            }
            let from =
                appender.zero_ahead.to.max((position + DISTANCE_BYTES).next_multiple_of(4096));
            let target = (position + AHEAD_BYTES).min(segment.end());
            if from >= target || self.is_closed.load(Ordering::Acquire) {
                if target == segment.end() {
                    appender.zero_ahead.done_up_to = segment.end();
                }
                return Ok(());
            }
            let to = (from + CLAIM_BYTES).min(target);
            appender.zero_ahead.claimed = Some(from..to);
            drop(appender);
            let written = segment.write_zeros(from, to);
            let mut appender = self.appender.lock();
            appender.zero_ahead.claimed = None;
            appender.zero_ahead.to = to;
            if written.is_err() {
                // The append that needs the space will say so; until then there is no hurry.
                appender.zero_ahead.done_up_to = segment.end();
            }
            drop(appender);
            self.zeroed.notify_all();
            written?;
        }
    }
}
