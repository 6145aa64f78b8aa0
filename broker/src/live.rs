//! The settings that may change while a broker runs, and how a changed configuration is taken.
//!
//! A change is always a whole configuration: it is compared with the running one, and what stands in
//! [`LIVE`] is taken from it. Whoever reads a setting of these reads it from the configuration that is
//! in effect, each time; copies are renewed in `Broker::settings_changed`.

use serde_json::{Map, Value};

use crate::config::BrokerConfig;

/// A setting that may change.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// Where it stands in the configuration, its sections parted by dots.
    pub path: &'static str,
    /// What Apache's `broker.conf` calls it, and administrators in codes 25 and 26.
    pub apache: Option<&'static str>,
}

const fn live(path: &'static str) -> Live {
    Live { path, apache: None }
}

const fn apache(path: &'static str, name: &'static str) -> Live {
    Live { path, apache: Some(name) }
}

/// All of them. When each takes effect: docs/configuration.md.
pub const LIVE: &[Live] = &[
    apache("name_servers", "namesrvAddr"),
    apache("auto_create_topics", "autoCreateTopicEnable"),
    apache("auto_create_groups", "autoCreateSubscriptionGroup"),
    apache("default_topic_queues", "defaultTopicQueueNums"),
    apache("permission", "brokerPermission"),
    apache("region", "regionId"),
    live("replication.catch_up_bytes_per_second"),
    apache("store.retention_hours", "fileReservedTime"),
    apache("store.retention_at_hours", "deleteWhen"),
    apache("store.retention_disk_percent", "diskMaxUsedSpaceRatio"),
    apache("store.retention_force", "cleanFileForciblyEnable"),
    live("store.spare_segments_max"),
    live("store.scrub_hours"),
    live("store.free_bytes_min"),
    live("limits.held_pulls_max"),
    apache("limits.pull_bytes_max", "maxTransferBytesOnMessageInMemory"),
    apache("limits.pull_messages_max", "pullBatchMaxMessageCount"),
    live("limits.cold_read_bytes_per_second"),
    live("limits.topics_max"),
    live("limits.groups_max"),
    live("limits.topic_queues_max"),
    apache("limits.flush_timeout_ms", "syncFlushTimeout"),
    apache("limits.busy_timeout_ms", "osPageCacheBusyTimeOutMills"),
];

impl Live {
    /// The name that administrators see.
    pub(crate) fn shown_name(&self) -> &'static str {
        self.apache.unwrap_or(self.path)
    }
}

/// The one of this name, Apache's or ours.
pub(crate) fn find(name: &str) -> Option<&'static Live> {
    LIVE.iter().find(|live| live.path == name || live.apache == Some(name))
}

/// One setting that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub path: &'static str,
    /// As administrators write it.
    pub from: String,
    pub to: String,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: &str| if value.is_empty() { "nothing".into() } else { value.to_owned() };
        write!(f, "{} {} -> {}", self.path, text(&self.from), text(&self.to))
    }
}

/// What becomes of a running broker by a new configuration.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// What is in effect from now on.
    pub(crate) config: BrokerConfig,
    pub(crate) changes: Vec<Change>,
    /// Settings that differ and count at the next start.
    pub(crate) needs_restart: Vec<String>,
}

/// Takes from `wanted` what may change in `running`.
pub(crate) fn take(running: &BrokerConfig, wanted: &BrokerConfig) -> Taken {
    let (mut now, wanted_value) = (value(running), value(wanted));
    let mut changes = Vec::new();
    for live in LIVE {
        let (Some(from), Some(to)) = (at(&now, live.path), at(&wanted_value, live.path)) else {
            continue;
        };
        if from != to {
            changes.push(Change { path: live.path, from: show(from), to: show(to) });
            let to = to.clone();
            set(&mut now, live.path, to);
        }
    }
    let mut needs_restart = Vec::new();
    different("", &now, &wanted_value, &mut needs_restart);
    // How many have to be in sync replicas learn from their `BrokerGroup`, and of the addresses of all of
    // them only a replica's own matter, which stand in `advertise`.
    needs_restart.retain(|path| {
        let is_of_the_group = path == "replication.min_in_sync" && running.replication.is_elected();
        !is_of_the_group && !path.starts_with("advertise_of_replicas")
    });
    // The same fields with values of the same types.
    let config = serde_json::from_value(now).unwrap_or_else(|_| running.clone());
    Taken { config, changes, needs_restart }
}

/// Adds the paths of values that differ.
fn different(path: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
    if a == b {
        return;
    }
    let empty = Map::new();
    let (a, b) = match (a, b) {
        (Value::Object(a), Value::Object(b)) => (a, b),
        (Value::Object(a), Value::Null) => (a, &empty),
        (Value::Null, Value::Object(b)) => (&empty, b),
        _ => return found.push(path.to_owned()),
    };
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let of = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or(Value::Null);
        different(&path, &of(a), &of(b), found);
    }
}

/// A configuration as a tree.
pub(crate) fn value(config: &BrokerConfig) -> Value {
    // All its maps have texts for keys.
    serde_json::to_value(config).unwrap_or_default()
}

pub(crate) fn at<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(tree, |inner, name| inner.get(name))
}

pub(crate) fn set(tree: &mut Value, path: &str, value: Value) {
    let inner = path.split('.').try_fold(tree, |inner, name| inner.get_mut(name));
    if let Some(inner) = inner {
        *inner = value;
    }
}

/// A value as Apache's properties have it: hours as `04;16`.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items = list.iter().map(|item| match item.as_u64() {
                Some(hour) => format!("{hour:02}"),
                None => show(item),
            });
            items.collect::<Vec<_>>().join(";")
        }
        other => other.to_string(),
    }
}

/// The reverse, for a setting whose default value is `like`.
pub(crate) fn parse(text: &str, like: &Value) -> Result<Value, String> {
    let whole = |text: &str| text.parse::<u64>().map(Value::from);
    let parsed = match like {
        Value::Bool(_) => match text.to_ascii_lowercase().parse::<bool>() {
            Ok(truth) => Ok(truth.into()),
            Err(_) => Err("use true or false"),
        },
        Value::Number(number) if number.is_f64() => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number.into()),
            _ => Err("use a number"),
        },
        Value::Number(_) => whole(text).map_err(|_| "use a whole number"),
        Value::Array(list) => {
            let items = text.split([';', ',']).map(str::trim).filter(|item| !item.is_empty());
            let items: Result<Vec<Value>, _> = match list.first().is_some_and(Value::is_number) {
                true => items.map(whole).collect(),
                false => Ok(items.map(Value::from).collect()),
            };
            items.map(Value::Array).map_err(|_| "use whole numbers, parted by ;")
        }
        _ => Ok(text.into()),
    };
    parsed.map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_of_the_list_exists_and_is_read_as_it_is_shown() {
        let defaults = value(&BrokerConfig::default());
        for live in LIVE {
            let found = at(&defaults, live.path).unwrap_or_else(|| panic!("{}", live.path));
            assert_eq!(&parse(&show(found), found).unwrap(), found, "{}", live.path);
            assert_eq!(find(live.path).unwrap().path, live.path);
            assert_eq!(find(live.shown_name()).unwrap().path, live.path);
        }
        let hours = parse("04;16", &serde_json::json!([4])).unwrap();
        assert_eq!((show(&hours), hours), ("04;16".to_owned(), serde_json::json!([4, 16])));
        assert_eq!(
            parse("a:1; b:2", &serde_json::json!([])).unwrap(),
            serde_json::json!(["a:1", "b:2"])
        );
        for (text, like) in
            [("yes", "true"), ("-1", "1"), ("1.5", "1"), ("NaN", "0.5"), ("4;x", "[4]")]
        {
            let like = serde_json::from_str(like).unwrap();
            parse(text, &like).unwrap_err();
        }
    }

    #[test]
    fn what_may_change_is_taken_and_the_rest_is_named() {
        let running = BrokerConfig::default();
        let mut wanted = running.clone();
        wanted.store.retention_hours = 24;
        wanted.name_servers = vec!["a:9876".into()];
        wanted.store.segment_bytes = 1 << 26;
        wanted.advertise.insert("default".into(), "here:1".into());
        wanted.replication.secret_file = Some("/s".into());
        wanted.advertise_of_replicas.insert("external".into(), vec!["x:1".into()]);
        let taken = take(&running, &wanted);
        let expected = BrokerConfig {
            name_servers: wanted.name_servers.clone(),
            store: crate::StoreSection { retention_hours: 24, ..running.store.clone() },
            ..running.clone()
        };
        assert_eq!(taken.config, expected);
        let changes: Vec<_> = taken.changes.iter().map(Change::to_string).collect();
        assert_eq!(changes, ["name_servers nothing -> a:9876", "store.retention_hours 72 -> 24"]);
        let rest = ["advertise.default", "replication.secret_file", "store.segment_bytes"];
        assert_eq!(taken.needs_restart, rest);
        assert_eq!(take(&taken.config, &running).config, running);
    }

    #[test]
    fn how_many_have_to_be_in_sync_is_the_groups_affair_where_there_is_one() {
        let mut running = BrokerConfig::default();
        running.replication.min_in_sync = Some(1);
        let mut wanted = running.clone();
        wanted.replication.min_in_sync = Some(2);
        assert_eq!(take(&running, &wanted).needs_restart, ["replication.min_in_sync"]);
        for config in [&mut running, &mut wanted] {
            config.replication.peers = vec!["mq-{}:10912".into()];
        }
        assert_eq!(take(&running, &wanted).needs_restart, [""; 0]);
    }
}
