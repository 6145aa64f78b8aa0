//! Opens a directory and leaves it again: what happens in which order, and what stays behind.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use crate::apache::{self, ApacheTraces};
use crate::apache_cut::ApacheCut;
use crate::append::Appender;
use crate::background::{self, Background};
use crate::block_tail::BlockTail;
use crate::checkpoint;
use crate::clock::Clock;
use crate::commit_log::CommitLog;
use crate::config::StoreConfig;
use crate::disk::{Disk, OpenMode};
use crate::disk_watch::DiskWatch;
use crate::durable_mark::DurableMark;
use crate::error::StoreError;
use crate::flush::Flusher;
use crate::format::{Format, Layout, PADDING_HEAD_BYTES};
use crate::log_start::LogStart;
use crate::offline::truncate;
use crate::proof::{self, OpenProof};
use crate::queue_table::QueueState;
use crate::rebuild::Rebuild;
use crate::recent::Recent;
use crate::recover::{Evidence, LastUse, RecoveryReport, recover};
use crate::repair::Suspects;
use crate::retention::{self, RetentionClock};
use crate::scrub::Scrub;
use crate::segment::{Segment, remove_if_there};
use crate::small_file;
use crate::spare::SpareSegments;
use crate::store::Inner;
use crate::watermarks::Watermarks;
use crate::zero_ahead::ZeroAhead;

impl Inner {
    pub(crate) fn open(
        mut config: StoreConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let started = Instant::now();
        let layout = Layout::under(&config.directory);
        make_directory(&*disk, &layout.root)?;
        let directory_lock = lock(&*disk, &layout)?;
        layout.directories().iter().try_for_each(|path| make_directory(&*disk, path))?;
        truncate::finish(&disk, &layout)?;
        if let Ok(None) = Format::read(&*disk, &layout) {
            make_name_durable(&*disk, &layout.root)?;
        }
        let format = Format::open(&*disk, &layout, &config)?;
        config.segment_bytes = format.segment_bytes;
        // Other limits of the configuration depend on the length.
        config.validate()?;
        let traces = ApacheTraces::read(&*disk, &layout)?;
        let old_mark = DurableMark::read(&*disk, &layout)?;
        // Apache may have cut the log below our mark and written on.
        let mark = old_mark.filter(|_| traces.is_none());
        let was_clean = was_closed(&*disk, &layout, mark)?;
        let evidence = evidence(&*disk, &layout, mark, was_clean)?;
        // Apache may have deleted what had expired.
        let noted_start = match &traces {
            None => LogStart::read(&*disk, &layout)?.map(|noted| noted.start),
            Some(_) => None,
        };
        let was_apache = traces.is_some();
        let apache = match was_apache {
            true => Some(ApacheCut::read(&*disk, &layout, was_clean)?),
            false => None,
        };
        let last = LastUse { mark, noted_start, evidence, was_clean, apache };
        let recovered = recover(&disk, &layout, &config, &last)?;
        let mut report = recovered.report;
        if noted_start.is_none() {
            note_start(&*disk, &layout, report.log_start, was_apache)?;
        }
        report.apache = traces.as_ref().map(ApacheTraces::unserved);
        let mut queue_state = QueueState::read(&*disk, &layout)?;
        let is_state_within_log = !queue_state.is_beyond(report.log_end);
        if queue_state.take_back(report.log_end) {
            // Before the state is written, or a crash in between would leave them.
            remove_derived(&*disk, &layout)?;
        }
        let is_changed = queue_state.fit(report.log_start, report.log_end);
        let mut is_state_new = is_changed || !is_state_within_log;
        if let Some(traces) = &traces {
            warn_of_cut(&report, old_mark);
            remove_derived(&*disk, &layout)?;
            let first_segment_end = report.log_start + config.segment_bytes;
            let log = report.log_start..report.log_end;
            traces.complete(log, first_segment_end, was_clean, &mut queue_state);
            is_state_new = true;
        }
        if is_state_new && let Err(error) = queue_state.write(&*disk, &layout) {
            // What was forgotten before the log's start is forgotten again at the next open; what
            // was beyond its end would swallow new records.
            if !(error.is_no_space() && traces.is_none() && is_state_within_log) {
                return Err(error);
            }
            tracing::warn!(%error, "the state of queues is written later");
        }
        let log = CommitLog::new(
            Arc::clone(&disk),
            layout.clone(),
            config.segment_bytes,
            recovered.segments,
            recovered.prepared,
            report.log_end,
        );
        let rebuild =
            Rebuild { disk: &disk, layout: &layout, config: &config, state: &queue_state };
        let queues = rebuild.run(&log, &mut report)?;
        let end = report.log_end;
        if let Some(traces) = traces.filter(|_| was_clean) {
            traces.forget_deleted(end, &queues, &mut queue_state)?;
            queue_state.write(&*disk, &layout)?;
        }
        let spares = SpareSegments::open(
            &disk,
            &layout,
            config.segment_bytes,
            config.upkeep.spare_segments_max,
        )?;
        let newest_ms =
            log.all().iter().rev().find_map(|segment| retention::first_stored_ms(segment));
        let retention_clock = RetentionClock::open(
            &*disk,
            &layout,
            &*clock,
            config.upkeep.retention_ms(),
            newest_ms,
        )?;
        let scrub = Scrub::open(&*disk, &layout, report.log_start, end)?;
        let tail = block_tail(&log, end, config.segment_bytes);
        let inner = Self {
            proof: Mutex::new(OpenProof::at(end)),
            spares,
            retention_clock: Mutex::new(retention_clock),
            left_behind: Mutex::new(None),
            marks: Watermarks::at(end, config.is_sync()),
            appender: Mutex::new(Appender::at(end, tail)),
            zero_ahead: ZeroAhead::default(),
            flusher: Flusher::new(config.flush),
            background: Background::marked_at(end),
            disk_watch: DiskWatch::default(),
            protection_listener: RwLock::new(None),
            append_listener: RwLock::new(None),
            scrub,
            suspects: Suspects::default(),
            guests: RwLock::default(),
            small_files: Mutex::default(),
            recent: Recent::default(),
            protected_images: Mutex::default(),
            protected_from: AtomicU64::new(0),
            expiry_waits: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            recovery: report,
            directory_lock: Mutex::new(Some(directory_lock)),
            queue_state: Mutex::new(queue_state),
            upkeep: RwLock::new(Arc::new(config.upkeep.clone())),
            config,
            layout,
            format,
            disk,
            clock,
            log,
            queues,
        };
        inner.begin(old_mark)?;
        tracing::info!(
            directory = %inner.layout.root.display(),
            log_end = end,
            was_clean,
            was_apache = inner.recovery.apache.is_some(),
            rebuilt_segments = inner.recovery.rebuilt_segments,
            took_ms = started.elapsed().as_millis() as u64,
            "store opened"
        );
        Ok(inner)
    }

    /// Leaves the traces that the next open goes by, before the first record.
    fn begin(&self, old_mark: Option<DurableMark>) -> Result<(), StoreError> {
        let mark = self.durable_mark_at(self.marks.flushed());
        if old_mark != Some(mark)
            && let Err(error) = mark.write(&*self.disk, &self.layout)
        {
            // A full disk must open, or nothing on it would ever expire. A mark that is behind is
            // as true as before if it allows for as many unflushed bytes as there may be now.
            let old_mark = old_mark.filter(|old| {
                old.flushed <= mark.flushed && old.unflushed_bytes_max >= mark.unflushed_bytes_max
            });
            let Some(old_mark) = old_mark.filter(|_| error.is_no_space()) else {
                return Err(error);
            };
            tracing::warn!(%error, "the durable mark stays behind until it can be written");
            self.background.set_marked(old_mark.flushed);
        }
        self.begin_proofs()?;
        let abort = self.layout.abort();
        self.disk.open(&abort, OpenMode::Write).map_err(StoreError::io("create", &abort))?;
        let root = &self.layout.root;
        self.disk.sync_directory(root).map_err(StoreError::io("sync", root))?;
        apache::put_aside(&*self.disk, &self.layout)?;
        self.disk.sync_directory(root).map_err(StoreError::io("sync", root))?;
        // What was derived again is in memory, and in no file yet.
        self.background.request(background::SEAL | background::ASIDE);
        self.check_space()
    }

    /// Has what follows the log's end in recycled segments proved from now on.
    fn begin_proofs(&self) -> Result<(), StoreError> {
        let end = self.marks.flushed();
        for segment in self.recycled_ahead() {
            let position = end.max(segment.start);
            if position + PADDING_HEAD_BYTES <= segment.records_end() {
                proof::begin(&segment, position, end)?;
                segment.sync()?;
            }
        }
        Ok(())
    }

    /// Leaves zeros behind the log's end. Apache's broker writes nothing behind its records, and
    /// after a crash takes for its own what follows them, if its checksum fits.
    fn clear_recycled(&self, end: u64) -> Result<(), StoreError> {
        self.recycled_ahead().try_for_each(|segment| segment.clear_from(end.max(segment.start)))
    }

    /// The segments at or behind the log's end that had another life.
    fn recycled_ahead(&self) -> impl Iterator<Item = Arc<Segment>> {
        let ahead = self.log.newest().into_iter().chain(self.log.prepared());
        ahead.filter(|segment| segment.is_recycled())
    }

    pub(crate) fn durable_mark_at(&self, flushed: u64) -> DurableMark {
        DurableMark { flushed, unflushed_bytes_max: self.config.unflushed_bytes() }
    }

    /// Nobody else works on the store any more.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let end = self.flush()?;
        let unsealed = |segment: &&Arc<_>| !is_sealed(segment);
        for segment in self.log.all().iter().filter(unsealed) {
            // On a full disk they do not fit, and the next open derives them again.
            if let Err(error) = self.seal_segment(segment, segment.end().min(end)) {
                self.refuse_failed_disk(&error)?;
                tracing::warn!(%error, "queue and key entries are derived again at the next open");
            }
        }
        if let Err(error) = self.write_block_sums(end, true).and_then(|()| self.keep_scrub()) {
            self.refuse_failed_disk(&error)?;
            tracing::warn!(%error, "blocks have no checksum until the scrub comes by");
        }
        self.write_durable_mark()?;
        let kept = {
            let mut clock = self.retention_clock.lock();
            clock.now_ms(&*self.clock);
            clock.keep(&*self.disk, &self.layout, true)
        };
        if let Err(error) = kept {
            self.refuse_failed_disk(&error)?;
            tracing::warn!(%error, "what the clock said last is older than it could be");
        }
        self.clear_recycled(end)?;
        self.log.remove_prepared_but_first();
        checkpoint::write(&*self.disk, &self.layout, self.clock.now_ms(), end)?;
        remove_if_there(&*self.disk, &self.layout.abort())?;
        let root = &self.layout.root;
        self.disk.sync_directory(root).map_err(StoreError::io("sync", root))?;
        self.directory_lock.lock().take();
        Ok(())
    }
}

/// The bound is the one that the mark was written under, which may not be the one of now. Nothing was
/// unflushed when the store was closed.
pub(crate) fn evidence(
    disk: &dyn Disk,
    layout: &Layout,
    mark: Option<DurableMark>,
    was_clean: bool,
) -> Result<Evidence, StoreError> {
    Ok(match mark {
        Some(_) if was_clean => Evidence::UnflushedBytes(0),
        Some(mark) => Evidence::UnflushedBytes(mark.unflushed_bytes_max),
        None if was_clean => Evidence::FlushedBefore(i64::MAX),
        None => Evidence::FlushedBefore(checkpoint::flushed_until_ms(disk, layout)?),
    })
}

/// Apache cuts the log at the first record that it cannot read, and writes on there.
fn warn_of_cut(report: &RecoveryReport, old_mark: Option<DurableMark>) {
    if let Some(mark) = old_mark
        && report.log_end < mark.flushed
    {
        tracing::error!(
            was = mark.flushed,
            is = report.log_end,
            "Apache's broker has cut the log; records that were there are gone"
        );
    }
}

/// Notes where the log begins, for a directory in which nobody has yet.
fn note_start(
    disk: &dyn Disk,
    layout: &Layout,
    start: u64,
    was_apache: bool,
) -> Result<(), StoreError> {
    match (LogStart { start }).write(disk, layout) {
        // A full disk must open. After Apache's broker an old note may stand there, and be wrong.
        Err(error) if error.is_no_space() && !was_apache => {
            tracing::warn!(%error, "the log's start is noted later");
            Ok(())
        }
        written => written,
    }
}

/// Forgets what was derived from a log that has changed since, or without what was deleted.
pub(crate) fn remove_derived(disk: &dyn Disk, layout: &Layout) -> Result<(), StoreError> {
    for directory in [&layout.queues, &layout.keys] {
        for file in disk.list(directory).map_err(StoreError::io("list", directory))? {
            remove_if_there(disk, &directory.join(file.name))?;
        }
        disk.sync_directory(directory).map_err(StoreError::io("sync", directory))?;
    }
    Ok(())
}

/// Begins the checksums where the log ends, in the middle of a block.
fn block_tail(log: &CommitLog, end: u64, segment_bytes: u64) -> BlockTail {
    let start = BlockTail::block_start(end, segment_bytes);
    let mut before = vec![0; (end - start) as usize];
    let read = match log.segment_at(start) {
        Some(segment) => segment.read_exact(&mut before, start).is_ok(),
        None => before.is_empty(),
    };
    BlockTail::at(end, segment_bytes, read.then_some(&before))
}

fn is_sealed(segment: &Segment) -> bool {
    segment.is_sealed.load(Ordering::Acquire)
}

fn make_directory(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    disk.create_directory(path).map_err(StoreError::io("create directory", path))
}

/// Keeps brokers and tools away from a directory, as long as what it gives lives.
pub(crate) fn lock(disk: &dyn Disk, layout: &Layout) -> Result<Box<dyn Send + Sync>, StoreError> {
    disk.lock(&layout.lock()).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => StoreError::InUse { path: layout.root.clone() },
        _ => StoreError::io("lock", &layout.lock())(error),
    })
}

/// Has the name of a new store's directory survive a power cut, and the names of those above it, which
/// may be new as well.
fn make_name_durable(disk: &dyn Disk, root: &Path) -> Result<(), StoreError> {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    let named = root.ancestors().filter(|path| path.parent().is_some());
    for directory in named.map(small_file::parent) {
        match disk.sync_directory(directory) {
            // What was made here can be read and synced; others may not be.
            Err(error) if [InvalidInput, PermissionDenied, Unsupported].contains(&error.kind()) => {
            }
            synced => synced.map_err(StoreError::io("sync", directory))?,
        }
    }
    Ok(())
}

/// Whether whoever used the directory last has closed it. That `abort` is not there says so of Apache's
/// broker; of ours only where `checkpoint` is there, which is not while a store is open: `abort` may
/// have been lost, or somebody has removed it, and what a power cut left would be taken for damage.
pub(crate) fn was_closed(
    disk: &dyn Disk,
    layout: &Layout,
    mark: Option<DurableMark>,
) -> Result<bool, StoreError> {
    let has_checkpoint = mark.is_none() || is_there(disk, &layout.checkpoint())?;
    Ok(has_checkpoint && !is_there(disk, &layout.abort())?)
}

fn is_there(disk: &dyn Disk, path: &Path) -> Result<bool, StoreError> {
    match disk.open(path, OpenMode::Read) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("open", path)(error)),
    }
}
