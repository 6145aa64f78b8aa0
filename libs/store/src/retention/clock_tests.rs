//! Clocks that jump, and what they do not make old.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::tests::open_with;
use super::*;
use crate::clock::{Clock as _, ManualClock};
use crate::disk::SimulatedDisk;
use crate::message::NewMessage;

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;
const KEPT_HOURS: i64 = 72;

/// A store that keeps messages for 72 hours, at any hour.
struct Kept {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    inner: Inner,
}

impl Kept {
    fn new() -> Self {
        let disk = SimulatedDisk::new();
        let clock = Arc::new(ManualClock::at_ms(50 * YEAR_MS));
        let inner = Self::open(&disk, &clock);
        Self { disk, clock, inner }
    }

    fn open(disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> Inner {
        let upkeep = Upkeep {
            retention: Duration::from_secs(KEPT_HOURS as u64 * 3600),
            retention_hours: (0..24).collect(),
            ..Upkeep::default()
        };
        open_with(disk, StoreConfig { upkeep, ..StoreConfig::default() }, clock)
    }

    /// Opens it again, after a clean stop or a kill.
    fn again(self, is_clean: bool) -> Self {
        let Self { disk, clock, inner } = self;
        if is_clean {
            inner.close().unwrap();
        }
        drop(inner);
        let inner = Self::open(&disk, &clock);
        Self { disk, clock, inner }
    }

    /// As the background thread does, each minute of so many hours.
    fn pass(&self, hours: i64) -> usize {
        let mut expired = 0;
        for _ in 0..hours * 4 {
            self.clock.advance_ms(HOUR_MS / 4);
            expired += self.look();
        }
        expired
    }

    fn look(&self) -> usize {
        self.inner.expire_if_due(false).unwrap()
    }

    /// Fills a segment, and begins the next one.
    fn fill(&self) {
        for _ in 0..7 {
            self.inner.append(&[NewMessage::plain("t", 0, &[7; 1000])], &mut Vec::new()).unwrap();
        }
        self.inner.flush().unwrap();
    }

    /// A segment every 10 hours.
    fn run_for_a_week(&self) {
        for _ in 0..17 {
            self.fill();
            self.pass(10);
        }
    }

    fn segments(&self) -> usize {
        self.inner.log.all().len()
    }
}

#[test]
fn a_clock_that_is_set_forward_expires_nothing_before_its_time() {
    for by_ms in [3 * HOUR_MS, 80 * HOUR_MS, 10 * YEAR_MS] {
        let store = Kept::new();
        store.run_for_a_week();
        let kept = store.segments();
        assert!((8..=9).contains(&kept), "{kept} segments of 10 hours in 72");
        store.clock.jump_ms(by_ms);
        assert_eq!(store.look(), 0, "{by_ms}");
        // All of it expires as if nothing had been, and what is stamped with the new time as well.
        for round in 0..20 {
            store.fill();
            store.pass(10);
            assert!((8..=10).contains(&store.segments()), "{by_ms} {round}: {}", store.segments());
        }
        assert_eq!(store.inner.retention_clock.lock().now_ms(&*store.clock), store.clock.now_ms());
    }
}

#[test]
fn a_clock_that_is_set_right_again_leaves_no_trace() {
    let store = Kept::new();
    store.run_for_a_week();
    store.clock.jump_ms(YEAR_MS);
    store.pass(1);
    // Messages of next year.
    store.fill();
    store.fill();
    store.pass(1);
    store.clock.jump_ms(-YEAR_MS);
    assert_eq!(store.look(), 0);
    assert_eq!(store.inner.retention_clock.lock().now_ms(&*store.clock), store.clock.now_ms());
    // They hold up what is in front of them until the next segment is old, and no longer.
    store.fill();
    store.fill();
    assert!(store.pass(KEPT_HOURS + 1) > 0);
    assert!(store.segments() <= 2, "{}", store.segments());
}

#[test]
fn a_machine_that_is_started_with_a_clock_that_is_ahead_loses_nothing_however_often() {
    for is_clean in [true, false] {
        let mut store = Kept::new();
        store.run_for_a_week();
        let kept = store.segments();
        store.clock.jump_ms(YEAR_MS);
        for _ in 0..3 {
            store = store.again(is_clean);
            assert_eq!(store.look(), 0, "{is_clean}");
            // What is stamped with the wrong time is no witness for it.
            store.fill();
        }
        assert_eq!(store.segments(), kept + 3, "{is_clean}");
        store.clock.jump_ms(-YEAR_MS);
        store = store.again(is_clean);
        assert_eq!(store.look(), 0);
        store.fill();
        assert!(store.pass(2 * KEPT_HOURS) > 0);
    }
}

#[test]
fn a_clock_that_was_ahead_and_is_so_again_expires_nothing_before_its_time() {
    for (is_clean, was_right) in [(true, false), (false, false), (true, true)] {
        // It is a year ahead when the store is made, or comes to be and is for long enough to count.
        let mut store = Kept::new();
        if was_right {
            store.look();
            store.clock.jump_ms(YEAR_MS);
            store.pass(2 * KEPT_HOURS);
        }
        store.clock.jump_ms(-YEAR_MS);
        store.run_for_a_week();
        let kept = store.segments();
        assert!(kept >= 8, "{kept} segments of 10 hours in 72");
        store.clock.jump_ms(YEAR_MS);
        store = store.again(is_clean);
        assert_eq!((store.look(), store.segments()), (0, kept), "{is_clean} {was_right}");
    }
}

#[test]
fn a_machine_without_a_clock_of_its_own_expires_what_is_old() {
    let mut store = Kept::new();
    store.run_for_a_week();
    // Each day it is off for a minute and begins in 1970, until somebody tells it the time.
    for _ in 0..20 {
        let (now_ms, restart_ms) = (store.clock.now_ms(), 60_000);
        store.clock.jump_ms(-now_ms);
        store = store.again(true);
        store.look();
        store.clock.jump_ms(now_ms + restart_ms);
        store.look();
        store.fill();
        store.pass(23);
    }
    assert!(store.segments() <= 6, "{} segments of a day each in 3 days", store.segments());
}

#[test]
fn time_in_which_nobody_had_the_store_open_counts_later_and_does_not_add_up() {
    let mut store = Kept::new();
    store.run_for_a_week();
    let kept = store.segments();
    store.clock.jump_ms(100 * HOUR_MS);
    store = store.again(true);
    assert_eq!(store.look(), 0);
    // 14 hours a day, for three weeks.
    for day in 0..21 {
        store.fill();
        store.pass(14);
        store.clock.jump_ms(10 * HOUR_MS);
        store = store.again(true);
        store.look();
        assert!(store.segments() <= kept, "day {day}: {}", store.segments());
    }
    assert!(store.segments() <= 8, "{} segments of a day each", store.segments());
}

#[test]
fn what_a_wrong_clock_stamped_says_nothing_about_age() {
    let now_ms = 100 * HOUR_MS;
    for (stamps, old) in [
        (vec![1, 2, 50, 99], 1),
        // Of next year; one of them is the newest.
        (vec![1, 9999, 9999, 20, 99], 3),
        (vec![1, 9999, 9999], 0),
        (vec![9999, 9998, 3, 99], 2),
        // A clock that began anew.
        (vec![1, 90, 0, 91], 0),
        (vec![1, 20, 0, 0, 99], 1),
        (vec![99], 0),
        (vec![1], 0),
    ] {
        let store = Kept::new();
        let mut last_ms = store.clock.now_ms();
        for hour in &stamps {
            let ms = hour * HOUR_MS;
            store.clock.jump_ms(ms - last_ms);
            last_ms = ms;
            store.fill();
        }
        let segments = store.inner.log.all();
        assert_eq!(segments.len(), stamps.len());
        let found = old_segments(&segments, now_ms, KEPT_HOURS * HOUR_MS);
        assert_eq!(found, old, "{stamps:?}");
    }
}

#[test]
fn a_clock_file_that_is_damaged_counts_for_nothing_and_is_named() {
    let mut store = Kept::new();
    store.run_for_a_week();
    let kept = store.segments();
    store.inner.close().unwrap();
    for suffix in ["", ".last"] {
        let path = format!("/s/weir/clock{suffix}");
        let file = store.disk.open(Path::new(&path), crate::disk::OpenMode::Write).unwrap();
        file.write_all_at(b"?", 20).unwrap();
    }
    store.clock.jump_ms(YEAR_MS);
    let Kept { disk, clock, inner } = store;
    drop(inner);
    let inner = Kept::open(&disk, &clock);
    store = Kept { disk, clock, inner };
    assert_eq!((store.look(), store.segments()), (0, kept), "the log says what time it was");
}
