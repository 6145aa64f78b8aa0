//! The store: CommitLog, ConsumeQueue and key index on one disk.
//!
//! Everything lives in the CommitLog, in Apache's format; queues and index are derived from it,
//! in the same step that appends. The core is synchronous and knows no thread but its own flush
//! and background thread; disk and clock are seams. `docs/store-format.md` says what is on disk.
//!
//! The broker calls this crate. It never looks at what a message means.

#![deny(unsafe_code)]

// The crash tests share what the tests outside of the crate use.
#[cfg(test)]
extern crate self as weirmq_store;

mod apache;
mod apache_ahead;
mod apache_cut;
mod append;
mod background;
mod batch;
mod block_sums;
mod block_tail;
mod checkpoint;
mod clean_end;
mod clock;
mod commit_log;
mod config;
mod consume_queue;
#[cfg(test)]
mod crash;
mod derived_file;
mod disk;
mod disk_watch;
mod dispatch;
mod durable_mark;
mod error;
mod flush;
mod format;
mod key_file;
mod log_copy;
mod log_start;
mod message;
pub mod offline;
mod open;
mod planted;
mod proof;
mod query;
mod queue_file;
mod queue_table;
mod read;
mod read_ahead;
mod rebuild;
mod recent;
mod recover;
mod repair;
mod retention;
mod scan;
mod scrub;
mod segment;
mod small_file;
mod spare;
mod store;
mod watermarks;
mod zero_ahead;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{FlushMode, StoreConfig, Upkeep};
pub use consume_queue::QueueRange;
pub use disk::{Disk, DiskFile, DiskSpace, Listed, Mapping, OpenMode, RealDisk, SimulatedDisk};
pub use dispatch::{Dispatch, DispatchRule, KeySource, apache_rule};
pub use error::StoreError;
pub use format::Format;
pub use log_copy::LogRead;
pub use message::{Appended, NewMessage};
pub use query::Boundary;
pub use queue_file::QueueEntry;
pub use read::{QueueRead, ReadLimits};
pub use recover::{ApacheUse, RecoveryReport};
pub use scrub::{DamageListener, DamagedRange};
pub use store::{Store, StoreStats};
pub use watermarks::Watermarks;
