//! What a replica must not forget.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, Members, ReplicaId};

/// A replica's small file beside its log. Durable before anything that follows from it is done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Promise {
    /// The highest epoch that it led or followed. It obeys no lower one.
    pub epoch: u64,
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

    /// Forgets starts that nobody counts on: all but the last and those in a set of the record.
    pub(crate) fn prune(&mut self, replica: ReplicaId, sets: [&Members; 2]) {
        let last = self.holds.last().copied();
        self.holds.retain(|held| {
            Some(*held) == last || sets.iter().any(|set| set.incarnation_of(replica) == Some(*held))
        });
    }
}
