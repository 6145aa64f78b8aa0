//! One queue in this member's care: the pull loop.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weirmq_remoting::body::MessageQueue;
use weirmq_remoting::codes::{Code, ResponseCode};

use super::in_flight::{InFlight, Room};
use super::member::Member;
use super::ordered::Feed;
use crate::pull::{Pull, PullResult, PullStatus};
use crate::route::MASTER_ID;
use crate::{ClientError, ReceivedMessage};

/// The pause after a broker that said it has too much to do.
const FLOW_CONTROL_PAUSE: Duration = Duration::from_millis(100);
/// A pull that brought nothing in less than this did not wait: the broker cannot hold pulls.
const NOT_HELD: Duration = Duration::from_millis(100);

pub(super) struct AssignedQueue {
    pub(super) queue: MessageQueue,
    in_flight: Mutex<InFlight>,
    /// Something is done: there may be room.
    done: Notify,
    /// What was committed last. Held while a commit is on its way: brokers serve the requests of
    /// a connection concurrently, and of two commits the older one might come last.
    pub(super) committed: tokio::sync::Mutex<Option<u64>>,
    /// Until when the broker keeps the queue for this member, in ordered mode.
    pub(super) locked_until: Mutex<Instant>,
    pub(super) stop: CancellationToken,
    /// The pull loop and the calls of the listener.
    pub(super) tasks: TaskTracker,
}

impl AssignedQueue {
    pub(super) fn new(queue: MessageQueue, offset: u64, stop: CancellationToken) -> Self {
        Self {
            queue,
            in_flight: Mutex::new(InFlight::starting_at(offset)),
            done: Notify::new(),
            committed: tokio::sync::Mutex::new(None),
            locked_until: Mutex::new(Instant::now()),
            stop,
            tasks: TaskTracker::new(),
        }
    }

    pub(super) fn done(&self, offsets: impl IntoIterator<Item = u64>) {
        let mut in_flight = self.in_flight.lock();
        offsets.into_iter().for_each(|offset| in_flight.done(offset));
        drop(in_flight);
        self.done.notify_one();
    }

    /// See [`InFlight::committable`].
    pub(super) fn committable(&self) -> u64 {
        self.in_flight.lock().committable()
    }

    /// Stops pulling and waits for the calls of the listener, but not longer than `patience`.
    /// `true` when nothing of the queue runs any more.
    pub(super) async fn stop(&self, patience: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }

    async fn wait_until(&self, condition: impl Fn(&InFlight) -> bool) {
        loop {
            // A permit stored by `done` before the check is kept for the wait behind it.
            if condition(&self.in_flight.lock()) {
                return;
            }
            self.done.notified().await;
        }
    }

    fn accept(&self, result: &PullResult) {
        let mut in_flight = self.in_flight.lock();
        let unreadable = result.unreadable.iter().map(|unreadable| &unreadable.message);
        for message in result.messages.iter().chain(unreadable) {
            in_flight.add(message.queue_offset, message.stored_bytes);
        }
        in_flight.pulled_up_to(result.next_offset);
    }

    fn restart_at(&self, offset: u64) {
        *self.in_flight.lock() = InFlight::starting_at(offset);
    }
}

impl Member {
    /// Pulls until the queue is stopped. `feed` takes the messages in ordered mode.
    pub(super) async fn pull_loop(
        self: Arc<Self>,
        assigned: Arc<AssignedQueue>,
        offset: u64,
        mut feed: Option<Feed>,
    ) {
        let pulling = self.pull_until_stopped(&assigned, offset, feed.as_mut());
        let _ = assigned.stop.run_until_cancelled(pulling).await;
    }

    async fn pull_until_stopped(
        self: &Arc<Self>,
        assigned: &Arc<AssignedQueue>,
        mut offset: u64,
        mut feed: Option<&mut Feed>,
    ) {
        let config = &self.config;
        let room = Room {
            messages: config.queue_messages_max,
            bytes: config.queue_bytes_max,
            span: config.queue_span_max,
        };
        let mut broker_id = MASTER_ID;
        loop {
            assigned.wait_until(|in_flight| in_flight.has_room(room)).await;
            let asked = Instant::now();
            let result = match self.pull_once(assigned, offset, broker_id).await {
                Some(Ok(result)) => result,
                Some(Err(error)) => {
                    broker_id = MASTER_ID;
                    self.pause_after(assigned, &error).await;
                    continue;
                }
                // Nobody wants the topic any more; the next rebalance takes the queue away.
                None => return,
            };
            if result.status == PullStatus::OffsetIllegal {
                tracing::warn!(queue = ?assigned.queue, offset, next = result.next_offset, "offset moved");
                assigned.wait_until(InFlight::is_empty).await;
                assigned.restart_at(result.next_offset);
            }
            let is_idle = result.next_offset == offset && result.messages.is_empty();
            if is_idle && result.suggested_broker_id == broker_id && asked.elapsed() < NOT_HELD {
                tokio::time::sleep(NOT_HELD).await;
            }
            broker_id = result.suggested_broker_id;
            offset = result.next_offset;
            assigned.accept(&result);
            for unreadable in result.unreadable {
                self.give_back_unreadable(assigned, unreadable);
            }
            match &mut feed {
                Some(feed) => feed.give(result.messages).await,
                None => self.spawn_calls(assigned, result.messages),
            }
        }
    }

    async fn pull_once(
        &self,
        assigned: &AssignedQueue,
        offset: u64,
        broker_id: i64,
    ) -> Option<Result<PullResult, ClientError>> {
        let subscription = self.subscription(&assigned.queue.topic)?;
        let pull = Pull {
            group: self.group(),
            queue: &assigned.queue,
            offset,
            messages_max: self.config.pull_batch_max,
            bytes_max: self.config.pull_bytes_max,
            subscription: &subscription,
            wait: self.config.pull_wait,
            broker_id,
        };
        Some(self.core().pull(&pull).await)
    }

    async fn pause_after(&self, assigned: &AssignedQueue, error: &ClientError) {
        let is_busy = matches!(
            error.response_code(),
            Some(Code::Known(ResponseCode::FlowControl | ResponseCode::SystemBusy))
        );
        if is_busy {
            tracing::debug!(queue = ?assigned.queue, %error, "broker is busy");
            tokio::time::sleep(FLOW_CONTROL_PAUSE).await;
        } else {
            tracing::warn!(queue = ?assigned.queue, %error, "pull failed");
            tokio::time::sleep(self.config.pull_error_pause).await;
        }
    }

    /// One task for each call of the listener. Their number is bounded by what may be in flight.
    fn spawn_calls(
        self: &Arc<Self>,
        assigned: &Arc<AssignedQueue>,
        messages: Vec<ReceivedMessage>,
    ) {
        let mut messages = messages.into_iter();
        loop {
            let batch: Vec<_> = messages.by_ref().take(self.config.consume_batch_max).collect();
            if batch.is_empty() {
                return;
            }
            let member = Arc::clone(self);
            assigned.tasks.spawn(member.consume(Arc::clone(assigned), batch));
        }
    }
}
