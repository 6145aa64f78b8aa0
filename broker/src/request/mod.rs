//! One file per request family: decode, act, encode. Nothing here has state of its own.

pub(crate) mod admin;
pub(crate) mod blocking;
mod connections;
mod heartbeat;
mod lock;
mod offset;
pub(crate) mod pull;
mod query;
mod relay;
pub(crate) mod send;
mod send_back;

use std::sync::Arc;
use std::time::Instant;

use weirmq_remoting::body::BodyError;
use weirmq_remoting::command::{Command, Head, HeaderWriter, response};
use weirmq_remoting::header::{Header, HeaderError};
use weirmq_remoting::net::Connection;
use weirmq_remoting::resource_name::NameError;
use weirmq_remoting::{Code, RequestCode, ResponseCode};
use weirmq_store::StoreError;

use crate::Broker;
use crate::acknowledgement::Then;
use crate::authorisation::{Permit, permit};
use crate::state::StateError;

/// Who asks whom.
pub(crate) struct Context<'a> {
    pub broker: &'a Arc<Broker>,
    pub connection: &'a Connection,
    /// The version of the topic table before the first request of this read was tried for the first time.
    pub topics_before: i64,
}

/// An answer that is not a success: the code, and what happened to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: ResponseCode,
    pub remark: String,
    /// Nothing was done yet, and the same may be tried again.
    pub waits_for: Option<WaitsFor>,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// The disk, which does not keep up.
    Disk,
    /// Slaves, which know more than their new master. It waits for a while only.
    Slaves,
}

impl Refusal {
    pub(crate) fn new(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into(), waits_for: None }
    }
}

impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Self::new(ResponseCode::SystemError, error.to_string())
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::new(ResponseCode::SystemError, error.to_string())
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::new(ResponseCode::InvalidParameter, error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Full { .. } | StoreError::Closed | StoreError::NotMaster => {
                ResponseCode::ServiceNotAvailable
            }
            StoreError::Busy { .. } => ResponseCode::SystemBusy,
            StoreError::TooLarge { .. } => ResponseCode::MessageIllegal,
            StoreError::NotFlushed { .. } => ResponseCode::FlushDiskTimeout,
            StoreError::Poisoned { .. } => ResponseCode::ServiceNotAvailable,
            // Another broker, or this one when somebody has closed a connection, has one.
            error if error.lacks_descriptors() => ResponseCode::ServiceNotAvailable,
            StoreError::Config { .. }
            | StoreError::InUse { .. }
            | StoreError::Io { .. }
            | StoreError::NewerFormat { .. }
            | StoreError::NoContinuation { .. }
            | StoreError::NoRecord { .. }
            | StoreError::OtherOwner { .. }
            | StoreError::OtherStore { .. }
            | StoreError::Unreadable { .. }
            | StoreError::Damaged { .. } => ResponseCode::SystemError,
        };
        let waits_for = matches!(error, StoreError::Busy { .. }).then_some(WaitsFor::Disk);
        Self { waits_for, ..Self::new(code, error.to_string()) }
    }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Store(error) => error.into(),
            error => Self::new(ResponseCode::SystemError, error.to_string()),
        }
    }
}

/// Reads the typed fields of a request.
pub(crate) fn fields<'a, H: Header<'a>>(request: &Command<'a>) -> Result<H, Refusal> {
    Ok(H::decode(&request.ext)?)
}

/// Answers with success, these fields and this body.
pub(crate) fn succeed<'a>(out: &mut Vec<u8>, head: &Head, fields: &impl Header<'a>, body: &[u8]) {
    let mut writer = response(out, head, ResponseCode::Success, None);
    fields.encode(&mut writer);
    writer.finish(body);
}

/// Answers with success and a body.
pub(crate) fn succeed_with_body(out: &mut Vec<u8>, head: &Head, body: &[u8]) {
    response(out, head, ResponseCode::Success, None).finish(body);
}

impl Context<'_> {
    /// Answers a request that is no send, unless it is refused; see [`Context::refuse`].
    pub(crate) fn answer(&self, request: &Command<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match Code::<RequestCode>::from(request.head.code) {
            Code::Known(code) => match permit(code) {
                Permit::Allowed if blocking::waits_for_the_disk(code) => {
                    self.check_role(code)?;
                    self.answer_elsewhere(code, request)
                }
                Permit::Allowed => self.answer_here(code, request, out),
                Permit::Unsupported(why) => Err(unsupported(&request.head, why)),
            },
            Code::Unknown(_) => Err(unsupported(&request.head, "nobody knows it")),
        }
    }

    fn answer_here(
        &self,
        code: RequestCode,
        request: &Command<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let before = out.len();
        let outcome = self.act(code, request, out);
        let outcome = outcome.and_then(|()| self.check_length(out.len() - before));
        if outcome.is_err() || request.head.is_one_way() {
            out.truncate(before);
        }
        outcome
    }

    /// Refuses an answer that its asker could not read: it would close the connection, not knowing why.
    fn check_length(&self, bytes: usize) -> Result<(), Refusal> {
        let limit = self.broker.config().limits.frame_bytes_max;
        if bytes <= limit {
            return Ok(());
        }
        let remark = format!(
            "the answer takes {bytes} bytes, a frame at most {limit}; ask for it page by page, with \
             topicSeq and maxTopicNum or groupSeq and maxGroupNum, where the request knows them"
        );
        Err(Refusal::new(ResponseCode::SystemError, remark))
    }

    /// Tells the peer why a request was refused.
    pub(crate) fn refuse(&self, head: &Head, refusal: &Refusal, out: &mut Vec<u8>) {
        self.broker.metrics.refused(head.code, refusal.code);
        if !head.is_one_way() && !send_back::is_any_answer_a_success(head) {
            response(out, head, refusal.code, Some(&refusal.remark)).finish(b"");
        }
    }

    /// Answers with success once `position` is visible, which may be now.
    pub(crate) fn succeed_at(
        &self,
        position: Option<u64>,
        out: &mut Vec<u8>,
        head: &Head,
        write: impl FnOnce(&mut HeaderWriter<'_>),
        body: &[u8],
    ) {
        let reply = |out: &mut Vec<u8>| {
            let mut writer = response(out, head, ResponseCode::Success, None);
            write(&mut writer);
            writer.finish(body);
        };
        let Some(position) = position.filter(|at| *at > self.broker.acknowledged()) else {
            reply(out);
            return;
        };
        if head.is_one_way() {
            return;
        }
        let mut in_time = Vec::new();
        reply(&mut in_time);
        let connection = self.connection.clone();
        let makes_topic = self.broker.topics_version() != self.topics_before;
        let is_late_told = !send_back::is_any_answer_a_success(head);
        let (reply, requests) = (in_time, 1);
        let then = Then::Answer { connection, reply, requests, makes_topic, is_late_told };
        self.broker.wait(position, Instant::now(), then);
    }

    /// Refuses what this replica cannot do or does not know yet.
    fn check_role(&self, code: RequestCode) -> Result<(), Refusal> {
        if speaks_of_queues(code) {
            self.broker.check_visible()?;
        }
        if is_change(code) {
            self.broker.check_master()?;
        }
        Ok(())
    }

    fn act(
        &self,
        code: RequestCode,
        request: &Command<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        use RequestCode as C;
        self.check_role(code)?;
        match code {
            C::PullMessage | C::LitePullMessage => pull::pull(self, request, out),
            C::QueryMessage => query::by_key(self, request, out),
            C::ViewMessageById => query::by_offset(self, request, out),
            C::QueryConsumerOffset => offset::query(self, request, out),
            C::UpdateConsumerOffset => offset::update(self, request, out),
            C::SearchOffsetByTimestamp => offset::search(self, request, out),
            C::GetMaxOffset => offset::max(self, request, out),
            C::GetMinOffset => offset::min(self, request, out),
            C::GetEarliestMessageStoreTime => offset::earliest_store_time(self, request, out),
            C::HeartBeat => heartbeat::heartbeat(self, request, out),
            C::UnregisterClient => heartbeat::unregister(self, request, out),
            C::CheckClientConfig => heartbeat::check_client_config(self, request, out),
            C::GetConsumerListByGroup => heartbeat::consumer_list(self, request, out),
            C::ConsumerSendMessageBack => send_back::send_back(self, request, out),
            C::LockBatchMessageQueue => lock::lock(self, request, out),
            C::UnlockBatchMessageQueue => lock::unlock(self, request, out),
            C::GetConsumerConnectionList => connections::consumers(self, request, out),
            C::GetProducerConnectionList => connections::producers(self, request, out),
            C::GetAllProducerInfo => connections::all_producers(self, request, out),
            C::UpdateAndCreateTopic => admin::topic::create(self, request, out),
            C::DeleteTopicInBroker => admin::topic::delete(self, request, out),
            C::GetAllTopicConfig => admin::topic::all(self, request, out),
            C::GetTopicConfig => admin::topic::one(self, request, out),
            C::GetTopicStatsInfo => admin::topic::stats(self, request, out),
            C::GetSystemTopicListFromBroker => admin::topic::system_list(self, request, out),
            C::QueryTopicConsumeByWho => admin::topic::consumed_by(self, request, out),
            C::UpdateAndCreateSubscriptionGroup => admin::group::create(self, request, out),
            C::DeleteSubscriptionGroup => admin::group::delete(self, request, out),
            C::GetAllSubscriptionGroupConfig => admin::group::all(self, request, out),
            C::GetSubscriptionGroupConfig => admin::group::one(self, request, out),
            C::GetConsumeStats => admin::group::consume_stats(self, request, out),
            C::QueryTopicsByConsumer => admin::group::topics(self, request, out),
            C::QuerySubscriptionByConsumer => admin::group::subscription(self, request, out),
            C::GetAllConsumerOffset => offset::all(self, request, out),
            C::InvokeBrokerToResetOffset => admin::reset::reset(self, request, out),
            C::GetConsumerRunningInfo => relay::running_info(self, request),
            C::ConsumeMessageDirectly => relay::consume_directly(self, request),
            C::GetBrokerRuntimeInfo => admin::runtime::info(self, request, out),
            C::GetBrokerConfig => admin::config::show(self, request, out),
            C::UpdateBrokerConfig => admin::config::change(self, request),
            C::ControllerElectMaster => admin::switch::elect(self, request),
            C::GetBrokerHaStatus => admin::replicas::ha_status(self, request, out),
            C::ControllerGetMetadataInfo => admin::replicas::controller(self, request, out),
            C::ControllerGetSyncStateData => admin::replicas::in_sync_set(self, request, out),
            C::GetBrokerEpochCache => admin::replicas::epochs(self, request, out),
            C::CleanExpiredConsumeQueue => admin::clean::expired_queues(request, out),
            C::CleanUnusedTopic => admin::clean::unused_topics(self, request, out),
            C::DeleteExpiredCommitLog => admin::clean::expired_log(self, request, out),
            // The table of authorisation says which codes come here.
            other => Err(unsupported(&request.head, other.name())),
        }
    }
}

/// Whether the answer says where queues begin or end, or what groups have consumed of them.
fn speaks_of_queues(code: RequestCode) -> bool {
    use RequestCode as C;
    matches!(
        code,
        C::PullMessage
            | C::LitePullMessage
            | C::QueryConsumerOffset
            | C::UpdateConsumerOffset
            | C::SearchOffsetByTimestamp
            | C::GetMaxOffset
            | C::GetMinOffset
            | C::GetEarliestMessageStoreTime
            | C::GetTopicStatsInfo
            | C::GetConsumeStats
            | C::InvokeBrokerToResetOffset
    )
}

/// Whether the request is for a change that goes into the log. A slave refuses these also where there seems to be
/// nothing to do, as with a topic that it does not know: the master may know better.
fn is_change(code: RequestCode) -> bool {
    use RequestCode as C;
    matches!(
        code,
        C::ConsumerSendMessageBack
            | C::LockBatchMessageQueue
            | C::UnlockBatchMessageQueue
            | C::UpdateAndCreateTopic
            | C::DeleteTopicInBroker
            | C::UpdateAndCreateSubscriptionGroup
            | C::DeleteSubscriptionGroup
    )
}

fn unsupported(head: &Head, why: &str) -> Refusal {
    let remark = format!("request code {} is not supported by this broker: {why}", head.code);
    Refusal::new(ResponseCode::RequestCodeNotSupported, remark)
}
