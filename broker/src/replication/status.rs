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
    /// Whether it was heard just now and does not say that it ends.
    pub(crate) is_prompt: bool,
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
            RoleStatus::Slave { .. } => {
                // One that has just ended stands in the set for a while.
                let others = self.peers.iter().filter(|peer| peer.is_in_sync && peer.is_prompt);
                let in_sync = 1 + others.count();
                if in_sync <= self.min_in_sync {
                    reasons.push(format!(
                        "{in_sync} replicas are in sync and heard, and {} have to be: without this \
                         one no message is taken",
                        self.min_in_sync
                    ));
                }
            }
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slave_counts_only_those_in_sync_that_are_heard() {
        let peer = |replica, is_prompt| PeerStatus {
            replica,
            is_connected: true,
            is_in_sync: true,
            is_prompt,
            end: 9,
            flushed: 9,
        };
        let status = |peers| Status {
            role: RoleStatus::Slave { master: 0 },
            in_sync: 3,
            is_self_in_sync: true,
            peers,
            ..Status::new(1, 2)
        };
        let whole = status(vec![peer(0, true), peer(2, true)]);
        assert_eq!(whole.reasons_not_to_restart(), Vec::<String>::new());
        let restarting = status(vec![peer(0, true), peer(2, false)]);
        let reasons = restarting.reasons_not_to_restart();
        assert!(reasons[0].starts_with("2 replicas are in sync and heard"), "{reasons:?}");
    }
}
