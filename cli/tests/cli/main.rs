//! The whole program, run as users run it. One test binary, because linking takes longer than
//! the tests.

mod configuration;
mod disk;
mod many_topics;
mod standalone;
mod store;
mod subscriptions;
mod support;
mod tools;
