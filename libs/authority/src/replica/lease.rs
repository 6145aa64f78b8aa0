//! The lease, as one replica sees it.

use std::time::Duration;

use super::{Action, Part, Replica, Swapped, Version};
use crate::{Lease, Member};

/// What is known of the lease.
#[derive(Debug, Default)]
pub(super) struct LeaseView {
    known: Option<(Version, Lease)>,
    /// Whether nothing was asked for since it was read or swapped.
    is_current: bool,
    /// Since when it has been seen unchanged, without a failed read in between.
    unchanged_since: Option<Duration>,
    /// When the last lease that is ours was asked for.
    held: Option<Duration>,
    asking: Option<Asking>,
    /// When the last answer came.
    answered: Duration,
}

#[derive(Debug)]
struct Asking {
    request: u64,
    sent: Duration,
    lease: Lease,
}

impl LeaseView {
    pub(super) fn is_asked_for(&self) -> bool {
        self.asking.is_some()
    }

    pub(super) fn holder(&self) -> Option<Member> {
        self.known.as_ref()?.1.holder
    }

    /// A read that was sent at `sent` found this.
    pub(super) fn read(&mut self, now: Duration, sent: Duration, found: (Version, Lease)) {
        // What it found may be older than what was swapped meanwhile.
        if self.asking.is_none() && sent >= self.answered {
            self.see(now, found);
        }
    }

    /// Whoever could not look cannot say how long nothing changed.
    pub(super) fn read_failed(&mut self) {
        self.unchanged_since = None;
    }

    pub(super) fn give_up(&mut self, now: Duration, timeout: Duration) {
        if self.asking.take_if(|asking| now.saturating_sub(asking.sent) >= timeout).is_some() {
            self.is_current = false;
            self.answered = now;
        }
    }

    fn see(&mut self, now: Duration, (version, lease): (Version, Lease)) {
        let is_new = self.known.as_ref().is_none_or(|(known, _)| *known != version);
        if is_new || self.unchanged_since.is_none() {
            self.unchanged_since = Some(now);
        }
        self.known = Some((version, lease));
        self.is_current = true;
    }
}

impl Replica {
    /// The answer to [`Action::SwapLease`].
    pub fn lease_swapped(&mut self, now: Duration, request: u64, swapped: Swapped) {
        let view = &mut self.lease;
        let asking = view.asking.take_if(|asking| asking.request == request);
        let Some(Asking { sent, lease, .. }) = asking else { return };
        view.answered = now;
        match swapped {
            Swapped::Won(version) => {
                view.held = (lease.holder == Some(self.me)).then_some(sent);
                view.see(now, (version, lease));
            }
            Swapped::Lost | Swapped::Unknown => {
                view.is_current = false;
                self.must_read = true;
            }
        }
    }

    /// Takes the lease or renews it.
    pub(super) fn take_lease(&mut self, now: Duration) {
        self.give_lease(now, self.me);
    }

    /// Renews the lease when that is due, and takes it where it is free.
    pub(super) fn renew(&mut self, now: Duration) {
        let is_due = |held| now.saturating_sub(held) >= self.settings.renew_every;
        let is_wanted = match self.lease.holder() {
            Some(holder) if holder == self.me => self.lease.held.is_none_or(is_due),
            _ => self.is_lease_free(now),
        };
        if is_wanted {
            self.take_lease(now);
        }
    }

    /// Passes a lease that is of no use here to the master that is heard.
    pub(super) fn pass_lease_on(&mut self, now: Duration) {
        if let Part::Follower { master, .. } = self.part
            && self.lease.holder() == Some(self.me)
            && self.hears_master(now)
        {
            self.give_lease(now, master);
        }
    }

    pub(super) fn is_lease_free(&self, now: Duration) -> bool {
        let Some((_, lease)) = &self.lease.known else { return false };
        let is_over = |since| now.saturating_sub(since) >= self.settings.lease;
        let is_over = self.lease.unchanged_since.is_some_and(is_over);
        // Without a holder although there was a master: somebody deleted it.
        let is_first = self.record().is_none_or(|record| record.epoch == 0);
        let Some(holder) = lease.holder else { return is_first || is_over };
        let is_own = holder.replica == self.me.replica && self.starts.contains(&holder.incarnation);
        is_own && self.has_listened(now) || is_over || self.has_given_up_lease(holder)
    }

    /// Whether the record's master would have been heard by now. An earlier start may have handed its office
    /// over: the lease is in its name until whom it was given to takes it, and that one is not connected
    /// when this one starts.
    fn has_listened(&self, now: Duration) -> bool {
        let master = self.record().and_then(|record| record.master);
        master.is_none_or(|master| master.replica == self.me.replica)
            || now.saturating_sub(self.started) >= self.settings.link_timeout
    }

    /// Whether the holder is the record's master and gave that office up. It never needs a lease again, and a
    /// renewal that is still on its way makes the swap fail that takes it.
    fn has_given_up_lease(&self, holder: Member) -> bool {
        self.record()
            .is_some_and(|record| record.master == Some(holder) && self.has_given_up(record))
    }

    /// Whether the lease was taken so lately that nobody else can have it.
    pub(super) fn is_lease_fresh(&self, now: Duration) -> bool {
        self.lease_until().is_some_and(|until| now < until)
    }

    /// Until when nobody else can have the lease that was taken last.
    pub(super) fn lease_until(&self) -> Option<Duration> {
        self.lease.held.map(|sent| sent + self.settings.step_down)
    }

    fn give_lease(&mut self, now: Duration, holder: Member) {
        if self.lease.asking.is_some() || !self.lease.is_current {
            return;
        }
        let Some((expected, known)) = self.lease.known.clone() else { return };
        let lease = known.taken_by(holder);
        if holder != self.me {
            self.lease.held = None;
        }
        let request = self.request();
        self.lease.asking = Some(Asking { request, sent: now, lease });
        self.actions.push(Action::SwapLease { request, expected, lease });
    }
}
