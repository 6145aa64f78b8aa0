//! The operator: turns custom resources of Kubernetes into NameServers, broker groups, topics and
//! groups, and keeps them so.

#![forbid(unsafe_code)]

pub mod kinds;
