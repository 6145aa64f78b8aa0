//! Topics, groups and the broker itself, as administrators see them.

use super::field::headers;
use crate::command::Text;

headers! {
    /// Code 17. Source: `CreateTopicRequestHeader`.
    pub struct CreateTopicHeader<'a> {
        topic: Text<'a> = "topic",
        default_topic: Option<Text<'a>> = "defaultTopic",
        read_queue_nums: i32 = "readQueueNums",
        write_queue_nums: i32 = "writeQueueNums",
        perm: i32 = "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: Option<Text<'a>> = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: Option<bool> = "order",
        /// `+key=value,-key`. Source: `AttributeParser`.
        attributes: Option<Text<'a>> = "attributes",
        force: Option<bool> = "force",
    }

    /// Codes 105, 202, 215, 300 and 351: one topic.
    pub struct TopicHeader<'a> {
        topic: Text<'a> = "topic",
    }

    /// Code 21, read page by page.
    pub struct TopicPageHeader {
        topic_seq: Option<i32> = "topicSeq",
        max_topic_num: Option<i32> = "maxTopicNum",
    }

    /// Answers 1005. Source: `GetMetaDataResponseHeader`.
    pub struct ControllerMetadataResponseHeader<'a> {
        group: Text<'a> = "group",
        controller_leader_id: Text<'a> = "controllerLeaderId",
        controller_leader_address: Text<'a> = "controllerLeaderAddress",
        is_leader: bool = "isLeader",
        peers: Text<'a> = "peers",
    }

    /// Code 343, 345: what a group consumes.
    pub struct GroupTopicHeader<'a> {
        group: Text<'a> = "group",
        topic: Option<Text<'a>> = "topic",
    }
}
