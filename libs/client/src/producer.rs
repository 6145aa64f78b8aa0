//! Sending messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use weirmq_message::properties::names;
use weirmq_message::tags::java_string_hash;
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{MessageQueue, TopicRouteData};
use weirmq_remoting::command::HeaderWriter;

use crate::encode::Encoded;
use crate::route::{Route, master_of};
use crate::send::{SendResult, Sender, send_once};
use crate::unique_key::now_ms;
use crate::{Client, ClientError, Message};

/// How long the borrowed route of a topic that does not exist yet is used before the NameServer
/// is asked for the topic's own again.
const BORROWED_FOR: Duration = Duration::from_secs(1);
/// Where there is no other broker, the one that failed is tried again so long after the attempt before
/// began, or twice that once two may have stored the message: a planned change of its master takes about
/// as long.
const PAUSE: Duration = Duration::from_millis(250);

/// How a producer sends.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// The producer group, one name for all producers that send the same kind of message.
    /// Default: `DEFAULT_PRODUCER`.
    pub group: String,
    /// How long a send may take with all its attempts. Default: 3 s.
    pub send_timeout: Duration,
    /// How long one attempt may take. Default: `None`, all that is left of `send_timeout`: a
    /// second attempt after a missing answer may store the message twice.
    pub attempt_timeout: Option<Duration>,
    /// How many more attempts follow one that failed. Unless this is 0, those after which nothing can be
    /// stored, as while a group changes its master, do not count: they end with `send_timeout`.
    /// Default: 2.
    pub retries: u32,
    /// Another attempt on another broker also when the message is stored, but not on disk or on a
    /// slave as the broker wants it; it is then stored twice. Default: false.
    pub retry_when_not_kept: bool,
    /// Bodies longer than this are compressed with zlib, in bytes; `None`: none. Default: 4 KiB.
    pub compress_above: Option<usize>,
    /// 0 (fast) to 9 (small). Default: 5.
    pub compression_level: u32,
    /// The longest body, in bytes, before it is compressed; for a batch, all of it.
    /// Default: 4 MiB, which is also the broker's.
    pub body_bytes_max: usize,
    /// The topic whose queues a topic gets that is created by sending to it. Default: `TBW102`.
    pub default_topic: String,
    /// How many queues such a topic gets at most. Default: 4.
    pub default_topic_queues: u32,
    /// How much may be on its way without an answer, in bytes; further sends wait. Default: 16 MiB.
    pub in_flight_bytes_max: usize,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            group: "DEFAULT_PRODUCER".to_owned(),
            send_timeout: Duration::from_secs(3),
            attempt_timeout: None,
            retries: 2,
            retry_when_not_kept: false,
            compress_above: Some(4096),
            compression_level: 5,
            body_bytes_max: 4 * 1024 * 1024,
            default_topic: "TBW102".to_owned(),
            default_topic_queues: 4,
            in_flight_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// Sends messages. Cheap to clone; sends may run concurrently, each is a future of its own.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    config: ProducerConfig,
    /// Round robin over the queues of every topic.
    next_queue: AtomicUsize,
    /// Routes of topics that do not exist yet, taken from the default topic.
    borrowed: Mutex<HashMap<String, (Instant, Arc<Route>)>>,
    in_flight: Semaphore,
}

/// Which queue a message goes to.
enum Target {
    /// Any; after a failure one of another broker.
    Any,
    /// The one that the sharding key hashes to.
    Hash(i32),
    This(MessageQueue),
}

impl Producer {
    /// Joins `config.group`. Brokers hear of it with the next heartbeat.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the group is no name or this client has a producer of it.
    pub fn start(client: &Client, config: ProducerConfig) -> Result<Self, ClientError> {
        ResourceName::group(&config.group)
            .map_err(|error| ClientError::Config(error.to_string()))?;
        let least = config.body_bytes_max.saturating_add(64 * 1024);
        let in_flight_bytes = config.in_flight_bytes_max.max(least).min(Semaphore::MAX_PERMITS);
        client.core.groups.add_producer(&config.group)?;
        let shared = Shared {
            client: client.clone(),
            next_queue: AtomicUsize::new(now_ms() as usize),
            borrowed: Mutex::default(),
            in_flight: Semaphore::new(in_flight_bytes.min(u32::MAX as usize)),
            config,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sends a message and waits until a broker has stored it.
    ///
    /// Fails only after `retries` further attempts on other brokers, or when the time is up. A message
    /// may be stored twice when an answer was lost, and may be stored although this fails.
    ///
    /// # Errors
    /// [`ClientError::Message`] and [`ClientError::TopicNotFound`] before anything is sent,
    /// [`ClientError::SendFailed`] once something was.
    pub async fn send(&self, message: Message) -> Result<SendResult, ClientError> {
        let encoded = Encoded::message(&self.shared.config, message, &[]).await?;
        first(self.send_encoded(&encoded, Target::Any).await?)
    }

    /// Sends a message to this queue and no other.
    pub async fn send_to(
        &self,
        queue: &MessageQueue,
        message: Message,
    ) -> Result<SendResult, ClientError> {
        if queue.topic != message.topic {
            return Err(message.refused(format!("the queue belongs to topic {}", queue.topic)));
        }
        let encoded = Encoded::message(&self.shared.config, message, &[]).await?;
        first(self.send_encoded(&encoded, Target::This(queue.clone())).await?)
    }

    /// Sends a message to the queue that `sharding_key` hashes to. Messages with the same key are
    /// consumed in the order in which they were sent, if each is sent when the one before it has
    /// been answered, the number of queues stays, and consumers are in ordered mode.
    ///
    /// Source: `SelectMessageQueueByHash`, so Java producers choose the same queue.
    pub async fn send_ordered(
        &self,
        message: Message,
        sharding_key: &str,
    ) -> Result<SendResult, ClientError> {
        let own = [(names::SHARDING_KEY, sharding_key)];
        let encoded = Encoded::message(&self.shared.config, message, &own).await?;
        let hash = java_string_hash(sharding_key);
        first(self.send_encoded(&encoded, Target::Hash(hash)).await?)
    }

    /// Sends messages of one topic to one queue as one request: all are stored or none.
    /// The result has one entry per message, in the same order.
    ///
    /// # Errors
    /// [`ClientError::Message`] when there is no message, they are of several topics, one is
    /// delayed or for a retry topic, or they are longer than `body_bytes_max` together.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<Vec<SendResult>, ClientError> {
        let encoded = Encoded::batch(&self.shared.config, &messages)?;
        self.send_encoded(&encoded, Target::Any).await
    }

    /// Sends a message without waiting for an answer: it may be lost, and nobody hears of it.
    /// Returns the id that it got.
    pub async fn send_one_way(&self, message: Message) -> Result<String, ClientError> {
        let mut encoded = Encoded::message(&self.shared.config, message, &[]).await?;
        let route = self.route(&encoded.topic).await?;
        let queue = self.choose(&route, &Target::Any, &encoded.topic, None)?;
        let address = master_of(&route, &queue.broker_name)?;
        let sender = self.sender();
        let fields = |writer: &mut HeaderWriter<'_>| encoded.write(&sender, &queue, writer);
        let core = &self.shared.client.core;
        core.send_one_way(&address, encoded.request(), fields, &encoded.body).await?;
        Ok(encoded.message_ids.swap_remove(0))
    }

    /// The queues of `topic` that messages can be sent to, in the order that hashing uses.
    pub async fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>, ClientError> {
        Ok(self.route(topic).await?.write_queues.clone())
    }

    /// Leaves the group and tells the brokers.
    pub async fn shutdown(&self) {
        self.shared.client.core.unregister(Some(&self.shared.config.group), None).await;
    }

    async fn send_encoded(
        &self,
        message: &Encoded,
        target: Target,
    ) -> Result<Vec<SendResult>, ClientError> {
        let config = &self.shared.config;
        let mut attempts = 0;
        let mut last = None;
        let sending = async {
            let bytes = u32::try_from(message.wire_bytes()).unwrap_or(u32::MAX);
            let permits = self.shared.in_flight.acquire_many(bytes).await;
            let _permits = permits.map_err(|_closed| ClientError::ShutDown)?;
            self.attempts(message, &target, &mut attempts, &mut last).await
        };
        let sent = tokio::time::timeout(config.send_timeout, sending).await;
        let is_doubtful = match &sent {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => error.doubts_route(),
            Err(_) => true,
        };
        if is_doubtful && let Some(cached) = self.shared.client.core.routes.known(&message.topic) {
            // The next message asks first where to go.
            cached.doubt();
        }
        let error = match sent {
            Ok(Ok(results)) => return Ok(results),
            // Nothing was sent, so there is nothing to say about a message.
            Ok(Err(error)) if attempts == 0 => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => last.unwrap_or_else(|| ClientError::Timeout {
                what: format!("send to topic {}", message.topic),
                timeout: config.send_timeout,
            }),
        };
        Err(ClientError::SendFailed {
            topic: message.topic.clone(),
            message_id: message.message_ids.join(","),
            attempts,
            last: Box::new(error),
        })
    }

    /// Attempts until one succeeds, none is left, or the failure is final. `last` keeps the latest
    /// failure for when the time is up.
    async fn attempts(
        &self,
        message: &Encoded,
        target: &Target,
        attempts: &mut u32,
        last: &mut Option<ClientError>,
    ) -> Result<Vec<SendResult>, ClientError> {
        let config = &self.shared.config;
        let core = &self.shared.client.core;
        let mut route = self.route(&message.topic).await?;
        let mut kept = None;
        let mut avoid: Option<String> = None;
        // Failures after which the message may be stored.
        let mut counted = 0;
        loop {
            *attempts += 1;
            let begun = Instant::now();
            let mut failed = None;
            let attempt = async {
                let queue = self.choose(&route, target, &message.topic, avoid.as_deref())?;
                avoid = Some(queue.broker_name.clone());
                let address = master_of(&route, &queue.broker_name)?;
                failed = Some(address.clone());
                let timeout = config.attempt_timeout.unwrap_or(config.send_timeout);
                send_once(core, &self.sender(), message, &queue, &address, timeout).await
            };
            let error = match attempt.await {
                Ok(results) => {
                    let is_kept =
                        results.iter().all(|result| result.status == crate::SendStatus::Ok);
                    if is_kept || !config.retry_when_not_kept || *attempts > config.retries {
                        return Ok(results);
                    }
                    kept = Some(results);
                    continue;
                }
                Err(error) => error,
            };
            if let Some(results) = kept {
                return Ok(results);
            }
            counted += u32::from(config.retries == 0 || !error.stored_nothing());
            if !error.is_retryable() || counted > config.retries {
                return Err(error);
            }
            tracing::debug!(topic = message.topic, attempts, %error, "send failed, trying again");
            let doubts_route = error.doubts_route();
            *last = Some(error);
            if doubts_route {
                route = self.route_after(message, &route).await?;
            }
            let is_everybody_tried = *attempts > config.retries;
            if is_everybody_tried
                || !self.leads_elsewhere(&route, target, message, failed.as_deref())
            {
                tokio::time::sleep_until(begun + PAUSE * counted.max(1)).await;
                if doubts_route {
                    route = self.route_after(message, &route).await?;
                }
            }
        }
    }

    /// The route after an attempt by `seen` has failed.
    async fn route_after(
        &self,
        message: &Encoded,
        seen: &Arc<Route>,
    ) -> Result<Arc<Route>, ClientError> {
        self.shared.borrowed.lock().remove(&message.topic);
        match self.shared.client.core.newer_route(&message.topic, Some(seen)).await {
            Ok(route) => Ok(route),
            Err(_) => self.route(&message.topic).await,
        }
    }

    /// Whether the next attempt can go to another address than `failed`.
    fn leads_elsewhere(
        &self,
        route: &Route,
        target: &Target,
        message: &Encoded,
        failed: Option<&str>,
    ) -> bool {
        let is_other = |queue: &MessageQueue| {
            master_of(route, &queue.broker_name).is_ok_and(|address| Some(&*address) != failed)
        };
        match target {
            Target::Any => route.write_queues.iter().any(is_other),
            Target::Hash(_) | Target::This(_) => {
                let queue = self.choose(route, target, &message.topic, None);
                queue.is_ok_and(|queue| is_other(&queue))
            }
        }
    }

    /// A queue for the next attempt; not of broker `avoid` if there is another.
    fn choose(
        &self,
        route: &Route,
        target: &Target,
        topic: &str,
        avoid: Option<&str>,
    ) -> Result<MessageQueue, ClientError> {
        let queues = &route.write_queues;
        if let Target::This(queue) = target {
            return Ok(queue.clone());
        }
        if queues.is_empty() {
            return Err(ClientError::NoWritableQueue { topic: topic.to_owned() });
        }
        if let Target::Hash(hash) = target {
            let at = (i64::from(*hash) % queues.len() as i64).unsigned_abs() as usize;
            return Ok(queues[at].clone());
        }
        let first = self.shared.next_queue.fetch_add(1, Ordering::Relaxed);
        let turns =
            (0..queues.len()).map(|turn| &queues[(first.wrapping_add(turn)) % queues.len()]);
        let others = turns.clone().find(|queue| Some(queue.broker_name.as_str()) != avoid);
        let chosen = others.or_else(|| turns.clone().next());
        chosen.cloned().ok_or_else(|| ClientError::NoWritableQueue { topic: topic.to_owned() })
    }

    /// The topic's route, or the one that it will have once the first message has created it.
    async fn route(&self, topic: &str) -> Result<Arc<Route>, ClientError> {
        let core = &self.shared.client.core;
        if let Some(cached) = core.routes.known(topic)
            && let Some(route) = cached.route()
        {
            if cached.is_doubted() {
                return Ok(core.newer_route(topic, Some(&route)).await.unwrap_or(route));
            }
            return Ok(route);
        }
        let borrowed = self.shared.borrowed.lock().get(topic).cloned();
        if let Some((_, route)) = borrowed.filter(|(since, _)| since.elapsed() < BORROWED_FOR) {
            return Ok(route);
        }
        match core.route(topic).await {
            Err(ClientError::TopicNotFound { .. }) => self.borrow_route(topic).await,
            found => found,
        }
    }

    async fn borrow_route(&self, topic: &str) -> Result<Arc<Route>, ClientError> {
        let config = &self.shared.config;
        let default = match self.shared.client.core.route(&config.default_topic).await {
            Err(ClientError::TopicNotFound { .. }) => {
                return Err(ClientError::TopicNotFound { topic: topic.to_owned() });
            }
            found => found?,
        };
        let most = i32::try_from(config.default_topic_queues).unwrap_or(i32::MAX);
        let mut data = TopicRouteData { order_topic_conf: None, ..default.data.clone() };
        for queues in &mut data.queue_datas {
            queues.read_queue_nums = queues.read_queue_nums.min(most);
            queues.write_queue_nums = queues.write_queue_nums.min(most);
        }
        let refused = |problem| ClientError::Message { topic: topic.to_owned(), problem };
        let route = Arc::new(Route::new(topic, data).map_err(refused)?);
        let mut borrowed = self.shared.borrowed.lock();
        borrowed.retain(|_, (since, _)| since.elapsed() < BORROWED_FOR);
        borrowed.insert(topic.to_owned(), (Instant::now(), Arc::clone(&route)));
        Ok(route)
    }

    fn sender(&self) -> Sender<'_> {
        let config = &self.shared.config;
        Sender {
            group: &config.group,
            default_topic: &config.default_topic,
            default_topic_queues: config.default_topic_queues,
        }
    }
}

fn first(results: Vec<SendResult>) -> Result<SendResult, ClientError> {
    // There is one result for each message id, and one message has one.
    results.into_iter().next().ok_or(ClientError::ShutDown)
}
