//! Pull consumers.

use std::time::{Duration, Instant};

use weirmq_client::{Filter, Message, PullConsumer, PullOptions, PullStatus};

use crate::setup::{Server, bodies, soon};

#[tokio::test]
async fn pulls_end_in_each_of_the_four_ways() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("pull", 1).await;
    let puller = server.puller();
    let queue = puller.queues(&topic).await.unwrap().remove(0);
    let options = PullOptions::default();
    let empty = puller.pull(&queue, 0, &options).await.unwrap();
    assert_eq!((empty.status, empty.next_offset), (PullStatus::NoNewMessage, 0));

    let producer = server.producer();
    for tag in ["a", "b", "b", "Aa", "BB"] {
        producer.send(Message::new(&topic, tag).with_tag(tag)).await.unwrap();
    }
    server.contents(&topic, 5).await;
    let found =
        puller.pull(&queue, 1, &PullOptions { messages_max: 2, ..options.clone() }).await.unwrap();
    assert_eq!((found.status, found.next_offset), (PullStatus::Found, 3));
    assert_eq!((found.min_offset, found.max_offset), (0, 5));
    assert_eq!(bodies(&found.messages), ["b", "b"]);
    assert_eq!(found.messages[0].broker_name, queue.broker_name);

    let tagged = PullOptions { filter: Filter::from("a || Aa"), ..options.clone() };
    let matched = puller.pull(&queue, 0, &tagged).await.unwrap();
    assert_eq!(bodies(&matched.messages), ["a", "Aa"], "BB has the hash of Aa");
    let none = PullOptions { filter: Filter::from("zzz"), ..options.clone() };
    let unmatched = puller.pull(&queue, 0, &none).await.unwrap();
    assert_eq!(unmatched.status, PullStatus::NoMatchedMessage);
    assert_eq!(unmatched.next_offset, 5);

    let beyond = puller.pull(&queue, 99, &options).await.unwrap();
    assert_eq!((beyond.status, beyond.next_offset), (PullStatus::OffsetIllegal, 5));
    server.shutdown().await;
}

#[tokio::test]
async fn a_pull_that_waits_ends_with_the_message() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("long_pull", 1).await;
    let puller = server.puller();
    let queue = puller.queues(&topic).await.unwrap().remove(0);
    let options = PullOptions { wait: Duration::from_secs(15), ..PullOptions::default() };
    let producer = server.producer();
    let started = Instant::now();
    let pulling = puller.pull(&queue, 0, &options);
    let sending = async {
        // The pull should be at the broker first; the test holds either way.
        tokio::time::sleep(Duration::from_millis(300)).await;
        producer.send(Message::new(&topic, "x")).await
    };
    let (pulled, sent) = soon("the pull", async { tokio::join!(pulling, sending) }).await;
    sent.unwrap();
    assert_eq!(bodies(&pulled.unwrap().messages), ["x"]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    server.shutdown().await;
}

#[tokio::test]
async fn offsets_are_committed_and_found_by_time() {
    let Some(server) = Server::find().await else { return };
    let topic = server.topic("offsets", 1).await;
    let group = server.group("pullers").await;
    let puller = PullConsumer::new(&server.client, &group).unwrap();
    let queue = puller.queues(&topic).await.unwrap().remove(0);
    assert_eq!(puller.max_offset(&queue).await.unwrap(), 0);
    let producer = server.producer();
    let mut times = Vec::new();
    for count in 1..=3 {
        producer.send(Message::new(&topic, "x")).await.unwrap();
        let last = server.contents(&topic, count).await.pop().unwrap();
        times.push(last.store_timestamp);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        (puller.min_offset(&queue).await.unwrap(), puller.max_offset(&queue).await.unwrap()),
        (0, 3)
    );
    assert_eq!(puller.offset_by_time(&queue, times[1]).await.unwrap(), 1);
    assert_eq!(puller.offset_by_time(&queue, times[1] + 1).await.unwrap(), 2);
    assert_eq!(server.admin.earliest_store_time(&queue).await.unwrap(), Some(times[0]));
    // The queue begins at 0, so a group that has committed nothing may begin there too.
    assert!(matches!(puller.committed_offset(&queue).await.unwrap(), None | Some(0)));
    puller.commit_offset(&queue, 2).await.unwrap();
    assert_eq!(puller.committed_offset(&queue).await.unwrap(), Some(2));
    server.shutdown().await;
}
