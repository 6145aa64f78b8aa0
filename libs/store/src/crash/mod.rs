//! Crash tests: power cuts after every step of the disk, over short sequences of operations.
//!
//! Nearly all crash bugs show in sequences of up to three operations with a crash right after one
//! of them, so those are tried all, from two beginnings and with both ways of flushing
//! ([`sequences`]); random sequences of up to 25 operations come on top ([`random`]). After each
//! crash the store is opened and everything is compared with what was promised ([`promise`]).
//! [`mutations`] damages files instead.
//! `planted` shows that the tests bite: each bug that is switched on must be found.
//!
//! Which seeds are tried, and how one is repeated: [`common::seeds`].

mod faulty_disk;
mod mutations;
mod planted_bugs;
mod promise;
mod random;
mod run;
mod sequences;

#[path = "../../tests/common/mod.rs"]
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use common::seeds;
use run::Machine;

/// What a campaign did.
#[derive(Debug, Default)]
struct Counts {
    /// Crashes that were recovered from and compared.
    states: AtomicU64,
    /// Second crashes during the recovery of the first.
    nested: AtomicU64,
}

impl Counts {
    fn add(&self, states: u64, nested: u64) {
        self.states.fetch_add(states, Ordering::Relaxed);
        self.nested.fetch_add(nested, Ordering::Relaxed);
    }
}

/// Tries the seeds with these numbers on two threads, or the one that the environment names. Panics
/// with the first that fails.
fn try_all(numbers: std::ops::Range<u64>, try_one: fn(u64, &Counts)) -> Counts {
    let counts = Counts::default();
    let seeds = std::sync::Mutex::new(seeds::of(numbers));
    let failed = std::sync::Mutex::new(None);
    let work = || {
        while failed.lock().unwrap().is_none() {
            let Some(seed) = seeds.lock().unwrap().next() else { return };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| try_one(seed, &counts))) {
                eprintln!("failed; repeat with WEIRMQ_SEED={seed}");
                failed.lock().unwrap().get_or_insert(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    if let Some(panic) = failed.into_inner().unwrap() {
        std::panic::resume_unwind(panic);
    }
    counts
}

fn try_sound(sequence: &sequences::Sequence, seed: u64, counts: &Counts) {
    if seeds::only().is_some() {
        eprintln!("{sequence:?}");
    }
    Machine::sound().try_sequence(sequence, seed, counts);
}

/// At least so many crashes are tried in one run.
const STATES_MIN: u64 = 20_000;

#[test]
fn every_crash_in_every_short_sequence_keeps_what_was_promised() {
    let counts = try_all(seeds::SHORT, |seed, counts| {
        try_sound(&sequences::of(seed), seed, counts);
    });
    let (states, nested) = (counts.states.into_inner(), counts.nested.into_inner());
    println!("{} sequences, {states} crashes, {nested} crashes in a recovery", sequences::count());
    assert!(states >= STATES_MIN || seeds::only().is_some(), "only {states} crashes");
}

#[test]
fn random_crashes_in_random_sequences_keep_what_was_promised() {
    let counts = try_all(seeds::RANDOM, |seed, counts| {
        try_sound(&random::of(seed), seed, counts);
    });
    let (states, nested) = (counts.states.into_inner(), counts.nested.into_inner());
    println!("{states} crashes, {nested} crashes in a recovery");
}
