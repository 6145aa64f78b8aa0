//! A store's directory while no broker uses it: looked at, verified, cut, exported.
//!
//! The tools of an operator call this. Everything but [`cut`], [`truncate`], [`begin_at`],
//! [`accept_missing_start`] and [`export_queues`] works through a disk that refuses changes, so that looking at evidence never spoils it. Bytes are hostile
//! here more than anywhere: these tools are for directories in which something is wrong.

mod beginning;
mod cut;
mod cut_queues;
mod directory;
mod entries;
mod export_queues;
mod inspect;
mod report;
pub(crate) mod truncate;
mod verify;
mod verify_derived;
mod verify_files;

pub use beginning::{GivenUp, accept_missing_start};
pub use cut::{Cut, CutPlan, Excess, cut, plan_cut};
pub use directory::Directory;
pub use export_queues::{ExportReport, export_queues};
pub use inspect::{
    Broken, DerivedState, Inspection, ProofsView, RecordView, SegmentView, StoredEntry,
};
pub use report::{Finding, FindingKind, LogRange, Progress, TornTail, VerifyReport};
pub use truncate::{begin_at, truncate};
pub use verify::verify;
