//! An acknowledged committed offset does not fall, but as docs/replication.md says: with asynchronous
//! replication, after a loss, and at a master that has not been told yet what was committed at a slave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Check, Problem, Rule};
use crate::sim::node::Node;
use crate::{ReplicaId, Replication};

/// What was acknowledged.
#[derive(Default)]
pub(super) struct Committed {
    /// The greatest offset that is in the log.
    logged: Option<u64>,
    /// The greatest that a slave keeps, by replica.
    at_slaves: BTreeMap<ReplicaId, u64>,
}

impl Check {
    /// A commit was acknowledged because the log says it.
    pub(in crate::sim) fn committed(&mut self, offset: u64) {
        self.summary.committed += 1;
        self.committed.logged = self.committed.logged.max(Some(offset));
    }

    /// A commit was acknowledged because a slave keeps it.
    pub(in crate::sim) fn committed_at(&mut self, slave: ReplicaId, offset: u64) {
        self.summary.committed_at_slaves += 1;
        let known = self.committed.at_slaves.entry(slave).or_default();
        *known = offset.max(*known);
    }

    /// The greatest that any of these keeps.
    pub(in crate::sim) fn committed_at_slaves(&self, slaves: &BTreeSet<ReplicaId>) -> Option<u64> {
        slaves.iter().filter_map(|slave| self.committed.at_slaves.get(slave)).max().copied()
    }

    /// What was committed may be gone, with the messages or with an image that somebody took away.
    pub(super) fn forget_committed(&mut self) {
        self.committed = Committed::default();
    }

    /// A broker answers how far the consumer has come. The newest master knows what the log was told and
    /// what slaves told it, all of them where it answers early, and each replica what it acknowledged itself.
    pub(in crate::sim) fn asked(
        &self,
        node: &Node,
        answer: Option<u64>,
        now: Duration,
    ) -> Result<(), Problem> {
        if self.was_damaged {
            return Ok(());
        }
        let is_newest =
            node.leading.is_some() && node.leading == self.leaders.keys().max().copied();
        let awaited = node.offsets.awaited.filter(|_| now < node.offsets.hears_until);
        let by_master = self.committed.logged.max(node.offsets.told).max(awaited);
        let own = self.committed_at_slaves(&[node.id].into());
        self.is_kept(node, answer, by_master.filter(|_| is_newest).max(own))
    }

    /// Everything is mended, and this master has been told of all of its group.
    pub(in crate::sim) fn answers_at_the_end(
        &self,
        master: &Node,
        answer: Option<u64>,
        group: &BTreeSet<ReplicaId>,
    ) -> Result<(), Problem> {
        self.is_kept(master, answer, self.committed.logged.max(self.committed_at_slaves(group)))
    }

    fn is_kept(
        &self,
        node: &Node,
        answer: Option<u64>,
        acknowledged: Option<u64>,
    ) -> Result<(), Problem> {
        if self.replication == Replication::Async || answer >= acknowledged {
            return Ok(());
        }
        let id = node.id.0;
        let (log, told) = (&node.disk.log, node.offsets.told);
        let text = format!(
            "{id} answers {answer:?}, and {acknowledged:?} was acknowledged; its log goes from {} to {} with \
             an image at {}, and it was told {told:?}",
            log.start(),
            log.end(),
            log.image()
        );
        Err(Rule::CommittedStays.broken(text))
    }
}
