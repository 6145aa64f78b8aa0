//! Masters that are of no use where they are.

use super::leave::master;
use super::*;

/// Lets so much time pass in which the authority does not answer, and `heard` is heard each 500 ms.
fn pass(replica: &mut Replica, heard: &[Report], from: u64, to: u64) {
    for now in (from..to).step_by(100) {
        for report in heard.iter().filter(|_| now % 500 == 0) {
            replica.heard(at(now), Report { sent: at(now), ..*report });
        }
        replica.tick(at(now));
        replica.take_actions();
    }
}

#[test]
fn who_does_not_learn_what_became_of_a_hand_over_takes_no_other_and_resigns() {
    let (mut replica, _, _, follow) = master();
    assert!(replica.hand_over(at(61_500), None));
    replica.tick(at(61_500));
    let asked = replica.take_actions();
    let hands_over = |action: &Action| match action {
        Action::SwapRecord { record, .. } => record.master != Some(replica.me()),
        _ => false,
    };
    assert!(asked.iter().any(hands_over), "{asked:?}");
    // The heir was given up. Which of both is master nobody knows here.
    pass(&mut replica, &follow, 61_500, 70_000);
    assert!(replica.is_handing_over() && !replica.hand_over(at(70_000), None));
    assert!(!replica.standing(at(70_000)).may_append);
    assert_eq!(replica.role(), Role::Master { epoch: 1 });
    // 6 s after the heir was given up others do better, and hear of it.
    pass(&mut replica, &follow, 70_000, 71_400);
    assert_eq!(replica.role(), Role::Master { epoch: 1 });
    let told = (71_400..72_000).step_by(100).flat_map(|now| {
        replica.tick(at(now));
        replica.take_actions()
    });
    let mut told = told.skip_while(|action| *action != Action::Stop);
    let is_over = |report: Report| report.leaves && report.leads.is_none();
    assert!(told.any(|action| matches!(action, Action::Tell(report) if is_over(report))));
    assert_eq!(replica.role(), Role::Waiting);
}

#[test]
fn who_hears_nobody_any_more_gives_its_office_up_and_its_next_start_takes_it_again() {
    let (mut replica, mut record, mut lease, [one, _]) = master();
    // The last renewal is of 61.4 s at the latest, and holds for 4 s.
    pass(&mut replica, &[], 61_500, 66_000);
    assert_eq!(replica.role(), Role::Master { epoch: 1 });
    assert!(!replica.standing(at(66_000)).may_append);
    pass(&mut replica, &[], 66_000, 67_600);
    assert_eq!(replica.role(), Role::Waiting);
    // This start is about to be over.
    assert_eq!(settle(&mut replica, at(70_000), &mut record, &mut lease), []);
    let held = Promise::at_start(Some(replica.promise.clone()), true, Incarnation(2));
    let position = LogPosition { epoch: 1, end: 9, flushed: 9, lacks_state: false };
    let mut replica = Replica::new(Settings::new(3), ReplicaId(0), held, position, at(70_000));
    // Nobody was elected meanwhile.
    let actions = settle(&mut replica, at(70_100), &mut record, &mut lease);
    assert_eq!(actions.last(), Some(&Action::Lead { epoch: 2 }), "{actions:?}");

    // Who hears one of the others waits for the authority.
    let (mut replica, ..) = master();
    pass(&mut replica, &[one], 61_500, 70_000);
    assert_eq!(replica.role(), Role::Master { epoch: 1 });
}

#[test]
fn a_master_gets_the_time_to_do_without_a_member_only_where_it_can() {
    let member = |id| Member { replica: ReplicaId(id), incarnation: Incarnation(5) };
    for (others, seconds) in [(vec![1], 6), (vec![1, 3], 16)] {
        let mut replica = replica(Settings::new(4), promise(0));
        let set = others.into_iter().map(member).chain([replica.me()]).collect();
        let mut record = Record::default().elect(member(1)).with_in_sync(set, 2).serving();
        let mut lease = Lease::default();
        let elected = (1_000..30_000).step_by(100).find(|now| {
            // It renews its lease, and a replica that is not in the set is here.
            if now % 1_000 == 0 {
                lease = lease.taken_by(member(1));
            }
            replica.heard(at(*now), Report { from: member(2), ..report(*now) });
            settle(&mut replica, at(*now), &mut record, &mut lease);
            record.epoch == 2
        });
        assert_eq!(elected.map(|now| (now - 1_000) / 1_000), Some(seconds));
    }
}

#[test]
fn who_stops_leading_says_that_it_leaves_and_is_no_heir() {
    let (mut replica, record, _, [one, _]) = master();
    let handed = record.hand_over(one.from, 2);
    replica.changed();
    found(&mut replica, at(61_500), &handed);
    assert_eq!(replica.role(), Role::Follower { master: one.from, epoch: 2 });
    replica.tell(at(61_600));
    let told = replica.take_actions().into_iter().find_map(|action| match action {
        Action::Tell(report) => Some(report.leaves),
        _ => None,
    });
    assert_eq!(told, Some(true));
}

#[test]
fn the_lease_of_a_master_that_gave_its_office_up_is_free() {
    // Of two, which most members cannot do without.
    let (settings, master) = (Settings::new(2), report(1).from);
    for (is_over, elected) in [(true, 2_000..2_200), (false, 7_800..8_200)] {
        let mut replica = replica(settings.clone(), promise(0));
        let set = [master, replica.me()].into_iter().collect();
        let mut record = Record::default().elect(master).with_in_sync(set, 2).serving();
        let mut lease = Lease::default();
        let promised =
            Report { promised: 1, promised_version: record.in_sync_version, ..report(1) };
        let is_elected = |now: &u64| {
            let leads = Report { leads: Some(1), ..promised };
            if *now < 2_000 {
                // The last renewal is of 2 s.
                lease = lease.taken_by(master);
                replica.changed();
            }
            let gave_up = Report { leaves: is_over, ..promised };
            let report = if *now < 2_000 { leads } else { gave_up };
            replica.heard(at(*now), Report { sent: at(*now), ..report });
            settle(&mut replica, at(*now), &mut record, &mut lease);
            record.epoch == 2
        };
        let now = (1_000..20_000).step_by(100).find(is_elected).unwrap();
        assert!(elected.contains(&now), "{now}");
    }
}
