//! What goes into an append and what comes out.

use std::net::{Ipv4Addr, SocketAddr};

use weirmq_message::record::Record;

use crate::dispatch::KeySource;

/// One message to append. The store adds queue offset, physical offset and store timestamp.
///
/// `tag_hash`, `index_keys` and `dispatch` must be what [`crate::StoreConfig::dispatch`] says of
/// the stored record, because recovery has only the record to go by.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    /// At most 255 bytes.
    pub topic: &'a str,
    pub queue_id: i32,
    /// The producer's own flag.
    pub flag: i32,
    /// See [`weirmq_message::sys_flag`].
    pub sys_flag: i32,
    /// Milliseconds since 1970.
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    /// Encoded as in [`weirmq_message::properties`], at most 32,767 bytes.
    pub properties: &'a [u8],
    /// Hash of the tag, 0 without one; third field of the ConsumeQueue entry.
    pub tag_hash: i64,
    pub index_keys: KeySource,
    /// Whether the message gets a ConsumeQueue entry. Without one its queue offset is 0, as
    /// Apache's prepared and rolled back records have.
    pub dispatch: bool,
}

impl<'a> NewMessage<'a> {
    /// A message of nobody in particular that is only a body: no properties, no tag, no keys, no
    /// times, and an entry in its queue.
    pub fn plain(topic: &'a str, queue_id: i32, body: &'a [u8]) -> Self {
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self {
            topic,
            queue_id,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: nobody,
            store_host: nobody,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: b"",
            tag_hash: 0,
            index_keys: KeySource::None,
            dispatch: true,
        }
    }

    pub(crate) fn to_record(
        self,
        queue_offset: u64,
        physical_offset: u64,
        store_timestamp: i64,
    ) -> Record<'a> {
        Record {
            topic: self.topic,
            queue_id: self.queue_id,
            flag: self.flag,
            queue_offset,
            physical_offset,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            born_host: self.born_host,
            store_timestamp,
            store_host: self.store_host,
            reconsume_times: self.reconsume_times,
            prepared_transaction_offset: self.prepared_transaction_offset,
            body: self.body,
            properties: self.properties,
        }
    }
}

/// Where one message landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Bytes from the start of the log.
    pub physical_offset: u64,
    /// Where the record ends: the position to wait for.
    pub end_offset: u64,
    /// Entries from the start of the queue.
    pub queue_offset: u64,
    /// Milliseconds since 1970.
    pub store_timestamp: i64,
    /// Bytes of the record.
    pub size: u32,
}
