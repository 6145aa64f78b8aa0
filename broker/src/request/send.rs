//! Sends: codes 10, 310 and 320, from the request to what goes into the append batch.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use weirmq_message::properties::{self, PROPERTIES_BYTES_MAX, PROPERTY_SEPARATOR, names};
use weirmq_message::{batch, sys_flag, tags};
use weirmq_remoting::command::Command;
use weirmq_remoting::header::SendMessageHeader;
use weirmq_remoting::{RequestCode, ResourceName, ResponseCode};

use super::{Context, Refusal, fields};
use crate::acknowledgement::NOT_VISIBLE_MAX;
use crate::append_batch::{AppendBatch, PendingMessage, PendingSend};
use crate::delay::{self, DelayLevel};
use crate::topics::{self, TEMPLATE_TOPIC, Topic};
use crate::{Broker, retry};

/// Whether a code is a send.
pub(crate) fn is_send(code: i32) -> bool {
    code == RequestCode::SendMessage.number()
        || code == RequestCode::SendMessageV2.number()
        || code == RequestCode::SendBatchMessage.number()
}

/// What a message's properties say that a broker acts upon.
#[derive(Default)]
struct Seen {
    tag_hash: i64,
    waits_not: bool,
    delay: Option<DelayLevel>,
    /// Where the unique key's value stands.
    unique_key: Option<Range<usize>>,
    forbidden: Option<&'static str>,
}

impl AppendBatch {
    /// Takes a send into the batch, or says what is wrong with it. `body` is its body, as a share
    /// of the read buffer.
    pub(crate) fn add(
        &mut self,
        context: &Context<'_>,
        request: &Command<'_>,
        body: Bytes,
    ) -> Result<(), Refusal> {
        let header: SendMessageHeader<'_> = fields(request)?;
        let broker = context.broker;
        let topic = target_topic(broker, &header)?;
        check_transaction(header.sys_flag)?;
        let queue_id = target_queue(&topic, header.queue_id, request.head.opaque)?;
        let is_batch = request.head.code == RequestCode::SendBatchMessage.number()
            || header.batch == Some(true);
        let body_bytes = body.len();
        let (first, before) = (self.messages.len(), self.properties.len());
        let added = if is_batch {
            self.add_units(broker, &header, &topic, queue_id, body)
        } else {
            self.add_single(broker, &header, &topic, queue_id, body)
        };
        match added {
            Ok(waits) => {
                let makes_topic = broker.topics_version() != context.topics_before;
                let read = self.read_of(broker, context.connection, makes_topic);
                self.body_bytes += body_bytes;
                let messages = first..self.messages.len();
                let head = request.head;
                self.sends.push(PendingSend { head, read, topic, queue_id, messages, waits });
                Ok(())
            }
            Err(refusal) => {
                self.messages.truncate(first);
                self.properties.truncate(before);
                Err(refusal)
            }
        }
    }

    fn add_single(
        &mut self,
        broker: &Broker,
        header: &SendMessageHeader<'_>,
        topic: &Arc<Topic>,
        queue_id: i32,
        body: Bytes,
    ) -> Result<bool, Refusal> {
        let start = self.properties.len();
        if let Some(properties) = header.properties {
            properties.append_to(&mut self.properties);
        }
        let seen = self.finish_properties(broker, start)?;
        check_size(broker, body.len())?;
        let reconsume_times = header.reconsume_times.unwrap_or_default();
        let mut message = PendingMessage {
            topic: topic.clone(),
            queue_id,
            flag: header.flag,
            sys_flag: header.sys_flag,
            born_timestamp: header.born_timestamp,
            reconsume_times,
            body,
            properties: start..self.properties.len(),
            unique_key: seen.unique_key.unwrap_or_default(),
            tag_hash: seen.tag_hash,
        };
        if topic.is_multi_tag {
            message.sys_flag |= sys_flag::MULTI_TAGS;
        }
        let mut delay = seen.delay;
        let is_retry = topic.name.starts_with(weirmq_remoting::resource_name::RETRY_PREFIX);
        if is_retry && let Some(dead_letters) = retry::given_up(broker, &topic.name, header)? {
            message.topic = dead_letters;
            message.queue_id = 0;
            delay = None;
        }
        if let Some(level) = delay {
            let properties = &self.properties[start..];
            let parked = delay::park(&message.topic.name, message.queue_id, properties);
            if parked.len() > PROPERTIES_BYTES_MAX {
                return Err(properties_too_long(parked.len()));
            }
            message.topic = broker.schedule_topic.clone();
            message.queue_id = level.queue();
            self.properties.truncate(start);
            self.properties.extend_from_slice(&parked);
            message.properties = start..self.properties.len();
            message.unique_key = self.look_from(start).unique_key.unwrap_or_default();
        }
        self.messages.push(message);
        // A consumer sends it that commits past the original then, with the properties of that: what its
        // producer asked for, or what Apache and we write into each copy that we make, is not for this one.
        Ok(is_retry || !seen.waits_not)
    }

    fn add_units(
        &mut self,
        broker: &Broker,
        header: &SendMessageHeader<'_>,
        topic: &Arc<Topic>,
        queue_id: i32,
        body: Bytes,
    ) -> Result<bool, Refusal> {
        check_size(broker, body.len())?;
        if topic.name.starts_with(weirmq_remoting::resource_name::RETRY_PREFIX) {
            let remark = "batch request does not support retry topics";
            return Err(Refusal::new(ResponseCode::MessageIllegal, remark));
        }
        if let Some(properties) = header.properties {
            // What a batch says as a whole is not stored, but it may ask for the impossible.
            let start = self.properties.len();
            properties.append_to(&mut self.properties);
            let seen = self.look_from(start);
            self.properties.truncate(start);
            if seen.delay.is_some() || seen.forbidden.is_some() {
                let remark = "batch request supports neither delayed nor transactional messages";
                return Err(Refusal::new(ResponseCode::MessageIllegal, remark));
            }
        }
        if body.is_empty() {
            let remark = "batch request without messages";
            return Err(Refusal::new(ResponseCode::MessageIllegal, remark));
        }
        let mut waits = true;
        for unit in batch::units(&body) {
            let unit = unit.map_err(|error| {
                Refusal::new(ResponseCode::MessageIllegal, format!("batch body: {error}"))
            })?;
            let start = self.properties.len();
            self.properties.extend_from_slice(unit.properties);
            let seen = self.finish_properties(broker, start)?;
            if seen.delay.is_some() {
                let remark = "batch request does not support delayed messages";
                return Err(Refusal::new(ResponseCode::MessageIllegal, remark));
            }
            waits &= !seen.waits_not;
            self.messages.push(PendingMessage {
                topic: topic.clone(),
                queue_id,
                flag: unit.flag,
                sys_flag: header.sys_flag,
                born_timestamp: header.born_timestamp,
                reconsume_times: header.reconsume_times.unwrap_or_default(),
                body: body.slice_ref(unit.body),
                properties: start..self.properties.len(),
                unique_key: seen.unique_key.unwrap_or_default(),
                tag_hash: seen.tag_hash,
            });
        }
        Ok(waits)
    }

    /// Looks at the properties from `start` on and adds what the broker has to say.
    fn finish_properties(&mut self, broker: &Broker, start: usize) -> Result<Seen, Refusal> {
        let mut seen = self.look_from(start);
        if let Some(feature) = seen.forbidden {
            let remark = format!("sending {feature} is not supported by this broker yet");
            return Err(Refusal::new(ResponseCode::NoPermission, remark));
        }
        if self.properties.len() > start && self.properties.last() != Some(&PROPERTY_SEPARATOR) {
            self.properties.push(properties::PROPERTY_SEPARATOR);
        }
        if seen.unique_key.is_none() {
            let key = broker.unique_keys.next();
            properties::push(&mut self.properties, names::UNIQUE_KEY, &key);
            let end = self.properties.len() - 1;
            seen.unique_key = Some(end - key.len()..end);
        }
        // Request-reply clients derive the reply topic from it.
        self.properties.extend_from_slice(&broker.cluster_property);
        let length = self.properties.len() - start;
        if length > PROPERTIES_BYTES_MAX {
            return Err(properties_too_long(length));
        }
        Ok(seen)
    }

    /// Looks at the properties from `start` on. Positions are those of the whole buffer.
    fn look_from(&self, start: usize) -> Seen {
        let mut seen = Seen::default();
        for (name, value, at) in properties::iter_at(&self.properties[start..]) {
            let at = start + at;
            let text = || std::str::from_utf8(value).unwrap_or_default();
            match name {
                b"TAGS" => seen.tag_hash = tags::tag_hash(Some(text())),
                b"UNIQ_KEY" => seen.unique_key = Some(at..at + value.len()),
                b"WAIT" => seen.waits_not = text().eq_ignore_ascii_case("false"),
                b"DELAY" => seen.delay = text().trim().parse().ok().and_then(DelayLevel::from_wire),
                b"TRAN_MSG" if text().eq_ignore_ascii_case("true") => {
                    seen.forbidden = Some("transactional messages");
                }
                b"TIMER_DELAY_SEC" | b"TIMER_DELAY_MS" | b"TIMER_DELIVER_MS" => {
                    seen.forbidden = Some("messages with a timer");
                }
                _ => {}
            }
        }
        seen
    }
}

/// The topic of a send, created now if it may be.
fn target_topic(
    broker: &Arc<Broker>,
    header: &SendMessageHeader<'_>,
) -> Result<Arc<Topic>, Refusal> {
    let name = header.topic.to_cow();
    if !broker.is_writable() {
        let remark = format!("the broker[{}] sending message is forbidden", broker.config().name);
        return Err(Refusal::new(ResponseCode::NoPermission, remark));
    }
    check_not_visible(broker)?;
    let topic = match broker.state.topics.get(&name) {
        Some(topic) => topic,
        None => create_at_send(broker, &name, header)?,
    };
    if topics::is_send_forbidden(&topic.name) {
        let remark = format!("Sending message to topic[{name}] is forbidden.");
        return Err(Refusal::new(ResponseCode::NoPermission, remark));
    }
    if !topic.is_writable() {
        let remark = format!("the topic[{name}] sending message is forbidden");
        return Err(Refusal::new(ResponseCode::NoPermission, remark));
    }
    Ok(topic)
}

fn create_at_send(
    broker: &Arc<Broker>,
    name: &str,
    header: &SendMessageHeader<'_>,
) -> Result<Arc<Topic>, Refusal> {
    let name = ResourceName::topic(name)?;
    if topics::is_send_forbidden(name.as_str()) {
        let remark = format!("Sending message to topic[{name}] is forbidden.");
        return Err(Refusal::new(ResponseCode::NoPermission, remark));
    }
    let created = if name.is_retry_topic() {
        Some(Topic::new(name.as_str(), 1))
    } else {
        let template = header.default_topic.map(|name| name.to_cow()).unwrap_or_default();
        let template = broker.state.topics.get(&template);
        let template =
            template.filter(|t| t.name != TEMPLATE_TOPIC || broker.config().auto_create_topics);
        let queues = header.default_topic_queue_nums.unwrap_or_default();
        template.and_then(|t| topics::automatic(&name, &t, queues))
    };
    let Some(created) = created else {
        let remark = format!(
            "topic[{name}] not exist, apply first please! Create it with `weir topic create {name}`, \
             or switch auto_create_topics on."
        );
        return Err(Refusal::new(ResponseCode::TopicNotExist, remark));
    };
    broker.create_topic_if_absent(created)
}

/// The queue of a send; a negative one lets the broker choose.
fn target_queue(topic: &Topic, asked: i32, seed: i32) -> Result<i32, Refusal> {
    if asked < 0 {
        // Consecutive request numbers spread evenly.
        return Ok((seed as u32 % topic.write_queues.max(1)) as i32);
    }
    if asked as u32 >= topic.queues() {
        let remark = format!(
            "request queueId[{asked}] is illegal, topic [{}] has queues 0 to {}",
            topic.name,
            topic.queues().saturating_sub(1)
        );
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    Ok(asked)
}

/// Recovery gives no queue entry to a half or rolled back message, so none may be acknowledged as
/// an ordinary one.
fn check_transaction(sys_flag: i32) -> Result<(), Refusal> {
    match sys_flag::transaction_value(sys_flag) {
        sys_flag::TRANSACTION_PREPARED | sys_flag::TRANSACTION_ROLLBACK => {
            let remark = "sending transactional messages is not supported by this broker yet";
            Err(Refusal::new(ResponseCode::NoPermission, remark))
        }
        _ => Ok(()),
    }
}

/// No more messages are taken while very many wait for a replica or the disk: they stay in memory until then.
fn check_not_visible(broker: &Broker) -> Result<(), Refusal> {
    let waiting = broker.acknowledgements.not_visible();
    if waiting >= NOT_VISIBLE_MAX {
        let remark = format!(
            "{waiting} messages wait until all replicas in sync have them on disk, no more are taken"
        );
        return Err(Refusal::new(ResponseCode::SystemBusy, remark));
    }
    Ok(())
}

fn check_size(broker: &Broker, bytes: usize) -> Result<(), Refusal> {
    let limit = broker.config().limits.message_bytes_max;
    if bytes > limit {
        let remark =
            format!("the message is illegal: its body takes {bytes} bytes, the limit is {limit}");
        return Err(Refusal::new(ResponseCode::MessageIllegal, remark));
    }
    Ok(())
}

fn properties_too_long(length: usize) -> Refusal {
    let remark = format!(
        "the message is illegal: properties take {length} bytes, the limit is {PROPERTIES_BYTES_MAX}"
    );
    Refusal::new(ResponseCode::MessageIllegal, remark)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::acknowledgement::{Arrival, Then};
    use crate::replication::broker_of;

    #[tokio::test]
    async fn no_more_is_taken_while_very_much_waits_to_be_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let (broker, _prepared) = broker_of(&folder);
        let entries = |count: usize| {
            let topic: Arc<str> = Arc::from("t");
            let entry = |offset| Arrival { topic: topic.clone(), queue: 0, offset, tag_hash: 0 };
            Then::Show((0..count as u64).map(entry).collect())
        };
        for (count, is_taken) in [(NOT_VISIBLE_MAX - 1, true), (1, false)] {
            broker.acknowledgements.wait(7, Instant::now(), entries(count));
            assert_eq!(check_not_visible(&broker).is_ok(), is_taken);
        }
        assert_eq!(check_not_visible(&broker).unwrap_err().code, ResponseCode::SystemBusy);
        broker.acknowledgements.take_reached(7);
        assert!(check_not_visible(&broker).is_ok());
    }
}
