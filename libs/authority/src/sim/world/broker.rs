//! What a broker does for its replica: append, flush, replicate, cut, acknowledge.

use super::World;
use super::event::{Ask, Event, Input, Message};
use crate::planted::{self, Planted};
use crate::sim::check::{Problem, Rule};
use crate::sim::log::{Entry, What};
use crate::sim::node::{Following, Node, Restart, Stream};
use crate::{Action, Replica};

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
                    let log = &node.disk.log;
                    let entry = log.get(end - 1);
                    let is_it = entry.is_some_and(|entry| entry.what == What::Message(message));
                    log.flushed() >= end && (is_it || log.start() >= end)
                };
                self.check.is_copied(self.nodes.iter().filter(has).count(), members)?;
                let is_later = |entry: Entry| entry.epoch > office.0;
                let goes_on =
                    |node: &&Node| has(node) && node.disk.log.last().is_some_and(is_later);
                let is_passed_on = self.nodes.iter().any(|node| goes_on(&node));
                self.check.acknowledge(end - 1, message, office, is_passed_on)?;
            }
        }
        let offsets = &mut self.nodes[place].offsets;
        let due = offsets.awaits_log.iter().take_while(|(end, _)| *end <= acknowledged).count();
        for (_, offset) in offsets.awaits_log.drain(..due) {
            self.check.committed(offset);
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
                self.check.obeys(self.nodes[place].id, epoch)?;
                let node = &mut self.nodes[place];
                node.waiting.clear();
                node.leading = Some(epoch);
                let me = node.me()?;
                let record = node.replica.as_ref().and_then(Replica::record);
                let loss_epoch = record.map_or(0, |record| record.loss_epoch);
                self.check.led(epoch, me)?;
                self.check.led_with_loss(&self.nodes[place], loss_epoch);
                self.check.led_with_all(epoch, &self.nodes[place])?;
                self.await_offsets(place);
                self.nodes[place].following = None;
                self.begin_epoch(place, epoch)?;
                self.relieve_later(place);
            }
            Action::Follow { master, epoch } => {
                self.check.obeys(self.nodes[place].id, epoch)?;
                self.nodes[place].following = Some(Following::new(master, epoch));
                self.leave_office(place);
                self.ask_master(place);
            }
            Action::Stop => {
                self.nodes[place].following = None;
                self.leave_office(place);
            }
            Action::Tell(report) => {
                self.send_to_others(place, &Message::Report(report));
                if self.random.one_in(500) {
                    self.lose_connections(place);
                }
            }
            Action::Share(record) => {
                let from = self.nodes[place].me()?;
                self.send_to_others(place, &Message::Record(from, record));
            }
        }
        Ok(())
    }

    fn send_to_others(&mut self, place: usize, message: &Message) {
        for to in (0..self.nodes.len()).filter(|to| *to != place) {
            self.send_message(place, to, message.clone());
        }
    }

    /// What was applied at a master and is in nobody else's log goes with the process's tables.
    fn leave_office(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.waiting.clear();
        node.offsets.awaits_log.clear();
        if node.leading.take().is_some() {
            self.begin_anew_for(place, Restart::Demoted);
        }
    }

    /// Appends at a node, and flushes a little later.
    pub(super) fn append(&mut self, place: usize, entries: Vec<Entry>) -> Result<(), Problem> {
        let node = &mut self.nodes[place];
        for entry in entries {
            let begins = node.disk.log.push(entry);
            if !begins && !planted::is_on(Planted::FollowWithoutCut) {
                let (id, epoch) = (node.id.0, entry.epoch);
                let text = format!("epoch {epoch} begins at {id} after a later one");
                return Err(Rule::OneMaster.broken(text));
            }
        }
        let (end, position, local) = (node.disk.log.end(), node.position(), node.local(self.now));
        if node.waits_for_promise() {
            node.has_moved = true;
        } else if let Some(replica) = &mut node.replica {
            replica.log_moved(local, position);
        }
        self.flush_later(place, end);
        Ok(())
    }

    /// A producer sends to whoever thinks that it is master.
    pub(super) fn send(&mut self) -> Result<(), Problem> {
        let is_quiet = self.random.one_in(50);
        self.schedule_random(10, if is_quiet { 2_000 } else { 60 }, Event::Send);
        (0..self.nodes.len()).try_for_each(|place| self.send_to(place))
    }

    /// A thread of this node's broker takes a message, where it may, and now and then there is an image.
    pub(super) fn send_to(&mut self, place: usize) -> Result<(), Problem> {
        let message = self.messages + 1;
        let Some(end) = self.log(place, What::Message(message))? else { return Ok(()) };
        self.messages = message;
        self.nodes[place].waiting.push((end, message));
        if self.random.one_in(40) {
            let committed = self.nodes[place].table();
            self.log(place, What::Image(committed))?;
        }
        Ok(())
    }

    /// A master appends a record, where it may, and says where it ends; the others get it at once.
    pub(super) fn log(&mut self, place: usize, what: What) -> Result<Option<u64>, Problem> {
        let node = &self.nodes[place];
        let epoch = node.leading.filter(|_| node.paused_until <= self.now);
        let (Some(epoch), true) = (epoch, node.may_append(self.now)) else { return Ok(None) };
        let Ok(from) = node.me() else { return Ok(None) };
        let (at, entries) = (node.disk.log.end(), vec![Entry { epoch, what }]);
        self.append(place, entries.clone())?;
        let stream = Stream::Entries { from, epoch, at, entries };
        self.send_to_others(place, &Message::Stream(stream));
        Ok(Some(at + 1))
    }
}
