//! The rights that a broker needs, on the real API server: the stand-in knows none.

use std::sync::Arc;

use http::Method;
use kube::Config;
use serde_json::json;
use tokio::time::timeout;
use weirmq_authority::Swapped;
use weirmq_broker::coordination::{Error, Kubernetes, MasterEndpoint, Moved};

use crate::support::{NAMESPACE, PATIENCE, Server, first, held, is_real, member};

const RULES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

async fn as_broker(server: &Server) -> Kubernetes {
    let mut config: Config = server.config.clone();
    config.auth_info.impersonate = Some(format!("broker-of-{}", server.group));
    Kubernetes::new(config, Some(NAMESPACE), &server.group, PATIENCE).unwrap()
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn the_documented_rights_are_enough_and_needed() {
    assert!(is_real(), "needs the real API server: `make kube`");
    let server = Server::any().await.with_group().await;
    let broker = as_broker(&server).await;
    let error = broker.read().await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    let rule = format!("resourceNames: [{}], verbs: [get]", server.group);
    assert!(error.to_string().contains(&rule), "{error}");

    let group = &server.group;
    let rule = |api: &str, resource: &str, name: &str, verbs: &[&str]| json!({ "apiGroups": [api], "resources": [resource], "resourceNames": [name], "verbs": verbs });
    let slice = format!("{group}-ipv4");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": group, "namespace": NAMESPACE },
        "rules": [
            rule("weirmq.io", "brokergroups", group, &["get", "watch"]),
            rule("weirmq.io", "brokergroups/status", group, &["update"]),
            rule("coordination.k8s.io", "leases", group, &["get", "patch"]),
            rule("discovery.k8s.io", "endpointslices", &slice, &["get", "create", "patch"]),
        ],
    });
    let path = format!("{RULES}/roles");
    assert_eq!(server.send(Method::POST, &path, "application/json", &role).await.0, 201);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": group, "namespace": NAMESPACE },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": group },
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("broker-of-{group}"),
        }],
    });
    let path = format!("{RULES}/rolebindings");
    assert_eq!(server.send(Method::POST, &path, "application/json", &binding).await.0, 201);

    let ((record, _), (lease, _), _) = timeout(PATIENCE, async {
        loop {
            // The server takes a moment to learn of its own rules.
            match broker.read().await {
                Ok(read) => break read,
                Err(Error::Forbidden { .. }) => tokio::time::sleep(PATIENCE / 200).await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
    .unwrap();
    let is_won = |swapped| matches!(swapped, Swapped::Won(_));
    assert!(is_won(broker.swap_record(&record, &first()).await));
    assert!(is_won(broker.swap_lease(&lease, &held(member(0, 7), 1)).await));
    timeout(PATIENCE, broker.watch().changed()).await.unwrap();
    let broker = Arc::new(broker);
    let address = "10.1.2.3".parse().unwrap();
    let ports = vec![("remoting".to_owned(), 10911)];
    let endpoint = MasterEndpoint::new(Arc::clone(&broker), group, address, ports.clone(), None);
    assert_eq!(endpoint.unwrap().move_here(1).await.unwrap(), Moved::Here);
    // No rights on others.
    let endpoint = MasterEndpoint::new(broker, "another", address, ports, None);
    let error = endpoint.unwrap().move_here(1).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
}
