//! Deletes segments whose records have expired, with everything derived from them.

mod clock;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::{StoreConfig, Upkeep};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::{Layout, file_name};
use crate::log_start::LogStart;
use crate::planted::{self, Planted};
use crate::queue_table::{Deletion, QueueState};
use crate::read::{RecordHead, read_head};
use crate::segment::{Segment, remove_if_there};
use crate::small_file;
use crate::spare;
use crate::store::Inner;

pub(crate) use clock::RetentionClock;

impl Inner {
    /// How the store looks after itself at the moment.
    pub(crate) fn upkeep(&self) -> Arc<Upkeep> {
        self.upkeep.read().clone()
    }

    pub(crate) fn set_upkeep(&self, upkeep: Upkeep) {
        self.spares.set_max(upkeep.spare_segments_max);
        self.retention_clock.lock().set_retention(upkeep.retention_ms());
        *self.upkeep.write() = Arc::new(upkeep);
    }

    /// Deletes what is due now: what has expired, if it is the hour, if the disk is short or if
    /// somebody asked; and the oldest segments whatever their age, if the disk is very short and
    /// the configuration allows it. Says how many segments that were.
    pub(crate) fn expire_if_due(&self, is_asked: bool) -> Result<usize, StoreError> {
        let upkeep = self.upkeep();
        let now_ms = self.look_at_the_clock()?;
        let is_short = self.is_space_short();
        if is_short && self.spares.remove_all()? > 0 {
            self.check_space()?;
        }
        if self.queue_state.lock().may_take_back(self.marks.safe()) {
            // What a deleted topic had must be there if its deletion is taken back. Soon it cannot be,
            // and who asked need not ask again.
            self.expiry_waits.fetch_or(is_asked, Ordering::AcqRel);
            return Ok(0);
        }
        let mut expired = 0;
        let is_asked = self.expiry_waits.swap(false, Ordering::AcqRel) || is_asked;
        if is_asked || is_short || upkeep.retention_hours.contains(&self.clock.hour()) {
            expired += self.expire(now_ms, is_asked)?;
        }
        while upkeep.retention_force && self.is_very_short() && self.expire_oldest()? {
            expired += 1;
            self.check_space()?;
        }
        Ok(expired)
    }

    fn is_very_short(&self) -> bool {
        self.disk_watch.is_used(StoreConfig::FORCED_DISK_PERCENT) || self.disk_watch.is_full()
    }

    /// Deletes the oldest segment, if another one follows and nothing in it is protected.
    fn expire_oldest(&self) -> Result<bool, StoreError> {
        let mut segments = self.log.all();
        let Some(next) = segments.get(1).map(|segment| segment.start) else { return Ok(false) };
        if next > self.kept_from() {
            self.say_what_is_kept();
            return Ok(false);
        }
        tracing::warn!(
            start = segments[0].start,
            "the disk is short: a segment goes before its time"
        );
        segments.truncate(1);
        self.delete_oldest(segments, next)?;
        Ok(true)
    }

    /// Retention deletes nothing from here on.
    fn kept_from(&self) -> u64 {
        let safe = self.marks.safe();
        let mut images = self.protected_images.lock();
        while let Some((begin, _)) = images.pop_front_if(|(_, end)| *end <= safe) {
            self.protected_from.store(begin, Ordering::Release);
        }
        self.protected_from.load(Ordering::Acquire).min(safe)
    }

    /// Tells the store's user that what it protects stands in the way of retention.
    fn say_what_is_kept(&self) {
        if let Some(listener) = self.protection_listener.read().as_ref() {
            listener();
        }
    }

    /// The time that messages are old or young by. What of the clock does not count is written down
    /// before anything expires, or the next open would take it for true.
    fn look_at_the_clock(&self) -> Result<i64, StoreError> {
        let mut clock = self.retention_clock.lock();
        let now_ms = clock.now_ms(&*self.clock);
        match clock.keep(&*self.disk, &self.layout, false) {
            Err(error) if error.is_no_space() => {
                tracing::warn!(%error, "what the clock said is written down later");
            }
            kept => kept?,
        }
        Ok(now_ms)
    }

    /// Deletes from the old end of the log what has expired at `now_ms`; says how many segments that
    /// were.
    ///
    /// The newest segment stays, as does everything from the protected position on, until less is
    /// protected; who asked for it need not ask again then.
    fn expire(&self, now_ms: i64, is_asked: bool) -> Result<usize, StoreError> {
        let mut segments = self.log.all();
        let old = old_segments(&segments, now_ms, self.upkeep().retention_ms());
        let kept_from = self.kept_from();
        let expired = segments[..old].partition_point(|segment| segment.end() <= kept_from);
        if expired < old {
            self.expiry_waits.store(is_asked, Ordering::Release);
            self.say_what_is_kept();
        }
        if expired > 0 {
            let start = segments[expired].start;
            segments.truncate(expired);
            self.delete_oldest(segments, start)?;
        }
        Ok(expired)
    }

    /// Deletes these, the oldest segments of the log; `start` is where the rest begins.
    ///
    /// One after the other, each durably, so that neither a crash nor an error leaves a gap on
    /// disk: nothing goes while something in front of it may still be there.
    fn delete_oldest(&self, segments: Vec<Arc<Segment>>, start: u64) -> Result<(), StoreError> {
        self.remove_left_behind()?;
        if let Err(error) = self.note_before_deletion(start) {
            let Some(oldest) = segments.first().filter(|_| error.is_no_space()) else {
                return Err(error);
            };
            self.make_room(oldest)?;
            self.note_before_deletion(start)?;
        }
        for segment in segments {
            let (start, end) = (segment.start, segment.end());
            self.log.forget_oldest();
            self.queues.all().iter().for_each(|queue| queue.forget_before(end));
            self.forget_damage_before(end);
            if let Err(error) = self.delete_segment(segment) {
                *self.left_behind.lock() = Some(start);
                return Err(error);
            }
            tracing::info!(start, end, "segment expired");
        }
        Ok(())
    }

    /// Frees what can be spared on a disk that has no room for the little that has to be written
    /// before a segment may go: spare files, and what was derived from the oldest segment, which
    /// is about to go and can be derived again if it does not.
    fn make_room(&self, oldest: &Segment) -> Result<(), StoreError> {
        tracing::warn!(start = oldest.start, "the disk has no room at all, spares go first");
        self.spares.remove_all()?;
        self.queues.all().iter().for_each(|queue| queue.forget_before(oldest.end()));
        // Should it stay after all, nobody may complete files that say that it holds nothing.
        oldest.is_sealed.store(true, Ordering::Release);
        // Open files would keep their blocks.
        oldest.queues.reset();
        oldest.keys.reset();
        oldest.remove_derived_files(&*self.disk)
    }

    /// Keeps the file of a segment that left the log for its next life, unless somebody still
    /// reads from it: then the name goes, and the bytes with the last reader.
    fn delete_segment(&self, segment: Arc<Segment>) -> Result<(), StoreError> {
        segment.remove_derived_files(&*self.disk)?;
        let path = segment.path.clone();
        match Arc::try_unwrap(segment) {
            Ok(segment) if !self.is_space_short() => self.spares.keep(segment),
            Err(_) if planted::is_on(Planted::RecycledWhileRead) => self.spares.keep_file(&path),
            Ok(_) | Err(_) => {
                remove_if_there(&*self.disk, &path)?;
                self.sync_directory(&self.layout.commit_log)
            }
        }
    }

    /// Removes what the last deletion, which failed halfway, may have left of its segment.
    fn remove_left_behind(&self) -> Result<(), StoreError> {
        let mut left_behind = self.left_behind.lock();
        let Some(start) = *left_behind else { return Ok(()) };
        let Layout { queues, keys, blocks, commit_log, .. } = &self.layout;
        for directory in [queues, keys, blocks, &self.layout.spare, commit_log] {
            remove_if_there(&*self.disk, &directory.join(file_name(start)))?;
        }
        // The file may have been on its way from one directory to the other.
        spare::sync_names(&*self.disk, &self.layout)?;
        self.sync_directory(commit_log)?;
        *left_behind = None;
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> Result<(), StoreError> {
        self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))
    }

    /// Writes down what the log will not say by itself without the segments before `start`: what
    /// queues are about to lose, and that it begins there.
    fn note_before_deletion(&self, start: u64) -> Result<(), StoreError> {
        self.keep_next_offsets(start)?;
        LogStart { start }.write(&*self.disk, &self.layout)
    }

    /// See [`crate::Store::adopt_next_offsets`].
    pub(crate) fn adopt_next_offsets(
        &self,
        offsets: &BTreeMap<String, BTreeMap<i32, u64>>,
    ) -> Result<(), StoreError> {
        let _appender = self.appender.lock();
        // With the lock, as in appends.
        self.check_open()?;
        let mut state = self.queue_state.lock();
        let mut changed = state.clone();
        for (topic, queues) in offsets {
            for (queue_id, next) in queues {
                let queue = self.queues.find_or_add(topic, *queue_id, *next);
                if queue.next_to_assign() == *next {
                    let known = changed.next_offsets.entry(topic.clone()).or_default();
                    known.insert(*queue_id, *next);
                }
            }
        }
        if changed != *state {
            changed.write(&*self.disk, &self.layout)?;
            *state = changed;
        }
        Ok(())
    }

    /// Notes the next offset of each queue that is about to lose its last message that is on disk:
    /// the log may not know it any more, and a queue must not begin again at 0.
    fn keep_next_offsets(&self, start: u64) -> Result<(), StoreError> {
        let mut state = self.queue_state.lock();
        let mut changed = state.clone();
        changed.next_offsets.clear();
        // What may still be cut off says nothing.
        let safe = self.marks.safe();
        for queue in self.queues.all() {
            if let Some(next) = queue.offset_to_keep(start, safe)
                && next > 0
            {
                let topic = changed.next_offsets.entry(queue.topic.to_string()).or_default();
                topic.insert(queue.queue_id, next);
            }
        }
        // By what is still there: a crash may leave the segments that are about to go, and with
        // them the records of deleted topics.
        changed.fit(self.log.start().unwrap_or(0), self.marks.written());
        if changed != *state {
            changed.write(&*self.disk, &self.layout)?;
            *state = changed;
        }
        Ok(())
    }

    /// See [`crate::Store::delete_queues`].
    pub(crate) fn delete_queues(&self, topics: &[&str], said_until: u64) -> Result<(), StoreError> {
        // Under the append lock, so that every record is clearly before or after. Topics are
        // deleted seldom enough for appends to wait a millisecond.
        let appender = self.appender.lock();
        self.check_open()?;
        let known = |topic: &&&str| self.queues.read().contains_key(**topic);
        let topics: Vec<&str> = topics.iter().filter(known).copied().collect();
        if topics.is_empty() {
            return Ok(());
        }
        let (before, safe) = (appender.position(), self.marks.safe());
        let mut state = self.queue_state.lock();
        let mut changed = state.clone();
        for topic in &topics {
            let next_offsets = self.queues.next_offsets(topic, safe);
            changed.delete(topic, Deletion { before, said_until, next_offsets }, safe);
        }
        changed.write(&*self.disk, &self.layout)?;
        *state = changed;
        topics.iter().for_each(|topic| self.queues.remove_topic(topic));
        Ok(())
    }
}

/// How many of the oldest segments hold nothing but records that were stored more than `retention_ms`
/// before `now_ms`: another one follows on them that begins with so old a record.
///
/// What a clock stamped that was wrong says nothing: a time that is still to come, or one before that of
/// an older record. Nor does what cannot be read. There the next segment answers, so that such times keep
/// nothing for longer than the retention time from when the clock was right again.
fn old_segments(segments: &[Arc<Segment>], now_ms: i64, retention_ms: i64) -> usize {
    let (mut old, mut latest_ms) = (0, i64::MIN);
    for (index, segment) in segments.iter().enumerate() {
        let Some(first_ms) = first_stored_ms(segment) else { continue };
        if first_ms < latest_ms || first_ms > now_ms {
            continue;
        }
        if now_ms.saturating_sub(first_ms) <= retention_ms {
            break;
        }
        (old, latest_ms) = (index, first_ms);
    }
    old
}

/// When the first record of a segment was stored; `None` where that cannot be read.
pub(crate) fn first_stored_ms(segment: &Segment) -> Option<i64> {
    if let Some(known) = segment.first_stored_ms.get() {
        return Some(*known);
    }
    match read_head(segment, segment.start) {
        Ok(head) => {
            let RecordHead { store_timestamp, .. } = head?;
            Some(*segment.first_stored_ms.get_or_init(|| store_timestamp))
        }
        Err(error) => {
            tracing::warn!(start = segment.start, %error, "the age of a segment cannot be read");
            None
        }
    }
}

impl QueueState {
    pub(crate) fn read(disk: &dyn Disk, layout: &Layout) -> Result<Self, StoreError> {
        let path = layout.queue_state();
        // The version before lets queues use offsets again that they have used since.
        let read = small_file::read_current(disk, &path).map_err(|error| match error {
            StoreError::Unreadable { path, reason } => StoreError::Unreadable {
                path,
                reason: format!(
                    "{reason}; it says where queues go on whose messages have expired and which topics \
                     were deleted. A replica begins anew from its master when its directory is \
                     emptied. Without one put the file back, or remove it and have the version before \
                     count, by which queues may use offsets again and deleted messages come back"
                ),
            },
            other => other,
        });
        let Some(text) = read? else { return Ok(Self::default()) };
        serde_json::from_slice(&text)
            .map_err(|error| StoreError::Unreadable { path, reason: error.to_string() })
    }

    pub(crate) fn write(&self, disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
        small_file::write_json(disk, &layout.queue_state(), self)
    }
}

#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod tests;
