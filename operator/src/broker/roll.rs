//! The order of a rolling restart: slaves first, then a hand-over, the old master last. Pure.

use super::observe::{GroupView, PodView};

/// What to do next in a group; one thing at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Every pod is as it should be.
    Nothing,
    /// Something is under way, and what.
    Wait(String),
    /// Restart this pod, if its broker says that it is safe.
    Restart { pod: String, why: &'static str },
    /// Restart this pod, which does not run anyway.
    Replace { pod: String, why: &'static str },
    /// Have the master hand over to this replica.
    HandOver { to: u32, why: &'static str },
}

/// The next step.
///
/// `is_leaving` says of a node that nothing should stay on it: somebody cordoned it.
pub(super) fn next(group: &GroupView, is_leaving: impl Fn(&str) -> bool) -> Step {
    if !group.is_current {
        return Step::Wait(
            "the StatefulSet controller has not seen the newest template".to_owned(),
        );
    }
    let outdated = |pod: &&PodView| !pod.is_up_to_date;
    let leaves = |replica: u32| replica >= group.declared;
    if let Some(pod) = group.pods.iter().find(|pod| pod.is_terminating) {
        return Step::Wait(format!("{} is ending", pod.name));
    }
    // A broker that does not run gets no better by waiting for it, and ending its pod ends nothing. One that
    // runs and is not ready may be reading its store.
    let stuck = group.pods.iter().filter(outdated).find(|pod| !pod.is_ready && pod.is_stuck);
    if let Some(pod) = stuck {
        return Step::Replace { pod: pod.name.clone(), why: "OutdatedAndNotRunning" };
    }
    // Where only what runs beside a broker is not ready, the new template may be what mends that.
    let is_there = |pod: &PodView| pod.is_ready || pod.is_held_up && !pod.is_up_to_date;
    if let Some(pod) = group.pods.iter().find(|pod| !is_there(pod)) {
        let trouble = pod.trouble.as_deref().unwrap_or("not ready");
        return Step::Wait(format!("{}: {trouble}", pod.name));
    }
    if (group.pods.len() as u32) < group.wanted {
        return Step::Wait(format!("{} of {} pods are there", group.pods.len(), group.wanted));
    }
    let Some(master) = group.master() else {
        return Step::Wait("the group has no master".to_owned());
    };
    let slave = group.pods.iter().rev().filter(outdated).find(|pod| pod.replica != master);
    if let Some(pod) = slave {
        return Step::Restart { pod: pod.name.clone(), why: pod.changed };
    }
    let Some(pod) = group.pod(master) else {
        return Step::Wait("the master's pod is not there".to_owned());
    };
    let is_on_leaving_node = pod.node.as_deref().is_some_and(&is_leaving);
    if pod.is_up_to_date && !is_on_leaving_node && !leaves(master) {
        return match group.wanted > group.declared {
            true => Step::Wait("replicas leave the in-sync set before their pods go".to_owned()),
            false => Step::Nothing,
        };
    }
    let why = match pod.is_up_to_date {
        false => pod.changed,
        true if leaves(master) => "ReplicaLeaves",
        true => "NodeCordoned",
    };
    if !group.is_elected || group.pods.len() == 1 {
        // There is nobody to hand over to. A node that is drained evicts the pod itself.
        return match pod.is_up_to_date {
            true => Step::Nothing,
            false => Step::Restart { pod: pod.name.clone(), why },
        };
    }
    // The new master would wait for the old one, which begins anew.
    let in_sync = group.in_sync_count();
    if in_sync <= group.min_in_sync as usize && in_sync < group.pods.len() {
        return Step::Wait(format!("{in_sync} of {} pods are in sync", group.pods.len()));
    }
    let heir = group.pods.iter().find(|heir| {
        heir.replica != master
            && heir.is_up_to_date
            && group.is_in_sync(heir.replica)
            && !leaves(heir.replica)
            && !heir.node.as_deref().is_some_and(&is_leaving)
    });
    match heir {
        Some(heir) => Step::HandOver { to: heir.replica, why },
        None if pod.is_up_to_date => Step::Nothing,
        None => Step::Wait("no slave is in sync to take over".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use weirmq_authority::ReplicaId;

    use super::*;
    use crate::broker::tests::{member, three_replicas};

    fn group(master: u32, outdated: &[u32]) -> GroupView {
        let mut group = three_replicas();
        group.record.as_mut().unwrap().master = Some(member(master));
        for pod in &mut group.pods {
            pod.is_up_to_date = !outdated.contains(&pod.replica);
            pod.changed = "ImageChanged";
        }
        group
    }

    /// The steps until nothing is left, as a cluster would take them.
    fn steps(mut group: GroupView) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..10 {
            let step = next(&group, |_| false);
            match &step {
                Step::Nothing | Step::Wait(_) => return steps,
                Step::Restart { pod, .. } | Step::Replace { pod, .. } => {
                    let pod = group.pods.iter_mut().find(|found| found.name == *pod).unwrap();
                    (pod.is_up_to_date, pod.is_ready) = (true, true);
                }
                Step::HandOver { to, .. } => {
                    let record = group.record.as_mut().unwrap();
                    record.master = Some(member(*to));
                }
            }
            steps.push(step);
        }
        panic!("no end: {steps:?}");
    }

    #[test]
    fn slaves_go_first_and_the_old_master_last() {
        let restart = |pod: &str| Step::Restart { pod: pod.to_owned(), why: "ImageChanged" };
        let wanted = [
            restart("mq-0-2"),
            restart("mq-0-0"),
            Step::HandOver { to: 0, why: "ImageChanged" },
            restart("mq-0-1"),
        ];
        assert_eq!(steps(group(1, &[0, 1, 2])), wanted);
        assert_eq!(steps(group(1, &[])), []);
    }

    #[test]
    fn nothing_is_restarted_while_another_pod_is_away() {
        let mut away = group(0, &[1]);
        away.pods[2].is_ready = false;
        assert!(matches!(next(&away, |_| false), Step::Wait(_)));
        away.pods.remove(2);
        assert!(matches!(next(&away, |_| false), Step::Wait(_)));
        let mut ending = group(0, &[1]);
        ending.pods[0].is_terminating = true;
        assert!(matches!(next(&ending, |_| false), Step::Wait(_)));
        let mut unseen = group(0, &[1]);
        unseen.is_current = false;
        assert!(matches!(next(&unseen, |_| false), Step::Wait(_)));
    }

    #[test]
    fn a_template_that_does_not_start_can_be_mended() {
        let mut broken = group(0, &[2]);
        broken.pods[2].is_ready = false;
        assert!(matches!(next(&broken, |_| false), Step::Wait(_)), "it may be reading its store");
        broken.pods[2].is_stuck = true;
        let why = "OutdatedAndNotRunning";
        assert_eq!(next(&broken, |_| false), Step::Replace { pod: "mq-0-2".to_owned(), why });
    }

    #[test]
    fn what_does_not_run_beside_brokers_is_mended_one_by_one() {
        let mut broken = group(0, &[0, 1, 2]);
        for pod in &mut broken.pods {
            (pod.is_ready, pod.is_held_up) = (false, true);
            pod.trouble = Some("CrashLoopBackOff".to_owned());
        }
        let why = "ImageChanged";
        let restart = |pod: &str| Step::Restart { pod: pod.to_owned(), why };
        let wanted = [
            restart("mq-0-2"),
            restart("mq-0-1"),
            Step::HandOver { to: 1, why },
            restart("mq-0-0"),
        ];
        assert_eq!(steps(broken.clone()), wanted);
        // The new template does not mend it: that is seen at the first pod.
        broken.pods[2].is_up_to_date = true;
        assert!(matches!(next(&broken, |_| false), Step::Wait(_)));
        // One alone has nobody to hand over to.
        broken.pods.truncate(1);
        (broken.is_elected, broken.record, broken.wanted) = (false, None, 1);
        assert_eq!(next(&broken, |_| false), restart("mq-0-0"));
    }

    #[test]
    fn a_master_leaves_a_cordoned_node_for_one_that_is_not() {
        let group = group(0, &[]);
        let step = next(&group, |node| node == "n0" || node == "n1");
        assert_eq!(step, Step::HandOver { to: 2, why: "NodeCordoned" });
        assert_eq!(next(&group, |_| true), Step::Nothing);
        assert_eq!(next(&group, |node| node == "n1"), Step::Nothing);
    }

    #[test]
    fn a_master_out_of_date_waits_for_a_slave_in_sync() {
        let mut group = group(0, &[0]);
        let record = group.record.as_mut().unwrap();
        record.in_sync = record.in_sync.iter().filter(|member| member.replica.0 == 0).collect();
        assert!(matches!(next(&group, |_| false), Step::Wait(_)));
        group.is_elected = false;
        group.record = None;
        assert!(matches!(next(&group, |_| false), Step::Restart { .. }));
    }

    #[test]
    fn the_office_is_not_handed_over_before_slaves_are_back_in_sync() {
        let mut group = group(0, &[0]);
        let record = group.record.as_mut().unwrap();
        let whole = record.in_sync.clone();
        record.in_sync.remove(ReplicaId(2));
        assert_eq!(next(&group, |_| false), Step::Wait("2 of 3 pods are in sync".to_owned()));
        group.record.as_mut().unwrap().in_sync = whole;
        assert_eq!(next(&group, |_| false), Step::HandOver { to: 1, why: "ImageChanged" });
    }

    #[test]
    fn a_master_that_leaves_hands_over_to_one_that_stays() {
        let mut group = group(2, &[]);
        group.declared = 2;
        assert_eq!(next(&group, |_| false), Step::HandOver { to: 0, why: "ReplicaLeaves" });
        group.record.as_mut().unwrap().master = Some(member(0));
        assert!(matches!(next(&group, |_| false), Step::Wait(_)));
    }
}
