//! How fast slaves that are far behind may read the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// How far readers may be ahead of their rate.
const BURST: Duration = Duration::from_millis(20);

/// The rate that all slaves share that are sent what is not in memory.
pub(super) struct CatchUp {
    /// Bytes a second; 0: as many as the disk and the slaves take.
    rate: AtomicU64,
    /// When what was read so far has been paid for.
    paid: Mutex<Option<Instant>>,
}

impl CatchUp {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: rate.into(), paid: Mutex::default() }
    }

    /// Waits until so many bytes more have been paid for.
    pub(super) async fn pay(&self, bytes: u64) {
        if let Some(due) = self.due(Instant::now(), bytes) {
            sleep_until(due).await;
        }
    }

    /// What is read from now on is paid for at this rate.
    pub(super) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Until when whoever reads so many bytes now has to wait, if there is a rate.
    fn due(&self, now: Instant, bytes: u64) -> Option<Instant> {
        let rate = Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)?;
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut paid = self.paid.lock();
        // What nobody used is not saved up.
        let until = paid.map_or(now, |paid| paid.max(now)) + cost;
        *paid = Some(until);
        Some(until - BURST.min(cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_readers_together_keep_to_the_rate_and_save_nothing_up() {
        let catch_up = CatchUp::new(1 << 20);
        let begun = Instant::now();
        let mut now = [begun; 2];
        for _ in 0..16 {
            now = now.map(|now| catch_up.due(now, 256 << 10).unwrap());
        }
        let taken = (now[1] - begun).as_millis();
        assert!((7_900..8_100).contains(&taken), "{taken} ms for 8 MiB");
        let later = now[1] + Duration::from_secs(60);
        assert!(catch_up.due(later, 1 << 20).unwrap() - later > Duration::from_millis(900));
        catch_up.set_rate(0);
        assert_eq!(catch_up.due(later, 1 << 20), None);
    }
}
