//! What a broker is in its group, and what clients are told of that.

use std::sync::Arc;
use std::time::Duration;

use weirmq_authority::ReplicaId;
use weirmq_remoting::ResponseCode;
use weirmq_store::StoreError;

use super::Broker;
use crate::config::Flush;
use crate::replication::{HandOverError, RoleStatus};
use crate::request::{Refusal, WaitsFor};
use crate::state::StateError;

impl Broker {
    /// Up to where messages and changes may be acknowledged: what is visible and, of a replica, what
    /// its group has.
    pub(crate) fn acknowledged(&self) -> u64 {
        let visible = self.store.watermarks().visible();
        match &self.replication {
            None => visible,
            Some(replication) => visible.min(replication.acknowledged(self.store.clock().uptime())),
        }
    }

    /// Refuses what only a master does. By the clock too: a process that was stopped acts on requests before
    /// its replica learns that others may have elected another one.
    pub(crate) fn check_master(&self) -> Result<(), Refusal> {
        let Some(replication) = &self.replication else { return Ok(()) };
        if replication.refusal().is_none() && self.store.is_open_for_appends() {
            return Ok(());
        }
        Err(self.refusal(StoreError::NotMaster))
    }

    /// Whether another replica is the master, or nobody is known to be.
    pub(crate) fn is_slave(&self) -> bool {
        self.replication
            .as_ref()
            .is_some_and(|replication| !matches!(replication.role(), RoleStatus::Master { .. }))
    }

    /// Whether this is a slave, and clients that want the master may have come here all the same: by the
    /// address that leads to whoever is master, before it led to another one. Their connections would stay.
    pub(crate) fn is_taken_for_master(&self) -> bool {
        let config = self.config();
        let kubernetes = config.replication.kubernetes.as_ref();
        kubernetes.is_some_and(|section| section.master_address.is_some()) && self.is_slave()
    }

    /// Whether messages may have been shown elsewhere that this replica does not show: it is a slave, or
    /// a master that does not serve yet.
    pub(crate) fn may_lack_shown(&self) -> bool {
        self.replication.as_ref().is_some_and(|replication| {
            !matches!(replication.role(), RoleStatus::Master { may_append: true })
        })
    }

    /// Refuses to speak of what is in the queues while this replica does not know what of it is
    /// confirmed: an unknown end must not be taken for 0, to which a consumer would go back.
    pub(crate) fn check_visible(&self) -> Result<(), Refusal> {
        let is_known = self.replication.as_ref().is_none_or(|replication| {
            replication.is_state_known()
                && (self.store.watermarks().visible() > 0 || self.store.max_offset() == 0)
        });
        if is_known {
            return Ok(());
        }
        let remark = "this replica does not know yet what of its log is confirmed; ask again";
        Err(Refusal::new(ResponseCode::SystemBusy, remark))
    }

    /// Refuses what only the master of this slave can say, while that is away.
    pub(crate) fn check_reaches_master(&self) -> Result<(), Refusal> {
        if self.replication.as_ref().is_some_and(|it| it.status().reaches_master()) {
            return Ok(());
        }
        let remark =
            "this slave no longer has what is asked for, and does not reach its master; ask again";
        Err(Refusal::new(ResponseCode::SystemBusy, remark))
    }

    /// Refuses to say what groups have committed before this master's slaves had the time to say what was
    /// committed at them.
    pub(crate) fn check_offsets_heard(&self) -> Result<(), Refusal> {
        let now = self.store.clock().uptime();
        if self.replication.as_ref().is_none_or(|replication| replication.has_heard_offsets(now)) {
            return Ok(());
        }
        let remark = "slaves have not said yet what was committed at them; ask again";
        let refusal = Refusal::new(ResponseCode::SystemBusy, remark);
        Err(Refusal { waits_for: Some(WaitsFor::Slaves), ..refusal })
    }

    /// The id under which clients find this broker, 0 for a master; `None` while it is not known
    /// who is.
    pub(crate) fn registration_id(&self) -> Option<i64> {
        let Some(replication) = &self.replication else { return Some(0) };
        match replication.role() {
            RoleStatus::Master { .. } => Some(0),
            RoleStatus::Slave { .. } => Some(self.own_slave_id()),
            RoleStatus::Waiting => None,
        }
    }

    /// Grows with each change of the group's master; 0 for a broker that is alone.
    pub(crate) fn epoch(&self) -> u64 {
        self.replication.as_ref().map_or(0, |replication| replication.epoch())
    }

    pub(crate) fn own_slave_id(&self) -> i64 {
        let config = self.config();
        config.slave_id(u32::try_from(config.broker_id).unwrap_or(u32::MAX))
    }

    /// Hands the office of the master over, after the log was told what this one knows.
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        heir: Option<ReplicaId>,
    ) -> Result<(), HandOverError> {
        let Some(replication) = &self.replication else { return Err(HandOverError::NotMaster) };
        let worker = self.clone();
        let log = move || {
            // Also what was committed here while this was a slave, which the log is told of only now and then:
            // the heir does not ask the master before.
            if !worker.is_slave() {
                let own = worker.state.offsets.at_slave(|at_slave| at_slave.not_logged());
                worker.take_slave_offsets(&own);
            }
            worker.state.patiently(|| worker.state.log_offsets())
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(log).await {
            tracing::warn!(%error, "consumer offsets not logged before the hand-over");
        }
        let patience = Duration::from_millis(self.config().replication.lease_ms) * 2;
        replication.hand_over(heir, patience).await
    }

    /// What a client is told of this error of an append.
    pub(crate) fn refusal(&self, error: StoreError) -> Refusal {
        self.refusal_of(1, error)
    }

    /// What the clients of so many requests are told of this error of the append that they shared.
    pub(crate) fn refusal_of(&self, requests: usize, error: StoreError) -> Refusal {
        let Some(replication) = &self.replication else { return error.into() };
        if !matches!(error, StoreError::NotMaster) {
            return error.into();
        }
        replication.count_fenced(requests);
        replication.refusal().unwrap_or_else(|| error.into())
    }

    /// What a client is told of this error of a change.
    pub(crate) fn state_refusal(&self, error: StateError) -> Refusal {
        match error {
            StateError::Store(error) => self.refusal(error),
            error => error.into(),
        }
    }

    /// The code and the remark for what waited in vain for `position`.
    pub(crate) fn late_answer(&self, position: u64) -> (ResponseCode, &'static str) {
        let is_flushed = self.store.watermarks().flushed() >= position
            || self.config().store.flush == Flush::Async;
        let Some(replication) = self.replication.as_ref().filter(|_| is_flushed) else {
            return (
                ResponseCode::FlushDiskTimeout,
                "it was written, but the disk has not confirmed it in time; whether it survives a \
                 power failure is unknown",
            );
        };
        let is_reached = replication.status().peers.iter().any(|peer| peer.is_connected);
        let code = match is_reached {
            true => ResponseCode::FlushSlaveTimeout,
            false => ResponseCode::SlaveNotAvailable,
        };
        (
            code,
            "it was written here, but not all replicas in sync have confirmed it in time; whether \
             it survives the loss of this one is unknown",
        )
    }

    /// Where other replicas reach this one; `None` for a broker that is alone.
    pub(crate) fn replication_address(&self) -> Option<String> {
        self.replication.as_ref()?;
        let address = self.advertised_address();
        let (host, port) = address.rsplit_once(':')?;
        Some(format!("{host}:{}", port.parse::<u16>().ok()?.checked_add(1)?))
    }
}
