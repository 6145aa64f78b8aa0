//! ConsumeQueue entries of one segment: as its queue file has them, and as its records say.

use std::collections::BTreeMap;

use super::directory::Directory;
use crate::dispatch::{DispatchRule, KeySource, for_each_key, key_hash, topic_seed};
use crate::error::StoreError;
use crate::key_file::KeyEntry;
use crate::queue_file::{QueueEntry, StoredPart, block_entries, block_start};
use crate::segment::Segment;
use weirmq_message::record::Record;

/// Entries with their queue offsets, by topic and queue id.
pub(super) type Entries = BTreeMap<String, BTreeMap<i32, Vec<(u64, QueueEntry)>>>;

/// What records contribute to the files derived from them.
#[derive(Default)]
pub(super) struct Derived {
    pub(super) entries: Entries,
    pub(super) keys: Vec<KeyEntry>,
}

impl Derived {
    /// Adds a record; says its ConsumeQueue entry, if it has one.
    pub(super) fn add(&mut self, record: &Record<'_>, size: u64, rule: DispatchRule) {
        let position = record.physical_offset;
        let dispatch = rule(record);
        if dispatch.keys == KeySource::Properties {
            let seed = topic_seed(record.topic);
            for_each_key(record.properties, |key| self.keys.push((key_hash(seed, key), position)));
        }
        if !dispatch.queue {
            return;
        }
        if !self.entries.contains_key(record.topic) {
            self.entries.insert(record.topic.to_owned(), BTreeMap::new());
        }
        let queues = self.entries.get_mut(record.topic).expect("inserted above");
        let queue = queues.entry(record.queue_id).or_default();
        if queue.last().is_some_and(|(offset, _)| *offset >= record.queue_offset) {
            // The topic was deleted and made again, so what was before is forgotten.
            queue.clear();
        }
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let tag_hash = dispatch.tag_hash;
        let entry = QueueEntry { physical_offset: position, size, tag_hash };
        queue.push((record.queue_offset, entry));
    }
}

impl Directory {
    /// The parts of a segment's queue file; `None` when it is not complete up to `covered`.
    pub(super) fn parts(
        &self,
        segment: &Segment,
        covered: u64,
    ) -> Result<Option<Vec<StoredPart>>, StoreError> {
        segment.queues.load(segment.start, covered)
    }

    /// Takes entries of deleted topics out.
    pub(super) fn drop_forgotten(&self, entries: &mut Entries) {
        for (topic, queues) in entries.iter_mut() {
            for queue in queues.values_mut() {
                queue.retain(|(_, entry)| {
                    !self.queue_state.is_forgotten(topic, entry.physical_offset)
                });
            }
            queues.retain(|_, queue| !queue.is_empty());
        }
        entries.retain(|_, queues| !queues.is_empty());
    }
}

/// The entries of a part, in order, appended to `out`.
pub(super) fn read_part(
    segment: &Segment,
    part: &StoredPart,
    out: &mut Vec<(u64, QueueEntry)>,
) -> Result<(), StoreError> {
    let mut entries = Vec::new();
    for (index, at) in part.blocks.iter().enumerate() {
        let before = block_start(index);
        let count = block_entries(index).min(part.count.saturating_sub(before));
        entries.clear();
        segment.queues.read_block(*at, count, 0..count, true, &mut entries)?;
        out.extend((part.first.saturating_add(before)..).zip(entries.iter().copied()));
    }
    Ok(())
}
