//! Starting and stopping a broker.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weirmq_admin::Admin;
use weirmq_remoting::net::{Limits, ServerConfig, TlsError, serve};
use weirmq_store::{Disk, RealDisk, RecoveryReport, Store, StoreConfig, StoreError, SystemClock};

use crate::Broker;
use crate::cold_reads::ColdReadThreads;
use crate::config::{BrokerConfig, ConfigError};
use crate::io_threads::IoThreads;
use crate::session::BrokerService;
use crate::state::{ImportError, State, StateError};
use crate::topics::Topics;
use crate::{delay, metrics, registration};

/// Offsets that were committed one-way are in the log within this time.
const OFFSETS_WITHIN: Duration = Duration::from_millis(200);

/// Where clients connect.
pub struct Listeners {
    /// Port p, for everything.
    pub main: TcpListener,
    /// Port p − 2, the "fast" port that some clients choose for sends.
    pub vip: Option<TcpListener>,
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
    #[error("{what}: {error}")]
    Io { what: &'static str, error: io::Error },
}

/// Runs a broker until `shutdown`, then stops it cleanly: connections are closed, the log is flushed
/// and closed, a snapshot of the state is written. Sends that still wait for the disk get no answer,
/// which means unknown, as when a broker dies.
pub async fn run(
    config: BrokerConfig,
    listeners: Listeners,
    admin: Admin,
    shutdown: CancellationToken,
) -> Result<(), BrokerError> {
    run_on(Arc::new(RealDisk), config, listeners, admin, shutdown).await
}

/// As [`run`], with the store on any disk.
pub(crate) async fn run_on(
    disk: Arc<dyn Disk>,
    config: BrokerConfig,
    listeners: Listeners,
    admin: Admin,
    shutdown: CancellationToken,
) -> Result<(), BrokerError> {
    config.validate()?;
    let recovered = admin.check("broker/recovered");
    let listening = admin.check("broker/listening");
    admin.check("broker/registered");
    let io_error = |what| move |error| BrokerError::Io { what, error };
    let bound = listeners.main.local_addr().map_err(io_error("listen"))?;
    let tls = config.tls.server_config()?;
    let registering = admin.clone();
    let broker = tokio::task::spawn_blocking(move || open(disk, config, bound, registering));
    let broker = broker.await.map_err(|error| BrokerError::Io {
        what: "open the store",
        error: io::Error::other(error),
    })??;
    recovered.ok();
    let log = admin.check("broker/log");
    broker.store.set_damage_listener(Box::new(move |damaged| match damaged.first() {
        None => log.ok(),
        Some(first) => log.degraded(format!(
            "{} ranges of the log are damaged and cannot be read, the first from {} to {}; \
             stop the broker and see `weir store verify`",
            damaged.len(),
            first.from,
            first.to
        )),
    }));
    metrics::collect(&broker);

    let threads = IoThreads::start(&broker).map_err(io_error("start threads"))?;
    let cold_reads = ColdReadThreads::start(&broker).map_err(io_error("start threads"))?;
    let server_config = ServerConfig {
        limits: Limits {
            frame_bytes_max: broker.config.frame_bytes(),
            idle_timeout: Some(Duration::from_secs(broker.config.limits.idle_seconds)),
        },
        connections_max: Some(broker.config.limits.connections_max),
        tls,
        io_threads: threads.handles.clone(),
    };
    let io_threads = threads.threads.clone();
    let service = Arc::new(BrokerService { broker: broker.clone(), io_threads });
    let mut servers = JoinSet::new();
    for listener in [Some(listeners.main), listeners.vip].into_iter().flatten() {
        let stop = shutdown.clone();
        servers.spawn(serve(listener, service.clone(), server_config.clone(), stop));
    }
    listening.ok();

    let mut tasks = JoinSet::new();
    tasks.spawn(registration::run(broker.clone(), shutdown.clone()));
    tasks.spawn(delay::run(broker.clone(), shutdown.clone()));
    tasks.spawn(until(shutdown.clone(), log_offsets(broker.clone())));
    tasks.spawn(until(shutdown.clone(), append_images(broker.clone())));
    tasks.spawn(until(shutdown.clone(), expire_pulls(broker.clone())));
    let late = broker.clone();
    tasks.spawn(until(shutdown.clone(), async move {
        late.acknowledgements.expire(|| late.reached()).await;
    }));

    let failed = tokio::select! {
        () = shutdown.cancelled() => None,
        cause = broker.failed() => Some(cause),
    };
    shutdown.cancel();
    while servers.join_next().await.is_some() {}
    while tasks.join_next().await.is_some() {}
    threads.stop(&broker);
    cold_reads.stop();
    if let Some(cause) = failed {
        return Err(StoreError::Poisoned { cause }.into());
    }
    let closing = tokio::task::spawn_blocking(move || close(&broker));
    closing.await.map_err(|error| BrokerError::Io {
        what: "close the store",
        error: io::Error::other(error),
    })?
}

/// Opens the directory of a broker that does not run and leaves it as a clean stop does: recovered,
/// closed, with its exports written. Nothing listens meanwhile.
pub fn close_directory(config: StoreConfig) -> Result<RecoveryReport, BrokerError> {
    let (data_dir, cluster, name) =
        (config.directory.clone(), config.cluster.clone(), config.group.clone());
    let (store, report) = Store::open(config, Arc::new(RealDisk), Arc::new(SystemClock))?;
    let topics = Topics::with_system_topics(&cluster, &name, None);
    let state = recover_state(&store, topics, &data_dir, &cluster)?;
    close_state(&state, &data_dir)?;
    Ok(report)
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    config: BrokerConfig,
    bound: SocketAddr,
    admin: Admin,
) -> Result<Arc<Broker>, BrokerError> {
    let (store, _) = Store::open(config.store_config(), disk, Arc::new(SystemClock))?;
    let template_queues = config.auto_create_topics.then_some(config.default_topic_queues);
    let topics = Topics::with_system_topics(&config.cluster, &config.name, template_queues);
    let state = recover_state(&store, topics, &config.data_dir, &config.cluster)?;
    let broker = Arc::new(Broker::new(config, store, state, bound, admin));
    let listener = Arc::downgrade(&broker);
    broker.store.set_flush_listener(Box::new(move |_| {
        if let Some(broker) = listener.upgrade() {
            if let Some(cause) = broker.store.poisoned() {
                broker.fail(cause.to_owned());
            }
            broker.flushed.notify_one();
        }
    }));
    let listener = Arc::downgrade(&broker);
    broker.store.set_protection_listener(Box::new(move || {
        if let Some(broker) = listener.upgrade() {
            broker.image_due.notify_one();
        }
    }));
    Ok(broker)
}

/// The state as the log and, if Apache's broker used the directory last, its files say.
fn recover_state(
    store: &Store,
    topics: Topics,
    data_dir: &Path,
    cluster: &str,
) -> Result<State, BrokerError> {
    let state = State::recover(store.clone(), topics)?;
    let apache = store.stats().recovery.apache;
    state.import(data_dir, apache.is_some())?;
    if let Some(left) = apache {
        for line in state.unserved(data_dir, cluster, &left)? {
            tracing::warn!("kept from Apache's broker, not served: {line}");
        }
    }
    Ok(state)
}

fn close(broker: &Broker) -> Result<(), BrokerError> {
    broker.state.patiently(|| broker.state.log_offsets())?;
    close_state(&broker.state, &broker.config.data_dir)?;
    tracing::info!("store closed");
    Ok(())
}

fn close_state(state: &State, data_dir: &Path) -> Result<(), BrokerError> {
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

async fn append_images(broker: Arc<Broker>) {
    loop {
        broker.image_due.notified().await;
        let worker = broker.clone();
        let work = move || {
            worker.state.append_image()?;
            worker.state.write_snapshot()?;
            Ok::<_, StateError>(())
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
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
