//! Topics and consumer groups at a real broker.

use weirmq_remoting::body::{SubscriptionGroupConfig, TopicConfig};

use crate::cluster::Cluster;

/// A cluster whose Broker is ready.
async fn with_broker() -> Cluster {
    let cluster = Cluster::start().await;
    let name_server = cluster.name_server_address();
    let spec =
        format!("{{nameServers: ['{name_server}'], replicasPerGroup: 1, storage: {{size: 1Gi}}}}");
    cluster.declare("Broker", "mq", &spec).await;
    cluster.until_template("mq-0").await;
    cluster.run_pods().await;
    cluster.until_it_says("Broker", "mq", "Ready", "1 groups have a master that serves").await;
    cluster
}

/// Waits until the broker has the topic like this.
async fn until_topic(cluster: &Cluster, name: &str, is_so: impl Fn(&TopicConfig) -> bool) {
    let (admin, master) = (cluster.broker_admin(), cluster.broker_address());
    let found = async || admin.topic_config(&master, name).await.ok();
    cluster.until_found(name, found, is_so).await;
}

async fn look(cluster: &Cluster, look: u64) {
    let looked = cluster.reconciles("Topic");
    cluster.touch("Topic", "orders", look).await;
    cluster.until("it is looked at", || cluster.reconciles("Topic") > looked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_has_a_topic_put_right_that_somebody_changed_at_the_broker() {
    let cluster = with_broker().await;
    let (admin, master) = (cluster.broker_admin(), cluster.broker_address());
    let declare = async |attributes: &str| {
        let spec = format!("{{brokerRef: {{name: mq}}, queues: 4, attributes: {attributes}}}");
        cluster.declare("Topic", "orders", &spec).await;
    };
    declare("{cleanup.policy: DELETE, kept: x}").await;
    cluster.until_it_says("Topic", "orders", "Ready", "all 1 groups have it").await;
    let is_declared = |topic: &TopicConfig| {
        (topic.perm, topic.read_queue_nums, topic.write_queue_nums) == (6, 4, 4)
    };
    until_topic(&cluster, "orders", is_declared).await;

    let changed = TopicConfig {
        topic_name: "orders".to_owned(),
        perm: 4,
        read_queue_nums: 2,
        write_queue_nums: 2,
        attributes: [("cleanup.policy", "COMPACTION"), ("somebody", "was here")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..TopicConfig::default()
    };
    admin.create_topic_on(&master, &changed).await.unwrap();
    look(&cluster, 1).await;
    let is_put_right = |topic: &TopicConfig| {
        is_declared(topic)
            && topic.attributes["cleanup.policy"] == "DELETE"
            && topic.attributes["somebody"] == "was here"
    };
    until_topic(&cluster, "orders", is_put_right).await;

    // An attribute that is not declared any more goes, one that never was stays.
    declare("{kept: x}").await;
    let keys = |topic: &TopicConfig| topic.attributes.keys().cloned().collect::<Vec<_>>();
    until_topic(&cluster, "orders", |topic| keys(topic) == ["kept", "somebody"]).await;
    let has_forgotten =
        |topic: &serde_json::Value| topic["status"]["attributes"] == serde_json::json!(["kept"]);
    cluster.until_resource("Topic", "orders", has_forgotten).await;

    // One that is paused says so, and is left alone.
    cluster.annotate("Topic", "orders", "weirmq.io/paused", "true").await;
    cluster.until_it_says("Topic", "orders", "Paused", "nothing is changed").await;
    cluster.until_it_says("Topic", "orders", "Ready", "all 1 groups have it").await;
    admin.create_topic_on(&master, &changed).await.unwrap();
    look(&cluster, 2).await;
    until_topic(&cluster, "orders", |topic| topic.perm == 4).await;
    cluster.annotate("Topic", "orders", "weirmq.io/paused", "false").await;
    until_topic(&cluster, "orders", is_declared).await;
    cluster
        .until_resource("Topic", "orders", |topic| {
            let conditions = topic["status"]["conditions"].as_array().unwrap();
            conditions.iter().all(|one| one["type"] != "Paused")
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_has_a_topic_adopted_with_the_queues_that_it_has() {
    let cluster = with_broker().await;
    let there = TopicConfig {
        topic_name: "orders".to_owned(),
        perm: 4,
        read_queue_nums: 16,
        write_queue_nums: 16,
        ..TopicConfig::default()
    };
    cluster.broker_admin().create_topic_on(&cluster.broker_address(), &there).await.unwrap();
    cluster.declare("Topic", "orders", "{brokerRef: {name: mq}, queues: 8}").await;
    cluster.until_it_says("Topic", "orders", "Ready", "all 1 groups have it").await;
    let is_adopted = |topic: &TopicConfig| {
        (topic.perm, topic.read_queue_nums, topic.write_queue_nums) == (6, 16, 16)
    };
    until_topic(&cluster, "orders", is_adopted).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_has_what_was_declared_deleted_or_kept_as_its_policy_says() {
    let cluster = with_broker().await;
    // A broker of the same cluster that is no group of this Broker.
    let (others, _data) = cluster.start_somebodys_broker("others").await;
    for (name, policy) in [("goes", "Delete"), ("stays", "Retain")] {
        let spec = format!("{{brokerRef: {{name: mq}}, deletionPolicy: {policy}}}");
        for kind in ["Topic", "ConsumerGroup"] {
            cluster.declare(kind, name, &spec).await;
            cluster.until_it_says(kind, name, "Ready", "all 1 groups have it").await;
        }
    }
    let (admin, master) = (cluster.broker_admin(), cluster.broker_address());
    let topic = admin.topic_config(&master, "goes").await.unwrap();
    admin.create_topic_on(&others, &topic).await.unwrap();
    let group = SubscriptionGroupConfig { group_name: "goes".to_owned(), ..Default::default() };
    admin.create_group_on(&others, &group).await.unwrap();
    // Which brokers clients would go to.
    let brokers = async || {
        let route = admin.route("goes").await.unwrap();
        let open = route.queue_datas.into_iter().filter(|queues| queues.perm > 0);
        Some(open.map(|queues| queues.broker_name).collect::<Vec<_>>())
    };
    cluster.until_found("brokers", &brokers, |found| found.len() == 2).await;
    let names = async |broker: &str| {
        let topics = admin.topic_configs(broker).await.unwrap().into_keys();
        let groups = admin.groups(broker).await.unwrap();
        let groups =
            groups.into_values().map(|SubscriptionGroupConfig { group_name, .. }| group_name);
        let all =
            topics.map(|name| ("Topic", name)).chain(groups.map(|name| ("ConsumerGroup", name)));
        let mine = all.filter(|(_, name)| name == "goes" || name == "stays");
        Some(mine.collect::<std::collections::BTreeSet<_>>())
    };
    assert_eq!(names(&master).await.unwrap().len(), 4);
    for kind in ["Topic", "ConsumerGroup"] {
        for name in ["stays", "goes"] {
            cluster.delete(kind, name).await;
        }
    }
    let wanted = ["Topic", "ConsumerGroup"].map(|kind| (kind, "stays".to_owned()));
    let wanted = std::collections::BTreeSet::from(wanted);
    cluster
        .until_found("what is left", async || names(&master).await, |found| *found == wanted)
        .await;
    for kind in ["Topic", "ConsumerGroup"] {
        for name in ["stays", "goes"] {
            cluster.until_gone(kind, name).await;
        }
    }
    assert_eq!(names(&master).await.unwrap(), wanted);
    let theirs = ["Topic", "ConsumerGroup"].map(|kind| (kind, "goes".to_owned()));
    assert_eq!(names(&others).await.unwrap(), std::collections::BTreeSet::from(theirs));
    cluster.until_found("brokers", &brokers, |found| *found == ["others"]).await;

    // Nobody can delete it without its Broker.
    cluster.declare("Topic", "late", "{brokerRef: {name: mq}, deletionPolicy: Delete}").await;
    cluster.until_it_says("Topic", "late", "Ready", "all 1 groups have it").await;
    cluster.delete("Broker", "mq").await;
    cluster.until_it_says("Topic", "late", "Ready", "there is no Broker mq").await;
    cluster.delete("Topic", "late").await;
    cluster.until_event("NotDeleted", "there is no Broker mq any more to delete late at").await;
    cluster.until_gone("Topic", "late").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the real API server: `make kube`"]
async fn any_server_keeps_topics_that_brokers_have_for_themselves() {
    let cluster = with_broker().await;
    let (admin, master) = (cluster.broker_admin(), cluster.broker_address());
    let own = ["mq", "mq-0", "mq_REPLY_TOPIC"];
    let found = async || {
        let mut all = admin.topic_configs(&master).await.unwrap();
        all.retain(|name, _| own.contains(&&**name));
        all
    };
    let before = found().await;
    assert_eq!(before.len(), 3, "{before:#?}");
    for (resource, topic) in ["cluster", "group", "reply"].into_iter().zip(own) {
        let spec = format!(
            "{{brokerRef: {{name: mq}}, topicName: {topic}, queues: 3, deletionPolicy: Delete}}"
        );
        cluster.declare("Topic", resource, &spec).await;
        let said = format!("{topic} is the name of ");
        cluster.until_it_says("Topic", resource, "Ready", &said).await;
        cluster.until_event("NameReserved", &said).await;
    }
    assert_eq!(found().await, before);
    for (resource, topic) in ["cluster", "group", "reply"].into_iter().zip(own) {
        cluster.delete("Topic", resource).await;
        cluster.until_gone("Topic", resource).await;
        cluster.until_event("NotDeleted", &format!("{topic} is the name of ")).await;
    }
    assert_eq!(found().await, before);
    cluster.stop().await;
}
