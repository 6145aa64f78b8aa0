//! The time that retention goes by: the clock's, without what nobody has seen go by.
//!
//! A clock that is set forward makes every message look old, and a machine may be started with one
//! that is a year ahead. So what the clock is ahead of the one that never jumps does not count, nor of
//! what it said when the store was closed, however long that was: messages stay as old as they were.
//! It does count once the store has been open for as long as messages are kept: all that was there is
//! as old by then, whatever the clock says. A clock that is set back takes back what it was ahead, and one
//! that stays behind all that has been seen was ahead before: when it is so again, that is a jump.

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::Layout;
use crate::small_file;

/// A jump is more than this part of the retention time …
const STEP_PART: i64 = 24;
/// … and between these, in milliseconds.
const STEP_MS: std::ops::RangeInclusive<i64> = 60_000..=2 * 3_600_000;
/// A clock that says less for so long than somebody has seen go by is right. Until then it may be one that
/// begins anew with the machine and is about to be told the time. In milliseconds.
const BEHIND_MS: i64 = 600_000;
/// So many are told apart; of more the two oldest become one, which counts as late as the later one.
const JUMPS_MAX: usize = 64;

/// Time that does not count yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Jump {
    by_ms: i64,
    /// How long the store has to be open until it counts.
    left_ms: i64,
}

/// `weir/clock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    /// The time without the jumps, in milliseconds since 1970.
    known_ms: i64,
    /// Oldest first.
    jumps: Vec<Jump>,
}

/// Follows the clock, and what does not count of it.
pub(crate) struct RetentionClock {
    retention_ms: i64,
    /// When somebody looked last, by the clock that never jumps.
    looked_ms: i64,
    /// Since when, by the same, the clock has said less than what is known, without the jumps.
    behind_since: Option<i64>,
    /// What was the time then.
    known: Known,
    written: Option<Known>,
}

impl RetentionClock {
    /// Goes on where the last user of the directory stopped; where nobody says that, at `newest_ms`,
    /// when a record near the log's end was stored.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the file is there and the disk does not give it.
    pub(crate) fn open(
        disk: &dyn Disk,
        layout: &Layout,
        clock: &dyn Clock,
        retention_ms: i64,
        newest_ms: Option<i64>,
    ) -> Result<Self, StoreError> {
        let written = Known::read(disk, layout)?;
        let first =
            || Known { known_ms: newest_ms.unwrap_or_else(|| clock.now_ms()), jumps: Vec::new() };
        let known = written.clone().unwrap_or_else(first);
        let looked_ms = uptime_ms(clock);
        let mut clock = Self { retention_ms, looked_ms, behind_since: None, known, written };
        // It may have been another one.
        clock.set_retention(retention_ms);
        Ok(clock)
    }

    /// How long messages are kept from now on. What does not count yet counts after as long at most.
    pub(crate) fn set_retention(&mut self, retention_ms: i64) {
        self.retention_ms = retention_ms;
        let jumps = self.known.jumps.iter_mut();
        jumps.for_each(|jump| jump.left_ms = jump.left_ms.min(retention_ms));
    }

    /// The time that retention goes by, in milliseconds since 1970; never ahead of the clock.
    pub(crate) fn now_ms(&mut self, clock: &dyn Clock) -> i64 {
        let (now_ms, uptime_ms) = (clock.now_ms(), uptime_ms(clock));
        self.pass(uptime_ms.saturating_sub(self.looked_ms));
        self.looked_ms = uptime_ms;
        let ahead_ms = now_ms.saturating_sub(self.known.known_ms);
        let more_ms = ahead_ms.saturating_sub(self.known.unseen_ms());
        if more_ms > self.step_ms() && self.retention_ms > 0 {
            tracing::warn!(
                by_s = more_ms / 1000,
                counts_in_s = self.retention_ms / 1000,
                "the clock was set forward, or nobody had the store open; messages count as older for it \
                 only once the store has been open for as long as they are kept"
            );
            self.known.jumps.push(Jump { by_ms: more_ms, left_ms: self.retention_ms });
            self.known.merge();
        } else if more_ms < 0 {
            self.known.take_back(more_ms.saturating_neg());
        }
        self.believe_if_behind(now_ms, uptime_ms);
        now_ms.saturating_sub(self.known.unseen_ms())
    }

    /// Lets time go by, with which old jumps begin to count.
    fn pass(&mut self, passed_ms: i64) {
        let known = &mut self.known;
        known.known_ms = known.known_ms.saturating_add(passed_ms);
        known.jumps.iter_mut().for_each(|jump| jump.left_ms -= passed_ms);
        let counting = known.jumps.extract_if(.., |jump| jump.left_ms <= 0);
        let by_ms = counting.fold(0i64, |sum, jump| sum.saturating_add(jump.by_ms));
        known.known_ms = known.known_ms.saturating_add(by_ms);
    }

    /// Otherwise what the clock was ahead once would be no jump when it is ahead by that again, though
    /// messages were stored in between. There are no jumps left where it is behind.
    fn believe_if_behind(&mut self, now_ms: i64, uptime_ms: i64) {
        if self.known.known_ms.saturating_sub(now_ms) <= self.step_ms() {
            self.behind_since = None;
            return;
        }
        let since_ms = *self.behind_since.get_or_insert(uptime_ms);
        if uptime_ms.saturating_sub(since_ms) >= BEHIND_MS {
            self.known.known_ms = now_ms;
            self.behind_since = None;
        }
    }

    /// Writes down what the next user of the directory has to know, if that is news.
    pub(crate) fn keep(
        &mut self,
        disk: &dyn Disk,
        layout: &Layout,
        is_last: bool,
    ) -> Result<(), StoreError> {
        let is_news = self.written.as_ref().is_none_or(|written| {
            let since_ms = self.known.known_ms.abs_diff(written.known_ms);
            let by = |known: &Known| known.jumps.iter().map(|jump| jump.by_ms).collect::<Vec<_>>();
            since_ms > self.step_ms().unsigned_abs() / 2
                || is_last && *written != self.known
                || by(written) != by(&self.known)
        });
        if is_news {
            small_file::write_json(disk, &layout.clock(), &self.known)?;
            self.written = Some(self.known.clone());
        }
        Ok(())
    }

    fn step_ms(&self) -> i64 {
        (self.retention_ms / STEP_PART).clamp(*STEP_MS.start(), *STEP_MS.end())
    }
}

impl Known {
    /// `None` when nobody wrote it yet, or when all versions are damaged: then the log has to do.
    fn read(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, StoreError> {
        let path = layout.clock();
        let text = match small_file::read(disk, &path) {
            Err(StoreError::Unreadable { .. }) => None,
            read => read?,
        };
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    fn unseen_ms(&self) -> i64 {
        self.jumps.iter().fold(0, |sum, jump| sum.saturating_add(jump.by_ms))
    }

    fn merge(&mut self) {
        if self.jumps.len() > JUMPS_MAX {
            let oldest = self.jumps.remove(0);
            let next = &mut self.jumps[0];
            next.by_ms = next.by_ms.saturating_add(oldest.by_ms);
            next.left_ms = next.left_ms.max(oldest.left_ms);
        }
    }

    /// The newest jumps first: those are what a clock is set back from.
    fn take_back(&mut self, mut by_ms: i64) {
        while by_ms > 0
            && let Some(newest) = self.jumps.last_mut()
        {
            let taken_ms = newest.by_ms.min(by_ms);
            newest.by_ms -= taken_ms;
            by_ms -= taken_ms;
            self.jumps.pop_if(|newest| newest.by_ms <= 0);
        }
    }
}

fn uptime_ms(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.uptime().as_millis()).unwrap_or(i64::MAX)
}
