//! When a replica that does not lead tries to.

use std::time::Duration;

use super::Replica;
use crate::in_sync::Peer;
use crate::planted::{self, Planted};
use crate::{Member, Promotion, Record, Replication, Report};

impl Replica {
    pub(super) fn tick_candidate(&mut self, now: Duration) {
        match self.hears_master(now) {
            true => self.missing_since = None,
            false => _ = self.missing_since.get_or_insert(now),
        }
        self.pass_lease_on(now);
        if self.asking.is_some() || self.lease.is_asked_for() || !self.is_current {
            return;
        }
        let Some((_, record)) = self.record.clone() else { return };
        // Somebody obeys an epoch that the record has not had: it was lost or restored.
        let has_been_higher = |peer: &Peer| {
            let report = peer.report;
            let is_higher =
                report.promised > record.epoch || report.promised_version > record.in_sync_version;
            self.is_linked(peer, now) && is_higher
        };
        if self.peers.values().any(has_been_higher) {
            return;
        }
        // Its own entry first: also a replica that does not campaign is counted on by it.
        if let Some(record) = record.readmit(self.me, &self.promise.holds) {
            self.ask_to_swap(now, record);
            return;
        }
        if !self.is_due(now, &record) {
            return;
        }
        if self.lease.holder() != Some(self.me) || !self.is_lease_fresh(now) {
            self.take_lease(now);
            return;
        }
        let needed = self.settings.needed_in_sync();
        let accepts_loss = self.promotion(&record).is_some_and(|promotion| promotion.accepts_loss);
        let has_everything = record.epoch == 0 || record.is_electable(self.me);
        let elected = match self.all_have_lost(now, &record) || accepts_loss && !has_everything {
            true => record.elect_with_loss(self.me),
            false => record.elect(self.me, needed),
        };
        self.ask_to_swap(now, elected);
    }

    /// Whether it is time to campaign, after all better candidates had theirs.
    fn is_due(&mut self, now: Duration, record: &Record) -> bool {
        if !self.may_campaign(now, record) {
            self.campaigning_since = None;
            return false;
        }
        let since = *self.campaigning_since.get_or_insert(now);
        if self.promotion(record).is_some() {
            return true;
        }
        let better = self.better_candidates(now, record);
        // Where logs that nobody vouches for are compared, the best one has to win.
        let must_be_best = record.epoch == 0 || self.all_have_lost(now, record);
        let is_turn = now.saturating_sub(since) >= self.settings.rank_wait * better;
        if must_be_best { better == 0 } else { is_turn }
    }

    fn may_campaign(&self, now: Duration, record: &Record) -> bool {
        self.is_candidate(now, record)
            && !self.is_leaving
            && now >= self.campaigns_after
            && !self.hears_master(now)
            && !self.is_counted_on(now, record)
            && (self.is_lease_free(now)
                || self.most_miss_the_master(now, record)
                || self.is_master_stuck(now, record))
    }

    /// Whether the record, and who decides about failover, let this replica be elected.
    fn is_candidate(&self, now: Duration, record: &Record) -> bool {
        if record.epoch == 0 {
            return self.is_first_election(now);
        }
        let has_everything =
            record.is_electable(self.me) || planted::is_on(Planted::ElectOutsideTheSet);
        if let Some(promotion) = self.promotion(record) {
            return has_everything || promotion.accepts_loss && !self.is_anybody_followed(now);
        }
        if self.settings.takes_over {
            return has_everything || self.all_have_lost(now, record);
        }
        // No failover: it only goes on.
        let was_master = record.master.is_some_and(|master| master.replica == self.me.replica);
        was_master && has_everything
    }

    /// What this replica was told to do, if that was about this epoch.
    fn promotion(&self, record: &Record) -> Option<Promotion> {
        let is_meant = |promotion: &Promotion| {
            promotion.replica == self.me.replica
                && promotion.epoch == record.epoch
                && record.epoch > 0
        };
        self.settings.promotion.filter(is_meant)
    }

    /// Whether some replica that is heard has a master. It may acknowledge by it, and nobody outside of
    /// the set would notice.
    fn is_anybody_followed(&self, now: Duration) -> bool {
        let mut linked = self.peers.values().filter(|peer| self.is_linked(peer, now));
        linked.any(|peer| peer.report.follows.is_some() || peer.report.leads.is_some())
    }

    /// Whether the master had time to do without this member and could not, though it may hold its
    /// lease: with synchronous replication it confirms nothing without it, and there are enough
    /// others here that can.
    fn is_master_stuck(&self, now: Duration, record: &Record) -> bool {
        let patience = self.settings.lease + self.settings.shrink_after;
        let is_over = |since| now.saturating_sub(since) >= patience;
        let linked = || self.peers.values().filter(|peer| self.is_linked(peer, now));
        let helps = |peer: &&Peer| {
            let from = peer.report.from;
            Some(from) != record.master && self.settings.group.contains(&from.replica)
        };
        self.settings.replication == Replication::Sync
            && record.epoch > 0
            && self.missing_since.is_some_and(is_over)
            && linked().all(|peer| peer.report.follows.is_none())
            && linked().filter(helps).count() + 1 >= self.settings.min_in_sync
    }

    /// Whether most members are here and none of them follows the master any more. With
    /// synchronous replication it cannot confirm anything without them, and nobody has to wait
    /// for its lease.
    fn most_miss_the_master(&self, now: Duration, record: &Record) -> bool {
        let linked = |member: Member| {
            let peer = self.peers.get(&member.replica)?;
            (peer.report.from == member && self.is_linked(peer, now)).then_some(peer.report)
        };
        let others = || record.electable().filter(|member| Some(*member) != record.master);
        let missing = others().filter(|member| {
            *member == self.me || linked(*member).is_some_and(|report| report.follows.is_none())
        });
        let is_followed = others().filter_map(linked).any(|report| report.follows.is_some());
        self.settings.replication == Replication::Sync
            && !is_followed
            && 2 * missing.count() > record.electable().count()
    }

    /// Whether a master without lease may still go on because this replica said that it follows.
    /// With synchronous replication it needs to hear it anew for each message.
    fn is_counted_on(&self, now: Duration, record: &Record) -> bool {
        record.epoch > 0
            && self.settings.replication == Replication::Async
            && self.has_told_lately(now)
    }

    /// Whether a master may still go on without a lease because of what this replica told.
    pub(super) fn has_told_lately(&self, now: Duration) -> bool {
        let is_recent = |told| now.saturating_sub(told) < self.settings.lease;
        self.settings.continue_without_lease
            && self.told_following.is_some_and(is_recent)
            && !planted::is_on(Planted::CampaignAtOnce)
    }

    /// Before the first election there is no record of who has what, so everybody has to be there,
    /// and nobody may remember a master.
    fn is_first_election(&self, now: Duration) -> bool {
        self.promise.epoch == 0
            && self.settings.group.contains(&self.me.replica)
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
            && self.settings.takes_over
            && version.is_some()
            && record.electable().all(|member| {
                member.replica == self.me.replica
                    || self.peers.get(&member.replica).is_some_and(|peer| {
                        self.is_linked(peer, now) && peer.report.lost == version
                    })
            })
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
}
