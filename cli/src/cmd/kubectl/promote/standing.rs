//! A promotion that stands in a `BrokerGroup`: waiting for it, and calling it off.
//!
//! With `--accept-loss` it is a loss that somebody agreed to, so no end of this command but a kill leaves it
//! there in silence: either it happened, or it is taken away, or the error says how to.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use weirmq_authority::Phase;
use weirmq_authority::kubernetes::Promote;
use weirmq_operator::kinds::BrokerGroup;

use super::super::failed;
use super::choice::Chosen;
use crate::exit::Failure;
use crate::output::tell;

/// How often it is looked at whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For one write. An answer that comes later is taken for one that is lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For all attempts at calling a promotion off.
const CALL_OFF_TIMEOUT: Duration = Duration::from_secs(10);

/// One promotion, and where it is written.
pub(super) struct Standing<'a> {
    pub(super) api: &'a Api<BrokerGroup>,
    /// The group's name.
    pub(super) group: &'a str,
    pub(super) chosen: &'a Chosen,
    pub(super) promote: Promote,
    /// kubectl with the flags that lead to this namespace.
    pub(super) kubectl: &'a str,
}

/// The promoted one serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) epoch: u64,
    /// Whether acknowledged messages may be missing from before it.
    pub(super) loss: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// What is waited for.
    Under(String),
    /// In this epoch, and it does not serve yet. Nothing is left to call off.
    Elected(u64),
    Served(Served),
    /// It is not going to happen, and why.
    Other(String),
}

/// What an attempt at calling off came to.
enum Off {
    Taken,
    /// It stands there no more: somebody else took or changed it, or the group is gone.
    NotThere,
    /// Too late.
    Elected(u64),
    Served(Served),
}

/// What a write came to.
enum Wrote {
    Yes,
    /// Somebody else wrote first, so nothing was.
    Changed,
    /// The API server says that it did not.
    Refused(anyhow::Error),
    /// Nobody answered, or a server in between did: it may be written.
    Unknown(anyhow::Error),
}

impl Standing<'_> {
    /// Writes the promotion into the group as it was read as `group`, and waits at most for `patience` until
    /// the replica serves. However else it ends, also when `interrupted` returns, the promotion is called off; the
    /// next return ends that as well.
    ///
    /// # Errors
    /// Why nobody was promoted, and whether the promotion stands: then with the command that takes it away.
    pub(super) async fn carry_out(
        &self,
        group: &BrokerGroup,
        patience: Duration,
        interrupted: &mut impl AsyncFnMut(),
    ) -> anyhow::Result<Served> {
        let (pod, epoch) = (&self.chosen.pod, self.chosen.epoch);
        let end = Instant::now() + patience;
        match self.write(group, Some(&self.promote)).await {
            Wrote::Yes => {}
            Wrote::Changed => {
                let why = "changed after it was looked at: nothing was written; look again";
                return Err(anyhow::anyhow!("brokergroup/{} {why}", self.group));
            }
            Wrote::Refused(why) => return Err(why),
            Wrote::Unknown(why) => return self.call_off(why, false, interrupted).await,
        }
        tell(format_args!("written down: {pod} takes over from epoch {epoch}"));
        match self.wait(end, interrupted).await {
            Ok(served) => Ok(served),
            Err(why) => self.call_off(why, true, interrupted).await,
        }
    }

    /// Waits until the replica serves. An API server that cannot be read says nothing about that, so it is
    /// asked again until the end.
    async fn wait(
        &self,
        end: Instant,
        interrupted: &mut impl AsyncFnMut(),
    ) -> anyhow::Result<Served> {
        let pod = &self.chosen.pod;
        let mut told = String::from("nothing could be read since");
        loop {
            let look = tokio::select! {
                () = interrupted() => anyhow::bail!("{pod} was not promoted: interrupted"),
                look = timeout_at(end, self.read()) => look,
            };
            let what = match look.map(|read| read.map(|group| self.progress(group.as_ref()))) {
                Ok(Ok(Progress::Served(served))) => return Ok(served),
                Ok(Ok(Progress::Other(why))) => anyhow::bail!("{pod} was not promoted: {why}"),
                Ok(Ok(Progress::Elected(epoch))) => {
                    format!("{pod} is elected, in epoch {epoch}, and about to serve")
                }
                Ok(Ok(Progress::Under(what))) => what,
                Ok(Err(error)) => format!("{error:#}; waiting all the same"),
                // The end.
                Err(_) => told.clone(),
            };
            if what != told {
                tell(&what);
                told = what;
            }
            let now = Instant::now();
            if now >= end {
                let why = format!("{pod} did not take over in time: {told}. Does its pod run?");
                return Err(Failure::Timeout(why).into());
            }
            tokio::select! {
                () = interrupted() => anyhow::bail!("{pod} was not promoted: interrupted; {told}"),
                () = sleep_until(end.min(now + LOOK_EVERY)) => {}
            }
        }
    }

    /// Takes the promotion away, so that nobody is surprised by it later, and says so beside `why` it ended.
    /// `is_known`: whether it is sure that it was written.
    ///
    /// Replicas decide by the version of the group that they read, so once this is written nobody is promoted
    /// by what stood there before.
    async fn call_off(
        &self,
        why: anyhow::Error,
        is_known: bool,
        interrupted: &mut impl AsyncFnMut(),
    ) -> anyhow::Result<Served> {
        tell(format_args!("{why:#}; calling the promotion off"));
        let tried = tokio::select! {
            () = interrupted() => Err(anyhow::anyhow!("interrupted again")),
            tried = self.take_away() => tried,
        };
        let (pod, command) = (&self.chosen.pod, self.command());
        let outcome = match tried {
            Ok(Off::Served(served)) => return Ok(served),
            Ok(Off::Elected(epoch)) => {
                format!("{pod} was elected all the same, in epoch {epoch}, and did not serve yet")
            }
            Ok(Off::Taken) => "the promotion was called off".to_owned(),
            Ok(Off::NotThere) if is_known => "the promotion stands there no more".to_owned(),
            Ok(Off::NotThere) => format!(
                "it is not known whether the promotion was written; it is not there now. Should it come to \
                 stand there, this takes it away: {command}"
            ),
            Err(error) => format!(
                "THE PROMOTION STANDS and may still happen, because it could not be called off ({error:#}). \
                 This takes it away: {command}"
            ),
        };
        Err(why.context(outcome))
    }

    async fn take_away(&self) -> anyhow::Result<Off> {
        let end = Instant::now() + CALL_OFF_TIMEOUT;
        let mut last = anyhow::anyhow!("no answer within {} s", CALL_OFF_TIMEOUT.as_secs());
        loop {
            match timeout_at(end, self.try_to_take_away()).await {
                Ok(Ok(Some(off))) => return Ok(off),
                // Somebody else wrote meanwhile; perhaps a replica that was elected.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => last = error,
                Err(_) => return Err(last),
            }
            sleep_until(end.min(Instant::now() + LOOK_EVERY)).await;
        }
    }

    /// `None`: look again.
    async fn try_to_take_away(&self) -> anyhow::Result<Option<Off>> {
        let Some(group) = self.read().await? else { return Ok(Some(Off::NotThere)) };
        match self.progress(Some(&group)) {
            Progress::Served(served) => return Ok(Some(Off::Served(served))),
            Progress::Elected(epoch) => return Ok(Some(Off::Elected(epoch))),
            Progress::Under(_) | Progress::Other(_) => {}
        }
        if group.spec.promote.as_ref() != Some(&self.promote) {
            return Ok(Some(Off::NotThere));
        }
        match self.write(&group, None).await {
            Wrote::Yes => Ok(Some(Off::Taken)),
            Wrote::Changed => Ok(None),
            Wrote::Refused(why) | Wrote::Unknown(why) => Err(why),
        }
    }

    /// What takes the promotion away without this program.
    fn command(&self) -> String {
        let Self { kubectl, group, .. } = self;
        format!(
            r#"{kubectl} patch brokergroup {group} --type merge -p '{{"spec":{{"promote":null}}}}'"#
        )
    }

    async fn read(&self) -> anyhow::Result<Option<BrokerGroup>> {
        let what = format!("read brokergroup/{}", self.group);
        self.api.get_opt(self.group).await.map_err(failed(what))
    }

    /// Writes `spec.promote`, unless somebody changed the group since it was read as `group`: record and
    /// promotion belong together.
    async fn write(&self, group: &BrokerGroup, promote: Option<&Promote>) -> Wrote {
        let words = promote.map(|promote| {
            // `null` takes away what an earlier promotion said.
            let Promote { replica, epoch, accept_loss } = promote;
            json!({ "replica": replica, "epoch": epoch, "acceptLoss": accept_loss })
        });
        let patch = json!({
            "metadata": { "resourceVersion": group.resource_version() },
            "spec": { "promote": words },
        });
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let what = format!("write spec.promote of brokergroup/{}", self.group);
        match timeout(WRITE_TIMEOUT, self.api.patch(self.group, &parameters, &patch)).await {
            Ok(Ok(_)) => Wrote::Yes,
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Wrote::Changed,
            Ok(Err(error)) => match &error {
                kube::Error::Api(status) if (400..500).contains(&status.code) => {
                    Wrote::Refused(failed(what)(error))
                }
                _ => Wrote::Unknown(failed(what)(error)),
            },
            Err(_) => Wrote::Unknown(anyhow::anyhow!("{what}: no answer")),
        }
    }

    fn progress(&self, group: Option<&BrokerGroup>) -> Progress {
        let (name, chosen) = (self.group, self.chosen);
        let record = group.and_then(|group| Some(&group.status.as_ref()?.record));
        let Some(record) = record.filter(|record| record.epoch >= chosen.epoch) else {
            let why = format!("the record of {name} was deleted or restored meanwhile");
            return Progress::Other(why);
        };
        let epoch = record.epoch;
        let Some(master) = record.master.filter(|_| epoch > chosen.epoch) else {
            let master = chosen.master.as_deref().unwrap_or("the master");
            let is_there =
                group.and_then(|group| group.spec.promote.as_ref()) == Some(&self.promote);
            return Progress::Under(match is_there {
                true => format!("waiting until {} sees that {master} is gone", chosen.pod),
                false => "somebody else changed spec.promote; waiting all the same".to_owned(),
            });
        };
        if master.replica.0 != chosen.to {
            let other = format!("{name}-{}", master.replica.0);
            return Progress::Other(format!("{other} became master, in epoch {epoch}"));
        }
        match record.phase {
            Phase::Stable => Progress::Served(Served { epoch, loss: record.loss_epoch == epoch }),
            Phase::New | Phase::Promoting => Progress::Elected(epoch),
            Phase::Fencing => Progress::Under(format!(
                "{} was elected, in epoch {epoch}, and is missed: another one is looked for",
                chosen.pod
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::SocketAddr;

    use kube::Client;
    use kube::api::{DeleteParams, PostParams};
    use tokio::net::TcpListener;
    use weirmq_authority::Record;
    use weirmq_kube_stand_in::{Effect, Fault, StandIn};

    use super::super::choice::choose;
    use super::super::choice::tests::{group, member, with};
    use super::*;

    /// Nothing is waited for longer than this, where something else ends the wait.
    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(700);
    const COMMAND: &str =
        r#"kubectl -n shop patch brokergroup mq-0 --type merge -p '{"spec":{"promote":null}}'"#;

    fn client(server: SocketAddr) -> Client {
        let config = kube::Config::new(format!("http://{server}").parse().unwrap());
        Client::try_from(config).unwrap()
    }

    fn standing<'a>(api: &'a Api<BrokerGroup>, chosen: &'a Chosen) -> Standing<'a> {
        let promote = Promote { replica: chosen.to, epoch: chosen.epoch, accept_loss: None };
        Standing { api, group: "mq-0", chosen, promote, kubectl: "kubectl -n shop" }
    }

    /// A group at an API server with faults.
    struct Faulty {
        server: StandIn,
        api: Api<BrokerGroup>,
        chosen: Chosen,
        before: BrokerGroup,
    }

    impl Faulty {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let server = StandIn::start(listener).unwrap();
            let api = Api::namespaced(client(server.address()), "shop");
            let before = make(&api, &group("Manual", "Sync")).await;
            let chosen = choose(&before, None, Some(1), false).unwrap();
            Self { server, api, chosen, before }
        }

        /// One that is not interrupted.
        async fn carry_out(&self, patience: Duration) -> anyhow::Result<Served> {
            self.interrupted(patience, &mut async || pending().await).await
        }

        async fn interrupted(
            &self,
            patience: Duration,
            interrupted: &mut impl AsyncFnMut(),
        ) -> anyhow::Result<Served> {
            let standing = standing(&self.api, &self.chosen);
            let carried_out = standing.carry_out(&self.before, patience, interrupted);
            timeout(LONG, carried_out).await.expect("it ends by itself")
        }

        /// One that is interrupted after this, and not again.
        async fn interrupted_after(&self, event: impl AsyncFn()) -> anyhow::Result<Served> {
            let mut was_told = false;
            let interrupt = &mut async || {
                if was_told {
                    pending::<()>().await;
                }
                event().await;
                was_told = true;
            };
            self.interrupted(LONG, interrupt).await
        }

        async fn until_written(&self) -> BrokerGroup {
            loop {
                if let Ok(group) = self.api.get("mq-0").await
                    && group.spec.promote.is_some()
                {
                    return group;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }

        async fn elect(&self, change: impl FnOnce(&mut Record)) {
            let mut group = self.until_written().await;
            let record = &mut group.status.as_mut().unwrap().record;
            record.in_sync_version += 1;
            change(record);
            self.api.replace_status("mq-0", &PostParams::default(), &group).await.unwrap();
        }

        async fn stands(&self) -> bool {
            self.api.get("mq-0").await.unwrap().spec.promote.is_some()
        }
    }

    async fn make(api: &Api<BrokerGroup>, group: &BrokerGroup) -> BrokerGroup {
        let parameters = PostParams::default();
        let mut made = api.create(&parameters, group).await.unwrap();
        made.status.clone_from(&group.status);
        api.replace_status("mq-0", &parameters, &made).await.unwrap()
    }

    #[track_caller]
    fn why(ended: anyhow::Result<Served>) -> String {
        format!("{:#}", ended.unwrap_err())
    }

    fn next_epoch(record: &mut Record) {
        (record.epoch, record.master) = (4, Some(member(1)));
    }

    #[tokio::test]
    async fn it_is_done_once_the_promoted_one_serves() {
        let chosen = choose(&group("Manual", "Sync"), None, Some(1), false).unwrap();
        let api = Api::namespaced(client("127.0.0.1:1".parse().unwrap()), "shop");
        let standing = standing(&api, &chosen);
        let of = |change: fn(&mut Record)| standing.progress(Some(&with(change)));
        assert!(matches!(of(|_| ()), Progress::Under(_)));
        let elected = |record: &mut Record| {
            (record.epoch, record.phase, record.master) = (4, Phase::Promoting, Some(member(1)));
        };
        assert_eq!(of(elected), Progress::Elected(4));
        let serves = of(|record| (record.epoch, record.master) = (4, Some(member(1))));
        assert_eq!(serves, Progress::Served(Served { epoch: 4, loss: false }));
        let lost = of(|record| {
            (record.epoch, record.loss_epoch, record.master) = (4, 4, Some(member(1)));
        });
        assert_eq!(lost, Progress::Served(Served { epoch: 4, loss: true }));
        let Progress::Other(why) = of(|record| record.epoch = 4) else { panic!("not promoted") };
        assert_eq!(why, "mq-0-0 became master, in epoch 4");
        assert!(matches!(of(|record| record.epoch = 2), Progress::Other(_)));
        assert!(matches!(standing.progress(None), Progress::Other(_)));
    }

    #[tokio::test]
    async fn a_read_that_fails_is_no_end() {
        let faulty = Faulty::new().await;
        for effect in [Effect::Cut, Effect::Refuse(403), Effect::Refuse(500)] {
            faulty.server.fault(Fault::once("GET", "/brokergroups/", effect));
        }
        let (ended, ()) = tokio::join!(faulty.carry_out(LONG), async {
            faulty.elect(next_epoch).await;
        });
        assert_eq!(ended.unwrap(), Served { epoch: 4, loss: false });
    }

    #[tokio::test]
    async fn what_is_over_in_vain_is_called_off() {
        let faulty = Faulty::new().await;
        let error = faulty.carry_out(SHORT).await.unwrap_err();
        assert!(error.chain().any(|cause| cause.is::<Failure>()), "its exit code: {error:#}");
        let text = format!("{error:#}");
        assert!(text.starts_with("the promotion was called off: mq-0-1 did not"), "{text}");
        assert!(!faulty.stands().await);

        // The API server stands still for all of the wait.
        let faulty = Faulty::new().await;
        faulty.server.fault(Fault::once("GET", "/brokergroups/", Effect::Hang));
        assert!(why(faulty.carry_out(SHORT).await).contains("was called off"));
        assert!(!faulty.stands().await);

        // Somebody else became master.
        let faulty = Faulty::new().await;
        let (ended, ()) = tokio::join!(faulty.carry_out(LONG), async {
            faulty.elect(|record| record.epoch = 4).await;
        });
        let text = why(ended);
        assert!(text.contains("called off: mq-0-1 was not promoted: mq-0-0 became"), "{text}");
        assert!(!faulty.stands().await);
    }

    #[tokio::test]
    async fn what_is_interrupted_is_called_off() {
        let faulty = Faulty::new().await;
        let ended = faulty.interrupted_after(async || drop(faulty.until_written().await)).await;
        let text = why(ended);
        assert!(text.starts_with("the promotion was called off: mq-0-1 was not"), "{text}");
        assert!(!faulty.stands().await);
    }

    #[tokio::test]
    async fn a_record_that_is_deleted_or_restored_ends_the_promotion_and_takes_it_away() {
        let faulty = Faulty::new().await;
        let parameters = DeleteParams::default();
        let (ended, ()) = tokio::join!(faulty.carry_out(LONG), async {
            faulty.until_written().await;
            faulty.api.delete("mq-0", &parameters).await.unwrap();
        });
        let text = why(ended);
        assert!(text.starts_with("the promotion stands there no more: "), "{text}");
        assert!(text.ends_with("the record of mq-0 was deleted or restored meanwhile"), "{text}");

        // A copy that somebody made in between has the promotion as well.
        let faulty = Faulty::new().await;
        let (ended, ()) = tokio::join!(faulty.carry_out(LONG), async {
            let mut copy = faulty.until_written().await;
            copy.status.as_mut().unwrap().record.epoch = 2;
            copy.metadata.resource_version = None;
            copy.metadata.uid = None;
            faulty.api.delete("mq-0", &parameters).await.unwrap();
            make(&faulty.api, &copy).await;
        });
        let text = why(ended);
        assert!(text.contains("was called off") && text.contains("restored"), "{text}");
        assert!(!faulty.stands().await);
    }

    #[tokio::test]
    async fn an_answer_that_is_lost_leaves_nothing_behind() {
        let faulty = Faulty::new().await;
        faulty.server.fault(Fault::once("PATCH", "/brokergroups/", Effect::LoseAnswer));
        assert!(why(faulty.carry_out(LONG).await).contains("the promotion was called off: write"));
        assert!(!faulty.stands().await);

        // The same, and nothing was written.
        let faulty = Faulty::new().await;
        faulty.server.fault(Fault::once("PATCH", "/brokergroups/", Effect::Cut));
        let text = why(faulty.carry_out(LONG).await);
        assert!(text.contains("not known whether") && text.contains(COMMAND), "{text}");

        // Certainly not.
        faulty.server.fault(Fault::once("PATCH", "/brokergroups/", Effect::Refuse(403)));
        let text = why(faulty.carry_out(LONG).await);
        assert!(text.starts_with("write spec.promote") && !text.contains(COMMAND), "{text}");
    }

    #[tokio::test]
    async fn what_cannot_be_called_off_is_said_with_the_command() {
        let faulty = Faulty::new().await;
        let mut was_told = false;
        let interrupt = &mut async || {
            if was_told {
                // It tried, and somebody has waited long enough.
                return tokio::time::sleep(SHORT).await;
            }
            faulty.until_written().await;
            was_told = true;
            let effect = Effect::Refuse(503);
            faulty.server.fault(Fault {
                method: Some("PATCH".to_owned()),
                times: 0,
                ..Fault::once("", "/brokergroups/", effect)
            });
        };
        let text = why(faulty.interrupted(LONG, interrupt).await);
        assert!(text.starts_with("THE PROMOTION STANDS") && text.contains(COMMAND), "{text}");
        faulty.server.mend();
        assert!(faulty.stands().await);
    }

    #[tokio::test]
    async fn one_that_was_elected_meanwhile_is_not_called_off() {
        let faulty = Faulty::new().await;
        let ended = faulty.interrupted_after(async || faulty.elect(next_epoch).await).await;
        let served = ended.unwrap();
        assert_eq!(served.epoch, 4);
        assert!(faulty.stands().await, "it means nothing in another epoch");
    }
}
