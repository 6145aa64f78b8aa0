//! Offsets of queues and groups.

use std::collections::BTreeMap;

use weirmq_remoting::body::{MessageQueue, ResetOffsetBody};
use weirmq_remoting::codes::RequestCode;
use weirmq_remoting::command::{HeaderWriter, Text};

use super::Admin;
use crate::ClientError;
use crate::route::Route;

/// Where a group is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetOffset {
    /// To the oldest message that is still there.
    Earliest,
    /// Behind the newest message.
    Latest,
    /// To the first message stored at this time, milliseconds since 1970, or later.
    Time(i64),
    /// To this offset in every queue, as far as the queue reaches.
    Offset(u64),
}

impl Admin {
    /// The queues of `topic` that can be read, by broker name and queue id.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, ClientError> {
        let data = self.route(topic).await?;
        let refused = |problem| ClientError::Config(format!("topic {topic}: {problem}"));
        Ok(Route::new(topic, data).map_err(refused)?.read_queues)
    }

    /// The offset of the oldest message that is still there (code 31).
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<u64, ClientError> {
        self.client.core.min_offset(queue).await
    }

    /// One past the newest message (code 30).
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<u64, ClientError> {
        self.client.core.max_offset(queue).await
    }

    /// The first message stored at `time_ms` (since 1970) or later, else one past the newest (29).
    pub async fn offset_by_time(
        &self,
        queue: &MessageQueue,
        time_ms: i64,
    ) -> Result<u64, ClientError> {
        self.client.core.offset_by_time(queue, time_ms).await
    }

    /// When the oldest message was stored, milliseconds since 1970 (code 32); `None` for an empty
    /// queue.
    pub async fn earliest_store_time(
        &self,
        queue: &MessageQueue,
    ) -> Result<Option<i64>, ClientError> {
        self.client.core.earliest_store_time(queue).await
    }

    /// What `group` has committed (code 14); `None` when it never has.
    pub async fn committed_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
    ) -> Result<Option<u64>, ClientError> {
        self.client.core.committed_offset(group, queue).await
    }

    /// Sets what `group` has committed (code 15). Members that are online commit over it.
    pub async fn commit_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        offset: u64,
    ) -> Result<(), ClientError> {
        self.client.core.commit_offset(group, queue, offset).await
    }

    /// Puts a group to another place in every queue of `topic`, and says which offset each queue
    /// has now.
    ///
    /// While members are online, brokers are asked to tell them (code 222), which they can do for
    /// [`ResetOffset::Earliest`], [`Latest`](ResetOffset::Latest) and
    /// [`Time`](ResetOffset::Time); else the offsets are simply committed.
    ///
    /// # Errors
    /// [`ClientError::Config`] for [`ResetOffset::Offset`] while members are online.
    pub async fn reset_offsets(
        &self,
        group: &str,
        topic: &str,
        to: ResetOffset,
    ) -> Result<BTreeMap<MessageQueue, u64>, ClientError> {
        let is_online = match self.consumer_connections(group).await {
            Ok(connections) => connections.is_some(),
            Err(ClientError::TopicNotFound { .. }) => false,
            Err(error) => return Err(error),
        };
        if !is_online {
            return self.commit_everywhere(group, topic, to).await;
        }
        // Apache: -1 is the end, and no message is older than 0.
        let timestamp = match to {
            ResetOffset::Earliest => 0,
            ResetOffset::Latest => -1,
            ResetOffset::Time(time_ms) => time_ms,
            ResetOffset::Offset(_) => {
                return Err(ClientError::Config(format!(
                    "members of group {group} are online; stop them, or reset to a time"
                )));
            }
        };
        let mut offsets = BTreeMap::new();
        for address in self.masters_of_topic(topic).await?.values() {
            let fields = |writer: &mut HeaderWriter<'_>| {
                writer.text("topic", Text::from(topic));
                writer.text("group", Text::from(group));
                writer.number("timestamp", timestamp);
                writer.boolean("isForce", true);
            };
            let request = RequestCode::InvokeBrokerToResetOffset;
            let reply = self.client.core.call(address, request, fields, b"").await?;
            for (queue, offset) in reply.body_or_default::<ResetOffsetBody>()?.offset_table {
                offsets.insert(queue, reply.offset("offset", offset)?);
            }
        }
        Ok(offsets)
    }

    async fn commit_everywhere(
        &self,
        group: &str,
        topic: &str,
        to: ResetOffset,
    ) -> Result<BTreeMap<MessageQueue, u64>, ClientError> {
        let mut offsets = BTreeMap::new();
        for queue in self.queues(topic).await? {
            let offset = match to {
                ResetOffset::Earliest => self.min_offset(&queue).await?,
                ResetOffset::Latest => self.max_offset(&queue).await?,
                ResetOffset::Time(time_ms) => self.offset_by_time(&queue, time_ms).await?,
                ResetOffset::Offset(offset) => {
                    let oldest = self.min_offset(&queue).await?;
                    offset.clamp(oldest, self.max_offset(&queue).await?.max(oldest))
                }
            };
            self.commit_offset(group, &queue, offset).await?;
            offsets.insert(queue, offset);
        }
        Ok(offsets)
    }
}
