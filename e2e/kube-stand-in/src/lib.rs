//! Stands in for the API server of Kubernetes in tests.
//!
//! It knows three kinds (`BrokerGroup` with its status subresource, `Lease`, `EndpointSlice`) and of
//! those what WeirMQ's brokers use: get, create, replace, merge and apply patches, delete and watches,
//! each by resourceVersion as the real one does it. Faults can be put between. It keeps everything in
//! memory, knows no rights, and answers over plain HTTP/1.1.
//!
//! `broker/tests/kubernetes` compares its answers with those that a real API server gave.

#![forbid(unsafe_code)]

mod answer;
mod faults;
mod kinds;
mod objects;
mod requests;
mod server;

pub use faults::{Effect, Fault};
pub use server::StandIn;
