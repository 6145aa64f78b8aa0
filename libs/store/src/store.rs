//! The store as its users see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::append::{Appender, Gate};
use crate::background::{self, Background};
use crate::clock::Clock;
use crate::commit_log::CommitLog;
use crate::config::{StoreConfig, Upkeep};
use crate::consume_queue::{Queue, QueueRange};
use crate::disk::Disk;
use crate::disk_watch::DiskWatch;
use crate::error::StoreError;
use crate::flush::Flusher;
use crate::format::{Format, Layout};
use crate::log_copy::LogRead;
use crate::message::{Appended, NewMessage};
use crate::proof::OpenProof;
use crate::query::Boundary;
use crate::queue_file::QueueEntry;
use crate::queue_table::{QueueState, QueueTable};
use crate::read::{QueueRead, ReadLimits};
use crate::recent::Recent;
use crate::recover::RecoveryReport;
use crate::repair::Suspects;
use crate::retention::RetentionClock;
use crate::scrub::{DamageListener, DamagedRange, Scrub};
use crate::small_file;
use crate::spare::SpareSegments;
use crate::watermarks::Watermarks;
use crate::zero_ahead::ZeroAhead;

/// A CommitLog with its queues and index. Clones are the same store.
///
/// Dropping the last clone without [`Store::close`] is like the death of the process: everything
/// written is found again, and the next open says that the stop was not clean.
///
/// Order of locks: guests, small files, append lock, zero ahead, flushing, proof, queue state, queue table,
/// queue, queue file; each may be taken without those before it.
#[derive(Clone)]
pub struct Store {
    running: Arc<Running>,
}

/// The store and its threads, which end with the last clone.
struct Running {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads share.
pub(crate) struct Inner {
    /// As it was opened, so not for its upkeep.
    pub(crate) config: StoreConfig,
    pub(crate) upkeep: RwLock<Arc<Upkeep>>,
    pub(crate) layout: Layout,
    pub(crate) format: Format,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: CommitLog,
    pub(crate) queues: QueueTable,
    pub(crate) queue_state: Mutex<QueueState>,
    pub(crate) marks: Watermarks,
    /// The append lock.
    pub(crate) appender: Mutex<Appender>,
    pub(crate) zero_ahead: ZeroAhead,
    pub(crate) proof: Mutex<OpenProof>,
    pub(crate) spares: SpareSegments,
    pub(crate) retention_clock: Mutex<RetentionClock>,
    /// The start of a segment that left the log while its files may not all be gone.
    pub(crate) left_behind: Mutex<Option<u64>>,
    pub(crate) flusher: Flusher,
    pub(crate) background: Background,
    pub(crate) disk_watch: DiskWatch,
    /// Called when retention wants what is protected.
    pub(crate) protection_listener: RwLock<Option<Box<dyn Fn() + Send + Sync>>>,
    pub(crate) scrub: Scrub,
    pub(crate) suspects: Suspects,
    /// Held by those who write into the directory on threads that nobody joins: closing waits for them,
    /// because what is in it may be changed or opened again then.
    pub(crate) guests: RwLock<()>,
    /// Held by who writes a small file of the store's user.
    pub(crate) small_files: Mutex<()>,
    pub(crate) recent: Recent,
    /// Called after each append.
    pub(crate) append_listener: RwLock<Option<Box<dyn Fn() + Send + Sync>>>,
    /// Images that take the place of what is protected, oldest first, once they cannot be cut off
    /// any more: where each begins and ends.
    pub(crate) protected_images: Mutex<std::collections::VecDeque<(u64, u64)>>,
    /// Retention keeps everything from here on.
    pub(crate) protected_from: AtomicU64,
    /// Whether somebody asked for what has expired to be deleted, and some of it was protected.
    pub(crate) expiry_waits: AtomicBool,
    pub(crate) is_closed: AtomicBool,
    pub(crate) recovery: RecoveryReport,
    pub(crate) directory_lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// Sizes and counts, for metrics and humans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStats {
    pub segments: usize,
    /// Expired segments that wait for their next life.
    pub spare_segments: usize,
    /// First position of the log.
    pub min_offset: u64,
    /// Where the next record goes.
    pub max_offset: u64,
    pub unflushed_bytes: u64,
    pub queues: usize,
    /// Records that are in the log and not yet in queues and index. Always 0: they get there in
    /// the same step.
    pub dispatch_behind_bytes: u64,
    /// Free bytes of the disk when somebody last looked.
    pub disk_free: u64,
    /// All bytes of the disk.
    pub disk_total: u64,
    /// Bytes of the log that are known to be damaged.
    pub damaged_bytes: u64,
    /// Bytes of damaged blocks that were written again since the store was opened.
    pub repaired_bytes: u64,
    /// Bytes that the scrub compared with their checksums since the store was opened.
    pub scrubbed_bytes: u64,
    /// How often the scrub has come to the end of the log since then.
    pub scrub_passes: u64,
    pub recovery: RecoveryReport,
}

impl Store {
    /// Opens the store in a directory, or makes one there, and starts its threads.
    ///
    /// # Errors
    /// [`StoreError::Config`], [`StoreError::InUse`], [`StoreError::OtherOwner`],
    /// [`StoreError::NewerFormat`], [`StoreError::OtherStore`] before anything is changed; [`StoreError::Damaged`] when promised
    /// records are gone, with the directory left as it is.
    pub fn open(
        config: StoreConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, RecoveryReport), StoreError> {
        config.validate()?;
        let root = config.directory.clone();
        let inner = Inner::open(config, disk, clock).map_err(|error| error.name_owner(&root))?;
        let inner = Arc::new(inner);
        let report = inner.recovery.clone();
        let mut threads = Vec::new();
        if inner.config.threads {
            threads.push(spawn("store-flush", &inner, Inner::run_flush_thread)?);
            threads.push(spawn("store-background", &inner, Inner::run_background_thread)?);
            threads.push(spawn("store-ahead", &inner, Inner::run_announcement_thread)?);
        }
        let running = Arc::new(Running { inner, threads: Mutex::new(threads) });
        Ok((Self { running }, report))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.running.inner
    }

    /// Appends messages in order, all or none, and says where each landed.
    ///
    /// `appended` is cleared first and then has one entry per message, in the same order. On
    /// return the records are in the page cache: they survive `kill -9`, not a power cut; wait for
    /// [`Watermarks::flushed`] to reach `end_offset` for that.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Full`], [`StoreError::Busy`] and
    /// [`StoreError::Io`] with nothing written; [`StoreError::Poisoned`] for ever after a failed
    /// write-back. In all cases `appended` is empty.
    pub fn append(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.inner().append(messages, appended)
    }

    /// The same as [`Store::append`] for threads that must not wait for the disk: where that would
    /// wait for it to take unflushed bytes, this is [`StoreError::Busy`] at once.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_now(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.inner().append_now(messages, appended)
    }

    /// Whether so many bytes may run ahead of the disk now, with something to spare for those who
    /// do not ask. An answer for the moment: who asks first may come second.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.inner().has_room(bytes)
    }

    pub fn watermarks(&self) -> &Watermarks {
        &self.inner().marks
    }

    /// Sets whom to call after each flush, with the flushed position, on the flush thread. It is
    /// also called once, with the position unchanged, when the store is poisoned, then by whoever
    /// met the failure. It must not block, append, or own a clone of the store.
    pub fn set_flush_listener(&self, listener: Box<dyn Fn(u64) + Send + Sync>) {
        self.inner().flusher.set_listener(listener);
    }

    /// Sets whom to call after each append, by whoever appended. It must not block, append, or own
    /// a clone of the store.
    pub fn set_append_listener(&self, listener: Box<dyn Fn() + Send + Sync>) {
        *self.inner().append_listener.write() = Some(listener);
    }

    /// Lets nobody see more of the log than what [`Watermarks::confirm`] says from now on, which is
    /// nothing at first. For a replica, before it serves anybody.
    pub fn hide_unconfirmed(&self) {
        let inner = self.inner();
        // With both locks, so that neither an append nor a flush makes anything visible meanwhile.
        let _appender = inner.appender.lock();
        let _flushing = inner.flusher.flushing.lock();
        inner.marks.hide_unconfirmed();
        inner.queues.all().iter().for_each(|queue| queue.hide_all());
    }

    /// Lets messages be appended until [`crate::Clock::uptime`] says `until`, for ever if nothing.
    /// A new store is open for ever.
    pub fn open_for_appends(&self, until: Option<Duration>) {
        let gate = until.map_or(Gate::Open, Gate::OpenUntil);
        self.inner().appender.lock().set_gate(gate);
    }

    /// Whether an append would not be refused with [`StoreError::NotMaster`] now: for what only a master
    /// does, and does without an append.
    pub fn is_open_for_appends(&self) -> bool {
        self.inner().is_open_for_appends()
    }

    /// Has appends refused with [`StoreError::NotMaster`], and says where the log ends: no append is
    /// under way any more. Copies are taken on.
    pub fn close_for_appends(&self) -> u64 {
        let mut appender = self.inner().appender.lock();
        appender.set_gate(Gate::Closed);
        appender.position()
    }

    /// Appends although [`Store::close_for_appends`] was called, and also when the disk is short of
    /// space: what a master's time begins with, without which nobody is served.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_while_closed(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.inner().append_while_closed(messages, appended)
    }

    /// Appends also when less of the disk is free than has to stay ([`Upkeep::free_bytes_min`]): what
    /// has to be in the log before retention may delete anything of it, or before the directory is of
    /// any use. Ask [`Store::check_reserve`] before the first record of several.
    ///
    /// # Errors
    /// As [`Store::append`]; [`StoreError::Full`] only where the disk itself has no room.
    pub fn append_from_reserve(
        &self,
        messages: &[NewMessage<'_>],
        appended: &mut Vec<Appended>,
    ) -> Result<(), StoreError> {
        self.inner().append_from_reserve(messages, appended)
    }

    /// Whether so many bytes are free of the disk, what has to stay free included.
    ///
    /// # Errors
    /// [`StoreError::Full`] if not; [`StoreError::Io`] if the disk does not say.
    pub fn check_reserve(&self, bytes: u64) -> Result<(), StoreError> {
        self.inner().check_reserve(bytes)
    }

    /// Appends whole records of the log from `from` on to `out`, as they stand there, to about
    /// `bytes_max`: at least one if there is one, also if it is not visible. Where a segment ends
    /// its padding's head comes last. Unless the read `may_wait` the disk is not asked.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Damaged`] when the records are not what was written.
    /// Nothing was appended to `out` then.
    pub fn read_log(
        &self,
        from: u64,
        bytes_max: usize,
        may_wait: bool,
        out: &mut Vec<u8>,
    ) -> Result<LogRead, StoreError> {
        self.inner().check_readable()?;
        self.inner().read_log(from, bytes_max, may_wait, out)
    }

    /// Appends what [`Store::read_log`] of another replica gave for `position`, byte for byte, with
    /// queue entries and keys as if it had been appended here. Says where the log ends now.
    ///
    /// # Errors
    /// [`StoreError::NoContinuation`] where `bytes` are not the records that follow the log's end;
    /// else as [`Store::append`], also [`StoreError::TooLarge`] for a record that this store would not
    /// take. In all cases nothing was written.
    pub fn append_copy(&self, position: u64, bytes: &[u8]) -> Result<u64, StoreError> {
        self.inner().append_copy(position, bytes)
    }

    /// Changes how the store looks after itself, to what [`StoreConfig::validate`] would let through:
    /// from the next look on, which is at most a minute away (10 minutes for the scrub).
    pub fn set_upkeep(&self, upkeep: Upkeep) {
        self.inner().set_upkeep(upkeep);
    }

    /// The longest record that the store takes, in bytes.
    pub fn record_bytes_max(&self) -> usize {
        self.inner().config.taken_record_bytes_max()
    }

    /// Length of a log segment.
    pub fn segment_bytes(&self) -> u64 {
        self.inner().config.segment_bytes
    }

    /// Where the store lies.
    pub fn directory(&self) -> &std::path::Path {
        &self.inner().config.directory
    }

    /// The clock that times of the store are told by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner().clock
    }

    /// Why the store stopped for ever, if it did.
    pub fn poisoned(&self) -> Option<&str> {
        self.inner().flusher.poisoned()
    }

    /// Flushes now and says up to where.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    pub fn flush(&self) -> Result<u64, StoreError> {
        self.inner().flush()
    }

    /// Waits until everything below `position` is flushed.
    ///
    /// # Errors
    /// [`StoreError::NotFlushed`] after `timeout`, [`StoreError::Poisoned`].
    pub fn sync_wait(&self, position: u64, timeout: Duration) -> Result<(), StoreError> {
        let inner = self.inner();
        match inner.flusher.wait_flushed(&inner.marks, position, timeout)? {
            true => Ok(()),
            false => Err(StoreError::NotFlushed { position, waited: timeout }),
        }
    }

    /// The offsets that can be read. `None` when the queue never had a visible message.
    pub fn queue_range(&self, topic: &str, queue_id: i32) -> Option<QueueRange> {
        let queue = self.inner().queues.find(topic, queue_id)?;
        let range = queue.range(self.inner().marks.visible());
        Some(range).filter(|range| range.max > 0)
    }

    /// Where a queue ends in the log, whether that can be read yet or not; 0 for one that never had a message.
    pub fn queue_end(&self, topic: &str, queue_id: i32) -> u64 {
        let written = self.inner().marks.written();
        self.inner().queues.find(topic, queue_id).map_or(0, |queue| queue.range(written).max)
    }

    /// Appends the records of a queue to `out`, in stored format, from offset `from` on, as far as
    /// `limits` and what is visible allow. `accept` sees each entry first and may refuse it by its
    /// tag hash. A queue that does not exist reads as one whose range is empty.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Damaged`]; nothing was appended to `out` then.
    pub fn read_queue(
        &self,
        topic: &str,
        queue_id: i32,
        from: u64,
        limits: ReadLimits,
        accept: &mut dyn FnMut(&QueueEntry) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<QueueRead, StoreError> {
        match self.queue(topic, queue_id)? {
            Some(queue) => {
                let read = self.inner().read_queue(&queue, from, limits, true, accept, out)?;
                Ok(read.unwrap_or(QueueRead::NOTHING))
            }
            None => Ok(QueueRead::NOTHING),
        }
    }

    /// The same as [`Store::read_queue`] for threads that must not wait for the disk: `None`, with
    /// nothing appended to `out`, when not all of the queue's entries and records are in memory.
    /// `accept` may have been asked by then.
    ///
    /// What was appended since the store was opened counts as in memory until a read of the queue
    /// has shown that it is not.
    pub fn read_queue_cached(
        &self,
        topic: &str,
        queue_id: i32,
        from: u64,
        limits: ReadLimits,
        accept: &mut dyn FnMut(&QueueEntry) -> bool,
        out: &mut Vec<u8>,
    ) -> Result<Option<QueueRead>, StoreError> {
        match self.queue(topic, queue_id)? {
            Some(queue) => self.inner().read_queue(&queue, from, limits, false, accept, out),
            None => Ok(Some(QueueRead::NOTHING)),
        }
    }

    /// The ConsumeQueue entry at a visible offset.
    pub fn queue_entry(
        &self,
        topic: &str,
        queue_id: i32,
        offset: u64,
    ) -> Result<Option<QueueEntry>, StoreError> {
        let Some(queue) = self.queue(topic, queue_id)? else { return Ok(None) };
        self.inner().queue_entry(&queue, offset, true)
    }

    /// The ConsumeQueue entry at a visible offset, if it is in memory; the disk is not asked.
    pub fn queue_entry_cached(
        &self,
        topic: &str,
        queue_id: i32,
        offset: u64,
    ) -> Result<Option<QueueEntry>, StoreError> {
        let Some(queue) = self.queue(topic, queue_id)? else { return Ok(None) };
        self.inner().queue_entry(&queue, offset, false)
    }

    /// Appends the record at a position to `out` and says how long it is. `None` when no
    /// visible record begins exactly there, whatever the position.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when one begins there that is not whole; [`StoreError::Io`].
    pub fn read_record(
        &self,
        physical_offset: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, StoreError> {
        self.inner().check_readable()?;
        self.inner().read_record(physical_offset, out)
    }

    /// The queue offset that belongs to a point in time, in milliseconds since 1970; see
    /// [`Boundary`]. When all messages are earlier, [`Boundary::Lower`] answers the maximum; when
    /// all are later, [`Boundary::Upper`] answers 0. `None` when there is no such queue.
    pub fn offset_by_time(
        &self,
        topic: &str,
        queue_id: i32,
        timestamp_ms: i64,
        boundary: Boundary,
    ) -> Result<Option<u64>, StoreError> {
        let Some(queue) = self.queue(topic, queue_id)? else { return Ok(None) };
        self.inner().offset_by_time(&queue, timestamp_ms, boundary).map(Some)
    }

    /// When the message at a visible offset was stored, in milliseconds since 1970.
    pub fn store_time(
        &self,
        topic: &str,
        queue_id: i32,
        offset: u64,
    ) -> Result<Option<i64>, StoreError> {
        let Some(queue) = self.queue(topic, queue_id)? else { return Ok(None) };
        self.inner().store_time(&queue, offset)
    }

    /// Positions of visible records of a topic that carry `key` as `UNIQ_KEY` or among `KEYS`, and
    /// were stored from `from_ms` to `to_ms`, both included: newest first, at most `max`.
    pub fn query_key(
        &self,
        topic: &str,
        key: &str,
        max: usize,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<u64>, StoreError> {
        self.inner().check_readable()?;
        self.inner().query_key(topic, key, max, from_ms, to_ms)
    }

    /// Forgets the queues of topics that were deleted; durable on return. A topic of that name
    /// that is made later begins at queue offset 0 again, as in Apache, and never shows records
    /// from before, although they stay in the log until they expire. However many topics: appends
    /// wait for one small file to be written.
    ///
    /// `said_until` is where the record of the log ends that says so. Should the log lose that
    /// record, in a crash or because another replica is master, the next open finds the queues as
    /// they were.
    pub fn delete_queues(&self, topics: &[&str], said_until: u64) -> Result<(), StoreError> {
        let inner = self.inner();
        let deleted = inner.delete_queues(topics, said_until);
        deleted.inspect_err(|error| inner.stop_if_disk_failed(error))
    }

    /// Lets retention delete what lies before `position`, and nothing from there on. Until the
    /// first call nothing expires at all. The caller names the start of the newest complete image
    /// of its state.
    pub fn protect_from(&self, position: u64) {
        self.inner().protected_from.store(position, Ordering::Release);
    }

    /// The same for an image from `begin` to `end` that may still be cut off, by a crash or because
    /// another replica is master: until all of it is flushed and confirmed, what was protected before
    /// stays.
    pub fn protect_image(&self, begin: u64, end: u64) {
        let inner = self.inner();
        inner.protected_images.lock().push_back((begin, end));
        if inner.expiry_waits.load(Ordering::Acquire) {
            inner.background.request(background::EXPIRE);
        }
    }

    /// Sets whom to call, on the store's background thread, when something from the protected
    /// position on has expired or has to make room: the caller may write a newer image and protect
    /// that. It must not block and must not own a clone of the store.
    pub fn set_protection_listener(&self, listener: Box<dyn Fn() + Send + Sync>) {
        *self.inner().protection_listener.write() = Some(listener);
    }

    /// Has the background thread delete soon what has expired, whatever the hour.
    pub fn request_expiry(&self) {
        self.inner().background.request(background::EXPIRE);
    }

    /// The next offsets of queues whose messages have all expired, by topic and queue id: what a copy
    /// of the log does not say.
    pub fn next_offsets(&self) -> BTreeMap<String, BTreeMap<i32, u64>> {
        self.inner().queue_state.lock().next_offsets.clone()
    }

    /// Takes over [`Store::next_offsets`] of another replica for queues that have nothing here, before
    /// its log is copied; durable on return.
    pub fn adopt_next_offsets(
        &self,
        offsets: &BTreeMap<String, BTreeMap<i32, u64>>,
    ) -> Result<(), StoreError> {
        let inner = self.inner();
        let adopted = inner.adopt_next_offsets(offsets);
        adopted.inspect_err(|error| inner.stop_if_disk_failed(error))
    }

    /// The topics that have queues.
    pub fn topics(&self) -> Vec<String> {
        self.inner().queues.read().keys().map(|topic| topic.to_string()).collect()
    }

    /// First position of the log.
    pub fn min_offset(&self) -> u64 {
        self.inner().log.start().unwrap_or_else(|| self.inner().marks.written())
    }

    /// Where the next record goes.
    pub fn max_offset(&self) -> u64 {
        self.inner().marks.written()
    }

    /// The identity that the store got when its directory was made.
    pub fn store_id(&self) -> uuid::Uuid {
        self.inner().format.store_id
    }

    /// The contents of a small file of the store's user, `None` when it was never written.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when the file and its last version are damaged.
    pub fn read_small_file(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        small_file::read(&*self.inner().disk, &self.inner().layout.user.join(name))
    }

    /// The same, without its last version in place of a damaged one.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when the file is damaged.
    pub fn read_current_small_file(
        &self,
        name: &'static str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        small_file::read_current(&*self.inner().disk, &self.inner().layout.user.join(name))
    }

    /// Replaces a small file of the store's user; durable on return, and never half written.
    ///
    /// # Errors
    /// What the disk said. Unless that passes, as a lack of space does, the store has stopped.
    pub fn write_small_file(&self, name: &'static str, contents: &[u8]) -> Result<(), StoreError> {
        let inner = self.inner();
        let _closing_waits = inner.guests.read();
        // Two that write the same file would write the same temporary one.
        let _alone = inner.small_files.lock();
        inner.check_open()?;
        let written = small_file::write(&*inner.disk, &inner.layout.user.join(name), contents);
        written.inspect_err(|error| inner.stop_if_disk_failed(error))
    }

    /// Removes a small file of the store's user with the version before it; durable on return.
    ///
    /// # Errors
    /// As [`Store::write_small_file`].
    pub fn remove_small_file(&self, name: &'static str) -> Result<(), StoreError> {
        let inner = self.inner();
        let _closing_waits = inner.guests.read();
        let _alone = inner.small_files.lock();
        inner.check_open()?;
        let removed = small_file::remove(&*inner.disk, &inner.layout.user.join(name));
        removed.inspect_err(|error| inner.stop_if_disk_failed(error))
    }

    /// Whether an append is under way at this moment, or what was appended is not flushed yet. Waits for
    /// nothing itself, so who asks again and again finds out that the disk stalls.
    pub fn waits_for_disk(&self) -> bool {
        self.inner().appender.is_locked() || self.inner().marks.unflushed() > 0
    }

    /// Why records that were flushed, or called so, may be gone: a failed write-back, a cut by hand, or
    /// a log that began anew. Until [`Store::forget_lost`].
    pub fn lost(&self) -> Result<Option<String>, StoreError> {
        let path = self.inner().layout.user.join(small_file::LOST_FILE);
        let why = small_file::read(&*self.inner().disk, &path)?;
        Ok(why.map(|why| String::from_utf8_lossy(&why).into_owned()))
    }

    /// Whoever counted on those records does so no more.
    ///
    /// # Errors
    /// As [`Store::write_small_file`].
    pub fn forget_lost(&self) -> Result<(), StoreError> {
        self.remove_small_file(small_file::LOST_FILE)
    }

    pub fn stats(&self) -> StoreStats {
        let inner = self.inner();
        let flushed = inner.marks.flushed();
        let space = inner.disk_watch.figures();
        let (scrubbed_bytes, scrub_passes) = inner.scrub.progress();
        let damaged = inner.scrub.damaged();
        StoreStats {
            segments: inner.log.count(),
            spare_segments: inner.spares.count(),
            min_offset: self.min_offset(),
            max_offset: self.max_offset(),
            unflushed_bytes: inner.marks.written().saturating_sub(flushed),
            queues: inner.queues.all().len(),
            dispatch_behind_bytes: 0,
            disk_free: space.free,
            disk_total: space.total,
            damaged_bytes: damaged.iter().map(|range| range.to - range.from).sum(),
            repaired_bytes: inner.scrub.repaired_bytes(),
            scrubbed_bytes,
            scrub_passes,
            recovery: inner.recovery.clone(),
        }
    }

    /// Compares the whole log with its checksums at once, and gives blocks without one theirs.
    /// Damage is what [`Store::damaged`] says afterwards; reading it is an error from then on.
    ///
    /// # Errors
    /// [`StoreError::Io`] on the files of the checksums. What the disk does not give of the log is
    /// damage.
    pub fn scrub(&self) -> Result<(), StoreError> {
        let inner = self.inner();
        let _closing_waits = inner.guests.read();
        inner.check_open()?;
        inner.scrub_all().inspect_err(|error| inner.stop_if_disk_failed(error))
    }

    /// Ranges of the log that are known to be damaged, in order.
    pub fn damaged(&self) -> Vec<DamagedRange> {
        self.inner().scrub.damaged()
    }

    /// The bytes of a block of the log, for a replica whose own is damaged: `from` is where it begins, `to`
    /// where it ends, as in [`DamagedRange`]. `None` where they are not here, are not flushed, or do not
    /// fit their checksum, or have none. Waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn read_block(&self, from: u64, to: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner().read_block(from, to)
    }

    /// Writes a block that [`Store::damaged`] names again as it was, durably. `false`, and nothing is
    /// changed, where `bytes` are not what was there: by the checksum beside the log, or where that is
    /// lost, because the records in them do not hold. In the latter case topic and properties are
    /// believed, so the bytes have to come from a log with the same past. Waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the range is as damaged as before, and after a failed write the store has
    /// stopped.
    pub fn repair_block(&self, from: u64, bytes: &[u8]) -> Result<bool, StoreError> {
        self.inner().repair_block(from, bytes)
    }

    /// Sets whom to call with all damaged ranges whenever they change, and calls it once now. It
    /// must not block and must not own a clone of the store.
    pub fn set_damage_listener(&self, listener: DamageListener) {
        self.inner().scrub.set_listener(listener);
    }

    /// Does at once what the background thread would do by and by: completes files of full
    /// segments, writes the durable mark, looks at free space, deletes what has expired. For
    /// stores without threads, and for tests.
    pub fn maintain(&self) -> Result<(), StoreError> {
        self.inner().check_open()?;
        self.inner().maintain()
    }

    /// Ends the store cleanly: everything is flushed, the files derived from the log are
    /// complete, and the next open reads no log. Every later call gets [`StoreError::Closed`].
    ///
    /// # Errors
    /// What failed; the directory is then as after a kill.
    pub fn close(&self) -> Result<(), StoreError> {
        let inner = self.inner();
        if inner.is_closed.swap(true, Ordering::AcqRel) {
            return Err(StoreError::Closed);
        }
        // An append that is under way ends first, and who else writes; later ones see that the store is closed.
        drop(inner.appender.lock());
        drop(inner.guests.write());
        self.running.stop_threads();
        inner.close()
    }

    fn queue(&self, topic: &str, queue_id: i32) -> Result<Option<Arc<Queue>>, StoreError> {
        self.inner().check_readable()?;
        Ok(self.inner().queues.find(topic, queue_id))
    }
}

fn spawn(
    name: &'static str,
    inner: &Arc<Inner>,
    run: fn(&Inner),
) -> Result<JoinHandle<()>, StoreError> {
    let shared = Arc::clone(inner);
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared));
    spawned.map_err(StoreError::io("start the threads of", &inner.layout.root))
}

impl Running {
    fn stop_threads(&self) {
        self.inner.flusher.stop();
        self.inner.background.stop();
        self.inner.log.announcements.stop();
        for thread in self.threads.lock().drain(..) {
            // A clone that a listener owned may be the last one, and drop on the flush thread.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl Inner {
    /// Whether the store may be changed.
    pub(crate) fn check_open(&self) -> Result<(), StoreError> {
        self.check_readable()?;
        self.flusher.check_poison()
    }

    pub(crate) fn check_readable(&self) -> Result<(), StoreError> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(StoreError::Closed),
            false => Ok(()),
        }
    }
}
