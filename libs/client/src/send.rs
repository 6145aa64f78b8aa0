//! One attempt to send, and what came of it.

use std::time::Duration;

use weirmq_remoting::body::MessageQueue;
use weirmq_remoting::codes::{Code, ResponseCode};
use weirmq_remoting::command::HeaderWriter;
use weirmq_remoting::header::{Header as _, SendMessageResponseHeader};

use crate::ClientError;
use crate::client::Core;
use crate::encode::Encoded;
use crate::reply::Reply;

/// How well a message is kept. In all four cases it is stored and will be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendStatus {
    /// As the broker is configured to keep messages.
    Ok,
    /// The broker waits for its disk and has not heard of it in time.
    FlushDiskTimeout,
    /// The broker waits for a slave and there is none.
    SlaveNotAvailable,
    /// The broker waits for a slave and has not heard of it in time.
    FlushSlaveTimeout,
}

/// Where a message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendResult {
    pub status: SendStatus,
    /// The id that this producer gave the message (`UNIQ_KEY`), 32 hex digits.
    pub message_id: String,
    /// Which broker stored it and where; empty for messages of a batch that the broker stored as
    /// one.
    pub offset_message_id: String,
    pub queue: MessageQueue,
    /// Position in the queue, in messages.
    pub queue_offset: u64,
    pub transaction_id: Option<String>,
}

/// What a producer says about itself with every message.
pub(crate) struct Sender<'a> {
    pub(crate) group: &'a str,
    pub(crate) default_topic: &'a str,
    pub(crate) default_topic_queues: u32,
}

/// Sends to `queue` at `address` and waits for the answer.
pub(crate) async fn send_once(
    core: &Core,
    sender: &Sender<'_>,
    message: &Encoded,
    queue: &MessageQueue,
    address: &str,
    timeout: Duration,
) -> Result<Vec<SendResult>, ClientError> {
    let fields = |writer: &mut HeaderWriter<'_>| message.write(sender, queue, writer);
    let reply =
        core.call_watched(address, message.request(), fields, &message.body, timeout).await?;
    results(&reply, message, queue)
}

/// One result for each message, in order.
fn results(
    reply: &Reply,
    message: &Encoded,
    queue: &MessageQueue,
) -> Result<Vec<SendResult>, ClientError> {
    let command = reply.command()?;
    let status = match Code::from(command.head.code) {
        Code::Known(ResponseCode::Success) => SendStatus::Ok,
        Code::Known(ResponseCode::FlushDiskTimeout) => SendStatus::FlushDiskTimeout,
        Code::Known(ResponseCode::SlaveNotAvailable) => SendStatus::SlaveNotAvailable,
        Code::Known(ResponseCode::FlushSlaveTimeout) => SendStatus::FlushSlaveTimeout,
        Code::Known(_) | Code::Unknown(_) => return Err(reply.refused(&command)),
    };
    let header =
        SendMessageResponseHeader::decode(&command.ext).map_err(|error| reply.malformed(error))?;
    let first = reply.offset("queueOffset", header.queue_offset)?;
    let offset_ids: Vec<&str> = header.msg_id.split(',').collect();
    let is_one_each = offset_ids.len() == message.message_ids.len();
    let result = |(at, message_id): (usize, &String)| SendResult {
        status,
        message_id: message_id.clone(),
        offset_message_id: if is_one_each { offset_ids[at].to_owned() } else { String::new() },
        queue: MessageQueue { queue_id: header.queue_id, ..queue.clone() },
        queue_offset: first.saturating_add(at as u64),
        transaction_id: header.transaction_id.as_deref().map(str::to_owned),
    };
    Ok(message.message_ids.iter().enumerate().map(result).collect())
}
