//! A store directory that Apache RocketMQ 5.5.0 wrote and stopped cleanly, opened by ours.
//! How it was made stands in `libs/message/tests/golden/store/manifest.json`.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Message, append, contents, look, open, put, small_config, try_open, verified};
use weirmq_message::record::{Decoded, Record};
use weirmq_store::offline::{Directory, cut, export_queues, plan_cut, verify};
use weirmq_store::{
    ApacheUse, Disk, FlushMode, ManualClock, OpenMode, SimulatedDisk, Store, StoreConfig,
    StoreError, apache_rule,
};

const SEGMENT_BYTES: u64 = 65_536;
const UNITS_PER_FILE: u64 = 1000;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../message/tests/golden/store")
}

/// The golden log, at its full size again.
fn golden_disk() -> Arc<SimulatedDisk> {
    let disk = SimulatedDisk::new();
    let directory = Path::new("/data/commitlog");
    disk.create_directory(directory).unwrap();
    for segment in std::fs::read_dir(golden().join("commitlog")).unwrap() {
        let path = segment.unwrap().path();
        let file = disk.open(&directory.join(path.file_name().unwrap()), OpenMode::Write).unwrap();
        file.write_all_at(&std::fs::read(path).unwrap(), 0).unwrap();
        file.set_len(SEGMENT_BYTES).unwrap();
    }
    Arc::new(disk)
}

/// Puts Apache's queues beside the log, but leaves out `without`.
fn add_apache_queues(disk: &SimulatedDisk, without: &str) {
    for topic in std::fs::read_dir(golden().join("consumequeue")).unwrap() {
        let topic = topic.unwrap();
        if topic.file_name() == without {
            continue;
        }
        for queue in std::fs::read_dir(topic.path()).unwrap() {
            let queue = queue.unwrap();
            let directory = Path::new("/data/consumequeue");
            let directory = directory.join(topic.file_name()).join(queue.file_name());
            disk.create_directory(&directory).unwrap();
            let name = "00000000000000000000";
            let file = disk.open(&directory.join(name), OpenMode::Write).unwrap();
            file.write_all_at(&std::fs::read(queue.path().join(name)).unwrap(), 0).unwrap();
            file.set_len(UNITS_PER_FILE * 20).unwrap();
        }
    }
}

/// Compares one of Apache's ConsumeQueue files, entry by entry; says how many there were.
fn compare(store: &Store, topic: &str, queue_id: i32, units: &[u8]) -> u64 {
    let (units, rest) = units.as_chunks::<20>();
    assert!(rest.is_empty());
    for (offset, unit) in (0..).zip(units) {
        let entry = store.queue_entry(topic, queue_id, offset).unwrap();
        let entry = entry.unwrap_or_else(|| panic!("{topic} {queue_id} has no {offset}"));
        let context = format!("{topic} {queue_id} {offset}");
        assert_eq!(entry.physical_offset.to_be_bytes(), unit[..8], "{context}");
        assert_eq!(entry.size.to_be_bytes(), unit[8..12], "{context}");
        // Apache keeps the time of delivery there; we derive it from the record when it is due.
        if topic != "SCHEDULE_TOPIC_XXXX" {
            assert_eq!(entry.tag_hash.to_be_bytes(), unit[12..], "{context}");
        }
    }
    assert_eq!(store.queue_range(topic, queue_id).unwrap().max, units.len() as u64);
    units.len() as u64
}

#[test]
fn queues_and_keys_of_an_apache_log_are_those_of_apache() {
    let (store, report) = open(&golden_disk(), &small_config(FlushMode::ASYNC));
    assert_eq!((report.cut_bytes, report.rebuilt_segments), (0, 3));
    let mut compared = 0;
    for topic in std::fs::read_dir(golden().join("consumequeue")).unwrap() {
        let topic = topic.unwrap();
        for queue in std::fs::read_dir(topic.path()).unwrap() {
            let queue = queue.unwrap();
            let queue_id = queue.file_name().to_str().unwrap().parse().unwrap();
            let units = std::fs::read(queue.path().join("00000000000000000000")).unwrap();
            let name = topic.file_name().into_string().unwrap();
            compared += compare(&store, &name, queue_id, &units);
        }
    }
    assert!(compared > 100);

    let manifest = std::fs::read(golden().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let mut found = 0;
    for sent in manifest["sent"].as_array().unwrap() {
        let (Some(topic), Some(key)) = (sent["topic"].as_str(), sent["uniqKey"].as_str()) else {
            continue;
        };
        if sent["how"] == "send" {
            let positions = store.query_key(topic, key, 10, 0, i64::MAX).unwrap();
            assert_eq!(positions.len(), 1, "{sent}");
            found += 1;
        }
    }
    assert!(found > 50);
}

#[test]
fn an_apache_log_is_continued_where_it_ends() {
    let disk = golden_disk();
    let config = small_config(FlushMode::ASYNC);
    let (store, report) = open(&disk, &config);
    let max = store.queue_range("GoldenA", 0).unwrap().max;
    let at = append(&store, &[Message::new("GoldenA", 0, "ours")]).unwrap();
    assert_eq!((at[0].physical_offset, at[0].queue_offset), (report.log_end, max));
    store.close().unwrap();
    let (store, report) = open(&disk, &config);
    assert_eq!((report.was_clean, report.rebuilt_segments), (true, 0));
    assert_eq!(store.queue_range("GoldenA", 0).unwrap().max, max + 1);
}

#[test]
fn exported_queues_of_an_apache_log_are_apaches_byte_for_byte() {
    let disk = golden_disk();
    let directory = Directory::open(Path::new("/data"), disk.clone() as Arc<dyn Disk>).unwrap();
    let report = verify(&directory, apache_rule, &mut |_| {}).unwrap();
    assert!(report.is_sound && report.records > 0, "{report:?}");
    let exported = export_queues(&directory, apache_rule, Path::new("/out"), &*disk).unwrap();
    let mut compared = 0;
    for topic in std::fs::read_dir(golden().join("consumequeue")).unwrap() {
        let topic = topic.unwrap();
        for queue in std::fs::read_dir(topic.path()).unwrap() {
            let queue = queue.unwrap();
            let ours = exported.directory.join(topic.file_name()).join(queue.file_name());
            for file in std::fs::read_dir(queue.path()).unwrap() {
                let file = file.unwrap();
                let expected = std::fs::read(file.path()).unwrap();
                let ours = disk.open(&ours.join(file.file_name()), OpenMode::Read).unwrap();
                let mut bytes = vec![1; expected.len() + 20];
                assert_eq!(ours.read_at(&mut bytes, 0).unwrap(), bytes.len());
                assert_eq!(bytes[..expected.len()], expected, "{}", file.path().display());
                assert_eq!(bytes[expected.len()..], [0; 20]);
                compared += expected.len() as u64 / 20;
            }
        }
    }
    assert_eq!(compared, exported.entries);
}

#[test]
fn segments_keep_the_length_that_apache_gave_them() {
    let disk = golden_disk();
    let larger = StoreConfig { segment_bytes: 1 << 20, ..small_config(FlushMode::ASYNC) };
    let (store, report) = open(&disk, &larger);
    assert_eq!(report.rebuilt_segments, 3);
    store.close().unwrap();
    open(&disk, &larger);
}

#[test]
fn what_apache_derived_is_put_aside_and_tells_who_used_the_store_last() {
    let disk = golden_disk();
    add_apache_queues(&disk, "");
    let config = small_config(FlushMode::ASYNC);
    let (store, report) = open(&disk, &config);
    assert_eq!(report.apache, Some(ApacheUse::default()));
    let max = store.queue_range("GoldenA", 0).unwrap().max;
    let directories = |path| disk.list_directories(Path::new(path)).unwrap();
    assert_eq!(
        (directories("/data"), directories("/data/weir/aside")),
        (vec!["commitlog".to_owned(), "weir".to_owned()], vec!["consumequeue".to_owned()],)
    );
    store.maintain().unwrap();
    assert!(directories("/data/weir/aside").is_empty());
    store.close().unwrap();

    // Apache's checkpoint: nothing is derived, all of the log is on disk.
    let file = disk.open(Path::new("/data/checkpoint"), OpenMode::Read).unwrap();
    let mut page = [0; 4096];
    assert_eq!(file.read_at(&mut page, 0).unwrap(), 4096);
    let field = |at: usize| u64::from_be_bytes(page[at..at + 8].try_into().unwrap());
    assert_eq!([0, 8, 16].map(field), [1_000_000, 0, 0]);
    assert_eq!([24, 32, 40].map(field), [report.log_end, report.log_end, 0]);

    // Apache comes back: everything derived is derived again, also what was complete.
    add_apache_queues(&disk, "");
    let (store, report) = open(&disk, &config);
    assert_eq!((report.apache.is_some(), report.rebuilt_segments), (true, 3));
    assert_eq!(store.queue_range("GoldenA", 0).unwrap().max, max);
    let (checkpoint, mode) = (Path::new("/data/checkpoint"), OpenMode::Read);
    assert!(disk.open(checkpoint, mode).is_err(), "it says nothing while the store is open");
}

#[test]
fn a_topic_that_apache_deleted_does_not_come_back_but_after_a_kill_it_may() {
    for (is_clean, is_there) in [(true, false), (false, true)] {
        let disk = golden_disk();
        add_apache_queues(&disk, "GoldenC");
        if !is_clean {
            disk.open(Path::new("/data/abort"), OpenMode::Write).unwrap();
        }
        let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
        assert_eq!(store.queue_range("GoldenC", 0).is_some(), is_there);
        drop(store);
        let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
        assert_eq!(store.queue_range("GoldenC", 0).is_some(), is_there);
    }
}

/// Apache 5.5 derives from its newest ten segments when it finds no queues.
#[test]
fn queues_that_apache_derived_in_part_do_not_hide_what_came_before() {
    let disk = golden_disk();
    let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
    let range = store.queue_range("GoldenA", 0).unwrap();
    let last = store.queue_entry("GoldenA", 0, range.max - 1).unwrap().unwrap();
    store.close().unwrap();
    let directory = Path::new("/data/consumequeue/GoldenA/0");
    disk.create_directory(directory).unwrap();
    let file = disk.open(&directory.join(format!("{:020}", 0)), OpenMode::Write).unwrap();
    let mut filler = [0; 20];
    filler[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut units = filler.repeat(range.max as usize - 1);
    units.extend_from_slice(&last.physical_offset.to_be_bytes());
    units.extend_from_slice(&last.size.to_be_bytes());
    units.extend_from_slice(&last.tag_hash.to_be_bytes());
    file.write_all_at(&units, 0).unwrap();
    file.set_len(UNITS_PER_FILE * 20).unwrap();
    let (store, report) = open(&disk, &small_config(FlushMode::ASYNC));
    assert!(report.apache.is_some());
    assert_eq!(store.queue_range("GoldenA", 0), Some(range));
    assert!(store.queue_range("GoldenB", 0).is_some(), "it has messages before that part");
}

#[test]
fn queues_without_messages_go_on_where_apache_was() {
    let disk = golden_disk();
    add_apache_queues(&disk, "");
    let directory = Path::new("/data/consumequeue/expired/7");
    disk.create_directory(directory).unwrap();
    // The third file: nothing of it is used yet.
    let name = format!("{:020}", 2 * UNITS_PER_FILE * 20);
    let file = disk.open(&directory.join(name), OpenMode::Write).unwrap();
    file.set_len(UNITS_PER_FILE * 20).unwrap();
    let (store, _) = open(&disk, &small_config(FlushMode::ASYNC));
    let at = append(&store, &[Message::new("expired", 7, "on")]).unwrap();
    assert_eq!(at[0].queue_offset, 2 * UNITS_PER_FILE);
}

#[test]
fn a_log_that_apache_closed_has_no_torn_tail() {
    for (is_clean, flushed_until_ms, is_damage) in
        [(true, 0, true), (false, i64::MAX, true), (false, 0, false)]
    {
        let disk = golden_disk();
        let segments = disk.list(Path::new("/data/commitlog")).unwrap();
        let path = Path::new("/data/commitlog").join(&segments[0].name);
        let file = disk.open(&path, OpenMode::Write).unwrap();
        file.write_all_at(b"????????", 0).unwrap();
        let checkpoint = disk.open(Path::new("/data/checkpoint"), OpenMode::Write).unwrap();
        checkpoint.write_all_at(&flushed_until_ms.to_be_bytes(), 0).unwrap();
        if !is_clean {
            disk.open(Path::new("/data/abort"), OpenMode::Write).unwrap();
        }
        let opened = try_open(&disk, &small_config(FlushMode::ASYNC));
        match opened {
            Err(StoreError::Damaged { from: 0, .. }) => assert!(is_damage),
            Err(other) => panic!("{other}"),
            Ok((_, report)) => {
                assert!(!is_damage);
                assert!(report.cut_records > 100, "{report:?}");
            }
        }
    }
}

/// Takes the middle out of a record in the golden log's newest segment; the one before it, which
/// is the last one then, says that it was stored at `last_time_ms`. Says where the log ends now.
fn tear(disk: &SimulatedDisk, last_time_ms: i64) -> u64 {
    const STORE_TIME_AT: u64 = 56;
    let segments = disk.list(Path::new("/data/commitlog")).unwrap();
    let name = &segments.last().unwrap().name;
    let file = disk.open(&Path::new("/data/commitlog").join(name), OpenMode::Write).unwrap();
    let (mut last, mut hole) = (0, 0);
    for _ in 0..3 {
        let mut size = [0; 4];
        file.read_at(&mut size, hole).unwrap();
        last = hole;
        hole += u64::from(u32::from_be_bytes(size));
    }
    file.write_all_at(&last_time_ms.to_be_bytes(), last + STORE_TIME_AT).unwrap();
    file.write_all_at(b"????????", hole).unwrap();
    name.parse::<u64>().unwrap() + hole
}

/// Has no queue of Apache's know a record that begins at `position`.
fn overwrite_entry(disk: &SimulatedDisk, position: u64) {
    let queues = Path::new("/data/consumequeue");
    for topic in disk.list_directories(queues).unwrap() {
        for queue in disk.list_directories(&queues.join(&topic)).unwrap() {
            let path = queues.join(&topic).join(queue).join("00000000000000000000");
            let file = disk.open(&path, OpenMode::Write).unwrap();
            for unit in 0..UNITS_PER_FILE {
                let mut offset = [0; 8];
                file.read_at(&mut offset, unit * 20).unwrap();
                if offset == position.to_be_bytes() {
                    file.write_all_at(&(position - 1).to_be_bytes(), unit * 20).unwrap();
                }
            }
        }
    }
}

#[test]
fn what_apache_cut_and_wrote_over_is_no_damage_if_queues_and_times_say_so() {
    for (last_time_ms, is_entry_there, is_clean, queues_until_ms, is_damage) in [
        (i64::MAX, false, true, 0, false),
        (i64::MAX, false, false, i64::MAX, false),
        // The entries of what follows may not have been written yet.
        (i64::MAX, false, false, 0, true),
        // The clock went back, but the queues know the record that is gone.
        (i64::MAX, true, true, 0, true),
        // The queues do not know the record, whose topic may have been deleted; others follow.
        (1, false, true, 0, true),
    ] {
        let case = format!("{last_time_ms} {is_entry_there} {is_clean} {queues_until_ms}");
        let disk = golden_disk();
        add_apache_queues(&disk, "");
        let end = tear(&disk, last_time_ms);
        if !is_entry_there {
            overwrite_entry(&disk, end);
        }
        let checkpoint = disk.open(Path::new("/data/checkpoint"), OpenMode::Write).unwrap();
        checkpoint.write_all_at(&i64::MAX.to_be_bytes(), 0).unwrap();
        checkpoint.write_all_at(&queues_until_ms.to_be_bytes(), 8).unwrap();
        if !is_clean {
            disk.open(Path::new("/data/abort"), OpenMode::Write).unwrap();
        }
        let directory = Directory::open(Path::new("/data"), disk.clone()).unwrap();
        let report = verify(&directory, apache_rule, &mut |_| {}).unwrap();
        assert_eq!(report.torn_tail.is_none(), is_damage, "{case}: {report:?}");
        drop(directory);
        match try_open(&disk, &small_config(FlushMode::ASYNC)) {
            Err(StoreError::Damaged { from, reason, .. }) => {
                assert!(is_damage, "{case}: {reason}");
                assert!(from == end && reason.contains("--cut-at-damage"), "{case}: {reason}");
            }
            Err(other) => panic!("{case}: {other}"),
            Ok((store, report)) => {
                assert!(!is_damage, "{case}");
                assert_eq!(report.log_end, end);
                assert!(report.cut_records > 0 && report.cut_bytes > 0, "{report:?}");
                store.close().unwrap();
                let (_, report) = open(&disk, &small_config(FlushMode::ASYNC));
                assert_eq!((report.log_end, report.cut_records), (end, 0));
            }
        }
    }
}

/// Starts of the golden log's segments that have records, and where the last record of each begins and ends.
fn segments_with_records(disk: &SimulatedDisk) -> Vec<(u64, u64, u64)> {
    let mut found = Vec::new();
    for segment in disk.list(Path::new("/data/commitlog")).unwrap() {
        let path = Path::new("/data/commitlog").join(&segment.name);
        let bytes = contents(disk, path.to_str().unwrap());
        let start = segment.name.parse::<u64>().unwrap();
        let (mut last, mut at) = (0, 0);
        while let Ok(Decoded::Record(_, length)) = Record::decode(&bytes[at..], true) {
            (last, at) = (at, at + length);
        }
        if at > 0 {
            found.push((start, start + last as u64, start + at as u64));
        }
    }
    found
}

fn set_checkpoint(disk: &SimulatedDisk, fields: [i64; 2]) {
    let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
    put(disk, "/data/checkpoint", &bytes);
}

/// Gives the log up from its damage on, and says where that is and how many messages queues knew from there on.
fn cut_by_hand(disk: &Arc<SimulatedDisk>) -> (u64, u64) {
    let directory = look(disk);
    let report = verify(&directory, apache_rule, &mut |_| {}).unwrap();
    let plan = plan_cut(&directory, &report).unwrap().unwrap();
    drop(directory);
    let clock = ManualClock::at_ms(7);
    let shared = Arc::clone(disk) as Arc<dyn Disk>;
    let done = cut(Path::new("/data"), &shared, plan, None, &clock).unwrap();
    let report = verified(disk);
    assert!(report.is_sound, "{:?}", report.findings);
    let copied = disk.list_directories(&done.backup).unwrap();
    assert_eq!(copied == ["consumequeue"], done.plan.queued > 0);
    (done.plan.at, done.plan.queued)
}

/// When the last record in front of a segment of the golden log was stored.
fn store_time_before(start: u64) -> i64 {
    let disk = golden_disk();
    let mut segments = segments_with_records(&disk).into_iter();
    let (before, last, _) = segments.rfind(|segment| segment.0 < start).unwrap();
    let bytes = contents(&disk, &format!("/data/commitlog/{before:020}"));
    let Ok(Decoded::Record(record, _)) = Record::decode(&bytes[(last - before) as usize..], true)
    else {
        panic!("no record at {last}")
    };
    record.store_timestamp
}

#[test]
fn a_newest_segment_that_is_gone_is_missed_because_queues_know_its_messages() {
    let (start, _, end) = segments_with_records(&golden_disk()).pop().unwrap();
    let path = format!("/data/commitlog/{start:020}");
    let last_ms = store_time_before(start);
    for (is_clean, is_prepared_there, times) in [
        (true, true, [0, i64::MAX]),
        (true, false, [0, i64::MAX]),
        (true, false, [0, 0]),
        (true, false, [last_ms + 1, last_ms]),
        (true, false, [last_ms, last_ms + 1]),
        (false, false, [0, 0]),
        (false, false, [last_ms, last_ms]),
    ] {
        let damaged = || {
            let disk = golden_disk();
            add_apache_queues(&disk, "");
            set_checkpoint(&disk, times);
            if !is_clean {
                disk.open(Path::new("/data/abort"), OpenMode::Write).unwrap();
            }
            let lost = contents(&disk, &path);
            disk.remove(Path::new(&path)).unwrap();
            let next = format!("/data/commitlog/{:020}", start + SEGMENT_BYTES);
            if is_prepared_there {
                let file = disk.open(Path::new(&next), OpenMode::Write).unwrap();
                file.set_len(SEGMENT_BYTES).unwrap();
            }
            (disk, lost)
        };
        let (disk, _) = damaged();
        let queue = "/data/consumequeue/GoldenA/0/00000000000000000000";
        let before = contents(&disk, queue);
        let config = small_config(FlushMode::ASYNC);
        for _ in 0..2 {
            let refused = try_open(&disk, &config).err().unwrap();
            let StoreError::Damaged { from, to, reason } = &refused else { panic!("{refused}") };
            assert_eq!((*from, *to), (start, end));
            assert!(reason.contains(&path) && reason.contains("put it back"), "{reason}");
        }
        let report = verified(&disk);
        let [finding] = &report.findings[..] else { panic!("{report:?}") };
        assert_eq!((finding.from, finding.to), (Some(start), Some(end)));
        assert_eq!(contents(&disk, queue), before);

        // With the file everything is there again, and without it somebody has to say so.
        let (whole, lost) = damaged();
        put(&whole, &path, &lost);
        assert_eq!(open(&whole, &config).1.log_end, end);
        let (at, queued) = cut_by_hand(&disk);
        assert!(at == start && queued > 0, "{at} {queued}");
        let (store, report) = open(&disk, &config);
        assert_eq!((report.log_end, report.unlogged_entries), (start, 0));
        assert!(store.lost().unwrap().is_some());
        let max = store.queue_range("GoldenA", 0).unwrap().max;
        assert_eq!(
            append(&store, &[Message::new("GoldenA", 0, "on")]).unwrap()[0].queue_offset,
            max
        );
    }
}

#[test]
fn queues_ahead_of_a_log_that_is_all_there_are_a_torn_tail_only_where_that_can_be() {
    // Whether Apache was stopped, its checkpoint's times from that of the last record on, and whether that
    // is refused.
    for (is_clean, flushed, queued, is_refused) in [
        // As after a power cut.
        (false, 0, 60_000, false),
        // What is gone was on disk.
        (false, 1, 0, true),
        (true, 1, 0, true),
        // After a clean stop all that was queued is there,
        (true, 0, 10_001, true),
        // unless it was cut after a crash; the time is that of the crash, or of what was put into queues again.
        (true, 0, 10_000, false),
        (true, 0, 0, false),
        (true, 0, -60_000, false),
    ] {
        let case = format!("{is_clean} {flushed} {queued}");
        let disk = golden_disk();
        add_apache_queues(&disk, "");
        let (start, _, end) = segments_with_records(&disk).pop().unwrap();
        let path = format!("/data/commitlog/{start:020}");
        let bytes = contents(&disk, &path);
        // The third record from the start is the last one.
        let (mut at, mut last_time) = (0, 0);
        for _ in 0..3 {
            let Ok(Decoded::Record(record, length)) = Record::decode(&bytes[at..], true) else {
                panic!("{case}")
            };
            (at, last_time) = (at + length, record.store_timestamp);
        }
        let mut torn = bytes[..at].to_vec();
        torn.resize(bytes.len(), 0);
        put(&disk, &path, &torn);
        set_checkpoint(&disk, [last_time + flushed, last_time + queued]);
        if !is_clean {
            disk.open(Path::new("/data/abort"), OpenMode::Write).unwrap();
        }
        let log_end = start + at as u64;
        let report = verified(&disk);
        assert_eq!((report.is_sound, report.log_end), (!is_refused, log_end), "{case}: {report:?}");
        let said = report.notes.iter().any(|note| note.contains("goes on without them"));
        assert_eq!(said, !is_refused, "{case}: {:?}", report.notes);
        match try_open(&disk, &small_config(FlushMode::ASYNC)) {
            Err(StoreError::Damaged { from, to, reason }) => {
                assert!(is_refused, "{case}: {reason}");
                assert_eq!((from, to), (log_end, end), "{case}");
                assert_eq!(cut_by_hand(&disk).0, log_end, "{case}");
            }
            Err(other) => panic!("{case}: {other}"),
            Ok((store, report)) => {
                assert!(!is_refused && report.unlogged_entries > 0, "{case}: {report:?}");
                assert_eq!(report.log_end, log_end, "{case}");
                let at = append(&store, &[Message::new("GoldenC", 0, "on")]).unwrap()[0];
                assert!(store.queue_range("GoldenC", 0).unwrap().max > at.queue_offset, "{case}");
            }
        }
    }
}

#[test]
fn a_segment_that_is_too_short_after_apache_is_refused_and_an_empty_newest_one_is_not() {
    let config = small_config(FlushMode::ASYNC);
    let segments = segments_with_records(&golden_disk());
    let (start, last, end) = *segments.last().unwrap();
    let used_by_both = || {
        let disk = golden_disk();
        open(&disk, &config).0.close().unwrap();
        add_apache_queues(&disk, "");
        put(&disk, &format!("/data/commitlog/{:020}", start + SEGMENT_BYTES), b"");
        disk
    };
    let disk = used_by_both();
    assert!(verified(&disk).is_sound);
    assert_eq!(open(&disk, &config).1.log_end, end);
    // Within the records of the newest one, behind them, and of one in the middle.
    for (of, bytes, kept) in [
        (start, last - start + 10, last),
        (start, 0, start),
        (start, SEGMENT_BYTES - 4096, end),
        (segments[1].0, 100, segments[1].0),
    ] {
        let disk = used_by_both();
        let path = format!("/data/commitlog/{of:020}");
        let file = disk.open(Path::new(&path), OpenMode::Write).unwrap();
        file.set_len(bytes).unwrap();
        let refused = try_open(&disk, &config).err().unwrap().to_string();
        assert!(
            refused.contains(&path) && refused.contains("put the whole file back"),
            "{refused}"
        );
        assert_eq!(file.size().unwrap(), bytes);
        assert!(!verified(&disk).is_sound);
        assert_eq!(cut_by_hand(&disk).0, kept, "{of} {bytes}");
        assert_eq!(open(&disk, &config).1.log_end, kept, "{of} {bytes}");
    }
}
