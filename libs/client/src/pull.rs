//! One pull: ask one broker for the messages of one queue from an offset on.

use std::time::Duration;

use weirmq_remoting::body::{MessageQueue, SubscriptionData};
use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{
    Header as _, PULL_SUBSCRIPTION, PULL_SUSPEND, PullMessageHeader, PullMessageResponseHeader,
};

use crate::client::Core;
use crate::offsets::wire_offset;
use crate::received::{Received, ReceivedMessage, UnreadableMessage};
use crate::route::member_of;
use crate::subscription::wants;
use crate::{ClientError, reply::Reply};

/// Added to how long a broker may hold a pull: the way there and back, and a broker that looks at
/// its held pulls only every 5 s.
const PULL_GRACE: Duration = Duration::from_secs(15);

/// How a pull ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStatus {
    /// There were messages.
    Found,
    /// The queue ends here.
    NoNewMessage,
    /// There were messages, but none that the filter lets through.
    NoMatchedMessage,
    /// The offset lies before the oldest or behind the newest message; `next_offset` does not.
    OffsetIllegal,
}

/// What a pull brought.
#[derive(Debug, Clone)]
pub struct PullResult {
    pub status: PullStatus,
    /// Where to go on.
    pub next_offset: u64,
    /// The offset of the oldest message that is still there.
    pub min_offset: u64,
    /// One past the newest message.
    pub max_offset: u64,
    /// In the order of the queue.
    pub messages: Vec<ReceivedMessage>,
    /// Messages whose body cannot be given, in the order of the queue.
    pub unreadable: Vec<UnreadableMessage>,
    /// The member of the broker group to ask next: 0 is the master.
    pub suggested_broker_id: i64,
}

pub(crate) struct Pull<'a> {
    pub(crate) group: &'a str,
    pub(crate) queue: &'a MessageQueue,
    pub(crate) offset: u64,
    pub(crate) messages_max: u32,
    pub(crate) bytes_max: u32,
    pub(crate) subscription: &'a SubscriptionData,
    /// How long the broker may hold the pull when there is nothing; zero: not at all.
    pub(crate) wait: Duration,
    /// The member to ask if it is there.
    pub(crate) broker_id: i64,
}

impl Core {
    pub(crate) async fn pull(&self, pull: &Pull<'_>) -> Result<PullResult, ClientError> {
        let queue = pull.queue;
        let route = self.route(&queue.topic).await?;
        let (_, address) = match member_of(&route, &queue.broker_name, pull.broker_id) {
            Ok(member) => member,
            Err(_) => {
                let route = self.newer_route(&queue.topic, Some(&route)).await?;
                member_of(&route, &queue.broker_name, pull.broker_id)?
            }
        };
        let fields = |writer: &mut HeaderWriter<'_>| pull.header().encode(writer);
        let timeout = pull.wait + PULL_GRACE;
        let called =
            self.call_within(&address, RequestCode::PullMessage, fields, b"", timeout).await;
        match called.and_then(|reply| read(&reply, pull)) {
            Err(error) if error.doubts_route() => {
                // For the next pull; this one's failure stands whatever comes of it.
                let _ = self.newer_route(&queue.topic, Some(&route)).await;
                Err(error)
            }
            result => result,
        }
    }
}

impl Pull<'_> {
    fn header(&self) -> PullMessageHeader<'_> {
        PullMessageHeader {
            consumer_group: Text::from(self.group),
            topic: Text::from(self.queue.topic.as_str()),
            queue_id: self.queue.queue_id,
            queue_offset: wire_offset(self.offset),
            max_msg_nums: i32::try_from(self.messages_max).unwrap_or(i32::MAX),
            // Apache's client lets pulls carry the group's offset (PULL_COMMIT_OFFSET). A broker
            // may come to such a pull after a later commit, which it then undoes.
            sys_flag: PULL_SUBSCRIPTION | if self.wait.is_zero() { 0 } else { PULL_SUSPEND },
            commit_offset: Some(0),
            suspend_timeout_millis: i64::try_from(self.wait.as_millis()).ok(),
            subscription: Some(Text::from(self.subscription.sub_string.as_str())),
            sub_version: Some(self.subscription.sub_version),
            expression_type: Some(Text::from(self.subscription.expression_type.as_str())),
            max_msg_bytes: Some(i32::try_from(self.bytes_max).unwrap_or(i32::MAX)),
        }
    }
}

fn read(reply: &Reply, pull: &Pull<'_>) -> Result<PullResult, ClientError> {
    let command = reply.command()?;
    let mut status = match Code::from(command.head.code) {
        Code::Known(ResponseCode::Success) => PullStatus::Found,
        Code::Known(ResponseCode::PullNotFound) => PullStatus::NoNewMessage,
        Code::Known(ResponseCode::PullRetryImmediately) => PullStatus::NoMatchedMessage,
        Code::Known(ResponseCode::PullOffsetMoved) => PullStatus::OffsetIllegal,
        Code::Known(_) | Code::Unknown(_) => return Err(reply.refused(&command)),
    };
    let header =
        PullMessageResponseHeader::decode(&command.ext).map_err(|error| reply.malformed(error))?;
    let mut received = Received::default();
    let mut next_offset = reply.offset("nextBeginOffset", header.next_begin_offset)?;
    if status == PullStatus::Found {
        received = Received::decode(reply.bytes(), &pull.queue.broker_name);
        if let Some(damage) = &received.damage {
            // What stands before the damage counts; the rest is pulled again.
            let last = last_offset(&received).ok_or_else(|| reply.malformed(damage))?;
            next_offset = last + 1;
        }
        received.messages.retain(|message| wants(pull.subscription, message.tag.as_deref()));
        received
            .unreadable
            .retain(|unreadable| wants(pull.subscription, unreadable.message.tag.as_deref()));
        if received.messages.is_empty() && received.unreadable.is_empty() {
            status = PullStatus::NoMatchedMessage;
        }
    }
    Ok(PullResult {
        status,
        next_offset,
        min_offset: reply.offset("minOffset", header.min_offset)?,
        max_offset: reply.offset("maxOffset", header.max_offset)?,
        messages: received.messages,
        unreadable: received.unreadable,
        suggested_broker_id: header.suggest_which_broker_id,
    })
}

fn last_offset(received: &Received) -> Option<u64> {
    let readable = received.messages.last().map(|message| message.queue_offset);
    let unreadable = received.unreadable.last().map(|unreadable| unreadable.message.queue_offset);
    readable.max(unreadable)
}
