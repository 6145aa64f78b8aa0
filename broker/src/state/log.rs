//! Appending changes, applying them, and replaying them at the start.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use weirmq_message::Record;
use weirmq_store::{Appended, KeySource, NewMessage, ReadLimits, Store, StoreError};

use super::image::Image;
use super::record::{RecordError, StateRecord};
use crate::delay::DelayProgress;
use crate::groups::Groups;
use crate::offsets::Offsets;
use crate::order_locks::OrderLocks;
use crate::topics::{STATE_TOPIC, Topics};

/// The one queue of the state topic.
const STATE_QUEUE: i32 = 0;
/// How much of the state topic one read of the replay takes.
const REPLAY_READ: ReadLimits = ReadLimits { messages: 1024, bytes: 8 << 20 };

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
    /// Position in the log up to which the newest image reaches.
    image_at: AtomicU64,
}

#[derive(Default)]
struct Writing {
    appended: Vec<Appended>,
    next_image: u64,
    /// Entries of the state topic's queue that the tables contain.
    applied: u64,
    /// Where the newest record of offsets ends; `None` since the start.
    offsets_end: Option<u64>,
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
            image_at: AtomicU64::new(0),
        };
        state.replay()?;
        Ok(state)
    }

    /// Appends and applies what `decide` wants after it looked at the tables, which nobody else
    /// changes meanwhile. `None`: nothing to do. The result is the position to wait for.
    pub(crate) fn change(
        &self,
        decide: impl FnOnce() -> Option<StateRecord>,
    ) -> Result<Option<u64>, StateError> {
        let mut writing = self.writing.lock();
        match decide() {
            Some(record) => self.append(&mut writing, &record).map(Some),
            None => Ok(None),
        }
    }

    /// Tells the log which offsets were committed since the last time. The result is the position
    /// to wait for: somebody else may have told the log a moment ago. `None` when nothing was told
    /// since the start.
    pub(crate) fn log_offsets(&self) -> Result<Option<u64>, StateError> {
        let mut writing = self.writing.lock();
        let offsets = self.offsets.take_dirty();
        for chunk in offsets.chunks(super::image::OFFSETS_PER_RECORD) {
            let record = StateRecord::Offsets { offsets: chunk.to_vec() };
            match self.append_only(&mut writing, &record) {
                Ok(position) => writing.offsets_end = Some(position),
                Err(error) => {
                    self.offsets.put_back(&offsets);
                    return Err(error);
                }
            }
        }
        Ok(writing.offsets_end)
    }

    /// Appends a complete image and protects it from retention.
    pub(crate) fn append_image(&self) -> Result<Image, StateError> {
        let mut writing = self.writing.lock();
        let number = writing.next_image;
        let image = Image::of(self);
        let begin = self.append_only(&mut writing, &StateRecord::ImageBegin { number })?;
        for record in image.records() {
            self.append_only(&mut writing, record)?;
        }
        let end = self.append_only(&mut writing, &StateRecord::ImageEnd { number })?;
        writing.next_image = number + 1;
        self.image_at.store(end, Ordering::Relaxed);
        self.store.protect_from(begin);
        Ok(image.at(writing.applied, end))
    }

    /// Bytes of log behind the newest image.
    pub(crate) fn log_since_image(&self) -> u64 {
        let written = self.store.watermarks().written();
        written.saturating_sub(self.image_at.load(Ordering::Relaxed))
    }

    fn append(&self, writing: &mut Writing, record: &StateRecord) -> Result<u64, StateError> {
        let end = self.append_only(writing, record)?;
        self.apply(record);
        Ok(end)
    }

    fn append_only(&self, writing: &mut Writing, record: &StateRecord) -> Result<u64, StateError> {
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let body = record.encode();
        let message = NewMessage {
            topic: STATE_TOPIC,
            queue_id: STATE_QUEUE,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            born_host: nobody,
            store_host: nobody,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &body,
            properties: b"",
            tag_hash: 0,
            index_keys: KeySource::None,
            dispatch: true,
        };
        self.store.append(&[message], &mut writing.appended)?;
        let appended = writing.appended[0];
        writing.applied = appended.queue_offset + 1;
        Ok(appended.end_offset)
    }

    fn apply(&self, record: &StateRecord) {
        match record {
            StateRecord::Topic { topic } => self.topics.put(topic.clone()),
            StateRecord::TopicDeleted { name } => {
                self.topics.remove(name);
                self.offsets.remove_topic(name);
            }
            StateRecord::Group { group } => self.groups.put((**group).clone()),
            StateRecord::GroupDeleted { name, with_offsets } => {
                self.groups.remove(name);
                if *with_offsets {
                    self.offsets.remove_group(name);
                }
            }
            StateRecord::Offsets { offsets } => self.offsets.apply(offsets),
            StateRecord::QueueLock { group, topic, queue, owner } => {
                self.order_locks.apply(group, topic, *queue, owner.as_deref());
            }
            StateRecord::DelayProgress { level, offset } => self.delay.apply(*level, *offset),
            StateRecord::ImageBegin { .. } | StateRecord::ImageEnd { .. } => {}
        }
    }

    fn clear(&self) {
        self.topics.replace(Vec::new());
        self.groups.replace(Vec::new());
        self.offsets.clear();
        self.order_locks.clear();
        self.delay.clear();
    }

    fn replay(&self) -> Result<(), StateError> {
        let mut writing = self.writing.lock();
        let Some(range) = self.store.queue_range(STATE_TOPIC, STATE_QUEUE) else {
            return Ok(());
        };
        let mut next = range.min;
        if let Some(snapshot) = super::snapshot::load(&self.store, &range) {
            snapshot.records().iter().for_each(|record| self.apply(record));
            next = snapshot.applied();
        }
        let mut unfinished: Option<(u64, Vec<StateRecord>)> = None;
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
                self.replay_one(&message, end, &mut writing, &mut unfinished)?;
            }
            next = read.next;
        }
        writing.applied = next;
        // What came out of the log is not news to it.
        self.offsets.take_dirty();
        Ok(())
    }

    fn replay_one(
        &self,
        message: &Record<'_>,
        end: u64,
        writing: &mut Writing,
        unfinished: &mut Option<(u64, Vec<StateRecord>)>,
    ) -> Result<(), StateError> {
        let record = StateRecord::decode(message.body)
            .map_err(|error| StateError::Record { entry: message.queue_offset, error })?;
        match (&record, &mut *unfinished) {
            (StateRecord::ImageBegin { number }, _) => {
                self.store.protect_from(message.physical_offset);
                *unfinished = Some((*number, Vec::new()));
            }
            (StateRecord::ImageEnd { number }, Some((begun, records))) if number == begun => {
                // Replaces whatever an incomplete beginning of the log left in the tables.
                self.clear();
                records.iter().for_each(|record| self.apply(record));
                *unfinished = None;
                writing.next_image = number + 1;
                self.image_at.store(end, Ordering::Relaxed);
            }
            (StateRecord::ImageEnd { .. }, _) => {}
            (_, Some((_, records))) => {
                // An image that never ended changes nothing: its records say what already holds.
                self.apply(&record);
                records.push(record);
            }
            (_, None) => self.apply(&record),
        }
        Ok(())
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// A copy of the whole state, for a snapshot.
    pub(super) fn image(&self) -> Image {
        let writing = self.writing.lock();
        Image::of(self).at(writing.applied, self.store.watermarks().written())
    }
}
