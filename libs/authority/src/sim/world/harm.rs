//! What is done to the group: faults, settings that change, and people who promote a replica.

use super::World;
use super::event::Event;
use crate::settings::election_quorum_of;
use crate::sim::check::Problem;
use crate::sim::faults::{Damage, Fault, Kind};
use crate::sim::node::Node;
use crate::{Promotion, Replica, ReplicaId};

impl World {
    pub(super) fn fault(&mut self) -> Result<(), Problem> {
        let leading = self.nodes.iter().position(|node| node.leading.is_some());
        let random = &mut self.random;
        let kind = Kind {
            is_damaged: self.is_damaged,
            is_changing: self.is_changing,
            parts_logs: self.settings.is_by_quorum() || self.cuts_slowly,
            takes_images_away: self.takes_images_away,
            clocks_jump: self.clocks_jump,
            favourite: self.favourite,
        };
        let fault = Fault::random(self.nodes.len(), leading, kind, random);
        if self.is_traced {
            eprintln!("{:?} {fault:?}", self.now);
        }
        self.check.summary.faults += 1;
        match fault {
            Fault::Kill { node } => self.crash(node, false),
            Fault::PowerLoss { node } => self.crash(node, true),
            Fault::PowerLossOfAll => (0..self.nodes.len()).for_each(|node| self.crash(node, true)),
            Fault::Pause { node, length } => self.nodes[node].pause(self.now, length, false),
            Fault::Suspend { node, length } => self.nodes[node].pause(self.now, length, true),
            Fault::Jump { node, by } => self.nodes[node].clock_ahead += by,
            Fault::Cut { pairs } => self.network.cut(&pairs),
            Fault::Slow { delay, loss } => {
                self.network.delay = delay;
                self.network.loss = loss;
            }
            Fault::Mend => {
                self.network.mend();
                self.reads_are_stale = false;
            }
            Fault::DeleteLease { alone } => {
                self.objects.delete_lease();
                self.network.part(alone, 0..=self.nodes.len());
            }
            Fault::Configure => self.configure(),
            Fault::StaleReads => self.reads_are_stale = true,
            Fault::Record(Damage::Restore) => self.objects.restore(&mut self.random),
            Fault::Record(Damage::Delete) => self.objects.delete(),
            Fault::Record(Damage::PutBack) => self.objects.put_back(),
            Fault::Record(Damage::Fork { late }) => self.fork(late, 0),
            Fault::CutInSteps { node } => {
                let authority = self.network.authority();
                self.network.part(node, std::iter::once(authority));
                self.schedule_random(7_000, 12_000, Event::Part { node });
            }
            Fault::Lag { node, length } => self.nodes[node].lags_until = self.now + length,
            Fault::Flap { master, slave, from_authority, both } => {
                self.begin_to_flap(master, slave, (from_authority, both));
            }
            Fault::Succession { masters } => self.begin_a_succession(masters),
            Fault::Ambush => self.ambush = true,
            Fault::TakeImageAway { node } => self.take_image_away(node),
            Fault::End { node } => self.end(node),
            Fault::HandOver => {
                // The log is told first what this one knows.
                (0..self.nodes.len()).try_for_each(|node| self.log_offsets(node))?;
                for node in &mut self.nodes {
                    let local = node.local(self.now);
                    let idle = node.replica.as_mut().filter(|_| node.writing.is_none());
                    let asked = idle.map(|it| it.hand_over(local, None));
                    self.check.summary.handovers += u64::from(asked == Some(true));
                }
            }
        }
        Ok(())
    }

    /// The log of a slave that is started again then begins anew, though its master counts on it.
    fn take_image_away(&mut self, place: usize) {
        let is_slave = self.nodes[place].following.is_some_and(|following| following.is_aligned);
        if is_slave && self.nodes[place].disk.log.take_image_away() {
            self.kill(place, false);
            self.schedule_random(100, 2_000, Event::Restart { node: place });
            self.check.was_taken_away = true;
        }
    }

    /// The steps by which a record forks: the others go on without `late`, the record is restored
    /// to what it was before, only `late` hears of it, and then all meet.
    pub(super) fn fork(&mut self, late: usize, step: u32) {
        let peers = 0..self.nodes.len();
        let authority = self.network.authority();
        self.network.mend();
        self.reads_are_stale = false;
        self.is_forking = step < 3;
        match step {
            0 => {
                self.objects.mark();
                self.network.part(late, 0..=authority);
            }
            1 => {
                self.objects.restore_marked();
                self.network.part(late, peers.clone());
                self.network.part(authority, peers.filter(|peer| *peer != late));
            }
            2 => {
                // A second election there, or the master of the others is gone when they meet.
                let leading = self.nodes.iter().position(|node| node.leading.is_some());
                self.network.part(late, peers.clone());
                match self.random.below(4) {
                    0 => self.crash(late, false),
                    1 => self.crash(leading.unwrap_or(late), false),
                    2 => peers.for_each(|peer| self.crash(peer, false)),
                    _ => {}
                }
            }
            _ => {}
        }
        if step < 3 && !self.is_healing {
            self.schedule_random(9_000, 16_000, Event::Fork { late, step: step + 1 });
        }
    }

    /// The operator wants another `min_in_sync` or other members, and each replica learns of it
    /// some time.
    fn configure(&mut self) {
        let ((_, record), _) = self.objects.read();
        if record.epoch == 0 {
            return;
        }
        let group = &mut self.settings.group;
        let replica = ReplicaId(self.random.below(self.nodes.len() as u64) as u32);
        match self.random.below(3) {
            0 => self.settings.min_in_sync = 1 + self.random.below(2) as usize,
            1 if group.len() > 2 => {
                group.remove(&replica);
            }
            _ => {
                group.insert(replica);
            }
        }
        self.check.min_in_sync = self.check.min_in_sync.min(self.settings.needed_in_sync());
        // Whoever takes somebody out may not hear that it did.
        self.ambush |= self.settings.is_by_quorum() && self.random.one_in(2);
        for node in 0..self.nodes.len() {
            let settings = self.settings.clone();
            self.schedule_random(0, 20_000, Event::Configure { node, settings });
        }
    }

    /// Somebody promotes a replica, whether there is a master or not. A loss is accepted once everything
    /// is mended and nobody is left who has everything; then it is the best one.
    pub(super) fn look(&mut self) {
        self.schedule_random(1_000, 8_000, Event::Look);
        let ((_, record), _) = self.objects.read();
        let group: Vec<_> =
            self.nodes.iter().filter(|node| self.settings.group.contains(&node.id)).collect();
        let is_by_quorum = self.settings.is_by_quorum() && record.epoch > 0;
        let is_intact = |node: &&Node| {
            record.in_sync.incarnation_of(node.id).is_some() && !node.has_lost(&record)
        };
        let intact: Vec<_> = self.nodes.iter().filter(is_intact).collect();
        let nobody_can = match is_by_quorum {
            true => intact.len() < election_quorum_of(record.in_sync.len()),
            false => group.iter().all(|node| node.has_lost(&record)),
        };
        let accepts_loss = self.is_healing && nobody_can;
        let rank = |node: &&Node| node.position().rank(&self.settings);
        let chosen = match accepts_loss {
            true => group.iter().copied().max_by_key(rank),
            // Whoever looks then sees who can win. A master goes on by itself.
            false if self.is_healing && record.epoch > 0 => {
                let can = |node: &&Node| {
                    record.master.is_none_or(|master| master.replica != node.id)
                        && node.me().is_ok_and(|me| record.is_electable(me))
                };
                let able: Vec<_> = self.nodes.iter().filter(can).collect();
                match is_by_quorum {
                    true => able.into_iter().max_by_key(rank),
                    false => able.get(self.random.below(able.len() as u64) as usize).copied(),
                }
            }
            false => group.get(self.random.below(group.len() as u64) as usize).copied(),
        };
        let Some(replica) = chosen.map(|node| node.id) else { return };
        let promotion = Promotion { replica, epoch: record.epoch, accepts_loss };
        self.settings.promotion = Some(promotion);
        for node in 0..self.nodes.len() {
            self.schedule_random(0, 2_000, Event::Promote { node, promotion });
        }
    }

    /// The operator has masters that are to go hand over.
    pub(super) fn hand_over_from_strangers(&mut self) {
        for node in &mut self.nodes {
            let local = node.local(self.now);
            if let Some(replica) = &mut node.replica
                && !self.settings.group.contains(&node.id)
                && node.writing.is_none()
                && self.random.one_in(50)
            {
                let _ = replica.hand_over(local, None);
            }
        }
    }

    pub(super) fn crash(&mut self, place: usize, power: bool) {
        if self.kill(place, power) {
            self.restart_later(place);
        }
    }

    /// Ends a process; says whether there was one.
    pub(super) fn kill(&mut self, place: usize, power: bool) -> bool {
        let node = &mut self.nodes[place];
        let (was_up, me) = (node.is_up(), node.replica.as_ref().map(Replica::me));
        node.crash(power, &mut self.random);
        node.wake(self.now);
        self.end_connections(place, me);
        self.go_on(place);
        was_up
    }
}
