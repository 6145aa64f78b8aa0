//! Which topics were created, changed or deleted lately, for those who tell others about it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// How many changes are remembered. A creation waits for a NameServer, so only one that is silent
/// for seconds falls behind by more.
const REMEMBERED_MAX: usize = 1 << 16;

/// Versions of the topic table: each change is one.
pub(crate) struct TopicChanges {
    version: watch::Sender<i64>,
    /// The names of the last changes, oldest first; the last one made today's version.
    recent: Mutex<VecDeque<Arc<str>>>,
}

impl TopicChanges {
    pub(crate) fn new() -> Self {
        Self { version: watch::Sender::new(1), recent: Mutex::default() }
    }

    /// Notes a change that the table already shows.
    pub(crate) fn note(&self, name: &str) {
        let mut recent = self.recent.lock();
        if recent.len() == REMEMBERED_MAX {
            recent.pop_front();
        }
        recent.push_back(name.into());
        self.version.send_modify(|version| *version += 1);
    }

    pub(crate) fn version(&self) -> i64 {
        *self.version.borrow()
    }

    /// Who waits for the next change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<i64> {
        self.version.subscribe()
    }

    /// The names of the topics that changed after `version`, in the order of their changes, and
    /// today's version. `None` when so much has changed that not all of it is remembered.
    pub(crate) fn since(&self, version: i64) -> Option<(Vec<Arc<str>>, i64)> {
        let recent = self.recent.lock();
        let now = self.version();
        let missed = usize::try_from(now - version).ok()?;
        let first = recent.len().checked_sub(missed)?;
        Some((recent.range(first..).cloned().collect(), now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_remembered_in_order_and_what_is_too_long_ago_is_not_guessed() {
        let changes = TopicChanges::new();
        let start = changes.version();
        for name in ["a", "b", "a"] {
            changes.note(name);
        }
        let (names, now) = changes.since(start).unwrap();
        assert_eq!(names, ["a", "b", "a"].map(Arc::from));
        assert_eq!(changes.since(now - 1).unwrap().0, [Arc::from("a")]);
        assert_eq!(changes.since(now).unwrap(), (Vec::new(), now));
        for _ in 0..REMEMBERED_MAX {
            changes.note("c");
        }
        assert_eq!(changes.since(now).unwrap().0.len(), REMEMBERED_MAX);
        assert!(changes.since(now - 1).is_none());
        assert!(changes.since(changes.version() + 1).is_none(), "a version that never was");
    }
}
