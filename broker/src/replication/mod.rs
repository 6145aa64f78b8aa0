//! A broker as one replica of its group: it leads, or follows whoever leads.
//!
//! Replicas keep one connection between any two of them, on the port above the main one. On it go
//! reports of where each is, and from the master its log, in the same moment as it is written. Who
//! is master is decided by `weirmq_authority`; [`driver`] carries out what it decides.
//! `docs/replication.md` says why nothing that was acknowledged is lost.

mod authority;
mod catch_up;
mod copy;
mod dial;
mod driver;
mod frame;
mod handshake;
mod kept;
mod link;
mod peers;
mod refusals;
mod start;
mod static_roles;
mod status;
mod strangers;
mod tls;
#[cfg(test)]
mod version_1;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use uuid::Uuid;
use weirmq_authority::ReplicaId;
use weirmq_remoting::ResponseCode;

#[cfg(test)]
pub(crate) use driver::tests::broker_of;
pub(crate) use kept::{OF_THE_LOG, epochs_as_kept};
pub(crate) use peers::Peer;
pub use start::StartError;
pub(crate) use start::{Prepared, ReplicationThread, prepare, refuse_what_others_wrote};
pub(crate) use status::{PeerStatus, RoleStatus, Status};

use crate::request::Refusal;
use refusals::Reason;

/// Why the broker has to begin anew in its directory, without the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// It was master and is not any more: its tables hold what its log may lose.
    Demoted,
    /// Its log goes on elsewhere than its master's, from this position on.
    CutAt(u64),
    /// It has nothing of its master's log, which begins here and is this one.
    BeginAt { start: u64, store_id: Uuid },
}

/// What somebody wants of the replica.
pub(crate) enum Command {
    /// Give the office to this replica, or to whichever has most. The answer comes when it is done.
    HandOver { heir: Option<ReplicaId>, answer: oneshot::Sender<Result<(), HandOverError>> },
    /// Give it up, because the disk does not answer.
    Resign { why: String },
    /// The process is to end. The answer comes when nobody would wait for this replica, or nothing can be
    /// done about that; it says whether nobody would.
    Leave { answer: oneshot::Sender<bool> },
}

/// Why the office stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandOverError {
    #[error("this replica is not the master")]
    NotMaster,
    #[error("roles are given by configuration; change the configuration")]
    ByConfiguration,
    #[error("no such replica is in sync, follows and was heard just now")]
    NoHeir,
    #[error("the office is being handed over already; wait for what becomes of that")]
    UnderWay,
    #[error("the heir did not take over in time; this replica goes on as master")]
    TooLate,
    #[error("replica {0} became master in place of the heir")]
    Another(u32),
    #[error("this replica gave its office up and does not know yet who has it now")]
    Unknown,
}

/// What is counted of a replica for as long as the process lives, however often it begins anew.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) refusals: refusals::Refusals,
    /// Requests that were refused because this replica is not the master.
    fenced: AtomicU64,
    /// How often this replica became master in another's place: of one that was gone, and of one that
    /// handed over, as far as it said so.
    failovers: Mutex<[Failovers; 2]>,
}

/// How often, and for how long all in all, the group was without a master.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failovers {
    pub(crate) number: u64,
    pub(crate) without_master: Duration,
}

impl Failovers {
    fn count(&mut self, without_master: Duration) {
        self.number += 1;
        self.without_master += without_master;
    }
}

/// What the broker's other threads know of the replica, and what they tell it.
pub(crate) struct Shared {
    /// The log has grown, or more of it is flushed.
    pub(crate) moved: Notify,
    /// The log has grown, for those who send it.
    written: watch::Sender<()>,
    status: watch::Sender<Status>,
    commands: mpsc::Sender<Command>,
    /// Messages up to here may be acknowledged …
    acknowledged: AtomicU64,
    /// … until the store's clock says this, in nanoseconds.
    acknowledged_until: AtomicU64,
    /// Of what is sent and not in memory.
    catch_up: catch_up::CatchUp,
    /// What is measured of the replicas.
    pub(crate) peers: peers::Peers,
    pub(crate) counted: Arc<Counted>,
    /// What was last said of this replica: that it does its part, or why not.
    said: Mutex<Option<Result<(), String>>>,
    check: weirmq_admin::Check,
    /// Before this time of the store's clock, in nanoseconds, slaves may still say what was committed at
    /// them.
    offsets_heard: AtomicU64,
    /// Whether this replica has once had all that its master had, or is the master.
    knows_state: AtomicBool,
    /// Whether it is or was the master, since it began.
    has_led: AtomicBool,
}

impl Shared {
    fn new(
        status: Status,
        commands: mpsc::Sender<Command>,
        check: weirmq_admin::Check,
        catch_up_rate: u64,
        counted: Arc<Counted>,
    ) -> Self {
        Self {
            moved: Notify::new(),
            written: watch::Sender::new(()),
            status: watch::Sender::new(status),
            commands,
            acknowledged: AtomicU64::new(0),
            acknowledged_until: AtomicU64::new(0),
            catch_up: catch_up::CatchUp::new(catch_up_rate),
            peers: peers::Peers::default(),
            counted,
            said: Mutex::default(),
            check,
            offsets_heard: AtomicU64::new(0),
            knows_state: AtomicBool::new(false),
            has_led: AtomicBool::new(false),
        }
    }

    /// How many bytes a second slaves that are far behind are sent together; 0: as many as may be.
    pub(crate) fn set_catch_up_rate(&self, rate: u64) {
        self.catch_up.set_rate(rate);
    }

    /// Something was appended.
    pub(crate) fn appended(&self) {
        self.written.send_replace(());
        self.moved.notify_one();
    }

    fn knows_state(&self) {
        self.knows_state.store(true, Ordering::Release);
    }

    /// Whether what is not here is nowhere.
    pub(crate) fn is_state_known(&self) -> bool {
        self.knows_state.load(Ordering::Acquire)
    }

    /// Slaves may say until then what was committed at them.
    fn hear_offsets_until(&self, until: Duration) {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.offsets_heard.store(until, Ordering::Release);
    }

    /// Whether they have, or had the time for it.
    pub(crate) fn has_heard_offsets(&self, now: Duration) -> bool {
        now.as_nanos() >= u128::from(self.offsets_heard.load(Ordering::Acquire))
    }

    /// Up to where messages may be acknowledged at this time.
    pub(crate) fn acknowledged(&self, now: Duration) -> u64 {
        let acknowledged = self.acknowledged.load(Ordering::Acquire);
        let until = self.acknowledged_until.load(Ordering::Acquire);
        let is_over = until != u64::MAX && now >= Duration::from_nanos(until);
        if is_over { 0 } else { acknowledged }
    }

    /// A smaller position first: who reads between the two must not have the old one with the
    /// newer time.
    fn set_acknowledged(&self, position: u64, until: Duration) {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        if position < self.acknowledged.load(Ordering::Acquire) {
            self.acknowledged.store(position, Ordering::Release);
            self.acknowledged_until.store(until, Ordering::Release);
        } else {
            self.acknowledged_until.store(until, Ordering::Release);
            self.acknowledged.store(position, Ordering::Release);
        }
    }

    pub(crate) fn count_fenced(&self, requests: usize) {
        self.counted.fenced.fetch_add(requests as u64, Ordering::Relaxed);
    }

    /// How often this replica became master in the place of one that was gone, and of one that handed over.
    pub(crate) fn failovers(&self) -> [Failovers; 2] {
        *self.counted.failovers.lock()
    }

    /// Names, meanings and values of what is counted here.
    pub(crate) fn gauges(&self) -> [(&'static str, &'static str, u64); 6] {
        let status = self.status.borrow();
        let is_master = matches!(status.role, RoleStatus::Master { .. });
        let may_append = matches!(status.role, RoleStatus::Master { may_append: true });
        [
            ("weirmq_master_epoch", "Grows with each change of the group's master", status.epoch),
            ("weirmq_is_master", "1 at the master", u64::from(is_master)),
            ("weirmq_takes_messages", "1 at a master that takes messages", u64::from(may_append)),
            (
                "weirmq_in_sync_replicas",
                "Replicas in sync, the master counted",
                status.in_sync as u64,
            ),
            (
                "weirmq_fenced_appends",
                "Sends, and changes that would have been an append, refused because this is not the master, or too few \
                 replicas are in sync",
                self.counted.fenced.load(Ordering::Relaxed),
            ),
            (
                "weirmq_replica_complaint",
                "1 where this replica does not do its part, or something is wrong with its group's record; \
                 the log and /readyz say what",
                u64::from(matches!(*self.said.lock(), Some(Err(_)))),
            ),
        ]
    }

    /// What the replica is at the moment, without a copy of the rest: asked for with each pull.
    pub(crate) fn role(&self) -> RoleStatus {
        self.status.borrow().role
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.status.borrow().epoch
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Changes of the status.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Whether this replica was the master and is none any more: it is about to begin anew, and the next master
    /// does not ask what was committed here meanwhile.
    pub(crate) fn was_master(&self) -> bool {
        let is_master = matches!(self.role(), RoleStatus::Master { .. });
        !is_master && self.has_led.load(Ordering::Acquire)
    }

    pub(crate) fn set_status(&self, status: Status) {
        if matches!(status.role, RoleStatus::Master { .. }) {
            self.has_led.store(true, Ordering::Release);
        }
        self.status.send_if_modified(|known| {
            let is_new = *known != status;
            if is_new {
                *known = status;
            }
            is_new
        });
    }

    /// Says that this replica does its part, or once for each reason why it does not.
    fn say(&self, said: Result<(), String>) {
        let mut known = self.said.lock();
        if known.as_ref() == Some(&said) {
            return;
        }
        match &said {
            Err(why) => {
                tracing::error!(why, "this replica does not follow");
                self.check.degraded(why.clone());
            }
            Ok(()) => self.check.ok(),
        }
        *known = Some(said);
    }

    /// Counts and logs that somebody is refused at the handshake. A replica that has not done its part yet says
    /// so where it is asked whether it is ready, if its configuration may be the reason: whoever waits
    /// for it would see nothing else.
    fn refused(&self, who: &dyn fmt::Display, reason: Reason, why: &dyn fmt::Display) {
        self.counted.refusals.refused(who, reason, why);
        if reason.is_configured() && self.said.lock().is_none() {
            // Some of it may be the words of a stranger.
            let why = refusals::in_short(why);
            self.check.failing(format!("{who}: {why}"));
        }
    }

    /// Hands the office over and waits until the heir has it.
    pub(crate) async fn hand_over(
        &self,
        heir: Option<ReplicaId>,
        patience: Duration,
    ) -> Result<(), HandOverError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(Command::HandOver { heir, answer }).await;
        match sent {
            // The replica ends: whoever asked finds another master, or none.
            Err(_) => Err(HandOverError::NotMaster),
            Ok(()) => match tokio::time::timeout(patience, answered).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(HandOverError::Unknown),
                Err(_) => Err(HandOverError::TooLate),
            },
        }
    }

    /// Has the others told that this replica ends, and waits until its master does without it; not
    /// for longer than `patience`. Says whether nobody waits for it.
    pub(crate) async fn leave(&self, patience: Duration) -> bool {
        let (answer, answered) = oneshot::channel();
        let left = async {
            self.commands.send(Command::Leave { answer }).await.is_ok()
                && answered.await.unwrap_or(false)
        };
        tokio::time::timeout(patience, left).await.unwrap_or(false)
    }

    /// Gives the office up without an heir.
    pub(crate) async fn resign(&self, why: String) {
        let _ = self.commands.send(Command::Resign { why }).await;
    }

    /// Why this replica takes no messages, as clients are told; `None` where it takes them.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let status = self.status.borrow();
        let (code, why) = match status.role {
            RoleStatus::Master { may_append: true } => return None,
            RoleStatus::Master { .. } if status.is_short => (
                ResponseCode::SystemError,
                format!(
                    "{} replicas are in sync, {} are needed (replication.min_in_sync)",
                    status.in_sync, status.min_in_sync
                ),
            ),
            RoleStatus::Master { .. } => (
                ResponseCode::ServiceNotAvailable,
                "this master is not sure that it still is, or is about to hand over".to_owned(),
            ),
            RoleStatus::Slave { master } => (
                ResponseCode::ServiceNotAvailable,
                format!("this is a slave, replica {master} is the master"),
            ),
            RoleStatus::Waiting => {
                (ResponseCode::ServiceNotAvailable, "no master is known yet".to_owned())
            }
        };
        Some(Refusal::new(code, why))
    }
}

#[cfg(test)]
mod tests {
    use weirmq_admin::{Admin, State};

    use super::*;

    /// Of a slave, and who is asked how it is.
    fn shared() -> (Admin, Shared) {
        let admin = Admin::new();
        let (commands, _) = mpsc::channel(1);
        let check = admin.check("replication");
        let shared = Shared::new(Status::new(1, 2), commands, check, 0, Arc::default());
        (admin, shared)
    }

    #[test]
    fn a_replica_that_has_not_begun_says_who_does_not_know_it() {
        let (admin, shared) = shared();
        let state = || admin.health().state("replication").unwrap();
        shared.refused(&"10.0.0.7", Reason::NoReplica, &"what a stranger says");
        assert_eq!(state(), State::Starting);
        shared.refused(&"mq-0-0:10912", Reason::Secret, &"the secrets differ");
        assert_eq!(state(), State::Failing("mq-0-0:10912: the secrets differ".to_owned()));
        shared.say(Ok(()));
        assert_eq!(state(), State::Ok);
        shared.refused(&"mq-0-0:10912", Reason::Secret, &"the secrets differ");
        assert_eq!(state(), State::Ok);
        assert_eq!(shared.counted.refusals.counts(), [("NoReplica", 1), ("Secret", 2)]);
    }

    #[test]
    fn a_stranger_writes_no_lines_of_its_own() {
        let (admin, shared) = shared();
        let why = format!("group g\nERROR the disk failed\u{1b}[2J{}", "\u{7f}g".repeat(8 << 10));
        shared.refused(&"10.0.0.7", Reason::OtherGroup, &why);
        let Some(State::Failing(said)) = admin.health().state("replication") else {
            panic!("nothing is said");
        };
        assert!(
            said.starts_with("10.0.0.7: group g\\nERROR the disk failed\\u{1b}[2J\\u{7f}g"),
            "{said}"
        );
        assert!(said.len() < 700 && !said.contains(char::is_control), "{said}");
    }
}
