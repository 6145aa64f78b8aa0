//! Processes that are told to end.

use std::time::Duration;

use super::World;
use crate::Role;

/// How long a process waits for others until it ends all the same.
const PATIENCE: Duration = Duration::from_secs(2);

impl World {
    /// A process is told to end. A master hands over first.
    pub(super) fn end(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.writing.is_none() && node.leaving_since.is_none() {
            let local = node.local(self.now);
            let Some(replica) = &mut node.replica else { return };
            node.leaving_since = Some(self.now);
            if matches!(replica.role(), Role::Master { .. }) && replica.hand_over(local, None) {
                self.check.summary.handovers += 1;
            } else {
                replica.leave(local);
            }
        }
    }

    /// It ends once nobody would wait for it, or has waited for long enough.
    pub(super) fn end_if_due(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let Some(since) = node.leaving_since else { return };
        let local = node.local(self.now);
        let Some(replica) = &mut node.replica else { return };
        let is_late = self.now >= since + PATIENCE;
        if matches!(replica.role(), Role::Master { .. }) && !is_late {
            return;
        }
        replica.leave(local);
        if !is_late && replica.is_waited_for(local) {
            return;
        }
        let member = replica.me();
        let knows_set = replica.record().is_some_and(|record| !record.is_electable(member));
        self.check.summary.left += u64::from(knows_set);
        self.crash(place, false);
    }
}
