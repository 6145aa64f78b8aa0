//! One stored message.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | total size |
//! | 4 | magic: V1 0xDAA320A7, V2 0xDAA320AB; 0xCBD43194 pads a segment's end |
//! | 4 | CRC-32 of the body, top bit cleared |
//! | 4 | queue id |
//! | 4 | flag, the producer's own |
//! | 8 | queue offset, in entries |
//! | 8 | physical offset, in bytes from the start of the log |
//! | 4 | sysFlag |
//! | 8 | born timestamp, ms |
//! | 8 or 20 | born host: address and port |
//! | 8 | store timestamp, ms |
//! | 8 or 20 | store host |
//! | 4 | reconsume times |
//! | 8 | prepared transaction offset |
//! | 4 + n | body |
//! | 1 + n or 2 + n | topic (two length bytes with magic V2) |
//! | 2 + n | properties |
//!
//! All numbers are big-endian. Source: `MessageDecoder`, `CommitLog`.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::{body_crc, sys_flag};

/// Magic of a record whose topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a record whose topic length is two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic of the padding at the end of a segment.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// The size of a padding's head: its total size and magic.
pub const BLANK_HEAD_BYTES: usize = 8;
/// The longest topic that a V1 record holds, in bytes.
pub const TOPIC_V1_BYTES_MAX: usize = 127;
/// The offset of the queue offset inside a record.
pub const QUEUE_OFFSET_AT: usize = 20;
/// The offset of the physical offset inside a record.
pub const PHYSICAL_OFFSET_AT: usize = 28;
/// The offset of the sysFlag inside a record.
const SYS_FLAG_AT: usize = 36;
/// What a record of no body, topic and properties takes with IPv4 hosts.
pub const FIXED_BYTES: usize = 4 + 4 + 4 + 4 + 4 + 8 + 8 + 4 + 8 + 8 + 8 + 8 + 4 + 8 + 4 + 1 + 2;

/// Within so many bytes from its start stands all of a record that is not its body, topic or properties.
pub const HEAD_BYTES_MAX: usize = FIXED_BYTES - 3 + 2 * 12;

/// One stored message with borrowed contents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<'a> {
    pub topic: &'a str,
    pub queue_id: i32,
    /// The producer's own flag; brokers never read it.
    pub flag: i32,
    /// Position in the queue, in entries.
    pub queue_offset: u64,
    /// Position in the log, in bytes.
    pub physical_offset: u64,
    /// See [`sys_flag`]. Encoding sets the two host bits from the hosts.
    pub sys_flag: i32,
    /// When the producer made the message, milliseconds since 1970, by its clock.
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    /// When the broker stored it, milliseconds since 1970.
    pub store_timestamp: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    /// Encoded as in [`crate::properties`], at most 32,767 bytes.
    pub properties: &'a [u8],
}

/// What stands at a position of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// A message and the bytes that it takes.
    Record(Record<'a>, usize),
    /// Padding up to the segment's end, of this many bytes.
    Blank(usize),
    /// Zeros: nothing was written here.
    End,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record ends inside its {field}")]
    Truncated { field: &'static str },
    #[error("magic is {0:#010x}, which no record has")]
    Magic(u32),
    #[error("length of {field} is {length}, which is negative or beyond its limit")]
    Length { field: &'static str, length: i64 },
    #[error("{field} takes {length} bytes, more than a record can hold")]
    TooLong { field: &'static str, length: usize },
    #[error("body checksum is {found:#010x}, the record says {expected:#010x}")]
    Crc { expected: u32, found: u32 },
    #[error("{field} is not valid UTF-8")]
    Utf8 { field: &'static str },
    #[error("{field} does not agree with the sizes inside it")]
    Mismatch { field: &'static str },
}

impl<'a> Record<'a> {
    /// The bytes that [`Record::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let host = |address: &SocketAddr| if address.is_ipv6() { 12 } else { 0 };
        FIXED_BYTES
            + usize::from(self.topic.len() > TOPIC_V1_BYTES_MAX)
            + host(&self.born_host)
            + host(&self.store_host)
            + self.topic.len()
            + self.body.len()
            + self.properties.len()
    }

    /// Appends the record to `out`. A topic of up to 127 bytes makes a V1 record, a longer one V2.
    ///
    /// # Errors
    /// [`RecordError::TooLong`] when topic, properties or the whole do not fit their length field;
    /// nothing was written then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let total = self.encoded_len();
        let total_size = i32::try_from(total)
            .map_err(|_| RecordError::TooLong { field: "record", length: total })?;
        let properties_len = i16::try_from(self.properties.len()).map_err(|_| {
            RecordError::TooLong { field: "properties", length: self.properties.len() }
        })?;
        let topic_len = i16::try_from(self.topic.len())
            .map_err(|_| RecordError::TooLong { field: "topic", length: self.topic.len() })?;
        let is_v2 = self.topic.len() > TOPIC_V1_BYTES_MAX;
        let host_bit = |address: &SocketAddr, bit| if address.is_ipv6() { bit } else { 0 };
        let sys_flag = self.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6)
            | host_bit(&self.born_host, sys_flag::BORN_HOST_V6)
            | host_bit(&self.store_host, sys_flag::STORE_HOST_V6);

        out.reserve(total);
        out.extend_from_slice(&total_size.to_be_bytes());
        out.extend_from_slice(&if is_v2 { MAGIC_V2 } else { MAGIC_V1 }.to_be_bytes());
        out.extend_from_slice(&body_crc(self.body).to_be_bytes());
        out.extend_from_slice(&self.queue_id.to_be_bytes());
        out.extend_from_slice(&self.flag.to_be_bytes());
        out.extend_from_slice(&self.queue_offset.to_be_bytes());
        out.extend_from_slice(&self.physical_offset.to_be_bytes());
        out.extend_from_slice(&sys_flag.to_be_bytes());
        out.extend_from_slice(&self.born_timestamp.to_be_bytes());
        push_host(out, &self.born_host);
        out.extend_from_slice(&self.store_timestamp.to_be_bytes());
        push_host(out, &self.store_host);
        out.extend_from_slice(&self.reconsume_times.to_be_bytes());
        out.extend_from_slice(&self.prepared_transaction_offset.to_be_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_be_bytes());
        out.extend_from_slice(self.body);
        if is_v2 {
            out.extend_from_slice(&topic_len.to_be_bytes());
        } else {
            out.push(self.topic.len() as u8);
        }
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(&properties_len.to_be_bytes());
        out.extend_from_slice(self.properties);
        Ok(())
    }

    /// Reads what stands at the start of `bytes`; what follows it is not looked at.
    ///
    /// With `check_crc` the body is compared with its checksum.
    ///
    /// # Errors
    /// Any [`RecordError`]; [`RecordError::Truncated`] when `bytes` end before the record does.
    pub fn decode(bytes: &'a [u8], check_crc: bool) -> Result<Decoded<'a>, RecordError> {
        let mut head = Cursor::new(bytes);
        let total = head.i32("total size")?;
        let magic = head.i32("magic")? as u32;
        if total == 0 && magic == 0 {
            return Ok(Decoded::End);
        }
        let minimum = if magic == MAGIC_BLANK { BLANK_HEAD_BYTES } else { FIXED_BYTES };
        let total = usize::try_from(total)
            .ok()
            .filter(|total| *total >= minimum)
            .ok_or(RecordError::Length { field: "record", length: i64::from(total) })?;
        match magic {
            MAGIC_BLANK => Ok(Decoded::Blank(total)),
            MAGIC_V1 | MAGIC_V2 if total > bytes.len() => {
                Err(RecordError::Truncated { field: "record" })
            }
            MAGIC_V1 | MAGIC_V2 => {
                let record = decode_fields(&bytes[..total], magic == MAGIC_V2, check_crc)?;
                Ok(Decoded::Record(record, total))
            }
            other => Err(RecordError::Magic(other)),
        }
    }
}

/// Where the body lies in the record that `head` begins, in bytes from its start: behind its length and
/// in front of the topic's, for which the record has room. `head` holds the first [`HEAD_BYTES_MAX`]
/// bytes of the record, or all of it; none of the rest is needed.
///
/// # Errors
/// A [`RecordError`] if no record begins like this, whatever follows.
pub fn body_range(head: &[u8]) -> Result<Range<usize>, RecordError> {
    let mut cursor = Cursor::new(head);
    let total = cursor.i32("total size")?;
    let total = usize::try_from(total)
        .map_err(|_| RecordError::Length { field: "record", length: i64::from(total) })?;
    cursor.skip("head", SYS_FLAG_AT - 4)?;
    let sys_flag = cursor.i32("sysFlag")?;
    cursor.skip("born timestamp", 8)?;
    cursor.host("born host", sys_flag & sys_flag::BORN_HOST_V6 != 0)?;
    cursor.skip("store timestamp", 8)?;
    cursor.host("store host", sys_flag & sys_flag::STORE_HOST_V6 != 0)?;
    cursor.skip("transaction", 12)?;
    let length = cursor.length("body", total)?;
    let start = head.len() - cursor.rest.len();
    match start + length < total {
        true => Ok(start..start + length),
        false => Err(RecordError::Truncated { field: "body" }),
    }
}

/// The records of a pull reply's body, in order. The first damaged one ends the iteration.
pub fn records(body: &[u8]) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match Record::decode(rest, true) {
            Ok(Decoded::Record(record, length)) => {
                rest = &rest[length..];
                Some(Ok(record))
            }
            Ok(Decoded::Blank(_) | Decoded::End) => None,
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}

fn decode_fields(bytes: &[u8], is_v2: bool, check_crc: bool) -> Result<Record<'_>, RecordError> {
    let mut cursor = Cursor::new(bytes);
    cursor.skip("head", 8)?;
    let crc = cursor.i32("body CRC")? as u32;
    let queue_id = cursor.i32("queue id")?;
    let flag = cursor.i32("flag")?;
    let queue_offset = cursor.offset("queue offset")?;
    let physical_offset = cursor.offset("physical offset")?;
    let sys_flag = cursor.i32("sysFlag")?;
    let born_timestamp = cursor.i64("born timestamp")?;
    let born_host = cursor.host("born host", sys_flag & sys_flag::BORN_HOST_V6 != 0)?;
    let store_timestamp = cursor.i64("store timestamp")?;
    let store_host = cursor.host("store host", sys_flag & sys_flag::STORE_HOST_V6 != 0)?;
    let reconsume_times = cursor.i32("reconsume times")?;
    let prepared_transaction_offset = cursor.i64("prepared transaction offset")?;
    let body = cursor.sized_body(bytes.len())?;
    let topic_len = if is_v2 {
        let length = cursor.i16("topic length")?;
        usize::try_from(length)
            .map_err(|_| RecordError::Length { field: "topic", length: i64::from(length) })?
    } else {
        usize::from(cursor.take("topic length", 1)?[0])
    };
    let topic = std::str::from_utf8(cursor.take("topic", topic_len)?)
        .map_err(|_| RecordError::Utf8 { field: "topic" })?;
    let properties = cursor.sized_properties()?;
    if !cursor.is_empty() {
        return Err(RecordError::Mismatch { field: "total size" });
    }
    if check_crc {
        let found = body_crc(body);
        // Some writers keep the top bit; only 31 bits are compared, as Apache does.
        if found != crc & 0x7FFF_FFFF {
            return Err(RecordError::Crc { expected: crc, found });
        }
    }
    Ok(Record {
        topic,
        queue_id,
        flag,
        queue_offset,
        physical_offset,
        sys_flag,
        born_timestamp,
        born_host,
        store_timestamp,
        store_host,
        reconsume_times,
        prepared_transaction_offset,
        body,
        properties,
    })
}

fn push_host(out: &mut Vec<u8>, host: &SocketAddr) {
    match host.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&u32::from(host.port()).to_be_bytes());
}

/// Reads big-endian fields and never past the end.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(
        &mut self,
        field: &'static str,
        length: usize,
    ) -> Result<&'a [u8], RecordError> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or(RecordError::Truncated { field })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn skip(&mut self, field: &'static str, length: usize) -> Result<(), RecordError> {
        self.take(field, length).map(|_| ())
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or(RecordError::Truncated { field })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn i16(&mut self, field: &'static str) -> Result<i16, RecordError> {
        self.array(field).map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, RecordError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, RecordError> {
        self.array(field).map(i64::from_be_bytes)
    }

    fn offset(&mut self, field: &'static str) -> Result<u64, RecordError> {
        let value = self.i64(field)?;
        u64::try_from(value).map_err(|_| RecordError::Length { field, length: value })
    }

    /// A 32-bit length of at most `max`.
    pub(crate) fn length(&mut self, field: &'static str, max: usize) -> Result<usize, RecordError> {
        let value = self.i32(field)?;
        usize::try_from(value)
            .ok()
            .filter(|length| *length <= max)
            .ok_or(RecordError::Length { field, length: i64::from(value) })
    }

    pub(crate) fn sized_body(&mut self, max: usize) -> Result<&'a [u8], RecordError> {
        let length = self.length("body", max)?;
        self.take("body", length)
    }

    pub(crate) fn sized_properties(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.i16("properties length")?;
        let length = usize::try_from(length)
            .map_err(|_| RecordError::Length { field: "properties", length: i64::from(length) })?;
        self.take("properties", length)
    }

    fn host(&mut self, field: &'static str, is_v6: bool) -> Result<SocketAddr, RecordError> {
        let ip = if is_v6 {
            IpAddr::from(self.array::<16>(field)?)
        } else {
            IpAddr::from(self.array::<4>(field)?)
        };
        let port = self.i32(field)?;
        // Some clients send a port of -1 for "not connected"; only 16 bits can mean anything.
        Ok(SocketAddr::new(ip, port as u16))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample<'a>(topic: &'a str, body: &'a [u8]) -> Record<'a> {
        Record {
            topic,
            queue_id: 3,
            flag: -7,
            queue_offset: 41,
            physical_offset: 1 << 40,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            born_host: "10.0.0.1:40000".parse().unwrap(),
            store_timestamp: 1_700_000_000_123,
            store_host: "127.0.0.1:10911".parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 0,
            body,
            properties: b"TAGS\x01a\x02",
        }
    }

    fn encode(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes).unwrap();
        assert_eq!(bytes.len(), record.encoded_len());
        bytes
    }

    #[test]
    fn a_long_topic_makes_a_v2_record() {
        let topic = "t".repeat(200);
        let bytes = encode(&sample(&topic, b"body"));
        assert_eq!(bytes[4..8], MAGIC_V2.to_be_bytes());
        let Ok(Decoded::Record(record, length)) = Record::decode(&bytes, true) else { panic!() };
        assert_eq!((record.topic, length), (topic.as_str(), bytes.len()));
    }

    #[test]
    fn every_cut_and_every_flipped_body_bit_is_an_error() {
        let bytes = encode(&sample("topic", b"some body"));
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut], true).is_err(), "cut at {cut}");
        }
        let body_at = bytes.windows(9).position(|window| window == b"some body").unwrap();
        let mut damaged = bytes.clone();
        damaged[body_at] ^= 1;
        assert!(matches!(Record::decode(&damaged, true), Err(RecordError::Crc { .. })));
    }

    #[test]
    fn the_body_is_found_from_the_head_alone() {
        let (v4, v6) = ("10.0.0.1:40000", "[2001:db8::1]:40000");
        for (born, store) in [(v4, v4), (v4, v6), (v6, v4), (v6, v6)] {
            let (born_host, store_host) = (born.parse().unwrap(), store.parse().unwrap());
            let bytes = encode(&Record { born_host, store_host, ..sample("topic", &[7; 500]) });
            let found = body_range(&bytes[..HEAD_BYTES_MAX]).unwrap();
            assert_eq!(bytes[found.clone()], [7; 500]);
            assert!(bytes[found.start - 1] == 500_u32.to_be_bytes()[3] && bytes[found.end] == 5);
            for cut in 0..found.start {
                body_range(&bytes[..cut]).unwrap_err();
            }
            for length in [-1, 0x7FFF_FFFF, bytes.len() as i32] {
                let mut wrong = bytes.clone();
                wrong[found.start - 4..found.start].copy_from_slice(&length.to_be_bytes());
                body_range(&wrong).unwrap_err();
            }
        }
    }

    #[test]
    fn zeros_are_the_end_and_padding_has_a_size() {
        assert_eq!(Record::decode(&[0; 8], true), Ok(Decoded::End));
        let mut blank = 100i32.to_be_bytes().to_vec();
        blank.extend_from_slice(&MAGIC_BLANK.to_be_bytes());
        assert_eq!(Record::decode(&blank, true), Ok(Decoded::Blank(100)));
        assert!(Record::decode(&[0, 0, 0, 0, 1, 0, 0, 0], true).is_err());
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(
            topic in "[a-zA-Z0-9_%-]{1,255}",
            body in proptest::collection::vec(any::<u8>(), 0..2000),
            properties in proptest::collection::vec(any::<u8>(), 0..300),
            born_v6 in any::<bool>(), store_v6 in any::<bool>(),
            numbers in any::<(i32, i32, i32, i64, i64, i32, i64)>(),
        ) {
            let host = |v6| if v6 { "[2001:db8::7]:1234" } else { "1.2.3.4:5678" };
            let record = Record {
                queue_id: numbers.0, flag: numbers.1, reconsume_times: numbers.2,
                born_timestamp: numbers.3, store_timestamp: numbers.4,
                sys_flag: numbers.5 & !0x30 | i32::from(born_v6) << 4 | i32::from(store_v6) << 5,
                prepared_transaction_offset: numbers.6,
                born_host: host(born_v6).parse().unwrap(), store_host: host(store_v6).parse().unwrap(),
                properties: &properties,
                ..sample(&topic, &body)
            };
            let bytes = encode(&record);
            prop_assert_eq!(Record::decode(&bytes, true), Ok(Decoded::Record(record, bytes.len())));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Record::decode(&bytes, true);
            let _ = records(&bytes).count();
        }
    }
}
