//! Reads all queues of a topic at once, for `tail` and for `consume` without a group.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weirmq_client::{Client, ClientError, Filter, MessageQueue, PullConsumer, PullOptions};

use super::consume::PrintArgs;
use crate::client::Message;
use crate::exit::Failure;
use crate::units::ReadFrom;

/// The group that brokers see. Every broker has it. Source: `MixAll.TOOLS_CONSUMER_GROUP`.
const TOOLS_GROUP: &str = "TOOLS_CONSUMER";
/// How long a broker may hold a pull while there is nothing new.
const HOLD: Duration = Duration::from_secs(15);
/// Messages that wait to be printed; beyond that the queues' tasks stop.
const WAITING_MAX: usize = 256;
/// Between two attempts to reach a broker.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The running reads; dropping it ends them.
pub(super) struct Reader {
    messages: mpsc::Receiver<anyhow::Result<Message>>,
    _tasks: JoinSet<()>,
}

impl Reader {
    /// Finds where each queue begins, and begins to read.
    pub(super) async fn start(
        client: &Client,
        topic: &str,
        from: ReadFrom,
        args: &PrintArgs,
    ) -> anyhow::Result<Self> {
        let consumer = Arc::new(PullConsumer::new(client, TOOLS_GROUP)?);
        let mut reads = Vec::new();
        let (sender, messages) = mpsc::channel(WAITING_MAX);
        for queue in queues(&consumer, topic, args.queue).await? {
            let offset = match from {
                ReadFrom::Earliest => consumer.min_offset(&queue).await,
                ReadFrom::Latest => consumer.max_offset(&queue).await,
                ReadFrom::Time(time_ms) => consumer.offset_by_time(&queue, time_ms).await,
            };
            let offset = offset.with_context(|| {
                format!("find where to begin in queue {} of {}", queue.queue_id, queue.broker_name)
            })?;
            let options =
                PullOptions { filter: filter(args), wait: HOLD, ..PullOptions::default() };
            let (consumer, sender) = (consumer.clone(), sender.clone());
            reads.push(Read { consumer, queue, offset, options, sender });
        }
        let mut tasks = JoinSet::new();
        // Only now, so that an error above leaves no task behind.
        for read in reads {
            tasks.spawn(read.run());
        }
        Ok(Self { messages, _tasks: tasks })
    }

    /// The next message of any queue.
    pub(super) async fn next(&mut self) -> anyhow::Result<Message> {
        let next = self.messages.recv().await;
        next.unwrap_or_else(|| Err(anyhow::anyhow!("all reads have ended")))
    }
}

/// The tags that the user wants.
pub(super) fn filter(args: &PrintArgs) -> Filter {
    args.tags.as_deref().map_or(Filter::All, Filter::from)
}

async fn queues(
    consumer: &PullConsumer,
    topic: &str,
    only: Option<i32>,
) -> anyhow::Result<Vec<MessageQueue>> {
    let mut queues = consumer.queues(topic).await?;
    queues.retain(|queue| only.is_none_or(|only| queue.queue_id == only));
    if queues.is_empty() {
        let which = only.map_or("no queue".to_owned(), |only| format!("no queue {only}"));
        let problem = format!("topic {topic} has {which} to read; see `weir topic route {topic}`");
        return Err(Failure::NotFound(problem).into());
    }
    Ok(queues)
}

struct Read {
    consumer: Arc<PullConsumer>,
    queue: MessageQueue,
    offset: u64,
    options: PullOptions,
    sender: mpsc::Sender<anyhow::Result<Message>>,
}

impl Read {
    /// Pulls until nobody listens any more or the broker refuses.
    async fn run(mut self) {
        loop {
            let pulled = match self.consumer.pull(&self.queue, self.offset, &self.options).await {
                Ok(pulled) => pulled,
                Err(
                    error @ (ClientError::Connect(_)
                    | ClientError::Call { .. }
                    | ClientError::NoBroker { .. }),
                ) => {
                    let MessageQueue { broker_name, queue_id, .. } = &self.queue;
                    tracing::warn!(broker = broker_name, queue = queue_id, %error, "pull failed, trying on");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                Err(error) => {
                    // An error means that nobody listens any more.
                    let _ = self.sender.send(Err(error.into())).await;
                    return;
                }
            };
            self.offset = pulled.next_offset;
            let unreadable = pulled.unreadable.into_iter().map(Message::from);
            let readable = pulled.messages.into_iter().map(Message::from);
            let mut messages: Vec<_> = readable.chain(unreadable).collect();
            messages.sort_by_key(|message| message.queue_offset);
            for message in messages {
                if self.sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        }
    }
}
