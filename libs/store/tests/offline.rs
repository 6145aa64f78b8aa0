//! The tools that work on a directory while no broker uses it.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{
    Message, Random, append, flip, look, open, read_all, small_config, try_open, verified,
};
use weirmq_store::offline::{
    CutPlan, DerivedState, FindingKind, VerifyReport, accept_missing_start, cut, export_queues,
    plan_cut, verify,
};
use weirmq_store::{
    Appended, Disk, FlushMode, ManualClock, OpenMode, QueueRange, SimulatedDisk, Store,
    StoreConfig, StoreError, apache_rule,
};

const ROOT: &str = "/data";
const SEGMENT_BYTES: u64 = 64 << 10;

fn config() -> StoreConfig {
    StoreConfig { unflushed_bytes_max: Some(80 << 10), ..small_config(FlushMode::ASYNC) }
}

/// Three and a half segments in two topics, with keys.
fn fill(disk: &Arc<SimulatedDisk>, close: bool) -> Vec<Appended> {
    let (store, _) = open(disk, &config());
    let mut at = Vec::new();
    for n in 0..220u32 {
        let topic = ["a", "%RETRY%b"][n as usize % 2];
        let message = Message::new(topic, (n % 3) as i32, vec![n as u8 | 1; 900])
            .with("KEYS", &format!("k{n}"))
            .with("TAGS", "x");
        at.extend(append(&store, &[message]).unwrap());
    }
    store.maintain().unwrap();
    if close {
        store.close().unwrap();
    } else {
        store.flush().unwrap();
        store.maintain().unwrap();
    }
    at
}

fn segment(start: u64) -> String {
    format!("{ROOT}/commitlog/{start:020}")
}

#[test]
fn a_sound_log_is_sound_and_nothing_is_changed_by_looking() {
    for close in [true, false] {
        let disk = Arc::new(SimulatedDisk::new());
        let at = fill(&disk, close);
        let steps = disk.steps();
        let mut last = 0;
        let report = verify(&look(&disk), apache_rule, &mut |progress| {
            assert!(progress.done_bytes >= last);
            last = progress.done_bytes;
        })
        .unwrap();
        assert!(report.is_sound && report.was_closed == close, "{report:?}");
        assert_eq!((report.records, report.queues, report.segments), (220, 6, 4));
        assert_eq!(report.log_end, at[219].end_offset);
        assert_eq!(report.notes.len(), if close { 0 } else { 2 }, "{:?}", report.notes);
        assert!(report.queue_entries >= 210 - 70 && report.key_entries >= 210 - 70);
        let inspection = look(&disk).inspect().unwrap();
        assert_eq!(inspection.log_end, at[219].end_offset);
        let full = &inspection.segments[0];
        assert_eq!(
            (full.queue_file, full.key_file),
            (DerivedState::Complete, DerivedState::Complete)
        );
        assert_eq!(full.first_record, Some(0));
        let behind = at.iter().find(|at| at.physical_offset == SEGMENT_BYTES).unwrap();
        let last = at.iter().rfind(|at| at.physical_offset < SEGMENT_BYTES).unwrap();
        assert_eq!(full.last_record, Some(last.physical_offset));
        assert_eq!(inspection.segments[1].first_record, Some(behind.physical_offset));
        assert_eq!(disk.steps(), steps);
    }
}

#[test]
fn a_segment_whose_first_record_is_broken_is_listed_with_what_is_wrong() {
    for (spoilt, expected) in [(vec![0xFF; 8], "checksum"), (vec![0; 1200], "zeros")] {
        let disk = Arc::new(SimulatedDisk::new());
        let at = fill(&disk, true);
        let from = if spoilt.len() == 8 { 300 } else { 0 };
        let file = disk.open(Path::new(&segment(SEGMENT_BYTES)), OpenMode::Write).unwrap();
        file.write_all_at(&spoilt, from).unwrap();
        let inspection = look(&disk).inspect().unwrap();
        let starts: Vec<_> = inspection.segments.iter().map(|segment| segment.start).collect();
        assert_eq!(starts, [0, 1, 2, 3].map(|n| n * SEGMENT_BYTES));
        let view = &inspection.segments[1];
        assert_eq!(view.first_record, None);
        let broken = view.broken.as_ref().expect("its first record is broken");
        assert_eq!(broken.at, SEGMENT_BYTES);
        assert!(broken.reason.contains(expected), "{broken:?}");
        let behind = SEGMENT_BYTES + from + spoilt.len() as u64;
        let next = at.iter().find(|at| at.physical_offset >= behind).unwrap();
        assert_eq!(broken.next_record, Some(next.physical_offset));
        let others = inspection.segments.iter().filter(|other| other.start != view.start);
        assert!(others.clone().all(|other| other.broken.is_none()), "{inspection:?}");
        // A damaged block of a queue file is no reason to show nothing.
        for block in 0..40 {
            flip(&disk, "/data/weir/queues/00000000000000000000", block * 64 + 5, 1);
        }
        assert_eq!(look(&disk).inspect().unwrap().segments.len(), 4);
    }
}

#[test]
fn a_missing_start_is_named_and_given_up_only_when_asked() {
    let disk = Arc::new(SimulatedDisk::new());
    fill(&disk, true);
    disk.remove(Path::new(&segment(0))).unwrap();
    let report = verified(&disk);
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.kind, FindingKind::MissingStart);
    assert_eq!((finding.from, finding.to), (Some(0), Some(SEGMENT_BYTES)));
    // A cut there would take all the rest.
    assert_eq!(plan_cut(&look(&disk), &report).unwrap(), None);
    let disk_of = || Arc::clone(&disk) as Arc<dyn Disk>;
    assert!(matches!(try_open(&disk, &config()), Err(StoreError::Damaged { from: 0, .. })));
    let given_up = accept_missing_start(Path::new(ROOT), &disk_of()).unwrap();
    assert_eq!(given_up.unwrap().range, 0..SEGMENT_BYTES);
    assert_eq!(accept_missing_start(Path::new(ROOT), &disk_of()).unwrap(), None);
    assert!(verified(&disk).is_sound);
    let (store, report) = open(&disk, &config());
    assert_eq!(report.log_start, SEGMENT_BYTES);
    let range = store.queue_range("a", 0).unwrap();
    assert!(range.min > 0 && !read_all(&store, "a", 0, range.min).is_empty());
}

#[test]
fn queues_whose_messages_were_all_in_a_lost_start_go_on_where_they_were() {
    for is_queue_file_there in [true, false] {
        let disk = Arc::new(SimulatedDisk::new());
        let (store, _) = open(&disk, &config());
        let one = |topic| append(&store, &[Message::new(topic, 3, "of segment 0")]).unwrap()[0];
        for topic in ["lost", "lost", "deleted", "anew", "anew"] {
            one(topic);
        }
        store.delete_queues(&["deleted", "anew"], 0).unwrap();
        one("anew");
        store.close().unwrap();
        fill(&disk, true);
        disk.remove(Path::new(&segment(0))).unwrap();
        let queue_file = Path::new("/data/weir/queues/00000000000000000000");
        if !is_queue_file_there {
            disk.remove(queue_file).unwrap();
        }
        let disk_of = Arc::clone(&disk) as Arc<dyn Disk>;
        let given_up = accept_missing_start(Path::new(ROOT), &disk_of).unwrap().unwrap();
        let (store, _) = open(&disk, &config());
        let next = |topic| append(&store, &[Message::new(topic, 3, "on")]).unwrap()[0].queue_offset;
        let nexts = ["lost", "deleted", "anew"].map(next);
        if is_queue_file_there {
            assert_eq!((given_up.unknown.len(), nexts), (0, [2, 0, 1]));
        } else {
            assert_eq!(given_up.unknown, [queue_file], "nobody knows, and that is said");
        }
    }
}

#[test]
fn proofs_of_a_recycled_segment_are_shown_until_it_is_closed() {
    let disk = Arc::new(SimulatedDisk::new());
    let clock = Arc::new(ManualClock::at_ms(1_000_000));
    let mut config = config();
    config.upkeep.retention = std::time::Duration::ZERO;
    let store = || {
        let disk = Arc::clone(&disk) as Arc<dyn Disk>;
        Store::open(config.clone(), disk, clock.clone()).unwrap().0
    };
    let running = store();
    running.protect_from(u64::MAX);
    let mut end = 0;
    for n in 0..200u32 {
        let message = Message::new("t", 0, vec![n as u8 | 1; 900]);
        end = append(&running, &[message]).unwrap()[0].end_offset;
        clock.advance_ms(60_000);
        running.flush().unwrap();
        running.maintain().unwrap();
    }
    append(&running, &[Message::new("t", 0, "not flushed")]).unwrap();
    drop(running);
    let inspection = look(&disk).inspect().unwrap();
    let newest = inspection.segments.last().unwrap();
    let proofs = newest.proofs.expect("it had another life");
    assert!(proofs.count > 0 && proofs.flushed <= end, "{proofs:?}");
    assert_eq!(proofs.proved_to, newest.end);
    store().close().unwrap();
    let inspection = look(&disk).inspect().unwrap();
    assert!(inspection.segments.iter().all(|segment| segment.proofs.is_none()));
}

/// Verify has to say what the next open will do.
fn foretells(disk: &Arc<SimulatedDisk>, config: &StoreConfig, what: &str) -> VerifyReport {
    let report = verified(disk);
    match try_open(disk, config) {
        Ok((_, recovered)) => {
            assert!(report.is_sound, "{what}: {report:?}");
            assert_eq!(report.log_end, recovered.log_end, "{what}: {report:?}");
            let cut = report.torn_tail.map_or((0, 0), |tail| (tail.to - tail.from, tail.records));
            assert_eq!(cut, (recovered.cut_bytes, recovered.cut_records), "{what}: {report:?}");
        }
        Err(error) => assert!(!report.is_sound, "{what}: {error}"),
    }
    report
}

#[test]
fn a_killed_log_in_a_recycled_segment_ends_where_its_proofs_do() {
    let disk = Arc::new(SimulatedDisk::new());
    let mut config = StoreConfig {
        segment_bytes: 8192,
        message_bytes_max: 2000,
        unflushed_bytes_max: Some(64 << 10),
        flush: FlushMode::Sync,
        ..small_config(FlushMode::Sync)
    };
    config.upkeep.retention = std::time::Duration::ZERO;
    config.upkeep.spare_segments_max = 2;
    let clock = Arc::new(ManualClock::at_ms(1_000_000));
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let (store, _) = Store::open(config.clone(), shared, clock.clone()).unwrap();
    let message = |n: u32| Message::new("t", 0, vec![n as u8 | 1; 600]).with("a", &"b".repeat(500));
    let mut random = Random(7);
    for n in 0..60 {
        append(&store, &[message(n)]).unwrap();
        store.flush().unwrap();
        clock.advance_ms(10);
        if n == 20 {
            store.protect_from(u64::MAX);
        }
        if n > 20 && n % 5 == 0 {
            store.maintain().unwrap();
        }
    }
    let marked = store.max_offset();
    store.maintain().unwrap();
    let promised = append(&store, &[message(60), message(61)]).unwrap();
    store.flush().unwrap();
    append(&store, &[message(62), message(63), message(64)]).unwrap();
    drop(store);
    let mut torn = 0;
    for seed in 0..300 {
        let crashed = Arc::new(disk.crash(random.below(1 << 40)));
        let report = foretells(&crashed, &config, &format!("crash {seed}"));
        assert!(report.log_end >= promised[1].end_offset && report.is_sound);
        torn += u32::from(report.torn_tail.is_some());
    }
    assert!(torn > 0, "no crash tore anything");
    // Above the mark, and what was promised is not there: only the proofs tell.
    assert!(promised[0].physical_offset >= marked);
    let crashed = Arc::new(disk.crash(1));
    let position = promised[0].physical_offset;
    let path = format!("{ROOT}/commitlog/{:020}", position - position % 8192);
    flip(&crashed, &path, position % 8192 + 200, 3);
    let report = foretells(&crashed, &config, "flipped");
    assert!(!report.is_sound);
}

#[test]
fn what_apache_did_to_a_directory_is_said_and_no_damage() {
    for close in [true, false] {
        let disk = Arc::new(SimulatedDisk::new());
        let at = fill(&disk, close);
        // Apache's broker began with an older copy, cut the log, stopped, and left its queues.
        let cut = at[180].physical_offset;
        let start = cut - cut % SEGMENT_BYTES;
        let file = disk.open(Path::new(&segment(start)), OpenMode::Write).unwrap();
        file.write_all_at(&vec![0; (start + SEGMENT_BYTES - cut) as usize], cut - start).unwrap();
        file.sync().unwrap();
        for file in disk.list(Path::new("/data/commitlog")).unwrap() {
            if file.name.parse::<u64>().unwrap() > start {
                disk.remove(&Path::new("/data/commitlog").join(file.name)).unwrap();
            }
        }
        if !close {
            disk.remove(Path::new("/data/abort")).unwrap();
        }
        assert!(!verified(&disk).is_sound, "without a trace of Apache's broker it is damage");
        disk.create_directory(Path::new("/data/consumequeue")).unwrap();
        let report = foretells(&disk, &config(), "after Apache");
        assert_eq!(report.log_end, cut);
        let notes = report.notes.join("\n");
        assert!(notes.contains("used this directory last"), "{notes}");
        assert!(notes.contains("Apache's broker has cut it"), "{notes}");
    }
}

#[test]
fn records_and_entries_are_found_by_their_place() {
    let disk = Arc::new(SimulatedDisk::new());
    let at = fill(&disk, true);
    let directory = look(&disk);
    let found = directory.record_at(at[100].physical_offset).unwrap();
    assert_eq!(found.record().unwrap().body, [101; 900]);
    let inside = directory.record_at(at[100].physical_offset + 5).unwrap_err().to_string();
    assert!(
        inside.ends_with(&format!("in the record from {}", at[100].physical_offset)),
        "{inside}"
    );
    let beyond = directory.record_at(1 << 40).unwrap_err().to_string();
    assert!(beyond.contains("no segment has this position"), "{beyond}");
    let mut positions = Vec::new();
    directory.records_from(0, 1000, &mut |found| positions.push(found.position)).unwrap();
    let expected: Vec<u64> = at.iter().map(|at| at.physical_offset).collect();
    assert_eq!(positions, expected);
    let entries = directory.queue_entries("a", 0, 10, 5, apache_rule).unwrap();
    let offsets: Vec<u64> = entries.iter().map(|entry| entry.queue_offset).collect();
    assert_eq!(offsets, [10, 11, 12, 13, 14]);
    assert_eq!(entries[0].physical_offset, at[60].physical_offset);
    assert!(directory.queue_entries("a", 9, 0, 5, apache_rule).unwrap().is_empty());
}

#[test]
fn a_directory_in_use_is_looked_at_but_not_verified_or_cut() {
    let disk = Arc::new(SimulatedDisk::new());
    fill(&disk, true);
    let (_store, _) = open(&disk, &config());
    assert!(look(&disk).inspect().unwrap().is_in_use);
    let refused = verify(&look(&disk), apache_rule, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }));
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let refused = cut(Path::new(ROOT), &shared, Default::default(), None, &ManualClock::at_ms(1));
    assert!(matches!(refused, Err(StoreError::InUse { .. })));
    // And whoever looks keeps a broker from starting meanwhile.
    drop(_store);
    let looking = look(&disk);
    assert!(matches!(try_open(&disk, &config()), Err(StoreError::InUse { .. })));
    drop(looking);
    open(&disk, &config());
}

#[test]
fn every_damaged_range_is_listed_and_what_lies_behind_is_still_proved() {
    let disk = Arc::new(SimulatedDisk::new());
    let at = fill(&disk, true);
    let (first, second) = (&at[10], &at[130]);
    for bad in [first, second] {
        let start = bad.physical_offset - bad.physical_offset % SEGMENT_BYTES;
        flip(&disk, &segment(start), bad.physical_offset - start + 300, 4);
    }
    let report = verified(&disk);
    assert_eq!((report.is_sound, report.records), (false, 218));
    let of = |kind| report.findings.iter().filter(move |finding| finding.kind == kind);
    let ranges: Vec<_> = of(FindingKind::Log).map(|finding| (finding.from, finding.to)).collect();
    let range = |at: &Appended| (Some(at.physical_offset), Some(at.end_offset));
    assert_eq!(ranges, [range(first), range(second)]);
    assert_eq!(of(FindingKind::QueueOrder).count(), 2);
    assert_eq!(of(FindingKind::Block).count(), 2);
    assert_eq!(report.findings.len(), 6, "{:?}", report.findings);
    assert_eq!(report.first_log_damage(), Some(first.physical_offset));
}

#[test]
fn a_bit_that_flips_in_any_file_is_never_silent() {
    let files = [
        ("commitlog", 0),
        ("commitlog", 3),
        ("weir/queues", 0),
        ("weir/queues", 3),
        ("weir/keys", 1),
    ];
    let mut random = Random(42);
    for (folder, index) in files {
        for _ in 0..40 {
            let disk = Arc::new(SimulatedDisk::new());
            fill(&disk, true);
            let start = index * SEGMENT_BYTES;
            let path = format!("{ROOT}/{folder}/{start:020}");
            let length = disk.open(Path::new(&path), OpenMode::Read).unwrap().size().unwrap();
            let written = if folder == "commitlog" { 15_000 } else { length };
            let (at, bit) = (random.below(written), random.below(8) as u8);
            flip(&disk, &path, at, bit);
            let report = verified(&disk);
            // Only the padding behind a block's entries, and behind a segment's records, means
            // nothing.
            let shows = !report.is_sound || !report.notes.is_empty();
            assert!(shows || folder == "weir/queues", "{path} byte {at} bit {bit}");
            let config = config();
            if let Ok((store, _)) = try_open(&disk, &config) {
                let mut out = Vec::new();
                let _ = store.read_queue("a", 0, 0, common::EVERYTHING, &mut |_| true, &mut out);
            }
        }
    }
}

#[test]
fn small_files_and_segments_that_are_gone_or_short_are_named() {
    let disk = Arc::new(SimulatedDisk::new());
    fill(&disk, true);
    for name in ["durable-mark", "format.json"] {
        for suffix in ["", ".last"] {
            let path = format!("{ROOT}/weir/{name}{suffix}");
            if disk.open(Path::new(&path), OpenMode::Read).is_ok() {
                flip(&disk, &path, 20, 0);
            }
        }
    }
    disk.remove(Path::new(&segment(SEGMENT_BYTES))).unwrap();
    let last = disk.open(Path::new(&segment(3 * SEGMENT_BYTES)), OpenMode::Write).unwrap();
    last.set_len(5000).unwrap();
    let report = verified(&disk);
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    let count = |kind| kinds.iter().filter(|found| **found == kind).count();
    assert_eq!(count(FindingKind::SmallFile), 2, "{:?}", report.findings);
    assert_eq!(count(FindingKind::MissingSegment), 1, "{:?}", report.findings);
    assert_eq!(look(&disk).inspect().unwrap().segment_bytes, SEGMENT_BYTES);
}

#[test]
fn a_backup_has_a_folder_of_its_own() {
    let disk = Arc::new(SimulatedDisk::new());
    let at = fill(&disk, true);
    let bad = at[130].physical_offset;
    let start = bad - bad % SEGMENT_BYTES;
    flip(&disk, &segment(start), bad - start + 300, 4);
    let report = verified(&disk);
    let plan = plan_cut(&look(&disk), &report).unwrap().unwrap();
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let cut_to = |backup: &str, now| {
        cut(Path::new(ROOT), &shared, plan.clone(), Some(backup.into()), &ManualClock::at_ms(now))
    };
    for inside in [ROOT.to_owned(), format!("{ROOT}/commitlog"), format!("{ROOT}/weir/queues/new")]
    {
        let refused = cut_to(&inside, 1).unwrap_err().to_string();
        assert!(refused.contains("outside of it"), "{refused}");
    }
    assert!(!verified(&disk).is_sound, "nothing was cut");
    // A name alone is a folder where the process is.
    cut_to("backup", 2).unwrap();
    let refused = cut_to("backup", 3).unwrap_err().to_string();
    assert!(refused.contains("is not empty"), "{refused}");
}

#[test]
fn a_cut_says_what_is_lost_keeps_a_copy_and_leaves_a_log_that_opens() {
    let disk = Arc::new(SimulatedDisk::new());
    let at = fill(&disk, true);
    let bad = &at[100];
    let start = bad.physical_offset - bad.physical_offset % SEGMENT_BYTES;
    flip(&disk, &segment(start), bad.physical_offset - start + 300, 4);
    for derived in ["queues", "keys"] {
        disk.remove(Path::new(&format!("{ROOT}/weir/{derived}/{start:020}"))).unwrap();
    }
    let plan = {
        let directory = look(&disk);
        let report = verify(&directory, apache_rule, &mut |_| {}).unwrap();
        plan_cut(&directory, &report).unwrap().unwrap()
    };
    assert_eq!((plan.at, plan.records), (bad.physical_offset, 119));
    assert_eq!(plan.records_by_topic["a"] + plan.records_by_topic["%RETRY%b"], 119);
    let before = disk.crash(0);
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let clock = ManualClock::at_ms(77);
    let done = cut(Path::new(ROOT), &shared, plan.clone(), None, &clock).unwrap();
    assert!(done.backup.ends_with(format!("weir/backup-{:020}-77", plan.at)), "{done:?}");
    // The copy has the bytes that the log had.
    let mut copied = 0;
    for file in disk.list(&done.backup).unwrap() {
        let Ok(position) = file.name.parse::<u64>() else { continue };
        let read = |disk: &SimulatedDisk, path: &Path, from: u64| {
            let mut bytes = vec![0; file.bytes as usize];
            disk.open(path, OpenMode::Read).unwrap().read_at(&mut bytes, from).unwrap();
            bytes
        };
        let start = position - position % SEGMENT_BYTES;
        let original = read(&before, Path::new(&segment(start)), position - start);
        assert_eq!(read(&disk, &done.backup.join(&file.name), 0), original);
        copied += file.bytes;
    }
    assert!(copied >= at[219].end_offset - plan.at - SEGMENT_BYTES);
    // A power cut right after it changes nothing any more.
    let disk = Arc::new(disk.crash(3));
    assert!(verified(&disk).is_sound);
    let (store, report) = open(&disk, &config());
    assert_eq!(report.log_end, plan.at);
    let found: usize = ["a", "%RETRY%b"]
        .iter()
        .flat_map(|topic| (0..3).map(|queue| read_all(&store, topic, queue, 0).len()))
        .sum();
    assert_eq!(found, 100);
    assert_eq!(
        append(&store, &[Message::new("a", 0, "next")]).unwrap()[0].physical_offset,
        plan.at
    );
}

/// Files that lie beside the segments and are none.
fn put_strangers(disk: &SimulatedDisk) {
    for name in ["notes", "00000000000000000123"] {
        let path = format!("{ROOT}/commitlog/{name}");
        let file = disk.open(Path::new(&path), OpenMode::Write).unwrap();
        file.write_all_at(&vec![7; 5 * SEGMENT_BYTES as usize], 0).unwrap();
    }
}

#[test]
fn a_cut_does_not_take_another_file_for_a_segment() {
    let disk = Arc::new(SimulatedDisk::new());
    let at = fill(&disk, true);
    let bad = at[100].physical_offset;
    flip(&disk, &segment(SEGMENT_BYTES), bad - SEGMENT_BYTES + 300, 4);
    let report = verified(&disk);
    let plan = plan_cut(&look(&disk), &report).unwrap().unwrap();
    assert_eq!(plan.at, bad);
    put_strangers(&disk);
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(1)).unwrap();
    let of_stranger = Path::new("/data/commitlog/00000000000000000123");
    let mut bytes = vec![0; 5 * SEGMENT_BYTES as usize];
    disk.open(of_stranger, OpenMode::Read).unwrap().read_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7), "it is as it was");
    disk.remove(of_stranger).unwrap();
    let (_, report) = open(&disk, &config());
    assert_eq!(report.log_end, bad);
}

#[test]
fn a_log_does_not_begin_where_no_segment_can() {
    let disk = Arc::new(SimulatedDisk::new());
    fill(&disk, true);
    disk.remove(Path::new(&segment(0))).unwrap();
    put_strangers(&disk);
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let given_up = accept_missing_start(Path::new(ROOT), &shared).unwrap().unwrap();
    assert_eq!(given_up.range, 0..SEGMENT_BYTES);
}

fn planned(disk: &Arc<SimulatedDisk>) -> Option<CutPlan> {
    let report = verified(disk);
    plan_cut(&look(disk), &report).unwrap()
}

#[test]
fn bytes_behind_a_full_segment_are_taken_away_and_nothing_else() {
    for (start, excess, close) in [(0, 1, true), (3, 1, true), (3, 5000, false), (1, 1 << 20, true)]
    {
        let disk = Arc::new(SimulatedDisk::new());
        let at = fill(&disk, close);
        let path = segment(start * SEGMENT_BYTES);
        let file = disk.open(Path::new(&path), OpenMode::Write).unwrap();
        file.write_all_at(&vec![7; excess as usize], SEGMENT_BYTES).unwrap();
        let refused = try_open(&disk, &config()).err().unwrap().to_string();
        assert!(refused.contains(&path) && refused.contains("repair --cut-at-damage"), "{refused}");
        let report = verified(&disk);
        assert!(!report.is_sound && report.records == 220, "{report:?}");
        let plan = plan_cut(&look(&disk), &report).unwrap().unwrap();
        let gone: Vec<_> = plan.excess.iter().map(|excess| excess.bytes).collect();
        assert_eq!((plan.cuts_log, plan.records, &gone[..]), (false, 0, &[excess][..]));
        let shared = Arc::clone(&disk) as Arc<dyn Disk>;
        let cut = cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(1)).unwrap();
        let copied = disk.list(&cut.backup).unwrap().into_iter().filter(|file| {
            file.name == format!("{:020}.excess", start * SEGMENT_BYTES) && file.bytes == excess
        });
        assert_eq!(copied.count(), 1);
        let disk = Arc::new(disk.crash(3));
        assert!(verified(&disk).is_sound);
        let (_, report) = open(&disk, &config());
        assert_eq!((report.log_end, report.cut_bytes), (at[219].end_offset, 0));
    }
}

#[test]
fn what_is_too_much_and_what_is_damaged_go_together() {
    let disk = Arc::new(SimulatedDisk::new());
    let at = fill(&disk, true);
    let bad = at[100].physical_offset;
    flip(&disk, &segment(SEGMENT_BYTES), bad - SEGMENT_BYTES + 300, 4);
    for start in [0, 3] {
        let path = segment(start * SEGMENT_BYTES);
        let file = disk.open(Path::new(&path), OpenMode::Write).unwrap();
        file.write_all_at(&[7; 100], SEGMENT_BYTES).unwrap();
    }
    let plan = planned(&disk).unwrap();
    assert_eq!((plan.at, plan.cuts_log, plan.excess.len()), (bad, true, 2));
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    let cut = cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(1)).unwrap();
    let copies = disk.list(&cut.backup).unwrap();
    assert_eq!(copies.iter().filter(|file| file.name.ends_with(".excess")).count(), 2);
    let (_, report) = open(&disk, &config());
    assert_eq!(report.log_end, bad);
}

/// Damages both versions of the durable mark.
fn spoil_mark(disk: &SimulatedDisk) {
    for name in ["durable-mark", "durable-mark.last"] {
        flip(disk, &format!("{ROOT}/weir/{name}"), 20, 1);
    }
}

#[test]
fn a_damaged_mark_refuses_the_open_and_is_written_anew_when_asked() {
    for close in [true, false] {
        let disk = Arc::new(SimulatedDisk::new());
        let at = fill(&disk, close);
        spoil_mark(&disk);
        let refused = try_open(&disk, &config()).err().unwrap().to_string();
        assert!(
            refused.contains("weir/durable-mark") && refused.contains("repair --cut-at-damage"),
            "{refused}"
        );
        let report = verified(&disk);
        assert!(!report.is_sound && report.records == 220, "{report:?}");
        let plan = plan_cut(&look(&disk), &report).unwrap().unwrap();
        let end = at[219].end_offset;
        assert_eq!((plan.cuts_log, plan.renews_mark, plan.at), (false, true, end));
        let shared = Arc::clone(&disk) as Arc<dyn Disk>;
        let cut = cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(1)).unwrap();
        assert!(disk.list(&cut.backup).unwrap().iter().any(|file| file.name == "durable-mark"));
        let disk = Arc::new(disk.crash(3));
        assert!(verified(&disk).is_sound);
        let (store, report) = open(&disk, &config());
        assert_eq!((report.log_end, report.cut_bytes), (end, 0));
        assert!(store.lost().unwrap().is_some(), "the log may have ended later");
    }
}

#[test]
fn damage_in_a_log_whose_mark_is_damaged_is_no_torn_tail() {
    for close in [true, false] {
        for step in (0..80).chain([1000]) {
            let disk = Arc::new(SimulatedDisk::new());
            let at = fill(&disk, close);
            spoil_mark(&disk);
            // So near to the end that it could have been unflushed.
            let bad = at[200].physical_offset;
            let start = bad - bad % SEGMENT_BYTES;
            flip(&disk, &segment(start), bad - start + 300, 4);
            let plan = planned(&disk).unwrap();
            assert_eq!((plan.at, plan.records, plan.cuts_log), (bad, 19, true));
            let shared = Arc::clone(&disk) as Arc<dyn Disk>;
            disk.fail_after(step);
            let done = cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(1));
            let disk = Arc::new(disk.crash(step));
            match planned(&disk) {
                Some(plan) => {
                    assert!(done.is_err(), "step {step}");
                    assert!(try_open(&Arc::new(disk.crash(0)), &config()).is_err(), "step {step}");
                    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
                    cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(2)).unwrap();
                }
                None => assert!(step > 10),
            }
            let (_, report) = open(&disk, &config());
            assert_eq!(report.log_end, bad, "step {step}");
        }
    }
}

#[test]
fn a_cut_that_a_crash_ends_anywhere_is_done_or_can_be_repeated() {
    for step in 0..60 {
        let disk = Arc::new(SimulatedDisk::new());
        let at = fill(&disk, true);
        let bad = &at[70].physical_offset;
        flip(&disk, &segment(SEGMENT_BYTES), bad - SEGMENT_BYTES + 300, 4);
        let directory = look(&disk);
        let report = verify(&directory, apache_rule, &mut |_| {}).unwrap();
        let plan = plan_cut(&directory, &report).unwrap().unwrap();
        drop(directory);
        disk.fail_after(step);
        let shared = Arc::clone(&disk) as Arc<dyn Disk>;
        let done = cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(1));
        let disk = Arc::new(disk.crash(step));
        let directory = look(&disk);
        let report = verify(&directory, apache_rule, &mut |_| {}).unwrap();
        if done.is_ok() {
            assert!(report.is_sound, "step {step}: {:?}", report.findings);
        }
        let again = plan_cut(&directory, &report).unwrap();
        drop(directory);
        if let Some(plan) = again {
            assert_eq!(plan.at, *bad, "step {step}");
            let shared = Arc::clone(&disk) as Arc<dyn Disk>;
            cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(2)).unwrap();
        }
        let (_, report) = open(&disk, &config());
        assert_eq!(report.log_end, *bad, "step {step}");
    }
}

#[test]
fn damage_at_the_very_beginning_can_be_cut_too() {
    let disk = Arc::new(SimulatedDisk::new());
    fill(&disk, true);
    flip(&disk, &segment(0), 300, 4);
    let directory = look(&disk);
    let report = verify(&directory, apache_rule, &mut |_| {}).unwrap();
    let plan = plan_cut(&directory, &report).unwrap().unwrap();
    drop(directory);
    let shared = Arc::clone(&disk) as Arc<dyn Disk>;
    cut(Path::new(ROOT), &shared, plan, None, &ManualClock::at_ms(1)).unwrap();
    let (store, report) = open(&disk, &config());
    assert_eq!(report.log_end, 0);
    append(&store, &[Message::new("a", 0, "next")]).unwrap();
}

#[test]
fn exported_queues_begin_and_end_as_apache_has_them() {
    let disk = Arc::new(SimulatedDisk::new());
    let at = fill(&disk, true);
    let report = export_queues(&look(&disk), apache_rule, Path::new("/out"), &*disk).unwrap();
    assert_eq!((report.topics, report.queues, report.entries, report.files), (2, 6, 220, 6));
    let path = Path::new("/out/consumequeue/%RETRY%b/1/00000000000000000000");
    let file = disk.open(path, OpenMode::Read).unwrap();
    assert_eq!(file.size().unwrap(), 6_000_000);
    let mut unit = [0; 20];
    file.read_at(&mut unit, 20).unwrap();
    assert_eq!(unit[..8], at[7].physical_offset.to_be_bytes());
    let again = export_queues(&look(&disk), apache_rule, Path::new("/out"), &*disk).unwrap_err();
    assert!(again.to_string().contains("is there already"), "{again}");
}

#[test]
fn queues_are_not_exported_where_a_file_of_the_log_is_gone() {
    for index in 0..4 {
        let disk = Arc::new(SimulatedDisk::new());
        let at = fill(&disk, true);
        let end = at[219].end_offset;
        disk.remove(Path::new(&segment(index * SEGMENT_BYTES))).unwrap();
        for to in [ROOT, "/out"] {
            let refused = export_queues(&look(&disk), apache_rule, Path::new(to), &*disk);
            let Err(StoreError::Damaged { from, to, .. }) = refused else { panic!("{refused:?}") };
            let first_missing = index * SEGMENT_BYTES;
            assert_eq!(from, first_missing);
            assert!(to == end || to == SEGMENT_BYTES && index == 0, "{to}");
        }
        assert!(
            !verified(&disk).is_sound,
            "the directory has no queues of Apache's, which outweigh our marks"
        );
    }
}

#[test]
fn a_queue_whose_messages_have_expired_is_exported_with_its_next_offset() {
    let disk = Arc::new(SimulatedDisk::new());
    let mut expiring = config();
    expiring.upkeep.retention = std::time::Duration::from_millis(500);
    let clock = Arc::new(ManualClock::at_ms(1_000));
    let opened = Store::open(expiring, disk.clone(), clock.clone());
    let store = opened.unwrap().0;
    for n in 0..4 {
        append(&store, &[Message::new("early", 2, format!("{n}"))]).unwrap();
    }
    for _ in 0..200 {
        append(&store, &[Message::new("a", 0, vec![1; 900])]).unwrap();
    }
    store.flush().unwrap();
    clock.advance_ms(1_000);
    append(&store, &[Message::new("a", 0, "late")]).unwrap();
    store.protect_from(u64::MAX);
    store.maintain().unwrap();
    let start = store.min_offset();
    assert!(start > 0);
    let of_a = store.queue_range("a", 0);
    store.close().unwrap();

    let report = export_queues(&look(&disk), apache_rule, Path::new(ROOT), &*disk).unwrap();
    assert_eq!((report.topics, report.queues, report.empty_queues, report.files), (2, 2, 1, 2));
    let path = Path::new("/data/consumequeue/early/2/00000000000000000000");
    let file = disk.open(path, OpenMode::Read).unwrap();
    let unit = |index: u64| {
        let mut unit = [0; 20];
        file.read_at(&mut unit, index * 20).unwrap();
        let (position, rest) = unit.split_first_chunk::<8>().unwrap();
        (u64::from_be_bytes(*position), i32::from_be_bytes(*rest.first_chunk().unwrap()))
    };
    assert_eq!([unit(0), unit(2)], [(0, i32::MAX); 2], "Apache's filler");
    assert_eq!(unit(3), (start - 1, 1), "in front of the log, and ends where it begins");
    assert_eq!(unit(4), (0, 0));

    // What Apache leaves looks the same to us.
    let (store, report) = open(&disk, &config());
    assert!(report.apache.is_some());
    assert_eq!(store.queue_range("early", 2), Some(QueueRange { min: 4, max: 4 }));
    assert_eq!(store.queue_range("a", 0), of_a);
}
