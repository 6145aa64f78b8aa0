//! The consumer groups of this broker and their settings: a state table.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use weirmq_remoting::body::SubscriptionGroupConfig;

/// Groups that exist in every broker. Source: `SubscriptionGroupManager.init`.
const SYSTEM_GROUPS: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// All groups. The lock is held for one look-up or one change; writers are serialised by the state
/// log.
pub(crate) struct Groups {
    by_name: RwLock<HashMap<String, Arc<SubscriptionGroupConfig>>>,
}

impl Default for Groups {
    fn default() -> Self {
        let system = SYSTEM_GROUPS.iter().map(|name| {
            let config = SubscriptionGroupConfig {
                group_name: (*name).into(),
                consume_broadcast_enable: true,
                ..SubscriptionGroupConfig::default()
            };
            ((*name).to_owned(), Arc::new(config))
        });
        Self { by_name: RwLock::new(system.collect()) }
    }
}

impl Groups {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        self.by_name.read().get(name).cloned()
    }

    /// Every group at this moment, system groups included.
    pub(crate) fn all(&self) -> HashMap<String, Arc<SubscriptionGroupConfig>> {
        self.by_name.read().clone()
    }

    /// The groups that the log knows, for images and exports.
    pub(crate) fn logged(&self) -> Vec<Arc<SubscriptionGroupConfig>> {
        let all = self.all();
        let mut groups: Vec<_> =
            all.values().filter(|group| !is_system(&group.group_name)).cloned().collect();
        groups.sort_by(|a, b| a.group_name.cmp(&b.group_name));
        groups
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.read().len()
    }

    pub(crate) fn put(&self, group: SubscriptionGroupConfig) {
        self.by_name.write().insert(group.group_name.clone(), Arc::new(group));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.by_name.write().remove(name);
    }

    /// Forgets everything that came from the log.
    pub(crate) fn clear_logged(&self) {
        let system = Self::default();
        *self.by_name.write() = system.by_name.into_inner();
    }
}

/// Whether a group belongs to RocketMQ's own machinery. Source: `MixAll.isSysConsumerGroup`.
pub(crate) fn is_system(name: &str) -> bool {
    SYSTEM_GROUPS.contains(&name) || name.starts_with("CID_RMQ_SYS_")
}
