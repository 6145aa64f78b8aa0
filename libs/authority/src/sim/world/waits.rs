//! How long a group is without what it is for, while nothing goes wrong but that one of its members is gone.

use std::time::Duration;

use super::World;
use crate::Replication;
use crate::sim::check::{Problem, Rule};
use crate::sim::node::Node;

/// How long a hand-over may take in which nothing goes wrong, with disks that take up to 3 s for a promise.
const HAND_OVER: Duration = Duration::from_secs(12);

/// Since when there is nothing of what a group is for.
#[derive(Default)]
pub(super) struct Waiting {
    unserved_since: Duration,
    unacknowledged_since: Duration,
    acknowledged: u64,
}

impl World {
    /// From here on it counts for how long nobody serves.
    pub(super) fn begin_to_wait(&mut self) {
        let acknowledged = self.check.summary.acknowledged;
        let (unserved_since, unacknowledged_since) = (self.now, self.now);
        self.waiting = Waiting { unserved_since, unacknowledged_since, acknowledged };
    }

    /// Notes who serves now. Where somebody has to be told to take over it takes as long as that, and where
    /// the record forked nobody need serve.
    pub(super) fn note_waits(&mut self) {
        if !self.settings.takes_over || self.objects.is_forked {
            return;
        }
        let (now, acknowledged) = (self.now, self.check.summary.acknowledged);
        let (waiting, waits) = (&mut self.waiting, &mut self.check.summary.waits);
        if self.nodes.iter().any(|node| node.may_append(now)) {
            waiting.unserved_since = now;
        }
        if acknowledged > waiting.acknowledged {
            (waiting.unacknowledged_since, waiting.acknowledged) = (now, acknowledged);
        }
        waits.unserved = waits.unserved.max(now - waiting.unserved_since);
        waits.unacknowledged = waits.unacknowledged.max(now - waiting.unacknowledged_since);
    }

    /// A master is asked to hand over and nothing goes wrong, so it takes a moment only.
    pub(super) fn hand_over_in_peace(&mut self) -> Result<(), Problem> {
        let leads = |node: &Node| node.leading.is_some() && node.writing.is_none();
        let Some(master) = self.nodes.iter().position(leads) else { return Ok(()) };
        // The log is told first what this one knows.
        self.log_offsets(master)?;
        let node = &mut self.nodes[master];
        let (local, begin) = (node.local(self.now), self.now);
        let epoch = node.leading.unwrap_or(0);
        if !node.replica.as_mut().is_some_and(|replica| replica.hand_over(local, None)) {
            return Ok(());
        }
        self.check.summary.handovers += 1;
        self.act(master)?;
        while self.check.acknowledged_epoch <= epoch && self.now < begin + HAND_OVER {
            self.step()?;
        }
        let ((_, record), _) = self.objects.read();
        // A connection may be lost at any time, and then the master goes on. Without a lease, and with nobody
        // who vouches for the heir in its place, it has to wait for one.
        let is_prompt =
            self.settings.continue_without_lease || self.settings.replication == Replication::Sync;
        if record.epoch > epoch && is_prompt {
            let took = self.now - begin;
            if took >= HAND_OVER {
                return Err(Rule::Serves.broken(format!("a hand-over takes longer than {took:?}")));
            }
            self.check.summary.waits.handed_over = took;
        }
        self.become_whole(&|_| true)
    }
}
