//! A bug that can be switched on to see whether the crash tests notice. Only this crate's own unit
//! tests can; in every other build the question is a constant.

#[cfg(test)]
thread_local! {
    static IS_SNAPSHOT_AHEAD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs `work` on this thread with snapshots that do not wait for the log to be on disk.
#[cfg(test)]
pub(super) fn with_snapshots_ahead<T>(work: impl FnOnce() -> T) -> T {
    IS_SNAPSHOT_AHEAD.set(true);
    let result = work();
    IS_SNAPSHOT_AHEAD.set(false);
    result
}

#[cfg(test)]
pub(super) fn is_snapshot_ahead() -> bool {
    IS_SNAPSHOT_AHEAD.get()
}

#[cfg(not(test))]
pub(super) const fn is_snapshot_ahead() -> bool {
    false
}
