//! Addresses for clients outside of the cluster: a Service for each replica.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{Group, PORT, Plan};
use crate::context::Error;
use crate::kinds::{Broker, BrokerExternal, ExternalType};

/// Stands for the address of the pod's node in what brokers are told.
pub(super) const NODE: &str = "{node}";

/// The Service of one replica.
pub(in crate::broker) fn service_name(group: &str, replica: u32) -> String {
    format!("{group}-{replica}-external")
}

pub(super) fn services(plan: &Plan<'_>, group: &Group) -> Vec<Value> {
    let Some(external) = &plan.resource.spec.external else { return Vec::new() };
    let type_ = match external.type_ {
        ExternalType::NodePort => "NodePort",
        ExternalType::LoadBalancer => "LoadBalancer",
    };
    let service = |replica| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": plan.group_metadata(&group.name, &service_name(&group.name, replica)),
            "spec": {
                "type": type_,
                "selector": { "statefulset.kubernetes.io/pod-name": format!("{}-{replica}", group.name) },
                "ports": [{ "name": "broker", "port": PORT, "targetPort": "broker", "protocol": "TCP" }],
            },
        })
    };
    (0..group.replicas).map(service).collect()
}

/// The same of one as the API server has it.
///
/// # Errors
/// [`Error::NotUnderstood`].
pub(in crate::broker) fn address_of(
    service: &DynamicObject,
    external: &BrokerExternal,
) -> Result<Option<String>, Error> {
    let read: Service = service.clone().try_parse().map_err(|error| Error::NotUnderstood {
        kind: "Service",
        name: service.name_any(),
        error: error.to_string(),
    })?;
    Ok(address(&read, external))
}

/// Where a Service can be reached from outside, once that is known.
pub(in crate::broker) fn address(service: &Service, external: &BrokerExternal) -> Option<String> {
    match external.type_ {
        ExternalType::NodePort => {
            let port = service.spec.as_ref()?.ports.as_ref()?.first()?.node_port?;
            Some(joined(external.host.as_deref().unwrap_or(NODE), port))
        }
        ExternalType::LoadBalancer => {
            let balancer = service.status.as_ref()?.load_balancer.as_ref()?;
            let point = balancer.ingress.as_ref()?.first()?;
            Some(joined(point.hostname.as_ref().or(point.ip.as_ref())?, i32::from(PORT)))
        }
    }
}

fn joined(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The addresses of a group's replicas, by number, as far as they are known without a gap.
pub(super) fn addresses(plan: &Plan<'_>, group: &Group) -> Vec<String> {
    let known = |replica| plan.external.get(&service_name(&group.name, replica)).cloned();
    (0..group.replicas).map_while(known).collect()
}

/// Whether an address that comes later has to be told to brokers that run already. Ports of nodes are
/// known before the pods are made.
pub(super) fn may_come_later(resource: &Broker) -> bool {
    let external = resource.spec.external.as_ref();
    external.is_some_and(|external| external.type_ == ExternalType::LoadBalancer)
}

/// What is known of the outside addresses, by Service.
pub(in crate::broker) type Addresses = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outside_address_is_known_once_the_cluster_gave_one() {
        let found = |external: Value, service: Value| {
            let external: BrokerExternal = serde_json::from_value(external).unwrap();
            address(&serde_json::from_value(service).unwrap(), &external)
        };
        let balancer = |ingress: Value| {
            let service = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
            found(json!({ "type": "LoadBalancer" }), service)
        };
        assert_eq!(found(json!({ "type": "LoadBalancer" }), json!({})), None);
        assert_eq!(balancer(json!([])), None);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(balancer(json!([{ "ip": "192.0.2.7" }])), some("192.0.2.7:10911"));
        assert_eq!(balancer(json!([{ "ip": "fd00::7" }])), some("[fd00::7]:10911"));
        let both = json!([{ "ip": "192.0.2.7", "hostname": "mq.example.com" }]);
        assert_eq!(balancer(both), some("mq.example.com:10911"));

        let service = json!({ "spec": { "ports": [{ "port": 10_911, "nodePort": 30_001 }] } });
        let port = |external| found(external, service.clone());
        assert_eq!(port(json!({ "type": "NodePort" })), some("{node}:30001"));
        let named = json!({ "type": "NodePort", "host": "fd00::7" });
        assert_eq!(port(named), some("[fd00::7]:30001"));
        let strange = json!({ "metadata": { "name": "mq-0-0-external" }, "spec": { "ports": 7 } });
        let strange = serde_json::from_value(strange).unwrap();
        let external = serde_json::from_value(json!({ "type": "NodePort" })).unwrap();
        let error = address_of(&strange, &external).unwrap_err().to_string();
        assert!(error.starts_with("Service mq-0-0-external cannot be read: "), "{error}");
        let unknown = json!({ "spec": { "ports": [{ "port": 10_911 }] } });
        assert_eq!(found(json!({ "type": "NodePort" }), unknown), None);
    }
}
