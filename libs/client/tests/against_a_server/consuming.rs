//! Push consumers.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use weirmq_client::{
    ConsumeFrom, ConsumeModel, ConsumeStatus, Filter, Message, PushConsumerConfig, ReceivedMessage,
};

use crate::setup::{
    Server, bodies, consume, consume_into, consumer_config, eventually, name, receive, sorted,
};

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    sorted(range.map(|number| number.to_string()).collect())
}

#[tokio::test]
async fn a_group_gets_everything_and_goes_on_where_it_was() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("push", 4).await;
    let group = name("group");
    let producer = server.producer();
    for number in 0..50 {
        producer.send(Message::new(&topic, number.to_string())).await.unwrap();
    }
    let config = consumer_config(&group, &topic, "*");
    let (consumer, mut received) =
        consume(&server.client, config.clone(), |_| ConsumeStatus::Success).await;
    assert_eq!(sorted(bodies(&receive(&mut received, 50).await)), numbers(0..50));
    consumer.shutdown().await;
    for number in 50..60 {
        producer.send(Message::new(&topic, number.to_string())).await.unwrap();
    }
    let (consumer, mut received) =
        consume(&server.client, config, |_| ConsumeStatus::Success).await;
    assert_eq!(sorted(bodies(&receive(&mut received, 10).await)), numbers(50..60));
    consumer.shutdown().await;
    assert!(received.recv().await.is_none(), "nothing comes twice");
    server.shutdown().await;
}

#[tokio::test]
async fn only_wanted_tags_come() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("tags", 2).await;
    let producer = server.producer();
    for tag in ["a", "b", "c", "BB"] {
        for _ in 0..3 {
            producer.send(Message::new(&topic, tag).with_tag(tag)).await.unwrap();
        }
    }
    producer.send(Message::new(&topic, "none")).await.unwrap();
    let config = consumer_config(&name("group"), &topic, "a || c || Aa");
    let (consumer, mut received) =
        consume(&server.client, config, |_| ConsumeStatus::Success).await;
    let seen = sorted(bodies(&receive(&mut received, 6).await));
    assert_eq!(seen, ["a", "a", "a", "c", "c", "c"]);
    consumer.shutdown().await;
    assert!(received.recv().await.is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn members_share_the_queues_and_take_over() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("shared", 6).await;
    let group = name("group");
    let other = server.other_client();
    let config = consumer_config(&group, &topic, "*");
    let (first, mut first_received) =
        consume(&server.client, config.clone(), |_| ConsumeStatus::Success).await;
    let of_topic = |queues: Vec<weirmq_client::MessageQueue>| {
        queues.into_iter().filter(|queue| queue.topic == topic).collect::<BTreeSet<_>>()
    };
    assert_eq!(of_topic(first.assigned_queues()).len(), 6);
    let (second, mut second_received) = consume(&other, config, |_| ConsumeStatus::Success).await;
    eventually("each has half", async || {
        let (first, second) =
            (of_topic(first.assigned_queues()), of_topic(second.assigned_queues()));
        first.len() == 3 && second.len() == 3 && first.is_disjoint(&second)
    })
    .await;
    let producer = server.producer();
    for number in 0..30 {
        producer.send(Message::new(&topic, number.to_string())).await.unwrap();
    }
    let mut seen = bodies(&receive(&mut first_received, 15).await);
    seen.extend(bodies(&receive(&mut second_received, 15).await));
    assert_eq!(sorted(seen), numbers(0..30));
    second.shutdown().await;
    eventually("the first has all", async || of_topic(first.assigned_queues()).len() == 6).await;
    for number in 30..40 {
        producer.send(Message::new(&topic, number.to_string())).await.unwrap();
    }
    assert_eq!(sorted(bodies(&receive(&mut first_received, 10).await)), numbers(30..40));
    first.shutdown().await;
    other.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn every_broadcasting_member_gets_everything_and_remembers_where_it_was() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("broadcast", 2).await;
    let group = name("group");
    let other = server.other_client();
    let directory = tempfile::tempdir().unwrap();
    let config = |file: &str| PushConsumerConfig {
        model: ConsumeModel::Broadcasting,
        broadcast_offsets: Some(directory.path().join(file)),
        ..consumer_config(&group, &topic, "*")
    };
    let (first, mut first_received) =
        consume(&server.client, config("first"), |_| ConsumeStatus::Success).await;
    let (second, mut second_received) =
        consume(&other, config("second"), |_| ConsumeStatus::Success).await;
    let producer = server.producer();
    for number in 0..10 {
        producer.send(Message::new(&topic, number.to_string())).await.unwrap();
    }
    assert_eq!(sorted(bodies(&receive(&mut first_received, 10).await)), numbers(0..10));
    assert_eq!(sorted(bodies(&receive(&mut second_received, 10).await)), numbers(0..10));
    first.shutdown().await;
    second.shutdown().await;
    producer.send(Message::new(&topic, "10")).await.unwrap();
    let (first, mut received) =
        consume(&server.client, config("first"), |_| ConsumeStatus::Success).await;
    assert_eq!(bodies(&receive(&mut received, 1).await), ["10"]);
    first.shutdown().await;
    other.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn what_fails_comes_again_and_what_is_given_up_is_a_dead_letter() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("retried", 2).await;
    let group = name("group");
    let producer = server.producer();
    for body in ["good", "twice", "panic", "hopeless"] {
        producer.send(Message::new(&topic, body).with_tag("t").with_key("k")).await.unwrap();
    }
    let config = consumer_config(&group, &topic, "t");
    let (consumer, mut received) = consume(&server.client, config, |message| {
        match (&message.body[..], message.reconsume_times) {
            (b"twice", 0) => ConsumeStatus::ReconsumeAtLevel(1),
            (b"panic", 0) => panic!("a listener that panics"),
            (b"hopeless", _) => ConsumeStatus::DeadLetter,
            _ => ConsumeStatus::Success,
        }
    })
    .await;
    // The one that panicked was not passed on the first time.
    let seen = receive(&mut received, 5).await;
    assert_eq!(sorted(bodies(&seen)), ["good", "hopeless", "panic", "twice", "twice"]);
    let again: Vec<_> = seen.iter().filter(|message| message.reconsume_times == 1).collect();
    assert_eq!(again.len(), 2);
    for message in again {
        assert_eq!((message.topic.as_str(), message.tag.as_deref()), (topic.as_str(), Some("t")));
        assert!(seen.iter().any(|m| m.message_id == message.message_id));
    }
    let dead_letters = format!("%DLQ%{group}");
    eventually("there are dead letters", async || server.admin.route(&dead_letters).await.is_ok())
        .await;
    assert_eq!(bodies(&server.contents(&dead_letters, 1).await), ["hopeless"]);
    consumer.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_new_group_begins_where_it_is_told_to() {
    let Some(server) = Server::find().await else { return };
    let producer = server.producer();
    for (from, least) in [
        (ConsumeFrom::First, &["old", "middle", "new"][..]),
        (ConsumeFrom::Timestamp(0), &["middle", "new"]),
        (ConsumeFrom::Last, &["new"]),
    ] {
        let topic = server.topic("begin", 1).await;
        producer.send(Message::new(&topic, "old")).await.unwrap();
        let old = server.contents(&topic, 1).await.remove(0).store_timestamp;
        tokio::time::sleep(Duration::from_millis(20)).await;
        producer.send(Message::new(&topic, "middle")).await.unwrap();
        let consume_from = match from {
            ConsumeFrom::Timestamp(_) => ConsumeFrom::Timestamp(old + 1),
            first_or_last => first_or_last,
        };
        let config = consumer_config(&name("group"), &topic, "*");
        let config = PushConsumerConfig { consume_from, ..config };
        let (consumer, mut received) =
            consume(&server.client, config, |_| ConsumeStatus::Success).await;
        producer.send(Message::new(&topic, "new")).await.unwrap();
        // Brokers answer 0 to a new group while the queue still begins at 0 and is in memory, so
        // that nothing is missed: there may be more than was asked for, never less.
        let mut seen = Vec::new();
        while seen.len() < 3 && !least.iter().all(|body| seen.iter().any(|seen| seen == body)) {
            seen.extend(bodies(&receive(&mut received, 1).await));
        }
        consumer.shutdown().await;
    }
    server.shutdown().await;
}

#[tokio::test]
async fn ordered_queues_keep_their_order_through_failures_and_members() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("ordered", 4).await;
    let other = server.other_client();
    let config = PushConsumerConfig {
        is_ordered: true,
        ordered_pause: Duration::from_millis(50),
        ..consumer_config(&name("group"), &topic, "*")
    };
    let producer = server.producer();
    let send = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let key = format!("key{}", number % 5);
            let message = Message::new(&topic, format!("{key}:{number:03}"));
            producer.send_ordered(message, &key).await.unwrap();
        }
    };
    let fail_twice_at_seven = |message: &ReceivedMessage| {
        if message.body.ends_with(b"7") && message.reconsume_times < 2 {
            ConsumeStatus::ReconsumeLater
        } else {
            ConsumeStatus::Success
        }
    };
    let (seen, mut received) = tokio::sync::mpsc::unbounded_channel();
    send(0..40).await;
    let first =
        consume_into(&server.client, config.clone(), seen.clone(), fail_twice_at_seven).await;
    let mut messages = receive(&mut received, 40 + 4 * 2).await;
    let second = consume_into(&other, config, seen, fail_twice_at_seven).await;
    let held = |consumer: &weirmq_client::PushConsumer| {
        consumer.assigned_queues().iter().filter(|queue| queue.topic == topic).count()
    };
    eventually("both have queues", async || held(&first) == 2 && held(&second) == 2).await;
    send(40..60).await;
    messages.extend(receive(&mut received, 20 + 2 * 2).await);
    let mut last: HashMap<String, (String, i32)> = HashMap::new();
    for message in &messages {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        let (key, number) = body.split_once(':').unwrap();
        let now = (number.to_owned(), message.reconsume_times);
        if let Some(before) = last.insert(key.to_owned(), now.clone()) {
            assert!(before < now, "{key}: {now:?} came after {before:?}");
        }
    }
    first.shutdown().await;
    second.shutdown().await;
    other.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_slow_listener_holds_the_pulling_back_and_calls_are_limited() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("slow", 2).await;
    let producer = server.producer();
    for number in 0..60 {
        producer.send(Message::new(&topic, number.to_string())).await.unwrap();
    }
    let running = std::sync::Arc::new(Mutex::new((0usize, 0usize)));
    let config = PushConsumerConfig {
        concurrency: 3,
        queue_messages_max: 5,
        pull_batch_max: 4,
        consume_batch_max: 2,
        ..consumer_config(&name("group"), &topic, "*")
    };
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let counted = running.clone();
    let consumer = weirmq_client::PushConsumer::start(&server.client, config, move |messages| {
        let (running, done) = (counted.clone(), done.clone());
        async move {
            {
                let mut running = running.lock();
                running.0 += 1;
                running.1 = running.1.max(running.0);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            running.lock().0 -= 1;
            assert!(messages.len() <= 2);
            messages.into_iter().for_each(|message| done.send(message).unwrap());
            ConsumeStatus::Success
        }
    })
    .await
    .unwrap();
    assert_eq!(sorted(bodies(&receive(&mut finished, 60).await)), numbers(0..60));
    assert!((1..=3).contains(&running.lock().1));
    consumer.shutdown().await;
    server.shutdown().await;
}

#[tokio::test]
async fn subscriptions_may_change_while_the_consumer_runs() {
    let Some(server) = Server::find().await else { return };
    let (one, two) = (server.topic("sub_one", 1).await, server.topic("sub_two", 1).await);
    let producer = server.producer();
    let config = consumer_config(&name("group"), &one, "*");
    let (consumer, mut received) =
        consume(&server.client, config, |_| ConsumeStatus::Success).await;
    consumer.subscribe(&two, Filter::from("x")).await.unwrap();
    producer.send(Message::new(&two, "skipped").with_tag("y")).await.unwrap();
    producer.send(Message::new(&two, "two").with_tag("x")).await.unwrap();
    assert_eq!(bodies(&receive(&mut received, 1).await), ["two"]);
    consumer.unsubscribe(&one).await;
    eventually("the first topic is given away", async || {
        consumer.assigned_queues().iter().all(|queue| queue.topic != one)
    })
    .await;
    consumer.shutdown().await;
    server.shutdown().await;
}
