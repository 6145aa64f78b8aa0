//! What a replica is, for other threads, administrators and metrics.

use weirmq_authority::AcknowledgedBy;

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
    /// For whom an acknowledgement waits; nobody with asynchronous replication.
    pub(crate) acknowledged_by: Option<AcknowledgedBy>,
    /// Whether this start of this replica is in the set.
    pub(crate) is_self_in_sync: bool,
    /// Whether it can be elected.
    pub(crate) is_self_counted: bool,
    /// Whether it belongs to the group.
    pub(crate) belongs: bool,
    /// Whether the office of the master is being handed over, here or by the master's word.
    pub(crate) is_handing_over: bool,
    /// Whether another replica can be elected.
    pub(crate) is_elected: bool,
    pub(crate) peers: Vec<PeerStatus>,
    /// The other replicas of the group; of a group by configuration those that are connected.
    pub(crate) others: Vec<u32>,
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
            acknowledged_by: None,
            is_self_in_sync: false,
            is_self_counted: false,
            belongs: true,
            is_handing_over: false,
            is_elected: false,
            peers: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Whether this is a slave that is connected to its master.
    pub(crate) fn reaches_master(&self) -> bool {
        let RoleStatus::Slave { master } = self.role else { return false };
        self.peers.iter().any(|peer| peer.replica == master && peer.is_connected)
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
            // Nobody could take over, and until it is back nobody has what it has.
            RoleStatus::Master { .. } if self.in_sync <= 1 && !self.others.is_empty() => {
                let others: Vec<_> =
                    self.others.iter().map(|other| self.is_missing(*other)).collect();
                reasons.push(format!("it is alone in the in-sync set: {}", others.join(", ")));
            }
            // Of a group of one, or by configuration: there is nothing better to wait for.
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
            RoleStatus::Slave { master } if !self.is_elected => {
                reasons.extend(self.is_missed_by(master).map(str::to_owned));
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

    /// Why this slave by configuration cannot be spared, which is in sync. It hears its master only, and `min_in_sync`
    /// says nothing: who ends stays in the set.
    fn is_missed_by(&self, master: u32) -> Option<&'static str> {
        if !self.peers.iter().any(|peer| peer.replica == master && peer.is_prompt) {
            return Some("its master is not heard");
        }
        match self.acknowledged_by {
            None => None,
            Some(AcknowledgedBy::All) => Some(
                "by configuration nobody leaves the in-sync set, so messages wait until this one is back; restart it \
                 once `weir cluster status` says that all replicas are in sync",
            ),
            Some(AcknowledgedBy::Quorum) => Some(
                "a quorum acknowledges, and only the master knows who else keeps up; restart it once \
                 `weir cluster status` says that all replicas are in sync",
            ),
        }
    }

    /// Why this other replica is not in sync.
    fn is_missing(&self, replica: u32) -> String {
        let peer = self.peers.iter().find(|peer| peer.replica == replica);
        match peer.is_some_and(|peer| peer.is_connected) {
            true => format!("replica {replica} catches up"),
            false => format!("replica {replica} is not connected"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(replica: u32, is_in_sync: bool) -> PeerStatus {
        let (is_connected, is_prompt) = (true, true);
        PeerStatus { replica, is_connected, is_in_sync, is_prompt, end: 9, flushed: 9 }
    }

    /// One in a group of two that elects its master and of which one is enough; everybody is in sync.
    fn status(role: RoleStatus) -> Status {
        Status {
            role,
            in_sync: 2,
            is_self_in_sync: true,
            is_self_counted: true,
            is_elected: true,
            peers: vec![peer(1, true)],
            others: vec![1],
            ..Status::new(0, 1)
        }
    }

    #[test]
    fn each_reason_not_to_restart_is_said_where_it_holds() {
        const MASTER: RoleStatus = RoleStatus::Master { may_append: true };
        const SLAVE: RoleStatus = RoleStatus::Slave { master: 1 };
        let (master, slave) = (status(MASTER), status(SLAVE));
        let gone = PeerStatus { is_connected: false, ..peer(1, false) };
        let late = PeerStatus { is_prompt: false, ..peer(1, true) };
        let alone = Status { in_sync: 1, peers: vec![peer(1, false)], ..master.clone() };
        let of_three = Status { others: vec![1, 2], ..alone.clone() };
        let by_configuration = |status: &Status| Status { is_elected: false, ..status.clone() };
        let needs_two = |status: &Status| Status { min_in_sync: 2, ..status.clone() };
        let not_in = |status: &Status| Status { is_self_in_sync: false, ..status.clone() };
        let foreign = |status: &Status| Status { belongs: false, ..status.clone() };
        let one = Status { in_sync: 1, others: Vec::new(), peers: Vec::new(), ..master.clone() };
        // One of three: it hears its master only.
        let waits_for = |whom| Status {
            acknowledged_by: Some(whom),
            in_sync: 3,
            ..by_configuration(&needs_two(&slave))
        };
        let hand_over = "it is the master; hand over first";
        let catches_up = "it is alone in the in-sync set: replica 1 catches up";
        let cases: [(&str, Status, &[&str]); 24] = [
            ("nothing is known", Status::new(0, 1), &["no master is known"]),
            ("a master with an heir", master.clone(), &[hand_over]),
            ("a master without one", alone.clone(), &[catches_up]),
            (
                "the same of three",
                of_three,
                &[
                    "it is alone in the in-sync set: replica 1 catches up, replica 2 is not connected",
                ],
            ),
            (
                "the other is away",
                Status { peers: vec![gone], ..alone.clone() },
                &["it is alone in the in-sync set: replica 1 is not connected"],
            ),
            (
                "it was never heard",
                Status { peers: Vec::new(), ..alone.clone() },
                &["it is alone in the in-sync set: replica 1 is not connected"],
            ),
            ("a group of one", one.clone(), &[]),
            ("one by configuration", by_configuration(&one), &[]),
            ("a master by configuration", by_configuration(&master), &[]),
            ("one whose slave catches up", by_configuration(&alone), &[catches_up]),
            (
                "it hands over",
                Status { is_handing_over: true, ..master.clone() },
                &["the office of the master is being handed over", hand_over],
            ),
            (
                "its master hands over",
                Status { is_handing_over: true, ..slave.clone() },
                &["the office of the master is being handed over"],
            ),
            ("a slave that can be spared", slave.clone(), &[]),
            ("one that is needed", needs_two(&slave), &["2 replicas are in sync and heard, and 2"]),
            (
                "the other was not heard",
                Status { peers: vec![late.clone()], ..slave.clone() },
                &["1 replicas are in sync and heard, and 1"],
            ),
            ("a slave that catches up", not_in(&slave), &["it is not in sync, it is still"]),
            ("one that is to go", foreign(&not_in(&slave)), &["it belongs to the group no more"]),
            ("one that can", Status { is_self_counted: false, ..foreign(&not_in(&slave)) }, &[]),
            ("a slave by configuration for which nobody waits", by_configuration(&slave), &[]),
            ("one of a `min_in_sync` without meaning", by_configuration(&needs_two(&slave)), &[]),
            (
                "one that stays in the set",
                waits_for(AcknowledgedBy::All),
                &["by configuration nobody leaves the in-sync set, so messages wait"],
            ),
            (
                "one that does not know who else keeps up",
                waits_for(AcknowledgedBy::Quorum),
                &["a quorum acknowledges, and only the master knows"],
            ),
            (
                "one for which nobody waits yet",
                not_in(&waits_for(AcknowledgedBy::All)),
                &["it is not in sync, it is still"],
            ),
            (
                "one that does not hear its master",
                by_configuration(&Status { peers: vec![late], ..slave.clone() }),
                &["its master is not heard"],
            ),
        ];
        for (what, status, expected) in cases {
            let reasons = status.reasons_not_to_restart();
            let is_said =
                reasons.iter().zip(expected).all(|(said, wanted)| said.starts_with(wanted));
            assert!(reasons.len() == expected.len() && is_said, "{what}: {reasons:?}");
        }
    }
}
