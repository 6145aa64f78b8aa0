//! Whether there is disk left to write to, without asking the disk on every append.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::disk::DiskSpace;
use crate::error::StoreError;
use crate::store::Inner;

/// A tenth of the disk has to stay free, but never more than this.
const FREE_BYTES_ENOUGH: u64 = 5 << 30;
/// While writes are refused the disk is asked again after this long, so that a refusal tells how
/// it is and writes go on soon after there is space.
const ASK_AGAIN_MS: i64 = 1000;

/// The last known figures.
#[derive(Default)]
pub(crate) struct DiskWatch {
    free: AtomicU64,
    total: AtomicU64,
    floor: AtomicU64,
    is_full: AtomicBool,
    asked_ms: AtomicI64,
}

impl DiskWatch {
    pub(crate) fn update(&self, space: DiskSpace, free_bytes_min: Option<u64>, segment_bytes: u64) {
        let share = (space.total / 10).min(FREE_BYTES_ENOUGH);
        let floor = free_bytes_min.unwrap_or(share.max(2 * segment_bytes));
        self.free.store(space.free, Ordering::Relaxed);
        self.total.store(space.total, Ordering::Relaxed);
        self.floor.store(floor, Ordering::Relaxed);
        let is_full = space.free < floor;
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            let free = space.free;
            if is_full {
                tracing::error!(free, floor, "too little disk is free, writes are refused");
            } else {
                tracing::info!(free, floor, "enough disk is free again, writes go on");
            }
        }
    }

    /// Free and total bytes when somebody last looked.
    pub(crate) fn figures(&self) -> DiskSpace {
        DiskSpace {
            free: self.free.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }

    /// Whether at least this share of the disk is used.
    pub(crate) fn is_used(&self, percent: u8) -> bool {
        let DiskSpace { free, total } = self.figures();
        total > 0 && total.saturating_sub(free) / 100 * 100 >= total / 100 * u64::from(percent)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// Whether an append may write. On the append path: one atomic load while there is space.
    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        if !self.disk_watch.is_full() {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let asked_ms = self.disk_watch.asked_ms.load(Ordering::Relaxed);
        if !(asked_ms..asked_ms + ASK_AGAIN_MS).contains(&now_ms) {
            self.check_space()?;
        }
        if self.disk_watch.is_full() { Err(self.full()) } else { Ok(()) }
    }

    /// See [`crate::Store::check_reserve`].
    pub(crate) fn check_reserve(&self, bytes: u64) -> Result<(), StoreError> {
        self.check_space()?;
        if self.disk_watch.figures().free < bytes { Err(self.full()) } else { Ok(()) }
    }

    /// Whether retention is to free what it may: enough of the disk is used, or writes are refused
    /// although it is not, because the disk is small or much has to stay free.
    pub(crate) fn is_space_short(&self) -> bool {
        self.disk_watch.is_used(self.upkeep().retention_disk_percent) || self.disk_watch.is_full()
    }

    pub(crate) fn check_space(&self) -> Result<(), StoreError> {
        let root = &self.layout.root;
        self.disk_watch.asked_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        let space = self.disk.space(root).map_err(StoreError::io("measure free space of", root))?;
        self.disk_watch.update(space, self.upkeep().free_bytes_min, self.config.segment_bytes);
        Ok(())
    }

    /// Turns a disk's "no space left" into [`StoreError::Full`], with the figures of this moment.
    pub(crate) fn explain(&self, error: StoreError) -> StoreError {
        if !error.is_no_space() {
            return error;
        }
        // If the disk does not even answer, the last figures have to do.
        let _ = self.check_space();
        self.full()
    }

    fn full(&self) -> StoreError {
        let DiskSpace { free, total } = self.disk_watch.figures();
        let floor = self.disk_watch.floor.load(Ordering::Relaxed);
        StoreError::Full { path: self.layout.root.clone(), free, total, floor }
    }
}
