//! One bit flips, at every kind of place of every file: nobody is served what was not written, and
//! `verify`, the open, the scrub or the reader says that something is wrong.
//!
//! The files are those of a store that was closed, so all of the log has its checksums.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::{Message, append, flip, look, open, small_config, try_open};
use weirmq_store::offline::verify;
use weirmq_store::{
    Appended, Disk, FlushMode, OpenMode, ReadLimits, SimulatedDisk, Store, StoreConfig, apache_rule,
};

const SEGMENT_BYTES: u64 = 32 << 10;
const TOPICS: [&str; 2] = ["topic", "other"];

fn config() -> StoreConfig {
    StoreConfig {
        segment_bytes: SEGMENT_BYTES,
        message_bytes_max: 4000,
        unflushed_bytes_max: Some(40 << 10),
        ..small_config(FlushMode::ASYNC)
    }
}

/// A closed store of three segments, and all that can be read from it.
struct Original {
    disk: SimulatedDisk,
    records: Vec<Appended>,
    contents: Contents,
}

/// By topic, queue and offset: the whole record, or `None` where the answer was an error.
#[derive(PartialEq, Eq)]
struct Contents {
    queues: BTreeMap<(String, i32, u64), Option<Vec<u8>>>,
    keys: BTreeMap<String, Option<Vec<u64>>>,
}

impl Original {
    fn new() -> Self {
        let disk = Arc::new(SimulatedDisk::new());
        let mut records = Vec::new();
        for round in 0..2 {
            let (store, _) = open(&disk, &config());
            for n in 0..40_u8 {
                let message = Message::new(TOPICS[usize::from(n) % 2], 0, vec![n | 1; 900])
                    .with("KEYS", &format!("k{n}"))
                    .with("TAGS", "tag");
                records.extend(append(&store, &[message]).unwrap());
            }
            // So that every small file is there, and a version before it.
            for name in ["deleted", "deleted-too"] {
                append(&store, &[Message::new(name, 0, "x")]).unwrap();
                let end = store.flush().unwrap();
                store.delete_queues(&[name], end).unwrap();
            }
            store.write_small_file("notes", &[round]).unwrap();
            store.scrub().unwrap();
            store.close().unwrap();
        }
        let (store, _) = open(&disk, &config());
        let contents = Contents::of(&store, None);
        store.close().unwrap();
        drop(store);
        Self { disk: disk.crash(0), records, contents }
    }
}

impl Contents {
    /// Everything that can be asked. Panics at a body that nobody wrote.
    fn of(store: &Store, original: Option<&Self>) -> Self {
        let mut queues = BTreeMap::new();
        for topic in TOPICS {
            for offset in 0..40 {
                let mut out = Vec::new();
                let limits = ReadLimits { messages: 1, bytes: usize::MAX };
                let read = store.read_queue(topic, 0, offset, limits, &mut |_| true, &mut out);
                let place = (topic.to_owned(), 0, offset);
                let record = read.ok().map(|read| {
                    assert_eq!(read.found, 1, "{topic} {offset} is gone and nobody says so");
                    out
                });
                if let (Some(found), Some(original)) = (&record, original) {
                    let was = original.queues[&place].as_ref().unwrap();
                    assert_eq!(body(found), body(was), "{topic} {offset}: another body");
                }
                queues.insert(place, record);
            }
        }
        let mut keys = BTreeMap::new();
        for topic in TOPICS {
            for n in 0..40 {
                let found = store.query_key(topic, &format!("k{n}"), 10, 0, i64::MAX);
                keys.insert(format!("{topic} k{n}"), found.ok());
            }
        }
        Self { queues, keys }
    }
}

fn body(record: &[u8]) -> Vec<u8> {
    let record = weirmq_message::record::records(record).next().unwrap().unwrap();
    record.body.to_vec()
}

/// What became of a store with one bit flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It did not open.
    Refused,
    /// It opened; a read was refused, or the scrub found something.
    Found,
    /// Everything reads as before, and `verify` says what is wrong.
    Mended,
    /// Nobody says anything, and nothing is another thing than before.
    Unused,
}

fn judge(original: &Original, path: &str, at: u64) -> Outcome {
    let disk = Arc::new(original.disk.crash(0));
    // Another bit at each place.
    flip(&disk, path, at, (at * 5 % 8) as u8);
    let directory = look(&disk);
    directory.inspect().unwrap();
    let report = verify(&directory, apache_rule, &mut |_| {}).unwrap();
    drop(directory);
    let is_said = !report.is_sound
        || !report.notes.is_empty()
        || report.blocks_without_checksum > 0
        || report.torn_tail.is_some();

    let Ok((store, recovered)) = try_open(&disk, &config()) else {
        assert!(is_said, "{path} byte {at}: refused, and verify finds nothing");
        return Outcome::Refused;
    };
    let contents = Contents::of(&store, Some(&original.contents));
    store.maintain().unwrap();
    store.scrub().unwrap();
    let is_same = contents == original.contents;
    let is_found = !store.damaged().is_empty() || recovered.cut_bytes > 0;
    assert!(is_same || is_said, "{path} byte {at}: it changed what is read, and verify is silent");
    // What verify calls damage of the log the broker finds as well.
    let is_log_damaged = report.first_log_damage().is_some();
    assert!(is_found || !is_log_damaged, "{path} byte {at}: the scrub is silent: {report:?}");
    match (is_same && !is_found, is_said) {
        (false, _) => Outcome::Found,
        (true, true) => Outcome::Mended,
        (true, false) => Outcome::Unused,
    }
}

/// Flips one bit at each of these places and counts what happened.
fn flip_all(original: &Original, path: &str, places: impl IntoIterator<Item = u64>) -> Counts {
    let mut counts = Counts::default();
    for at in places {
        *counts.0.entry(judge(original, path, at)).or_default() += 1;
    }
    println!("{path}: {:?}", counts.0);
    counts
}

#[derive(Default)]
struct Counts(BTreeMap<Outcome, u64>);

impl Counts {
    fn of(&self, outcome: Outcome) -> u64 {
        self.0.get(&outcome).copied().unwrap_or(0)
    }

    fn all(&self) -> u64 {
        self.0.values().sum()
    }
}

fn length(disk: &SimulatedDisk, path: &str) -> u64 {
    disk.open(Path::new(path), OpenMode::Read).unwrap().size().unwrap()
}

fn segment(start: u64) -> String {
    format!("/data/commitlog/{start:020}")
}

/// A place in the log as a file and a byte of it.
fn place(position: u64) -> (String, u64) {
    let start = position - position % SEGMENT_BYTES;
    (segment(start), position - start)
}

#[test]
fn no_byte_of_a_record_flips_in_silence() {
    let original = Original::new();
    let at = &original.records;
    let first = at.iter().find(|at| at.physical_offset == SEGMENT_BYTES).unwrap();
    let last = at.last().unwrap();
    for record in [&at[5], first, last] {
        let (path, from) = place(record.physical_offset);
        let (head, behind_body) = (88, 88 + 900);
        // Each field of the head; some of the body; topic and properties.
        let fields = (0..head).chain((head..behind_body).step_by(61)).chain(behind_body..);
        let fields = fields.take_while(|in_record| *in_record < u64::from(record.size));
        let counts = flip_all(&original, &path, fields.map(|in_record| from + in_record));
        assert_eq!(counts.of(Outcome::Unused), 0, "a byte of a record is no filler");
        assert_eq!(counts.of(Outcome::Mended), 0, "the log is derived from nothing");
    }
}

#[test]
fn no_byte_between_records_flips_in_silence_where_it_means_something() {
    let original = Original::new();
    let behind = |start: u64| {
        let own = original.records.iter().filter(|at| at.end_offset <= start + SEGMENT_BYTES);
        own.map(|at| at.end_offset).max().unwrap()
    };
    // The head of the padding, and what is behind it, which belongs to nobody.
    let (path, padding) = place(behind(0));
    let counts = flip_all(&original, &path, padding..padding + 8);
    assert_eq!(counts.of(Outcome::Unused), 0);
    let counts = flip_all(&original, &path, (padding + 8..SEGMENT_BYTES).step_by(99));
    assert_eq!(counts.of(Outcome::Refused), 0);
}

#[test]
fn no_byte_of_a_derived_file_flips_in_silence_where_it_means_something() {
    let original = Original::new();
    for (folder, step) in [("queues", 5), ("keys", 47), ("blocks", 5)] {
        for start in [0, SEGMENT_BYTES, 2 * SEGMENT_BYTES] {
            let path = format!("/data/weir/{folder}/{start:020}");
            let bytes = length(&original.disk, &path);
            let footer = bytes.saturating_sub(150);
            let places = (0..footer).step_by(step).chain(footer..bytes);
            let counts = flip_all(&original, &path, places);
            assert_eq!(counts.of(Outcome::Refused), 0, "it can be derived again");
            assert!(counts.of(Outcome::Mended) + counts.of(Outcome::Found) > 40, "{path}");
            if folder == "blocks" {
                assert_eq!(counts.of(Outcome::Mended), counts.all(), "each group has a checksum");
            }
        }
    }
}

#[test]
fn no_byte_of_a_small_file_flips_in_silence() {
    let original = Original::new();
    let mut seen = Vec::new();
    for folder in ["/data/weir", "/data/weir/user"] {
        for file in original.disk.list(Path::new(folder)).unwrap() {
            let path = format!("{folder}/{}", file.name);
            let counts = flip_all(&original, &path, 0..file.bytes);
            assert_eq!(counts.of(Outcome::Unused), 0, "{path}");
            assert_eq!(counts.of(Outcome::Found), 0, "{path}: the log is whole");
            let is_refused = counts.of(Outcome::Refused) > 0;
            // The versions before say what is not true any more.
            let must_be = ["format.json", "queue-state"].contains(&file.name.as_str());
            assert_eq!(is_refused, must_be, "{path}");
            seen.push(file.name);
        }
    }
    for name in ["format.json", "durable-mark", "log-start", "queue-state", "scrub", "notes"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} of {seen:?}");
    }
    assert!(seen.contains(&"durable-mark.last".to_owned()), "{seen:?}");
    assert!(seen.contains(&"queue-state.last".to_owned()), "{seen:?}");
}
