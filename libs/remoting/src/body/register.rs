//! How a broker registers with a name server (code 103).

use std::collections::BTreeMap;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use super::{
    Body, BodyError, DataVersion, KVTable, TopicConfig, TopicConfigSerializeWrapper,
    TopicQueueMappingInfo, bodies, reader, writer,
};

/// The most bytes that a compressed registration may inflate to: 16 MiB, the limit of a frame.
pub const INFLATED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The key of [`RegisterBrokerResult::kv_table`]'s source namespace, as name servers call it.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// All that a broker tells besides the header. Whether the body is compressed stands in the
/// header, with its CRC-32 over the bytes as sent.
/// Source: `org.apache.rocketmq.remoting.protocol.body.RegisterBrokerBody`.
///
/// The compressed form is a zlib stream of (all lengths and counts are big-endian i32):
///
/// | part | bytes |
/// | --- | --- |
/// | data version | length, JSON |
/// | topics | count, then each length and [`TopicConfig::to_text`] |
/// | filter servers | length, JSON list |
/// | static topics | count, then each length and JSON of [`TopicQueueMappingInfo`] |
/// | listener addresses | length, JSON; ours, left out when empty; Apache stops before it |
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RegisterBrokerBody {
    pub filter_server_list: Vec<String>,
    /// Listener's name → `host:port` to give to those who ask on the listener of that name.
    /// WeirMQ's own; Apache's name servers ignore it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub listener_addresses: BTreeMap<String, String>,
    pub topic_config_serialize_wrapper: TopicConfigSerializeWrapper,
}

bodies!(RegisterBrokerBody);

impl RegisterBrokerBody {
    /// Reads a registration in the form that its header's `compressed` names.
    ///
    /// # Errors
    /// [`BodyError::Dialect`] and [`BodyError::Shape`] as any body; when compressed also
    /// [`BodyError::Inflate`], [`BodyError::TooLarge`] past [`INFLATED_BYTES_MAX`],
    /// [`BodyError::Truncated`] and [`BodyError::TopicText`].
    pub fn decode_form(bytes: &[u8], compressed: bool) -> Result<Self, BodyError> {
        if compressed { Self::decode_compressed(bytes) } else { Self::decode(bytes) }
    }

    /// Writes a registration, as JSON or compressed.
    pub fn encode_form(&self, compressed: bool) -> Vec<u8> {
        if compressed { self.encode_compressed() } else { self.encode() }
    }

    fn decode_compressed(bytes: &[u8]) -> Result<Self, BodyError> {
        let inflated = inflate(bytes)?;
        let mut parts = Parts { rest: &inflated };
        let data_version = DataVersion::decode(parts.block("data version")?)?;
        let mut topic_config_table = BTreeMap::new();
        for _ in 0..parts.count("topics")? {
            let block = parts.block("topics")?;
            let topic = TopicConfig::from_text(&String::from_utf8_lossy(block))?;
            topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        let filter_server_list = reader::from_slice(parts.block("filter servers")?)?;
        let mut topic_queue_mapping_info_map = BTreeMap::new();
        // Brokers before 5.0 end here.
        if !parts.rest.is_empty() {
            for _ in 0..parts.count("static topics")? {
                let info = TopicQueueMappingInfo::decode(parts.block("static topics")?)?;
                topic_queue_mapping_info_map.insert(info.topic.clone(), info);
            }
        }
        let mut listener_addresses = BTreeMap::new();
        if !parts.rest.is_empty() {
            listener_addresses = reader::from_slice(parts.block("listener addresses")?)?;
        }
        let topic_config_serialize_wrapper = TopicConfigSerializeWrapper {
            data_version,
            topic_config_table,
            topic_queue_mapping_info_map,
            ..Default::default()
        };
        Ok(Self { filter_server_list, listener_addresses, topic_config_serialize_wrapper })
    }

    fn encode_compressed(&self) -> Vec<u8> {
        let wrapper = &self.topic_config_serialize_wrapper;
        let mut parts = Vec::new();
        put_block(&mut parts, &wrapper.data_version.encode());
        put_count(&mut parts, wrapper.topic_config_table.len());
        for topic in wrapper.topic_config_table.values() {
            put_block(&mut parts, topic.to_text().as_bytes());
        }
        put_block(&mut parts, &writer::to_vec(&self.filter_server_list, writer::Form::Fastjson));
        put_count(&mut parts, wrapper.topic_queue_mapping_info_map.len());
        for info in wrapper.topic_queue_mapping_info_map.values() {
            put_block(&mut parts, &info.encode());
        }
        if !self.listener_addresses.is_empty() {
            put_block(&mut parts, &writer::to_vec(&self.listener_addresses, writer::Form::Strict));
        }
        deflate(&parts)
    }
}

/// What a name server knows in answer to a registration. The two addresses travel in the
/// response's header, the table is its body.
/// Source: `org.apache.rocketmq.remoting.protocol.namesrv.RegisterBrokerResult`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterBrokerResult {
    /// Where the master of the group accepts slaves; empty for a master.
    pub ha_server_addr: String,
    /// The master of the group; empty for a master.
    pub master_addr: String,
    /// The key-value configuration of the namespace [`ORDER_TOPIC_CONFIG`].
    pub kv_table: KVTable,
}

/// Lengths come from the peer: each is checked against what is left before it is used.
struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn number(&mut self, part: &'static str) -> Result<usize, BodyError> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(BodyError::Truncated { part })?;
        self.rest = rest;
        usize::try_from(i32::from_be_bytes(*number)).map_err(|_| BodyError::Truncated { part })
    }

    /// A number of blocks; each takes at least the four bytes of its length.
    fn count(&mut self, part: &'static str) -> Result<usize, BodyError> {
        let count = self.number(part)?;
        if count > self.rest.len() / 4 {
            return Err(BodyError::Truncated { part });
        }
        Ok(count)
    }

    fn block(&mut self, part: &'static str) -> Result<&'a [u8], BodyError> {
        let length = self.number(part)?;
        let (block, rest) =
            self.rest.split_at_checked(length).ok_or(BodyError::Truncated { part })?;
        self.rest = rest;
        Ok(block)
    }
}

fn put_count(parts: &mut Vec<u8>, count: usize) {
    // A frame ends at 16 MiB, far below what an i32 counts.
    parts.extend_from_slice(&(count as i32).to_be_bytes());
}

fn put_block(parts: &mut Vec<u8>, block: &[u8]) {
    put_count(parts, block.len());
    parts.extend_from_slice(block);
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, BodyError> {
    let mut inflated = Vec::new();
    let limit = INFLATED_BYTES_MAX as u64 + 1;
    let read = ZlibDecoder::new(bytes).take(limit).read_to_end(&mut inflated);
    if inflated.len() > INFLATED_BYTES_MAX {
        return Err(BodyError::TooLarge { limit: INFLATED_BYTES_MAX });
    }
    read.map_err(|_| BodyError::Inflate)?;
    Ok(inflated)
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_else(|error| unreachable!("writing to memory failed: {error}"))
}
