//! Appending changes, applying them, and replaying them at the start.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use weirmq_message::Record;
use weirmq_store::{Appended, NewMessage, ReadLimits, Store, StoreError};

use super::image::{Image, LastRecord};
use super::record::{RecordError, StateRecord};
use crate::delay::DelayProgress;
use crate::groups::Groups;
use crate::offsets::Offsets;
use crate::order_locks::OrderLocks;
use crate::slave_offsets;
use crate::topics::{STATE_TOPIC, Topics};

/// The one queue of the state topic.
pub(super) const STATE_QUEUE: i32 = 0;
/// How much of the state topic one read of the replay takes.
const REPLAY_READ: ReadLimits = ReadLimits { messages: 1024, bytes: 8 << 20 };

/// What a record of state takes beside its body, at most.
const RECORD_BYTES: usize = 256;
/// An image is begun where so many times its size is free: itself, the snapshot that is written behind
/// it, and what is derived from it.
const IMAGE_COPIES: u64 = 3;

/// How long an I/O thread waits for others who change the state. Who appends an image may have to
/// wait for the disk meanwhile.
const TURN_MAX: Duration = Duration::from_millis(1);
/// How long threads that may wait do so for a disk that does not keep up.
const PATIENCE: Duration = Duration::from_secs(5);

/// One of the store's ways to append.
type Append = fn(&Store, &[NewMessage<'_>], &mut Vec<Appended>) -> Result<(), StoreError>;

/// All tables, and the log that they are folded from.
pub(crate) struct State {
    pub topics: Topics,
    pub groups: Groups,
    pub offsets: Offsets,
    pub order_locks: OrderLocks,
    pub delay: DelayProgress,
    store: Store,
    /// Held from the append of a record until it is applied: tables change in the log's order.
    writing: Mutex<Writing>,
    /// What [`State::knows_beginning`] said; it does not become false again.
    knows_beginning: AtomicBool,
    /// Where the newest image begins and ends in the log; both 0 before the first.
    image: Mutex<(u64, u64)>,
}

#[derive(Default)]
struct Writing {
    appended: Vec<Appended>,
    next_image: u64,
    /// Entries of the state topic's queue that the tables contain.
    applied: u64,
    /// The last of them, once this process has read or appended one.
    last: Option<LastRecord>,
    /// Topics whose deletion is in the log while their queues are still there, and where its record ends.
    undeleted: BTreeMap<String, u64>,
    /// Where the last record of this process ends; `None` before the first.
    end: Option<u64>,
    /// Whether the log had no beginning and no image, so that the tables miss something.
    is_incomplete: bool,
    /// The image that is being read.
    unfinished: Option<UnfinishedImage>,
}

/// An image whose end has not been read yet.
struct UnfinishedImage {
    number: u64,
    begin: u64,
    records: Vec<StateRecord>,
}

/// What came of a wish to change the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) is_made: bool,
    /// The position to wait for before anything is promised: also what needed no change may rest
    /// on one that was made a moment ago. `None` when nothing was changed since the start.
    pub(crate) position: Option<u64>,
}

/// Why the state cannot change or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("topic {STATE_TOPIC}, entry {entry}: {error}")]
    Record { entry: u64, error: RecordError },
    #[error("topic {STATE_TOPIC}, entry {entry}: {reason}")]
    Unreadable { entry: u64, reason: String },
}

impl State {
    /// Replays the state that `store` holds, from the snapshot in its directory if there is one.
    pub(crate) fn recover(store: Store, topics: Topics) -> Result<Self, StateError> {
        let state = Self {
            topics,
            groups: Groups::default(),
            offsets: Offsets::default(),
            order_locks: OrderLocks::default(),
            delay: DelayProgress::default(),
            store,
            writing: Mutex::default(),
            knows_beginning: AtomicBool::new(false),
            image: Mutex::default(),
        };
        state.replay()?;
        Ok(state)
    }

    /// Appends and applies what `decide` wants after it looked at the tables, which nobody else
    /// changes meanwhile. `None`: nothing to do. Never waits for the disk:
    /// [`StoreError::Busy`], with nothing done; see [`State::patiently`].
    pub(crate) fn change(
        &self,
        decide: impl FnOnce() -> Option<StateRecord>,
    ) -> Result<Change, StateError> {
        let mut writing = self.turn()?;
        let is_made = match decide() {
            Some(record) => {
                self.make_way(&mut writing, &record)?;
                self.append(&mut writing, &record)?;
                true
            }
            None => false,
        };
        Ok(Change { is_made, position: writing.end })
    }

    /// Does what meets a busy disk again until that has come further, on threads that may wait.
    /// Nobody else who changes the state waits meanwhile.
    pub(crate) fn patiently<T>(
        &self,
        mut act: impl FnMut() -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match act() {
                Err(StateError::Store(StoreError::Busy { .. })) if Instant::now() < until => {
                    self.store.flush()?;
                }
                done => return done,
            }
        }
    }

    /// The right to change the state, unless somebody has it for longer.
    fn turn(&self) -> Result<MutexGuard<'_, Writing>, StateError> {
        let turn = self.writing.try_lock_for(TURN_MAX);
        turn.ok_or(StateError::Store(StoreError::Busy { waited: TURN_MAX }))
    }

    /// Logs that this replica is master from here on, although nobody else may append yet; says
    /// where that record begins. Behind it stand the offsets that were committed and not logged. Where the log
    /// does not take these they are told it with the next ones.
    pub(crate) fn begin_epoch(&self, epoch: u64, replica: u32) -> Result<u64, StateError> {
        let mut writing = self.writing.lock();
        // An image that the master before began and did not end says nothing.
        writing.unfinished = None;
        self.order_locks.renew_all(Instant::now());
        let body = StateRecord::Epoch { epoch, replica }.encode();
        let append = Store::append_while_closed;
        let appended = self.append_body(&mut writing, &body, append)?;
        if let Err(error) = self.append_offsets(&mut writing, append) {
            tracing::warn!(%error, "what was committed here as a slave is logged later");
        }
        Ok(appended.physical_offset)
    }

    /// Applies a change that another replica logged in `record`, which ends at `end` of the log and
    /// is in it by now. Says which topics it changed.
    pub(crate) fn apply_copied(
        &self,
        change: StateRecord,
        record: &Record<'_>,
        end: u64,
    ) -> Result<Vec<String>, StateError> {
        let mut writing = self.writing.lock();
        let changed = match &change {
            StateRecord::Topic { topic } => vec![topic.name.clone()],
            StateRecord::TopicDeleted { name } => vec![name.clone()],
            _ => Vec::new(),
        };
        if writing.applied == 0 && record.queue_offset > 0 {
            // This log begins later than its master's did.
            writing.is_incomplete = true;
        }
        let was_incomplete = writing.is_incomplete;
        if let StateRecord::ImageEnd { .. } = change {
            // The image before protects the log until the new one is on disk.
            self.store.flush()?;
        }
        let deleted = match &change {
            StateRecord::TopicDeleted { name } => Some(name.clone()),
            _ => None,
        };
        self.replay_one(change, record.physical_offset..end, &mut writing);
        writing.applied = record.queue_offset + 1;
        writing.last = Some(LastRecord::of(record));
        writing.end = Some(end);
        // What came out of the log is not news to it.
        self.offsets.take_dirty();
        if let Some(name) = deleted {
            writing.undeleted.insert(name.clone(), end);
            self.finish_deletion(&mut writing, &name)?;
        }
        if was_incomplete && !writing.is_incomplete {
            return Ok(self.topics.logged().iter().map(|topic| topic.name.clone()).collect());
        }
        Ok(changed)
    }

    /// Deletes a topic with its offsets, locks and queues, before anybody can make it anew.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<Change, StateError> {
        let mut writing = self.turn()?;
        let is_made = self.topics.get(name).is_some();
        if is_made {
            let record = StateRecord::TopicDeleted { name: name.to_owned() };
            let end = self.append(&mut writing, &record)?;
            writing.undeleted.insert(name.to_owned(), end);
        }
        self.finish_deletion(&mut writing, name)?;
        Ok(Change { is_made, position: writing.end })
    }

    /// Has nothing of a topic's life before left when a record makes it anew. Before that is in the log:
    /// a start that reads it takes the deletion for done.
    pub(crate) fn make_way_for(&self, change: &StateRecord) -> Result<(), StoreError> {
        self.make_way(&mut self.writing.lock(), change)
    }

    fn make_way(&self, writing: &mut Writing, change: &StateRecord) -> Result<(), StoreError> {
        match change {
            StateRecord::Topic { topic } => self.finish_deletion(writing, &topic.name),
            _ => Ok(()),
        }
    }

    /// Deletes the queues of a topic whose deletion is logged, unless that was done. A full disk may
    /// have refused it when the record was there already.
    fn finish_deletion(&self, writing: &mut Writing, name: &str) -> Result<(), StoreError> {
        if let Some(said_until) = writing.undeleted.get(name) {
            self.store.delete_queues(&[name], *said_until)?;
            writing.undeleted.remove(name);
        }
        Ok(())
    }

    /// The same for all of them.
    pub(super) fn finish_deletions(&self) -> Result<(), StoreError> {
        let mut writing = self.writing.lock();
        let names: Vec<_> = writing.undeleted.keys().cloned().collect();
        names.iter().try_for_each(|name| self.finish_deletion(&mut writing, name))
    }

    /// Deletes the queues of topics that do not exist, except of those that belong to RocketMQ
    /// itself; says which those were. `None`, with nothing done, where tables say less than there is.
    pub(crate) fn delete_unused_queues(&self) -> Result<Option<Vec<String>>, StateError> {
        if self.lacks_beginning() {
            return Ok(None);
        }
        // With the lock, so that none of them is made meanwhile.
        let _writing = self.writing.lock();
        let mut topics = self.store.topics();
        topics.retain(|name| !self.topics.is_system(name) && self.topics.get(name).is_none());
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        self.store.delete_queues(&names, self.store.watermarks().written())?;
        Ok(Some(topics))
    }

    /// Tells the log which offsets were committed since the last time. The result is the position
    /// to wait for: somebody else may have told the log a moment ago. Never waits for the disk, as
    /// [`State::change`].
    pub(crate) fn log_offsets(&self) -> Result<Option<u64>, StateError> {
        self.log_offsets_by(Store::append_now)
    }

    /// The same at a broker's beginning or end, where there is no later: it waits for the disk, and goes
    /// into what has to stay free of one that is short of space.
    pub(crate) fn log_last_offsets(&self) -> Result<(), StateError> {
        self.log_offsets_by(Store::append_from_reserve).map(drop)
    }

    fn log_offsets_by(&self, append: Append) -> Result<Option<u64>, StateError> {
        let mut writing = self.turn()?;
        self.append_offsets(&mut writing, append)?;
        Ok(writing.end)
    }

    fn append_offsets(&self, writing: &mut Writing, append: Append) -> Result<(), StateError> {
        let offsets = self.offsets.take_dirty();
        for chunk in offsets.chunks(super::image::OFFSETS_PER_RECORD) {
            let record = StateRecord::Offsets { offsets: chunk.to_vec() };
            if let Err(error) = self.append_body(writing, &record.encode(), append) {
                self.offsets.put_back(&offsets);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads what was committed at this replica while it was no master, before anything of the log
    /// is hidden. Says whether there is any.
    pub(crate) fn read_slave_offsets(&self) -> Result<bool, StoreError> {
        let offsets = slave_offsets::read(&self.store)?;
        self.offsets.at_slave(|at_slave| {
            for o in &offsets {
                at_slave.commit(&o.group, &o.topic, o.queue, o.offset);
            }
            at_slave.written(offsets, true);
            Ok(!at_slave.is_empty())
        })
    }

    /// Forgets of it what the log says for good, and what is of no queue that `exists`. Does
    /// nothing while somebody else changes the state.
    pub(crate) fn forget_slave_offsets(&self, exists: impl Fn(&str, i32) -> bool) {
        let Some(_writing) = self.writing.try_lock() else { return };
        let marks = self.store.watermarks();
        let safe = marks.visible().min(marks.flushed());
        self.offsets.forget_at_slave(marks.written(), safe, exists);
    }

    /// Appends a complete image, makes it durable, and protects it from retention instead of the
    /// one before, which is all that a crash leaves until then.
    pub(crate) fn append_image(&self) -> Result<Image, StateError> {
        let (image, begin) = self.append_image_only()?;
        self.store.flush()?;
        self.store.protect_image(begin, image.position());
        Ok(image)
    }

    /// The same, and a snapshot, for retention and for the next start. `false`, with nothing done,
    /// while the image before may still be cut off: until it cannot be, another one lets nothing go, and
    /// on a disk that is nearly full there is room for one and not for one a minute.
    pub(crate) fn renew_image(&self) -> Result<bool, StateError> {
        if self.newest_image().1 > self.store.watermarks().safe() {
            return Ok(false);
        }
        self.append_image()?;
        self.write_snapshot()?;
        Ok(true)
    }

    /// Appends a complete image; says also where it begins. On a disk that is short of space too:
    /// without it retention frees nothing. [`StoreError::Full`] if it does not fit; then it is not begun.
    fn append_image_only(&self) -> Result<(Image, u64), StateError> {
        let mut writing = self.writing.lock();
        let number = writing.next_image;
        let image = Image::of(self);
        let bodies: Vec<_> = image.records().iter().map(StateRecord::encode).collect();
        let bytes: usize = bodies.iter().map(|body| body.len() + RECORD_BYTES).sum();
        self.store.check_reserve(IMAGE_COPIES * bytes as u64)?;
        // Nothing may come in between, so this waits for the disk with the turn in hand.
        let mut append =
            |body: &[u8]| self.append_body(&mut writing, body, Store::append_from_reserve);
        let begin = append(&StateRecord::ImageBegin { number }.encode())?.physical_offset;
        for body in &bodies {
            append(body)?;
        }
        let end = append(&StateRecord::ImageEnd { number }.encode())?.end_offset;
        writing.next_image = number + 1;
        *self.image.lock() = (begin, end);
        Ok((image.at(writing.applied, writing.last, end), begin))
    }

    /// Whether the log says everything. It does not when somebody else expired the segments that
    /// held the newest image.
    pub(crate) fn is_complete(&self) -> bool {
        !self.writing.lock().is_incomplete
    }

    /// Whether the log here begins later than the group's and has no image yet of what went before.
    pub(crate) fn lacks_beginning(&self) -> bool {
        let (start, end) = (self.store.min_offset(), self.store.max_offset());
        start > 0 && (start == end || !self.knows_beginning())
    }

    fn knows_beginning(&self) -> bool {
        // What is known once stays so; whoever writes an image has the lock for as long as the disk takes.
        if !self.knows_beginning.load(Ordering::Relaxed) {
            let writing = self.writing.lock();
            let knows = writing.applied > 0 && !writing.is_incomplete;
            self.knows_beginning.store(knows, Ordering::Relaxed);
            return knows;
        }
        true
    }

    /// Whether the log says anything.
    pub(super) fn is_logged(&self) -> bool {
        self.writing.lock().applied > 0
    }

    /// Applies changes that somebody else made while this broker did not run, and logs the state
    /// that results as one image, durably; the queues of topics that are deleted go with them.
    /// Without `keep` the changes are all there is.
    pub(super) fn take_over(&self, changes: &[StateRecord], keep: bool) -> Result<(), StateError> {
        if !keep {
            self.clear();
        }
        changes.iter().for_each(|change| self.apply(change));
        // What was deleted before they made it anew is not theirs to lose.
        let mut writing = self.writing.lock();
        for change in changes {
            if let StateRecord::Topic { topic } = change {
                writing.undeleted.remove(&topic.name);
            }
        }
        drop(writing);
        let end = self.append_image()?.position();
        self.writing.lock().is_incomplete = false;
        // After the flush: whoever comes here again after a crash in between finds the same
        // changes. Apache may not have got as far as its own queues.
        let deleted = changes.iter().filter_map(|change| match change {
            StateRecord::TopicDeleted { name } => Some(name.as_str()),
            _ => None,
        });
        let is_gone = |name: &&str| self.topics.get(name).is_none() && !self.topics.is_system(name);
        let gone: Vec<&str> = deleted.filter(is_gone).collect();
        Ok(self.store.delete_queues(&gone, end)?)
    }

    /// Bytes of log behind the newest image.
    pub(crate) fn log_since_image(&self) -> u64 {
        let written = self.store.watermarks().written();
        written.saturating_sub(self.image.lock().1)
    }

    /// Notes the newest image, which is on disk. Retention keeps the log from its beginning on.
    pub(super) fn image_is(&self, begin: u64, end: u64) {
        *self.image.lock() = (begin, end);
        if end > 0 {
            self.store.protect_image(begin, end);
        }
    }

    pub(crate) fn newest_image(&self) -> (u64, u64) {
        *self.image.lock()
    }

    /// Appends a record for which nobody waits for the disk, and applies it; says where it ends.
    fn append(&self, writing: &mut Writing, record: &StateRecord) -> Result<u64, StateError> {
        let end = self.append_body(writing, &record.encode(), Store::append_now)?.end_offset;
        self.apply(record);
        Ok(end)
    }

    fn append_body(
        &self,
        writing: &mut Writing,
        body: &[u8],
        append: Append,
    ) -> Result<Appended, StateError> {
        let message = NewMessage::plain(STATE_TOPIC, STATE_QUEUE, body);
        append(&self.store, &[message], &mut writing.appended)?;
        let appended = writing.appended[0];
        writing.applied = appended.queue_offset + 1;
        let Appended { physical_offset, store_timestamp, .. } = appended;
        writing.last = Some(LastRecord::new(physical_offset, store_timestamp, body));
        writing.end = Some(appended.end_offset);
        Ok(appended)
    }

    fn apply(&self, record: &StateRecord) {
        match record {
            StateRecord::Topic { topic } => self.topics.put(topic.clone()),
            StateRecord::TopicDeleted { name } => {
                self.topics.remove(name);
                self.offsets.remove_topic(name);
                self.order_locks.remove_topic(name);
            }
            StateRecord::Group { group } => self.groups.put((**group).clone()),
            StateRecord::GroupDeleted { name, with_offsets } => {
                self.groups.remove(name);
                self.order_locks.remove_group(name);
                if *with_offsets {
                    self.offsets.remove_group(name);
                }
            }
            StateRecord::Offsets { offsets } => self.offsets.apply(offsets),
            StateRecord::QueueLock { group, topic, queue, owner } => {
                self.order_locks.apply(group, topic, *queue, owner.as_deref());
            }
            StateRecord::DelayProgress { level, offset } => self.delay.apply(*level, *offset),
            StateRecord::Epoch { .. }
            | StateRecord::ImageBegin { .. }
            | StateRecord::ImageEnd { .. } => {}
        }
    }

    fn clear(&self) {
        self.topics.clear_logged();
        self.groups.clear_logged();
        self.offsets.clear();
        self.order_locks.clear();
        self.delay.clear();
    }

    fn replay(&self) -> Result<(), StateError> {
        let mut writing = self.writing.lock();
        // Also where the log says nothing of the state any more: it will again.
        let snapshot = super::snapshot::load(&self.store)?;
        let Some(range) = self.store.queue_range(STATE_TOPIC, STATE_QUEUE) else {
            return Ok(());
        };
        let mut next = range.min;
        writing.is_incomplete = range.min > 0;
        if let Some(snapshot) = snapshot {
            snapshot.records().iter().for_each(|record| self.apply(record));
            (next, writing.last) = (snapshot.applied(), snapshot.last());
            let (begin, end) = snapshot.newest_image();
            self.image_is(begin, end);
            writing.is_incomplete = false;
        }
        let mut bodies = Vec::new();
        while next < range.max {
            bodies.clear();
            let mut all = |_: &weirmq_store::QueueEntry| true;
            let read = self.store.read_queue(
                STATE_TOPIC,
                STATE_QUEUE,
                next,
                REPLAY_READ,
                &mut all,
                &mut bodies,
            )?;
            if read.next <= next {
                let reason = "the log does not hold what the queue points to".to_owned();
                return Err(StateError::Unreadable { entry: next, reason });
            }
            for message in weirmq_message::record::records(&bodies) {
                let message = message.map_err(|error| StateError::Unreadable {
                    entry: next,
                    reason: error.to_string(),
                })?;
                let end = message.physical_offset + message.encoded_len() as u64;
                let record = StateRecord::decode(message.body)
                    .map_err(|error| StateError::Record { entry: message.queue_offset, error })?;
                match &record {
                    StateRecord::TopicDeleted { name } => {
                        writing.undeleted.insert(name.clone(), end)
                    }
                    StateRecord::Topic { topic } => writing.undeleted.remove(&topic.name),
                    _ => None,
                };
                writing.last = Some(LastRecord::of(&message));
                self.replay_one(record, message.physical_offset..end, &mut writing);
            }
            next = read.next;
        }
        writing.applied = next;
        // What came out of the log is not news to it.
        self.offsets.take_dirty();
        drop(writing);
        match self.store.stats().recovery.apache {
            // It may have made topics anew: its files say so.
            Some(_) => Ok(()),
            None => self.finish_deletions_of_before(),
        }
    }

    /// Deletes the queues of topics whose deletion is logged: the process may have ended in between.
    pub(crate) fn finish_deletions_of_before(&self) -> Result<(), StateError> {
        match self.finish_deletions() {
            // A full disk must open.
            Err(error) if error.is_no_space() => {
                tracing::warn!(%error, "queues of deleted topics are deleted later");
                Ok(())
            }
            finished => Ok(finished?),
        }
    }

    fn replay_one(&self, record: StateRecord, at: Range<u64>, writing: &mut Writing) {
        match (record, writing.unfinished.take()) {
            (StateRecord::ImageBegin { number }, _) => {
                let (begin, records) = (at.start, Vec::new());
                writing.unfinished = Some(UnfinishedImage { number, begin, records });
            }
            (StateRecord::ImageEnd { number }, Some(image)) if number == image.number => {
                if writing.is_incomplete {
                    // Replaces what a log without its beginning left in the tables.
                    self.clear();
                    image.records.iter().for_each(|record| self.apply(record));
                }
                self.image_is(image.begin, at.end);
                writing.is_incomplete = false;
                writing.next_image = number + 1;
            }
            (StateRecord::ImageEnd { .. }, _) => {}
            (record, image) => {
                // An image that never ended changes nothing: its records say what already holds.
                self.apply(&record);
                writing.unfinished = image.map(|mut image| {
                    image.records.push(record);
                    image
                });
            }
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// A copy of the whole state, for a snapshot.
    pub(super) fn image(&self) -> Image {
        let writing = self.writing.lock();
        Image::of(self).at(writing.applied, writing.last, self.store.watermarks().written())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use weirmq_store::{FlushMode, ManualClock, SimulatedDisk, StoreConfig, Upkeep};

    use super::*;
    use crate::topics::Topic;

    fn recover(disk: SimulatedDisk, clock: &Arc<ManualClock>) -> State {
        let config = StoreConfig {
            directory: "/s".into(),
            segment_bytes: 8192,
            message_bytes_max: 2000,
            flush: FlushMode::ASYNC,
            upkeep: Upkeep {
                retention: Duration::ZERO,
                free_bytes_min: Some(0),
                ..Upkeep::default()
            },
            threads: false,
            ..StoreConfig::default()
        };
        let (store, _) = Store::open(config, Arc::new(disk), clock.clone()).unwrap();
        State::recover(store, Topics::with_system_topics("c", "b", None)).unwrap()
    }

    fn append_elsewhere(state: &State, topic: &str, count: usize) {
        let message = NewMessage::plain(topic, 0, &[7; 1000]);
        for _ in 0..count {
            state.store.append(&[message], &mut Vec::new()).unwrap();
        }
    }

    #[test]
    fn the_image_before_goes_only_when_the_new_one_is_on_disk() {
        let disk = SimulatedDisk::new();
        let clock = Arc::new(ManualClock::at_ms(1000));
        let state = recover(disk.clone(), &clock);
        state.append_image().unwrap();
        append_elsewhere(&state, "t", 30);
        state.store.flush().unwrap();
        state.append_image().unwrap();
        clock.advance_ms(60_000);
        state.store.maintain().unwrap();
        assert!(state.store.min_offset() > 0, "the first image has expired");
        for seed in 0..20 {
            assert!(recover(disk.crash(seed), &clock).is_complete(), "seed {seed}");
        }
    }

    /// A state that knows topic `t`, of one queue.
    fn with_a_topic() -> (SimulatedDisk, Arc<ManualClock>, State) {
        let disk = SimulatedDisk::new();
        let clock = Arc::new(ManualClock::at_ms(1000));
        let state = recover(disk.clone(), &clock);
        let topic = Topic::new("t", 1);
        state.change(|| Some(StateRecord::Topic { topic })).unwrap();
        (disk, clock, state)
    }

    /// Nine segments of messages that have expired, and no image, on a disk that is nearly full.
    fn full_without_an_image(free: u64) -> (Arc<ManualClock>, State) {
        let (disk, clock, state) = with_a_topic();
        append_elsewhere(&state, "t", 60);
        state.store.flush().unwrap();
        state.store.maintain().unwrap();
        clock.advance_ms(60_000);
        let upkeep = Upkeep {
            retention: Duration::ZERO,
            free_bytes_min: Some(60 << 10),
            spare_segments_max: 0,
            ..Upkeep::default()
        };
        state.store.set_upkeep(upkeep);
        disk.limit_space(Some(free));
        state.store.maintain().unwrap();
        assert_eq!(state.store.min_offset(), 0, "nothing is protected yet, so all of it is");
        let refused = state.store.append(&[NewMessage::plain("t", 0, b"x")], &mut Vec::new());
        assert!(matches!(refused, Err(StoreError::Full { .. })));
        (clock, state)
    }

    #[test]
    fn the_first_image_goes_into_what_has_to_stay_free_and_lets_retention_free_the_rest() {
        let (clock, state) = full_without_an_image(50 << 10);
        assert!(state.renew_image().unwrap());
        state.store.maintain().unwrap();
        assert!(state.store.min_offset() > 0);
        // The disk is asked once a second.
        clock.advance_ms(1000);
        append_elsewhere(&state, "t", 1);
    }

    /// What docs/store-format.md says of how much of the disk that is kept free images take.
    #[test]
    fn an_image_is_as_long_as_the_page_says() {
        let config = StoreConfig {
            directory: "/s".into(),
            segment_bytes: 1 << 20,
            message_bytes_max: 200 << 10,
            upkeep: Upkeep { free_bytes_min: Some(0), ..Upkeep::default() },
            threads: false,
            ..StoreConfig::default()
        };
        let clock = Arc::new(ManualClock::at_ms(1000));
        let (store, _) = Store::open(config, Arc::new(SimulatedDisk::new()), clock).unwrap();
        let state = State::recover(store, Topics::with_system_topics("c", "b", None)).unwrap();
        let mut before = 0;
        let mut is_within = |records: Vec<StateRecord>, bytes_each: usize, count: usize| {
            for record in records {
                assert!(state.change(|| Some(record)).unwrap().is_made);
            }
            state.append_image().unwrap();
            let (begin, end) = state.newest_image();
            let grown = (end - begin - before) as usize;
            before = end - begin;
            assert!(grown <= bytes_each * count, "{grown} bytes for {count}");
        };
        is_within(Vec::new(), 500, 1);
        let name = |n: i32| format!("name-{n}");
        let topic = |n| StateRecord::Topic { topic: Topic::new(name(n), 8) };
        is_within((10..90).map(topic).collect(), 400 + 7, 80);
        let group = |n| {
            let group_name = name(n);
            let group =
                weirmq_remoting::body::SubscriptionGroupConfig { group_name, ..Default::default() };
            StateRecord::Group { group: Box::new(group) }
        };
        is_within((10..90).map(group).collect(), 800 + 7, 80);
        let offset = |n| crate::offsets::CommittedOffset {
            group: name(n),
            topic: name(n),
            queue: 7,
            offset: i64::MAX,
        };
        let offsets = (10..90).map(offset).collect();
        is_within(vec![StateRecord::Offsets { offsets }], 100 + 14, 80);
    }

    #[test]
    fn an_image_that_does_not_fit_is_not_begun() {
        let (_, state) = full_without_an_image(1000);
        let end = state.store.max_offset();
        let refused = state.renew_image();
        assert!(matches!(refused, Err(StateError::Store(StoreError::Full { .. }))));
        assert_eq!(state.store.max_offset(), end);
    }

    #[test]
    fn no_image_follows_one_that_may_still_be_cut_off() {
        let (_, state) = full_without_an_image(50 << 10);
        state.store.hide_unconfirmed();
        assert!(state.renew_image().unwrap());
        let end = state.store.max_offset();
        assert!(!state.renew_image().unwrap());
        assert_eq!(state.store.max_offset(), end);
        state.store.watermarks().confirm(end);
        assert!(state.renew_image().unwrap());
    }

    #[test]
    fn a_topic_whose_deletion_the_log_lost_has_its_messages() {
        let (disk, clock, state) = with_a_topic();
        append_elsewhere(&state, "t", 17);
        state.store.flush().unwrap();
        let deleted = state.delete_topic("t").unwrap().position.unwrap();
        assert!(state.store.queue_range("t", 0).is_none());
        state.store.maintain().unwrap();
        let mut lost = 0;
        for seed in 0..20 {
            let state = recover(disk.crash(seed), &clock);
            let is_there = state.topics.get("t").is_some();
            assert_eq!(is_there, state.store.watermarks().written() < deleted, "seed {seed}");
            let max = state.store.queue_range("t", 0).map(|range| range.max);
            assert_eq!(max, is_there.then_some(17), "seed {seed}");
            lost += u32::from(is_there);
        }
        assert!((1..20).contains(&lost), "{lost} of 20 crashes lost the record");
    }

    /// A topic with 17 messages whose deletion is in the log of a disk that has no room for the rest.
    fn half_deleted() -> (SimulatedDisk, Arc<ManualClock>, State) {
        let (disk, clock, state) = with_a_topic();
        append_elsewhere(&state, "t", 17);
        while state.store.max_offset() % 4096 > 3000 {
            append_elsewhere(&state, "filler", 1);
        }
        disk.limit_space(Some(0));
        let refused = state.delete_topic("t");
        assert!(matches!(refused, Err(StateError::Store(error)) if error.is_no_space()));
        assert!(state.topics.get("t").is_none());
        assert_eq!(state.store.queue_range("t", 0).unwrap().max, 17);
        (disk, clock, state)
    }

    #[test]
    fn a_topic_is_made_anew_only_when_the_queues_of_its_life_before_are_gone() {
        let (disk, clock, mut state) = half_deleted();
        let make = |state: &State| {
            let topic = Topic::new("t", 1);
            state.change(|| Some(StateRecord::Topic { topic }))
        };
        for _ in 0..2 {
            let refused = make(&state);
            assert!(matches!(refused, Err(StateError::Store(error)) if error.is_no_space()));
            assert!(state.write_snapshot().is_err());
            drop(state);
            state = recover(disk.clone(), &clock);
        }
        disk.limit_space(None);
        assert!(make(&state).unwrap().is_made);
        append_elsewhere(&state, "t", 1);
        for _ in 0..2 {
            assert_eq!(state.store.queue_range("t", 0).unwrap().max, 1);
            drop(state);
            state = recover(disk.clone(), &clock);
        }
    }

    #[test]
    fn a_deletion_that_failed_halfway_is_finished_by_the_next() {
        let (disk, _, state) = half_deleted();
        assert!(state.delete_topic("t").is_err());
        disk.limit_space(None);
        assert!(!state.delete_topic("t").unwrap().is_made);
        assert!(state.store.queue_range("t", 0).is_none());
    }

    #[test]
    fn a_topic_that_somebody_made_anew_meanwhile_keeps_its_messages() {
        let state = recover(SimulatedDisk::new(), &Arc::new(ManualClock::at_ms(1000)));
        append_elsewhere(&state, "t", 3);
        let end = state.store.watermarks().written();
        state.writing.lock().undeleted.insert("t".into(), end);
        let topic = StateRecord::Topic { topic: Topic::new("t", 4) };
        state.take_over(&[topic], true).unwrap();
        state.finish_deletions().unwrap();
        assert_eq!(state.store.queue_range("t", 0).map(|range| range.max), Some(3));
    }

    #[test]
    fn only_queues_of_topics_that_nobody_knows_are_unused() {
        let state = recover(SimulatedDisk::new(), &Arc::new(ManualClock::at_ms(1000)));
        let topics = ["gone", "gone-too", "RMQ_SYS_TRANS_HALF_TOPIC", "b"];
        topics.iter().for_each(|topic| append_elsewhere(&state, topic, 1));
        let mut deleted = state.delete_unused_queues().unwrap().unwrap();
        deleted.sort();
        assert_eq!(deleted, ["gone", "gone-too"]);
        let is_there = |topic: &&&str| state.store.queue_range(topic, 0).is_some();
        assert_eq!(topics.iter().filter(is_there).count(), 2, "b is the broker's own");
    }
}
