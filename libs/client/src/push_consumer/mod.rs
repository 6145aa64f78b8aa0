//! A member of a consumer group: pulls the queues that are its share and calls a listener.
//!
//! Three tasks look after the whole: sharing out queues (`rebalance`), committing offsets
//! (`positions`) and, in ordered mode, renewing queue locks (`ordered`). Each queue has a pull
//! loop (`queue`) that feeds calls of the listener (`concurrent`, `ordered`) and stops while too
//! much is unfinished (`in_flight`).

mod concurrent;
mod config;
mod in_flight;
mod member;
mod ordered;
mod positions;
mod queue;
mod rebalance;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{ConsumeFromWhere, MessageModel, MessageQueue};

pub use config::{ConsumeFrom, ConsumeModel, ConsumeStatus, PushConsumerConfig};

use self::member::Member;
use crate::inbound::ConsumerMember;
use crate::join::join_all;
use crate::{Client, ClientError, Filter, ReceivedMessage};

/// A running consumer. Call [`PushConsumer::shutdown`] at the end: it commits what was consumed.
pub struct PushConsumer {
    member: Arc<Member>,
}

impl PushConsumer {
    /// Joins the group and begins to consume. `listener` is called with messages of one queue, in
    /// its order, at most `consume_batch_max` of them; a panic counts as
    /// [`ConsumeStatus::ReconsumeLater`].
    ///
    /// On return the queues that are this member's share are taken up, as far as their brokers
    /// answered; the rest follows. Topics that do not exist yet are waited for.
    ///
    /// # Errors
    /// [`ClientError::Config`] for settings that cannot be used, or when this client is a member
    /// of the group already.
    pub async fn start<L, F>(
        client: &Client,
        config: PushConsumerConfig,
        listener: L,
    ) -> Result<Self, ClientError>
    where
        L: Fn(Vec<ReceivedMessage>) -> F + Send + Sync + 'static,
        F: Future<Output = ConsumeStatus> + Send + 'static,
    {
        config.validate()?;
        let mut subscriptions = BTreeMap::new();
        for (topic, filter) in &config.subscriptions {
            subscriptions.insert(topic.clone(), subscription(topic, filter)?);
        }
        let is_broadcasting = config.model == ConsumeModel::Broadcasting;
        if !is_broadcasting {
            let group = ResourceName::group(&config.group)
                .map_err(|error| ClientError::Config(error.to_string()))?;
            let retry = group.retry_topic().as_str().to_owned();
            subscriptions.insert(retry.clone(), Filter::All.subscription(&retry)?);
        }
        let local_offsets = match &config.broadcast_offsets {
            Some(path) if is_broadcasting => positions::load(path).await?,
            _ => BTreeMap::new(),
        };
        let registered = Arc::new(ConsumerMember {
            group: config.group.clone(),
            model: if is_broadcasting {
                MessageModel::Broadcasting
            } else {
                MessageModel::Clustering
            },
            from_where: match config.consume_from {
                ConsumeFrom::Last => ConsumeFromWhere::LastOffset,
                ConsumeFrom::First => ConsumeFromWhere::FirstOffset,
                ConsumeFrom::Timestamp(_) => ConsumeFromWhere::Timestamp,
            },
            subscriptions: Mutex::new(subscriptions),
            rebalance: Notify::new(),
            resets: Mutex::default(),
        });
        let member = Arc::new(Member {
            client: client.clone(),
            registered: Arc::clone(&registered),
            listener: Box::new(move |messages| Box::pin(listener(messages))),
            queues: Mutex::new(HashMap::new()),
            calls: Arc::new(Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS))),
            local_offsets: Mutex::new(local_offsets),
            shutdown: CancellationToken::new(),
            abort: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        });
        client.core.groups.add_consumer(registered)?;
        member.announce().await;
        let is_settled = member.rebalance().await;
        member.tasks.spawn(Arc::clone(&member).rebalance_loop(is_settled));
        member.tasks.spawn(Arc::clone(&member).commit_loop());
        if member.config.is_ordered {
            member.tasks.spawn(Arc::clone(&member).renew_locks());
        }
        Ok(Self { member })
    }

    pub fn group(&self) -> &str {
        self.member.group()
    }

    /// The queues that this member pulls now, in order.
    pub fn assigned_queues(&self) -> Vec<MessageQueue> {
        let mut queues: Vec<_> = self.member.queues.lock().keys().cloned().collect();
        queues.sort();
        queues
    }

    /// Subscribes to one more topic, or to other messages of a topic. All members have to.
    pub async fn subscribe(&self, topic: &str, filter: Filter) -> Result<(), ClientError> {
        let data = subscription(topic, &filter)?;
        self.member.registered.subscriptions.lock().insert(topic.to_owned(), data);
        self.member.announce().await;
        self.member.registered.rebalance.notify_one();
        Ok(())
    }

    /// Ends a subscription; the topic's queues are given away soon.
    pub async fn unsubscribe(&self, topic: &str) {
        self.member.registered.subscriptions.lock().remove(topic);
        self.member.announce().await;
        self.member.registered.rebalance.notify_one();
    }

    /// Stops pulling, waits up to `shutdown_timeout` for calls of the listener that run, commits
    /// what was consumed, gives locks back and leaves the group.
    pub async fn shutdown(self) {
        let member = &self.member;
        member.shutdown.cancel();
        member.tasks.close();
        member.tasks.wait().await;
        let patience = member.config.shutdown_timeout;
        let assigned = member.assigned();
        join_all(assigned.iter().map(|assigned| member.release(Arc::clone(assigned), patience)))
            .await;
        member.abort.cancel();
        join_all(assigned.iter().map(|assigned| assigned.tasks.wait())).await;
        member.save_local_offsets().await;
        member.core().unregister(None, Some(member.group())).await;
    }
}

impl Drop for PushConsumer {
    /// Ends the tasks of a consumer that was not shut down; what it consumed since the last commit
    /// comes again.
    fn drop(&mut self) {
        self.member.shutdown.cancel();
        self.member.abort.cancel();
    }
}

impl Member {
    /// Finds the brokers of all subscribed topics and tells them about this member.
    async fn announce(&self) {
        let topics: Vec<String> = self.registered.subscriptions.lock().keys().cloned().collect();
        for topic in topics.iter().filter(|topic| **topic != self.retry_topic()) {
            if let Err(error) = self.core().route(topic).await {
                tracing::warn!(group = self.group(), topic, %error, "topic has no route");
            }
        }
        self.core().beat_once().await;
    }
}

fn subscription(
    topic: &str,
    filter: &Filter,
) -> Result<weirmq_remoting::body::SubscriptionData, ClientError> {
    ResourceName::topic(topic).map_err(|error| ClientError::Config(error.to_string()))?;
    filter.subscription(topic)
}
