//! Roles by configuration: one replica is the master for good, the others are its slaves.
//!
//! The master keeps the authority record itself, beside its log; nobody else reads it. There is no
//! automatic failover, and nobody ever leaves the in-sync set: with synchronous replication
//! messages wait for a slave that is away.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weirmq_authority::{Lease, Member, Promise, Record, Replication, Swapped, Version};
use weirmq_store::{Store, StoreError};

/// Under the store's `weir/user/`.
const FILE: &str = "authority.json";

/// The record and lease of a master by configuration.
pub(crate) struct StaticRoles {
    store: Store,
    state: Mutex<(Kept, Lease)>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// Grows with each change.
    version: u64,
    record: Record,
}

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
        let before = match store.read_small_file(FILE)? {
            None => Kept::default(),
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| StoreError::Unreadable {
                    path: store.directory().join("weir/user").join(FILE),
                    reason: error.to_string(),
                })?
            }
        };
        let record = before.record;
        let listed = record.in_sync.incarnation_of(me.replica);
        let may_have_lost = listed.is_some_and(|listed| !promise.holds.contains(&listed));
        let has_slaves = record.in_sync.len() > 1;
        if may_have_lost && has_slaves && replication == Replication::Sync {
            let file = store.directory().join("weir/user").join(FILE);
            return Err(StaticRolesError::MayHaveLost { file: file.display().to_string() });
        }
        // Without synchronous replication nothing waits for slaves, so none is counted on.
        let record = record.appoint(me, promise, replication == Replication::Sync);
        let kept = Kept { version: before.version + 1, record };
        let roles = Self { store: store.clone(), state: Mutex::default() };
        roles.keep(&kept)?;
        roles.state.lock().0 = kept;
        Ok(roles)
    }

    pub(super) fn read(&self) -> ((Version, Record), (Version, Lease)) {
        let state = self.state.lock();
        let (kept, lease) = &*state;
        ((version(kept.version), kept.record.clone()), (version(lease.renewals), *lease))
    }

    /// Waits for the disk.
    pub(super) fn swap_record(&self, expected: &Version, record: Record) -> Swapped {
        let mut state = self.state.lock();
        let kept = &state.0;
        if *expected != version(kept.version) {
            return Swapped::Lost;
        }
        if let Err(error) = kept.record.check_next(&record) {
            tracing::error!(%error, "a change of the authority record was refused");
            return Swapped::Lost;
        }
        let next = Kept { version: kept.version + 1, record };
        match self.keep(&next) {
            Ok(()) => {
                let version = version(next.version);
                state.0 = next;
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
