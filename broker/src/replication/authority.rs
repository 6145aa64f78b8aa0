//! Where a group's authority record is.

use std::sync::Arc;

use weirmq_authority::{Lease, Record, Settings, Swapped, Version};

use super::static_roles::StaticRoles;
#[cfg(feature = "kubernetes")]
use crate::coordination::Kubernetes;

/// A group's record and lease, as one replica reaches them.
#[derive(Clone)]
pub(super) enum Authority {
    /// At the master by configuration: here.
    Here(Arc<StaticRoles>),
    /// At the master by configuration, which is another one: it says itself that it leads.
    AtTheMaster,
    /// In objects of Kubernetes, by which replicas elect their master.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Arc<Kubernetes>),
}

/// What an authority says.
pub(super) struct Found {
    pub(super) record: (Version, Record),
    pub(super) lease: (Version, Lease),
    /// The settings of the group, where they stand beside the record; without the times.
    pub(super) settings: Option<Settings>,
}

/// Says when an authority may have something new.
pub(super) enum Hints {
    /// It never does.
    None,
    #[cfg(feature = "kubernetes")]
    Watch(crate::coordination::Watch),
}

impl Hints {
    /// Waits for the next hint. Safe to drop and call again.
    pub(super) async fn changed(&mut self) {
        match self {
            Self::None => std::future::pending().await,
            #[cfg(feature = "kubernetes")]
            Self::Watch(watch) => watch.changed().await,
        }
    }
}

impl Authority {
    /// Whether nobody else can be elected.
    pub(super) fn is_by_configuration(&self) -> bool {
        match self {
            Self::Here(_) | Self::AtTheMaster => true,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(_) => false,
        }
    }

    /// Since which epoch this replica alone was master; 0 where that is not known, or everybody can see it
    /// in the record.
    pub(super) fn master_since(&self) -> u64 {
        match self {
            Self::Here(roles) => roles.since(),
            Self::AtTheMaster => 0,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(_) => 0,
        }
    }

    /// Reads both; nothing where they cannot be asked for.
    pub(super) async fn read(&self) -> Option<Found> {
        match self {
            Self::Here(roles) => {
                let (record, lease) = roles.read();
                Some(Found { record, lease, settings: None })
            }
            Self::AtTheMaster => None,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(objects) => {
                // What is wrong was logged there.
                let (record, lease, settings) = objects.read().await.ok()?;
                Some(Found { record, lease, settings: Some(settings) })
            }
        }
    }

    pub(super) fn hints(&self) -> Hints {
        match self {
            Self::Here(_) | Self::AtTheMaster => Hints::None,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(objects) => Hints::Watch(objects.watch()),
        }
    }

    pub(super) async fn swap_record(&self, expected: Version, record: Record) -> Swapped {
        match self {
            Self::Here(roles) => {
                let roles = roles.clone();
                let swap = move || roles.swap_record(&expected, record);
                tokio::task::spawn_blocking(swap).await.unwrap_or(Swapped::Unknown)
            }
            Self::AtTheMaster => Swapped::Lost,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(objects) => objects.swap_record(&expected, &record).await,
        }
    }

    pub(super) async fn swap_lease(&self, expected: Version, lease: Lease) -> Swapped {
        match self {
            Self::Here(roles) => roles.swap_lease(&expected, lease),
            Self::AtTheMaster => Swapped::Lost,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(objects) => objects.swap_lease(&expected, &lease).await,
        }
    }

    /// Leads clients to this replica as the master of an epoch, where a Service says who that is.
    /// Ends with the future.
    pub(super) async fn hold_master_endpoint(&self, endpoint: MasterService, epoch: u64) {
        match self {
            Self::Here(_) | Self::AtTheMaster => {
                let _ = (endpoint, epoch);
            }
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(objects) => {
                let MasterService { service, address, port, pod } = endpoint;
                let ports = vec![("broker".to_owned(), port)];
                let pod = pod.map(|(name, node)| crate::coordination::Pod { name, node });
                let objects = objects.clone();
                match crate::coordination::MasterEndpoint::new(
                    objects, &service, address, ports, pod,
                ) {
                    Ok(endpoint) => {
                        endpoint.hold(epoch).await;
                    }
                    Err(error) => tracing::error!(%error, "clients are not led here"),
                }
            }
        }
    }
}

/// The Service through which clients find the master, and where that is.
#[derive(Debug, Clone)]
pub(super) struct MasterService {
    pub(super) service: String,
    pub(super) address: std::net::IpAddr,
    /// The broker's main port.
    pub(super) port: u16,
    /// The pod's name and its node's.
    pub(super) pod: Option<(String, Option<String>)>,
}
