//! A store directory that Apache RocketMQ 5.5.0 wrote and stopped cleanly, opened by ours.
//! How it was made stands in `libs/message/tests/golden/store/manifest.json`.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Message, append, open, small_config};
use weirmq_store::offline::{Directory, export_queues, verify};
use weirmq_store::{Disk, FlushMode, OpenMode, SimulatedDisk, Store, apache_rule};

const SEGMENT_BYTES: u64 = 65_536;

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
