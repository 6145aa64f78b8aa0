//! A bug that can be switched on to see whether the crash tests notice. Only this crate's own unit
//! tests can; in every other build the question is a constant.

#[cfg(test)]
thread_local! {
    static IS_ANY_BELIEVED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs `work` on this thread with a start that believes any snapshot whose records the log is long
/// enough for, and leaves the others where they are.
#[cfg(test)]
pub(super) fn with_any_snapshot_believed<T>(work: impl FnOnce() -> T) -> T {
    IS_ANY_BELIEVED.set(true);
    let result = work();
    IS_ANY_BELIEVED.set(false);
    result
}

#[cfg(test)]
pub(super) fn is_any_snapshot_believed() -> bool {
    IS_ANY_BELIEVED.get()
}

#[cfg(not(test))]
pub(super) const fn is_any_snapshot_believed() -> bool {
    false
}
