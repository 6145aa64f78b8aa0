//! Reading queues under the caller's own control.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::MessageQueue;

use crate::pull::{Pull, PullResult};
use crate::route::MASTER_ID;
use crate::{Client, ClientError, Filter};

/// What a pull asks for.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// At most this many messages; brokers have a limit of their own. Default: 32.
    pub messages_max: u32,
    /// About this many bytes at most; one message always fits. Default: 256 KiB.
    pub bytes_max: u32,
    /// Default: every message.
    pub filter: Filter,
    /// How long the broker may hold the pull while there is no message. Default: 0.
    pub wait: Duration,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { messages_max: 32, bytes_max: 256 * 1024, filter: Filter::All, wait: Duration::ZERO }
    }
}

/// Pulls from queues that the caller names, in the name of a group.
///
/// It does not join the group: no queues are assigned to it, members of the group keep theirs, and
/// nothing is committed that the caller does not commit.
pub struct PullConsumer {
    client: Client,
    group: String,
    /// Which member of the broker group the last pull of a queue was told to go on with.
    broker_ids: Mutex<HashMap<MessageQueue, i64>>,
}

impl PullConsumer {
    /// # Errors
    /// [`ClientError::Config`] when the group is no name.
    pub fn new(client: &Client, group: &str) -> Result<Self, ClientError> {
        ResourceName::group(group).map_err(|error| ClientError::Config(error.to_string()))?;
        let client = client.clone();
        Ok(Self { client, group: group.to_owned(), broker_ids: Mutex::default() })
    }

    pub fn group(&self) -> &str {
        &self.group
    }

    /// The queues of `topic` that can be read, by broker name and queue id; looked up now.
    ///
    /// # Errors
    /// [`ClientError::TopicNotFound`].
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, ClientError> {
        let core = &self.client.core;
        let seen = core.routes.known(topic).and_then(|cached| cached.route());
        Ok(core.newer_route(topic, seen.as_ref()).await?.read_queues.clone())
    }

    /// Asks for the messages of `queue` from `offset` on.
    ///
    /// # Errors
    /// Anything but the four [`PullStatus`](crate::PullStatus)es, among them
    /// [`ClientError::Refused`] with `NO_PERMISSION` or `TOPIC_NOT_EXIST`.
    pub async fn pull(
        &self,
        queue: &MessageQueue,
        offset: u64,
        options: &PullOptions,
    ) -> Result<PullResult, ClientError> {
        let subscription = options.filter.subscription(&queue.topic)?;
        let broker_id = self.broker_ids.lock().get(queue).copied().unwrap_or(MASTER_ID);
        let pull = Pull {
            group: &self.group,
            queue,
            offset,
            messages_max: options.messages_max.max(1),
            bytes_max: options.bytes_max,
            subscription: &subscription,
            wait: options.wait,
            broker_id,
        };
        let result = self.client.core.pull(&pull).await;
        match &result {
            Ok(found) if found.suggested_broker_id == broker_id => {}
            Ok(found) => {
                self.broker_ids.lock().insert(queue.clone(), found.suggested_broker_id);
            }
            Err(_) => {
                self.broker_ids.lock().remove(queue);
            }
        }
        result
    }

    /// What the group has committed of `queue`; `None` when it never has.
    pub async fn committed_offset(&self, queue: &MessageQueue) -> Result<Option<u64>, ClientError> {
        self.client.core.committed_offset(&self.group, queue).await
    }

    /// Stores that the group has consumed everything of `queue` before `offset`.  Apache refuses it
    /// for a group that does not exist.
    pub async fn commit_offset(
        &self,
        queue: &MessageQueue,
        offset: u64,
    ) -> Result<(), ClientError> {
        self.client.core.commit_offset(&self.group, queue, offset).await
    }

    /// The offset of the oldest message of `queue` that is still there.
    pub async fn min_offset(&self, queue: &MessageQueue) -> Result<u64, ClientError> {
        self.client.core.min_offset(queue).await
    }

    /// One past the newest message of `queue`.
    pub async fn max_offset(&self, queue: &MessageQueue) -> Result<u64, ClientError> {
        self.client.core.max_offset(queue).await
    }

    /// The first message of `queue` stored at `time_ms` (since 1970) or later.
    pub async fn offset_by_time(
        &self,
        queue: &MessageQueue,
        time_ms: i64,
    ) -> Result<u64, ClientError> {
        self.client.core.offset_by_time(queue, time_ms).await
    }
}
