//! Looking single messages up.

use super::field::headers;
use crate::command::Text;

/// The extension field that asks for a look-up by unique key.
pub const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";

headers! {
    /// Code 12.
    pub struct QueryMessageHeader<'a> {
        topic: Text<'a> = "topic",
        key: Text<'a> = "key",
        max_num: i32 = "maxNum",
        begin_timestamp: i64 = "beginTimestamp",
        end_timestamp: i64 = "endTimestamp",
        /// Source: `MixAll.UNIQUE_MSG_QUERY_FLAG`.
        is_unique_key: Option<bool> = "_UNIQUE_KEY_QUERY",
    }

    /// Answers 12.
    pub struct QueryMessageResponseHeader {
        index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        index_last_update_phyoffset: i64 = "indexLastUpdatePhyoffset",
    }

    /// Code 33.
    pub struct ViewMessageHeader<'a> {
        offset: i64 = "offset",
        topic: Option<Text<'a>> = "topic",
    }
}
