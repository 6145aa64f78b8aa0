//! Reads Apache's `broker.conf` and `namesrv.conf`.
//!
//! Every key falls into one of four kinds: it becomes a setting of ours; it asks for something
//! that this version cannot do and ignoring it would lose messages or safety, so it is an error;
//! Apache knows it and it has no effect here, so it is a warning unless it says the default; or
//! nobody knows it, which is an error with the nearest known name.

use toml::{Table, Value};

use super::properties::{self, Property};
use super::suggest;

/// Which program the file was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Broker,
    NameServer,
}

/// What a file says, in the shape of [`super::FileConfig`], and what there is to say about it.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    pub(crate) table: Table,
    /// One line each; the file takes effect all the same.
    pub(crate) warnings: Vec<String>,
    /// One line each; the file must not be used.
    pub(crate) errors: Vec<String>,
}

/// What a key becomes.
enum Rule {
    Text(&'static str),
    Integer(&'static str),
    Bool(&'static str),
    /// Only this value can be had.
    Only(&'static str, &'static str),
    /// Several keys together make one setting; see [`Importer::finish`].
    Joint,
}

const BROKER_RULES: &[(&str, Rule)] = &[
    ("brokerClusterName", Rule::Text("broker.cluster")),
    ("brokerName", Rule::Text("broker.name")),
    ("brokerId", Rule::Joint),
    ("brokerIP1", Rule::Joint),
    ("listenPort", Rule::Integer("listen.broker_port")),
    ("bindAddress", Rule::Text("listen.bind")),
    ("namesrvAddr", Rule::Joint),
    ("storePathRootDir", Rule::Text("broker.data_dir")),
    ("storePathCommitLog", Rule::Joint),
    ("flushDiskType", Rule::Joint),
    ("brokerRole", Rule::Joint),
    ("autoCreateTopicEnable", Rule::Bool("broker.auto_create_topics")),
    ("autoCreateSubscriptionGroup", Rule::Bool("broker.auto_create_groups")),
    ("defaultTopicQueueNums", Rule::Integer("broker.default_topic_queues")),
    ("brokerPermission", Rule::Integer("broker.permission")),
    ("regionId", Rule::Text("broker.region")),
    ("fileReservedTime", Rule::Integer("broker.store.retention_hours")),
    ("deleteWhen", Rule::Joint),
    ("diskMaxUsedSpaceRatio", Rule::Integer("broker.store.retention_disk_percent")),
    ("cleanFileForciblyEnable", Rule::Bool("broker.store.retention_force")),
    ("mappedFileSizeCommitLog", Rule::Integer("broker.store.segment_bytes")),
    ("maxMessageSize", Rule::Integer("broker.limits.message_bytes_max")),
    ("maxTransferBytesOnMessageInMemory", Rule::Integer("broker.limits.pull_bytes_max")),
    ("pullBatchMaxMessageCount", Rule::Integer("broker.limits.pull_messages_max")),
    ("serverChannelMaxIdleTimeSeconds", Rule::Integer("broker.limits.idle_seconds")),
    ("syncFlushTimeout", Rule::Integer("broker.limits.flush_timeout_ms")),
    ("osPageCacheBusyTimeOutMills", Rule::Integer("broker.limits.busy_timeout_ms")),
    ("aclEnable", Rule::Only("false", "access control is not there yet")),
    ("authenticationEnabled", Rule::Only("false", "authentication is not there yet")),
    ("authorizationEnabled", Rule::Only("false", "authorisation is not there yet")),
    ("enableControllerMode", Rule::Only("false", "failover is not there yet")),
    ("enableDLegerCommitLog", Rule::Only("false", "DLedger's log is another format")),
    ("inSyncReplicas", Rule::Only("1", "replication is not there yet")),
    ("totalReplicas", Rule::Only("1", "replication is not there yet")),
    ("storeType", Rule::Only("default", "consume queues in RocksDB are not supported")),
    ("enableConsumeQueueExt", Rule::Only("false", "extended consume queues are not supported")),
    (
        "messageDelayLevel",
        Rule::Only(
            "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h",
            "other delay levels are not supported yet, messages would come at other times",
        ),
    ),
];

const NAME_SERVER_RULES: &[(&str, Rule)] = &[
    ("listenPort", Rule::Integer("listen.namesrv_port")),
    ("bindAddress", Rule::Text("listen.bind")),
    ("kvConfigPath", Rule::Joint),
    ("orderMessageEnable", Rule::Bool("namesrv.order_messages")),
    ("returnOrderTopicConfigToBroker", Rule::Bool("namesrv.return_order_topic_config_to_broker")),
    ("supportActingMaster", Rule::Bool("namesrv.support_acting_master")),
    (
        "deleteTopicWithBrokerRegistration",
        Rule::Bool("namesrv.delete_topic_with_broker_registration"),
    ),
    ("scanNotActiveBrokerInterval", Rule::Integer("namesrv.scan_interval_ms")),
    ("serverChannelMaxIdleTimeSeconds", Rule::Integer("namesrv.limits.idle_seconds")),
    ("enableControllerInNamesrv", Rule::Only("false", "failover is not there yet")),
];

/// Reads `text`, the whole file.
pub(crate) fn import(text: &str, kind: Kind) -> Imported {
    let mut importer = Importer { kind, imported: Imported::default(), joint: Vec::new() };
    for property in properties::parse(text) {
        importer.take(property);
    }
    importer.finish();
    importer.imported
}

struct Importer {
    kind: Kind,
    imported: Imported,
    joint: Vec<Property>,
}

impl Importer {
    fn take(&mut self, property: Property) {
        let rules = match self.kind {
            Kind::Broker => BROKER_RULES,
            Kind::NameServer => NAME_SERVER_RULES,
        };
        let Property { line, key, value } = &property;
        match rules.iter().find(|(name, _)| name == key) {
            Some((_, Rule::Text(path))) => self.set(path, Value::String(value.clone())),
            Some((_, Rule::Integer(path))) => match value.parse::<i64>() {
                Ok(number) if number >= 0 => self.set(path, Value::Integer(number)),
                _ => self.error(*line, format!("{key} is {value}, which is no whole number")),
            },
            // Java's Boolean.parseBoolean takes every other text for false; a typo should not.
            Some((_, Rule::Bool(path))) => match value.to_ascii_lowercase().parse() {
                Ok(truth) => self.set(path, Value::Boolean(truth)),
                Err(_) => self.error(*line, format!("{key} is {value}; use true or false")),
            },
            Some((_, Rule::Only(only, why))) if value != only => {
                self.error(
                    *line,
                    format!("{key} is {value}: {why}; use {only} or remove the line"),
                );
            }
            Some((_, Rule::Only(..))) => {}
            Some((_, Rule::Joint)) => self.joint.push(property),
            None => self.without_effect(*line, key, value),
        }
    }

    /// A key that no rule takes: known to Apache, or to nobody.
    fn without_effect(&mut self, line: usize, key: &str, value: &str) {
        let known = known_keys(self.kind);
        match known.iter().find(|(name, _)| *name == key) {
            Some((_, default)) if *default == value => {}
            Some(_) => {
                self.imported.warnings.push(format!("line {line}: {key} has no effect here"));
            }
            None => {
                let names = known.iter().map(|(name, _)| *name);
                let hint = suggest::nearest(key, names)
                    .map(|name| format!("; did you mean `{name}`?"))
                    .unwrap_or_else(|| "; remove the line".to_owned());
                self.error(line, format!("unknown key `{key}`{hint}"));
            }
        }
    }

    /// Settles what several keys decide together.
    fn finish(&mut self) {
        self.role();
        self.flush();
        self.retention();
        self.addresses();
        self.paths();
    }

    /// The last of equal keys wins, as in Java.
    fn joint(&self, key: &str) -> Option<Property> {
        self.joint.iter().rev().find(|property| property.key == key).cloned()
    }

    fn role(&mut self) {
        if let Some(Property { line, value, .. }) = self.joint("brokerId")
            && value != "0"
        {
            self.error(line, format!("brokerId is {value}: slaves are not supported yet; use 0"));
        }
        let Some(Property { line, value, .. }) = self.joint("brokerRole") else { return };
        match value.as_str() {
            "ASYNC_MASTER" => {}
            "SYNC_MASTER" => self.imported.warnings.push(format!(
                "line {line}: brokerRole SYNC_MASTER acts as ASYNC_MASTER, there is no replication yet"
            )),
            "SLAVE" => self.error(
                line,
                "brokerRole is SLAVE: slaves are not supported yet; run a master".to_owned(),
            ),
            other => {
                self.error(line, format!("brokerRole is {other}; use ASYNC_MASTER or SYNC_MASTER"));
            }
        }
    }

    fn flush(&mut self) {
        let Some(Property { line, value, .. }) = self.joint("flushDiskType") else { return };
        match value.as_str() {
            "ASYNC_FLUSH" => self.set("broker.store.flush", "async".into()),
            "SYNC_FLUSH" => self.set("broker.store.flush", "sync".into()),
            other => {
                self.error(
                    line,
                    format!("flushDiskType is {other}; use ASYNC_FLUSH or SYNC_FLUSH"),
                );
            }
        }
    }

    fn retention(&mut self) {
        let Some(Property { line, value, .. }) = self.joint("deleteWhen") else { return };
        let hours: Result<Vec<i64>, _> = value.split(';').map(|hour| hour.trim().parse()).collect();
        match hours {
            Ok(hours) if hours.iter().all(|hour| (0..24).contains(hour)) => {
                let hours = hours.into_iter().map(Value::Integer).collect();
                self.set("broker.store.retention_at_hours", Value::Array(hours));
            }
            _ => self
                .error(line, format!("deleteWhen is {value}; use hours from 00 to 23, like 04;16")),
        }
    }

    fn addresses(&mut self) {
        if let Some(servers) = self.joint("namesrvAddr") {
            let servers = servers.value.split(';').map(str::trim).filter(|text| !text.is_empty());
            let servers = servers.map(Value::from).collect();
            self.set("broker.name_servers", Value::Array(servers));
        }
        if let Some(Property { value: host, .. }) = self.joint("brokerIP1") {
            let port = self.found("listen", "broker_port").and_then(Value::as_integer);
            let port = port.unwrap_or(10911);
            let is_bare_v6 = host.contains(':') && !host.starts_with('[');
            let host = if is_bare_v6 { format!("[{host}]") } else { host };
            self.set("broker.advertise.default", Value::String(format!("{host}:{port}")));
        }
    }

    fn paths(&mut self) {
        let root = self.found("broker", "data_dir").and_then(Value::as_str).map(str::to_owned);
        if self.kind == Kind::Broker && root.is_none() {
            self.imported.warnings.push(
                "storePathRootDir is not set: Apache's data is in ~/store then, WeirMQ's in \
                 weir-data; set it, or use --data"
                    .to_owned(),
            );
        }
        if let Some(Property { line, value, .. }) = self.joint("storePathCommitLog") {
            let expected = std::path::Path::new(&root.unwrap_or_default()).join("commitlog");
            if expected != std::path::Path::new(&value) {
                let problem = "storePathCommitLog must be `commitlog` in storePathRootDir";
                self.error(line, format!("{problem}; move or link the folder there"));
            }
        }
        if let Some(Property { line, value, .. }) = self.joint("kvConfigPath") {
            match value.strip_suffix("/kvConfig.json") {
                Some(folder) => self.set("namesrv.data_dir", folder.into()),
                None => {
                    let problem = format!("kvConfigPath is {value}");
                    self.error(line, format!("{problem}; its last part must be kvConfig.json"));
                }
            }
        }
    }

    /// A setting that the file has made so far.
    fn found(&self, section: &str, name: &str) -> Option<&Value> {
        self.imported.table.get(section)?.get(name)
    }

    fn error(&mut self, line: usize, problem: String) {
        self.imported.errors.push(format!("line {line}: {problem}"));
    }

    /// Puts `value` at a dotted path.
    fn set(&mut self, path: &str, value: Value) {
        let (tables, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.imported.table;
        for name in tables.split('.') {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = inner else { unreachable!("{name} holds only tables") };
            table = inner;
        }
        table.insert(last.to_owned(), value);
    }
}

/// Apache's keys and their defaults; `-` where the default depends on the machine.
fn known_keys(kind: Kind) -> Vec<(&'static str, &'static str)> {
    let section = match kind {
        Kind::Broker => "[broker]",
        Kind::NameServer => "[namesrv]",
    };
    include_str!("apache_keys.txt")
        .lines()
        .skip_while(|line| *line != section)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_broker_conf_becomes_our_settings() {
        let text = "brokerClusterName = DefaultCluster\nbrokerName = broker-b\nbrokerId = 0\n\
            brokerIP1=10.0.0.7\nlistenPort=20911\nnamesrvAddr=a:9876; b:9876\n\
            storePathRootDir=/data/store\nstorePathCommitLog=/data/store/commitlog\n\
            deleteWhen = 04;16\nfileReservedTime = 48\ncleanFileForciblyEnable=false\nbrokerRole = ASYNC_MASTER\n\
            flushDiskType = SYNC_FLUSH\nautoCreateTopicEnable=false\nmaxMessageSize=65536\n";
        let imported = import(text, Kind::Broker);
        assert_eq!((imported.errors, imported.warnings), (vec![], vec![]));
        let expected: Table = toml::from_str(
            r#"
            [listen]
            broker_port = 20911
            [broker]
            cluster = "DefaultCluster"
            name = "broker-b"
            name_servers = ["a:9876", "b:9876"]
            data_dir = "/data/store"
            auto_create_topics = false
            advertise.default = "10.0.0.7:20911"
            [broker.store]
            retention_hours = 48
            retention_at_hours = [4, 16]
            retention_force = false
            flush = "sync"
            [broker.limits]
            message_bytes_max = 65536
            "#,
        )
        .unwrap();
        assert_eq!(imported.table, expected);
        let config: super::super::FileConfig = Value::Table(imported.table).try_into().unwrap();
        config.broker.validate().unwrap();
    }

    #[test]
    fn what_would_lose_safety_is_an_error() {
        for line in [
            "brokerRole=SLAVE",
            "brokerId=1",
            "aclEnable=true",
            "authenticationEnabled=true",
            "enableDLegerCommitLog=true",
            "inSyncReplicas=2",
            "messageDelayLevel=1s 2s",
            "storePathCommitLog=/elsewhere",
            "flushDiskType=SYNC",
            "autoCreateTopicEnable=yes",
            "listenPort=many",
            "deleteWhen=24",
        ] {
            assert_eq!(import(line, Kind::Broker).errors.len(), 1, "{line}");
        }
    }

    #[test]
    fn a_key_without_effect_is_a_warning_and_a_typo_an_error() {
        let text = "sendMessageThreadPoolNums=64\nlongPollingEnable=true\nstorePathRootDir=/s";
        let imported = import(text, Kind::Broker);
        assert_eq!(imported.warnings, ["line 1: sendMessageThreadPoolNums has no effect here"]);
        let warnings = import("brokerName=b", Kind::Broker).warnings;
        assert!(warnings[0].starts_with("storePathRootDir is not set"), "{warnings:?}");
        let imported = import("\nbrokerNam=x", Kind::Broker);
        assert_eq!(
            imported.errors,
            ["line 2: unknown key `brokerNam`; did you mean `brokerName`?"]
        );
        let imported = import("qqq=x", Kind::NameServer);
        assert_eq!(imported.errors, ["line 1: unknown key `qqq`; remove the line"]);
    }

    #[test]
    fn a_namesrv_conf_becomes_our_settings() {
        let text = "listenPort=19876\nkvConfigPath=/data/ns/kvConfig.json\norderMessageEnable=true\n\
            scanNotActiveBrokerInterval=1000\nclientRequestThreadPoolNums=8\n";
        let imported = import(text, Kind::NameServer);
        assert_eq!((imported.errors, imported.warnings.len()), (vec![], 1));
        let config: super::super::FileConfig = Value::Table(imported.table).try_into().unwrap();
        config.namesrv.validate().unwrap();
        assert_eq!((config.listen.namesrv_port, config.namesrv.scan_interval_ms), (19876, 1000));
        assert_eq!(config.namesrv.data_dir.unwrap().to_str(), Some("/data/ns"));
        assert_eq!(import("kvConfigPath=/x/kv.json", Kind::NameServer).errors.len(), 1);
    }

    #[test]
    fn what_administrators_change_by_apaches_name_is_what_the_file_sets() {
        for live in weirmq_broker::LIVE {
            let Some(name) = live.apache else { continue };
            let (_, rule) = BROKER_RULES.iter().find(|(key, _)| *key == name).unwrap();
            match rule {
                Rule::Text(path) | Rule::Integer(path) | Rule::Bool(path) => {
                    assert_eq!(*path, format!("broker.{}", live.path));
                }
                Rule::Joint => assert!(["namesrvAddr", "deleteWhen"].contains(&name), "{name}"),
                Rule::Only(..) => panic!("{name} has one value"),
            }
        }
    }

    #[test]
    fn every_ruled_key_is_one_of_apaches() {
        for (kind, rules) in [(Kind::Broker, BROKER_RULES), (Kind::NameServer, NAME_SERVER_RULES)] {
            let known = known_keys(kind);
            for (key, _) in rules {
                assert!(known.iter().any(|(name, _)| name == key), "{key}");
            }
        }
    }
}
