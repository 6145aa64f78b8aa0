//! Calling the listener in any order, and giving back what it could not consume.

use std::sync::Arc;
use std::time::Duration;

use weirmq_remoting::codes::RequestCode;
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{ConsumerSendMessageBackHeader, Header as _};

use super::config::ConsumeStatus;
use super::member::Member;
use super::queue::AssignedQueue;
use crate::offsets::wire_offset;
use crate::{ClientError, ReceivedMessage, UnreadableMessage};

/// The pause before a message that the broker did not take back is given back again.
const GIVE_BACK_PAUSE: Duration = Duration::from_secs(5);
/// The level that means: to the dead letters, at once.
const DEAD_LETTER: i32 = -1;

/// What giving a message back needs of it.
pub(super) struct Receipt {
    queue_offset: u64,
    physical_offset: u64,
    topic: String,
    message_id: String,
}

impl Receipt {
    fn of(message: &ReceivedMessage) -> Self {
        Self {
            queue_offset: message.queue_offset,
            physical_offset: message.physical_offset,
            topic: message.topic.clone(),
            message_id: message.message_id.clone(),
        }
    }
}

impl Member {
    /// One call of the listener and what follows from it.
    pub(super) async fn consume(
        self: Arc<Self>,
        assigned: Arc<AssignedQueue>,
        messages: Vec<ReceivedMessage>,
    ) {
        let Some(Ok(permit)) = assigned.stop.run_until_cancelled(self.calls.acquire()).await else {
            // The queue went to another member, which begins with the offset that was committed.
            return;
        };
        let receipts: Vec<_> = messages.iter().map(Receipt::of).collect();
        let status = self.call_listener(messages).await.unwrap_or(ConsumeStatus::ReconsumeLater);
        drop(permit);
        match delay_level(status) {
            None => assigned.done(receipts.iter().map(|receipt| receipt.queue_offset)),
            Some(level) => {
                for receipt in receipts {
                    self.give_back_until_taken(&assigned, &receipt, level).await;
                }
            }
        }
    }

    /// A message without a body is not shown to the listener: it comes again, perhaps to a member
    /// that can read it, and ends among the dead letters.
    pub(super) fn give_back_unreadable(
        self: &Arc<Self>,
        assigned: &Arc<AssignedQueue>,
        unreadable: UnreadableMessage,
    ) {
        let UnreadableMessage { message, error } = unreadable;
        tracing::error!(
            topic = message.topic,
            message_id = message.message_id,
            %error,
            "message cannot be read and is given back"
        );
        let (member, assigned) = (Arc::clone(self), Arc::clone(assigned));
        let receipt = Receipt::of(&message);
        assigned.tasks.clone().spawn(async move {
            member.give_back_until_taken(&assigned, &receipt, 0).await;
        });
    }

    /// Returns once the message is done, or the queue belongs to somebody else.
    async fn give_back_until_taken(&self, assigned: &AssignedQueue, receipt: &Receipt, level: i32) {
        if self.is_broadcasting() {
            tracing::warn!(
                topic = receipt.topic,
                message_id = receipt.message_id,
                "message was not consumed and is lost to this broadcasting member"
            );
            assigned.done([receipt.queue_offset]);
            return;
        }
        while let Err(error) = self.give_back(assigned, receipt, level).await {
            tracing::warn!(topic = receipt.topic, message_id = receipt.message_id, %error, "give back failed");
            let pause = tokio::time::sleep(GIVE_BACK_PAUSE);
            if assigned.stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
        assigned.done([receipt.queue_offset]);
    }

    /// Gives a message to the dead letters and returns once it is there.
    pub(super) async fn bury(&self, assigned: &AssignedQueue, message: &ReceivedMessage) {
        self.give_back_until_taken(assigned, &Receipt::of(message), DEAD_LETTER).await;
    }

    async fn give_back(
        &self,
        assigned: &AssignedQueue,
        receipt: &Receipt,
        level: i32,
    ) -> Result<(), ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            ConsumerSendMessageBackHeader {
                offset: wire_offset(receipt.physical_offset),
                group: Text::from(self.group()),
                delay_level: level,
                origin_msg_id: Some(Text::from(receipt.message_id.as_str())),
                origin_topic: Some(Text::from(receipt.topic.as_str())),
                unit_mode: Some(false),
                max_reconsume_times: self
                    .config
                    .reconsume_times_max
                    .map(|max| i32::try_from(max).unwrap_or(i32::MAX)),
            }
            .encode(writer);
        };
        let request = RequestCode::ConsumerSendMessageBack;
        let _ = self.core().call_master(&assigned.queue, request, fields).await?;
        Ok(())
    }
}

/// The level to give a message back with; `None` when it is done.
fn delay_level(status: ConsumeStatus) -> Option<i32> {
    match status {
        ConsumeStatus::Success => None,
        ConsumeStatus::ReconsumeLater => Some(0),
        ConsumeStatus::ReconsumeAtLevel(level) => Some(i32::try_from(level).unwrap_or(i32::MAX)),
        ConsumeStatus::DeadLetter => Some(DEAD_LETTER),
    }
}
