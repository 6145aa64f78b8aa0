//! A message that came from a broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use weirmq_message::id::OffsetMessageId;
use weirmq_message::properties::{self, names};
use weirmq_message::record::{Record, records};
use weirmq_remoting::resource_name::RETRY_PREFIX;

use crate::body_codec::{self, BodyError};

/// A stored message, owned, with its body as the producer gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedMessage {
    /// The topic that it was sent to; for a message that is consumed again not the retry topic.
    pub topic: String,
    /// The broker group that it was read from; empty when it was looked up by its id or a key.
    pub broker_name: String,
    /// The queue that it was read from; with a message that is consumed again, one of the retry
    /// topic. The same holds for `queue_offset`.
    pub queue_id: i32,
    /// Position in the queue, in messages.
    pub queue_offset: u64,
    /// Position in the broker's log, in bytes.
    pub physical_offset: u64,
    /// The id that the producer gave it (`UNIQ_KEY`); `offset_message_id` if it gave none.
    pub message_id: String,
    /// Which broker stored it and where: 32 or 56 hex digits.
    pub offset_message_id: String,
    pub tag: Option<String>,
    pub keys: Vec<String>,
    /// All properties, RocketMQ's own too.
    pub properties: BTreeMap<String, String>,
    pub body: Bytes,
    /// The producer's own number.
    pub flag: i32,
    /// See `weirmq_message::sys_flag`.
    pub sys_flag: i32,
    /// When the producer made it, milliseconds since 1970 by its clock.
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    /// When the broker stored it, milliseconds since 1970.
    pub store_timestamp: i64,
    pub store_host: SocketAddr,
    /// How often the group failed to consume it.
    pub reconsume_times: i32,
    /// Bytes that it takes in the broker's log.
    pub stored_bytes: usize,
}

/// A stored message whose body this client cannot give.
#[derive(Debug, Clone)]
pub struct UnreadableMessage {
    /// Everything but the body, which is as it was stored.
    pub message: ReceivedMessage,
    pub error: BodyError,
}

/// What the body of a reply held, in its order.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) messages: Vec<ReceivedMessage>,
    pub(crate) unreadable: Vec<UnreadableMessage>,
    /// What is wrong behind the last message.
    pub(crate) damage: Option<String>,
}

impl Received {
    pub(crate) fn decode(body: &Bytes, broker_name: &str) -> Self {
        let mut received = Self::default();
        for record in records(body) {
            match record.map(|record| ReceivedMessage::from_record(&record, body, broker_name)) {
                Ok(Ok(message)) => received.messages.push(message),
                Ok(Err(unreadable)) => received.unreadable.push(*unreadable),
                Err(error) => received.damage = Some(error.to_string()),
            }
        }
        received
    }
}

impl ReceivedMessage {
    /// `record` lies in `buffer`, whose memory an uncompressed body shares.
    fn from_record(
        record: &Record<'_>,
        buffer: &Bytes,
        broker_name: &str,
    ) -> Result<Self, Box<UnreadableMessage>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let properties: BTreeMap<_, _> = properties::iter(record.properties)
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        let id = OffsetMessageId {
            store_host: record.store_host,
            physical_offset: record.physical_offset,
        };
        let offset_message_id = id.to_string();
        let keys = properties.get(names::KEYS).map(String::as_str).unwrap_or_default();
        let topic = match properties.get(names::RETRY_TOPIC) {
            Some(origin) if record.topic.starts_with(RETRY_PREFIX) => origin.clone(),
            _ => record.topic.to_owned(),
        };
        let stored = buffer.slice_ref(record.body);
        let (body, error) = match body_codec::plain(stored.clone(), record.sys_flag) {
            Ok(body) => (body, None),
            Err(error) => (stored, Some(error)),
        };
        let message = Self {
            topic,
            broker_name: broker_name.to_owned(),
            queue_id: record.queue_id,
            queue_offset: record.queue_offset,
            physical_offset: record.physical_offset,
            message_id: properties.get(names::UNIQUE_KEY).unwrap_or(&offset_message_id).clone(),
            offset_message_id,
            tag: properties.get(names::TAGS).cloned(),
            keys: keys.split_whitespace().map(str::to_owned).collect(),
            properties,
            body,
            flag: record.flag,
            sys_flag: record.sys_flag,
            born_timestamp: record.born_timestamp,
            born_host: record.born_host,
            store_timestamp: record.store_timestamp,
            store_host: record.store_host,
            reconsume_times: record.reconsume_times,
            stored_bytes: record.encoded_len(),
        };
        match error {
            None => Ok(message),
            Some(error) => Err(Box::new(UnreadableMessage { message, error })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(records: &[Record<'_>]) -> Bytes {
        let mut body = Vec::new();
        records.iter().for_each(|record| record.encode(&mut body).unwrap());
        body.into()
    }

    fn record<'a>(topic: &'a str, properties: &'a [u8], sys_flag: i32) -> Record<'a> {
        Record {
            topic,
            queue_id: 1,
            flag: 0,
            queue_offset: 7,
            physical_offset: 255,
            sys_flag,
            born_timestamp: 1,
            born_host: "10.0.0.1:1".parse().unwrap(),
            store_timestamp: 2,
            store_host: "127.0.0.1:10911".parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 0,
            body: b"body",
            properties,
        }
    }

    #[test]
    fn a_message_that_comes_again_has_its_own_topic_and_key() {
        let properties = b"RETRY_TOPIC\x01orders\x02UNIQ_KEY\x01U1\x02KEYS\x01a b\x02TAGS\x01x\x02";
        let body = encoded(&[
            record("%RETRY%g", properties, 0),
            record("plain", b"RETRY_TOPIC\x01o\x02", 0),
        ]);
        let received = Received::decode(&body, "b");
        let [first, second] = &received.messages[..] else { panic!() };
        assert_eq!((first.topic.as_str(), first.message_id.as_str()), ("orders", "U1"));
        assert_eq!(
            (first.keys.len(), first.tag.as_deref(), &first.body[..]),
            (2, Some("x"), &b"body"[..])
        );
        assert_eq!(second.topic, "plain");
        assert_eq!(second.message_id, "7F00000100002A9F00000000000000FF");
    }

    #[test]
    fn an_unknown_compression_and_a_torn_end_cost_only_themselves() {
        let good = record("t", b"", 0);
        let body = encoded(&[good, record("t", b"", 1 | 2 << 8), good]);
        let received = Received::decode(&body.slice(..body.len() - 1), "b");
        assert_eq!((received.messages.len(), received.unreadable.len()), (1, 1));
        assert!(received.damage.is_some());
    }
}
