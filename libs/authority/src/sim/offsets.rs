//! How far the consumers of a group have come, as one broker knows it: one offset, of the one queue that
//! the log is. What `broker/src/slave_offsets.rs` and `broker/src/replication/driver` do with it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ReplicaId;
use crate::planted::{self, Planted};

/// An offset that was committed here while this was no master.
#[derive(Debug, Clone, Copy)]
struct AtSlave {
    offset: u64,
    in_file: Option<u64>,
    /// A position of the log before which the log says it, once it does.
    logged_before: Option<u64>,
}

/// What a process knows; gone with it.
#[derive(Default)]
pub(super) struct Offsets {
    /// What was committed at this master, and the log does not say yet.
    pub(super) unlogged: Option<u64>,
    at_slave: Option<AtSlave>,
    /// Whether a write of the file is due, and what is acknowledged then.
    pub(super) is_write_due: bool,
    pub(super) awaits_file: Vec<u64>,
    /// Commits that are in the log and not acknowledged: end and offset.
    pub(super) awaits_log: Vec<(u64, u64)>,
    /// Whether this process has once had all that its master had, or is master.
    pub(super) knows_state: bool,
    /// Where everything that the master had is confirmed, so that what was committed here can be compared
    /// with the log's end; once.
    pub(super) settle_at: Option<u64>,
    /// When this was passed on last.
    pub(super) passed: Option<Duration>,
    /// Until when a new master waits for what was committed at its slaves, and for whom.
    pub(super) hears_until: Duration,
    pub(super) unheard: BTreeSet<ReplicaId>,
    /// The greatest that a slave had acknowledged when it told this master what it has, and that any of those
    /// who are waited for had when this master began: for those who check.
    pub(super) told: Option<u64>,
    pub(super) awaited: Option<u64>,
}

impl Offsets {
    /// Of a process that finds this in its file.
    pub(super) fn new(file: Option<u64>) -> Self {
        let at_slave = file.map(|offset| AtSlave { offset, in_file: file, logged_before: None });
        Self { at_slave, ..Self::default() }
    }

    pub(super) fn at_slave(&self) -> Option<u64> {
        self.at_slave.map(|at_slave| at_slave.offset)
    }

    /// What is to be passed on: not what the log says.
    pub(super) fn not_logged(&self) -> Option<u64> {
        self.at_slave.filter(|it| it.logged_before.is_none()).map(|it| it.offset)
    }

    pub(super) fn commit_at_slave(&mut self, offset: u64) {
        if self.at_slave.is_none_or(|known| known.offset < offset) {
            let in_file = self.at_slave.and_then(|known| known.in_file);
            self.at_slave = Some(AtSlave { offset, in_file, logged_before: None });
            self.is_write_due = true;
        }
    }

    /// Whether the file says it.
    pub(super) fn is_durable(&self, offset: u64) -> bool {
        self.at_slave.is_none_or(|it| it.in_file >= Some(offset))
    }

    /// The file says what was committed by now; these can be acknowledged.
    pub(super) fn written(&mut self) -> Vec<u64> {
        self.is_write_due = false;
        if let Some(at_slave) = &mut self.at_slave {
            at_slave.in_file = Some(at_slave.offset);
        }
        std::mem::take(&mut self.awaits_file)
    }

    /// Forgets what the log says (`logged`) below `safe`, from which nobody takes it any more.
    pub(super) fn forget(&mut self, logged: Option<u64>, end: u64, safe: u64) {
        let Some(at_slave) = &mut self.at_slave else { return };
        let is_logged = self.unlogged.is_none() && logged >= Some(at_slave.offset);
        at_slave.logged_before = match is_logged {
            true => at_slave.logged_before.or(Some(end)),
            false => None,
        };
        if at_slave.logged_before.is_some_and(|before| before <= safe) {
            self.drop_at_slave();
        }
    }

    /// It was passed on.
    pub(super) fn is_passed(&mut self) {
        if planted::is_on(Planted::ForgetWhatIsPassedOn) {
            self.drop_at_slave();
        }
    }

    fn drop_at_slave(&mut self) {
        self.at_slave = None;
        self.is_write_due = true;
    }

    /// The log has all that its master's had and ends here: what is behind that is that end.
    pub(super) fn settle(&mut self, end: u64) {
        if let Some(at_slave) = self.at_slave.filter(|it| it.offset > end) {
            let cut = AtSlave { offset: end, in_file: None, logged_before: None };
            self.at_slave = Some(cut);
            self.is_write_due |= at_slave.offset != end;
        }
    }
}
