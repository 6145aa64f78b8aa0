//! A stand-in for a broker: a log of records of length one, replicated by asking the master for
//! what comes next.

use std::collections::VecDeque;
use std::time::Duration;

use super::check::{Problem, Rule};
use super::random::Random;
use crate::planted::{self, Planted};
use crate::{
    Action, EpochTable, Incarnation, LogPosition, Member, Promise, Record, Replica, ReplicaId,
    Settings, Standing,
};

/// One record; its offset is its place in the log. Message 0 is an epoch record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) epoch: u64,
    pub(super) message: u64,
}

/// What survives the process.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) log: Vec<Entry>,
    pub(super) flushed: usize,
    pub(super) promise: Option<Promise>,
}

/// What brokers send each other for replication.
#[derive(Debug, Clone)]
pub(super) enum Stream {
    /// A follower that wants to know where its log parts from the master's.
    Hello {
        from: Member,
        epoch: u64,
    },
    Welcome {
        from: Member,
        epoch: u64,
        epochs: EpochTable,
        end: u64,
    },
    Fetch {
        from: Member,
        epoch: u64,
        at: usize,
    },
    Entries {
        from: Member,
        epoch: u64,
        at: usize,
        entries: Vec<Entry>,
    },
}

pub(super) struct Node {
    pub(super) id: ReplicaId,
    pub(super) disk: Disk,
    /// None while the process is down.
    pub(super) replica: Option<Replica>,
    pub(super) following: Option<(Member, u64, bool)>,
    pub(super) leading: Option<u64>,
    /// Sends that are appended and not acknowledged: end and message.
    pub(super) waiting: Vec<(u64, u64)>,
    pub(super) starts: u64,
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
    /// Whether the next start lost nothing that was confirmed.
    pub(super) is_lossless: bool,
}

impl Node {
    pub(super) fn new(id: ReplicaId, settings: Settings, random: &mut Random) -> Self {
        Self {
            id,
            disk: Disk::default(),
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
            leaving_since: None,
            paused_until: Duration::ZERO,
            ticked: Duration::ZERO,
            lags_until: Duration::ZERO,
            is_waking: false,
            // Up to 1 % fast or slow.
            clock: 9_900 + random.below(201),
            is_lossless: true,
        }
    }

    pub(super) fn start(&mut self, now: Duration) {
        self.starts += 1;
        let incarnation = Incarnation(u64::from(self.id.0 + 1) * 1_000_000 + self.starts);
        let is_lossless = self.is_lossless || planted::is_on(Planted::ClaimLostBytes);
        let promise = Promise::at_start(self.disk.promise.take(), is_lossless, incarnation);
        self.disk.promise = Some(promise.clone());
        self.is_lossless = true;
        // Recovery ends with a flush.
        self.disk.flushed = self.disk.log.len();
        let position = self.position();
        self.replica =
            Some(Replica::new(self.settings.clone(), self.id, promise, position, self.local(now)));
    }

    /// The process ends; with `power` the unflushed end of the log goes with it, or a part.
    pub(super) fn crash(&mut self, power: bool, random: &mut Random) {
        self.replica = None;
        self.leaving_since = None;
        self.following = None;
        self.leading = None;
        self.waiting.clear();
        self.standing = Standing::default();
        self.actions.clear();
        self.has_moved = false;
        // Half of what was being written is there.
        let written = self.writing.take().filter(|_| random.one_in(2));
        self.disk.promise = written.or(self.disk.promise.take());
        if power {
            let unflushed = (self.disk.log.len() - self.disk.flushed) as u64;
            let kept = self.disk.flushed + random.below(unflushed + 1) as usize;
            self.disk.log.truncate(kept);
            self.is_lossless &= self.settings.sync_flush;
        }
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
        Duration::from_secs(100) * (self.id.0 + 1) + now * self.clock as u32 / 10_000
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
            return self.disk.flushed as u64;
        }
        match planted::is_on(Planted::IgnoreUntil) {
            true => self.standing.acknowledged,
            false => self.standing.acknowledged_at(self.local(now)),
        }
    }

    pub(super) fn position(&self) -> LogPosition {
        LogPosition {
            epoch: self.disk.log.last().map_or(0, |last| last.epoch),
            end: self.disk.log.len() as u64,
            flushed: self.disk.flushed as u64,
        }
    }

    /// The epochs of the log, from its epoch records.
    pub(super) fn epochs(&self) -> Result<EpochTable, Problem> {
        let mut table = EpochTable::default();
        for (at, entry) in self.disk.log.iter().enumerate().filter(|(_, entry)| entry.message == 0)
        {
            if !table.begin(entry.epoch, at as u64) {
                let text = format!("epoch {} begins anew at {at}", entry.epoch);
                return Err(Rule::OneMaster.broken(text));
            }
        }
        Ok(table)
    }

    /// Cuts the log, durably.
    pub(super) fn truncate(&mut self, end: u64) {
        if planted::is_on(Planted::FollowWithoutCut) {
            return;
        }
        self.disk.log.truncate(end as usize);
        self.disk.flushed = self.disk.flushed.min(end as usize);
    }

    /// What a follower that stands at `at` gets next, so many records at most.
    pub(super) fn entries_from(&self, at: usize, most: usize) -> Vec<Entry> {
        self.disk.log.iter().skip(at).take(most).copied().collect()
    }
}
