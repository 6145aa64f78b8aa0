//! The consumer groups of this broker and their settings: a state table.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
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

/// All groups. Readers take a snapshot without a lock; writers are serialised by the state log.
pub(crate) struct Groups {
    by_name: ArcSwap<HashMap<String, Arc<SubscriptionGroupConfig>>>,
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
        Self { by_name: ArcSwap::from_pointee(system.collect()) }
    }
}

impl Groups {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        self.by_name.load().get(name).cloned()
    }

    /// Every group at this moment, system groups included.
    pub(crate) fn all(&self) -> Arc<HashMap<String, Arc<SubscriptionGroupConfig>>> {
        self.by_name.load_full()
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
        self.by_name.load().len()
    }

    pub(crate) fn put(&self, group: SubscriptionGroupConfig) {
        let mut changed = HashMap::clone(&self.by_name.load());
        changed.insert(group.group_name.clone(), Arc::new(group));
        self.by_name.store(Arc::new(changed));
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut changed = HashMap::clone(&self.by_name.load());
        changed.remove(name);
        self.by_name.store(Arc::new(changed));
    }

    /// Replaces everything that came from the log.
    pub(crate) fn replace(&self, groups: Vec<SubscriptionGroupConfig>) {
        let system = Self::default();
        let mut changed = HashMap::clone(&system.by_name.load());
        changed.extend(groups.into_iter().map(|group| (group.group_name.clone(), Arc::new(group))));
        self.by_name.store(Arc::new(changed));
    }
}

/// Whether a group belongs to RocketMQ's own machinery. Source: `MixAll.isSysConsumerGroup`.
pub(crate) fn is_system(name: &str) -> bool {
    SYSTEM_GROUPS.contains(&name) || name.starts_with("CID_RMQ_SYS_")
}
