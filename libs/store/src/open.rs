//! Opens a directory and leaves it again: what happens in which order, and what stays behind.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::append::Appender;
use crate::background::Background;
use crate::clock::Clock;
use crate::commit_log::CommitLog;
use crate::config::StoreConfig;
use crate::disk::{Disk, OpenMode};
use crate::disk_watch::DiskWatch;
use crate::durable_mark::DurableMark;
use crate::error::StoreError;
use crate::flush::Flusher;
use crate::format::{Format, Layout, PADDING_HEAD_BYTES};
use crate::proof::{self, OpenProof};
use crate::queue_table::QueueState;
use crate::rebuild::Rebuild;
use crate::recover::recover;
use crate::segment::{Segment, remove_if_there};
use crate::spare::SpareSegments;
use crate::store::Inner;
use crate::watermarks::Watermarks;

impl Inner {
    pub(crate) fn open(
        config: StoreConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let started = Instant::now();
        let layout = Layout::under(&config.directory);
        make_directory(&*disk, &layout.root)?;
        let directory_lock = lock(&*disk, &layout)?;
        layout.directories().iter().try_for_each(|path| make_directory(&*disk, path))?;
        let format = Format::open(&*disk, &layout, &config)?;
        let was_clean = !has_abort(&*disk, &layout)?;
        let mark = DurableMark::read(&*disk, &layout)?;
        let recovered = recover(&disk, &layout, &config, mark, was_clean)?;
        let mut report = recovered.report;
        let mut queue_state = QueueState::read(&*disk, &layout)?;
        if queue_state.fit(report.log_start, report.log_end) {
            queue_state.write(&*disk, &layout)?;
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
        let spares =
            SpareSegments::open(&disk, &layout, config.segment_bytes, config.spare_segments_max)?;
        let inner = Self {
            proof: Mutex::new(OpenProof::at(end)),
            spares,
            marks: Watermarks::at(end, config.is_sync()),
            appender: Mutex::new(Appender::at(end)),
            zeroed: Condvar::new(),
            flusher: Flusher::new(config.flush),
            background: Background::marked_at(end),
            disk_watch: DiskWatch::default(),
            protection_listener: RwLock::new(None),
            protected_from: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            recovery: report,
            directory_lock: Mutex::new(Some(directory_lock)),
            queue_state: Mutex::new(queue_state),
            config,
            layout,
            format,
            disk,
            clock,
            log,
            queues,
        };
        inner.begin(mark)?;
        tracing::info!(
            directory = %inner.layout.root.display(),
            log_end = end,
            was_clean,
            rebuilt_segments = inner.recovery.rebuilt_segments,
            took_ms = started.elapsed().as_millis() as u64,
            "store opened"
        );
        Ok(inner)
    }

    /// Leaves the traces that the next open goes by, before the first record.
    fn begin(&self, old_mark: Option<DurableMark>) -> Result<(), StoreError> {
        let mark = self.durable_mark_at(self.marks.flushed());
        if old_mark != Some(mark) {
            mark.write(&*self.disk, &self.layout)?;
        }
        self.replace_proofs(proof::begin)?;
        let abort = self.layout.abort();
        self.disk.open(&abort, OpenMode::Write).map_err(StoreError::io("create", &abort))?;
        let root = &self.layout.root;
        self.disk.sync_directory(root).map_err(StoreError::io("sync", root))?;
        self.check_space()
    }

    /// Has what follows the log's end in recycled segments proved, or not proved, from now on.
    fn replace_proofs(
        &self,
        replace: fn(&Segment, u64, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let end = self.marks.flushed();
        let ahead = self.log.newest().into_iter().chain(self.log.prepared());
        for segment in ahead.filter(|segment| segment.is_recycled()) {
            let position = end.max(segment.start);
            if position + PADDING_HEAD_BYTES <= segment.records_end() {
                replace(&segment, position, end)?;
                segment.sync()?;
            }
        }
        Ok(())
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
                tracing::warn!(%error, "queue and key entries are derived again at the next open");
            }
        }
        self.write_durable_mark()?;
        self.replace_proofs(proof::end)?;
        self.log.remove_prepared_but_first();
        remove_if_there(&*self.disk, &self.layout.abort())?;
        let root = &self.layout.root;
        self.disk.sync_directory(root).map_err(StoreError::io("sync", root))?;
        self.directory_lock.lock().take();
        Ok(())
    }
}

fn is_sealed(segment: &Segment) -> bool {
    segment.is_sealed.load(Ordering::Acquire)
}

fn make_directory(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    disk.create_directory(path).map_err(StoreError::io("create directory", path))
}

fn lock(disk: &dyn Disk, layout: &Layout) -> Result<Box<dyn Send + Sync>, StoreError> {
    disk.lock(&layout.lock()).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => StoreError::InUse { path: layout.root.clone() },
        _ => StoreError::io("lock", &layout.lock())(error),
    })
}

fn has_abort(disk: &dyn Disk, layout: &Layout) -> Result<bool, StoreError> {
    match disk.open(&layout.abort(), OpenMode::Read) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("open", &layout.abort())(error)),
    }
}
