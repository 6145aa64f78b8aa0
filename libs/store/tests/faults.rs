//! Directories that must be refused, disks that fail, and logs that lost something.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Message, append, open, read_all, small_config, try_open};
use weirmq_store::{
    Disk, FlushMode, OpenMode, RealDisk, SimulatedDisk, Store, StoreConfig, StoreError, SystemClock,
};

fn messages(count: usize, bytes: usize) -> Vec<Message> {
    (0..count).map(|n| Message::new("t", 0, vec![n as u8 | 1; bytes])).collect()
}

fn overwrite(disk: &SimulatedDisk, path: &str, at: u64, bytes: &[u8]) {
    let file = disk.open(Path::new(path), OpenMode::Write).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync().unwrap();
}

const FIRST: &str = "/data/commitlog/00000000000000000000";

fn real(directory: PathBuf) -> StoreConfig {
    StoreConfig { directory, ..small_config(FlushMode::ASYNC) }
}

fn open_real(config: &StoreConfig) -> Result<Store, StoreError> {
    let opened = Store::open(config.clone(), Arc::new(RealDisk), Arc::new(SystemClock));
    opened.map(|(store, _)| store)
}

#[test]
fn a_directory_serves_one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let config = real(directory.path().join("store"));
    let store = open_real(&config).unwrap();
    let refused = open_real(&config).err().unwrap();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("is in use by another process"));
    store.close().unwrap();
    open_real(&config).unwrap();
}

#[test]
fn a_new_directory_is_durable_with_those_above_it() {
    let disk = Arc::new(SimulatedDisk::new());
    let config =
        StoreConfig { directory: "/new/above/data".into(), ..small_config(FlushMode::ASYNC) };
    open(&disk, &config);
    for above in ["/", "/new", "/new/above", "/new/above/data"] {
        assert!(disk.was_synced(Path::new(above)), "{above}");
    }
    // A name alone is one in the folder where the process is.
    open(&disk, &StoreConfig { directory: "data".into(), ..config });
    assert!(disk.was_synced(Path::new(".")));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let refused = open_real(&real(file.join("store"))).err().unwrap().to_string();
    assert!(refused.contains("cannot create directory") && refused.contains("file/store"));
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    open(&disk, &config).0.close().unwrap();
    let other = StoreConfig { group: "broker-b".to_owned(), ..config.clone() };
    let refused = try_open(&disk, &other).err().unwrap().to_string();
    assert!(refused.contains("group is broker-a"), "{refused}");
    let larger = StoreConfig { segment_bytes: 128 << 10, ..config.clone() };
    open(&disk, &larger).0.close().unwrap();
    let text = br#"{"version":2}"#;
    let mut bytes = format!("weir1 {:08x}\n", crc32fast::hash(text)).into_bytes();
    bytes.extend_from_slice(text);
    let path = "/data/weir/format.json";
    disk.open(Path::new(path), OpenMode::Replace).unwrap();
    overwrite(&disk, path, 0, &bytes);
    let refused = try_open(&disk, &config).err().unwrap();
    assert!(matches!(refused, StoreError::NewerFormat { found: 2, .. }), "{refused}");
}

#[test]
fn a_message_or_batch_that_is_too_large_is_refused_with_its_limit() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
    let refuse = |messages: &[Message], text: &str| {
        let refused = append(&store, messages).unwrap_err();
        assert!(matches!(refused, StoreError::TooLarge { .. }));
        assert!(refused.to_string().contains(text), "{refused}");
    };
    refuse(&messages(1, 40_000), "message takes 40000 bytes, the limit is 32768");
    refuse(&messages(20, 30_000), "batch takes");
    refuse(&[Message::new(&"t".repeat(256), 0, "")], "topic takes 256 bytes");
    let zeros = "\0".repeat(600);
    refuse(&[Message::new("t", 0, "").with("k", &zeros)], "a run of zeros in properties");
    assert_eq!(store.max_offset(), 0);
    assert_eq!(append(&store, &messages(1, 100)).unwrap()[0].queue_offset, 0);
}

#[test]
fn a_torn_tail_is_cut_and_the_next_record_stands_there() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    let at = append(&store, &messages(10, 1000)).unwrap();
    drop(store);
    // The middle of the seventh record never got to the disk; three whole ones follow.
    overwrite(&disk, FIRST, at[6].physical_offset + 200, &[0; 512]);
    let (store, report) = open(&disk, &config);
    assert_eq!(report.log_end, at[6].physical_offset);
    assert_eq!(report.cut_records, 3);
    assert_eq!(report.cut_bytes, at[9].end_offset - at[6].physical_offset);
    assert_eq!(read_all(&store, "t", 0, 0).len(), 6);
    let next = append(&store, &messages(1, 10)).unwrap();
    assert_eq!((next[0].physical_offset, next[0].queue_offset), (at[6].physical_offset, 6));
    drop(store);
    let (store, report) = open(&disk, &config);
    assert_eq!((report.cut_bytes, report.log_end), (0, next[0].end_offset));
    assert_eq!(read_all(&store, "t", 0, 0).len(), 7);
}

#[test]
fn a_gap_that_no_crash_can_leave_is_damage_and_nothing_is_touched() {
    let disk = Arc::new(SimulatedDisk::new());
    let config =
        StoreConfig { unflushed_bytes_max: Some(80 << 10), ..small_config(FlushMode::ASYNC) };
    let (store, _) = open(&disk, &config);
    let at: Vec<_> = (0..200).flat_map(|_| append(&store, &messages(1, 1000)).unwrap()).collect();
    drop(store);
    overwrite(&disk, FIRST, at[6].physical_offset + 200, &[0; 512]);
    for _ in 0..2 {
        let refused = try_open(&disk, &config).err().unwrap();
        let StoreError::Damaged { from, to, .. } = refused else { panic!("{refused}") };
        assert_eq!(from, at[6].physical_offset);
        assert!(to > from + (80 << 10));
    }
}

#[test]
fn an_invalid_record_below_the_durable_mark_is_damage() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    let at = append(&store, &messages(10, 1000)).unwrap();
    store.close().unwrap();
    for file in ["queues", "keys"] {
        disk.remove(Path::new(&format!("/data/weir/{file}/00000000000000000000"))).unwrap();
    }
    overwrite(&disk, FIRST, at[3].physical_offset, &[0xFF; 40]);
    let refused = try_open(&disk, &config).err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    disk.remove(Path::new(FIRST)).unwrap();
    let refused = try_open(&disk, &config).err().unwrap();
    assert!(refused.to_string().contains("the log began are missing"), "{refused}");
    disk.remove(Path::new("/data/weir/log-start")).unwrap();
    let refused = try_open(&disk, &config).err().unwrap();
    assert!(refused.to_string().contains("segments are missing"), "{refused}");
}

#[test]
fn a_record_that_rotted_is_an_error_to_its_reader_and_no_panic() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    let at = append(&store, &messages(10, 1000)).unwrap();
    overwrite(&disk, FIRST, at[3].physical_offset + 30, &[0xFF; 4]);
    let mut out = vec![1];
    let mut read = |from| {
        let all = common::EVERYTHING;
        store.read_queue("t", 0, from, all, &mut |_| true, &mut out).map(|read| read.found)
    };
    // What stands in front is served; who reads on gets the error.
    assert_eq!(read(0).unwrap(), 3);
    assert!(matches!(read(3), Err(StoreError::Damaged { .. })));
    assert_eq!(read(4).unwrap(), 6);
}

#[test]
fn any_bytes_in_the_log_open_or_are_refused_but_never_panic() {
    let mut random = common::Random(7);
    let config = small_config(FlushMode::ASYNC);
    for _ in 0..300 {
        let disk = Arc::new(SimulatedDisk::new());
        let (store, _) = open(&disk, &config);
        let end = append(&store, &messages(20, 300)).unwrap()[19].end_offset;
        if random.below(2) == 0 {
            store.close().unwrap();
        }
        drop(store);
        for _ in 0..1 + random.below(4) {
            let bytes: Vec<u8> =
                (0..1 + random.below(16)).map(|_| random.below(256) as u8).collect();
            overwrite(&disk, FIRST, random.below(end + 100), &bytes);
        }
        if let Ok((store, _)) = try_open(&disk, &config) {
            let mut out = Vec::new();
            let _ = store.read_queue("t", 0, 0, common::EVERYTHING, &mut |_| true, &mut out);
            append(&store, &messages(1, 10)).unwrap();
        }
    }
}

#[test]
fn a_full_disk_refuses_the_append_and_leaves_no_trace_of_it() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    append(&store, &messages(5, 1000)).unwrap();
    let end = store.max_offset();
    for (free, count) in [(0, 3), (4096, 7), (8192, 60), (16384, 90)] {
        disk.limit_space(Some(free));
        let refused = append(&store, &messages(count, 1000)).unwrap_err();
        assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
        assert_eq!(store.max_offset(), end);
        assert_eq!(store.poisoned(), None);
        disk.limit_space(None);
        assert_eq!(store.read_record(end, &mut Vec::new()).unwrap(), None);
    }
    let at = append(&store, &messages(1, 10)).unwrap();
    assert_eq!((at[0].physical_offset, at[0].queue_offset), (end, 5));
    assert_eq!(store.flush().unwrap(), at[0].end_offset);
    drop(store);
    assert_eq!(read_all(&open(&disk, &config).0, "t", 0, 0).len(), 6);
}

#[test]
fn a_kill_right_after_a_failed_append_finds_nothing_of_it() {
    for (free, count) in [(0, 3), (4096, 7), (8192, 60), (16384, 90)] {
        let disk = Arc::new(SimulatedDisk::new());
        let config = small_config(FlushMode::ASYNC);
        let (store, _) = open(&disk, &config);
        append(&store, &messages(5, 1000)).unwrap();
        disk.limit_space(Some(free));
        append(&store, &messages(count, 1000)).unwrap_err();
        disk.limit_space(None);
        let end = store.max_offset();
        drop(store);
        let (store, report) = open(&disk, &config);
        assert_eq!(report.log_end, end);
        assert_eq!(read_all(&store, "t", 0, 0).len(), 5);
    }
}

#[test]
fn a_failed_append_leaves_no_record_further_on() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    append(&store, &messages(5, 1000)).unwrap();
    disk.limit_space(Some(8192));
    append(&store, &messages(60, 1000)).unwrap_err();
    disk.limit_space(None);
    // As long as the first record of the batch that failed, where the second one would follow.
    let at = append(&store, &messages(1, 1000)).unwrap();
    drop(store);
    let (store, report) = open(&disk, &config);
    assert_eq!(report.log_end, at[0].end_offset);
    assert_eq!(report.cut_records, 0);
    assert_eq!(read_all(&store, "t", 0, 0).len(), 6);
}

#[test]
fn writes_stop_at_the_floor_of_free_space_and_go_on_above_it() {
    let disk = Arc::new(SimulatedDisk::new());
    let mut config = small_config(FlushMode::ASYNC);
    config.upkeep.free_bytes_min = Some(1 << 20);
    let clock = Arc::new(weirmq_store::ManualClock::at_ms(1_000_000));
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let (store, _) = Store::open(config, shared, clock.clone()).unwrap();
    append(&store, &messages(1, 10)).unwrap();
    disk.limit_space(Some(1000));
    store.maintain().unwrap();
    let refused = append(&store, &messages(1, 10)).unwrap_err();
    assert!(matches!(refused, StoreError::Full { floor, .. } if floor == 1 << 20), "{refused}");
    // The text has the figures of now, not of the last look at the disk.
    disk.limit_space(Some(999));
    clock.advance_ms(1000);
    let refused = append(&store, &messages(1, 10)).unwrap_err().to_string();
    assert!(refused.contains("the disk of /data is full: 999 of "), "{refused}");
    assert_eq!(read_all(&store, "t", 0, 0).len(), 1);
    disk.limit_space(Some(2 << 20));
    assert!(append(&store, &messages(1, 10)).is_err(), "the disk is asked once a second");
    clock.advance_ms(1000);
    append(&store, &messages(1, 10)).unwrap();
}

#[test]
fn a_read_that_fails_is_an_error_and_the_next_one_is_answered() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
    let at = append(&store, &messages(3, 1000)).unwrap();
    disk.fail_reads(true);
    let mut out = Vec::new();
    let read = store.read_queue("t", 0, 0, common::EVERYTHING, &mut |_| true, &mut out);
    assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
    assert!(store.read_record(at[0].physical_offset, &mut out).is_err());
    assert!(out.is_empty() && store.poisoned().is_none());
    append(&store, &messages(1, 10)).unwrap();
    disk.fail_reads(false);
    assert_eq!(read_all(&store, "t", 0, 0).len(), 4);
}

#[test]
fn who_must_not_wait_for_the_disk_is_told_at_once() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    assert!(store.has_room(u64::MAX), "nothing is unflushed");
    let message = &messages(1, 30_000)[0];
    let mut appended = Vec::new();
    let mut count = 0;
    let busy = loop {
        match store.append_now(&[message.as_new()], &mut appended) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
        // Who asks first leaves something to those who do not.
        assert!(store.has_room(30_000) || count >= 6);
    };
    assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
    assert!(count >= 6 && !store.has_room(30_000) && appended.is_empty());
    store.flush().unwrap();
    append(&store, std::slice::from_ref(message)).unwrap();
    // Nothing of the refused one is there.
    assert_eq!(read_all(&store, "t", 0, 0).len(), count + 1);
    while store.append_now(&[message.as_new()], &mut appended).is_ok() {}
    append(&store, std::slice::from_ref(message)).expect("this one waits");
}

#[test]
fn a_size_is_not_believed_before_memory_is_asked_for() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    let at = append(&store, &messages(2, 30_000)).unwrap();
    store.close().unwrap();
    drop(store);
    // What is larger than all that is taken today was taken once.
    let config = StoreConfig { message_bytes_max: 2000, ..config };
    let (store, _) = open(&disk, &config);
    let mut out = Vec::new();
    let size = store.read_record(at[0].physical_offset, &mut out).unwrap();
    assert_eq!((size, out.len()), (Some(at[0].size as usize), at[0].size as usize));
    for (place, bytes) in [(0, at[0].size + 20_000), (84, 59_000), (84, 29_000), (84, u32::MAX)] {
        let mut out = Vec::new();
        let mut before = [0; 4];
        let file = disk.open(Path::new(FIRST), OpenMode::Write).unwrap();
        file.read_at(&mut before, at[0].physical_offset + place).unwrap();
        overwrite(&disk, FIRST, at[0].physical_offset + place, &bytes.to_be_bytes());
        let read = store.read_record(at[0].physical_offset, &mut out);
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
        // A size is believed as far as topic and properties may reach behind a body that is whole.
        assert!(place == 0 || out.capacity() == 0, "{place} {bytes}");
        overwrite(&disk, FIRST, at[0].physical_offset + place, &before);
    }
}

#[test]
fn a_segment_that_is_missing_is_damage_with_its_range() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    append(&store, &messages(200, 1000)).unwrap();
    store.close().unwrap();
    disk.remove(Path::new("/data/commitlog/00000000000000065536")).unwrap();
    let refused = try_open(&disk, &config).err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { from: 65536, .. }), "{refused}");
}

#[test]
fn a_first_segment_that_is_missing_is_damage_unless_it_has_expired() {
    let clock = Arc::new(weirmq_store::ManualClock::at_ms(1_000_000));
    let mut config = small_config(FlushMode::ASYNC);
    config.upkeep.retention = std::time::Duration::from_millis(500);
    config.upkeep.spare_segments_max = 0;
    let disk = Arc::new(SimulatedDisk::new());
    let open = || Store::open(config.clone(), disk.clone(), clock.clone());
    let remove = |start: u64| {
        disk.remove(Path::new(&format!("/data/commitlog/{start:020}"))).unwrap();
    };
    let (store, _) = open().unwrap();
    append(&store, &messages(100, 1000)).unwrap();
    clock.advance_ms(1000);
    append(&store, &messages(100, 1000)).unwrap();
    store.flush().unwrap();
    store.protect_from(u64::MAX);
    store.maintain().unwrap();
    assert_eq!(store.min_offset(), 65536);
    store.close().unwrap();
    drop(store);
    drop(open().unwrap());

    remove(65536);
    for _ in 0..2 {
        let refused = open().err().unwrap();
        assert!(
            matches!(refused, StoreError::Damaged { from: 65536, to: 131_072, .. }),
            "{refused}"
        );
    }
    // An old directory has no note, and neither has one whose note is damaged: an older version of
    // it would claim what has expired.
    overwrite(&disk, "/data/weir/log-start", 20, b"?");
    let (store, report) = open().unwrap();
    assert_eq!(report.log_start, 131_072);
    drop(store);
    remove(131_072);
    let refused = open().err().unwrap();
    assert!(matches!(refused, StoreError::Damaged { from: 131_072, to: 196_608, .. }), "{refused}");

    // Apache's broker deletes what has expired without a note.
    disk.create_directory(Path::new("/data/consumequeue")).unwrap();
    let (_, report) = open().unwrap();
    assert_eq!(report.log_start, 196_608);
}

#[test]
fn what_is_known_of_queues_without_messages_is_not_replaced_by_what_was_known_before() {
    let clock = Arc::new(weirmq_store::ManualClock::at_ms(1_000_000));
    let mut config = small_config(FlushMode::ASYNC);
    config.upkeep.retention = std::time::Duration::from_millis(1);
    let disk = Arc::new(SimulatedDisk::new());
    let open_on =
        |disk: &Arc<SimulatedDisk>| Store::open(config.clone(), disk.clone(), clock.clone());
    let (store, _) = open_on(&disk).unwrap();
    let other = |count: usize| vec![Message::new("other", 0, vec![1; 1000]); count];
    append(&store, &other(1)).unwrap();
    store.delete_queues(&["other"], store.max_offset()).unwrap();
    append(&store, &messages(100, 1000)).unwrap();
    clock.advance_ms(1000);
    append(&store, &other(100)).unwrap();
    store.flush().unwrap();
    clock.advance_ms(1000);
    store.protect_from(u64::MAX);
    store.maintain().unwrap();
    let kept = store.next_offsets();
    assert_eq!(kept["t"], [(0, 100)].into());
    store.close().unwrap();
    drop(store);

    let path = "/data/weir/queue-state";
    let whole = common::contents(&disk, path);
    overwrite(&disk, path, whole.len() as u64 / 2, b"?");
    for _ in 0..2 {
        let refused = open_on(&disk).err().unwrap();
        assert!(matches!(refused, StoreError::Unreadable { .. }), "{refused}");
        assert!(refused.to_string().contains("remove it and have the version before count"));
    }
    assert!(!common::verified(&disk).is_sound);
    let next = |disk: &Arc<SimulatedDisk>| {
        let (store, _) = open_on(disk).unwrap();
        append(&store, &messages(1, 10)).unwrap()[0].queue_offset
    };
    // The way out, for who accepts what comes of it.
    let without = Arc::new(disk.crash(0));
    without.remove(Path::new(path)).unwrap();
    assert_eq!(next(&without), 0);
    common::put(&disk, path, &whole);
    assert_eq!(next(&disk), 100);
}

#[test]
fn a_log_without_its_only_segment_is_damaged_from_its_start() {
    for flush in [true, false] {
        let disk = Arc::new(SimulatedDisk::new());
        let config = small_config(FlushMode::ASYNC);
        let (store, _) = open(&disk, &config);
        drop(store);
        // Nothing was ever written.
        let (store, _) = open(&disk, &config);
        append(&store, &messages(3, 1000)).unwrap();
        if flush {
            store.close().unwrap();
        }
        drop(store);
        let at = disk.list(Path::new("/data/commitlog")).unwrap();
        assert_eq!(at.len(), 1);
        disk.remove(Path::new(FIRST)).unwrap();
        // Without a flush nothing of it was promised.
        let opened = try_open(&disk, &config);
        let is_damage = matches!(opened, Err(StoreError::Damaged { from: 0, .. }));
        assert_eq!(is_damage, flush);
    }
}

#[test]
fn the_first_failed_sync_stops_the_store_for_ever() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::Sync));
    let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let listener = Arc::clone(&told);
    store.set_flush_listener(Box::new(move |_| {
        listener.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }));
    append(&store, &messages(1, 10)).unwrap();
    disk.fail_syncs(true);
    assert!(matches!(store.flush(), Err(StoreError::Poisoned { .. })));
    disk.fail_syncs(false);
    // The kernel would say that all is well now. It is not.
    assert!(matches!(store.flush(), Err(StoreError::Poisoned { .. })));
    assert!(matches!(append(&store, &messages(1, 10)), Err(StoreError::Poisoned { .. })));
    let waited = store.sync_wait(1, std::time::Duration::ZERO);
    assert!(matches!(waited, Err(StoreError::Poisoned { .. })));
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(store.watermarks().visible(), 0);
    assert!(store.close().is_err());
}

#[test]
fn a_disk_that_refuses_an_append_stops_the_store_but_a_full_one_does_not() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::Sync));
    let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let listener = Arc::clone(&told);
    store.set_flush_listener(Box::new(move |_| {
        listener.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }));
    disk.limit_space(Some(0));
    append(&store, &messages(1, 10)).unwrap_err();
    assert_eq!((store.poisoned(), told.load(std::sync::atomic::Ordering::Relaxed)), (None, 0));
    disk.limit_space(None);
    // Nothing waits for a flush here, so only the append itself can notice.
    disk.fail_after(0);
    append(&store, &messages(1, 10)).unwrap_err();
    assert!(store.poisoned().is_some());
    append(&store, &messages(1, 10)).unwrap_err();
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn what_the_disk_refuses_beside_the_log_stops_the_store_as_well() {
    type Act = fn(&Store) -> Result<(), StoreError>;
    let acts: [(&str, Act); 5] = [
        ("queues are deleted", |store| store.delete_queues(&["t"], store.max_offset())),
        ("offsets are adopted", |store| {
            let queues = std::collections::BTreeMap::from([(0, 5)]);
            store.adopt_next_offsets(&std::collections::BTreeMap::from([("new".into(), queues)]))
        }),
        ("what was lost is forgotten", Store::forget_lost),
        ("a small file is written", |store| store.write_small_file("notes", b"x")),
        ("a small file is removed", |store| store.remove_small_file("notes")),
    ];
    for (what, act) in acts {
        let disk = Arc::new(SimulatedDisk::new());
        let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
        append(&store, &messages(3, 10)).unwrap();
        store.flush().unwrap();
        disk.fail_after(0);
        act(&store).unwrap_err();
        assert!(store.poisoned().is_some(), "{what}");
    }
}

#[test]
fn a_sync_of_a_small_file_that_finds_no_room_stops_the_store() {
    let disk = Arc::new(SimulatedDisk::new());
    let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
    disk.limit_space(Some(0));
    assert!(store.write_small_file("notes", b"x").unwrap_err().is_no_space());
    assert_eq!(store.poisoned(), None, "nothing was taken, so nothing is lost");
    disk.limit_space(None);
    disk.lose_sync(0, std::io::ErrorKind::StorageFull);
    assert!(!store.write_small_file("notes", b"x").unwrap_err().is_no_space());
    assert!(store.poisoned().is_some());
}

#[test]
fn queue_entries_that_the_disk_refuses_stop_the_store() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = StoreConfig { segment_bytes: 1 << 20, ..small_config(FlushMode::ASYNC) };
    let (store, _) = open(&disk, &config);
    let message = messages(1, 10);
    append(&store, &message).unwrap();
    let mut count = 0;
    while store.poisoned().is_none() {
        if count % 1000 == 0 {
            disk.fail_after(1 << 40);
            store.flush().unwrap();
        }
        // The record is written; what else there is to write fails.
        disk.fail_after(1);
        append(&store, &message).unwrap();
        count += 1;
        assert!(store.max_offset() < 1 << 20, "{count} messages");
    }
    let refused = append(&store, &message);
    assert!(matches!(refused, Err(StoreError::Poisoned { .. })), "{refused:?}");
}

/// A record that ends where the proofs of a segment stand, as Apache's broker writes them.
fn reaches_into_proofs(store: &Store, segment_end: u64) -> Vec<u8> {
    let position = store.max_offset();
    let next = store.queue_range("t", 0).unwrap().max;
    let encoded = |bytes: usize| {
        let message = Message::new("t", 0, vec![7; bytes]);
        let new = message.as_new();
        let record = weirmq_message::Record {
            topic: new.topic,
            queue_id: new.queue_id,
            flag: 0,
            queue_offset: next,
            physical_offset: position,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: new.born_host,
            store_timestamp: 1_000_000,
            store_host: new.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: new.body,
            properties: new.properties,
        };
        let mut out = Vec::new();
        record.encode(&mut out).unwrap();
        out
    };
    encoded((segment_end - 100 - position) as usize - encoded(0).len())
}

#[test]
fn a_sync_that_fails_where_proofs_are_given_up_leaves_nothing_to_the_flush() {
    let disk = Arc::new(SimulatedDisk::new());
    let clock = Arc::new(weirmq_store::ManualClock::at_ms(1_000_000));
    let mut config = small_config(FlushMode::ASYNC);
    config.upkeep.retention = std::time::Duration::from_millis(1);
    let (store, _) = Store::open(config, disk.clone(), clock.clone()).unwrap();
    store.protect_from(u64::MAX);
    append(&store, &messages(150, 1000)).unwrap();
    clock.advance_ms(1000);
    let fill_to = |position: u64| {
        while store.max_offset() < position {
            append(&store, &messages(1, 1000)).unwrap();
        }
        store.flush().unwrap();
        store.maintain().unwrap();
    };
    fill_to(200_000);
    assert!(store.stats().spare_segments > 0);
    // The next segment is prepared when half of this one is full.
    fill_to(240_000);
    let start = 256 << 10;
    fill_to(start + 50_000);
    append(&store, &messages(10, 1000)).unwrap();
    let record = reaches_into_proofs(&store, start + (64 << 10));
    disk.lose_sync(0, std::io::ErrorKind::StorageFull);
    let refused = store.append_copy(store.max_offset(), &record);
    assert!(refused.is_err(), "the segment is a recycled one");
    assert!(store.poisoned().is_some());
    assert!(store.flush().is_err(), "what was unflushed is lost, and the kernel has said so");
}

#[test]
fn derived_files_that_cannot_be_written_are_derived_again() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = small_config(FlushMode::ASYNC);
    let (store, _) = open(&disk, &config);
    append(&store, &messages(100, 1000)).unwrap();
    disk.limit_space(Some(0));
    assert!(store.maintain().is_err());
    assert_eq!(read_all(&store, "t", 0, 0).len(), 100);
    disk.limit_space(None);
    drop(store);
    let (store, report) = open(&disk, &config);
    assert!(report.rebuilt_segments > 0);
    assert_eq!(read_all(&store, "t", 0, 0).len(), 100);
}

#[test]
fn a_torn_tail_behind_a_hole_is_cut_on_a_disk_that_has_no_room_for_the_hole() {
    let disk = Arc::new(SimulatedDisk::new());
    let config = StoreConfig { segment_bytes: 1 << 20, ..small_config(FlushMode::ASYNC) };
    let (store, _) = open(&disk, &config);
    let end = append(&store, &messages(3, 1000)).unwrap()[2].end_offset;
    store.flush().unwrap();
    drop(store);
    overwrite(&disk, FIRST, 900_000, &[7; 100]);
    // For small files, not for 900 kB of zeros.
    disk.limit_space(Some(100 << 10));
    let (store, report) = open(&disk, &config);
    assert_eq!((report.log_end, report.cut_bytes), (end, 900_100 - end));
    drop(store);
    // It is durable at once.
    let disk = Arc::new(disk.crash(1));
    let (_, report) = open(&disk, &config);
    assert_eq!((report.log_end, report.cut_bytes), (end, 0));
}
