//! What a broker can be told. Defaults are Apache's unless a field says otherwise.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weirmq_message::properties::PROPERTIES_BYTES_MAX;
use weirmq_remoting::ResourceName;
use weirmq_remoting::frame::HEADER_BYTES_MAX;
use weirmq_remoting::net::TlsSection;
use weirmq_store::{FlushMode, StoreConfig, Upkeep};

/// What a frame of somebody unknown may hold beside header and message.
const STRANGER_BYTES: usize = 64 << 10;
/// How much may gather for one synchronous flush, beside the longest message.
const SYNC_GROUP_BYTES: u64 = 8 << 20;
/// Replicas of one group.
pub(crate) const REPLICAS_MAX: u64 = 64;
/// What stands for the broker id in an address of all replicas.
const ID: &str = "{}";
/// Slower, one read would hold a thread up for longer than anybody waits.
const RATE_MIN: u64 = 1 << 20;
/// An hour.
const TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Waiting longer without sleep than a slow wake-up takes gains nothing.
const BUSY_POLL_US_MAX: u64 = 1_000;

/// The configuration of one broker, as it stands in a file. [`BrokerConfig::validate`] proves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// The cluster that the broker belongs to. Default: `DefaultCluster`.
    pub cluster: String,
    /// The broker group's name, the same for a master and its slaves. Default: `broker-a`; it is
    /// written into the data directory, so it does not follow the host's name.
    pub name: String,
    /// The replica's place in its group: 0 for a master, and for its slaves 1 and up. Default: 0.
    pub broker_id: u64,
    /// Where messages and state live. Default: `weir-data`.
    pub data_dir: PathBuf,
    /// The address that clients are told, by listener name; `default` is the one that every
    /// client gets which did not come through another listener of the NameServer. Default: none,
    /// the address that the main listener is bound to.
    pub advertise: BTreeMap<String, String>,
    /// The same for replicas that share one configuration: by listener name the addresses of all of
    /// them, by broker id. `{node}` stands for the environment's `NODE_ADDRESS`. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub advertise_of_replicas: BTreeMap<String, Vec<String>>,
    /// NameServers to register with, `host:port`, looked up anew at each connection.
    pub name_servers: Vec<String>,
    /// Create a topic at the first send to it. Default: true.
    pub auto_create_topics: bool,
    /// Create a consumer group when its first member appears. Default: true.
    pub auto_create_groups: bool,
    /// The most queues of an automatically created topic. Default: 8; clients ask for 4.
    pub default_topic_queues: u32,
    /// 6: reading and writing, 4: reading only, 2: writing only. Default: 6.
    pub permission: u32,
    /// Told to clients in the reply to a send, for traces. Default: `DefaultRegion`.
    pub region: String,
    pub replication: ReplicationSection,
    pub store: StoreSection,
    pub limits: LimitsSection,
    pub tls: TlsSection,
    /// Threads that serve connections. Default: 0, which is 1 on up to 2 cores, else one less
    /// than there are cores, at most 8.
    pub io_threads: usize,
    /// After each append an I/O thread looks for the next send for this many microseconds before
    /// it sleeps, up to 1,000. It takes a processor meanwhile, and answers a single producer
    /// sooner where waking a processor is slow, as on most virtual machines; try 100. Default: 0.
    pub busy_poll_us: u64,
}

/// The other replicas of the group. It is on once `master`, `secret_file`, `tls` or `insecure` is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationSection {
    /// `async` answers a send when the master has it, `sync` when every replica in sync has it.
    /// The same at all replicas, and as the `BrokerGroup` says. Default: `async`.
    pub mode: ReplicationMode,
    /// With `sync` whom a send waits for: `all` replicas in sync, or a `quorum`, more than half of them and
    /// at least `min_in_sync`, so that a slow one holds up nobody. The same at all replicas, and as the
    /// `BrokerGroup` says. Default: `all`.
    pub ack_policy: AckPolicy,
    /// With `sync` no message is taken while fewer replicas are in sync, the master counted.
    /// Default: none, with `sync` it has to be chosen, but for replicas that elect their master: the
    /// `BrokerGroup` tells them, also while they run. With two replicas 1 loses, when the
    /// master's disk is lost while the slave is away, what only the master acknowledged; 2 takes
    /// no messages while one of them is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_in_sync: Option<usize>,
    /// Makes this a slave: the master's `host:port` for replication, one above its main port. The
    /// master, with `broker_id` 0, does not look at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Makes this one of several replicas that elect their master: their replication addresses,
    /// `host:port`, by broker id from 0; or one with `{}` in place of the broker id, which is the
    /// address of all that there are and will be. Those of higher broker ids may be missing: they
    /// dial. Needs `kubernetes`, whose `BrokerGroup` says how many there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Where replicas that elect their master keep the authority record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesSection>,
    /// Replicas that elect their master take the place of one that is not heard and does not renew
    /// its lease for this long. Shorter is faster, and takes a slow network for a dead master more
    /// often. Default: 6,000; 1,500 or more.
    pub lease_ms: u64,
    /// How many bytes a second slaves that are far behind are sent together, of what is not in memory;
    /// 0: as many as the disk and they take. 1 MiB or more. Default: 0.
    pub catch_up_bytes_per_second: u64,
    /// Replicas show each other certificates, and encrypt. Beside the secret or in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ReplicationTls>,
    /// A file with what only the group's replicas know, at least 16 bytes, the same at all of
    /// them. It proves who connects; it does not encrypt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Believe everybody who reaches the replication port. Default: false.
    pub insecure: bool,
}

/// PEM files, looked at with each connection and read again when they have changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicationTls {
    /// This replica's certificate, for servers and clients, with the host that the others dial among its
    /// names, and those between it and the authority's.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Certificates of the authority. Whoever has one of its certificates counts as a replica, so it should
    /// be this group's only.
    pub ca: PathBuf,
}

impl Default for ReplicationSection {
    fn default() -> Self {
        Self {
            mode: ReplicationMode::Async,
            ack_policy: AckPolicy::All,
            min_in_sync: None,
            master: None,
            peers: Vec::new(),
            kubernetes: None,
            lease_ms: 6_000,
            catch_up_bytes_per_second: 0,
            tls: None,
            secret_file: None,
            insecure: false,
        }
    }
}

/// A `BrokerGroup` and a `Lease` of the same name, and what goes with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesSection {
    /// The name of both objects.
    pub group: String,
    /// Default: the namespace of this pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// A Service without selector whose endpoint the master moves to itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_service: Option<String>,
    /// What NameServers tell clients as the master's address, whoever is master: that Service's
    /// `host:port`. Default: none, the master's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_address: Option<String>,
}

/// Whom a send waits for with `sync`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckPolicy {
    /// Every replica in sync.
    #[default]
    All,
    /// More than half of them, and at least `min_in_sync`.
    Quorum,
}

/// When replication lets a send be answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicationMode {
    #[default]
    Async,
    Sync,
}

impl ReplicationSection {
    /// Whether the broker is one of several replicas.
    pub fn is_on(&self) -> bool {
        self.master.is_some() || self.is_trusting() || self.insecure
    }

    /// Whether others prove that they are replicas.
    fn is_trusting(&self) -> bool {
        self.secret_file.is_some() || self.tls.is_some()
    }

    /// The master that the replica with this broker id follows by configuration. All replicas may
    /// have the same configuration: the master itself has id 0.
    pub(crate) fn followed(&self, broker_id: u64) -> Option<&String> {
        self.master.as_ref().filter(|_| broker_id != 0)
    }

    /// Whether the replicas elect their master.
    pub fn is_elected(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Where a replica of those that elect their master takes connections of others.
    pub(crate) fn peer(&self, replica: u32) -> Option<String> {
        match &self.peers[..] {
            [pattern] if pattern.contains(ID) => Some(pattern.replace(ID, &replica.to_string())),
            peers => peers.get(replica as usize).cloned(),
        }
    }
}

/// The commit log and what goes with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// `async` answers a send when it is in the page cache, `sync` when it is on the disk.
    /// Default: `async`.
    pub flush: Flush,
    /// Length of a CommitLog segment. Default: 1 GiB.
    pub segment_bytes: u64,
    /// Messages older than this may be deleted. Default: 72.
    pub retention_hours: u64,
    /// In these hours of the day, in the machine's time zone, what has expired is deleted.
    /// Default: 4.
    pub retention_at_hours: Vec<u8>,
    /// From this share of the disk on, in percent, what has expired is deleted at once. Default:
    /// 75.
    pub retention_disk_percent: u8,
    /// Delete messages before their time, oldest first, when 85 % of the disk are used or writes
    /// would be refused. Default: false, unlike Apache's: rather no new messages than lost ones.
    pub retention_force: bool,
    /// Expired segments that are kept to be written again, which costs the disk half as much with
    /// synchronous flush; 0: none. Default: 8.
    pub spare_segments_max: usize,
    /// The whole log is compared with its checksums in this time, again and again, beginning at
    /// most a minute after the start; 0.5 is half an hour, 0: never. At most 8760. Default: 24.
    pub scrub_hours: f64,
    /// Writes are refused when the disk has less than this left; 0: two segments or a tenth of
    /// the disk, at most 5 GiB. Default: 0.
    pub free_bytes_min: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    Async,
    Sync,
}

/// What peers may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// The longest body of a message, or of a whole batch. Default: 4 MiB.
    pub message_bytes_max: usize,
    /// The longest frame. Default: 16 MiB.
    pub frame_bytes_max: usize,
    /// Connections of clients. Default: 20,000.
    pub connections_max: usize,
    /// Pulls that wait for messages. Default: 100,000.
    pub held_pulls_max: usize,
    /// Bytes of one pull's answer. Default: 256 KiB.
    pub pull_bytes_max: usize,
    /// How fast old messages, which are read from files, may be read for consumers, all of them
    /// together, in bytes a second; 0: as fast as the disk can. Default: 1 GiB.
    pub cold_read_bytes_per_second: u64,
    /// Messages of one pull's answer. Default: 160.
    pub pull_messages_max: usize,
    /// Topics, created by hand or automatically. Default: 200,000.
    pub topics_max: usize,
    /// Consumer groups. Default: 100,000.
    pub groups_max: usize,
    /// Queues of one topic. Default: 1,024.
    pub topic_queues_max: u32,
    /// A connection on which nothing moves for this long is closed. Default: 120.
    pub idle_seconds: u64,
    /// A sync-flush send is answered with FLUSH_DISK_TIMEOUT after this long, or up to an eighth later.
    /// At most 2,600 is below the 3 s after which clients give up. Default: 2,500.
    pub flush_timeout_ms: u64,
    /// How long sends wait for a disk that does not keep up before they are refused with
    /// SYSTEM_BUSY. Apache calls its page cache busy after as long (`osPageCacheBusyTimeOutMills`);
    /// clients give up after 3 s. Default: 1,000.
    pub busy_timeout_ms: u64,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            cluster: "DefaultCluster".into(),
            name: "broker-a".into(),
            broker_id: 0,
            data_dir: "weir-data".into(),
            advertise: BTreeMap::new(),
            advertise_of_replicas: BTreeMap::new(),
            name_servers: Vec::new(),
            auto_create_topics: true,
            auto_create_groups: true,
            default_topic_queues: 8,
            permission: 6,
            region: "DefaultRegion".into(),
            replication: ReplicationSection::default(),
            store: StoreSection::default(),
            limits: LimitsSection::default(),
            tls: TlsSection::default(),
            io_threads: 0,
            busy_poll_us: 0,
        }
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            flush: Flush::Async,
            segment_bytes: 1 << 30,
            retention_hours: 72,
            retention_at_hours: vec![4],
            retention_disk_percent: 75,
            retention_force: false,
            spare_segments_max: 8,
            scrub_hours: 24.0,
            free_bytes_min: 0,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            message_bytes_max: 4 << 20,
            frame_bytes_max: 16 << 20,
            connections_max: 20_000,
            held_pulls_max: 100_000,
            pull_bytes_max: 256 << 10,
            cold_read_bytes_per_second: 1 << 30,
            pull_messages_max: 160,
            topics_max: 200_000,
            groups_max: 100_000,
            topic_queues_max: 1024,
            idle_seconds: 120,
            flush_timeout_ms: 2_500,
            busy_timeout_ms: 1_000,
        }
    }
}

/// Whether it is `host:port`.
fn is_address(address: &str) -> bool {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    port.is_some()
}

/// Which setting is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value}: {problem}")]
pub struct ConfigError {
    pub setting: &'static str,
    pub value: String,
    pub problem: String,
}

impl BrokerConfig {
    /// Checks every setting and its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |setting, value: &dyn std::fmt::Display, problem: &dyn std::fmt::Display| {
            Err(ConfigError { setting, value: value.to_string(), problem: problem.to_string() })
        };
        for (setting, name) in [("cluster", &self.cluster), ("name", &self.name)] {
            if let Err(error) = ResourceName::broker(name) {
                return wrong(setting, name, &error);
            }
        }
        self.validate_replication()?;
        if !matches!(self.permission, 2 | 4 | 6) {
            return wrong("permission", &self.permission, &"use 6 (read and write), 4 or 2");
        }
        let limits = &self.limits;
        if !(1..=limits.topic_queues_max).contains(&self.default_topic_queues) {
            let problem = format!("use 1 to {}", limits.topic_queues_max);
            return wrong("default_topic_queues", &self.default_topic_queues, &problem);
        }
        if limits.message_bytes_max > limits.frame_bytes_max / 2 {
            let problem = "use at most half of limits.frame_bytes_max";
            return wrong("limits.message_bytes_max", &limits.message_bytes_max, &problem);
        }
        let at_least_one = [
            ("limits.pull_bytes_max", limits.pull_bytes_max),
            ("limits.pull_messages_max", limits.pull_messages_max),
        ];
        if let Some((setting, value)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return wrong(setting, value, &"use 1 or more");
        }
        let times = [
            ("limits.flush_timeout_ms", limits.flush_timeout_ms),
            ("limits.busy_timeout_ms", limits.busy_timeout_ms),
        ];
        if let Some((setting, value)) = times.iter().find(|(_, value)| *value > TIMEOUT_MS_MAX) {
            return wrong(setting, value, &format_args!("use at most {TIMEOUT_MS_MAX}"));
        }
        check_rate("limits.cold_read_bytes_per_second", limits.cold_read_bytes_per_second)?;
        if let Some(hour) = self.store.retention_at_hours.iter().find(|hour| **hour > 23) {
            return wrong("store.retention_at_hours", hour, &"hours go from 0 to 23");
        }
        if !(10..=95).contains(&self.store.retention_disk_percent) {
            let percent = self.store.retention_disk_percent;
            return wrong("store.retention_disk_percent", &percent, &"use 10 to 95");
        }
        if !(0.0..=8760.0).contains(&self.store.scrub_hours) {
            return wrong("store.scrub_hours", &self.store.scrub_hours, &"use 0 to 8760");
        }
        let smallest = limits.message_bytes_max as u64 + (1 << 16);
        if self.busy_poll_us > BUSY_POLL_US_MAX {
            let problem = format!("use at most {BUSY_POLL_US_MAX}");
            return wrong("busy_poll_us", &self.busy_poll_us, &problem);
        }
        if self.store.segment_bytes < smallest && self.store.segment_bytes < 64 << 20 {
            let problem = format!("a segment holds at least one message: use {smallest} or more");
            return wrong("store.segment_bytes", &self.store.segment_bytes, &problem);
        }
        let of_replicas = self.advertise_of_replicas.values().flatten();
        let addresses = self.name_servers.iter().chain(self.advertise.values()).chain(of_replicas);
        for address in addresses {
            if !is_address(address) {
                return wrong("name_servers or advertise", address, &"use host:port");
            }
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return wrong("tls", &"half set", &"give both tls.certificate and tls.key, or none");
        }
        Ok(())
    }

    /// Takes this replica's own addresses from those of all replicas; `node` is the address of the
    /// machine that it is on.
    pub fn take_own_addresses(&mut self, node: Option<&str>) {
        let id = usize::try_from(self.broker_id).unwrap_or(usize::MAX);
        for (listener, addresses) in &self.advertise_of_replicas {
            if let Some(address) = addresses.get(id) {
                let address = address.replace("{node}", node.unwrap_or_default());
                self.advertise.insert(listener.clone(), address);
            }
        }
    }

    /// The queues of the topic after which others are created automatically, if that is done.
    pub(crate) fn template_queues(&self) -> Option<u32> {
        self.auto_create_topics.then_some(self.default_topic_queues)
    }

    /// How long sends wait for a disk that does not keep up.
    pub(crate) fn busy_timeout(&self) -> Duration {
        Duration::from_millis(self.limits.busy_timeout_ms)
    }

    fn validate_replication(&self) -> Result<(), ConfigError> {
        let wrong = |setting, value: String, problem: &str| {
            Err(ConfigError { setting, value, problem: problem.to_owned() })
        };
        let section = &self.replication;
        let id = self.broker_id.to_string();
        match &section.master {
            _ if section.is_elected() => self.validate_elected()?,
            None if self.broker_id != 0 => {
                return wrong(
                    "broker_id",
                    id,
                    "a slave needs replication.master, `--master HOST:PORT`",
                );
            }
            Some(_) if self.broker_id >= REPLICAS_MAX => {
                return wrong("broker_id", id, "use less than 64");
            }
            Some(address) if !is_address(address) => {
                return wrong("replication.master", address.clone(), "use host:port");
            }
            _ => {}
        }
        let has_others = section.master.is_some() || section.is_elected();
        if has_others && !section.is_trusting() && !section.insecure {
            let problem = "whoever can pretend to be a replica can lose messages; give all \
                           replicas one replication.secret_file, or replication.tls, or say \
                           replication.insecure";
            return wrong("replication.secret_file", "not set".to_owned(), problem);
        }
        if section.is_trusting() && section.insecure {
            let problem = "replication.secret_file or replication.tls is set as well; choose";
            return wrong("replication.insecure", "true".to_owned(), problem);
        }
        check_rate("replication.catch_up_bytes_per_second", section.catch_up_bytes_per_second)?;
        if section.ack_policy == AckPolicy::Quorum && section.mode == ReplicationMode::Async {
            let problem = "with replication.mode async a send waits for no other replica; use sync";
            return wrong("replication.ack_policy", "quorum".to_owned(), problem);
        }
        match (section.mode, section.min_in_sync) {
            (ReplicationMode::Sync, _) if !section.is_on() => {
                let problem = "give replication.secret_file or replication.tls, so that slaves can \
                               connect";
                wrong("replication.mode", "sync".to_owned(), problem)
            }
            (ReplicationMode::Sync, None) if !section.is_elected() => {
                let problem = "choose how many replicas have to be in sync, the master counted: 2, \
                               or 1 to take messages also while no slave is there";
                wrong("replication.min_in_sync", "not set".to_owned(), problem)
            }
            (_, Some(0)) => wrong("replication.min_in_sync", "0".to_owned(), "use 1 or more"),
            _ => Ok(()),
        }
    }

    fn validate_elected(&self) -> Result<(), ConfigError> {
        let wrong = |setting, value: String, problem: &str| {
            Err(ConfigError { setting, value, problem: problem.to_owned() })
        };
        let section = &self.replication;
        if section.master.is_some() {
            let problem = "replicas that elect their master, replication.peers, are told none";
            return wrong("replication.master", "set".to_owned(), problem);
        }
        if section.kubernetes.is_none() {
            let problem = "replicas keep their authority record there";
            return wrong("replication.kubernetes", "not set".to_owned(), problem);
        }
        let of_master = section.kubernetes.as_ref().and_then(|known| known.master_address.as_ref());
        if let Some(address) = of_master.filter(|address| !is_address(address)) {
            return wrong(
                "replication.kubernetes.master_address",
                address.clone(),
                "use host:port",
            );
        }
        if let Some(address) = section.peers.iter().find(|address| !is_address(address)) {
            return wrong("replication.peers", address.clone(), "use host:port");
        }
        if section.peers.len() > 1
            && let Some(pattern) = section.peers.iter().find(|address| address.contains(ID))
        {
            let problem = "one address with {} in it stands for all; give no other";
            return wrong("replication.peers", pattern.clone(), problem);
        }
        if self.broker_id >= REPLICAS_MAX {
            return wrong("broker_id", self.broker_id.to_string(), "use less than 64");
        }
        let is_known =
            |replica| u32::try_from(replica).ok().and_then(|id| section.peer(id)).is_some();
        if let Some(missing) = (0..self.broker_id).find(|replica| !is_known(*replica)) {
            let problem = format!("replication.peers has no address of replica {missing}");
            return wrong("broker_id", self.broker_id.to_string(), &problem);
        }
        if section.lease_ms < 1_500 {
            return wrong("replication.lease_ms", section.lease_ms.to_string(), "use 1500 or more");
        }
        Ok(())
    }

    /// The id under which a replica is registered while it is a slave. Replicas that elect their
    /// master count from 0, which is the master's.
    pub(crate) fn slave_id(&self, replica: u32) -> i64 {
        i64::from(replica) + i64::from(self.replication.is_elected())
    }

    /// The replica that is registered under this id while it is a slave.
    pub(crate) fn replica_of(&self, slave_id: i64) -> Option<u32> {
        let replica = slave_id.checked_sub(i64::from(self.replication.is_elected()))?;
        u32::try_from(replica).ok().filter(|replica| self.slave_id(*replica) > 0)
    }

    /// The longest frame that a connection may send. There are no accounts yet, so everybody is a
    /// stranger: the longest message, and room for headers and small bodies.
    pub(crate) fn frame_bytes(&self) -> usize {
        let stranger = self.limits.message_bytes_max + HEADER_BYTES_MAX + STRANGER_BYTES;
        self.limits.frame_bytes_max.min(stranger)
    }

    /// The number of threads that serve connections.
    pub fn io_thread_count(&self) -> usize {
        if self.io_threads > 0 {
            return self.io_threads;
        }
        match std::thread::available_parallelism().map_or(1, |cores| cores.get()) {
            0..=2 => 1,
            cores => (cores - 1).min(8),
        }
    }

    /// What the store is told.
    pub fn store_config(&self) -> StoreConfig {
        // The limit is the body's; the store counts properties too.
        let message_bytes_max = self.limits.message_bytes_max + PROPERTIES_BYTES_MAX;
        StoreConfig {
            directory: self.data_dir.clone(),
            cluster: self.cluster.clone(),
            group: self.name.clone(),
            segment_bytes: self.store.segment_bytes,
            flush: match self.store.flush {
                Flush::Async => FlushMode::ASYNC,
                Flush::Sync => FlushMode::Sync,
            },
            message_bytes_max,
            // With synchronous flush: the longest record, padding of nearly its length, and a group.
            unflushed_bytes_max: (self.store.flush == Flush::Sync)
                .then_some(SYNC_GROUP_BYTES + 2 * message_bytes_max as u64),
            upkeep: self.upkeep(),
            ..StoreConfig::default()
        }
    }

    /// What of it may change while the store is open.
    pub(crate) fn upkeep(&self) -> Upkeep {
        Upkeep {
            scrub_interval: Duration::from_secs_f64(self.store.scrub_hours * 3600.0),
            retention: Duration::from_secs(self.store.retention_hours.saturating_mul(3600)),
            retention_hours: self.store.retention_at_hours.clone(),
            retention_disk_percent: self.store.retention_disk_percent,
            retention_force: self.store.retention_force,
            spare_segments_max: self.store.spare_segments_max,
            free_bytes_min: Some(self.store.free_bytes_min).filter(|bytes| *bytes > 0),
        }
    }
}

/// A rate in bytes a second is at least [`RATE_MIN`], or 0: as fast as it goes.
fn check_rate(setting: &'static str, rate: u64) -> Result<(), ConfigError> {
    match rate {
        0 | RATE_MIN.. => Ok(()),
        1..RATE_MIN => {
            let problem = format!("use {RATE_MIN} or more, or 0");
            Err(ConfigError { setting, value: rate.to_string(), problem })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_finds_its_own_address_among_those_of_all() {
        let mut config = BrokerConfig { broker_id: 1, ..BrokerConfig::default() };
        config.replication.master = Some("master:10912".into());
        config.replication.insecure = true;
        let addresses = ["{node}:1", "{node}:2"].map(str::to_owned).to_vec();
        config.advertise_of_replicas.insert("external".into(), addresses);
        config.validate().unwrap();
        config.take_own_addresses(Some("10.0.0.9"));
        assert_eq!(config.advertise["external"], "10.0.0.9:2");
    }

    #[test]
    fn the_defaults_are_valid_and_a_wrong_setting_is_named() {
        BrokerConfig::default().validate().unwrap();
        let mut sync = BrokerConfig::default();
        sync.store.flush = Flush::Sync;
        sync.store_config().validate().unwrap();
        let wrong = BrokerConfig { name: "../a".into(), ..BrokerConfig::default() };
        assert!(wrong.validate().unwrap_err().to_string().starts_with("name is ../a"));
        let wrong = BrokerConfig { name_servers: vec!["here".into()], ..BrokerConfig::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("use host:port"));
        let slave = BrokerConfig { broker_id: 1, ..BrokerConfig::default() };
        assert!(slave.validate().unwrap_err().to_string().contains("--master"));
        let mut slave = slave;
        slave.replication.master = Some("here:10912".into());
        assert!(slave.validate().unwrap_err().to_string().contains("secret_file"));
        slave.replication.insecure = true;
        slave.validate().unwrap();
        slave.replication.mode = ReplicationMode::Sync;
        assert!(slave.validate().unwrap_err().to_string().contains("min_in_sync"));
        slave.replication.min_in_sync = Some(2);
        slave.validate().unwrap();
        slave.replication.ack_policy = AckPolicy::Quorum;
        slave.validate().unwrap();
        slave.replication.mode = ReplicationMode::Async;
        slave.replication.min_in_sync = None;
        let refused = slave.validate().unwrap_err().to_string();
        assert!(refused.contains("waits for no other replica"), "{refused}");
        let wrong = BrokerConfig { busy_poll_us: 1_001, ..BrokerConfig::default() };
        assert!(wrong.validate().unwrap_err().to_string().starts_with("busy_poll_us is 1001"));
    }
}
