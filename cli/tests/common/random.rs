//! Random numbers that a seed repeats.

#![allow(dead_code, reason = "each test binary uses its own part")]

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to but not including `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// The seed of this run, printed so that `WEIRMQ_SEED` can repeat it.
pub(crate) fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let drawn = now.map_or(1, |since| since.as_nanos() as u64) ^ u64::from(std::process::id());
    let seed = match std::env::var("WEIRMQ_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("WEIRMQ_SEED is {text}: no number")),
        Err(_) => drawn,
    };
    println!("repeat with WEIRMQ_SEED={seed}");
    seed
}
