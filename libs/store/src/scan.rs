//! Walks a segment record by record, and finds records where the walk cannot go on.

use weirmq_message::record::{
    Decoded, HEAD_BYTES_MAX, MAGIC_V1, MAGIC_V2, PHYSICAL_OFFSET_AT, Record, RecordError,
    body_range,
};

use crate::error::StoreError;
use crate::segment::Segment;

/// One read; a record that is longer gets a longer one.
const CHUNK_BYTES: usize = 1 << 20;
/// What a search must see of a record to know it: everything up to its physical offset.
const RECOGNISED_BYTES: usize = PHYSICAL_OFFSET_AT + 8;

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Record(Record<'a>, u64),
    /// Padding, or no room for any: the next record is in the next segment.
    SegmentEnd,
    /// Zeros.
    Nothing,
    Invalid(String),
}

/// A walk through one segment. Bytes from disk are hostile: every length is checked against what
/// is left, and a record must say that it is where it is.
pub(crate) struct Scanner<'s> {
    segment: &'s Segment,
    /// Whether checksums are compared and lost sectors looked for.
    is_unproved: bool,
    /// The least that one read fetches.
    chunk_bytes: usize,
    /// Bytes of the log from `buffer_start` on.
    buffer: Vec<u8>,
    buffer_start: u64,
    position: u64,
}

impl<'s> Scanner<'s> {
    pub(crate) fn new(segment: &'s Segment, position: u64, is_unproved: bool) -> Self {
        let (buffer, buffer_start, chunk_bytes) = (Vec::new(), position, CHUNK_BYTES);
        Self { segment, is_unproved, chunk_bytes, buffer, buffer_start, position }
    }

    /// Reads one record and nothing behind it.
    pub(crate) fn of_one(segment: &'s Segment, position: u64) -> Self {
        Self { chunk_bytes: 0, ..Self::new(segment, position, true) }
    }

    /// Where the next step begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Looks at the current position and moves behind it if a record stands there.
    pub(crate) fn step(&mut self) -> Result<Step<'_>, StoreError> {
        let left = self.segment.end() - self.position;
        if left < 8 {
            return Ok(Step::SegmentEnd);
        }
        self.fill(8)?;
        let position = self.position;
        let invalid = |error: RecordError| Ok(Step::Invalid(format!("at {position}: {error}")));
        // The head alone says which of the four it is; only a record makes us read on.
        match Record::decode(&self.ahead()[..8], false) {
            Ok(Decoded::Blank(length)) if length as u64 == left => return Ok(Step::SegmentEnd),
            Ok(Decoded::Blank(length)) => {
                let reason =
                    format!("padding at {position} is {length} bytes long where {left} are left");
                return Ok(Step::Invalid(reason));
            }
            Ok(Decoded::End) => return Ok(Step::Nothing),
            Ok(Decoded::Record(..)) | Err(RecordError::Truncated { .. }) => {}
            Err(error) => return invalid(error),
        }
        let size = i32::from_be_bytes(*self.ahead().first_chunk().expect("filled with 8 bytes"));
        let Some(size) = usize::try_from(size).ok().filter(|size| *size as u64 <= left) else {
            return Ok(Step::Invalid(format!(
                "a record at {position} is {size} bytes long where {left} are left"
            )));
        };
        if self.ahead().len() < size {
            // A size may be rotten, or belong to a head that stands in a message's body. So before so
            // much is read the lengths inside must agree with it, and before more than a chunk is
            // held at once the body with its checksum.
            if let Err(error) = self.check_lengths(size)? {
                return invalid(error);
            }
        }
        self.fill(size)?;
        let at = (position - self.buffer_start) as usize;
        let bytes = &self.buffer[at..at + size];
        match Record::decode(bytes, self.is_unproved) {
            Ok(Decoded::Record(record, length)) => {
                if record.physical_offset != position {
                    let says = record.physical_offset;
                    let reason = format!("a record at {position} says it belongs to {says}");
                    return Ok(Step::Invalid(reason));
                }
                if self.is_unproved && has_lost_sector(bytes, position, &record) {
                    return Ok(Step::Invalid(format!("at {position}: a sector was lost")));
                }
                self.position += length as u64;
                Ok(Step::Record(record, length as u64))
            }
            Ok(Decoded::Blank(_) | Decoded::End) => Ok(Step::Nothing),
            Err(error) => invalid(error),
        }
    }

    /// Whether the lengths of body, topic and properties agree with the size of the record that begins
    /// at the current position and may have `size` bytes, as [`Record::decode`] wants them; for one that
    /// is longer than a chunk, if that is asked for, also whether its body has its checksum. Holds a
    /// chunk at most.
    fn check_lengths(&self, size: usize) -> Result<Result<(), RecordError>, StoreError> {
        let mut head = [0; HEAD_BYTES_MAX];
        let head = &mut head[..size.min(HEAD_BYTES_MAX)];
        self.segment.read_exact(head, self.position)?;
        let body = match body_range(head) {
            Ok(body) => body,
            Err(error) => return Ok(Err(error)),
        };
        let is_v2 = head[4..8] == MAGIC_V2.to_be_bytes();
        let mut at = body.end;
        for (field, is_short) in [("topic", is_v2), ("properties", true)] {
            let mut length = [0; 2];
            let bytes = if is_short { 2 } else { 1 };
            if size - at < bytes {
                return Ok(Err(RecordError::Truncated { field }));
            }
            self.segment.read_exact(&mut length[2 - bytes..], self.position + at as u64)?;
            let length = i16::from_be_bytes(length);
            let Ok(length) = usize::try_from(length) else {
                return Ok(Err(RecordError::Length { field, length: i64::from(length) }));
            };
            at += bytes;
            if size - at < length {
                return Ok(Err(RecordError::Truncated { field }));
            }
            at += length;
        }
        if at != size {
            return Ok(Err(RecordError::Mismatch { field: "total size" }));
        }
        if !self.is_unproved || size <= CHUNK_BYTES {
            return Ok(Ok(()));
        }
        let expected = u32::from_be_bytes(*head[8..].first_chunk().expect("a whole head"));
        let mut hasher = crc32fast::Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        for from in body.clone().step_by(CHUNK_BYTES) {
            let piece = &mut chunk[..CHUNK_BYTES.min(body.end - from)];
            self.segment.read_exact(piece, self.position + from as u64)?;
            hasher.update(piece);
        }
        let found = hasher.finalize() & 0x7FFF_FFFF;
        match found == expected & 0x7FFF_FFFF {
            true => Ok(Ok(())),
            false => Ok(Err(RecordError::Crc { expected, found })),
        }
    }

    /// What is buffered from the current position on.
    fn ahead(&self) -> &[u8] {
        &self.buffer[(self.position - self.buffer_start) as usize..]
    }

    /// Has at least `length` bytes buffered, which the segment must hold.
    fn fill(&mut self, length: usize) -> Result<(), StoreError> {
        if self.ahead().len() >= length {
            return Ok(());
        }
        let left = usize::try_from(self.segment.end() - self.position).unwrap_or(usize::MAX);
        self.buffer.resize(length.max(self.chunk_bytes).min(left), 0);
        self.buffer_start = self.position;
        self.segment.read_exact(&mut self.buffer, self.position)
    }
}

/// What lies behind the first invalid record.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remains {
    /// Whole valid records.
    pub(crate) records: u64,
    /// When the first of them was stored, in milliseconds since 1970.
    pub(crate) first_store_time: Option<i64>,
    /// When the newest of them was stored.
    pub(crate) newest_store_time: Option<i64>,
    /// Start of the last of them.
    pub(crate) last_record: Option<u64>,
    /// Behind the last byte that is not zero; in a recycled segment, where old bytes stand
    /// everywhere, behind the last record.
    pub(crate) end: Option<u64>,
}

/// Searches `[from, to)` for records at any position and for bytes other than zero.
pub(crate) fn search(segment: &Segment, from: u64, to: u64) -> Result<Remains, StoreError> {
    let mut remains = Remains::default();
    let mut position = from;
    while position < to {
        let Some(data) = segment.next_data(position)? else { break };
        let end = data.end.min(to);
        position = search_data(segment, data.start.max(position), end, &mut remains)?;
    }
    Ok(remains)
}

/// Where the first whole valid record at or behind `from` begins.
pub(crate) fn next_record(segment: &Segment, from: u64) -> Result<Option<u64>, StoreError> {
    let mut chunk = Vec::new();
    let mut position = from;
    while position < segment.end() {
        let Some(data) = segment.next_data(position)? else { break };
        position = position.max(data.start);
        let own = (data.end - position).min(CHUNK_BYTES as u64) as usize;
        let left = usize::try_from(segment.end() - position).unwrap_or(usize::MAX);
        chunk.resize((own + RECOGNISED_BYTES).min(left), 0);
        segment.read_exact(&mut chunk, position)?;
        for at in 0..own {
            if record_at(segment, &chunk[at..], position + at as u64)?.is_some() {
                return Ok(Some(position + at as u64));
            }
        }
        position += own as u64;
    }
    Ok(None)
}

/// Searches one written range; the answer is where to go on.
fn search_data(
    segment: &Segment,
    from: u64,
    to: u64,
    remains: &mut Remains,
) -> Result<u64, StoreError> {
    let mut chunk = Vec::new();
    let mut position = from;
    while position < to {
        let own = (to - position).min(CHUNK_BYTES as u64) as usize;
        // A record may be recognised by bytes that lie behind the chunk's own.
        let left = usize::try_from(segment.end() - position).unwrap_or(usize::MAX);
        chunk.resize((own + RECOGNISED_BYTES).min(left), 0);
        segment.read_exact(&mut chunk, position)?;
        let Some(last) = chunk[..own].iter().rposition(|byte| *byte != 0) else {
            position += own as u64;
            continue;
        };
        if !segment.is_recycled() {
            remains.end = remains.end.max(Some(position + last as u64 + 1));
        }
        let mut at = 0;
        while at < own {
            match record_at(segment, &chunk[at..], position + at as u64)? {
                Some((length, store_time)) => {
                    remains.records += 1;
                    remains.first_store_time = remains.first_store_time.or(Some(store_time));
                    remains.newest_store_time = remains.newest_store_time.max(Some(store_time));
                    remains.last_record = remains.last_record.max(Some(position + at as u64));
                    remains.end = remains.end.max(Some(position + at as u64 + length));
                    at += length as usize;
                }
                None => at += 1,
            }
        }
        position += at as u64;
    }
    Ok(position)
}

/// Length and store time of a whole valid record whose head `bytes` may be.
fn record_at(
    segment: &Segment,
    bytes: &[u8],
    position: u64,
) -> Result<Option<(u64, i64)>, StoreError> {
    let word = |at: usize| bytes.get(at..at + 4).map(|word| word.try_into().expect("4 bytes"));
    let magic = word(4).map(u32::from_be_bytes);
    if magic != Some(MAGIC_V1) && magic != Some(MAGIC_V2) {
        return Ok(None);
    }
    let says = bytes.get(PHYSICAL_OFFSET_AT..RECOGNISED_BYTES);
    if says != Some(&position.to_be_bytes()) {
        return Ok(None);
    }
    match Scanner::of_one(segment, position).step()? {
        Step::Record(record, length) => Ok(Some((length, record.store_timestamp))),
        Step::SegmentEnd | Step::Nothing | Step::Invalid(_) => Ok(None),
    }
}

/// Whether a disk sector behind the body was lost. The record's checksum covers the body only, so
/// a torn write can leave a record whose topic or properties end in a sector of zeros; anything
/// lost further ahead shows in the lengths or the checksum. No append lets such zeros in.
pub(crate) fn has_lost_sector(bytes: &[u8], position: u64, record: &Record<'_>) -> bool {
    const SECTOR_BYTES: u64 = 512;
    let length_bytes = 2;
    let tail_bytes = record.topic.len() + length_bytes + record.properties.len();
    let tail_start = position + (bytes.len() - tail_bytes) as u64;
    let mut end = position + bytes.len() as u64;
    if record.properties.is_empty() {
        // Their length is zeros then, and may have a sector to itself.
        end -= length_bytes as u64;
    }
    let mut sector = tail_start.next_multiple_of(SECTOR_BYTES);
    while sector < end {
        let sector_end = (sector + SECTOR_BYTES).min(end);
        let piece = &bytes[(sector - position) as usize..(sector_end - position) as usize];
        if piece.iter().all(|byte| *byte == 0) {
            return true;
        }
        sector = sector_end;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, SimulatedDisk};
    use crate::format::Layout;

    const SEGMENT_BYTES: u64 = 8 << 20;

    fn segment() -> (SimulatedDisk, Segment) {
        let disk = SimulatedDisk::new();
        let layout = Layout::under(Path::new("/s"));
        layout.directories().iter().for_each(|path| disk.create_directory(path).unwrap());
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        (disk, Segment::create(&shared, &layout, 0, SEGMENT_BYTES).unwrap())
    }

    fn encoded(topic: &str, host: &str, body: &[u8], position: u64) -> Vec<u8> {
        let host = host.parse().unwrap();
        let record = Record {
            topic,
            queue_id: 0,
            flag: 0,
            queue_offset: 7,
            physical_offset: position,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 2,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: b"TAGS\x01a\x02",
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_head_whose_size_is_made_up_costs_a_few_hundred_bytes() {
        let (disk, segment) = segment();
        const HEADS: u64 = 200;
        for number in 0..HEADS {
            let at = number * 400;
            let mut head = encoded("t", "10.0.0.1:1", &[7; 200], at);
            head[..4].copy_from_slice(&((SEGMENT_BYTES - at) as u32).to_be_bytes());
            segment.write(&head, at).unwrap();
        }
        let before = disk.bytes_read();
        let remains = search(&segment, 0, SEGMENT_BYTES).unwrap();
        assert_eq!(remains.records, 0);
        let once = HEADS * 400 + CHUNK_BYTES as u64;
        let read = disk.bytes_read() - before;
        assert!(read < once + HEADS * 400, "{read} bytes were read");
    }

    #[test]
    fn a_long_record_is_proved_before_it_is_held() {
        let (_, segment) = segment();
        let body = vec![7; 5 << 20];
        let mut bytes = encoded("t", "10.0.0.1:1", &body, 0);
        segment.write(&bytes, 0).unwrap();
        let mut scanner = Scanner::of_one(&segment, 0);
        assert!(matches!(scanner.step().unwrap(), Step::Record(record, _) if record.body == body));
        bytes[3 << 20] ^= 1;
        segment.write(&bytes, 0).unwrap();
        let mut scanner = Scanner::of_one(&segment, 0);
        assert!(matches!(scanner.step().unwrap(), Step::Invalid(why) if why.contains("checksum")));
        assert!(scanner.buffer.capacity() <= CHUNK_BYTES);
    }

    /// Looking at lengths first decides nothing: what was a record is one.
    #[test]
    fn whatever_byte_is_another_a_record_is_what_it_is_when_it_is_read_at_once() {
        let (short, long) = (vec![7; 300], vec![7; CHUNK_BYTES + 5000]);
        let topics = ["t".repeat(10), "t".repeat(200)];
        for (body, host) in
            [(&short, "10.0.0.1:1"), (&short, "[2001:db8::1]:1"), (&long, "10.0.0.1:1")]
        {
            for topic in &topics {
                let (_, segment) = segment();
                let position = 4096;
                let bytes = encoded(topic, host, body, position);
                segment.write(&bytes, position).unwrap();
                let length = bytes.len();
                for at in (0..150).chain(length - 250..length) {
                    // The magic decides what it is at all, and the size how much is looked at.
                    for flip in [1, 0x80, 0x7F] {
                        let mut changed = bytes.clone();
                        changed[at] ^= flip;
                        segment.write(&changed[at..=at], position + at as u64).unwrap();
                        let whole = Record::decode(&changed, true);
                        let is_record = matches!(whole, Ok(Decoded::Record(record, length))
                            if record.physical_offset == position
                                && !has_lost_sector(&changed[..length], position, &record));
                        let mut scanner = Scanner::of_one(&segment, position);
                        let found = scanner.step().unwrap();
                        assert_eq!(
                            matches!(found, Step::Record(..)),
                            is_record,
                            "byte {at}: {found:?}"
                        );
                        segment.write(&bytes[at..=at], position + at as u64).unwrap();
                    }
                }
            }
        }
    }
}
