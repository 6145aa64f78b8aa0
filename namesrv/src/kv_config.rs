//! The KV configuration: texts by namespace and key, kept in `kvConfig.json` in Apache's layout,
//! `{"configTable":{"namespace":{"key":"value"}}}`. Source: `KVConfigManager`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use weirmq_remoting::body::{Body, KVTable};

/// Apache's name of the file.
pub(crate) const FILE_NAME: &str = "kvConfig.json";
/// The namespace that says how the queues of ordered topics are spread.
/// Source: `NamesrvUtil.NAMESPACE_ORDER_TOPIC_CONFIG`.
pub(crate) const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";
/// The longest namespace and the longest key, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// A file larger than this is not ours.
const FILE_BYTES_MAX: u64 = 2 << 30;

type Table = BTreeMap<String, BTreeMap<String, String>>;

/// Why the KV configuration cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error("{action} {}: {error}", path.display())]
    Io { action: &'static str, path: PathBuf, error: io::Error },
    #[error("{} is not a KV configuration: {problem}; repair it or move it away", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("{field} is {length} bytes, the limit is {max} and it cannot be empty")]
    Length { field: &'static str, length: usize, max: usize },
    #[error("the KV configuration has {limit} entries, which is the limit (limits.kv_entries_max)")]
    TooManyEntries { limit: usize },
    #[error(
        "the KV configuration would have {bytes} bytes, the limit is {limit} (limits.kv_bytes_max)"
    )]
    TooLarge { bytes: usize, limit: usize },
}

pub(crate) struct KvConfig {
    /// What readers see: only what is on the disk.
    table: RwLock<Table>,
    file: Option<PathBuf>,
    /// Held while a change is written; changes happen one after the other.
    change: tokio::sync::Mutex<()>,
    entries_max: usize,
    bytes_max: usize,
}

/// The layout of the file. Source: `KVConfigSerializeWrapper`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileLayout<T> {
    config_table: T,
}

impl KvConfig {
    /// Reads `kvConfig.json` in `directory`, which is made when it is missing; without a directory
    /// the configuration is empty and stays in memory.
    pub(crate) fn open(
        directory: Option<&Path>,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Self, KvError> {
        let file = directory.map(|directory| directory.join(FILE_NAME));
        let table = match (directory, &file) {
            (Some(directory), Some(file)) => {
                fs::create_dir_all(directory).map_err(|error| KvError::Io {
                    action: "create directory",
                    path: directory.to_owned(),
                    error,
                })?;
                load(file)?
            }
            _ => Table::new(),
        };
        let change = tokio::sync::Mutex::new(());
        Ok(Self { table: RwLock::new(table), file, change, entries_max, bytes_max })
    }

    /// Sets an entry. On return it is on the disk.
    pub(crate) async fn put(&self, namespace: &str, key: &str, value: &str) -> Result<(), KvError> {
        check_name("namespace", namespace)?;
        check_name("key", key)?;
        self.change(|table| {
            let entries = table.entry(namespace.to_owned()).or_default();
            let previous = entries.insert(key.to_owned(), value.to_owned());
            previous.as_deref() != Some(value)
        })
        .await
    }

    /// Removes an entry, or does nothing when there is none.
    pub(crate) async fn delete(&self, namespace: &str, key: &str) -> Result<(), KvError> {
        self.change(|table| {
            table.get_mut(namespace).is_some_and(|entries| entries.remove(key).is_some())
        })
        .await
    }

    /// Lets `read` see the value of an entry.
    pub(crate) fn read<T>(
        &self,
        namespace: &str,
        key: &str,
        read: impl FnOnce(Option<&str>) -> T,
    ) -> T {
        let table = self.table.read();
        read(table.get(namespace).and_then(|entries| entries.get(key)).map(String::as_str))
    }

    /// All entries of a namespace as a body; `None` when there never was one.
    pub(crate) fn list(&self, namespace: &str) -> Option<Vec<u8>> {
        let table = self.table.read().get(namespace)?.clone();
        Some(KVTable { table }.encode())
    }

    pub(crate) fn entry_count(&self) -> usize {
        self.table.read().values().map(BTreeMap::len).sum()
    }

    /// Applies `change`, which says whether it changed anything, to a copy, writes the copy, and
    /// then shows it. Changes are rare and the table is small.
    async fn change(&self, change: impl FnOnce(&mut Table) -> bool) -> Result<(), KvError> {
        let _one_at_a_time = self.change.lock().await;
        let mut next = self.table.read().clone();
        if !change(&mut next) {
            return Ok(());
        }
        self.check_size(&next)?;
        if let Some(file) = self.file.clone() {
            let json = encode(&next);
            let write = tokio::task::spawn_blocking(move || replace_file(&file, &json)).await;
            write.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        }
        *self.table.write() = next;
        Ok(())
    }

    fn check_size(&self, next: &Table) -> Result<(), KvError> {
        let (mut count, mut bytes) = (0, 0);
        for (namespace, entries) in next {
            bytes += namespace.len();
            count += entries.len();
            bytes += entries.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        }
        if count > self.entries_max {
            return Err(KvError::TooManyEntries { limit: self.entries_max });
        }
        if bytes > self.bytes_max {
            return Err(KvError::TooLarge { bytes, limit: self.bytes_max });
        }
        Ok(())
    }
}

fn check_name(field: &'static str, name: &str) -> Result<(), KvError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(KvError::Length { field, length: name.len(), max: NAME_BYTES_MAX });
    }
    Ok(())
}

fn encode(table: &Table) -> Vec<u8> {
    // Maps of texts can always be written.
    serde_json::to_vec(&FileLayout { config_table: table }).unwrap_or_default()
}

fn load(file: &Path) -> Result<Table, KvError> {
    let failed = |error| KvError::Io { action: "read", path: file.to_owned(), error };
    let damaged = |problem: String| KvError::Damaged { path: file.to_owned(), problem };
    let length = match fs::metadata(file) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::new()),
        Err(error) => return Err(failed(error)),
    };
    if length > FILE_BYTES_MAX {
        return Err(damaged(format!("it has {length} bytes")));
    }
    let json = fs::read(file).map_err(failed)?;
    // Apache counts an empty file as an empty configuration.
    if json.is_empty() {
        return Ok(Table::new());
    }
    let layout: FileLayout<Table> =
        serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    Ok(layout.config_table)
}

/// Replaces `file`: a crash leaves either the old content or the new.
fn replace_file(file: &Path, content: &[u8]) -> Result<(), KvError> {
    let temporary = file.with_extension("json.tmp");
    let step = |action, path: &Path| {
        let path = path.to_owned();
        move |error| KvError::Io { action, path, error }
    };
    let mut open = File::create(&temporary).map_err(step("create", &temporary))?;
    open.write_all(content).map_err(step("write", &temporary))?;
    open.sync_all().map_err(step("flush", &temporary))?;
    fs::rename(&temporary, file).map_err(step("rename", &temporary))?;
    let directory = file.parent().unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(step("flush directory", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kv: &KvConfig, namespace: &str, key: &str) -> Option<String> {
        kv.read(namespace, key, |value| value.map(str::to_owned))
    }

    #[tokio::test]
    async fn what_was_put_is_there_after_a_restart_in_apaches_layout() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("namesrv");
        let kv = KvConfig::open(Some(&home), 10, 1000).unwrap();
        kv.put(ORDER_TOPIC_CONFIG, "t", "broker-a:4").await.unwrap();
        kv.put("ns", "gone", "x").await.unwrap();
        kv.put("ns", "kept", "quote \" and 中文").await.unwrap();
        kv.delete("ns", "gone").await.unwrap();
        kv.delete("ns", "never").await.unwrap();
        let json = fs::read_to_string(home.join(FILE_NAME)).unwrap();
        assert!(json.starts_with(r#"{"configTable":{"ORDER_TOPIC_CONFIG":{"t":"broker-a:4"}"#));
        let kv = KvConfig::open(Some(&home), 10, 1000).unwrap();
        assert_eq!(value(&kv, "ns", "kept").as_deref(), Some("quote \" and 中文"));
        assert_eq!(value(&kv, "ns", "gone"), None);
        assert_eq!(kv.entry_count(), 2);
        assert_eq!(kv.list(ORDER_TOPIC_CONFIG).unwrap(), br#"{"table":{"t":"broker-a:4"}}"#);
        assert_eq!(kv.list("unknown"), None);
    }

    #[tokio::test]
    async fn limits_are_kept_and_a_refused_change_leaves_no_trace() {
        let kv = KvConfig::open(None, 1, 100).unwrap();
        kv.put("ns", "a", "1").await.unwrap();
        kv.put("ns", "a", "2").await.unwrap();
        let refused = kv.put("ns", "b", "1").await.unwrap_err();
        assert!(matches!(refused, KvError::TooManyEntries { limit: 1 }));
        let refused = kv.put("ns", "a", &"x".repeat(200)).await.unwrap_err();
        assert!(matches!(refused, KvError::TooLarge { .. }));
        for bad in ["", &"n".repeat(256)] {
            assert!(matches!(kv.put(bad, "k", "").await, Err(KvError::Length { .. })));
        }
        assert_eq!(value(&kv, "ns", "a").as_deref(), Some("2"));
        assert_eq!(kv.entry_count(), 1);
    }

    #[test]
    fn a_damaged_file_stops_the_start_and_names_itself() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE_NAME);
        fs::write(&file, b"").unwrap();
        assert_eq!(KvConfig::open(Some(directory.path()), 1, 1).unwrap().entry_count(), 0);
        fs::write(&file, b"{\"configTable\":{").unwrap();
        let error = KvConfig::open(Some(directory.path()), 1, 1).err().unwrap().to_string();
        assert!(error.contains(FILE_NAME) && error.contains("repair it"), "{error}");
    }
}
