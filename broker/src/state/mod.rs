//! The broker's state: a fold over the topic `weirmq.state` of its own log.
//!
//! Every change is appended first and applied second, under one lock, so the tables are always
//! what a replay of the log would make of them. Whoever promised a change to a client waits for
//! the position that [`State::change`] returns to become visible, as for a message.
//!
//! A complete image goes into the log from time to time. It lets a log begin anywhere: what came
//! before the newest image is not needed. A snapshot is a copy of an image in a file of its own
//! and only shortens the start.

mod config_files;
#[cfg(test)]
mod crash;
mod export;
mod image;
mod import;
mod log;
mod planted;
mod record;
mod snapshot;
mod unserved;

pub(crate) use import::ImportError;
pub(crate) use log::{State, StateError};
pub(crate) use record::StateRecord;
pub(crate) use snapshot::FILE as SNAPSHOT_FILE;
