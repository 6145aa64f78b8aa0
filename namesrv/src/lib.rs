//! The NameServer: brokers register here, clients ask here which broker serves a topic.
//!
//! Name servers do not know each other; a broker registers with all of them. Routes live in memory
//! and come back with the brokers' next registrations; only the KV configuration is on disk.
//! [`run`] serves RocketMQ's remoting protocol on any number of named listeners.

#![forbid(unsafe_code)]

mod authorisation;
mod config;
mod expiry;
mod kv_config;
mod metrics;
mod request;
mod route_table;
mod server;

pub use config::{ConfigError, LimitsSection, NameServerConfig};
pub use kv_config::KvError;
pub use server::{DEFAULT_LISTENER, Listener, NameServerError, run};
