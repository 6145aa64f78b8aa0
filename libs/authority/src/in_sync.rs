//! The master's side of the in-sync set: whose bytes an acknowledgement waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::planted::{self, Planted};
use crate::settings::majority_of;
use crate::{Incarnation, Member, Members, Record, ReplicaId, Replication, Report, Settings};

/// What the master knows of one other replica.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) report: Report,
    /// When it was heard last.
    pub(crate) heard: Duration,
    /// Whether there is a connection, as far as known.
    pub(crate) is_connected: bool,
    /// Since when it says that it obeys this version of the record.
    pub(crate) obeys_since: Duration,
}

impl Peer {
    /// Whether it was heard just now and stays, so that it can be counted on next. Everybody reports
    /// each `tick_every`.
    pub(crate) fn is_prompt(&self, now: Duration, settings: &Settings) -> bool {
        let is_heard = now.saturating_sub(self.heard) < 2 * settings.tick_every;
        self.is_connected && is_heard && !self.report.leaves
    }
}

/// The set as the record has it, with what was asked for and is not known to be refused.
#[derive(Debug, Clone)]
pub(crate) struct InSync {
    /// In the record, as far as known.
    pub(crate) committed: Members,
    /// Who can be elected by that record beside them.
    pub(crate) eligible: Members,
    /// The version of that record.
    version: u64,
    /// Asked for by swaps of the record's version as it is known: each may yet succeed.
    pub(crate) asked: Vec<Members>,
    /// The end of what every member has: never falls.
    pub(crate) confirmed: u64,
    patience: BTreeMap<ReplicaId, Patience>,
}

/// How far behind a member is, in time.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// It had everything that the master had at this time.
    caught_up: Duration,
    /// What the master had at a later time, which the member has not reached yet.
    mark: (Duration, u64),
}

impl Patience {
    fn from(now: Duration) -> Self {
        Self { caught_up: now, mark: (now, 0) }
    }
}

impl InSync {
    /// `confirmed` is what is known to be confirmed from the epochs before.
    pub(crate) fn new(record: &Record, confirmed: u64, now: Duration) -> Self {
        let (committed, version) = (record.in_sync.clone(), record.in_sync_version);
        let eligible = record.eligible.clone();
        let members = committed.iter().map(|member| (member.replica, Patience::from(now)));
        let patience = members.collect();
        Self { committed, eligible, version, asked: Vec::new(), confirmed, patience }
    }

    /// Everybody that an acknowledgement waits for: the set, and whom a swap in flight may already
    /// have added.
    pub(crate) fn union(&self) -> impl Iterator<Item = Member> + '_ {
        self.committed.iter().chain(self.asked.iter().flat_map(Members::iter))
    }

    /// Each set that may be the one in the record.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Members> {
        std::iter::once(&self.committed).chain(&self.asked)
    }

    /// Notes a set that is asked for. Until it is known what became of it both count.
    pub(crate) fn ask(&mut self, wanted: &Members) {
        if planted::is_on(Planted::ShrinkBeforeTheSwap) {
            self.committed = self.committed.iter().filter(|member| wanted.has(*member)).collect();
        }
        if !planted::is_on(Planted::ExpandAfterTheSwap) {
            self.asked.push(wanted.clone());
        }
    }

    /// Takes in the set of a record of a new version, after which swaps of older ones fail.
    pub(crate) fn commit(&mut self, record: &Record, now: Duration) {
        (self.committed, self.version) = (record.in_sync.clone(), record.in_sync_version);
        self.eligible = record.eligible.clone();
        self.asked.clear();
        self.patience.retain(|replica, _| self.committed.incarnation_of(*replica).is_some());
        for member in self.committed.iter() {
            self.patience.entry(member.replica).or_insert(Patience::from(now));
        }
    }

    /// Moves the confirm offset to what everybody of the union has, or where a quorum acknowledges enough
    /// of each set that may be the one in the record. `own` is the master's own end, and `promised` the
    /// version of the record that it promised durably. `base` is where its epoch begins to count.
    ///
    /// Each of them has to have promised the record that says who they are: otherwise an older one
    /// that is restored could be obeyed by one that counts here.
    ///
    /// It stays where it is while the position of a member is not known, since a member without a
    /// connection has not confirmed anything more (apache/rocketmq #6662), and while the set is
    /// too small.
    pub(crate) fn confirm(
        &mut self,
        me: Member,
        (own, promised): (u64, u64),
        (epoch, base): (u64, Option<u64>),
        peers: &BTreeMap<ReplicaId, Peer>,
        settings: &Settings,
    ) {
        let knows = |promised| promised >= self.version;
        if !self.is_enough(settings) {
            return;
        }
        let position = |member: Member| {
            if member == me {
                return knows(promised).then_some(own);
            }
            let report = peers.get(&member.replica)?.report;
            let counts = report.from == member
                && report.follows == Some(epoch)
                && knows(report.promised_version);
            counts.then(|| report.position.counted(settings))
        };
        if settings.is_by_quorum() {
            let reached = |set: &Members| {
                let needed = match planted::is_on(Planted::ConfirmWithoutTheUnheard) {
                    true => set.iter().filter_map(position).count(),
                    false => settings.needed_of(set.len()),
                };
                reached_by(set.iter().filter_map(position), needed)
            };
            let reached = self.sets().map(reached).chain([position(me)]).min().flatten();
            // What enough members have of earlier epochs only may yet be cut: one with a later epoch that
            // they do not know has the better log. With this epoch's record on top it cannot be.
            let counts = |reached: &u64| {
                base.is_some_and(|base| *reached >= base)
                    || planted::is_on(Planted::ConfirmOldEpochs)
            };
            self.confirmed = self.confirmed.max(reached.filter(counts).unwrap_or(0));
            return;
        }
        let skips = |position: &Option<u64>| {
            position.is_none() && planted::is_on(Planted::ConfirmWithoutTheUnheard)
        };
        let is_left_out = |member: &Member| {
            planted::is_on(Planted::LeaveByWord) && says_that_it_leaves(peers, *member)
        };
        let lowest = self
            .union()
            .filter(|member| !is_left_out(member))
            .map(position)
            .filter(|position| !skips(position))
            .try_fold(own, |lowest, position| Some(lowest.min(position?)));
        self.confirmed = self.confirmed.max(lowest.unwrap_or(0));
    }

    /// Whether the set is large enough, and nobody outside of it can be elected.
    pub(crate) fn is_enough(&self, settings: &Settings) -> bool {
        let is_closed = self.eligible.is_empty() || planted::is_on(Planted::ServeBesideTheEligible);
        self.committed.len() >= settings.needed_in_sync() && is_closed
    }

    /// Whether a swap of unknown outcome may have added somebody.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.asked.iter().any(|asked| *asked != self.committed)
    }

    /// Whether there are others who could be elected and need not be.
    pub(crate) fn is_to_be_closed(&self, settings: &Settings) -> bool {
        self.committed.len() >= settings.needed_in_sync() && !self.eligible.is_empty()
    }

    /// Notes who is connected and keeps up. `own` is the master's own end.
    ///
    /// Who has all that is confirmed need not keep up: that is what every member has.
    pub(crate) fn observe(
        &mut self,
        now: Duration,
        (epoch, own): (u64, u64),
        peers: &BTreeMap<ReplicaId, Peer>,
        settings: &Settings,
    ) {
        for member in self.committed.iter() {
            let patience = self.patience.entry(member.replica).or_insert(Patience::from(now));
            let Some(peer) = peers.get(&member.replica) else { continue };
            if is_following(peer, member.incarnation, epoch, now, settings)
                && peer.report.position.counted(settings) >= patience.mark.1
            {
                *patience = Patience { caught_up: patience.mark.0, mark: (now, own) };
            }
        }
    }

    /// The set that the master should ask for, if it is another one: connected replicas of the
    /// group that have all that was confirmed, and at least `base`, come in; members that did not for
    /// `shrink_after`, that say that they leave, or that do not belong to the group any more, go.
    ///
    /// `base` is the end of the log at the master's election: what was acknowledged before is
    /// somewhere below it.
    ///
    /// Where a quorum acknowledges nobody goes for being late or leaving, and enough of the new set have
    /// to have all that was confirmed.
    ///
    /// The caller asks under the append lock and counts those who come in from then on, before it
    /// acknowledges anything more.
    pub(crate) fn wanted(
        &self,
        now: Duration,
        (me, epoch, base, own): (Member, u64, u64, u64),
        peers: &BTreeMap<ReplicaId, Peer>,
        settings: &Settings,
    ) -> Option<Members> {
        let mut wanted = self.committed.clone();
        let belongs = |member: &Member| settings.group.contains(&member.replica);
        for peer in peers.values().filter(|peer| belongs(&peer.report.from)) {
            let member = peer.report.from;
            let position = peer.report.position;
            // Where nobody waits for copies a log that began anew may be as long and hold nothing. With
            // synchronous replication the image with which it begins is confirmed.
            let holds_state = settings.replication == Replication::Sync || !position.lacks_state;
            let has_all = position.counted(settings) >= self.confirmed.max(base) && holds_state;
            let is_following = is_following(peer, member.incarnation, epoch, now, settings);
            if has_all && is_following && peer.is_prompt(now, settings) {
                wanted.insert(member);
            }
        }
        let joined = wanted.clone();
        let is_by_quorum = settings.is_by_quorum();
        for member in self.committed.iter().filter(|member| *member != me) {
            let patience = self.patience.get(&member.replica);
            let since = patience.map_or(now, |patience| patience.caught_up);
            let is_late = now.saturating_sub(since) >= settings.shrink_after;
            let is_awaited = is_late || says_that_it_leaves(peers, member);
            let is_to_go = is_awaited && !is_by_quorum || !belongs(&member);
            if is_to_go && wanted.has(member) && wanted.len() > settings.needed_in_sync() {
                wanted.remove(member.replica);
            }
        }
        let mut sets = [wanted, joined].into_iter();
        let is_safe = |set: &Members| {
            !is_by_quorum || self.is_held_by(set, (me, epoch, base, own), peers, settings)
        };
        sets.find(is_safe).filter(|set| *set != self.committed)
    }

    /// Whether more than half of these have everything that was confirmed, and this epoch's beginning on top.
    fn is_held_by(
        &self,
        set: &Members,
        (me, epoch, base, own): (Member, u64, u64, u64),
        peers: &BTreeMap<ReplicaId, Peer>,
        settings: &Settings,
    ) -> bool {
        let position = |member: Member| {
            if member == me {
                return Some(own);
            }
            let report = peers.get(&member.replica)?.report;
            // What it had in another epoch may be another log.
            let counts = report.from == member && report.follows == Some(epoch);
            counts.then(|| report.position.counted(settings))
        };
        let held = reached_by(set.iter().filter_map(position), majority_of(set.len()));
        held.is_some_and(|held| held >= self.confirmed.max(base))
            || planted::is_on(Planted::ChangeWithoutTheBytes)
    }
}

/// What so many of these reach; nothing where there are not so many.
pub(crate) fn reached_by<T: Ord + Copy>(
    positions: impl Iterator<Item = T>,
    needed: usize,
) -> Option<T> {
    let mut positions: Vec<_> = positions.collect();
    positions.sort_unstable_by(|one, other| other.cmp(one));
    positions.get(needed.checked_sub(1)?).copied()
}

fn says_that_it_leaves(peers: &BTreeMap<ReplicaId, Peer>, member: Member) -> bool {
    let report = peers.get(&member.replica).map(|peer| peer.report);
    report.is_some_and(|report| report.from == member && report.leaves)
}

/// Whether this start of the replica is connected and follows in this epoch.
pub(crate) fn is_following(
    peer: &Peer,
    incarnation: Incarnation,
    epoch: u64,
    now: Duration,
    settings: &Settings,
) -> bool {
    peer.report.from.incarnation == incarnation
        && peer.report.follows == Some(epoch)
        && now.saturating_sub(peer.heard) < settings.link_timeout
}
