//! Requests to the authority that are not answered yet.

use std::time::Duration;

use super::{Action, Part, Replica};
use crate::Record;

/// A request without an answer: a read, or a swap of the record to `swap`.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) request: u64,
    pub(super) sent: Duration,
    pub(super) swap: Option<Record>,
}

impl Replica {
    pub(super) fn read_failed(&mut self) {
        self.is_current = false;
        self.lease.read_failed();
        self.campaigning_since = None;
    }

    pub(super) fn give_up_requests(&mut self, now: Duration) {
        let timeout = self.settings.request_timeout;
        let is_late = |asking: &mut Asking| now.saturating_sub(asking.sent) >= timeout;
        if let Some(asking) = self.asking.take_if(is_late) {
            self.is_current = false;
            self.must_read = true;
            if asking.swap.is_none() {
                self.read_failed();
            }
        }
        self.lease.give_up(now, timeout);
    }

    /// Whether record and lease are to be read. Whoever hears its master, or holds the lease, is
    /// told of changes and looks rarely.
    pub(super) fn is_read_due(&self, now: Duration) -> bool {
        let is_quiet = self.is_current
            && match &self.part {
                Part::Waiting => false,
                Part::Follower { master, .. } => {
                    self.peers.get(&master.replica).is_some_and(|peer| {
                        // Before it is missed: from then on it counts when the lease was seen.
                        now.saturating_sub(peer.heard) < 2 * self.settings.tick_every
                            && self.hears_master(now)
                    })
                }
                Part::Master(_) => self.is_lease_fresh(now),
            };
        let every = if is_quiet { self.settings.read_every } else { self.settings.tick_every };
        self.must_read || now.saturating_sub(self.last_read) >= every
    }

    pub(super) fn ask_to_read(&mut self, now: Duration) {
        let request = self.request();
        self.asking = Some(Asking { request, sent: now, swap: None });
        (self.must_read, self.last_read) = (false, now);
        self.actions.push(Action::Read { request });
    }

    pub(super) fn ask_to_swap(&mut self, now: Duration, record: Record) {
        let Some((Some(expected), known)) = self.record.clone() else { return };
        if record.epoch > known.epoch && record.master == Some(self.me) {
            self.campaigned = record.epoch;
        }
        let request = self.request();
        self.asking = Some(Asking { request, sent: now, swap: Some(record.clone()) });
        self.actions.push(Action::SwapRecord { request, expected, record });
    }

    pub(super) fn request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }
}
