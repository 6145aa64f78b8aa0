//! The Broker: keeps messages in one commit log and serves producers and consumers.
//!
//! [`run`] opens the store, replays the state, and serves its listeners until it is told to stop.
//! Requests are acted upon on the I/O threads, see [`weirmq_remoting::net`]; registration, delayed
//! delivery and everything else that takes its time runs on the runtime that [`run`] is called on.

#![forbid(unsafe_code)]

mod acknowledgement;
mod append_batch;
mod authorisation;
mod broker;
#[cfg(test)]
mod busy_disk;
mod clients;
mod cold_reads;
mod config;
mod configuration;
#[cfg(feature = "kubernetes")]
pub mod coordination;
mod delay;
mod filter;
#[cfg(test)]
mod full_disk;
mod groups;
mod io_threads;
mod live;
mod long_poll;
#[cfg(test)]
mod many_topics;
mod metrics;
mod offsets;
mod order_locks;
mod registration;
mod replication;
mod request;
mod retry;
mod run;
mod session;
mod slave_offsets;
mod stalled_disk;
mod state;
mod stopped;
mod subscriptions;
mod topic_changes;
mod topics;
mod unique_keys;

pub(crate) use broker::Broker;
pub use config::{
    AckPolicy, BrokerConfig, ConfigError, Flush, KubernetesSection, LimitsSection, ReplicationMode,
    ReplicationSection, ReplicationTls, StoreSection,
};
pub use configuration::Configuration;
pub use live::{LIVE, Live};
pub use replication::StartError;
pub use run::{BrokerError, Listeners, run};
pub use stopped::{QueueBehind, close_directory, queues_behind};
pub use weirmq_remoting::net::TlsSection;
