//! What was appended is what is read: by queue, by position, by time, by key, while others write,
//! and after every kind of reopen.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{EVERYTHING, Message, append, open, read_all, small_config};
use weirmq_message::sys_flag;
use weirmq_store::{
    Boundary, Disk, FlushMode, KeySource, ManualClock, QueueRange, ReadLimits, RealDisk,
    SimulatedDisk, Store, StoreConfig, SystemClock,
};

fn numbered(count: usize, bytes: usize) -> Vec<Message> {
    let message = |n: usize| {
        let mut body = vec![b'.'; bytes];
        body[..8].copy_from_slice(&(n as u64).to_be_bytes());
        Message::new(["orders", "payments"][n % 2], (n % 3) as i32, body)
            .with("TAGS", ["even", "odd"][n % 2])
            .with("UNIQ_KEY", &format!("u{n}"))
    };
    (0..count).map(message).collect()
}

#[test]
fn messages_come_back_in_order_across_segments() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    let messages = numbered(600, 700);
    for batch in messages.chunks(7) {
        append(&store, batch).unwrap();
    }
    assert!(store.stats().segments > 6);
    let check = |store: &Store| {
        for topic in ["orders", "payments"] {
            for queue_id in 0..3 {
                let of_queue = |m: &&Message| m.topic == topic && m.queue_id == queue_id;
                let expected: Vec<_> = messages.iter().filter(of_queue).cloned().collect();
                let found = read_all(store, topic, queue_id, 0);
                let offsets: Vec<_> = found.iter().map(|stored| stored.queue_offset).collect();
                assert_eq!(offsets, (0..expected.len() as u64).collect::<Vec<_>>());
                let found: Vec<_> = found.into_iter().map(|stored| stored.message).collect();
                assert_eq!(found, expected);
            }
        }
        for n in [0, 1, 299, 599] {
            let key = format!("u{n}");
            let found = store.query_key(&messages[n].topic, &key, 10, 0, i64::MAX).unwrap();
            assert_eq!(found.len(), 1, "{key}");
        }
        assert_eq!(store.queue_range("orders", 9), None);
        assert_eq!(store.queue_range("nothing", 0), None);
    };
    check(&store);
    // Like a kill: nothing was flushed or closed, but everything was written.
    drop(store);
    let (store, report) = open(&disk, &config);
    assert!(!report.was_clean && report.cut_bytes == 0 && report.rebuilt_segments > 6);
    check(&store);
    store.close().unwrap();
    let (store, report) = open(&disk, &config);
    assert!(report.was_clean && report.rebuilt_segments == 0 && report.proved_bytes == 0);
    check(&store);
    append(&store, &numbered(6, 100)).unwrap();
    assert_eq!(store.queue_range("orders", 0), Some(QueueRange { min: 0, max: 101 }));
}

#[test]
fn what_is_proved_and_derived_after_a_kill_does_not_grow_with_the_log() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (mut store, _) = open(&disk, &config);
    for _ in 0..4 {
        append(&store, &numbered(200, 700)).unwrap();
        store.flush().unwrap();
        store.maintain().unwrap();
        let marked = store.max_offset();
        append(&store, &numbered(20, 700)).unwrap();
        let behind = store.max_offset() - marked;
        // Like a kill.
        drop(store);
        let (again, report) = open(&disk, &config);
        assert!(!report.was_clean && report.proved_bytes == behind, "{report:?}");
        let unsealed = behind.div_ceil(config.segment_bytes) + 1;
        assert!(report.rebuilt_segments as u64 <= unsealed, "{report:?}");
        store = again;
    }
    assert!(store.stats().segments > 9);
}

#[test]
fn a_read_obeys_limits_filter_and_range() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
    let messages: Vec<_> = (0..50)
        .map(|n| Message::new("t", 0, vec![n; 100]).with("TAGS", ["a", "b"][n as usize % 2]))
        .collect();
    let size = append(&store, &messages).unwrap()[0].size as usize;
    let read = |from, messages, bytes, wanted: Option<i64>| {
        let mut out = Vec::new();
        let mut accept =
            |entry: &weirmq_store::QueueEntry| wanted.is_none_or(|hash| entry.tag_hash == hash);
        let limits = ReadLimits { messages, bytes };
        let read = store.read_queue("t", 0, from, limits, &mut accept, &mut out).unwrap();
        assert_eq!(read.bytes, out.len());
        (read.next, read.found, read.scanned)
    };
    assert_eq!(read(0, 10, usize::MAX, None), (10, 10, 10));
    assert_eq!(read(45, 10, usize::MAX, None), (50, 5, 5));
    assert_eq!(read(0, 10, 3 * size, None), (3, 3, 3));
    assert_eq!(read(0, 10, 1, None), (1, 1, 1));
    let odd = weirmq_message::tags::tag_hash(Some("b"));
    assert_eq!(read(0, 3, usize::MAX, Some(odd)), (6, 3, 6));
    assert_eq!(read(0, 3, usize::MAX, Some(12345)), (50, 0, 50));
    assert_eq!(read(50, 10, usize::MAX, None), (50, 0, 0));
    assert_eq!(read(99, 10, usize::MAX, None), (50, 0, 0));
}

#[test]
fn a_position_is_a_record_only_where_one_begins() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
    let at = append(&store, &numbered(3, 50)).unwrap();
    let mut out = Vec::new();
    for position in 0..store.max_offset() + 200 {
        let found = store.read_record(position, &mut out).unwrap();
        assert_eq!(found.is_some(), at.iter().any(|at| at.physical_offset == position));
    }
    assert_eq!(store.read_record(u64::MAX, &mut out).unwrap(), None);
}

#[test]
fn with_synchronous_flush_nothing_is_visible_before_it_is_flushed() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::Sync));
    append(&store, &numbered(12, 50)).unwrap();
    assert_eq!(store.queue_range("orders", 0), None);
    assert_eq!(read_all(&store, "orders", 0, 0), []);
    assert_eq!(store.read_record(0, &mut Vec::new()).unwrap(), None);
    store.flush().unwrap();
    assert_eq!(store.queue_range("orders", 0), Some(QueueRange { min: 0, max: 2 }));
    append(&store, &numbered(1200, 50)).unwrap();
    assert_eq!(store.queue_range("orders", 0), Some(QueueRange { min: 0, max: 2 }));
    assert_eq!(read_all(&store, "orders", 0, 0).len(), 2);
    assert_eq!(store.queue_entry("orders", 0, 2).unwrap(), None);
    store.flush().unwrap();
    assert_eq!(read_all(&store, "orders", 0, 0).len(), 202);
}

#[test]
fn times_are_searched_as_apache_does() {
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
    let clock = Arc::new(ManualClock::at_ms(0));
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = Store::open(config, disk, clock.clone()).unwrap();
    // Store times 100, 200, 200, 300.
    for step in [100, 100, 0, 100] {
        clock.advance_ms(step);
        append(&store, &[Message::new("t", 0, "x")]).unwrap();
    }
    let search = |time, boundary| store.offset_by_time("t", 0, time, boundary).unwrap().unwrap();
    for (time, lower, upper) in
        [(50, 0, 0), (100, 0, 0), (150, 1, 0), (200, 1, 2), (250, 3, 2), (300, 3, 3), (301, 4, 3)]
    {
        assert_eq!(search(time, Boundary::Lower), lower, "lower of {time}");
        assert_eq!(search(time, Boundary::Upper), upper, "upper of {time}");
    }
    assert_eq!(store.store_time("t", 0, 3).unwrap(), Some(300));
    assert_eq!(store.store_time("t", 0, 4).unwrap(), None);
    assert_eq!(store.offset_by_time("none", 0, 1, Boundary::Lower).unwrap(), None);
}

#[test]
fn keys_are_found_newest_first_within_time_and_topic() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
    let keyed = |topic, keys| Message::new(topic, 0, "x").with("KEYS", keys);
    let at = append(&store, &[keyed("t", "a b"), keyed("other", "a"), keyed("t", "b a")]).unwrap();
    let find = |key, max, from, to| store.query_key("t", key, max, from, to).unwrap();
    let (first, last) = (at[0].physical_offset, at[2].physical_offset);
    assert_eq!(find("a", 10, 0, i64::MAX), [last, first]);
    assert_eq!(find("a", 1, 0, i64::MAX), [last]);
    assert!(find("a b", 10, 0, i64::MAX).is_empty());
    assert!(find("a", 10, 1_000_001, i64::MAX).is_empty());
}

#[test]
fn records_without_queue_entry_are_in_the_log_only() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    let message = Message::new("half", 0, "x").with("KEYS", "k");
    let mut rolled_back = message.as_new();
    rolled_back.sys_flag = sys_flag::TRANSACTION_ROLLBACK;
    rolled_back.dispatch = false;
    rolled_back.index_keys = KeySource::None;
    let mut appended = Vec::new();
    store.append(&[rolled_back, message.as_new()], &mut appended).unwrap();
    assert_eq!(read_all(&store, "half", 0, 0).len(), 1);
    let found = store.query_key("half", "k", 10, 0, i64::MAX).unwrap();
    assert_eq!(found, [appended[1].physical_offset]);
    drop(store);
    let (store, _) = open(&disk, &config);
    assert_eq!(read_all(&store, "half", 0, 0).len(), 1);
    assert_eq!(store.query_key("half", "k", 10, 0, i64::MAX).unwrap().len(), 1);
    assert!(store.read_record(0, &mut Vec::new()).unwrap().is_some());
}

#[test]
fn a_deleted_topic_begins_again_at_zero_and_stays_forgotten() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    append(&store, &numbered(200, 500)).unwrap();
    store.delete_queues(&["orders"], 0).unwrap();
    assert_eq!(store.queue_range("orders", 0), None);
    drop(store);
    let (store, _) = open(&disk, &config);
    assert_eq!(store.queue_range("orders", 0), None);
    assert_eq!(read_all(&store, "payments", 1, 0).len(), 34);
    let again = append(&store, &[Message::new("orders", 0, "new")]).unwrap();
    assert_eq!(again[0].queue_offset, 0);
    store.maintain().unwrap();
    let check = |store: &Store| {
        let found = read_all(store, "orders", 0, 0);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message.body, b"new");
    };
    check(&store);
    drop(store);
    let (store, _) = open(&disk, &config);
    check(&store);
    store.close().unwrap();
    check(&open(&disk, &config).0);
}

#[test]
fn expired_segments_go_and_queues_count_on() {
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
    let clock = Arc::new(ManualClock::at_ms(1_000));
    let mut config = small_config(FlushMode::ASYNC);
    config.upkeep.retention = Duration::from_millis(500);
    let reopen = || Store::open(config.clone(), Arc::clone(&disk), clock.clone()).unwrap().0;
    let store = reopen();
    append(&store, &[Message::new("rare", 2, "only one")]).unwrap();
    append(&store, &numbered(300, 700)).unwrap();
    store.flush().unwrap();
    clock.advance_ms(1_000);
    append(&store, &[Message::new("orders", 0, "late")]).unwrap();
    store.maintain().unwrap();
    assert_eq!(store.min_offset(), 0, "nothing expires before somebody says what is protected");
    store.protect_from(100_000);
    store.maintain().unwrap();
    assert_eq!(store.min_offset(), 64 << 10, "the protected position stays");
    store.protect_from(u64::MAX);
    store.maintain().unwrap();
    assert_eq!(store.stats().segments, 1);
    assert_eq!(store.queue_range("rare", 2), Some(QueueRange { min: 1, max: 1 }));
    let range = store.queue_range("orders", 0).unwrap();
    assert!(range.min > 0 && range.max == 51, "{range:?}");
    assert_eq!(read_all(&store, "orders", 0, range.min).len() as u64, range.max - range.min);
    drop(store);
    let store = reopen();
    assert_eq!(store.queue_range("rare", 2), Some(QueueRange { min: 1, max: 1 }));
    let at = append(&store, &[Message::new("rare", 2, "again")]).unwrap();
    assert_eq!(at[0].queue_offset, 1);
    store.close().unwrap();
    let names: Vec<_> = ["commitlog", "weir/queues", "weir/keys"]
        .iter()
        .map(|name| disk.list(&config.directory.join(name)).unwrap().len())
        .collect();
    assert_eq!(names, [1, 1, 1]);
    assert_eq!(reopen().queue_range("rare", 2), Some(QueueRange { min: 1, max: 2 }));
}

#[test]
fn many_readers_see_whole_prefixes_while_two_writers_append() {
    let directory = tempfile::tempdir().unwrap();
    for flush in [FlushMode::ASYNC, FlushMode::Sync] {
        let config = StoreConfig {
            directory: directory.path().join(format!("{}", flush == FlushMode::Sync)),
            segment_bytes: 256 << 10,
            unflushed_bytes_max: Some(1 << 20),
            threads: true,
            ..small_config(flush)
        };
        let (store, _) =
            Store::open(config.clone(), Arc::new(RealDisk), Arc::new(SystemClock)).unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|_| {
                    let store = store.clone();
                    scope.spawn(move || {
                        for batch in numbered(3000, 300).chunks(11) {
                            append(&store, batch).unwrap();
                        }
                    })
                })
                .collect();
            for queue_id in 0..3 {
                let (store, is_done) = (store.clone(), &is_done);
                scope.spawn(move || {
                    let mut next = 0;
                    while !is_done.load(Ordering::Relaxed) {
                        let found = read_all(&store, "orders", queue_id, next);
                        for stored in found {
                            assert_eq!(stored.queue_offset, next);
                            next += 1;
                        }
                    }
                });
            }
            for writer in writers {
                writer.join().unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
        });
        store.sync_wait(store.max_offset(), Duration::from_secs(10)).unwrap();
        assert_eq!(store.watermarks().visible(), store.max_offset());
        for queue_id in 0..3 {
            assert_eq!(read_all(&store, "orders", queue_id, 0).len(), 1000);
        }
        store.close().unwrap();
        assert!(matches!(append(&store, &numbered(1, 9)), Err(weirmq_store::StoreError::Closed)));
        drop(store);
        let (store, report) =
            Store::open(config, Arc::new(RealDisk), Arc::new(SystemClock)).unwrap();
        assert_eq!((report.was_clean, report.rebuilt_segments), (true, 0));
        let mut out = Vec::new();
        let read = store.read_queue("orders", 0, 0, EVERYTHING, &mut |_| true, &mut out).unwrap();
        assert_eq!(read.found, 1000);
    }
}

/// How many segments of a store this process has mapped.
fn mapped_segments(config: &StoreConfig) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let log = config.directory.join("commitlog");
    maps.lines().filter(|line| line.contains(log.to_str().unwrap())).count()
}

#[test]
fn reads_through_mappings_see_what_pread_sees_while_the_log_rolls() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        StoreConfig { directory: directory.path().join("store"), ..small_config(FlushMode::ASYNC) };
    let (store, _) = open(&Arc::new(RealDisk), &config);
    assert_eq!(mapped_segments(&config), 0, "nobody has read");
    let is_done = AtomicBool::new(false);
    let read_like_pread = |queue_id, from| {
        let mut out = Vec::new();
        let read = store
            .read_queue("orders", queue_id, from, EVERYTHING, &mut |_| true, &mut out)
            .unwrap();
        let mut by_pread = Vec::with_capacity(out.len());
        for record in weirmq_message::record::records(&out) {
            let position = record.unwrap().physical_offset;
            assert!(store.read_record(position, &mut by_pread).unwrap().is_some());
        }
        assert!(out == by_pread, "queue {queue_id} from {from}");
        read.next
    };
    std::thread::scope(|scope| {
        for queue_id in 0..3 {
            let (is_done, read) = (&is_done, &read_like_pread);
            scope.spawn(move || {
                let mut next = 0;
                while !is_done.load(Ordering::Relaxed) {
                    next = read(queue_id, next);
                }
            });
        }
        for (n, batch) in numbered(6000, 300).chunks(7).enumerate() {
            append(&store, batch).unwrap();
            if n % 16 == 0 {
                store.maintain().unwrap();
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert!(store.stats().segments > 20);
    store.maintain().unwrap();
    assert!(mapped_segments(&config) <= 2, "old segments were given back");
    let newest = store.queue_range("orders", 0).unwrap().max - 1;
    // A read that was held up lets some later ones go without a mapping.
    let is_mapped = |_| read_like_pread(0, newest) > newest && mapped_segments(&config) > 0;
    assert!((0..100).any(is_mapped));
    (0..3).for_each(|queue_id| assert_eq!(read_like_pread(queue_id, 0), 1000));
    assert!(mapped_segments(&config) <= 2, "old segments are not mapped again");
    drop(store);
    assert_eq!(mapped_segments(&config), 0);
    let (store, _) = open(&Arc::new(RealDisk), &config);
    assert_eq!(read_all(&store, "orders", 0, 0).len(), 1000);
    assert_eq!(mapped_segments(&config), 0, "what was there at open is read by pread");
}

#[test]
fn zeros_written_ahead_never_meet_a_record() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        directory: directory.path().join("store"),
        segment_bytes: 8 << 20,
        unflushed_bytes_max: Some(16 << 20),
        threads: true,
        ..small_config(FlushMode::Sync)
    };
    let open = || Store::open(config.clone(), Arc::new(RealDisk), Arc::new(SystemClock)).unwrap();
    let (store, _) = open();
    let messages = numbered(1200, 20_000);
    for batch in messages.chunks(5) {
        append(&store, batch).unwrap();
    }
    store.sync_wait(store.max_offset(), Duration::from_secs(60)).unwrap();
    let check = |store: &Store| {
        let all = common::walk(store, 8 << 20).into_iter().map(|stored| stored.message);
        assert!(all.eq(messages.iter().cloned()));
    };
    check(&store);
    drop(store);
    let (store, report) = open();
    assert_eq!((report.was_clean, report.cut_bytes), (false, 0));
    check(&store);
}

#[test]
fn small_files_of_the_user_are_kept() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    assert_eq!(store.read_small_file("snapshot").unwrap(), None);
    store.write_small_file("snapshot", b"one").unwrap();
    drop(store);
    let (store, _) = open(&Arc::new(disk.crash(1)), &config);
    assert_eq!(store.read_small_file("snapshot").unwrap().unwrap(), b"one");
}
