//! Requests of administrators: mqadmin, the dashboard, the operator, `weir`.

pub(super) mod group;
pub(super) mod reset;
pub(super) mod runtime;
pub(super) mod topic;
