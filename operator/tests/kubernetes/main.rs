//! The whole operator against the real API server that `$KUBECONFIG` names (`make kube`), with a broker
//! in this process. What a kubelet and the StatefulSet controller do the tests do themselves.

mod cluster;
mod operators;
mod ownership;
mod told;
mod topics;

use cluster::{Cluster, KINDS};
use serde_json::Value;
use weirmq_authority::{Incarnation, Member, Phase, Record, ReplicaId};

/// Looks at each resource of a cluster that is as it is declared.
const LOOKS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_asked_nothing_by_an_operator_whose_cluster_is_as_declared() {
    let cluster = Cluster::start().await;
    let broker = "{nameServerRef: {name: ns}, replicasPerGroup: 1, storage: {size: 1Gi}}";
    declare_everything(&cluster, broker).await;
    is_asked_nothing(cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_asked_nothing_of_three_replicas_that_elected_their_master() {
    let cluster = Cluster::start_replicated().await;
    declare_everything(&cluster, "{nameServerRef: {name: ns}, storage: {size: 1Gi}, tls: {}}")
        .await;
    cluster.until_resource("BrokerGroup", "mq-0", |_| true).await;
    let member = |replica| Member { replica: ReplicaId(replica), incarnation: Incarnation(7) };
    let record = Record {
        epoch: 1,
        phase: Phase::Stable,
        master: Some(member(0)),
        in_sync: (0..3).map(member).collect(),
        in_sync_version: 1,
        ..Record::default()
    };
    cluster.write_record("mq-0", &record).await;
    is_asked_nothing(cluster).await;
}

async fn declare_everything(cluster: &Cluster, broker: &str) {
    // Before the Broker, which has to wake them.
    cluster.declare("Topic", "orders", "{brokerRef: {name: mq}}").await;
    cluster.declare("ConsumerGroup", "billing", "{brokerRef: {name: mq}}").await;
    cluster.declare("Broker", "mq", broker).await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
}

/// Once everything is as it is declared.
async fn is_asked_nothing(cluster: Cluster) {
    cluster.until_ready().await;

    let (requests, writes) = (cluster.requests(), cluster.sum("weirmq_operator_writes_total", ""));
    assert!(requests > 20.0 && writes > 5.0, "{requests} requests, {writes} writes are not all");
    let took = || {
        let sum =
            |what: &str| cluster.sum(&format!("weirmq_operator_reconcile_seconds_{what}"), "");
        (sum("sum"), sum("count"))
    };
    let before = took();
    for look in 0..LOOKS {
        for (kind, name) in KINDS {
            let looked = cluster.reconciles(kind);
            cluster.touch(kind, name, look).await;
            let has_looked = || cluster.reconciles(kind) > looked;
            cluster.until(&format!("{kind} is looked at"), has_looked).await;
        }
    }
    let after = took();
    let (seconds, count) = (after.0 - before.0, after.1 - before.1);
    println!("{count} looks, {:.2} ms each", seconds * 1_000.0 / count);
    assert_eq!(cluster.requests(), requests, "{}", cluster.metrics());
    assert_eq!(cluster.sum("weirmq_operator_writes_total", ""), writes);

    // That the count is one: a change has to be told.
    cluster.declare("Topic", "orders", "{brokerRef: {name: mq}, queues: 9}").await;
    cluster.until("the status is written", || cluster.requests() > requests).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_told_that_what_is_declared_is_not_applied_to_what_is_paused() {
    let cluster = Cluster::start().await;
    let broker = "{nameServerRef: {name: ns}, replicasPerGroup: 1, storage: {size: 1Gi}}";
    declare_everything(&cluster, broker).await;
    cluster.until_ready().await;
    let newer = broker.replace("1Gi}", "1Gi}, pod: {image: 'weirmq:2'}");
    for (kind, name, spec) in [("NameServer", "ns", "{replicas: 2}"), ("Broker", "mq", &*newer)] {
        let condition = |resource: &Value, type_: &str| {
            let conditions = resource["status"]["conditions"].as_array().unwrap();
            conditions.iter().find(|one| one["type"] == type_).cloned().unwrap_or_default()
        };
        let before = cluster.until_resource(kind, name, |_| true).await;
        let applied = &before["metadata"]["generation"];
        assert_eq!(before["status"]["observedGeneration"], *applied, "{before:#}");
        cluster.annotate(kind, name, "weirmq.io/paused", "true").await;
        cluster.declare(kind, name, spec).await;
        let is_seen = |resource: &Value| {
            let generation = &resource["metadata"]["generation"];
            generation != applied
                && condition(resource, "Paused")["observedGeneration"] == *generation
        };
        let paused = cluster.until_resource(kind, name, is_seen).await;
        assert_eq!(paused["status"]["observedGeneration"], *applied, "{paused:#}");
        let progress = condition(&paused, "Progressing");
        assert_eq!(progress["status"], "Unknown", "{progress:#}");
        assert_eq!(progress["observedGeneration"], *applied, "{progress:#}");
        cluster.annotate(kind, name, "weirmq.io/paused", "false").await;
        let is_applied = |resource: &Value| {
            resource["status"]["observedGeneration"] == resource["metadata"]["generation"]
                && condition(resource, "Progressing")["status"] != "Unknown"
        };
        cluster.until_resource(kind, name, is_applied).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_is_told_of_a_secret_that_is_missing_before_pods_need_it() {
    let cluster = Cluster::start().await;
    let broker = |secret: &str| {
        format!(
            "{{nameServerRef: {{name: ns}}, replicasPerGroup: 1, storage: {{size: 1Gi}}, \
             tls: {{secret: {{name: {secret}}}}}}}"
        )
    };
    let is_missing = "there is no Secret one";
    cluster.declare("Broker", "mq", &broker("one")).await;
    cluster.until_event("ReferenceMissing", "there is no NameServer ns").await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    cluster.until_it_says("Broker", "mq", "Progressing", is_missing).await;
    assert_eq!(cluster.template("mq-0").await, None);
    cluster.until_event("ReferenceMissing", is_missing).await;
    cluster.make_secret("one").await;
    cluster.until_template("mq-0").await;
    // Another one that is not there changes nothing.
    let template = cluster.template("mq-0").await;
    cluster.declare("Broker", "mq", &broker("other")).await;
    cluster.until_it_says("Broker", "mq", "Progressing", "there is no Secret other").await;
    cluster.until_event("ReferenceMissing", "there is no Secret other").await;
    assert_eq!(cluster.template("mq-0").await, template);
    cluster.stop().await;
}

/// There is no garbage collector here. It would take what belongs to the Broker of before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_keeps_secrets_of_a_broker_that_is_deleted_and_made_again() {
    let cluster = Cluster::start().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    let spec = "{nameServerRef: {name: ns}, storage: {size: 1Gi}, tls: {}}";
    cluster.declare("Broker", "mq", spec).await;
    let secrets = ["mq-replication", "mq-authority", "mq-certificates"];
    let mut before = Vec::new();
    let first = cluster.uid("Broker", "mq").await;
    let is_of = |secret: &Value, uid: &Value| {
        let owners = secret["metadata"]["ownerReferences"].as_array().unwrap();
        owners.len() == 1 && owners[0]["uid"] == *uid
    };
    for name in secrets {
        before.push(cluster.until_secret(name, |secret| is_of(secret, &first)).await);
    }
    cluster.delete("Broker", "mq").await;
    cluster.declare("Broker", "mq", spec).await;
    let second = cluster.uid("Broker", "mq").await;
    assert_ne!(first, second);
    for (name, before) in secrets.iter().zip(before) {
        let after = cluster.until_secret(name, |secret| is_of(secret, &second)).await;
        assert_eq!(before["data"], after["data"], "{name}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_has_certificates_renewed_also_while_a_name_server_is_missing() {
    let cluster = Cluster::start().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    let outside = "external: {type: NodePort, host: 'FD00:0::7'}";
    let spec =
        format!("{{nameServerRef: {{name: ns}}, storage: {{size: 1Gi}}, tls: {{}}, {outside}}}");
    cluster.declare("Broker", "mq", &spec).await;
    let before = cluster.until_secret("mq-certificates", |_| true).await;
    cluster.until_template("mq-0").await;
    cluster.delete("NameServer", "ns").await;
    cluster.until_it_says("Broker", "mq", "Progressing", "there is no NameServer ns").await;
    // Its groups are looked after all the same.
    cluster.annotate("Broker", "mq", "weirmq.io/switch-over", "mq-7").await;
    cluster.until_event("SwitchoverRefused", "there is no group mq-7; there are: mq-0").await;
    // Certificates count in seconds: one of this second is not from before it.
    let made_by = jiff::Timestamp::now().as_second();
    cluster.until("the second is over", || jiff::Timestamp::now().as_second() > made_by).await;
    let now = jiff::Timestamp::now().to_string();
    cluster.annotate("Broker", "mq", "weirmq.io/renew-certificates", &now).await;
    cluster.until_secret("mq-authority", |secret| !secret["data"]["next.crt"].is_null()).await;
    // Only whom brokers trust has changed: the addresses outside stay in the certificate though nobody
    // looks them up now.
    let has_changed = |after: &Value| after["data"]["ca.crt"] != before["data"]["ca.crt"];
    let after = cluster.until_secret("mq-certificates", has_changed).await;
    assert_eq!(after["data"]["tls.crt"], before["data"]["tls.crt"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_gets_a_record_back_that_somebody_deleted_unless_it_was_too_old() {
    // Its broker is of epoch 1, and says so when it is asked.
    let cluster = Cluster::start_replicated().await;
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    cluster.declare("Broker", "mq", "{nameServerRef: {name: ns}, storage: {size: 1Gi}}").await;
    cluster.until_template("mq-0").await;
    cluster.run_pods().await;
    let master = Member { replica: ReplicaId(0), incarnation: Incarnation(7) };
    let record = |epoch, in_sync_version| Record {
        epoch,
        phase: Phase::Stable,
        master: Some(master),
        in_sync: [master].into_iter().collect(),
        in_sync_version,
        ..Record::default()
    };
    cluster.write_record("mq-0", &record(5, 9)).await;
    let has_seen = |broker: &Value| broker["status"]["groups"][0]["epoch"] == 5;
    cluster.until_resource("Broker", "mq", has_seen).await;
    let before = cluster.until_resource("BrokerGroup", "mq-0", |_| true).await;
    cluster.delete("BrokerGroup", "mq-0").await;
    let is_back = |group: &Value| {
        group["metadata"]["uid"] != before["metadata"]["uid"] && group["status"]["epoch"] == 5
    };
    let after = cluster.until_resource("BrokerGroup", "mq-0", is_back).await;
    for field in ["phase", "master", "inSync", "inSyncVersion", "eligible", "lossEpoch", "trail"] {
        assert_eq!(before["status"][field], after["status"][field], "{field}");
    }
    cluster.until_event("RecordPutBack", "somebody deleted BrokerGroup mq-0").await;

    // One that somebody put there from an old copy, and then deleted.
    cluster.annotate("Broker", "mq", "weirmq.io/paused", "true").await;
    cluster.until_it_says("Broker", "mq", "Paused", "").await;
    cluster.delete("BrokerGroup", "mq-0").await;
    let spec =
        "{replicas: 3, flush: Sync, failover: Automatic, replication: {mode: Sync, minInSync: 2}}";
    cluster.declare("BrokerGroup", "mq-0", spec).await;
    cluster.write_record("mq-0", &record(1, 1)).await;
    let has_seen = |broker: &Value| broker["status"]["groups"][0]["epoch"] == 1;
    cluster.until_resource("Broker", "mq", has_seen).await;
    cluster.delete("BrokerGroup", "mq-0").await;
    cluster.annotate("Broker", "mq", "weirmq.io/paused", "false").await;
    let is_older = "obeyed a record of epoch 1, BrokerGroup mq-0 is of epoch 0; the one that was \
                    deleted last, of epoch 1, is older";
    cluster.until_it_says("Broker", "mq", "AuthorityRegressed", is_older).await;
    cluster.until_resource("BrokerGroup", "mq-0", |_| true).await;
    for look in 0..2 {
        let looked = cluster.reconciles("Broker");
        cluster.touch("Broker", "mq", look).await;
        cluster.until("it was looked at again", || cluster.reconciles("Broker") > looked).await;
    }
    let group = cluster.until_resource("BrokerGroup", "mq-0", |_| true).await;
    assert!(group["status"].is_null(), "{group:#}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_that_lets_no_disk_grow_is_not_asked_again_and_again() {
    let cluster = Cluster::start().await;
    let spec = |size: &str| format!("{{replicas: 1, storage: {{size: '{size}'}}}}");
    cluster.declare("NameServer", "ns", &spec("1Gi")).await;
    cluster.until_template("ns-namesrv").await;
    cluster.run_pods().await;
    cluster.until_it_says("NameServer", "ns", "Ready", "1 of 1 NameServers are ready").await;
    cluster.make_claim("data-ns-namesrv-0", "1Gi", None).await;
    cluster.declare("NameServer", "ns", &spec("2Gi")).await;
    let refused = "data-ns-namesrv-0 cannot grow to 2Gi";
    cluster.until_it_says("NameServer", "ns", "StorageNotExpanded", refused).await;
    cluster.until_event("StorageNotExpanded", refused).await;
    let resource = cluster.until_resource("NameServer", "ns", |_| true).await;
    let mut all = resource["status"]["conditions"].as_array().unwrap().iter();
    assert!(all.any(|one| one["type"] == "Ready" && one["status"] == "True"), "{resource:#}");
    let requests = cluster.requests();
    for look in 0..LOOKS {
        let looked = cluster.reconciles("NameServer");
        cluster.touch("NameServer", "ns", look).await;
        cluster.until("it is looked at", || cluster.reconciles("NameServer") > looked).await;
    }
    // A list and a patch each time, after 2 s, 4 s, and so on.
    let asked = cluster.requests() - requests;
    assert!(asked < LOOKS as f64 / 2.0, "{asked} requests in {LOOKS} looks");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_lets_disks_grow_that_were_kept_from_a_set_of_before() {
    let cluster = Cluster::start().await;
    let class = cluster.make_class().await;
    let size = "/spec/resources/requests/storage";
    for (name, kept) in [("small", "1Gi"), ("large", "3Gi")] {
        let claim = format!("data-{name}-namesrv-0");
        cluster.make_claim(&claim, kept, Some(&class)).await;
        let spec = format!("{{replicas: 1, storage: {{size: 2Gi, storageClassName: {class}}}}}");
        cluster.declare("NameServer", name, &spec).await;
        cluster.until_template(&format!("{name}-namesrv")).await;
        let wanted = if kept == "1Gi" { "2Gi" } else { kept };
        let claim = cluster.until_object("PersistentVolumeClaim", &claim, |_| true).await;
        assert_eq!(claim.pointer(size).unwrap(), wanted);
    }

    // Where they may not, it is said for as long as that is so.
    cluster.make_claim("data-stuck-namesrv-0", "1Gi", None).await;
    cluster.declare("NameServer", "stuck", "{replicas: 1, storage: {size: 2Gi}}").await;
    let refused = "data-stuck-namesrv-0 cannot grow to 2Gi";
    cluster.until_it_says("NameServer", "stuck", "StorageNotExpanded", refused).await;
    let looked = cluster.reconciles("NameServer");
    cluster.touch("NameServer", "stuck", 1).await;
    cluster.until("it is looked at", || cluster.reconciles("NameServer") > looked).await;
    cluster.until_it_says("NameServer", "stuck", "StorageNotExpanded", refused).await;
    let set = cluster.until_set("stuck-namesrv", |_| true).await;
    assert_eq!(set["spec"]["volumeClaimTemplates"][0].pointer(size).unwrap(), "1Gi");

    // One that is about to go does not count. The server keeps it while it may be in use.
    let claim = "data-anew-namesrv-0";
    cluster.make_claim(claim, "1Gi", None).await;
    cluster.delete_object("PersistentVolumeClaim", claim).await;
    let is_ending = |claim: &Value| !claim["metadata"]["deletionTimestamp"].is_null();
    cluster.until_object("PersistentVolumeClaim", claim, is_ending).await;
    cluster.declare("NameServer", "anew", "{replicas: 1, storage: {size: 2Gi}}").await;
    let set = cluster.until_set("anew-namesrv", |_| true).await;
    assert_eq!(set["spec"]["volumeClaimTemplates"][0].pointer(size).unwrap(), "2Gi");
    cluster.delete_class(&class).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_keeps_a_set_whose_size_it_writes_in_another_form() {
    let cluster = Cluster::start().await;
    // No whole number of bytes, and a form of which it makes a shorter one.
    for (name, size) in [("fraction", "1.1Gi"), ("exponent", "1000e6")] {
        let spec = format!("{{replicas: 1, storage: {{size: '{size}'}}}}");
        cluster.declare("NameServer", name, &spec).await;
        let set = format!("{name}-namesrv");
        let claim = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
        let before = cluster.until_set(&set, |_| true).await;
        assert_ne!(before.pointer(claim).unwrap(), size);
        for look in 0..3 {
            let looked = cluster.reconciles("NameServer");
            cluster.touch("NameServer", name, look).await;
            cluster.until("it is looked at", || cluster.reconciles("NameServer") > looked).await;
        }
        let after = cluster.until_set(&set, |_| true).await;
        assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"], "made anew");
        assert!(after["metadata"]["deletionTimestamp"].is_null(), "{after:#}");
    }
    cluster.stop().await;
}
