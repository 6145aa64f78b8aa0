//! Carries out what the deciding state machine wants, and tells it what happens.
//!
//! One task owns the machine, so everything that it is told and wants has one order. It runs on a
//! thread of its own. A disk that stalls keeps it from reporting, a follower's at once and a master's
//! when it next has to wait for an append: that is what the others should see, and they elect another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weirmq_authority::{
    Action, EpochTable, Lease, LogPosition, Member, Record, Replica, ReplicaId, Replication,
    Report, Role, Settings, Standing, Swapped, Version,
};
use weirmq_store::StoreError;

use super::authority::{Authority, MasterService};
use super::frame::{Fetch, Follow, Frame, Lead, LogBytes};
use super::link::{FromLink, Link};
use super::status::{PeerStatus, RoleStatus, Status};
use super::{Command, HandOverError, Restart, Shared, copy, kept};
use crate::Broker;

/// How often the machine looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// The store is told that it takes appends for longer when that is at least so much.
const GATE_STEP: Duration = Duration::from_millis(250);
/// How often a follower asks its master again that did not answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// So many offsets go into one frame, and so many frames on their way at once.
const OFFSETS_PER_FRAME: usize = 1000;
const OFFSET_FRAMES: usize = 8;

/// The answer to a request to the authority.
pub(super) enum FromAuthority {
    Read { request: u64, found: Option<((Version, Record), (Version, Lease))> },
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
    links: HashMap<ReplicaId, Link>,
    reports: HashMap<ReplicaId, Report>,
    heard: HashMap<ReplicaId, Duration>,
    /// When the master that this replica followed was heard last.
    master_heard: Option<Duration>,
    /// What was published last.
    published: Standing,
    /// Until when the store was told that it takes appends.
    gate_until: Duration,
    /// Who asked for a hand-over.
    handing_over: Option<oneshot::Sender<Result<(), HandOverError>>>,
    answers: mpsc::Sender<FromAuthority>,
    /// When offsets that were committed here as a slave were passed on last.
    offsets_passed: Option<Duration>,
}

/// The group's settings, and where its record and its master's endpoint are.
pub(super) struct GroupPlace {
    pub(super) settings: Settings,
    pub(super) authority: Authority,
    pub(super) endpoint: Option<MasterService>,
}

/// Whom this replica follows.
struct Following {
    master: Member,
    epoch: u64,
    /// Whether the log is the master's as far as it goes, so that what comes continues it.
    is_aligned: bool,
    asked: Option<Duration>,
    /// Where the master's log ended when this one was aligned with it.
    caught_up_at: u64,
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
            links: HashMap::new(),
            reports: HashMap::new(),
            heard: HashMap::new(),
            master_heard: None,
            published: Standing::default(),
            gate_until: Duration::ZERO,
            handing_over: None,
            answers,
            offsets_passed: None,
        }
    }

    /// Runs until `stop`, or until the broker has to begin anew, which it is told.
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
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.shared.moved.notified() => self.log_moved(),
                Some(event) = links.recv() => self.on_link(event).await?,
                Some(answer) = answers.recv() => self.on_answer(answer),
                Some(command) = commands.recv() => self.on_command(command),
                _ = tick.tick() => {
                    self.replica.tick(self.now());
                    let (me, end) = (self.replica.me().replica.0, self.position.end);
                    self.shared.peers.reported(me, self.now(), end, end);
                    self.pass_offsets_on();
                }
            }
            self.act().await?;
            self.publish();
        }
        self.broker.store.close_for_appends();
        Ok(())
    }

    fn now(&self) -> Duration {
        self.broker.store.clock().uptime()
    }

    /// Tells the machine where the log ends, if that counts for anything.
    fn log_moved(&mut self) {
        let marks = self.broker.store.watermarks();
        let flushed = marks.flushed();
        let position = LogPosition { epoch: self.epochs.last(), end: marks.written(), flushed };
        // A follower that flushes first has nothing to report before it has.
        let is_news = self.leading.is_some()
            || !self.settings.sync_flush
            || (position.epoch, flushed) != (self.position.epoch, self.position.flushed);
        if position != self.position && is_news {
            self.position = position;
            self.replica.log_moved(self.now(), position);
        }
    }

    fn on_answer(&mut self, answer: FromAuthority) {
        let now = self.now();
        match answer {
            FromAuthority::Read { request, found } => self.replica.read(now, request, found),
            FromAuthority::RecordSwapped { request, swapped } => {
                self.replica.record_swapped(now, request, swapped);
            }
            FromAuthority::LeaseSwapped { request, swapped } => {
                self.replica.lease_swapped(now, request, swapped);
            }
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
            Command::HandOver { heir, answer } => {
                // Nothing is appended from here on, so the machine knows where the log ends.
                self.broker.store.close_for_appends();
                self.published.may_append = false;
                self.log_moved();
                if self.replica.hand_over(now, heir) {
                    tracing::info!(heir = heir.map(|heir| heir.0), "handing over");
                    self.handing_over = Some(answer);
                } else {
                    let _ = answer.send(Err(HandOverError::NoHeir));
                }
            }
            Command::Resign { why } => {
                if self.leading.is_some() && !self.authority.is_by_configuration() {
                    tracing::error!(why, "this master gives its office up");
                    self.replica.resign(now);
                }
            }
        }
    }

    /// Tells whoever asked for a hand-over what became of it.
    fn answer_hand_over(&mut self, outcome: Result<(), HandOverError>) {
        if let Some(answer) = self.handing_over.take() {
            let _ = answer.send(outcome);
        }
    }

    async fn on_link(&mut self, event: FromLink) -> Result<(), DriverError> {
        match event {
            FromLink::Up(link) => {
                let replica = link.peer.replica;
                let other = self.links.get(&replica).filter(|known| known.peer != link.peer);
                let is_alive = self.heard.get(&replica).is_some_and(|heard| {
                    self.now().saturating_sub(*heard) < self.settings.link_timeout
                });
                if other.is_some() && is_alive {
                    tracing::error!(
                        replica = replica.0,
                        "two processes say that they are this replica; the second is refused"
                    );
                    link.send(Frame::Refused(format!(
                        "another process is replica {} and connected; give each its own broker id",
                        replica.0
                    )));
                    return Ok(());
                }
                tracing::info!(replica = replica.0, "replica connected");
                self.links.insert(replica, link);
                self.ask_master(true);
            }
            FromLink::Down { link, peer, why } => {
                if self.links.get(&peer.replica).is_some_and(|known| known.number == link) {
                    self.links.remove(&peer.replica);
                    tracing::info!(replica = peer.replica.0, why, "replica disconnected");
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

    async fn on_frame(&mut self, peer: Member, frame: Frame) -> Result<(), DriverError> {
        match frame {
            Frame::Report(report) => self.on_report(report),
            Frame::Follow(Follow { epoch }) => self.on_follow(peer, epoch),
            Frame::Lead(lead) => self.on_lead(peer, lead)?,
            Frame::Fetch(fetch) => self.on_fetch(peer, fetch),
            Frame::Log(log) => self.on_log(peer, log)?,
            Frame::Refused(why) => {
                tracing::warn!(replica = peer.replica.0, why, "replica refuses");
                if let Some(following) = &mut self.following {
                    // The log may have gone on without what was asked for.
                    following.is_aligned = false;
                }
            }
            Frame::Record(record) => self.replica.heard_record(self.now(), peer, record),
            Frame::Offsets(offsets) if self.leading.is_some() => {
                self.broker.take_slave_offsets(&offsets);
            }
            Frame::Offsets(_) => {}
            Frame::Hello(_) | Frame::Proof(_) => {
                self.links.remove(&peer.replica);
            }
        }
        Ok(())
    }

    fn on_report(&mut self, report: Report) {
        // What a follower confirms may be newer than what the machine knows of its own log.
        self.log_moved();
        let replica = report.from.replica;
        if self.leading.is_some_and(|epoch| report.follows == Some(epoch))
            && report.position.end > self.position.end
        {
            self.shared.refused_reports.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tracing::error!(
                replica = replica.0,
                reported = report.position.end,
                end = self.position.end,
                "replica reports more than it was sent; it is disconnected"
            );
            self.links.remove(&replica);
            return;
        }
        let (now, end) = (self.now(), report.position.end);
        self.shared.peers.reported(replica.0, now, end, self.position.end);
        self.reports.insert(replica, report);
        self.heard.insert(replica, now);
        let is_master = |following: &Following| following.master == report.from;
        if self.following.as_ref().is_some_and(is_master) {
            self.master_heard = Some(now);
        }
        self.replica.heard(now, report);
        self.ask_master(false);
    }

    /// A replica wants to follow: it gets what it needs to find where its log parts from this one.
    fn on_follow(&mut self, peer: Member, epoch: u64) {
        let Some(link) = self.links.get(&peer.replica) else { return };
        if self.leading != Some(epoch) {
            link.send(Frame::Refused(format!("this replica does not lead in epoch {epoch}")));
            return;
        }
        let store = &self.broker.store;
        link.send_log(None);
        link.send(Frame::Lead(Lead {
            epoch,
            store_id: store.store_id(),
            epochs: self.epochs.clone(),
            start: store.min_offset(),
            end: store.max_offset(),
            image: self.broker.state.newest_image().0,
            next_offsets: store.next_offsets(),
        }));
    }

    fn on_fetch(&mut self, peer: Member, fetch: Fetch) {
        if let Some(link) = self.links.get(&peer.replica)
            && self.leading == Some(fetch.epoch)
        {
            tracing::info!(replica = peer.replica.0, from = fetch.from, "replica takes the log");
            link.send_log(Some(fetch));
        }
    }

    /// The master says what its log is. Its follower goes on where both are the same; for that it
    /// may have to cut its own, which takes a restart.
    fn on_lead(&mut self, peer: Member, lead: Lead) -> Result<(), DriverError> {
        let now = self.now();
        let Some(following) = &mut self.following else { return Ok(()) };
        if following.master != peer || following.epoch != lead.epoch || following.is_aligned {
            return Ok(());
        }
        let store = &self.broker.store;
        let (start, end) = (store.min_offset(), store.max_offset());
        let is_empty = start == end;
        let is_same_log = store.store_id() == lead.store_id;
        if !is_same_log && !is_empty {
            let why = format!(
                "the log of replica {} has the id {}, this one {}; this directory belongs to \
                 another group, or its master was replaced by an empty one. Empty it to follow",
                peer.replica.0,
                lead.store_id,
                store.store_id()
            );
            self.shared.say(Err(why));
            return Ok(());
        }
        let common = self.epochs.common_end(end, &lead.epochs, lead.end);
        let begin = Restart::BeginAt { start: lead.start, store_id: lead.store_id };
        // What comes before an image says nothing to a log without a beginning.
        let misses_state = !self.broker.state.is_complete() && end > lead.image;
        let restart = if is_empty {
            (!is_same_log || start != lead.start).then_some(begin)
        } else if common < lead.start || common < start || misses_state {
            // Nothing of this log is in the master's any more.
            Some(begin)
        } else {
            (common < end).then_some(Restart::CutAt(common))
        };
        if let Some(restart) = restart {
            tracing::warn!(
                ?restart,
                end,
                master = peer.replica.0,
                "the log has to be cut to follow"
            );
            self.broker.restart(restart);
            self.following = None;
            return Ok(());
        }
        if is_empty {
            store.adopt_next_offsets(&lead.next_offsets)?;
        }
        self.epochs = lead.epochs;
        self.epochs.truncate(end);
        kept::write_epochs(store, &self.epochs)?;
        following.is_aligned = true;
        following.caught_up_at = lead.end;
        let epoch = following.epoch;
        let marks = store.watermarks();
        self.position = LogPosition { epoch: self.epochs.last(), end, flushed: marks.flushed() };
        self.replica.aligned(now, epoch, self.position);
        if let Some(link) = self.links.get(&peer.replica) {
            link.send(Frame::Fetch(Fetch { epoch, from: end }));
        }
        self.note_caught_up();
        self.offsets_passed = None;
        self.pass_offsets_on();
        Ok(())
    }

    /// Notes that this replica has once had all that its master had: from then on it can tell what is
    /// not there from what it has not got yet.
    fn note_caught_up(&self) {
        let Some(following) = &self.following else { return };
        if self.broker.store.max_offset() >= following.caught_up_at
            && self.broker.state.is_complete()
        {
            self.shared.knows_state();
            self.shared.say(Ok(()));
        }
    }

    /// Sees to it that what consumers committed here as a slave gets into the log, again and again
    /// until it is there for good. A slave first hears of everything that was deleted before.
    fn pass_offsets_on(&mut self) {
        let offsets = &self.broker.state.offsets;
        if offsets.at_slave(|at_slave| at_slave.is_empty()) {
            return;
        }
        let now = self.now();
        if self.offsets_passed.is_some_and(|passed| now < passed + ASK_AGAIN) {
            return;
        }
        self.offsets_passed = Some(now);
        self.broker.forget_slave_offsets();
        let not_logged = || offsets.at_slave(|at_slave| at_slave.not_logged());
        if self.leading.is_some() {
            self.broker.take_slave_offsets(&not_logged());
        } else if let Some(following) = &self.following
            && following.is_aligned
            && self.broker.store.max_offset() >= following.caught_up_at
            && let Some(link) = self.links.get(&following.master.replica)
        {
            // The rest has its turn when these are in the log.
            for some in not_logged().chunks(OFFSETS_PER_FRAME).take(OFFSET_FRAMES) {
                link.send(Frame::Offsets(some.to_vec()));
            }
        }
    }

    fn on_log(&mut self, peer: Member, log: LogBytes) -> Result<(), DriverError> {
        let is_wanted = self.following.as_ref().is_some_and(|following| {
            following.master == peer && following.epoch == log.epoch && following.is_aligned
        });
        if !is_wanted {
            return Ok(());
        }
        match copy::take(&self.broker, &mut self.epochs, &log) {
            Ok(()) => {
                self.log_moved();
                self.note_caught_up();
            }
            Err(DriverError::Store(StoreError::NoContinuation { position, reason })) => {
                self.ask_again_later(format!("what the master sent for {position}: {reason}"));
            }
            Err(DriverError::Store(
                error @ (StoreError::Full { .. }
                | StoreError::Busy { .. }
                | StoreError::TooLarge { .. }),
            )) => self.ask_again_later(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes nothing more before the master was asked anew, in a while; says why.
    fn ask_again_later(&mut self, why: String) {
        self.shared.say(Err(why));
        let now = self.now();
        if let Some(following) = &mut self.following {
            following.is_aligned = false;
            following.asked = Some(now);
        }
    }

    /// Asks the master to lead this replica, unless it was asked a moment ago.
    fn ask_master(&mut self, is_new: bool) {
        let now = self.now();
        let Some(following) = &mut self.following else { return };
        if is_new {
            following.is_aligned = false;
        }
        let was_asked = following.asked.is_some_and(|asked| now < asked + ASK_AGAIN);
        if following.is_aligned || was_asked && !is_new {
            return;
        }
        if let Some(link) = self.links.get(&following.master.replica)
            && link.peer == following.master
        {
            following.asked = Some(now);
            link.send(Frame::Follow(Follow { epoch: following.epoch }));
        }
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
            for action in actions {
                self.act_on(action).await?;
            }
        }
    }

    async fn act_on(&mut self, action: Action) -> Result<(), DriverError> {
        let (authority, answers) = (self.authority.clone(), self.answers.clone());
        match action {
            Action::Read { request } => {
                tokio::spawn(async move {
                    let found = authority.read().await;
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
                    caught_up_at: u64::MAX,
                });
                self.leave_office();
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

    /// Ends what this replica did as master, if it was one.
    fn leave_office(&mut self) {
        self.holding.abort_all();
        if self.leading.take().is_some() {
            tracing::warn!("no longer master");
            self.answer_hand_over(Ok(()));
            // What was applied and is in nobody else's log goes with the process's tables.
            self.broker.restart(Restart::Demoted);
        }
    }

    fn lead(&mut self, epoch: u64) -> Result<(), DriverError> {
        tracing::info!(epoch, replica = self.replica.me().replica.0, "master");
        self.following = None;
        self.leading = Some(epoch);
        let start = self.broker.store.close_for_appends();
        self.note_epoch(epoch, start)?;
        let began = self.broker.state.begin_epoch(epoch, self.replica.me().replica.0)?;
        if began != start {
            // The record did not fit into its segment.
            self.epochs.truncate(start);
            self.note_epoch(epoch, began)?;
        }
        self.shared.knows_state();
        self.log_moved();
        if let Some(endpoint) = self.endpoint.clone() {
            let authority = self.authority.clone();
            self.holding.spawn(async move {
                authority.hold_master_endpoint(endpoint, epoch).await;
            });
        }
        Ok(())
    }

    /// Notes, durably, where an epoch begins.
    fn note_epoch(&mut self, epoch: u64, start: u64) -> Result<(), DriverError> {
        if !self.epochs.begin(epoch, start) {
            let last = self.epochs.last();
            let cause = format!("epoch {epoch} cannot begin at {start}, after epoch {last}");
            return Err(StoreError::Poisoned { cause }.into());
        }
        Ok(kept::write_epochs(&self.broker.store, &self.epochs)?)
    }

    /// Tells all other threads what this replica is and may do.
    fn publish(&mut self) {
        let standing = self.replica.standing(self.now());
        let store = &self.broker.store;
        if standing.visible != self.published.visible
            && let Some(visible) = standing.visible
        {
            store.watermarks().confirm(visible);
        }
        // With each report the permission reaches a little further; the append lock is not taken
        // for that.
        let is_renewed = standing.until >= self.gate_until.saturating_add(GATE_STEP)
            || standing.until < self.gate_until;
        match standing.may_append {
            true if !self.published.may_append || is_renewed => {
                let is_for_ever = standing.until == Duration::MAX;
                store.open_for_appends((!is_for_ever).then_some(standing.until));
                self.gate_until = standing.until;
            }
            false if self.published.may_append => {
                store.close_for_appends();
            }
            true | false => {}
        }
        if standing.may_append && !self.published.may_append {
            self.note_failover();
            // The machine has gone back to work.
            self.answer_hand_over(Err(HandOverError::TooLate));
        }
        let is_news = (standing.acknowledged, standing.visible)
            != (self.published.acknowledged, self.published.visible);
        self.published = standing;
        self.shared.set_acknowledged(standing.acknowledged, standing.acknowledged_until);
        if is_news {
            self.broker.flushed.notify_one();
        }
        let status = self.status();
        if let Some(complaint) = self.replica.complaint(self.now()) {
            self.shared.say(Err(complaint.to_string()));
        } else if standing.may_append || self.leading.is_some() && status.is_short {
            self.shared.say(Ok(()));
        }
        self.shared.set_status(status);
    }

    /// Notes how long nobody was master, once for each time that this replica became it.
    fn note_failover(&mut self) {
        if let Some(last_heard) = self.master_heard.take() {
            let gone = self.now().saturating_sub(last_heard).as_millis();
            let gone = u64::try_from(gone).unwrap_or(u64::MAX);
            self.shared.failover_ms.store(gone, std::sync::atomic::Ordering::Relaxed);
            tracing::info!(without_master_ms = gone, "this replica takes messages");
        }
    }

    fn status(&self) -> Status {
        let record = self.replica.record();
        let peers = self.reports.values().map(|report| PeerStatus {
            replica: report.from.replica.0,
            is_connected: self.links.contains_key(&report.from.replica),
            is_in_sync: record.is_some_and(|record| record.in_sync.has(report.from)),
            end: report.position.end,
            flushed: report.position.flushed,
        });
        let in_sync = record.map_or(0, |record| record.in_sync.len());
        let is_short =
            self.settings.replication == Replication::Sync && in_sync < self.settings.min_in_sync;
        let is_self_in_sync = record.is_some_and(|record| record.in_sync.has(self.replica.me()));
        Status {
            is_self_in_sync,
            is_handing_over: self.handing_over.is_some(),
            is_elected: !self.authority.is_by_configuration(),
            role: match self.replica.role() {
                Role::Waiting => RoleStatus::Waiting,
                Role::Follower { master, .. } => RoleStatus::Slave { master: master.replica.0 },
                Role::Master { .. } => RoleStatus::Master { may_append: self.published.may_append },
            },
            epoch: match self.replica.role() {
                Role::Waiting => self.epochs.last(),
                Role::Follower { epoch, .. } | Role::Master { epoch } => epoch,
            },
            replica: self.replica.me().replica.0,
            in_sync,
            in_sync_set: record.map_or_else(Vec::new, |record| {
                record.in_sync.iter().map(|member| member.replica.0).collect()
            }),
            in_sync_version: record.map_or(0, |record| record.in_sync_version),
            is_short,
            min_in_sync: self.settings.min_in_sync,
            peers: peers.collect(),
        }
    }
}
