//! Reads of what has left memory, on a real disk: that of the build, since `/tmp` often is memory.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{EVERYTHING, Message, append, read_all, skipped, small_config};
use weirmq_store::{
    FlushMode, ManualClock, QueueRead, ReadLimits, RealDisk, Store, StoreConfig, StoreError,
    SystemClock,
};

const FEW: ReadLimits = ReadLimits { messages: 10, bytes: usize::MAX };

fn open(directory: &Path) -> Store {
    open_with(directory, 16 << 20)
}

fn open_with(directory: &Path, segment_bytes: u64) -> Store {
    let config = StoreConfig {
        directory: directory.to_path_buf(),
        segment_bytes,
        unflushed_bytes_max: None,
        ..small_config(FlushMode::ASYNC)
    };
    Store::open(config, Arc::new(RealDisk), Arc::new(SystemClock)).unwrap().0
}

/// Takes a file out of the page cache, except for pages that are mapped.
fn evict(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn read_cached(store: &Store, out: &mut Vec<u8>) -> Result<Option<QueueRead>, StoreError> {
    store.read_queue_cached("t", 0, 5000, EVERYTHING, &mut |_| true, out)
}

#[test]
fn a_read_that_must_not_wait_is_put_off_until_somebody_has_read() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let messages: Vec<_> = (0..100).map(|_| Message::new("t", 0, vec![7; 1000])).collect();
    for _ in 0..120 {
        append(&store, &messages).unwrap();
    }
    let mut out = Vec::new();
    let hot = read_cached(&store, &mut out).unwrap().expect("it was just written");
    assert!(hot.found > 0);
    store.close().unwrap();
    // With its mappings, which would keep pages in memory that were read through them.
    drop(store);
    let store = open(&path);
    evict(&path.join("commitlog/00000000000000000000"));
    out.truncate(1);
    match read_cached(&store, &mut out).unwrap() {
        None => assert_eq!(out.len(), 1),
        Some(_) => {
            skipped("this file system keeps files in memory or cannot tell");
            return;
        }
    }
    assert_eq!(read_all(&store, "t", 0, 0).len(), 12_000);
    // The first blocks are behind the reader by now, and this one is not.
    out.clear();
    let read = store.read_queue_cached("t", 0, 11_900, EVERYTHING, &mut |_| true, &mut out);
    assert_eq!(read.unwrap().map(|read| read.found), Some(100));
}

#[test]
fn what_has_left_memory_since_it_was_written_is_not_read_through_its_mapping() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("store");
    let store = open_with(&path, 128 << 20);
    let messages: Vec<_> = (0..100).map(|_| Message::new("t", 0, vec![7; 10_000])).collect();
    for _ in 0..80 {
        append(&store, &messages).unwrap();
    }
    let mut out = Vec::new();
    let first = |out: &mut Vec<u8>| store.read_queue_cached("t", 0, 0, FEW, &mut |_| true, out);
    store.flush().unwrap();
    evict(&path.join("commitlog/00000000000000000000"));
    if first(&mut out).unwrap().is_some() {
        skipped("this file system keeps files in memory or cannot tell");
        return;
    }
    let read = store.read_queue("t", 0, 0, FEW, &mut |_| true, &mut out).unwrap();
    assert_eq!(read.found, 10);
    out.clear();
    assert_eq!(first(&mut out).unwrap().map(|read| read.found), Some(10));
}

#[test]
fn a_read_that_must_not_wait_is_put_off_by_queue_entries_too() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let messages: Vec<_> = (0..100).map(|_| Message::new("t", 0, vec![7; 10])).collect();
    for _ in 0..120 {
        append(&store, &messages).unwrap();
    }
    store.close().unwrap();
    let store = open(&path);
    assert_eq!(read_all(&store, "t", 0, 0).len(), 12_000);
    let evict = |directory: &str| {
        let file = path.join(directory).join("00000000000000000000");
        let file = std::fs::File::open(file).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    };
    evict("commitlog");
    let mut out = Vec::new();
    if read_cached(&store, &mut out).unwrap().is_some() {
        skipped("this file system keeps files in memory or cannot tell");
        return;
    }
    assert_eq!(read_all(&store, "t", 0, 0).len(), 12_000);
    assert!(store.queue_entry_cached("t", 0, 5000).unwrap().is_some());
    evict("weir/queues");
    assert_eq!(store.queue_entry_cached("t", 0, 5000).unwrap(), None);
    assert!(read_cached(&store, &mut out).unwrap().is_none() && out.is_empty());
    assert!(store.queue_entry("t", 0, 5000).unwrap().is_some(), "who may wait gets it");
}

#[test]
fn what_rots_in_a_log_that_stands_still_is_found_by_its_reader() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("store");
    let config = StoreConfig { directory: path.clone(), ..small_config(FlushMode::ASYNC) };
    let clock = Arc::new(ManualClock::at_ms(1_000_000));
    let (store, _) = Store::open(config, Arc::new(RealDisk), clock.clone()).unwrap();
    let read = |at: u64| store.read_queue("t", 0, at, FEW, &mut |_| true, &mut Vec::new());
    append(&store, &[Message::new("t", 0, vec![1; 900])]).unwrap();
    read(0).unwrap();
    let appended = append(&store, &[Message::new("t", 0, vec![7; 900])]).unwrap();
    store.flush().unwrap();
    read(1).unwrap();
    let segment = path.join("commitlog/00000000000000000000");
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[8], appended[0].physical_offset + 500)
        .unwrap();
    clock.advance_ms(60_000);
    let refused = read(1).unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}
