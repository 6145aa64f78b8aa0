//! One replica's part in deciding who is master.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::in_sync::{InSync, Peer};
use crate::{Complaint, Lease, LogPosition, Member, Promise, Record, ReplicaId, Report, Settings};

mod campaign;
mod lead;
mod lease;
mod requests;

use lease::LeaseView;
use requests::Asking;

/// The version of a record or lease, by which it is swapped: opaque, equal or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// What became of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    /// It succeeded; this is the new version.
    Won(Version),
    /// The version was another one, or the authority refused the change.
    Lost,
    /// Nobody knows, and it may still succeed.
    Unknown,
}

/// What the replica wants done, in this order. Nothing of a list may be seen by others before the
/// promises ahead of it are durable, and neither may the replica be told anything more: a promise
/// that cannot be written ends the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read record and lease, and tell [`Replica::read`].
    Read { request: u64 },
    /// Swap the record, and tell [`Replica::record_swapped`].
    SwapRecord { request: u64, expected: Version, record: Record },
    /// Swap the lease, and tell [`Replica::lease_swapped`].
    SwapLease { request: u64, expected: Version, lease: Lease },
    /// Make this durable.
    Promise(Promise),
    /// Append an epoch record, flush, and serve as [`Replica::standing`] says.
    Lead { epoch: u64 },
    /// Cut the log to what it shares with this master's, tell [`Replica::aligned`], and take what
    /// the master sends.
    Follow { master: Member, epoch: u64 },
    /// Neither append nor acknowledge nor take anything any more.
    Stop,
    /// Send this to all other replicas, which tell [`Replica::heard`].
    Tell(Report),
    /// Send the record by which this replica leads to all others, which tell
    /// [`Replica::heard_record`].
    Share(Record),
}

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

/// What a replica may do, for the threads that append and acknowledge: they look at the one that
/// was published last, together with the clock, at each append and again before each
/// acknowledgement. So a process that was stopped and goes on does not act on what was true before.
///
/// It can be used until then without another word from the [`Replica`], which takes office away
/// only where that is safe with every standing that it gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    pub may_append: bool,
    /// Messages that end here or before may be acknowledged.
    pub acknowledged: u64,
    /// Consumers may see messages that end here or before; nothing while this is not known.
    pub visible: Option<u64>,
    /// The time on the replica's clock before which `may_append` holds: the end of the lease's
    /// step-down, or of the oldest echo that is counted on; `Duration::MAX` where neither is
    /// needed. With synchronous replication an append after it harms nobody, but it may never be
    /// acknowledged.
    pub until: Duration,
    /// The time before which `acknowledged` holds. With asynchronous replication that is `until`.
    /// With synchronous replication it is `Duration::MAX`: every member of the set has these
    /// messages, so whoever is master later has them as well.
    pub acknowledged_until: Duration,
}

impl Standing {
    /// Whether a message may be appended at this time.
    pub fn may_append_at(&self, now: Duration) -> bool {
        self.may_append && now < self.until
    }

    /// Messages that end here or before may be acknowledged at this time.
    pub fn acknowledged_at(&self, now: Duration) -> u64 {
        if now < self.acknowledged_until { self.acknowledged } else { 0 }
    }
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
    peers: BTreeMap<ReplicaId, Peer>,
    /// When others were last told that this replica follows.
    told_following: Option<Duration>,
    /// The end of what is known to be confirmed and is in this log.
    confirmed: u64,
    campaigning_since: Option<Duration>,
    /// Since when the master is not heard.
    missing_since: Option<Duration>,
    /// A master that gave up for want of use lets others try first.
    campaigns_after: Duration,
    next_read: Duration,
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
    /// The end of the log after the epoch record.
    base: Option<u64>,
    /// Since when the office is to be handed over, and to whom.
    heir: Option<(ReplicaId, Duration)>,
    /// A swap that hands over may yet succeed.
    is_handing_over: bool,
    /// Whether it is sure that the predecessor acknowledges nothing any more, which
    /// asynchronous replication depends on.
    is_sole: bool,
    /// When it was seen last that messages may be taken.
    served: Duration,
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
            promise,
            position,
            part: Part::Waiting,
            record: None,
            lease: LeaseView::default(),
            led: 0,
            is_current: false,
            confirmed: 0,
            campaigns_after: Duration::ZERO,
            asking: None,
            refused: None,
            obeyed_read: Duration::ZERO,
            peers: BTreeMap::new(),
            // What an earlier start told counts as told now.
            told_following: Some(now),
            campaigning_since: None,
            missing_since: None,
            next_read: now,
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
        if self.asking.is_none() && now >= self.next_read {
            let request = self.request();
            self.asking = Some(Asking { request, sent: now, swap: None });
            self.next_read = now + self.settings.tick_every;
            self.actions.push(Action::Read { request });
        }
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
        self.see_record(now, record);
        if self.refused.is_none() {
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
            (Swapped::Won(version), Some(record)) => self.see_record(now, (version, record)),
            _ => {
                self.is_current = false;
                self.next_read = now;
            }
        }
    }

    /// Another replica told this. What cannot be true is not taken for true.
    pub fn heard(&mut self, now: Duration, report: Report) {
        if !self.is_credible(now, &report) {
            return;
        }
        self.note_durable();
        let known = self.peers.get(&report.from.replica).copied();
        let is_same = |known: &Peer| known.report.promised_version == report.promised_version;
        let obeys_since = known.filter(is_same).map_or(now, |known| known.obeys_since);
        self.peers.insert(report.from.replica, Peer { report, heard: now, obeys_since });
        self.remember_confirmed();
        if report.promised > self.promise.epoch {
            // It read of another master, or is one.
            self.stop_leading();
            if known.is_none_or(|known| known.report.promised != report.promised) {
                self.next_read = now;
            }
        } else {
            self.confirm();
        }
    }

    /// Another replica leads by this record, as it says over the authenticated link. So a replica
    /// that cannot ask the authority still follows a new master.
    ///
    /// Only the record's master says so, so the record stood there once: this is as good as a
    /// read that took long. Nothing is asked for before the authority was read.
    pub fn heard_record(&mut self, now: Duration, from: Member, record: Record) {
        let version = record.in_sync_version;
        let is_news = self.record().is_none_or(|known| known.in_sync_version < version);
        let is_leading = record.master == Some(from) && from.replica != self.me.replica;
        let is_refused = self.promise.complaint_about(&record).is_some();
        if is_news && is_leading && !is_refused && self.knows(from.replica) {
            self.note_durable();
            self.is_current = false;
            self.next_read = now;
            self.obey(now, None, record);
        }
    }

    /// Whether a replica belongs to the group, or did when the record was written.
    fn knows(&self, replica: ReplicaId) -> bool {
        let is_in = |record: &Record| record.electable().any(|member| member.replica == replica);
        self.settings.group.contains(&replica) || self.record().is_some_and(is_in)
    }

    fn is_credible(&self, now: Duration, report: &Report) -> bool {
        let sender = report.from.replica;
        let is_news = |known: &Peer| {
            let is_same = known.report.from == report.from;
            // The network may deliver in another order, or twice. A second process of one replica
            // waits until the first is not heard any more.
            is_same && report.sent > known.report.sent || !is_same && !self.is_linked(known, now)
        };
        // What it has of this master, and the time of it by this master's clock. To others that time
        // says nothing: clocks of two machines have nothing in common.
        let is_ahead_of_master = match &self.part {
            Part::Master(leading) => {
                let is_later = report.echo.is_some_and(|echo| echo > now);
                let is_longer = report.position.end > self.position.end;
                report.follows == Some(leading.epoch) && (is_later || is_longer)
            }
            Part::Waiting | Part::Follower { .. } => false,
        };
        sender != self.me.replica
            && self.knows(sender)
            && report.position.flushed <= report.position.end
            && !is_ahead_of_master
            && self.peers.get(&sender).is_none_or(is_news)
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
        if let Part::Follower { epoch: followed, is_aligned, .. } = &mut self.part
            && *followed == epoch
        {
            *is_aligned = true;
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

    fn see_record(&mut self, now: Duration, (version, record): (Version, Record)) {
        self.refused = self.promise.complaint_about(&record);
        if self.refused.is_some() {
            // Who leads or follows goes on as it may without the authority, since what stands there
            // now says nothing about it. Nobody is elected by it, and no set changes.
            self.is_current = false;
            self.campaigning_since = None;
            return;
        }
        self.obey(now, Some(version), record);
    }

    /// Acts on a record, `version` of which was read or written; a record that was heard has none.
    fn obey(&mut self, now: Duration, version: Option<Version>, record: Record) {
        let is_new = self.record.as_ref().is_none_or(|(known, _)| *known != version);
        self.promise_record(&record);
        let predecessor = self.record.as_ref().and_then(|(_, known)| known.master);
        let (epoch, master) = (record.epoch, record.master);
        match &mut self.part {
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
        let Some(master) = master else { return };
        if master == self.me && epoch > self.led {
            self.lead(now, epoch, in_sync, predecessor);
        } else if master != self.me && self.role() != (Role::Follower { master, epoch }) {
            self.follow(now, master, epoch);
        } else if is_new {
            // The master hears at once who promised the new version.
            self.tell(now);
            self.share();
        }
    }

    fn lead(&mut self, now: Duration, epoch: u64, in_sync: InSync, predecessor: Option<Member>) {
        self.led = epoch;
        self.part = Part::Master(Leading {
            epoch,
            in_sync,
            predecessor,
            base: None,
            heir: None,
            is_handing_over: false,
            is_sole: false,
            served: now,
        });
        self.campaigning_since = None;
        self.actions.push(Action::Lead { epoch });
        self.tell(now);
        self.share();
    }

    fn follow(&mut self, now: Duration, master: Member, epoch: u64) {
        self.part = Part::Follower { master, epoch, is_aligned: false };
        self.campaigning_since = None;
        self.missing_since = None;
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

    fn stop(&mut self) {
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

    /// Takes in what the master says is confirmed, as far as it is in this log.
    fn remember_confirmed(&mut self) {
        if let Part::Follower { is_aligned: true, .. } = self.part
            && let Some(report) = self.master_report()
        {
            let here = report.confirmed.min(self.position.counted(&self.settings));
            self.confirmed = self.confirmed.max(here);
        }
    }

    /// Tells all others where this replica is.
    fn tell(&mut self, now: Duration) {
        self.next_tell = now + self.settings.tick_every;
        let follows = match self.part {
            Part::Follower { epoch, is_aligned: true, .. } if self.hears_master(now) => Some(epoch),
            _ => None,
        };
        if follows.is_some() {
            self.told_following = Some(now);
        }
        let (leads, confirmed) = match &self.part {
            Part::Master(leading) => (Some(leading.epoch), leading.in_sync.confirmed),
            _ => (None, 0),
        };
        self.actions.push(Action::Tell(Report {
            from: self.me,
            promised: self.promise.epoch,
            promised_version: self.promise.in_sync_version,
            refuses: self.refused.is_some(),
            position: self.position,
            leads,
            follows,
            lost: self.record().and_then(|record| record.lost_by(self.me, &self.promise.holds)),
            confirmed,
            sent: now,
            echo: self.master_report().map(|report| report.sent),
        }));
    }

    /// Sends the record to all others, where this replica leads by it.
    fn share(&mut self) {
        if let (Part::Master(leading), Some(record)) = (&self.part, self.record())
            && leading.epoch == record.epoch
        {
            self.actions.push(Action::Share(record.clone()));
        }
    }

    /// The last report of the master that this replica follows.
    fn master_report(&self) -> Option<&Report> {
        let Part::Follower { master, epoch, .. } = self.part else { return None };
        let report = &self.peers.get(&master.replica)?.report;
        (report.from == master && report.leads == Some(epoch)).then_some(report)
    }

    /// Whether the master that this replica follows was heard lately.
    fn hears_master(&self, now: Duration) -> bool {
        let Part::Follower { master, .. } = self.part else { return false };
        self.master_report().is_some()
            && self.peers.get(&master.replica).is_some_and(|peer| self.is_linked(peer, now))
    }

    fn is_linked(&self, peer: &Peer, now: Duration) -> bool {
        now.saturating_sub(peer.heard) < self.settings.link_timeout
    }
}

#[cfg(test)]
mod tests;
