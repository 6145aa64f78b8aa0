//! The running name server: its listeners, its sessions, and what they share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weirmq_admin::Admin;
use weirmq_remoting::net::{self, Connection, Requests, Service, Session};

use crate::config::{ConfigError, NameServerConfig};
use crate::expiry;
use crate::kv_config::{KvConfig, KvError};
use crate::metrics::Metrics;
use crate::request::{self, Origin};
use crate::route_table::{Gone, RouteTable, TableLimits};

/// The listener on which brokers' main addresses are answered.
pub const DEFAULT_LISTENER: &str = "default";
/// The most changes of the KV configuration that may wait for the disk.
const KV_CHANGES_MAX: usize = 64;

/// A bound port. Routes asked for on it show the addresses that brokers registered for `name`,
/// and the main address of brokers that registered none.
pub struct Listener {
    pub name: String,
    pub listener: TcpListener,
}

/// Why a name server did not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum NameServerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    KvConfig(#[from] KvError),
    #[error("TLS: {0}")]
    Tls(#[from] weirmq_remoting::net::TlsError),
    #[error("a name server needs at least one listener")]
    NoListener,
    #[error("two listeners are named {0}")]
    DuplicateListener(String),
    #[error("a task of the name server failed: {0}")]
    Task(JoinError),
}

/// What all sessions share.
///
/// Order of locks: `routes`, then `connections` or the KV table; none is held over an await.
pub(crate) struct NameServer {
    pub(crate) config: NameServerConfig,
    pub(crate) routes: RwLock<RouteTable>,
    pub(crate) kv_config: KvConfig,
    pub(crate) kv_changes: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
    /// A broker may be due earlier than the expiry task knows.
    pub(crate) deadline_changed: Notify,
    /// Answers that are still being worked on.
    pub(crate) tasks: TaskTracker,
    /// The connections that registered a broker.
    connections: Mutex<HashMap<u64, Connection>>,
}

impl std::fmt::Debug for NameServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameServer")
    }
}

/// Serves `listeners` until `shutdown` is cancelled, then lets answers go out and returns.
///
/// Adds the check `namesrv` and metrics under `weirmq_namesrv_` to `admin`.
///
/// # Errors
/// Before anything is served: a wrong setting, no or equally named listeners, an unreadable
/// `kvConfig.json`. Later only [`NameServerError::Task`].
pub async fn run(
    config: NameServerConfig,
    listeners: Vec<Listener>,
    admin: Admin,
    shutdown: CancellationToken,
) -> Result<(), NameServerError> {
    let check = admin.check("namesrv");
    let served = start(config, listeners, &admin, &check, shutdown).await;
    match &served {
        Ok(()) => check.failing("has stopped"),
        Err(error) => check.failing(error.to_string()),
    }
    served
}

async fn start(
    config: NameServerConfig,
    listeners: Vec<Listener>,
    admin: &Admin,
    check: &weirmq_admin::Check,
    shutdown: CancellationToken,
) -> Result<(), NameServerError> {
    config.validate()?;
    if listeners.is_empty() {
        return Err(NameServerError::NoListener);
    }
    let mut names = HashSet::new();
    if let Some(twice) = listeners.iter().find(|listener| !names.insert(listener.name.as_str())) {
        return Err(NameServerError::DuplicateListener(twice.name.clone()));
    }
    let server = Arc::new(NameServer::new(config)?);
    admin.metrics(|registry| Metrics::register(&server, registry));

    // Also ends the other tasks when one of them fails.
    let server_config = server.config.server_config()?;
    let stop = shutdown.child_token();
    let _stop_at_end = stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    for Listener { name, listener } in listeners {
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(listener = name, address, "name server listens");
        let service = NameService { server: server.clone(), listener: Arc::from(name) };
        tasks.spawn(net::serve(listener, Arc::new(service), server_config.clone(), stop.clone()));
    }
    tasks.spawn(expiry::run(server.clone(), stop.clone()));
    check.ok();
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(NameServerError::Task)?;
    }
    server.tasks.close();
    server.tasks.wait().await;
    Ok(())
}

impl NameServer {
    fn new(config: NameServerConfig) -> Result<Self, NameServerError> {
        let limits = &config.limits;
        let kv_config =
            KvConfig::open(config.data_dir.as_deref(), limits.kv_entries_max, limits.kv_bytes_max)?;
        let routes = RouteTable::new(TableLimits {
            brokers_max: limits.brokers_max,
            topics_max: limits.topics_max,
            support_acting_master: config.support_acting_master,
            delete_missing_topics: config.delete_topic_with_broker_registration,
        });
        Ok(Self {
            config,
            routes: RwLock::new(routes),
            kv_config,
            kv_changes: Arc::new(Semaphore::new(KV_CHANGES_MAX)),
            metrics: Metrics::default(),
            deadline_changed: Notify::new(),
            tasks: TaskTracker::new(),
            connections: Mutex::default(),
        })
    }

    /// Remembers a connection that registers a broker, to close it should the broker expire.
    pub(crate) fn keep_connection(&self, connection: &Connection) {
        let mut connections = self.connections.lock();
        connections.entry(connection.id()).or_insert_with(|| connection.clone());
    }

    pub(crate) fn close_connections(&self, gone: &[Gone]) {
        let connections = self.connections.lock();
        for connection in gone.iter().filter_map(|gone| connections.get(&gone.connection)) {
            connection.close();
        }
    }

    pub(crate) fn log_gone(&self, gone: &[Gone], reason: &str) {
        for Gone { broker_name, broker_id, address, .. } in gone {
            tracing::info!(broker = %broker_name, broker_id, address, reason, "broker removed");
        }
    }

    fn connection_closed(&self, connection: &Connection) {
        self.metrics.disconnected();
        let has_registered = self.connections.lock().remove(&connection.id()).is_some();
        if has_registered {
            let gone = self.routes.write().connection_closed(connection.id());
            self.log_gone(&gone, "its connection ended");
        }
    }
}

/// One listener.
struct NameService {
    server: Arc<NameServer>,
    listener: Arc<str>,
}

impl Service for NameService {
    type Session = NameSession;

    fn connected(&self, connection: &Connection, _io_thread: usize) -> NameSession {
        self.server.metrics.connected();
        NameSession {
            server: self.server.clone(),
            listener: self.listener.clone(),
            connection: connection.clone(),
        }
    }
}

struct NameSession {
    server: Arc<NameServer>,
    listener: Arc<str>,
    connection: Connection,
}

impl Session for NameSession {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        let origin =
            Origin { server: &self.server, listener: &self.listener, connection: &self.connection };
        while let Some(request) = requests.next(out) {
            request::serve(&origin, &request, out);
        }
    }

    fn closed(&mut self) {
        self.server.connection_closed(&self.connection);
    }
}
