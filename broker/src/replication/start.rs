//! Begins a broker's life as a replica, before it serves anybody.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weirmq_authority::{
    AcknowledgedBy, EpochTable, Member, Promise, Replica, ReplicaId, Replication, Settings,
};
use weirmq_store::{Store, StoreError};

use super::authority::{Authority, MasterService};
use super::dial::{Ends, keep_dialling, listen};
use super::driver::{Driver, GroupPlace, log_position};
use super::frame::Hello;
use super::handshake::{PROTOCOL, PROTOCOL_MIN, Trust};
use super::static_roles::{StaticRoles, StaticRolesError};
use super::tls::Tls;
use super::{Command, Counted, Shared, Status, kept};
use crate::Broker;
use crate::config::{
    AckPolicy, BrokerConfig, Flush, KubernetesSection, REPLICAS_MAX, ReplicationMode,
};

/// Events of connections that wait for the driver; each may hold a frame of the log.
const EVENTS: usize = 32;
const ANSWERS: usize = 8;
const COMMANDS: usize = 8;
/// With roles by configuration nobody leaves the in-sync set.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a replica cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Roles(#[from] StaticRolesError),
    #[error("replication.kubernetes: {0}")]
    Kubernetes(String),
    #[error("replication.secret_file {path}: {reason}")]
    Secret { path: String, reason: String },
    #[error("replication.tls: {0}")]
    Tls(String),
    #[error(
        "Apache's broker was the last to use this directory, which has been one of several \
         replicas: what it wrote is in none of the others. Empty the directory and let it follow, \
         or start it without replication"
    )]
    WrittenByApache,
    #[error("start the replication thread: {0}")]
    Thread(#[from] io::Error),
}

/// Where the authority record is, before anybody is asked.
enum Plan {
    Here(StaticRoles),
    AtTheMaster,
    Kubernetes(KubernetesSection),
}

/// A replica that is ready to begin.
pub(crate) struct Prepared {
    pub(crate) shared: Arc<Shared>,
    settings: Settings,
    authority: Plan,
    promise: Promise,
    epochs: EpochTable,
    me: Member,
    trust: Trust,
    tls: Option<Arc<Tls>>,
    commands: mpsc::Receiver<Command>,
}

/// Reads what the replica kept, hides what is not known to be confirmed, and lets nobody append
/// before it is master. `None` where the configuration names no replication.
pub(crate) fn prepare(
    config: &BrokerConfig,
    store: &Store,
    admin: &weirmq_admin::Admin,
    counted: Arc<Counted>,
) -> Result<Option<Prepared>, StartError> {
    if !config.replication.is_on() {
        return Ok(None);
    }
    let settings = settings(config);
    let trust = trust(config)?;
    let tls = config.replication.tls.clone().map(Tls::read).transpose();
    let tls = tls.map_err(StartError::Tls)?.map(Arc::new);
    let epochs = kept::epochs(store)?;
    let promise = kept::begin_promise(store, settings.sync_flush)?;
    let incarnation = promise.holds.last().copied().unwrap_or(weirmq_authority::Incarnation(0));
    let replica = ReplicaId(u32::try_from(config.broker_id).unwrap_or(u32::MAX));
    let me = Member { replica, incarnation };
    let section = &config.replication;
    let authority = match (&section.kubernetes, section.followed(config.broker_id)) {
        (Some(kubernetes), _) => Plan::Kubernetes(kubernetes.clone()),
        (None, Some(_)) => Plan::AtTheMaster,
        (None, None) => {
            let replication = settings.replication;
            Plan::Here(StaticRoles::take_office(store, me, &promise, replication)?)
        }
    };
    store.hide_unconfirmed();
    store.close_for_appends();
    let (sender, commands) = mpsc::channel(COMMANDS);
    let status = Status::new(replica.0, settings.min_in_sync);
    let shared = Arc::new(Shared::new(
        status,
        sender,
        admin.check("broker/replication"),
        section.catch_up_bytes_per_second,
        counted,
    ));
    Ok(Some(Prepared { shared, settings, authority, promise, epochs, me, trust, tls, commands }))
}

/// # Errors
/// When Apache's broker wrote to a log that others have copies of.
pub(crate) fn refuse_what_others_wrote(store: &Store) -> Result<(), StartError> {
    let is_foreign = store.stats().recovery.apache.is_some();
    match is_foreign && kept::epochs(store)?.last() > 0 {
        true => Err(StartError::WrittenByApache),
        false => Ok(()),
    }
}

fn settings(config: &BrokerConfig) -> Settings {
    let section = &config.replication;
    let replication = match section.mode {
        ReplicationMode::Async => Replication::Async,
        ReplicationMode::Sync => Replication::Sync,
    };
    let acknowledged_by = match section.ack_policy {
        AckPolicy::All => AcknowledgedBy::All,
        AckPolicy::Quorum => AcknowledgedBy::Quorum,
    };
    let common = Settings {
        replication,
        acknowledged_by,
        sync_flush: config.store.flush == Flush::Sync,
        min_in_sync: section.min_in_sync.unwrap_or(1),
        ..Settings::new(1)
    };
    if !section.is_elected() {
        return Settings {
            group: (0..REPLICAS_MAX as u32).map(ReplicaId).collect::<BTreeSet<_>>(),
            continue_without_lease: false,
            is_by_configuration: true,
            shrink_after: NEVER,
            ..common
        };
    }
    // All times follow the lease, in the proportions of the defaults.
    let lease = Duration::from_millis(section.lease_ms);
    Settings {
        // Until the BrokerGroup was read, which says how many there are: whoever connects.
        group: (0..REPLICAS_MAX as u32).map(ReplicaId).collect(),
        lease,
        renew_every: lease / 6,
        step_down: lease * 2 / 3,
        link_timeout: lease / 3,
        request_timeout: lease / 3,
        tick_every: (lease / 12).max(Duration::from_millis(100)),
        read_every: lease * 5 / 3,
        rank_wait: (lease / 12).max(Duration::from_millis(100)),
        shrink_after: lease * 5 / 3,
        ..common
    }
}

/// Connects to where the authority record is.
async fn connect(plan: Plan, settings: &Settings) -> Result<Authority, StartError> {
    match plan {
        Plan::Here(roles) => Ok(Authority::Here(Arc::new(roles))),
        Plan::AtTheMaster => Ok(Authority::AtTheMaster),
        #[cfg(feature = "kubernetes")]
        Plan::Kubernetes(section) => {
            let objects = crate::coordination::Kubernetes::from_environment(
                section.namespace.as_deref(),
                &section.group,
                settings.request_timeout,
            );
            let objects = objects.await;
            let objects = objects.map_err(|error| StartError::Kubernetes(error.to_string()))?;
            Ok(Authority::Kubernetes(Arc::new(objects)))
        }
        #[cfg(not(feature = "kubernetes"))]
        Plan::Kubernetes(section) => {
            let _ = settings;
            let why = format!("this build cannot reach the group {} there", section.group);
            Err(StartError::Kubernetes(why))
        }
    }
}

/// Where the Service that leads to the master should lead, if there is one: to the pod's address, by
/// the environment that its template gives it.
fn master_service(broker: &Broker) -> Result<Option<MasterService>, StartError> {
    let config = broker.config();
    let section = config.replication.kubernetes.as_ref();
    let Some(service) = section.and_then(|section| section.master_service.clone()) else {
        return Ok(None);
    };
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let address = set("POD_IP").and_then(|address| address.parse().ok()).ok_or_else(|| {
        let why = "master_service is set, and POD_IP is not the pod's address".to_owned();
        StartError::Kubernetes(why)
    })?;
    let pod = set("POD_NAME").map(|name| (name, set("NODE_NAME")));
    Ok(Some(MasterService { service, address, port: broker.main_port, pod }))
}

fn trust(config: &BrokerConfig) -> Result<Trust, StartError> {
    let Some(path) = &config.replication.secret_file else { return Ok(Trust::Anybody) };
    let wrong = |reason: String| StartError::Secret { path: path.display().to_string(), reason };
    let secret = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    Trust::of_secret(&secret).map_err(wrong)
}

/// The thread on which the replica lives.
pub(crate) struct ReplicationThread {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl ReplicationThread {
    pub(crate) fn start(
        prepared: Prepared,
        broker: Arc<Broker>,
        listener: std::net::TcpListener,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let token = stop.clone();
        let live = move || {
            let lived = runtime.block_on(live(prepared, broker.clone(), listener, token));
            if let Err(cause) = lived {
                broker.fail(cause);
            }
            // A read of old log for a slave that is gone must not hold the end up.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("weir-replication".to_owned()).spawn(live)?;
        Ok(Self { stop, thread })
    }

    pub(crate) fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the replication thread panicked");
        }
    }
}

async fn live(
    prepared: Prepared,
    broker: Arc<Broker>,
    listener: std::net::TcpListener,
    stop: CancellationToken,
) -> Result<(), String> {
    let Prepared { shared, settings, authority, promise, epochs, me, trust, tls, commands } =
        prepared;
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let endpoint = master_service(&broker).map_err(|error| error.to_string())?;
    let authority = connect(authority, &settings).await.map_err(|error| error.to_string())?;
    let (events, links) = mpsc::channel(EVENTS);
    let (answers, from_authority) = mpsc::channel(ANSWERS);
    let hello = Hello {
        protocol: PROTOCOL,
        protocol_min: PROTOCOL_MIN,
        cluster: broker.config().cluster.clone(),
        group: broker.config().name.clone(),
        member: me,
        segment_bytes: broker.store.segment_bytes(),
        nonce: Uuid::nil(),
        address: broker.advertised_address(),
    };
    let silence = settings.link_timeout * 3;
    let ends =
        Ends { broker: broker.clone(), shared: shared.clone(), hello, trust, tls, silence, events };
    tokio::spawn(listen(listener, ends.clone(), stop.clone()));
    let config = Arc::clone(&broker.config());
    let section = &config.replication;
    // One connection between any two: the one with the higher id dials. So a replica that is added
    // behind the others, or taken away, is nothing that they have to be told.
    let lower = (0..me.replica.0).filter_map(|replica| section.peer(replica));
    let followed = section.followed(config.broker_id).cloned();
    for address in followed.into_iter().chain(lower) {
        tokio::spawn(keep_dialling(address, ends.clone(), stop.clone()));
    }
    drop(ends);
    let position = log_position(&broker, &epochs);
    let now = broker.store.clock().uptime();
    let replica = Replica::new(settings.clone(), me.replica, promise, position, now);
    let group = GroupPlace { settings, authority, endpoint };
    let driver = Driver::new(broker, shared, group, replica, epochs, answers);
    let running = driver.run(links, from_authority, commands, stop);
    running.await.map_err(|error| format!("replication: {error}"))
}
