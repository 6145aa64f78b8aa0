//! Producers.

use std::collections::BTreeSet;

use tokio::task::JoinSet;
use weirmq_client::{
    Client, ClientConfig, ClientError, Delivery, Message, MessageQueue, Producer, ProducerConfig,
    SendStatus,
};

use crate::setup::{PATIENCE, Server, bodies, eventually, name, soon, sorted};

#[tokio::test]
async fn a_sent_message_comes_back_as_it_was() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("whole", 4).await;
    let long = "compressible ".repeat(2000);
    let message = Message::new(&topic, long.clone())
        .with_tag("TagÄ")
        .with_key("k1")
        .with_key("k2")
        .with_property("farbe", "grün \"rot\" \\ \n");
    let sent = server.producer().send(message).await.unwrap();
    assert_eq!(sent.status, SendStatus::Ok);
    assert_eq!((sent.message_id.len(), sent.offset_message_id.len()), (32, 32));
    let [received] = &server.contents(&topic, 1).await[..] else { panic!("one message") };
    assert_eq!(received.body, long);
    assert!(received.stored_bytes < 4000, "{} bytes are stored", received.stored_bytes);
    assert_eq!(received.message_id, sent.message_id);
    assert_eq!(received.offset_message_id, sent.offset_message_id);
    assert_eq!(
        (received.queue_id, received.queue_offset),
        (sent.queue.queue_id, sent.queue_offset)
    );
    assert_eq!(received.tag.as_deref(), Some("TagÄ"));
    assert_eq!(received.keys, ["k1", "k2"]);
    assert_eq!(received.properties["farbe"], "grün \"rot\" \\ \n");
    server.shutdown().await;
}

#[tokio::test]
async fn sending_creates_a_topic() {
    let Some(server) = Server::find().await else { return };
    let topic = name("created_by_sending");
    let producer = server.producer();
    for body in ["one", "two"] {
        producer.send(Message::new(&topic, body)).await.unwrap();
    }
    eventually("the topic is registered", async || server.admin.route(&topic).await.is_ok()).await;
    assert_eq!(sorted(bodies(&server.contents(&topic, 2).await)), ["one", "two"]);
    server.shutdown().await;
}

#[tokio::test]
async fn concurrent_sends_use_all_queues() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("concurrent", 4).await;
    let producer = server.producer();
    let mut sends = JoinSet::new();
    for number in 0..1000 {
        let (producer, topic) = (producer.clone(), topic.clone());
        sends.spawn(async move { producer.send(Message::new(topic, number.to_string())).await });
    }
    let mut places = BTreeSet::new();
    while let Some(sent) = sends.join_next().await {
        let sent = sent.unwrap().unwrap();
        places.insert((sent.queue.queue_id, sent.queue_offset));
    }
    assert_eq!(places.len(), 1000);
    let queues: BTreeSet<_> = places.iter().map(|(queue_id, _)| *queue_id).collect();
    assert_eq!(queues.len(), 4);
    server.shutdown().await;
}

#[tokio::test]
async fn a_batch_lies_in_one_queue_in_order() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("batch", 4).await;
    let messages: Vec<_> =
        (0..10).map(|n| Message::new(&topic, n.to_string()).with_tag("b")).collect();
    let results = server.producer().send_batch(messages).await.unwrap();
    assert_eq!(results.len(), 10);
    assert!(results.windows(2).all(|pair| pair[0].queue_offset + 1 == pair[1].queue_offset));
    let received = server.contents(&topic, 10).await;
    assert_eq!(bodies(&received), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    for (sent, received) in results.iter().zip(&received) {
        assert_eq!(sent.message_id, received.message_id);
        assert_eq!(sent.offset_message_id, received.offset_message_id);
        assert_eq!(received.tag.as_deref(), Some("b"));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn one_way_messages_arrive_and_do_not_pile_up() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("one_way", 2).await;
    let producer = server.producer();
    // More than may be unanswered at a time.
    let body =
        (0..3000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<_>>();
    let mut ids = BTreeSet::new();
    for _ in 0..3000 {
        let sent = producer.send_one_way(Message::new(&topic, body.clone()));
        ids.insert(soon("one way", sent).await.unwrap());
    }
    let stored: BTreeSet<_> =
        server.contents(&topic, 3000).await.into_iter().map(|message| message.message_id).collect();
    assert_eq!(stored, ids);
    server.shutdown().await;
}

#[tokio::test]
async fn a_sharding_key_always_means_the_same_queue() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("sharded", 8).await;
    let producer = server.producer();
    let queues = producer.queues(&topic).await.unwrap();
    for (key, expected) in
        [("a", 97 % 8), ("hello world", 1_794_106_052 % 8), ("polygenelubricants", 0)]
    {
        for _ in 0..3 {
            let sent = producer.send_ordered(Message::new(&topic, key), key).await.unwrap();
            assert_eq!(sent.queue, queues[expected], "{key}");
        }
    }
    let in_first = server.contents(&topic, 9).await;
    let in_first: Vec<_> = in_first.into_iter().filter(|message| message.queue_id == 1).collect();
    assert_eq!(bodies(&in_first), ["a", "a", "a"]);
    let sent = producer.send_to(&queues[5], Message::new(&topic, "x")).await.unwrap();
    assert_eq!(sent.queue, queues[5]);
    let other = MessageQueue::new("other", "b", 0);
    let refused = producer.send_to(&other, Message::new(&topic, "x")).await;
    assert!(matches!(refused, Err(ClientError::Message { .. })));
    server.shutdown().await;
}

#[tokio::test]
async fn a_delayed_message_comes_later() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("delayed", 1).await;
    let delayed = Message::new(&topic, "late").with_delivery(Delivery::Level(1));
    let started = std::time::Instant::now();
    server.producer().send(delayed).await.unwrap();
    assert!(server.contents(&topic, 0).await.is_empty());
    server.contents(&topic, 1).await;
    assert!(started.elapsed() >= std::time::Duration::from_millis(900), "{:?}", started.elapsed());
    server.shutdown().await;
}

#[tokio::test]
async fn refused_messages_say_why() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("refused", 1).await;
    let producer = server.producer();
    let too_long = producer.send(Message::new(&topic, vec![0; 5 * 1024 * 1024])).await.unwrap_err();
    assert!(too_long.to_string().contains("the limit is 4194304"), "{too_long}");
    let bad_name = producer.send(Message::new("a b", "x")).await.unwrap_err();
    assert!(bad_name.to_string().contains("illegal characters"), "{bad_name}");
    let queue = MessageQueue { queue_id: 99, ..producer.queues(&topic).await.unwrap()[0].clone() };
    let no_queue = producer.send_to(&queue, Message::new(&topic, "x")).await.unwrap_err();
    assert!(matches!(no_queue, ClientError::SendFailed { .. }), "{no_queue}");
    assert!(producer.send_batch(Vec::new()).await.is_err());
    let mixed = vec![Message::new(&topic, "x"), Message::new("other", "x")];
    assert!(producer.send_batch(mixed).await.is_err());
    server.shutdown().await;
}

#[tokio::test]
async fn a_dead_name_server_is_passed_over() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("fail_over", 1).await;
    let name_servers = format!("127.0.0.1:1;{}", server.name_servers);
    let client = Client::start(ClientConfig::new(&name_servers)).unwrap();
    let config = ProducerConfig { send_timeout: PATIENCE, ..ProducerConfig::default() };
    let producer = Producer::start(&client, config).unwrap();
    producer.send(Message::new(&topic, "x")).await.unwrap();
    client.shutdown().await;
    let after = producer.send(Message::new(&topic, "x")).await.unwrap_err();
    assert!(after.to_string().contains("shut down"), "{after}");
    server.shutdown().await;
}
