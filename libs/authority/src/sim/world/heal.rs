//! What a mended group has to do: become whole, and serve without a part of itself.

use std::time::Duration;

use super::event::Event;
use super::{HEAL, SOON, World};
use crate::sim::check::{Problem, Rule};
use crate::sim::node::Node;
use crate::{Member, Replica};

impl World {
    /// One of three replicas goes, or cannot ask the authority, or does not hear the others: the
    /// others have to go on.
    pub(super) fn serve_without_a_minority(&mut self) -> Result<(), Problem> {
        let group: Vec<_> = self.settings.group.iter().map(|id| id.0 as usize).collect();
        if group.len() < 3 {
            return Ok(());
        }
        let gone = group[self.random.below(group.len() as u64) as usize];
        let master = self.nodes.iter().position(|node| node.leading.is_some()).unwrap_or(gone);
        let kind = self.random.below(if self.settings.is_by_quorum() { 5 } else { 4 });
        if self.is_traced {
            eprintln!("{:?} without {gone}, kind {kind}", self.now);
        }
        let without = |gone: usize| move |node: &Node| node.id.0 as usize != gone;
        match kind {
            0 => {
                self.kill(gone, false);
                self.become_whole(&without(gone))
            }
            // Who cannot read the record hears of its master.
            1 => {
                self.network.part(gone, std::iter::once(self.network.authority()));
                self.become_whole(&|_| true)
            }
            2 => {
                self.network.part(gone, 0..self.nodes.len());
                let alone = move |node: &Node| node.id.0 as usize == gone;
                let others = self.become_whole(&without(gone));
                // Where one is enough it may go on alone.
                match self.settings.needed_in_sync() {
                    1 if !self.settings.is_by_quorum() => {
                        others.or_else(|_| self.become_whole(&alone))
                    }
                    _ => others,
                }
            }
            4 => self.serve_beside_a_slow_slave(master, gone),
            _ if gone != master => self.serve_without_a_stuck_master(master, gone),
            _ => Ok(()),
        }
    }

    /// The master cannot take another member out of the set when it does not hear any more, and a
    /// third one is there again.
    fn serve_without_a_stuck_master(&mut self, master: usize, third: usize) -> Result<(), Problem> {
        let end = self.now + Duration::from_secs(20);
        self.kill(third, false);
        while self.now < end {
            self.step()?;
        }
        self.network.part(master, 0..self.nodes.len());
        self.restart(third);
        // Which of the others do: with asynchronous replication, or where one is enough, the master
        // goes on alone.
        let may_be_alone = self.settings.needed_in_sync() < 2 && !self.settings.is_by_quorum();
        match may_be_alone {
            true => Ok(()),
            false => self.become_whole(&move |node| node.id.0 as usize != master),
        }
    }

    /// Waits until a master serves those that count, and they have all that it has.
    pub(super) fn become_whole(&mut self, counts: &dyn Fn(&Node) -> bool) -> Result<(), Problem> {
        let end = self.now + HEAL;
        let mut asked = None;
        let group = self.settings.group.clone();
        let counts = &|node: &Node| counts(node) && group.contains(&node.id);
        self.begin_to_wait();
        while self.now < end {
            self.step()?;
            self.note_waits();
            self.hand_over_from_strangers();
            match asked {
                None if self.is_whole(counts) => asked = Some(self.messages + 1),
                Some(message) if self.is_acknowledged(message, counts) => {
                    let waits = &mut self.check.summary.waits;
                    waits.whole = waits.whole.max(self.now + HEAL - end);
                    return self.check.logs_agree(self.nodes.iter().filter(|node| counts(node)));
                }
                _ => {}
            }
        }
        let ((_, record), (_, lease)) = self.objects.read();
        let roles: Vec<_> =
            self.nodes.iter().map(|node| node.replica.as_ref().map(Replica::role)).collect();
        let ends: Vec<_> = self.nodes.iter().map(|node| node.disk.log.end()).collect();
        let group = &self.settings.group;
        let text = format!(
            "nobody serves {group:?} {HEAL:?} after the last fault: {ends:?} {roles:?} {record:?} {lease:?}"
        );
        Err(Rule::Serves.broken(text))
    }

    /// The group stopped, because the record was restored and then swapped. Everybody who does not
    /// serve says so.
    pub(super) fn everybody_says_why(&self, problem: Problem) -> Result<(), Problem> {
        let serves = |node: &Node| node.may_append(self.now);
        let follows = |node: &Node| {
            let following = node.following.filter(|following| following.is_aligned);
            following.is_some_and(|it| serves(&self.nodes[it.master.replica.0 as usize]))
        };
        let complains = |node: &Node| {
            let local = node.local(self.now);
            node.replica.as_ref().is_some_and(|replica| replica.complaint(local).is_some())
        };
        let mut silent =
            self.nodes.iter().filter(|node| !serves(node) && !follows(node) && !complains(node));
        match silent.next() {
            Some(node) => {
                let text = format!("replica {} does not say why: {}", node.id.0, problem.text);
                Err(Rule::SaysWhy.broken(text))
            }
            None => Ok(()),
        }
    }

    pub(super) fn heal(&mut self) {
        self.is_healing = true;
        self.reads_are_stale = false;
        if !self.objects.is_forked || self.random.one_in(2) {
            self.objects.put_back();
        }
        self.ambush = false;
        self.network.mend();
        for place in 0..self.nodes.len() {
            self.wake(place);
            self.nodes[place].lags_until = self.now;
            self.restart(place);
            if self.nodes[place].restart.is_some() {
                let start = self.nodes[place].starts;
                self.schedule_random(10, SOON, Event::BeginAnew { node: place, start });
            }
            self.nodes[place].configure(self.settings.clone(), self.now);
        }
    }

    /// What waited for the end of a pause waits no longer.
    fn wake(&mut self, place: usize) {
        let end = self.nodes[place].paused_until;
        if end > self.now {
            let waits = self.events.range((end, 0)..=(end, u64::MAX));
            let keys: Vec<_> = waits.map(|(key, _)| *key).collect();
            for event in keys.iter().filter_map(|key| self.events.remove(key)).collect::<Vec<_>>() {
                self.schedule(Duration::ZERO, *event);
            }
        }
        self.nodes[place].wake(self.now);
    }

    /// One master, and everybody else that counts has all of its log.
    pub(super) fn is_whole(&self, counts: &dyn Fn(&Node) -> bool) -> bool {
        let mut masters = self.nodes.iter().filter(|node| node.leading.is_some());
        let (Some(master), None) = (masters.next(), masters.next()) else { return false };
        let mut counted = self.nodes.iter().filter(|node| counts(node));
        // A master that cannot ask the authority cannot change the set.
        let authority = self.network.authority();
        let ((_, record), _) = self.objects.read();
        let belongs = |member: Member| self.settings.group.contains(&member.replica);
        // Where a quorum acknowledges nobody waits for a start that is not in the set yet.
        let is_member = |node: &Node| {
            !self.settings.is_by_quorum() || node.me().is_ok_and(|me| record.in_sync.has(me))
        };
        let is_set_whole = record.in_sync.len() >= counted.clone().count()
            && record.in_sync.iter().all(belongs)
            && counted.clone().all(is_member)
            || self.network.is_cut(master.id.0 as usize, authority);
        let last = |node: &Node| (node.disk.log.end(), node.disk.log.last());
        is_set_whole && counted.all(|node| node.restart.is_none() && last(node) == last(master))
    }

    fn is_acknowledged(&self, message: u64, counts: &dyn Fn(&Node) -> bool) -> bool {
        // What was committed at slaves is in the log for good, and everybody answers for it.
        let has_all = |node: &Node| {
            node.waiting.is_empty()
                && node.disk.log.last_message() >= message
                && node.offsets.at_slave().is_none()
                && node.committed(self.now).is_some()
        };
        self.is_whole(counts) && self.nodes.iter().filter(|node| counts(node)).all(has_all)
    }
}
