//! The operator: turns custom resources of Kubernetes into NameServers, broker groups, topics and
//! groups, and keeps them so.
//!
//! A controller looks up what its resource refers to, builds the objects that it needs (pure), applies
//! those that are not so, and says in the status how it is. Whoever is master the brokers decide among
//! themselves; the operator makes the objects that they keep that in, and asks for hand-overs.

#![forbid(unsafe_code)]

mod admins;
pub mod annotations;
mod broker;
mod certificates;
mod children;
mod client;
mod conditions;
mod consumer_group;
mod context;
mod declared;
mod deleted_records;
#[cfg(test)]
mod examples;
pub mod kinds;
mod leader;
mod metrics;
mod name_server;
mod patience;
mod pods;
mod restart;
mod run;
mod storage;
mod topic;
mod trouble;
mod typed;
mod watch_health;
mod watches;

pub use run::{Config, RunError, run};
