//! A consumer that reads from the master or, while that is away, from a slave, and commits how far it has
//! come; and what brokers do so that no commit is forgotten (docs/replication.md, "Offsets that are
//! committed at a slave").

use std::collections::BTreeSet;
use std::time::Duration;

use super::World;
use super::event::{Event, Message};
use crate::sim::check::Problem;
use crate::sim::log::{Entry, What};
use crate::sim::node::{Following, Node, Stream};
use crate::{Replica, ReplicaId};

/// How long a new master waits for what was committed at its slaves.
const OFFSETS_WITHIN: Duration = Duration::from_secs(3);
/// How often a slave passes on what was committed at it.
const PASS_AGAIN: Duration = Duration::from_millis(500);

impl World {
    /// The consumer reads somewhere and commits, and asks everybody how far it has come.
    pub(super) fn consume(&mut self) -> Result<(), Problem> {
        self.schedule_random(50, 500, Event::Consume);
        let serves = |node: &Node| node.paused_until <= self.now && node.shows().is_some();
        let masters = self.nodes.iter().position(|it| serves(it) && it.may_append(self.now));
        let chosen = match masters.filter(|_| !self.random.one_in(8)) {
            Some(master) => master,
            None => self.random.below(self.nodes.len() as u64) as usize,
        };
        if let Some(visible) = self.nodes.get(chosen).filter(|it| serves(it)).and_then(Node::shows)
        {
            let most = self.random.below(40);
            let read = self.check.consumed.max(visible.min(self.check.consumed + most));
            self.check.consumed = read;
            // Slaves are asked for as much as they show.
            self.commit(chosen, read.min(visible))?;
        }
        for place in 0..self.nodes.len() {
            let node = &self.nodes[place];
            if node.paused_until <= self.now
                && let Some(offset) = node.committed(self.now)
            {
                self.check.asked(node, offset, self.now)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, place: usize, offset: u64) -> Result<(), Problem> {
        let node = &mut self.nodes[place];
        if node.leading.is_some() {
            if node.table() < Some(offset) {
                node.offsets.unlogged = Some(offset);
            }
            if self.random.one_in(3) {
                // Nobody waits for an answer.
                return Ok(());
            }
            return self.log_offsets(place);
        }
        let (logged, safe) = (node.disk.log.committed(), node.safe());
        if node.disk.log.end() <= safe && logged >= Some(offset) {
            self.check.committed(offset);
            return Ok(());
        }
        node.offsets.commit_at_slave(offset);
        match node.offsets.is_durable(offset) {
            true => self.check.committed_at(node.id, offset),
            false => node.offsets.awaits_file.push(offset),
        }
        self.write_offsets_later(place);
        Ok(())
    }

    /// Tells the log what was committed, where this node may append.
    pub(super) fn log_offsets(&mut self, place: usize) -> Result<(), Problem> {
        let Some(offset) = self.nodes[place].offsets.unlogged else { return Ok(()) };
        if let Some(end) = self.log(place, What::Offset(offset))? {
            let offsets = &mut self.nodes[place].offsets;
            offsets.unlogged = None;
            offsets.awaits_log.push((end, offset));
        }
        Ok(())
    }

    /// A master's log begins its epoch with what was committed at it as a slave.
    pub(super) fn begin_epoch(&mut self, place: usize, epoch: u64) -> Result<(), Problem> {
        let node = &self.nodes[place];
        let log = &node.disk.log;
        let own = node.offsets.not_logged();
        let own = own.filter(|own| log.committed() < Some(*own) && *own <= log.end());
        let begins = std::iter::once(What::Epoch).chain(own.map(What::Offset));
        self.append(place, begins.map(|what| Entry { epoch, what }).collect())?;
        if let Some(own) = own {
            let node = &mut self.nodes[place];
            node.offsets.awaits_log.push((node.disk.log.end(), own));
        }
        Ok(())
    }

    fn write_offsets_later(&mut self, place: usize) {
        let node = &self.nodes[place];
        if node.offsets.is_write_due {
            let start = node.starts;
            self.schedule_random(1, 200, Event::WriteOffsets { node: place, start });
        }
    }

    pub(super) fn write_offsets(&mut self, place: usize, start: u64) {
        let node = &mut self.nodes[place];
        if node.starts == start && node.is_up() && node.offsets.is_write_due {
            node.disk.at_slave = node.offsets.at_slave();
            for offset in node.offsets.written() {
                self.check.committed_at(node.id, offset);
            }
        }
    }

    /// A new master waits for everybody who may have been a slave. The master before was none.
    pub(super) fn await_offsets(&mut self, place: usize) {
        let node = &self.nodes[place];
        let before = node.following.map(|following| following.master.replica);
        let record = node.replica.as_ref().and_then(Replica::record);
        let counted = record.into_iter().flat_map(|it| it.electable());
        let linked = self.nodes.iter().filter(|other| {
            let other = other.id.0 as usize;
            self.nodes[other].replica.is_some() && !self.network.is_cut(other, place)
        });
        let others = counted.map(|member| member.replica).chain(linked.map(|other| other.id));
        let unheard: BTreeSet<_> =
            others.filter(|other| *other != node.id && Some(*other) != before).collect();
        let end = node.disk.log.end();
        let offsets = &mut self.nodes[place].offsets;
        offsets.awaited = self.check.committed_at_slaves(&unheard);
        offsets.unheard = unheard;
        offsets.hears_until = self.now + OFFSETS_WITHIN;
        offsets.settle_at = Some(end);
        offsets.knows_state = true;
        offsets.told = None;
    }

    /// A slave has told what was committed at it, which its master takes over where that is more.
    pub(super) fn offsets_told(
        &mut self,
        place: usize,
        from: ReplicaId,
        (offset, acknowledged): (Option<u64>, Option<u64>),
    ) {
        let node = &mut self.nodes[place];
        if node.leading.is_some() {
            node.take_over(offset);
            node.offsets.unheard.remove(&from);
            node.offsets.told = node.offsets.told.max(acknowledged);
        }
    }

    /// Notes that a follower has once had all that its master had.
    pub(super) fn note_caught_up(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let Some(Following { caught_up_at, .. }) = node.following.filter(|it| it.is_aligned) else {
            return;
        };
        let log = &node.disk.log;
        if log.end() >= caught_up_at && log.is_complete() && !node.offsets.knows_state {
            node.offsets.knows_state = true;
            node.offsets.settle_at = Some(caught_up_at);
        }
    }

    /// Sees to it that what was committed here as a slave gets into the log, again and again until it is
    /// there for good.
    pub(super) fn pass_offsets_on(&mut self, place: usize) {
        self.note_caught_up(place);
        let (now, safe) = (self.now, self.nodes[place].safe());
        let node = &mut self.nodes[place];
        let must_tell = node.following.is_some_and(|following| !following.has_told_offsets);
        let is_empty = node.offsets.at_slave().is_none();
        if is_empty && !must_tell || !node.offsets.knows_state || node.replica.is_none() {
            return;
        }
        let visible = node.standing.visible.unwrap_or(0);
        match node.offsets.settle_at {
            Some(at) if visible < at && !is_empty => return,
            Some(_) => node.offsets.settle(node.disk.log.end()),
            None => {}
        }
        node.offsets.settle_at = None;
        if node.offsets.passed.is_some_and(|passed| now < passed + PASS_AGAIN) {
            return;
        }
        node.offsets.passed = Some(now);
        let log = &node.disk.log;
        node.offsets.forget(log.committed(), log.end(), safe);
        let offset = node.offsets.not_logged();
        let (end, id) = (log.end(), node.id);
        if node.leading.is_some() {
            node.take_over(offset);
        } else if let Some(following) = &mut node.following
            && following.is_aligned
            && end >= following.caught_up_at
        {
            following.has_told_offsets = true;
            let to = following.master.replica.0 as usize;
            let acknowledged = self.check.committed_at_slaves(&[id].into());
            node.offsets.is_passed();
            let stream = Stream::Offsets { from: id, offset, acknowledged };
            self.send_message(place, to, Message::Stream(stream));
        }
        self.write_offsets_later(place);
    }
}
