//! Sends to one broker at its address, whoever is master: what a client does that has not heard of the next one.

use std::time::Duration;

use weirmq_client::MessageQueue;
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{Header as _, SendMessageHeader, SendMessageResponseHeader};
use weirmq_remoting::net::{Connection, Limits, NoRequests, connect};
use weirmq_remoting::{RequestCode, ResponseCode, SerializeType};

use crate::load::now_ms;

/// How long a connection may take, and an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A broker, and the connection to it, which is made again where it has ended.
pub(crate) struct Direct {
    address: String,
    connection: Option<Connection>,
}

impl Direct {
    /// `address` is `host:port`.
    pub(crate) fn new(address: String) -> Self {
        Self { address, connection: None }
    }

    /// Sends `body` to `queue`. The broker's answer: the offset where the message is stored, or what it says
    /// in place of that.
    ///
    /// # Errors
    /// Where it gives no answer: the message may be stored.
    pub(crate) async fn send(
        &mut self,
        queue: &MessageQueue,
        body: &[u8],
    ) -> anyhow::Result<Result<u64, String>> {
        let connection = match self.connection.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => connect(&self.address, PATIENCE, Limits::default(), |_| NoRequests).await?,
        };
        let header = SendMessageHeader {
            producer_group: Some(Text::from("beside")),
            topic: Text::from(queue.topic.as_str()),
            default_topic: None,
            default_topic_queue_nums: None,
            queue_id: queue.queue_id,
            sys_flag: 0,
            born_timestamp: i64::try_from(now_ms())?,
            flag: 0,
            properties: None,
            reconsume_times: None,
            unit_mode: None,
            max_reconsume_times: None,
            batch: None,
            broker_name: None,
        };
        let code = RequestCode::SendMessageV2.number();
        let fields = |writer: &mut HeaderWriter<'_>| header.encode_v2(writer);
        let answer = connection.call(SerializeType::Json, code, fields, body, PATIENCE).await;
        if answer.is_err() {
            // Nobody waits for its answer any more.
            connection.close();
        }
        let answer = answer?;
        self.connection = Some(connection);
        let command = answer.command()?;
        if command.head.code != ResponseCode::Success.number() {
            return Ok(Err(format!("{}: {}", command.head.code, command.remark_text())));
        }
        Ok(Ok(u64::try_from(SendMessageResponseHeader::decode(&command.ext)?.queue_offset)?))
    }
}
