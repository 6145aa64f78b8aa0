//! How fast slaves that are far behind may read the disk.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// How far readers may be ahead of their rate.
const BURST: Duration = Duration::from_millis(20);

/// The rate that all slaves share that are sent what is not in memory.
pub(super) struct CatchUp {
    /// Bytes a second; 0: as many as the disk and the slaves take.
    rate: u64,
    /// When what was read so far has been paid for.
    paid: Mutex<Option<Instant>>,
}

impl CatchUp {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate, paid: Mutex::default() }
    }

    /// Waits until so many bytes more have been paid for.
    pub(super) async fn pay(&self, bytes: u64) {
        if self.rate > 0 {
            sleep_until(self.due(Instant::now(), bytes)).await;
        }
    }

    /// Until when whoever reads so many bytes now has to wait.
    fn due(&self, now: Instant, bytes: u64) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let mut paid = self.paid.lock();
        // What nobody used is not saved up.
        let until = paid.map_or(now, |paid| paid.max(now)) + cost;
        *paid = Some(until);
        until - BURST.min(cost)
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
            now = now.map(|now| catch_up.due(now, 256 << 10));
        }
        let taken = (now[1] - begun).as_millis();
        assert!((7_900..8_100).contains(&taken), "{taken} ms for 8 MiB");
        let later = now[1] + Duration::from_secs(60);
        assert!(catch_up.due(later, 1 << 20) - later > Duration::from_millis(900));
    }
}
