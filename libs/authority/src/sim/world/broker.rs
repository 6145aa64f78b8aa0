//! What a broker does for its replica: append, flush, replicate, cut, acknowledge.

use super::World;
use super::event::{Ask, Event, Input};
use crate::planted::{self, Planted};
use crate::sim::check::Problem;
use crate::sim::node::{Entry, Node, Stream};
use crate::{Action, Member, Replica};

impl World {
    /// Carries out what a replica wants, and acknowledges what may be.
    pub(super) fn act(&mut self, place: usize) -> Result<(), Problem> {
        while !self.nodes[place].waits_for_promise() {
            let node = &mut self.nodes[place];
            if let Some(action) = node.actions.pop_front() {
                self.act_on(place, action)?;
                continue;
            }
            let (local, position) = (node.local(self.now), node.position());
            let Some(replica) = &mut node.replica else { return Ok(()) };
            if std::mem::take(&mut node.has_moved) {
                replica.log_moved(local, position);
            }
            node.actions = replica.take_actions().into();
            node.standing = replica.standing(local);
            if node.actions.is_empty() {
                break;
            }
        }
        // Otherwise the thread that answers comes later, with what is published now.
        if self.random.one_in(2) {
            self.answer(place)?;
        }
        Ok(())
    }

    /// Another thread of the broker answers those who wait, and consumers, by what was published
    /// last.
    pub(super) fn answer(&mut self, place: usize) -> Result<(), Problem> {
        let node = &mut self.nodes[place];
        let acknowledged = node.acknowledged(self.now);
        let due = node.waiting.iter().take_while(|(end, _)| *end <= acknowledged).count();
        if due > 0 {
            let office = (node.leading.unwrap_or(0), node.me()?);
            let members = self.objects.read().0.1.in_sync.len();
            let due: Vec<_> = node.waiting.drain(..due).collect();
            for (end, message) in due {
                let has = |node: &&Node| {
                    let entry = node.disk.log.get(end as usize - 1);
                    node.disk.flushed as u64 >= end
                        && entry.is_some_and(|entry| entry.message == message)
                };
                self.check.is_copied(self.nodes.iter().filter(has).count(), members)?;
                self.check.acknowledge(end - 1, message, office)?;
            }
        }
        if let Some(visible) = self.nodes[place].standing.visible
            && self.random.one_in(4)
        {
            self.check.see(&self.nodes[place], visible)?;
        }
        Ok(())
    }

    fn act_on(&mut self, place: usize, action: Action) -> Result<(), Problem> {
        if self.is_traced
            && !matches!(action, Action::Read { .. } | Action::Tell(_) | Action::Share(_))
        {
            eprintln!("{:?} {place} {action:?}", self.now);
        }
        let start = self.nodes[place].starts;
        match action {
            Action::Read { request } => self.ask_later(place, start, Ask::Read { request }),
            Action::SwapRecord { request, expected, record } => {
                self.ask_later(place, start, Ask::SwapRecord { request, expected, record });
            }
            Action::SwapLease { request, expected, lease } => {
                self.ask_later(place, start, Ask::SwapLease { request, expected, lease });
            }
            Action::Promise(promise) => {
                self.nodes[place].writing = Some(promise);
                // Who does not wait for it does not notice how long it takes.
                let is_slow = self.random.one_in(16);
                let slowest = match planted::is_on(Planted::ActBeforeThePromise) {
                    true => 20_000,
                    false if is_slow => 3_000,
                    false => 20,
                };
                let delay = self.random.millis(0, slowest);
                self.schedule_input(place, delay, Input::Promised);
            }
            Action::Lead { epoch } => {
                let node = &mut self.nodes[place];
                node.following = None;
                node.waiting.clear();
                node.leading = Some(epoch);
                let me = node.me()?;
                let record = node.replica.as_ref().and_then(Replica::record);
                let loss_epoch = record.map_or(0, |record| record.loss_epoch);
                self.check.led(epoch, me)?;
                self.check.led_with_loss(&self.nodes[place], loss_epoch);
                self.check.led_with_all(epoch, &self.nodes[place])?;
                self.append(place, vec![Entry { epoch, message: 0 }]);
                self.relieve_later(place);
            }
            Action::Follow { master, epoch } => {
                let node = &mut self.nodes[place];
                node.leading = None;
                node.waiting.clear();
                node.following = Some((master, epoch, false));
                self.ask_master(place);
            }
            Action::Stop => {
                let node = &mut self.nodes[place];
                node.leading = None;
                node.following = None;
                node.waiting.clear();
            }
            Action::Tell(report) => {
                for to in (0..self.nodes.len()).filter(|to| *to != place) {
                    self.pass(place, to, Event::Report { to, report });
                }
                if self.random.one_in(500) {
                    self.disconnect(place, report.from);
                }
            }
            Action::Share(record) => {
                let from = self.nodes[place].me()?;
                for to in (0..self.nodes.len()).filter(|to| *to != place) {
                    self.pass(place, to, Event::Record { to, from, record: record.clone() });
                }
            }
        }
        Ok(())
    }

    /// Appends at a node, and flushes a little later.
    fn append(&mut self, place: usize, entries: Vec<Entry>) {
        let node = &mut self.nodes[place];
        node.disk.log.extend(entries);
        let (end, position, local) = (node.disk.log.len(), node.position(), node.local(self.now));
        if node.waits_for_promise() {
            node.has_moved = true;
        } else if let Some(replica) = &mut node.replica {
            replica.log_moved(local, position);
        }
        let delay = self.random.millis(0, 20);
        self.schedule_input(place, delay, Input::Flushed { end });
    }

    /// A producer sends to whoever thinks that it is master.
    pub(super) fn send(&mut self) {
        let is_quiet = self.random.one_in(50);
        self.schedule_random(10, if is_quiet { 2_000 } else { 60 }, Event::Send);
        for place in 0..self.nodes.len() {
            self.send_to(place);
        }
    }

    /// A thread of this node's broker takes a message, where it may.
    pub(super) fn send_to(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        let Some(epoch) = node.leading.filter(|_| node.paused_until <= self.now) else { return };
        if !node.may_append(self.now) {
            return;
        }
        let Ok(from) = node.me() else { return };
        self.messages += 1;
        let entry = Entry { epoch, message: self.messages };
        let at = node.disk.log.len();
        node.waiting.push((at as u64 + 1, self.messages));
        self.append(place, vec![entry]);
        for to in (0..self.nodes.len()).filter(|to| *to != place) {
            let stream = Stream::Entries { from, epoch, at, entries: vec![entry] };
            self.pass(place, to, Event::Stream { to, stream });
        }
    }

    /// What a follower asks its master for.
    pub(super) fn ask_master(&mut self, place: usize) {
        let node = &self.nodes[place];
        let (Some((master, epoch, is_aligned)), Some(replica)) = (node.following, &node.replica)
        else {
            return;
        };
        let (from, at) = (replica.me(), node.disk.log.len());
        let stream = match is_aligned {
            true => Stream::Fetch { from, epoch, at },
            false => Stream::Hello { from, epoch },
        };
        let to = master.replica.0 as usize;
        self.pass(place, to, Event::Stream { to, stream });
    }

    pub(super) fn stream(&mut self, place: usize, stream: Stream) -> Result<(), Problem> {
        // Where a quorum acknowledges a slave may be behind for long, and then be anywhere in its log.
        let most = match self.settings.is_by_quorum() {
            true => 1 + self.random.below(16) as usize,
            false => 16,
        };
        let node = &mut self.nodes[place];
        let local = node.local(self.now);
        let is_lagging = self.now < node.lags_until && matches!(stream, Stream::Entries { .. });
        if node.replica.is_none() || is_lagging {
            return Ok(());
        }
        let answer = match stream {
            Stream::Hello { from, epoch } if node.leading == Some(epoch) => {
                let (epochs, end) = (node.epochs()?, node.disk.log.len() as u64);
                node.me().ok().map(|me| (from, Stream::Welcome { from: me, epoch, epochs, end }))
            }
            Stream::Fetch { from, epoch, at } if node.leading == Some(epoch) => {
                let entries = node.entries_from(at, most);
                let is_more = !entries.is_empty();
                let me = node.me();
                let entries = |from| Stream::Entries { from, epoch, at, entries };
                me.ok().filter(|_| is_more).map(|me| (from, entries(me)))
            }
            Stream::Welcome { from, epoch, epochs, end } => {
                let is_asked = |(master, followed, is_aligned): (Member, u64, bool)| {
                    (master, followed) == (from, epoch) && !is_aligned
                };
                if !node.following.is_some_and(is_asked) {
                    return Ok(());
                }
                let common = node.epochs()?.common_end(node.disk.log.len() as u64, &epochs, end);
                node.truncate(common);
                node.following = node.following.map(|(master, epoch, _)| (master, epoch, true));
                let position = node.position();
                if let Some(replica) = &mut node.replica {
                    replica.aligned(local, epoch, position);
                }
                self.ask_master(place);
                None
            }
            Stream::Entries { from, epoch, at, entries } => {
                let follows = node.following == Some((from, epoch, true));
                let fits = at == node.disk.log.len() || planted::is_on(Planted::FollowWithoutCut);
                if follows && fits {
                    let may_be_more = entries.len() > 1 || self.settings.is_by_quorum();
                    self.append(place, entries);
                    if may_be_more {
                        self.ask_master(place);
                    }
                }
                None
            }
            Stream::Hello { .. } | Stream::Fetch { .. } => None,
        };
        if let Some((to, stream)) = answer {
            let to = to.replica.0 as usize;
            self.pass(place, to, Event::Stream { to, stream });
        }
        Ok(())
    }
}
