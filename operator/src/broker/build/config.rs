//! The configuration file of a group's brokers.

use serde_json::{Value, json};
use toml::{Table, Value as Toml};
use weirmq_authority::kubernetes::{AckPolicy, Flush, ReplicationMode};

use super::{Group, PORT, Plan, REPLICATION_PORT, master_service, min_in_sync};
use super::{external, tls};
use crate::kinds::{BrokerSettings, BrokerSpec};
use crate::storage::bytes;

/// Where the file is in the pod.
pub(super) const FOLDER: &str = "/etc/weirmq";
pub(in crate::broker) const FILE: &str = "broker.toml";
pub(super) const SECRET_FOLDER: &str = "/etc/weirmq-replication";
pub(super) const TLS_FOLDER: &str = "/etc/weirmq-tls";

pub(super) fn config_map(plan: &Plan<'_>, group: &Group) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": plan.group_metadata(&group.name, &name(&group.name)),
        "data": { FILE: text(plan, group) },
    })
}

pub(in crate::broker) fn name(group: &str) -> String {
    format!("{group}-config")
}

/// Settings of a file that brokers take while they run, by their names in it. All of them stand in
/// `weirmq_broker::LIVE`.
pub(in crate::broker) const LIVE: [&str; 10] = [
    "name_servers",
    "auto_create_topics",
    "auto_create_groups",
    "default_topic_queues",
    "permission",
    "store.retention_hours",
    "store.retention_at_hours",
    "store.retention_disk_percent",
    "store.retention_force",
    "limits.topics_max",
];

/// The file as TOML, always in the same order.
pub(super) fn text(plan: &Plan<'_>, group: &Group) -> String {
    let mut file = Table::new();
    file.insert("broker".to_owned(), Toml::Table(broker(plan, group)));
    file.to_string()
}

/// What of [`LIVE`] is another one in the second file, as `setting before -> now`; nothing is what a
/// broker does by itself.
pub(in crate::broker) fn changed(before: &str, now: &str) -> Vec<String> {
    let files = [before, now].map(|text| text.parse::<Table>().unwrap_or_default());
    let shown = |file: &Table, path: &str| {
        let mut inner = file.get("broker");
        for name in path.split('.') {
            inner = inner.and_then(|table| table.get(name));
        }
        inner.map_or_else(|| "default".to_owned(), Toml::to_string)
    };
    let both = LIVE.iter().map(|path| (path, files.each_ref().map(|file| shown(file, path))));
    let changed = both.filter(|(_, [before, now])| before != now);
    changed.map(|(path, [before, now])| format!("{path} {before} -> {now}")).collect()
}

/// What of it a broker reads at its start only. How many replicas there are, and how many have to be in
/// sync, it learns from its `BrokerGroup` while it runs.
pub(super) fn needing_restart(plan: &Plan<'_>, group: &Group) -> String {
    let mut broker = broker(plan, group);
    if let Some(replication) = broker.get_mut("replication").and_then(Toml::as_table_mut)
        && plan.is_elected()
    {
        replication.remove("min_in_sync");
    }
    for path in LIVE {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        let table = match section {
            "" => Some(&mut broker),
            section => broker.get_mut(section).and_then(Toml::as_table_mut),
        };
        if let Some(table) = table {
            table.remove(name);
        }
    }
    // A port that is added for another replica is nothing to this one.
    if let Some(external) = plan.resource.spec.external.as_ref()
        && !external::may_come_later(plan.resource)
    {
        let host = external.host.clone().unwrap_or_default();
        set(&mut broker, "advertise_of_replicas", Some(host));
    }
    broker.to_string()
}

fn broker(plan: &Plan<'_>, group: &Group) -> Table {
    let spec = &plan.resource.spec;
    let settings = &spec.config;
    let mut broker = Table::new();
    set(&mut broker, "cluster", Some(plan.cluster()));
    set(&mut broker, "name", Some(group.name.clone()));
    set(&mut broker, "data_dir", Some("/data".to_owned()));
    set(&mut broker, "name_servers", Some(plan.name_servers.clone()));
    set(&mut broker, "auto_create_topics", settings.auto_create_topics);
    set(&mut broker, "auto_create_groups", settings.auto_create_groups);
    set(&mut broker, "default_topic_queues", settings.default_topic_queues.map(i64::from));
    set(&mut broker, "io_threads", settings.io_threads.map(i64::from));
    // A group that leaves delivers what it has and takes nothing more.
    set(&mut broker, "permission", group.is_draining.then_some(4));
    let addresses = external::addresses(plan, group);
    if !addresses.is_empty() {
        let mut advertised = Table::new();
        set(&mut advertised, "external", Some(addresses));
        broker.insert("advertise_of_replicas".to_owned(), Toml::Table(advertised));
    }
    broker.insert("store".to_owned(), Toml::Table(store(spec)));
    broker.insert("replication".to_owned(), Toml::Table(replication(plan, &group.name)));
    broker.insert("limits".to_owned(), Toml::Table(limits(settings)));
    if spec.tls.is_some() {
        broker.insert("tls".to_owned(), Toml::Table(pair()));
    }
    broker
}

fn store(spec: &BrokerSpec) -> Table {
    let settings = &spec.config;
    let mut store = Table::new();
    let flush = match spec.flush {
        Flush::Async => "async",
        Flush::Sync => "sync",
    };
    set(&mut store, "flush", Some(flush.to_owned()));
    set(&mut store, "segment_bytes", settings.segment_size.as_ref().and_then(bytes));
    set(&mut store, "retention_hours", settings.retention_hours.map(whole));
    let hours = settings.retention_at_hours.as_ref();
    let hours = hours
        .map(|hours| hours.iter().map(|hour| Toml::from(i64::from(*hour))).collect::<Vec<_>>());
    set(&mut store, "retention_at_hours", hours);
    set(&mut store, "retention_disk_percent", settings.retention_disk_percent.map(i64::from));
    set(&mut store, "retention_force", settings.retention_force);
    store
}

fn replication(plan: &Plan<'_>, group: &str) -> Table {
    let spec = &plan.resource.spec;
    let mut replication = Table::new();
    if spec.replicas_per_group == 1 {
        return replication;
    }
    let mode = spec.replication.mode;
    let text = match mode {
        ReplicationMode::Async => "async",
        ReplicationMode::Sync => "sync",
    };
    set(&mut replication, "mode", Some(text.to_owned()));
    let min = i64::from(min_in_sync(plan.resource));
    set(&mut replication, "min_in_sync", (mode == ReplicationMode::Sync).then_some(min));
    let is_by_quorum = spec.replication.ack_policy == AckPolicy::Quorum;
    set(&mut replication, "ack_policy", is_by_quorum.then(|| "quorum".to_owned()));
    set(&mut replication, "secret_file", Some(format!("{SECRET_FOLDER}/secret")));
    if tls::are_made(plan.resource) {
        let mut tls = pair();
        set(&mut tls, "ca", Some(format!("{TLS_FOLDER}/ca.crt")));
        replication.insert("tls".to_owned(), Toml::Table(tls));
    }
    if plan.is_elected() {
        // One name for all that there are and will be.
        let peers = format!("{}:{REPLICATION_PORT}", plan.host(group, "{}"));
        set(&mut replication, "peers", Some(vec![peers]));
        let lease = spec.failover.lease_seconds.map(|seconds| i64::from(seconds) * 1_000);
        set(&mut replication, "lease_ms", lease);
        let mut kubernetes = Table::new();
        set(&mut kubernetes, "group", Some(group.to_owned()));
        set(&mut kubernetes, "namespace", Some(plan.namespace()));
        set(&mut kubernetes, "master_service", Some(master_service(group)));
        let (namespace, domain) = (plan.namespace(), plan.domain);
        let address = format!("{}.{namespace}.svc.{domain}:{PORT}", master_service(group));
        set(&mut kubernetes, "master_address", Some(address));
        replication.insert("kubernetes".to_owned(), Toml::Table(kubernetes));
    } else {
        set(
            &mut replication,
            "master",
            Some(format!("{}:{REPLICATION_PORT}", plan.host(group, "0"))),
        );
    }
    replication
}

fn limits(settings: &BrokerSettings) -> Table {
    let mut limits = Table::new();
    set(&mut limits, "message_bytes_max", settings.message_bytes_max.map(whole));
    let frame = settings.message_bytes_max.map(|bytes| whole(bytes.max(8 << 20).saturating_mul(2)));
    set(&mut limits, "frame_bytes_max", frame);
    set(&mut limits, "connections_max", settings.connections_max.map(whole));
    set(&mut limits, "topics_max", settings.topics_max.map(whole));
    limits
}

/// Certificate and key. Brokers read them again when they have changed.
fn pair() -> Table {
    let mut tls = Table::new();
    set(&mut tls, "certificate", Some(format!("{TLS_FOLDER}/tls.crt")));
    set(&mut tls, "key", Some(format!("{TLS_FOLDER}/tls.key")));
    tls
}

fn set(table: &mut Table, key: &str, value: Option<impl Into<Toml>>) {
    if let Some(value) = value {
        table.insert(key.to_owned(), value.into());
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
