//! The objects of one `NameServer`. Pure.

use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};

use crate::annotations;
use crate::kinds::{ExternalType, NameServer};
use crate::pods::{self, ADMIN_PORT, Container, Role};

/// For clients.
const PORT: u16 = 9_876;
/// For clients outside of the cluster, who are told the brokers' outside addresses.
const EXTERNAL_PORT: u16 = 19_876;

pub(super) const ROLE: Role = Role::NameServer;

pub(super) fn set_name(name: &str) -> String {
    format!("{name}-namesrv")
}

/// For clients in the cluster: any of the NameServers.
pub(crate) fn address(name: &str, namespace: &str, domain: &str) -> String {
    format!("{}.{namespace}.svc.{domain}:{PORT}", set_name(name))
}

/// For brokers, which register with every one: a name with the addresses of all of them.
pub(crate) fn brokers_address(name: &str, namespace: &str, domain: &str) -> String {
    format!("{}.{namespace}.svc.{domain}:{PORT}", pods_service(name))
}

fn pods_service(name: &str) -> String {
    format!("{name}-namesrv-pods")
}

/// Everything that the resource needs, in the order in which it is made. `image` is that of pods where the
/// resource names none.
pub(crate) fn objects(resource: &NameServer, image: &str) -> Vec<Value> {
    let mut objects = vec![
        network_policy(resource),
        disruption_budget(resource),
        headless_service(resource),
        service(resource),
        stateful_set(resource, image),
    ];
    objects.extend(external_service(resource));
    objects
}

fn metadata(resource: &NameServer, name: &str) -> Value {
    let owner = resource.controller_owner_ref(&());
    let (instance, namespace) = (resource.name_any(), resource.namespace().unwrap_or_default());
    pods::metadata(ROLE, &instance, &namespace, name, &json!(owner))
}

fn headless_service(resource: &NameServer) -> Value {
    let name = resource.name_any();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(resource, &pods_service(&name)),
        "spec": {
            "clusterIP": "None",
            // Brokers register with NameServers that are about to be ready as well.
            "publishNotReadyAddresses": true,
            "selector": pods::selector(ROLE, &name),
            "ports": [{ "name": "namesrv", "port": PORT, "targetPort": "namesrv", "protocol": "TCP" }],
        },
    })
}

fn service(resource: &NameServer) -> Value {
    let name = resource.name_any();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(resource, &set_name(&name)),
        "spec": {
            "selector": pods::selector(ROLE, &name),
            "ports": [{ "name": "namesrv", "port": PORT, "targetPort": "namesrv", "protocol": "TCP" }],
        },
    })
}

fn external_service(resource: &NameServer) -> Option<Value> {
    let external = resource.spec.external.as_ref()?;
    let name = resource.name_any();
    let type_ = match external.type_ {
        ExternalType::NodePort => "NodePort",
        ExternalType::LoadBalancer => "LoadBalancer",
    };
    let mut port = json!({ "name": "external", "port": EXTERNAL_PORT, "targetPort": "external", "protocol": "TCP" });
    if let Some(node_port) = external.node_port {
        port["nodePort"] = json!(node_port);
    }
    Some(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata(resource, &format!("{name}-namesrv-external")),
        "spec": { "type": type_, "selector": pods::selector(ROLE, &name), "ports": [port] },
    }))
}

fn disruption_budget(resource: &NameServer) -> Value {
    let name = resource.name_any();
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": metadata(resource, &set_name(&name)),
        "spec": {
            "maxUnavailable": 1,
            "selector": { "matchLabels": pods::selector(ROLE, &name) },
        },
    })
}

fn network_policy(resource: &NameServer) -> Value {
    let name = resource.name_any();
    let external = resource.spec.external.as_ref().map(|_| EXTERNAL_PORT);
    let ports = [PORT, ADMIN_PORT].into_iter().chain(external);
    let ports: Vec<Value> = ports.map(|port| json!({ "port": port, "protocol": "TCP" })).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": metadata(resource, &set_name(&name)),
        "spec": {
            "podSelector": { "matchLabels": pods::selector(ROLE, &name) },
            "policyTypes": ["Ingress"],
            "ingress": [{ "ports": ports }],
        },
    })
}

fn stateful_set(resource: &NameServer, image: &str) -> Value {
    let (name, spec) = (resource.name_any(), &resource.spec);
    let image = spec.pod.image.clone().unwrap_or_else(|| image.to_owned());
    let mut args = vec!["namesrv".to_owned(), "--bind".to_owned(), "0.0.0.0".to_owned()];
    if spec.external.is_some() {
        args.extend(["--namesrv-listener".to_owned(), format!("external={EXTERNAL_PORT}")]);
    }
    let mut mounts = Vec::new();
    if spec.storage.is_some() {
        args.extend(["--data".to_owned(), "/data".to_owned()]);
        mounts.push(json!({ "name": "data", "mountPath": "/data" }));
    }
    let container = Container {
        role: ROLE,
        image,
        args,
        env: vec![json!({ "name": "WEIRMQ_LOG_FORMAT", "value": "json" })],
        ports: vec![("namesrv", PORT), ("external", EXTERNAL_PORT), ("admin", ADMIN_PORT)],
        mounts,
    };
    let labels = pods::labels(ROLE, &name);
    let annotations = annotations::of_pods(resource);
    let template =
        pods::template(container, labels.clone(), annotations, None, Vec::new(), &spec.pod);
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": metadata(resource, &set_name(&name)),
        "spec": {
            "replicas": spec.replicas,
            "serviceName": pods_service(&name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": { "type": "RollingUpdate" },
            "selector": { "matchLabels": pods::selector(ROLE, &name) },
            "template": template,
        },
    });
    if let Some(storage) = &spec.storage {
        set["spec"]["volumeClaimTemplates"] = json!([pods::claim(storage, labels)]);
        set["spec"]["persistentVolumeClaimRetentionPolicy"] = pods::claim_retention(storage, false);
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_for_outside_is_open_only_where_it_is_declared() {
        let ports = |external: &str| {
            let text = format!(
                "{{apiVersion: weirmq.io/v1alpha1, kind: NameServer, metadata: {{name: ns}}, spec: {{{external}}}}}"
            );
            let policy = network_policy(&serde_yaml::from_str(&text).unwrap());
            let ports = policy["spec"]["ingress"][0]["ports"].as_array().unwrap().clone();
            ports.iter().map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ports(""), [9_876, 10_908]);
        assert_eq!(ports("external: {type: NodePort}"), [9_876, 10_908, 19_876]);
    }
}
