//! Static topics: logical queues that span brokers. Kept so that bodies of Apache's brokers with
//! such topics pass through unharmed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bodies;

/// A broker's part of a static topic. Source: `…statictopic.TopicQueueMappingInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicQueueMappingInfo {
    /// The broker's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bname: String,
    /// Logical queue → physical queue.
    pub curr_id_map: BTreeMap<i32, i32>,
    pub dirty: bool,
    pub epoch: i64,
    /// Default `__global__`.
    pub scope: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    pub total_queues: i32,
}

impl Default for TopicQueueMappingInfo {
    fn default() -> Self {
        Self {
            bname: String::new(),
            curr_id_map: BTreeMap::new(),
            dirty: false,
            epoch: 0,
            scope: "__global__".to_owned(),
            topic: String::new(),
            total_queues: 0,
        }
    }
}

/// As [`TopicQueueMappingInfo`], with the history of each logical queue.
/// Source: `…statictopic.TopicQueueMappingDetail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicQueueMappingDetail {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bname: String,
    pub curr_id_map: BTreeMap<i32, i32>,
    pub dirty: bool,
    pub epoch: i64,
    /// Logical queue → where its messages lie, oldest first.
    pub hosted_queues: BTreeMap<i32, Vec<LogicQueueMappingItem>>,
    pub scope: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    pub total_queues: i32,
}

impl Default for TopicQueueMappingDetail {
    fn default() -> Self {
        let info = TopicQueueMappingInfo::default();
        Self {
            bname: info.bname,
            curr_id_map: info.curr_id_map,
            dirty: info.dirty,
            epoch: info.epoch,
            hosted_queues: BTreeMap::new(),
            scope: info.scope,
            topic: info.topic,
            total_queues: info.total_queues,
        }
    }
}

/// A stretch of a logical queue. Source: `…statictopic.LogicQueueMappingItem`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogicQueueMappingItem {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bname: String,
    /// Exclusive; −1 (the default) while the stretch still grows.
    pub end_offset: i64,
    #[serde(rename = "gen")]
    pub generation: i32,
    /// Where the stretch begins in the logical queue; −1 until that is decided.
    pub logic_offset: i64,
    pub queue_id: i32,
    /// Where the stretch begins in the physical queue.
    pub start_offset: i64,
    /// Milliseconds since 1970, −1 (the default) when not known; so with `time_of_start`.
    pub time_of_end: i64,
    pub time_of_start: i64,
}

impl Default for LogicQueueMappingItem {
    fn default() -> Self {
        Self {
            bname: String::new(),
            end_offset: -1,
            generation: 0,
            logic_offset: 0,
            queue_id: 0,
            start_offset: 0,
            time_of_end: -1,
            time_of_start: -1,
        }
    }
}

bodies!(TopicQueueMappingInfo, TopicQueueMappingDetail, LogicQueueMappingItem);
