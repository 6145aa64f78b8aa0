//! Producers' and consumers' groups and their members.

use super::field::headers;
use crate::command::Text;

headers! {
    /// Code 35.
    pub struct UnregisterClientHeader<'a> {
        client_id: Text<'a> = "clientID",
        producer_group: Option<Text<'a>> = "producerGroup",
        consumer_group: Option<Text<'a>> = "consumerGroup",
    }

    /// Codes 38, 40 and 203.
    pub struct ConsumerGroupHeader<'a> {
        consumer_group: Text<'a> = "consumerGroup",
    }

    /// Code 204.
    pub struct ProducerGroupHeader<'a> {
        producer_group: Text<'a> = "producerGroup",
    }

    /// Codes 207 and 352.
    pub struct GroupNameHeader<'a> {
        group_name: Text<'a> = "groupName" | "group",
        clean_offset: Option<bool> = "cleanOffset" | "removeOffset",
    }

    /// Codes 307 and 309: a consumer is asked by way of its broker.
    pub struct RelayHeader<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        client_id: Option<Text<'a>> = "clientId",
        msg_id: Option<Text<'a>> = "msgId",
        jstack_enable: Option<bool> = "jstackEnable",
    }

    /// Code 208. Without a topic: every topic that the group has offsets of.
    pub struct ConsumeStatsHeader<'a> {
        consumer_group: Text<'a> = "consumerGroup",
        topic: Option<Text<'a>> = "topic",
    }

    /// Code 201, read page by page.
    pub struct GroupPageHeader {
        group_seq: Option<i32> = "groupSeq",
        max_group_num: Option<i32> = "maxGroupNum",
    }
}
