//! What goes wrong is an event and a condition.

use crate::cluster::Cluster;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_told_what_somebody_did_to_objects_that_are_put_back() {
    let cluster = Cluster::start().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    cluster.until_object("Service", "ns-namesrv", |_| true).await;
    cluster.until_set("ns-namesrv", |_| true).await;
    // What the operator changes itself is no news.
    cluster.declare("NameServer", "ns", "{replicas: 2}").await;
    cluster.until_set("ns-namesrv", |set| set["spec"]["replicas"] == 2).await;

    let five = json!({ "spec": { "replicas": 5 } });
    cluster.apply_to_set("somebody", "ns-namesrv", &five).await;
    let changed = "somebody changed StatefulSet ns-namesrv";
    cluster.until_event("PutBack", changed).await;
    cluster.until_set("ns-namesrv", |set| set["spec"]["replicas"] == 2).await;
    let before = cluster.until_object("Service", "ns-namesrv", |_| true).await;
    cluster.delete_object("Service", "ns-namesrv").await;
    let deleted = "somebody deleted Service ns-namesrv";
    cluster.until_event("PutBack", deleted).await;
    let is_another = |service: &Value| service["metadata"]["uid"] != before["metadata"]["uid"];
    cluster.until_object("Service", "ns-namesrv", is_another).await;
    let told = cluster.events("PutBack").await;
    assert_eq!(told.len(), 2, "{told:#?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_has_labels_put_back_by_which_the_operator_knows_its_objects() {
    let cluster = Cluster::start().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    cluster.declare("NameServer", "another", "{replicas: 1}").await;
    cluster.until_set("another-namesrv", |_| true).await;
    let is_whole = |set: &Value| {
        let labels = &set["metadata"]["labels"];
        labels["app.kubernetes.io/managed-by"] == "weirmq-operator"
            && labels["app.kubernetes.io/name"] == "weirmq-nameserver"
            && labels["app.kubernetes.io/instance"] == "ns"
    };
    let before = cluster.until_set("ns-namesrv", is_whole).await;
    // Without the first one its watch does not see it any more.
    for (label, value) in [
        ("managed-by", None),
        ("instance", None),
        ("instance", Some("another")),
        ("name", Some("weirmq-broker")),
    ] {
        let label = format!("app.kubernetes.io/{label}");
        let changed = json!({ "metadata": { "labels": { label: value } } });
        cluster.patch_object("StatefulSet", "ns-namesrv", &changed).await;
        let after = cluster.until_set("ns-namesrv", is_whole).await;
        assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    }
    // That is said of the first one, and of no label else: the generation stays.
    cluster.until_event("PutBack", "somebody changed StatefulSet ns-namesrv").await;

    // One that it did not make stays somebody else's.
    let somebodys = json!({ "app": "another" });
    cluster.make_service("other-namesrv", &somebodys).await;
    cluster.declare("NameServer", "other", "{replicas: 1}").await;
    let is_taken = "there is a Service other-namesrv that the operator did not make";
    cluster.until_it_says("NameServer", "other", "Ready", is_taken).await;
    cluster.until_event("NameTaken", is_taken).await;
    let left = cluster.until_object("Service", "other-namesrv", |_| true).await;
    assert_eq!(left["metadata"]["labels"], somebodys);
    cluster.stop().await;
}

/// What the operator makes once and does not watch: brokers may patch the Lease of their group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_keeps_a_lease_and_a_secret_of_somebody_else() {
    let cluster = Cluster::start().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    cluster.make_lease("mq-0", "another").await;
    cluster.make_secret("mq-replication").await;
    cluster.declare("Broker", "mq", "{nameServerRef: {name: ns}, storage: {size: 1Gi}}").await;
    for (kind, name) in [("Secret", "mq-replication"), ("Lease", "mq-0")] {
        let is_taken = format!("there is a {kind} {name} that the operator did not make");
        cluster.until_it_says("Broker", "mq", "Progressing", &is_taken).await;
        cluster.until_event("NameTaken", &is_taken).await;
        cluster.delete_object(kind, name).await;
        cluster.touch("Broker", "mq", 1).await;
    }
    let is_made = |lease: &Value| {
        lease["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "weirmq-operator"
    };
    cluster.until_object("Lease", "mq-0", is_made).await;
    cluster.until_template("mq-0").await;
    cluster.stop().await;
}

/// Labels do not say whose an object is: its owner does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_keeps_what_has_the_labels_of_a_resource_that_does_not_own_it() {
    let cluster = Cluster::start().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    cluster.declare("NameServer", "another", "{replicas: 1}").await;
    cluster.until_set("another-namesrv", |_| true).await;
    let before = cluster.until_set("ns-namesrv", |_| true).await;
    // Nobody puts them back.
    cluster.annotate("NameServer", "ns", "weirmq.io/paused", "true").await;
    cluster.until_it_says("NameServer", "ns", "Paused", "nothing is changed").await;
    let instance = json!({ "metadata": { "labels": { "app.kubernetes.io/instance": "another" } } });
    cluster.patch_object("StatefulSet", "ns-namesrv", &instance).await;
    // A round that undoes this saw the labels in the same watch, and the second one begins once the first has
    // deleted what it would delete.
    for _ in 0..2 {
        let five = json!({ "spec": { "replicas": 5 } });
        cluster.apply_to_set("somebody", "another-namesrv", &five).await;
        cluster.until_set("another-namesrv", |set| set["spec"]["replicas"] == 1).await;
    }
    let after = cluster.until_set("ns-namesrv", |_| true).await;
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(after["metadata"]["labels"]["app.kubernetes.io/instance"], "another");
    assert!(after["metadata"]["deletionTimestamp"].is_null());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_told_of_name_servers_that_cannot_be_reached() {
    // Nobody listens there.
    let nowhere = "127.0.0.1:1";
    let cluster = Cluster::start_with_name_servers(&[nowhere]).await;
    let spec =
        format!("{{nameServers: ['{nowhere}'], replicasPerGroup: 1, storage: {{size: 1Gi}}}}");
    cluster.declare("Broker", "mq", &spec).await;
    cluster.until_template("mq-0").await;
    cluster.run_pods().await;
    cluster.until_it_says("Broker", "mq", "Ready", "1 groups have a master that serves").await;
    cluster.say_ready("mq-0-0", false).await;
    cluster.until_it_says("Broker", "mq", "Ready", nowhere).await;
    cluster.until_it_says("Broker", "mq", "Ready", "nameServers or nameServerRef").await;
    cluster.until_event("NameServersUnreachable", nowhere).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_told_why_name_servers_do_not_run() {
    let cluster = Cluster::start().await;
    cluster.declare("NameServer", "ns", "{replicas: 2}").await;
    cluster.until_template("ns-namesrv").await;
    cluster.run_pods().await;
    cluster.until_it_says("NameServer", "ns", "Ready", "2 of 2 NameServers are ready").await;
    // As a kubelet that cannot get the image, and the StatefulSet controller.
    let fail = async |pod: &str, left: u64| {
        let waiting = json!({ "waiting": { "reason": "ImagePullBackOff" } });
        let container = json!({
            "name": "namesrv", "image": "wrong", "imageID": "", "restartCount": 0, "ready": false, "state": waiting,
        });
        let conditions = json!([{ "type": "Ready", "status": "False" }]);
        let status = json!({ "conditions": conditions, "containerStatuses": [container] });
        cluster.patch_status("Pod", pod, &status).await;
        cluster.patch_status("StatefulSet", "ns-namesrv", &json!({ "readyReplicas": left })).await;
    };
    fail("ns-namesrv-1", 1).await;
    let one = "1 of 2 NameServers are ready; ns-namesrv-1: ImagePullBackOff";
    cluster.until_it_says("NameServer", "ns", "Degraded", one).await;
    cluster.until_it_says("NameServer", "ns", "Ready", one).await;
    fail("ns-namesrv-0", 0).await;
    let none = "0 of 2 NameServers are ready; ns-namesrv-0: ImagePullBackOff";
    cluster.until_it_says("NameServer", "ns", "Ready", none).await;
    cluster.until_event("PodsNotReady", none).await;
    cluster.stop().await;
}

/// A single broker that runs, of an image before the one that is declared. What is done `before` that is declared.
async fn run_an_outdated_pod(cluster: &Cluster, before: impl AsyncFn()) {
    let name_server = cluster.name_server_address();
    let declare = async |image: &str| {
        let spec = format!(
            "{{nameServers: ['{name_server}'], replicasPerGroup: 1, storage: {{size: 1Gi}}, pod: {{image: '{image}'}}}}"
        );
        cluster.declare("Broker", "mq", &spec).await;
        cluster
            .until_set("mq-0", |set| {
                set["spec"]["template"]["spec"]["containers"][0]["image"] == image
            })
            .await;
        cluster.run_pods().await;
    };
    declare("weirmq:1").await;
    cluster.until_it_says("Broker", "mq", "Ready", "1 groups have a master that serves").await;
    before().await;
    declare("weirmq:2").await;
    // As the StatefulSet controller: pods are of an earlier revision.
    cluster.patch_status("StatefulSet", "mq-0", &json!({ "updateRevision": "two" })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_told_why_a_pod_is_started_anew() {
    let cluster = Cluster::start().await;
    run_an_outdated_pod(&cluster, async || {}).await;
    cluster.until_event("ImageChanged", "restarted mq-0-0 of mq-0").await;
    cluster.stop().await;
}

/// The server keeps a claim that is in use. Here nobody looks whether it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_keeps_a_pod_with_whose_claim_the_last_copy_would_go() {
    let cluster = Cluster::start().await;
    let claim = "data-mq-0-0";
    let delete_claim = async || {
        cluster.make_claim(claim, "1Gi", None).await;
        cluster.delete_object("PersistentVolumeClaim", claim).await;
        let is_ending = |claim: &Value| !claim["metadata"]["deletionTimestamp"].is_null();
        cluster.until_object("PersistentVolumeClaim", claim, is_ending).await;
    };
    run_an_outdated_pod(&cluster, delete_claim).await;
    let said = "somebody deleted its claim data-mq-0-0";
    cluster.until_it_says("Broker", "mq", "ClaimDeleted", said).await;
    cluster.until_it_says("Broker", "mq", "Progressing", said).await;
    cluster.until_event("ClaimDeleted", said).await;
    assert_eq!(cluster.events("ImageChanged").await.len(), 0, "the pod was ended");
    cluster.until_object("Pod", "mq-0-0", |_| true).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_told_what_cert_manager_says_and_where_there_is_none() {
    let cluster = Cluster::start().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    let spec = "{nameServerRef: {name: ns}, replicasPerGroup: 1, storage: {size: 1Gi}, \
                tls: {issuerRef: {name: ca}}}";
    cluster.declare("Broker", "mq", spec).await;
    let is_unknown = "the API server knows no Certificate of cert-manager.io/v1";
    cluster.until_it_says("Broker", "mq", "Progressing", is_unknown).await;
    cluster.until_event("CertManagerMissing", is_unknown).await;

    cluster.make_kind("cert-manager.io", "v1", "Certificate").await;
    cluster.touch("Broker", "mq", 1).await;
    let name = "mq-certificates";
    let asks = |certificate: &Value| certificate["spec"]["issuerRef"]["name"] == "ca";
    let certificate = cluster.until_object("Certificate", name, asks).await;
    assert_eq!(certificate["spec"]["secretName"], name);
    cluster.until_template("mq-0").await;
    cluster.run_pods().await;
    // Pods do not start without the Secret.
    cluster.say_ready("mq-0-0", false).await;
    let say = async |look: u64, status: &str, message: &str| {
        let ready = json!({ "type": "Ready", "status": status, "message": message });
        cluster.patch_status("Certificate", name, &json!({ "conditions": [ready] })).await;
        cluster.touch("Broker", "mq", look).await;
    };
    say(2, "False", "there is no issuer ca").await;
    cluster.until_it_says("Broker", "mq", "CertificateMissing", "there is no issuer ca").await;
    say(3, "True", "issued").await;
    cluster
        .until_resource("Broker", "mq", |broker| {
            let conditions = broker["status"]["conditions"].as_array().unwrap();
            conditions.iter().all(|one| one["type"] != "CertificateMissing")
        })
        .await;
    cluster.delete_kind("cert-manager.io", "Certificate").await;
    cluster.stop().await;
}
