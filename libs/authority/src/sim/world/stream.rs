//! How logs are replicated: what a follower asks for, where its log is cut, and what its broker begins
//! anew for.

use super::event::{Event, Input, Message};
use super::{SOON, World};
use crate::planted::{self, Planted};
use crate::sim::check::Problem;
use crate::sim::node::{Following, Lead, Restart, Stream};
use crate::{Member, Replica};

impl World {
    /// What a follower asks its master for.
    pub(super) fn ask_master(&mut self, place: usize) {
        let node = &self.nodes[place];
        let (Some(Following { master, epoch, is_aligned, .. }), Some(replica)) =
            (node.following, &node.replica)
        else {
            return;
        };
        let (from, at) = (replica.me(), node.disk.log.end());
        let stream = match is_aligned {
            true => Stream::Fetch { from, epoch, at },
            false => Stream::Hello { from, epoch },
        };
        self.send_message(place, master.replica.0 as usize, Message::Stream(stream));
    }

    pub(super) fn stream(&mut self, place: usize, stream: Stream) -> Result<(), Problem> {
        let node = &mut self.nodes[place];
        let is_lagging = self.now < node.lags_until && matches!(stream, Stream::Entries { .. });
        let Some(me) = node.replica.as_ref().map(Replica::me).filter(|_| !is_lagging) else {
            return Ok(());
        };
        let leads = |epoch| node.leading == Some(epoch);
        match stream {
            Stream::Offsets { from, offset, acknowledged } => {
                self.offsets_told(place, from, (offset, acknowledged));
            }
            Stream::Hello { from, epoch } if leads(epoch) => {
                let lead = node.lead();
                self.answer_stream(place, from, Stream::Welcome { from: me, epoch, lead });
            }
            Stream::Fetch { from, epoch, at } if leads(epoch) => {
                self.fetched(place, from, epoch, at)
            }
            Stream::Hello { .. } | Stream::Fetch { .. } => {}
            Stream::Welcome { from, epoch, lead } => self.welcomed(place, (from, epoch), lead),
            Stream::Gone { from, epoch } => {
                let following = node.following.as_mut();
                let asked = following.filter(|it| (it.master, it.epoch) == (from, epoch));
                asked.into_iter().for_each(|following| following.is_aligned = false);
            }
            Stream::Entries { from, epoch, at, entries } => {
                let is_asked =
                    |it: Following| (it.master, it.epoch, it.is_aligned) == (from, epoch, true);
                let fits = at == node.disk.log.end() || planted::is_on(Planted::FollowWithoutCut);
                if node.following.is_some_and(is_asked) && fits {
                    let may_be_more = entries.len() > 1 || self.settings.is_by_quorum();
                    self.append(place, entries)?;
                    self.note_caught_up(place);
                    if may_be_more {
                        self.ask_master(place);
                    }
                }
            }
        }
        Ok(())
    }

    fn answer_stream(&mut self, place: usize, to: Member, stream: Stream) {
        self.send_message(place, to.replica.0 as usize, Message::Stream(stream));
    }

    /// A follower asked for what comes next.
    fn fetched(&mut self, place: usize, to: Member, epoch: u64, at: u64) {
        // Where a quorum acknowledges a slave may be behind for long, and then be anywhere in its log.
        let most = match self.settings.is_by_quorum() {
            true => 1 + self.random.below(16) as usize,
            false => 16,
        };
        let Ok(from) = self.nodes[place].me() else { return };
        let log = &self.nodes[place].disk.log;
        if at < log.start() {
            self.answer_stream(place, to, Stream::Gone { from, epoch });
            return;
        }
        let entries = log.from(at, most);
        if !entries.is_empty() {
            self.answer_stream(place, to, Stream::Entries { from, epoch, at, entries });
        }
    }

    /// The master says what its log is. Its follower goes on where both are the same, or begins anew to cut
    /// its own. From then on it decides, follows and acknowledges nothing, until its broker is there again.
    fn welcomed(&mut self, place: usize, (from, epoch): (Member, u64), lead: Lead) {
        let node = &mut self.nodes[place];
        let is_asked =
            |it: &Following| (it.master, it.epoch, it.is_aligned) == (from, epoch, false);
        if !node.following.as_ref().is_some_and(is_asked) || node.is_foreign(&lead) {
            return;
        }
        if let Some(restart) = node.restart_for(&lead) {
            let me = node.replica.as_ref().map(Replica::me);
            if !planted::is_on(Planted::FollowDuringTheCut) {
                node.end();
                self.end_connections(place, me);
                self.go_on(place);
            }
            self.begin_anew_for(place, restart);
            return;
        }
        node.disk.log.adopt(lead.epochs);
        if let Some(following) = &mut node.following {
            (following.is_aligned, following.caught_up_at) = (true, lead.end);
        }
        node.offsets.passed = None;
        let (local, position) = (node.local(self.now), node.position());
        if let Some(replica) = &mut node.replica {
            replica.aligned(local, epoch, position);
        }
        self.ask_master(place);
        self.pass_offsets_on(place);
    }

    /// Its broker closes connections and store before it begins anew; what it was asked first counts.
    pub(super) fn begin_anew_for(&mut self, place: usize, restart: Restart) {
        if self.is_traced {
            eprintln!("{:?} {place} {restart:?}", self.now);
        }
        let node = &mut self.nodes[place];
        let (start, is_first) = (node.starts, node.restart.is_none());
        node.restart.get_or_insert(restart);
        if !is_first {
            return;
        }
        let slowest = match self.random.below(3) {
            _ if self.is_healing => SOON,
            // The disk stalls.
            0 if self.cuts_slowly => 15_000,
            0 => 3_500,
            _ => 200,
        };
        self.schedule_random(10, slowest, Event::BeginAnew { node: place, start });
        let master = self.nodes.iter().position(|node| node.leading.is_some());
        if let (Restart::CutAt(_), Some(node)) = (restart, master)
            && self.cuts_slowly
            && !self.is_healing
            && self.random.one_in(2)
        {
            self.schedule_random(0, 1_000, Event::Crash { node });
        }
    }

    pub(super) fn begin_anew(&mut self, place: usize, start: u64) -> Result<(), Problem> {
        let node = &mut self.nodes[place];
        let Some(restart) = node.restart.filter(|_| node.starts == start) else { return Ok(()) };
        let (me, is_leaving) =
            (node.replica.as_ref().map(Replica::me), node.leaving_since.is_some());
        self.check.cut(node, restart)?;
        node.restart = None;
        node.crash(false, &mut self.random);
        node.cut(Some(restart));
        self.end_connections(place, me);
        self.go_on(place);
        match is_leaving {
            // It ends with that.
            true => self.restart_later(place),
            false => self.restart(place),
        }
        let master = self.nodes.iter().position(|node| node.leading.is_some());
        if let (Restart::BeginAt { .. }, Some(node)) = (restart, master)
            && self.check.was_taken_away
            && !self.is_healing
            && self.random.one_in(2)
        {
            // Before it has copied much.
            self.schedule_random(0, 1_000, Event::Crash { node });
        }
        Ok(())
    }

    /// Retention takes what is older than a while, as far as nobody can need it.
    pub(super) fn expire(&mut self, place: usize) {
        self.schedule_random(1_000, 10_000, Event::Expire { node: place });
        let kept = self.random.below(200);
        let node = &mut self.nodes[place];
        let safe = node.standing.visible.unwrap_or(0);
        let log = &mut node.disk.log;
        let end = log.end().saturating_sub(kept).min(log.kept_from(safe));
        self.check.summary.expired += u64::from(log.expire(end));
    }

    /// Connections to this node have ended, all of them. The others notice that they had one to this start,
    /// sooner or later or never.
    pub(super) fn end_connections(&mut self, place: usize, from: Option<Member>) {
        for to in (0..self.nodes.len()).filter(|to| *to != place) {
            self.links.end(place, to);
            if let Some(from) = from {
                self.pass(place, to, Event::Disconnected { to, from });
            }
        }
    }

    pub(super) fn disconnected(&mut self, to: usize, from: Member) {
        let node = &mut self.nodes[to];
        let Some(replica) = &mut node.replica else { return };
        replica.disconnected(from);
        // It is asked anew on the next connection.
        let following = node.following.as_mut().filter(|it| it.master == from);
        following.into_iter().for_each(|following| following.is_aligned = false);
    }

    /// It is told at once where it is the one that notices.
    pub(super) fn lose_connections(&mut self, place: usize) {
        let me = self.nodes[place].replica.as_ref().map(Replica::me);
        self.end_connections(place, me);
        let others = self.nodes.iter().filter_map(|node| node.replica.as_ref()).map(Replica::me);
        let others: Vec<_> = others.filter(|other| Some(*other) != me).collect();
        others.into_iter().for_each(|other| self.disconnected(place, other));
    }

    /// Appended records are flushed a little later.
    pub(super) fn flush_later(&mut self, place: usize, end: u64) {
        let delay = self.random.millis(0, 20);
        self.schedule_input(place, delay, Input::Flushed { end });
    }
}
