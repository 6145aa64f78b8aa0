//! Certificates of one Broker: what they are called, and what they are for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{Plan, external, master_service};
use crate::certificates::canonical;
use crate::kinds::{Broker, BrokerTls, IssuerRef};

/// The Secret that pods mount: the one that is named, else the one that the operator or cert-manager
/// makes.
pub(super) fn mounted(broker: &str, tls: &BrokerTls) -> String {
    tls.secret.as_ref().map_or_else(|| certificates(broker), |secret| secret.name.clone())
}

/// The Secret of certificates that nobody brings along, and cert-manager's `Certificate`.
pub(in crate::broker) fn certificates(broker: &str) -> String {
    format!("{broker}-certificates")
}

/// The Secret of the operator's own authority.
pub(in crate::broker) fn authority(broker: &str) -> String {
    format!("{broker}-authority")
}

/// Whether certificates are made for the Broker: its replicas know each other by them.
pub(in crate::broker) fn are_made(resource: &Broker) -> bool {
    resource.spec.tls.as_ref().is_some_and(|tls| tls.secret.is_none())
}

/// All hosts under which others reach its pods. One certificate is for all of them: pods of a StatefulSet
/// share their volumes, and groups of a Broker their account.
pub(in crate::broker) fn hosts(plan: &Plan<'_>) -> BTreeSet<String> {
    let (namespace, domain) = (plan.namespace(), plan.domain);
    let pods = format!("*.{}.{namespace}.svc.{domain}", plan.pods_service());
    let masters = plan.groups.iter().map(|group| master_service(&group.name));
    let masters = masters.map(|service| format!("{service}.{namespace}.svc.{domain}"));
    // Those of nodes are not known before pods run on them.
    let outside = plan.external.values().filter_map(|address| {
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (host != external::NODE).then(|| canonical(host))
    });
    std::iter::once(pods).chain(masters).chain(outside).collect()
}

/// What cert-manager is asked for.
pub(in crate::broker) fn certificate(
    plan: &Plan<'_>,
    issuer: &IssuerRef,
    hosts: &BTreeSet<String>,
) -> Value {
    let name = certificates(&plan.resource.name_any());
    let is_address = |host: &&String| host.parse::<IpAddr>().is_ok();
    let names: Vec<&String> = hosts.iter().filter(|host| !is_address(host)).collect();
    let addresses: Vec<&String> = hosts.iter().filter(is_address).collect();
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": plan.metadata(&name),
        "spec": {
            "secretName": name,
            "dnsNames": names,
            "ipAddresses": addresses,
            "usages": ["digital signature", "server auth", "client auth"],
            "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always" },
            "issuerRef": { "group": issuer.group, "kind": issuer.kind, "name": issuer.name },
        },
    })
}
