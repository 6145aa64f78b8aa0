//! Keys for messages whose producer gave them none.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes keys of 32 upper-case hex digits, as clients do: half says which broker process, half
/// counts.
pub(crate) struct UniqueKeys {
    process: u64,
    next: AtomicU64,
}

impl UniqueKeys {
    pub(crate) fn new() -> Self {
        // RandomState is seeded by the system: two processes do not get the same.
        Self { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self) -> String {
        format!("{:016X}{:016X}", self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
