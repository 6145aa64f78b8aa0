//! What the store's tests share: messages, and everything that a store can be asked, as values.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod seeds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weirmq_message::record::{Decoded, Record};
use weirmq_message::{properties, tags};
use weirmq_store::offline::{Directory, VerifyReport, verify};
use weirmq_store::{
    Appended, Disk, FlushMode, KeySource, ManualClock, NewMessage, OpenMode, QueueEntry,
    QueueRange, ReadLimits, RecoveryReport, SimulatedDisk, Store, StoreConfig, StoreError, Upkeep,
    apache_rule,
};

pub const EVERYTHING: ReadLimits = ReadLimits { messages: usize::MAX, bytes: usize::MAX };

/// A message that owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub queue_id: i32,
    pub body: Vec<u8>,
    pub properties: Vec<u8>,
}

impl Message {
    pub fn new(topic: &str, queue_id: i32, body: impl Into<Vec<u8>>) -> Self {
        Self { topic: topic.to_owned(), queue_id, body: body.into(), properties: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        properties::push(&mut self.properties, name, value);
        self
    }

    pub fn as_new(&self) -> NewMessage<'_> {
        let host = "127.0.0.1:10911".parse().unwrap();
        NewMessage {
            topic: &self.topic,
            queue_id: self.queue_id,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &self.body,
            properties: &self.properties,
            tag_hash: tags::tag_hash(properties::get(&self.properties, "TAGS")),
            index_keys: KeySource::Properties,
            dispatch: true,
        }
    }
}

/// Small segments, no threads, no floor under the free space.
pub fn small_config(flush: FlushMode) -> StoreConfig {
    StoreConfig {
        directory: PathBuf::from("/data"),
        segment_bytes: 64 << 10,
        flush,
        unflushed_bytes_max: Some(256 << 10),
        message_bytes_max: 32 << 10,
        upkeep: Upkeep { free_bytes_min: Some(0), ..Upkeep::default() },
        threads: false,
        ..StoreConfig::default()
    }
}

pub fn open(disk: &Arc<impl Disk + 'static>, config: &StoreConfig) -> (Store, RecoveryReport) {
    try_open(disk, config).unwrap()
}

pub fn try_open(
    disk: &Arc<impl Disk + 'static>,
    config: &StoreConfig,
) -> Result<(Store, RecoveryReport), StoreError> {
    let clock = Arc::new(ManualClock::at_ms(1_000_000));
    Store::open(config.clone(), Arc::clone(disk) as Arc<dyn Disk>, clock)
}

pub fn append(store: &Store, messages: &[Message]) -> Result<Vec<Appended>, StoreError> {
    let new: Vec<NewMessage<'_>> = messages.iter().map(Message::as_new).collect();
    let mut appended = Vec::new();
    store.append(&new, &mut appended).map(|()| appended)
}

/// The directory of [`small_config`], as it is looked at when nobody has it open.
pub fn look(disk: &Arc<SimulatedDisk>) -> Directory {
    Directory::open(Path::new("/data"), Arc::clone(disk) as Arc<dyn Disk>).unwrap()
}

pub fn verified(disk: &Arc<SimulatedDisk>) -> VerifyReport {
    verify(&look(disk), apache_rule, &mut |_| {}).unwrap()
}

/// All bytes of a file.
pub fn contents(disk: &SimulatedDisk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), OpenMode::Read).unwrap();
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Replaces a file, durably.
pub fn put(disk: &SimulatedDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(Path::new(path), OpenMode::Replace).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
}

/// Changes one byte of a file, durably.
pub fn change(disk: &SimulatedDisk, path: &str, at: u64, change: impl Fn(u8) -> u8) {
    let file = disk.open(Path::new(path), OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_all_at(&[change(byte[0])], at).unwrap();
    file.sync().unwrap();
}

/// Changes one bit of a file, durably.
pub fn flip(disk: &SimulatedDisk, path: &str, at: u64, bit: u8) {
    change(disk, path, at, |byte| byte ^ (1 << bit));
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub position: u64,
    pub size: u32,
    pub queue_offset: u64,
    pub message: Message,
}

impl Stored {
    pub fn of(record: &Record<'_>) -> Self {
        Self {
            position: record.physical_offset,
            size: record.encoded_len() as u32,
            queue_offset: record.queue_offset,
            message: Message {
                topic: record.topic.to_owned(),
                queue_id: record.queue_id,
                body: record.body.to_vec(),
                properties: record.properties.to_vec(),
            },
        }
    }
}

/// All records, found by walking positions.
pub fn walk(store: &Store, segment_bytes: u64) -> Vec<Stored> {
    let mut records = Vec::new();
    let mut position = store.min_offset();
    let mut bytes = Vec::new();
    while position < store.watermarks().visible() {
        bytes.clear();
        match store.read_record(position, &mut bytes).unwrap() {
            Some(size) => {
                let Ok(Decoded::Record(record, _)) = Record::decode(&bytes, true) else { panic!() };
                records.push(Stored::of(&record));
                position += size as u64;
            }
            None => position = (position / segment_bytes + 1) * segment_bytes,
        }
    }
    records
}

/// One queue, as its entries say.
pub type QueueDump = (QueueRange, Vec<(u64, QueueEntry)>);

/// All queues of the topics and ids that tests use.
pub fn queues(store: &Store, topics: &[String]) -> BTreeMap<(String, i32), QueueDump> {
    let mut dump = BTreeMap::new();
    for topic in topics {
        for queue_id in 0..4 {
            let Some(range) = store.queue_range(topic, queue_id) else { continue };
            let entry = |offset| {
                let entry = store.queue_entry(topic, queue_id, offset).unwrap()?;
                Some((offset, entry))
            };
            let entries = (range.min..range.max).filter_map(entry).collect();
            dump.insert((topic.clone(), queue_id), (range, entries));
        }
    }
    dump
}

/// The messages of a queue, read in one go.
pub fn read_all(store: &Store, topic: &str, queue_id: i32, from: u64) -> Vec<Stored> {
    let mut out = Vec::new();
    let mut next = from;
    loop {
        let read =
            store.read_queue(topic, queue_id, next, EVERYTHING, &mut |_| true, &mut out).unwrap();
        if read.found == 0 {
            break;
        }
        next = read.next;
    }
    weirmq_message::record::records(&out).map(|record| Stored::of(&record.unwrap())).collect()
}

/// Says that a test can say nothing here, and why. Past the test harness, which keeps what passing
/// tests print to itself: `make test` counts these lines.
pub fn skipped(why: impl std::fmt::Display) {
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// SplitMix64, so that a failing seed fails everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % limit
    }
}
