//! Brings queues and key index back: from their files where those are complete, else from the log.

use std::sync::Arc;

use crate::block_sums::is_intact;
use crate::block_tail::BlockTail;
use crate::commit_log::CommitLog;
use crate::config::StoreConfig;
use crate::disk::Disk;
use crate::dispatch::{KeySource, for_each_key, key_hash};
use crate::error::StoreError;
use crate::format::{Layout, parse_file_name};
use crate::planted::{self, Planted};
use crate::queue_file::QueueEntry;
use crate::queue_table::{QueueState, QueueTable};
use crate::recover::RecoveryReport;
use crate::scan::{Scanner, Step};
use crate::segment::{Segment, remove_if_there};

/// What is needed to derive entries.
pub(crate) struct Rebuild<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) layout: &'a Layout,
    pub(crate) config: &'a StoreConfig,
    pub(crate) state: &'a QueueState,
}

impl Rebuild<'_> {
    /// Fills a new table from the segments of `log`, which ends at `report.log_end`.
    pub(crate) fn run(
        &self,
        log: &CommitLog,
        report: &mut RecoveryReport,
    ) -> Result<QueueTable, StoreError> {
        let queues = QueueTable::default();
        for (topic, next_offsets) in &self.state.next_offsets {
            for (queue_id, next) in next_offsets {
                queues.find_or_add(topic, *queue_id, *next);
            }
        }
        let segments = log.all();
        let mut has_removed = self.remove_orphans(&segments)?;
        for (index, segment) in segments.iter().enumerate() {
            let is_newest = index + 1 == segments.len();
            let covered = segment.end().min(report.log_end);
            if self.load(&queues, segment, covered, is_newest)? {
                continue;
            }
            // What is there is from another time; it must not come back beside new entries.
            remove_if_there(&**self.disk, segment.queues.path())?;
            remove_if_there(&**self.disk, segment.keys.path())?;
            has_removed = true;
            report.rebuilt_segments += 1;
            report.rebuilt_records += self.read_again(&queues, segment, covered)?;
        }
        if has_removed {
            for directory in [&self.layout.queues, &self.layout.keys, &self.layout.blocks] {
                self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
            }
        }
        queues.all().iter().for_each(|queue| queue.show_all());
        if planted::is_on(Planted::OffsetFromCounter) && report.cut_records > 0 {
            // As if the queues remembered records that were cut.
            for queue in queues.all() {
                queue.assign();
            }
        }
        Ok(queues)
    }

    /// Removes derived files whose segment is gone.
    fn remove_orphans(&self, segments: &[Arc<Segment>]) -> Result<bool, StoreError> {
        let mut has_removed = false;
        for directory in [&self.layout.queues, &self.layout.keys, &self.layout.blocks] {
            let files = self.disk.list(directory).map_err(StoreError::io("list", directory))?;
            for file in files {
                let is_known = parse_file_name(&file.name)
                    .is_some_and(|start| segments.iter().any(|segment| segment.start == start));
                if !is_known {
                    remove_if_there(&**self.disk, &directory.join(&file.name))?;
                    has_removed = true;
                }
            }
        }
        Ok(has_removed)
    }

    /// Takes the files of a segment if both are complete.
    fn load(
        &self,
        queues: &QueueTable,
        segment: &Segment,
        covered: u64,
        is_newest: bool,
    ) -> Result<bool, StoreError> {
        if !segment.keys.load(segment.start, covered)? {
            return Ok(false);
        }
        let Some(parts) = segment.queues.load(segment.start, covered)? else {
            segment.keys.reset();
            return Ok(false);
        };
        for part in parts {
            // A deleted topic leaves parts only in files completed before it was deleted.
            if self.state.is_forgotten(&part.topic, covered - 1) {
                continue;
            }
            let queue = queues.find_or_add(&part.topic, part.queue_id, 0);
            queue.restore(segment, part, is_newest)?;
        }
        segment.is_sealed.store(!is_newest, std::sync::atomic::Ordering::Release);
        Ok(true)
    }

    /// Derives the entries of a segment from its records, whose blocks have to fit their checksums; says
    /// how many records those were.
    fn read_again(
        &self,
        queues: &QueueTable,
        segment: &Segment,
        covered: u64,
    ) -> Result<u64, StoreError> {
        if !self.config.threads {
            check_block_sums(segment, covered)?;
            return self.derive(queues, segment, covered);
        }
        // Each takes as long as the other, and what one has read is in memory for the other.
        std::thread::scope(|scope| {
            let sums = move || check_block_sums(segment, covered);
            let Ok(sums) = std::thread::Builder::new().spawn_scoped(scope, sums) else {
                sums()?;
                return self.derive(queues, segment, covered);
            };
            let derived = self.derive(queues, segment, covered);
            sums.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(derived)
        })
    }

    fn derive(
        &self,
        queues: &QueueTable,
        segment: &Segment,
        covered: u64,
    ) -> Result<u64, StoreError> {
        let last_block = BlockTail::block_start(covered, segment.bytes);
        let mut reaches_last_block = segment.start;
        let mut scanner = Scanner::new(segment, segment.start, false);
        let mut keys = Vec::new();
        let mut records = 0;
        while scanner.position() < covered {
            let position = scanner.position();
            if position <= last_block {
                reaches_last_block = position;
            }
            let (record, size) = match scanner.step()? {
                Step::Record(record, size) => (record, size),
                Step::SegmentEnd if covered == segment.end() => break,
                Step::SegmentEnd => return Err(damaged(position, covered, "padding".to_owned())),
                Step::Nothing => return Err(damaged(position, covered, "zeros".to_owned())),
                Step::Invalid(reason) => return Err(damaged(position, covered, reason)),
            };
            records += 1;
            let dispatch = (self.config.dispatch)(&record);
            if dispatch.keys == KeySource::Properties {
                let seed = crate::dispatch::topic_seed(record.topic);
                for_each_key(record.properties, |key| keys.push((key_hash(seed, key), position)));
                let is_full = segment.keys.add(&keys);
                keys.clear();
                if is_full {
                    write_full_runs(segment)?;
                }
            }
            if dispatch.queue && !self.state.is_forgotten(record.topic, position) {
                let queue = queues.find_or_add(record.topic, record.queue_id, 0);
                let tag_hash = dispatch.tag_hash;
                let entry = QueueEntry { physical_offset: position, size: size as u32, tag_hash };
                queue.push(segment, record.queue_offset, entry);
            }
        }
        if covered < segment.end() {
            prove(segment, reaches_last_block, covered)?;
        }
        Ok(records)
    }
}

/// Proves the records of the last block of a log that nobody closed. It has no sum yet, and gets
/// one of what stands there; recovery has proved only what follows the mark.
fn prove(segment: &Segment, from: u64, covered: u64) -> Result<(), StoreError> {
    let mut scanner = Scanner::new(segment, from, true);
    while scanner.position() < covered {
        let position = scanner.position();
        match scanner.step()? {
            Step::Record(..) => {}
            Step::SegmentEnd => return Err(damaged(position, covered, "padding".to_owned())),
            Step::Nothing => return Err(damaged(position, covered, "zeros".to_owned())),
            Step::Invalid(reason) => return Err(damaged(position, covered, reason)),
        }
    }
    Ok(())
}

fn write_full_runs(segment: &Segment) -> Result<(), StoreError> {
    match segment.keys.write_full_runs() {
        // A full disk must open, or nothing on it would ever expire.
        Err(error) if error.is_no_space() => {
            tracing::warn!(%error, "key entries stay in memory until they can be written");
            Ok(())
        }
        written => written,
    }
}

/// What is derived from a damaged record would put a message in another's place: the checksum in a
/// record covers its body only.
fn check_block_sums(segment: &Segment, covered: u64) -> Result<(), StoreError> {
    let mut buffer = Vec::new();
    for summed in segment.blocks.read(segment.start, covered)? {
        if summed.end() <= covered && !is_intact(segment, &summed, &mut buffer)? {
            let reason = "a block is not what was written".to_owned();
            return Err(damaged(summed.position, summed.end(), reason));
        }
    }
    Ok(())
}

fn damaged(from: u64, to: u64, reason: String) -> StoreError {
    StoreError::Damaged { from, to, reason }
}
