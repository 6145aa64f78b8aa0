//! Slaves that end, and whom a master that ends picks.

use super::*;

fn member(replica: u32) -> Member {
    Member { replica: ReplicaId(replica), incarnation: Incarnation(u64::from(replica) + 4) }
}

/// A master of three, all in sync and heard at `at(1_300)`; what the other two report.
pub(super) fn master() -> (Replica, Record, Lease, [Report; 2]) {
    let mut replica = replica(Settings::new(3), promise(0));
    let (mut record, mut lease) = Default::default();
    let reports = [1, 2].map(|id| Report { from: member(id), ..report(1) });
    settle(&mut replica, at(60_000), &mut record, &mut lease);
    reports.iter().for_each(|report| replica.heard(at(60_000), *report));
    settle(&mut replica, at(60_100), &mut record, &mut lease);
    let position = LogPosition { epoch: 1, end: 9, flushed: 9, lacks_state: false };
    replica.log_moved(at(60_200), position);
    let follows = reports.map(|report| Report {
        promised: 1,
        follows: Some(1),
        position,
        sent: at(2),
        ..report
    });
    follows.iter().for_each(|report| replica.heard(at(61_300), *report));
    settle(&mut replica, at(61_300), &mut record, &mut lease);
    let promised_version = record.in_sync_version;
    let follows = follows.map(|report| Report { promised_version, sent: at(3), ..report });
    follows.iter().for_each(|report| replica.heard(at(61_400), *report));
    settle(&mut replica, at(61_400), &mut record, &mut lease);
    assert_eq!(record.in_sync.len(), 3);
    assert!(replica.standing(at(61_400)).may_append);
    (replica, record, lease, follows)
}

#[test]
fn who_says_that_it_leaves_is_taken_out_at_once_and_comes_in_again_as_another_start() {
    let (mut replica, mut record, mut lease, [one, two]) = master();
    let leaving = Report { leaves: true, sent: at(4), ..two };
    replica.heard(at(61_500), leaving);
    // Until that is in the record it counts.
    let longer = LogPosition { epoch: 1, end: 20, flushed: 20, lacks_state: false };
    replica.log_moved(at(61_500), longer);
    replica.heard(at(61_500), Report { position: longer, sent: at(5), ..one });
    assert_eq!(replica.standing(at(61_500)).acknowledged, 9);
    settle(&mut replica, at(61_500), &mut record, &mut lease);
    assert!(record.in_sync.has(one.from) && !record.in_sync.has(two.from));
    let promised_version = record.in_sync_version;
    replica.heard(at(61_510), Report { position: longer, promised_version, sent: at(6), ..one });
    assert_eq!(replica.standing(at(61_510)).acknowledged, 20);
    // It still follows, and does not come in again.
    replica.heard(at(61_520), Report { position: longer, sent: at(7), ..leaving });
    settle(&mut replica, at(61_520), &mut record, &mut lease);
    assert!(!record.in_sync.has(two.from));
    // Its next start is heard although a moment ago the one before was.
    let started = Member { incarnation: Incarnation(77), ..two.from };
    let joins = Report { from: started, position: longer, sent: at(1), promised_version, ..two };
    replica.heard(at(61_800), joins);
    settle(&mut replica, at(61_800), &mut record, &mut lease);
    assert!(record.in_sync.has(started));
}

#[test]
fn the_set_does_not_shrink_below_its_minimum_for_who_leaves() {
    let (mut replica, mut record, mut lease, [one, two]) = master();
    for report in [one, two] {
        replica.heard(at(61_500), Report { leaves: true, sent: at(4), ..report });
    }
    settle(&mut replica, at(61_500), &mut record, &mut lease);
    assert_eq!(record.in_sync.len(), 2);
}

#[test]
fn the_office_goes_to_nobody_who_leaves_or_cannot_be_reached_or_has_been_silent() {
    let (mut replica, _, _, [one, two]) = master();
    let now = at(61_500);
    replica.heard(now, Report { leaves: true, sent: at(4), ..one });
    replica.disconnected(two.from);
    assert!(!replica.hand_over(now, None));
    // Another start of it that is gone says nothing about this one.
    replica.heard(now, Report { sent: at(4), ..two });
    replica.disconnected(Member { incarnation: Incarnation(1), ..two.from });
    assert!(!replica.hand_over(at(62_500), None), "it has not been heard for a second");
    replica.heard(at(62_500), Report { sent: at(5), ..two });
    assert!(!replica.hand_over(at(62_500), Some(one.from.replica)));
    assert!(replica.hand_over(at(62_500), None));
}

#[test]
fn a_master_goes_on_at_once_when_its_heir_is_gone() {
    let (mut replica, mut record, mut lease, [_, two]) = master();
    let behind = LogPosition { epoch: 1, end: 20, flushed: 20, lacks_state: false };
    replica.log_moved(at(61_450), behind);
    assert!(replica.hand_over(at(61_500), Some(two.from.replica)));
    // Who asks a slave whether it may be restarted hears of it.
    let tells = |replica: &mut Replica, hands_over: bool| {
        let is_it = |action: &Action| matches!(action, Action::Tell(report) if report.hands_over == hands_over);
        replica.take_actions().iter().any(is_it)
    };
    assert!(tells(&mut replica, true));
    settle(&mut replica, at(61_500), &mut record, &mut lease);
    assert!(!replica.standing(at(61_500)).may_append);
    replica.disconnected(two.from);
    settle(&mut replica, at(61_600), &mut record, &mut lease);
    assert!(replica.standing(at(61_600)).may_append);
    replica.tick(at(62_200));
    assert!(tells(&mut replica, false));
    assert_eq!(record.epoch, 1);
}

#[test]
fn a_second_request_to_hand_over_leaves_the_first_as_it_is() {
    let (mut replica, mut record, mut lease, [one, two]) = master();
    let now = at(61_500);
    assert!(!replica.is_handing_over());
    assert!(replica.hand_over(now, Some(two.from.replica)));
    assert!(!replica.hand_over(now, Some(one.from.replica)));
    assert!(!replica.hand_over(now, Some(ReplicaId(7))));
    assert!(replica.is_handing_over());
    settle(&mut replica, now, &mut record, &mut lease);
    assert_eq!((record.epoch, record.master), (2, Some(two.from)));
}

#[test]
fn a_slave_waits_to_be_taken_out_only_where_that_can_be() {
    let master = member(1);
    let others = [0, 1, 2].map(|id| Member { incarnation: Incarnation(1), ..member(id) });
    let record = Record {
        epoch: 1,
        master: Some(master),
        in_sync: [others[0], master, others[2]].into_iter().collect(),
        in_sync_version: 3,
        ..Record::default()
    };
    let slave = |record: &Record| {
        let mut replica = replica(Settings::new(3), promise(0));
        replica.heard(at(1_000), Report { promised: 1, leads: Some(1), ..report(1) });
        replica.heard_record(at(1_000), master, record.clone());
        replica.take_actions();
        assert_eq!(replica.role(), Role::Follower { master, epoch: 1 });
        replica.leave(at(1_100));
        let told = replica
            .take_actions()
            .into_iter()
            .any(|action| matches!(action, Action::Tell(Report { leaves: true, .. })));
        assert!(told);
        replica
    };
    let mut leaves = slave(&record);
    assert!(leaves.is_waited_for(at(1_100)) && leaves.is_counted());
    assert!(!leaves.is_waited_for(at(2_100)), "the master is not heard");
    let without: Members = record.in_sync.iter().filter(|it| it.replica.0 != 0).collect();
    leaves.heard_record(at(1_200), master, record.with_in_sync(without, 2));
    assert!(!leaves.is_waited_for(at(1_200)) && !leaves.is_counted(), "it is out of the set");
    let two = [others[0], master].into_iter().collect();
    let needed = slave(&Record { in_sync: two, ..record });
    assert!(!needed.is_waited_for(at(1_100)) && needed.is_counted(), "it cannot be taken out");
}
