//! How many a second, without a timer: buckets of ten seconds that the counting itself moves on.

use parking_lot::Mutex;

const BUCKET_MS: i64 = 10_000;
/// Ten minutes, and the bucket that is filling.
const BUCKETS: usize = 61;

pub(super) struct RateWindow {
    /// Number of the bucket's ten seconds since 1970, and the count.
    buckets: Mutex<[(i64, u64); BUCKETS]>,
}

impl Default for RateWindow {
    fn default() -> Self {
        Self { buckets: Mutex::new([(0, 0); BUCKETS]) }
    }
}

impl RateWindow {
    pub(super) fn add(&self, now_ms: i64, count: u64) {
        let number = now_ms / BUCKET_MS;
        let mut buckets = self.buckets.lock();
        let bucket = &mut buckets[number.rem_euclid(BUCKETS as i64) as usize];
        if bucket.0 != number {
            *bucket = (number, 0);
        }
        bucket.1 += count;
    }

    /// Averages over the last 1, 6 and 60 complete buckets.
    pub(super) fn per_second(&self, now_ms: i64) -> [f64; 3] {
        let current = now_ms / BUCKET_MS;
        let buckets = self.buckets.lock();
        [1, 6, 60].map(|span: i64| {
            let recent =
                buckets.iter().filter(|(number, _)| (current - span..current).contains(number));
            let sum: u64 = recent.map(|(_, count)| count).sum();
            sum as f64 / (span * BUCKET_MS / 1000) as f64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_averages_of_complete_buckets() {
        let window = RateWindow::default();
        let start = 1_700_000_000_000;
        for second in 0..60 {
            window.add(start + second * 1000, 5);
        }
        let [ten, sixty, ten_minutes] = window.per_second(start + 60_000);
        assert_eq!((ten, sixty), (5.0, 5.0));
        assert!((ten_minutes - 0.5).abs() < 0.01);
        assert_eq!(window.per_second(start + 700_000), [0.0; 3]);
    }
}
