//! What must hold.

mod committed;

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use super::log::{Entry, What};
use super::node::{Node, Restart};
use super::schedule::Schedule;
use crate::settings::majority_of;
use crate::{Member, ReplicaId, Replication};
use committed::Committed;

/// What was found broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) rule: Rule,
    pub(super) text: String,
}

/// A rule that must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// What was acknowledged is in the log of each later master.
    NothingLost,
    /// What is acknowledged is on the disks of `min_in_sync` replicas.
    EnoughCopies,
    /// An offset is acknowledged for one message.
    OneMessageAnOffset,
    /// What a consumer saw at an offset stays there.
    WhatWasSeenStays,
    /// Once everything is mended, all logs are the same.
    LogsAgree,
    /// What was acknowledged is cut from no log.
    NothingCut,
    /// An acknowledged committed offset does not fall.
    CommittedStays,
    /// A log whose beginning has expired says the state that it presupposes.
    StateKept,
    /// The epoch that a replica leads or follows does not fall, whatever happens to the record.
    EpochStays,
    /// An epoch has one master, and none acknowledges after its successor did, but what that one has: who
    /// hands over may come late with answers.
    OneMaster,
    /// Nobody asks for a change of the record that no correct replica makes.
    RecordKept,
    /// Once everything is mended the group serves.
    Serves,
    /// Who does not, because of what was done to the record, says why.
    SaysWhy,
    /// The simulation does what it should.
    Simulation,
}

impl Rule {
    pub(super) fn broken(self, text: impl Into<String>) -> Problem {
        Problem { rule: self, text: text.into() }
    }
}

/// Counts of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) acknowledged: u64,
    pub(super) elections: u64,
    pub(super) handovers: u64,
    /// Slaves that left the in-sync set before they ended.
    pub(super) left: u64,
    pub(super) faults: u64,
    /// Logs whose end was cut, and logs that began anew.
    pub(super) cuts: u64,
    pub(super) begun_anew: u64,
    /// How often retention took something.
    pub(super) expired: u64,
    /// Commits of offsets that were acknowledged, and those of them that slaves kept.
    pub(super) committed: u64,
    pub(super) committed_at_slaves: u64,
    /// Elections after which messages may be missing, because no disk was left that had all.
    pub(super) elections_with_loss: u64,
    /// Runs in which a restored record was swapped.
    pub(super) forks: u64,
    /// After such elections, or with asynchronous replication.
    pub(super) lost: u64,
    pub(super) waits: Waits,
}

/// How long an automatic group was without what it is for, at the longest, while nothing went wrong but
/// that one of its members was gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// Nobody took messages.
    pub(super) unserved: Duration,
    /// Nothing was acknowledged.
    pub(super) unacknowledged: Duration,
    /// Not everybody that counts had everything, or nobody acknowledged.
    pub(super) whole: Duration,
    /// From when a master was asked to hand over until its heir acknowledged something.
    pub(super) handed_over: Duration,
}

impl Waits {
    fn longest(self, other: Self) -> Self {
        Self {
            unserved: self.unserved.max(other.unserved),
            unacknowledged: self.unacknowledged.max(other.unacknowledged),
            whole: self.whole.max(other.whole),
            handed_over: self.handed_over.max(other.handed_over),
        }
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.elections += other.elections;
        self.handovers += other.handovers;
        self.left += other.left;
        self.faults += other.faults;
        self.cuts += other.cuts;
        self.begun_anew += other.begun_anew;
        self.expired += other.expired;
        self.committed += other.committed;
        self.committed_at_slaves += other.committed_at_slaves;
        self.elections_with_loss += other.elections_with_loss;
        self.forks += other.forks;
        self.lost += other.lost;
        self.waits = self.waits.longest(other.waits);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, elections, handovers, left, faults, .. } = self;
        let Self { elections_with_loss, forks, lost, cuts, begun_anew, expired, .. } = self;
        let Self { committed, committed_at_slaves, .. } = self;
        write!(f, "{acknowledged} acknowledged, {faults} faults, {elections} elections, ")?;
        write!(f, "{handovers} handovers, {left} left the set to end, ")?;
        write!(f, "{cuts} cuts, {begun_anew} begun anew, {expired} times expired, ")?;
        write!(f, "{committed} offsets committed, {committed_at_slaves} at slaves, ")?;
        write!(f, "{elections_with_loss} elections with loss, ")?;
        write!(f, "{forks} forked records, ")?;
        write!(f, "{lost} lost with them or with asynchronous replication")
    }
}

pub(super) struct Check {
    replication: Replication,
    /// Whether a quorum acknowledges, and it is on their disks.
    is_by_quorum: bool,
    /// The least that `min_in_sync` was; nothing where a power cut takes what was confirmed.
    pub(super) min_in_sync: usize,
    /// Which message was acknowledged or seen by a consumer at an offset.
    acknowledged: Places<u64>,
    seen: Places<Entry>,
    leaders: HashMap<u64, Member>,
    /// The epoch that each replica has led or followed last.
    obeyed: HashMap<ReplicaId, u64>,
    pub(super) acknowledged_epoch: u64,
    acknowledgers: HashMap<u64, Member>,
    /// The record was restored and then swapped.
    pub(super) is_forked: bool,
    /// The record was restored or deleted: with asynchronous replication a master that was cut off
    /// may find itself in office again.
    pub(super) was_damaged: bool,
    /// Somebody took away what a log has to have.
    pub(super) was_taken_away: bool,
    /// How far the consumer has read.
    pub(super) consumed: u64,
    committed: Committed,
    loss_epoch: u64,
    pub(super) summary: Summary,
}

impl Check {
    pub(super) fn new(schedule: &Schedule) -> Self {
        Self {
            replication: schedule.replication,
            is_by_quorum: schedule.is_by_quorum() && schedule.sync_flush,
            min_in_sync: if schedule.sync_flush { schedule.settings().needed_in_sync() } else { 0 },
            acknowledged: Places::new(),
            seen: Places::new(),
            leaders: HashMap::new(),
            obeyed: HashMap::new(),
            acknowledged_epoch: 0,
            acknowledgers: HashMap::new(),
            is_forked: false,
            was_damaged: false,
            was_taken_away: false,
            consumed: 0,
            committed: Committed::default(),
            loss_epoch: 0,
            summary: Summary::default(),
        }
    }

    pub(super) fn led(&mut self, epoch: u64, member: Member) -> Result<(), Problem> {
        let leader = *self.leaders.entry(epoch).or_insert(member);
        // Then one of them acknowledges nothing.
        if leader != member && !self.is_forked {
            let text = format!("epoch {epoch} has two masters: {leader:?} and {member:?}");
            return Err(Rule::OneMaster.broken(text));
        }
        self.summary.elections += 1;
        Ok(())
    }

    /// A replica begins to lead or to follow.
    pub(super) fn obeys(&mut self, replica: ReplicaId, epoch: u64) -> Result<(), Problem> {
        let before = self.obeyed.insert(replica, epoch).unwrap_or(0);
        if epoch < before {
            let text = format!("replica {} obeys epoch {epoch} after {before}", replica.0);
            return Err(Rule::EpochStays.broken(text));
        }
        Ok(())
    }

    /// A message that was there before the first election.
    pub(super) fn brought(&mut self, at: u64, message: u64) {
        self.acknowledged.insert(at, message);
    }

    /// A master leads after an election that may lack what was acknowledged or seen.
    /// That epoch's master itself may have been gone before it led.
    pub(super) fn led_with_loss(&mut self, master: &Node, loss_epoch: u64) {
        if loss_epoch <= self.loss_epoch {
            return;
        }
        self.loss_epoch = loss_epoch;
        self.summary.elections_with_loss += 1;
        self.summary.lost += self.lost(master).len() as u64;
        self.acknowledged = Places::new();
        self.seen = Places::new();
        self.consumed = self.consumed.min(master.disk.log.end());
        self.forget_committed();
    }

    /// A master leads, and has everything that was acknowledged. One that only hears of it when another
    /// does already acknowledges nothing.
    pub(super) fn led_with_all(&mut self, epoch: u64, master: &Node) -> Result<(), Problem> {
        self.has_state(master)?;
        if !master.disk.log.is_complete() {
            self.forget_committed();
        }
        let is_late = epoch < self.acknowledged_epoch;
        let is_promised = self.replication == Replication::Sync && !self.was_damaged && !is_late;
        match self.lost(master).first() {
            Some((at, message)) if is_promised => {
                let id = master.id.0;
                let text = format!("replica {id} leads without message {message} at {at}");
                Err(Rule::NothingLost.broken(text))
            }
            _ => Ok(()),
        }
    }

    /// A message is acknowledged at this place by this master; `is_passed_on` says that it is in a log that a
    /// later epoch goes on.
    pub(super) fn acknowledge(
        &mut self,
        at: u64,
        message: u64,
        (epoch, member): (u64, Member),
        is_passed_on: bool,
    ) -> Result<(), Problem> {
        self.summary.acknowledged += 1;
        let first = *self.acknowledgers.entry(epoch).or_insert(member);
        if first != member {
            let text = format!("{first:?} and {member:?} acknowledge in epoch {epoch}");
            return Err(Rule::OneMaster.broken(text));
        }
        let is_ordered = self.replication == Replication::Async && !self.was_damaged;
        if is_ordered && epoch < self.acknowledged_epoch && !is_passed_on {
            let later = self.acknowledged_epoch;
            let text = format!("epoch {epoch} acknowledges after epoch {later} did");
            return Err(Rule::OneMaster.broken(text));
        }
        self.acknowledged_epoch = self.acknowledged_epoch.max(epoch);
        match self.acknowledged.insert(at, message) {
            Some(other) if self.replication == Replication::Sync => {
                let text = format!("offset {at} was acknowledged for {other} and for {message}");
                Err(Rule::OneMessageAnOffset.broken(text))
            }
            _ => Ok(()),
        }
    }

    /// So many replicas have a message when it is acknowledged, and the record has so many members.
    pub(super) fn is_copied(&self, copies: usize, members: usize) -> Result<(), Problem> {
        let is_by_quorum = self.is_by_quorum && !self.was_damaged;
        let quorum = if is_by_quorum { majority_of(members) } else { 0 };
        let needed = self.min_in_sync.max(quorum);
        if copies < needed {
            let text = format!("acknowledged with {copies} copies, not {needed}");
            return Err(Rule::EnoughCopies.broken(text));
        }
        Ok(())
    }

    /// A consumer read a node's log up to `visible`.
    pub(super) fn see(&mut self, node: &Node, visible: u64) -> Result<(), Problem> {
        if self.replication == Replication::Async {
            return Ok(());
        }
        let log = &node.disk.log;
        if visible > log.end() {
            let text = format!("{visible} visible of a log of {}", log.end());
            return Err(Rule::WhatWasSeenStays.broken(text));
        }
        for at in visible.saturating_sub(64).max(log.start())..visible {
            let Some(entry) = log.get(at) else { continue };
            let first = self.seen.get_or_insert(at, entry);
            if first != entry {
                let id = node.id.0;
                let text = format!("offset {at} was {first:?} and is {entry:?} on {id}");
                return Err(Rule::WhatWasSeenStays.broken(text));
            }
        }
        Ok(())
    }

    /// Everything is mended, and this node leads.
    pub(super) fn end(&mut self, master: &Node) -> Result<(), Problem> {
        let lost = self.lost(master);
        self.summary.lost += lost.len() as u64;
        let log = &master.disk.log;
        let is_gone =
            |(at, entry): &(u64, Entry)| *at >= log.start() && log.get(*at) != Some(*entry);
        let gone = self.seen.iter().find(is_gone);
        if self.replication == Replication::Async {
            return Ok(());
        }
        if let Some((at, entry)) = gone {
            let text = format!("a consumer saw {entry:?} at {at}, which is gone");
            return Err(Rule::WhatWasSeenStays.broken(text));
        }
        match lost.first() {
            Some((at, message)) => {
                let count = lost.len();
                let text = format!("{count} acknowledged lost, first message {message} at {at}");
                Err(Rule::NothingLost.broken(text))
            }
            None => Ok(()),
        }
    }

    /// The record was restored and then swapped, and the group may have stopped for it. What was
    /// acknowledged is somewhere.
    pub(super) fn end_forked(&mut self, nodes: &[Node]) -> Result<Summary, Problem> {
        self.summary.forks += 1;
        let lost = nodes.iter().map(|node| self.lost(node).len()).min().unwrap_or(0);
        if lost > 0 {
            let text = format!("{lost} acknowledged are in no log that has the others");
            return Err(Rule::NothingLost.broken(text));
        }
        Ok(self.summary)
    }

    /// Acknowledged messages that are not in this log and have not expired, by offset.
    fn lost(&self, node: &Node) -> Vec<(u64, u64)> {
        let log = &node.disk.log;
        let has = |at, message| log.get(at).map(|entry| entry.what) == Some(What::Message(message));
        let acknowledged = self.acknowledged.iter();
        acknowledged.filter(|(at, message)| *at >= log.start() && !has(*at, *message)).collect()
    }

    /// A replica is about to do this to its log. What was acknowledged is in the log of each later master,
    /// so it is cut from no log; one that begins anew says that it may have lost it.
    pub(super) fn cut(&mut self, node: &Node, restart: Restart) -> Result<(), Problem> {
        let end = match restart {
            Restart::Demoted => return Ok(()),
            Restart::BeginAt { .. } => {
                self.summary.begun_anew += 1;
                return Ok(());
            }
            Restart::CutAt(end) => end,
        };
        self.summary.cuts += 1;
        let log = &node.disk.log;
        let is_cut = |(at, message): &(u64, u64)| {
            let entry = log.get(*at).filter(|_| *at >= end);
            entry.is_some_and(|entry| entry.what == What::Message(*message))
        };
        let is_promised = self.replication == Replication::Sync && !self.was_damaged;
        match self.acknowledged.iter().find(is_cut) {
            Some((at, message)) if is_promised => {
                let id = node.id.0;
                let text = format!("replica {id} cuts message {message} at {at}, from {end} on");
                Err(Rule::NothingCut.broken(text))
            }
            _ => Ok(()),
        }
    }

    /// Where nobody took it away, the state that a log presupposes is in it.
    fn has_state(&self, node: &Node) -> Result<(), Problem> {
        let log = &node.disk.log;
        if log.is_complete() || self.was_taken_away {
            return Ok(());
        }
        let (id, start, end) = (node.id.0, log.start(), log.end());
        let text = format!("the log of {id} goes from {start} to {end} without an image");
        Err(Rule::StateKept.broken(text))
    }

    /// Everything is mended and these have the same end: then they are the same, as far as they go back.
    pub(super) fn logs_agree<'a>(
        &self,
        nodes: impl Iterator<Item = &'a Node> + Clone,
    ) -> Result<(), Problem> {
        let Some(longest) = nodes.clone().min_by_key(|node| node.disk.log.start()) else {
            return Ok(());
        };
        for node in nodes {
            let (log, id) = (&node.disk.log, node.id.0);
            let parts = |at: &u64| log.get(*at) != longest.disk.log.get(*at);
            if let Some(at) = (log.start()..log.end().max(longest.disk.log.end())).find(parts) {
                let (one, other) = (log.get(at), longest.disk.log.get(at));
                let longest = longest.id.0;
                let text = format!("{one:?} is at {at} of {id} and {other:?} at {longest}");
                return Err(Rule::LogsAgree.broken(text));
            }
            self.has_state(node)?;
        }
        Ok(())
    }
}

/// Something at some places of the log, oldest first.
struct Places<T>(Vec<Option<T>>);

impl<T: Copy> Places<T> {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn place(&mut self, at: u64) -> &mut Option<T> {
        let at = at as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        &mut self.0[at]
    }

    /// Says what was there.
    fn insert(&mut self, at: u64, what: T) -> Option<T> {
        self.place(at).replace(what)
    }

    fn get_or_insert(&mut self, at: u64, what: T) -> T {
        *self.place(at).get_or_insert(what)
    }

    fn iter(&self) -> impl Iterator<Item = (u64, T)> {
        self.0.iter().enumerate().filter_map(|(at, what)| Some((at as u64, (*what)?)))
    }
}
