//! Flags that the server commands share.

use std::path::PathBuf;

use weirmq_broker::{
    AckPolicy, BrokerConfig, Flush, KubernetesSection, ReplicationMode, ReplicationTls,
};

/// Flags of every server command.
#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    /// A configuration file: our TOML, or properties as Apache's (*.conf, *.properties)
    #[arg(short, long, value_name = "FILE", env = "WEIRMQ_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print the whole configuration as TOML and end
    #[arg(long)]
    pub(crate) print_config: bool,
    /// The address to open ports on
    #[arg(long, value_name = "ADDR", env = "WEIRMQ_BIND", hide_env = true)]
    pub(crate) bind: Option<String>,
    /// Port for health (/livez, /readyz) and metrics (/metrics); 0: any [default: 10908]
    #[arg(long, value_name = "PORT", env = "WEIRMQ_ADMIN_PORT", hide_env = true)]
    pub(crate) admin_port: Option<u16>,
}

/// When a send is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FlushArg {
    /// When the message is in the page cache: it survives a crash of the process, not of the power
    Async,
    /// When the message is on the disk
    Sync,
}

impl From<FlushArg> for Flush {
    fn from(flush: FlushArg) -> Self {
        match flush {
            FlushArg::Async => Flush::Async,
            FlushArg::Sync => Flush::Sync,
        }
    }
}

/// The other replicas of the broker's group.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Replication")]
pub(crate) struct ReplicationArgs {
    /// The replica's place in its group: 0 for the master, 1 and up for its slaves [default: 0]
    #[arg(long, value_name = "N", env = "WEIRMQ_BROKER_ID", hide_env = true)]
    broker_id: Option<u64>,
    /// Follow this master; its replication port is one above its main port
    #[arg(long, value_name = "HOST:PORT", env = "WEIRMQ_MASTER", hide_env = true)]
    master: Option<String>,
    /// One of several replicas that elect their master: their replication addresses, by broker id
    /// from 0; or one with {} in place of the broker id
    #[arg(long, value_name = "HOST:PORT,...", env = "WEIRMQ_REPLICATION_PEERS", hide_env = true)]
    #[arg(value_delimiter = ',', requires = "kubernetes_group")]
    peers: Vec<String>,
    /// The BrokerGroup and Lease of Kubernetes by which they elect it
    #[arg(long, value_name = "NAME", env = "WEIRMQ_KUBERNETES_GROUP", hide_env = true)]
    kubernetes_group: Option<String>,
    /// Whether a send waits for the slaves that are in sync [default: async]
    #[arg(long, value_enum, env = "WEIRMQ_REPLICATION", hide_env = true)]
    replication: Option<ReplicationArg>,
    /// With sync replication: which replicas in sync a send waits for [default: all]
    #[arg(long, value_enum, env = "WEIRMQ_ACK", hide_env = true)]
    ack: Option<AckArg>,
    /// With sync replication: take messages only while so many replicas are in sync, the master
    /// counted; replicas that elect their master have it from the BrokerGroup
    #[arg(long, value_name = "N", env = "WEIRMQ_MIN_IN_SYNC", hide_env = true)]
    min_in_sync: Option<usize>,
    /// A file with the group's secret, by which replicas know each other
    #[arg(long, value_name = "FILE", env = "WEIRMQ_REPLICATION_SECRET_FILE", hide_env = true)]
    replication_secret_file: Option<PathBuf>,
    /// This replica's certificate for the others, a PEM file; they encrypt what they say
    #[arg(long, value_name = "FILE", env = "WEIRMQ_REPLICATION_TLS_CERTIFICATE", hide_env = true)]
    #[arg(requires_all = ["replication_tls_key", "replication_tls_ca"])]
    replication_tls_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", env = "WEIRMQ_REPLICATION_TLS_KEY", hide_env = true)]
    #[arg(requires = "replication_tls_certificate")]
    replication_tls_key: Option<PathBuf>,
    /// Certificates of the authority by which replicas know each other
    #[arg(long, value_name = "FILE", env = "WEIRMQ_REPLICATION_TLS_CA", hide_env = true)]
    #[arg(requires = "replication_tls_certificate")]
    replication_tls_ca: Option<PathBuf>,
    /// Believe everybody who reaches the replication port
    #[arg(long, env = "WEIRMQ_REPLICATION_INSECURE", hide_env = true)]
    replication_insecure: bool,
}

/// When replication lets a send be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ReplicationArg {
    /// When the master has the message
    Async,
    /// When every replica in sync has it
    Sync,
}

/// Whom a send waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AckArg {
    /// Every replica in sync
    All,
    /// More than half of them, and at least --min-in-sync: a slow one holds up nobody
    Quorum,
}

impl ReplicationArgs {
    /// Puts what was given in place of what the file says.
    pub(crate) fn apply(self, broker: &mut BrokerConfig) {
        broker.broker_id = self.broker_id.unwrap_or(broker.broker_id);
        let section = &mut broker.replication;
        section.master = self.master.or(section.master.take());
        if !self.peers.is_empty() {
            section.peers = self.peers;
        }
        if let Some(group) = self.kubernetes_group {
            let known = section.kubernetes.take();
            let (namespace, master_service, master_address) = known
                .map_or((None, None, None), |known| {
                    (known.namespace, known.master_service, known.master_address)
                });
            section.kubernetes =
                Some(KubernetesSection { group, namespace, master_service, master_address });
        }
        section.mode = match self.replication {
            None => section.mode,
            Some(ReplicationArg::Async) => ReplicationMode::Async,
            Some(ReplicationArg::Sync) => ReplicationMode::Sync,
        };
        section.ack_policy = match self.ack {
            None => section.ack_policy,
            Some(AckArg::All) => AckPolicy::All,
            Some(AckArg::Quorum) => AckPolicy::Quorum,
        };
        section.min_in_sync = self.min_in_sync.or(section.min_in_sync);
        section.secret_file = self.replication_secret_file.or(section.secret_file.take());
        if let (Some(certificate), Some(key), Some(ca)) =
            (self.replication_tls_certificate, self.replication_tls_key, self.replication_tls_ca)
        {
            section.tls = Some(ReplicationTls { certificate, key, ca });
        }
        section.insecure |= self.replication_insecure;
    }
}

/// Reads `name=port`.
pub(crate) fn parse_listener(text: &str) -> Result<(String, u16), String> {
    match text.split_once('=') {
        Some((name, port)) if !name.is_empty() => {
            let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
            Ok((name.to_owned(), port))
        }
        _ => Err("write name=port".to_owned()),
    }
}
