//! What the tests of the running program share.

pub(crate) mod random;
pub(crate) mod server;
