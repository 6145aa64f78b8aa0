//! When a replica that does not lead tries to.

use std::time::Duration;

use super::{Part, Replica};
use crate::in_sync::Peer;
use crate::planted::{self, Planted};
use crate::settings::{election_quorum_of, majority_of};
use crate::{LogPosition, Member, Phase, Promotion, Record, Replication, Report};

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
        let accepts_loss = self.promotion(&record).is_some_and(|promotion| promotion.accepts_loss);
        let has_everything = record.epoch == 0 || self.can_be_elected(now, &record);
        let is_with_loss = self.all_have_lost(now, &record) || accepts_loss && !has_everything;
        if self.is_by_quorum(&record) && !is_with_loss {
            if record.phase != Phase::Fencing {
                self.ask_to_swap(now, record.fenced());
                return;
            }
            if !self.has_most_of_a_quorum(now, &record) {
                return;
            }
        }
        if self.lease.holder() != Some(self.me) || !self.is_lease_fresh(now) {
            self.take_lease(now);
            return;
        }
        let elected = match is_with_loss {
            true => record.elect_with_loss(self.me),
            false if self.is_by_quorum(&record) => record.elect_of_quorum(self.me),
            false => record.elect(self.me),
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
            && !self.hears_master(now)
            && !self.is_counted_on(now, record)
            && (!self.is_by_quorum(record) || self.had_time(now, record))
            && (record.phase == Phase::Fencing
                || self.is_lease_free(now)
                || self.most_miss_the_master(now, record)
                || self.is_master_stuck(now, record))
    }

    /// Whether a new master has had the time to be heard, and to lead those who follow it. Otherwise it would
    /// be stopped again by whoever learns of it sooner than it does itself.
    fn had_time(&self, now: Duration, record: &Record) -> bool {
        record.phase == Phase::Fencing
            || now.saturating_sub(self.followed_since) >= self.settings.link_timeout
    }

    /// Whether the record, and who decides about failover, let this replica be elected.
    fn is_candidate(&self, now: Duration, record: &Record) -> bool {
        if record.epoch == 0 {
            return self.is_first_election(now);
        }
        let has_everything =
            self.can_be_elected(now, record) || planted::is_on(Planted::ElectOutsideTheSet);
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
    /// others here that can. A set that is at its minimum cannot shrink, so it gets no time for that.
    fn is_master_stuck(&self, now: Duration, record: &Record) -> bool {
        let may_shrink = record.in_sync.len() > self.settings.needed_in_sync();
        let patience = match may_shrink {
            true => self.settings.lease + self.settings.shrink_after,
            false => self.settings.lease,
        };
        let is_over = |since| now.saturating_sub(since) >= patience;
        let linked = || self.peers.values().filter(|peer| self.is_linked(peer, now));
        let helps = |peer: &&Peer| {
            let from = peer.report.from;
            Some(from) != record.master && self.settings.group.contains(&from.replica)
        };
        self.settings.replication == Replication::Sync
            && !self.settings.is_by_quorum()
            && record.epoch > 0
            && self.missing_since.is_some_and(is_over)
            && linked().all(|peer| peer.report.follows.is_none())
            && linked().filter(helps).count() + 1 >= self.settings.min_in_sync
    }

    /// Whether most members are here and none of them follows the master any more. With
    /// synchronous replication it cannot confirm anything without them, and nobody has to wait
    /// for its lease.
    fn most_miss_the_master(&self, now: Duration, record: &Record) -> bool {
        if self.is_by_quorum(record) {
            // Whoever else follows, it is too few.
            return self.free_members(now, record) >= majority_of(record.in_sync.len());
        }
        let linked = |member: Member| self.linked_report(now, member);
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
            && !self.is_released(now, record)
    }

    /// Whether nobody counts on what this replica told as a follower, however lately: the master that it
    /// follows gave its office up, and it has followed that one for so long that no master before counts on
    /// what was told to that.
    pub(super) fn is_released(&self, now: Duration, record: &Record) -> bool {
        let Part::Follower { master, epoch, .. } = self.part else { return false };
        // From its first word as a follower on: whom that word is for leads by then, and follows nobody.
        let is_long_ago = |told| now.saturating_sub(told) >= self.settings.lease;
        let has_followed = self.first_told_following.is_some_and(is_long_ago);
        (Some(master), epoch) == (record.master, record.epoch)
            && has_followed
            && self.has_given_up(record)
    }

    /// Whether a master may still go on without a lease because of what this replica told.
    pub(super) fn has_told_lately(&self, now: Duration) -> bool {
        let is_recent = |told| now.saturating_sub(told) < self.settings.lease;
        // What an earlier start told counts as told when this one began.
        let has_told = self.told_following.is_some_and(is_recent)
            || is_recent(self.started) && !self.was_sole();
        self.settings.continue_without_lease && has_told && !planted::is_on(Planted::CampaignAtOnce)
    }

    /// Whether an earlier start of this replica is the record's master, and took messages as the only one that
    /// did. Then nobody counts on what still earlier ones told as followers, and that one is gone: the data
    /// directory has a lock. A record says so by its phase, since with asynchronous replication it is swapped
    /// into [`Phase::Stable`] by a master that is sole only.
    fn was_sole(&self) -> bool {
        self.record().is_some_and(|record| {
            let is_own = record.master.is_some_and(|it| it.replica == self.me.replica);
            is_own && record.phase == Phase::Stable
        })
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
    /// lost what it had, or with a quorum so many that the others are too few to be asked. Then whoever
    /// has most is the best that is left. With synchronous flush that does not happen without damage,
    /// which is not for a machine to decide about.
    fn all_have_lost(&self, now: Duration, record: &Record) -> bool {
        if self.settings.sync_flush || !self.settings.takes_over {
            return false;
        }
        let is_mine = |member: &Member| member.replica == self.me.replica;
        // It is another start of the member that says so.
        let says_so = |peer: &Peer| {
            self.is_linked(peer, now) && peer.report.lost == Some(record.in_sync_version)
        };
        let has_lost = |member: &Member| match is_mine(member) {
            true => record.lost_by(self.me, &self.promise.holds).is_some(),
            false => self.peers.get(&member.replica).is_some_and(says_so),
        };
        let is_here =
            |member: &Member| *member == self.me || self.linked_report(now, *member).is_some();
        if !record.electable().any(|member| is_mine(&member)) {
            return false;
        }
        let intact: Vec<_> = record.electable().filter(|member| !has_lost(member)).collect();
        match self.is_by_quorum(record) {
            true => {
                let needed = election_quorum_of(record.in_sync.len());
                intact.len() < needed && intact.iter().all(is_here)
            }
            false => intact.is_empty(),
        }
    }

    /// Whether this record says that a member of its set may lack what was acknowledged. Before the first
    /// election it has no set.
    fn is_by_quorum(&self, record: &Record) -> bool {
        self.settings.is_by_quorum() && record.epoch > 0
    }

    /// Whether the record lets this replica be elected and, where a quorum acknowledges, enough members are
    /// here to be asked what they have: otherwise it would stop a master for nothing.
    fn can_be_elected(&self, now: Duration, record: &Record) -> bool {
        let needed = election_quorum_of(record.in_sync.len());
        record.is_electable(self.me)
            && (!self.is_by_quorum(record) || self.free_members(now, record) >= needed)
    }

    /// How many members are here, this one counted, and neither lead nor follow.
    fn free_members(&self, now: Duration, record: &Record) -> usize {
        let is_free = |report: Report| {
            report.is_free()
                // Who counts old votes does not mind that they are given to a master either.
                || planted::is_on(Planted::CountOldVotes)
                || record.phase == Phase::Fencing && planted::is_on(Planted::FollowBehindTheFence)
        };
        let counts = |member: &Member| {
            *member == self.me || self.linked_report(now, *member).is_some_and(is_free)
        };
        record.in_sync.iter().filter(counts).count()
    }

    /// Whether so many members that no majority is without one of them have promised to follow nobody, and
    /// have no more than this one. What they had when they promised they have still, and the master
    /// that was fenced gets no other word of them. What was said before the promise counts for nothing:
    /// after it more may have been acknowledged. Who is gone is not waited for, where the others are enough.
    ///
    /// One of these has what was acknowledged, so this one has it as well, whatever the others have (Raft's
    /// election restriction). One with a better log gets the time to be elected all the same, because it may
    /// save what was not acknowledged: as long as a lease, since it may not reach the authority, and none if it
    /// is about to begin anew.
    fn has_most_of_a_quorum(&self, now: Duration, record: &Record) -> bool {
        let has_promised = |version: u64| {
            version >= record.in_sync_version || planted::is_on(Planted::CountOldVotes)
        };
        let rank = |position: LogPosition| match planted::is_on(Planted::RankByLength) {
            true => (0, position.counted(&self.settings)),
            false => position.rank(&self.settings),
        };
        let own = rank(self.position);
        let vote = |member: Member| {
            if member == self.me {
                return has_promised(self.durable).then_some((own, false));
            }
            let report = self.linked_report(now, member)?;
            let is_free = report.is_free()
                || planted::is_on(Planted::CountOldVotes)
                || planted::is_on(Planted::FollowBehindTheFence);
            let counts = has_promised(report.promised_version) && is_free;
            counts.then(|| (rank(report.position), report.leaves))
        };
        let is_over = |since| now.saturating_sub(since) >= self.settings.lease;
        let has_waited = self.campaigning_since.is_some_and(is_over);
        let votes: Vec<_> = record.in_sync.iter().filter_map(vote).collect();
        let needed = election_quorum_of(record.in_sync.len());
        let is_better = |vote: (u64, u64)| vote > own;
        let for_this_one = votes.iter().filter(|(vote, _)| {
            !is_better(*vote) || has_waited && planted::is_on(Planted::OutvoteABetterLog)
        });
        let is_another_first = |(vote, leaves): &(_, bool)| is_better(*vote) && !leaves;
        for_this_one.count() >= needed && (has_waited || !votes.iter().any(is_another_first))
            || planted::is_on(Planted::ElectWithoutAQuorum)
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
