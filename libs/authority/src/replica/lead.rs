//! What a master does: keep the lease and the in-sync set, confirm, hand over.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Leading, Part, Replica, Standing};
use crate::in_sync::{Peer, is_following, reached_by};
use crate::{Incarnation, Member, Members, Phase, ReplicaId, Replication, Settings};

impl Replica {
    /// Gives the office to `heir`, or to the member that has most: a planned switchover. No message
    /// is taken from now on, and the record is swapped once the heir has everything. After
    /// `step_down` without success, or once the heir is not heard any more, the master goes on.
    ///
    /// Called under the append lock, after [`Replica::log_moved`] of the last append.
    ///
    /// Returns false, and changes nothing, where no such member follows, was heard a moment ago and
    /// stays, where this replica does not lead, or where it hands over already. With asynchronous
    /// replication also as long as the master before may still take messages: the heir takes them at
    /// once, and by its word that master would not have to be gone.
    #[must_use]
    pub fn hand_over(&mut self, now: Duration, heir: Option<ReplicaId>) -> bool {
        let settings = &self.settings;
        let Part::Master(leading) = &mut self.part else { return false };
        let is_sole = leading.is_sole || settings.replication == Replication::Sync;
        if leading.heir.is_some() || leading.is_handing_over || !is_sole {
            return false;
        }
        let epoch = leading.epoch;
        let others = leading.in_sync.committed.iter().filter(|member| {
            if !settings.group.contains(&member.replica) {
                return false;
            }
            let peer = self.peers.get(&member.replica);
            peer.is_some_and(|peer| is_heir(peer, member.incarnation, epoch, now, settings))
        });
        let position = |member: &Member| {
            let peer = self.peers.get(&member.replica);
            peer.map_or(0, |peer| peer.report.position.counted(settings))
        };
        let chosen = others
            .filter(|member| heir.is_none_or(|heir| heir == member.replica))
            .max_by_key(position);
        leading.heir = chosen.map(|member| (member.replica, now));
        if chosen.is_some() {
            // Who wants to restart another replica asks that one.
            self.tell(now);
        }
        chosen.is_some()
    }

    /// Whether somebody asked for a hand-over, and what becomes of it is not known yet: also once the
    /// heir was given up, as long as a swap may still make it master.
    pub fn is_handing_over(&self) -> bool {
        let Part::Master(leading) = &self.part else { return false };
        leading.heir.is_some() || leading.is_handing_over
    }

    /// Gives the office up, so that others campaign: for a broker whose disk stalls. This start stays out of
    /// all elections.
    pub fn resign(&mut self, now: Duration) {
        self.stop_leading();
        // The others need not miss it first.
        self.tell(now);
    }

    pub(super) fn tick_master(&mut self, now: Duration) {
        self.confirm();
        self.renew(now);
        self.note_whether_sole(now);
        if self.is_of_no_use(now) {
            self.resign(now);
            return;
        }
        if self.is_cut_off(now) {
            self.stop();
            return;
        }
        let (me, settings) = (self.me, &self.settings);
        let own = self.position.counted(settings);
        let Part::Master(leading) = &mut self.part else { return };
        leading.in_sync.observe(now, (leading.epoch, own), &self.peers, settings);
        let is_in_vain = |(heir, since)| {
            let is_late = now.saturating_sub(since) >= settings.step_down;
            let peer = self.peers.get(&heir);
            is_late || peer.is_none_or(|peer| !peer.is_prompt(now, settings))
        };
        if leading.heir.is_some_and(is_in_vain) {
            leading.heir = None;
        }
        let Some((_, record)) = &self.record else { return };
        let Some(base) = leading.base.filter(|_| self.asking.is_none() && self.is_current) else {
            return;
        };
        let office = (me, leading.epoch, base, own);
        let wanted = leading.in_sync.wanted(now, office, &self.peers, settings);
        let next = if let Some(heir) =
            ready_heir(leading, now, self.position.end, &self.peers, settings)
        {
            leading.is_handing_over = true;
            // Where a quorum acknowledges, what each member has may be needed.
            let is_by_quorum = settings.is_by_quorum();
            let stays = if is_by_quorum { usize::MAX } else { settings.needed_in_sync() };
            record.hand_over(heir, stays)
        } else if leading.heir.is_none() && leading.is_handing_over {
            // Any swap that succeeds makes the one that hands over fail.
            record.serving()
        } else if let Some(wanted) = wanted.filter(|_| leading.heir.is_none()) {
            leading.in_sync.ask(&wanted);
            record.with_in_sync(wanted, settings.needed_in_sync())
        } else if leading.in_sync.is_to_be_closed(settings) {
            record.with_in_sync(record.in_sync.clone(), settings.needed_in_sync())
        } else if leading.heir.is_none() && leading.in_sync.is_uncertain() {
            // Somebody who may have been added and is not wanted any more would be waited for.
            record.with_in_sync(record.in_sync.clone(), settings.needed_in_sync())
        } else if record.phase == Phase::Promoting
            && leading.in_sync.confirmed >= base
            && (leading.is_sole || settings.replication == Replication::Sync)
        {
            record.serving()
        } else {
            return;
        };
        self.ask_to_swap(now, next);
    }

    /// Notes that the predecessor can acknowledge nothing any more: the lease was held in this
    /// epoch, and nobody counts on what this replica told as a follower; or the predecessor follows. Who
    /// was given the office knows from the beginning.
    fn note_whether_sole(&mut self, now: Duration) {
        let (is_lease_fresh, has_told) = (self.is_lease_fresh(now), self.has_told_lately(now));
        let Part::Master(leading) = &mut self.part else { return };
        let is_lease_held = is_lease_fresh && (!has_told || leading.is_released);
        let follows = |predecessor: Member| {
            self.peers.get(&predecessor.replica).is_some_and(|peer| {
                peer.report.from == predecessor && peer.report.follows == Some(leading.epoch)
            })
        };
        // An earlier start of this replica cannot be alive: the data directory has a lock.
        let is_own = |predecessor: Member| predecessor.replica == self.me.replica;
        let is_first = leading.predecessor.is_none_or(is_own);
        leading.is_sole |= is_lease_held || is_first || leading.predecessor.is_some_and(follows);
    }

    /// Whether others might do better: for as long as a lease nothing could be taken, the authority does not
    /// answer here, and another member is there that may ask it. Without the authority no member that is gone
    /// leaves the set, so there is no reason to wait for that as well.
    fn is_of_no_use(&mut self, now: Duration) -> bool {
        let may_append = self.standing(now).may_append;
        let is_lease_fresh = self.is_lease_fresh(now);
        let Part::Master(leading) = &mut self.part else { return false };
        // Not while an heir that was given up may still take over: who cannot ask would wait for ever.
        if may_append || leading.heir.is_some() {
            leading.served = now;
        }
        // Who was elected just now is alone in the set, and the others can be elected.
        let in_sync = &leading.in_sync;
        let is_another_there =
            in_sync.committed.iter().chain(in_sync.eligible.iter()).any(|member| {
                self.peers.get(&member.replica).is_some_and(|peer| {
                    is_following(peer, member.incarnation, leading.epoch, now, &self.settings)
                })
            });
        // Where roles are by configuration nobody else can be master.
        !self.settings.is_by_configuration
            && now.saturating_sub(leading.served) >= self.settings.lease
            && !is_lease_fresh
            && is_another_there
    }

    /// Whether this master can neither serve nor hear anybody, the authority or another replica, and had
    /// some time to. The others may have elected one, whom clients that stay here would not find; where
    /// roles are by configuration, they cannot.
    fn is_cut_off(&mut self, now: Duration) -> bool {
        let hears = self.settings.is_by_configuration
            || self.is_lease_fresh(now)
            || self.standing(now).may_append
            || self.peers.values().any(|peer| self.is_linked(peer, now));
        let Part::Master(leading) = &mut self.part else { return false };
        if hears {
            leading.alone_since = None;
            return false;
        }
        // A process that was stopped hears them in a moment.
        let since = *leading.alone_since.get_or_insert(now);
        now.saturating_sub(since) >= self.settings.link_timeout
    }

    pub(super) fn confirm(&mut self) {
        let own = self.position.counted(&self.settings);
        if let Part::Master(leading) = &mut self.part {
            let (own, epoch) = ((own, self.durable), (leading.epoch, leading.base));
            leading.in_sync.confirm(self.me, own, epoch, &self.peers, &self.settings);
            self.confirmed = self.confirmed.max(leading.in_sync.confirmed);
        }
    }

    pub(super) fn standing_of_master(&self, now: Duration, leading: &Leading) -> Standing {
        let own = self.position.counted(&self.settings);
        let reached = match self.settings.replication {
            Replication::Sync => leading.in_sync.confirmed,
            Replication::Async => own,
        };
        let serves = leading.base.is_some_and(|base| reached >= base);
        let is_enough = leading.in_sync.is_enough(&self.settings);
        let until = self.allowed_until(leading).filter(|until| now < *until);
        let visible = match serves {
            true => Some(reached),
            false => (self.confirmed > 0).then_some(self.confirmed),
        };
        let Some(until) = until.filter(|_| serves && is_enough) else {
            return Standing { visible, ..Standing::default() };
        };
        Standing {
            may_append: leading.heir.is_none() && !leading.is_handing_over,
            acknowledged: reached,
            visible,
            until,
            acknowledged_until: match self.settings.replication {
                Replication::Sync => Duration::MAX,
                Replication::Async => until,
            },
        }
    }

    /// Until when nobody else can be master and acknowledge, if nothing more is heard: the
    /// conditions of the design. With synchronous replication nothing is acknowledged without the
    /// set anyway.
    fn allowed_until(&self, leading: &Leading) -> Option<Duration> {
        let union = self.told_until(leading, leading.in_sync.union());
        match self.settings.replication {
            Replication::Sync if self.settings.is_by_quorum() => {
                let told = |set: &Members| {
                    let told = set.iter().filter_map(|member| self.told_by(leading, member));
                    reached_by(told, self.settings.needed_of(set.len()))
                };
                self.lease_until().max(leading.in_sync.sets().map(told).min().flatten())
            }
            Replication::Sync => self.lease_until().max(union),
            Replication::Async => {
                let eligible = self.record.iter().flat_map(|(_, record)| record.eligible.iter());
                let may_lack_lease =
                    self.settings.group.len() == 1 || self.settings.continue_without_lease;
                let all = union.min(self.told_until(leading, eligible));
                self.lease_until().max(all.filter(|_| may_lack_lease)).filter(|_| leading.is_sole)
            }
        }
    }

    /// Until when all of these members said that they follow, by the oldest word that is counted
    /// on; nothing where one did not.
    fn told_until(
        &self,
        leading: &Leading,
        mut members: impl Iterator<Item = Member>,
    ) -> Option<Duration> {
        members.try_fold(Duration::MAX, |until, member| {
            Some(until.min(self.told_by(leading, member)?))
        })
    }

    /// The same of one member.
    fn told_by(&self, leading: &Leading, member: Member) -> Option<Duration> {
        if member == self.me {
            return Some(Duration::MAX);
        }
        let report = self.peers.get(&member.replica)?.report;
        let counts = report.from == member && report.follows == Some(leading.epoch);
        Some(report.echo.filter(|_| counts)?.saturating_add(self.settings.step_down))
    }
}

/// The heir, once it has everything that the master wrote.
fn ready_heir(
    leading: &Leading,
    now: Duration,
    end: u64,
    peers: &BTreeMap<ReplicaId, Peer>,
    settings: &Settings,
) -> Option<Member> {
    let (heir, _) = leading.heir?;
    let peer = peers.get(&heir)?;
    let member = peer.report.from;
    let is_ready = leading.in_sync.committed.has(member)
        && is_heir(peer, member.incarnation, leading.epoch, now, settings)
        && peer.report.position.counted(settings) == end;
    is_ready.then_some(member)
}

/// Whether this start of the replica follows and will be there in a moment. One that has just ended
/// would leave the group without a master until others miss it.
fn is_heir(
    peer: &Peer,
    incarnation: Incarnation,
    epoch: u64,
    now: Duration,
    settings: &Settings,
) -> bool {
    is_following(peer, incarnation, epoch, now, settings) && peer.is_prompt(now, settings)
}
