//! Takes over what Apache's broker wrote into `config/*.json` since we exported our state there.
//!
//! What counts is the difference between a file and our copy of what we exported last: Apache
//! wrote that, and it wins. What the file does not change stays as our log says, which may be newer
//! than the last export. The first time there is no copy, so everything in the file is news. A file
//! equal to its copy costs no more than reading both. From a backup, read because its file is
//! broken, nothing is taken for deleted: what it does not know may be newer than it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{BodyError, TopicConfig, TopicFilterType};
use weirmq_store::StoreError;

use super::config_files::{ConfigFile, ConfigFileError, ConfigTables};
use super::log::{State, StateError};
use super::record::StateRecord;
use crate::groups;
use crate::offsets::CommittedOffset;
use crate::topics::Topic;

/// Why state cannot be exchanged with Apache's broker.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    File(#[from] ConfigFileError),
    #[error("the copy of {file} in weir/user cannot be understood: {error}")]
    Copy { file: &'static str, error: BodyError },
    #[error(
        "{} holds Apache's state in RocksDB, which cannot be read; switch Apache's broker to JSON \
         files first (configManagerVersion=v1 and realTimePersistRocksDBConfig=false)", .path.display()
    )]
    RocksDb { path: PathBuf },
    /// Without the rest of the state its absence would look like an empty state.
    #[error(
        "the log has lost the beginning of the state (topics, groups, offsets), and {} is missing; \
         restore it from a backup, or write {{}} into it to go on without what it said", .path.display()
    )]
    Missing { path: PathBuf },
    #[error("cannot write {}: {error}", .directory.display())]
    Export { directory: PathBuf, error: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// Directories under `config/` in which Apache keeps state in RocksDB.
const ROCKS_DB: [&str; 4] = ["rdb", "topics", "subscriptionGroups", "consumerOffsets"];

impl State {
    /// Applies what the files under the data directory say and our copies do not, logs the whole
    /// state where that changed anything, and copies the files. `was_apache`: Apache's broker has
    /// used the store since we did. Says whether anything was imported.
    ///
    /// Nobody else may use the state meanwhile. After an error, or a crash at any point, the next
    /// call does the same again.
    pub(crate) fn import(&self, data_dir: &Path, was_apache: bool) -> Result<bool, ImportError> {
        let directory = data_dir.join("config");
        if let Some(name) = ROCKS_DB.iter().find(|name| directory.join(name).is_dir()) {
            return Err(ImportError::RocksDb { path: directory.join(name) });
        }
        // Without its beginning the log does not say what the copies say, so all is news again, and
        // the files are all there is: none may be missing.
        let is_whole = self.is_complete() && !self.has_vanished()?;
        let (mut news, mut changes) = (Vec::new(), Vec::new());
        let mut has_backup = false;
        for file in ConfigFile::ALL {
            let Some(contents) = file.read(&directory)? else {
                if is_whole {
                    continue;
                }
                return Err(ImportError::Missing { path: directory.join(file.name()) });
            };
            let copy = self.store().read_small_file(file.copy_name())?;
            let is_ours = copy.is_none() && !was_apache && self.is_logged();
            if is_whole && (is_ours || copy.as_ref() == Some(&contents.bytes)) {
                continue;
            }
            let unreadable = |error| ImportError::Copy { file: file.name(), error };
            let before = match copy.filter(|_| is_whole) {
                Some(copy) => file.decode(&copy).map_err(unreadable)?,
                None => ConfigTables::default(),
            };
            // Was read and understood a moment ago.
            let now = file.decode(&contents.bytes).map_err(unreadable)?;
            if !contents.is_backup {
                deletions(&before, &now, &mut changes);
            }
            self.additions(&before, now, &mut changes);
            has_backup |= contents.is_backup;
            news.push((file, contents.bytes));
        }
        if news.is_empty() {
            return Ok(false);
        }
        // What the log knows and a backup does not may be newer than the backup.
        self.take_over(&changes, is_whole || has_backup)?;
        for (file, contents) in &news {
            self.store().write_small_file(file.copy_name(), contents)?;
        }
        let files: Vec<_> = news.iter().map(|(file, _)| file.name()).collect();
        tracing::info!(?files, changes = changes.len(), "state of Apache's broker taken over");
        Ok(true)
    }

    /// Whether the log says nothing although it did once: Apache's broker may have expired all of
    /// our state and never derived its queue, so that not even the queue is left to tell.
    fn has_vanished(&self) -> Result<bool, StoreError> {
        let begins_anew = self.store().stats().recovery.log_start == 0;
        if begins_anew || self.is_logged() {
            return Ok(false);
        }
        for file in ConfigFile::ALL {
            if self.store().read_small_file(file.copy_name())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What `now` says that `before` does not: topics and groups first, then offsets.
    fn additions(&self, before: &ConfigTables, now: ConfigTables, out: &mut Vec<StateRecord>) {
        for (name, config) in &now.topics {
            // Every broker makes its system topics itself.
            if before.topics.get(name) == Some(config) || self.topics.is_system(name) {
                continue;
            }
            match topic(name, config) {
                Ok(topic) => out.push(StateRecord::Topic { topic }),
                Err(reason) => {
                    tracing::warn!(topic = name, reason, "topic of Apache's cannot be taken over");
                }
            }
        }
        for (name, mut config) in now.groups {
            if before.groups.get(&name) == Some(&config) || groups::is_system(&name) {
                continue;
            }
            match ResourceName::group(&name) {
                Ok(_) => {
                    config.group_name = name;
                    out.push(StateRecord::Group { group: Box::new(config) });
                }
                Err(error) => {
                    tracing::warn!(group = name, %error, "group of Apache's cannot be taken over");
                }
            }
        }
        out.extend(offsets(before, &now.offsets));
        for (level, offset) in now.delay_offsets {
            let is_news = before.delay_offsets.get(&level) != Some(&offset);
            if let (true, Ok(level), Ok(offset)) =
                (is_news, usize::try_from(level), u64::try_from(offset))
            {
                out.push(StateRecord::DelayProgress { level, offset });
            }
        }
    }
}

/// Topics and groups of `before` that `now` does not know.
fn deletions(before: &ConfigTables, now: &ConfigTables, out: &mut Vec<StateRecord>) {
    let gone = before.topics.keys().filter(|name| !now.topics.contains_key(*name));
    out.extend(gone.map(|name| StateRecord::TopicDeleted { name: name.clone() }));
    let gone = before.groups.keys().filter(|name| !now.groups.contains_key(*name));
    out.extend(
        gone.map(|name| StateRecord::GroupDeleted { name: name.clone(), with_offsets: false }),
    );
}

fn topic(name: &str, config: &TopicConfig) -> Result<Topic, String> {
    ResourceName::topic(name).map_err(|error| error.to_string())?;
    let number = |field, number: i32| {
        u32::try_from(number).map_err(|_| format!("{field} is {number}, which is negative"))
    };
    Ok(Topic {
        counters: Default::default(),
        name: name.to_owned(),
        read_queues: number("readQueueNums", config.read_queue_nums)?,
        write_queues: number("writeQueueNums", config.write_queue_nums)?,
        perm: number("perm", config.perm)?,
        is_multi_tag: config.topic_filter_type == TopicFilterType::MultiTag,
        sys_flag: config.topic_sys_flag as u32,
        is_ordered: config.order,
        attributes: config.attributes.clone(),
    })
}

/// Offsets that are new or another, in records of bounded size. Those that vanished stay: Apache
/// drops them with their topic or group, or because nobody has used them for long.
fn offsets(before: &ConfigTables, now: &BTreeMap<String, BTreeMap<i32, i64>>) -> Vec<StateRecord> {
    let mut changed = Vec::new();
    for (key, queues) in now {
        // Neither name has an `@`.
        let Some((topic, group)) = key.split_once('@') else {
            tracing::warn!(key, "offsets of Apache's that belong to no topic and group");
            continue;
        };
        let known = before.offsets.get(key);
        let is_news =
            |queue: &i32, offset: &i64| known.and_then(|queues| queues.get(queue)) != Some(offset);
        let news = queues.iter().filter(|(queue, offset)| is_news(queue, offset));
        changed.extend(news.map(|(queue, offset)| CommittedOffset {
            group: group.to_owned(),
            topic: topic.to_owned(),
            queue: *queue,
            offset: *offset,
        }));
    }
    let chunks = changed.chunks(super::image::OFFSETS_PER_RECORD);
    chunks.map(|chunk| StateRecord::Offsets { offsets: chunk.to_vec() }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use weirmq_remoting::body::SubscriptionGroupConfig;
    use weirmq_store::{ManualClock, NewMessage, SimulatedDisk, Store, StoreConfig, Upkeep};

    use super::*;
    use crate::topics::Topics;

    fn open(disk: &SimulatedDisk, now_ms: i64) -> State {
        let config = StoreConfig {
            directory: "/data".into(),
            segment_bytes: 8192,
            message_bytes_max: 2000,
            upkeep: Upkeep {
                retention: Duration::ZERO,
                free_bytes_min: Some(0),
                ..Upkeep::default()
            },
            threads: false,
            ..StoreConfig::default()
        };
        let clock = Arc::new(ManualClock::at_ms(now_ms));
        let (store, _) = Store::open(config, Arc::new(disk.clone()), clock).unwrap();
        State::recover(store, Topics::with_system_topics("c", "b", None)).unwrap()
    }

    fn add_topic(state: &State, name: &str) {
        let config =
            TopicConfig { read_queue_nums: 1, write_queue_nums: 1, ..TopicConfig::default() };
        let record = StateRecord::Topic { topic: topic(name, &config).unwrap() };
        state.change(|| Some(record)).unwrap();
    }

    fn append(state: &State, topic: &str) {
        let message = NewMessage::plain(topic, 0, &[7; 1000]);
        state.store().append(&[message], &mut Vec::new()).unwrap();
    }

    #[test]
    fn a_topic_that_apache_deleted_has_no_messages_when_it_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let state = open(&SimulatedDisk::new(), 1_000_000);
        for name in ["kept", "gone"] {
            add_topic(&state, name);
            append(&state, name);
        }
        state.export(directory.path()).unwrap();
        let path = directory.path().join("config/topics.json");
        let text = std::fs::read(&path).unwrap();
        let mut tables: serde_json::Value = serde_json::from_slice(&text).unwrap();
        tables["topicConfigTable"].as_object_mut().unwrap().remove("gone").unwrap();
        std::fs::write(&path, tables.to_string()).unwrap();

        assert!(state.import(directory.path(), true).unwrap());
        add_topic(&state, "gone");
        assert_eq!(state.store().queue_range("gone", 0), None);
        assert_eq!(state.store().queue_range("kept", 0).unwrap().max, 1);
    }

    #[test]
    fn what_only_a_backup_does_not_know_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let state = open(&SimulatedDisk::new(), 1_000_000);
        add_topic(&state, "old");
        state.export(directory.path()).unwrap();
        add_topic(&state, "new");
        append(&state, "new");
        let group = || SubscriptionGroupConfig { group_name: "new".into(), ..Default::default() };
        state.change(|| Some(StateRecord::Group { group: Box::new(group()) })).unwrap();
        // The version before stays as backup.
        state.export(directory.path()).unwrap();
        for file in [ConfigFile::Topics, ConfigFile::Groups] {
            std::fs::write(directory.path().join("config").join(file.name()), "{").unwrap();
        }
        assert!(state.import(directory.path(), true).unwrap());
        assert!(state.topics.get("old").is_some() && state.topics.get("new").is_some());
        assert!(state.groups.get("new").is_some());
        assert_eq!(state.store().queue_range("new", 0).unwrap().max, 1);
        assert!(!state.import(directory.path(), true).unwrap(), "it was read once");
    }

    /// A closed directory of which the segments with the beginning of the state have expired, and
    /// what the broker exported.
    fn without_its_beginning(disk: &SimulatedDisk, topics_gone: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let state = open(disk, 1_000_000);
        for n in 0..60 {
            add_topic(&state, &format!("topic-{n}"));
            append(&state, "topic-0");
        }
        state.store().flush().unwrap();
        state.store().clone().close().unwrap();
        drop(state);
        let state = open(disk, 2_000_000);
        // As Apache does, which knows of nothing that has to stay.
        state.store().protect_from(u64::MAX);
        state.store().maintain().unwrap();
        state.store().delete_queues(topics_gone, 0).unwrap();
        state.export(directory.path()).unwrap();
        state.store().clone().close().unwrap();
        directory
    }

    #[test]
    fn a_state_of_which_nothing_is_left_comes_from_the_files() {
        let disk = SimulatedDisk::new();
        let directory = without_its_beginning(&disk, &[crate::topics::STATE_TOPIC]);
        let state = open(&disk, 2_000_000);
        assert!(!state.is_logged() && state.topics.get("topic-0").is_none());
        // Topics that nobody knows yet are not unused.
        assert!(state.lacks_beginning() && state.delete_unused_queues().unwrap().is_none());
        assert!(state.import(directory.path(), false).unwrap());
        assert!(state.is_logged() && state.topics.get("topic-0").is_some());
        assert_eq!(state.delete_unused_queues().unwrap(), Some(Vec::new()));
        assert!(state.store().queue_range("topic-0", 0).is_some_and(|range| range.max > 0));
    }

    #[test]
    fn a_state_that_lost_its_beginning_keeps_what_a_backup_does_not_know() {
        let disk = SimulatedDisk::new();
        let directory = without_its_beginning(&disk, &[]);
        let state = open(&disk, 2_000_000);
        assert!(!state.is_complete() && state.topics.get("topic-59").is_some());
        let config = directory.path().join("config");
        std::fs::write(config.join("topics.json"), "{").unwrap();
        let before = br#"{"topicConfigTable":{"topic-0":{"topicName":"topic-0"}}}"#;
        std::fs::write(config.join("topics.json.bak"), before).unwrap();
        assert!(state.import(directory.path(), false).unwrap());
        assert!(state.topics.get("topic-0").is_some() && state.topics.get("topic-59").is_some());
    }

    #[test]
    fn a_state_that_lost_its_beginning_needs_every_file() {
        let disk = SimulatedDisk::new();
        let directory = without_its_beginning(&disk, &[]);
        let state = open(&disk, 2_000_000);
        assert!(!state.is_complete());
        let path = directory.path().join("config/consumerOffset.json");
        std::fs::remove_file(&path).unwrap();
        let refused = state.import(directory.path(), false).unwrap_err().to_string();
        assert!(refused.contains("consumerOffset.json is missing"), "{refused}");
        assert!(!state.is_complete());
        std::fs::write(&path, "{}").unwrap();
        assert!(state.import(directory.path(), false).unwrap());
        assert!(state.is_complete() && state.topics.get("topic-0").is_some());
    }
}
