//! A stand-in for a broker: a log of records of length one, replicated by asking the master for
//! what comes next.

use std::collections::VecDeque;
use std::time::Duration;

use super::check::{Problem, Rule};
use super::log::{Entry, Log};
use super::offsets::Offsets;
use super::random::Random;
use crate::planted::{self, Planted};
use crate::{
    Action, EpochTable, Incarnation, LogPosition, Member, Promise, Record, Replica, ReplicaId,
    Settings, Standing,
};

/// What survives the process.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) log: Log,
    pub(super) promise: Option<Promise>,
    /// That the log has lost what was confirmed (`weir/user/lost`).
    pub(super) is_lost: bool,
    /// What was committed here while this was no master (`weir/user/slave-offsets.json`).
    pub(super) at_slave: Option<u64>,
}

/// What brokers send each other for replication.
#[derive(Debug, Clone)]
pub(super) enum Stream {
    /// A follower that wants to know where its log parts from the master's.
    Hello {
        from: Member,
        epoch: u64,
    },
    /// What the master's log is.
    Welcome {
        from: Member,
        epoch: u64,
        lead: Lead,
    },
    Fetch {
        from: Member,
        epoch: u64,
        at: u64,
    },
    /// The log begins behind what was asked for.
    Gone {
        from: Member,
        epoch: u64,
    },
    Entries {
        from: Member,
        epoch: u64,
        at: u64,
        entries: Vec<Entry>,
    },
    /// What was committed at a slave and is in no log, or that there is nothing. `acknowledged` is for those
    /// who check.
    Offsets {
        from: ReplicaId,
        offset: Option<u64>,
        acknowledged: Option<u64>,
    },
}

/// A master's log, as far as a follower has to know it.
#[derive(Debug, Clone)]
pub(super) struct Lead {
    pub(super) id: u32,
    pub(super) epochs: EpochTable,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) image: u64,
}

/// Whom a replica follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Following {
    pub(super) master: Member,
    pub(super) epoch: u64,
    /// Whether the log is the master's as far as it goes.
    pub(super) is_aligned: bool,
    /// Where the master's log ended then.
    pub(super) caught_up_at: u64,
    /// Whether the master knows what was committed here.
    pub(super) has_told_offsets: bool,
}

impl Following {
    pub(super) fn new(master: Member, epoch: u64) -> Self {
        let (is_aligned, has_told_offsets, caught_up_at) = (false, false, u64::MAX);
        Self { master, epoch, is_aligned, caught_up_at, has_told_offsets }
    }
}

/// Why a broker has to begin anew in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// It was master.
    Demoted,
    /// Its log goes on elsewhere than its master's, from here on.
    CutAt(u64),
    /// It has nothing of its master's log, which begins here.
    BeginAt { start: u64, id: u32 },
}

pub(super) struct Node {
    pub(super) id: ReplicaId,
    pub(super) disk: Disk,
    /// None while the process is down.
    pub(super) replica: Option<Replica>,
    pub(super) following: Option<Following>,
    pub(super) leading: Option<u64>,
    /// Sends that are appended and not acknowledged: end and message.
    pub(super) waiting: Vec<(u64, u64)>,
    pub(super) starts: u64,
    /// Why its broker is about to begin anew. Where its log is to be cut `replica` is none until then.
    pub(super) restart: Option<Restart>,
    pub(super) offsets: Offsets,
    /// Since when its process is to end.
    pub(super) leaving_since: Option<Duration>,
    /// What its configuration says.
    pub(super) settings: Settings,
    /// What the replica said last: what other threads of the broker act on.
    pub(super) standing: Standing,
    /// What the replica wants done, once the promise that is being written is durable.
    pub(super) actions: VecDeque<Action>,
    pub(super) writing: Option<Promise>,
    /// The log moved, and the replica was not told because of that.
    pub(super) has_moved: bool,
    /// Events before this time wait until then.
    pub(super) paused_until: Duration,
    /// When it was told last that time passes: one that was paused may not be for a while.
    pub(super) ticked: Duration,
    /// What a master sends is not taken before this time.
    pub(super) lags_until: Duration,
    /// It was paused, and nothing happened at it since.
    pub(super) is_waking: bool,
    /// How its clock runs, in parts of 10,000.
    pub(super) clock: u64,
    /// How far it has jumped forward, and how long it stood still in pauses before the last.
    pub(super) clock_ahead: Duration,
    clock_behind: Duration,
    /// When the last pause began, if its clock stood still.
    suspended_at: Option<Duration>,
    /// Whether the next start lost nothing that was confirmed.
    pub(super) is_lossless: bool,
}

impl Node {
    pub(super) fn new(id: ReplicaId, settings: Settings, random: &mut Random) -> Self {
        Self {
            id,
            disk: Disk { log: Log::new(id.0), ..Disk::default() },
            replica: None,
            following: None,
            leading: None,
            waiting: Vec::new(),
            settings,
            standing: Standing::default(),
            actions: VecDeque::new(),
            writing: None,
            has_moved: false,
            starts: 0,
            restart: None,
            offsets: Offsets::default(),
            leaving_since: None,
            paused_until: Duration::ZERO,
            ticked: Duration::ZERO,
            lags_until: Duration::ZERO,
            is_waking: false,
            // Up to 1 % fast or slow.
            clock: 9_900 + random.below(201),
            clock_ahead: Duration::ZERO,
            clock_behind: Duration::ZERO,
            suspended_at: None,
            is_lossless: true,
        }
    }

    pub(super) fn start(&mut self, now: Duration) {
        self.starts += 1;
        let incarnation = Incarnation(u64::from(self.id.0 + 1) * 1_000_000 + self.starts);
        let is_lost = self.disk.is_lost && !planted::is_on(Planted::ClaimWhatBeganAnew);
        let is_lossless = self.is_lossless && !is_lost || planted::is_on(Planted::ClaimLostBytes);
        let promise = Promise::at_start(self.disk.promise.take(), is_lossless, incarnation);
        self.disk.promise = Some(promise.clone());
        (self.is_lossless, self.disk.is_lost) = (true, false);
        // Recovery ends with a flush.
        self.disk.log.flush(u64::MAX);
        self.disk.log.replay();
        self.offsets = Offsets::new(self.disk.at_slave);
        let position = self.position();
        self.replica =
            Some(Replica::new(self.settings.clone(), self.id, promise, position, self.local(now)));
    }

    /// The replica decides, says and acknowledges nothing any more.
    pub(super) fn end(&mut self) {
        self.replica = None;
        self.leaving_since = None;
        self.following = None;
        self.leading = None;
        self.waiting.clear();
        self.standing = Standing::default();
        self.actions.clear();
        self.has_moved = false;
    }

    /// The process ends; with `power` the unflushed end of the log goes with it, or a part.
    pub(super) fn crash(&mut self, power: bool, random: &mut Random) {
        self.end();
        // Half of what was being written is there.
        let written = self.writing.take().filter(|_| random.one_in(2));
        self.disk.promise = written.or(self.disk.promise.take());
        if power {
            let log = &mut self.disk.log;
            log.truncate(log.flushed() + random.below(log.end() - log.flushed() + 1));
            self.is_lossless &= self.settings.sync_flush;
        }
        // A cut that was noted is made with the next start. That something is lost is noted before.
        let restart = self.restart.take();
        match random.below(3) {
            0 => self.disk.is_lost |= matches!(restart, Some(Restart::BeginAt { .. })),
            1 => self.cut(restart),
            _ => {}
        }
    }

    /// Does to the log what the broker has to begin anew for, durably.
    pub(super) fn cut(&mut self, restart: Option<Restart>) {
        match restart {
            Some(Restart::CutAt(end)) => self.disk.log.truncate(end),
            Some(Restart::BeginAt { start, id }) => {
                self.disk.is_lost = true;
                self.disk.log.begin_at(start, id);
            }
            Some(Restart::Demoted) | None => {}
        }
    }

    /// Whether its process is there, be it to begin anew.
    pub(super) fn is_up(&self) -> bool {
        self.replica.is_some() || self.restart.is_some()
    }

    /// Its configuration says something else, and its process is told.
    pub(super) fn configure(&mut self, settings: Settings, now: Duration) {
        self.settings = settings.clone();
        let local = self.local(now);
        if let Some(replica) = &mut self.replica {
            replica.configure(local, settings);
        }
    }

    /// Whether it runs, and cannot be elected by this record for what it does not have any more.
    pub(super) fn has_lost(&self, record: &Record) -> bool {
        let (Ok(me), Some(promise)) = (self.me(), &self.disk.promise) else { return false };
        !record.is_electable(me) && record.readmit(me, &promise.holds).is_none()
    }

    /// The start that runs.
    pub(super) fn me(&self) -> Result<Member, Problem> {
        let me = self.replica.as_ref().map(Replica::me);
        me.ok_or_else(|| Rule::Simulation.broken("acts while it is down"))
    }

    /// Its own clock at this time.
    pub(super) fn local(&self, now: Duration) -> Duration {
        let begin = Duration::from_secs(100) * (self.id.0 + 1);
        begin + self.passed(now) + self.clock_ahead - self.clock_behind - self.slept(now)
    }

    /// So much time its clock would show if it never jumped nor stood still.
    fn passed(&self, time: Duration) -> Duration {
        time * self.clock as u32 / 10_000
    }

    /// How long its clock stood still in the last pause, so far.
    fn slept(&self, now: Duration) -> Duration {
        let Some(since) = self.suspended_at else { return Duration::ZERO };
        self.passed(now.min(self.paused_until)) - self.passed(since)
    }

    /// Nothing happens at it until then. Its clock stands still meanwhile if the machine is `suspended`.
    pub(super) fn pause(&mut self, now: Duration, length: Duration, suspended: bool) {
        self.clock_behind += self.slept(now);
        self.suspended_at = suspended.then_some(now);
        self.paused_until = now + length;
        self.is_waking = true;
    }

    /// The end of a pause.
    pub(super) fn wake(&mut self, now: Duration) {
        self.paused_until = self.paused_until.min(now);
    }

    /// Whether a thread of the broker may append now.
    pub(super) fn may_append(&self, now: Duration) -> bool {
        if planted::is_on(Planted::AcknowledgeUnasked) {
            return true;
        }
        match planted::is_on(Planted::IgnoreUntil) {
            true => self.standing.may_append,
            false => self.standing.may_append_at(self.local(now)),
        }
    }

    /// Whether the replica is told nothing because a promise is being written.
    pub(super) fn waits_for_promise(&self) -> bool {
        self.writing.is_some() && !planted::is_on(Planted::ActBeforeThePromise)
    }

    /// Up to where a thread of the broker may acknowledge now.
    pub(super) fn acknowledged(&self, now: Duration) -> u64 {
        if planted::is_on(Planted::AcknowledgeUnasked) {
            return self.disk.log.flushed();
        }
        match planted::is_on(Planted::IgnoreUntil) {
            true => self.standing.acknowledged,
            false => self.standing.acknowledged_at(self.local(now)),
        }
    }

    pub(super) fn position(&self) -> LogPosition {
        self.disk.log.position()
    }

    /// Up to where nobody cuts this log any more.
    pub(super) fn safe(&self) -> u64 {
        self.standing.visible.unwrap_or(0).min(self.disk.log.flushed())
    }

    /// What is committed by what the log says, or will.
    pub(super) fn table(&self) -> Option<u64> {
        self.offsets.unlogged.max(self.disk.log.committed())
    }

    /// Takes over what was committed at a slave, where that is more and the log goes as far.
    pub(super) fn take_over(&mut self, offset: Option<u64>) {
        if offset > self.table() && offset <= Some(self.disk.log.end()) {
            self.offsets.unlogged = offset;
        }
    }

    /// Up to where a broker shows its log to consumers, if it speaks of it.
    pub(super) fn shows(&self) -> Option<u64> {
        self.standing.visible.filter(|_| self.replica.is_some() && self.offsets.knows_state)
    }

    /// What it answers a consumer that asks how far it has come, if it does.
    pub(super) fn committed(&self, now: Duration) -> Option<Option<u64>> {
        self.shows()?;
        let has_heard = now >= self.offsets.hears_until
            || self.offsets.unheard.is_empty()
            || planted::is_on(Planted::AnswerBeforeSlavesDid);
        has_heard.then(|| self.table().max(self.offsets.at_slave()))
    }

    /// What a follower has to know of this log.
    pub(super) fn lead(&self) -> Lead {
        let log = &self.disk.log;
        let (start, end, image) = (log.start(), log.end(), log.image());
        Lead { id: log.id(), epochs: log.epochs().clone(), start, end, image }
    }

    /// Whether there is something in this log, and it is of another group than that one.
    pub(super) fn is_foreign(&self, lead: &Lead) -> bool {
        let log = &self.disk.log;
        log.start() < log.end() && log.id() != lead.id
    }

    /// What has to be done to this log, unless it is foreign, before it can follow that one.
    pub(super) fn restart_for(&self, lead: &Lead) -> Option<Restart> {
        if planted::is_on(Planted::FollowWithoutCut) {
            return None;
        }
        let log = &self.disk.log;
        let (start, end) = (log.start(), log.end());
        let begin = Restart::BeginAt { start: lead.start, id: lead.id };
        if start == end {
            return (log.id() != lead.id || start != lead.start).then_some(begin);
        }
        let mut common = log.epochs().common_end(end, &lead.epochs, lead.end);
        if common < end && planted::is_on(Planted::CutTooLittle) {
            common += 1;
        }
        // What comes before an image says nothing to a log without a beginning.
        let misses_state = !log.is_complete() && end > lead.image;
        if common < lead.start || common < start || misses_state {
            return Some(begin);
        }
        (common < end).then_some(Restart::CutAt(common))
    }
}
