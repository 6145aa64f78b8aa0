//! Pulling messages. Source: `PullMessageRequestHeader`, `PullMessageResponseHeader`,
//! `PullSysFlag`.

use super::field::headers;
use crate::command::Text;

/// Bit of a pull's `sysFlag`: `commitOffset` is to be stored.
pub const PULL_COMMIT_OFFSET: i32 = 0x1;
/// Bit of a pull's `sysFlag`: hold the request when nothing is there.
pub const PULL_SUSPEND: i32 = 0x2;
/// Bit of a pull's `sysFlag`: the header holds the subscription.
pub const PULL_SUBSCRIPTION: i32 = 0x4;
/// Bit of a pull's `sysFlag`: filter by class, which no broker does any more.
pub const PULL_CLASS_FILTER: i32 = 0x8;
/// Bit of a pull's `sysFlag`: a lite pull consumer asks.
pub const PULL_LITE: i32 = 0x10;

headers! {
    /// Codes 11 and 361.
    pub struct PullMessageHeader<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Text<'a> = "topic",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        max_msg_nums: i32 = "maxMsgNums",
        sys_flag: i32 = "sysFlag",
        commit_offset: Option<i64> = "commitOffset",
        suspend_timeout_millis: Option<i64> = "suspendTimeoutMillis",
        subscription: Option<Text<'a>> = "subscription",
        sub_version: Option<i64> = "subVersion",
        expression_type: Option<Text<'a>> = "expressionType",
        max_msg_bytes: Option<i32> = "maxMsgBytes",
    }

    /// Answers every pull, whatever came of it: clients read all four fields.
    pub struct PullMessageResponseHeader {
        suggest_which_broker_id: i64 = "suggestWhichBrokerId",
        next_begin_offset: i64 = "nextBeginOffset",
        min_offset: i64 = "minOffset",
        max_offset: i64 = "maxOffset",
        offset_delta: Option<i64> = "offsetDelta",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
        /// Why reading is forbidden, 1 to 4. Source: `ForbiddenType`.
        forbidden_type: Option<i32> = "forbiddenType",
    }
}
