//! Whether there is disk left to write to, without asking the disk on every append.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config::StoreConfig;
use crate::disk::DiskSpace;
use crate::error::StoreError;
use crate::store::Inner;

/// A tenth of the disk has to stay free, but never more than this.
const FREE_BYTES_ENOUGH: u64 = 5 << 30;

/// The last known figures.
#[derive(Default)]
pub(crate) struct DiskWatch {
    free: AtomicU64,
    total: AtomicU64,
    floor: AtomicU64,
    is_full: AtomicBool,
}

impl DiskWatch {
    pub(crate) fn update(&self, space: DiskSpace, config: &StoreConfig) {
        let share = (space.total / 10).min(FREE_BYTES_ENOUGH);
        let floor = config.free_bytes_min.unwrap_or(share.max(2 * config.segment_bytes));
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

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::Relaxed) { Err(self.full()) } else { Ok(()) }
    }

    /// Free and total bytes when somebody last looked.
    pub(crate) fn figures(&self) -> DiskSpace {
        DiskSpace {
            free: self.free.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
        }
    }

    /// Turns a disk's "no space left" into [`StoreError::Full`].
    pub(crate) fn explain(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                self.full()
            }
            other => other,
        }
    }

    fn full(&self) -> StoreError {
        StoreError::Full {
            free: self.free.load(Ordering::Relaxed),
            floor: self.floor.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    pub(crate) fn check_space(&self) -> Result<(), StoreError> {
        let root = &self.layout.root;
        let space = self.disk.space(root).map_err(StoreError::io("measure free space of", root))?;
        self.disk_watch.update(space, &self.config);
        Ok(())
    }
}
