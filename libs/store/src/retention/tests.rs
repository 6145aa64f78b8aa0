use std::path::Path;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::config::FlushMode;
use crate::consume_queue::QueueRange;
use crate::disk::{RealDisk, SimulatedDisk};
use crate::message::NewMessage;

fn open(disk: &SimulatedDisk, spare_segments_max: usize) -> Inner {
    open_at(disk, spare_segments_max, &Arc::new(ManualClock::at_ms(1000)))
}

fn open_at(disk: &SimulatedDisk, spare_segments_max: usize, clock: &Arc<ManualClock>) -> Inner {
    let config = StoreConfig {
        flush: FlushMode::Sync,
        upkeep: Upkeep { retention: Duration::ZERO, spare_segments_max, ..Upkeep::default() },
        ..StoreConfig::default()
    };
    open_with(disk, config, clock)
}

/// With small segments, and nothing protected.
pub(super) fn open_with(
    disk: &SimulatedDisk,
    config: StoreConfig,
    clock: &Arc<ManualClock>,
) -> Inner {
    let config = StoreConfig { directory: "/s".into(), ..config };
    open_on(Arc::new(disk.clone()), config, clock)
}

/// A store of which some segments have expired and wait for their next life.
fn with_spares() -> (SimulatedDisk, Inner) {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 2);
    append(&inner, 26);
    expire(&inner);
    inner.maintain().unwrap();
    (disk, inner)
}

fn open_on(disk: Arc<dyn Disk>, config: StoreConfig, clock: &Arc<ManualClock>) -> Inner {
    let config = StoreConfig {
        segment_bytes: 8192,
        message_bytes_max: 2000,
        upkeep: Upkeep { free_bytes_min: Some(0), ..config.upkeep },
        threads: false,
        ..config
    };
    let inner = Inner::open(config, disk, clock.clone()).unwrap();
    inner.protected_from.store(u64::MAX, Ordering::Release);
    inner
}

/// Appends messages that all look alike.
fn append(inner: &Inner, count: usize) {
    append_to(inner, "t", count);
}

fn append_to(inner: &Inner, topic: &str, count: usize) {
    let message = NewMessage::plain(topic, 0, &[7; 1000]);
    for _ in 0..count {
        inner.append(&[message], &mut Vec::new()).unwrap();
        inner.flush().unwrap();
    }
}

/// Everything is older than the clock says now.
fn expire(inner: &Inner) -> usize {
    let mut expired = 0;
    let mut segments = inner.log.all();
    let last = segments.pop().unwrap();
    if !segments.is_empty() {
        expired = segments.len();
        inner.delete_oldest(segments, last.start).unwrap();
    }
    expired
}

fn names(disk: &SimulatedDisk, directory: &str) -> Vec<String> {
    let listed = disk.list(&Path::new("/s").join(directory)).unwrap();
    listed.into_iter().map(|file| file.name.trim_start_matches('0').to_owned()).collect()
}

#[test]
fn an_expired_segment_has_another_life_under_another_name() {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 2);
    append(&inner, 26); // seven a segment, so four segments
    assert_eq!(expire(&inner), 3);
    // Two wait, which is the limit; the third is gone.
    assert_eq!(names(&disk, "weir/spare"), ["", "8192"]);
    assert_eq!(names(&disk, "commitlog"), ["24576"]);
    inner.maintain().unwrap();
    assert_eq!(names(&disk, "commitlog"), ["24576", "32768"]);
    append(&inner, 3);
    assert!(inner.log.newest().unwrap().is_recycled());
    // At its start and behind its end stand zeros, further on what it held before.
    let mut bytes = [0; 8192 - 512];
    let mut read = || {
        inner.log.newest().unwrap().read_exact(&mut bytes, 32768).unwrap();
        (bytes, (inner.marks.written() - 32768) as usize)
    };
    let (bytes, end) = read();
    assert_eq!(bytes[end..end + 8], [0; 8]);
    assert!(bytes[4096..].contains(&7));
    // An append that begins a page fills it, so that nothing has to be read to write it.
    append(&inner, 3);
    let (bytes, end) = read();
    assert!(end > 4096 && bytes[end..].iter().all(|byte| *byte == 0));
    let queue = inner.queues.find("t", 0).unwrap();
    assert_eq!(queue.range(inner.marks.visible()).max, 32);

    // As after a kill, and as after a clean close.
    let end = inner.marks.written();
    drop(inner);
    let inner = open(&disk, 2);
    assert_eq!((inner.recovery.log_end, inner.recovery.cut_records), (end, 0));
    append(&inner, 1);
    let end = inner.marks.written();
    inner.close().unwrap();
    // Nothing of the life before is left, where Apache's broker would find it.
    let newest = inner.log.newest().unwrap();
    let mut rest = vec![1; (newest.end() - end) as usize];
    newest.read_exact(&mut rest, end).unwrap();
    assert!(rest.iter().all(|byte| *byte == 0));
    let inner = open(&disk, 2);
    assert_eq!((inner.recovery.log_end, inner.recovery.rebuilt_segments), (end, 0));
    assert!(!inner.log.newest().unwrap().is_recycled());
    append(&inner, 10);
    assert!(names(&disk, "commitlog").len() <= inner.log.all().len() + 1);
}

/// A store whose newest segment is recycled, with so many messages in it.
fn in_a_recycled_segment(count: usize) -> (SimulatedDisk, Inner) {
    let (disk, inner) = with_spares();
    append(&inner, count);
    assert!(inner.log.newest().unwrap().is_recycled());
    (disk, inner)
}

#[test]
fn a_flush_while_an_append_waits_to_be_published_costs_no_later_record() {
    let message = NewMessage::plain("t", 0, &[7; 1000]);
    let (disk, inner) = in_a_recycled_segment(3);
    inner.append(&[message], &mut Vec::new()).unwrap();
    let published = inner.marks.written();
    let flush = || assert_eq!(inner.flush().unwrap(), published);
    inner.append_around(&[message], &mut Vec::new(), flush).unwrap();
    // Its proof says up to where the flush was, and that is in the middle of the proof before.
    inner.append(&[message], &mut Vec::new()).unwrap();
    inner.flush().unwrap();
    let end = inner.marks.written();
    drop(inner);
    for disk in [disk.clone(), disk.crash(1)] {
        let inner = open(&disk, 2);
        assert_eq!((inner.recovery.log_end, inner.recovery.cut_records), (end, 0));
        assert_eq!(inner.queues.find("t", 0).unwrap().range(end).max, 32);
    }
}

/// Names of spare files that are segments as well.
fn spares_in_the_log(disk: &SimulatedDisk) -> Vec<String> {
    let list = |directory| disk.list(&Path::new("/s").join(directory)).unwrap();
    let segments: Vec<_> = list("commitlog").into_iter().map(|file| file.inode).collect();
    let shared = list("weir/spare").into_iter().filter(|file| segments.contains(&file.inode));
    shared.map(|file| file.name).collect()
}

#[test]
fn no_power_cut_leaves_a_flushed_segment_among_the_spare_files() {
    let (disk, inner) = in_a_recycled_segment(3);
    assert_eq!(inner.marks.flushed(), inner.marks.written());
    for seed in 0..50 {
        assert_eq!(spares_in_the_log(&disk.crash(seed)), [""; 0], "seed {seed}");
    }
    // And where the process that wrote it was killed before it synced, once another one has recovered it.
    let (disk, inner) = with_spares();
    let message = NewMessage::plain("t", 0, &[7; 1000]);
    while !inner.log.newest().unwrap().is_recycled() {
        inner.append(&[message], &mut Vec::new()).unwrap();
    }
    drop(inner);
    let inner = open(&disk, 2);
    assert!(inner.log.newest().unwrap().is_recycled());
    for seed in 0..50 {
        assert_eq!(spares_in_the_log(&disk.crash(seed)), [""; 0], "seed {seed}");
    }
}

#[test]
fn a_spare_file_that_is_a_segment_as_well_is_not_written_to() {
    let (disk, inner) = with_spares();
    let message = NewMessage::plain("t", 0, &[7; 1000]);
    for _ in 0..5 {
        inner.append(&[message], &mut Vec::new()).unwrap();
    }
    assert!(inner.log.newest().unwrap().is_recycled());
    // As in a flush that has not come to the names.
    inner.log.all().iter().for_each(|segment| segment.sync().unwrap());
    let mut seen = 0;
    for seed in 0..50 {
        let disk = disk.crash(seed);
        let had_both_names = !spares_in_the_log(&disk).is_empty();
        let inner = open(&disk, 2);
        assert_eq!(spares_in_the_log(&disk), [""; 0], "seed {seed}");
        seen += u32::from(had_both_names && inner.log.newest().unwrap().is_recycled());
        let recovered = range_of(&inner, "t").unwrap().max;
        for _ in 0..14 {
            append(&inner, 1);
            inner.prepare_next_segment().unwrap();
        }
        drop(inner);
        let inner = open(&disk, 2);
        assert_eq!(range_of(&inner, "t").unwrap().max, recovered + 14, "seed {seed}");
    }
    assert!(seen > 0, "no crash left both names to a file with records");
}

#[test]
fn a_copy_may_need_the_place_of_the_proofs() {
    // Apache's broker leaves 8 bytes behind the last record for padding, or fills a segment.
    for left in [300, 8, 4, 0] {
        let (disk, inner) = in_a_recycled_segment(6);
        let segment = inner.log.newest().unwrap();
        let begin = inner.marks.written();
        let mut copy = Vec::new();
        let mut add = |queue_offset, position, body: &[u8]| {
            let record = NewMessage::plain("t", 0, body).to_record(queue_offset, position, 1000);
            record.encode(&mut copy).unwrap();
            position + record.encoded_len() as u64
        };
        let at = add(32, begin, &[7; 1000]);
        let head = at - begin - 1000;
        add(33, at, &vec![7; (segment.end() - left - at - head) as usize]);
        inner.append_copy(begin, &copy).unwrap();
        inner.flush().unwrap();
        let end = inner.marks.written();
        assert_eq!(end, segment.end() - left);
        // No padding fits behind it, so the next record begins another segment.
        let end = if left < 8 { segment.end() } else { end };
        drop((inner, segment));
        for seed in 0..20 {
            let inner = open(&disk.crash(seed), 2);
            assert_eq!((inner.recovery.log_end, inner.recovery.cut_records), (end, 0));
            assert_eq!(inner.queues.find("t", 0).unwrap().range(end).max, 34);
        }
    }
}

#[test]
fn files_that_made_room_are_not_completed_without_their_entries() {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 0);
    inner.protected_from.store(0, Ordering::Release);
    append(&inner, 26);
    disk.limit_space(Some(0));
    inner.make_room(&inner.log.all()[0]).unwrap();
    disk.limit_space(None);
    inner.maintain().unwrap();
    inner.close().unwrap();
    drop(inner);
    let inner = open(&disk, 0);
    assert_eq!(inner.recovery.rebuilt_segments, 1);
    assert_eq!(inner.queues.find("t", 0).unwrap().range(u64::MAX), QueueRange { min: 0, max: 26 });
}

#[test]
fn what_waited_for_the_append_lock_while_the_store_was_closed_changes_nothing() {
    let inner = open(&SimulatedDisk::new(), 0);
    append(&inner, 1);
    inner.is_closed.store(true, Ordering::Release);
    assert!(matches!(inner.delete_queues(&["t"], 0), Err(StoreError::Closed)));
    assert!(matches!(inner.adopt_next_offsets(&Default::default()), Err(StoreError::Closed)));
    let appender = inner.appender.lock();
    inner.is_closed.store(false, Ordering::Release);
    std::thread::scope(|scope| {
        let deletion = scope.spawn(|| inner.delete_queues(&["t"], 0));
        std::thread::yield_now();
        inner.is_closed.store(true, Ordering::Release);
        drop(appender);
        assert!(matches!(deletion.join().unwrap(), Err(StoreError::Closed)));
    });
}

#[test]
fn what_apache_appended_to_a_recycled_segment_after_our_kill_counts() {
    let (disk, inner) = in_a_recycled_segment(6);
    let newest = inner.log.newest().unwrap();
    let queue = inner.queues.find("t", 0).unwrap();
    let mut last = Vec::new();
    queue.entries(31, 1, &mut last).unwrap();
    let entry = &last[0].1;
    let mut record = vec![0; entry.size as usize];
    newest.read_exact(&mut record, entry.physical_offset).unwrap();
    let end = inner.marks.written();
    drop(inner);

    record[20..28].copy_from_slice(&32u64.to_be_bytes());
    record[28..36].copy_from_slice(&end.to_be_bytes());
    newest.write(&record, end).unwrap();
    newest.sync().unwrap();
    disk.remove(Path::new("/s/abort")).unwrap();
    disk.create_directory(Path::new("/s/consumequeue")).unwrap();
    let inner = open(&disk, 2);
    let report = &inner.recovery;
    assert_eq!((report.log_end, report.cut_records), (end + record.len() as u64, 0));
    assert_eq!(inner.queues.find("t", 0).unwrap().range(report.log_end).max, 33);
    // From here on records count with proofs again.
    assert!(inner.log.newest().unwrap().is_recycled());
    append(&inner, 1);
    let end = inner.marks.written();
    drop(inner);
    assert_eq!(open(&disk, 2).recovery.log_end, end);
}

#[test]
fn what_has_expired_waits_for_its_hour_a_short_disk_or_a_wish() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::at_ms(1000));
    let inner = open_at(&disk, 2, &clock);
    append(&inner, 26);
    clock.advance_ms(60_000);
    append(&inner, 7);
    let segments = || inner.log.all().len();
    // It is midnight and a bit.
    assert_eq!((inner.expire_if_due(false).unwrap(), segments()), (0, 5));
    clock.advance_ms(4 * 3_600_000);
    assert_eq!((inner.expire_if_due(false).unwrap(), segments()), (4, 1));
    clock.advance_ms(3_600_000);
    append(&inner, 7);
    clock.advance_ms(60_000);
    append(&inner, 7);
    assert_eq!(inner.expire_if_due(false).unwrap(), 0);
    assert_eq!(inner.expire_if_due(true).unwrap(), 1);

    clock.advance_ms(60_000);
    append(&inner, 7);
    assert!(inner.spares.count() > 0);
    disk.limit_space(Some((1 << 50) / 100 * 24));
    inner.check_space().unwrap();
    assert_eq!(inner.expire_if_due(false).unwrap(), 1, "the disk is used to 76 %");
    assert_eq!(inner.spares.count(), 0, "nothing is kept while space is short");
}

#[test]
fn upkeep_may_change_while_the_store_is_open() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::at_ms(1000));
    let inner = open_at(&disk, 2, &clock);
    append(&inner, 26);
    clock.advance_ms(3_600_000);
    append(&inner, 7);
    let set = |change: &dyn Fn(&mut Upkeep)| {
        let mut upkeep = (*inner.upkeep()).clone();
        change(&mut upkeep);
        inner.set_upkeep(upkeep);
    };
    // One o'clock, and everything but the last segment is an hour old.
    set(&|upkeep| upkeep.retention = Duration::from_secs(7_200));
    set(&|upkeep| upkeep.retention_hours = vec![1]);
    assert_eq!(inner.expire_if_due(false).unwrap(), 0, "messages are kept for two hours");
    set(&|upkeep| upkeep.spare_segments_max = 1);
    set(&|upkeep| upkeep.retention = Duration::from_secs(1_800));
    assert_eq!(inner.expire_if_due(false).unwrap(), 3);
    assert_eq!(inner.spares.count(), 1);
    set(&|upkeep| upkeep.free_bytes_min = Some(u64::MAX));
    inner.check_space().unwrap();
    assert!(matches!(inner.check_writable(), Err(StoreError::Full { .. })));
    set(&|upkeep| upkeep.free_bytes_min = Some(0));
    inner.check_space().unwrap();
    inner.check_writable().unwrap();
}

#[test]
fn what_somebody_asked_for_expires_once_nothing_protects_it() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::at_ms(1000));
    let inner = open_at(&disk, 2, &clock);
    append(&inner, 26);
    clock.advance_ms(3_600_000);
    inner.protected_from.store(9000, Ordering::Release);
    assert_eq!(inner.expire_if_due(false).unwrap(), 0, "it is not the hour");
    assert_eq!(inner.expire_if_due(true).unwrap(), 1);
    assert_eq!(inner.expire_if_due(false).unwrap(), 0);
    inner.protected_from.store(u64::MAX, Ordering::Release);
    assert_eq!(inner.expire_if_due(false).unwrap(), 2);
    append(&inner, 14);
    assert_eq!(inner.expire_if_due(false).unwrap(), 0, "nobody asked for these");
}

#[test]
fn only_force_deletes_before_the_time_and_never_what_is_protected() {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 2);
    append(&inner, 26);
    let hour = Upkeep { retention: Duration::from_secs(3600), ..(*inner.upkeep()).clone() };
    inner.set_upkeep(hour.clone());
    disk.limit_space(Some((1 << 50) / 100 * 10));
    inner.check_space().unwrap();
    assert_eq!(inner.expire_if_due(true).unwrap(), 0);
    inner.set_upkeep(Upkeep { retention_force: true, ..hour });
    inner.protected_from.store(9000, Ordering::Release);
    let told = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&told);
    *inner.protection_listener.write() = Some(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    assert_eq!(inner.expire_if_due(false).unwrap(), 1);
    assert_eq!((inner.log.start(), told.load(Ordering::Relaxed)), (Some(8192), 1));
    inner.protected_from.store(u64::MAX, Ordering::Release);
    assert_eq!(inner.expire_if_due(false).unwrap(), 2, "the newest segment stays");
}

#[test]
fn a_segment_that_somebody_reads_is_not_recycled() {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 8);
    append(&inner, 16);
    let reader = inner.log.segment_at(0).unwrap();
    assert_eq!(expire(&inner), 2);
    assert_eq!(names(&disk, "weir/spare"), ["8192"]);
    assert!(read_head(&reader, 0).unwrap().is_some(), "its bytes stay until it is read");
}

#[test]
fn a_segment_recycled_under_its_reader_would_be_noticed() {
    for bug in [None, Some(Planted::RecycledWhileRead)] {
        planted::with(bug, || {
            let disk = SimulatedDisk::new();
            let inner = open(&disk, 1);
            append(&inner, 9);
            let reader = inner.log.segment_at(0).unwrap();
            let read = || {
                let mut bytes = vec![0; 8192];
                reader.read_exact(&mut bytes, 0).unwrap();
                bytes
            };
            let before = read();
            assert_eq!(expire(&inner), 1);
            append(&inner, 4);
            inner.maintain().unwrap();
            append(&inner, 4);
            assert_eq!(read() != before, bug.is_some(), "{bug:?}");
        });
    }
}

#[test]
fn a_flush_that_is_under_way_keeps_no_old_segment_from_its_next_life() {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 8);
    append(&inner, 16);
    let flushed = inner.marks.flushed();
    inner.append(&[NewMessage::plain("t", 0, &[7; 1000])], &mut Vec::new()).unwrap();
    // As `CommitLog::sync` holds them while the disk works.
    let dirty = inner.log.between(flushed, inner.marks.written());
    assert_eq!(dirty.len(), 1);
    assert_eq!(expire(&inner), 2);
    assert_eq!(names(&disk, "weir/spare"), ["", "8192"]);
}

#[test]
fn spares_of_another_segment_size_and_surplus_ones_are_removed_at_open() {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 8);
    append(&inner, 22);
    expire(&inner);
    drop(inner);
    let path = Path::new("/s/weir/spare/00000000000000008192");
    disk.open(path, crate::disk::OpenMode::Write).unwrap().set_len(100).unwrap();
    let inner = open(&disk, 1);
    assert_eq!((inner.spares.count(), names(&disk, "weir/spare")), (1, vec![String::new()]));
    assert_eq!(inner.spares.remove_all().unwrap(), 1);
    assert_eq!(names(&disk, "weir/spare"), Vec::<String>::new());
}

#[test]
fn an_error_halfway_leaves_no_gap_in_the_log() {
    // Every step of the first deletion fails once, as for want of descriptors.
    for step in 0..200 {
        let disk = SimulatedDisk::new();
        let inner = open(&disk, 1);
        append(&inner, 40);
        inner.protected_from.store(0, Ordering::Release);
        inner.maintain().unwrap();
        disk.fail_after(step);
        let mut segments = inner.log.all();
        segments.truncate(3);
        let deleted = inner.delete_oldest(segments, 3 * 8192);
        disk.fail_after(1 << 40);
        if deleted.is_ok() {
            assert!(step > 10, "{step}");
            return;
        }
        let next = inner.log.all();
        if next.len() > 2 {
            inner.delete_oldest(vec![next[0].clone(), next[1].clone()], next[2].start).unwrap();
        }
        drop(next);
        let (start, end) = (inner.log.start(), inner.marks.written());
        inner.close().unwrap();
        drop(inner);
        let inner = open(&disk, 1);
        assert_eq!((inner.log.start(), inner.marks.written()), (start, end), "step {step}");
    }
    panic!("the deletion has no end");
}

#[test]
fn a_small_disk_that_refuses_writes_is_short_whatever_its_share() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::at_ms(1000));
    let inner = open_at(&disk, 2, &clock);
    append(&inner, 26);
    expire(&inner);
    append(&inner, 14);
    clock.advance_ms(60_000);
    let free_bytes_min = Some((1 << 50) + 1);
    inner.set_upkeep(Upkeep { free_bytes_min, ..(*inner.upkeep()).clone() });
    inner.check_space().unwrap();
    assert!(inner.spares.count() > 0 && inner.disk_watch.is_full());
    assert!(inner.expire_if_due(false).unwrap() > 0);
    assert_eq!((inner.spares.count(), inner.log.all().len()), (0, 1));
}

#[test]
fn a_disk_without_a_free_byte_opens_and_frees_itself() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::at_ms(1000));
    let inner = open_at(&disk, 2, &clock);
    inner.protected_from.store(0, Ordering::Release);
    append_to(&inner, "old", 1);
    append(&inner, 26);
    inner.maintain().unwrap();
    append(&inner, 3);
    assert!(inner.background.marked() < inner.marks.flushed());
    drop(inner);

    disk.limit_space(Some(0));
    clock.advance_ms(60_000);
    let inner = open_at(&disk, 2, &clock);
    assert!(inner.background.marked() < inner.marks.flushed());
    assert!(inner.log.segment_at(0).unwrap().is_sealed.load(Ordering::Acquire));
    assert!(inner.expire_if_due(false).unwrap() >= 3);
    assert_eq!(inner.queues.find("old", 0).unwrap().range(inner.marks.visible()).max, 1);
    inner.write_durable_mark().unwrap();
    inner.close().unwrap();
    drop(inner);
    let inner = open_at(&disk, 2, &clock);
    assert_eq!(inner.queues.find("old", 0).unwrap().range(inner.marks.visible()).max, 1);
}

#[test]
fn what_cannot_be_read_does_not_stop_retention() {
    let disk = SimulatedDisk::new();
    let clock = Arc::new(ManualClock::at_ms(1000));
    let inner = open_at(&disk, 2, &clock);
    append(&inner, 26);
    inner.protected_from.store(0, Ordering::Release);
    inner.maintain().unwrap();
    inner.protected_from.store(u64::MAX, Ordering::Release);
    clock.advance_ms(60_000);
    inner.log.segment_at(8192).unwrap().write(&[0xEE; 200], 8192).unwrap();
    disk.open(inner.log.segment_at(8192).unwrap().queues.path(), crate::disk::OpenMode::Write)
        .unwrap()
        .set_len(0)
        .unwrap();
    let mut oldest = inner.log.all();
    oldest.truncate(1);
    inner.delete_oldest(oldest, 8192).unwrap();
    assert_eq!(inner.queue_state.lock().next_offsets["t"][&0], 7, "kept: nobody else says so");
    assert_eq!(inner.expire_if_due(true).unwrap(), 2);
    assert_eq!(inner.log.start(), Some(3 * 8192));

    append(&inner, 14);
    clock.advance_ms(60_000);
    inner.log.segment_at(4 * 8192).unwrap().write(&[0xEE; 200], 4 * 8192).unwrap();
    assert_eq!(inner.expire_if_due(true).unwrap(), 2, "the segment behind the damage answers");
}

#[test]
fn a_spare_file_that_could_not_be_used_waits_on() {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 2);
    append(&inner, 22);
    expire(&inner);
    let spares = inner.spares.count();
    assert!(spares > 0);
    for step in 0..3 {
        disk.fail_after(step);
        inner.log.prepare_next(&inner.spares).unwrap_err();
        assert_eq!(inner.spares.count(), spares, "step {step}");
    }
    disk.fail_after(0);
    inner.spares.remove_all().unwrap_err();
    assert_eq!(inner.spares.count(), spares);
    disk.fail_after(1 << 40);
    inner.log.prepare_next(&inner.spares).unwrap();
    assert_eq!(inner.spares.count(), spares - 1);
}

#[test]
fn whoever_needs_their_space_may_remove_the_spare_files_of_an_open_store() {
    for directory_stays in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let config = StoreConfig {
            directory: directory.path().to_path_buf(),
            upkeep: Upkeep { spare_segments_max: 2, ..Upkeep::default() },
            ..StoreConfig::default()
        };
        let inner = open_on(Arc::new(RealDisk), config, &Arc::new(ManualClock::at_ms(1000)));
        // However full the disk of this machine is: the most that a configuration may say are 95.
        inner.set_upkeep(Upkeep { retention_disk_percent: 101, ..(*inner.upkeep()).clone() });
        let remove_spares = || {
            assert_eq!(inner.spares.count(), 2);
            std::fs::remove_dir_all(&inner.layout.spare).unwrap();
            if directory_stays {
                std::fs::create_dir(&inner.layout.spare).unwrap();
            }
        };
        append(&inner, 26);
        expire(&inner);
        remove_spares();
        for _ in 0..14 {
            append(&inner, 1);
            inner.prepare_next_segment().unwrap();
        }
        for segment in inner.log.all() {
            assert_eq!(std::fs::metadata(&segment.path).unwrap().len(), 8192);
        }
        // There are new ones, which may go as well.
        expire(&inner);
        remove_spares();
        assert_eq!(inner.spares.remove_all().unwrap(), 2);
        append(&inner, 14);
        assert_eq!(inner.flusher.poisoned(), None);
    }
}

#[test]
fn what_somebody_asked_for_expires_once_a_deletion_is_not_taken_back_any_more() {
    let clock = Arc::new(ManualClock::at_ms(1000));
    let inner = open_at(&SimulatedDisk::new(), 2, &clock);
    inner.set_upkeep(Upkeep { retention_hours: Vec::new(), ..(*inner.upkeep()).clone() });
    append(&inner, 26);
    append_to(&inner, "u", 1);
    clock.advance_ms(60_000);
    delete_topic(&inner, "u");
    assert_eq!(inner.expire_if_due(true).unwrap(), 0, "the deletion is not flushed");
    assert_eq!(inner.expire_if_due(false).unwrap(), 0);
    inner.flush().unwrap();
    assert_eq!(inner.expire_if_due(false).unwrap(), 3);
}

/// A record stands for the one that says that the topic is deleted.
fn delete_topic(inner: &Inner, topic: &str) -> u64 {
    inner.append(&[NewMessage::plain("log", 0, &[9; 100])], &mut Vec::new()).unwrap();
    let end = inner.marks.written();
    inner.delete_queues(&[topic], end).unwrap();
    end
}

fn range_of(inner: &Inner, topic: &str) -> Option<crate::QueueRange> {
    inner.queues.find(topic, 0).map(|queue| queue.range(inner.marks.visible()))
}

#[test]
fn a_deletion_that_the_log_lost_is_taken_back_and_one_that_it_has_is_not() {
    for is_said in [true, false] {
        let disk = SimulatedDisk::new();
        let inner = open(&disk, 0);
        append(&inner, 10); // one segment is full and waits to be sealed
        let end = delete_topic(&inner, "t");
        assert_eq!(range_of(&inner, "t"), None);
        // The file of the full segment is written without the topic's queue.
        inner.maintain().unwrap();
        drop(inner);
        let root = Path::new("/s");
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        // As a replica does that was master and is not any more.
        let at = end - if is_said { 0 } else { 100 + 91 + "log".len() as u64 };
        crate::offline::truncate(root, &shared, at, &[]).unwrap();
        let inner = open(&disk, 0);
        assert_eq!(inner.marks.written(), at);
        let there = crate::QueueRange { min: 0, max: 10 };
        assert_eq!(range_of(&inner, "t"), (!is_said).then_some(there));
        append(&inner, 1);
        drop(inner);
        let inner = open(&disk, 0);
        let max = if is_said { 1 } else { 11 };
        assert_eq!(range_of(&inner, "t").unwrap().max, max, "the log has grown beyond it again");
    }
}

#[test]
fn a_queue_without_messages_goes_on_where_it_was_when_its_deletion_is_taken_back() {
    let disk = SimulatedDisk::new();
    let inner = open(&disk, 0);
    append(&inner, 7);
    append_to(&inner, "log", 7);
    assert_eq!(expire(&inner), 1);
    assert_eq!(range_of(&inner, "t").unwrap().max, 7);
    let end = delete_topic(&inner, "t");
    // Nothing may expire before the deletion is for good.
    assert_eq!(inner.expire_if_due(true).unwrap(), 0);
    drop(inner);
    let mut taken_back = 0;
    for seed in 0..20 {
        let inner = open(&disk.crash(seed), 0);
        let is_taken_back = inner.marks.written() < end;
        append(&inner, 1);
        let next = if is_taken_back { 8 } else { 1 };
        assert_eq!(range_of(&inner, "t").unwrap().max, next, "seed {seed}");
        taken_back += u32::from(is_taken_back);
    }
    assert!((1..20).contains(&taken_back), "{taken_back} of 20 crashes lost the record");
}

#[test]
fn deletions_of_one_topic_do_not_add_up() {
    let inner = open(&SimulatedDisk::new(), 0);
    for _ in 0..50 {
        append(&inner, 1);
        delete_topic(&inner, "t");
        inner.flush().unwrap();
    }
    let state = inner.queue_state.lock();
    assert!(state.deletions["t"].len() <= 2, "{:?}", state.deletions["t"]);
    assert!(state.is_forgotten("t", state.deletions["t"][0].before - 1));
}
