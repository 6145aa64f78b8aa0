//! Sending messages. Source: `SendMessageRequestHeader`, `SendMessageRequestHeaderV2`,
//! `SendMessageResponseHeader`, `ConsumerSendMsgBackRequestHeader`.

use std::borrow::Cow;

use super::field::headers;
use crate::command::Text;

headers! {
    /// Codes 10 (long names), 310 and 320 (one letter each). Apache's decoder of this header does
    /// not insist on the group and the template.
    pub struct SendMessageHeader<'a> {
        producer_group: Option<Text<'a>> = "producerGroup" | "a",
        topic: Text<'a> = "topic" | "b",
        /// The topic whose settings an automatically created topic takes, `TBW102`.
        default_topic: Option<Text<'a>> = "defaultTopic" | "c",
        default_topic_queue_nums: Option<i32> = "defaultTopicQueueNums" | "d",
        /// Negative: the broker chooses.
        queue_id: i32 = "queueId" | "e",
        sys_flag: i32 = "sysFlag" | "f",
        /// Milliseconds since 1970 by the producer's clock.
        born_timestamp: i64 = "bornTimestamp" | "g",
        flag: i32 = "flag" | "h",
        /// Encoded as in `weirmq_message::properties`.
        properties: Option<Text<'a>> = "properties" | "i",
        reconsume_times: Option<i32> = "reconsumeTimes" | "j",
        unit_mode: Option<bool> = "unitMode" | "k",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes" | "l",
        batch: Option<bool> = "batch" | "m",
        broker_name: Option<Text<'a>> = "bname" | "n",
    }

    /// Answers every send that stored something. All three ids are always there: a Java client
    /// fails on a reply without extension fields.
    pub struct SendMessageResponseHeader<'a> {
        /// Ids of where the messages lie, joined by commas for a batch.
        msg_id: Cow<'a, str> = "msgId",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        transaction_id: Option<Cow<'a, str>> = "transactionId",
    }

    /// Code 36: a consumer could not consume a message and wants it again later.
    pub struct ConsumerSendMessageBackHeader<'a> {
        /// Where the message lies in this broker's log.
        offset: i64 = "offset",
        group: Text<'a> = "group",
        /// Negative: to the dead letters; 0: the broker chooses; else the level.
        delay_level: i32 = "delayLevel",
        origin_msg_id: Option<Text<'a>> = "originMsgId",
        origin_topic: Option<Text<'a>> = "originTopic",
        unit_mode: Option<bool> = "unitMode",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
    }
}

impl SendMessageHeader<'_> {
    /// The one-letter names, which code 310 and 320 use.
    pub fn encode_v2(&self, writer: &mut crate::command::HeaderWriter<'_>) {
        if let Some(group) = self.producer_group {
            writer.text("a", group);
        }
        writer.text("b", self.topic);
        if let Some(template) = self.default_topic {
            writer.text("c", template);
        }
        writer.number("d", self.default_topic_queue_nums.unwrap_or_default());
        writer.number("e", self.queue_id);
        writer.number("f", self.sys_flag);
        writer.number("g", self.born_timestamp);
        writer.number("h", self.flag);
        if let Some(properties) = self.properties {
            writer.text("i", properties);
        }
        writer.number("j", self.reconsume_times.unwrap_or_default());
        writer.boolean("k", self.unit_mode.unwrap_or_default());
        if let Some(max) = self.max_reconsume_times {
            writer.number("l", max);
        }
        writer.boolean("m", self.batch.unwrap_or_default());
    }
}
