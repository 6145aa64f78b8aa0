//! Starting and stopping a broker.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weirmq_admin::Admin;
use weirmq_remoting::net::{Limits, ServerConfig, TlsError, serve};
use weirmq_store::{Disk, RealDisk, Store, StoreError, SystemClock, offline};

use crate::Broker;
use crate::broker::End;
use crate::cold_reads::ColdReadThreads;
use crate::config::ConfigError;
use crate::configuration::Configuration;
use crate::io_threads::IoThreads;
use crate::metrics::Metrics;
use crate::replication::{
    HandOverError, OF_THE_LOG, Prepared, ReplicationThread, Restart, RoleStatus, StartError,
    Status, prepare, refuse_what_others_wrote,
};
use crate::session::BrokerService;
use crate::state::{ImportError, State, StateError};
use crate::topics::Topics;
use crate::{delay, registration, request, stalled_disk};

/// Offsets that were committed one-way are in the log within this time.
const OFFSETS_WITHIN: Duration = Duration::from_millis(200);
/// What consumers subscribed to is in its file within this time.
const SUBSCRIPTIONS_WITHIN: Duration = Duration::from_secs(2);
/// A broker that ends waits so long until who asked for a hand-over is told what became of it.
const HAND_OVERS_TOLD_WITHIN: Duration = Duration::from_secs(1);
/// So long a master that handed over at its end refuses connections where a Service leads clients to the master.
/// kube-proxy writes its rules once a second. Until it has, clients come here, and packets to an address that is
/// gone are swallowed, which clients notice after their connect timeout only.
const REFUSES_FOR: Duration = Duration::from_secs(2);
/// With a longer `limits.flush_timeout_ms` clients give up before they are told.
const FLUSH_TIMEOUT_TOLD_MS: u64 = 2_600;
/// Pause after a failed write of the offsets that a slave keeps.
const SLAVE_OFFSETS_PAUSE: Duration = Duration::from_secs(1);

/// Where clients and other replicas connect.
pub struct Listeners {
    /// Port p, for everything.
    pub main: TcpListener,
    /// Port p − 2, the "fast" port that some clients choose for sends.
    pub vip: Option<TcpListener>,
    /// Port p + 1, for the other replicas of the group; needed with replication only.
    pub replication: Option<TcpListener>,
}

/// Why a broker does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("replay the broker's state: {0}")]
    State(#[from] StateError),
    #[error("take over the state of Apache's broker: {0}")]
    Import(#[from] ImportError),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("begin as a replica: {0}")]
    Replication(#[from] StartError),
    #[error("{what}: {error}")]
    Io { what: &'static str, error: io::Error },
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> BrokerError {
    move |error| BrokerError::Io { what, error }
}

/// Runs a broker until `shutdown`, then stops it cleanly: connections are closed, the log is flushed
/// and closed, a snapshot of the state is written. Sends that still wait for the disk get no answer,
/// which means unknown, as when a broker dies.
///
/// A replica that is master no more, or whose log goes on elsewhere than its master's, begins anew in
/// between, without the process: its ports stay open, its connections are closed.
pub async fn run(
    configuration: Arc<Configuration>,
    listeners: Listeners,
    admin: Admin,
    shutdown: CancellationToken,
) -> Result<(), BrokerError> {
    run_on(Arc::new(RealDisk), configuration, listeners, admin, shutdown).await
}

/// As [`run`], with the store on any disk.
pub(crate) async fn run_on(
    disk: Arc<dyn Disk>,
    configuration: Arc<Configuration>,
    listeners: Listeners,
    admin: Admin,
    shutdown: CancellationToken,
) -> Result<(), BrokerError> {
    let mut sockets = Sockets::of(listeners).map_err(io_error("listen"))?;
    let tls = configuration.now().tls.server_config()?;
    let metrics = Metrics::new(&configuration.now(), &admin);
    configuration.set_check(admin.check("broker/configuration"));
    let shown = configuration.clone();
    admin.show_configuration(move || shown.report());
    let mut relieved = None;
    loop {
        let life = Life {
            disk: disk.clone(),
            configuration: configuration.clone(),
            sockets,
            tls: tls.clone(),
            admin: admin.clone(),
            metrics: metrics.clone(),
        };
        let lived = life.live(&shutdown).await?;
        relieved = lived.relieved.or(relieved);
        let Some((restart, open)) = lived.anew else {
            let group = configuration.now().replication.kubernetes.clone();
            let has_service = group.is_some_and(|group| group.master_service.is_some());
            if let Some(relieved) = relieved.filter(|_| has_service) {
                tracing::info!("closed; clients that still come are refused for a moment");
                tokio::time::sleep(REFUSES_FOR.saturating_sub(relieved.elapsed())).await;
            }
            return Ok(());
        };
        sockets = open;
        tracing::info!(?restart, "the broker begins anew");
        let (disk, data_dir) = (disk.clone(), configuration.now().data_dir.clone());
        in_background("cut the log", move || begin_anew(&disk, &data_dir, restart)).await??;
    }
}

/// Ports that outlive a broker which begins anew.
struct Sockets {
    main: std::net::TcpListener,
    vip: Option<std::net::TcpListener>,
    replication: Option<std::net::TcpListener>,
}

impl Sockets {
    fn of(listeners: Listeners) -> io::Result<Self> {
        let Listeners { main, vip, replication } = listeners;
        let into_std = |listener: Option<TcpListener>| listener.map(TcpListener::into_std);
        let (vip, replication) = (into_std(vip).transpose()?, into_std(replication).transpose()?);
        Ok(Self { main: main.into_std()?, vip, replication })
    }

    fn of_clients(&self) -> io::Result<Vec<TcpListener>> {
        let listeners = [Some(&self.main), self.vip.as_ref()].into_iter().flatten();
        listeners.map(|listener| TcpListener::from_std(listener.try_clone()?)).collect()
    }
}

/// What came of a broker's life.
struct Lived {
    /// Why it begins anew, without the process, on these ports.
    anew: Option<(Restart, Sockets)>,
    /// When another one took its place as master, if nobody waits until it is back.
    relieved: Option<Instant>,
}

/// One life of a broker: from opening its store to closing it.
struct Life {
    disk: Arc<dyn Disk>,
    configuration: Arc<Configuration>,
    sockets: Sockets,
    tls: Option<Arc<rustls::ServerConfig>>,
    admin: Admin,
    metrics: Arc<Metrics>,
}

impl Life {
    /// Lives until `shutdown`, or until the broker has to begin anew.
    async fn live(self, shutdown: &CancellationToken) -> Result<Lived, BrokerError> {
        let Self { disk, configuration, sockets, tls, admin, metrics } = self;
        let recovered = admin.check("broker/recovered");
        let listening = admin.check("broker/listening");
        admin.check("broker/registered");
        if configuration.now().replication.is_on() {
            admin.ask_before_restart(|| vec!["the replica is starting".to_owned()]);
        }
        let bound = sockets.main.local_addr().map_err(io_error("listen"))?;
        let registering = admin.clone();
        let opening = move || open(disk, configuration, bound, registering, metrics);
        let (broker, replica) = in_background("open the store", opening).await??;
        recovered.ok();
        let log = admin.check("broker/log");
        broker.store.set_damage_listener(Box::new(move |damaged| match damaged.first() {
            None => log.ok(),
            Some(first) => log.degraded(format!(
                "{} ranges of the log are damaged and cannot be read, the first from {} to {}; \
                 another replica that has them repairs them; without one, stop the broker and see \
                 `weir store verify`",
                damaged.len(),
                first.from,
                first.to
            )),
        }));
        broker.metrics.look_at(&broker);
        if let Some(replication) = broker.replication.clone() {
            admin.ask_before_restart(move || replication.status().reasons_not_to_restart());
        }

        // Not a child of `shutdown`: a master serves until it has handed over.
        let stop = CancellationToken::new();
        let threads = IoThreads::start(&broker).map_err(io_error("start threads"))?;
        let cold_reads = ColdReadThreads::start(&broker).map_err(io_error("start threads"))?;
        let replication = match (replica, &sockets.replication) {
            (Some(replica), Some(listener)) => {
                let listener = listener.try_clone().map_err(io_error("listen for replicas"))?;
                Some(ReplicationThread::start(replica, broker.clone(), listener)?)
            }
            (Some(_), None) => {
                let error = io::Error::other("a replica needs a port for the others");
                return Err(io_error("listen for replicas")(error));
            }
            (None, _) => None,
        };
        let server_config = ServerConfig {
            limits: Limits {
                frame_bytes_max: broker.config().frame_bytes(),
                idle_timeout: Some(Duration::from_secs(broker.config().limits.idle_seconds)),
            },
            connections_max: Some(broker.config().limits.connections_max),
            tls,
            io_threads: threads.handles.clone(),
        };
        let io_threads = threads.threads.clone();
        let service = Arc::new(BrokerService { broker: broker.clone(), io_threads });
        let mut servers = JoinSet::new();
        for listener in sockets.of_clients().map_err(io_error("listen"))? {
            let (service, server_config) = (service.clone(), server_config.clone());
            servers.spawn(serve(listener, service, server_config, stop.clone()));
        }
        listening.ok();

        let mut tasks = spawn_tasks(&broker, &admin, &stop);
        let ended = tokio::select! {
            () = shutdown.cancelled() => None,
            end = broker.ended() => Some(end),
        };
        let others_are_enough = match ended {
            None => leave_before_the_end(&broker).await,
            Some(_) => has_others_enough(&broker),
        };
        let was_master = broker.replication.as_ref().is_some_and(|it| it.was_master());
        let relieved = (was_master && others_are_enough).then(Instant::now);
        request::pull::end_held(&broker);
        // This end may be the answer that they wait for.
        broker.hand_overs.close();
        let _ = tokio::time::timeout(HAND_OVERS_TOLD_WITHIN, broker.hand_overs.wait()).await;
        // Connections that nobody accepts any more would wait for an answer until the store is closed.
        let sockets = ended.is_some().then_some(sockets);
        stop.cancel();
        while servers.join_next().await.is_some() {}
        while tasks.join_next().await.is_some() {}
        threads.stop(&broker);
        cold_reads.stop();
        let restart = match ended {
            Some(End::Failed(cause)) => {
                replication.into_iter().for_each(ReplicationThread::stop);
                return Err(StoreError::Poisoned { cause }.into());
            }
            Some(End::Restart(restart)) => Some(restart),
            None => None,
        };
        in_background("close the store", move || close(&broker, replication)).await??;
        Ok(Lived { anew: restart.zip(sockets), relieved })
    }
}

/// Sees to it that nobody waits for a replica that is told to end: a master gives its office to the
/// slave that has most, a slave leaves the in-sync set. One that cannot ends all the same, and the
/// others find out. Says whether nobody waits until it is back.
async fn leave_before_the_end(broker: &Arc<Broker>) -> bool {
    let Some(replication) = &broker.replication else { return false };
    let status = replication.status();
    if !status.is_elected || !status.peers.iter().any(|peer| peer.is_connected) {
        return false;
    }
    let is_master = || matches!(replication.role(), RoleStatus::Master { .. });
    let leave = async || {
        // Beyond that the others do without it.
        let patience = Duration::from_millis(broker.config().replication.lease_ms) / 3;
        let is_free = replication.leave(patience).await;
        match is_free {
            true => tracing::info!("nobody waits for this replica"),
            false => tracing::warn!("this replica ends and is still counted on"),
        }
        is_free
    };
    let mut is_free = !is_master() && leave().await;
    // Also one to which a master has handed over a moment ago.
    if is_master() {
        let mut handed_over = broker.hand_over(None).await;
        if handed_over == Err(HandOverError::UnderWay) {
            let (mut status, patience) =
                (replication.watch(), broker.config().replication.lease_ms);
            let ended = status.wait_for(|status| !status.is_handing_over);
            let _ = tokio::time::timeout(Duration::from_millis(patience), ended).await;
            handed_over = if is_master() { broker.hand_over(None).await } else { Ok(()) };
        }
        match handed_over {
            Ok(()) => tracing::info!("handed over before the end"),
            Err(error) => tracing::warn!(%error, "not handed over before the end"),
        }
        // It follows its heir, or whoever was elected instead, who would take it into the set again, and wait for it
        // when it is gone.
        is_free = !is_master() && leave().await;
    }
    is_free
}

/// Whether the others that are there and in sync are enough to acknowledge without this replica.
fn has_others_enough(broker: &Broker) -> bool {
    let status = broker.replication.as_ref().map(|replication| replication.status());
    status.is_some_and(|status| {
        let others = status.peers.iter().filter(|peer| peer.is_connected && peer.is_in_sync);
        others.count() >= status.min_in_sync
    })
}

/// Everything that a broker does beside answering requests.
fn spawn_tasks(broker: &Arc<Broker>, admin: &Admin, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(registration::run(broker.clone(), stop.clone()));
    tasks.spawn(until(stop.clone(), as_master(broker.clone(), stop.clone(), delay::run)));
    let offsets = |broker, _| log_offsets(broker);
    tasks.spawn(until(stop.clone(), as_master(broker.clone(), stop.clone(), offsets)));
    if broker.replication.is_some() {
        tasks.spawn(until(stop.clone(), write_slave_offsets(broker.clone())));
    }
    tasks.spawn(until(stop.clone(), write_subscriptions(broker.clone())));
    let images = |broker, _| append_images(broker);
    tasks.spawn(until(stop.clone(), as_master(broker.clone(), stop.clone(), images)));
    tasks.spawn(until(stop.clone(), expire_pulls(broker.clone())));
    let disk = admin.check("broker/disk");
    tasks.spawn(until(stop.clone(), stalled_disk::watch(broker.clone(), disk)));
    let late = broker.clone();
    tasks.spawn(until(stop.clone(), async move {
        let late_answer = |position| late.late_answer(position);
        late.acknowledgements.expire(|| late.reached(), late_answer).await;
    }));
    tasks
}

/// Does what only a master does, once this broker is one.
async fn as_master<F: Future<Output = ()>>(
    broker: Arc<Broker>,
    stop: CancellationToken,
    work: impl FnOnce(Arc<Broker>, CancellationToken) -> F,
) {
    if let Some(replication) = &broker.replication {
        let serves =
            |status: &Status| matches!(status.role, RoleStatus::Master { may_append: true });
        let mut status = replication.watch();
        if status.wait_for(serves).await.is_err() {
            return;
        }
    }
    work(broker, stop).await;
}

async fn in_background<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BrokerError> {
    let working = tokio::task::spawn_blocking(work);
    working.await.map_err(|error| BrokerError::Io { what, error: io::Error::other(error) })
}

/// Changes the log of a broker that has closed it, so that it can follow its master.
fn begin_anew(disk: &Arc<dyn Disk>, directory: &Path, restart: Restart) -> Result<(), BrokerError> {
    match restart {
        Restart::Demoted => {}
        Restart::CutAt(at) => offline::truncate(directory, disk, at, OF_THE_LOG)?,
        Restart::BeginAt { start, store_id } => {
            offline::begin_at(directory, disk, start, store_id, OF_THE_LOG)?;
        }
    }
    Ok(())
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    configuration: Arc<Configuration>,
    bound: SocketAddr,
    admin: Admin,
    metrics: Arc<Metrics>,
) -> Result<(Arc<Broker>, Option<Prepared>), BrokerError> {
    let config = Arc::clone(&configuration.now());
    if config.limits.flush_timeout_ms > FLUSH_TIMEOUT_TOLD_MS {
        let ms = config.limits.flush_timeout_ms;
        tracing::warn!(ms, "limits.flush_timeout_ms: clients that wait for 3 s give up first");
    }
    let (store, _) = Store::open(config.store_config(), disk, Arc::new(SystemClock))?;
    if config.replication.is_on() {
        refuse_what_others_wrote(&store)?;
    }
    let topics =
        Topics::with_system_topics(&config.cluster, &config.name, config.template_queues());
    // A replica's state is what its group's log says: what it would log itself, nobody else has. Only a
    // directory of Apache's, with which a group may begin, has its state elsewhere.
    let state = match config.replication.is_on() && store.stats().recovery.apache.is_none() {
        true => State::recover(store.clone(), topics)?,
        false => recover_state(&store, topics, &config.data_dir, &config.cluster)?,
    };
    let was_slave = state.read_slave_offsets()?;
    let replica = prepare(&config, &store, &admin, metrics.replica.clone())?;
    let shared = replica.as_ref().map(|replica| replica.shared.clone());
    if let Some(replication) = shared.clone() {
        store.set_append_listener(Box::new(move || replication.appended()));
    }
    let broker = Arc::new(Broker::new(configuration, store, state, bound, admin, metrics, shared));
    let listener = Arc::downgrade(&broker);
    broker.store.set_flush_listener(Box::new(move |_| {
        if let Some(broker) = listener.upgrade() {
            if let Some(cause) = broker.store.poisoned() {
                broker.fail(cause.to_owned());
            }
            broker.flushed.notify_one();
            broker.replication.iter().for_each(|replication| replication.moved.notify_one());
        }
    }));
    let listener = Arc::downgrade(&broker);
    broker.store.set_protection_listener(Box::new(move || {
        if let Some(broker) = listener.upgrade() {
            broker.image_due.notify_one();
        }
    }));
    if was_slave && replica.is_none() {
        take_own_offsets(&broker)?;
    }
    broker.configuration.attach(&broker);
    Ok((broker, replica))
}

/// Logs what was committed at this broker as long as it was a slave: it is alone now.
fn take_own_offsets(broker: &Broker) -> Result<(), BrokerError> {
    broker.settle_slave_offsets();
    let offsets = broker.state.offsets.at_slave(|at_slave| at_slave.not_logged());
    broker.take_slave_offsets(&offsets);
    broker.state.patiently(|| broker.state.log_last_offsets())?;
    broker.store.flush()?;
    broker.forget_slave_offsets();
    Ok(broker.write_slave_offsets()?)
}

/// The state as the log and, if Apache's broker used the directory last, its files say.
pub(crate) fn recover_state(
    store: &Store,
    topics: Topics,
    data_dir: &Path,
    cluster: &str,
) -> Result<State, BrokerError> {
    let state = State::recover(store.clone(), topics)?;
    let apache = store.stats().recovery.apache;
    state.import(data_dir, apache.is_some())?;
    if let Some(left) = apache {
        state.finish_deletions_of_before()?;
        for line in state.unserved(data_dir, cluster, &left)? {
            tracing::warn!("kept from Apache's broker, not served: {line}");
        }
    }
    Ok(state)
}

fn close(broker: &Broker, replication: Option<ReplicationThread>) -> Result<(), BrokerError> {
    if let Err(error) = broker.write_subscriptions() {
        tracing::warn!(%error, "what consumers subscribe to is not kept for the next start");
    }
    let logged = broker.state.patiently(|| broker.state.log_last_offsets());
    let is_slave = broker.is_slave();
    replication.into_iter().for_each(ReplicationThread::stop);
    match logged {
        Ok(_) => close_state(&broker.state, &broker.config().data_dir)?,
        // A slave's are its master's. Tables that know more than the log must not be found again: the
        // log is replayed from the snapshot before.
        Err(_) if is_slave || broker.replication.is_some() => broker.store.clone().close()?,
        Err(error) => return Err(error.into()),
    }
    tracing::info!("store closed");
    Ok(())
}

pub(crate) fn close_state(state: &State, data_dir: &Path) -> Result<(), BrokerError> {
    if let Err(error) = state.write_snapshot() {
        tracing::warn!(%error, "no snapshot of the state; the next start replays more of the log");
    }
    if let Err(error) = state.export(data_dir) {
        tracing::warn!(%error, "config/*.json not written; Apache's broker would not know the state");
    }
    Ok(state.store().clone().close()?)
}

async fn until(shutdown: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

async fn log_offsets(broker: Arc<Broker>) {
    loop {
        broker.offsets_committed.notified().await;
        tokio::time::sleep(OFFSETS_WITHIN).await;
        let worker = broker.clone();
        let work = move || worker.state.patiently(|| worker.state.log_offsets());
        let logged = tokio::task::spawn_blocking(work).await;
        if let Ok(Err(error)) = logged {
            tracing::warn!(%error, "consumer offsets not logged, trying on");
            broker.offsets_committed.notify_one();
        }
    }
}

async fn write_slave_offsets(broker: Arc<Broker>) {
    loop {
        broker.slave_offsets_changed.notified().await;
        let worker = broker.clone();
        let written = tokio::task::spawn_blocking(move || worker.write_slave_offsets()).await;
        tokio::time::sleep(OFFSETS_WITHIN).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "offsets that were committed at this slave are not written");
            tokio::time::sleep(SLAVE_OFFSETS_PAUSE).await;
            broker.slave_offsets_changed.notify_one();
        }
    }
}

async fn write_subscriptions(broker: Arc<Broker>) {
    loop {
        tokio::time::sleep(SUBSCRIPTIONS_WITHIN).await;
        let worker = broker.clone();
        let written = tokio::task::spawn_blocking(move || worker.write_subscriptions()).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "what consumers subscribe to is not kept for the next start");
        }
    }
}

async fn append_images(broker: Arc<Broker>) {
    loop {
        broker.image_due.notified().await;
        let worker = broker.clone();
        let renewed = tokio::task::spawn_blocking(move || worker.state.renew_image()).await;
        if let Ok(Err(error)) = renewed {
            tracing::warn!(%error, "no image of the state, trying again with the next append");
        }
    }
}

async fn expire_pulls(broker: Arc<Broker>) {
    loop {
        for held in broker.long_polls.expired().await {
            crate::request::pull::expire(&broker, held);
        }
    }
}
