//! Where a group's authority record and lease stand, and how clients are led to its master.
//!
//! On Kubernetes: the status of a `BrokerGroup`, a `Lease`, and the endpoint of the group's master
//! Service. Who decides is [`weirmq_authority::Replica`]; nothing here remembers more than what it
//! read last, and only to check a change.

mod api;
mod kubernetes;
mod lease_object;
mod master_endpoint;
mod watch;

pub use api::{Error, Object};
pub use kubernetes::{Found, Kubernetes};
pub use master_endpoint::{MasterEndpoint, Moved, Pod};
pub use watch::Watch;
