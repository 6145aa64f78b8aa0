//! What all tasks of one push consumer share.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weirmq_remoting::body::{MessageQueue, SubscriptionData};

use super::config::{ConsumeModel, ConsumeStatus, PushConsumerConfig};
use super::queue::AssignedQueue;
use crate::client::Core;
use crate::inbound::ConsumerMember;
use crate::{Client, ReceivedMessage};

/// The listener's result.
pub(super) type Consuming = Pin<Box<dyn Future<Output = ConsumeStatus> + Send>>;
/// The application's function.
pub(super) type Listener = Box<dyn Fn(Vec<ReceivedMessage>) -> Consuming + Send + Sync>;

pub(super) struct Member {
    pub(super) client: Client,
    pub(super) config: PushConsumerConfig,
    /// What brokers know of this member.
    pub(super) registered: Arc<ConsumerMember>,
    pub(super) listener: Listener,
    /// The queues that this member pulls.
    pub(super) queues: Mutex<HashMap<MessageQueue, Arc<AssignedQueue>>>,
    /// One permit for each call of the listener.
    pub(super) calls: Arc<Semaphore>,
    /// Offsets of a broadcasting member.
    pub(super) local_offsets: Mutex<BTreeMap<MessageQueue, u64>>,
    /// Ends the tasks that look after queues.
    pub(super) shutdown: CancellationToken,
    /// Ends the calls of the listener that took too long to shut down.
    pub(super) abort: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Member {
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.client.core
    }

    pub(super) fn group(&self) -> &str {
        &self.config.group
    }

    pub(super) fn is_broadcasting(&self) -> bool {
        self.config.model == ConsumeModel::Broadcasting
    }

    pub(super) fn retry_topic(&self) -> String {
        format!("{}{}", weirmq_remoting::resource_name::RETRY_PREFIX, self.config.group)
    }

    pub(super) fn subscription(&self, topic: &str) -> Option<SubscriptionData> {
        self.registered.subscriptions.lock().get(topic).cloned()
    }

    pub(super) fn assigned(&self) -> Vec<Arc<AssignedQueue>> {
        self.queues.lock().values().cloned().collect()
    }

    /// Calls the listener. `None` when it panicked, took too long, or was aborted.
    pub(super) async fn call_listener(
        &self,
        messages: Vec<ReceivedMessage>,
    ) -> Option<ConsumeStatus> {
        // The call itself may panic too, not only the future that it returns.
        let mut call = std::pin::pin!(async { (self.listener)(messages).await });
        let guarded = std::future::poll_fn(|context| {
            let poll = std::panic::AssertUnwindSafe(|| call.as_mut().poll(context));
            match std::panic::catch_unwind(poll) {
                Ok(poll) => poll.map(Some),
                Err(_) => std::task::Poll::Ready(None),
            }
        });
        let timed = tokio::time::timeout(self.config.consume_timeout, guarded);
        match self.abort.run_until_cancelled(timed).await {
            Some(Ok(Some(status))) => return Some(status),
            Some(Ok(None)) => tracing::error!(group = self.group(), "listener panicked"),
            Some(Err(_)) => tracing::error!(
                group = self.group(),
                timeout = ?self.config.consume_timeout,
                "listener took too long"
            ),
            None => tracing::warn!(group = self.group(), "listener was aborted at shutdown"),
        }
        None
    }
}
