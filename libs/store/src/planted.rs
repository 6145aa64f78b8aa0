//! Bugs that can be switched on to see whether the crash tests notice.
//!
//! Only this crate's own unit tests can switch one on; in every other build the question is a
//! constant. Bugs that a disk can have for us are in `crash/faulty_disk.rs` instead.

/// A promise broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The flushed mark moves on although the sync failed.
    FlushedAfterFailedSync,
    /// The durable mark says what is written, not what is flushed.
    MarkAheadOfFlushed,
    /// With synchronous flush records are visible before they are flushed.
    VisiblePastFlushed,
    /// Recovery cuts at the first bad record, whatever stands behind it.
    CutAtFirstBadRecord,
    /// A queue goes on from a counter in a file although the log lost its end.
    OffsetFromCounter,
    /// A proof counts only where it begins at what was flushed, and not in its middle.
    ProofFromItsBeginningOnly,
    /// An expired segment gets its next life although somebody reads from it.
    RecycledWhileRead,
}

#[cfg(test)]
thread_local! {
    static BUG: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Runs `work` with a bug in the store, on this thread.
#[cfg(test)]
pub(crate) fn with<T>(bug: Option<Planted>, work: impl FnOnce() -> T) -> T {
    BUG.set(bug);
    let result = work();
    BUG.set(None);
    result
}

#[cfg(test)]
pub(crate) fn is_on(bug: Planted) -> bool {
    BUG.get() == Some(bug)
}

#[cfg(not(test))]
pub(crate) const fn is_on(_bug: Planted) -> bool {
    false
}
