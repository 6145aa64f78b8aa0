//! What administrators ask of NameServers and brokers: the requests behind `mqadmin`.
//!
//! Used by the CLI, the operator and tests. One file per thing that is looked after.

mod cluster;
mod groups;
mod kv;
mod messages;
mod offsets;
mod replicas;
mod topics;

pub use messages::FoundMessages;
pub use offsets::ResetOffset;

use crate::Client;

/// The administrator's requests, over a [`Client`]'s connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }
}
