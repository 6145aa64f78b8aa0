//! Which queues are this member's, and taking them up and giving them away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weirmq_remoting::body::{GetConsumerListByGroupResponseBody, MessageQueue};
use weirmq_remoting::codes::RequestCode;
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{ConsumerGroupHeader, Header as _};

use super::member::Member;
use super::queue::AssignedQueue;
use crate::join::join_all;
use crate::route::{Route, member_of};
use crate::{ClientError, allocate};

/// The first pause after a round that could not do everything; it doubles with each such round.
const UNSETTLED_PAUSE: Duration = Duration::from_secs(1);
/// How long a queue that goes to another member may keep the listener busy before it is given
/// away without what it would still have committed.
const RELEASE_PATIENCE: Duration = Duration::from_millis(500);
/// Queues that are taken up at a time.
const START_CHUNK: usize = 64;

impl Member {
    /// Shares out queues now and then, and whenever somebody asks for it.
    pub(super) async fn rebalance_loop(self: Arc<Self>, mut is_settled: bool) {
        let interval = self.config.rebalance_interval;
        let mut unsettled_pause = UNSETTLED_PAUSE;
        loop {
            let pause = if is_settled { interval } else { unsettled_pause.min(interval) };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.registered.rebalance.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let round = async {
                self.apply_resets().await;
                self.rebalance().await
            };
            let Some(settled) = self.shutdown.run_until_cancelled(round).await else { return };
            is_settled = settled;
            unsettled_pause =
                if settled { UNSETTLED_PAUSE } else { unsettled_pause * 2 }.min(interval);
        }
    }

    /// One round. `false` when something could not be found out or taken up, and another round
    /// may do better soon.
    pub(super) async fn rebalance(self: &Arc<Self>) -> bool {
        let topics: Vec<String> = self.registered.subscriptions.lock().keys().cloned().collect();
        let mut is_settled = true;
        let mut wanted = BTreeSet::new();
        for topic in topics {
            match self.share_of(&topic).await {
                Ok(queues) => wanted.extend(queues),
                Err(error) => {
                    is_settled = false;
                    self.report(&topic, &error);
                    let kept = self.assigned().into_iter().map(|assigned| assigned.queue.clone());
                    wanted.extend(kept.filter(|queue| queue.topic == topic));
                }
            }
        }
        let unwanted = |assigned: &Arc<AssignedQueue>| {
            !wanted.contains(&assigned.queue) || assigned.stop.is_cancelled()
        };
        let leaving = self.assigned().into_iter().filter(unwanted);
        join_all(leaving.map(|assigned| self.release(assigned, RELEASE_PATIENCE))).await;
        let held: BTreeSet<_> = self.queues.lock().keys().cloned().collect();
        let new: BTreeSet<_> = wanted.difference(&held).cloned().collect();
        self.take_up(new).await && is_settled
    }

    fn report(&self, topic: &str, error: &ClientError) {
        if error.is_not_found() && topic == self.retry_topic() {
            // Brokers make it when they first hear of the group.
            tracing::debug!(group = self.group(), topic, "retry topic is not there yet");
        } else {
            tracing::warn!(group = self.group(), topic, %error, "rebalance failed, queues stay as they are");
        }
    }

    /// The queues of `topic` that are this member's.
    async fn share_of(&self, topic: &str) -> Result<Vec<MessageQueue>, ClientError> {
        let route = self.core().route(topic).await?;
        if self.is_broadcasting() {
            return Ok(route.read_queues.clone());
        }
        let mut members = self.members(topic, &route).await?;
        members.sort();
        members.dedup();
        let own = self.client.id();
        if !members.iter().any(|member| member == own) {
            self.core().beat_once().await;
            return Err(ClientError::NotFound(format!(
                "the brokers do not know member {own} of group {} yet",
                self.group()
            )));
        }
        Ok(allocate::average(&route.read_queues, &members, own).to_vec())
    }

    /// The client ids of the group's members, as the first broker that answers knows them.
    async fn members(&self, topic: &str, route: &Arc<Route>) -> Result<Vec<String>, ClientError> {
        let mut last = ClientError::TopicNotFound { topic: topic.to_owned() };
        for data in &route.data.broker_datas {
            let (_, address) = match member_of(route, &data.broker_name, 0) {
                Ok(member) => member,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let fields = |writer: &mut HeaderWriter<'_>| {
                ConsumerGroupHeader { consumer_group: Text::from(self.group()) }.encode(writer);
            };
            let request = RequestCode::GetConsumerListByGroup;
            let reply = self.core().call(&address, request, fields, b"").await;
            match reply.and_then(|reply| reply.body::<GetConsumerListByGroupResponseBody>()) {
                Ok(body) => return Ok(body.consumer_id_list),
                Err(error) => last = error,
            }
        }
        if last.doubts_route() {
            self.core().newer_route(topic, Some(route)).await?;
        }
        Err(last)
    }

    /// Starts pulling these queues. `false` when one of them could not be started.
    async fn take_up(self: &Arc<Self>, queues: BTreeSet<MessageQueue>) -> bool {
        let asked = Instant::now();
        let mine = if self.config.is_ordered { self.lock(&queues).await.0 } else { queues.clone() };
        let mut is_complete = mine.len() == queues.len();
        let mine: Vec<_> = mine.into_iter().collect();
        for chunk in mine.chunks(START_CHUNK) {
            let offsets = join_all(chunk.iter().map(|queue| self.first_offset(queue))).await;
            for (queue, offset) in chunk.iter().zip(offsets) {
                match offset {
                    Ok(offset) => self.start_queue(queue.clone(), offset, asked),
                    Err(error) => {
                        is_complete = false;
                        tracing::warn!(?queue, %error, "queue has no start");
                    }
                }
            }
        }
        is_complete
    }

    fn start_queue(self: &Arc<Self>, queue: MessageQueue, offset: u64, locked_since: Instant) {
        tracing::info!(group = self.group(), ?queue, offset, "queue is taken up");
        let stop = self.shutdown.child_token();
        let assigned = Arc::new(AssignedQueue::new(queue.clone(), offset, stop));
        let feed = self.config.is_ordered.then(|| {
            assigned.keep_locked_since(locked_since);
            self.spawn_ordered(&assigned)
        });
        let pulling = Arc::clone(self).pull_loop(Arc::clone(&assigned), offset, feed);
        assigned.tasks.spawn(pulling);
        self.queues.lock().insert(queue, assigned);
    }

    /// Stops a queue, commits what was consumed of it, and forgets it.
    pub(super) async fn release(&self, assigned: Arc<AssignedQueue>, patience: Duration) {
        let has_ended = assigned.stop(patience).await;
        self.commit(&assigned).await;
        if self.config.is_ordered && has_ended {
            // A listener that still runs keeps the lock until it runs out.
            self.unlock(&assigned.queue).await;
        }
        let mut queues = self.queues.lock();
        if queues.get(&assigned.queue).is_some_and(|held| Arc::ptr_eq(held, &assigned)) {
            queues.remove(&assigned.queue);
        }
        tracing::info!(group = self.group(), queue = ?assigned.queue, "queue is given away");
    }

    /// Puts queues where an administrator wants them; the rebalance behind it takes them up there.
    async fn apply_resets(&self) {
        let resets = std::mem::take(&mut *self.registered.resets.lock());
        for (queue, offset) in resets {
            let held = self.queues.lock().get(&queue).cloned();
            let Some(assigned) = held else { continue };
            self.release(assigned, RELEASE_PATIENCE).await;
            if self.is_broadcasting() {
                self.local_offsets.lock().insert(queue, offset);
                continue;
            }
            if let Err(error) = self.core().commit_offset(self.group(), &queue, offset).await {
                tracing::warn!(?queue, offset, %error, "reset of the offset failed");
            }
        }
    }
}
