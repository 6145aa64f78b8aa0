//! Replicas, authority, network, disks and clients in one thread, on one seed.
//!
//! The deciding machine is the real one. What a broker does for it (append, replicate, flush,
//! cut, acknowledge) is done by `node.rs` in as few lines as possible. `faults.rs` breaks things,
//! `check.rs` says what must hold all the time and after everything is mended.

mod check;
mod faults;
mod node;
mod objects;
mod random;
mod schedule;
mod world;

use std::time::Instant;

use crate::planted::{self, Planted};
use check::Summary;
use schedule::Schedule;

/// Runs one seed and says what went wrong.
fn run(seed: u64) -> Result<Summary, String> {
    let schedule = Schedule::of(seed);
    let mut world = world::World::new(seed, &schedule);
    world.run().map_err(|problem| format!("seed {seed}, {schedule}: {problem}"))
}

fn run_all(seeds: impl Iterator<Item = u64>) {
    let begin = Instant::now();
    let mut total = Summary::default();
    let mut schedules = 0;
    for seed in seeds {
        match run(seed) {
            Ok(summary) => total += summary,
            Err(problem) => panic!("{problem}\nSEEDS={seed}..={seed} TRACE=1 make sim replays it"),
        }
        schedules += 1;
    }
    println!("{schedules} schedules in {:.1} s: {total}", begin.elapsed().as_secs_f64());
    assert!(total.acknowledged > 0 && total.elections > 0, "nothing happened: {total}");
}

/// The first seed that fails with this bug, if one of `count` does.
fn found(bug: Planted, count: u64) -> Option<u64> {
    planted::with(Some(bug), || (0..count).find(|seed| run(*seed).is_err()))
}

#[test]
fn nothing_acknowledged_is_lost_in_two_thousand_schedules() {
    run_all(0..2_000);
}

/// `make sim` sets the seeds.
#[test]
#[ignore = "for as long as one likes: make sim"]
fn nothing_acknowledged_is_lost_in_the_given_schedules() {
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "2000..=20000".into());
    let parsed = seeds
        .split_once("..=")
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    let (first, last): (u64, u64) = parsed.unwrap_or_else(|| panic!("SEEDS={seeds}, not 1..=9"));
    run_all(first..=last);
}

#[test]
fn planted_bugs_are_found() {
    let bugs = [
        (Planted::AcknowledgeUnasked, 500),
        (Planted::ElectOutsideTheSet, 500),
        (Planted::ShrinkBeforeTheSwap, 2_000),
        (Planted::ExpandAfterTheSwap, 2_000),
        (Planted::ConfirmWithoutTheUnheard, 500),
        (Planted::ClaimLostBytes, 2_000),
        (Planted::FollowWithoutCut, 500),
        (Planted::CampaignAtOnce, 2_000),
        (Planted::IgnoreUntil, 2_000),
    ];
    let mut missed = Vec::new();
    for (bug, seeds) in bugs {
        match found(bug, seeds) {
            Some(seed) => println!("{bug:?}: found by seed {seed}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(17), run(17));
}
