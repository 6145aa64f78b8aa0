//! Who could take over, who was told to, and what is wrong with the record that decides it.

use kube::ResourceExt as _;
use weirmq_authority::kubernetes::ReplicationMode;

use super::Findings;
use crate::broker::build::{is_elected, is_manual, min_in_sync};
use crate::broker::observe::GroupView;
use crate::broker::regressed::Regressed;
use crate::conditions::Finding;
use crate::kinds::Broker;

/// Whether another replica takes over when a master is gone.
pub(super) fn possible(resource: &Broker, views: &[GroupView]) -> Finding {
    let type_ = "FailoverPossible";
    if !is_elected(resource) {
        let message =
            "there is no automatic failover: while a master is away its group takes no messages";
        return Finding::new(type_, false, "Disabled", message);
    }
    if is_manual(resource) {
        let message =
            "once a master is gone somebody has to promote another replica: kubectl weir promote";
        return Finding::new(type_, false, "Manual", message);
    }
    // With synchronous replication the ones that remain have to be enough to take messages again.
    let needed = match resource.spec.replication.mode {
        ReplicationMode::Sync => (min_in_sync(resource) as usize).max(1) + 1,
        ReplicationMode::Async => 2,
    };
    let able = |view: &GroupView| view.pods.iter().filter(|pod| view.can_take_over(pod)).count();
    let lacking = views.iter().find(|view| able(view) < needed);
    match lacking {
        None if let Some(view) = views.iter().find(|view| view.is_in_the_dark()) => {
            let message = format!(
                "which replicas of {} could take over is not known, as no master of it says so; it is asked again \
                 within half a minute",
                view.name
            );
            Finding::new(type_, false, "NotKnown", message)
        }
        None => match views.iter().find_map(|view| on_one_node(view, needed)) {
            Some(message) => Finding::new(type_, false, "OneNode", message),
            None => Finding::new(type_, true, "Enough", ""),
        },
        Some(view) => {
            let message = format!(
                "{} takes no messages once its master is gone: {needed} replicas are needed that are ready and in sync, {} are there",
                view.name,
                able(view)
            );
            Finding::new(type_, false, "TooFewInSync", message)
        }
    }
}

/// What is said of a group that stops with its master's node.
fn on_one_node(view: &GroupView, needed: usize) -> Option<String> {
    let node = view.pod(view.master()?)?.node.as_ref()?;
    let able = || view.pods.iter().filter(|pod| view.can_take_over(pod));
    let elsewhere = able().filter(|pod| pod.node.as_ref() != Some(node)).count();
    (elsewhere + 1 < needed).then(|| {
        format!(
            "{} takes no messages once node {node} is gone: {} of its {} replicas in sync are there. Make room on \
             other nodes and delete one of these pods",
            view.name,
            able().count() - elsewhere,
            able().count()
        )
    })
}

/// A promotion that is written down and did not happen yet.
pub(super) fn promotion(views: &[GroupView]) -> Option<Finding> {
    let waiting = views.iter().filter_map(|view| {
        let (promote, record) = (view.promote.as_ref()?, view.record.as_ref()?);
        let name = &view.name;
        if promote.epoch == record.epoch && promote.replica >= view.declared {
            return Some(format!("spec.promote of BrokerGroup {name} names replica {}, and there is none", promote.replica));
        }
        (promote.epoch == record.epoch).then(|| {
            let with_loss = promote.accept_loss.map_or("", |_| ", and messages may be lost");
            format!(
                "{name}-{} becomes master once that of epoch {} is gone{with_loss}; take spec.promote of \
                 BrokerGroup {name} away to call it off",
                promote.replica, promote.epoch
            )
        })
    });
    let waiting: Vec<String> = waiting.collect();
    (!waiting.is_empty())
        .then(|| Finding::new("PromotionPending", true, "Told", waiting.join("; ")))
}

/// Records that are older than what replicas obeyed.
pub(super) fn regression(findings: &Findings) -> Option<Finding> {
    let groups = findings.regressed.iter().map(|(name, regressed)| {
        let Regressed { obeyed, found, deleted } = regressed;
        let deleted = deleted.map(|deleted| {
            format!("; the one that was deleted last, of epoch {deleted}, is older than what they obeyed and is not put back")
        });
        format!(
            "replicas of {name} obeyed a record of epoch {obeyed}, BrokerGroup {name} is of epoch {found}{}",
            deleted.unwrap_or_default()
        )
    });
    let groups: Vec<String> = groups.collect();
    (!groups.is_empty()).then(|| {
        let what = "it was deleted, or restored from an old copy. A master that runs goes on, and no other is \
                    elected: do not restart pods, do not delete disks. Put the newest copy of its status back: \
                    docs/runbooks.md, AuthorityRegressed";
        let message = format!("{}: {what}", groups.join("; "));
        Finding::new("AuthorityRegressed", true, "RecordIsOlder", message)
    })
}

/// Groups in which acknowledged messages may have been lost.
pub(super) fn loss(views: &[GroupView]) -> Option<Finding> {
    let groups = views.iter().filter_map(|view| {
        let epoch = view.record.as_ref()?.loss_epoch;
        (epoch > 0).then(|| format!("{} from before epoch {epoch}", view.name))
    });
    let groups: Vec<String> = groups.collect();
    (!groups.is_empty()).then(|| {
        let message = format!(
            "acknowledged messages may be missing: {}. All replicas that had them lost their disks or what was \
             not flushed, or somebody accepted it; this stays, as what was lost does",
            groups.join("; ")
        );
        Finding::new("PossibleDataLoss", true, "LossEpoch", message)
    })
}

/// What to type where nobody takes over by itself.
pub(super) fn how_to_promote(resource: &Broker, view: &GroupView) -> String {
    let Some(record) = &view.record else { return "its BrokerGroup has no record yet".to_owned() };
    let (name, epoch) = (&view.name, record.epoch);
    let (namespace, broker) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let mut heirs = record.heirs();
    let who = match view.is_by_quorum {
        true => {
            // The one that lacks nothing of what the others have; of whom nothing is known last.
            let lag = |heir: &u32| view.pod(*heir).and_then(|pod| pod.lag_bytes);
            heirs.sort_by_key(|heir| lag(heir).unwrap_or(i64::MAX));
            "the one of these that has most can become master, as far as is known the first"
        }
        false => "replicas with every acknowledged message",
    };
    let Some(heir) = heirs.first() else {
        return "no other replica has every acknowledged message: get the master back".to_owned();
    };
    let heirs: Vec<String> = heirs.iter().map(u32::to_string).collect();
    format!(
        "{who}: {}. To promote one: kubectl weir -n {namespace} promote {broker} {name}; \
         or without that plugin: kubectl -n {namespace} patch brokergroup {name} --type merge -p '{{\"spec\":{{\"promote\":{{\"replica\":{heir},\"epoch\":{epoch}}}}}}}'",
        heirs.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use weirmq_authority::kubernetes::Promote;

    use super::*;
    use crate::broker::tests::{COMMON, broker, member, three_replicas};

    fn with_failover(mode: &str) -> Broker {
        broker(&format!("{{{COMMON}, failover: {{mode: {mode}}}}}"))
    }

    /// The first `in_sync` replicas are in sync.
    fn view(in_sync: u32) -> GroupView {
        let mut view = three_replicas();
        view.record.as_mut().unwrap().in_sync = (0..in_sync).map(member).collect();
        view
    }

    #[test]
    fn failover_is_possible_while_enough_are_in_sync_without_the_master() {
        let broker = with_failover("Automatic");
        assert_eq!(possible(&broker, &[view(3)]).reason, "Enough");
        assert_eq!(possible(&broker, &[view(2)]).reason, "TooFewInSync");
    }

    #[test]
    fn replicas_on_one_node_are_no_failover() {
        let broker = with_failover("Automatic");
        let mut together = view(3);
        together.pods[1].node = Some("n0".to_owned());
        let said = possible(&broker, &[together.clone()]);
        assert_eq!(said.reason, "OneNode");
        assert!(said.message.contains("node n0 is gone: 2 of its 3"), "{}", said.message);
        // With another master one node may go.
        together.record.as_mut().unwrap().master = Some(member(2));
        assert_eq!(possible(&broker, &[together]).reason, "Enough");
    }

    #[test]
    fn a_drain_waits_for_replicas_that_catch_up() {
        assert!(view(3).may_lose_one());
        assert!(!view(2).may_lose_one());
        let mut all_needed = view(2);
        all_needed.min_in_sync = 3;
        assert!(all_needed.may_lose_one(), "it never goes on without one");
        let mut new = view(2);
        new.record = None;
        assert!(new.may_lose_one());
    }

    #[test]
    fn a_drain_takes_replicas_that_are_not_ready_where_the_others_are_enough() {
        let mut broken = view(2);
        assert!(broken.may_lose_unready());
        broken.pods[1].is_ready = false;
        assert!(!broken.may_lose_unready(), "one more than is missing already");
        let mut nobody = view(3);
        nobody.pods[0].is_ready = false;
        assert!(!nobody.may_lose_unready(), "its master may write, though nobody calls it ready");
    }

    #[test]
    fn who_promotes_by_hand_is_told_whom_and_how() {
        let manual = with_failover("Manual");
        assert_eq!(possible(&manual, &[view(3)]).reason, "Manual");
        let text = how_to_promote(&manual, &view(3));
        assert!(
            text.contains("message: 1, 2. To promote one: kubectl weir -n shop promote mq mq-0;"),
            "{text}"
        );
        assert!(text.contains("kubectl -n shop patch brokergroup mq-0"), "{text}");
        assert!(text.contains(r#"'{"spec":{"promote":{"replica":1,"epoch":4}}}'"#), "{text}");
        assert!(how_to_promote(&manual, &view(1)).contains("get the master back"));
    }

    #[test]
    fn where_a_quorum_acknowledges_the_one_that_has_most_is_named() {
        let manual = with_failover("Manual");
        let mut gone = by_quorum(&[]);
        gone.pods[0].is_ready = false;
        (gone.pods[1].position, gone.pods[2].position) = (Some((4, 70)), Some((4, 90)));
        gone.compare_logs();
        assert_eq!(gone.pods[1].lag_bytes, Some(20));
        let text = how_to_promote(&manual, &gone);
        assert!(text.contains("the first: 2, 1. To promote"), "{text}");
        assert!(text.contains(r#"{"replica":2,"epoch":4}"#), "{text}");
        // One that knows nothing of the last epoch cannot be compared by its length.
        gone.pods[1].position = Some((3, 500));
        gone.compare_logs();
        assert_eq!((gone.pods[1].lag_bytes, gone.pods[2].lag_bytes), (None, Some(0)));
        assert!(how_to_promote(&manual, &gone).contains("the first: 2, 1. To promote"));
        // A master that answers and is not ready makes the status round, not the choice.
        (gone.pods[0].position, gone.pods[1].position) = (Some((4, 95)), Some((4, 70)));
        gone.compare_logs();
        assert!(gone.may_be_written());
        assert!(how_to_promote(&manual, &gone).contains("the first: 2, 1. To promote"));
    }

    #[test]
    fn members_of_a_quorum_that_are_far_behind_do_not_count() {
        let broker = with_failover("Automatic");
        let whole = by_quorum(&[true, true, true]);
        assert_eq!(possible(&broker, std::slice::from_ref(&whole)).reason, "Enough");
        assert!(whole.may_lose_one());
        let late = by_quorum(&[true, true, false]);
        let said = possible(&broker, std::slice::from_ref(&late));
        assert_eq!(said.reason, "TooFewInSync");
        assert!(said.message.ends_with("2 are there"), "{}", said.message);
        assert!(!late.may_lose_one());
        assert_eq!(late.in_sync_count(), 2);
        // Its master does not answer.
        assert_eq!(possible(&broker, &[by_quorum(&[])]).reason, "NotKnown");
        // Where all of the set acknowledge, the set says it.
        let mut all = by_quorum(&[true, true, false]);
        all.is_by_quorum = false;
        assert_eq!(possible(&broker, &[all]).reason, "Enough");
    }

    /// All are members, and the master says of these whether they keep up.
    fn by_quorum(keep_up: &[bool]) -> GroupView {
        let mut view = view(3);
        view.is_by_quorum = true;
        for (pod, keeps_up) in view.pods.iter_mut().zip(keep_up) {
            pod.keeps_up = Some(*keeps_up);
        }
        view
    }

    #[test]
    fn a_promotion_is_pending_in_its_epoch_only() {
        let mut told = view(3);
        told.promote = Some(Promote { replica: 1, epoch: 4, accept_loss: None });
        let pending = promotion(&[told.clone()]).unwrap();
        assert!(pending.message.starts_with("mq-0-1 becomes master"), "{}", pending.message);
        told.promote = Some(Promote { replica: 3, epoch: 4, accept_loss: None });
        let nobody = promotion(&[told.clone()]).unwrap();
        assert!(nobody.message.ends_with("replica 3, and there is none"), "{}", nobody.message);
        told.promote = Some(Promote { replica: 1, epoch: 3, accept_loss: None });
        assert_eq!(promotion(&[told, view(3)]), None);
    }

    #[test]
    fn what_went_wrong_with_a_record_is_said() {
        let mut findings = Findings::default();
        assert_eq!(regression(&findings), None);
        findings
            .regressed
            .insert("mq-0".to_owned(), Regressed { obeyed: 4, found: 0, deleted: None });
        let said = regression(&findings).unwrap().message;
        assert!(said.contains("epoch 4, BrokerGroup mq-0 is of epoch 0: it was deleted"), "{said}");
        let regressed = Regressed { obeyed: 4, found: 0, deleted: Some(2) };
        findings.regressed.insert("mq-0".to_owned(), regressed);
        let said = regression(&findings).unwrap().message;
        assert!(said.contains("of epoch 2, is older") && said.contains("newest copy"), "{said}");
        let mut lost = view(3);
        assert_eq!(loss(&[lost.clone()]), None);
        lost.record.as_mut().unwrap().loss_epoch = 3;
        assert!(loss(&[lost]).unwrap().message.contains("mq-0 from before epoch 3"));
    }
}
