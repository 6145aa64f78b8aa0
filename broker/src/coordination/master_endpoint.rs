//! The address under which clients find a group's master.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Kubernetes;
use super::api::{Change, Error, Kind, Object};
use super::kubernetes::check_name;

const ENDPOINT_SLICE: Kind = Kind {
    name: "EndpointSlice",
    group: "discovery.k8s.io",
    version: "v1",
    resource: "endpointslices",
    origin: "the master makes it",
};

/// The epoch of the master that wrote the endpoint.
const EPOCH: &str = "weirmq.io/epoch";

/// The uid of the BrokerGroup in which that is its epoch: one that was made again counts from 0.
const GROUP: &str = "weirmq.io/broker-group-uid";

/// The pause after a failure; doubles up to the second one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often a master looks whether the endpoint still is its own.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often one call of [`MasterEndpoint::move_here`] looks again after another one's change.
const ROUNDS_MAX: u32 = 4;

/// The one endpoint of a group's master Service, which has no selector: an `EndpointSlice` called
/// `SERVICE-ipv4` or `SERVICE-ipv6`. The master moves it itself, so that clients who connect again find
/// it without a new route and without the operator.
pub struct MasterEndpoint {
    group: Arc<Kubernetes>,
    slice: Object,
    service: String,
    address: IpAddr,
    ports: Vec<(String, u16)>,
    pod: Option<Pod>,
}

/// The pod that the endpoint stands for, for people and for routing by zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub node: Option<String>,
}

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The endpoint leads here.
    Here,
    /// A master of this later epoch was here first.
    Superseded { epoch: u64 },
}

impl MasterEndpoint {
    /// The endpoint of `service` in the group's namespace, leading to `address` with these named
    /// ports, as the Service names them. Sends nothing yet.
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub fn new(
        group: Arc<Kubernetes>,
        service: &str,
        address: IpAddr,
        ports: Vec<(String, u16)>,
        pod: Option<Pod>,
    ) -> Result<Self, Error> {
        check_name("Service", service, 63)?;
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            let why =
                format!("{address} is no address at which clients of {service} find this broker");
            return Err(Error::Configuration(why));
        }
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let (namespace, name) = (group.namespace(), format!("{service}-{family}").into());
        let slice = Object { kind: &ENDPOINT_SLICE, namespace, name };
        Ok(Self { group, slice, service: service.to_owned(), address, ports, pod })
    }

    /// Leads clients here, as the master of this epoch of the record that was read last, and sees to it that it stays so, until the future is dropped or a later
    /// master is found. To be dropped as soon as this broker is not master any more.
    ///
    /// Returns the later epoch.
    pub async fn hold(&self, epoch: u64) -> u64 {
        let mut pause = PAUSES.0;
        let mut is_here = false;
        let mut complaint = String::new();
        loop {
            match self.move_here(epoch).await {
                Ok(Moved::Superseded { epoch: later }) => {
                    info!(slice = %self.slice, epoch, later, "clients are led to a later master");
                    return later;
                }
                Ok(Moved::Here) => {
                    if !std::mem::replace(&mut is_here, true) {
                        info!(slice = %self.slice, address = %self.address, epoch, "clients are led here");
                    }
                    complaint.clear();
                    pause = PAUSES.0;
                    sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    let error = error.to_string();
                    if error == complaint {
                        debug!(error, "clients are still not led here");
                    } else {
                        warn!(error, "clients are not led here");
                    }
                    complaint = error;
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// Leads clients here, unless a master of a later epoch led them to itself. Writes nothing where
    /// that is so already.
    ///
    /// # Errors
    /// As the API server answers. It may have moved nevertheless; asking again does no harm.
    pub async fn move_here(&self, epoch: u64) -> Result<Moved, Error> {
        let mut lost = Error::Conflict(self.slice.clone());
        for _ in 0..ROUNDS_MAX {
            let found = match self.group.api().get(&self.slice).await {
                Ok(found) => Some(found),
                Err(Error::Missing(_)) => None,
                Err(error) => return Err(error),
            };
            let mut wanted = self.wanted(epoch);
            if let Some(found) = &found {
                if let Some(later) = later_epoch(found, &wanted) {
                    return Ok(Moved::Superseded { epoch: later });
                }
                if holds(found, &wanted) {
                    return Ok(Moved::Here);
                }
                // A request of an earlier master that comes late meets another version.
                wanted["metadata"]["resourceVersion"] =
                    found["metadata"]["resourceVersion"].clone();
            }
            match self.group.api().change(&self.slice, Change::Apply, &wanted).await {
                Ok(_) => return Ok(Moved::Here),
                Err(error @ Error::Conflict(_)) => lost = error,
                Err(error) => return Err(error),
            }
        }
        Err(lost)
    }

    fn wanted(&self, epoch: u64) -> Value {
        let slice = &self.slice;
        let mut endpoint = json!({
            "addresses": [self.address.to_string()],
            "conditions": { "ready": true },
        });
        if let Some(Pod { name, node }) = &self.pod {
            let namespace = slice.namespace.as_ref();
            endpoint["targetRef"] = json!({ "kind": "Pod", "name": name, "namespace": namespace });
            if let Some(node) = node {
                endpoint["nodeName"] = json!(node);
            }
        }
        let ports = self.ports.iter();
        let ports =
            ports.map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" }));
        json!({
            "apiVersion": slice.api_version(),
            "kind": slice.kind.name,
            "metadata": {
                "name": slice.name.as_ref(),
                "namespace": slice.namespace.as_ref(),
                "labels": {
                    "kubernetes.io/service-name": self.service,
                    "endpointslice.kubernetes.io/managed-by": "weirmq.io",
                },
                "annotations": { EPOCH: epoch.to_string(), GROUP: self.group.uid() },
            },
            "addressType": if self.address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [endpoint],
            "ports": ports.collect::<Vec<_>>(),
        })
    }
}

/// The epoch of a master of the same group that wrote the endpoint after the wanted one.
fn later_epoch(found: &Value, wanted: &Value) -> Option<u64> {
    let (found, wanted) = (&found["metadata"]["annotations"], &wanted["metadata"]["annotations"]);
    let epoch = |annotations: &Value| annotations[EPOCH].as_str()?.parse::<u64>().ok();
    let later = epoch(found)?;
    (found[GROUP] == wanted[GROUP] && later > epoch(wanted)?).then_some(later)
}

/// Whether everything that is wanted is there; others' labels and the like may be as well.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| found.get(key).is_some_and(|found| holds(found, wanted))),
        (found, wanted) => found == wanted,
    }
}
