//! Which records are so new that their pages were in memory a moment ago.

use parking_lot::Mutex;

/// What was written less than one or two of these ago is taken to be in memory.
const STEP_MS: i64 = 5_000;
/// The same for what was written last: nobody keeps more of a log in memory for certain.
const BYTES: u64 = 64 << 20;

/// Where the log stood a moment ago. Pages of records that were written since are dirty or were so just now;
/// older ones may have left memory and come back, however little was written meanwhile.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Option<Moment>>);

/// Whoever reads first after a step makes the next one.
struct Moment {
    at_ms: i64,
    /// Where the log stood one step before, and at it.
    from: u64,
    next: u64,
}

impl Recent {
    /// The position from which on records are recent, with the log written up to `written`; `now_ms` is of a clock
    /// that never jumps.
    pub(crate) fn from(&self, now_ms: i64, written: u64) -> u64 {
        let mut last = self.0.lock();
        let from = match &*last {
            // Also for one who looked at the clock before another made this step.
            Some(last) if now_ms - last.at_ms < STEP_MS => last.from,
            known => {
                let known = known.as_ref().filter(|last| now_ms - last.at_ms < 2 * STEP_MS);
                // Where nobody asked for a while, nobody knows.
                let from = known.map_or(written, |last| last.next);
                *last = Some(Moment { at_ms: now_ms, from, next: written });
                from
            }
        };
        from.max(written.saturating_sub(BYTES))
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
