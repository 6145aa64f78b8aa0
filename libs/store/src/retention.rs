//! Deletes segments whose records have expired, with everything derived from them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::queue_table::QueueState;
use crate::read::{RecordHead, read_head};
use crate::segment::Segment;
use crate::small_file;
use crate::store::Inner;

impl Inner {
    /// Deletes from the old end of the log what has expired; says how many segments that were.
    ///
    /// The newest segment stays, as does everything from the protected position on.
    pub(crate) fn expire(&self) -> Result<usize, StoreError> {
        let retention_ms = i64::try_from(self.config.retention.as_millis()).unwrap_or(i64::MAX);
        let expired_before_ms = self.clock.now_ms().saturating_sub(retention_ms);
        let kept_from = self.protected_from.load(Ordering::Acquire).min(self.marks.flushed());
        let segments = self.log.all();
        let mut expired = 0;
        for pair in segments.windows(2) {
            if pair[0].end() > kept_from || !self.begins_before(&pair[1], expired_before_ms)? {
                break;
            }
            expired += 1;
        }
        if expired > 0 {
            self.delete_oldest(&segments[..expired], segments[expired].start)?;
        }
        Ok(expired)
    }

    /// Whether the first record of a segment is older; then everything before it is as well.
    fn begins_before(&self, segment: &Segment, time_ms: i64) -> Result<bool, StoreError> {
        Ok(match read_head(segment, segment.start)? {
            Some(RecordHead { store_timestamp, .. }) => store_timestamp < time_ms,
            None => false,
        })
    }

    fn delete_oldest(&self, segments: &[Arc<Segment>], start: u64) -> Result<(), StoreError> {
        self.keep_next_offsets(start)?;
        for segment in segments {
            self.log.forget_oldest();
            tracing::info!(start = segment.start, end = segment.end(), "segment expired");
        }
        self.queues.all().iter().for_each(|queue| queue.forget_before(start));
        segments.iter().try_for_each(|segment| segment.remove_files(&*self.disk))?;
        let directory = &self.layout.commit_log;
        self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))
    }

    /// Notes the next offset of each queue that is about to lose its last message: the log will
    /// not know it any more, and a queue must not begin again at 0.
    fn keep_next_offsets(&self, start: u64) -> Result<(), StoreError> {
        let mut state = self.queue_state.lock();
        let mut changed = state.clone();
        changed.next_offsets.clear();
        for queue in self.queues.all() {
            let next = queue.next();
            if next > 0 && queue.is_empty_from(start) {
                let topic = changed.next_offsets.entry(queue.topic.to_string()).or_default();
                topic.insert(queue.queue_id, next);
            }
        }
        changed.fit(start, self.marks.written());
        if changed != *state {
            changed.write(&*self.disk, &self.layout)?;
            *state = changed;
        }
        Ok(())
    }

    /// See [`crate::Store::delete_queues`].
    pub(crate) fn delete_queues(&self, topic: &str) -> Result<(), StoreError> {
        self.check_open()?;
        // Under the append lock, so that every record is clearly before or after. Topics are
        // deleted seldom enough for appends to wait a millisecond.
        let appender = self.appender.lock();
        if !self.queues.read().contains_key(topic) {
            return Ok(());
        }
        let mut state = self.queue_state.lock();
        let mut changed = state.clone();
        changed.next_offsets.remove(topic);
        changed.forgotten_before.insert(topic.to_owned(), appender.position());
        changed.write(&*self.disk, &self.layout)?;
        *state = changed;
        self.queues.remove_topic(topic);
        Ok(())
    }
}

impl QueueState {
    pub(crate) fn read(
        disk: &dyn Disk,
        layout: &crate::format::Layout,
    ) -> Result<Self, StoreError> {
        let path = layout.queue_state();
        let Some(text) = small_file::read(disk, &path)? else { return Ok(Self::default()) };
        serde_json::from_slice(&text)
            .map_err(|error| StoreError::Unreadable { path, reason: error.to_string() })
    }

    pub(crate) fn write(
        &self,
        disk: &dyn Disk,
        layout: &crate::format::Layout,
    ) -> Result<(), StoreError> {
        small_file::write_json(disk, &layout.queue_state(), self)
    }
}
