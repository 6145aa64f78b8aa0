//! Carries out what the deciding state machine wants, and tells it what happens.
//!
//! One task owns the machine, so everything that it is told and wants has one order. It runs on a
//! thread of its own. A disk that stalls keeps it from reporting, a follower's at once and a master's
//! when it next has to wait for an append: that is what the others should see, and they elect another.

mod follow;
mod office;
mod publish;
mod repair;
mod said;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weirmq_authority::{
    Action, EpochTable, LogPosition, Member, Replica, ReplicaId, Report, Settings, Standing,
    Swapped,
};
use weirmq_store::StoreError;

use super::authority::{Authority, Found, MasterService};
use super::frame::{Follow, Frame};
use super::link::{FromLink, Link};
use super::refusals::{Reason, in_short};
use super::{Command, HandOverError, Shared, copy, kept};
use crate::Broker;
use follow::{Following, OFFSETS_PER_FRAME};
use repair::Repairs;
use said::Said;

/// How often the machine looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// The answer to a request to the authority.
pub(super) enum FromAuthority {
    Read { request: u64, found: Option<Box<Found>> },
    RecordSwapped { request: u64, swapped: Swapped },
    LeaseSwapped { request: u64, swapped: Swapped },
}

pub(super) struct Driver {
    broker: Arc<Broker>,
    shared: Arc<Shared>,
    settings: Settings,
    authority: Authority,
    endpoint: Option<MasterService>,
    /// Leads clients here while this replica is master.
    holding: JoinSet<()>,
    replica: Replica,
    epochs: EpochTable,
    /// What the machine was told of the log last.
    position: LogPosition,
    leading: Option<u64>,
    following: Option<Following>,
    /// The broker was asked to begin anew with a shorter log. What is in the log now may not be in it then.
    is_to_be_cut: bool,
    links: HashMap<ReplicaId, Link>,
    /// What each replica reported last, and when.
    reports: HashMap<ReplicaId, (Report, Duration)>,
    /// When the master that this replica followed was heard last, and whether it was handing over.
    master_heard: Option<(Duration, bool)>,
    /// What was published last.
    published: Standing,
    /// Until when the store was told that it takes appends.
    gate_until: Duration,
    /// Who asked for a hand-over.
    handing_over: Option<HandingOver>,
    /// Who asked whether the process may end.
    leaving: Option<oneshot::Sender<bool>>,
    answers: mpsc::Sender<FromAuthority>,
    /// The read that was asked for last.
    reading: u64,
    /// What this replica's configuration has to be for it to belong to its group.
    disagreement: Option<String>,
    /// Where everything that the master had is shown, so that what was committed here as a slave can be
    /// compared with the ends of queues; once.
    settle_at: Option<u64>,
    /// Who has not yet told this master what was committed at it as a slave.
    unheard: BTreeSet<ReplicaId>,
    /// When offsets that were committed here as a slave were passed on last.
    offsets_passed: Option<Duration>,
    repairs: Repairs,
    /// Why others refused something.
    refused_by: Said<Member>,
}

/// The group's settings, and where its record and its master's endpoint are.
pub(super) struct GroupPlace {
    pub(super) settings: Settings,
    pub(super) authority: Authority,
    pub(super) endpoint: Option<MasterService>,
}

/// To whom the office is to go, if to anybody in particular, and who asked for it.
struct HandingOver {
    heir: Option<ReplicaId>,
    answer: oneshot::Sender<Result<(), HandOverError>>,
}

/// Why the driver ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriverError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("replica state: {0}")]
    State(#[from] crate::state::StateError),
}

impl Driver {
    pub(super) fn new(
        broker: Arc<Broker>,
        shared: Arc<Shared>,
        group: GroupPlace,
        replica: Replica,
        epochs: EpochTable,
        answers: mpsc::Sender<FromAuthority>,
    ) -> Self {
        let GroupPlace { settings, authority, endpoint } = group;
        Self {
            broker,
            shared,
            settings,
            authority,
            endpoint,
            holding: JoinSet::new(),
            replica,
            epochs,
            position: LogPosition::default(),
            leading: None,
            following: None,
            is_to_be_cut: false,
            links: HashMap::new(),
            reports: HashMap::new(),
            master_heard: None,
            published: Standing::default(),
            gate_until: Duration::ZERO,
            handing_over: None,
            leaving: None,
            answers,
            reading: 0,
            disagreement: None,
            settle_at: None,
            unheard: BTreeSet::new(),
            offsets_passed: None,
            repairs: Repairs::default(),
            refused_by: Said::default(),
        }
    }

    /// Runs until `stop`, or until the log is to be cut, which the broker is told.
    ///
    /// # Errors
    /// When the replica cannot go on: its disk failed, or it does not understand the log.
    pub(super) async fn run(
        mut self,
        mut links: mpsc::Receiver<FromLink>,
        mut answers: mpsc::Receiver<FromAuthority>,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Result<(), DriverError> {
        let mut hints = self.authority.hints();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.shared.moved.notified() => self.log_moved(),
                Some(event) = links.recv() => self.on_link(event).await?,
                Some(answer) = answers.recv() => self.on_answer(answer),
                Some(command) = commands.recv() => self.on_command(command),
                () = hints.changed() => {
                    self.replica.changed();
                    self.replica.tick(self.now());
                }
                _ = tick.tick() => {
                    self.replica.tick(self.now());
                    let (me, end) = (self.replica.me().replica.0, self.position.end);
                    self.shared.peers.reported(me, self.now(), end, end);
                    self.pass_offsets_on();
                    self.ask_for_lost();
                    // What was wrong may be mended without a new message.
                    if self.following.as_ref().is_some_and(|following| following.is_aligned) {
                        self.note_caught_up();
                    }
                    self.publish_status();
                }
            }
            // Until the old connections have drained there may be another master, whose log goes on where
            // this one ends. It must not count bytes here that are cut afterwards.
            if self.is_to_be_cut {
                break;
            }
            self.act().await?;
            self.publish();
            self.leave_if_due();
        }
        self.broker.store.close_for_appends();
        Ok(())
    }

    fn now(&self) -> Duration {
        self.broker.store.clock().uptime()
    }

    /// Tells the machine where the log ends, if that counts for anything.
    fn log_moved(&mut self) {
        let position = log_position(&self.broker, &self.epochs);
        // A follower that flushes first has nothing to report before it has.
        let is_news = self.leading.is_some()
            || !self.settings.sync_flush
            || (position.epoch, position.flushed) != (self.position.epoch, self.position.flushed);
        if position != self.position && is_news {
            self.position = position;
            self.replica.log_moved(self.now(), position);
        }
    }

    fn on_answer(&mut self, answer: FromAuthority) {
        let now = self.now();
        match answer {
            FromAuthority::Read { request, found } if request == self.reading => {
                let found = found.and_then(|found| self.take_settings(now, found));
                self.replica.read(now, request, found.map(|found| (found.record, found.lease)));
            }
            // Nobody waits for that any more.
            FromAuthority::Read { .. } => {}
            FromAuthority::RecordSwapped { request, swapped } => {
                self.replica.record_swapped(now, request, swapped);
            }
            FromAuthority::LeaseSwapped { request, swapped } => {
                self.replica.lease_swapped(now, request, swapped);
            }
        }
    }

    /// Makes the group's settings this replica's, as they stood beside the record that was found.
    /// Nothing was found where they contradict what this replica cannot change while it runs.
    fn take_settings(&mut self, now: Duration, found: Box<Found>) -> Option<Box<Found>> {
        let Some(group) = &found.settings else { return Some(found) };
        let (known, wanted) = (&self.settings, group);
        let fixed = |it: &Settings| (it.replication, it.acknowledged_by, it.sync_flush);
        self.disagreement = (fixed(known) != fixed(wanted)).then(|| {
            let words = |it: &Settings| {
                let flush = if it.sync_flush { "sync" } else { "async" };
                let (replication, by) = (it.replication, it.acknowledged_by);
                format!("replication {replication:?} and flush {flush}, acknowledged by {by:?}")
            };
            format!(
                "the BrokerGroup says {}, this replica is configured for {}; change replication.mode, \
                 replication.ack_policy and store.flush here",
                words(wanted),
                words(known)
            )
        });
        if self.disagreement.is_some() {
            return None;
        }
        let changing =
            |settings: &Settings| (settings.min_in_sync, settings.takes_over, settings.promotion);
        if known.group != wanted.group || changing(known) != changing(wanted) {
            tracing::info!(
                replicas = wanted.group.len(),
                min_in_sync = wanted.min_in_sync,
                belongs = wanted.group.contains(&self.replica.me().replica),
                takes_over = wanted.takes_over,
                promotion = ?wanted.promotion,
                "the group's settings"
            );
            self.settings.group.clone_from(&wanted.group);
            self.settings.min_in_sync = wanted.min_in_sync;
            (self.settings.takes_over, self.settings.promotion) =
                (wanted.takes_over, wanted.promotion);
            self.replica.configure(now, self.settings.clone());
        }
        Some(found)
    }

    /// Whether this start of a replica was heard just now and stays, by its own word.
    fn is_prompt(&self, replica: ReplicaId) -> bool {
        let is_prompt = |(report, heard): &(Report, Duration)| {
            self.now().saturating_sub(*heard) < 2 * self.settings.tick_every && !report.leaves
        };
        self.links.contains_key(&replica) && self.reports.get(&replica).is_some_and(is_prompt)
    }

    /// Tells whoever wants to end the process that nobody would wait for this replica any more, or that
    /// this does not change.
    fn leave_if_due(&mut self) {
        if self.leaving.is_some() && !self.replica.is_waited_for(self.now()) {
            let is_free = !self.replica.is_counted();
            let _ = self.leaving.take().map(|asked| asked.send(is_free));
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::HandOver { answer, .. } if self.leading.is_none() => {
                let _ = answer.send(Err(HandOverError::NotMaster));
            }
            Command::HandOver { answer, .. } if self.authority.is_by_configuration() => {
                let _ = answer.send(Err(HandOverError::ByConfiguration));
            }
            Command::HandOver { answer, .. } if self.replica.is_handing_over() => {
                let _ = answer.send(Err(HandOverError::UnderWay));
            }
            Command::HandOver { heir, answer } => {
                // Nothing is appended from here on, so the machine knows where the log ends.
                self.broker.store.close_for_appends();
                self.published.may_append = false;
                self.log_moved();
                if self.replica.hand_over(now, heir) {
                    tracing::info!(heir = heir.map(|heir| heir.0), "handing over");
                    self.handing_over = Some(HandingOver { heir, answer });
                } else {
                    let _ = answer.send(Err(HandOverError::NoHeir));
                }
            }
            Command::Leave { answer } => {
                self.replica.leave(now);
                self.leaving = Some(answer);
            }
            Command::Resign { why } => {
                if self.leading.is_some() && !self.authority.is_by_configuration() {
                    tracing::error!(why, "this master gives its office up");
                    self.replica.resign(now);
                }
            }
        }
    }

    /// Tells whoever asked for a hand-over that this one took messages again before the heir did.
    fn hand_over_failed(&mut self) {
        if let Some(HandingOver { answer, .. }) = self.handing_over.take() {
            let _ = answer.send(Err(HandOverError::TooLate));
        }
    }

    /// Tells whoever asked for a hand-over who is the master now: another one may have been elected
    /// meanwhile. Who asked and is told nothing, because this replica ends before it knows, hears that.
    fn handed_over_to(&mut self, master: ReplicaId) {
        if let Some(HandingOver { heir, answer }) = self.handing_over.take() {
            let is_heir = heir.is_none_or(|heir| heir == master);
            let _ =
                answer.send(if is_heir { Ok(()) } else { Err(HandOverError::Another(master.0)) });
        }
    }

    async fn on_link(&mut self, event: FromLink) -> Result<(), DriverError> {
        match event {
            FromLink::Up(link) => {
                let replica = link.peer.replica;
                let other = self.links.get(&replica).filter(|known| known.peer != link.peer);
                let is_alive = self.reports.get(&replica).is_some_and(|(report, heard)| {
                    self.now().saturating_sub(*heard) < self.settings.link_timeout && !report.leaves
                });
                if other.is_some() && is_alive {
                    let number = replica.0;
                    let why = format!(
                        "another process is replica {number} and connected; give each its own broker id"
                    );
                    self.refuse(replica, Reason::TwoProcesses, &why);
                    link.refuse(why);
                    return Ok(());
                }
                tracing::info!(replica = replica.0, "replica connected");
                // What others' connections do says nothing of the master's. Another start of the master is
                // nobody to go on with either.
                let following = self.following.as_ref();
                let is_masters =
                    following.is_some_and(|following| following.master.replica == replica);
                self.links.insert(replica, link);
                self.ask_master(is_masters);
                self.publish_status();
            }
            FromLink::Down { link, peer, why } => {
                if self.links.get(&peer.replica).is_some_and(|known| known.number == link) {
                    tracing::info!(replica = peer.replica.0, why, "replica disconnected");
                    self.end_link(peer);
                }
            }
            FromLink::Received { link, peer, frame } => {
                if self.links.get(&peer.replica).is_some_and(|known| known.number == link) {
                    self.on_frame(peer, frame).await?;
                }
            }
        }
        Ok(())
    }

    /// There is no connection to this start of a replica any more, or there must not be. The machine
    /// hears of it, so that the next start need not wait until this one is missed.
    fn end_link(&mut self, peer: Member) {
        self.links.remove(&peer.replica);
        self.replica.disconnected(peer);
        // A candidate counts from when it saw the lease of a master that is gone.
        self.replica.changed();
        self.publish_status();
    }

    async fn on_frame(&mut self, peer: Member, frame: Frame) -> Result<(), DriverError> {
        match frame {
            Frame::Report(report) => self.on_report(report),
            Frame::Follow(Follow { epoch }) => self.on_follow(peer, epoch),
            Frame::Lead(lead) => self.on_lead(peer, lead)?,
            Frame::Fetch(fetch) => self.on_fetch(peer, fetch),
            Frame::Log(log) => self.on_log(peer, log)?,
            Frame::Refused(why) => {
                let why = in_short(&why);
                if self.refused_by.is_news(peer, &why) {
                    tracing::warn!(replica = peer.replica.0, why, "replica refuses");
                }
                // What a former master refuses says nothing of the log that the next one sends.
                if let Some(following) = &mut self.following
                    && following.master == peer
                {
                    // The log may have gone on without what was asked for.
                    following.is_aligned = false;
                }
            }
            Frame::Record(record) => self.replica.heard_record(self.now(), peer, record),
            Frame::Offsets(offsets) if self.leading.is_some() => {
                self.broker.take_slave_offsets(&offsets);
                if offsets.len() < OFFSETS_PER_FRAME {
                    self.heard_offsets(peer.replica);
                }
            }
            Frame::Offsets(_) => {}
            Frame::Lost(lost) => self.on_lost(peer, lost),
            Frame::Found(found) => self.on_found(peer, found),
            Frame::Lacking(lacking) => self.on_lacking(peer, lacking),
            Frame::Hello(_) | Frame::Proof(_) => self.end_link(peer),
        }
        Ok(())
    }

    /// Counts what a replica does not get, and says so once until it gets what it wants.
    fn refuse(&self, replica: ReplicaId, reason: Reason, why: impl std::fmt::Display) {
        self.shared.counted.refusals.refused(&named(replica), reason, &why);
    }

    fn on_report(&mut self, report: Report) {
        // What a follower confirms may be newer than what the machine knows of its own log.
        self.log_moved();
        let replica = report.from.replica;
        let end = report.position.end;
        let was_sent = self.links.get(&replica).is_none_or(|link| link.has_sent(end));
        if self.leading.is_some_and(|epoch| report.follows == Some(epoch))
            && (end > self.position.end || !was_sent)
        {
            let own = self.position.end;
            let why = format!(
                "it reports its log up to {end}, which it was not sent; this one ends at {own}"
            );
            self.refuse(replica, Reason::FutureReport, why);
            self.end_link(report.from);
            return;
        }
        let (now, end) = (self.now(), report.position.end);
        self.shared.peers.reported(replica.0, now, end, self.position.end);
        let before = self.reports.insert(replica, (report, now)).map(|(before, _)| before);
        self.note_new_master(&report, before.as_ref());
        let is_master = |following: &Following| following.master == report.from;
        if self.following.as_ref().is_some_and(is_master) {
            let did_hand_over = self.master_heard.is_some_and(|(_, hands_over)| hands_over);
            // What it says after its office is not that it hands over, nor that it does not.
            let hands_over = report.hands_over || report.leads.is_none() && did_hand_over;
            // Since it said so first it takes no messages.
            if !(hands_over && did_hand_over) {
                self.master_heard = Some((now, hands_over));
            }
        }
        self.replica.heard(now, report);
        self.ask_master(false);
    }

    /// Carries out what the machine wants, in its order.
    async fn act(&mut self) -> Result<(), DriverError> {
        loop {
            let actions = self.replica.take_actions();
            if actions.is_empty() {
                return Ok(());
            }
            // Before anybody hears of it: other threads act on what was published.
            self.publish();
            if actions.iter().any(|action| !matches!(action, Action::Tell(_))) {
                self.publish_status();
            }
            for action in actions {
                self.act_on(action).await?;
            }
        }
    }

    async fn act_on(&mut self, action: Action) -> Result<(), DriverError> {
        let (authority, answers) = (self.authority.clone(), self.answers.clone());
        match action {
            Action::Read { request } => {
                self.reading = request;
                tokio::spawn(async move {
                    let found = authority.read().await.map(Box::new);
                    let _ = answers.send(FromAuthority::Read { request, found }).await;
                });
            }
            Action::SwapRecord { request, expected, record } => {
                tokio::spawn(async move {
                    let swapped = authority.swap_record(expected, record).await;
                    let _ = answers.send(FromAuthority::RecordSwapped { request, swapped }).await;
                });
            }
            Action::SwapLease { request, expected, lease } => {
                tokio::spawn(async move {
                    let swapped = authority.swap_lease(expected, lease).await;
                    let _ = answers.send(FromAuthority::LeaseSwapped { request, swapped }).await;
                });
            }
            Action::Promise(promise) => {
                let (store, sync_flush) = (self.broker.store.clone(), self.settings.sync_flush);
                let write = move || kept::write_promise(&store, &promise, sync_flush);
                let written = tokio::task::spawn_blocking(write).await;
                written.map_err(|error| StoreError::Poisoned { cause: error.to_string() })??;
            }
            Action::Lead { epoch } => self.lead(epoch)?,
            Action::Follow { master, epoch } => {
                tracing::info!(epoch, master = master.replica.0, "following");
                self.following = Some(Following {
                    master,
                    epoch,
                    is_aligned: false,
                    asked: None,
                    master_start: 0,
                    caught_up_at: u64::MAX,
                    has_told_offsets: false,
                });
                self.leave_office();
                self.handed_over_to(master.replica);
                self.ask_master(true);
            }
            Action::Stop => {
                self.following = None;
                self.leave_office();
            }
            Action::Share(record) => {
                self.links.values().for_each(|link| link.send(Frame::Record(record.clone())));
            }
            Action::Tell(report) => self.links.values().for_each(|link| link.report(report)),
        }
        Ok(())
    }
}

/// What of the log here counts, for the others to compare with theirs.
pub(super) fn log_position(broker: &Broker, epochs: &EpochTable) -> LogPosition {
    let marks = broker.store.watermarks();
    // What is flushed by now may be less than what is written, never more.
    let flushed = marks.flushed();
    let (end, lacks_state) = (marks.written(), broker.state.lacks_beginning());
    LogPosition { epoch: epochs.last(), end, flushed, lacks_state }
}

/// A replica, as refusals name it.
pub(super) fn named(replica: ReplicaId) -> String {
    format!("replica {}", replica.0)
}
