//! Asking and setting offsets of queues and groups, for consumers and administrators.

use weirmq_remoting::body::MessageQueue;
use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{
    Header as _, OffsetResponseHeader, QueryConsumerOffsetHeader, QueueHeader, SearchOffsetHeader,
    TimestampResponseHeader, UpdateConsumerOffsetHeader,
};

use crate::ClientError;
use crate::client::Core;

impl Core {
    /// What `group` has committed of `queue`; `None` when it never has.
    pub(crate) async fn committed_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
    ) -> Result<Option<u64>, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            QueryConsumerOffsetHeader {
                consumer_group: Text::from(group),
                topic: Text::from(queue.topic.as_str()),
                queue_id: queue.queue_id,
                set_zero_if_not_found: None,
            }
            .encode(writer);
        };
        let request = RequestCode::QueryConsumerOffset;
        let reply = match self.call_reader(queue, request, fields).await {
            Err(ClientError::Refused {
                code: Code::Known(ResponseCode::QueryNotFound), ..
            }) => {
                return Ok(None);
            }
            reply => reply?,
        };
        let header: OffsetResponseHeader = reply.header()?;
        // Brokers before 4.9 answer -1 for an offset that was never committed.
        if header.offset == -1 {
            return Ok(None);
        }
        reply.offset("offset", header.offset).map(Some)
    }

    /// Stores that `group` has consumed everything of `queue` before `offset`.
    pub(crate) async fn commit_offset(
        &self,
        group: &str,
        queue: &MessageQueue,
        offset: u64,
    ) -> Result<(), ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            UpdateConsumerOffsetHeader {
                consumer_group: Text::from(group),
                topic: Text::from(queue.topic.as_str()),
                queue_id: queue.queue_id,
                commit_offset: wire_offset(offset),
            }
            .encode(writer);
        };
        let _ = self.call_reader(queue, RequestCode::UpdateConsumerOffset, fields).await?;
        Ok(())
    }

    /// The offset of the oldest message that is still there.
    pub(crate) async fn min_offset(&self, queue: &MessageQueue) -> Result<u64, ClientError> {
        self.end_offset(queue, RequestCode::GetMinOffset).await
    }

    /// One past the newest message.
    pub(crate) async fn max_offset(&self, queue: &MessageQueue) -> Result<u64, ClientError> {
        self.end_offset(queue, RequestCode::GetMaxOffset).await
    }

    async fn end_offset(
        &self,
        queue: &MessageQueue,
        request: RequestCode,
    ) -> Result<u64, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| queue_header(queue).encode(writer);
        let reply = self.call_reader(queue, request, fields).await?;
        let header: OffsetResponseHeader = reply.header()?;
        reply.offset("offset", header.offset)
    }

    /// The first message stored at `time_ms` (since 1970) or later, else one past the newest.
    pub(crate) async fn offset_by_time(
        &self,
        queue: &MessageQueue,
        time_ms: i64,
    ) -> Result<u64, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            SearchOffsetHeader {
                topic: Text::from(queue.topic.as_str()),
                queue_id: queue.queue_id,
                timestamp: time_ms,
                boundary_type: None,
            }
            .encode(writer);
        };
        let reply = self.call_reader(queue, RequestCode::SearchOffsetByTimestamp, fields).await?;
        let header: OffsetResponseHeader = reply.header()?;
        reply.offset("offset", header.offset)
    }

    /// When the oldest message was stored, in milliseconds since 1970; `None` for an empty queue.
    pub(crate) async fn earliest_store_time(
        &self,
        queue: &MessageQueue,
    ) -> Result<Option<i64>, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| queue_header(queue).encode(writer);
        let request = RequestCode::GetEarliestMessageStoreTime;
        let reply = self.call_reader(queue, request, fields).await?;
        let header: TimestampResponseHeader = reply.header()?;
        Ok(Some(header.timestamp).filter(|timestamp| *timestamp >= 0))
    }
}

fn queue_header(queue: &MessageQueue) -> QueueHeader<'_> {
    QueueHeader {
        topic: Text::from(queue.topic.as_str()),
        queue_id: queue.queue_id,
        committed: None,
    }
}

/// Offsets are signed on the wire; none of ours comes near the border.
pub(crate) fn wire_offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
