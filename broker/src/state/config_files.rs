//! Apache's `config/*.json`: four files that together say what our state says.
//!
//! Reading is Apache's `ConfigManager.load`: a file that is missing, empty or broken is replaced by
//! its `.bak`. Layouts: `TopicConfigManager`, `SubscriptionGroupManager`, `ConsumerOffsetManager`,
//! `ScheduleMessageService`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use weirmq_remoting::body::{
    Body, BodyError, ConsumerOffsetSerializeWrapper, DelayOffsetSerializeWrapper,
    SubscriptionGroupConfig, SubscriptionGroupWrapper, TopicConfig, TopicConfigSerializeWrapper,
};

/// One of the files, by its name in `config/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfigFile {
    Topics,
    Groups,
    Offsets,
    DelayOffsets,
}

/// What one file, or all of them together, say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ConfigTables {
    pub topics: BTreeMap<String, TopicConfig>,
    pub groups: BTreeMap<String, SubscriptionGroupConfig>,
    /// `topic@group` → queue id → offset.
    pub offsets: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Delay level → queue offset.
    pub delay_offsets: BTreeMap<i32, i64>,
    /// Group → topic → bits. Nothing here acts on it; exports keep it.
    pub forbidden: BTreeMap<String, BTreeMap<String, i32>>,
}

/// What a file, or its backup, holds.
#[derive(Debug, PartialEq)]
pub(super) struct Contents {
    pub bytes: Vec<u8>,
    /// It is the `.bak`, so it misses what the file had that is missing or broken.
    pub is_backup: bool,
}

/// Neither a file nor its `.bak` can be understood.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("cannot read {}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error(
        "{} was written by Apache's broker and cannot be understood: {error}; repair it, or remove \
         it to go without what it says", .path.display()
    )]
    Shape { path: PathBuf, error: BodyError },
}

impl ConfigFile {
    pub(super) const ALL: [Self; 4] =
        [Self::Topics, Self::Groups, Self::Offsets, Self::DelayOffsets];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Topics => "topics.json",
            Self::Groups => "subscriptionGroup.json",
            Self::Offsets => "consumerOffset.json",
            Self::DelayOffsets => "delayOffset.json",
        }
    }

    /// The name of the copy that we keep of what we exported or imported last.
    pub(super) fn copy_name(self) -> &'static str {
        match self {
            Self::Topics => "exported-topics.json",
            Self::Groups => "exported-subscriptionGroup.json",
            Self::Offsets => "exported-consumerOffset.json",
            Self::DelayOffsets => "exported-delayOffset.json",
        }
    }

    /// The contents of the file in a directory, or of its backup. `None` when there is neither.
    pub(super) fn read(self, directory: &Path) -> Result<Option<Contents>, ConfigFileError> {
        let path = directory.join(self.name());
        let mut broken = None;
        for (path, is_backup) in [(path.clone(), false), (suffixed(&path, ".bak"), true)] {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ConfigFileError::Read { path, error }),
            };
            if bytes.is_empty() {
                continue;
            }
            match self.decode(&bytes) {
                Ok(_) => return Ok(Some(Contents { bytes, is_backup })),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "file of Apache's is broken");
                    broken.get_or_insert(ConfigFileError::Shape { path, error });
                }
            }
        }
        broken.map_or(Ok(None), Err)
    }

    /// Reads fastjson's dialect; keys may be bare integers.
    pub(super) fn decode(self, contents: &[u8]) -> Result<ConfigTables, BodyError> {
        let mut tables = ConfigTables::default();
        match self {
            Self::Topics => {
                tables.topics = TopicConfigSerializeWrapper::decode(contents)?.topic_config_table;
            }
            Self::Groups => {
                let groups = SubscriptionGroupWrapper::decode(contents)?;
                tables.groups = groups.subscription_group_table;
                tables.forbidden = groups.forbidden_table;
            }
            Self::Offsets => {
                tables.offsets = ConsumerOffsetSerializeWrapper::decode(contents)?.offset_table;
            }
            Self::DelayOffsets => {
                tables.delay_offsets = DelayOffsetSerializeWrapper::decode(contents)?.offset_table;
            }
        }
        Ok(tables)
    }

    /// Replaces the file, durably up to the directory's entry; the version before stays as `.bak`,
    /// as with Apache.
    pub(super) fn replace(self, directory: &Path, contents: &[u8]) -> io::Result<()> {
        let path = directory.join(self.name());
        let temporary = suffixed(&path, ".tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        match fs::rename(&path, suffixed(&path, ".bak")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::rename(temporary, path)
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_or_empty_file_is_replaced_by_its_backup() {
        let folder = tempfile::tempdir().unwrap();
        let file = ConfigFile::DelayOffsets;
        assert_eq!(file.read(folder.path()).unwrap(), None);
        let path = folder.path().join("delayOffset.json");
        // As Apache writes it: keys are bare integers.
        let good = b"{\n\t\"offsetTable\":{1:5,\n3:7}\n}";
        fs::write(folder.path().join("delayOffset.json.bak"), good).unwrap();
        for contents in ["", "{\"offsetTable\":{1:"] {
            fs::write(&path, contents).unwrap();
            let read = file.read(folder.path()).unwrap().unwrap();
            assert!(read.is_backup);
            let decoded = file.decode(&read.bytes).unwrap();
            assert_eq!(decoded.delay_offsets, BTreeMap::from([(1, 5), (3, 7)]));
        }
        fs::remove_file(folder.path().join("delayOffset.json.bak")).unwrap();
        let refused = file.read(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("delayOffset.json") && refused.contains("repair"), "{refused}");
    }

    #[test]
    fn the_version_before_stays_as_backup() {
        let folder = tempfile::tempdir().unwrap();
        for contents in ["one", "two"] {
            ConfigFile::Topics.replace(folder.path(), contents.as_bytes()).unwrap();
        }
        let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((read("topics.json"), read("topics.json.bak")), ("two".into(), "one".into()));
    }
}
