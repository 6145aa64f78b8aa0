//! The replicas of a broker group, as one of them knows them.

use weirmq_remoting::body::{BrokerReplicasInfo, EpochEntryCache, HaRuntimeInfo, ReplicasInfo};
use weirmq_remoting::codes::RequestCode;

use super::Admin;
use crate::ClientError;

impl Admin {
    /// A master's slaves, or how a slave stands to its master (code 907).
    pub async fn ha_status(&self, broker_address: &str) -> Result<HaRuntimeInfo, ClientError> {
        let core = &self.client.core;
        let request = RequestCode::GetBrokerHaStatus;
        core.call(broker_address, request, |_| {}, b"").await?.success()?.body()
    }

    /// Who is in sync in the group called `broker` (code 1006).
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the one that is asked does not know the group.
    pub async fn in_sync_set(
        &self,
        broker_address: &str,
        broker: &str,
    ) -> Result<ReplicasInfo, ClientError> {
        let core = &self.client.core;
        let names = serde_json::json!([broker]).to_string();
        let request = RequestCode::ControllerGetSyncStateData;
        let reply = core.call(broker_address, request, |_| {}, names.as_bytes()).await?;
        let mut groups: BrokerReplicasInfo = reply.success()?.body()?;
        groups.replicas_info_table.remove(broker).ok_or_else(|| {
            ClientError::NotFound(format!("{broker_address} does not know the group {broker}"))
        })
    }

    /// Which masters wrote which part of a broker's log (code 1007).
    pub async fn epochs(&self, broker_address: &str) -> Result<EpochEntryCache, ClientError> {
        let core = &self.client.core;
        let request = RequestCode::GetBrokerEpochCache;
        core.call(broker_address, request, |_| {}, b"").await?.success()?.body()
    }
}
