//! Where a quorum acknowledges: what is confirmed, and who is elected.

use super::*;
use crate::{AcknowledgedBy, Phase};

fn member(replica: u32) -> Member {
    Member {
        replica: ReplicaId(replica),
        incarnation: Incarnation(if replica == 0 { 1 } else { 5 }),
    }
}

fn settings() -> Settings {
    settings_of(3)
}

fn settings_of(replicas: u32) -> Settings {
    Settings { acknowledged_by: AcknowledgedBy::Quorum, ..Settings::new(replicas) }
}

fn position(epoch: u64, end: u64) -> LogPosition {
    LogPosition { epoch, end, flushed: end, lacks_state: false }
}

/// What replica `id` reports that follows nobody, of a log like this, at this time.
fn says(id: u32, position: LogPosition, promised: (u64, u64), sent: u64) -> Report {
    let (promised, promised_version) = promised;
    Report { from: member(id), position, promised, promised_version, ..report(sent) }
}

/// All three are members, and replica 1 leads.
fn record() -> Record {
    Record {
        epoch: 4,
        phase: Phase::Stable,
        master: Some(member(1)),
        in_sync: [0, 1, 2].map(member).into_iter().collect(),
        in_sync_version: 9,
        ..Record::default()
    }
}

/// Replica 0, which missed its master for long.
fn candidate(log: LogPosition) -> (Replica, Record, Lease) {
    let mut replica = replica(settings(), promise(4));
    replica.log_moved(at(0), log);
    let (mut record, mut lease) = (record(), Lease::default().taken_by(member(1)));
    settle(&mut replica, at(10), &mut record, &mut lease);
    assert_eq!(replica.role(), Role::Follower { master: member(1), epoch: 4 });
    (replica, record, lease)
}

#[test]
fn nobody_is_elected_by_what_was_said_before_the_promise() {
    let (mut replica, mut record, mut lease) = candidate(position(4, 50));
    // Alone it would stop a master for nothing.
    settle(&mut replica, at(60_000), &mut record, &mut lease);
    assert_eq!(record.phase, Phase::Stable);
    replica.heard(at(60_000), says(2, position(4, 40), (4, 9), 2));
    settle(&mut replica, at(60_000), &mut record, &mut lease);
    assert_eq!((record.phase, record.epoch, record.in_sync_version), (Phase::Fencing, 4, 10));
    assert_eq!(replica.role(), Role::Waiting);
    // The same words once more, after the promise.
    replica.heard(at(60_010), says(2, position(4, 40), (4, 10), 3));
    settle(&mut replica, at(60_010), &mut record, &mut lease);
    assert_eq!((record.phase, record.epoch), (Phase::Promoting, 5));
    assert_eq!((record.master, record.in_sync.len()), (Some(replica.me()), 3));
}

#[test]
fn the_better_log_is_the_one_with_the_later_epoch_and_then_the_longer_one() {
    for (other, is_better) in [
        (position(4, 50), false),
        (position(3, 900), false),
        (position(4, 51), true),
        (position(5, 1), true),
        (LogPosition { epoch: 4, end: 900, flushed: 50, lacks_state: false }, false),
    ] {
        let (mut replica, mut record, mut lease) = candidate(position(4, 50));
        replica.heard(at(60_000), says(2, other, (4, 9), 2));
        // A candidate gives a better one the time to come first.
        settle(&mut replica, at(60_000), &mut record, &mut lease);
        settle(&mut replica, at(60_600), &mut record, &mut lease);
        assert_eq!(record.phase, Phase::Fencing, "{other:?}");
        replica.heard(at(60_700), says(2, other, (4, 10), 3));
        settle(&mut replica, at(60_700), &mut record, &mut lease);
        assert_eq!(record.epoch, if is_better { 4 } else { 5 }, "{other:?}");
    }
}

#[test]
fn a_slave_that_hears_of_a_fence_follows_nobody_and_passes_nothing_older_on() {
    let (mut replica, record, _) = candidate(position(4, 50));
    let fenced = record.fenced();
    // From whom it does not matter: nobody leads by it.
    replica.heard_record(at(20), member(2), fenced.clone());
    let actions = replica.take_actions();
    assert!(matches!(&actions[0], Action::Promise(promised) if promised.in_sync_version == 10));
    assert_eq!(actions[1], Action::Stop);
    let told = |action: &Action| match action {
        Action::Tell(report) => Some((report.promised_version, report.follows)),
        _ => None,
    };
    assert_eq!(actions.iter().find_map(told), Some((10, None)));
    // Only who read it passes it on.
    assert!(!actions.iter().any(|action| matches!(action, Action::Share(_))));
    replica.heard_record(at(30), member(1), record);
    assert_eq!((replica.role(), replica.take_actions()), (Role::Waiting, vec![]));
}

#[test]
fn two_of_three_acknowledge_and_nothing_of_earlier_epochs_counts_alone() {
    let (mut replica, mut record, mut lease) = candidate(position(4, 50));
    replica.heard(at(60_000), says(2, position(4, 40), (4, 9), 2));
    settle(&mut replica, at(60_000), &mut record, &mut lease);
    replica.heard(at(60_010), says(2, position(4, 40), (4, 10), 3));
    settle(&mut replica, at(60_010), &mut record, &mut lease);
    replica.log_moved(at(60_020), position(5, 60));
    let version = record.in_sync_version;
    let follows = |end, sent| Report {
        follows: Some(5),
        echo: Some(at(60_020)),
        ..says(2, position(5, end), (5, version + 9), sent)
    };
    // It has everything of the epoch before, and this epoch's beginning not yet.
    replica.heard(at(60_030), follows(50, 4));
    assert_eq!(replica.standing(at(60_030)).visible, None);
    replica.heard(at(60_040), follows(60, 5));
    replica.log_moved(at(60_050), position(5, 70));
    let standing = replica.standing(at(60_050));
    assert!(standing.may_append, "one of two slaves holds up nobody");
    assert_eq!((standing.acknowledged, standing.visible), (60, Some(60)));
    // Replica 1 is silent for good, and stays in the set.
    for second in 0..30 {
        let now = 61_000 + second * 1_000;
        let echo = Some(at(now));
        replica.heard(at(now), Report { echo, ..follows(70, 6 + second) });
        settle(&mut replica, at(now), &mut record, &mut lease);
        assert!(replica.standing(at(now)).may_append_at(at(now)));
    }
    assert_eq!(record.in_sync.len(), 3);
}

#[test]
fn a_better_log_that_is_not_elected_holds_nobody_up_for_ever_and_is_not_outvoted() {
    let member = |id| Member { replica: ReplicaId(id), incarnation: Incarnation(5) };
    // Of five three are needed: this one and two more that have no more than it has.
    for (others, leaves, elected) in [
        (vec![(2, 51), (3, 50), (4, 50)], false, Some(6)),
        (vec![(2, 51), (3, 50), (4, 50)], true, Some(0)),
        (vec![(2, 51), (3, 51), (4, 50)], false, None),
        (vec![(3, 50), (4, 50)], false, Some(0)),
    ] {
        let mut replica = replica(Settings { min_in_sync: 3, ..settings_of(5) }, promise(4));
        replica.log_moved(at(0), position(4, 50));
        let set = (1..5).map(member).chain([replica.me()]).collect();
        let mut record = Record { in_sync: set, ..record() };
        let mut lease = Lease::default().taken_by(member(1));
        settle(&mut replica, at(10), &mut record, &mut lease);
        let is_elected = |now: &u64| {
            for (id, end) in &others {
                let promised = (4, record.in_sync_version);
                let says = says(*id, position(4, *end), promised, *now);
                replica.heard(at(*now), Report { leaves: leaves && *id == 2, ..says });
            }
            settle(&mut replica, at(*now), &mut record, &mut lease);
            record.epoch == 5
        };
        let now = (60_000..90_000).step_by(100).find(is_elected);
        // A better one is waited for until the fence is asked for, too.
        assert_eq!(now.map(|now| (now - 60_000) / 1_000), elected, "{others:?} {leaves}");
    }
}
