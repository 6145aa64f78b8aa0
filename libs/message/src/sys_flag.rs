//! Bits of a message's `sysFlag`. Source: `MessageSysFlag`.

/// The body is compressed; bits 8 to 10 say how.
pub const COMPRESSED: i32 = 0x1;
/// The tag property holds several tags.
pub const MULTI_TAGS: i32 = 0x2;
/// A half message: sent inside a transaction that is not decided yet.
pub const TRANSACTION_PREPARED: i32 = 0x4;
/// The transaction was committed.
pub const TRANSACTION_COMMIT: i32 = 0x8;
/// The transaction was rolled back.
pub const TRANSACTION_ROLLBACK: i32 = 0xC;
/// The host a message was born at is an IPv6 address (16 bytes instead of 4).
pub const BORN_HOST_V6: i32 = 0x10;
/// The host that stored a message is an IPv6 address (16 bytes instead of 4).
pub const STORE_HOST_V6: i32 = 0x20;

/// The mask of the two transaction bits.
const TRANSACTION_MASK: i32 = 0xC;

/// The transaction bits of a flag: 0 when the message belongs to no transaction.
pub fn transaction_value(sys_flag: i32) -> i32 {
    sys_flag & TRANSACTION_MASK
}

/// How a compressed body was compressed. 0 is what clients before 5.0 write, and means ZLIB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Zlib,
    Lz4,
    Zstd,
    /// A number that this version does not know.
    Unknown(i32),
}

/// The compression of a body, `None` when it is not compressed.
pub fn compression(sys_flag: i32) -> Option<Compression> {
    if sys_flag & COMPRESSED == 0 {
        return None;
    }
    Some(match (sys_flag >> 8) & 0x7 {
        0 | 3 => Compression::Zlib,
        1 => Compression::Lz4,
        2 => Compression::Zstd,
        other => Compression::Unknown(other),
    })
}
