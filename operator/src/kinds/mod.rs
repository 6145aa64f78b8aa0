//! The kinds that people declare, group `weirmq.io`, version `v1alpha1`.
//!
//! What the schemas and their rules let through the controllers can act upon; every field is either
//! reconciled or refused when it changes. `weir crds` prints the definitions.

mod broker;
mod common;
mod consumer_group;
mod name_server;
mod rules;
mod topic;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
pub use weirmq_authority::kubernetes::BrokerGroup;

pub use broker::*;
pub use common::*;
pub use consumer_group::*;
pub use name_server::*;
pub use topic::*;

/// The definitions of all kinds, in the order in which they are kept in `crds/`.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![NameServer::crd(), Broker::crd(), BrokerGroup::crd(), Topic::crd(), ConsumerGroup::crd()]
}
