//! Writes ConsumeQueues in Apache's layout, for people and programs that read that.
//!
//! `consumequeue/<topic>/<queue id>/<20 digits>`: files of 300,000 entries of 20 bytes, named by
//! the byte at which they begin in the queue. The file in which a queue begins is filled up in
//! front with entries that point nowhere, and the last one is zeros behind the last entry, both
//! as Apache has them (`ConsumeQueue.fillPreBlank`, `MappedFile`).
//!
//! Apache knows a queue's next offset from its last entry only. A queue whose messages have all
//! expired therefore has one entry, which points in front of the log, as the entries that
//! Apache leaves in such a queue do (`ConsumeQueue.correctMinOffset`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use weirmq_message::record::Record;
use weirmq_message::{delay, properties};

use super::directory::Directory;
use crate::disk::{Disk, OpenMode};
use crate::dispatch::DispatchRule;
use crate::error::StoreError;
use crate::format::{PADDING_HEAD_BYTES, file_name};
use crate::recover::Tail;
use crate::scan::{Scanner, Step};
use crate::segment::remove_if_there;

const ENTRY_BYTES: u64 = 20;
const FILE_ENTRIES: u64 = 300_000;
const FILE_BYTES: u64 = FILE_ENTRIES * ENTRY_BYTES;
/// Entries gather in memory up to this size, over all queues.
const GATHERED_BYTES: usize = 64 << 20;
const TOPIC_BYTES_MAX: usize = 255;
/// Where delayed messages wait. Source: `TopicValidator.RMQ_SYS_SCHEDULE_TOPIC`.
const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

/// What an export wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportReport {
    /// The folder `consumequeue`.
    pub directory: PathBuf,
    pub topics: usize,
    pub queues: usize,
    /// Those of them whose messages have all expired.
    pub empty_queues: usize,
    /// Entries of messages.
    pub entries: u64,
    pub files: usize,
    /// Topics whose name is no file name and which were left out.
    pub skipped_topics: BTreeSet<String>,
}

/// Writes the queues of all records of the log into `to/consumequeue`, which must not exist yet.
///
/// The log ends where its records do; nothing of `directory` itself is changed unless `to` is that
/// directory.
///
/// # Errors
/// [`StoreError::InUse`] while a broker holds the directory, [`StoreError::Unreadable`] when the
/// folder is there already, or `to` is the directory itself and was not stopped cleanly,
/// [`StoreError::Damaged`] at damage below the durable mark, and where a file of the log is gone,
/// [`StoreError::Io`].
pub fn export_queues(
    directory: &Directory,
    rule: DispatchRule,
    to: &Path,
    disk: &dyn Disk,
) -> Result<ExportReport, StoreError> {
    directory.check_unused()?;
    let root = to.join("consumequeue");
    if disk.list(&root).is_ok() {
        let reason = "is there already; remove it or export to another directory".to_owned();
        return Err(StoreError::Unreadable { path: root, reason });
    }
    if is_own(directory, to) {
        check_exportable(directory)?;
    }
    make(disk, &root)?;
    let mut export =
        Export { disk, queues: BTreeMap::new(), gathered: 0, report: Default::default() };
    export.report.directory = root;
    export.walk(directory, rule)?;
    export.add_empty(directory)?;
    export.finish()
}

fn is_own(directory: &Directory, to: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(&directory.layout.root) == real(to)
}

/// Queues in Apache's layout say that Apache used the directory, whose word then counts instead of
/// our marks. So they may only come where marks are not needed: after a clean stop, without damage.
fn check_exportable(directory: &Directory) -> Result<(), StoreError> {
    if !directory.was_closed {
        let reason = "was not stopped cleanly; start the broker and stop it, or export to another \
                      directory";
        let path = directory.layout.root.clone();
        return Err(StoreError::Unreadable { path, reason: reason.to_owned() });
    }
    for_each_record(directory, |_, _, _| Ok(()))
}

/// Calls `act` with each record, its position and its size, up to the end of the log. Fails where
/// something is missing of what was promised: in front of the first file, between two, or at the end.
fn for_each_record(
    directory: &Directory,
    mut act: impl FnMut(&Record<'_>, u64, u64) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let damaged = |from, to, reason: String| Err(StoreError::Damaged { from, to, reason });
    let marked = directory.mark.map_or(0, |mark| mark.flushed);
    let tail = Tail::read(&directory.segments, marked, directory.was_apache)?;
    let mut end = directory.log_start();
    if let Some(noted) = directory.noted_start.filter(|noted| *noted < end) {
        return damaged(noted, end, "this part has not expired, and its file is gone".to_owned());
    }
    for segment in &directory.segments {
        if segment.start > end {
            break;
        }
        let mut scanner = Scanner::new(segment, segment.start, true);
        let proved_end = tail.proved_end(segment)?;
        end = loop {
            let from = scanner.position();
            let reason = match scanner.step()? {
                // What a recycled segment has of its life before.
                Step::Record(_, size) if from + size > proved_end => "nothing proves it".to_owned(),
                Step::Record(record, size) => {
                    act(&record, from, size)?;
                    continue;
                }
                Step::SegmentEnd if from + PADDING_HEAD_BYTES > proved_end => {
                    "nothing proves it".to_owned()
                }
                Step::SegmentEnd => break segment.end(),
                Step::Nothing => "zeros".to_owned(),
                Step::Invalid(reason) => reason,
            };
            return if from < marked { damaged(from, marked, reason) } else { Ok(()) };
        };
    }
    if end < marked {
        return damaged(end, marked, "there is no file with this part of the log".to_owned());
    }
    Ok(())
}

struct Export<'a> {
    disk: &'a dyn Disk,
    queues: BTreeMap<String, BTreeMap<i32, Gathered>>,
    gathered: usize,
    report: ExportReport,
}

/// Entries of a queue that are not written yet.
#[derive(Default)]
struct Gathered {
    /// Queue offset of the first one.
    first: u64,
    bytes: Vec<u8>,
    files: BTreeSet<u64>,
}

impl Gathered {
    fn next(&self) -> u64 {
        self.first + self.bytes.len() as u64 / ENTRY_BYTES
    }
}

impl Export<'_> {
    fn walk(&mut self, directory: &Directory, rule: DispatchRule) -> Result<(), StoreError> {
        for_each_record(directory, |record, from, size| {
            let is_gone = directory.queue_state.is_forgotten(record.topic, from);
            match rule(record).queue && !is_gone {
                true => self.add(record, size, rule),
                false => Ok(()),
            }
        })
    }

    fn add(
        &mut self,
        record: &Record<'_>,
        size: u64,
        rule: DispatchRule,
    ) -> Result<(), StoreError> {
        if !is_file_name(record.topic) {
            if self.report.skipped_topics.len() < 1000 {
                self.report.skipped_topics.insert(record.topic.to_owned());
            }
            return Ok(());
        }
        if !self.queues.contains_key(record.topic) {
            self.queues.insert(record.topic.to_owned(), BTreeMap::new());
        }
        let queues = self.queues.get_mut(record.topic).expect("inserted above");
        let queue = queues.entry(record.queue_id).or_default();
        let offset = record.queue_offset;
        if queue.next() != offset {
            let path = self.report.directory.join(record.topic).join(record.queue_id.to_string());
            write(self.disk, &path, queue)?;
            if offset < queue.next() {
                // The topic was deleted and made again: what was before is no part of the queue.
                for start in std::mem::take(&mut queue.files) {
                    remove_if_there(self.disk, &path.join(file_name(start)))?;
                }
            }
        }
        if queue.bytes.is_empty() {
            queue.first = offset;
        }
        let tag = third_field(record, rule(record).tag_hash);
        queue.bytes.extend_from_slice(&record.physical_offset.to_be_bytes());
        queue.bytes.extend_from_slice(&(size as u32).to_be_bytes());
        queue.bytes.extend_from_slice(&tag.to_be_bytes());
        self.report.entries += 1;
        self.gathered += ENTRY_BYTES as usize;
        if self.gathered >= GATHERED_BYTES {
            self.write_all()?;
        }
        Ok(())
    }

    /// Adds the queues without messages. One that has messages goes by those.
    fn add_empty(&mut self, directory: &Directory) -> Result<(), StoreError> {
        // Nothing has expired, and no position is in front of the log.
        let Some(in_front) = directory.log_start().checked_sub(1) else { return Ok(()) };
        for (topic, queues) in &directory.queue_state.next_offsets {
            if !is_file_name(topic) {
                self.report.skipped_topics.insert(topic.clone());
                continue;
            }
            let known = self.queues.entry(topic.clone()).or_default();
            for (queue_id, next) in queues {
                let (false, Some(first)) = (known.contains_key(queue_id), next.checked_sub(1))
                else {
                    continue;
                };
                let mut queue = Gathered { first, ..Gathered::default() };
                queue.bytes.extend_from_slice(&in_front.to_be_bytes());
                // Ends where the log begins, from where on Apache may derive.
                queue.bytes.extend_from_slice(&1_u32.to_be_bytes());
                queue.bytes.extend_from_slice(&0_i64.to_be_bytes());
                known.insert(*queue_id, queue);
                self.report.empty_queues += 1;
            }
        }
        self.queues.retain(|_, queues| !queues.is_empty());
        Ok(())
    }

    fn write_all(&mut self) -> Result<(), StoreError> {
        for (topic, queues) in &mut self.queues {
            for (queue_id, queue) in queues {
                let path = self.report.directory.join(topic).join(queue_id.to_string());
                write(self.disk, &path, queue)?;
            }
        }
        self.gathered = 0;
        Ok(())
    }

    fn finish(mut self) -> Result<ExportReport, StoreError> {
        self.write_all()?;
        let mut directories = vec![self.report.directory.clone()];
        for (topic, queues) in &self.queues {
            self.report.topics += 1;
            directories.push(self.report.directory.join(topic));
            for (queue_id, queue) in queues {
                self.report.queues += 1;
                self.report.files += queue.files.len();
                directories.push(self.report.directory.join(topic).join(queue_id.to_string()));
            }
        }
        for path in directories {
            self.disk.sync_directory(&path).map_err(StoreError::io("sync", &path))?;
        }
        Ok(self.report)
    }
}

/// Writes what a queue gathered into its files.
fn write(disk: &dyn Disk, path: &Path, queue: &mut Gathered) -> Result<(), StoreError> {
    if queue.bytes.is_empty() {
        return Ok(());
    }
    make(disk, path)?;
    let too_far = || StoreError::Unreadable {
        path: path.to_path_buf(),
        reason: format!("queue offset {} is beyond any queue", queue.first),
    };
    let mut at = queue.first.checked_mul(ENTRY_BYTES).ok_or_else(too_far)?;
    let end = at.checked_add(queue.bytes.len() as u64 + FILE_BYTES).ok_or_else(too_far)?;
    let end = end - FILE_BYTES;
    let mut rest = &queue.bytes[..];
    while at < end {
        let file_start = at - at % FILE_BYTES;
        let (piece, left) = rest.split_at((file_start + FILE_BYTES - at).min(end - at) as usize);
        let name = path.join(file_name(file_start));
        let is_first_of_queue = queue.files.is_empty();
        let is_new = queue.files.insert(file_start);
        let write = || {
            let file = disk.open(&name, OpenMode::Write)?;
            if is_new {
                file.set_len(FILE_BYTES)?;
            }
            if is_new && is_first_of_queue {
                file.write_all_at(&blanks(at - file_start), 0)?;
            }
            file.write_all_at(piece, at - file_start)?;
            file.sync()
        };
        write().map_err(StoreError::io("write", &name))?;
        (at, rest) = (at + piece.len() as u64, left);
    }
    queue.first = queue.next();
    queue.bytes = Vec::new();
    Ok(())
}

/// Entries of position 0 and the largest size, which no record has.
fn blanks(bytes: u64) -> Vec<u8> {
    let mut blank = [0; ENTRY_BYTES as usize];
    blank[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    blank.repeat((bytes / ENTRY_BYTES) as usize)
}

/// Apache keeps the time of delivery in the third field of delayed messages
/// (`CommitLog.checkMessageAndReturnSize`); ours has the tag's hash there, as everywhere.
fn third_field(record: &Record<'_>, tag_hash: i64) -> i64 {
    if record.topic != SCHEDULE_TOPIC {
        return tag_hash;
    }
    let level = properties::get(record.properties, properties::names::DELAY_LEVEL);
    match level.and_then(|level| level.parse::<i32>().ok()).and_then(delay::level_ms) {
        Some(delay) => record.store_timestamp.saturating_add(delay),
        None => tag_hash,
    }
}

/// Whether a topic may become the name of a folder. Names come from the log, which may hold
/// anything.
fn is_file_name(topic: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"%|_-.".contains(&byte);
    (1..=TOPIC_BYTES_MAX).contains(&topic.len())
        && topic.bytes().all(is_fine)
        && !topic.starts_with('.')
}

fn make(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    disk.create_directory(path).map_err(StoreError::io("create directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_become_folders() {
        for fine in ["a", "%RETRY%group", "weirmq.state", "A|b-c_9"] {
            assert!(is_file_name(fine), "{fine}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "../x", "a\\b", "ä", "a b", "a\0"] {
            assert!(!is_file_name(bad), "{bad}");
        }
        assert!(!is_file_name(&"t".repeat(256)));
    }
}
