//! Apache's `config/*.json`, written as copies of the state for people and for Apache's broker.
//!
//! Nothing here reads them back. Layouts: `TopicConfigManager`, `SubscriptionGroupManager`,
//! `ConsumerOffsetManager`, `ScheduleMessageService`.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde_json::{Map, Value, json};
use weirmq_remoting::body::{Body as _, SubscriptionGroupWrapper};

use super::log::State;
use crate::registration::topic_config;

impl State {
    /// Writes the four files into `config/` under the data directory, each by way of a temporary
    /// file.
    pub(crate) fn export(&self, data_dir: &Path) -> io::Result<()> {
        let directory = data_dir.join("config");
        fs::create_dir_all(&directory)?;
        let data_version = || json!({"counter": 1, "stateVersion": 0, "timestamp": 0});

        let mut topics = Map::new();
        for topic in self.topics.all().values() {
            let config = topic_config(topic);
            topics.insert(topic.name.clone(), serde_json::to_value(config).unwrap_or(Value::Null));
        }
        let topics = json!({"dataVersion": data_version(), "topicConfigTable": topics});
        replace(&directory, "topics.json", topics.to_string().as_bytes())?;

        let mut groups = SubscriptionGroupWrapper::default();
        for group in self.groups.all().values() {
            groups.subscription_group_table.insert(group.group_name.clone(), (**group).clone());
        }
        replace(&directory, "subscriptionGroup.json", &groups.encode())?;

        // Integer keys stay bare, as Apache writes and expects them.
        let mut by_topic: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for o in self.offsets.all() {
            let entry = by_topic.entry(format!("{}@{}", o.topic, o.group)).or_default();
            entry.push(format!("{}:{}", o.queue, o.offset));
        }
        let tables =
            by_topic.iter().map(|(key, queues)| format!("\"{key}\":{{{}}}", queues.join(",")));
        let tables = tables.collect::<Vec<_>>().join(",");
        let offsets =
            format!("{{\"dataVersion\":{},\"offsetTable\":{{{tables}}}}}", data_version());
        replace(&directory, "consumerOffset.json", offsets.as_bytes())?;

        let levels =
            self.delay.all().into_iter().map(|(level, offset)| format!("{level}:{offset}"));
        let levels = levels.collect::<Vec<_>>().join(",");
        let delay = format!("{{\"dataVersion\":{},\"offsetTable\":{{{levels}}}}}", data_version());
        replace(&directory, "delayOffset.json", delay.as_bytes())
    }
}

fn replace(directory: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    fs::write(&temporary, contents)?;
    fs::rename(&temporary, directory.join(name))
}
