//! Code 222: a group is to go on from another time while its consumers run.
//!
//! The broker works the offsets out and tells every consumer (code 220); they put themselves there
//! and commit. Source: `Broker2Client.resetOffset`.

use weirmq_remoting::body::{Body as _, MessageQueue, ResetOffsetBody};
use weirmq_remoting::command::{Command, HeaderWriter, SerializeType};
use weirmq_remoting::header::{Header as _, ResetOffsetHeader};
use weirmq_remoting::{RequestCode, ResponseCode};
use weirmq_store::Boundary;

use crate::request::{Context, Refusal, fields, succeed_with_body};

/// The timestamp that means "behind the newest message".
const LATEST: i64 = -1;

pub(in crate::request) fn reset(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: ResetOffsetHeader<'_> = fields(request)?;
    let (name, group) = (header.topic.to_cow(), header.group.to_cow());
    let broker = context.broker;
    let Some(topic) = broker.state.topics.get(&name) else {
        let remark = format!("topic[{name}] not exist, its offsets cannot be reset");
        return Err(Refusal::new(ResponseCode::TopicNotExist, remark));
    };
    let members = broker.clients.consumer_group(&group).map(|group| group.members);
    let Some(members) = members.filter(|members| !members.is_empty()) else {
        let remark = format!(
            "Consumer not online, so can not reset offset. Group: {group} Topic: {name} Timestamp: {}",
            header.timestamp
        );
        return Err(Refusal::new(ResponseCode::ConsumerNotOnline, remark));
    };
    let mut body = ResetOffsetBody::default();
    for queue in 0..topic.queues() as i32 {
        let found = match header.timestamp {
            LATEST => broker.store.queue_range(&name, queue).map(|range| range.max),
            time => broker.store.offset_by_time(&name, queue, time, Boundary::Lower)?,
        };
        let wanted = found.map_or(0, |offset| offset as i64);
        let committed = broker.state.offsets.get(&group, &name, queue);
        // Without force a group is only put back, never over messages it has not seen.
        let offset = match committed {
            Some(committed) if !header.is_force => wanted.min(committed),
            _ => wanted,
        };
        let queue = MessageQueue::new(name.as_ref(), broker.config().name.clone(), queue);
        body.offset_table.insert(queue, offset);
    }
    let encoded = body.encode();
    let code = RequestCode::ResetConsumerClientOffset.number();
    for member in members.values() {
        let fields = |writer: &mut HeaderWriter<'_>| header.encode(writer);
        let told = member.connection.send_one_way(SerializeType::Json, code, fields, &encoded);
        if told.is_err() {
            tracing::debug!(client = member.client_id, "consumer left before its reset");
        }
    }
    succeed_with_body(out, &request.head, &encoded);
    Ok(())
}
