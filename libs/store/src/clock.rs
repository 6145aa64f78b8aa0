//! The seam to the clocks.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time that records are stamped with and retention goes by.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64;

    /// The time since some fixed point, on a clock that never jumps and goes on while the machine
    /// or the process sleeps (CLOCK_BOOTTIME).
    fn uptime(&self) -> Duration;

    /// The hour of the day where the clock hangs, 0 to 23. Default: in UTC.
    fn hour(&self) -> u8 {
        (self.now_ms().div_euclid(3_600_000).rem_euclid(24)) as u8
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        // A clock before 1970 reads as 1970; nothing else here can be negative or too large.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
    }

    fn uptime(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither is negative or too large: the kernel counts from the boot.
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    /// In the machine's time zone, as Apache's broker has it.
    fn hour(&self) -> u8 {
        jiff::Zoned::now().hour().unsigned_abs()
    }
}

/// A clock that stands still until it is told otherwise.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: AtomicI64,
    uptime_ms: AtomicI64,
}

impl ManualClock {
    pub fn at_ms(now_ms: i64) -> Self {
        Self { now_ms: AtomicI64::new(now_ms), uptime_ms: AtomicI64::new(now_ms) }
    }

    /// Lets time go by.
    pub fn advance_ms(&self, by_ms: i64) {
        self.now_ms.fetch_add(by_ms, Ordering::Relaxed);
        self.uptime_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Sets the clock forward, or back, while no time goes by.
    pub fn jump_ms(&self, by_ms: i64) {
        self.now_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.uptime_ms.load(Ordering::Relaxed).unsigned_abs())
    }
}
