//! Each planted bug must be found, and not after too long.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::common::seeds;
use super::faulty_disk::Fault;
use super::run::Machine;
use super::{Counts, random, sequences};
use crate::planted::Planted;

/// Sequences that are tried before a bug counts as not found.
const TRIES_MAX: u64 = 6_000;

/// The first sequence that shows what is wrong with `machine`, counted in sequences, and how.
fn find(machine: Machine) -> Option<(u64, String)> {
    let counts = Counts::default();
    // Every 37th: near neighbours differ in their first letters only.
    let short = (0..sequences::count()).map(|n| n * 37 % sequences::count());
    let long = seeds::RANDOM.start..seeds::RANDOM.start + 3000;
    // A bug that needs a disk that fails shows in the random ones only.
    let mut tried = 0;
    for (short, long) in short.zip(long) {
        for (seed, sequence) in [(short, sequences::of(short)), (long, random::of(long))] {
            tried += 1;
            let attempt = || machine.try_sequence(&sequence, seed, &counts);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(attempt)) {
                let text = panic.downcast_ref::<String>().map_or("", |text| text);
                return Some((tried, text.lines().next().unwrap_or_default().to_owned()));
            }
        }
        if tried > TRIES_MAX {
            break;
        }
    }
    None
}

fn is_found(name: &str, machine: Machine) {
    let Some((tried, how)) = find(machine) else { panic!("{name}: not found") };
    println!("{name}: found with sequence {tried}: {how}");
}

#[test]
fn every_bug_planted_in_the_disk_is_found() {
    for fault in [
        Fault::SkipSync,
        Fault::SyncLate,
        Fault::SkipDirectorySync,
        Fault::CutInMemoryOnly,
        Fault::RecoverWithoutSync,
        Fault::RetrySync,
    ] {
        is_found(&format!("{fault:?}"), Machine { fault, bug: None });
    }
}

#[test]
fn every_bug_planted_in_the_store_is_found() {
    for bug in [
        Planted::FlushedAfterFailedSync,
        Planted::MarkAheadOfFlushed,
        Planted::VisiblePastFlushed,
        Planted::OffsetFromCounter,
        Planted::ProofFromItsBeginningOnly,
    ] {
        is_found(&format!("{bug:?}"), Machine { fault: Fault::Sound, bug: Some(bug) });
    }
}
