//! Requests to the authority that are not answered yet.

use std::time::Duration;

use super::{Action, Replica};
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
            self.next_read = now;
            if asking.swap.is_none() {
                self.read_failed();
            }
        }
        self.lease.give_up(now, timeout);
    }

    pub(super) fn ask_to_swap(&mut self, now: Duration, record: Record) {
        let Some((Some(expected), _)) = self.record.clone() else { return };
        let request = self.request();
        self.asking = Some(Asking { request, sent: now, swap: Some(record.clone()) });
        self.actions.push(Action::SwapRecord { request, expected, record });
    }

    pub(super) fn request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }
}
