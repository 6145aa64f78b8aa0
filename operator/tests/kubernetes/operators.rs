//! Operators among themselves, and what holds none of them up.

use serde_json::{Value, json};

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_lets_one_of_two_operators_act_and_the_other_one_take_over() {
    let mut cluster = Cluster::start().await;
    cluster.until("one acts", || cluster.operator().is_leader()).await;
    let another = cluster.start_another_operator();
    cluster.declare("NameServer", "first", "{replicas: 1}").await;
    cluster.until_set("first-namesrv", |_| true).await;
    assert!(!another.is_leader());
    assert_eq!(another.reconciles("NameServer"), 0.0);
    cluster.replace_operator(another).await;
    cluster.until("the other one acts", || cluster.operator().is_leader()).await;
    cluster.declare("NameServer", "second", "{replicas: 1}").await;
    cluster.until_set("second-namesrv", |_| true).await;
    // It counts a round when that has ended.
    cluster.until("it was looked at", || cluster.reconciles("NameServer") > 0.0).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_has_others_looked_after_beside_resources_that_nobody_can_read() {
    let mut cluster = Cluster::start_alone().await;
    let topic = "{brokerRef: {name: mq}, queues: many}";
    cluster.declare_against_the_schema("Topic", "unreadable", topic).await;
    let broker = "{nameServers: ['ns:9876'], replicasPerGroup: many, storage: {size: 1Gi}}";
    cluster.declare_against_the_schema("Broker", "unreadable", broker).await;
    // Both for an operator that saw them come and for one that finds them when it begins.
    for index in 0..2 {
        let (broker, topic) = (format!("mq{index}"), format!("orders{index}"));
        let name_server = cluster.name_server_address();
        let spec = format!(
            "{{nameServers: ['{name_server}'], replicasPerGroup: 1, storage: {{size: 1Gi}}}}"
        );
        cluster.declare("Broker", &broker, &spec).await;
        cluster.until_template(&format!("{broker}-0")).await;
        cluster.run_pods().await;
        let spec = format!("{{brokerRef: {{name: {broker}}}}}");
        cluster.declare("Topic", &topic, &spec).await;
        cluster.until_it_says("Topic", &topic, "Ready", "all 1 groups have it").await;
        if index == 0 {
            let another = cluster.start_another_operator();
            cluster.replace_operator(another).await;
        }
    }
    for kind in ["Broker", "Topic"] {
        let left = cluster.until_resource(kind, "unreadable", |_| true).await;
        assert_eq!(left["status"], Value::Null, "{left:#}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_has_brokers_told_the_address_that_a_load_balancer_got() {
    let cluster = Cluster::start().await;
    let name_server = cluster.name_server_address();
    let spec = format!(
        "{{nameServers: ['{name_server}'], replicasPerGroup: 1, storage: {{size: 1Gi}}, external: {{type: LoadBalancer}}}}"
    );
    cluster.declare("Broker", "mq", &spec).await;
    let service = "mq-0-0-external";
    let is_one = |service: &Value| service["spec"]["type"] == "LoadBalancer";
    cluster.until_object("Service", service, is_one).await;
    let says =
        |map: &Value, text: &str| map["data"]["broker.toml"].as_str().unwrap().contains(text);
    let map = cluster.until_object("ConfigMap", "mq-0-config", |_| true).await;
    assert!(!says(&map, "advertise_of_replicas"), "{map:#}");
    let what_to_do = "A cluster gives them where something in it provides load balancers; \
                      `kubectl describe service mq-0-0-external`";
    cluster.until_it_says("Broker", "mq", "ExternalAddressMissing", what_to_do).await;
    for (ingress, told) in [
        (json!({ "ip": "192.0.2.7" }), "external = [\"192.0.2.7:10911\"]"),
        (json!({ "hostname": "mq.example.com" }), "external = [\"mq.example.com:10911\"]"),
    ] {
        let status = json!({ "loadBalancer": { "ingress": [ingress] } });
        cluster.patch_status("Service", service, &status).await;
        cluster.until_object("ConfigMap", "mq-0-config", |map| says(map, told)).await;
    }
    let has_one = |broker: &Value| {
        let mut all = broker["status"]["conditions"].as_array().unwrap().iter();
        all.all(|one| one["type"] != "ExternalAddressMissing")
    };
    cluster.until_resource("Broker", "mq", has_one).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_that_does_not_know_a_kind_has_no_operator_that_is_ready() {
    let mut cluster = Cluster::start_alone().await;
    cluster.until("the operator is ready", || cluster.operator().is_ready()).await;
    let definition = cluster.forget_kind("ConsumerGroup").await;
    let another = cluster.start_another_operator();
    cluster.replace_operator(another).await;
    cluster.until("it acts", || cluster.operator().is_leader()).await;
    let says_so = || !cluster.operator().is_ready();
    cluster.until("it is not ready", says_so).await;
    // The other kinds are looked after.
    cluster.declare("NameServer", "ns", "{replicas: 1}").await;
    cluster.until_set("ns-namesrv", |_| true).await;
    cluster.know_kind(&definition).await;
    cluster.until("the operator is ready again", || cluster.operator().is_ready()).await;
    cluster.stop().await;
}
