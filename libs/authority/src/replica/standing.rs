//! What a replica may do at the moment.

use std::time::Duration;

/// What a replica may do, for the threads that append and acknowledge: they look at the one that
/// was published last, together with the clock, at each append and again before each
/// acknowledgement. So a process that was stopped and goes on does not act on what was true before.
///
/// It can be used until then without another word from the [`crate::Replica`], which takes office away
/// only where that is safe with every standing that it gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    pub may_append: bool,
    /// Messages that end here or before may be acknowledged.
    pub acknowledged: u64,
    /// Consumers may see messages that end here or before; nothing while this is not known.
    pub visible: Option<u64>,
    /// The time on the replica's clock before which `may_append` holds: the end of the lease's
    /// step-down, or of the oldest echo that is counted on; `Duration::MAX` where neither is
    /// needed. With synchronous replication an append after it harms nobody, but it may never be
    /// acknowledged.
    pub until: Duration,
    /// The time before which `acknowledged` holds. With asynchronous replication that is `until`.
    /// With synchronous replication it is `Duration::MAX`: every member of the set has these
    /// messages, so whoever is master later has them as well.
    pub acknowledged_until: Duration,
}

impl Standing {
    /// Whether a message may be appended at this time.
    pub fn may_append_at(&self, now: Duration) -> bool {
        self.may_append && now < self.until
    }

    /// Messages that end here or before may be acknowledged at this time.
    pub fn acknowledged_at(&self, now: Duration) -> u64 {
        if now < self.acknowledged_until { self.acknowledged } else { 0 }
    }
}
