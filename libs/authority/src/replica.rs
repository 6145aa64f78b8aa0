//! One replica's part in deciding who is master.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::in_sync::{InSync, Peer};
use crate::planted::{self, Planted};
use crate::{Complaint, Lease, LogPosition, Member, Phase, Promise, Record, ReplicaId, Settings};

mod action;
mod campaign;
mod lead;
mod lease;
mod leave;
mod peers;
mod requests;
mod standing;

pub use action::{Action, Swapped, Version};
pub use standing::Standing;

use lease::LeaseView;
use requests::Asking;

/// What a replica is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nobody knows who is master, or the record went backwards.
    Waiting,
    Follower {
        master: Member,
        epoch: u64,
    },
    Master {
        epoch: u64,
    },
}

/// The deciding state machine. All times come from one clock that never jumps and counts while
/// the machine sleeps (CLOCK_BOOTTIME), as the time since any fixed point.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    me: Member,
    promise: Promise,
    /// The version of the record up to which the promise is durable.
    durable: u64,
    position: LogPosition,
    part: Part,
    /// The record, and its version if it was read or written here and not only heard.
    record: Option<(Option<Version>, Record)>,
    lease: LeaseView,
    /// The last epoch that this start led: it never leads it a second time, because it forgot which
    /// swaps it asked for.
    led: u64,
    /// The last epoch in which a swap that this start asked for would make it master.
    campaigned: u64,
    /// Whether what is known was read or written by the last request. Otherwise nothing is asked
    /// for before it was read again.
    is_current: bool,
    /// The read or record swap in flight: one at a time, so that an answer is never older than
    /// what is known.
    asking: Option<Asking>,
    /// Why the record that was read last is not obeyed.
    refused: Option<Complaint>,
    /// When the last record that is obeyed was asked for.
    obeyed_read: Duration,
    /// When a record was last heard and obeyed: an answer to what was asked before says nothing about it.
    obeyed_heard: Option<Duration>,
    peers: BTreeMap<ReplicaId, Peer>,
    /// The last master that said that it gave its office up, and that office's epoch.
    gave_up: Option<(Member, u64)>,
    /// The starts of this data directory up to this one, as far as the promise knew them then. They are over:
    /// the directory has a lock.
    starts: Vec<crate::Incarnation>,
    /// When this start began: an earlier one may have told until then that it follows.
    started: Duration,
    /// When others were last told that this replica follows.
    told_following: Option<Duration>,
    /// When they were told so first of the master that it follows.
    first_told_following: Option<Duration>,
    /// The end of what is known to be confirmed and is in this log.
    confirmed: u64,
    campaigning_since: Option<Duration>,
    /// Since when this master is followed, whether it is heard or not.
    followed_since: Duration,
    /// Since when the master is not heard.
    missing_since: Option<Duration>,
    /// Whether this start is about to be over: the process is to end, or it led and begins anew.
    is_leaving: bool,
    /// Whether record and lease have to be read whatever was read lately.
    must_read: bool,
    /// When they were asked for last.
    last_read: Duration,
    next_tell: Duration,
    requests: u64,
    actions: Vec<Action>,
}

#[derive(Debug)]
enum Part {
    Waiting,
    Follower { master: Member, epoch: u64, is_aligned: bool },
    Master(Leading),
}

/// A master's state.
#[derive(Debug)]
struct Leading {
    epoch: u64,
    in_sync: InSync,
    /// The master of the epoch before.
    predecessor: Option<Member>,
    /// The end of the log after what the epoch begins with.
    base: Option<u64>,
    /// Since when the office is to be handed over, and to whom.
    heir: Option<(ReplicaId, Duration)>,
    /// A swap that hands over may yet succeed.
    is_handing_over: bool,
    /// Whether it is sure that the predecessor acknowledges nothing any more, which
    /// asynchronous replication depends on.
    is_sole: bool,
    /// Whether nobody counts on what this replica told as a follower ([`Replica::is_released`]).
    is_released: bool,
    /// When it was seen last that messages may be taken.
    served: Duration,
    /// Since when it serves nobody and hears nobody.
    alone_since: Option<Duration>,
}

impl Replica {
    /// A replica that has just started. `promise` is durable already ([`Promise::at_start`]), and
    /// `position` is the log's after recovery.
    pub fn new(
        settings: Settings,
        replica: ReplicaId,
        promise: Promise,
        position: LogPosition,
        now: Duration,
    ) -> Self {
        let incarnation = promise.holds.last().copied().unwrap_or(crate::Incarnation(0));
        Self {
            settings,
            me: Member { replica, incarnation },
            durable: promise.in_sync_version,
            starts: promise.holds.clone(),
            promise,
            position,
            part: Part::Waiting,
            record: None,
            lease: LeaseView::default(),
            led: 0,
            campaigned: 0,
            is_current: false,
            confirmed: 0,
            is_leaving: false,
            asking: None,
            refused: None,
            obeyed_read: Duration::ZERO,
            obeyed_heard: None,
            peers: BTreeMap::new(),
            gave_up: None,
            started: now,
            told_following: None,
            first_told_following: None,
            campaigning_since: None,
            followed_since: now,
            missing_since: None,
            must_read: true,
            last_read: now,
            next_tell: now,
            requests: 0,
            actions: Vec::new(),
        }
    }

    /// Which start of which replica this is.
    pub fn me(&self) -> Member {
        self.me
    }

    pub fn role(&self) -> Role {
        match &self.part {
            Part::Waiting => Role::Waiting,
            Part::Follower { master, epoch, .. } => {
                Role::Follower { master: *master, epoch: *epoch }
            }
            Part::Master(leading) => Role::Master { epoch: leading.epoch },
        }
    }

    /// The record as it was read or written last.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref().map(|(_, record)| record)
    }

    /// The settings of the group are others: `min_in_sync`, or who belongs to it. Replicas may
    /// disagree about these for a while, since what the record says of the set holds whatever they
    /// think. Replication, flush and the times stay as they were for all.
    ///
    /// Who is added joins as any other that was empty. Who is not in the group any more leaves the
    /// set as soon as it is large enough without; a master goes on until it hands over.
    pub fn configure(&mut self, now: Duration, settings: Settings) {
        self.note_durable();
        self.settings = settings;
        let known = self.peers.keys().copied().filter(|peer| self.knows(*peer));
        let known: Vec<_> = known.collect();
        self.peers.retain(|peer, _| known.contains(peer));
        self.confirm();
        self.tell(now);
    }

    /// What is wrong, for somebody to mend; nothing in a group that is well, also while it waits for
    /// replicas or for the authority. A change of it is worth a line in the log.
    pub fn complaint(&self, now: Duration) -> Option<Complaint> {
        let linked = || self.peers.values().filter(|peer| self.is_linked(peer, now));
        let promised_more = || {
            let record = self.record()?;
            let (epoch, version) = (record.epoch, record.in_sync_version);
            // Before the last read, so it is not just ahead.
            let is_ahead = |peer: &&Peer| {
                let report = peer.report;
                (report.promised > epoch || report.promised_version > version)
                    && peer.obeys_since < self.obeyed_read
            };
            let report = linked().find(is_ahead)?.report;
            let (replica, promised) = (report.from.replica, report.promised);
            Some(Complaint::PeerPromisedMore { replica, epoch: promised, found: epoch })
        };
        let refuses = || {
            let peer = linked().find(|peer| peer.report.refuses)?;
            Some(Complaint::PeerRefuses(peer.report.from.replica))
        };
        self.refused.or_else(promised_more).or_else(refuses)
    }

    /// What is to be done, oldest first; empties the list. Called after each of the methods below.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Time has passed. Called at least each 100 ms.
    pub fn tick(&mut self, now: Duration) {
        self.note_durable();
        self.give_up_requests(now);
        if now >= self.next_tell {
            self.tell(now);
            self.share();
        }
        if matches!(self.part, Part::Master(_)) {
            self.tick_master(now);
        } else {
            self.tick_candidate(now);
        }
        if self.asking.is_none() && self.is_read_due(now) {
            self.ask_to_read(now);
        }
    }

    /// The record, or the group's settings, may have changed: they are read with the next tick.
    pub fn changed(&mut self) {
        self.must_read = true;
    }

    /// The answer to [`Action::Read`]; nothing where the authority could not be asked.
    pub fn read(
        &mut self,
        now: Duration,
        request: u64,
        found: Option<((Version, Record), (Version, Lease))>,
    ) {
        if self.asking.as_ref().is_none_or(|asking| asking.request != request) {
            return;
        }
        self.note_durable();
        let sent = self.asking.take().map_or(now, |asking| asking.sent);
        let Some((record, lease)) = found else {
            self.read_failed();
            return;
        };
        self.is_current = true;
        self.lease.read(now, sent, lease);
        if self.see_record(now, sent, record) {
            self.obeyed_read = sent;
        }
    }

    /// The answer to [`Action::SwapRecord`].
    pub fn record_swapped(&mut self, now: Duration, request: u64, swapped: Swapped) {
        let Some(asking) = self.asking.take_if(|asking| asking.request == request) else {
            return;
        };
        self.note_durable();
        match (swapped, asking.swap) {
            (Swapped::Won(version), Some(record)) => {
                self.see_record(now, asking.sent, (version, record));
            }
            _ => {
                self.is_current = false;
                self.must_read = true;
            }
        }
    }

    /// The log ends elsewhere, or more of it is flushed.
    pub fn log_moved(&mut self, now: Duration, position: LogPosition) {
        self.note_durable();
        self.position = position;
        if let Part::Master(leading) = &mut self.part
            && leading.base.is_none()
            && position.epoch == leading.epoch
        {
            leading.base = Some(position.end);
        }
        self.remember_confirmed();
        self.confirm();
        self.tell(now);
    }

    /// The log was cut to what it shares with the master of this epoch, durably.
    pub fn aligned(&mut self, now: Duration, epoch: u64, position: LogPosition) {
        self.note_durable();
        self.position = position;
        if let Part::Follower { master, epoch: followed, is_aligned } = &mut self.part
            && *followed == epoch
        {
            *is_aligned = true;
            // It has just answered.
            let peer = self.peers.get_mut(&master.replica);
            if let Some(peer) = peer.filter(|peer| peer.report.from == *master) {
                peer.is_connected = true;
            }
            self.confirmed = self.confirmed.min(position.end);
        }
        self.remember_confirmed();
        self.tell(now);
    }

    /// What this replica may do from now on. Published after each of the methods above, before
    /// the actions that they led to are carried out.
    pub fn standing(&self, now: Duration) -> Standing {
        match &self.part {
            // What was confirmed once is in the log of every replica that can be elected.
            Part::Waiting | Part::Follower { .. } => {
                let visible = (self.confirmed > 0).then_some(self.confirmed);
                Standing { visible, ..Standing::default() }
            }
            Part::Master(leading) => self.standing_of_master(now, leading),
        }
    }

    /// Takes in what stood there at some time after `sent`; whether it is obeyed.
    fn see_record(
        &mut self,
        now: Duration,
        sent: Duration,
        (version, record): (Version, Record),
    ) -> bool {
        let refused = self.promise.complaint_about(&record);
        if refused.is_none() {
            self.refused = None;
            self.obey(now, Some(version), record);
            return true;
        }
        // Who leads or follows goes on as it may without the authority, since what stands there
        // now says nothing about it. Nobody is elected by it, and no set changes.
        self.is_current = false;
        self.campaigning_since = None;
        if self.obeyed_heard.is_some_and(|heard| sent <= heard) {
            // It may be from before the swap that was heard of: only a later read can say.
            self.must_read = true;
        } else {
            self.refused = refused;
        }
        false
    }

    /// Acts on a record, `version` of which was read or written; a record that was heard has none.
    fn obey(&mut self, now: Duration, version: Option<Version>, record: Record) {
        let is_new = self.record.as_ref().is_none_or(|(known, _)| *known != version);
        self.promise_record(&record);
        let predecessor = self.record.as_ref().and_then(|(_, known)| known.master);
        let is_next = |known: &Record| known.epoch + 1 == record.epoch;
        let is_released =
            self.record().is_some_and(|known| is_next(known) && self.is_released(now, known));
        let is_fenced = record.phase == Phase::Fencing;
        let (epoch, master) = (record.epoch, record.master);
        match &mut self.part {
            Part::Follower { .. } if planted::is_on(Planted::FollowBehindTheFence) => {}
            _ if is_fenced => self.stop(),
            Part::Master(leading) if leading.epoch == epoch && master == Some(self.me) => {
                if is_new {
                    leading.in_sync.commit(&record, now);
                    leading.is_handing_over = false;
                }
            }
            Part::Master(_) => self.stop(),
            Part::Waiting | Part::Follower { .. } => {}
        }
        let confirmed = self.confirmed.min(self.position.end);
        let in_sync = InSync::new(&record, confirmed, now);
        self.record = Some((version, record));
        self.note_who_gave_up();
        let Some(master) = master.filter(|_| !is_fenced) else {
            if is_new {
                // Whoever looks for the one that has most waits for this word.
                self.tell(now);
                self.share();
            }
            return;
        };
        if master == self.me && epoch > self.led {
            self.lead(now, epoch, in_sync, (predecessor, is_released));
        } else if master != self.me && self.role() != (Role::Follower { master, epoch }) {
            self.follow(now, master, epoch);
        } else if is_new {
            // The master hears at once who promised the new version.
            self.tell(now);
            self.share();
        }
    }

    /// Leads after that predecessor, which may be known to be gone ([`Replica::is_released`]).
    fn lead(
        &mut self,
        now: Duration,
        epoch: u64,
        in_sync: InSync,
        (predecessor, is_released): (Option<Member>, bool),
    ) {
        self.led = epoch;
        self.part = Part::Master(Leading {
            epoch,
            in_sync,
            predecessor,
            base: None,
            heir: None,
            is_handing_over: false,
            is_sole: self.is_handed_over(epoch),
            is_released,
            served: now,
            alone_since: None,
        });
        self.campaigning_since = None;
        self.actions.push(Action::Lead { epoch });
        self.tell(now);
        self.share();
    }

    /// Whether the master of the epoch before gave its office to this replica: nobody else can have
    /// asked for an epoch of which this start is master. That one was sole itself
    /// ([`Replica::hand_over`]), closed its log before it asked, and had nothing in it that is not here.
    fn is_handed_over(&self, epoch: u64) -> bool {
        epoch > self.campaigned
    }

    fn follow(&mut self, now: Duration, master: Member, epoch: u64) {
        self.part = Part::Follower { master, epoch, is_aligned: false };
        self.first_told_following = None;
        self.campaigning_since = None;
        self.missing_since = None;
        self.followed_since = now;
        self.actions.push(Action::Follow { master, epoch });
        // The others learn of the new epoch now and not at their next read.
        self.tell(now);
    }

    /// Promises to obey no record that did not come from this one, and forgets earlier starts
    /// that it does not count on.
    fn promise_record(&mut self, record: &Record) {
        let before = self.promise.clone();
        self.promise.epoch = record.epoch;
        self.promise.in_sync_version = record.in_sync_version;
        self.promise.tag = record.trail.last();
        self.promise.prune(self.me.replica, [&record.in_sync, &record.eligible]);
        if self.promise != before {
            self.actions.push(Action::Promise(self.promise.clone()));
        }
    }

    /// What was promised is durable once the replica is told something after its actions were
    /// taken.
    fn note_durable(&mut self) {
        if self.actions.is_empty() {
            self.durable = self.promise.in_sync_version;
        }
    }

    /// Who led begins anew, and nobody is helped by electing a start that is about to be over.
    fn stop(&mut self) {
        self.is_leaving |= matches!(self.part, Part::Master(_));
        if !matches!(self.part, Part::Waiting) {
            self.part = Part::Waiting;
            self.actions.push(Action::Stop);
        }
    }

    fn stop_leading(&mut self) {
        if let Part::Master(_) = self.part {
            self.stop();
        }
    }
}

#[cfg(test)]
mod tests;
