//! What a replica wants done.

use crate::{Lease, Member, Promise, Record, Report};

/// The version of a record or lease, by which it is swapped: opaque, equal or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// What became of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    /// It succeeded; this is the new version.
    Won(Version),
    /// The version was another one, or the authority refused the change.
    Lost,
    /// Nobody knows, and it may still succeed.
    Unknown,
}

/// What the replica wants done, in this order. Nothing of a list may be seen by others before the
/// promises ahead of it are durable, and neither may the replica be told anything more: a promise
/// that cannot be written ends the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read record and lease, and tell [`crate::Replica::read`].
    Read { request: u64 },
    /// Swap the record, and tell [`crate::Replica::record_swapped`].
    SwapRecord { request: u64, expected: Version, record: Record },
    /// Swap the lease, and tell [`crate::Replica::lease_swapped`].
    SwapLease { request: u64, expected: Version, lease: Lease },
    /// Make this durable.
    Promise(Promise),
    /// Append an epoch record, flush, and serve as [`crate::Replica::standing`] says.
    Lead { epoch: u64 },
    /// Cut the log to what it shares with this master's, tell [`crate::Replica::aligned`], and take what
    /// the master sends.
    Follow { master: Member, epoch: u64 },
    /// Neither append nor acknowledge nor take anything any more.
    Stop,
    /// Send this to all other replicas, which tell [`crate::Replica::heard`].
    Tell(Report),
    /// Send the record by which this replica leads to all others, which tell
    /// [`crate::Replica::heard_record`].
    Share(Record),
}
