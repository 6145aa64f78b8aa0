//! When a replica that does not lead tries to.

use std::time::Duration;

use super::Replica;
use crate::planted::{self, Planted};
use crate::{Record, Replication, Report};

impl Replica {
    pub(super) fn tick_candidate(&mut self, now: Duration) {
        if self.asking.is_some() || self.asking_lease.is_some() || !self.is_current {
            return;
        }
        let Some((_, record)) = self.record.clone() else { return };
        if record.epoch < self.promise.epoch {
            return;
        }
        // Its own entry first: also a replica that does not campaign is counted on by it.
        if let Some(record) = record.readmit(self.me, &self.promise.holds) {
            self.ask_to_swap(now, record);
            return;
        }
        if self.is_due(now, &record) {
            let Some((_, lease)) = self.lease else { return };
            if lease.holder == Some(self.me) && self.is_lease_fresh(now) {
                let needed = self.settings.needed_in_sync();
                let elected = match self.all_have_lost(now, &record) {
                    true => record.elect_with_loss(self.me),
                    false => record.elect(self.me, needed),
                };
                self.ask_to_swap(now, elected);
            } else {
                self.ask_for_lease(now, lease.taken_by(self.me));
            }
        }
    }

    /// Whether it is time to campaign, after all better candidates had theirs.
    fn is_due(&mut self, now: Duration, record: &Record) -> bool {
        if !self.may_campaign(now, record) {
            self.campaigning_since = None;
            return false;
        }
        let since = *self.campaigning_since.get_or_insert(now);
        let better = self.better_candidates(now, record);
        now.saturating_sub(since) >= self.settings.rank_wait * better
    }

    fn may_campaign(&self, now: Duration, record: &Record) -> bool {
        let is_candidate = if record.epoch == 0 {
            self.is_first_election(now)
        } else {
            record.is_electable(self.me)
                || self.all_have_lost(now, record)
                || planted::is_on(Planted::ElectOutsideTheSet)
        };
        is_candidate
            && !self.hears_master(now)
            && !self.is_counted_on(now, record)
            && self.is_lease_free(now)
    }

    /// Whether a master without lease may still go on because this replica said that it follows.
    /// With synchronous replication it needs to hear it anew for each message.
    fn is_counted_on(&self, now: Duration, record: &Record) -> bool {
        let has_told = |told| now.saturating_sub(told) < self.settings.lease;
        record.epoch > 0
            && self.settings.replication == Replication::Async
            && self.settings.continue_without_lease
            && !planted::is_on(Planted::CampaignAtOnce)
            && self.told_following.is_some_and(has_told)
    }

    /// Before the first election there is no record of who has what, so everybody has to be there,
    /// and nobody may remember a master.
    fn is_first_election(&self, now: Duration) -> bool {
        self.promise.epoch == 0
            && self.settings.group.iter().all(|replica| {
                *replica == self.me.replica
                    || self
                        .peers
                        .get(replica)
                        .is_some_and(|peer| self.is_linked(peer, now) && peer.report.promised == 0)
            })
    }

    /// Whether everybody that the record counts on, this replica among them, is there and may have
    /// lost what it had. Then whoever has most is the best that is left. With synchronous flush
    /// that does not happen without damage, which is not for a machine to decide about.
    fn all_have_lost(&self, now: Duration, record: &Record) -> bool {
        let version = record.lost_by(self.me, &self.promise.holds);
        !self.settings.sync_flush
            && version.is_some()
            && record.electable().all(|member| {
                member.replica == self.me.replica
                    || self.peers.get(&member.replica).is_some_and(|peer| {
                        self.is_linked(peer, now) && peer.report.lost == version
                    })
            })
    }

    fn is_lease_free(&self, now: Duration) -> bool {
        let Some((_, lease)) = &self.lease else { return false };
        let Some(holder) = lease.holder else { return true };
        // An earlier start of this replica cannot be alive: the data directory has a lock.
        let is_own =
            holder.replica == self.me.replica && self.promise.holds.contains(&holder.incarnation);
        let is_over = |since| now.saturating_sub(since) >= self.settings.lease;
        is_own || self.lease_unchanged_since.is_some_and(is_over)
    }

    /// How many candidates that can be heard would lose less, or as much and come first.
    fn better_candidates(&self, now: Duration, record: &Record) -> u32 {
        let rank = |report: &Report| report.position.rank(&self.settings);
        let own = self.position.rank(&self.settings);
        let is_better = |report: &Report| {
            let is_counted_on =
                || record.electable().any(|member| member.replica == report.from.replica);
            let is_candidate = record.epoch == 0
                || record.is_electable(report.from)
                || report.lost == Some(record.in_sync_version) && is_counted_on();
            let is_first = report.from.replica < self.me.replica;
            is_candidate && (rank(report) > own || rank(report) == own && is_first)
        };
        let heard = self.peers.values().filter(|peer| self.is_linked(peer, now));
        heard.filter(|peer| is_better(&peer.report)).count() as u32
    }

    /// Whether the lease was taken so lately that nobody else can have it.
    pub(super) fn is_lease_fresh(&self, now: Duration) -> bool {
        self.leased.is_some_and(|sent| now.saturating_sub(sent) < self.settings.step_down)
    }
}
