//! Sends: codes 10, 310 and 320.
//!
//! All sends of one read are appended together and answered together.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use weirmq_message::id::OffsetMessageId;
use weirmq_message::properties::{self, PROPERTIES_BYTES_MAX, names};
use weirmq_message::{batch, sys_flag, tags};
use weirmq_remoting::command::{Command, Head, response};
use weirmq_remoting::header::{Header as _, SendMessageHeader, SendMessageResponseHeader};
use weirmq_remoting::{RequestCode, ResourceName, ResponseCode};
use weirmq_store::{Appended, KeySource, NewMessage, StoreError};

use super::{Context, Refusal, fields};
use crate::acknowledgement::Then;
use crate::delay::{self, DelayLevel};
use crate::topics::{self, TEMPLATE_TOPIC, Topic};
use crate::{Broker, retry};

/// Whether a code is a send.
pub(crate) fn is_send(code: i32) -> bool {
    code == RequestCode::SendMessage.number()
        || code == RequestCode::SendMessageV2.number()
        || code == RequestCode::SendBatchMessage.number()
}

/// The sends of one read. Bodies stay in the read buffer, properties are copied once.
pub(crate) struct AppendBatch<'a> {
    sends: Vec<PendingSend>,
    messages: Vec<PendingMessage<'a>>,
    properties: Vec<u8>,
}

struct PendingSend {
    head: Head,
    topic: Arc<Topic>,
    queue_id: i32,
    /// Its messages in the batch.
    messages: Range<usize>,
    /// Whether the producer wants to know that the message is as safe as this broker makes it.
    waits: bool,
}

struct PendingMessage<'a> {
    /// Where it is stored, which for a delayed message is not where it was sent.
    topic: Arc<Topic>,
    queue_id: i32,
    flag: i32,
    sys_flag: i32,
    born_timestamp: i64,
    reconsume_times: i32,
    body: &'a [u8],
    properties: Range<usize>,
    tag_hash: i64,
}

/// What a message's properties say that a broker acts upon.
#[derive(Default)]
struct Seen {
    tag_hash: i64,
    waits_not: bool,
    delay: Option<DelayLevel>,
    has_unique_key: bool,
    forbidden: Option<&'static str>,
}

impl<'a> AppendBatch<'a> {
    /// An empty batch that uses `properties` as its buffer.
    pub(crate) fn new(properties: Vec<u8>) -> Self {
        Self { sends: Vec::new(), messages: Vec::new(), properties }
    }

    /// Takes a send into the batch, or says what is wrong with it.
    pub(crate) fn add(
        &mut self,
        context: &Context<'_>,
        request: &Command<'a>,
    ) -> Result<(), Refusal> {
        let header: SendMessageHeader<'_> = fields(request)?;
        let broker = context.broker;
        let topic = target_topic(broker, &header)?;
        check_transaction(header.sys_flag)?;
        let queue_id = target_queue(&topic, header.queue_id, request.head.opaque)?;
        let is_batch = request.head.code == RequestCode::SendBatchMessage.number()
            || header.batch == Some(true);
        let first = self.messages.len();
        let before = self.properties.len();
        let added = if is_batch {
            self.add_units(broker, &header, &topic, queue_id, request.body)
        } else {
            self.add_single(broker, &header, &topic, queue_id, request.body)
        };
        match added {
            Ok(waits) => {
                let messages = first..self.messages.len();
                self.sends.push(PendingSend {
                    head: request.head,
                    topic,
                    queue_id,
                    messages,
                    waits,
                });
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
        body: &'a [u8],
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
            tag_hash: seen.tag_hash,
        };
        if topic.is_multi_tag {
            message.sys_flag |= sys_flag::MULTI_TAGS;
        }
        let mut delay = seen.delay;
        if topic.name.starts_with(weirmq_remoting::resource_name::RETRY_PREFIX)
            && let Some(dead_letters) = retry::given_up(broker, &topic.name, header)?
        {
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
        }
        self.messages.push(message);
        Ok(!seen.waits_not)
    }

    fn add_units(
        &mut self,
        broker: &Broker,
        header: &SendMessageHeader<'_>,
        topic: &Arc<Topic>,
        queue_id: i32,
        body: &'a [u8],
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
            let seen = look(&self.properties[start..]);
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
        for unit in batch::units(body) {
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
                body: unit.body,
                properties: start..self.properties.len(),
                tag_hash: seen.tag_hash,
            });
        }
        Ok(waits)
    }

    /// Looks at the properties from `start` on and adds what the broker has to say.
    fn finish_properties(&mut self, broker: &Broker, start: usize) -> Result<Seen, Refusal> {
        let seen = look(&self.properties[start..]);
        if let Some(feature) = seen.forbidden {
            let remark = format!("sending {feature} is not supported by this broker yet");
            return Err(Refusal::new(ResponseCode::NoPermission, remark));
        }
        if self.properties.len() > start
            && self.properties.last() != Some(&properties::PROPERTY_SEPARATOR)
        {
            self.properties.push(properties::PROPERTY_SEPARATOR);
        }
        if !seen.has_unique_key {
            let key = broker.unique_keys.next();
            properties::push(&mut self.properties, names::UNIQUE_KEY, &key);
        }
        // Request-reply clients derive the reply topic from it.
        self.properties.extend_from_slice(&broker.cluster_property);
        let length = self.properties.len() - start;
        if length > PROPERTIES_BYTES_MAX {
            return Err(properties_too_long(length));
        }
        Ok(seen)
    }

    /// Appends everything and answers each send, now or when its message is durable. Gives the
    /// buffer back.
    pub(crate) fn append(mut self, context: &Context<'_>, out: &mut Vec<u8>) -> Vec<u8> {
        let together = self.append_sends(&self.sends, context, out);
        // The store takes all or nothing; what is wrong with one message is not the others' fault.
        if let Err(StoreError::TooLarge { .. }) = together
            && self.sends.len() > 1
        {
            for send in self.sends.chunks(1) {
                if let Err(error) = self.append_sends(send, context, out) {
                    refuse(context.broker, send, error, out);
                }
            }
        } else if let Err(error) = together {
            refuse(context.broker, &self.sends, error, out);
        }
        self.properties.clear();
        self.properties
    }

    fn append_sends(
        &self,
        sends: &[PendingSend],
        context: &Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (sends.first(), sends.last()) else {
            return Ok(());
        };
        let broker = context.broker;
        let connection = context.connection;
        let store_host = broker.store_host(connection);
        let born_host = unmapped(connection.peer());
        let first = first.messages.start;
        let messages = &self.messages[first..last.messages.end];
        let new: Vec<_> =
            messages.iter().map(|m| m.to_new(&self.properties, born_host, store_host)).collect();
        let mut appended = Vec::with_capacity(new.len());
        broker.append(&new, &mut appended)?;
        let stored_of =
            |send: &PendingSend| &appended[send.messages.start - first..send.messages.end - first];
        let visible = broker.store.watermarks().visible();
        for send in sends.iter().filter(|send| !send.head.is_one_way()) {
            let stored = stored_of(send);
            let end = stored.last().map_or(0, |last| last.end_offset);
            if end <= visible || !send.waits {
                self.write_reply(broker, out, send, ResponseCode::Success, stored, store_host);
                continue;
            }
            let (mut reply, mut late_reply) = (Vec::new(), Vec::new());
            self.write_reply(broker, &mut reply, send, ResponseCode::Success, stored, store_host);
            let late = ResponseCode::FlushDiskTimeout;
            self.write_reply(broker, &mut late_reply, send, late, stored, store_host);
            let connection = connection.clone();
            broker.wait(end, Then::Answer { connection, reply, late_reply });
        }
        broker.count_in(sends.iter().map(|send| (&*send.topic, stored_of(send))));
        Ok(())
    }

    fn write_reply(
        &self,
        broker: &Broker,
        out: &mut Vec<u8>,
        send: &PendingSend,
        code: ResponseCode,
        stored: &[Appended],
        store_host: SocketAddr,
    ) {
        let mut ids = Vec::with_capacity(33 * stored.len());
        for (number, message) in stored.iter().enumerate() {
            if number > 0 {
                ids.push(b',');
            }
            OffsetMessageId { store_host, physical_offset: message.physical_offset }
                .write_to(&mut ids);
        }
        let header = SendMessageResponseHeader {
            msg_id: String::from_utf8_lossy(&ids),
            queue_id: send.queue_id,
            queue_offset: stored.first().map_or(0, |first| first.queue_offset as i64),
            transaction_id: self.unique_key(send).map(Cow::Borrowed),
        };
        let remark = (code == ResponseCode::FlushDiskTimeout).then_some(
            "the message was written, but the disk has not confirmed it in time; whether it survives a \
             power failure is unknown",
        );
        let mut writer = response(out, &send.head, code, remark);
        header.encode(&mut writer);
        writer.text(names::MSG_REGION, broker.config.region.as_str().into());
        writer.plain(names::TRACE_SWITCH, true);
        writer.finish(b"");
    }

    /// The unique key of a send's first message, which replies carry as transaction id.
    fn unique_key(&self, send: &PendingSend) -> Option<&str> {
        let first = &self.messages[send.messages.clone()].first()?;
        properties::get(&self.properties[first.properties.clone()], names::UNIQUE_KEY)
    }
}

impl PendingMessage<'_> {
    fn to_new<'s>(
        &'s self,
        properties: &'s [u8],
        born_host: SocketAddr,
        store_host: SocketAddr,
    ) -> NewMessage<'s> {
        NewMessage {
            topic: &self.topic.name,
            queue_id: self.queue_id,
            flag: self.flag,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            born_host,
            store_host,
            reconsume_times: self.reconsume_times,
            prepared_transaction_offset: 0,
            body: self.body,
            properties: &properties[self.properties.clone()],
            tag_hash: self.tag_hash,
            index_keys: KeySource::Properties,
            dispatch: true,
        }
    }
}

fn refuse(broker: &Broker, sends: &[PendingSend], error: StoreError, out: &mut Vec<u8>) {
    let refusal = Refusal::from(error);
    for send in sends.iter().filter(|send| !send.head.is_one_way()) {
        broker.metrics.refused(send.head.code, refusal.code);
        response(out, &send.head, refusal.code, Some(&refusal.remark)).finish(b"");
    }
}

fn look(encoded: &[u8]) -> Seen {
    let mut seen = Seen::default();
    for (name, value) in properties::iter(encoded) {
        let text = || std::str::from_utf8(value).unwrap_or_default();
        match name {
            b"TAGS" => seen.tag_hash = tags::tag_hash(Some(text())),
            b"UNIQ_KEY" => seen.has_unique_key = true,
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

/// The topic of a send, created now if it may be.
fn target_topic(
    broker: &Arc<Broker>,
    header: &SendMessageHeader<'_>,
) -> Result<Arc<Topic>, Refusal> {
    let name = header.topic.to_cow();
    if !broker.is_writable() {
        let remark = format!("the broker[{}] sending message is forbidden", broker.config.name);
        return Err(Refusal::new(ResponseCode::NoPermission, remark));
    }
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
            template.filter(|t| t.name != TEMPLATE_TOPIC || broker.config.auto_create_topics);
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

fn check_size(broker: &Broker, bytes: usize) -> Result<(), Refusal> {
    let limit = broker.config.limits.message_bytes_max;
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

/// An IPv4 address as such, also when a dual-stack socket shows it as IPv6.
pub(crate) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
