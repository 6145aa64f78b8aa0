//! Ordered mode: queue locks, and one call of the listener at a time for each queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use weirmq_remoting::body::{
    Body as _, LockBatchRequestBody, LockBatchResponseBody, MessageQueue, UnlockBatchRequestBody,
};
use weirmq_remoting::codes::RequestCode;

use super::config::ConsumeStatus;
use super::member::Member;
use super::queue::AssignedQueue;
use crate::{ClientError, ReceivedMessage};

/// How often locks are renewed; brokers keep them for 60 s.
pub(super) const LOCK_RENEWAL: Duration = Duration::from_secs(20);
/// How long this member relies on a lock. Source: `ProcessQueue.REBALANCE_LOCK_MAX_LIVE_TIME`.
const LOCK_LEASE: Duration = Duration::from_secs(30);
/// Pulls that wait for the listener.
const PULLS_MAX: usize = 64;

/// The way from a queue's pull loop to its one consuming task.
pub(super) struct Feed(mpsc::Sender<Vec<ReceivedMessage>>);

impl Feed {
    pub(super) async fn give(&mut self, messages: Vec<ReceivedMessage>) {
        if !messages.is_empty() {
            // The other end is gone when the queue was stopped; then this loop ends too.
            let _ = self.0.send(messages).await;
        }
    }
}

impl Member {
    /// Starts the task that consumes what the pull loop feeds.
    pub(super) fn spawn_ordered(self: &Arc<Self>, assigned: &Arc<AssignedQueue>) -> Feed {
        let (feed, pulled) = mpsc::channel(PULLS_MAX);
        let member = Arc::clone(self);
        assigned.tasks.spawn(member.consume_in_order(Arc::clone(assigned), pulled));
        Feed(feed)
    }

    async fn consume_in_order(
        self: Arc<Self>,
        assigned: Arc<AssignedQueue>,
        mut pulled: mpsc::Receiver<Vec<ReceivedMessage>>,
    ) {
        while let Some(Some(messages)) = assigned.stop.run_until_cancelled(pulled.recv()).await {
            let mut messages = messages.into_iter();
            loop {
                let batch: Vec<_> = messages.by_ref().take(self.config.consume_batch_max).collect();
                if batch.is_empty() {
                    break;
                }
                if self.consume_until_done(&assigned, batch).await.is_none() {
                    return;
                }
            }
        }
    }

    /// `None` when the queue was stopped before the messages were done.
    async fn consume_until_done(
        &self,
        assigned: &AssignedQueue,
        mut messages: Vec<ReceivedMessage>,
    ) -> Option<()> {
        loop {
            let permit = assigned.stop.run_until_cancelled(self.calls.acquire()).await?.ok()?;
            if assigned.stop.is_cancelled() {
                return None;
            }
            if !assigned.is_locked() {
                // Somebody else may have the queue. Renewal stops it and rebalance starts it anew.
                drop(permit);
                assigned.stop.cancelled().await;
                return None;
            }
            let status = self.call_listener(messages.clone()).await;
            drop(permit);
            match status.unwrap_or(ConsumeStatus::ReconsumeLater) {
                ConsumeStatus::Success => {
                    assigned.done(messages.iter().map(|message| message.queue_offset));
                    return Some(());
                }
                ConsumeStatus::DeadLetter => {
                    for message in &messages {
                        self.bury(assigned, message).await;
                    }
                    return Some(());
                }
                ConsumeStatus::ReconsumeLater | ConsumeStatus::ReconsumeAtLevel(_) => {
                    messages = self.count_failure(assigned, messages).await;
                    if messages.is_empty() {
                        return Some(());
                    }
                }
            }
            let pause = tokio::time::sleep(self.config.ordered_pause);
            assigned.stop.run_until_cancelled(pause).await?;
        }
    }

    /// The messages to try again; those that failed too often are buried.
    async fn count_failure(
        &self,
        assigned: &AssignedQueue,
        messages: Vec<ReceivedMessage>,
    ) -> Vec<ReceivedMessage> {
        let max = self.config.reconsume_times_max.map(|max| i32::try_from(max).unwrap_or(i32::MAX));
        let mut again = Vec::with_capacity(messages.len());
        for mut message in messages {
            if max.is_some_and(|max| message.reconsume_times >= max) {
                self.bury(assigned, &message).await;
            } else {
                message.reconsume_times = message.reconsume_times.saturating_add(1);
                again.push(message);
            }
        }
        again
    }

    /// Asks the brokers to keep these queues for this member. Answers those that it has now, and
    /// those of brokers that did not answer.
    pub(super) async fn lock(
        &self,
        queues: &BTreeSet<MessageQueue>,
    ) -> (BTreeSet<MessageQueue>, BTreeSet<MessageQueue>) {
        let mut locked = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for of_broker in by_broker(queues).into_values() {
            match self.lock_at_broker(&of_broker).await {
                Ok(owned) => locked.extend(owned.intersection(&of_broker).cloned()),
                Err(error) => {
                    tracing::warn!(group = self.group(), %error, "queue locks failed");
                    unknown.extend(of_broker);
                }
            }
        }
        (locked, unknown)
    }

    async fn lock_at_broker(
        &self,
        queues: &BTreeSet<MessageQueue>,
    ) -> Result<BTreeSet<MessageQueue>, ClientError> {
        let Some(any) = queues.first() else { return Ok(BTreeSet::new()) };
        let body = LockBatchRequestBody {
            client_id: self.client.id().to_owned(),
            consumer_group: self.group().to_owned(),
            mq_set: queues.clone(),
            only_this_broker: false,
        };
        let address = self.core().master(any).await?;
        let request = RequestCode::LockBatchMessageQueue;
        let reply = self.core().call(&address, request, |_| {}, &body.encode()).await?;
        Ok(reply.body::<LockBatchResponseBody>()?.lock_ok_mq_set)
    }

    /// Gives a lock back, so that the next owner need not wait until it runs out.
    pub(super) async fn unlock(&self, queue: &MessageQueue) {
        let body = UnlockBatchRequestBody {
            client_id: self.client.id().to_owned(),
            consumer_group: self.group().to_owned(),
            mq_set: BTreeSet::from([queue.clone()]),
            only_this_broker: false,
        };
        let unlocked = async {
            let address = self.core().master(queue).await?;
            let request = RequestCode::UnlockBatchMessageQueue;
            self.core().call(&address, request, |_| {}, &body.encode()).await
        };
        if let Err(error) = unlocked.await {
            tracing::warn!(?queue, %error, "unlock failed");
        }
    }

    /// Renews the locks of all queues for as long as the consumer runs.
    pub(super) async fn renew_locks(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LOCK_RENEWAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        while self.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.shutdown.run_until_cancelled(self.renew_once()).await.is_none() {
                return;
            }
        }
    }

    async fn renew_once(&self) {
        let assigned = self.assigned();
        let queues = assigned.iter().map(|assigned| assigned.queue.clone()).collect();
        let asked = Instant::now();
        let (locked, unknown) = self.lock(&queues).await;
        for assigned in assigned {
            let is_owned = locked.contains(&assigned.queue);
            let has_expired = !assigned.is_locked();
            if is_owned && !has_expired {
                assigned.keep_locked_since(asked);
            } else if has_expired || !unknown.contains(&assigned.queue) {
                tracing::warn!(queue = ?assigned.queue, "queue lock was lost, the queue starts anew");
                *assigned.locked_until.lock() = Instant::now();
                assigned.stop.cancel();
                self.registered.rebalance.notify_one();
            }
        }
    }
}

impl AssignedQueue {
    /// Whether the broker keeps the queue for this member, as far as this member can know.
    pub(super) fn is_locked(&self) -> bool {
        Instant::now() < *self.locked_until.lock()
    }

    /// The broker has promised the queue in answer to a request made at `asked`.
    pub(super) fn keep_locked_since(&self, asked: Instant) {
        *self.locked_until.lock() = asked + LOCK_LEASE;
    }
}

fn by_broker(queues: &BTreeSet<MessageQueue>) -> BTreeMap<&str, BTreeSet<MessageQueue>> {
    let mut brokers: BTreeMap<&str, BTreeSet<MessageQueue>> = BTreeMap::new();
    for queue in queues {
        brokers.entry(&queue.broker_name).or_default().insert(queue.clone());
    }
    brokers
}
