//! One file per command: its flags, what it does, what it prints.

pub(crate) mod broker;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod consume;
#[cfg(feature = "kubernetes")]
pub(crate) mod crds;
pub(crate) mod group;
pub(crate) mod healthcheck;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubectl;
pub(crate) mod kv;
mod member;
pub(crate) mod message;
pub(crate) mod namesrv;
#[cfg(feature = "kubernetes")]
pub(crate) mod operator;
pub(crate) mod place;
pub(crate) mod produce;
mod reader;
pub(crate) mod standalone;
pub(crate) mod store;
pub(crate) mod tail;
pub(crate) mod topic;
