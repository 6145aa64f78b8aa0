//! What every controller is given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use weirmq_client::Admin;

use crate::admins::Admins;
use crate::broker::{Certified, Draining, Slaves, client_name_servers};
use crate::conditions;
use crate::consumer_group::Known;
use crate::leader::Tenure;
use crate::metrics::Metrics;
use crate::patience::Patience;
use crate::restart::Configuration;
use crate::watches::{Declarations, understood};

/// The field manager of everything that the operator writes.
pub(crate) const MANAGER: &str = "weirmq-operator";

/// Shared by all controllers of a process.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    /// What is declared, so far as controllers look at each other's resources.
    pub(crate) declared: Declarations,
    /// Until when anything may be changed.
    pub(crate) tenure: Tenure,
    /// The image of pods whose resource names none.
    pub(crate) image: String,
    /// The domain of the cluster's DNS. Default of Kubernetes: `cluster.local`.
    pub(crate) cluster_domain: String,
    /// The nodes, where the operator may look at them.
    pub(crate) nodes: Option<Store<Node>>,
    /// What was found last of groups that leave, by the Broker's uid and their name.
    pub(crate) draining: Mutex<BTreeMap<(String, String), Draining>>,
    /// Brokers whose certificates were looked at, by namespace and name.
    pub(crate) certified: Mutex<BTreeMap<(String, String), Certified>>,
    /// How long a Secret that changed takes to reach all pods that mount it.
    pub(crate) certificate_settle: SignedDuration,
    /// What pods said of their configuration, by uid.
    pub(crate) configurations: Mutex<HashMap<String, Configuration>>,
    /// What was in vain.
    pub(crate) patience: Patience,
    /// What masters say of their slaves.
    pub(crate) slaves: Slaves,
    /// Consumer groups of masters.
    pub(crate) consumer_groups: Known,
    /// Clients of the admin protocol.
    pub(crate) admins: Admins,
}

/// Why a resource could not be made as it is declared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what}: {}", said(error))]
    Kubernetes { what: String, error: Box<kube::Error> },
    #[error("{what}: {error}")]
    Broker { what: String, error: weirmq_client::ClientError },
    #[error("there is no {kind} {name} in this namespace; make it, or name another one")]
    Missing { kind: &'static str, name: String },
    #[error(
        "there is a {kind} {name} that the operator did not make; rename the resource, or delete that one"
    )]
    NameTaken { kind: String, name: String },
    #[error("{kind} {name} cannot be read: {error}")]
    NotUnderstood { kind: &'static str, name: String, error: String },
    #[error("the system has no random numbers for a secret")]
    NoRandomNumbers,
    #[error("{0}")]
    Certificates(String),
    #[error(
        "the operator may not read Secrets of namespace {namespace}, nor ask cert-manager there ({name}): \
         name {namespace}/{broker} in rbac.certificates of the operator's chart, or give tls.secret"
    )]
    MayNotCertify { name: String, broker: String, namespace: String },
    #[error(
        "the API server knows no Certificate of cert-manager.io/v1; install cert-manager, or leave tls.issuerRef out to have the operator make certificates"
    )]
    NoCertManager,
    #[error("the lease of the operators was not renewed in time: brokers are told nothing")]
    TenureOver,
}

/// What the API server said, without all the fields in which it said it.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

impl Error {
    pub(crate) fn kubernetes(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |error| Self::Kubernetes { what: what.into(), error: Box::new(error) }
    }

    pub(crate) fn broker(
        what: impl Into<String>,
    ) -> impl FnOnce(weirmq_client::ClientError) -> Self {
        move |error| Self::Broker { what: what.into(), error }
    }

    /// The object of the namespace that it is about, where that is another one: events that differ in their note
    /// alone are one to Kubernetes.
    pub(crate) fn about(&self, namespace: Option<String>) -> Option<ObjectReference> {
        let (kind, name) = match self {
            Self::Missing { kind, name } => (*kind, name),
            Self::NameTaken { kind, name } => (&**kind, name),
            _ => return None,
        };
        Some(ObjectReference {
            kind: Some(kind.to_owned()),
            name: Some(name.clone()),
            namespace,
            ..ObjectReference::default()
        })
    }

    /// One word for metrics and events.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "KubernetesError",
            Self::Broker { .. } => "BrokerUnreachable",
            Self::Missing { .. } => "ReferenceMissing",
            Self::NameTaken { .. } => "NameTaken",
            Self::NoRandomNumbers => "NoRandomNumbers",
            Self::Certificates(_) | Self::MayNotCertify { .. } => "CertificatesNotMade",
            Self::NoCertManager => "CertManagerMissing",
            Self::NotUnderstood { .. } => "NotUnderstood",
            Self::TenureOver => "LeaseLost",
        }
    }
}

impl Context {
    /// A client of the admin protocol by way of these NameServers, `host:port` parted by `;`.
    pub(crate) fn admin(&self, name_servers: &str) -> Result<Arc<Admin>, Error> {
        if self.tenure.is_over() {
            return Err(Error::TenureOver);
        }
        let named = || {
            let brokers = self.declared.brokers.state();
            let brokers = understood(&brokers);
            brokers.map(|broker| client_name_servers(broker, &self.cluster_domain)).collect()
        };
        let admin = self.admins.get(name_servers, named);
        admin.map_err(Error::broker(format!("start a client of {name_servers}")))
    }

    /// Writes an event about `object`. One that cannot be written is only logged.
    pub(crate) async fn event<K>(&self, object: &K, type_: EventType, reason: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.event_about(object, None, type_, "Reconcile", reason, note).await;
    }

    /// The same, with what was done, and it concerns another object as well. Events that differ in their note
    /// alone are one to Kubernetes.
    pub(crate) async fn event_about<K>(
        &self,
        object: &K,
        secondary: Option<ObjectReference>,
        type_: EventType,
        action: &str,
        reason: &str,
        note: String,
    ) where
        K: Resource<DynamicType = ()>,
    {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(conditions::note(note)),
            action: action.to_owned(),
            secondary,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::warn!(%error, reason, object = object.name_any(), "event not written");
        }
    }

    /// Writes the status of `object`, if it is another one.
    pub(crate) async fn report<K, S>(
        &self,
        object: &K,
        before: Option<&S>,
        status: &S,
    ) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
        S: Serialize + PartialEq,
    {
        if before == Some(status) {
            return Ok(());
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let patch = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": { "name": name },
            "status": status,
        });
        let parameters = kube::api::PatchParams::apply(MANAGER).force();
        match api.patch_status(&name, &parameters, &kube::api::Patch::Apply(patch)).await {
            // It was deleted meanwhile, and nobody reads its status.
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            written => {
                let what = format!("write the status of {} {name}", K::kind(&()));
                written.map(|_| ()).map_err(Error::kubernetes(what))
            }
        }
    }
}

/// How long to wait after the `failures`th failure in a row: 1 s, doubling up to 2 minutes.
pub(crate) fn pause_after(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.clamp(1, 8).saturating_sub(1)).min(Duration::from_secs(120))
}
