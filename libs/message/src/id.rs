//! Message ids that say where a message lies.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Where a message lies: the broker that stored it and the physical offset in its CommitLog.
///
/// As text: hex of the address (4 or 16 bytes), the port (4 bytes) and the offset (8 bytes), so
/// 32 or 56 upper-case digits. Source: `MessageDecoder.createMessageId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetMessageId {
    pub store_host: SocketAddr,
    pub physical_offset: u64,
}

impl OffsetMessageId {
    /// Reads the text form. `None` when it has another length or other characters.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 28];
        if !matches!(text.len(), 32 | 56) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (slot, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        let address_len = if text.len() == 32 { 4 } else { 16 };
        let (address, rest) = bytes[..text.len() / 2].split_at(address_len);
        let ip = match <[u8; 4]>::try_from(address) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        };
        let port = u32::from_be_bytes(rest[..4].try_into().ok()?);
        let physical_offset = u64::from_be_bytes(rest[4..].try_into().ok()?);
        Some(Self { store_host: SocketAddr::new(ip, u16::try_from(port).ok()?), physical_offset })
    }

    /// Appends the text form to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let mut push = |bytes: &[u8]| {
            for byte in bytes {
                out.push(DIGITS[usize::from(byte >> 4)]);
                out.push(DIGITS[usize::from(byte & 0xF)]);
            }
        };
        match self.store_host.ip() {
            IpAddr::V4(ip) => push(&ip.octets()),
            IpAddr::V6(ip) => push(&ip.octets()),
        }
        push(&u32::from(self.store_host.port()).to_be_bytes());
        push(&self.physical_offset.to_be_bytes());
    }
}

impl std::fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Vec::with_capacity(56);
        self.write_to(&mut text);
        text.iter().try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_comes_back() {
        for host in ["10.1.2.3:10911", "[2001:db8::1]:10911"] {
            let id =
                OffsetMessageId { store_host: host.parse().unwrap(), physical_offset: 123_456_789 };
            assert_eq!(OffsetMessageId::parse(&id.to_string()), Some(id));
        }
        let id = OffsetMessageId {
            store_host: "127.0.0.1:10911".parse().unwrap(),
            physical_offset: 255,
        };
        assert_eq!(id.to_string(), "7F00000100002A9F00000000000000FF");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "7F",
            "7F00000100002A9F00000000000000F",
            "zz00000100002A9F00000000000000FF",
            "7F000001FFFFFFFF00000000000000FF",
            "+F00000100002A9F00000000000000FF",
        ] {
            assert_eq!(OffsetMessageId::parse(text), None, "{text}");
        }
    }
}
