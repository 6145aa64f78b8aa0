//! The configuration that is in effect: what file and flags say, and what administrators changed by
//! request on top of it (code 25).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weirmq_admin::Check;
use weirmq_store::{Store, StoreError};

use crate::Broker;
use crate::config::{BrokerConfig, ConfigError};
use crate::live::{self, Change, LIVE, Taken};

/// The small file that keeps what was changed by request: [`Requests`] as JSON.
const FILE: &str = "changed-settings";

/// What was changed by request, by path.
type Requests = BTreeMap<String, Requested>;

/// One setting that was changed by request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Requested {
    value: Value,
    /// What the file said then. When it says something else it was written later, and wins.
    instead_of: Value,
}

/// The configuration of one broker, as it is now. Outlives a broker that begins anew.
pub struct Configuration {
    now: ArcSwap<BrokerConfig>,
    /// Held while somebody changes something, also while that is written to the disk.
    changing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What file and flags say, as far as it was right.
    said: BrokerConfig,
    requests: Requests,
    file: Option<PathBuf>,
    /// Of the content that is in effect.
    sha256: Option<String>,
    /// Why a later one is not.
    error: Option<String>,
    needs_restart: Vec<String>,
    /// The broker that lives now.
    broker: Weak<Broker>,
    /// What was changed by request has been read.
    has_read: bool,
    check: Option<Check>,
}

/// What metrics show.
pub(crate) struct Counts {
    pub(crate) is_applied: bool,
    pub(crate) needing_restart: usize,
    pub(crate) by_request: usize,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("{0}")]
    Wrong(String),
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    #[error("the change is not kept: {0}")]
    NotKept(#[from] StoreError),
}

impl Configuration {
    /// One that is in effect from the start.
    ///
    /// # Errors
    /// [`ConfigError`] with the first setting that cannot work.
    pub fn new(config: BrokerConfig) -> Result<Arc<Self>, ConfigError> {
        config.validate()?;
        let state = State { said: config.clone(), ..State::default() };
        let now = ArcSwap::from_pointee(config);
        Ok(Arc::new(Self { now, changing: Mutex::default(), state: Mutex::new(state) }))
    }

    /// What is in effect. Not to be held for long: it may be out of date the next moment.
    pub fn now(&self) -> Guard<Arc<BrokerConfig>> {
        self.now.load()
    }

    /// Notes which file it was read from, for [`Configuration::report`].
    pub fn was_read_from(&self, file: &Path, content: &[u8]) {
        let mut state = self.state.lock();
        (state.file, state.sha256) = (Some(file.to_owned()), Some(sha256(content)));
    }

    /// Takes what may change of what the file says now; waits for the disk. `read` is the whole
    /// configuration, flags included, and settings beside it that count at the next start.
    pub fn file_changed(&self, content: &[u8], read: Result<(BrokerConfig, Vec<String>), String>) {
        let _changing = self.changing.lock();
        let taken = read.and_then(|(said, others)| {
            said.validate().map_err(|error| error.to_string())?;
            let requests = self.state.lock().requests.clone();
            let (requests, mut taken) = self.take(&said, requests).map_err(|e| e.to_string())?;
            taken.needs_restart.extend(others);
            Ok((said, requests, taken))
        });
        let (said, requests, taken) = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(%error, "the changed configuration is not used, the settings stay");
                let mut state = self.state.lock();
                state.say(Err(error));
                return;
            }
        };
        let is_news = requests != self.state.lock().requests;
        if let Some(broker) = self.broker().filter(|_| is_news)
            && let Err(error) = keep(&broker.store, &requests)
        {
            tracing::warn!(%error, "settings of requests that the file has taken back may return");
        }
        if !taken.needs_restart.is_empty() {
            let settings = taken.needs_restart.join(", ");
            tracing::warn!(settings, "changed settings that need a restart");
        }
        {
            let mut state = self.state.lock();
            state.said = said;
            state.sha256 = Some(sha256(content));
            state.needs_restart = taken.needs_restart.clone();
            state.say(Ok(()));
        }
        self.apply(requests, taken);
    }

    /// Changes settings by their names, Apache's or ours, as administrators write their values, durably:
    /// all of them or none. Waits for the disk.
    pub(crate) fn request(
        &self,
        store: &Store,
        settings: &[(&str, &str)],
    ) -> Result<Vec<Change>, RequestError> {
        let _changing = self.changing.lock();
        let (said, mut requests) = {
            let state = self.state.lock();
            (state.said.clone(), state.requests.clone())
        };
        let (in_file, defaults) = (live::value(&said), live::value(&BrokerConfig::default()));
        for (name, text) in settings {
            let Some(live) = live::find(name) else {
                return Err(RequestError::Wrong(self.why_not(name)));
            };
            let values = live::at(&in_file, live.path).zip(live::at(&defaults, live.path));
            let Some((instead_of, like)) = values else { continue };
            let value = live::parse(text, like);
            let value = value.map_err(|problem| {
                RequestError::Wrong(format!("{name} is {text}: {problem}; nothing was changed"))
            })?;
            let instead_of = instead_of.clone();
            match value == instead_of {
                true => requests.remove(live.path),
                false => requests.insert(live.path.to_owned(), Requested { value, instead_of }),
            };
        }
        let wanted = with(&said, &requests)?;
        if wanted.name_servers.is_empty() && !said.name_servers.is_empty() {
            return Err(RequestError::Wrong("a broker needs a NameServer".to_owned()));
        }
        let taken = live::take(&self.now(), &wanted);
        taken.config.validate()?;
        keep(store, &requests)?;
        let changes = taken.changes.clone();
        self.apply(requests, taken);
        Ok(changes)
    }

    fn why_not(&self, name: &str) -> String {
        let is_ours = live::at(&live::value(&self.now()), name).is_some();
        let is_apaches = FIXED.contains(&name);
        if is_ours || is_apaches {
            return format!(
                "{name} cannot change while the broker runs; change its configuration file and restart \
                 it; nothing was changed"
            );
        }
        let known: Vec<_> = LIVE.iter().map(live::Live::shown_name).collect();
        format!("no setting is called {name}; nothing was changed. These may: {}", known.join(", "))
    }

    /// Has this broker told of changes from now on, and first of those that requests made before the
    /// last start.
    pub(crate) fn attach(&self, broker: &Arc<Broker>) {
        let _changing = self.changing.lock();
        let kept = read(&broker.store);
        let (said, requests) = {
            let mut state = self.state.lock();
            state.broker = Arc::downgrade(broker);
            if !std::mem::replace(&mut state.has_read, true) {
                state.requests = kept.clone().unwrap_or_default();
            }
            (state.said.clone(), state.requests.clone())
        };
        match self.take(&said, requests) {
            Ok((requests, taken)) => {
                let is_news = kept.as_ref() != Some(&requests);
                if is_news && let Err(error) = keep(&broker.store, &requests) {
                    tracing::warn!(%error, "what was changed by request is not kept");
                }
                self.apply(requests, taken);
            }
            Err(error) => tracing::error!(%error, "settings are not as the file says"),
        }
        // A broker begins with copies of its own.
        broker.settings_changed(&self.now(), &self.now());
    }

    /// Shows on the admin port what is wrong.
    pub(crate) fn set_check(&self, check: Check) {
        let mut state = self.state.lock();
        state.check = Some(check);
        let error = state.error.clone();
        state.say(error.map_or(Ok(()), Err));
    }

    /// What `/config` of the admin port answers: see docs/configuration.md. Never waits for the disk.
    pub fn report(&self) -> Value {
        let state = self.state.lock();
        json!({
            "file": state.file,
            "sha256": state.sha256,
            "error": state.error,
            "needs_restart": state.needs_restart,
            "changed_by_request": state.requests.keys().collect::<Vec<_>>(),
        })
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state.lock();
        Counts {
            is_applied: state.error.is_none(),
            needing_restart: state.needs_restart.len(),
            by_request: state.requests.len(),
        }
    }

    fn broker(&self) -> Option<Arc<Broker>> {
        self.state.lock().broker.upgrade()
    }

    /// What comes of what the file says, and of those requests that are later than it.
    fn take(
        &self,
        said: &BrokerConfig,
        mut requests: Requests,
    ) -> Result<(Requests, Taken), ConfigError> {
        let in_file = live::value(said);
        requests.retain(|path, requested| {
            let is_later = LIVE.iter().any(|live| live.path == path)
                && live::at(&in_file, path) == Some(&requested.instead_of);
            if !is_later {
                tracing::info!(setting = path, "the file has a later word than the request");
            }
            is_later
        });
        let wanted = with(said, &requests).unwrap_or_else(|error| {
            tracing::warn!(
                %error,
                "what was changed by request does not go with the file, and is forgotten"
            );
            requests.clear();
            said.clone()
        });
        let taken = live::take(&self.now(), &wanted);
        taken.config.validate()?;
        Ok((requests, taken))
    }

    fn apply(&self, requests: Requests, taken: Taken) {
        self.state.lock().requests = requests;
        if taken.changes.is_empty() {
            return;
        }
        let before = self.now.swap(Arc::new(taken.config));
        let settings: Vec<_> = taken.changes.iter().map(Change::to_string).collect();
        tracing::info!(settings = settings.join(", "), "settings changed");
        if let Some(broker) = self.broker() {
            broker.settings_changed(&before, &self.now());
        }
    }
}

impl State {
    fn say(&mut self, outcome: Result<(), String>) {
        if let Some(check) = &self.check {
            match &outcome {
                Ok(()) => check.ok(),
                Err(error) => check.degraded(error.clone()),
            }
        }
        self.error = outcome.err();
    }
}

/// Settings that code 26 shows under Apache's names and that need a restart.
pub(crate) const FIXED: [&str; 9] = [
    "brokerClusterName",
    "brokerName",
    "brokerId",
    "brokerRole",
    "flushDiskType",
    "mappedFileSizeCommitLog",
    "maxMessageSize",
    "serverChannelMaxIdleTimeSeconds",
    "listenPort",
];

/// What the file says with requests on top, or which value cannot work.
fn with(said: &BrokerConfig, requests: &Requests) -> Result<BrokerConfig, RequestError> {
    let mut tree = live::value(said);
    for (path, requested) in requests {
        live::set(&mut tree, path, requested.value.clone());
    }
    let config = serde_json::from_value::<BrokerConfig>(tree);
    let config = config.map_err(|error| RequestError::Wrong(error.to_string()))?;
    config.validate()?;
    Ok(config)
}

fn keep(store: &Store, requests: &Requests) -> Result<(), StoreError> {
    store.write_small_file(FILE, &serde_json::to_vec(requests).unwrap_or_default())
}

/// What the disk says; `None` where that cannot be read.
fn read(store: &Store) -> Option<Requests> {
    let read = store.read_small_file(FILE).map_err(|error| error.to_string());
    let parsed = read.and_then(|bytes| {
        let Some(bytes) = bytes else { return Ok(Requests::new()) };
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    });
    parsed
        .inspect_err(|reason| tracing::warn!(reason, "what was changed by request is not known"))
        .ok()
}

fn sha256(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use weirmq_store::SimulatedDisk;

    use super::*;
    use crate::metrics::Metrics;
    use crate::run::open;
    use crate::topics::TEMPLATE_TOPIC;

    fn config() -> BrokerConfig {
        let mut config = BrokerConfig { data_dir: "/weir".into(), ..BrokerConfig::default() };
        config.store.segment_bytes = 64 << 20;
        config.store.free_bytes_min = 1;
        config
    }

    /// A broker by this configuration, which is as a file says.
    fn broker(disk: &SimulatedDisk, config: BrokerConfig) -> Arc<Broker> {
        let admin = weirmq_admin::Admin::default();
        let metrics = Metrics::new(&config, &admin);
        let configuration = Configuration::new(config).unwrap();
        let address = "127.0.0.1:10911".parse().unwrap();
        open(Arc::new(disk.clone()), configuration, address, admin, metrics).unwrap().0
    }

    fn end(broker: Arc<Broker>) {
        broker.store.clone().close().unwrap();
    }

    fn request(broker: &Broker, settings: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let changes = broker.configuration.request(&broker.store, settings);
        let changes = changes.map_err(|error| error.to_string())?;
        Ok(changes.iter().map(ToString::to_string).collect())
    }

    fn file(broker: &Broker, config: &BrokerConfig) {
        broker.configuration.file_changed(b"x", Ok((config.clone(), Vec::new())));
    }

    #[tokio::test]
    async fn a_request_lasts_until_the_file_says_something_else_about_its_setting() {
        let disk = SimulatedDisk::new();
        let first = broker(&disk, config());
        let asked = [("fileReservedTime", "24"), ("limits.topics_max", "9")];
        let changes = request(&first, &asked).unwrap();
        assert_eq!(changes, ["store.retention_hours 72 -> 24", "limits.topics_max 200000 -> 9"]);
        let at_once = first.config();
        assert_eq!((at_once.store.retention_hours, at_once.limits.topics_max), (24, 9));
        end(first);

        let mut other = config();
        other.region = "elsewhere".to_owned();
        let again = broker(&disk, other.clone());
        assert_eq!(again.config().store.retention_hours, 24, "it outlives a restart");
        assert_eq!(again.config().region, "elsewhere");
        other.store.retention_hours = 48;
        file(&again, &other);
        assert_eq!(again.config().store.retention_hours, 48, "the file was written later");
        assert_eq!(
            again.configuration.report()["changed_by_request"],
            json!(["limits.topics_max"])
        );
        end(again);

        let last = broker(&disk, config());
        assert_eq!(last.config().store.retention_hours, 72, "what the file took back stays so");
        assert_eq!(last.config().limits.topics_max, 9);
        request(&last, &[("limits.topics_max", "200000")]).unwrap();
        assert_eq!(last.configuration.report()["changed_by_request"], json!([]));
    }

    #[tokio::test]
    async fn nothing_is_changed_where_anything_is_wrong() {
        let disk = SimulatedDisk::new();
        let broker = broker(&disk, config());
        for (key, value, why) in [
            ("fileReservdTime", "1", "no setting is called fileReservdTime"),
            ("flushDiskType", "SYNC_FLUSH", "cannot change while the broker runs"),
            ("data_dir", "/x", "cannot change while the broker runs"),
            ("deleteWhen", "24", "hours go from 0 to 23"),
            ("deleteWhen", "300", "expected u8"),
            ("brokerPermission", "7", "use 6"),
            ("defaultTopicQueueNums", "5000000000", "expected u32"),
            ("defaultTopicQueueNums", "2000", "use 1 to 1024"),
            ("syncFlushTimeout", "18446744073709551615", "use at most"),
            ("limits.cold_read_bytes_per_second", "1", "or more"),
            ("autoCreateTopicEnable", "yes", "use true or false"),
        ] {
            let refused = request(&broker, &[("fileReservedTime", "1"), (key, value)]);
            assert!(refused.as_ref().is_err_and(|text| text.contains(why)), "{refused:?}");
        }
        assert_eq!(**broker.config(), config());
        let mut wrong = config();
        wrong.permission = 1;
        file(&broker, &wrong);
        assert_eq!(**broker.config(), config());
        assert!(broker.configuration.report()["error"].as_str().unwrap().contains("permission"));
        file(&broker, &config());
        assert_eq!(broker.configuration.report()["error"], Value::Null);
    }

    #[tokio::test]
    async fn where_both_together_are_wrong_the_file_wins() {
        let disk = SimulatedDisk::new();
        let first = broker(&disk, config());
        request(&first, &[("defaultTopicQueueNums", "1000")]).unwrap();
        let mut fewer = config();
        fewer.limits.topic_queues_max = 16;
        file(&first, &fewer);
        let now = first.config();
        assert_eq!((now.default_topic_queues, now.limits.topic_queues_max), (8, 16));
        assert_eq!(first.configuration.report()["changed_by_request"], json!([]));
    }

    #[tokio::test]
    async fn copies_of_settings_are_renewed() {
        let disk = SimulatedDisk::new();
        let first = broker(&disk, config());
        let before = first.topics_version();
        request(&first, &[("brokerPermission", "4")]).unwrap();
        assert!(!first.is_writable() && first.permission_mask() == 5);
        let all = first.state.topics.all().len() as i64;
        assert_eq!(first.topics_version() - before, all, "all topics are registered anew");
        request(&first, &[("defaultTopicQueueNums", "3")]).unwrap();
        assert_eq!(first.state.topics.get(TEMPLATE_TOPIC).unwrap().write_queues, 3);
        request(&first, &[("autoCreateTopicEnable", "false")]).unwrap();
        assert!(first.state.topics.get(TEMPLATE_TOPIC).is_none());
        end(first);
        assert!(broker(&disk, config()).state.topics.get(TEMPLATE_TOPIC).is_none());
    }
}
