//! Who is master of a broker group.
//!
//! A group has one [`Record`] and one [`Lease`], which change by compare-and-swap only. Each replica
//! of the group runs a [`Replica`], which has neither clock nor I/O: it is told what was read,
//! heard and written, and answers with [`Action`]s. The broker carries them out; the simulation in
//! this crate carries them out on a network, disks and clocks of its own, under seeds.
//!
//! The rules and why they hold: `docs/replication.md`.

#![forbid(unsafe_code)]

mod complaint;
mod epochs;
mod in_sync;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod lease;
mod member;
mod planted;
mod promise;
mod record;
mod replica;
mod report;
mod settings;
#[cfg(test)]
mod sim;
mod trail;

pub use complaint::Complaint;
pub use epochs::{EpochStart, EpochTable};
pub use lease::Lease;
pub use member::{Incarnation, Member, Members, ReplicaId};
pub use promise::Promise;
pub use record::{Phase, Record, Regression};
pub use replica::{Action, Replica, Role, Standing, Swapped, Version};
pub use report::{LogPosition, Report};
pub use settings::{AcknowledgedBy, Promotion, Replication, Settings};
pub use trail::{Tag, Trail};
