//! Roles by configuration: one replica is the master for good, the others are its slaves.
//!
//! The master keeps the authority record itself, beside its log; nobody else reads it. There is no
//! automatic failover, and nobody ever leaves the in-sync set: with synchronous replication
//! messages wait for a slave that is away.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weirmq_authority::{Lease, Member, Promise, Record, Replication, Swapped, Version};
use weirmq_store::{Store, StoreError};

use super::kept;

/// Under the store's `weir/user/`.
const FILE: &str = "authority.json";

/// The record and lease of a master by configuration.
pub(crate) struct StaticRoles {
    store: Store,
    /// Held by who writes the record, and taken before `state`: who reads does not wait for the disk.
    writing: Mutex<()>,
    state: Mutex<(Kept, Lease)>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// Grows with each change.
    version: u64,
    record: Record,
    /// The epoch since which this replica alone was master; 0 where nobody knows.
    #[serde(default)]
    since: u64,
}

const ADVICE: &str = "it says which slaves have to have what is acknowledged. If this replica was the last \
                      master and has lost nothing, remove this file and the one with .last behind its name";

/// Why the configured master cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum StaticRolesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "this master may have lost messages that were acknowledged: its machine lost power with \
         asynchronous flush. Its slaves have them: start one of those with broker_id 0 instead, \
         and this one as its slave. To go on without them, remove {file}"
    )]
    MayHaveLost { file: String },
}

impl StaticRoles {
    /// Makes this start of the configured master the master of a new epoch.
    pub(crate) fn take_office(
        store: &Store,
        me: Member,
        promise: &Promise,
        replication: Replication,
    ) -> Result<Self, StaticRolesError> {
        let before = kept::read::<Kept>(store, FILE);
        let before = before.map_err(|error| kept::with_advice(error, ADVICE))?.unwrap_or_default();
        let record = before.record;
        // Who has followed another master since has promised a newer record.
        let was_master = record.epoch > 0
            && (record.epoch, record.in_sync_version) >= (promise.epoch, promise.in_sync_version);
        let listed = record.in_sync.incarnation_of(me.replica);
        let may_have_lost = listed.is_some_and(|listed| !promise.holds.contains(&listed));
        let has_slaves = record.in_sync.len() > 1;
        if may_have_lost && has_slaves && replication == Replication::Sync {
            let file = store.directory().join("weir/user").join(FILE);
            return Err(StaticRolesError::MayHaveLost { file: file.display().to_string() });
        }
        // Without synchronous replication nothing waits for slaves, so none is counted on.
        let record = record.appoint(me, promise, replication == Replication::Sync);
        let since = if was_master { before.since } else { record.epoch };
        let kept = Kept { version: before.version + 1, record, since };
        let (writing, state) = Default::default();
        let roles = Self { store: store.clone(), writing, state };
        roles.keep(&kept)?;
        roles.state.lock().0 = kept;
        Ok(roles)
    }

    /// The epoch since which this replica alone was master; 0 where nobody knows.
    pub(super) fn since(&self) -> u64 {
        self.state.lock().0.since
    }

    pub(super) fn read(&self) -> ((Version, Record), (Version, Lease)) {
        let state = self.state.lock();
        let (kept, lease) = &*state;
        ((version(kept.version), kept.record.clone()), (version(lease.renewals), *lease))
    }

    /// Waits for the disk.
    pub(super) fn swap_record(&self, expected: &Version, record: Record) -> Swapped {
        let _writing = self.writing.lock();
        let kept = self.state.lock().0.clone();
        if *expected != version(kept.version) {
            return Swapped::Lost;
        }
        if let Err(error) = kept.record.check_next(&record) {
            tracing::error!(%error, "a change of the authority record was refused");
            return Swapped::Lost;
        }
        let next = Kept { version: kept.version + 1, record, since: kept.since };
        match self.keep(&next) {
            Ok(()) => {
                let version = version(next.version);
                self.state.lock().0 = next;
                Swapped::Won(version)
            }
            Err(error) => {
                tracing::error!(%error, "the authority record cannot be written");
                Swapped::Unknown
            }
        }
    }

    pub(super) fn swap_lease(&self, expected: &Version, lease: Lease) -> Swapped {
        let mut state = self.state.lock();
        if *expected != version(state.1.renewals) {
            return Swapped::Lost;
        }
        state.1 = lease;
        Swapped::Won(version(lease.renewals))
    }

    fn keep(&self, kept: &Kept) -> Result<(), StoreError> {
        self.store.write_small_file(FILE, &serde_json::to_vec_pretty(kept).unwrap_or_default())
    }
}

fn version(number: u64) -> Version {
    Version(number.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use weirmq_authority::{Incarnation, ReplicaId};
    use weirmq_store::{Disk as _, OpenMode, SimulatedDisk, SystemClock};

    use super::*;

    fn member(replica: u32, incarnation: u64) -> Member {
        Member { replica: ReplicaId(replica), incarnation: Incarnation(incarnation) }
    }

    /// What a replica has promised that obeys this record, and lost nothing.
    fn promise(record: &Record) -> Promise {
        let (epoch, in_sync_version) = (record.epoch, record.in_sync_version);
        let holds = (1..10).map(Incarnation).collect();
        Promise { epoch, in_sync_version, tag: record.trail.last(), holds }
    }

    #[test]
    fn a_master_knows_since_when_nobody_else_was_and_forgets_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::BrokerConfig { data_dir: folder.path().into(), ..Default::default() };
        let disk = Arc::new(SimulatedDisk::new());
        let opened = Store::open(config.store_config(), disk.clone(), Arc::new(SystemClock));
        let (store, _) = opened.unwrap();
        let take = |incarnation, before: &Record| {
            let me = member(0, incarnation);
            StaticRoles::take_office(&store, me, &promise(before), Replication::Sync)
        };
        let office = |roles: StaticRoles| {
            let ((_, record), _) = roles.read();
            (record.epoch, roles.since(), record)
        };
        let (epoch, since, first) = office(take(1, &Record::default()).unwrap());
        assert_eq!((epoch, since), (1, 1));
        let (epoch, since, second) = office(take(2, &first).unwrap());
        assert_eq!((epoch, since), (2, 1));
        // It follows another one, with another broker id, and comes back.
        let other = second.appoint(member(0, 77), &Promise::default(), true);
        let (epoch, since, _) = office(take(3, &other).unwrap());
        assert_eq!((epoch, since), (4, 4));

        let path = folder.path().join("weir/user").join(FILE);
        let file = disk.open(&path, OpenMode::Write).unwrap();
        file.write_all_at(b"?", file.size().unwrap() - 1).unwrap();
        let refused = take(4, &other).err().unwrap().to_string();
        assert!(refused.contains("the checksum is wrong; it says which slaves"), "{refused}");
    }

    #[test]
    fn who_reads_the_record_does_not_wait_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::BrokerConfig { data_dir: folder.path().into(), ..Default::default() };
        let disk = SimulatedDisk::new();
        let opened =
            Store::open(config.store_config(), Arc::new(disk.clone()), Arc::new(SystemClock));
        let (store, _) = opened.unwrap();
        let (me, before) = (member(0, 1), Promise::default());
        let roles = StaticRoles::take_office(&store, me, &before, Replication::Sync).unwrap();
        let ((version, record), (leased, lease)) = roles.read();
        let next = record.appoint(me, &promise(&record), true);
        disk.hold_syncs(true);
        let steps = disk.steps();
        std::thread::scope(|scope| {
            let swapping = scope.spawn(|| roles.swap_record(&version, next.clone()));
            while disk.steps() == steps {
                std::thread::yield_now();
            }
            let (done, is_done) = mpsc::channel();
            scope.spawn({
                let (roles, leased) = (&roles, &leased);
                move || {
                    let found = (roles.read().0.1, roles.since());
                    let renewed = roles.swap_lease(leased, lease.taken_by(me));
                    let _ = done.send((found, matches!(renewed, Swapped::Won(_))));
                }
            });
            let found = is_done.recv_timeout(Duration::from_secs(10));
            disk.hold_syncs(false);
            assert!(matches!(swapping.join().unwrap(), Swapped::Won(_)));
            assert_eq!(found, Ok(((record.clone(), 1), true)));
        });
        assert_eq!(roles.read().0.1, next);
    }
}
