//! `kubectl weir promote`: writes into a `BrokerGroup` which replica takes over. It works without the
//! operator, because replicas read it there themselves.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use weirmq_authority::kubernetes::{AcceptLoss, Failover, Promote, ReplicationMode};
use weirmq_authority::{Phase, Record};
use weirmq_operator::kinds::BrokerGroup;

use super::view::{GroupView, ReplicaView};
use super::{Place, failed, group_name, status};
use crate::exit::Failure;

/// Have a replica take over from a master that is gone; says what could be lost, and asks
#[derive(clap::Args)]
#[command(
    after_help = "With `failover.mode: Manual` a replica that has every acknowledged message takes over this way. One that\n\
    lacks some can be promoted with --accept-loss, in both modes, where the others are gone for ever.\n\
    A master that runs hands over with `kubectl weir switchover`.\n\n\
    It takes the right to patch brokergroups, which Kubernetes' role `edit` does not give."
)]
pub(super) struct PromoteArgs {
    /// The Broker
    broker: String,
    /// The group: `mq-0`, or its number
    group: String,
    /// The replica that is to be master [default: one that has every acknowledged message]
    #[arg(long, value_name = "ORDINAL")]
    to: Option<u32>,
    /// Promote --to although acknowledged messages that it lacks are lost by it: where the replicas that
    /// have them are gone for ever, and the old master does not run anywhere
    #[arg(long, requires = "to")]
    accept_loss: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// How long to wait for it; then the promotion is called off
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = crate::units::parse_duration)]
    timeout: Duration,
}

/// How often it is looked at whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    group: String,
    /// The master of before; `null`: there was none.
    before: Option<String>,
    master: String,
    epoch: u64,
    /// Whether acknowledged messages may be missing from before this epoch.
    loss: bool,
}

pub(super) async fn run(args: PromoteArgs, place: &Place) -> anyhow::Result<()> {
    let name = group_name(&args.broker, &args.group);
    let view = status::one(place, &args.broker).await?;
    let known = view.groups.iter().find(|group| group.name == name);
    let api: Api<BrokerGroup> = Api::namespaced(place.client.clone(), &place.namespace);
    let before = read(&api, &name, place).await?;
    let chosen = choose(&before, known, args.to, args.accept_loss)?;
    confirm(&args, &chosen).await?;
    let promote = Promote {
        replica: chosen.to,
        epoch: chosen.epoch,
        accept_loss: args.accept_loss.then_some(AcceptLoss::AcknowledgedMessagesMayBeLost),
    };
    if !write(&api, &before, Some(&promote)).await? {
        let why = "changed after it was looked at: nothing was written; look again";
        return Err(anyhow::anyhow!("brokergroup/{name} {why}"));
    }
    eprintln!("written down: {} takes over from epoch {}", chosen.pod, chosen.epoch);

    let end = Instant::now() + args.timeout;
    let mut told = String::new();
    loop {
        let group = read(&api, &name, place).await?;
        let progress = progress(&group, &chosen);
        match &progress {
            Progress::Done { epoch, loss } => {
                let lost = if *loss {
                    "; acknowledged messages may be missing from before it"
                } else {
                    ""
                };
                let text =
                    format!("{} is the master of {name} now, in epoch {epoch}{lost}", chosen.pod);
                let (master, before, epoch, loss) = (chosen.pod, chosen.master, *epoch, *loss);
                let done = Done { group: name, before, master, epoch, loss };
                return Ok(place.output.done(&text, &done)?);
            }
            Progress::Other(why) => anyhow::bail!("{} was not promoted: {why}", chosen.pod),
            Progress::Under(what) if *what != told => {
                eprintln!("{what}");
                told.clone_from(what);
            }
            Progress::Under(_) => {}
        }
        if Instant::now() >= end && call_off(&api, &group, &promote).await? {
            let why = format!(
                "{} did not take over, and the promotion was called off: {told}. Does its pod run \
                 (`kubectl weir status {}`)?",
                chosen.pod, args.broker
            );
            return Err(Failure::Timeout(why).into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn read(api: &Api<BrokerGroup>, name: &str, place: &Place) -> anyhow::Result<BrokerGroup> {
    let what = format!("read brokergroup/{name} in namespace {}", place.namespace);
    let found = api.get_opt(name).await.map_err(failed(what.clone()))?;
    found.ok_or_else(|| {
        let why = "where nobody is elected (one replica, or failover.mode Disabled) there is none";
        Failure::NotFound(format!("{what}: it is not there; {why}")).into()
    })
}

/// Writes `spec.promote`, unless somebody changed the group since it was read as `group`: record and
/// promotion belong together. Whether it is written.
async fn write(
    api: &Api<BrokerGroup>,
    group: &BrokerGroup,
    promote: Option<&Promote>,
) -> anyhow::Result<bool> {
    let name = group.name_any();
    let words = promote.map(|promote| {
        // `null` takes away what an earlier promotion said.
        let Promote { replica, epoch, accept_loss } = promote;
        json!({ "replica": replica, "epoch": epoch, "acceptLoss": accept_loss })
    });
    let patch = json!({
        "metadata": { "resourceVersion": group.resource_version() },
        "spec": { "promote": words },
    });
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(error) => Err(failed(format!("write spec.promote of brokergroup/{name}"))(error)),
    }
}

/// Takes the promotion back, so that nobody is surprised by it later; `false`: look again first.
///
/// Replicas decide by the version of the group that they read, so once this is written nobody is promoted by
/// what stood there before.
async fn call_off(
    api: &Api<BrokerGroup>,
    group: &BrokerGroup,
    promote: &Promote,
) -> anyhow::Result<bool> {
    if group.spec.promote.as_ref() != Some(promote) {
        return Ok(true);
    }
    let written = write(api, group, None).await;
    written.context("call the promotion off; it stands, and may still happen")
}

/// Who is to be promoted, and what is known of it.
#[derive(Debug, PartialEq, Eq)]
struct Chosen {
    to: u32,
    pod: String,
    /// The epoch whose master is gone, and that master's pod.
    epoch: u64,
    master: Option<String>,
    /// What becomes of acknowledged messages, a sentence each.
    costs: Vec<String>,
}

/// Picks the replica; or says why nobody can be promoted.
fn choose(
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
    let Some(to) = to.or_else(|| heirs.iter().copied().find(is_ready)).or(heirs.first().copied())
    else {
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
    match (has_everything, group.spec.replication.mode) {
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

/// Says what happens and what it costs, and asks a person whether to go on.
async fn confirm(args: &PromoteArgs, chosen: &Chosen) -> anyhow::Result<()> {
    let Chosen { pod, epoch, master, costs, .. } = chosen;
    let master = master.as_deref().unwrap_or("nobody");
    eprintln!(
        "{pod} becomes master in place of {master} (epoch {epoch}), once that one is not heard and its \
         Lease is over"
    );
    for cost in costs {
        eprintln!("{cost}");
    }
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        let why = "nobody can be asked, because stdin is no terminal; --yes says that it is meant";
        return Err(Failure::Usage(why.to_owned()).into());
    }
    // Losing messages takes more than a key that is pressed from habit.
    let wanted = if args.accept_loss { pod.as_str() } else { "yes" };
    eprint!("Type {wanted} to go on: ");
    io::stderr().flush().context("ask")?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.context("read the answer")?.context("read the answer")?;
    if answer.trim() != wanted {
        return Err(Failure::Usage("nothing was changed".to_owned()).into());
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Under(String),
    Done {
        epoch: u64,
        loss: bool,
    },
    /// It cannot happen any more, and why.
    Other(String),
}

fn progress(group: &BrokerGroup, chosen: &Chosen) -> Progress {
    let name = group.name_any();
    let record = group.status.as_ref().map(|status| &status.record);
    let Some(record) = record.filter(|record| record.epoch >= chosen.epoch) else {
        return Progress::Other(format!("the record of {name} was deleted or restored meanwhile"));
    };
    let epoch = record.epoch;
    let Some(master) = record.master.filter(|_| epoch > chosen.epoch) else {
        let master = chosen.master.as_deref().unwrap_or("the master");
        return Progress::Under(match &group.spec.promote {
            Some(promote) if promote.replica == chosen.to && promote.epoch == chosen.epoch => {
                format!("waiting until {} sees that {master} is gone", chosen.pod)
            }
            _ => "somebody else changed spec.promote; waiting all the same".to_owned(),
        });
    };
    if master.replica.0 != chosen.to {
        let other = format!("{name}-{}", master.replica.0);
        return Progress::Other(format!("{other} became master, in epoch {epoch}"));
    }
    match record.phase {
        Phase::Stable => Progress::Done { epoch, loss: record.loss_epoch == epoch },
        Phase::New | Phase::Promoting => Progress::Under(format!(
            "{} is elected, in epoch {epoch}, and about to serve",
            chosen.pod
        )),
        Phase::Fencing => Progress::Under(format!(
            "{} was elected, in epoch {epoch}, and is missed: another one is looked for",
            chosen.pod
        )),
    }
}

#[cfg(test)]
mod tests {
    use weirmq_authority::kubernetes::BrokerGroupStatus;
    use weirmq_authority::{Incarnation, Member, ReplicaId};

    use super::*;

    fn member(replica: u32) -> Member {
        Member { replica: ReplicaId(replica), incarnation: Incarnation(1) }
    }

    /// Replica 0 of three is master of epoch 3, and 1 is in sync.
    fn group(failover: &str, mode: &str) -> BrokerGroup {
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

    fn with(change: impl FnOnce(&mut Record)) -> BrokerGroup {
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

    #[test]
    fn it_is_done_once_the_promoted_one_serves() {
        let chosen = choose(&group("Manual", "Sync"), None, Some(1), false).unwrap();
        let of = |change: fn(&mut Record)| progress(&with(change), &chosen);
        assert!(matches!(of(|_| ()), Progress::Under(_)));
        let elected = |record: &mut Record| {
            (record.epoch, record.phase, record.master) = (4, Phase::Promoting, Some(member(1)));
        };
        let Progress::Under(what) = of(elected) else { panic!("it does not serve yet") };
        assert!(what.contains("mq-0-1 is elected, in epoch 4"), "{what}");
        let serves = of(|record| (record.epoch, record.master) = (4, Some(member(1))));
        assert_eq!(serves, Progress::Done { epoch: 4, loss: false });
        let lost = of(|record| {
            (record.epoch, record.loss_epoch, record.master) = (4, 4, Some(member(1)));
        });
        assert_eq!(lost, Progress::Done { epoch: 4, loss: true });
        let Progress::Other(why) = of(|record| record.epoch = 4) else { panic!("not promoted") };
        assert_eq!(why, "mq-0-0 became master, in epoch 4");
        assert!(matches!(of(|record| record.epoch = 2), Progress::Other(_)));
    }
}
