//! Who owns which field of what the operator makes, by `managedFields`.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const OPERATOR: &str = "weirmq-operator";
const SET: &str = "ns-namesrv";

/// Whether a manager is in `managedFields` as the owner of a field, `a.b.c`; `subresource`: `""` for none.
fn owns(object: &Value, manager: &str, subresource: &str, field: &str) -> bool {
    let mut entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    entries.any(|entry| {
        let is_it = entry["manager"] == manager
            && entry["subresource"].as_str().unwrap_or_default() == subresource;
        let mut fields = &entry["fieldsV1"];
        for part in field.split('.') {
            fields = &fields[format!("f:{part}")];
        }
        is_it && !fields.is_null()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_has_record_and_lease_go_with_the_broker_only_if_its_disks_do() {
    let cluster = Cluster::start_replicated().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    for (when_deleted, has_owner) in [("Delete", true), ("Retain", false), ("Delete", true)] {
        let spec = format!(
            "{{nameServerRef: {{name: ns}}, storage: {{size: 1Gi, whenDeleted: {when_deleted}}}}}"
        );
        cluster.declare("Broker", "mq", &spec).await;
        let is_so = |object: &Value| object["metadata"]["ownerReferences"].is_array() == has_owner;
        cluster.until_object("Lease", "mq-0", is_so).await;
        cluster.until_resource("BrokerGroup", "mq-0", is_so).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_says_that_the_operator_takes_back_its_own_fields_and_leaves_those_of_others() {
    let cluster = Cluster::start().await;
    let labelled = "{replicas: 1, pod: {template: {metadata: {labels: {team: shop}}}}}";
    cluster.declare("NameServer", "ns", labelled).await;
    let set = cluster.until_set(SET, |_| true).await;
    assert!(owns(&set, OPERATOR, "", "spec.replicas"), "{set:#}");

    // Fields that the operator does not name, an entry beside its own in a list, and one that is its own.
    let fields = json!({
        "annotations": { "somebody": "was here" },
        "spec": {
            "minReadySeconds": 7, "replicas": 5,
            "template": {
                "metadata": { "annotations": { "somebody": "was here" } },
                "spec": { "containers": [{ "name": "sidecar", "image": "sidecar:1" }] },
            },
        },
    });
    cluster.apply_to_set("somebody", SET, &fields).await;
    let is_back =
        |set: &Value| set["spec"]["replicas"] == 1 && owns(set, OPERATOR, "", "spec.replicas");
    let set = cluster.until_set(SET, is_back).await;
    assert!(!owns(&set, "somebody", "", "spec.replicas"), "{set:#}");
    let keeps_the_others = |set: &Value| {
        let template = &set["spec"]["template"];
        assert_eq!(set["metadata"]["annotations"]["somebody"], "was here", "{set:#}");
        assert_eq!(template["metadata"]["annotations"]["somebody"], "was here", "{set:#}");
        assert_eq!(set["spec"]["minReadySeconds"], 7, "{set:#}");
        let containers = template["spec"]["containers"].as_array().unwrap();
        assert!(containers.iter().any(|one| one["name"] == "sidecar"), "{set:#}");
        for field in ["metadata.annotations.somebody", "spec.minReadySeconds"] {
            assert!(owns(set, "somebody", "", field), "{field}: {set:#}");
            assert!(!owns(set, OPERATOR, "", field), "{field}: {set:#}");
        }
    };
    keeps_the_others(&set);

    // What is not declared any more goes, and nothing else.
    assert_eq!(set["spec"]["template"]["metadata"]["labels"]["team"], "shop");
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    let is_gone = |set: &Value| set["spec"]["template"]["metadata"]["labels"]["team"].is_null();
    keeps_the_others(&cluster.until_set(SET, is_gone).await);

    // It comes to rest beside what others own.
    cluster.run_pods().await;
    cluster.until_it_says("NameServer", "ns", "Ready", "1 of 1").await;
    let looks = async |count: u64| {
        for look in 0..count {
            let looked = cluster.reconciles("NameServer");
            cluster.touch("NameServer", "ns", look).await;
            cluster.until("it is looked at", || cluster.reconciles("NameServer") > looked).await;
        }
    };
    looks(2).await;
    let requests = cluster.requests();
    looks(5).await;
    assert_eq!(cluster.requests(), requests, "{}", cluster.metrics());

    // An autoscaler owns the number of replicas from then on: the operator writes statuses only.
    cluster.scale("autoscaler", "NameServer", "ns", 2).await;
    keeps_the_others(&cluster.until_set(SET, |set| set["spec"]["replicas"] == 2).await);
    let resource = cluster.until_resource("NameServer", "ns", |_| true).await;
    assert_eq!(resource["spec"]["replicas"], 2);
    assert!(owns(&resource, "autoscaler", "scale", "spec.replicas"), "{resource:#}");
    assert!(owns(&resource, OPERATOR, "status", "status.conditions"), "{resource:#}");
    assert!(!owns(&resource, OPERATOR, "", "spec"), "{resource:#}");
    cluster.stop().await;
}
