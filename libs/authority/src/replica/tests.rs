mod gives_up;
mod leave;
mod quorum;
mod sole;

use super::*;
use crate::{Incarnation, Members, Promotion, Replication, Report};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn replica(settings: Settings, promise: Promise) -> Replica {
    Replica::new(settings, ReplicaId(0), promise, LogPosition::default(), at(0))
}

fn promise(epoch: u64) -> Promise {
    let before = Promise { epoch, ..Promise::default() };
    Promise::at_start(Some(before), true, Incarnation(1))
}

/// Carries requests out at once, until nothing more is asked for; returns the other actions.
fn settle(
    replica: &mut Replica,
    now: Duration,
    record: &mut Record,
    lease: &mut Lease,
) -> Vec<Action> {
    let mut others = Vec::new();
    let version = |number: u64| Version(number.to_string());
    for _ in 0..20 {
        replica.tick(now);
        for action in replica.take_actions() {
            let record_version = version(record.epoch * 1_000 + record.in_sync_version);
            match action {
                Action::Read { request } => {
                    let found = (record_version, record.clone());
                    replica.read(now, request, Some((found, (version(lease.renewals), *lease))));
                }
                Action::SwapRecord { request, record: next, .. } => {
                    record.check_next(&next).unwrap();
                    *record = next;
                    let won = version(record.epoch * 1_000 + record.in_sync_version);
                    replica.record_swapped(now, request, Swapped::Won(won));
                }
                Action::SwapLease { request, lease: next, .. } => {
                    *lease = next;
                    replica.lease_swapped(now, request, Swapped::Won(version(next.renewals)));
                }
                Action::Tell(_) | Action::Share(_) => {}
                other => others.push(other),
            }
        }
    }
    others
}

#[test]
fn a_group_of_one_leads_at_once_and_promises_first() {
    let mut replica = replica(Settings::new(1), promise(0));
    let (mut record, mut lease) = Default::default();
    let actions = settle(&mut replica, at(10), &mut record, &mut lease);
    let Action::Promise(promised) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((promised.epoch, &promised.holds[..]), (1, &[Incarnation(1)][..]));
    assert_eq!(actions[1], Action::Lead { epoch: 1 });
    assert!(!replica.standing(at(10)).may_append, "the epoch record is not there yet");
    replica.log_moved(at(20), LogPosition { epoch: 1, end: 9, flushed: 0, lacks_state: false });
    assert!(!replica.standing(at(20)).may_append, "it is not flushed");
    replica.log_moved(at(30), LogPosition { epoch: 1, end: 9, flushed: 9, lacks_state: false });
    let standing = Standing {
        may_append: true,
        acknowledged: 9,
        visible: Some(9),
        until: Duration::MAX,
        acknowledged_until: Duration::MAX,
    };
    assert_eq!(replica.standing(at(30)), standing);
    // Alone, it needs no lease.
    assert_eq!(replica.standing(at(3_600_000)), standing);
}

#[test]
fn a_record_that_went_backwards_is_not_obeyed() {
    let mut replica = replica(Settings::new(1), promise(7));
    let mut record = Record { epoch: 6, ..Record::default() };
    let actions = settle(&mut replica, at(10_000), &mut record, &mut Lease::default());
    assert_eq!(actions, []);
    assert_eq!(replica.role(), Role::Waiting);
    assert_eq!(record.epoch, 6);
}

#[test]
fn nobody_is_elected_before_all_of_a_new_group_were_heard() {
    let mut replica = replica(Settings::new(2), promise(0));
    let (mut record, mut lease) = Default::default();
    settle(&mut replica, at(60_000), &mut record, &mut lease);
    assert_eq!(record.epoch, 0);
    replica.heard(at(60_000), report(1));
    settle(&mut replica, at(60_100), &mut record, &mut lease);
    assert_eq!((record.epoch, record.master), (1, Some(replica.me())));
    // Two in sync are needed.
    replica.log_moved(at(60_200), LogPosition { epoch: 1, end: 9, flushed: 9, lacks_state: false });
    assert_eq!(replica.standing(at(60_200)), Standing::default());
}

/// It was said before this replica was master, so nobody has compared it with its clock.
#[test]
fn a_time_that_will_never_be_ends_nothing() {
    let mut replica = replica(Settings::new(2), promise(0));
    let (mut record, mut lease) = Default::default();
    settle(&mut replica, at(60_000), &mut record, &mut lease);
    let echo = Some(Duration::MAX);
    replica.heard(at(60_000), Report { follows: Some(1), echo, ..report(1) });
    settle(&mut replica, at(60_100), &mut record, &mut lease);
    replica.log_moved(at(60_200), LogPosition { epoch: 1, ..LogPosition::default() });
    settle(&mut replica, at(60_200), &mut record, &mut lease);
    assert_eq!((record.epoch, record.in_sync.len()), (1, 2));
    assert_eq!(replica.standing(at(60_200)).acknowledged, 0);
}

/// What replica 1 tells.
fn report(sent: u64) -> Report {
    Report {
        from: Member { replica: ReplicaId(1), incarnation: Incarnation(5) },
        promised: 0,
        promised_version: 0,
        refuses: false,
        leaves: false,
        hands_over: false,
        position: LogPosition::default(),
        leads: None,
        follows: None,
        lost: None,
        confirmed: 0,
        sent: at(sent),
        echo: None,
    }
}

/// A log that begins where its master's does is as long as one that nobody waited for, and says nothing of
/// what went before.
#[test]
fn who_lacks_the_state_is_not_in_sync_where_nobody_waits_for_copies() {
    let settings = Settings { replication: Replication::Async, ..Settings::new(2) };
    let mut replica = replica(settings, promise(0));
    let (mut record, mut lease) = Default::default();
    settle(&mut replica, at(1_000), &mut record, &mut lease);
    replica.heard(at(1_000), report(1));
    settle(&mut replica, at(1_100), &mut record, &mut lease);
    let position = LogPosition { epoch: 1, end: 9, flushed: 9, lacks_state: false };
    replica.log_moved(at(1_200), position);
    for (lacks_state, members) in [(true, 1), (false, 2)] {
        let position = LogPosition { lacks_state, ..position };
        let sent = at(2 + members as u64);
        let follower = Report { promised: 1, position, follows: Some(1), sent, ..report(2) };
        replica.heard(at(1_300), follower);
        settle(&mut replica, at(1_300), &mut record, &mut lease);
        assert_eq!(record.in_sync.len(), members);
    }
}

#[test]
fn a_standing_says_until_when_it_may_be_used() {
    for replication in [Replication::Sync, Replication::Async] {
        let settings = Settings { replication, ..Settings::new(2) };
        let mut replica = replica(settings, promise(0));
        let (mut record, mut lease) = Default::default();
        settle(&mut replica, at(1_000), &mut record, &mut lease);
        replica.heard(at(1_000), report(1));
        // The lease is asked for now.
        settle(&mut replica, at(1_100), &mut record, &mut lease);
        let position = LogPosition { epoch: 1, end: 9, flushed: 9, lacks_state: false };
        replica.log_moved(at(1_200), position);
        let alone = replica.standing(at(1_200));
        // In a set of one it is the only one that can be elected.
        let expected = if replication == Replication::Sync { at(0) } else { Duration::MAX };
        assert_eq!(alone.until, expected);
        let (follows, echo) = (Some(1), Some(at(1_200)));
        let follower = Report { promised: 1, position, follows, echo, ..report(2) };
        replica.heard(at(1_300), follower);
        settle(&mut replica, at(1_300), &mut record, &mut lease);
        if replication == Replication::Sync {
            // It did not promise yet what says that it is in the set.
            assert_eq!(replica.standing(at(1_300)), Standing::default());
        }
        let (promised_version, sent) = (record.in_sync_version, at(3));
        replica.heard(at(1_300), Report { promised_version, sent, ..follower });
        let standing = replica.standing(at(1_300));
        // What it echoed lately counts as much as the lease; what was confirmed stays so.
        let until = 5_200;
        let later = if replication == Replication::Sync { 9 } else { 0 };
        assert!(standing.may_append_at(at(until - 1)) && !standing.may_append_at(at(until)));
        assert_eq!(standing.acknowledged_at(at(until - 1)), 9);
        assert_eq!(standing.acknowledged_at(at(until)), later);
        assert!(!replica.standing(at(until)).may_append);
    }
}

#[test]
fn who_cannot_read_the_record_follows_the_master_that_is_heard() {
    let master = report(1).from;
    let first = Record {
        master: Some(master),
        in_sync: [master].into_iter().collect(),
        ..Record::default()
    };
    let record = |epoch| Record { epoch, in_sync_version: epoch, ..first.clone() };
    let mut replica = replica(Settings::new(2), promise(2));
    // It went backwards, or somebody else says so.
    replica.heard_record(at(10), master, record(1));
    replica.heard_record(at(10), Member { replica: ReplicaId(0), ..master }, record(3));
    assert_eq!((replica.take_actions(), replica.role()), (vec![], Role::Waiting));
    replica.heard_record(at(20), master, record(3));
    let follow = Action::Follow { master, epoch: 3 };
    let actions = replica.take_actions();
    assert!(matches!(&actions[0], Action::Promise(promised) if promised.epoch == 3));
    assert_eq!(actions[1], follow);
    // It may not swap what it did not read.
    replica.heard_record(at(30), master, record(4));
    assert_eq!(replica.role(), Role::Follower { master, epoch: 4 });
    replica.tick(at(60_000));
    let asks = |action: &Action| matches!(action, Action::SwapRecord { .. });
    assert!(!replica.take_actions().iter().any(asks));
}

/// A read that finds this.
fn found(replica: &mut Replica, now: Duration, record: &Record) {
    replica.tick(now);
    for action in replica.take_actions() {
        if let Action::Read { request } = action {
            let version = Version(format!("{}-{}", record.epoch, record.in_sync_version));
            let lease = (Version("1".into()), Lease::default());
            replica.read(now, request, Some(((version, record.clone()), lease)));
        }
    }
}

#[test]
fn a_record_that_was_restored_is_refused_with_a_reason() {
    let master = report(1).from;
    let third = Member { replica: ReplicaId(2), incarnation: Incarnation(7) };
    let first = Record::default().elect(master);
    let second = first.elect(third).serving();
    let mut replica = replica(Settings::new(3), promise(0));
    found(&mut replica, at(1_000), &second);
    let follows = Role::Follower { master: third, epoch: 2 };
    assert_eq!((replica.role(), replica.complaint(at(1_000))), (follows, None));
    // It was restored, and then deleted: nobody is left for that.
    for (now, record) in [(2_000, first.clone()), (3_000, Record::default())] {
        found(&mut replica, at(now), &record);
        let complaint = replica.complaint(at(now)).unwrap();
        assert!(matches!(complaint, Complaint::WentBack { promised_epoch: 2, .. }), "{complaint}");
        assert_eq!(replica.role(), follows);
    }
    // It was restored, and somebody was elected by it: that is no later record.
    let other = first.elect(master).serving().elect(master);
    found(&mut replica, at(4_000), &other);
    let complaint = replica.complaint(at(4_000)).unwrap();
    assert!(matches!(complaint, Complaint::Forked { epoch: 3, .. }), "{complaint}");
    replica.heard_record(at(4_000), master, other.serving());
    assert_eq!(replica.role(), follows);
    // It was put back.
    found(&mut replica, at(5_000), &second.serving());
    assert_eq!((replica.role(), replica.complaint(at(5_000))), (follows, None));
    // Others say that it went further, and still after the next read.
    let ahead = Report { promised: 9, promised_version: 9, ..report(2) };
    replica.heard(at(5_100), ahead);
    assert_eq!(replica.complaint(at(5_100)), None);
    found(&mut replica, at(6_000), &second.serving());
    let complaint = Complaint::PeerPromisedMore { replica: ReplicaId(1), epoch: 9, found: 2 };
    assert_eq!(replica.complaint(at(6_000)), Some(complaint));
    let refuses = Report { promised: 2, refuses: true, ..report(3) };
    replica.heard(at(6_100), refuses);
    assert_eq!(replica.complaint(at(6_100)), Some(Complaint::PeerRefuses(ReplicaId(1))));
}

#[test]
fn a_read_that_began_before_a_swap_was_heard_of_is_no_evidence() {
    let master = report(1).from;
    let first = Record::default().elect(master);
    let second = first.serving();
    let mut replica = replica(Settings::new(3), promise(0));
    found(&mut replica, at(1_000), &first);
    // A read is under way while the master tells of its swap, and is answered from before that.
    replica.changed();
    replica.tick(at(2_000));
    let actions = replica.take_actions();
    let read = actions.iter().find_map(|action| match action {
        Action::Read { request } => Some(*request),
        _ => None,
    });
    replica.heard_record(at(2_050), master, second.clone());
    let answer = ((Version("old".into()), first.clone()), (Version("1".into()), Lease::default()));
    replica.read(at(2_100), read.unwrap(), Some(answer));
    assert_eq!(replica.complaint(at(2_100)), None);
    let follows = Role::Follower { master, epoch: 1 };
    assert_eq!((replica.role(), replica.record()), (follows, Some(&second)));
    // It asks again at once, and what is found then counts.
    replica.take_actions();
    found(&mut replica, at(2_200), &first);
    let complaint = replica.complaint(at(2_200)).unwrap();
    assert!(matches!(complaint, Complaint::WentBack { .. }), "{complaint}");
    found(&mut replica, at(3_000), &second);
    assert_eq!(replica.complaint(at(3_000)), None);
}

#[test]
fn a_lower_min_in_sync_counts_once_nobody_else_can_be_elected() {
    let three = Settings::new(3);
    let mut replica = replica(three.clone(), promise(0));
    // Elected alone; both others could be elected as well.
    let others = [report(1).from, Member { replica: ReplicaId(2), incarnation: Incarnation(7) }];
    let all = others.into_iter().chain([replica.me()]).collect();
    let mut record = Record::default().elect(others[0]).with_in_sync(all, 2).elect(replica.me());
    let mut lease = Lease::default();
    found(&mut replica, at(1_000), &record);
    let position = LogPosition { epoch: 2, end: 9, flushed: 9, lacks_state: false };
    replica.log_moved(at(1_000), position);
    replica.configure(at(1_000), Settings { min_in_sync: 1, ..three.clone() });
    replica.log_moved(at(1_000), position);
    assert_eq!(replica.standing(at(1_000)), Standing::default());
    settle(&mut replica, at(1_100), &mut record, &mut lease);
    assert_eq!((record.eligible.len(), replica.standing(at(1_100)).acknowledged), (0, 9));
    // A higher one counts at once.
    replica.configure(at(1_200), three);
    assert_eq!(replica.standing(at(1_200)).acknowledged, 0);
}

#[test]
fn who_left_the_group_leaves_the_set_once_it_is_large_enough_without() {
    let mut replica = replica(Settings::new(3), promise(0));
    let follower = report(1).from;
    let left = Member { replica: ReplicaId(2), incarnation: Incarnation(7) };
    let set = |members: &[Member]| members.iter().copied().collect::<Members>();
    let me = replica.me();
    let mut record = Record::default().elect(me).with_in_sync(set(&[me, left]), 1);
    let mut lease = Lease::default();
    found(&mut replica, at(1_000), &record);
    let position = LogPosition { epoch: 1, end: 9, flushed: 9, lacks_state: false };
    replica.log_moved(at(1_000), position);
    replica.configure(at(1_000), Settings::new(2));
    settle(&mut replica, at(1_100), &mut record, &mut lease);
    assert!(record.in_sync.has(left), "two are needed");
    let joins = Report { promised: 1, follows: Some(1), position, ..report(2) };
    replica.heard(at(1_200), joins);
    // Who left follows as well and is not taken in again.
    replica.heard(at(1_200), Report { from: left, ..joins });
    settle(&mut replica, at(1_300), &mut record, &mut lease);
    assert_eq!(record.in_sync, set(&[me, follower]));
}

#[test]
fn a_time_of_another_clock_is_no_reason_not_to_believe_a_report() {
    let mut replica = replica(Settings::new(2), promise(0));
    let (mut record, mut lease) = Default::default();
    replica.heard(at(1_000), Report { echo: Some(at(9_000_000)), ..report(1) });
    settle(&mut replica, at(1_000), &mut record, &mut lease);
    assert_eq!(record.epoch, 1, "it was heard");
}

#[test]
fn who_hears_its_master_reads_what_changed_and_nothing_else() {
    let master = report(1).from;
    let record = Record {
        master: Some(master),
        in_sync: [master].into_iter().collect(),
        ..Record::default().elect(master)
    };
    let mut replica = replica(Settings::new(2), promise(0));
    let found = || {
        let version = || Version("1".to_owned());
        Some(((version(), record.clone()), (version(), Lease::default())))
    };
    // How often it read from one time to another, the master being heard or not.
    let mut reads = |from: u64, to: u64, is_heard: bool, is_changed: bool| {
        if is_changed {
            replica.changed();
        }
        let mut count = 0;
        for now in (from..to).step_by(100) {
            if is_heard && now % 500 == 0 {
                replica.heard(at(now), Report { promised: 1, leads: Some(1), ..report(now) });
            }
            replica.tick(at(now));
            for action in replica.take_actions() {
                if let Action::Read { request } = action {
                    count += 1;
                    replica.read(at(now), request, found());
                }
            }
        }
        count
    };
    // Until it has heard of it.
    assert!(reads(0, 1_000, true, false) <= 2);
    assert_eq!(reads(1_000, 9_000, true, false), 0);
    assert_eq!(reads(9_000, 10_000, true, true), 1);
    // In case nobody says anything.
    assert_eq!(reads(10_000, 31_000, true, false), 2);
    // The last word is of 30.5 s.
    assert_eq!(reads(31_000, 31_500, false, false), 0);
    assert!(reads(31_500, 33_500, false, false) >= 4);
}

/// Replica 0 of three, which elected replica 1 in epoch 1 and hears nobody.
fn left_alone(settings: Settings) -> (Replica, Record) {
    let mut replica = replica(settings, promise(0));
    let master = report(1).from;
    let me = replica.me();
    let set = [master, me].into_iter().collect();
    let record = Record::default().elect(master).with_in_sync(set, 2).serving();
    found(&mut replica, at(1_000), &record);
    assert_eq!(replica.role(), Role::Follower { master, epoch: 1 });
    (replica, record)
}

#[test]
fn with_manual_failover_a_replica_waits_until_it_is_told_for_this_epoch() {
    let manual = Settings { takes_over: false, ..Settings::new(3) };
    let (mut replica, mut record) = left_alone(manual.clone());
    let mut lease = Lease::default();
    let mut told = |replica: &mut Replica, now: u64, promotion: Option<(u32, u64)>| {
        let promotion = promotion.map(|(replica, epoch)| Promotion {
            replica: ReplicaId(replica),
            epoch,
            accepts_loss: false,
        });
        replica.configure(at(now), Settings { promotion, ..manual.clone() });
        for step in 0..200 {
            settle(replica, at(now + step * 100), &mut record, &mut lease);
        }
        (record.epoch, record.master.map(|master| master.replica.0))
    };
    assert_eq!(told(&mut replica, 60_000, None), (1, Some(1)));
    assert_eq!(told(&mut replica, 120_000, Some((1, 1))), (1, Some(1)), "somebody else");
    assert_eq!(told(&mut replica, 180_000, Some((0, 2))), (1, Some(1)), "another epoch");
    assert_eq!(told(&mut replica, 240_000, Some((0, 1))), (2, Some(0)));
    assert_eq!(record.loss_epoch, 0);
}

#[test]
fn with_manual_failover_a_master_that_was_started_again_goes_on() {
    let manual = Settings { takes_over: false, ..Settings::new(3) };
    let held = Promise::at_start(Some(promise(1)), true, Incarnation(2));
    let mut replica = replica(manual, held);
    let before = Member { incarnation: Incarnation(1), ..replica.me() };
    let mut record = Record::default().elect(before).serving();
    let mut lease = Lease::default().taken_by(before);
    for step in 0..10 {
        settle(&mut replica, at(60_000 + step * 100), &mut record, &mut lease);
    }
    assert_eq!(record.master, Some(replica.me()));
    assert_eq!(replica.role(), Role::Master { epoch: 2 });
}

#[test]
fn who_handed_over_and_was_started_again_listens_before_it_takes_its_lease_back() {
    let held = Promise::at_start(Some(promise(1)), true, Incarnation(2));
    let mut replica =
        Replica::new(Settings::new(2), ReplicaId(0), held, LogPosition::default(), at(60_000));
    let before = Member { incarnation: Incarnation(1), ..replica.me() };
    let heir = report(1).from;
    // Both stay in the set, which is at its minimum.
    let all = [before, heir].into_iter().collect();
    let record = Record::default().elect(before).with_in_sync(all, 2).serving();
    let mut record = record.hand_over(heir, 2);
    let mut lease = Lease::default().taken_by(before);
    for now in (60_000..62_000).step_by(100) {
        settle(&mut replica, at(now), &mut record, &mut lease);
        assert_eq!((record.epoch, record.master), (2, Some(heir)), "at {now}");
        assert_eq!(lease.holder, Some(before), "at {now}");
    }
    // Nobody came.
    for now in (62_000..63_000).step_by(100) {
        settle(&mut replica, at(now), &mut record, &mut lease);
    }
    assert_eq!((record.epoch, record.master), (3, Some(replica.me())));
}

#[test]
fn a_loss_has_to_be_accepted_and_is_recorded() {
    let master = report(1).from;
    let outside = |accepts_loss| {
        let promotion = Promotion { replica: ReplicaId(0), epoch: 1, accepts_loss };
        let settings = Settings { promotion: Some(promotion), ..Settings::new(3) };
        let mut replica = replica(settings, promise(0));
        // It is in no set.
        let mut record = Record::default().elect(master).serving();
        let mut lease = Lease::default();
        // As long as somebody follows it waits.
        let follows = Report { promised: 1, follows: Some(1), ..report(1) };
        let third = Member { replica: ReplicaId(2), incarnation: Incarnation(7) };
        replica.heard(at(30_000), Report { from: third, ..follows });
        settle(&mut replica, at(30_000), &mut record, &mut lease);
        assert_eq!(record.epoch, 1);
        for step in 0..200 {
            settle(&mut replica, at(60_000 + step * 100), &mut record, &mut lease);
        }
        (record.epoch, record.loss_epoch)
    };
    assert_eq!(outside(false), (1, 0));
    assert_eq!(outside(true), (2, 2));
}
