//! The background thread: everything that may be late but not forgotten.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::error::StoreError;
use crate::planted::{self, Planted};
use crate::segment::Segment;
use crate::store::Inner;

/// Kinds of work, as bits.
pub(crate) const SEAL: u32 = 1;
pub(crate) const RUNS: u32 = 1 << 1;
pub(crate) const PREPARE: u32 = 1 << 2;
pub(crate) const ZEROS: u32 = 1 << 3;
pub(crate) const SPACE: u32 = 1 << 4;
/// The durable mark is behind, and due in a while.
const MARK_LATER: u32 = 1 << 5;
/// The durable mark is far behind.
const MARK_NOW: u32 = 1 << 6;
const STOP: u32 = 1 << 7;
/// Somebody asked for what has expired to be deleted.
pub(crate) const EXPIRE: u32 = 1 << 8;
/// What Apache derived is to be removed.
pub(crate) const ASIDE: u32 = 1 << 9;
/// Readers met what was never written.
pub(crate) const SUSPECTS: u32 = 1 << 10;

/// The mark is written after this many flushed bytes …
const MARK_BYTES: u64 = 64 << 20;
/// … or this long after the one before, whichever comes first.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// For how long what Apache derived is removed before other work has its turn.
const ASIDE_TURN: Duration = Duration::from_millis(200);
/// The scrub leaves a start alone, unless it is to be done sooner.
const SCRUB_AFTER: Duration = Duration::from_secs(60);
/// How often retention and free space are looked at when nothing else happens.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Background {
    thread: OnceLock<Thread>,
    work: AtomicU32,
    /// What the durable mark says.
    marked: AtomicU64,
    is_mark_requested: AtomicBool,
}

impl Background {
    pub(crate) fn marked_at(position: u64) -> Self {
        Self { marked: AtomicU64::new(position), ..Self::default() }
    }

    /// Corrects what the durable mark says.
    pub(crate) fn set_marked(&self, position: u64) {
        self.marked.store(position, Ordering::Release);
    }

    /// Asks for work; wakes the thread if that is news.
    pub(crate) fn request(&self, work: u32) {
        if self.work.fetch_or(work, Ordering::AcqRel) & work != work
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Notes a flush, so that the durable mark follows at its own pace.
    pub(crate) fn flushed(&self, position: u64) {
        if position - self.marked.load(Ordering::Acquire).min(position) >= MARK_BYTES {
            self.request(MARK_NOW);
        } else if !self.is_mark_requested.swap(true, Ordering::AcqRel) {
            self.request(MARK_LATER);
        }
    }

    pub(crate) fn stop(&self) {
        self.request(STOP);
    }

    pub(crate) fn marked(&self) -> u64 {
        self.marked.load(Ordering::Acquire)
    }
}

impl Inner {
    /// Says that background work failed; it is tried again when it is due again. But a disk that
    /// refuses to be written to for another reason than space is gone for the log as well.
    pub(crate) fn report(&self, work: &'static str, result: Result<(), StoreError>) {
        let Err(error) = result else { return };
        self.stop_if_disk_failed(&error);
        if !error.is_disk_failure() {
            tracing::warn!(work, %error, "background work of the store failed");
        }
    }

    pub(crate) fn run_background_thread(&self) {
        let _ = self.background.thread.set(std::thread::current());
        let mut next_check = Instant::now() + CHECK_INTERVAL;
        let mut last_mark = Instant::now();
        let mut mark_due = None;
        self.do_work(PREPARE);
        let mut scrub_due = Instant::now() + SCRUB_AFTER.min(self.upkeep().scrub_interval);
        let recovery = &self.recovery;
        // Without a mark of ours the whole log may be without, and is the scrub's affair.
        let recent = self.config.unflushed_bytes() + MARK_BYTES;
        let from = recovery.durable_mark.max(recovery.log_end.saturating_sub(recent));
        let fill = self.fill_block_sums(from, recovery.log_end);
        self.report("block checksums", fill);
        loop {
            let work = self.background.work.swap(0, Ordering::AcqRel);
            if work & STOP != 0 {
                return;
            }
            self.do_work(work);
            let now = Instant::now();
            if work & MARK_LATER != 0 {
                mark_due = Some(last_mark + MARK_INTERVAL);
            }
            if work & MARK_NOW != 0 || mark_due.is_some_and(|due| due <= now) {
                self.report("durable mark", self.write_durable_mark());
                (last_mark, mark_due) = (Instant::now(), None);
            }
            if next_check <= now {
                self.report("free space", self.check_space());
                self.report("retention", self.expire_if_due(false).map(|_| ()));
                next_check = now + CHECK_INTERVAL;
            }
            if scrub_due <= now {
                scrub_due = now + self.scrub_paced();
            }
            if self.background.work.load(Ordering::Acquire) == 0 {
                let due = mark_due.map_or(next_check, |due| due.min(next_check)).min(scrub_due);
                std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            }
        }
    }

    fn do_work(&self, work: u32) {
        if work & PREPARE != 0 {
            self.report("prepare segment", self.prepare_next_segment());
        }
        if work & ZEROS != 0 {
            self.report("zeros ahead", self.write_zeros_ahead());
        }
        if work & RUNS != 0 {
            self.report("key index", self.write_key_runs());
        }
        if work & SEAL != 0 {
            self.report("seal segment", self.seal_segments());
        }
        if work & ASIDE != 0 {
            self.remove_some_of_aside(ASIDE_TURN);
        }
        if work & SPACE != 0 {
            let had_space = !self.disk_watch.is_full();
            self.report("free space", self.check_space());
            if had_space && self.disk_watch.is_full() {
                self.report("retention", self.expire_if_due(false).map(|_| ()));
            }
        }
        if work & EXPIRE != 0 {
            self.report("retention", self.expire_if_due(true).map(|_| ()));
        }
        if work & SUSPECTS != 0 {
            self.report("damage", self.look_at_suspects());
        }
    }

    /// Removes what Apache derived for about so long; then the rest has to wait until other work is done.
    fn remove_some_of_aside(&self, turn: Duration) {
        let begun = Instant::now();
        let is_over = || begun.elapsed() >= turn;
        match crate::apache::remove_aside(&*self.disk, &self.layout, is_over) {
            Ok(true) => {}
            Ok(false) => self.background.request(ASIDE),
            // Nothing depends on it, so a directory that cannot be removed stops nobody.
            Err(error) => {
                tracing::warn!(%error, "what Apache's broker derived stays in weir/aside for now");
            }
        }
    }

    /// See [`crate::Store::maintain`].
    pub(crate) fn maintain(&self) -> Result<(), StoreError> {
        let _ = crate::apache::remove_aside(&*self.disk, &self.layout, || false)?;
        self.write_key_runs()?;
        self.seal_segments()?;
        self.write_durable_mark()?;
        self.look_at_suspects()?;
        self.check_space()?;
        self.expire_if_due(true)?;
        self.prepare_next_segment()
    }

    /// Writes how far the log is known to be on disk, if that is news.
    pub(crate) fn write_durable_mark(&self) -> Result<(), StoreError> {
        // Cleared first: a flush that comes now asks again.
        self.background.is_mark_requested.store(false, Ordering::Release);
        let flushed = match planted::is_on(Planted::MarkAheadOfFlushed) {
            true => self.marks.written(),
            false => self.marks.flushed(),
        };
        if flushed == self.background.marked() {
            return Ok(());
        }
        if let Err(error) = self.write_block_sums(flushed, false) {
            self.refuse_failed_disk(&error)?;
            tracing::warn!(%error, "blocks have no checksum until the scrub comes by");
        }
        self.durable_mark_at(flushed).write(&*self.disk, &self.layout)?;
        self.background.marked.store(flushed, Ordering::Release);
        Ok(())
    }

    /// Prepares the next segment once half of the newest one is full.
    pub(crate) fn prepare_next_segment(&self) -> Result<(), StoreError> {
        let is_half_full = |segment: Arc<Segment>| {
            self.marks.written() >= segment.start + self.config.segment_bytes / 2
        };
        match self.log.newest().is_some_and(is_half_full) {
            true => self.log.prepare_next(&self.spares),
            false => Ok(()),
        }
    }

    fn write_key_runs(&self) -> Result<(), StoreError> {
        self.log.all().iter().try_for_each(|segment| segment.keys.write_full_runs())
    }

    /// Completes the derived files of all segments that take no more records.
    fn seal_segments(&self) -> Result<(), StoreError> {
        self.log.unmap_old();
        let mut segments = self.log.all();
        segments.pop();
        segments.retain(|segment| !segment.is_sealed.load(Ordering::Acquire));
        for segment in segments {
            self.seal_segment(&segment, segment.end())?;
        }
        Ok(())
    }

    /// Completes the derived files of a segment up to `covered`, durably.
    pub(crate) fn seal_segment(&self, segment: &Segment, covered: u64) -> Result<(), StoreError> {
        let parts = self.queues.seal(segment.start);
        segment.queues.take_failure().map_or(Ok(()), Err)?;
        segment.queues.seal(segment.start, covered, &parts)?;
        segment.keys.seal(segment.start, covered)?;
        for directory in [&self.layout.queues, &self.layout.keys] {
            self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
        }
        segment.is_sealed.store(true, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::config::{StoreConfig, Upkeep};
    use crate::disk::{Disk, SimulatedDisk};
    use crate::message::NewMessage;

    fn open(disk: &SimulatedDisk) -> Inner {
        let config = StoreConfig {
            directory: "/s".into(),
            segment_bytes: 8192,
            message_bytes_max: 2000,
            upkeep: Upkeep { free_bytes_min: Some(0), ..Upkeep::default() },
            threads: false,
            ..StoreConfig::default()
        };
        Inner::open(config, Arc::new(disk.clone()), Arc::new(ManualClock::at_ms(1000))).unwrap()
    }

    #[test]
    fn what_cannot_be_removed_from_aside_stops_nobody() {
        let disk = SimulatedDisk::new();
        let inner = open(&disk);
        disk.create_directory(&inner.layout.aside.join("index")).unwrap();
        disk.fail_after(0);
        inner.do_work(ASIDE);
        inner.check_open().unwrap();
        assert_eq!(disk.list_directories(&inner.layout.aside).unwrap(), ["index"]);
    }

    #[test]
    fn what_apache_derived_is_removed_in_turns_with_other_work() {
        let disk = SimulatedDisk::new();
        let inner = open(&disk);
        let aside = inner.layout.aside.join("consumequeue");
        for topic in ["a", "b", "c"] {
            disk.create_directory(&aside.join(topic)).unwrap();
        }
        let left = || crate::apache::directories(&disk, &aside).unwrap().len();
        inner.background.work.store(0, Ordering::Release);
        for expected in [2, 1, 0] {
            inner.remove_some_of_aside(Duration::ZERO);
            assert_eq!(left(), expected);
            assert_eq!(inner.background.work.swap(0, Ordering::AcqRel), ASIDE, "it goes on later");
        }
        inner.remove_some_of_aside(Duration::ZERO);
        assert_eq!(inner.background.work.load(Ordering::Acquire), 0);
        assert!(disk.list_directories(&inner.layout.aside).unwrap().is_empty());
    }

    #[test]
    fn a_derived_file_whose_sync_finds_no_room_stops_the_store() {
        // That of the queues, then that of the keys: data and directory of each.
        for syncs in 0..4 {
            let disk = SimulatedDisk::new();
            let inner = open(&disk);
            let message = NewMessage::plain("t", 0, &[7; 1000]);
            for _ in 0..10 {
                inner.append(&[message], &mut Vec::new()).unwrap();
            }
            inner.flush().unwrap();
            let segment = inner.log.all().remove(0);
            let before = disk.steps();
            disk.lose_sync(syncs, std::io::ErrorKind::StorageFull);
            inner.do_work(SEAL);
            assert!(disk.steps() > before, "there was nothing to seal");
            inner.check_open().unwrap_err();
            assert!(!segment.is_sealed.load(Ordering::Acquire));
        }
    }

    #[test]
    fn segments_that_were_derived_again_are_sealed_without_a_roll() {
        let disk = SimulatedDisk::new();
        let inner = open(&disk);
        let message = NewMessage::plain("t", 0, &[7; 1000]);
        for _ in 0..20 {
            inner.append(&[message], &mut Vec::new()).unwrap();
        }
        inner.close().unwrap();
        disk.create_directory(std::path::Path::new("/s/consumequeue")).unwrap();
        let inner = open(&disk);
        assert_eq!(inner.recovery.rebuilt_segments, 3);
        inner.do_work(inner.background.work.swap(0, Ordering::AcqRel));
        let is_sealed = |segment: &Arc<Segment>| segment.is_sealed.load(Ordering::Acquire);
        let sealed: Vec<_> = inner.log.all().iter().map(is_sealed).collect();
        assert_eq!(sealed, [true, true, false]);
    }
}
