//! What a group's replicas are told.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ReplicaId;

/// When a message is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// When the master has it. What no other replica had is lost with the master.
    Async,
    /// When every member of the in-sync set has it.
    Sync,
}

/// For whom an acknowledgement waits with synchronous replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgedBy {
    /// Every member of the in-sync set. A member that is late leaves the set, and any member can be
    /// elected.
    All,
    /// More than half of the members, and at least `min_in_sync`, the master counted. Nobody leaves the set
    /// for being late, so a slow one holds up nobody; only one that has most of enough members can be
    /// elected, after these have promised to follow nobody.
    Quorum,
}

/// Somebody tells a replica to take office. It does so as any candidate does: once the master is not
/// heard any more and its lease is over, and without a turn to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    pub replica: ReplicaId,
    /// The record's epoch when this was decided. In any other it means nothing, so that nobody is
    /// promoted a second time by it.
    pub epoch: u64,
    /// Whether acknowledged messages may be lost by it. Otherwise only a replica is promoted that has
    /// all of them.
    pub accepts_loss: bool,
}

/// The settings of one group, the same at all of its replicas. About `group`, `min_in_sync`,
/// `takes_over` and `promotion` they may disagree for a while once somebody was elected
/// ([`crate::Replica::configure`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// All replicas of the group, at least one.
    pub group: BTreeSet<ReplicaId>,
    pub replication: Replication,
    /// Means something with synchronous replication only. Default: all.
    pub acknowledged_by: AcknowledgedBy,
    /// With synchronous replication a message counts once it is flushed at each member. Default:
    /// true.
    pub sync_flush: bool,
    /// Synchronous replication takes no messages with fewer members in sync, the master counted.
    /// 1 to the size of the group. Default: 2, or 1 in a group of one.
    pub min_in_sync: usize,
    /// Whether a master without a lease goes on while it hears all others follow it. Default:
    /// true.
    pub continue_without_lease: bool,
    /// Whether one replica is master for good, by configuration, and nobody else can be elected. Default:
    /// false.
    pub is_by_configuration: bool,
    /// Whether replicas take over from a master that is gone without being told to. Otherwise only the
    /// one that was master goes on by itself, once it was started again. Default: true.
    pub takes_over: bool,
    /// Default: none.
    pub promotion: Option<Promotion>,
    /// A lease that was not renewed for this long may be taken. Default: 6 s.
    pub lease: Duration,
    /// A master renews this often. Default: 1 s.
    pub renew_every: Duration,
    /// A master without a renewal for this long stops. Below `lease` by more than clocks drift
    /// in that time. Default: 4 s.
    pub step_down: Duration,
    /// A peer that was not heard for this long is not connected. Default: 2 s.
    pub link_timeout: Duration,
    /// A member of the in-sync set that is not connected, or does not reach what the master had
    /// this long ago, is taken out.
    /// Default: 10 s.
    pub shrink_after: Duration,
    /// A candidate waits this long for each better one that it hears. Default: 500 ms.
    pub rank_wait: Duration,
    /// A request to the authority without an answer for this long has an unknown outcome.
    /// Default: 2 s.
    pub request_timeout: Duration,
    /// How often everybody reports, and somebody who misses a master, or a master its lease, reads
    /// record and lease. Default: 500 ms.
    pub tick_every: Duration,
    /// How often all others read them, whom [`crate::Replica::changed`] tells of changes; in case
    /// it does not. Default: 10 s.
    pub read_every: Duration,
}

impl Settings {
    /// The defaults for `replicas` replicas with synchronous replication and flush.
    pub fn new(replicas: u32) -> Self {
        Self {
            group: (0..replicas).map(ReplicaId).collect(),
            replication: Replication::Sync,
            acknowledged_by: AcknowledgedBy::All,
            sync_flush: true,
            min_in_sync: replicas.min(2) as usize,
            continue_without_lease: true,
            is_by_configuration: false,
            takes_over: true,
            promotion: None,
            lease: Duration::from_secs(6),
            renew_every: Duration::from_secs(1),
            step_down: Duration::from_secs(4),
            link_timeout: Duration::from_secs(2),
            shrink_after: Duration::from_secs(10),
            rank_wait: Duration::from_millis(500),
            request_timeout: Duration::from_secs(2),
            tick_every: Duration::from_millis(500),
            read_every: Duration::from_secs(10),
        }
    }

    /// Whether a member of the set may lack what was acknowledged.
    pub fn is_by_quorum(&self) -> bool {
        self.replication == Replication::Sync && self.acknowledged_by == AcknowledgedBy::Quorum
    }

    /// How many of a set of so many members have to have what is acknowledged.
    pub(crate) fn needed_of(&self, members: usize) -> usize {
        match self.is_by_quorum() {
            true => majority_of(members).max(self.min_in_sync).min(members),
            false => members,
        }
    }

    /// How many members have to be in sync before a message may be acknowledged.
    pub(crate) fn needed_in_sync(&self) -> usize {
        match self.replication {
            Replication::Async => 1,
            Replication::Sync => self.min_in_sync,
        }
    }
}

/// More than half.
pub(crate) fn majority_of(members: usize) -> usize {
    members / 2 + 1
}

/// So many of a set that no majority of it is without one of them.
pub(crate) fn election_quorum_of(members: usize) -> usize {
    members + 1 - majority_of(members)
}
