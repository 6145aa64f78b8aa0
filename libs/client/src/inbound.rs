//! The groups of a client, and what brokers ask of them on the client's own connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::task_tracker::TaskTrackerToken;
use weirmq_remoting::body::{
    Body as _, ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel,
    MessageQueue, ProducerData, ResetOffsetBody, SubscriptionData,
};
use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::command::{self, Command};
use weirmq_remoting::header::{ConsumerGroupHeader, Header as _};
use weirmq_remoting::net::{Connection, Requests, Session};

use crate::ClientError;

/// Resets that wait to be carried out; as many as a topic may have queues.
const RESETS_MAX: usize = 65_536;

/// What brokers know of this client.
#[derive(Default)]
pub(crate) struct Groups {
    table: Mutex<Table>,
    /// Somebody joined or left, or a subscription changed: brokers should hear of it.
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Table {
    producers: Vec<String>,
    consumers: HashMap<String, Arc<ConsumerMember>>,
}

/// A push consumer as its group sees it.
pub(crate) struct ConsumerMember {
    pub(crate) group: String,
    pub(crate) model: MessageModel,
    pub(crate) from_where: ConsumeFromWhere,
    /// Topic → subscription.
    pub(crate) subscriptions: Mutex<BTreeMap<String, SubscriptionData>>,
    /// The members of the group or the subscriptions changed.
    pub(crate) rebalance: Notify,
    /// Where an administrator wants queues to go on; the newest wish wins.
    pub(crate) resets: Mutex<BTreeMap<MessageQueue, u64>>,
}

impl Groups {
    pub(crate) fn add_producer(&self, group: &str) -> Result<(), ClientError> {
        let mut table = self.table.lock();
        if table.producers.iter().any(|known| known == group) {
            return Err(ClientError::Config(format!(
                "this client has a producer of group {group} already; share it or choose another group"
            )));
        }
        table.producers.push(group.to_owned());
        drop(table);
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn add_consumer(&self, member: Arc<ConsumerMember>) -> Result<(), ClientError> {
        let mut table = self.table.lock();
        if table.consumers.contains_key(&member.group) {
            return Err(ClientError::Config(format!(
                "this client has a consumer of group {} already; a second member needs a client of its own",
                member.group
            )));
        }
        table.consumers.insert(member.group.clone(), member);
        Ok(())
    }

    pub(crate) fn remove_producer(&self, group: &str) {
        self.table.lock().producers.retain(|known| known != group);
    }

    pub(crate) fn remove_consumer(&self, group: &str) {
        self.table.lock().consumers.remove(group);
    }

    /// All producer groups, then all consumer groups.
    pub(crate) fn names(&self) -> (Vec<String>, Vec<String>) {
        let table = self.table.lock();
        (table.producers.clone(), table.consumers.keys().cloned().collect())
    }

    pub(crate) fn heartbeat(&self, client_id: &str) -> HeartbeatData {
        let table = self.table.lock();
        let producer = |group: &String| ProducerData { group_name: group.clone() };
        HeartbeatData {
            client_id: client_id.to_owned(),
            producer_data_set: table.producers.iter().map(producer).collect(),
            consumer_data_set: table.consumers.values().map(|member| member.data()).collect(),
            ..HeartbeatData::default()
        }
    }

    fn consumer(&self, group: &str) -> Option<Arc<ConsumerMember>> {
        self.table.lock().consumers.get(group).cloned()
    }
}

impl ConsumerMember {
    fn data(&self) -> ConsumerData {
        ConsumerData {
            group_name: self.group.clone(),
            consume_type: Some(ConsumeType::Passively),
            message_model: Some(self.model),
            consume_from_where: Some(self.from_where),
            subscription_data_set: self.subscriptions.lock().values().cloned().collect(),
            unit_mode: false,
        }
    }
}

/// Serves one connection's requests from the other side.
pub(crate) struct Inbound {
    connection: Connection,
    groups: Arc<Groups>,
    /// Dropped when the connection's task ends.
    _task: TaskTrackerToken,
}

impl Inbound {
    pub(crate) fn new(connection: Connection, groups: Arc<Groups>, task: TaskTrackerToken) -> Self {
        Self { connection, groups, _task: task }
    }

    fn serve(&self, request: &Command<'_>) -> Result<(), (ResponseCode, String)> {
        match Code::from(request.head.code) {
            Code::Known(RequestCode::NotifyConsumerIdsChanged) => {
                let header = ConsumerGroupHeader::decode(&request.ext)
                    .map_err(|error| (ResponseCode::InvalidParameter, error.to_string()))?;
                if let Some(member) = self.groups.consumer(&header.consumer_group.to_cow()) {
                    member.rebalance.notify_one();
                }
                Ok(())
            }
            Code::Known(RequestCode::ResetConsumerClientOffset) => self.reset_offsets(request),
            _ => {
                let remark =
                    format!("this client does not serve request code {}", request.head.code);
                Err((ResponseCode::RequestCodeNotSupported, remark))
            }
        }
    }

    fn reset_offsets(&self, request: &Command<'_>) -> Result<(), (ResponseCode, String)> {
        let group = request.ext.get("group").map(|group| group.to_cow()).unwrap_or_default();
        let body = ResetOffsetBody::decode(request.body)
            .map_err(|error| (ResponseCode::InvalidParameter, error.to_string()))?;
        if let Some(member) = self.groups.consumer(&group) {
            tracing::info!(%group, queues = body.offset_table.len(), "offsets are reset by the broker");
            let subscriptions = member.subscriptions.lock();
            let wanted = body.offset_table.into_iter();
            let wanted = wanted.filter(|(queue, _)| subscriptions.contains_key(&queue.topic));
            let wanted =
                wanted.filter_map(|(queue, offset)| Some((queue, u64::try_from(offset).ok()?)));
            let mut resets = member.resets.lock();
            for (queue, offset) in wanted {
                // Brokers tell each of their own queues, so wishes add up, but not without end.
                if resets.len() < RESETS_MAX || resets.contains_key(&queue) {
                    resets.insert(queue, offset);
                }
            }
            drop(resets);
            drop(subscriptions);
            member.rebalance.notify_one();
        }
        Ok(())
    }
}

impl Session for Inbound {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        while let Some(request) = requests.next(out) {
            let served = self.serve(&request);
            if request.head.is_one_way() {
                continue;
            }
            let (code, remark) = match served {
                Ok(()) => (ResponseCode::Success, None),
                Err((code, remark)) => (code, Some(remark)),
            };
            command::response(out, &request.head, code, remark.as_deref()).finish(b"");
        }
    }

    fn closed(&mut self) {
        tracing::debug!(peer = %self.connection.peer(), "connection ended");
    }
}
