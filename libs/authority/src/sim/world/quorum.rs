//! What goes wrong, and what has to go on, where a quorum acknowledges: slaves that are behind, and masters that
//! follow each other before these have everything.

use std::time::Duration;

use super::event::Event;
use super::{TICK, World};
use crate::settings::majority_of;
use crate::sim::check::{Problem, Rule};
use crate::sim::node::Node;

/// How long a succession takes at most.
const SUCCESSION: Duration = Duration::from_secs(60);
/// So long a send may take while one slave takes nothing.
const PROMPT: Duration = Duration::from_secs(1);

impl World {
    pub(super) fn begin_a_succession(&mut self, masters: u32) {
        self.succession = (masters, self.now + SUCCESSION);
        self.network.delay = self.random.millis(5, 300);
        // The present master may be the first of them.
        if let Some(place) = self.nodes.iter().position(|node| node.leading.is_some()) {
            self.relieve_later(place);
        }
    }

    /// A master begins, and a succession goes on: it is cut off before the others have heard much of it, or
    /// after a while.
    pub(super) fn relieve_later(&mut self, node: usize) {
        if self.succession.0 > 0 {
            let slowest = if self.random.one_in(2) { 50 } else { 3_000 };
            self.schedule_random(0, slowest, Event::Relieve { node });
        }
    }

    pub(super) fn relieve(&mut self, node: usize) {
        if self.is_healing || self.succession.0 == 0 {
            return;
        }
        self.succession.0 -= 1;
        if self.succession.0 == 0 {
            self.succession.1 = self.now;
        }
        self.network.join();
        self.network.part(node, 0..self.nodes.len());
    }

    /// The master hears one slave now and then, and nobody else, perhaps not the authority either, which
    /// perhaps both do not reach.
    pub(super) fn begin_to_flap(
        &mut self,
        master: usize,
        slave: usize,
        (from_authority, both): (bool, bool),
    ) {
        let others = (0..self.nodes.len()).filter(|other| *other != slave);
        self.network.part(master, others);
        if from_authority {
            self.network.part(master, std::iter::once(self.network.authority()));
        }
        if both {
            self.network.part(slave, std::iter::once(self.network.authority()));
            if self.random.one_in(2) {
                // It is heard, and hears of no fence.
                let others = (0..self.nodes.len()).filter(|other| *other != master);
                self.network.cut(&others.map(|other| (other, slave)).collect::<Vec<_>>());
            }
        }
        self.network.delay = self.random.millis(5, 500);
        let left = 3 + self.random.below(12) as u32;
        self.flap((master, slave), left);
    }

    pub(super) fn flap(&mut self, pair: (usize, usize), left: u32) {
        if self.is_healing {
            return;
        }
        let is_cut = left % 2 == 1;
        self.network.set(pair, is_cut);
        if let Some(left) = left.checked_sub(1) {
            // Mostly for longer than a master is missed.
            let longest = if is_cut { 5_000 } else { 3_000 };
            self.schedule_random(100, longest, Event::Flap { pair, left });
        }
    }

    /// Somebody swapped the record and does not know of it: perhaps another one gets nothing more of it.
    pub(super) fn lag_in_ambush(&mut self, node: usize) {
        if self.settings.is_by_quorum() && self.random.one_in(2) {
            let others = self.nodes.len() as u64 - 1;
            let other = (node + 1 + self.random.below(others) as usize) % self.nodes.len();
            self.nodes[other].lags_until = self.now + Duration::from_secs(20);
        }
    }

    /// A slave takes nothing: with enough others nobody waits for it, and it stays in the set.
    pub(super) fn serve_beside_a_slow_slave(
        &mut self,
        master: usize,
        slow: usize,
    ) -> Result<(), Problem> {
        let group = self.settings.group.len();
        let needed = majority_of(group).max(self.settings.min_in_sync);
        if slow == master || needed == group {
            return Ok(());
        }
        let end = self.now + Duration::from_secs(30);
        self.nodes[slow].lags_until = end;
        while self.now < end {
            let sent = self.messages + 1;
            while self.messages < sent {
                self.step()?;
            }
            let waits = |node: &Node| node.waiting.first().is_some_and(|(_, first)| *first <= sent);
            let mut deadline = self.now + PROMPT;
            while self.now < end && waits(&self.nodes[master]) {
                self.step()?;
                if !self.are_steady_but(slow) {
                    deadline = self.now + PROMPT;
                }
                if self.now > deadline {
                    let text = format!("message {sent} waits for replica {slow}, which is slow");
                    return Err(Rule::Serves.broken(text));
                }
            }
        }
        let ((_, record), _) = self.objects.read();
        match record.in_sync.incarnation_of(self.nodes[slow].id) {
            Some(_) => self.become_whole(&|_| true),
            None => Err(Rule::Serves.broken(format!("replica {slow} left the set for being slow"))),
        }
    }

    /// Whether all members but this one are there and awake, and know the record.
    fn are_steady_but(&self, slow: usize) -> bool {
        let ((_, record), _) = self.objects.read();
        let is_steady = |node: &Node| {
            let is_aligned = node.following.is_some_and(|following| following.is_aligned);
            let is_member = node.me().is_ok_and(|me| record.in_sync.has(me));
            let promised = node.disk.promise.as_ref().map(|promise| promise.in_sync_version);
            let is_awake = self.now < node.ticked + 2 * TICK;
            let knows = is_awake && promised == Some(record.in_sync_version);
            is_member
                && knows
                && (is_aligned || node.leading.is_some())
                && !node.waits_for_promise()
        };
        let counted =
            |node: &&Node| node.id.0 as usize != slow && self.settings.group.contains(&node.id);
        self.nodes.iter().filter(counted).all(is_steady)
    }
}
