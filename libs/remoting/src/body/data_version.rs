//! The version stamp of every replicated table.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::bodies;

/// How new a table is: the topics, the groups or the offsets of a broker.
/// Source: `org.apache.rocketmq.remoting.protocol.DataVersion`.
///
/// Ordered as Apache's `compare`: by state version, then counter, then time. Equal versions mean
/// equal tables only for one and the same broker group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DataVersion {
    /// Changes of the table since it began.
    pub counter: i64,
    /// The epoch of the master (in controller mode) that made the last change, else 0.
    pub state_version: i64,
    /// When the last change happened, in milliseconds since 1970. Apache's default is the time of
    /// construction, ours is 0: a body without it must not look new each time it is read.
    pub timestamp: i64,
}

bodies!(DataVersion);

impl DataVersion {
    /// The version of a table that begins now.
    pub fn starting_at(now_ms: i64) -> Self {
        Self { counter: 0, state_version: 0, timestamp: now_ms }
    }

    /// Marks one more change.
    pub fn advance(&mut self, state_version: i64, now_ms: i64) {
        self.timestamp = now_ms;
        self.state_version = state_version;
        self.counter = self.counter.wrapping_add(1);
    }
}

impl Ord for DataVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |version: &Self| (version.state_version, version.counter, version.timestamp);
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for DataVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_master_outranks_any_number_of_changes() {
        let old = DataVersion { counter: 900, state_version: 1, timestamp: 99 };
        let mut new = DataVersion { counter: 0, state_version: 1, timestamp: 5 };
        assert!(new < old);
        new.advance(2, 6);
        assert!(new > old);
        assert_eq!(new, DataVersion { counter: 1, state_version: 2, timestamp: 6 });
    }
}
