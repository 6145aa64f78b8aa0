//! The administrator's requests.

use std::collections::BTreeMap;

use weirmq_client::admin::ResetOffset;
use weirmq_client::{ConsumeStatus, Message};
use weirmq_remoting::body::{SubscriptionGroupConfig, TopicConfig};

use crate::setup::{Server, bodies, consume, consumer_config, eventually, name, receive};

#[tokio::test]
async fn topics_are_created_listed_changed_and_deleted() {
    let Some(server) = Server::find().await else { return };
    let admin = &server.admin;
    let topic = server.topic("admin_topic", 3).await;
    eventually("the topic is listed", async || admin.topics().await.unwrap().contains(&topic))
        .await;
    let config = admin.topic_config(&server.broker, &topic).await.unwrap();
    assert_eq!((config.read_queue_nums, config.write_queue_nums, config.perm), (3, 3, 6));
    let attributes = BTreeMap::from([("message.type".to_owned(), "FIFO".to_owned())]);
    let changed = TopicConfig { write_queue_nums: 5, read_queue_nums: 5, attributes, ..config };
    admin.create_topic_on(&server.broker, &changed).await.unwrap();
    let all = admin.topic_configs(&server.broker).await.unwrap();
    assert_eq!(all[&topic].write_queue_nums, 5);
    assert_eq!(all[&topic].attributes["message.type"], "FIFO");
    eventually("the route has five queues", async || {
        admin.route(&topic).await.unwrap().queue_datas.iter().any(|data| data.write_queue_nums == 5)
    })
    .await;
    let stats = admin.topic_stats(&topic).await.unwrap();
    assert_eq!(stats.offset_table.len(), 5);
    admin.delete_topic(&server.cluster, &topic).await.unwrap();
    eventually("the topic is gone", async || !admin.topics().await.unwrap().contains(&topic)).await;
    assert!(admin.route(&topic).await.unwrap_err().is_not_found());
    assert!(admin.topic_config(&server.broker, &topic).await.unwrap_err().is_not_found());
    let nowhere = admin.create_topic("no-such-cluster", &changed).await.unwrap_err();
    assert!(nowhere.is_not_found(), "{nowhere}");
    server.shutdown().await;
}

#[tokio::test]
async fn groups_are_created_listed_and_deleted() {
    let Some(server) = Server::find().await else { return };
    let admin = &server.admin;
    let group = name("admin_group");
    let config = SubscriptionGroupConfig {
        group_name: group.clone(),
        retry_max_times: 3,
        consume_broadcast_enable: false,
        ..SubscriptionGroupConfig::default()
    };
    admin.create_group(&server.cluster, &config).await.unwrap();
    assert_eq!(admin.group_config(&server.broker, &group).await.unwrap(), config);
    assert_eq!(admin.groups(&server.broker).await.unwrap()[&group].retry_max_times, 3);
    admin.delete_group(&server.cluster, &group, true).await.unwrap();
    assert!(!admin.groups(&server.broker).await.unwrap().contains_key(&group));
    server.shutdown().await;
}

#[tokio::test]
async fn clients_and_their_progress_are_visible() {
    let Some(server) = Server::find().await else { return };
    let admin = &server.admin;
    let topic = server.topic("progress", 2).await;
    let group = name("group");
    let config = weirmq_client::ProducerConfig { group: name("seen"), ..Default::default() };
    let producer = weirmq_client::Producer::start(&server.client, config.clone()).unwrap();
    for _ in 0..4 {
        producer.send(Message::new(&topic, "x")).await.unwrap();
    }
    let (consumer, mut received) =
        consume(&server.client, consumer_config(&group, &topic, "*"), |_| ConsumeStatus::Success)
            .await;
    receive(&mut received, 4).await;
    eventually("the member is seen", async || {
        let connections = admin.consumer_connections(&group).await;
        connections.is_ok_and(|connections| connections.is_some())
    })
    .await;
    let connections = admin.consumer_connections(&group).await.unwrap().unwrap();
    assert_eq!(connections.connection_set[0].client_id, server.client.id());
    assert!(connections.subscription_table.contains_key(&topic));
    let producers = admin.producer_connections(&config.group, &topic).await.unwrap();
    assert_eq!(producers.connection_set[0].client_id, server.client.id());
    consumer.shutdown().await;
    eventually("the member is gone", async || {
        admin.consumer_connections(&group).await.unwrap().is_none()
    })
    .await;
    let stats = admin.consume_stats(&group, Some(&topic)).await.unwrap();
    assert_eq!(stats.offset_table.len(), 2);
    assert!(stats.offset_table.values().all(|queue| queue.consumer_offset == queue.broker_offset));
    let everything = admin.consume_stats(&group, None).await.unwrap();
    assert!(everything.offset_table.len() >= 2);
    producer.shutdown().await;
    eventually("the producer is gone", async || {
        admin.producer_connections(&config.group, &topic).await.unwrap().connection_set.is_empty()
    })
    .await;
    server.shutdown().await;
}

#[tokio::test]
async fn messages_are_found_by_id_and_by_key() {
    let Some(server) = Server::find().await else { return };
    let admin = &server.admin;
    let topic = server.topic("lookup", 1).await;
    let producer = server.producer();
    let sent =
        producer.send(Message::new(&topic, "needle").with_key("k1").with_key("k2")).await.unwrap();
    producer.send(Message::new(&topic, "hay").with_key("k3")).await.unwrap();
    let viewed = admin.view_message(&sent.offset_message_id).await.unwrap();
    assert_eq!((&viewed.body[..], &viewed.message_id), (&b"needle"[..], &sent.message_id));
    eventually("the message is indexed", async || {
        let found = admin.query_by_key(&topic, "k2", 10, 0, i64::MAX).await.unwrap();
        bodies(&found.messages) == ["needle"]
    })
    .await;
    let found = admin.query_by_unique_key(&topic, &sent.message_id).await.unwrap();
    assert_eq!(bodies(&found.messages), ["needle"]);
    assert!(admin.query_by_key(&topic, "none", 10, 0, i64::MAX).await.unwrap().messages.is_empty());
    assert!(admin.query_by_unique_key(&topic, "none").await.unwrap().messages.is_empty());
    assert!(admin.view_message("xyz").await.is_err());
    assert!(
        admin
            .view_message_at(&server.broker, i64::MAX as u64 - 1)
            .await
            .unwrap_err()
            .is_not_found()
    );
    server.shutdown().await;
}

#[tokio::test]
async fn a_group_is_put_to_another_place() {
    let Some(server) = Server::find().await else { return };
    let admin = &server.admin;
    let topic = server.topic("reset", 1).await;
    let group = name("group");
    let producer = server.producer();
    for body in ["one", "two", "three"] {
        producer.send(Message::new(&topic, body)).await.unwrap();
    }
    let config = consumer_config(&group, &topic, "*");
    let (consumer, mut received) =
        consume(&server.client, config.clone(), |_| ConsumeStatus::Success).await;
    receive(&mut received, 3).await;
    // Online: the broker tells the members.
    let offsets = admin.reset_offsets(&group, &topic, ResetOffset::Earliest).await.unwrap();
    assert_eq!(offsets.values().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(bodies(&receive(&mut received, 3).await), ["one", "two", "three"]);
    assert!(admin.reset_offsets(&group, &topic, ResetOffset::Offset(1)).await.is_err());
    consumer.shutdown().await;
    eventually("nobody is online", async || {
        admin.consumer_connections(&group).await.unwrap().is_none()
    })
    .await;
    let queue = admin.queues(&topic).await.unwrap().remove(0);
    for (to, offset) in [
        (ResetOffset::Latest, 3),
        (ResetOffset::Earliest, 0),
        (ResetOffset::Offset(99), 3),
        (ResetOffset::Offset(2), 2),
    ] {
        let offsets = admin.reset_offsets(&group, &topic, to).await.unwrap();
        assert_eq!(offsets[&queue], offset, "{to:?}");
        assert_eq!(admin.committed_offset(&group, &queue).await.unwrap(), Some(offset), "{to:?}");
    }
    let (consumer, mut received) =
        consume(&server.client, config, |_| ConsumeStatus::Success).await;
    assert_eq!(bodies(&receive(&mut received, 1).await), ["three"]);
    consumer.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn the_name_server_keeps_values() {
    let Some(server) = Server::find().await else { return };
    let admin = &server.admin;
    let namespace = name("namespace");
    assert!(admin.kv_list(&namespace).await.unwrap().is_empty());
    assert_eq!(admin.kv(&namespace, "a").await.unwrap(), None);
    admin.put_kv(&namespace, "a", "1").await.unwrap();
    admin.put_kv(&namespace, "b", "zwei: ä").await.unwrap();
    assert_eq!(admin.kv(&namespace, "b").await.unwrap().as_deref(), Some("zwei: ä"));
    assert_eq!(admin.kv_list(&namespace).await.unwrap().len(), 2);
    admin.delete_kv(&namespace, "a").await.unwrap();
    assert_eq!(admin.kv_list(&namespace).await.unwrap().len(), 1);
    server.shutdown().await;
}

#[tokio::test]
async fn brokers_tell_about_themselves() {
    let Some(server) = Server::find().await else { return };
    let info = server.admin.runtime_info(&server.broker).await.unwrap();
    for key in ["brokerVersionDesc", "bootTimestamp", "putTps", "commitLogMaxOffset"] {
        assert!(info.contains_key(key), "{key}");
    }
    let config = server.admin.broker_config(&server.broker).await.unwrap();
    assert!(config.contains("brokerName="), "{config}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_brokers_write_permission_is_taken_and_given_back() {
    let Some(server) = Server::find_alone().await else { return };
    let admin = &server.admin;
    let topic = server.topic("wiped", 1).await;
    let broker = admin.masters(Some(&server.cluster)).await.unwrap().into_keys().next().unwrap();
    assert!(admin.wipe_write_permission(&broker).await.unwrap() > 0);
    let perm = async || {
        let route = admin.route(&topic).await.unwrap();
        route.queue_datas.iter().find(|data| data.broker_name == broker).unwrap().perm
    };
    assert_eq!(perm().await & 2, 0);
    assert!(admin.add_write_permission(&broker).await.unwrap() > 0);
    assert_eq!(perm().await & 2, 2);
    server.shutdown().await;
}
