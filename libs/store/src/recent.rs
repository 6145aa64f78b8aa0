//! Which records are so new that their pages were in memory a moment ago.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What was written less than one or two of these ago is taken to be in memory.
const STEP_MS: i64 = 5_000;
/// The same for what was written last: nobody keeps more of a log in memory for certain.
const BYTES: u64 = 64 << 20;

/// Where the log stood a moment ago. Pages of records that were written since are dirty or were so just now;
/// older ones may have left memory and come back, however little was written meanwhile.
///
/// Whoever reads first in a while moves it on. Two at once make less count as recent, never more.
pub(crate) struct Recent {
    at_ms: AtomicI64,
    /// Where the log stood one step before `at_ms`, and at it.
    from: AtomicU64,
    next: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        let at_ms = AtomicI64::new(-2 * STEP_MS);
        Self { at_ms, from: AtomicU64::new(0), next: AtomicU64::new(0) }
    }
}

impl Recent {
    /// The position from which on records are recent, with the log written up to `written`; `now_ms` is of a clock
    /// that never jumps.
    pub(crate) fn from(&self, now_ms: i64, written: u64) -> u64 {
        let age = now_ms - self.at_ms.load(Ordering::Acquire);
        if !(0..STEP_MS).contains(&age) {
            let from = match (STEP_MS..2 * STEP_MS).contains(&age) {
                true => self.next.load(Ordering::Acquire),
                // Nobody asked for a while, so nobody knows.
                false => written,
            };
            self.from.store(from, Ordering::Release);
            self.next.store(written, Ordering::Release);
            self.at_ms.store(now_ms, Ordering::Release);
        }
        self.from.load(Ordering::Acquire).max(written.saturating_sub(BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_is_what_was_written_within_seconds_and_within_the_last_bytes() {
        let recent = Recent::default();
        let start = 3;
        assert_eq!(recent.from(start, 100), 100, "nobody has asked before");
        assert_eq!(recent.from(start + STEP_MS - 1, 200), 100);
        assert_eq!(recent.from(start + STEP_MS, 300), 100);
        assert_eq!(recent.from(start + 2 * STEP_MS, 400), 300);
        assert_eq!(recent.from(start + 2 * STEP_MS, 300 + 2 * BYTES), 300 + BYTES);
        assert_eq!(recent.from(start + 9 * STEP_MS, 900), 900, "nobody has asked for a while");
    }
}
