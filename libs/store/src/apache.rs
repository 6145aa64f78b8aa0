//! What Apache's broker keeps beside the log, and what that tells about queues.
//!
//! Its ConsumeQueue and index are derived from the log, as ours are. They are read once, for what
//! the log alone does not say, and then put aside: whatever we append or expire would make them
//! wrong, and Apache derives them again when it finds none. So wherever one of them stands,
//! Apache has used the directory since we last did.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};
use crate::error::StoreError;
use crate::format::{Layout, parse_file_name};
use crate::queue_table::{QueueState, QueueTable};
use crate::recover::ApacheUse;

/// Bytes of a ConsumeQueue unit: physical offset, size, tag hash.
pub(crate) const UNIT_BYTES: u64 = 20;
/// The size that a unit has which only fills a queue's first file up to its first message.
/// Source: `ConsumeQueue.fillPreBlank`.
pub(crate) const FILLER_SIZE: u32 = i32::MAX as u32;
/// What the names of light message queues begin with. Source: `MixAll.LMQ_PREFIX`.
pub(crate) const LIGHT_PREFIX: &str = "%LMQ%";
/// Everything that Apache derives from its log, under the root.
const DERIVED: [&str; 4] = ["consumequeue", "consumequeue_ext", "batchconsumequeue", "index"];
/// Queues in RocksDB, which nothing here can read.
const ROCKS_DB: &str = "consumequeue_rocksdb";

/// What Apache left in a directory that it used last.
#[derive(Debug, Default)]
pub(crate) struct ApacheTraces {
    /// Topic → queue id → what its ConsumeQueue says.
    queues: BTreeMap<String, BTreeMap<i32, QueueBounds>>,
    /// Topics whose queues hold batches.
    batch_topics: BTreeSet<String>,
}

/// The ends of one of Apache's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct QueueBounds {
    /// Position in the log of the first entry; `None` without entries.
    first: Option<u64>,
    /// Queue offset of the first entry.
    first_offset: u64,
    /// Position in the log of the last entry.
    last: Option<u64>,
    /// Queue offset of the next message.
    next: u64,
}

/// Whether Apache's broker was the last to use the directory.
pub(crate) fn was_here(disk: &dyn Disk, layout: &Layout) -> Result<bool, StoreError> {
    Ok(has_derived(&directories(disk, &layout.root)?))
}

fn has_derived(found: &[String]) -> bool {
    found.iter().any(|name| DERIVED.contains(&name.as_str()))
}

impl ApacheTraces {
    /// Reads what there is. `None`: Apache has not used the directory since we did.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] for queues in RocksDB: they alone know the next offsets of queues
    /// whose messages have expired.
    pub(crate) fn read(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, StoreError> {
        let root = &layout.root;
        let found = directories(disk, root)?;
        if found.iter().any(|name| name == ROCKS_DB) {
            return Err(StoreError::Unreadable {
                path: root.join(ROCKS_DB),
                reason: "consume queues in RocksDB are not supported; let Apache's broker write \
                         them as files first (storeType=default)"
                    .to_owned(),
            });
        }
        if !has_derived(&found) {
            return Ok(None);
        }
        let mut traces = Self::default();
        let queues = root.join("consumequeue");
        for topic in directories(disk, &queues)? {
            let path = queues.join(&topic);
            let mut ids = BTreeMap::new();
            for queue in directories(disk, &path)? {
                if let Ok(id) = queue.parse() {
                    ids.insert(id, QueueBounds::read(disk, &path.join(queue))?);
                }
            }
            traces.queues.insert(topic, ids);
        }
        traces.batch_topics.extend(directories(disk, &root.join("batchconsumequeue"))?);
        Ok(Some(traces))
    }

    /// What has no place in our queues.
    pub(crate) fn unserved(&self) -> ApacheUse {
        let light_queues = self.queues.keys().filter(|topic| topic.starts_with(LIGHT_PREFIX));
        ApacheUse {
            light_queues: light_queues.count(),
            batch_topics: self.batch_topics.iter().cloned().collect(),
        }
    }

    /// Notes what the log from `log_start` on will not say by itself: where queues go on whose
    /// messages have all expired, and where topics begin that were deleted and made anew.
    ///
    /// The latter only where Apache's queues say it for sure: after a clean stop (`was_clean`),
    /// before which it has written them, and if they reach back into the log's first segment, which
    /// ends at `first_segment_end`. Newer versions derive from the newest segments only, and a
    /// topic may have its older messages in other queues. Elsewhere each queue begins anew by
    /// itself where its offsets do. What a queue knows behind the log's end is no beginning.
    pub(crate) fn complete(
        &self,
        Range { start: log_start, end: log_end }: Range<u64>,
        first_segment_end: u64,
        was_clean: bool,
        state: &mut QueueState,
    ) {
        let is_whole =
            was_clean && self.derived_from().is_some_and(|from| from < first_segment_end);
        let own = self.queues.iter().filter(|(topic, _)| !topic.starts_with(LIGHT_PREFIX));
        for (topic, queues) in own {
            let expired = queues.iter().filter(|(_, bounds)| {
                bounds.next > 0 && bounds.last.is_none_or(|last| last < log_start)
            });
            let expired: BTreeMap<_, _> = expired.map(|(id, bounds)| (*id, bounds.next)).collect();
            state.next_offsets.remove(topic);
            if !expired.is_empty() {
                state.next_offsets.insert(topic.clone(), expired);
            }
            state.forgotten_before.remove(topic);
            state.deletions.remove(topic);
            // A queue that does not begin at 0 has lost its first messages to expiry: the topic's
            // life began before the log does.
            let has_begun_anew = queues.values().all(|b| b.first.is_none() || b.first_offset == 0);
            let first = queues.values().filter_map(|bounds| bounds.first).min();
            let is_beginning = |first: &u64| {
                (log_start + 1..log_end).contains(first) && has_begun_anew && is_whole
            };
            if let Some(first) = first.filter(is_beginning) {
                state.forgotten_before.insert(topic.clone(), first);
            }
        }
    }

    /// Position of the first entry of any queue. `None`: somebody removed them, to have them derived
    /// again.
    fn derived_from(&self) -> Option<u64> {
        let all = self.queues.values().flat_map(|queues| queues.values());
        all.filter_map(|bounds| bounds.first).min()
    }

    /// Topics that have records in a log which ends at `log_end`, but no queues of Apache's, are
    /// deleted ones. Holds only after a clean stop, before which Apache has derived everything, and
    /// only from the first entry of any queue on: newer versions derive from the newest segments.
    /// Topics with a dot in their names are none of Apache's.
    pub(crate) fn forget_deleted(
        &self,
        log_end: u64,
        queues: &QueueTable,
        state: &mut QueueState,
    ) -> Result<(), StoreError> {
        let Some(derived_from) = self.derived_from() else { return Ok(()) };
        let mut begins: BTreeMap<String, u64> = BTreeMap::new();
        for queue in queues.all() {
            let topic = &*queue.topic;
            let is_known = self.queues.contains_key(topic) || self.batch_topics.contains(topic);
            if is_known || topic.contains('.') {
                continue;
            }
            let mut first = Vec::with_capacity(1);
            queue.entries(queue.range(log_end).min, 1, &mut first)?;
            let begin = first.first().map_or(log_end, |(_, entry)| entry.physical_offset);
            let earliest = begins.entry(topic.to_owned()).or_insert(begin);
            *earliest = begin.min(*earliest);
        }
        for (topic, _) in begins.into_iter().filter(|(_, begin)| *begin >= derived_from) {
            tracing::info!(topic, "topic was deleted by Apache's broker");
            queues.remove_topic(&topic);
            state.next_offsets.remove(&topic);
            state.forgotten_before.insert(topic, log_end);
        }
        Ok(())
    }
}

impl QueueBounds {
    /// Reads a queue's directory: files of equal length, named by the queue's bytes before them.
    fn read(disk: &dyn Disk, directory: &Path) -> Result<Self, StoreError> {
        let files = disk.list(directory).map_err(StoreError::io("list", directory))?;
        let mut bounds = Self { first: None, first_offset: 0, last: None, next: 0 };
        for file in &files {
            let Some(start) = parse_file_name(&file.name) else { continue };
            let path = directory.join(&file.name);
            let units = UnitFile::open(disk, path, file.bytes / UNIT_BYTES)?;
            let used = units.partition_point(|unit| unit.size > 0)?;
            let filler = units.partition_point(|unit| unit.size == FILLER_SIZE)?;
            if used > 0 || bounds.next == 0 {
                bounds.next = start / UNIT_BYTES + used;
            }
            if used > filler {
                if bounds.first.is_none() {
                    bounds.first = Some(units.read(filler)?.physical_offset);
                    bounds.first_offset = start / UNIT_BYTES + filler;
                }
                bounds.last = Some(units.read(used - 1)?.physical_offset);
            }
        }
        Ok(bounds)
    }
}

/// One entry of a queue, or filler.
pub(crate) struct Unit {
    pub(crate) physical_offset: u64,
    pub(crate) size: u32,
}

impl Unit {
    fn decode(bytes: &[u8; UNIT_BYTES as usize]) -> Self {
        let (physical_offset, rest) = bytes.split_first_chunk().expect("8 of 20 bytes");
        let size = rest.first_chunk().expect("4 of 12 bytes");
        Self {
            physical_offset: u64::from_be_bytes(*physical_offset),
            size: u32::from_be_bytes(*size),
        }
    }
}

/// One ConsumeQueue file: filler units, then entries, then zeros.
pub(crate) struct UnitFile {
    file: std::sync::Arc<dyn DiskFile>,
    path: PathBuf,
    pub(crate) units: u64,
}

impl UnitFile {
    pub(crate) fn open(disk: &dyn Disk, path: PathBuf, units: u64) -> Result<Self, StoreError> {
        let file = disk.open(&path, OpenMode::Read).map_err(StoreError::io("open", &path))?;
        Ok(Self { file, path, units })
    }

    pub(crate) fn read(&self, index: u64) -> Result<Unit, StoreError> {
        let mut bytes = [0; UNIT_BYTES as usize];
        read_exact_at(&*self.file, &mut bytes, index * UNIT_BYTES)
            .map_err(StoreError::io("read", &self.path))?;
        Ok(Unit::decode(&bytes))
    }

    /// The units of a range, which lies in the file.
    pub(crate) fn read_many(&self, range: Range<u64>) -> Result<Vec<Unit>, StoreError> {
        let mut bytes = vec![0; ((range.end - range.start) * UNIT_BYTES) as usize];
        read_exact_at(&*self.file, &mut bytes, range.start * UNIT_BYTES)
            .map_err(StoreError::io("read", &self.path))?;
        Ok(bytes.as_chunks().0.iter().map(Unit::decode).collect())
    }

    /// How many units at the beginning fulfil `holds`, which no later one does.
    pub(crate) fn partition_point(&self, holds: impl Fn(&Unit) -> bool) -> Result<u64, StoreError> {
        let (mut low, mut high) = (0, self.units);
        while low < high {
            let middle = low + (high - low) / 2;
            match holds(&self.read(middle)?) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low)
    }
}

/// Moves what Apache derived out of its sight, each at once and as a whole: half of it would look
/// to Apache like all of it. Its checkpoint goes first, because it vouches for them.
pub(crate) fn put_aside(disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
    crate::segment::remove_if_there(disk, &layout.checkpoint())?;
    let found = directories(disk, &layout.root)?;
    for name in found.iter().filter(|name| DERIVED.contains(&name.as_str())) {
        let (from, to) = (layout.root.join(name), layout.aside.join(name));
        if directories(disk, &layout.aside)?.contains(name) {
            disk.remove_tree(&to).map_err(StoreError::io("remove", &to))?;
        }
        disk.rename(&from, &to).map_err(StoreError::io("put aside", &from))?;
        tracing::info!(directory = %from.display(), "derived by Apache's broker, put aside");
    }
    disk.sync_directory(&layout.aside).map_err(StoreError::io("sync", &layout.aside))
}

/// Removes what was put aside, which may take minutes: topic by topic, one at least, until `is_over` says
/// that the rest has to wait. Says whether nothing is left.
pub(crate) fn remove_aside(
    disk: &dyn Disk,
    layout: &Layout,
    is_over: impl Fn() -> bool,
) -> Result<bool, StoreError> {
    let remove = |path: &Path| disk.remove_tree(path).map_err(StoreError::io("remove", path));
    for name in directories(disk, &layout.aside)? {
        let path = layout.aside.join(name);
        for topic in directories(disk, &path)? {
            remove(&path.join(topic))?;
            if is_over() {
                return Ok(false);
            }
        }
        remove(&path)?;
    }
    Ok(true)
}

/// The directories in `path`; none when it does not exist.
pub(crate) fn directories(disk: &dyn Disk, path: &Path) -> Result<Vec<String>, StoreError> {
    match disk.list_directories(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(StoreError::io("list", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A topic whose queue 1 begins at `first`, with offset 0, in a log whose first entry of any
    /// queue is at `derived_from`.
    fn traces(derived_from: u64, first: u64) -> ApacheTraces {
        let begins_at = |first| QueueBounds { first, first_offset: 0, last: first, next: 1 };
        let slow = BTreeMap::from([(0, begins_at(None)), (1, begins_at(Some(first)))]);
        let other = BTreeMap::from([(0, begins_at(Some(derived_from)))]);
        let queues = BTreeMap::from([("slow".to_owned(), slow), ("other".to_owned(), other)]);
        ApacheTraces { queues, batch_topics: BTreeSet::new() }
    }

    #[test]
    fn what_was_put_aside_goes_topic_by_topic_until_somebody_waits() {
        let disk = crate::disk::SimulatedDisk::new();
        let layout = Layout::under(Path::new("/s"));
        for topic in ["a", "b", "c"] {
            disk.create_directory(&layout.aside.join("consumequeue").join(topic)).unwrap();
        }
        let left = || directories(&disk, &layout.aside.join("consumequeue")).unwrap();
        assert!(!remove_aside(&disk, &layout, || left().len() < 3).unwrap());
        assert_eq!(left(), ["b", "c"]);
        assert!(remove_aside(&disk, &layout, || false).unwrap());
        assert!(directories(&disk, &layout.aside).unwrap().is_empty());
    }

    #[test]
    fn a_topic_begins_where_its_queues_do_only_if_those_are_whole() {
        for (derived_from, was_clean, log_end, forgotten) in [
            (100, true, 6000, Some(&5000)),
            // The stop may have left queue 0 unwritten.
            (100, false, 6000, None),
            // Queue 0 may have a message before those segments that were derived.
            (4096, true, 6000, None),
            // What will stand there is of this life.
            (100, true, 5000, None),
        ] {
            let mut state = QueueState::default();
            traces(derived_from, 5000).complete(0..log_end, 4096, was_clean, &mut state);
            let case = format!("{derived_from} {was_clean} {log_end}");
            assert_eq!(state.forgotten_before.get("slow"), forgotten, "{case}");
        }
    }
}
