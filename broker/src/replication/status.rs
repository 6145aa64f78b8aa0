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
    /// The same by their places, and the version of that set.
    pub(crate) in_sync_set: Vec<u32>,
    pub(crate) in_sync_version: u64,
    /// Whether those are too few for a message to be acknowledged.
    pub(crate) is_short: bool,
    pub(crate) min_in_sync: usize,
    /// Whether this start of this replica is in the set.
    pub(crate) is_self_in_sync: bool,
    /// Whether it can be elected.
    pub(crate) is_self_counted: bool,
    /// Whether it belongs to the group.
    pub(crate) belongs: bool,
    pub(crate) is_handing_over: bool,
    /// Whether another replica can be elected.
    pub(crate) is_elected: bool,
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
            in_sync_set: Vec::new(),
            in_sync_version: 0,
            is_short: false,
            min_in_sync,
            is_self_in_sync: false,
            is_self_counted: false,
            belongs: true,
            is_handing_over: false,
            is_elected: false,
            peers: Vec::new(),
        }
    }

    /// Why restarting this replica now would stop the group, or cost a message its copies; nothing
    /// where it would not.
    pub(crate) fn reasons_not_to_restart(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_handing_over {
            reasons.push("the office of the master is being handed over".to_owned());
        }
        match self.role {
            RoleStatus::Waiting => reasons.push("no master is known".to_owned()),
            RoleStatus::Master { .. } if self.is_elected && self.in_sync > 1 => {
                reasons.push("it is the master; hand over first".to_owned());
            }
            RoleStatus::Master { .. } => {}
            // It is to go, and can once nobody counts on it.
            RoleStatus::Slave { .. } if !self.belongs => {
                if self.is_self_counted {
                    reasons
                        .push("it belongs to the group no more, but is still in sync".to_owned());
                }
            }
            RoleStatus::Slave { .. } if !self.is_self_in_sync => {
                reasons.push("it is not in sync, it is still catching up".to_owned());
            }
            RoleStatus::Slave { .. } if self.in_sync <= self.min_in_sync => reasons.push(format!(
                "{} replicas are in sync and {} have to be: without this one no message is taken",
                self.in_sync, self.min_in_sync
            )),
            RoleStatus::Slave { .. } => {}
        }
        reasons
    }
}
