//! With asynchronous replication: when a new master knows that the one before takes nothing any more.

use super::*;

fn third() -> Member {
    Member { replica: ReplicaId(2), incarnation: Incarnation(7) }
}

fn position(epoch: u64, end: u64) -> LogPosition {
    LogPosition { epoch, end, flushed: end, lacks_state: false }
}

/// What replica 1 says as the master of epoch 1.
fn leads(record: &Record, sent: u64) -> Report {
    Report {
        promised: 1,
        promised_version: record.in_sync_version,
        position: position(1, 9),
        leads: Some(1),
        ..report(sent)
    }
}

/// Replica 0 of three, all of them in sync, which has told at `at(1_000)` that it follows replica 1.
fn follower() -> (Replica, Record) {
    let settings = Settings { replication: Replication::Async, ..Settings::new(3) };
    let mut replica = replica(settings, promise(0));
    let (master, me) = (report(1).from, replica.me());
    let all = [me, master, third()].into_iter().collect();
    let record = Record::default().elect(master).with_in_sync(all, 1).serving();
    found(&mut replica, at(1_000), &record);
    replica.heard(at(1_000), leads(&record, 1_000));
    replica.aligned(at(1_000), 1, position(1, 9));
    let told =
        |action: &Action| matches!(action, Action::Tell(report) if report.follows == Some(1));
    assert!(replica.take_actions().iter().any(told));
    (replica, record)
}

/// Replica 2 follows this replica in epoch 2.
fn third_follows(replica: &mut Replica, now: u64) {
    let follows = Report {
        from: third(),
        promised: 2,
        promised_version: 99,
        position: position(2, 10),
        follows: Some(2),
        echo: Some(at(now)),
        ..report(now)
    };
    replica.heard(at(now), follows);
}

#[test]
fn who_was_given_the_office_takes_messages_at_once() {
    let (mut replica, record) = follower();
    let handed = record.hand_over(replica.me(), 1);
    replica.changed();
    found(&mut replica, at(1_100), &handed);
    replica.log_moved(at(1_110), position(2, 10));
    assert!(!replica.standing(at(1_110)).may_append, "nobody vouches for it, and it has no lease");
    third_follows(&mut replica, 1_120);
    assert!(replica.standing(at(1_120)).may_append_at(at(5_119)));
}

#[test]
fn who_was_elected_and_may_not_be_alone_takes_nothing_and_hands_nothing_over() {
    let (mut replica, record) = follower();
    // It holds the lease and asks for the office, and what becomes of that is known late.
    let mut lease = Lease::default();
    let mut asked = None;
    for now in (1_100..20_000).step_by(100) {
        replica.tick(at(now));
        for action in replica.take_actions() {
            match action {
                Action::Read { request } => {
                    let lease = (Version(lease.renewals.to_string()), lease);
                    let found = ((Version("1".into()), record.clone()), lease);
                    replica.read(at(now), request, Some(found));
                }
                Action::SwapLease { request, lease: next, .. } => {
                    lease = next;
                    let won = Swapped::Won(Version(next.renewals.to_string()));
                    replica.lease_swapped(at(now), request, won);
                }
                Action::SwapRecord { record, .. } => asked = asked.or(Some((now, record))),
                _ => {}
            }
        }
    }
    let (asked_at, elected) = asked.unwrap();
    assert!(asked_at >= 7_000, "the master may count on what was told at 1 s until then");
    assert_eq!(elected.master, Some(replica.me()));
    // Somebody else took the lease meanwhile.
    let (now, mut lease, mut record) = (30_000, lease.taken_by(report(1).from), elected);
    settle(&mut replica, at(now), &mut record, &mut lease);
    assert_eq!(replica.role(), Role::Master { epoch: 2 });
    replica.log_moved(at(now), position(2, 10));
    third_follows(&mut replica, now + 10);
    settle(&mut replica, at(now + 10), &mut record, &mut lease);
    assert!(record.in_sync.has(third()));
    assert!(!replica.standing(at(now + 10)).may_append);
    assert!(!replica.hand_over(at(now + 10), None));
    assert_eq!(record.phase, Phase::Promoting, "its next start would take it for the only one");
    // The one before follows.
    let (follows, echo, promised_version) = (Some(2), Some(at(now + 15)), 99);
    let follows = Report { promised: 2, promised_version, follows, echo, ..report(now + 20) };
    replica.heard(at(now + 20), Report { position: position(2, 10), ..follows });
    settle(&mut replica, at(now + 20), &mut record, &mut lease);
    assert_eq!(record.phase, Phase::Stable);
    assert!(replica.standing(at(now + 20)).may_append);
    assert!(replica.hand_over(at(now + 20), None));
}

#[test]
fn the_word_to_a_master_that_gave_up_binds_nobody_but_that_to_an_older_one_may() {
    // It follows this one since 1 s.
    for (gives_up, elected) in [(3_000, 7_000..7_200), (8_000, 8_000..8_200)] {
        let (mut replica, mut record) = follower();
        let mut lease = Lease::default().taken_by(report(1).from);
        let leads = leads(&record, 0);
        let is_elected = |now: &u64| {
            let report = match *now < gives_up {
                true => leads,
                false => Report { leads: None, leaves: true, ..leads },
            };
            replica.heard(at(*now), Report { sent: at(*now), ..report });
            settle(&mut replica, at(*now), &mut record, &mut lease);
            record.epoch == 2
        };
        let now = (1_100..20_000).step_by(100).find(is_elected).unwrap();
        assert!(elected.contains(&now), "{gives_up}: {now}");
        replica.log_moved(at(now), position(2, 10));
        settle(&mut replica, at(now), &mut record, &mut lease);
        assert!(replica.standing(at(now)).may_append);
    }
}

#[test]
fn who_has_lost_its_master_gives_it_no_word_more() {
    let (mut replica, record) = follower();
    let told = |replica: &mut Replica, now: u64| {
        replica.tick(at(now));
        let actions = replica.take_actions().into_iter();
        let mut reports = actions.filter_map(|action| match action {
            Action::Tell(report) => Some(report.follows),
            _ => None,
        });
        reports.next().unwrap()
    };
    assert_eq!(told(&mut replica, 1_500), Some(1));
    replica.disconnected(report(1).from);
    // It would be missed from 3 s on.
    assert_eq!(told(&mut replica, 2_000), None);
    replica.heard(at(2_100), leads(&record, 2_100));
    assert_eq!(told(&mut replica, 2_600), Some(1));
    // A connection on which the log is compared is one.
    replica.disconnected(report(1).from);
    replica.aligned(at(2_700), 1, position(1, 9));
    assert_eq!(told(&mut replica, 3_200), Some(1));
}

#[test]
fn a_master_that_was_the_only_one_and_is_started_again_waits_for_nobody() {
    let settings = Settings { replication: Replication::Async, ..Settings::new(3) };
    for (phase, elected) in [(Phase::Stable, 60_000..60_200), (Phase::Promoting, 66_000..66_200)] {
        let held = Promise::at_start(Some(promise(1)), true, Incarnation(2));
        let position = position(1, 9);
        let mut replica = Replica::new(settings.clone(), ReplicaId(0), held, position, at(60_000));
        let before = Member { incarnation: Incarnation(1), ..replica.me() };
        let mut record = Record { phase, ..Record::default().elect(before) };
        let mut lease = Lease::default().taken_by(before);
        let is_elected = |now: &u64| {
            settle(&mut replica, at(*now), &mut record, &mut lease);
            record.epoch == 2
        };
        let now = (60_000..70_000).step_by(100).find(is_elected).unwrap();
        assert!(elected.contains(&now), "{phase:?}: {now}");
    }
}
