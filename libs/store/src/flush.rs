//! Makes written records durable, and tells who waits for it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::config::FlushMode;
use crate::error::StoreError;
use crate::planted::{self, Planted};
use crate::small_file::{self, LOST_FILE};
use crate::store::Inner;
use crate::watermarks::Watermarks;

/// The flush thread works, or is about to look for work.
const AWAKE: u8 = 0;
/// It sleeps until something is written.
const IDLE: u8 = 1;
/// It sleeps until the interval is over or enough is written.
const GATHERING: u8 = 2;

/// Called with the flushed position.
pub(crate) type FlushListener = Box<dyn Fn(u64) + Send + Sync>;

pub(crate) struct Flusher {
    mode: FlushMode,
    thread: OnceLock<Thread>,
    sleep: AtomicU8,
    stop: AtomicBool,
    /// Held while a flush runs.
    pub(crate) flushing: Mutex<()>,
    /// Why nothing can be flushed any more.
    poison: OnceLock<String>,
    is_poison_told: AtomicBool,
    progress: Mutex<()>,
    progressed: Condvar,
    listener: RwLock<Option<FlushListener>>,
}

impl Flusher {
    pub(crate) fn new(mode: FlushMode) -> Self {
        Self {
            mode,
            thread: OnceLock::new(),
            sleep: AtomicU8::new(AWAKE),
            stop: AtomicBool::new(false),
            flushing: Mutex::new(()),
            poison: OnceLock::new(),
            is_poison_told: AtomicBool::new(false),
            progress: Mutex::new(()),
            progressed: Condvar::new(),
            listener: RwLock::new(None),
        }
    }

    pub(crate) fn set_listener(&self, listener: FlushListener) {
        *self.listener.write() = Some(listener);
    }

    pub(crate) fn check_poison(&self) -> Result<(), StoreError> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(StoreError::Poisoned { cause: cause.clone() }),
        }
    }

    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.poison.get().map(String::as_str)
    }

    /// Stops the store and wakes everybody who waits; [`Inner::stop_for_ever`] also tells the
    /// listener, without the append lock.
    pub(crate) fn poison(&self, cause: &str) {
        if self.poison.set(cause.to_owned()).is_ok() {
            tracing::error!(cause, "the store stopped: what is on disk is not known any more");
        }
        drop(self.progress.lock());
        self.progressed.notify_all();
    }

    /// Wakes the flush thread if what is written by now is worth it. On the append path: two
    /// atomic loads as long as the thread is busy.
    pub(crate) fn written(&self, marks: &Watermarks) {
        let wake = match (self.sleep.load(Ordering::SeqCst), self.mode) {
            (IDLE, _) => IDLE,
            (GATHERING, FlushMode::Async { bytes, .. })
                if marks.written() - marks.flushed() >= bytes =>
            {
                GATHERING
            }
            _ => return,
        };
        let claimed = self.sleep.compare_exchange(wake, AWAKE, Ordering::SeqCst, Ordering::SeqCst);
        if let (Ok(_), Some(thread)) = (claimed, self.thread.get()) {
            thread.unpark();
        }
    }

    /// Waits until `position` is flushed; false when that took longer than `timeout`.
    pub(crate) fn wait_flushed(
        &self,
        marks: &Watermarks,
        position: u64,
        timeout: Duration,
    ) -> Result<bool, StoreError> {
        let deadline = Instant::now() + timeout;
        let mut progress = self.progress.lock();
        loop {
            if marks.flushed() >= position {
                return Ok(true);
            }
            self.check_poison()?;
            if self.progressed.wait_until(&mut progress, deadline).timed_out() {
                return Ok(marks.flushed() >= position);
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

impl Inner {
    /// Makes everything written so far durable and says up to where that is.
    pub(crate) fn flush(&self) -> Result<u64, StoreError> {
        let target = {
            let _flushing = self.flusher.flushing.lock();
            self.flusher.check_poison()?;
            let (from, target) = {
                // With the lock, and before the sync: whatever is written by now has its proof
                // already, and what follows begins another.
                let mut proof = self.proof.lock();
                proof.close();
                (self.marks.flushed(), self.marks.written())
            };
            if from == target {
                return Ok(target);
            }
            if let Err(error) = self.log.sync(from, target)
                && !planted::is_on(Planted::FlushedAfterFailedSync)
            {
                self.stop_for_ever(&error.to_string());
                return self.flusher.check_poison().map(|()| from);
            }
            self.marks.advance_flushed(target);
            target
        };
        drop(self.flusher.progress.lock());
        self.flusher.progressed.notify_all();
        self.tell_flush_listener();
        self.background.flushed(target);
        Ok(target)
    }

    /// Takes no more writes, and tells everybody who waits and the flush listener why.
    pub(crate) fn stop_for_ever(&self, cause: &str) {
        self.flusher.poison(cause);
        if !self.flusher.is_poison_told.swap(true, Ordering::AcqRel) {
            self.tell_flush_listener();
            if !self.config.is_sync() {
                // Somebody may count on what was only written, and the kernel calls it clean now. The
                // disk may not take this either; then nothing can be said but what was logged.
                let path = self.layout.user.join(LOST_FILE);
                if let Err(error) = small_file::write(&*self.disk, &path, cause.as_bytes()) {
                    tracing::error!(%error, "it cannot be noted that records may be lost");
                }
            }
        }
    }

    /// The same if this error says that the disk has failed. What it did not take is not tried again, in any file: the
    /// kernel reports a failed write-back once, and the next sync succeeds over what was lost.
    pub(crate) fn stop_if_disk_failed(&self, error: &StoreError) {
        if error.is_disk_failure() {
            self.stop_for_ever(&error.to_string());
        }
    }

    /// Stops as well, and answers why.
    pub(crate) fn refuse_failed_disk(&self, error: &StoreError) -> Result<(), StoreError> {
        self.stop_if_disk_failed(error);
        self.flusher.check_poison()
    }

    fn tell_flush_listener(&self) {
        if let Some(listener) = self.flusher.listener.read().as_ref() {
            listener(self.marks.flushed());
        }
    }

    /// The flush thread. Synchronous flush never waits for company: what gathers while one sync
    /// runs goes with the next.
    pub(crate) fn run_flush_thread(&self) {
        let flusher = &self.flusher;
        let _ = flusher.thread.set(std::thread::current());
        while !flusher.is_stopped() {
            if !self.is_dirty() {
                flusher.sleep.store(IDLE, Ordering::SeqCst);
                // An append between the look above and the store did not see us sleep. A plain load
                // may overtake a store before it.
                fence(Ordering::SeqCst);
                if !self.is_dirty() && !flusher.is_stopped() {
                    std::thread::park();
                }
                flusher.sleep.store(AWAKE, Ordering::SeqCst);
                continue;
            }
            if let FlushMode::Async { bytes, interval } = flusher.mode {
                self.gather(bytes, interval);
            }
            if self.flush().is_err() {
                return;
            }
        }
    }

    fn is_dirty(&self) -> bool {
        self.marks.written() > self.marks.flushed()
    }

    /// Sleeps until `bytes` are written or `interval` is over.
    fn gather(&self, bytes: u64, interval: Duration) {
        let deadline = Instant::now() + interval;
        loop {
            self.flusher.sleep.store(GATHERING, Ordering::SeqCst);
            let unflushed = self.marks.unflushed();
            let left = deadline.saturating_duration_since(Instant::now());
            if unflushed >= bytes || left.is_zero() || self.flusher.is_stopped() {
                break;
            }
            std::thread::park_timeout(left);
        }
        self.flusher.sleep.store(AWAKE, Ordering::SeqCst);
    }
}
