//! Which requests a name server serves. The match has no wildcard arm, so that a new request code
//! has to be decided on here before anything compiles.

use weirmq_remoting::RequestCode;

/// A request that this role serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    RegisterBroker,
    UnregisterBroker,
    QueryDataVersion,
    BrokerHeartbeat,
    GetBrokerMemberGroup,
    GetRoute,
    GetClusterInfo,
    GetTopicList,
    GetTopicsByCluster,
    GetSystemTopicList,
    GetUnitTopicList,
    GetHasUnitSubTopicList,
    GetHasUnitSubUnUnitTopicList,
    DeleteTopic,
    RegisterTopic,
    WipeWritePermission,
    AddWritePermission,
    PutKv,
    GetKv,
    DeleteKv,
    ListKv,
    UpdateConfig,
    GetConfig,
}

/// Says what to do with `code`, or who serves it instead.
pub(crate) fn authorise(code: RequestCode) -> Result<Served, &'static str> {
    use RequestCode as Code;
    const BROKER: &str = "brokers serve it";
    const CLIENT: &str = "clients serve it";
    const CONTROLLER: &str = "WeirMQ has no controller";
    Ok(match code {
        Code::RegisterBroker => Served::RegisterBroker,
        Code::UnregisterBroker => Served::UnregisterBroker,
        Code::QueryDataVersion => Served::QueryDataVersion,
        Code::BrokerHeartbeat => Served::BrokerHeartbeat,
        Code::GetBrokerMemberGroup => Served::GetBrokerMemberGroup,
        Code::GetRouteInfoByTopic => Served::GetRoute,
        Code::GetBrokerClusterInfo => Served::GetClusterInfo,
        Code::GetAllTopicListFromNameServer => Served::GetTopicList,
        Code::GetTopicsByCluster => Served::GetTopicsByCluster,
        Code::GetSystemTopicListFromNameServer => Served::GetSystemTopicList,
        Code::GetUnitTopicList => Served::GetUnitTopicList,
        Code::GetHasUnitSubTopicList => Served::GetHasUnitSubTopicList,
        Code::GetHasUnitSubUnUnitTopicList => Served::GetHasUnitSubUnUnitTopicList,
        Code::DeleteTopicInNameServer => Served::DeleteTopic,
        Code::RegisterTopicInNameServer => Served::RegisterTopic,
        Code::WipeWritePermissionOfBroker => Served::WipeWritePermission,
        Code::AddWritePermissionOfBroker => Served::AddWritePermission,
        Code::PutKvConfig => Served::PutKv,
        Code::GetKvConfig => Served::GetKv,
        Code::DeleteKvConfig => Served::DeleteKv,
        Code::GetKvListByNamespace => Served::ListKv,
        Code::UpdateNameServerConfig => Served::UpdateConfig,
        Code::GetNameServerConfig => Served::GetConfig,
        Code::CheckTransactionState
        | Code::NotifyConsumerIdsChanged
        | Code::ResetConsumerClientOffset
        | Code::GetConsumerStatusFromClient
        | Code::PushReplyMessageToClient => return Err(CLIENT),
        Code::ControllerAlterSyncStateSet
        | Code::ControllerElectMaster
        | Code::ControllerRegisterBroker
        | Code::ControllerGetReplicaInfo
        | Code::ControllerGetMetadataInfo
        | Code::ControllerGetSyncStateData
        | Code::UpdateControllerConfig
        | Code::GetControllerConfig
        | Code::CleanBrokerData
        | Code::ControllerGetNextBrokerId
        | Code::ControllerApplyBrokerId => return Err(CONTROLLER),
        Code::SendMessage
        | Code::PullMessage
        | Code::QueryMessage
        | Code::QueryBrokerOffset
        | Code::QueryConsumerOffset
        | Code::UpdateConsumerOffset
        | Code::UpdateAndCreateTopic
        | Code::UpdateAndCreateTopicList
        | Code::GetAllTopicConfig
        | Code::UpdateBrokerConfig
        | Code::GetBrokerConfig
        | Code::GetBrokerRuntimeInfo
        | Code::SearchOffsetByTimestamp
        | Code::GetMaxOffset
        | Code::GetMinOffset
        | Code::GetEarliestMessageStoreTime
        | Code::ViewMessageById
        | Code::HeartBeat
        | Code::UnregisterClient
        | Code::ConsumerSendMessageBack
        | Code::EndTransaction
        | Code::GetConsumerListByGroup
        | Code::LockBatchMessageQueue
        | Code::UnlockBatchMessageQueue
        | Code::GetAllConsumerOffset
        | Code::GetAllDelayOffset
        | Code::CheckClientConfig
        | Code::GetTimerCheckPoint
        | Code::GetTimerMetrics
        | Code::UpdateAndCreateSubscriptionGroup
        | Code::GetAllSubscriptionGroupConfig
        | Code::GetTopicStatsInfo
        | Code::GetConsumerConnectionList
        | Code::GetProducerConnectionList
        | Code::DeleteSubscriptionGroup
        | Code::GetConsumeStats
        | Code::DeleteTopicInBroker
        | Code::InvokeBrokerToResetOffset
        | Code::InvokeBrokerToGetConsumerStatus
        | Code::UpdateAndCreateSubscriptionGroupList
        | Code::QueryTopicConsumeByWho
        | Code::QueryConsumeTimeSpan
        | Code::GetSystemTopicListFromBroker
        | Code::CleanExpiredConsumeQueue
        | Code::GetConsumerRunningInfo
        | Code::QueryCorrectionOffset
        | Code::ConsumeMessageDirectly
        | Code::SendMessageV2
        | Code::CloneGroupOffset
        | Code::ViewBrokerStatsData
        | Code::CleanUnusedTopic
        | Code::GetBrokerConsumeStats
        | Code::SendBatchMessage
        | Code::QueryConsumeQueue
        | Code::ResumeCheckHalfMessage
        | Code::SendReplyMessage
        | Code::SendReplyMessageV2
        | Code::GetAllProducerInfo
        | Code::DeleteExpiredCommitLog
        | Code::QueryTopicsByConsumer
        | Code::QuerySubscriptionByConsumer
        | Code::GetTopicConfig
        | Code::GetSubscriptionGroupConfig
        | Code::UpdateAndGetGroupForbidden
        | Code::CheckRocksdbCqWriteProgress
        | Code::ExportRocksdbConfigToJson
        | Code::LitePullMessage
        | Code::RecallMessage
        | Code::QueryAssignment
        | Code::SetMessageRequestMode
        | Code::GetAllMessageRequestMode
        | Code::UpdateAndCreateStaticTopic
        | Code::AddBroker
        | Code::RemoveBroker
        | Code::NotifyMinBrokerIdChange
        | Code::ExchangeBrokerHaInfo
        | Code::GetBrokerHaStatus
        | Code::ResetMasterFlushOffset
        | Code::GetBrokerEpochCache
        | Code::NotifyBrokerRoleChanged
        | Code::UpdateColdDataFlowCtrConfig
        | Code::RemoveColdDataFlowCtrConfig
        | Code::GetColdDataFlowCtrInfo
        | Code::SetCommitLogReadMode
        | Code::AuthCreateUser
        | Code::AuthUpdateUser
        | Code::AuthDeleteUser
        | Code::AuthGetUser
        | Code::AuthListUser
        | Code::AuthCreateAcl
        | Code::AuthUpdateAcl
        | Code::AuthDeleteAcl
        | Code::AuthGetAcl
        | Code::AuthListAcl
        | Code::PopMessage
        | Code::AckMessage
        | Code::PeekMessage
        | Code::ChangeMessageInvisibleTime
        | Code::Notification
        | Code::PollingInfo
        | Code::PopRollback
        | Code::BatchAckMessage => return Err(BROKER),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_others_is_refused_and_says_whose_it_is() {
        assert_eq!(authorise(RequestCode::GetRouteInfoByTopic), Ok(Served::GetRoute));
        assert_eq!(authorise(RequestCode::SendMessageV2), Err("brokers serve it"));
        assert_eq!(authorise(RequestCode::CheckTransactionState), Err("clients serve it"));
        let served = RequestCode::ALL.iter().filter(|code| authorise(**code).is_ok());
        assert_eq!(served.count(), 23);
    }
}
