//! What a master does: keep the lease and the in-sync set, confirm, hand over.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Leading, Part, Replica, Standing};
use crate::in_sync::{Peer, is_following};
use crate::{Lease, Member, Phase, ReplicaId, Replication, Settings};

impl Replica {
    /// Gives the office to `heir`, or to the member that has most: a planned switchover. No message
    /// is taken from now on, and the record is swapped once the heir has everything. After
    /// `step_down` without success the master goes on.
    ///
    /// Returns false where there is no such member, or this replica does not lead.
    #[must_use]
    pub fn hand_over(&mut self, now: Duration, heir: Option<ReplicaId>) -> bool {
        let settings = &self.settings;
        let Part::Master(leading) = &mut self.part else { return false };
        let others = leading.in_sync.committed.iter().filter(|member| *member != self.me);
        let position = |member: &Member| {
            let peer = self.peers.get(&member.replica);
            peer.map_or(0, |peer| peer.report.position.counted(settings))
        };
        let chosen = others
            .filter(|member| heir.is_none_or(|heir| heir == member.replica))
            .max_by_key(position);
        leading.heir = chosen.map(|member| (member.replica, now));
        chosen.is_some()
    }

    pub(super) fn tick_master(&mut self, now: Duration) {
        self.confirm();
        self.renew(now);
        let me = self.me;
        let Part::Master(leading) = &mut self.part else { return };
        leading.in_sync.observe(now, leading.epoch, &self.peers, &self.settings);
        if leading
            .heir
            .is_some_and(|(_, since)| now.saturating_sub(since) >= self.settings.step_down)
        {
            leading.heir = None;
        }
        let Some((_, record)) = &self.record else { return };
        let Some(base) = leading.base.filter(|_| self.asking.is_none() && self.is_current) else {
            return;
        };
        let office = (me, leading.epoch, base);
        let wanted = leading.in_sync.wanted(now, office, &self.peers, &self.settings);
        let end = self.position.end;
        let next = if let Some(heir) = ready_heir(leading, now, end, &self.peers, &self.settings) {
            record.hand_over(heir)
        } else if let Some(wanted) = wanted.filter(|_| leading.heir.is_none()) {
            leading.in_sync.ask(&wanted);
            record.with_in_sync(wanted, self.settings.needed_in_sync())
        } else if record.phase == Phase::Promoting && leading.in_sync.confirmed >= base {
            record.serving()
        } else {
            return;
        };
        self.ask_to_swap(now, next);
    }

    /// Renews the lease when it is due, takes it where it is free, and gives it back after the
    /// office.
    fn renew(&mut self, now: Duration) {
        if self.asking_lease.is_some() {
            return;
        }
        let Some((_, lease)) = self.lease else { return };
        let is_ours = lease.holder == Some(self.me);
        let is_due = |sent| now.saturating_sub(sent) >= self.settings.renew_every;
        let is_free = lease.holder.is_none()
            || self
                .lease_unchanged_since
                .is_some_and(|since| now.saturating_sub(since) >= self.settings.lease);
        if is_ours && self.leased.is_none_or(is_due) || !is_ours && is_free {
            self.ask_for_lease(now, lease.taken_by(self.me));
        }
    }

    /// Gives the lease back, after the office was handed over.
    pub(super) fn release(&mut self, now: Duration) {
        let Some((_, lease)) = self.lease else { return };
        self.leased = None;
        if lease.holder == Some(self.me) && self.asking_lease.is_none() {
            self.ask_for_lease(now, Lease { holder: None, renewals: lease.renewals + 1 });
        }
    }

    pub(super) fn confirm(&mut self) {
        let own = self.position.counted(&self.settings);
        if let Part::Master(leading) = &mut self.part {
            leading.in_sync.confirm(self.me, own, leading.epoch, &self.peers, &self.settings);
        }
    }

    pub(super) fn standing_of_master(&self, now: Duration, leading: &Leading) -> Standing {
        let own = self.position.counted(&self.settings);
        let reached = match self.settings.replication {
            Replication::Sync => leading.in_sync.confirmed,
            Replication::Async => own,
        };
        let serves = leading.base.is_some_and(|base| reached >= base);
        let is_enough = leading.in_sync.committed.len() >= self.settings.needed_in_sync();
        let may = serves && is_enough && self.is_allowed(now, leading);
        Standing {
            may_append: may && leading.heir.is_none(),
            acknowledged: if may { reached } else { 0 },
            visible: serves.then_some(reached),
        }
    }

    /// Whether nobody else can be master of a later epoch and acknowledge: one of the four
    /// conditions of the design.
    fn is_allowed(&self, now: Duration, leading: &Leading) -> bool {
        let confirmed_lately = |member: Member| {
            member == self.me
                || self.peers.get(&member.replica).is_some_and(|peer| {
                    let since = peer.report.echo.map(|echo| now.saturating_sub(echo));
                    peer.report.from == member
                        && peer.report.follows == Some(leading.epoch)
                        && since.is_some_and(|since| since < self.settings.step_down)
                })
        };
        let eligible = self.record.iter().flat_map(|(_, record)| record.eligible.iter());
        let is_lease_held = self.is_lease_fresh(now);
        let is_alone = self.settings.group.len() == 1;
        let has_all = match self.settings.replication {
            Replication::Sync => leading.in_sync.union().all(confirmed_lately),
            Replication::Async => {
                self.settings.continue_without_lease
                    && leading.in_sync.union().chain(eligible).all(confirmed_lately)
            }
        };
        is_lease_held || is_alone || has_all
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
    let is_currenty = leading.in_sync.committed.has(member)
        && is_following(peer, member.incarnation, leading.epoch, now, settings)
        && peer.report.position.counted(settings) == end;
    is_currenty.then_some(member)
}
