//! Running the server roles in this process: ports, signals, the line that says ready, the end.

mod advertise;
mod args;
mod banner;
mod follow;
mod listen;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weirmq_admin::Admin;
use weirmq_broker::{BrokerConfig, Configuration, Listeners};
use weirmq_namesrv::{DEFAULT_LISTENER, Listener};

use crate::config::FileConfig;
use crate::signals::Signals;

use listen::BrokerPorts;

pub(crate) use advertise::parse_advertise;
pub(crate) use args::{CommonArgs, FlushArg, ReplicationArgs, parse_listener};
pub(crate) use follow::{Source, WithFlags};

/// Everything that is decided before the first port is opened.
pub(crate) struct Plan {
    /// The whole configuration, flags included.
    pub(crate) config: FileConfig,
    pub(crate) roles: Roles,
    /// The address that ports are opened on.
    pub(crate) bind: String,
    /// The host that clients are told where nothing else is configured.
    pub(crate) host: Option<String>,
    /// Where the broker's settings come from, if they may change.
    pub(crate) source: Option<Source>,
    /// Data that goes when the process ends.
    pub(crate) ephemeral: Option<TempDir>,
}

/// Which servers run in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) namesrv: bool,
    pub(crate) broker: bool,
}

/// Where the servers ended up.
struct Addresses {
    namesrv: Option<SocketAddr>,
    broker: Option<SocketAddr>,
    admin: SocketAddr,
    /// What clients are told.
    advertised: Option<String>,
    data_dir: Option<PathBuf>,
}

/// Lets this process have as many files open as it may: each connection is one, each segment of a log up to
/// four. The usual soft limit of 1,024 is for programs that use `select`.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, limit = limit.current, "the limit of open files stays as it is");
    }
}

/// Runs until a signal asks for the end, or until a role fails.
pub(crate) async fn serve(mut plan: Plan) -> anyhow::Result<()> {
    raise_open_files();
    let mut signals = Signals::install()?;
    let ip = listen::resolve(&plan.bind).await?;
    let ports = Ports::open(&plan, ip)?;
    let bound = ports.bound(&plan, ip)?;
    let addresses = bound.addresses(&mut plan);
    let admin = Admin::new();
    expect_checks(&admin, plan.roles);
    let stop_admin = CancellationToken::new();
    let admin_server =
        tokio::spawn(weirmq_admin::serve(ports.admin, admin.clone(), stop_admin.clone()));
    banner::print(&plan, &addresses);

    let mut roles = Running::default();
    if let Some(listeners) = ports.namesrv {
        roles.namesrv(&plan, listeners, &admin);
    }
    if let Some(listeners) = ports.broker {
        roles.broker(&mut plan, bound, listeners, &admin)?;
    }
    let announce = async {
        admin.wait_until_ready().await;
        banner::ready(&addresses);
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = roles.first_end() => ended,
        () = signals.next() => Ok(()),
        () = announce => Ok(()),
    };
    tracing::info!("stopping");
    admin.shutting_down();
    let stopped = tokio::select! {
        stopped = roles.stop() => stopped,
        () = signals.next() => Err(anyhow!("a second signal came before everything was closed")),
    };
    stop_admin.cancel();
    admin_server.await.context("admin port")?;
    drop(plan.ephemeral);
    ended.and(stopped)
}

/// Makes the checks that the roles will have, so that the process is not ready in the moments
/// when some of them are Ok and others do not exist yet. Each role's own take their places.
fn expect_checks(admin: &Admin, roles: Roles) {
    let namesrv: &[&str] = if roles.namesrv { &["namesrv"] } else { &[] };
    let broker: &[&str] = match roles.broker {
        true => &["broker/recovered", "broker/listening", "broker/registered"],
        false => &[],
    };
    for name in namesrv.iter().chain(broker) {
        admin.check(*name).starting();
    }
}

/// All ports of the process, opened before any server starts, so that a port in use is one clear
/// error and nothing has to be undone.
struct Ports {
    namesrv: Option<Vec<Listener>>,
    broker: Option<Listeners>,
    admin: TcpListener,
}

impl Ports {
    fn open(plan: &Plan, ip: IpAddr) -> anyhow::Result<Self> {
        let listen = &plan.config.listen;
        let mut namesrv = None;
        if plan.roles.namesrv {
            let main = listen::open(ip, listen.namesrv_port, "NameServer", "--namesrv-port")?;
            let mut listeners =
                vec![Listener { name: DEFAULT_LISTENER.to_owned(), listener: main }];
            for (name, port) in &listen.namesrv_listeners {
                let what = format!("NameServer {name}");
                let listener = listen::open(ip, *port, &what, "--namesrv-listener")?;
                listeners.push(Listener { name: name.clone(), listener });
            }
            namesrv = Some(listeners);
        }
        let mut broker = None;
        if plan.roles.broker {
            let is_replicated = plan.config.broker.replication.is_on();
            let ports = listen::open_broker(ip, listen.broker_port, is_replicated)?;
            let BrokerPorts { main, vip, replication } = ports;
            broker = Some(Listeners { main, vip, replication });
        }
        let admin = listen::open(ip, listen.admin_port, "admin", "--admin-port")?;
        Ok(Self { namesrv, broker, admin })
    }

    fn bound(&self, plan: &Plan, ip: IpAddr) -> anyhow::Result<Bound> {
        let namesrv = self.namesrv.as_ref().and_then(|listeners| listeners.first());
        let namesrv = namesrv.map(|first| first.listener.local_addr()).transpose()?;
        let broker = self.broker.as_ref().map(|broker| broker.main.local_addr()).transpose()?;
        let admin = self.admin.local_addr()?;
        Ok(Bound { namesrv, broker, admin, ip, host: plan.host.clone() })
    }
}

/// What is known once ports are open.
struct Bound {
    namesrv: Option<SocketAddr>,
    broker: Option<SocketAddr>,
    admin: SocketAddr,
    ip: IpAddr,
    host: Option<String>,
}

impl Bound {
    /// Says where everything is, and completes the broker's configuration with it.
    fn addresses(&self, plan: &mut Plan) -> Addresses {
        Addresses {
            namesrv: self.namesrv,
            broker: self.broker,
            admin: self.admin,
            advertised: self.complete(&mut plan.config.broker),
            data_dir: plan.roles.broker.then(|| plan.config.broker.data_dir.clone()),
        }
    }

    /// Completes a broker's configuration; returns what clients are told.
    fn complete(&self, config: &mut BrokerConfig) -> Option<String> {
        let broker = self.broker?;
        if let Some(namesrv) = self.namesrv {
            let own = SocketAddr::new(reachable(namesrv.ip()), namesrv.port()).to_string();
            if !config.name_servers.contains(&own) {
                config.name_servers.insert(0, own);
            }
        }
        let (host, has_namesrv) = (self.host.as_deref(), self.namesrv.is_some());
        let default = match config.advertise.get(DEFAULT_LISTENER) {
            Some(configured) if host.is_none() => configured.clone(),
            _ => advertise::address(host, self.ip, broker.port(), has_namesrv),
        };
        config.advertise.insert(DEFAULT_LISTENER.to_owned(), default.clone());
        Some(default)
    }
}

/// Where this machine itself reaches what is bound to `ip`.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// The roles that run, each with its own way to be stopped.
#[derive(Default)]
struct Running {
    tasks: JoinSet<anyhow::Result<()>>,
    brokers: JoinSet<anyhow::Result<()>>,
    stop_namesrv: CancellationToken,
    stop_broker: CancellationToken,
}

impl Running {
    fn namesrv(&mut self, plan: &Plan, listeners: Vec<Listener>, admin: &Admin) {
        let config = plan.config.namesrv.clone();
        let run = weirmq_namesrv::run(config, listeners, admin.clone(), self.stop_namesrv.clone());
        self.tasks.spawn(async move { run.await.context("NameServer") });
    }

    fn broker(
        &mut self,
        plan: &mut Plan,
        bound: Bound,
        listeners: Listeners,
        admin: &Admin,
    ) -> anyhow::Result<()> {
        let configuration = Configuration::new(plan.config.broker.clone())?;
        let (admin, stop) = (admin.clone(), self.stop_broker.clone());
        let run = weirmq_broker::run(configuration.clone(), listeners, admin, stop);
        let Some(source) = plan.source.take() else {
            self.brokers.spawn(async move { run.await.context("broker") });
            return Ok(());
        };
        configuration.was_read_from(&source.file, source.content.as_bytes());
        let complete = move |config: &mut BrokerConfig| drop(bound.complete(config));
        let follow = follow::follow(source, plan.config.clone(), complete, configuration);
        self.brokers.spawn(async move {
            tokio::select! {
                ended = run => ended.context("broker"),
                never = follow => match never {},
            }
        });
        Ok(())
    }

    /// The end of whichever role ends first, which nobody asked it to.
    async fn first_end(&mut self) -> anyhow::Result<()> {
        let ended = tokio::select! {
            Some(ended) = self.tasks.join_next() => ended,
            Some(ended) = self.brokers.join_next() => ended,
            else => std::future::pending().await,
        };
        ended.context("a role panicked")?
    }

    /// Stops the broker first: it still tells the NameServer that it goes.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let mut stopped = Ok(());
        self.stop_broker.cancel();
        while let Some(ended) = self.brokers.join_next().await {
            stopped = stopped.and(ended.context("broker panicked").flatten());
        }
        self.stop_namesrv.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            stopped = stopped.and(ended.context("NameServer panicked").flatten());
        }
        stopped
    }
}
