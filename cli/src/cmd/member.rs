//! Reads as a member of a consumer group, for `consume --group`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use weirmq_client::{
    Client, ConsumeFrom, ConsumeStatus, Filter, PushConsumer, PushConsumerConfig, ReceivedMessage,
};

use crate::client::Message;
use crate::units::ReadFrom;

/// Messages that are not printed any more need no patience at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(100);

/// A member of the group that hands its messages out one by one.
pub(super) struct GroupMember {
    consumer: PushConsumer,
    messages: mpsc::Receiver<Offered>,
}

/// A message that the group gets back unless it is said to be done.
pub(super) struct Offered {
    pub(super) message: Message,
    done: oneshot::Sender<()>,
}

impl Offered {
    /// The message was printed: the group goes on behind it.
    pub(super) fn done(self) {
        // The consumer may have been shut down meanwhile.
        let _ = self.done.send(());
    }
}

impl GroupMember {
    /// Joins `group` and shares the queues of `topic` with its other members.
    pub(super) async fn join(
        client: &Client,
        group: &str,
        topic: &str,
        filter: Filter,
        from: ReadFrom,
    ) -> anyhow::Result<Self> {
        let config = PushConsumerConfig {
            group: group.to_owned(),
            subscriptions: vec![(topic.to_owned(), filter)],
            consume_from: match from {
                ReadFrom::Earliest => ConsumeFrom::First,
                ReadFrom::Latest => ConsumeFrom::Last,
                ReadFrom::Time(time_ms) => ConsumeFrom::Timestamp(time_ms),
            },
            // One at a time: what is printed is what is consumed.
            concurrency: 1,
            consume_batch_max: 1,
            shutdown_timeout: SHUTDOWN_TIMEOUT,
            ..PushConsumerConfig::default()
        };
        let (offer, messages) = mpsc::channel(1);
        let offer = Arc::new(Mutex::new(offer));
        let listener = move |received: Vec<ReceivedMessage>| {
            let offer = offer.clone();
            async move {
                let offer = offer.lock().await;
                for message in received {
                    let (done, is_done) = oneshot::channel();
                    let offered = Offered { message: message.into(), done };
                    // A message that nobody prints stays where it is: it is neither done nor
                    // failed, so its offset is not passed and the next member gets it.
                    if offer.send(offered).await.is_err() || is_done.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                ConsumeStatus::Success
            }
        };
        let consumer = PushConsumer::start(client, config, listener).await?;
        Ok(Self { consumer, messages })
    }

    /// The next message; pending while there is none.
    pub(super) async fn next(&mut self) -> Offered {
        match self.messages.recv().await {
            Some(offered) => offered,
            // The listener lives as long as the consumer, which is ours.
            None => std::future::pending().await,
        }
    }

    /// Commits what was done and leaves the group.
    pub(super) async fn leave(self) {
        drop(self.messages);
        self.consumer.shutdown().await;
    }
}
