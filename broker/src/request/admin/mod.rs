//! Requests of administrators: mqadmin, the dashboard, the operator, `weir`.

pub(super) mod clean;
pub(super) mod config;
pub(super) mod group;
pub(super) mod replicas;
pub(super) mod reset;
pub(super) mod runtime;
pub(super) mod switch;
pub(super) mod topic;

/// Cuts a page out of a sorted list for askers that read page by page: from entry `from` on, at
/// most `most` entries; without them the whole list.
fn page<T>(sorted: Vec<T>, from: Option<i32>, most: Option<i32>) -> impl Iterator<Item = T> {
    let from = usize::try_from(from.unwrap_or(0)).unwrap_or(0);
    let most = most.and_then(|most| usize::try_from(most).ok()).filter(|most| *most > 0);
    sorted.into_iter().skip(from).take(most.unwrap_or(usize::MAX))
}
