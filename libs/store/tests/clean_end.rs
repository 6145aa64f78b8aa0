//! What stands behind the end of a log that was closed is refused, and left alone.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{
    Message, append, contents, look, open, put, read_all, small_config, try_open, verified,
};
use weirmq_store::offline::{cut, plan_cut};
use weirmq_store::{
    Disk, FlushMode, ManualClock, OpenMode, SimulatedDisk, StoreConfig, StoreError,
};

const SEGMENT_BYTES: u64 = 64 << 10;

fn config() -> StoreConfig {
    // More than all that is put behind the end: after a crash it would be a torn tail.
    StoreConfig { unflushed_bytes_max: Some(1 << 20), ..small_config(FlushMode::ASYNC) }
}

fn segment(index: u64) -> String {
    format!("/data/commitlog/{:020}", index * SEGMENT_BYTES)
}

/// A log that was closed in its first segment, where it ends, and the same log when it was longer.
fn short_and_long() -> (Arc<SimulatedDisk>, u64, Arc<SimulatedDisk>) {
    let disk = Arc::new(SimulatedDisk::new());
    let fill = |count: usize| {
        let (store, _) = open(&disk, &config());
        for n in 0..count {
            append(&store, &[Message::new("t", 0, vec![n as u8 | 1; 900])]).unwrap();
        }
        store.close().unwrap();
        store.max_offset()
    };
    let end = fill(10);
    let short = Arc::new(disk.crash(0));
    fill(200);
    (short, end, Arc::new(disk.crash(0)))
}

#[test]
fn a_segment_behind_the_end_of_a_closed_log_is_refused_and_kept() {
    // The next one, one behind a hole, and bytes that are no record.
    for (index, bytes) in [(1, None), (2, None), (1, Some(b"no record".to_vec()))] {
        let (disk, end, long) = short_and_long();
        let path = segment(index);
        let mut bytes = bytes.unwrap_or_else(|| contents(&long, &path));
        bytes.resize(SEGMENT_BYTES as usize, 0);
        put(&disk, &path, &bytes);
        let refused = try_open(&disk, &config()).err().expect("it opened");
        let StoreError::Damaged { from, to, reason } = &refused else { panic!("{refused}") };
        assert_eq!(*from, end);
        assert!(*to > index * SEGMENT_BYTES && reason.contains(&path), "{refused}");
        assert_eq!(contents(&disk, &path), bytes, "it was touched");

        let report = verified(&disk);
        let directory = look(&disk);
        assert!(!report.is_sound, "{report:?}");
        assert_eq!(report.first_log_damage(), Some(end));
        // What is in the way can be taken out, with a copy.
        let plan = plan_cut(&directory, &report).unwrap().unwrap();
        drop(directory);
        let shared = Arc::clone(&disk) as Arc<dyn Disk>;
        let cut = cut(Path::new("/data"), &shared, plan, None, &ManualClock::at_ms(1)).unwrap();
        assert_eq!(cut.plan.at, end);
        let (store, report) = open(&disk, &config());
        assert_eq!(report.log_end, end);
        assert_eq!(read_all(&store, "t", 0, 0).len(), 10);
    }
}

#[test]
fn a_segment_without_a_byte_behind_the_end_is_a_prepared_one() {
    for index in [1, 2] {
        let (disk, end, _) = short_and_long();
        put(&disk, &segment(index), &[0; SEGMENT_BYTES as usize]);
        assert!(verified(&disk).is_sound);
        let (store, report) = open(&disk, &config());
        assert_eq!((report.log_end, report.was_clean, report.cut_bytes), (end, true, 0));
        assert_eq!(append(&store, &[Message::new("t", 0, "on")]).unwrap()[0].physical_offset, end);
        let is_there = disk.open(Path::new(&segment(index)), OpenMode::Read).is_ok();
        assert_eq!(is_there, index == 1, "behind a hole it is of no use");
    }
}

#[test]
fn records_behind_the_end_of_a_log_that_was_not_closed_are_a_torn_tail_as_before() {
    let (disk, end, long) = short_and_long();
    put(&disk, &segment(1), &contents(&long, &segment(1)));
    put(&disk, "/data/abort", b"");
    let (_, report) = open(&disk, &config());
    assert_eq!((report.log_end, report.was_clean), (end, false));
    assert!(report.cut_records > 0);
}

#[test]
fn that_abort_is_gone_does_not_make_a_power_cut_a_clean_stop() {
    let (disk, end, long) = short_and_long();
    drop(open(&disk, &config()));
    // What was being written: whole records behind one that is lost.
    put(&disk, &segment(1), &contents(&long, &segment(1)));
    disk.remove(Path::new("/data/abort")).unwrap();
    assert!(verified(&disk).is_sound);
    let (_, report) = open(&disk, &config());
    assert_eq!((report.log_end, report.was_clean), (end, false));
    assert!(report.cut_records > 0);
}

#[test]
fn damage_above_an_older_mark_is_no_torn_tail_of_a_log_that_was_closed() {
    let (disk, _, _) = short_and_long();
    let (store, _) = open(&disk, &config());
    for n in 0..10 {
        append(&store, &[Message::new("t", 0, vec![n; 900])]).unwrap();
    }
    store.close().unwrap();
    drop(store);
    let end_of_half = contents(&disk, "/data/weir/durable-mark.last");
    put(&disk, "/data/weir/durable-mark", &end_of_half);
    disk.remove(Path::new("/data/weir/blocks/00000000000000000000")).unwrap();
    let mut bytes = contents(&disk, &segment(0));
    let record = 1000 * 15;
    bytes[record..record + 600].fill(0xFF);
    put(&disk, &segment(0), &bytes);
    let refused = try_open(&disk, &config()).err().expect("it opened");
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(!verified(&disk).is_sound);
}
