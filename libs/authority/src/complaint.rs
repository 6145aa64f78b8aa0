//! Why a replica does not do what it is there for.

use crate::planted::{self, Planted};
use crate::{Promise, Record, ReplicaId};

/// What is wrong, for the log, a metric and whoever has to mend it. The group stops rather than
/// lose what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// The record is older than what this replica promised.
    #[error(
        "the authority record is of epoch {epoch}, version {version}, but this replica obeyed one \
         of epoch {promised_epoch}, version {promised_version}: it was deleted, or restored from \
         an old copy. Put the newest copy back"
    )]
    WentBack { epoch: u64, version: u64, promised_epoch: u64, promised_version: u64 },
    /// The record is not older, but does not come from the one that this replica promised.
    #[error(
        "the authority record of epoch {epoch} was not made from the one of epoch \
         {promised_epoch}, version {promised_version}, that this replica obeyed: it was restored \
         from an old copy and then changed. Put the newest copy from before that back; replicas \
         that obeyed the other one then have to be emptied"
    )]
    Forked { epoch: u64, promised_epoch: u64, promised_version: u64 },
    /// A replica that is heard promised more than the record says.
    #[error(
        "replica {} obeyed an authority record of epoch {epoch}, but the record is of epoch \
         {found}: it was deleted, or restored from an old copy. Put the newest copy back, or \
         empty that replica if it obeyed a record that counts no more", .replica.0
    )]
    PeerPromisedMore { replica: ReplicaId, epoch: u64, found: u64 },
    /// A replica that is heard refuses the record that this one obeys.
    #[error(
        "replica {} refuses the authority record that this replica obeys; its own complaint says \
         why", .0.0
    )]
    PeerRefuses(ReplicaId),
}

impl Promise {
    /// Why a replica with this promise must not obey a record.
    ///
    /// What was acknowledged under a version of the record was acknowledged by replicas that had
    /// promised it. So whoever wants to acknowledge anything by a record that does not come from
    /// that version finds one of them in its way, as long as `min_in_sync` is more than half of
    /// the group.
    pub(crate) fn complaint_about(&self, record: &Record) -> Option<Complaint> {
        let (promised_epoch, promised_version) = (self.epoch, self.in_sync_version);
        let (epoch, version) = (record.epoch, record.in_sync_version);
        let went_back = epoch < promised_epoch || version < promised_version;
        if went_back && planted::is_on(Planted::ObeyLowerEpochs) {
            return None;
        }
        if went_back {
            return Some(Complaint::WentBack { epoch, version, promised_epoch, promised_version });
        }
        // Further back than the trail goes nobody can say.
        let then = record.trail.back(version - promised_version);
        let is_same = planted::is_on(Planted::ObeyAnyHigherEpoch)
            || self.tag.is_none()
            || then.is_none()
            || self.tag == then;
        (!is_same).then_some(Complaint::Forked { epoch, promised_epoch, promised_version })
    }
}
