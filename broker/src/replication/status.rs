//! What a replica is, for other threads, administrators and metrics.

/// A moment of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) role: RoleStatus,
    pub(crate) epoch: u64,
    /// Its place in the group.
    pub(crate) replica: u32,
    /// Members in sync, as far as known.
    pub(crate) in_sync: usize,
    /// Whether those are too few for a message to be acknowledged.
    pub(crate) is_short: bool,
    pub(crate) min_in_sync: usize,
    pub(crate) peers: Vec<PeerStatus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoleStatus {
    /// Nobody is known to be master.
    Waiting,
    Slave {
        master: u32,
    },
    Master {
        may_append: bool,
    },
}

/// What is known of another replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerStatus {
    pub(crate) replica: u32,
    pub(crate) is_connected: bool,
    pub(crate) is_in_sync: bool,
    /// Where its log ends, and up to where that is on its disk.
    pub(crate) end: u64,
    pub(crate) flushed: u64,
}

impl Status {
    /// Before anything is known.
    pub(crate) fn new(replica: u32, min_in_sync: usize) -> Self {
        Self {
            role: RoleStatus::Waiting,
            epoch: 0,
            replica,
            in_sync: 0,
            is_short: false,
            min_in_sync,
            peers: Vec::new(),
        }
    }
}
