//! Where a group's authority record is: the backends of `weirmq_authority`.

use std::sync::Arc;

use weirmq_authority::{Lease, Record, Swapped, Version};

use super::static_roles::StaticRoles;

/// A group's record and lease, as one replica reaches them.
#[derive(Clone)]
pub(crate) enum Authority {
    /// At the master by configuration: here.
    Here(Arc<StaticRoles>),
    /// At the master by configuration, which is another one: it says itself that it leads.
    AtTheMaster,
}

impl Authority {
    /// Reads both; nothing where they cannot be asked for.
    pub(crate) async fn read(&self) -> Option<((Version, Record), (Version, Lease))> {
        match self {
            Self::Here(roles) => Some(roles.read()),
            Self::AtTheMaster => None,
        }
    }

    pub(crate) async fn swap_record(&self, expected: Version, record: Record) -> Swapped {
        match self {
            Self::Here(roles) => {
                let roles = roles.clone();
                let swap = move || roles.swap_record(&expected, record);
                tokio::task::spawn_blocking(swap).await.unwrap_or(Swapped::Unknown)
            }
            Self::AtTheMaster => Swapped::Lost,
        }
    }

    pub(crate) async fn swap_lease(&self, expected: Version, lease: Lease) -> Swapped {
        match self {
            Self::Here(roles) => roles.swap_lease(&expected, lease),
            Self::AtTheMaster => Swapped::Lost,
        }
    }
}
