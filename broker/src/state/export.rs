//! Writes the state into Apache's `config/*.json`, for people and for Apache's broker.
//!
//! A copy of each file stays in the store's `weir/`. Where file and copy differ at the next start,
//! somebody else wrote last: see `import.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use weirmq_remoting::body::{Body as _, SubscriptionGroupWrapper};

use super::config_files::ConfigFile;
use super::import::ImportError;
use super::log::State;
use crate::registration::topic_config;

impl State {
    /// Writes the four files into `config/` under the data directory, and then our copies: a file
    /// that is newer than its copy says nothing but what is true, a copy that is newer than its
    /// file would make the old file look like news.
    pub(crate) fn export(&self, data_dir: &Path) -> Result<(), ImportError> {
        let directory = data_dir.join("config");
        let all = ConfigFile::ALL.map(|file| (file, self.contents_of(file, &directory)));
        let write = || {
            fs::create_dir_all(&directory)?;
            for (file, contents) in &all {
                file.replace(&directory, contents)?;
            }
            fs::File::open(&directory)?.sync_all()
        };
        write().map_err(|error| ImportError::Export { directory: directory.clone(), error })?;
        for (file, contents) in all {
            self.store().write_small_file(file.copy_name(), &contents)?;
        }
        Ok(())
    }

    fn contents_of(&self, file: ConfigFile, directory: &Path) -> Vec<u8> {
        match file {
            ConfigFile::Topics => self.topics_json(),
            ConfigFile::Groups => self.groups_json(directory),
            ConfigFile::Offsets => self.offsets_json(),
            ConfigFile::DelayOffsets => self.delay_offsets_json(),
        }
    }

    fn topics_json(&self) -> Vec<u8> {
        let mut topics = Map::new();
        for topic in self.topics.all().values() {
            let config = topic_config(topic);
            topics.insert(topic.name.clone(), serde_json::to_value(config).unwrap_or(Value::Null));
        }
        json!({"dataVersion": data_version(), "topicConfigTable": topics}).to_string().into_bytes()
    }

    fn groups_json(&self, directory: &Path) -> Vec<u8> {
        let mut groups = SubscriptionGroupWrapper::default();
        for group in self.groups.all().values() {
            groups.subscription_group_table.insert(group.group_name.clone(), (**group).clone());
        }
        // What we do not act on is handed back as it came.
        let before = ConfigFile::Groups.read(directory).ok().flatten();
        let before = before.and_then(|contents| ConfigFile::Groups.decode(&contents.bytes).ok());
        groups.forbidden_table = before.unwrap_or_default().forbidden;
        groups.encode()
    }

    /// Integer keys stay bare, as Apache writes and expects them.
    fn offsets_json(&self) -> Vec<u8> {
        let mut by_topic: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for o in self.offsets.all() {
            let entry = by_topic.entry(format!("{}@{}", o.topic, o.group)).or_default();
            entry.push(format!("{}:{}", o.queue, o.offset));
        }
        let tables =
            by_topic.iter().map(|(key, queues)| format!("\"{key}\":{{{}}}", queues.join(",")));
        let tables = tables.collect::<Vec<_>>().join(",");
        format!("{{\"dataVersion\":{},\"offsetTable\":{{{tables}}}}}", data_version()).into_bytes()
    }

    fn delay_offsets_json(&self) -> Vec<u8> {
        let levels =
            self.delay.all().into_iter().map(|(level, offset)| format!("{level}:{offset}"));
        let levels = levels.collect::<Vec<_>>().join(",");
        format!("{{\"dataVersion\":{},\"offsetTable\":{{{levels}}}}}", data_version()).into_bytes()
    }
}

fn data_version() -> Value {
    json!({"counter": 1, "stateVersion": 0, "timestamp": 0})
}
