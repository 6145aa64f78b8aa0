//! Replicas, authority, network, disks and clients in one thread, on one seed.
//!
//! The deciding machine is the real one. What a broker does for it (append, replicate, flush,
//! cut, acknowledge) is done by `node.rs` in as few lines as possible. `faults.rs` breaks things,
//! `check.rs` says what must hold all the time and after everything is mended.

mod check;
mod faults;
mod links;
mod log;
mod node;
mod objects;
mod offsets;
mod random;
mod schedule;
mod world;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Replication;
use crate::planted::{self, Planted};
use check::{Problem, Rule, Summary, Waits};
use schedule::{Favourite, Schedule};

/// Runs one seed and says what went wrong.
fn run(seed: u64) -> Result<Summary, Problem> {
    world::World::new(seed, &Schedule::of(seed)).run()
}

/// Runs seeds on two threads.
fn run_all(seeds: impl Iterator<Item = u64> + Send) {
    let begin = Instant::now();
    let state = Mutex::new((seeds, Summary::default(), Vec::new()));
    let work = || loop {
        let Some(seed) = state.lock().unwrap().0.next() else { return };
        match run(seed) {
            Ok(summary) => {
                let (_, total, waits) = &mut *state.lock().unwrap();
                *total += summary;
                waits.push((seed, summary.waits));
            }
            Err(Problem { rule, text }) => panic!(
                "seed {seed}, {}: {rule:?}: {text}\nSEEDS={seed}..={seed} TRACE=1 make sim replays it",
                Schedule::of(seed)
            ),
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let (_, total, waits) = state.into_inner().unwrap();
    println!("{} schedules in {:.1} s: {total}", waits.len(), begin.elapsed().as_secs_f64());
    print_waits("nobody served", &waits, |waits| waits.unserved);
    print_waits("nothing was acknowledged", &waits, |waits| waits.unacknowledged);
    print_waits("a group was not whole", &waits, |waits| waits.whole);
    print_waits("a hand-over took", &waits, |waits| waits.handed_over);
    assert!(total.acknowledged > 0 && total.elections > 0, "nothing happened: {total}");
}

/// Says in how many schedules it was how long, and in which the longest.
fn print_waits(what: &str, waits: &[(u64, Waits)], of: impl Fn(&Waits) -> Duration) {
    let mut waits: Vec<_> = waits.iter().map(|(seed, waits)| (of(waits), *seed)).collect();
    waits.sort_unstable_by(|one, other| other.cmp(one));
    let longer = [1, 3, 6, 8, 10, 12, 15, 20].map(|seconds| {
        let limit = Duration::from_secs(seconds);
        format!("{} > {seconds} s", waits.iter().filter(|(wait, _)| *wait > limit).count())
    });
    waits.truncate(8);
    let longest = waits.iter().map(|(wait, seed)| format!("{:.1} s ({seed})", wait.as_secs_f64()));
    println!("{what}: {}; longest {}", longer.join(", "), longest.collect::<Vec<_>>().join(", "));
}

/// A planted bug, the groups that it can harm, and the rules that it breaks there.
struct Plant<'a>(Planted, fn(&Schedule) -> bool, &'a [Rule]);

impl Plant<'_> {
    /// The first of so many schedules that breaks one of the rules, and how many were tried.
    fn found(&self, count: usize) -> Option<(u64, usize)> {
        let Self(bug, harms, rules) = self;
        let seeds = (0..).filter(|seed| harms(&Schedule::of(*seed))).take(count);
        planted::with(Some(*bug), || {
            let breaks =
                |seed: &u64| run(*seed).is_err_and(|problem| rules.contains(&problem.rule));
            { seeds }.zip(1..).find(|(seed, _)| breaks(seed))
        })
    }
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
fn planted_bugs_are_found_by_the_rule_they_break() {
    fn is_sync(schedule: &Schedule) -> bool {
        schedule.replication == Replication::Sync && !schedule.is_by_quorum()
    }
    fn is_changing(schedule: &Schedule) -> bool {
        schedule.is_by_quorum() && schedule.is_changing
    }
    fn is_damaged(schedule: &Schedule) -> bool {
        schedule.is_damaged && schedule.is_quorum() && !schedule.is_by_quorum()
    }
    let any = |_: &Schedule| true;
    let is_async = |schedule: &Schedule| schedule.replication == Replication::Async;
    let is_unflushed = |schedule: &Schedule| {
        let is_sync = schedule.replication == Replication::Sync;
        is_sync && !schedule.sync_flush && !schedule.is_by_quorum()
    };
    let is_taken_away = |schedule: &Schedule| {
        schedule.takes_images_away
            && schedule.replication == Replication::Sync
            && !schedule.is_by_quorum()
    };
    let cuts_slowly = |schedule: &Schedule| {
        schedule.replication == Replication::Sync && schedule.cuts_slowly && schedule.replicas > 2
    };
    let expires = |schedule: &Schedule| schedule.expires && !schedule.takes_images_away;
    let is_by_quorum = |schedule: &Schedule| schedule.is_by_quorum();
    let is_ambushed =
        |schedule: &Schedule| is_sync(schedule) && schedule.favourite == Some(Favourite::Ambushes);
    let is_changing_often = |schedule: &Schedule| {
        is_changing(schedule) && schedule.favourite == Some(Favourite::Changes)
    };
    let is_damaged_often =
        |schedule: &Schedule| is_damaged(schedule) && schedule.favourite == Some(Favourite::Damage);
    let flaps = |schedule: &Schedule| {
        schedule.is_by_quorum() && schedule.favourite == Some(Favourite::Flaps)
    };
    let is_unflushed_by_quorum =
        |schedule: &Schedule| schedule.is_by_quorum() && !schedule.sync_flush;
    let lost =
        &[Rule::NothingLost, Rule::NothingCut, Rule::OneMessageAnOffset, Rule::WhatWasSeenStays];
    let or_epochs_fall = [&lost[..], &[Rule::EpochStays]].concat();
    let plants = [
        Plant(Planted::AcknowledgeUnasked, is_sync, lost),
        Plant(Planted::ElectOutsideTheSet, is_sync, lost),
        Plant(Planted::ShrinkBeforeTheSwap, is_sync, lost),
        Plant(Planted::LeaveByWord, is_sync, lost),
        Plant(Planted::ExpandAfterTheSwap, is_ambushed, lost),
        Plant(Planted::ConfirmWithoutTheUnheard, is_sync, lost),
        Plant(Planted::ServeBesideTheEligible, is_sync, lost),
        Plant(Planted::ObeyAnyHigherEpoch, is_damaged, lost),
        Plant(Planted::ObeyLowerEpochs, is_damaged, &[Rule::EpochStays]),
        Plant(Planted::ActBeforeThePromise, is_damaged_often, &or_epochs_fall),
        Plant(Planted::ClaimLostBytes, is_unflushed, lost),
        Plant(Planted::FollowWithoutCut, any, lost),
        Plant(Planted::CutTooLittle, is_async, &[Rule::LogsAgree]),
        Plant(Planted::FollowDuringTheCut, cuts_slowly, lost),
        Plant(Planted::ClaimWhatBeganAnew, is_taken_away, lost),
        Plant(Planted::ForgetWhatIsPassedOn, is_sync, &[Rule::CommittedStays]),
        Plant(Planted::AnswerBeforeSlavesDid, is_sync, &[Rule::CommittedStays]),
        Plant(Planted::ExpireTheImage, expires, &[Rule::StateKept]),
        Plant(Planted::AcknowledgeUnasked, is_by_quorum, lost),
        Plant(Planted::ClaimLostBytes, is_unflushed_by_quorum, lost),
        Plant(Planted::FollowWithoutCut, is_by_quorum, lost),
        Plant(Planted::ElectWithoutAQuorum, is_by_quorum, lost),
        Plant(Planted::OutvoteABetterLog, is_by_quorum, lost),
        Plant(Planted::CountOldVotes, flaps, lost),
        Plant(Planted::RankByLength, is_by_quorum, lost),
        Plant(Planted::ConfirmOldEpochs, is_by_quorum, lost),
        Plant(Planted::ChangeWithoutTheBytes, is_changing_often, lost),
        Plant(Planted::FollowBehindTheFence, flaps, lost),
        Plant(Planted::ConfirmWithoutTheUnheard, is_by_quorum, lost),
        Plant(Planted::ExpandAfterTheSwap, is_changing_often, lost),
        Plant(Planted::CampaignAtOnce, is_async, &[Rule::OneMaster]),
        Plant(Planted::IgnoreUntil, is_async, &[Rule::OneMaster]),
    ];
    let only = std::env::var("PLANT").ok();
    let is_wanted = |plant: &Plant| only.as_ref().is_none_or(|it| *it == format!("{:?}", plant.0));
    let plants = Mutex::new(plants.into_iter().filter(is_wanted));
    let missed = Mutex::new(Vec::new());
    let work = || loop {
        let Some(plant) = plants.lock().unwrap().next() else { return };
        let begin = Instant::now();
        match plant.found(3_000) {
            Some((seed, schedules)) => {
                let seconds = begin.elapsed().as_secs_f64();
                println!("{:?}: found by seed {seed}, of {schedules} in {seconds:.1} s", plant.0);
            }
            None => missed.lock().unwrap().push(plant.0),
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_seed_replays_exactly() {
    assert_eq!(run(17), run(17));
}
