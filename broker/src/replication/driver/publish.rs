//! What other threads are told of the replica.

use std::time::Duration;

use weirmq_authority::{Member, Replication, Role};

use super::Driver;
use crate::replication::{PeerStatus, RoleStatus, Status};

/// The store is told that it takes appends for longer when that is at least so much.
const GATE_STEP: Duration = Duration::from_millis(250);

/// Where a quorum acknowledges, a member that has not had everything for this long is not in sync any more:
/// as long as one may be late where all of them acknowledge, with the default lease.
const BEHIND: Duration = Duration::from_secs(10);

impl Driver {
    /// Tells all other threads what this replica may do.
    pub(super) fn publish(&mut self) {
        let standing = self.replica.standing(self.now());
        let store = &self.broker.store;
        if standing.visible != self.published.visible
            && let Some(visible) = standing.visible
        {
            store.watermarks().confirm(visible);
        }
        // With each report the permission reaches a little further; the append lock is not taken
        // for that.
        let is_renewed = standing.until >= self.gate_until.saturating_add(GATE_STEP)
            || standing.until < self.gate_until;
        match standing.may_append {
            true if !self.published.may_append || is_renewed => {
                let is_for_ever = standing.until == Duration::MAX;
                store.open_for_appends((!is_for_ever).then_some(standing.until));
                self.gate_until = standing.until;
            }
            false if self.published.may_append => {
                store.close_for_appends();
            }
            true | false => {}
        }
        let is_other = standing.may_append != self.published.may_append;
        if standing.may_append && is_other {
            self.note_failover();
            // The machine has gone back to work.
            self.hand_over_failed();
        }
        let is_news = (standing.acknowledged, standing.visible)
            != (self.published.acknowledged, self.published.visible);
        self.published = standing;
        self.shared.set_acknowledged(standing.acknowledged, standing.acknowledged_until);
        if is_news {
            self.broker.flushed.notify_one();
        }
        if is_other {
            self.publish_status();
        }
    }

    /// Tells all other threads what this replica is. With each tick, and when that may have changed: not with
    /// each report, of which there are thousands a second.
    pub(super) fn publish_status(&self) {
        let (status, standing) = (self.status(), self.published);
        if let Some(complaint) = self.complaint() {
            self.shared.say(Err(complaint));
        } else if standing.may_append || self.leading.is_some() && status.is_short {
            self.shared.say(Ok(()));
        }
        self.shared.set_status(status);
    }

    /// What is wrong with the group, for somebody to mend.
    pub(super) fn complaint(&self) -> Option<String> {
        let complaint = self.replica.complaint(self.now());
        self.disagreement.clone().or(complaint.map(|complaint| complaint.to_string()))
    }

    /// Notes how long nobody was master, once for each time that this replica became it.
    pub(super) fn note_failover(&mut self) {
        if let Some((last_heard, is_planned)) = self.master_heard.take() {
            let gone = self.now().saturating_sub(last_heard);
            self.shared.counted.failovers.lock()[usize::from(is_planned)].count(gone);
            let gone = u64::try_from(gone.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(without_master_ms = gone, is_planned, "this replica takes messages");
        }
    }

    /// Whether this start of a replica is in the set, and where a quorum acknowledges, which nobody leaves for
    /// being late, whether it is connected and keeps up with this one.
    fn is_in_sync(&self, member: Member) -> bool {
        let is_member = self.replica.record().is_some_and(|record| record.in_sync.has(member));
        let replica = member.replica;
        if !self.settings.is_by_quorum() || member == self.replica.me() {
            return is_member;
        }
        let end = self.reports.get(&replica).map(|(report, _)| report.position.end);
        let lag = self.shared.peers.get(replica.0).zip(end);
        let lag = lag.and_then(|(peer, end)| peer.lag(end, self.position.end, self.now()));
        is_member && self.links.contains_key(&replica) && lag.is_some_and(|lag| lag < BEHIND)
    }

    fn status(&self) -> Status {
        let record = self.replica.record();
        let peers = self.reports.values().map(|(report, _)| PeerStatus {
            replica: report.from.replica.0,
            is_connected: self.links.contains_key(&report.from.replica),
            is_in_sync: self.is_in_sync(report.from),
            is_prompt: self.is_prompt(report.from.replica),
            end: report.position.end,
            flushed: report.position.flushed,
        });
        let members = record.map_or(0, |record| record.in_sync.len());
        let is_short =
            self.settings.replication == Replication::Sync && members < self.settings.min_in_sync;
        let in_sync_set = record.into_iter().flat_map(|record| record.in_sync.iter());
        let in_sync_set = in_sync_set.filter(|member| self.is_in_sync(*member));
        let in_sync_set: Vec<_> = in_sync_set.map(|member| member.replica.0).collect();
        let is_self_in_sync = self.is_in_sync(self.replica.me());
        Status {
            is_self_in_sync,
            is_self_counted: record.is_some_and(|record| record.is_electable(self.replica.me())),
            belongs: self.settings.group.contains(&self.replica.me().replica),
            is_handing_over: self.is_office_handed_over(),
            is_elected: !self.authority.is_by_configuration(),
            role: match self.replica.role() {
                Role::Waiting => RoleStatus::Waiting,
                Role::Follower { master, .. } => RoleStatus::Slave { master: master.replica.0 },
                Role::Master { .. } => RoleStatus::Master { may_append: self.published.may_append },
            },
            epoch: match self.replica.role() {
                Role::Waiting => self.epochs.last(),
                Role::Follower { epoch, .. } | Role::Master { epoch } => epoch,
            },
            replica: self.replica.me().replica.0,
            in_sync: in_sync_set.len(),
            in_sync_set,
            in_sync_version: record.map_or(0, |record| record.in_sync_version),
            is_short,
            min_in_sync: self.settings.min_in_sync,
            acknowledged_by: match self.settings.replication {
                Replication::Sync => Some(self.settings.acknowledged_by),
                Replication::Async => None,
            },
            peers: peers.collect(),
            others: self.others(),
        }
    }

    /// Whether the office of the master is being handed over, by this replica or by the word of the one that it
    /// follows.
    fn is_office_handed_over(&self) -> bool {
        match self.replica.role() {
            Role::Follower { master, .. } => {
                let report = self.reports.get(&master.replica).map(|(report, _)| report);
                report.is_some_and(|report| report.from == master && report.hands_over)
            }
            Role::Waiting | Role::Master { .. } => {
                self.leading.is_some() && self.handing_over.is_some()
            }
        }
    }

    /// The other replicas of the group, as far as they are known: one by configuration has no list.
    fn others(&self) -> Vec<u32> {
        let me = self.replica.me().replica;
        let (connected, group) = (self.links.keys(), self.settings.group.iter());
        let all: Vec<_> = match self.authority.is_by_configuration() {
            true => connected.copied().collect(),
            false => group.copied().collect(),
        };
        all.into_iter().filter(|replica| *replica != me).map(|replica| replica.0).collect()
    }
}
