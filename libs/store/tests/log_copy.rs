//! A copy of a log is the log: byte for byte, with the same queues and keys, wherever it was cut
//! into pieces, wherever it begins, and after its end was cut off.

mod common;

use std::sync::Arc;

use common::{Message, Random, append, open, queues, small_config, walk};
use proptest::prelude::*;
use weirmq_store::offline::{begin_at, truncate};
use weirmq_store::{Disk, FlushMode, LogRead, SimulatedDisk, Store, StoreError};

const SEGMENT_BYTES: u64 = 64 << 10;

fn message(n: u64, bytes: u64) -> Message {
    Message::new(["a", "b", "c"][n as usize % 3], (n % 2) as i32, vec![n as u8; bytes as usize])
        .with("TAGS", &format!("t{}", n % 5))
        .with("UNIQ_KEY", &format!("u{n}"))
}

fn filled(disk: &Arc<SimulatedDisk>, seed: u64, messages: u64) -> Store {
    let (store, _) = open(disk, &small_config(FlushMode::ASYNC));
    let mut random = Random(seed);
    let mut n = 0;
    while n < messages {
        let batch: Vec<_> =
            (0..=random.below(5)).map(|at| message(n + at, random.below(9_000))).collect();
        append(&store, &batch).unwrap();
        n += batch.len() as u64;
    }
    store
}

/// Everything from `from` on, in the pieces that reads of up to `bytes_max` give.
fn pieces(store: &Store, from: u64, bytes_max: usize) -> Vec<(u64, Vec<u8>)> {
    let (mut position, mut pieces) = (from, Vec::new());
    loop {
        let mut bytes = Vec::new();
        match store.read_log(position, bytes_max, true, &mut bytes).unwrap() {
            LogRead::Read { next } => {
                pieces.push((position, bytes));
                position = next;
            }
            LogRead::End => return pieces,
            other => panic!("{other:?} at {position}"),
        }
    }
}

fn copy(from: &Store, to: &Store, bytes_max: usize) {
    for (position, bytes) in pieces(from, to.max_offset(), bytes_max) {
        to.append_copy(position, &bytes).unwrap();
    }
}

fn assert_same(copy: &Store, original: &Store) {
    assert_eq!(copy.max_offset(), original.max_offset());
    let from = copy.min_offset();
    assert_eq!(pieces(copy, from, 1 << 20), pieces(original, from, 1 << 20));
    let topics = ["a", "b", "c"].map(str::to_owned);
    let in_both = |store: &Store| {
        let mut all = queues(store, &topics);
        for (range, entries) in all.values_mut() {
            entries.retain(|(_, entry)| entry.physical_offset >= from);
            range.min = entries.first().map_or(range.max, |(offset, _)| *offset);
        }
        all
    };
    assert_eq!(in_both(copy), in_both(original));
    for record in walk(copy, SEGMENT_BYTES).iter().step_by(7) {
        let properties = &record.message.properties;
        let key = weirmq_message::properties::get(properties, "UNIQ_KEY").unwrap();
        let found = copy.query_key(&record.message.topic, key, 10, 0, i64::MAX).unwrap();
        assert!(found.contains(&record.position), "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_copy_equals_its_original(seed: u64, bytes_max in 1usize..200_000, kill: bool) {
        let original = filled(&Arc::default(), seed, 60);
        let disk = Arc::new(SimulatedDisk::new());
        let config = small_config(FlushMode::ASYNC);
        let (replica, _) = open(&disk, &config);
        copy(&original, &replica, bytes_max);
        assert_same(&replica, &original);
        if kill { drop(replica) } else { replica.close().unwrap() }
        let (replica, report) = open(&disk, &config);
        prop_assert_eq!(report.cut_bytes, 0);
        assert_same(&replica, &original);
        append(&original, &[message(7, 7_000), message(8, 100)]).unwrap();
        copy(&original, &replica, bytes_max);
        assert_same(&replica, &original);
    }

    /// The new end is a record's, and what is written behind it is found again, never what was cut.
    #[test]
    fn what_is_cut_off_is_gone_for_good(seed: u64, cut_at in 0usize..60, crash: u64) {
        let disk = Arc::new(SimulatedDisk::new());
        let store = filled(&disk, seed, 60);
        let records = walk(&store, SEGMENT_BYTES);
        let at = records[cut_at].position;
        store.write_small_file("snapshot", b"knows everything").unwrap();
        store.close().unwrap();
        let config = small_config(FlushMode::ASYNC);
        let as_disk: Arc<dyn Disk> = disk.clone();
        truncate(&config.directory, &as_disk, at, &["snapshot"]).unwrap();
        let disk = Arc::new(disk.crash(crash));
        let (store, report) = open(&disk, &config);
        prop_assert_eq!((report.log_end, report.cut_bytes), (at, 0));
        prop_assert_eq!(store.read_small_file("snapshot").unwrap(), None);
        prop_assert_eq!(&walk(&store, SEGMENT_BYTES)[..], &records[..cut_at]);
        append(&store, &[message(3, 500)]).unwrap();
        drop(store);
        let (store, report) = open(&disk, &config);
        prop_assert_eq!(report.cut_bytes, 0);
        prop_assert_eq!(walk(&store, SEGMENT_BYTES).len(), cut_at + 1);
    }
}

#[test]
fn a_cut_that_a_crash_interrupts_is_finished_by_the_next_open() {
    let config = small_config(FlushMode::ASYNC);
    let mut cuts = 0;
    for seed in 0..40 {
        let disk = Arc::new(SimulatedDisk::new());
        let store = filled(&disk, seed, 60);
        let records = walk(&store, SEGMENT_BYTES);
        let at = records[10].position;
        store.close().unwrap();
        disk.fail_after(seed % 20);
        let as_disk: Arc<dyn Disk> = disk.clone();
        let result = truncate(&config.directory, &as_disk, at, &["snapshot"]);
        let disk = Arc::new(disk.crash(seed));
        let (store, _) = open(&disk, &config);
        let kept = walk(&store, SEGMENT_BYTES).len();
        assert!(kept == records.len() || kept == 10, "seed {seed}: {kept}");
        cuts += usize::from(kept == 10);
        assert!(kept == 10 || result.is_err(), "seed {seed}");
    }
    assert!((5..40).contains(&cuts), "{cuts}");
}

#[test]
fn a_log_can_begin_where_another_begins() {
    let original = filled(&Arc::default(), 3, 60);
    let start = 2 * SEGMENT_BYTES;
    let config = small_config(FlushMode::ASYNC);
    for crash in 0..20 {
        let disk = Arc::new(SimulatedDisk::new());
        open(&disk, &config).0.close().unwrap();
        let as_disk: Arc<dyn Disk> = disk.clone();
        begin_at(&config.directory, &as_disk, start, original.store_id(), &[]).unwrap();
        let disk = Arc::new(disk.crash(crash));
        let (replica, _) = open(&disk, &config);
        assert_eq!((replica.min_offset(), replica.max_offset()), (start, start));
        assert_eq!(replica.store_id(), original.store_id());
        assert!(replica.lost().unwrap().is_some());
        replica.forget_lost().unwrap();
        copy(&original, &replica, 10_000);
        assert_same(&replica, &original);
        replica.close().unwrap();
        let (replica, report) = open(&disk, &config);
        assert_eq!(replica.lost().unwrap(), None);
        assert_eq!((report.rebuilt_segments, report.log_start), (0, start));
        assert_same(&replica, &original);
        replica.close().unwrap();
        // And again, from elsewhere.
        let as_disk: Arc<dyn Disk> = disk.clone();
        begin_at(&config.directory, &as_disk, 0, original.store_id(), &[]).unwrap();
        let disk = Arc::new(disk.crash(crash));
        let (replica, _) = open(&disk, &config);
        assert_eq!((replica.min_offset(), replica.max_offset()), (0, 0));
        copy(&original, &replica, 10_000);
        assert_same(&replica, &original);
    }
}

#[test]
fn a_beginning_that_a_crash_interrupts_is_finished_by_the_next_open() {
    let config = small_config(FlushMode::ASYNC);
    let id = uuid::Uuid::from_u128(7);
    let mut begun = 0;
    for seed in 0..120 {
        let disk = Arc::new(SimulatedDisk::new());
        let store = match seed % 2 {
            0 => filled(&disk, seed, 30),
            _ => open(&disk, &config).0,
        };
        let before = store.max_offset();
        store.close().unwrap();
        disk.fail_after(seed / 2);
        let as_disk: Arc<dyn Disk> = disk.clone();
        let result = begin_at(&config.directory, &as_disk, 2 * SEGMENT_BYTES, id, &["snapshot"]);
        let disk = Arc::new(disk.crash(seed));
        let (store, _) = open(&disk, &config);
        let is_begun = store.store_id() == id;
        let end = if is_begun { 2 * SEGMENT_BYTES } else { before };
        assert_eq!(store.max_offset(), end, "seed {seed}");
        assert!(is_begun || result.is_err(), "seed {seed}");
        // Whoever has nothing must not be taken for one that has what it confirmed.
        assert!(!is_begun || store.lost().unwrap().is_some(), "seed {seed}");
        begun += usize::from(is_begun);
        append(&store, &[message(1, 10)]).unwrap();
    }
    assert!((20..120).contains(&begun), "{begun}");
}

#[test]
fn queues_whose_messages_have_expired_go_on_in_a_copy_where_they_stood() {
    let (replica, _) = open(&Arc::new(SimulatedDisk::new()), &small_config(FlushMode::ASYNC));
    let offsets = [("a".to_owned(), [(0, 1_000)].into())].into();
    replica.adopt_next_offsets(&offsets).unwrap();
    assert_eq!(replica.next_offsets(), offsets);
    let mut message = message(0, 10);
    message.topic = "a".to_owned();
    assert_eq!(append(&replica, &[message]).unwrap()[0].queue_offset, 1_000);
}

#[test]
fn what_does_not_continue_the_log_is_refused_and_nothing_of_it_is_there() {
    let original = filled(&Arc::default(), 5, 40);
    let (replica, _) = open(&Arc::new(SimulatedDisk::new()), &small_config(FlushMode::ASYNC));
    let all = pieces(&original, 0, 20_000);
    let refused = |position, bytes: &[u8]| {
        let before = replica.max_offset();
        let error = replica.append_copy(position, bytes).unwrap_err();
        assert!(matches!(error, StoreError::NoContinuation { .. }), "{error}");
        assert_eq!(replica.max_offset(), before);
    };
    refused(8, &all[0].1);
    refused(all[1].0, &all[1].1);
    // So far that all queues have begun: one may begin anywhere.
    let (last, others) = all.split_last().unwrap();
    others.iter().for_each(|(position, bytes)| _ = replica.append_copy(*position, bytes).unwrap());
    refused(all[0].0, &all[0].1);
    let (position, bytes) = last;
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    // Length, magic, queue offset (a gap), physical offset, body.
    for at in [2, 5, 26, 34, 95] {
        refused(*position, &flipped(at));
    }
    refused(*position, &bytes[..bytes.len() - 1]);
    refused(*position, &[0; 64]);
    copy(&original, &replica, 5_000);
    assert_same(&replica, &original);
}

#[test]
fn a_replica_shows_only_what_is_confirmed_and_takes_only_copies() {
    let original = filled(&Arc::default(), 9, 30);
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (replica, _) = open(&disk, &config);
    copy(&original, &replica, 50_000);
    drop(replica);
    let (replica, _) = open(&disk, &config);
    replica.hide_unconfirmed();
    assert_eq!(replica.close_for_appends(), original.max_offset());
    assert!(matches!(append(&replica, &[message(1, 1)]), Err(StoreError::NotMaster)));
    assert!(walk(&replica, SEGMENT_BYTES).is_empty());
    assert_eq!(replica.queue_range("a", 0), None);
    let records = walk(&original, SEGMENT_BYTES);
    replica.watermarks().confirm(records[15].position);
    assert_eq!(walk(&replica, SEGMENT_BYTES).len(), 15);
    let shown = queues(&replica, &["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    let shown: usize = shown.values().map(|(_, entries)| entries.len()).sum();
    assert_eq!(shown, 15);
    append(&original, &[message(99, 10)]).unwrap();
    copy(&original, &replica, 50_000);
    assert_eq!(walk(&replica, SEGMENT_BYTES).len(), 15);
    // The clock of the tests stands at 1,000 s.
    replica.open_for_appends(Some(std::time::Duration::from_secs(1_000)));
    assert!(matches!(append(&replica, &[message(1, 1)]), Err(StoreError::NotMaster)));
    replica.open_for_appends(Some(std::time::Duration::from_secs(1_001)));
    append(&replica, &[message(1, 1)]).unwrap();
}

#[test]
fn reads_that_may_not_wait_and_reads_outside_say_so() {
    let original = filled(&Arc::default(), 1, 20);
    let mut out = b"kept".to_vec();
    assert_eq!(original.read_log(1, 100, true, &mut out).unwrap(), LogRead::Gone);
    let end = original.max_offset();
    assert_eq!(original.read_log(end, 100, true, &mut out).unwrap(), LogRead::End);
    assert_eq!(original.read_log(end + 1, 100, true, &mut out).unwrap(), LogRead::Gone);
    // Whoever asks may have another log.
    for from in end - 20..end {
        let read = original.read_log(from, 100, true, &mut out);
        assert_eq!(read.unwrap(), LogRead::Gone, "{from}");
    }
    assert_eq!(out, b"kept");
}
