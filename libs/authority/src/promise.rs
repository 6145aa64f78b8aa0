//! What a replica must not forget.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, Members, ReplicaId, Tag};

/// How many starts are remembered where none of them is in the record.
const HELD_MAX: usize = 8;

/// A replica's small file beside its log. Durable before anything that follows from it is done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Promise {
    /// The highest epoch that it led or followed. It obeys no lower one.
    pub epoch: u64,
    /// The version of the newest record that it obeyed, and its tag. It obeys only records that
    /// came from that one.
    #[serde(default)]
    pub in_sync_version: u64,
    #[serde(default)]
    pub tag: Option<Tag>,
    /// The starts whose confirmed bytes are all still in the log, this one last.
    pub holds: Vec<Incarnation>,
}

impl Promise {
    /// The promise of a new start.
    ///
    /// `is_lossless` says that nothing which earlier starts confirmed can be missing: they flushed
    /// before they confirmed, or the machine has not been booted since. Without it, or with a
    /// damaged log, nothing is held any more.
    pub fn at_start(before: Option<Self>, is_lossless: bool, incarnation: Incarnation) -> Self {
        let mut promise = before.unwrap_or_default();
        if !is_lossless {
            promise.holds.clear();
        }
        promise.holds.push(incarnation);
        promise
    }

    /// Forgets starts that nobody counts on: those before the one in a set of the record. A later
    /// one may be on its way into the record.
    pub(crate) fn prune(&mut self, replica: ReplicaId, sets: [&Members; 2]) {
        let listed = sets.into_iter().filter_map(|set| set.incarnation_of(replica));
        let places = listed.filter_map(|listed| self.holds.iter().position(|held| *held == listed));
        let surplus = self.holds.len().saturating_sub(HELD_MAX);
        self.holds.drain(..places.min().unwrap_or(surplus));
    }
}
