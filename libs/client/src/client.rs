//! What producers, consumers and the admin client share: NameServers, connections, routes,
//! heartbeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weirmq_remoting::body::{Body as _, MessageQueue, TopicRouteData};
use weirmq_remoting::codes::{RequestCode, ResponseCode};
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{Header as _, RouteHeader};
use weirmq_remoting::net::CallError;

use crate::inbound::Groups;
use crate::pool::Pool;
use crate::reply::Reply;
use crate::route::{CachedRoute, MASTER_ID, Route, RouteCache, master_of, member_of};
use crate::{ClientConfig, ClientError, unique_key};

/// After this many bytes one way the broker has to prove that it reads.
const ONE_WAY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A peer that owes an answer and sent none for so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(1);
/// How long it may take to answer that.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// How long a NameServer may take before the next is asked, or the only one by another connection:
/// behind a Service that is another one, perhaps.
const NAME_SERVER_PATIENCE: Duration = Duration::from_secs(1);

/// A member of the cluster's network. Cheap to clone; all clones are one client with one id.
///
/// Make one per process and give it to producers, consumers and [`Admin`](crate::Admin). It owns
/// its background tasks: call [`Client::shutdown`] at the end, else they end with the runtime.
#[derive(Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
}

pub(crate) struct Core {
    pub(crate) config: ClientConfig,
    pub(crate) client_id: String,
    pub(crate) groups: Arc<Groups>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) routes: RouteCache,
    pool: Pool,
    current_name_server: AtomicUsize,
    tasks: TaskTracker,
}

impl Client {
    /// Starts a client. Nothing is sent before somebody needs it.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the configuration cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: ClientConfig) -> Result<Self, ClientError> {
        config.validate()?;
        let groups = Arc::new(Groups::default());
        let pool = Pool::new(config.connect_timeout, config.frame_bytes_max, Arc::clone(&groups));
        let instance = config.instance.clone().unwrap_or_else(unique_instance);
        let core = Arc::new(Core {
            client_id: format!("{}@{instance}", unique_key::local_ip()),
            groups,
            shutdown: CancellationToken::new(),
            routes: RouteCache::default(),
            pool,
            current_name_server: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            config,
        });
        core.tasks.spawn(Arc::clone(&core).poll_routes());
        core.tasks.spawn(Arc::clone(&core).beat());
        Ok(Self { core })
    }

    /// `ip@instance`: what brokers know this client by.
    pub fn id(&self) -> &str {
        &self.core.client_id
    }

    pub fn config(&self) -> &ClientConfig {
        &self.core.config
    }

    /// Says goodbye to all brokers, closes all connections and waits for all tasks of the client.
    /// Producers and consumers made of it do nothing any more; shut consumers down first, so that
    /// they can commit their offsets.
    pub async fn shutdown(&self) {
        let core = &self.core;
        if core.shutdown.is_cancelled() {
            return;
        }
        core.shutdown.cancel();
        let (producers, consumers) = core.groups.names();
        for group in &producers {
            core.unregister(Some(group), None).await;
        }
        for group in &consumers {
            core.unregister(None, Some(group)).await;
        }
        core.tasks.close();
        core.tasks.wait().await;
        core.pool.close().await;
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.core.client_id)
    }
}

fn unique_instance() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = nanos.map(|since| since.as_nanos()).unwrap_or_default();
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}#{nanos}#{counter}", std::process::id())
}

impl Core {
    /// Asks `address`. Connecting counts towards `timeout`.
    pub(crate) async fn call_within(
        &self,
        address: &str,
        request: RequestCode,
        fields: impl FnOnce(&mut HeaderWriter<'_>) + Send,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Reply, ClientError> {
        let started = tokio::time::Instant::now();
        let connection =
            tokio::time::timeout(timeout, self.pool.connection(address)).await.map_err(
                |_| ClientError::Timeout { what: format!("connect to {address}"), timeout },
            )??;
        let left = timeout.saturating_sub(started.elapsed());
        let heard = connection.answers();
        let serialize = self.config.serialize;
        let answer = connection.call(serialize, request.number(), fields, body, left).await;
        let is_silent = connection.answers() == heard && timeout >= SILENCE;
        if is_silent && matches!(answer, Err(CallError::Timeout { .. })) {
            // What is sent next should not wait there as well.
            connection.close();
        }
        let reply = answer.map_err(|error| ClientError::Call { request, error })?;
        let reply = Reply::new(reply, address, request);
        if reply.command()?.head.code == ResponseCode::GoAway.number() {
            self.pool.disconnect(address);
        }
        Ok(reply)
    }

    /// As [`Core::call_within`], for what a broker that works answers soon: one that sends nothing
    /// for a while is asked whether it is there, and if it is not its connection is closed, which ends
    /// whatever else waits for it. One that is slow is waited for, so no message is sent twice.
    pub(crate) async fn call_watched(
        &self,
        address: &str,
        request: RequestCode,
        fields: impl FnOnce(&mut HeaderWriter<'_>) + Send,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Reply, ClientError> {
        tokio::select! {
            biased;
            answer = self.call_within(address, request, fields, body, timeout) => answer,
            silent = self.silence_of(address) => Err(silent),
        }
    }

    /// Ends when the peer at `address` is silent and no connection to it is to be used any more.
    async fn silence_of(&self, address: &str) -> ClientError {
        let request = RequestCode::HeartBeat;
        loop {
            let before = self.pool.open(address).map(|connection| connection.answers());
            tokio::time::sleep(SILENCE).await;
            let Ok(_turn) = self.pool.turn_to_ask(address).await else {
                return ClientError::ShutDown;
            };
            let Some(connection) = self.pool.open(address) else { continue };
            if Some(connection.answers()) != before {
                continue;
            }
            let beat = self.groups.heartbeat(&self.client_id).encode();
            let serialize = self.config.serialize;
            let asked = connection.call(serialize, request.number(), |_| {}, &beat, SIGN_OF_LIFE);
            if let Err(error) = asked.await {
                connection.close();
                return ClientError::Call { request, error };
            }
        }
    }

    /// Asks `address` within the configured time; any code but `SUCCESS` is an error.
    pub(crate) async fn call(
        &self,
        address: &str,
        request: RequestCode,
        fields: impl FnOnce(&mut HeaderWriter<'_>) + Send,
        body: &[u8],
    ) -> Result<Reply, ClientError> {
        let timeout = self.config.request_timeout;
        self.call_within(address, request, fields, body, timeout).await?.success()
    }

    /// Sends to `address` what wants no answer. Returns once it is queued for the socket.
    pub(crate) async fn send_one_way(
        &self,
        address: &str,
        request: RequestCode,
        fields: impl FnOnce(&mut HeaderWriter<'_>) + Send,
        body: &[u8],
    ) -> Result<(), ClientError> {
        let mut unproved = self.pool.one_way_bytes(address).await?;
        if *unproved >= ONE_WAY_BYTES_MAX {
            // Any request does; requests of a connection are read in order.
            let beat = self.groups.heartbeat(&self.client_id).encode();
            let _ = self.call(address, RequestCode::HeartBeat, |_| {}, &beat).await?;
            *unproved = 0;
        }
        *unproved += body.len() + 512;
        let connection = self.pool.connection(address).await?;
        let serialize = self.config.serialize;
        connection.send_one_way(serialize, request.number(), fields, body).map_err(|_closed| {
            let error = CallError::Closed(connection.peer());
            ClientError::Call { request, error }
        })
    }

    /// Asks the NameServers in turn until one answers, with whatever code.
    pub(crate) async fn call_name_server(
        &self,
        request: RequestCode,
        fields: impl Fn(&mut HeaderWriter<'_>) + Send + Sync,
        body: &[u8],
    ) -> Result<Reply, ClientError> {
        let addresses = &self.config.name_servers;
        let first = self.current_name_server.load(Ordering::Relaxed);
        let mut last = ClientError::ShutDown;
        let turns = addresses.len().max(2);
        for turn in 0..turns {
            let at = (first + turn) % addresses.len();
            let mut timeout = self.config.request_timeout;
            if turn + 1 < turns {
                timeout = timeout.min(NAME_SERVER_PATIENCE);
            }
            match self.call_within(&addresses[at], request, &fields, body, timeout).await {
                Ok(reply) => return Ok(reply),
                Err(ClientError::ShutDown) => return Err(ClientError::ShutDown),
                Err(error) => last = error,
            }
            // At once: whoever asks may give up before another has answered.
            self.current_name_server.store(at + 1, Ordering::Relaxed);
        }
        Err(ClientError::NameServers { asked: addresses.clone(), last: Box::new(last) })
    }

    /// Asks a NameServer for a topic's route; `None` when it knows none.
    pub(crate) async fn look_up(&self, topic: &str) -> Result<Option<TopicRouteData>, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            RouteHeader { topic: Text::from(topic), accept_standard_json_only: Some(true) }
                .encode(writer);
        };
        let reply = self.call_name_server(RequestCode::GetRouteInfoByTopic, fields, b"").await?;
        if reply.command()?.head.code == ResponseCode::TopicNotExist.number() {
            return Ok(None);
        }
        reply.success()?.body().map(Some)
    }

    /// The route of `topic`, looked up when it is not known yet.
    ///
    /// # Errors
    /// [`ClientError::TopicNotFound`] when no NameServer knows it.
    pub(crate) async fn route(&self, topic: &str) -> Result<Arc<Route>, ClientError> {
        if let Some(route) = self.routes.topic(topic).route() {
            return Ok(route);
        }
        self.newer_route(topic, None).await
    }

    /// The route of `topic`, looked up again unless somebody else has replaced `seen` already. A
    /// topic that the NameServer does not know any more keeps its old route: a NameServer that has
    /// just started knows nothing for up to 30 s.
    pub(crate) async fn newer_route(
        &self,
        topic: &str,
        seen: Option<&Arc<Route>>,
    ) -> Result<Arc<Route>, ClientError> {
        let cached = self.routes.topic(topic);
        let _turn = cached.looking_up.lock().await;
        let known = cached.route();
        if let Some(known) = &known
            && seen.is_none_or(|seen| !Arc::ptr_eq(seen, known))
        {
            return Ok(Arc::clone(known));
        }
        let looked_up = self.look_up(topic).await?;
        cached.trust();
        match looked_up {
            Some(data) => self.adopt(topic, &cached, data),
            None => known.ok_or_else(|| {
                self.routes.forget_unknown(topic);
                ClientError::TopicNotFound { topic: topic.to_owned() }
            }),
        }
    }

    fn adopt(
        &self,
        topic: &str,
        cached: &CachedRoute,
        data: TopicRouteData,
    ) -> Result<Arc<Route>, ClientError> {
        let is_news =
            cached.peek().is_none_or(|known| known.data.broker_datas != data.broker_datas);
        let route = Route::new(topic, data).map_err(|problem| ClientError::Malformed {
            address: "name server".to_owned(),
            request: RequestCode::GetRouteInfoByTopic,
            problem: format!("topic {topic}: {problem}"),
        })?;
        let route = Arc::new(route);
        cached.set(Arc::clone(&route));
        if is_news {
            self.groups.changed.notify_one();
        }
        Ok(route)
    }

    /// The address of the master that holds `queue`.
    pub(crate) async fn master(&self, queue: &MessageQueue) -> Result<String, ClientError> {
        let route = self.route(&queue.topic).await?;
        match master_of(&route, &queue.broker_name) {
            Ok(address) => Ok(address),
            Err(_) => {
                let route = self.newer_route(&queue.topic, Some(&route)).await?;
                master_of(&route, &queue.broker_name)
            }
        }
    }

    /// Asks the master of `queue`; once more by a fresh route if the known one led nowhere.
    pub(crate) async fn call_master(
        &self,
        queue: &MessageQueue,
        request: RequestCode,
        fields: impl Fn(&mut HeaderWriter<'_>) + Send + Sync,
    ) -> Result<Reply, ClientError> {
        self.call_found(queue, request, fields, master_of).await
    }

    /// The same for what a slave answers as well while the master is away: everything about
    /// consuming.
    pub(crate) async fn call_reader(
        &self,
        queue: &MessageQueue,
        request: RequestCode,
        fields: impl Fn(&mut HeaderWriter<'_>) + Send + Sync,
    ) -> Result<Reply, ClientError> {
        let reader = |route: &Route, broker: &str| {
            member_of(route, broker, MASTER_ID).map(|(_, address)| address)
        };
        self.call_found(queue, request, fields, reader).await
    }

    async fn call_found(
        &self,
        queue: &MessageQueue,
        request: RequestCode,
        fields: impl Fn(&mut HeaderWriter<'_>) + Send + Sync,
        find: impl Fn(&Route, &str) -> Result<String, ClientError>,
    ) -> Result<Reply, ClientError> {
        let mut route = self.route(&queue.topic).await?;
        let address = match find(&route, &queue.broker_name) {
            Ok(address) => address,
            Err(_) => {
                route = self.newer_route(&queue.topic, Some(&route)).await?;
                find(&route, &queue.broker_name)?
            }
        };
        match self.call(&address, request, &fields, b"").await {
            Err(error) if error.doubts_route() => {
                let route = self.newer_route(&queue.topic, Some(&route)).await?;
                let again = find(&route, &queue.broker_name)?;
                if again == address {
                    return Err(error);
                }
                self.call(&again, request, &fields, b"").await
            }
            answered => answered,
        }
    }

    async fn poll_routes(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.config.route_poll_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        while self.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let round = async {
                for topic in self.routes.due() {
                    self.poll_route(&topic).await;
                }
            };
            if self.shutdown.run_until_cancelled(round).await.is_none() {
                return;
            }
            self.pool.forget_closed();
        }
    }

    async fn poll_route(&self, topic: &str) {
        let looked_up = match self.look_up(topic).await {
            // A route that was dropped in the meantime is not brought back.
            Ok(Some(data)) => match self.routes.known(topic) {
                Some(cached) => self.adopt(topic, &cached, data).map(|_| ()),
                None => Ok(()),
            },
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = looked_up {
            tracing::warn!(topic, %error, "route poll failed");
        }
    }
}
