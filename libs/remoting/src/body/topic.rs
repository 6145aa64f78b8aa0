//! Topics: their configuration, their lists and their offsets.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::reader::known_or_default;
use super::{
    BodyError, DataVersion, MessageQueue, TopicQueueMappingDetail, TopicQueueMappingInfo, bodies,
};

/// One topic on one broker. Source: `org.apache.rocketmq.common.TopicConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfig {
    /// `message.type`, `queue.type`, `cleanup.policy` and so on, without a leading sign.
    pub attributes: BTreeMap<String, String>,
    pub order: bool,
    /// Bits: 4 read, 2 write, 1 inherit; default 6.
    pub perm: i32,
    /// Default 16.
    pub read_queue_nums: i32,
    #[serde(deserialize_with = "known_or_default")]
    pub topic_filter_type: TopicFilterType,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic_name: String,
    /// Bits: 1 unit, 2 has unit subscriptions.
    pub topic_sys_flag: i32,
    /// Default 16.
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: 6,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

impl TopicConfig {
    /// Apache's text form, as it stands in compressed registrations:
    /// `name read write perm filterType {"attribute":"value"}`, parted by single blanks. It
    /// carries neither `order` nor `topic_sys_flag`.
    pub fn to_text(&self) -> String {
        let filter = match self.topic_filter_type {
            TopicFilterType::SingleTag => "SINGLE_TAG",
            TopicFilterType::MultiTag => "MULTI_TAG",
        };
        let attributes = super::writer::to_vec(&self.attributes, super::writer::Form::Fastjson);
        format!(
            "{} {} {} {} {filter} {}",
            self.topic_name,
            self.read_queue_nums,
            self.write_queue_nums,
            self.perm,
            String::from_utf8_lossy(&attributes),
        )
    }

    /// Reads [`to_text`](Self::to_text), also without attributes as brokers before 5.0 write it.
    /// Attributes that are no JSON are dropped as Apache drops them; blanks within them are kept,
    /// which Apache's decoder loses.
    ///
    /// # Errors
    /// [`BodyError::TopicText`] with fewer than five parts, or where a number is none.
    pub fn from_text(text: &str) -> Result<Self, BodyError> {
        Self::parse_text(text).ok_or_else(|| BodyError::TopicText { text: shortened(text) })
    }

    fn parse_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, ' ');
        let topic_name = parts.next()?.to_owned();
        let read_queue_nums = parts.next()?.parse().ok()?;
        let write_queue_nums = parts.next()?.parse().ok()?;
        let perm = parts.next()?.parse().ok()?;
        let topic_filter_type = match parts.next()? {
            "SINGLE_TAG" => TopicFilterType::SingleTag,
            "MULTI_TAG" => TopicFilterType::MultiTag,
            _ => return None,
        };
        let attributes =
            parts.next().and_then(|json| super::reader::from_slice(json.as_bytes()).ok());
        Some(Self {
            attributes: attributes.unwrap_or_default(),
            perm,
            read_queue_nums,
            topic_filter_type,
            topic_name,
            write_queue_nums,
            ..Default::default()
        })
    }
}

/// At most 200 characters, for an error that goes to a log.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Source: `org.apache.rocketmq.common.TopicFilterType`, variants in Java's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TopicFilterType {
    #[default]
    SingleTag,
    MultiTag,
}

/// All topics of a broker: the answer to code 21, the file `topics.json`, and part of a
/// registration. Source: `…body.TopicConfigSerializeWrapper` and its heir
/// `…body.TopicConfigAndMappingSerializeWrapper`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigSerializeWrapper {
    pub data_version: DataVersion,
    /// Only brokers with static topics have it; so with the two maps below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_data_version: Option<DataVersion>,
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub topic_queue_mapping_detail_map: BTreeMap<String, TopicQueueMappingDetail>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub topic_queue_mapping_info_map: BTreeMap<String, TopicQueueMappingInfo>,
}

/// Names of topics (codes 206, 224, 304, 305, 343 and others). Source: `…body.TopicList`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicList {
    /// Some broker of the cluster, where a caller asked for the topics of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    pub topic_list: BTreeSet<String>,
}

/// Many topics to create at once (code 18). Source: `…body.CreateTopicListRequestBody`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CreateTopicListRequestBody {
    pub topic_config_list: Vec<TopicConfig>,
}

/// A topic with its static mapping: the answer to code 351, the body of code 513.
/// Source: `…statictopic.TopicConfigAndQueueMapping`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicConfigAndQueueMapping {
    // Flattening buffers the values, so the tolerance must be asked for again.
    #[serde(flatten, deserialize_with = "crate::dialect::lenient::value")]
    pub config: TopicConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_detail: Option<TopicQueueMappingDetail>,
}

/// The offsets of each queue of a topic (code 202). Source: `…admin.TopicStatsTable`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicStatsTable {
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages a second.
    pub topic_put_tps: f64,
}

/// Source: `org.apache.rocketmq.remoting.protocol.admin.TopicOffset`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicOffset {
    /// Store time of the newest message in milliseconds since 1970; 0 for an empty queue.
    pub last_update_timestamp: i64,
    /// One past the newest queue offset.
    pub max_offset: i64,
    pub min_offset: i64,
}

bodies!(
    TopicConfig,
    TopicConfigSerializeWrapper,
    TopicList,
    CreateTopicListRequestBody,
    TopicConfigAndQueueMapping,
    TopicStatsTable,
);
