//! Thousands of stores with one damaged file each.
//!
//! Opening one may be refused, and reading may answer with an error. What is read is what was
//! appended; what cannot be read any more has been reported; nothing panics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::common::{self, EVERYTHING, Message, Random, Stored, seeds};
use super::{Counts, try_all};
use crate::disk::{Disk, OpenMode, SimulatedDisk};
use crate::planted::{self, Planted};
use crate::{FlushMode, ManualClock, RecoveryReport, Store, StoreConfig, StoreError, Upkeep};

const PAGE: u64 = 4096;
const UNFLUSHED_BYTES_MAX: u64 = 16 << 10;
const TOPICS: [&str; 2] = ["a", "b"];

fn config() -> StoreConfig {
    StoreConfig {
        segment_bytes: 16 << 10,
        unflushed_bytes_max: Some(UNFLUSHED_BYTES_MAX),
        message_bytes_max: 3000,
        ..common::small_config(FlushMode::ASYNC)
    }
}

/// A store of seven segments, all of it flushed and marked, and the same store when it was half
/// as long.
struct Original {
    disk: SimulatedDisk,
    half: SimulatedDisk,
    records: Vec<Stored>,
}

impl Original {
    fn new(Made { is_closed, is_marked, is_recycled }: Made) -> Self {
        let disk = Arc::new(SimulatedDisk::new());
        let store = match is_recycled {
            true => with_spares(&disk),
            false => common::open(&disk, &config()).0,
        };
        let mut records = Vec::new();
        let mut half = None;
        for number in 0..120_u64 {
            let message =
                Message::new(TOPICS[number as usize % 2], (number % 3) as i32, body(number))
                    .with("TAGS", ["x", "y"][number as usize / 2 % 2])
                    .with("KEYS", &format!("k{number}"));
            let at = common::append(&store, std::slice::from_ref(&message)).unwrap()[0];
            let (position, size) = (at.physical_offset, at.size);
            records.push(Stored { position, size, queue_offset: at.queue_offset, message });
            if is_recycled {
                store.inner().prepare_next_segment().unwrap();
            }
            if number == 60 || (is_marked && number == 119) {
                store.flush().unwrap();
                store.maintain().unwrap();
            }
            if number == 60 {
                half = Some(disk.crash(0));
            }
        }
        store.flush().unwrap();
        let segments = store.inner().log.all();
        assert_eq!(segments.iter().any(|segment| segment.is_recycled()), is_recycled);
        drop(segments);
        if is_closed {
            store.close().unwrap();
        }
        drop(store);
        Self { disk: disk.crash(0), half: half.unwrap(), records }
    }
}

/// How a store came about.
#[derive(Debug, Clone, Copy)]
struct Made {
    /// Stopped cleanly, not killed.
    is_closed: bool,
    /// The durable mark is at the end, not in the middle.
    is_marked: bool,
    /// All but the newest of its segments from before have expired, so that those that follow are
    /// recycled, with proofs, and some wait for that.
    is_recycled: bool,
}

impl Made {
    fn of(seed: u64) -> Self {
        let (is_closed, is_marked) =
            [(true, true), (false, true), (false, false)][seed as usize % 3];
        Self { is_closed, is_marked, is_recycled: seed / 3 % 2 == 1 }
    }
}

/// A store whose messages have expired, of so many segments that not all spare files are used again.
fn with_spares(disk: &Arc<SimulatedDisk>) -> Store {
    let clock = Arc::new(ManualClock::at_ms(1000));
    let upkeep = Upkeep { retention: std::time::Duration::ZERO, ..config().upkeep };
    let config = StoreConfig { upkeep, ..config() };
    let shared = Arc::clone(disk) as Arc<dyn Disk>;
    let (store, _) = Store::open(config, shared, clock.clone()).unwrap();
    for number in 0..200 {
        common::append(&store, &[Message::new("old", 0, vec![0xEE; 700])]).unwrap();
        if number % 10 == 0 {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
    store.protect_from(u64::MAX);
    clock.advance_ms(999_000);
    store.maintain().unwrap();
    assert!(store.stats().spare_segments >= 8, "{:?}", store.stats());
    // Nothing else expires.
    store.protect_from(0);
    store
}

fn body(number: u64) -> Vec<u8> {
    let mut body = vec![number as u8; 600 + number as usize * 13 % 300];
    body[..8].copy_from_slice(&number.to_be_bytes());
    body
}

fn all_files(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let directories = ["/data", "/data/commitlog", "/data/weir", "/data/weir/queues"];
    let more = ["/data/weir/keys", "/data/weir/user", "/data/weir/blocks", "/data/weir/spare"];
    let mut files = Vec::new();
    for directory in directories.into_iter().chain(more).map(Path::new) {
        let listed = disk.list(directory).unwrap_or_default();
        files.extend(listed.into_iter().map(|file| directory.join(file.name)));
    }
    files
}

fn read(disk: &SimulatedDisk, path: &Path) -> Vec<u8> {
    let Ok(file) = disk.open(path, OpenMode::Read) else { return Vec::new() };
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// Damages one file. The answer names it and what was done.
fn mutate(disk: &SimulatedDisk, half: &SimulatedDisk, random: &mut Random) -> (PathBuf, String) {
    let files = all_files(disk);
    // Every kind of file as often as another: the log's segments are many.
    let is_log = random.below(2) == 0;
    let files: Vec<_> = files.into_iter().filter(|path| is_of_log(path) == is_log).collect();
    let path = files[random.below(files.len() as u64) as usize].clone();
    let mut bytes = read(disk, &path);
    let length = bytes.len() as u64;
    let pages = length.div_ceil(PAGE).max(1);
    let page_at = |page: u64| (page * PAGE) as usize..((page + 1) * PAGE).min(length) as usize;
    let page = random.below(pages);
    let what = match random.below(7) {
        0 if length > 0 => {
            let bit = random.below(length * 8);
            bytes[bit as usize / 8] ^= 1 << (bit % 8);
            format!("bit {bit} flipped")
        }
        1 => {
            bytes[page_at(page)].fill(0);
            format!("page {page} zeroed")
        }
        2 if length >= 2 * PAGE => {
            let other = random.below(length / PAGE);
            let page = random.below(length / PAGE);
            let kept = bytes[page_at(page)].to_vec();
            let moved = bytes[page_at(other)].to_vec();
            bytes[page_at(page)].copy_from_slice(&moved);
            bytes[page_at(other)].copy_from_slice(&kept);
            format!("pages {page} and {other} swapped")
        }
        3 => {
            let old = read(half, &path);
            let range = page_at(page);
            let range = range.start.min(old.len())..range.end.min(old.len());
            bytes[range.clone()].copy_from_slice(&old[range]);
            format!("page {page} as it was before")
        }
        4 if length > 0 => {
            bytes.truncate(random.below(length) as usize);
            format!("cut to {} bytes", bytes.len())
        }
        5 => {
            let more = random.below(2 * PAGE) as usize + 1;
            bytes.resize(bytes.len() + more, [0, 0xFF][random.below(2) as usize]);
            format!("{more} bytes longer, the last of them {:#x}", bytes[bytes.len() - 1])
        }
        _ => {
            disk.remove(&path).unwrap();
            return (path, "removed".to_owned());
        }
    };
    let file = disk.open(&path, OpenMode::Replace).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.sync().unwrap();
    (path, what)
}

fn is_of_log(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with("commitlog"))
}

/// How a damaged store behaved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It did not open, and said why.
    Refused,
    /// It opened, and said that it cut the end off.
    Cut,
    /// It opened, and some reads answered with an error.
    ReadError,
    /// It opened and served everything.
    Served,
    /// It served every body, but a topic, property or tag hash is another one: the record's
    /// checksum covers the body only.
    Altered,
}

/// `may_move`: the block that was damaged had no checksum yet, so a record whose queue or offset is
/// another one cannot be told; its body is still its own.
fn judge(disk: SimulatedDisk, original: &Original, marked_to: u64, may_move: bool) -> Outcome {
    let opened = common::try_open(&Arc::new(disk), &config());
    let (store, report) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!matches!(error, StoreError::Closed | StoreError::Busy { .. }), "{error}");
            return Outcome::Refused;
        }
    };
    let mut outcome = if report.cut_bytes > 0 { Outcome::Cut } else { Outcome::Served };
    assert!(
        report.log_end >= marked_to,
        "cut at {} although everything below {marked_to} was on disk",
        report.log_end
    );
    // The log never ran further ahead of the disk than this, so nothing longer is a torn tail.
    let torn_max = UNFLUSHED_BYTES_MAX + 4096;
    assert!(report.cut_bytes <= torn_max, "{} bytes were cut as a torn tail", report.cut_bytes);
    for topic in TOPICS {
        for queue_id in 0..3 {
            outcome = outcome.max(read_queue(&store, &report, original, topic, queue_id, may_move));
        }
    }
    // It is a store that works, in the segments that it makes out of spare files as well.
    for number in 0..40 {
        if common::append(&store, &[Message::new("new", 0, body(number))]).is_err() {
            return outcome;
        }
        store.inner().prepare_next_segment().unwrap();
    }
    store.flush().unwrap();
    let new = common::read_all(&store, "new", 0, 0);
    assert!(
        new.iter()
            .map(|stored| &stored.message.body)
            .eq((0..40).map(body).collect::<Vec<_>>().iter())
    );
    outcome
}

fn read_queue(
    store: &Store,
    report: &RecoveryReport,
    original: &Original,
    topic: &str,
    queue_id: i32,
    may_move: bool,
) -> Outcome {
    let of_queue =
        |record: &&Stored| record.message.topic == topic && record.message.queue_id == queue_id;
    let expected: BTreeMap<u64, &Stored> = original
        .records
        .iter()
        .filter(of_queue)
        .map(|record| (record.queue_offset, record))
        .collect();
    let mut outcome = Outcome::Served;
    for (offset, record) in expected {
        let mut out = Vec::new();
        let mut hash = None;
        let mut accept = |entry: &crate::QueueEntry| hash.replace(entry.tag_hash).is_none();
        let limits = crate::ReadLimits { messages: 1, ..EVERYTHING };
        let read = store.read_queue(topic, queue_id, offset, limits, &mut accept, &mut out);
        let found = match read {
            Ok(found) => found,
            Err(_) => {
                outcome = outcome.max(Outcome::ReadError);
                continue;
            }
        };
        if found.found == 0 {
            assert!(
                record.position >= report.log_end || may_move,
                "{topic} {queue_id} offset {offset} is gone and nobody said so"
            );
            continue;
        }
        let stored = weirmq_message::record::records(&out).next().unwrap().unwrap();
        let stored = Stored::of(&stored);
        let body = &stored.message.body;
        let is_of_another = original.records.iter().any(|record| record.message.body == *body);
        assert!(*body == record.message.body || is_of_another, "a wrong body was served");
        assert!(*body == record.message.body || may_move, "another message was served");
        if stored != *record || hash != Some(record.message.as_new().tag_hash) {
            outcome = outcome.max(Outcome::Altered);
        }
    }
    outcome
}

fn try_one(seed: u64) -> (PathBuf, Outcome) {
    let mut random = Random(seed);
    let made = Made::of(seed);
    let Made { is_closed, is_marked, .. } = made;
    let original = Original::new(made);
    let end = original.records.last().map_or(0, |last| last.position + u64::from(last.size));
    let half_end = original.records[60].position + u64::from(original.records[60].size);
    let disk = original.disk.crash(0);
    let (path, what) = mutate(&disk, &original.half, &mut random);
    // The older version of the mark knows less, and rightly so.
    let marked_to = match path.file_name().and_then(|name| name.to_str()) {
        Some("durable-mark") => 0,
        _ if is_marked => end,
        _ => half_end,
    };
    if seeds::only().is_some() {
        eprintln!("{}: {what}, {made:?}", path.display());
    }
    // A block gets its checksum when it is full or the store is closed.
    let newest = disk.list(Path::new("/data/commitlog")).unwrap().pop();
    let is_newest = newest.is_some_and(|file| path.ends_with(file.name));
    let may_move = !is_closed && (is_newest || !is_marked);
    let outcome = judge(disk, &original, marked_to, may_move);
    (path, outcome)
}

fn kind_of(path: &Path) -> String {
    let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    match parent {
        Some(folder @ ("commitlog" | "queues" | "keys" | "blocks" | "spare")) => folder.to_owned(),
        _ => path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned(),
    }
}

#[test]
fn a_damaged_file_is_refused_reported_or_harmless() {
    static OUTCOMES: std::sync::Mutex<BTreeMap<(String, Outcome), u64>> =
        std::sync::Mutex::new(BTreeMap::new());
    try_all(seeds::MUTATIONS, |seed, _: &Counts| {
        let (path, outcome) = try_one(seed);
        *OUTCOMES.lock().unwrap().entry((kind_of(&path), outcome)).or_default() += 1;
    });
    for ((kind, outcome), count) in &*OUTCOMES.lock().unwrap() {
        println!("{kind:16} {:9} {count}", format!("{outcome:?}"));
    }
}

#[test]
fn a_recovery_that_cuts_at_the_first_bad_record_is_found() {
    let found = seeds::MUTATIONS.enumerate().find(|(_, seed)| {
        let attempt = || planted::with(Some(Planted::CutAtFirstBadRecord), || try_one(*seed));
        std::panic::catch_unwind(attempt).is_err()
    });
    let (tried, seed) = found.expect("not found");
    println!("CutAtFirstBadRecord: found with store {} (seed {seed})", tried + 1);
}
