//! Offsets of queues and of consumer groups.

use super::field::headers;
use crate::command::Text;

headers! {
    /// Code 14.
    pub struct QueryConsumerOffsetHeader<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }

    /// Code 15.
    pub struct UpdateConsumerOffsetHeader<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        commit_offset: i64 = "commitOffset",
    }

    /// Code 29.
    pub struct SearchOffsetHeader<'a> {
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        /// Milliseconds since 1970.
        timestamp: i64 = "timestamp",
        /// `LOWER` (the default) or `UPPER`.
        boundary_type: Option<Text<'a>> = "boundaryType",
    }

    /// Codes 30, 31 and 32: one queue.
    pub struct QueueHeader<'a> {
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        committed: Option<bool> = "committed",
    }

    /// Codes 220 and 222. Source: `ResetOffsetRequestHeader`.
    pub struct ResetOffsetHeader<'a> {
        topic: Text<'a> = "topic",
        group: Text<'a> = "group",
        /// Milliseconds since 1970; -1: behind the newest message.
        timestamp: i64 = "timestamp",
        /// Also over messages that the group has not seen.
        is_force: bool = "isForce",
    }

    /// Answers 14, 29, 30 and 31.
    pub struct OffsetResponseHeader {
        offset: i64 = "offset",
    }

    /// Answers 32. Milliseconds since 1970.
    pub struct TimestampResponseHeader {
        timestamp: i64 = "timestamp",
    }
}
