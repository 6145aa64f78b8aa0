//! Who may ask what. One arm per request code and none for "the rest": a new code does not compile
//! before somebody has decided about it.

use weirmq_remoting::RequestCode;

/// What the table says about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Everybody may ask. Users and their rights come with authentication.
    Allowed,
    /// Nobody is answered, for this reason.
    Unsupported(&'static str),
}

const NAME_SERVER: Permit = Permit::Unsupported("ask a NameServer");
const TO_CLIENTS: Permit = Permit::Unsupported("brokers send it to clients");
const LATER: Permit = Permit::Unsupported("it is not implemented yet");
const CONTROLLER: Permit =
    Permit::Unsupported("WeirMQ has no controller, brokers elect by themselves");
const OTHER_STORE: Permit =
    Permit::Unsupported("it belongs to a storage engine that WeirMQ does not have");
const LEGACY: Permit = Permit::Unsupported("no client of the last ten years sends it");

/// The decision about one code.
pub(crate) fn permit(code: RequestCode) -> Permit {
    use RequestCode as C;
    match code {
        C::SendMessage
        | C::SendMessageV2
        | C::SendBatchMessage
        | C::PullMessage
        | C::LitePullMessage
        | C::QueryMessage
        | C::ViewMessageById
        | C::QueryConsumerOffset
        | C::UpdateConsumerOffset
        | C::SearchOffsetByTimestamp
        | C::GetMaxOffset
        | C::GetMinOffset
        | C::GetEarliestMessageStoreTime
        | C::HeartBeat
        | C::UnregisterClient
        | C::CheckClientConfig
        | C::GetConsumerListByGroup
        | C::ConsumerSendMessageBack
        | C::LockBatchMessageQueue
        | C::UnlockBatchMessageQueue
        | C::GetConsumerConnectionList
        | C::GetProducerConnectionList
        | C::GetAllProducerInfo
        | C::UpdateAndCreateTopic
        | C::DeleteTopicInBroker
        | C::GetAllTopicConfig
        | C::GetTopicConfig
        | C::GetTopicStatsInfo
        | C::GetSystemTopicListFromBroker
        | C::QueryTopicConsumeByWho
        | C::UpdateAndCreateSubscriptionGroup
        | C::DeleteSubscriptionGroup
        | C::GetAllSubscriptionGroupConfig
        | C::GetSubscriptionGroupConfig
        | C::GetConsumeStats
        | C::QueryTopicsByConsumer
        | C::QuerySubscriptionByConsumer
        | C::GetAllConsumerOffset
        | C::InvokeBrokerToResetOffset
        | C::GetConsumerRunningInfo
        | C::ConsumeMessageDirectly
        | C::GetBrokerRuntimeInfo
        | C::UpdateBrokerConfig
        | C::GetBrokerConfig
        | C::GetBrokerHaStatus
        | C::ControllerGetMetadataInfo
        | C::ControllerGetSyncStateData
        | C::GetBrokerEpochCache
        | C::CleanExpiredConsumeQueue
        | C::CleanUnusedTopic
        | C::ControllerElectMaster
        | C::DeleteExpiredCommitLog => Permit::Allowed,

        C::PutKvConfig
        | C::GetKvConfig
        | C::DeleteKvConfig
        | C::RegisterBroker
        | C::UnregisterBroker
        | C::GetRouteInfoByTopic
        | C::GetBrokerClusterInfo
        | C::WipeWritePermissionOfBroker
        | C::GetAllTopicListFromNameServer
        | C::DeleteTopicInNameServer
        | C::RegisterTopicInNameServer
        | C::GetKvListByNamespace
        | C::GetTopicsByCluster
        | C::GetSystemTopicListFromNameServer
        | C::GetUnitTopicList
        | C::GetHasUnitSubTopicList
        | C::GetHasUnitSubUnUnitTopicList
        | C::UpdateNameServerConfig
        | C::GetNameServerConfig
        | C::QueryDataVersion
        | C::AddWritePermissionOfBroker
        | C::GetBrokerMemberGroup
        | C::BrokerHeartbeat => NAME_SERVER,

        C::NotifyConsumerIdsChanged
        | C::CheckTransactionState
        | C::ResetConsumerClientOffset
        | C::GetConsumerStatusFromClient
        | C::PushReplyMessageToClient => TO_CLIENTS,

        C::QueryBrokerOffset => LEGACY,

        C::UpdateAndCreateTopicList
        | C::UpdateAndCreateSubscriptionGroupList
        | C::EndTransaction
        | C::GetAllDelayOffset
        | C::GetTimerCheckPoint
        | C::GetTimerMetrics
        | C::InvokeBrokerToGetConsumerStatus
        | C::QueryConsumeTimeSpan
        | C::QueryCorrectionOffset
        | C::CloneGroupOffset
        | C::ViewBrokerStatsData
        | C::GetBrokerConsumeStats
        | C::QueryConsumeQueue
        | C::ResumeCheckHalfMessage
        | C::SendReplyMessage
        | C::SendReplyMessageV2
        | C::UpdateAndGetGroupForbidden
        | C::RecallMessage
        | C::QueryAssignment
        | C::SetMessageRequestMode
        | C::GetAllMessageRequestMode
        | C::UpdateAndCreateStaticTopic
        | C::AddBroker
        | C::RemoveBroker
        | C::NotifyMinBrokerIdChange
        | C::ExchangeBrokerHaInfo
        | C::ResetMasterFlushOffset
        | C::UpdateColdDataFlowCtrConfig
        | C::RemoveColdDataFlowCtrConfig
        | C::GetColdDataFlowCtrInfo
        | C::SetCommitLogReadMode
        | C::AuthCreateUser
        | C::AuthUpdateUser
        | C::AuthDeleteUser
        | C::AuthGetUser
        | C::AuthListUser
        | C::AuthCreateAcl
        | C::AuthUpdateAcl
        | C::AuthDeleteAcl
        | C::AuthGetAcl
        | C::AuthListAcl
        | C::PopMessage
        | C::AckMessage
        | C::PeekMessage
        | C::ChangeMessageInvisibleTime
        | C::Notification
        | C::PollingInfo
        | C::PopRollback
        | C::BatchAckMessage => LATER,

        C::CheckRocksdbCqWriteProgress | C::ExportRocksdbConfigToJson => OTHER_STORE,

        C::ControllerAlterSyncStateSet
        | C::ControllerRegisterBroker
        | C::ControllerGetReplicaInfo
        | C::NotifyBrokerRoleChanged
        | C::UpdateControllerConfig
        | C::GetControllerConfig
        | C::CleanBrokerData
        | C::ControllerGetNextBrokerId
        | C::ControllerApplyBrokerId => CONTROLLER,
    }
}
