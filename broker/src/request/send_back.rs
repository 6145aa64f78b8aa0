//! Code 36: a consumer could not consume a message and wants it again later.
//!
//! The message is stored anew in the group's retry topic, by way of the delay queues, or in its
//! dead letters. Source: `AbstractSendMessageProcessor.consumerSendMsgBack`.
//!
//! Whoever is told that it worked commits past the message, so the copy is acknowledged as any message:
//! lost afterwards it would never come to its group again. Apache answers once it is in the page cache.

use weirmq_message::properties::{self, names};
use weirmq_message::{Decoded, Record};
use weirmq_remoting::command::{Command, Head, Language};
use weirmq_remoting::header::ConsumerSendMessageBackHeader;
use weirmq_remoting::{RequestCode, ResourceName, ResponseCode};

use super::{Context, Refusal, fields, succeed_with_body};
use crate::delay::{self, DelayLevel};
use crate::retry;

/// The delay level of the first repetition, 10 s; each further one takes the next level.
const FIRST_LEVEL: i32 = 3;

pub(super) fn send_back(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: ConsumerSendMessageBackHeader<'_> = fields(request)?;
    let broker = context.broker;
    let group = ResourceName::group(&header.group.to_cow())?;
    let config = broker.group_or_create(group.as_str())?;
    if !broker.is_writable() {
        let remark = format!("the broker[{}] sending message is forbidden", broker.config().name);
        return Err(Refusal::new(ResponseCode::NoPermission, remark));
    }
    if config.retry_queue_nums <= 0 {
        succeed_with_body(out, &request.head, b"");
        return Ok(());
    }
    let mut stored = Vec::new();
    let is_found = broker.read_client_record(header.offset, &mut stored)?;
    let record = match Record::decode(&stored, true) {
        Ok(Decoded::Record(record, _)) if is_found => record,
        _ => {
            let remark = format!("look message by offset failed, {}", header.offset);
            return Err(Refusal::new(ResponseCode::SystemError, remark));
        }
    };
    let retries_max = header.max_reconsume_times.unwrap_or(config.retry_max_times);
    let is_given_up = record.reconsume_times >= retries_max || header.delay_level < 0;
    let topic = if is_given_up {
        broker.create_dead_letter_topic(&group)?
    } else {
        broker.create_retry_topic(&group, &config)?;
        let name = group.retry_topic();
        broker.state.topics.get(name.as_str()).ok_or_else(|| {
            Refusal::new(ResponseCode::SystemError, format!("topic[{name}] not exist"))
        })?
    };
    if !topic.is_writable() {
        let remark = format!("the topic[{}] sending message is forbidden", topic.name);
        return Err(Refusal::new(ResponseCode::NoPermission, remark));
    }

    let mut encoded = retry_properties(&record, is_given_up);
    let queue = 0;
    let (mut stored_topic, mut stored_queue) = (topic.clone(), queue);
    if !is_given_up {
        let level = match header.delay_level {
            0 => FIRST_LEVEL.saturating_add(record.reconsume_times),
            level => level,
        };
        if let Some(level) = DelayLevel::from_wire(level) {
            encoded = properties::with(&encoded, names::DELAY_LEVEL, &level.number().to_string());
            encoded = delay::park(&topic.name, queue, &encoded);
            (stored_topic, stored_queue) = (broker.schedule_topic.clone(), level.queue());
        }
    }
    if encoded.len() > properties::PROPERTIES_BYTES_MAX {
        let remark = format!("properties would take {} bytes with those of a retry", encoded.len());
        return Err(Refusal::new(ResponseCode::MessageIllegal, remark));
    }
    let again = retry::again(&record, &stored_topic.name, stored_queue, &encoded);
    let mut appended = Vec::new();
    broker.append(&[again], &mut appended).map_err(|error| broker.refusal(error))?;
    if is_given_up {
        broker.metrics.dead_letter(group.as_str(), &record);
    }
    let position = appended.last().map(|again| again.end_offset);
    context.succeed_at(position, out, &request.head, |_| {}, b"");
    Ok(())
}

/// Whether the asker does not look at the code of the answer. One that did not work gets none then, and
/// consumes the message again after its time-out of 3 s. Source: `pushConsumer.sendMessageBack` of Go's
/// client 2.1.2.
pub(super) fn is_any_answer_a_success(head: &Head) -> bool {
    head.code == RequestCode::ConsumerSendMessageBack.number() && head.language == Language::GO
}

fn retry_properties(record: &Record<'_>, is_given_up: bool) -> Vec<u8> {
    let mut encoded = properties::without(record.properties, names::DELAY_LEVEL);
    if properties::get(&encoded, names::RETRY_TOPIC).is_none() {
        properties::push(&mut encoded, names::RETRY_TOPIC, record.topic);
    }
    let offset_id = weirmq_message::id::OffsetMessageId {
        store_host: record.store_host,
        physical_offset: record.physical_offset,
    };
    let origin = match properties::get(&encoded, names::ORIGIN_MESSAGE_ID) {
        Some(origin) if !origin.is_empty() => origin.to_owned(),
        _ => offset_id.to_string(),
    };
    encoded = properties::with(&encoded, names::ORIGIN_MESSAGE_ID, &origin);
    encoded = properties::with(&encoded, names::WAIT_STORE_OK, "false");
    if is_given_up {
        let topic =
            properties::get(&encoded, names::RETRY_TOPIC).unwrap_or(record.topic).to_owned();
        encoded = properties::with(&encoded, names::DLQ_ORIGIN_TOPIC, &topic);
        encoded = properties::with(&encoded, names::DLQ_ORIGIN_MESSAGE_ID, &origin);
    }
    encoded
}
