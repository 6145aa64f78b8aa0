//! What a follower does: it finds where its log parts from its master's, and takes the rest.

use std::time::Duration;

use weirmq_authority::{Member, Report};
use weirmq_store::StoreError;

use super::{Driver, DriverError, copy, kept, log_position};
use crate::replication::Restart;
use crate::replication::frame::{Fetch, Follow, Frame, Lead, LogBytes};

/// How often a follower asks its master again that did not answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// So many offsets go into one frame, fewer into the last, and so many frames on their way at once.
pub(super) const OFFSETS_PER_FRAME: usize = 1000;
const OFFSET_FRAMES: usize = 8;

/// Whom this replica follows.
pub(super) struct Following {
    pub(super) master: Member,
    pub(super) epoch: u64,
    /// Whether the log is the master's as far as it goes, so that what comes continues it.
    pub(super) is_aligned: bool,
    pub(super) asked: Option<Duration>,
    /// Where the master's log began then.
    pub(super) master_start: u64,
    /// Where the master's log ended when this one was aligned with it.
    pub(super) caught_up_at: u64,
    /// Whether the master knows what was committed here as a slave, or that there is nothing.
    pub(super) has_told_offsets: bool,
}

impl Driver {
    /// Asks the master to lead this replica, unless it was asked a moment ago.
    pub(super) fn ask_master(&mut self, is_new: bool) {
        let now = self.now();
        let Some(following) = &mut self.following else { return };
        if is_new {
            following.is_aligned = false;
        }
        let was_asked = following.asked.is_some_and(|asked| now < asked + ASK_AGAIN);
        if following.is_aligned || was_asked && !is_new {
            return;
        }
        if let Some(link) = self.links.get(&following.master.replica)
            && link.peer == following.master
        {
            following.asked = Some(now);
            link.send(Frame::Follow(Follow { epoch: following.epoch }));
        }
    }

    /// The master may say in this report for the first time that it leads. Whoever asked it before, having heard
    /// of its epoch from the authority or another replica, was refused, and asks again at once.
    pub(super) fn note_new_master(&mut self, report: &Report, before: Option<&Report>) {
        let said_so = |following: &Following, report: &Report| {
            report.from == following.master && report.leads == Some(following.epoch)
        };
        if let Some(following) = &mut self.following
            && said_so(following, report)
            && !before.is_some_and(|before| said_so(following, before))
        {
            following.asked = None;
        }
    }

    /// The master says what its log is. Its follower goes on where both are the same; for that it
    /// may have to cut its own, which takes a restart and is the end of this driver.
    pub(super) fn on_lead(&mut self, peer: Member, lead: Lead) -> Result<(), DriverError> {
        let now = self.now();
        let Some(following) = &mut self.following else { return Ok(()) };
        if following.master != peer || following.epoch != lead.epoch || following.is_aligned {
            return Ok(());
        }
        let store = &self.broker.store;
        let (start, end) = (store.min_offset(), store.max_offset());
        let is_empty = start == end;
        let is_same_log = store.store_id() == lead.store_id;
        if !is_same_log && !is_empty {
            let why = format!(
                "the log of replica {} has the id {}, this one {}; this directory belongs to \
                 another group, or its master was replaced by an empty one. Empty it to follow",
                peer.replica.0,
                lead.store_id,
                store.store_id()
            );
            self.shared.say(Err(why));
            return Ok(());
        }
        let common = self.epochs.common_end(end, &lead.epochs, lead.end);
        let parted = self.epochs.at(common).map_or(0, |epoch| epoch.epoch);
        if common < end && parted < lead.since && self.settings.is_by_quorum() {
            let why = format!(
                "this log goes on to {end}, the one of the new master, replica {}, only shares it up to \
                 {common}: a quorum may have acknowledged what is behind that. Make this replica the master, \
                 or give it up: empty the directory to follow",
                peer.replica.0
            );
            self.shared.say(Err(why));
            return Ok(());
        }
        let begin = Restart::BeginAt { start: lead.start, store_id: lead.store_id };
        // What comes before an image says nothing to a log without a beginning.
        let misses_state = !self.broker.state.is_complete() && end > lead.image;
        let restart = if is_empty {
            (!is_same_log || start != lead.start).then_some(begin)
        } else if common < lead.start || common < start || misses_state {
            // Nothing of this log is in the master's any more.
            Some(begin)
        } else {
            (common < end).then_some(Restart::CutAt(common))
        };
        if let Some(restart) = restart {
            tracing::warn!(
                ?restart,
                end,
                master = peer.replica.0,
                "the log has to be cut to follow"
            );
            self.broker.restart(restart);
            self.is_to_be_cut = true;
            return Ok(());
        }
        if is_empty {
            store.adopt_next_offsets(&lead.next_offsets)?;
        }
        self.epochs = lead.epochs;
        self.epochs.truncate(end);
        kept::write_epochs(store, &self.epochs)?;
        following.is_aligned = true;
        following.master_start = lead.start;
        following.caught_up_at = lead.end;
        let epoch = following.epoch;
        self.position = log_position(&self.broker, &self.epochs);
        self.replica.aligned(now, epoch, self.position);
        if let Some(link) = self.links.get(&peer.replica) {
            link.send(Frame::Fetch(Fetch { epoch, from: end }));
        }
        self.note_caught_up();
        self.offsets_passed = None;
        self.pass_offsets_on();
        Ok(())
    }

    pub(super) fn on_log(&mut self, peer: Member, log: LogBytes) -> Result<(), DriverError> {
        let is_wanted = self.following.as_ref().is_some_and(|following| {
            following.master == peer && following.epoch == log.epoch && following.is_aligned
        });
        if !is_wanted {
            return Ok(());
        }
        let before = self.broker.store.max_offset();
        match copy::take(&self.broker, &mut self.epochs, &log) {
            Ok(()) => {
                self.note_progress(before);
                self.log_moved();
                self.note_caught_up();
            }
            Err(DriverError::Store(StoreError::NoContinuation { position, reason })) => {
                self.ask_again_later(format!("what the master sent for {position}: {reason}"));
            }
            Err(DriverError::Store(
                error @ (StoreError::Full { .. }
                | StoreError::Busy { .. }
                | StoreError::TooLarge { .. }),
            )) => self.ask_again_later(error.to_string()),
            // A deletion that has to be noted first; the copy itself would say `Full`.
            Err(DriverError::Store(error)) if error.is_no_space() => {
                self.ask_again_later(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Says each GiB how far a replica is that has much to take.
    fn note_progress(&self, before: u64) {
        let Some(following) = &self.following else { return };
        let end = self.broker.store.max_offset();
        if before >> 30 != end >> 30 && end < following.caught_up_at {
            tracing::info!(end, of = following.caught_up_at, "taking the master's log");
        }
    }

    /// Takes nothing more before the master was asked anew, in a while; says why.
    fn ask_again_later(&mut self, why: String) {
        self.shared.say(Err(why));
        let now = self.now();
        if let Some(following) = &mut self.following {
            following.is_aligned = false;
            following.asked = Some(now);
        }
    }

    /// Notes that this replica has once had all that its master had: from then on it can tell what is
    /// not there from what it has not got yet.
    pub(super) fn note_caught_up(&mut self) {
        let Some(following) = &self.following else { return };
        if self.broker.store.max_offset() >= following.caught_up_at
            && self.broker.state.is_complete()
        {
            if !self.shared.is_state_known() {
                self.settle_at = Some(following.caught_up_at);
            }
            self.shared.knows_state();
            if self.complaint().is_none() {
                self.shared.say(Ok(()));
            }
        }
    }

    /// Sees to it that what consumers committed here as a slave gets into the log, again and again
    /// until it is there for good. A slave first hears of everything that was deleted before.
    pub(super) fn pass_offsets_on(&mut self) {
        let offsets = &self.broker.state.offsets;
        let must_tell =
            self.following.as_ref().is_some_and(|following| !following.has_told_offsets);
        let is_empty = offsets.at_slave(|at_slave| at_slave.is_empty());
        if is_empty && !must_tell || !self.shared.is_state_known() {
            return;
        }
        let visible = self.broker.store.watermarks().visible();
        match self.settle_at {
            Some(at) if visible < at && !is_empty => return,
            Some(_) => self.broker.settle_slave_offsets(),
            None => {}
        }
        self.settle_at = None;
        let now = self.now();
        if self.offsets_passed.is_some_and(|passed| now < passed + ASK_AGAIN) {
            return;
        }
        self.offsets_passed = Some(now);
        self.broker.forget_slave_offsets();
        let not_logged = || offsets.at_slave(|at_slave| at_slave.not_logged());
        if self.leading.is_some() {
            self.broker.take_slave_offsets(&not_logged());
        } else if let Some(following) = &mut self.following
            && following.is_aligned
            && self.broker.store.max_offset() >= following.caught_up_at
            && let Some(link) = self.links.get(&following.master.replica)
            && link.peer == following.master
        {
            // The rest has its turn when these are in the log.
            let all = not_logged();
            for some in all.chunks(OFFSETS_PER_FRAME).take(OFFSET_FRAMES) {
                link.send(Frame::Offsets(some.to_vec()));
            }
            if all.len() < OFFSETS_PER_FRAME * OFFSET_FRAMES {
                following.has_told_offsets = true;
                if all.len().is_multiple_of(OFFSETS_PER_FRAME) {
                    link.send(Frame::Offsets(Vec::new()));
                }
            }
        }
    }
}
