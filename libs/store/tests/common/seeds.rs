//! Which seeds a run of the crash tests tries.
//!
//! A seed is a draw and, in its lower digits, a number: which test, and which of its sequences. Each run
//! has a draw of its own, which it prints. `WEIRMQ_SEED=n` repeats one seed, `WEIRMQ_DRAW=n` all of a draw;
//! `WEIRMQ_TIMES=n` tries as many draws, one after the other.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::OnceLock;

/// All sequences of up to three operations.
pub const SHORT: Range<u64> = 0..3276;
/// Longer ones.
pub const RANDOM: Range<u64> = 1_000_000..1_000_300;
/// Stores with one damaged file.
pub const MUTATIONS: Range<u64> = 2_000_000..2_006_000;
/// Random work, two crashes each.
pub const WORK: Range<u64> = 3_000_000..3_002_500;

const DRAW: u64 = 10_000_000;

/// The number in a seed.
pub fn number(seed: u64) -> u64 {
    seed % DRAW
}

/// The one seed that is to be repeated.
pub fn only() -> Option<u64> {
    let seed = given("WEIRMQ_SEED")?;
    let all = [SHORT, RANDOM, MUTATIONS, WORK];
    assert!(
        all.iter().any(|numbers| numbers.contains(&number(seed))),
        "WEIRMQ_SEED is {seed}, and its last seven digits must be in one of {all:?}"
    );
    Some(seed)
}

/// The seeds with these numbers; of the one that is to be repeated none or that.
pub fn of(numbers: Range<u64>) -> Box<dyn Iterator<Item = u64> + Send> {
    if let Some(seed) = only() {
        return Box::new(Some(seed).filter(|seed| numbers.contains(&number(*seed))).into_iter());
    }
    let (draw, times) = (draw(), given("WEIRMQ_TIMES").unwrap_or(1));
    let draws = (0..times).map(move |time| draw.wrapping_add(time) % (u64::MAX / DRAW));
    Box::new(draws.flat_map(move |draw| numbers.clone().map(move |number| draw * DRAW + number)))
}

fn draw() -> u64 {
    static DRAWN: OnceLock<u64> = OnceLock::new();
    *DRAWN.get_or_init(|| {
        let draw =
            given("WEIRMQ_DRAW").unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
        println!("repeat all with WEIRMQ_DRAW={draw}");
        draw
    })
}

fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}: no number")))
}
