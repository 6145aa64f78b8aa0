//! Plain tables of texts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bodies;

/// Keys and values: runtime info (code 28), a namespace's configuration (219), and what a name
/// server answers to a registration. Source: `org.apache.rocketmq.remoting.protocol.body.KVTable`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KVTable {
    pub table: BTreeMap<String, String>,
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for KVTable {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let table = entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self { table }
    }
}

bodies!(KVTable);
