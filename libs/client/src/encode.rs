//! Turning messages into what is sent.

use weirmq_message::batch::BatchUnit;
use weirmq_message::properties::names;
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::MessageQueue;
use weirmq_remoting::codes::RequestCode;
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::SendMessageHeader;
use weirmq_remoting::resource_name::RETRY_PREFIX;

use crate::body_codec::{self, ZLIB_FLAGS};
use crate::message::Delivery;
use crate::send::Sender;
use crate::unique_key::{now_ms, unique_key};
use crate::{ClientError, Message, ProducerConfig};

/// Bodies above this size are compressed on a thread of their own.
const BLOCKING_BYTES: usize = 128 * 1024;

/// A message or batch, encoded once for all attempts.
pub(crate) struct Encoded {
    pub(crate) topic: String,
    pub(crate) body: bytes::Bytes,
    pub(crate) properties: String,
    pub(crate) sys_flag: i32,
    pub(crate) flag: i32,
    pub(crate) born_timestamp: i64,
    /// One for each message, in order.
    pub(crate) message_ids: Vec<String>,
    pub(crate) is_batch: bool,
}

impl Encoded {
    /// Bytes that this takes on its way, roughly.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.body.len() + self.properties.len() + 512
    }

    pub(crate) fn request(&self) -> RequestCode {
        if self.is_batch { RequestCode::SendBatchMessage } else { RequestCode::SendMessageV2 }
    }

    pub(crate) fn write(
        &self,
        sender: &Sender<'_>,
        queue: &MessageQueue,
        out: &mut HeaderWriter<'_>,
    ) {
        let header = SendMessageHeader {
            producer_group: Some(Text::from(sender.group)),
            topic: Text::from(self.topic.as_str()),
            default_topic: Some(Text::from(sender.default_topic)),
            default_topic_queue_nums: i32::try_from(sender.default_topic_queues).ok(),
            queue_id: queue.queue_id,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            flag: self.flag,
            properties: Some(Text::from(self.properties.as_str())),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(self.is_batch),
            broker_name: None,
        };
        header.encode_v2(out);
        out.text("n", Text::from(queue.broker_name.as_str()));
    }

    /// Encodes one message; `own` are properties that the producer adds.
    pub(crate) async fn message(
        config: &ProducerConfig,
        message: Message,
        own: &[(&str, &str)],
    ) -> Result<Encoded, ClientError> {
        check_topic(&message)?;
        check_length(&message, message.body.len(), config.body_bytes_max)?;
        let (message_id, properties) = encode_properties(&message, own)?;
        let mut sys_flag = 0;
        let mut body = message.body.clone();
        if config.compress_above.is_some_and(|limit| body.len() > limit) {
            let level = config.compression_level;
            let plain = body.clone();
            let compressed = if plain.len() > BLOCKING_BYTES {
                let task = tokio::task::spawn_blocking(move || body_codec::compress(&plain, level));
                task.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
            } else {
                body_codec::compress(&plain, level)
            };
            if let Ok(compressed) = compressed
                && compressed.len() < body.len()
            {
                body = compressed.into();
                sys_flag |= ZLIB_FLAGS;
            }
        }
        Ok(Encoded {
            topic: message.topic,
            body,
            properties,
            sys_flag,
            flag: message.flag,
            born_timestamp: now_ms(),
            message_ids: vec![message_id],
            is_batch: false,
        })
    }

    /// Encodes messages of one topic as one.
    pub(crate) fn batch(
        config: &ProducerConfig,
        messages: &[Message],
    ) -> Result<Encoded, ClientError> {
        let Some(head) = messages.first() else {
            return Err(ClientError::Message {
                topic: String::new(),
                problem: "the batch is empty".to_owned(),
            });
        };
        check_topic(head)?;
        let mut body = Vec::new();
        let mut message_ids = Vec::with_capacity(messages.len());
        for message in messages {
            if message.topic != head.topic {
                return Err(message.refused(format!("the batch begins with topic {}", head.topic)));
            }
            if message.delivery != Delivery::Now || message.topic.starts_with(RETRY_PREFIX) {
                return Err(
                    message.refused("delayed and retry messages cannot be in a batch".to_owned())
                );
            }
            let (message_id, properties) = encode_properties(message, &[])?;
            let unit = BatchUnit {
                flag: message.flag,
                body: &message.body,
                properties: properties.as_bytes(),
            };
            unit.encode(&mut body).map_err(|error| message.refused(error.to_string()))?;
            message_ids.push(message_id);
            check_length(message, body.len(), config.body_bytes_max)?;
        }
        let skips_wait = messages.iter().all(|message| message.skip_store_wait);
        Ok(Encoded {
            topic: head.topic.clone(),
            body: body.into(),
            properties: if skips_wait { "WAIT\u{1}false\u{2}".to_owned() } else { String::new() },
            sys_flag: 0,
            flag: 0,
            born_timestamp: now_ms(),
            message_ids,
            is_batch: true,
        })
    }
}

fn check_topic(message: &Message) -> Result<(), ClientError> {
    ResourceName::topic(&message.topic).map_err(|error| message.refused(error.to_string()))?;
    Ok(())
}

fn check_length(message: &Message, length: usize, max: usize) -> Result<(), ClientError> {
    if length <= max {
        return Ok(());
    }
    Err(message.refused(format!("body of {length} bytes, the limit is {max} (body_bytes_max)")))
}

/// The message's id, its own if it has one, and its properties with that id among them.
fn encode_properties(
    message: &Message,
    own: &[(&str, &str)],
) -> Result<(String, String), ClientError> {
    let id = message.properties.get(names::UNIQUE_KEY).cloned().unwrap_or_else(unique_key);
    let mut fields = own.to_vec();
    fields.push((names::UNIQUE_KEY, &id));
    let encoded = message.encode_properties(&fields)?;
    let properties =
        String::from_utf8(encoded).map_err(|error| message.refused(error.to_string()))?;
    Ok((id, properties))
}
