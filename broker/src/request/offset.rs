//! Offsets of queues and of consumer groups: codes 14, 15, 29, 30, 31 and 32.

use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::Command;
use weirmq_remoting::header::{
    OffsetResponseHeader, QueryConsumerOffsetHeader, QueueHeader, SearchOffsetHeader,
    TimestampResponseHeader, UpdateConsumerOffsetHeader,
};
use weirmq_store::{Boundary, QueueRange};

use super::{Context, Refusal, WaitsFor, fields, succeed, succeed_with_body};
use crate::Broker;

/// A queue's first message counts as "still in memory" while less than this share of the memory
/// was written since. Apache's `accessMessageInMemoryMaxRatio`.
const IN_MEMORY_PERCENT: u64 = 40;

pub(super) fn query(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: QueryConsumerOffsetHeader<'_> = fields(request)?;
    let (group, topic) = (header.consumer_group.to_cow(), header.topic.to_cow());
    let broker = context.broker;
    broker.check_offsets_heard()?;
    let committed = broker.state.offsets.get(&group, &topic, header.queue_id);
    let offset = match committed {
        Some(offset) => offset,
        None if header.set_zero_if_not_found == Some(false) => {
            return Err(Refusal::new(
                ResponseCode::QueryNotFound,
                "Not found, do not set to zero, maybe this group boot first",
            ));
        }
        // A group that is new to a young queue reads it from the start, whatever its policy says:
        // that is how consumers that start together with the first producer miss nothing.
        None if is_young(broker, &topic, header.queue_id)? => 0,
        None => {
            let remark = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";
            return Err(Refusal::new(ResponseCode::QueryNotFound, remark));
        }
    };
    succeed(out, &request.head, &OffsetResponseHeader { offset }, b"");
    Ok(())
}

/// Whether the queue has messages, still begins at 0, and entry 0 is still in memory.
/// Source: `ConsumerManageProcessor.queryConsumerOffset`.
fn is_young(broker: &Broker, topic: &str, queue: i32) -> Result<bool, Refusal> {
    let Some(range) = broker.store.queue_range(topic, queue) else {
        return Ok(false);
    };
    if range.min > 0 {
        return Ok(false);
    }
    let Some(first) = broker.store.queue_entry_cached(topic, queue, 0)? else {
        return Ok(false);
    };
    let written_since = broker.store.watermarks().written().saturating_sub(first.physical_offset);
    Ok(written_since <= broker.memory_bytes / 100 * IN_MEMORY_PERCENT)
}

pub(super) fn update(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: UpdateConsumerOffsetHeader<'_> = fields(request)?;
    let (group, topic) = (header.consumer_group.to_cow(), header.topic.to_cow());
    let broker = context.broker;
    let Some(known) = broker.state.topics.get(&topic) else {
        let remark = format!("topic[{topic}] not exist, its offset cannot be stored");
        return Err(Refusal::new(ResponseCode::TopicNotExist, remark));
    };
    // Group and queue are checked so that nobody can fill the table with inventions.
    broker.group_or_create(&group)?;
    if !u32::try_from(header.queue_id).is_ok_and(|queue| queue < known.queues()) {
        let remark =
            format!("queueId is {}, topic[{topic}] has {}", header.queue_id, known.queues());
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    if header.commit_offset < 0 {
        let remark = format!("commitOffset is {}, offsets begin at 0", header.commit_offset);
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    let (queue, offset) = (header.queue_id, header.commit_offset);
    let is_of_slave = broker.commit_offset(&group, &topic, queue, offset)?;
    if request.head.is_one_way() {
        return Ok(());
    }
    if is_of_slave {
        if !broker.state.offsets.is_durable_at_slave(&group, &topic, queue, offset) {
            // Offsets only grow here, so it does no harm when the same is committed once more.
            let remark = "the offset is not on this slave's disk yet";
            let refusal = Refusal::new(ResponseCode::SystemBusy, remark);
            return Err(Refusal { waits_for: Some(WaitsFor::Disk), ..refusal });
        }
        succeed_with_body(out, &request.head, b"");
        return Ok(());
    }
    let logged = broker.state.log_offsets();
    let position = logged.map_err(|error| {
        // What the log refused is tried again by and by. Not by this request: by then somebody may
        // have committed a later offset.
        broker.offsets_committed.notify_one();
        Refusal { waits_for: None, ..Refusal::from(error) }
    })?;
    context.succeed_at(position, out, &request.head, |_| {}, b"");
    Ok(())
}

pub(super) fn search(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: SearchOffsetHeader<'_> = fields(request)?;
    let topic = header.topic.to_cow();
    let is_upper = header.boundary_type.is_some_and(|b| b.raw().eq_ignore_ascii_case("upper"));
    let boundary = if is_upper { Boundary::Upper } else { Boundary::Lower };
    let found =
        context.broker.store.offset_by_time(&topic, header.queue_id, header.timestamp, boundary)?;
    // A queue without messages begins at 0. Source: `DefaultMessageStore.getOffsetInQueueByTime`.
    let offset = found.map_or(0, |offset| offset as i64);
    succeed(out, &request.head, &OffsetResponseHeader { offset }, b"");
    Ok(())
}

pub(super) fn max(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let range = range(context.broker, request)?;
    let offset = range.map_or(0, |range| range.max as i64);
    succeed(out, &request.head, &OffsetResponseHeader { offset }, b"");
    Ok(())
}

pub(super) fn min(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let range = range(context.broker, request)?;
    let offset = range.map_or(0, |range| range.min as i64);
    succeed(out, &request.head, &OffsetResponseHeader { offset }, b"");
    Ok(())
}

pub(super) fn earliest_store_time(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: QueueHeader<'_> = fields(request)?;
    let topic = header.topic.to_cow();
    let store = &context.broker.store;
    let time = match store.queue_range(&topic, header.queue_id) {
        Some(range) => store.store_time(&topic, header.queue_id, range.min)?,
        None => None,
    };
    // Apache answers -1 for a queue without messages.
    succeed(out, &request.head, &TimestampResponseHeader { timestamp: time.unwrap_or(-1) }, b"");
    Ok(())
}

fn range(broker: &Broker, request: &Command<'_>) -> Result<Option<QueueRange>, Refusal> {
    let header: QueueHeader<'_> = fields(request)?;
    let topic = header.topic.to_cow();
    // An unknown topic has the offsets of an empty one, as in Apache.
    Ok(broker.store.queue_range(&topic, header.queue_id))
}

/// Code 43: all offsets, for people who compare brokers.
pub(super) fn all(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    use weirmq_remoting::body::{Body as _, ConsumerOffsetSerializeWrapper};
    let mut body = ConsumerOffsetSerializeWrapper::default();
    for o in context.broker.state.offsets.current() {
        let queues = body.offset_table.entry(format!("{}@{}", o.topic, o.group)).or_default();
        queues.insert(o.queue, o.offset);
    }
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}
