//! One message as the tools show it.

use std::collections::BTreeMap;

use serde::Serialize;
use weirmq_client::{ReceivedMessage, UnreadableMessage};

/// A message that a broker sent. Serialises to the object that `-o json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    /// The producer's unique key, as clients show it; the offset id where there is none.
    pub(crate) msg_id: String,
    pub(crate) offset_msg_id: String,
    pub(crate) topic: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) broker: String,
    pub(crate) queue: i32,
    pub(crate) queue_offset: u64,
    pub(crate) keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    /// Milliseconds since 1970.
    pub(crate) born_timestamp: i64,
    pub(crate) born_host: String,
    pub(crate) store_timestamp: i64,
    pub(crate) store_host: String,
    pub(crate) reconsume_times: i32,
    /// Bytes in the broker's log.
    pub(crate) stored_bytes: usize,
    pub(crate) properties: BTreeMap<String, String>,
    /// The body where it is UTF-8.
    #[serde(rename = "body", skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The body as hex digits where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
    #[serde(skip)]
    pub(crate) body: Vec<u8>,
}

impl From<ReceivedMessage> for Message {
    fn from(message: ReceivedMessage) -> Self {
        let text = std::str::from_utf8(&message.body).ok().map(str::to_owned);
        let hex = || message.body.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            body_hex: text.is_none().then(hex),
            text,
            msg_id: message.message_id,
            offset_msg_id: message.offset_message_id,
            topic: message.topic,
            broker: message.broker_name,
            queue: message.queue_id,
            queue_offset: message.queue_offset,
            keys: message.keys,
            tag: message.tag,
            born_timestamp: message.born_timestamp,
            born_host: message.born_host.to_string(),
            store_timestamp: message.store_timestamp,
            store_host: message.store_host.to_string(),
            reconsume_times: message.reconsume_times,
            stored_bytes: message.stored_bytes,
            properties: message.properties,
            body: message.body.into(),
        }
    }
}

impl From<UnreadableMessage> for Message {
    fn from(unreadable: UnreadableMessage) -> Self {
        let UnreadableMessage { message, error } = unreadable;
        tracing::warn!(message = message.message_id, %error, "body cannot be read, showing it as it is stored");
        message.into()
    }
}

impl Message {
    /// The body for a terminal: no control characters but tabs and line ends, no invalid UTF-8.
    pub(crate) fn printable_body(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let is_harmless = |c: char| !c.is_control() || matches!(c, '\t' | '\n');
        text.chars().map(|c| if is_harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
    }
}
