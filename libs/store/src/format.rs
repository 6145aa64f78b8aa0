//! What the directory of a store looks like, and which store it is.
//!
//! | path | contents |
//! |---|---|
//! | `lock` | held while a process uses the directory |
//! | `abort` | there while the store is open: present at open = it did not end cleanly |
//! | `checkpoint` | Apache's, see [`crate::checkpoint`]; there only while the store is closed |
//! | `commitlog/<20 digits>` | segments, all of `segment_bytes` |
//! | `weir/format.json` | [`Format`] |
//! | `weir/durable-mark` | how far the log is known to be on disk |
//! | `weir/log-start` | where the log begins |
//! | `weir/queue-state` | counters of empty queues, forgotten topics |
//! | `weir/clock` | what time it was, and what of the clock does not count yet |
//! | `weir/aside/` | what Apache derived, until it is removed |
//! | `weir/user/<name>` | small files of the store's user |
//! | `weir/queues/<20 digits>` | ConsumeQueue entries of the segment of that name |
//! | `weir/keys/<20 digits>` | key index of the segment of that name |
//! | `weir/spare/<20 digits>` | expired segments that wait for their next life |
//! | `weir/blocks/<20 digits>` | checksums of the blocks of the segment of that name |
//! | `weir/scrub` | how far the scrub is, and what it found |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::{StoreConfig, is_segment_length};
use crate::disk::{Disk, Listed};
use crate::error::StoreError;
use crate::small_file;

/// Length and magic of padding, for which each record leaves room in its segment.
pub(crate) const PADDING_HEAD_BYTES: u64 = 8;

/// The version that this program writes.
const FORMAT_VERSION: u32 = 1;

/// Where the parts of a store lie.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) commit_log: PathBuf,
    pub(crate) weir: PathBuf,
    pub(crate) queues: PathBuf,
    pub(crate) keys: PathBuf,
    pub(crate) blocks: PathBuf,
    pub(crate) user: PathBuf,
    pub(crate) spare: PathBuf,
    pub(crate) aside: PathBuf,
}

impl Layout {
    pub(crate) fn under(root: &Path) -> Self {
        let weir = root.join("weir");
        Self {
            root: root.to_path_buf(),
            commit_log: root.join("commitlog"),
            queues: weir.join("queues"),
            keys: weir.join("keys"),
            blocks: weir.join("blocks"),
            user: weir.join("user"),
            spare: weir.join("spare"),
            aside: weir.join("aside"),
            weir,
        }
    }

    /// Everything below the root, parents first.
    pub(crate) fn directories(&self) -> [&Path; 8] {
        [
            &self.commit_log,
            &self.weir,
            &self.queues,
            &self.keys,
            &self.blocks,
            &self.user,
            &self.spare,
            &self.aside,
        ]
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn abort(&self) -> PathBuf {
        self.root.join("abort")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint")
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.weir.join("format.json")
    }

    pub(crate) fn durable_mark(&self) -> PathBuf {
        self.weir.join("durable-mark")
    }

    pub(crate) fn cut(&self) -> PathBuf {
        self.weir.join("cut")
    }

    pub(crate) fn log_start(&self) -> PathBuf {
        self.weir.join("log-start")
    }

    pub(crate) fn clock(&self) -> PathBuf {
        self.weir.join("clock")
    }

    pub(crate) fn scrub(&self) -> PathBuf {
        self.weir.join("scrub")
    }

    pub(crate) fn queue_state(&self) -> PathBuf {
        self.weir.join("queue-state")
    }
}

/// The name of a file that begins at `offset` of the log.
pub(crate) fn file_name(offset: u64) -> String {
    format!("{offset:020}")
}

/// The offset that a file's name says. `None` for other names.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let is_offset = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_offset.then(|| name.parse().ok()).flatten()
}

/// Who a store is: `weir/format.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Format {
    pub version: u32,
    pub store_id: Uuid,
    pub cluster: String,
    /// The broker name.
    pub group: String,
    pub segment_bytes: u64,
}

/// Only the field that says whether the others can be understood.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Format {
    /// Reads the file and compares it with the configuration; a directory without one gets one.
    pub(crate) fn open(
        disk: &dyn Disk,
        layout: &Layout,
        config: &StoreConfig,
    ) -> Result<Self, StoreError> {
        let path = layout.format();
        let Some(format) = Self::read(disk, layout)? else {
            let format = Self {
                version: FORMAT_VERSION,
                store_id: Uuid::new_v4(),
                cluster: config.cluster.clone(),
                group: config.group.clone(),
                segment_bytes: found_segment_bytes(disk, layout)?.unwrap_or(config.segment_bytes),
            };
            small_file::write_json(disk, &path, &format)?;
            return Ok(format);
        };
        format.compare(&path, config)?;
        Ok(format)
    }

    /// Reads the file; `None` when nobody wrote one.
    pub(crate) fn read(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, StoreError> {
        let path = layout.format();
        let Some(text) = small_file::read(disk, &path)? else { return Ok(None) };
        let unreadable = |error: serde_json::Error| StoreError::Unreadable {
            path: path.clone(),
            reason: error.to_string(),
        };
        let Version { version } = serde_json::from_slice(&text).map_err(unreadable)?;
        if version > FORMAT_VERSION {
            return Err(StoreError::NewerFormat { path, found: version, known: FORMAT_VERSION });
        }
        serde_json::from_slice(&text).map(Some).map_err(unreadable)
    }

    /// A directory belongs to one broker; the length of its segments is its own affair.
    fn compare(&self, path: &Path, config: &StoreConfig) -> Result<(), StoreError> {
        let fields = [
            ("cluster", self.cluster.clone(), config.cluster.clone()),
            ("group", self.group.clone(), config.group.clone()),
        ];
        for (field, found, expected) in fields {
            if found != expected {
                let path = path.to_path_buf();
                return Err(StoreError::OtherStore { path, field, found, expected });
            }
        }
        Ok(())
    }
}

/// The length of the segments in a directory that somebody else made; `None` when it has none.
/// Nobody has configured it, so a length that cannot be is told with the file.
fn found_segment_bytes(disk: &dyn Disk, layout: &Layout) -> Result<Option<u64>, StoreError> {
    let directory = &layout.commit_log;
    let files = disk.list(directory).map_err(StoreError::io("list", directory))?;
    // Apache removes a newest one of no length as well (MappedFileQueue.doLoad).
    let mut lengths = files.iter().filter(|file| parse_file_name(&file.name).is_some());
    let Some(Listed { name, bytes: first, .. }) = lengths.next().filter(|file| file.bytes > 0)
    else {
        return Ok(None);
    };
    let first = *first;
    if !is_segment_length(first) {
        return Err(StoreError::Unreadable {
            path: directory.join(name),
            reason: format!(
                "is {first} bytes long, and so no whole segment (mappedFileSizeCommitLog), which has \
                 a multiple of 4096 from 4096 to 4294967296 bytes; restore it, or move it away, or have \
                 `weir store repair --cut-at-damage` take away what is too much"
            ),
        });
    }
    match lengths.find(|file| file.bytes != first && file.bytes > 0) {
        None => Ok(Some(first)),
        Some(other) => Err(StoreError::Unreadable {
            path: directory.join(&other.name),
            reason: format!(
                "is {} bytes long, the segments before have {first}; put the whole file back, or have \
                 `weir store repair --cut-at-damage` give up what is missing, or take away what is too much",
                other.bytes
            ),
        }),
    }
}

/// How long the segments of a directory are: as `weir/format.json` says, or where that is not there or
/// says nothing, as the files do. `None`: nobody says it.
pub(crate) fn known_segment_bytes(
    disk: &dyn Disk,
    layout: &Layout,
) -> Result<Option<u64>, StoreError> {
    let said = match Format::read(disk, layout) {
        Ok(format) => format.map(|format| format.segment_bytes),
        Err(StoreError::Unreadable { .. }) => None,
        Err(error) => return Err(error),
    };
    if let Some(bytes) = said.filter(|bytes| is_segment_length(*bytes)) {
        return Ok(Some(bytes));
    }
    let directory = &layout.commit_log;
    let files = disk.list(directory).map_err(StoreError::io("list", directory))?;
    Ok(segment_bytes_of(&files))
}

/// The length that segments have by their files: of those that a file with a segment's name has, the one
/// at whose multiples most of them begin, then the one that most have, then the longest.
pub(crate) fn segment_bytes_of(files: &[Listed]) -> Option<u64> {
    let segments: Vec<(u64, u64)> =
        files.iter().filter_map(|file| Some((parse_file_name(&file.name)?, file.bytes))).collect();
    let mut counts = BTreeMap::<u64, usize>::new();
    for (_, bytes) in segments.iter().filter(|(_, bytes)| is_segment_length(*bytes)) {
        *counts.entry(*bytes).or_default() += 1;
    }
    let begin_there =
        |bytes: u64| segments.iter().filter(|(start, _)| start.is_multiple_of(bytes)).count();
    let best =
        counts.into_iter().max_by_key(|(bytes, count)| (begin_there(*bytes), *count, *bytes));
    best.map(|(bytes, _)| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    #[test]
    fn most_segments_say_how_long_they_are() {
        const KIB: u64 = 1024;
        let of = |files: &[(u64, u64)]| {
            let listed = |&(start, bytes): &(u64, u64)| {
                let name = file_name(start);
                Listed { name, bytes, inode: start }
            };
            let mut files: Vec<Listed> = files.iter().map(listed).collect();
            files.push(Listed { name: "notes".to_owned(), bytes: 1 << 20, inode: 9 });
            segment_bytes_of(&files)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(0, 5000)]), None);
        assert_eq!(of(&[(0, 8 * KIB), (8 * KIB, 4 * KIB)]), Some(8 * KIB), "the newest is short");
        assert_eq!(of(&[(0, 16 * KIB), (8 * KIB, 8 * KIB)]), Some(8 * KIB), "the first is long");
        assert_eq!(of(&[(0, 8 * KIB + 1), (8 * KIB, 8 * KIB)]), Some(8 * KIB));
        assert_eq!(of(&[(0, 8 * KIB), (24 * KIB, 8 * KIB)]), Some(8 * KIB), "one is gone");
        assert_eq!(of(&[(0, 8 * KIB), (123, 64 * KIB), (8 * KIB, 8 * KIB)]), Some(8 * KIB));
    }

    #[test]
    fn only_twenty_digits_are_an_offset() {
        assert_eq!(file_name(1 << 30), "00000000001073741824");
        assert_eq!(parse_file_name("00000000001073741824"), Some(1 << 30));
        for name in [
            "",
            "1073741824",
            "0000000000107374182x",
            "99999999999999999999",
            "+0000000001073741824",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_newer_format_and_another_store_are_refused_by_name() {
        let disk = SimulatedDisk::new();
        let layout = Layout::under(Path::new("/data"));
        layout.directories().iter().for_each(|path| disk.create_directory(path).unwrap());
        let config = StoreConfig::default();
        let format = Format::open(&disk, &layout, &config).unwrap();
        assert_eq!(Format::open(&disk, &layout, &config).unwrap(), format);

        let other = StoreConfig { group: "broker-b".to_owned(), ..config.clone() };
        let refused = Format::open(&disk, &layout, &other).unwrap_err().to_string();
        assert!(
            refused.contains("group is broker-a") && refused.contains("format.json"),
            "{refused}"
        );

        let newer = serde_json::json!({ "version": 2, "somethingNew": true });
        small_file::write_json(&disk, &layout.format(), &newer).unwrap();
        let refused = Format::open(&disk, &layout, &config).unwrap_err();
        assert!(matches!(refused, StoreError::NewerFormat { found: 2, known: 1, .. }), "{refused}");
    }
    #[test]
    fn a_first_segment_of_a_length_that_cannot_be_is_named_and_nothing_remembers_it() {
        let disk = SimulatedDisk::new();
        let layout = Layout::under(Path::new("/data"));
        layout.directories().iter().for_each(|path| disk.create_directory(path).unwrap());
        let path = layout.commit_log.join(file_name(0));
        let file = disk.open(&path, crate::disk::OpenMode::Write).unwrap();
        file.set_len(5000).unwrap();
        let config = StoreConfig::default();
        let refused = Format::open(&disk, &layout, &config).unwrap_err().to_string();
        assert!(refused.contains("commitlog/0") && refused.contains("5000"), "{refused}");
        file.set_len(8192).unwrap();
        assert_eq!(Format::open(&disk, &layout, &config).unwrap().segment_bytes, 8192);
    }
}
