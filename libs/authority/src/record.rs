//! The authority record of a group, and the changes that are allowed.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, Member, Members, Promise, Trail};

/// What a group is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Nobody was ever elected.
    #[default]
    New,
    /// A master was elected or appointed and does not serve yet.
    Promoting,
    /// The master serves; with asynchronous replication nobody else does any more.
    Stable,
    /// Nobody follows the master any more, so what each member has does not change while the one that has
    /// most of enough of them is looked for ([`crate::AcknowledgedBy::Quorum`]).
    Fencing,
}

/// Who is master of a group and who has every acknowledged message. Changed by compare-and-swap
/// only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Grows by one with each change of the master; 0 before the first.
    pub epoch: u64,
    pub phase: Phase,
    pub master: Option<Member>,
    /// Every member has every acknowledged message, and nothing is acknowledged without it. With
    /// [`crate::AcknowledgedBy::Quorum`] more than half of them have it, and the others may lack it.
    pub in_sync: Members,
    /// Grows by one with each change of the record, so that an older copy can be told.
    pub in_sync_version: u64,
    /// Members that left the set by an election after which nothing could be acknowledged yet:
    /// they have every acknowledged message as well.
    pub eligible: Members,
    /// The last epoch that began after every member may have lost what it had confirmed, as with
    /// asynchronous flush when power fails everywhere, or by the word of somebody who accepted that
    /// ([`crate::Promotion`]); 0: none. Acknowledged messages may be missing from there.
    pub loss_epoch: u64,
    /// By which changes it became what it is.
    #[serde(default)]
    pub trail: Trail,
}

/// A change that no correct replica makes. An authority refuses it, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Regression {
    #[error("the epoch falls from {from} to {to}")]
    Epoch { from: u64, to: u64 },
    #[error("the version of the in-sync set falls from {from} to {to}")]
    InSyncVersion { from: u64, to: u64 },
    #[error("the record changes without a new version")]
    InSyncUnversioned,
    #[error("the new record was not made from the one that is there")]
    TrailBroken,
    #[error("the master changes within epoch {epoch}")]
    MasterWithinEpoch { epoch: u64 },
    #[error("the new master, replica {}, was neither in sync nor eligible", .0.replica.0)]
    ElectedOutside(Member),
    #[error("the master is not in the in-sync set")]
    MasterOutside,
}

impl Record {
    /// The record after `winner` was elected. It is alone in the set; the others stay eligible, so that they
    /// can go on where it is gone before it has acknowledged anything, which it does without them only.
    pub(crate) fn elect(&self, winner: Member) -> Self {
        let mut eligible: Members = self.electable().collect();
        eligible.remove(winner.replica);
        self.changed(Self {
            epoch: self.epoch + 1,
            phase: Phase::Promoting,
            master: Some(winner),
            in_sync: [winner].into_iter().collect(),
            eligible,
            ..self.clone()
        })
    }

    /// The record after which nobody follows its master any more.
    pub(crate) fn fenced(&self) -> Self {
        self.changed(Self { phase: Phase::Fencing, ..self.clone() })
    }

    /// The record after `winner` was elected, a member that has most of enough members. The set stays: each
    /// of the others may be needed to find what was acknowledged.
    pub(crate) fn elect_of_quorum(&self, winner: Member) -> Self {
        let (epoch, phase) = (self.epoch + 1, Phase::Promoting);
        self.changed(Self { epoch, phase, master: Some(winner), ..self.clone() })
    }

    /// `next` as the version after this one.
    fn changed(&self, next: Self) -> Self {
        let next = Self { in_sync_version: self.in_sync_version + 1, ..next };
        Self { trail: self.trail.extended(&next), ..next }
    }

    /// The record after `winner` was elected although it may have lost what it had confirmed, as
    /// everybody else who had it.
    pub(crate) fn elect_with_loss(&self, winner: Member) -> Self {
        let elected = self.elect(winner);
        let eligible = Members::default();
        self.changed(Self { eligible, loss_epoch: elected.epoch, ..elected })
    }

    /// The record after the master gave its office to `heir`, a member of the set that has all
    /// that the master wrote. The old master leaves the set where enough others are in it: it
    /// mostly does so to end or to begin anew, and nobody has to wait for it.
    pub(crate) fn hand_over(&self, heir: Member, min_in_sync: usize) -> Self {
        let mut in_sync = self.in_sync.clone();
        if let Some(master) = self.master.filter(|_| in_sync.len() > min_in_sync) {
            in_sync.remove(master.replica);
        }
        let (epoch, phase) = (self.epoch + 1, Phase::Promoting);
        self.changed(Self { epoch, phase, master: Some(heir), in_sync, ..self.clone() })
    }

    /// The record with which a master by configuration takes office: after this one, or after the
    /// one that it promised, where that is newer because it followed another master meanwhile.
    /// `keeps_set` says whether the others stay in the in-sync set.
    pub fn appoint(&self, master: Member, promise: &Promise, keeps_set: bool) -> Self {
        let mut before = self.clone();
        if before.in_sync_version < promise.in_sync_version {
            before.in_sync_version = promise.in_sync_version;
            before.trail = promise.tag.map(Trail::of).unwrap_or_default();
        }
        let epoch = self.epoch.max(promise.epoch) + 1;
        let mut in_sync = if keeps_set { before.in_sync.clone() } else { Members::default() };
        in_sync.insert(master);
        let (phase, master) = (Phase::Promoting, Some(master));
        before.changed(Self { epoch, phase, master, in_sync, ..before.clone() })
    }

    /// The record with its master serving.
    pub(crate) fn serving(&self) -> Self {
        self.changed(Self { phase: Phase::Stable, ..self.clone() })
    }

    /// The record with another in-sync set. From `min_in_sync` members on messages are
    /// acknowledged without the eligible ones, so there are none any more.
    pub(crate) fn with_in_sync(&self, in_sync: Members, min_in_sync: usize) -> Self {
        let mut eligible = self.eligible.clone();
        if in_sync.len() >= min_in_sync {
            eligible = Members::default();
        }
        in_sync.iter().for_each(|member| eligible.remove(member.replica));
        self.changed(Self { in_sync, eligible, ..self.clone() })
    }

    /// The record with a member's new start in place of an earlier one whose bytes it still holds,
    /// or nothing where none of them is in the record.
    pub(crate) fn readmit(&self, member: Member, holds: &[Incarnation]) -> Option<Self> {
        let mut record = self.clone();
        let mut is_changed = false;
        for set in [&mut record.in_sync, &mut record.eligible] {
            let listed = set.incarnation_of(member.replica);
            if listed.is_some_and(|listed| listed != member.incarnation && holds.contains(&listed))
            {
                set.insert(member);
                is_changed = true;
            }
        }
        is_changed.then(|| self.changed(record))
    }

    /// Everybody that has every acknowledged message.
    pub fn electable(&self) -> impl Iterator<Item = Member> + '_ {
        self.in_sync.iter().chain(self.eligible.iter())
    }

    /// Replicas beside the master that have every acknowledged message, by number.
    pub fn heirs(&self) -> Vec<u32> {
        let others = self.electable().map(|member| member.replica.0);
        let is_other = |heir: &u32| self.master.is_none_or(|master| master.replica.0 != *heir);
        let mut heirs: Vec<u32> = others.filter(is_other).collect();
        heirs.sort_unstable();
        heirs
    }

    /// Whether this start of a replica may have been acknowledged for.
    pub fn is_electable(&self, member: Member) -> bool {
        self.in_sync.has(member) || self.eligible.has(member)
    }

    /// The version of the set, if it counts on an earlier start of this member that it does not
    /// hold any more.
    pub(crate) fn lost_by(&self, member: Member, holds: &[Incarnation]) -> Option<u64> {
        let listed = self.in_sync.incarnation_of(member.replica);
        let listed = listed.or_else(|| self.eligible.incarnation_of(member.replica))?;
        (!holds.contains(&listed)).then_some(self.in_sync_version)
    }

    /// Checks a change from this record to `next`, as the last line of defence: an authority asks
    /// before it swaps.
    ///
    /// # Errors
    /// The first rule that the change breaks.
    pub fn check_next(&self, next: &Self) -> Result<(), Regression> {
        if next.epoch < self.epoch {
            return Err(Regression::Epoch { from: self.epoch, to: next.epoch });
        }
        if next.in_sync_version < self.in_sync_version {
            let (from, to) = (self.in_sync_version, next.in_sync_version);
            return Err(Regression::InSyncVersion { from, to });
        }
        if next.in_sync_version == self.in_sync_version && next != self {
            return Err(Regression::InSyncUnversioned);
        }
        let then = next.trail.back(next.in_sync_version - self.in_sync_version);
        if self.trail.last().is_some_and(|tag| then != Some(tag)) {
            return Err(Regression::TrailBroken);
        }
        if next.epoch == self.epoch && next.master != self.master {
            return Err(Regression::MasterWithinEpoch { epoch: self.epoch });
        }
        if next.epoch == self.epoch {
            return Ok(());
        }
        let master = next.master.ok_or(Regression::MasterOutside)?;
        // Who accepts that may promote anybody: those that had everything may be gone for ever.
        let is_told = next.loss_epoch == next.epoch;
        if self.epoch > 0 && !self.is_electable(master) && !is_told {
            return Err(Regression::ElectedOutside(master));
        }
        if !next.in_sync.has(master) {
            return Err(Regression::MasterOutside);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReplicaId;

    fn member(replica: u32, incarnation: u64) -> Member {
        Member { replica: ReplicaId(replica), incarnation: Incarnation(incarnation) }
    }

    fn stable() -> Record {
        let in_sync = [member(0, 1), member(1, 1), member(2, 1)].into_iter().collect();
        let master = Some(member(0, 1));
        let phase = Phase::Stable;
        Record { epoch: 3, phase, master, in_sync, in_sync_version: 5, ..Record::default() }
    }

    #[test]
    fn the_others_stay_eligible_until_something_can_be_acknowledged_without_them() {
        let elected = stable().elect(member(1, 1));
        assert_eq!(elected.in_sync, [member(1, 1)].into_iter().collect());
        assert_eq!(elected.eligible, [member(0, 1), member(2, 1)].into_iter().collect());
        let joined = elected.with_in_sync([member(1, 1), member(2, 1)].into_iter().collect(), 2);
        assert!(joined.eligible.is_empty());
        // Where one is enough that is the next change.
        let alone = elected.with_in_sync(elected.in_sync.clone(), 1);
        assert!(alone.eligible.is_empty() && alone.in_sync == elected.in_sync);
        assert!(stable().elect_with_loss(member(1, 1)).eligible.is_empty());
    }

    #[test]
    fn who_is_appointed_again_and_again_is_obeyed_by_those_who_obeyed_it_before() {
        let mut promise = Promise::default();
        let mut record = Record::default();
        for incarnation in 1..100 {
            // Those who were stopped for a while have not seen every version.
            let next = record.appoint(member(0, incarnation), &promise, incarnation % 2 == 0);
            assert_eq!(promise.complaint_about(&next), None, "{incarnation}");
            record = next.serving();
            if incarnation % 3 == 0 {
                promise.epoch = record.epoch;
                (promise.in_sync_version, promise.tag) =
                    (record.in_sync_version, record.trail.last());
            }
        }
        // A slave that becomes master has no record, only its promise.
        let first = Record::default().appoint(member(1, 1), &promise, true);
        assert_eq!(promise.complaint_about(&first), None);
        assert!(first.epoch > promise.epoch);
    }

    #[test]
    fn who_hands_over_leaves_the_set_where_that_is_enough() {
        let handed = stable().hand_over(member(1, 1), 2);
        assert_eq!((handed.epoch, handed.master), (4, Some(member(1, 1))));
        assert_eq!(handed.in_sync, [member(1, 1), member(2, 1)].into_iter().collect());
        assert_eq!(stable().check_next(&handed), Ok(()));
        assert_eq!(stable().hand_over(member(1, 1), 3).in_sync, stable().in_sync);
    }

    #[test]
    fn a_restarted_member_takes_its_place_only_with_what_it_held() {
        let record = stable().readmit(member(1, 9), &[Incarnation(1), Incarnation(9)]).unwrap();
        assert!(record.in_sync.has(member(1, 9)) && !record.in_sync.has(member(1, 1)));
        assert_eq!(stable().readmit(member(1, 9), &[Incarnation(9)]), None);
        assert_eq!(stable().lost_by(member(1, 9), &[Incarnation(9)]), Some(5));
        assert_eq!(stable().lost_by(member(7, 9), &[Incarnation(9)]), None);
    }

    #[test]
    fn changes_that_no_correct_replica_makes_are_refused() {
        let before = stable();
        let elected = before.elect(member(1, 1));
        assert_eq!(before.check_next(&elected), Ok(()));
        let check = |next: Record| before.check_next(&next).unwrap_err();
        assert_eq!(check(Record { epoch: 2, ..stable() }), Regression::Epoch { from: 3, to: 2 });
        let next = Record { in_sync_version: 4, ..stable() };
        assert_eq!(check(next), Regression::InSyncVersion { from: 5, to: 4 });
        let next = Record { in_sync: Members::default(), ..stable() };
        assert_eq!(check(next), Regression::InSyncUnversioned);
        let next = Record { master: Some(member(1, 1)), in_sync_version: 6, ..stable() };
        assert_eq!(check(next), Regression::MasterWithinEpoch { epoch: 3 });
        // Another start of replica 1 is another member, except where the record says that
        // messages may be lost.
        let next = before.elect(member(1, 2));
        assert_eq!(check(next), Regression::ElectedOutside(member(1, 2)));
        assert_eq!(before.check_next(&before.elect_with_loss(member(1, 2))), Ok(()));
        assert_eq!(before.check_next(&before.elect_with_loss(member(7, 1))), Ok(()));
        let next = before.elect(member(7, 1));
        assert_eq!(check(next), Regression::ElectedOutside(member(7, 1)));
        let next = Record { in_sync: Members::default(), ..elected.clone() };
        assert_eq!(check(next), Regression::MasterOutside);
        // The same version, made from another record.
        let other = before.elect(member(2, 1)).serving();
        assert_eq!(elected.check_next(&elected.serving()), Ok(()));
        assert_eq!(elected.check_next(&other), Err(Regression::TrailBroken));
    }
}
