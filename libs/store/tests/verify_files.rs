//! What a verification says about the files beside the log.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Message, append, flip, open, small_config, try_open, verified};
use weirmq_store::offline::{FindingKind, LogRange, begin_at, truncate};
use weirmq_store::{Appended, Disk, FlushMode, OpenMode, SimulatedDisk, StoreConfig};

const ROOT: &str = "/data";
const SEGMENT_BYTES: u64 = 64 << 10;
const BLOCK_BYTES: u64 = 16 << 10;

fn config() -> StoreConfig {
    StoreConfig { unflushed_bytes_max: Some(80 << 10), ..small_config(FlushMode::ASYNC) }
}

/// Three and a half segments, closed twice, with two small files of the store's user.
fn filled() -> (Arc<SimulatedDisk>, Vec<Appended>) {
    let disk = Arc::new(SimulatedDisk::new());
    let mut at = Vec::new();
    for _ in 0..2 {
        let (store, _) = open(&disk, &config());
        for n in 0..110u8 {
            let message = Message::new("t", 0, vec![n | 1; 900]).with("KEYS", "k");
            at.extend(append(&store, &[message]).unwrap());
        }
        store.scrub().unwrap();
        for version in [b"one", b"two"] {
            store.write_small_file("notes", version).unwrap();
            store.write_small_file("notes-of-a-user", version).unwrap();
        }
        store.close().unwrap();
    }
    (disk, at)
}

fn is_there(disk: &SimulatedDisk, path: &str) -> bool {
    disk.open(Path::new(path), OpenMode::Read).is_ok()
}

#[test]
fn every_small_file_that_is_not_whole_is_named() {
    let (disk, _) = filled();
    assert!(verified(&disk).is_sound);
    let names = ["format.json", "durable-mark", "log-start", "scrub", "user/notes-of-a-user"];
    for name in names {
        let path = format!("{ROOT}/weir/{name}");
        let spoilt = Arc::new(disk.crash(0));
        flip(&spoilt, &path, 20, 2);
        let report = verified(&spoilt);
        let of_file = |kind: FindingKind, found: &Path| {
            kind == FindingKind::SmallFile && found.ends_with(name)
        };
        let found = report.findings.iter().filter(|finding| of_file(finding.kind, &finding.path));
        assert_eq!(found.count(), 1, "{name}: {:?}", report.findings);
        assert_eq!(report.findings.len(), 1, "{name}: {:?}", report.findings);

        // The version before one that is whole.
        let last = format!("{path}.last");
        let spoilt = Arc::new(disk.crash(0));
        if is_there(&spoilt, &last) {
            flip(&spoilt, &last, 20, 2);
            let report = verified(&spoilt);
            assert!(report.is_sound, "{name}: {:?}", report.findings);
            assert!(report.notes.iter().any(|note| note.contains(&last)), "{:?}", report.notes);
        }
    }
}

#[test]
fn a_log_start_that_is_gone_is_named_until_the_next_open_notes_it_again() {
    let (disk, _) = filled();
    disk.remove(Path::new("/data/weir/log-start")).unwrap();
    let report = verified(&disk);
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.kind, FindingKind::SmallFile);
    assert!(finding.path.ends_with("weir/log-start"), "{finding:?}");
    // Then nobody can say that the first segment is missing.
    disk.remove(Path::new("/data/commitlog/00000000000000000000")).unwrap();
    let report = verified(&disk);
    assert!(report.findings.iter().all(|found| found.kind != FindingKind::MissingStart));
    assert!(!report.is_sound);
    open(&disk, &config()).0.close().unwrap();
    assert!(verified(&disk).is_sound);
    // Not after a crash between the two renames of a replacement.
    disk.rename(Path::new("/data/weir/log-start"), Path::new("/data/weir/log-start.last")).unwrap();
    let report = verified(&disk);
    assert!(report.is_sound && report.notes[0].contains("was being replaced"), "{report:?}");
}

#[test]
fn blocks_without_a_checksum_are_counted_and_named() {
    let (disk, at) = filled();
    let end = at[219].end_offset;
    let report = verified(&disk);
    assert_eq!((report.blocks_without_checksum, &report.without_checksum[..]), (0, &[][..]));

    // The sums of a segment are gone; those of another are in a group that rots.
    let disk = Arc::new(disk.crash(0));
    disk.remove(Path::new("/data/weir/blocks/00000000000000000000")).unwrap();
    flip(&disk, &format!("/data/weir/blocks/{:020}", 3 * SEGMENT_BYTES), 100, 2);
    let report = verified(&disk);
    assert!(report.is_sound, "{:?}", report.findings);
    let last = end - 3 * SEGMENT_BYTES;
    let segment_end = at.iter().rfind(|at| at.end_offset <= SEGMENT_BYTES).unwrap().end_offset + 8;
    let expected =
        [LogRange { from: 0, to: segment_end }, LogRange { from: 3 * SEGMENT_BYTES, to: end }];
    assert_eq!(report.without_checksum, expected);
    assert_eq!(report.blocks_without_checksum, 4 + last.div_ceil(BLOCK_BYTES));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["withoutChecksum"][0]["to"], segment_end);
    assert_eq!(json["blocksWithoutChecksum"], report.blocks_without_checksum);

    // The scrub gives them one, but for the block that still fills up.
    let (store, _) = open(&disk, &config());
    store.scrub().unwrap();
    store.close().unwrap();
    assert_eq!(verified(&disk).without_checksum, []);
}

#[test]
fn damage_that_is_known_and_holds_again_is_said() {
    let (disk, at) = filled();
    let path = "/data/commitlog/00000000000000000000";
    flip(&disk, path, at[3].physical_offset + 200, 2);
    let (store, _) = open(&disk, &config());
    store.scrub().unwrap();
    assert_eq!(store.damaged().len(), 1);
    store.close().unwrap();
    let report = verified(&disk);
    assert!(!report.is_sound && report.notes.is_empty(), "{report:?}");
    flip(&disk, path, at[3].physical_offset + 200, 2);
    let report = verified(&disk);
    assert!(
        report.is_sound && report.notes[0].contains("0 to 16384 was found damaged"),
        "{report:?}"
    );
}

#[test]
fn a_cut_that_was_begun_is_foretold() {
    let (disk, at) = filled();
    let cut_at = at[100].physical_offset;
    let store_id = uuid::Uuid::from_u128(7);
    for is_new_beginning in [false, true] {
        let mut begun = 0;
        for step in 0..40 {
            let disk = Arc::new(disk.crash(0));
            disk.fail_after(step);
            let shared = Arc::clone(&disk) as Arc<dyn Disk>;
            let cut = match is_new_beginning {
                true => begin_at(Path::new(ROOT), &shared, 8 * SEGMENT_BYTES, store_id, &[]),
                false => truncate(Path::new(ROOT), &shared, cut_at, &[]),
            };
            let disk = Arc::new(disk.crash(step));
            let report = verified(&disk);
            let (_, recovered) = try_open(&disk, &config()).unwrap();
            assert!(report.is_sound, "step {step}: {report:?}");
            assert_eq!(report.log_end, recovered.log_end, "step {step}: {report:?}");
            let is_said =
                report.notes.iter().any(|note| note.contains("the next open finishes that"));
            begun += u32::from(is_said);
            assert!(cut.is_err() || !is_said, "step {step}: {report:?}");
        }
        assert!(begun > 3, "only {begun} steps left a cut that was begun");
    }
}
