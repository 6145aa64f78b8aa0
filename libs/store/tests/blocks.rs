//! Checksums of blocks: what rots is found, what is sound is never called damaged.

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::{
    Message, append, change, contents, open, put, read_all, small_config, try_open, verified,
};
use weirmq_store::offline::FindingKind;
use weirmq_store::{
    Appended, DamagedRange, Disk, FlushMode, ManualClock, OpenMode, SimulatedDisk, Store,
    StoreConfig, StoreError,
};

const BLOCK_BYTES: u64 = 16 << 10;
const TOPIC_AT: u64 = 88 + 900 + 1;

fn config() -> StoreConfig {
    StoreConfig { unflushed_bytes_max: Some(80 << 10), ..small_config(FlushMode::ASYNC) }
}

fn fill(store: &Store, count: usize) -> Vec<Appended> {
    let message = |n: usize| Message::new("topic", 0, vec![n as u8 | 1; 900]).with("a", "b");
    (0..count).flat_map(|n| append(store, &[message(n)]).unwrap()).collect()
}

fn segment_of(position: u64) -> (String, u64) {
    let start = position - position % (64 << 10);
    (format!("/data/commitlog/{start:020}"), position - start)
}

/// Changes a letter of a record's topic, which no checksum of the record covers.
fn spoil_topic(disk: &SimulatedDisk, at: &Appended) {
    let (path, in_segment) = segment_of(at.physical_offset + TOPIC_AT);
    change(disk, &path, in_segment, |byte| byte ^ 1);
}

#[test]
fn a_sound_log_has_a_sum_for_every_byte_after_a_close() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    let at = fill(&store, 200);
    store.close().unwrap();
    let report = verified(&disk);
    assert!(report.is_sound, "{:?}", report.findings);
    // Three segments of four blocks and the rest of the fourth.
    let end = at[199].end_offset;
    assert_eq!(report.blocks, 12 + (end - 3 * (64 << 10)).div_ceil(BLOCK_BYTES));
    // It goes on in the middle of a block, and after a kill as well.
    let (store, _) = open(&disk, &config());
    fill(&store, 30);
    store.flush().unwrap();
    store.maintain().unwrap();
    drop(store);
    assert!(verified(&disk).is_sound);
    let (store, _) = open(&disk, &config());
    store.scrub().unwrap();
    assert_eq!(store.damaged(), []);
    store.close().unwrap();
    let report = verified(&disk);
    assert!(report.is_sound && report.blocks > 14, "{report:?}");
}

#[test]
fn the_scrub_finds_what_no_record_can_and_readers_get_an_error_and_not_the_bytes() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    let at = fill(&store, 100);
    store.flush().unwrap();
    store.maintain().unwrap();
    let told: Arc<Mutex<Vec<Vec<DamagedRange>>>> = Arc::default();
    let listener = Arc::clone(&told);
    store.set_damage_listener(Box::new(move |all| listener.lock().unwrap().push(all.to_vec())));
    store.scrub().unwrap();
    assert_eq!(store.damaged(), []);

    spoil_topic(&disk, &at[20]);
    // Another topic is told at once, but fields that no check of one record covers are not.
    let mut out = Vec::new();
    let all = store.read_queue("topic", 0, 0, common::EVERYTHING, &mut |_| true, &mut out).unwrap();
    assert_eq!((all.found, all.next), (20, 20));
    store.scrub().unwrap();
    let damaged = store.damaged();
    assert_eq!(damaged.len(), 1);
    assert!((damaged[0].from..damaged[0].to).contains(&(at[20].physical_offset + TOPIC_AT)));
    assert_eq!(
        (damaged[0].to - damaged[0].from, store.stats().damaged_bytes),
        (BLOCK_BYTES, BLOCK_BYTES)
    );
    let mut out = Vec::new();
    let mut read = |from| {
        let limits = weirmq_store::ReadLimits { messages: 1, bytes: 1 };
        store.read_queue("topic", 0, from, limits, &mut |_| true, &mut out).map(|read| read.found)
    };
    assert!(matches!(read(20), Err(StoreError::Damaged { .. })));
    assert_eq!((read(0).unwrap(), read(60).unwrap()), (1, 1));
    // Who wants nothing of the damaged block gets past it.
    let mut out = Vec::new();
    let mut wanted = |entry: &weirmq_store::QueueEntry| entry.physical_offset >= damaged[0].to;
    let rest = store.read_queue("topic", 0, 0, common::EVERYTHING, &mut wanted, &mut out).unwrap();
    assert_eq!((rest.next, rest.scanned), (100, 100));
    assert!(rest.found > 60);
    // A longer read ends in front of the damage.
    let mut out = Vec::new();
    let all = store.read_queue("topic", 0, 0, common::EVERYTHING, &mut |_| true, &mut out).unwrap();
    assert_eq!((all.found as u64, all.next), (16, 16));
    let refused = store.read_record(at[20].physical_offset, &mut Vec::new());
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));

    // It stays known over a restart, and is forgotten once it is whole again.
    drop(store);
    let (store, _) = open(&disk, &config());
    assert_eq!(store.damaged(), damaged);
    let told = told.lock().unwrap();
    assert_eq!((told.first(), told.last()), (Some(&Vec::new()), Some(&damaged)));
    spoil_topic(&disk, &at[20]);
    store.scrub().unwrap();
    assert_eq!(store.damaged(), []);
    assert_eq!(read_all(&store, "topic", 0, 0).len(), 100);
}

type OnDisk = (Arc<SimulatedDisk>, Store);

/// Two stores with the same log, whose newest block is not the only one.
fn twins() -> (OnDisk, OnDisk, Vec<Appended>) {
    let made = || {
        let disk = Arc::new(SimulatedDisk::new());
        let (store, _) = open(&disk, &config());
        let at = fill(&store, 200);
        store.flush().unwrap();
        store.maintain().unwrap();
        ((disk, store), at)
    };
    let ((one, at), (two, _)) = (made(), made());
    (one, two, at)
}

fn only_damage(store: &Store) -> DamagedRange {
    let damaged = store.damaged();
    let [range] = &damaged[..] else { panic!("{damaged:?}") };
    range.clone()
}

#[test]
fn a_damaged_block_is_written_again_as_it_was_and_as_nothing_else() {
    let ((disk, store), (_, other), at) = twins();
    spoil_topic(&disk, &at[20]);
    // Who copies the log finds it before the scrub does.
    let copied = store.read_log(at[20].physical_offset, 1, true, &mut Vec::new());
    assert!(matches!(copied, Err(StoreError::Damaged { .. })), "{copied:?}");
    store.maintain().unwrap();
    let DamagedRange { from, to, .. } = only_damage(&store);
    assert_eq!(store.read_block(from, to).unwrap(), None, "it gives no damage away");
    let mut bytes = other.read_block(from, to).unwrap().unwrap();
    assert_eq!(bytes.len() as u64, BLOCK_BYTES);
    bytes[77] ^= 1;
    assert!(!store.repair_block(from, &bytes).unwrap());
    bytes[77] ^= 1;
    assert!(!store.repair_block(from + BLOCK_BYTES, &bytes).unwrap());
    assert!(!store.repair_block(from, &bytes[1..]).unwrap());
    assert!(!store.repair_block(u64::MAX - 5, &bytes).unwrap());
    assert_eq!((store.damaged().len(), store.stats().repaired_bytes), (1, 0));
    assert!(store.repair_block(from, &bytes).unwrap());
    assert_eq!((store.damaged().len(), store.stats().repaired_bytes), (0, BLOCK_BYTES));
    assert!(!store.repair_block(from, &bytes).unwrap(), "nothing is damaged any more");
    // Durably.
    let (store, _) = open(&Arc::new(disk.crash(7)), &config());
    store.scrub().unwrap();
    assert_eq!(store.damaged(), []);
    assert_eq!(read_all(&store, "topic", 0, 0).len(), 200);
}

/// Reads what may be damaged in one of the ways that there are. Whether it was answered by an error.
type Reader = fn(&Store, &[Appended]) -> bool;

#[test]
fn damage_is_noted_by_whoever_meets_it_first() {
    let by_queue: Reader = |store, _| {
        let mut out = Vec::new();
        store.read_queue("topic", 0, 20, common::EVERYTHING, &mut |_| true, &mut out).is_err()
    };
    let by_position: Reader =
        |store, at| store.read_record(at[20].physical_offset, &mut Vec::new()).is_err();
    let by_key: Reader = |store, _| store.query_key("topic", "k20", 9, 0, i64::MAX).is_err();
    // Where it only looks for something else it is no error.
    let by_time: Reader = |store, _| store.store_time("topic", 0, 20).unwrap().is_none();
    let by_copy: Reader =
        |store, at| store.read_log(at[20].physical_offset, 1, true, &mut Vec::new()).is_err();
    let (in_body, in_head) = (88 + 400, 30);
    let met: [(&str, u64, Reader); 9] = [
        ("queue", in_body, by_queue),
        ("queue", in_head, by_queue),
        ("position", in_body, by_position),
        ("key", in_body, by_key),
        ("key", in_head, by_key),
        ("time", in_head, by_time),
        ("copy", in_body, by_copy),
        ("copy", in_head, by_copy),
        ("copy", TOPIC_AT, by_copy),
    ];
    for (name, place, reader) in met {
        for has_sum in [true, false] {
            let disk = Arc::new(SimulatedDisk::new());
            let (store, _) = open(&disk, &config());
            let message = |n: u8| Message::new("topic", 0, vec![n | 1; 900]);
            let keyed = (0..200).map(|n| message(n).with("KEYS", &format!("k{n}")));
            let at: Vec<_> = keyed.flat_map(|one| append(&store, &[one]).unwrap()).collect();
            store.close().unwrap();
            drop(store);
            let (path, in_segment) = segment_of(at[20].physical_offset + place);
            change(&disk, &path, in_segment, |byte| byte ^ 1);
            if !has_sum {
                // Nobody compares what is copied then, and who takes it proves it.
                if name == "copy" {
                    continue;
                }
                disk.remove(Path::new("/data/weir/blocks/00000000000000000000")).unwrap();
            }
            let (store, _) = open(&disk, &config());
            assert_eq!(store.damaged(), [], "{name}: nobody has looked yet");
            assert!(reader(&store, &at), "{name} {place}");
            store.maintain().unwrap();
            let DamagedRange { from, to, .. } = only_damage(&store);
            assert!((from..to).contains(&(at[20].physical_offset + place)), "{name}: {from} {to}");
        }
    }
}

#[test]
fn what_the_disk_does_not_give_a_reader_is_noted_while_that_lasts() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    let at = fill(&store, 100);
    store.close().unwrap();
    let store = drop_and_open(store, &disk);
    let segment = segment_of(0).0;
    let readers: [fn(&Store) -> bool; 3] = [
        |store| store.read_record(0, &mut Vec::new()).is_err(),
        |store| {
            let (all, out) = (common::EVERYTHING, &mut Vec::new());
            store.read_queue("topic", 0, 0, all, &mut |_| true, out).is_err()
        },
        |store| store.read_log(0, 1, true, &mut Vec::new()).is_err(),
    ];
    for reader in readers {
        for is_lasting in [false, true] {
            disk.break_file(Some(Path::new(&segment))).unwrap();
            assert!(reader(&store));
            if !is_lasting {
                disk.break_file(None).unwrap();
            }
            store.maintain().unwrap();
            assert_eq!(!store.damaged().is_empty(), is_lasting);
            disk.break_file(None).unwrap();
        }
        store.scrub().unwrap();
        assert_eq!(store.damaged(), []);
    }
    assert_eq!(read_all(&store, "topic", 0, 0).len(), at.len());
}

#[test]
fn the_last_block_of_a_segment_keeps_what_stands_behind_its_records() {
    let ((disk, store), (replica, other), _) = twins();
    // What another replica's file had in an earlier life, and a scrub on either side before the damage.
    let last =
        |disk: &SimulatedDisk, byte| change(disk, &segment_of(0).0, (64 << 10) - 9, |_| byte);
    last(&disk, 3);
    last(&replica, 4);
    store.scrub().unwrap();
    other.scrub().unwrap();
    assert_eq!((store.damaged(), other.damaged()), (Vec::new(), Vec::new()));
    change(&disk, &segment_of(0).0, 50 << 10, |byte| byte ^ 1);
    store.scrub().unwrap();
    let DamagedRange { from, to, .. } = only_damage(&store);
    assert_eq!((from, to), (48 << 10, 64 << 10));
    let bytes = other.read_block(from, to).unwrap().unwrap();
    assert!(store.repair_block(from, &bytes).unwrap());
    let after = contents(&disk, &segment_of(0).0);
    assert_eq!(after[(64 << 10) - 9], 3);
    assert_eq!(read_all(&store, "topic", 0, 0).len(), 200);
}

/// What a closed store's directory holds may be cut by then.
#[test]
fn a_store_is_not_closed_while_a_block_is_written_again() {
    let ((disk, store), (_, other), at) = twins();
    spoil_topic(&disk, &at[20]);
    store.scrub().unwrap();
    let DamagedRange { from, to, .. } = only_damage(&store);
    let bytes = other.read_block(from, to).unwrap().unwrap();
    let (begun, repairing) = mpsc::channel();
    let (closed, closing) = mpsc::channel();
    let closing = Mutex::new(closing);
    // Called by whoever repairs, with something still to be written.
    store.set_damage_listener(Box::new(move |damaged| {
        if damaged.is_empty() {
            begun.send(()).unwrap();
            let is_closed = closing.lock().unwrap().recv_timeout(Duration::from_millis(300));
            assert_eq!(is_closed, Err(mpsc::RecvTimeoutError::Timeout));
        }
    }));
    let repair = {
        let store = store.clone();
        thread::spawn(move || store.repair_block(from, &bytes))
    };
    repairing.recv().unwrap();
    store.close().unwrap();
    let _ = closed.send(());
    assert!(repair.join().unwrap().unwrap());
    assert!(verified(&disk).is_sound);
}

#[test]
fn without_its_checksum_a_block_is_repaired_by_its_records() {
    let ((disk, store), (_, other), at) = twins();
    let body = at[20].physical_offset + 88 + 400;
    let (path, in_segment) = segment_of(body);
    change(&disk, &path, in_segment, |byte| byte ^ 1);
    change(&disk, "/data/weir/blocks/00000000000000000000", 99, |byte| byte ^ 1);
    // A reader finds it; the scrub would have nothing to compare it with.
    let all = common::EVERYTHING;
    let mut out = Vec::new();
    let read = store.read_queue("topic", 0, 20, all, &mut |_| true, &mut out);
    let in_memory = read.is_ok();
    let reopened = drop_and_open(store, &disk);
    let read = reopened.read_queue("topic", 0, 20, all, &mut |_| true, &mut out);
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "in memory: {in_memory}");
    reopened.maintain().unwrap();
    let DamagedRange { from, to, .. } = only_damage(&reopened);
    reopened.scrub().unwrap();
    assert_eq!(
        reopened.damaged().len(),
        1,
        "it is not taken for sound because nobody knows better"
    );
    let mut bytes = other.read_block(from, to).unwrap().unwrap();
    let in_body = (body - from) as usize;
    bytes[in_body] ^= 4;
    assert!(!reopened.repair_block(from, &bytes).unwrap());
    bytes[in_body] ^= 4;
    assert!(reopened.repair_block(from, &bytes).unwrap());
    assert_eq!(read_all(&reopened, "topic", 0, 0).len(), 200);
    // It has a checksum again.
    spoil_topic(&disk, &at[20]);
    reopened.scrub().unwrap();
    assert_eq!(only_damage(&reopened).from, from);
}

fn drop_and_open(store: Store, disk: &Arc<SimulatedDisk>) -> Store {
    drop(store);
    open(disk, &config()).0
}

#[test]
fn a_disk_that_refuses_a_repair_takes_nothing_any_more() {
    let ((disk, store), (_, other), at) = twins();
    spoil_topic(&disk, &at[20]);
    store.scrub().unwrap();
    let DamagedRange { from, to, .. } = only_damage(&store);
    let bytes = other.read_block(from, to).unwrap().unwrap();
    disk.fail_after(0);
    assert!(store.repair_block(from, &bytes).is_err());
    assert!(store.poisoned().is_some());
    assert_eq!(store.damaged().len(), 1);
}

/// Scrubs twice, and leaves the store as a kill does.
fn scrub_twice(store: Store, disk: &Arc<SimulatedDisk>) {
    for pass in 0..2 {
        store.scrub().unwrap();
        assert_eq!(store.damaged(), [], "pass {pass}");
    }
    drop(store);
    let report = verified(disk);
    assert!(report.is_sound, "{:?}", report.findings);
}

#[test]
fn the_last_block_of_a_killed_broker_is_proved_and_summed_by_the_next_start() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    let mut at = fill(&store, 25);
    store.flush().unwrap();
    store.maintain().unwrap();
    at.extend(fill(&store, 3));
    drop(store);
    let in_last_block = |at: &&Appended| at.physical_offset >= BLOCK_BYTES;
    let first = at.iter().find(in_last_block).unwrap();
    assert!(at[24].physical_offset > first.physical_offset, "below the mark");
    let (path, body) = segment_of(first.physical_offset + 100);
    change(&disk, &path, body, |byte| byte ^ 1);
    let refused = try_open(&disk, &config()).err().unwrap();
    let StoreError::Damaged { from, .. } = refused else { panic!("{refused}") };
    assert_eq!(from, first.physical_offset);
    change(&disk, &path, body, |byte| byte ^ 1);

    let (store, report) = open(&disk, &config());
    assert_eq!(report.log_end, at[27].end_offset);
    store.close().unwrap();
    drop(store);
    let report = verified(&disk);
    assert!(report.is_sound && report.blocks == 2, "{report:?}");
    // From here on it has a sum, which covers more than a record's own.
    spoil_topic(&disk, first);
    assert!(!verified(&disk).is_sound);
}

#[test]
fn padding_of_more_than_a_block_is_no_damage() {
    for is_summed_late in [false, true] {
        let disk = Arc::new(SimulatedDisk::new());
        let (store, _) = open(&disk, &config());
        let at = fill(&store, 40);
        // What is left of the segment is longer than a block, and shorter than this.
        append(&store, &[Message::new("topic", 0, vec![1; 30 << 10])]).unwrap();
        assert!((64 << 10) - at[39].end_offset > BLOCK_BYTES);
        store.flush().unwrap();
        if is_summed_late {
            store.scrub().unwrap();
        }
        store.maintain().unwrap();
        assert_eq!(read_all(&store, "topic", 0, 0).len(), 41);
        scrub_twice(store, &disk);
        let (store, _) = open(&disk, &config());
        assert_eq!(store.damaged(), []);
        // It is summed whole, so what is damaged in front of the padding still shows.
        spoil_topic(&disk, &at[39]);
        store.scrub().unwrap();
        store.scrub().unwrap();
        assert_eq!(store.damaged().len(), 1);
    }
}

#[test]
fn damage_of_a_segment_that_expired_is_forgotten() {
    let disk = Arc::new(SimulatedDisk::new());
    let mut config = config();
    config.upkeep.retention = std::time::Duration::ZERO;
    let clock = Arc::new(ManualClock::at_ms(1_000_000));
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let store = Store::open(config, shared, Arc::clone(&clock) as _).unwrap().0;
    let told = Arc::new(Mutex::new(0));
    let listener = Arc::clone(&told);
    store.set_damage_listener(Box::new(move |all| *listener.lock().unwrap() = all.len()));
    let at = fill(&store, 150);
    store.flush().unwrap();
    store.maintain().unwrap();
    spoil_topic(&disk, &at[20]);
    spoil_topic(&disk, &at[140]);
    store.scrub().unwrap();
    assert_eq!((store.damaged().len(), *told.lock().unwrap()), (2, 2));
    store.protect_from(u64::MAX);
    clock.advance_ms(1000);
    store.maintain().unwrap();
    assert_eq!(store.min_offset(), 128 << 10);
    assert_eq!((store.damaged().len(), *told.lock().unwrap()), (1, 1));
    assert_eq!(store.stats().damaged_bytes, BLOCK_BYTES);
}

#[test]
fn a_block_that_a_close_left_in_part_is_no_damage_when_the_log_goes_on() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    fill(&store, 5);
    store.close().unwrap();
    let mark = contents(&disk, "/data/weir/durable-mark");
    let (store, _) = open(&disk, &config());
    fill(&store, 50);
    store.flush().unwrap();
    drop(store); // and nothing was summed
    let (store, _) = open(&disk, &config());
    scrub_twice(store, &disk);
    // The mark of the close again, so that all that follows it is compared with its sums.
    put(&disk, "/data/weir/durable-mark", &mark);
    let (store, _) = open(&disk, &config());
    assert_eq!(read_all(&store, "topic", 0, 0).len(), 55);

    // The same with damage in what the close left.
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    let at = fill(&store, 5);
    store.close().unwrap();
    let (store, _) = open(&disk, &config());
    fill(&store, 50);
    store.flush().unwrap();
    spoil_topic(&disk, &at[2]);
    for pass in 0..3 {
        store.scrub().unwrap();
        assert_eq!(store.damaged().len(), 1, "pass {pass}");
    }
}

#[test]
fn sums_that_could_not_be_written_are_written_the_next_time() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    fill(&store, 50);
    store.flush().unwrap();
    disk.limit_space(Some(0));
    assert!(store.maintain().is_err());
    disk.limit_space(None);
    store.maintain().unwrap();
    drop(store);
    assert_eq!(verified(&disk).blocks, 3);
}

type Sync = fn(&Store) -> Result<(), StoreError>;

#[test]
fn a_failed_sync_of_anything_stops_the_store_and_is_not_tried_again() {
    let of_sums = |store: &Store| store.maintain();
    let of_a_small_file = |store: &Store| store.write_small_file("something", b"kept");
    let of_a_close = |store: &Store| store.close();
    for sync in [of_sums as Sync, of_a_small_file, of_a_close] {
        let disk = Arc::new(SimulatedDisk::new());
        let (store, _) = open(&disk, &config());
        fill(&store, 50);
        store.flush().unwrap();
        disk.fail_syncs(true);
        sync(&store).unwrap_err();
        assert!(store.poisoned().is_some());
        disk.fail_syncs(false);
        sync(&store).unwrap_err();
        append(&store, &[Message::new("topic", 0, vec![1])]).unwrap_err();
    }
}

#[test]
fn verify_names_a_block_that_rotted_and_a_lost_sum_is_computed_again() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    let at = fill(&store, 100);
    store.close().unwrap();
    spoil_topic(&disk, &at[20]);
    let report = verified(&disk);
    let blocks = report.findings.iter().filter(|finding| finding.kind == FindingKind::Block);
    let ranges: Vec<_> = blocks.map(|finding| (finding.from, finding.to)).collect();
    let start = (at[20].physical_offset + TOPIC_AT) / BLOCK_BYTES * BLOCK_BYTES;
    assert_eq!(ranges, [(Some(start), Some(start + BLOCK_BYTES))]);
    spoil_topic(&disk, &at[20]);
    // A bit of a sums' file: its group says nothing any more, and nobody is accused.
    change(&disk, "/data/weir/blocks/00000000000000000000", 40, |byte| byte ^ 8);
    let report = verified(&disk);
    assert!(report.is_sound && report.blocks < 7, "{report:?}");
    let (store, _) = open(&disk, &config());
    store.scrub().unwrap();
    assert_eq!(store.damaged(), []);
    store.close().unwrap();
    assert_eq!(verified(&disk).blocks, 7);
}

#[test]
fn what_was_on_disk_and_is_not_any_more_is_damage_even_above_the_durable_mark() {
    let set_up = || {
        let disk = Arc::new(SimulatedDisk::new());
        let (store, _) = open(&disk, &config());
        fill(&store, 3);
        store.flush().unwrap();
        store.maintain().unwrap();
        let mark = contents(&disk, "/data/weir/durable-mark");
        let at = fill(&store, 50);
        store.flush().unwrap();
        store.maintain().unwrap();
        drop(store);
        // A power cut between the sums and the mark.
        put(&disk, "/data/weir/durable-mark", &mark);
        (disk, at)
    };
    let (disk, at) = set_up();
    assert_eq!(open(&disk, &config()).1.log_end, at[49].end_offset);

    let (disk, at) = set_up();
    spoil_topic(&disk, &at[20]);
    let refused = try_open(&disk, &config()).err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("is not what was written"), "{refused}");

    let (disk, at) = set_up();
    let (path, from) = segment_of(at[20].physical_offset);
    let file = disk.open(Path::new(&path), OpenMode::Write).unwrap();
    file.write_all_at(&vec![0; (64 << 10) - from as usize], from).unwrap();
    for _ in 0..2 {
        let refused = try_open(&disk, &config()).err().unwrap();
        assert!(refused.to_string().contains("but this was on disk"), "{refused}");
    }
}

#[test]
fn a_log_that_somebody_else_continued_is_not_judged_by_our_sums() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &config());
    let at = fill(&store, 40);
    store.close().unwrap();
    // What another program does that knows nothing of us: cut, and go on with other records.
    let other = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&other, &config());
    fill(&store, 30);
    let message = Message::new("other", 1, vec![9; 500]);
    for _ in 0..20 {
        append(&store, std::slice::from_ref(&message)).unwrap();
    }
    let end = store.max_offset();
    store.close().unwrap();
    let log = "/data/commitlog/00000000000000000000";
    put(&disk, log, &contents(&other, log));
    for name in ["durable-mark", "durable-mark.last", "queue-state"] {
        let _ = disk.remove(Path::new(&format!("/data/weir/{name}")));
    }
    assert!(end > at[30].end_offset);
    let (store, report) = open(&disk, &config());
    assert_eq!(report.log_end, end);
    store.scrub().unwrap();
    assert_eq!(store.damaged(), []);
    assert_eq!(read_all(&store, "other", 1, 0).len(), 20);
    store.close().unwrap();
    assert!(verified(&disk).is_sound);
}
