//! A timer that is finer than tokio's, for sending by the clock.

use std::fs::File;
use std::future::pending;
use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of the kernel's: tokio's own has a resolution of a millisecond.
pub(super) struct Ticks {
    timer: AsyncFd<File>,
}

impl Ticks {
    /// Ticks first at `first` and then after each `interval`.
    pub(super) fn new(first: Instant, interval: Duration) -> anyhow::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).context("make a timer")?;
        let spec = |time: Duration| Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        };
        let wait = first.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let times = Itimerspec { it_value: spec(wait), it_interval: spec(interval) };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &times).context("set a timer")?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types whose descriptor may change; a File's does not"
        )]
        let timer = AsyncFd::with_interest(File::from(timer), Interest::READABLE)?;
        Ok(Self { timer })
    }

    /// Waits until there was a tick since the last time.
    async fn next(&mut self) -> anyhow::Result<()> {
        let mut expirations = [0; 8];
        self.timer
            .async_io_mut(Interest::READABLE, |timer| timer.read(&mut expirations))
            .await
            .context("wait for a timer")?;
        Ok(())
    }
}

/// Waits for a tick, or for ever when there is no timer.
pub(super) async fn tick(ticks: Option<&mut Ticks>) -> anyhow::Result<()> {
    match ticks {
        Some(ticks) => ticks.next().await,
        None => pending().await,
    }
}
