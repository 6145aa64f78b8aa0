//! What kind of group a seed runs, and how badly it is treated.

use std::fmt;
use std::time::Duration;

use super::random::Random;
use crate::settings::majority_of;
use crate::{AcknowledgedBy, Replication, Settings};

/// A fault that a schedule likes best: some bugs take many of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Favourite {
    /// Swaps whose asker does not hear of them and is killed.
    Ambushes,
    /// A master that reaches one slave only, now and then.
    Flaps,
    /// Settings that change.
    Changes,
    /// Records that are restored, and crashes.
    Damage,
}

impl Favourite {
    fn random(random: &mut Random) -> Option<Self> {
        let all = [Self::Ambushes, Self::Flaps, Self::Changes, Self::Damage];
        all.get(random.below(12) as usize).copied()
    }
}

pub(super) struct Schedule {
    pub(super) replicas: u32,
    pub(super) replication: Replication,
    pub(super) acknowledged_by: AcknowledgedBy,
    pub(super) sync_flush: bool,
    pub(super) min_in_sync: usize,
    /// Simulated time with faults; after it everything is mended.
    pub(super) length: Duration,
    /// The mean time between faults.
    pub(super) fault_every: Duration,
    pub(super) continue_without_lease: bool,
    /// Whether `min_in_sync` and the members of the group change.
    pub(super) is_changing: bool,
    /// Whether the record is restored and deleted.
    pub(super) is_damaged: bool,
    /// Whether nobody takes over without being told to, by somebody who looks now and then.
    pub(super) is_manual: bool,
    /// Whether retention takes old records, as soon as nobody needs them.
    pub(super) expires: bool,
    /// Whether brokers take long to begin anew, and masters that wanted a cut die meanwhile.
    pub(super) cuts_slowly: bool,
    /// What goes wrong half of the time, and often.
    pub(super) favourite: Option<Favourite>,
    /// Whether somebody takes away segments with the newest image of a slave, whose log then begins anew.
    pub(super) takes_images_away: bool,
    /// Whether clocks jump forward, and stand still where a machine is paused. With asynchronous replication they
    /// must not, since only time keeps two masters apart there.
    pub(super) clocks_jump: bool,
    /// Whether replicas are told of changes of the record, as far as the network carries that.
    pub(super) has_watch: bool,
}

impl Schedule {
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random(seed ^ 0x5EED);
        let replicas = if random.one_in(3) { 2 } else { 3 };
        let is_sync = !random.one_in(4);
        let is_changing = random.one_in(4);
        let mut schedule = Self {
            replicas,
            replication: if is_sync { Replication::Sync } else { Replication::Async },
            sync_flush: !random.one_in(3),
            min_in_sync: if random.one_in(4) { 1 } else { 2 },
            length: random.millis(30_000, 120_000),
            fault_every: random.millis(1_000, 8_000),
            continue_without_lease: !random.one_in(4),
            is_changing,
            is_damaged: !is_changing && random.one_in(3),
            has_watch: !random.one_in(4),
            is_manual: false,
            expires: false,
            takes_images_away: false,
            cuts_slowly: false,
            clocks_jump: false,
            favourite: None,
            acknowledged_by: AcknowledgedBy::All,
        };
        schedule.is_manual = !schedule.is_damaged && random.one_in(5);
        if is_sync && random.one_in(3) {
            schedule.acknowledged_by = AcknowledgedBy::Quorum;
            schedule.replicas = [2, 3, 3, 3, 4, 5][random.below(6) as usize];
            // A group that shrinks to so many could do without nobody.
            if !is_changing && random.one_in(2) {
                schedule.min_in_sync = majority_of(schedule.replicas as usize);
            }
        }
        schedule.expires = !random.one_in(3);
        schedule.takes_images_away = random.one_in(6);
        schedule.cuts_slowly = random.one_in(4);
        schedule.favourite = Favourite::random(&mut random);
        if schedule.favourite.is_some() {
            schedule.fault_every = schedule.fault_every.min(random.millis(1_000, 3_000));
        }
        schedule.clocks_jump = is_sync && random.one_in(4);
        schedule
    }

    pub(super) fn is_by_quorum(&self) -> bool {
        self.acknowledged_by == AcknowledgedBy::Quorum
    }

    /// Whether any two sets of replicas that can acknowledge have a replica in common. Otherwise
    /// nobody can notice that there are two, once the record was restored and swapped.
    pub(super) fn is_quorum(&self) -> bool {
        self.replication == Replication::Sync && 2 * self.min_in_sync > self.replicas as usize
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            replication: self.replication,
            acknowledged_by: self.acknowledged_by,
            sync_flush: self.sync_flush,
            min_in_sync: self.min_in_sync,
            continue_without_lease: self.continue_without_lease,
            takes_over: !self.is_manual,
            ..Settings::new(self.replicas)
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flush = if self.sync_flush { "sync" } else { "async" };
        let (replicas, min) = (self.replicas, self.min_in_sync);
        write!(f, "{replicas} replicas, {:?} replication, {flush} flush", self.replication)?;
        let by = if self.is_by_quorum() { ", by a quorum" } else { "" };
        let damage = if self.is_damaged { ", damaged record" } else { "" };
        let change = if self.is_changing { ", changing" } else { "" };
        let manual = if self.is_manual { ", manual failover" } else { "" };
        let watch = if self.has_watch { "" } else { ", no watch" };
        let expires = if self.expires { ", retention" } else { "" };
        let takes = if self.takes_images_away { ", images taken away" } else { "" };
        let slow = if self.cuts_slowly { ", slow cuts" } else { "" };
        let clocks = if self.clocks_jump { ", clocks that jump" } else { "" };
        write!(
            f,
            ", min in-sync {min}{by}{damage}{change}{manual}{watch}{expires}{takes}{slow}{clocks}"
        )?;
        match self.favourite {
            Some(favourite) => write!(f, ", most of all {favourite:?}"),
            None => Ok(()),
        }
    }
}
