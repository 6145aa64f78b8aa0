//! Who is promoted, and what becomes of acknowledged messages. Pure.

use kube::ResourceExt as _;
use weirmq_authority::Record;
use weirmq_authority::kubernetes::{AckPolicy, Failover, ReplicationMode};
use weirmq_operator::kinds::BrokerGroup;

use super::super::view::{GroupView, ReplicaView};
use crate::exit::Failure;

/// Who is to be promoted, and what is known of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) to: u32,
    pub(super) pod: String,
    /// The epoch whose master is gone, and that master's pod.
    pub(super) epoch: u64,
    pub(super) master: Option<String>,
    /// What becomes of acknowledged messages, a sentence each.
    pub(super) costs: Vec<String>,
}

/// Picks the replica; or says why nobody can be promoted.
pub(super) fn choose(
    group: &BrokerGroup,
    known: Option<&GroupView>,
    to: Option<u32>,
    accept_loss: bool,
) -> Result<Chosen, Failure> {
    let name = group.name_any();
    let refused = |why: String| Err(Failure::Usage(why));
    let record = group.status.as_ref().map(|status| &status.record).filter(|it| it.epoch > 0);
    let Some(record) = record else {
        return refused(format!(
            "{name} has elected nobody yet, or its record was deleted: see the conditions of its Broker"
        ));
    };
    let pod = |replica: u32| format!("{name}-{replica}");
    let replica = |number: u32| -> Option<&ReplicaView> {
        known?.replicas.iter().find(|replica| replica.pod == pod(number))
    };
    let is_ready = |number: &u32| replica(*number).is_some_and(|replica| replica.ready);
    let heirs = record.heirs();
    let master = record.master.map(|master| master.replica.0);
    if group.spec.failover != Some(Failover::Manual) && !accept_loss {
        return refused(format!(
            "{name} elects its master by itself (failover.mode is not Manual): one that has every \
             acknowledged message takes over without a word. Where none is left, --to and --accept-loss"
        ));
    }
    // Where a quorum acknowledges only the one that has most is elected.
    let lag = |number: &u32| replica(*number).and_then(|it| it.lag_bytes).unwrap_or(i64::MAX);
    let ready = heirs.iter().copied().filter(is_ready).min_by_key(lag);
    let Some(to) = to.or(ready).or(heirs.first().copied()) else {
        return refused(format!(
            "no replica of {name} but the master has every acknowledged message: get the master back. \
             Where it is gone for ever, --to and --accept-loss"
        ));
    };
    if to >= group.spec.replicas {
        let count = group.spec.replicas;
        return Err(Failure::NotFound(format!("{name} has no replica {to}; it has {count}")));
    }
    if master == Some(to) && !accept_loss {
        return refused(format!(
            "{} is the master of {name} already, in epoch {}; once it was started again it goes on",
            pod(to),
            record.epoch
        ));
    }
    if !heirs.contains(&to) && !accept_loss {
        let heirs: Vec<String> = heirs.iter().map(u32::to_string).collect();
        let others = if heirs.is_empty() { "none".to_owned() } else { heirs.join(", ") };
        return refused(format!(
            "{} lacks acknowledged messages; replicas that have them all, beside the master: {others}. \
             Where those are gone for ever, --accept-loss",
            pod(to)
        ));
    }
    let costs = costs(group, record, &pod(to), heirs.contains(&to), accept_loss, replica(to));
    let master = master.map(pod);
    Ok(Chosen { to, pod: pod(to), epoch: record.epoch, master, costs })
}

fn costs(
    group: &BrokerGroup,
    record: &Record,
    pod: &str,
    has_everything: bool,
    accept_loss: bool,
    known: Option<&ReplicaView>,
) -> Vec<String> {
    let mut costs = Vec::new();
    let lag = known.and_then(|replica| replica.lag_bytes).filter(|lag| *lag > 0);
    let lag = lag.map(|lag| format!(" (up to {lag} bytes when the operator asked last)"));
    let lag = lag.unwrap_or_default();
    let replication = &group.spec.replication;
    match (has_everything, replication.mode) {
        (true, ReplicationMode::Sync) if replication.ack_policy == AckPolicy::Quorum => {
            costs.push(format!(
                "most of the replicas are asked first, and {pod} becomes master only if none of them has more: \
                 no acknowledged message is lost{lag}"
            ));
        }
        (true, ReplicationMode::Sync) => {
            costs.push(format!("{pod} has every acknowledged message: none is lost"));
        }
        (true, ReplicationMode::Async) => costs.push(format!(
            "replication is asynchronous: acknowledged messages that {pod} did not get yet are lost{lag}"
        )),
        (false, _) => {
            let holder = |replica| format!("{}-{replica}", group.name_any());
            let holders: Vec<String> =
                record.electable().map(|member| holder(member.replica.0)).collect();
            costs.push(format!(
                "{pod} LACKS acknowledged messages that {} have: they are lost for ever, also when those \
                 come back{lag}",
                holders.join(", ")
            ));
        }
    }
    if accept_loss {
        costs.push(format!(
            "status.lossEpoch says so for ever, unless {pod} has everything after all; and an old master \
             that still runs, cut off, takes messages that are lost as well: make sure that it does not"
        ));
    }
    costs
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use weirmq_authority::kubernetes::BrokerGroupStatus;
    use weirmq_authority::{Incarnation, Member, Phase, ReplicaId};

    use super::*;

    pub(in super::super) fn member(replica: u32) -> Member {
        Member { replica: ReplicaId(replica), incarnation: Incarnation(1) }
    }

    /// Replica 0 of three is master of epoch 3, and 1 is in sync.
    pub(in super::super) fn group(failover: &str, mode: &str) -> BrokerGroup {
        let mut group: BrokerGroup = serde_json::from_value(json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": "BrokerGroup", "metadata": { "name": "mq-0" },
            "spec": { "replicas": 3, "flush": "Sync", "failover": failover,
                      "replication": { "mode": mode, "minInSync": 1 } },
        }))
        .unwrap();
        let record = Record {
            epoch: 3,
            phase: Phase::Stable,
            master: Some(member(0)),
            in_sync: [member(0), member(1)].into_iter().collect(),
            ..Record::default()
        };
        group.status = Some(BrokerGroupStatus { record, write: String::new() });
        group
    }

    pub(in super::super) fn with(change: impl FnOnce(&mut Record)) -> BrokerGroup {
        let mut group = group("Manual", "Sync");
        change(&mut group.status.as_mut().unwrap().record);
        group
    }

    fn refusal(group: &BrokerGroup, to: Option<u32>, accept_loss: bool) -> String {
        choose(group, None, to, accept_loss).unwrap_err().to_string()
    }

    #[test]
    fn a_replica_that_has_everything_is_chosen_and_loses_nothing() {
        let chosen = choose(&group("Manual", "Sync"), None, None, false).unwrap();
        assert_eq!((chosen.to, &*chosen.pod, chosen.epoch), (1, "mq-0-1", 3));
        assert_eq!(chosen.master.as_deref(), Some("mq-0-0"));
        assert_eq!(chosen.costs, ["mq-0-1 has every acknowledged message: none is lost"]);
        let asynchronous = choose(&group("Manual", "Async"), None, Some(1), false).unwrap();
        assert!(asynchronous.costs[0].contains("did not get yet are lost"), "{asynchronous:?}");
        let mut by_quorum = group("Manual", "Sync");
        by_quorum.spec.replication.ack_policy = AckPolicy::Quorum;
        let chosen = choose(&by_quorum, None, Some(1), false).unwrap();
        assert!(chosen.costs[0].contains("only if none of them has more"), "{chosen:?}");
        let eligible = with(|record| {
            record.in_sync.remove(ReplicaId(1));
            record.eligible = [member(2)].into_iter().collect();
        });
        assert_eq!(choose(&eligible, None, None, false).unwrap().to, 2);
    }

    #[test]
    fn one_that_runs_is_chosen_before_one_that_does_not() {
        let both = with(|record| record.in_sync = (0..3).map(member).collect());
        let replica = |number: u32, ready| ReplicaView {
            pod: format!("mq-0-{number}"),
            role: "Slave".to_owned(),
            ready,
            in_sync: Some(true),
            lag_bytes: None,
            node: None,
            up_to_date: true,
        };
        let known = |replicas: Vec<ReplicaView>| GroupView {
            name: "mq-0".to_owned(),
            master: None,
            epoch: Some(3),
            draining: None,
            replicas,
        };
        let one = known(vec![replica(1, false), replica(2, true)]);
        assert_eq!(choose(&both, Some(&one), None, false).unwrap().to, 2);
        let none = known(vec![replica(1, false), replica(2, false)]);
        assert_eq!(choose(&both, Some(&none), None, false).unwrap().to, 1);
    }

    #[test]
    fn a_replica_that_lacks_something_is_promoted_only_by_whoever_says_so() {
        let manual = group("Manual", "Sync");
        let why = refusal(&manual, Some(2), false);
        assert!(why.contains("mq-0-2 lacks") && why.contains("beside the master: 1."), "{why}");
        let chosen = choose(&manual, None, Some(2), true).unwrap();
        assert!(chosen.costs[0].contains("LACKS acknowledged messages that mq-0-0, mq-0-1 have"));
        assert!(chosen.costs[1].contains("status.lossEpoch"), "{chosen:?}");
        // With automatic failover there is nothing else to promote.
        let automatic = group("Automatic", "Sync");
        assert!(refusal(&automatic, Some(1), false).contains("elects its master by itself"));
        assert_eq!(choose(&automatic, None, Some(2), true).unwrap().to, 2);
    }

    #[test]
    fn who_cannot_be_promoted_is_told_why() {
        let manual = group("Manual", "Sync");
        assert!(refusal(&manual, Some(0), false).contains("already, in epoch 3"));
        assert!(refusal(&manual, Some(3), true).contains("has no replica 3; it has 3"));
        let alone = with(|record| record.in_sync.remove(ReplicaId(1)));
        assert!(refusal(&alone, None, false).contains("get the master back"));
        let new = with(|record| *record = Record::default());
        assert!(refusal(&new, Some(1), true).contains("has elected nobody yet"));
    }
}
