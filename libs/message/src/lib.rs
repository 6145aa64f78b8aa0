//! One RocketMQ message, as it stands in the CommitLog and in the body of a pull reply.
//!
//! The stored format is the wire format, so it lives here once, below the store and the remoting
//! protocol. Nothing in this crate does I/O, and nothing allocates a size that a peer chose.
//!
//! Layouts follow Apache's `MessageDecoder`, `MessageExtEncoder` and `MessageConst`.

#![forbid(unsafe_code)]

pub mod batch;
pub mod delay;
pub mod id;
pub mod properties;
pub mod record;
pub mod sys_flag;
pub mod tags;

pub use record::{Decoded, Record, RecordError};

/// The checksum that a record carries of its body: CRC-32 (zlib polynomial), top bit cleared.
///
/// Source: `UtilAll.crc32`.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}
