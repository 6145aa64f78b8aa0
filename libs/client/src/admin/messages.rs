//! Looking messages up.

use weirmq_message::id::OffsetMessageId;
use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{Header as _, QueryMessageHeader, ViewMessageHeader};

use super::Admin;
use crate::ClientError;
use crate::received::{Received, ReceivedMessage, UnreadableMessage};

/// Messages that match, oldest first.
#[derive(Debug, Clone, Default)]
pub struct FoundMessages {
    pub messages: Vec<ReceivedMessage>,
    /// Those whose body this client cannot give.
    pub unreadable: Vec<UnreadableMessage>,
}

impl Admin {
    /// The message with this offset message id (code 33), from the broker that the id names.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the text is no such id; [`ClientError::NotFound`] when the
    /// broker has nothing there any more.
    pub async fn view_message(
        &self,
        offset_message_id: &str,
    ) -> Result<ReceivedMessage, ClientError> {
        let id = OffsetMessageId::parse(offset_message_id).ok_or_else(|| {
            ClientError::Config(format!(
                "{offset_message_id:?} is no offset message id: it has 32 or 56 hex digits"
            ))
        })?;
        let address = id.store_host.to_string();
        self.view_message_at(&address, id.physical_offset).await
    }

    /// The message that begins at this byte of a broker's log. For brokers behind a Service, whose
    /// own address in the id cannot be reached.
    pub async fn view_message_at(
        &self,
        broker_address: &str,
        physical_offset: u64,
    ) -> Result<ReceivedMessage, ClientError> {
        let offset = i64::try_from(physical_offset)
            .map_err(|_| ClientError::Config(format!("{physical_offset} is beyond any log")))?;
        let fields = |writer: &mut HeaderWriter<'_>| {
            ViewMessageHeader { offset, topic: None }.encode(writer);
        };
        let request = RequestCode::ViewMessageById;
        let missing = || {
            ClientError::NotFound(format!("{broker_address} has no message at {physical_offset}"))
        };
        let reply = match self.client.core.call(broker_address, request, fields, b"").await {
            // Apache's answer, whatever the reason.
            Err(ClientError::Refused { code: Code::Known(ResponseCode::SystemError), .. }) => {
                return Err(missing());
            }
            reply => reply?,
        };
        let received = Received::decode(reply.bytes(), "");
        if let Some(damage) = received.damage {
            return Err(reply.malformed(damage));
        }
        let unreadable = received.unreadable.into_iter().map(|unreadable| unreadable.message);
        received.messages.into_iter().chain(unreadable).next().ok_or_else(missing)
    }

    /// Messages of `topic` with this key, stored between the two times in milliseconds since 1970;
    /// at most `max` of each broker (code 12).
    pub async fn query_by_key(
        &self,
        topic: &str,
        key: &str,
        max: u32,
        begin_ms: i64,
        end_ms: i64,
    ) -> Result<FoundMessages, ClientError> {
        let mut found = self.query(topic, key, max, begin_ms, end_ms, false).await?;
        // The index holds hashes; other keys may share one.
        let has_key = |message: &ReceivedMessage| message.keys.iter().any(|known| known == key);
        found.messages.retain(has_key);
        found.unreadable.retain(|unreadable| has_key(&unreadable.message));
        Ok(found)
    }

    /// Messages of `topic` with this `UNIQ_KEY`: one, or several when a send was repeated.
    pub async fn query_by_unique_key(
        &self,
        topic: &str,
        message_id: &str,
    ) -> Result<FoundMessages, ClientError> {
        let mut found = self.query(topic, message_id, 32, 0, i64::MAX, true).await?;
        found.messages.retain(|message| message.message_id == message_id);
        found.unreadable.retain(|unreadable| unreadable.message.message_id == message_id);
        Ok(found)
    }

    async fn query(
        &self,
        topic: &str,
        key: &str,
        max: u32,
        begin_ms: i64,
        end_ms: i64,
        is_unique_key: bool,
    ) -> Result<FoundMessages, ClientError> {
        let mut found = FoundMessages::default();
        for (broker_name, address) in self.masters_of_topic(topic).await? {
            let fields = |writer: &mut HeaderWriter<'_>| {
                QueryMessageHeader {
                    topic: Text::from(topic),
                    key: Text::from(key),
                    max_num: i32::try_from(max).unwrap_or(i32::MAX),
                    begin_timestamp: begin_ms,
                    end_timestamp: end_ms,
                    is_unique_key: Some(is_unique_key),
                }
                .encode(writer);
            };
            let request = RequestCode::QueryMessage;
            let reply = match self.client.core.call(&address, request, fields, b"").await {
                Err(ClientError::Refused {
                    code: Code::Known(ResponseCode::QueryNotFound),
                    ..
                }) => {
                    continue;
                }
                reply => reply?,
            };
            let received = Received::decode(reply.bytes(), &broker_name);
            if let Some(damage) = received.damage {
                return Err(reply.malformed(damage));
            }
            found.messages.extend(received.messages);
            found.unreadable.extend(received.unreadable);
        }
        found.messages.retain(|message| message.topic == topic);
        found.messages.sort_by_key(|message| message.store_timestamp);
        Ok(found)
    }
}
