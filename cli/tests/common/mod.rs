//! What the tests of the running program share.

pub(crate) mod random;
pub(crate) mod server;
mod skipped;

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub(crate) use skipped::skipped;
