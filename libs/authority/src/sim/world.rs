//! The event loop: time, messages, and what a broker does for its [`crate::Replica`].

mod broker;
mod consumer;
mod end;
mod event;
mod harm;
mod heal;
mod quorum;
mod stream;
mod waits;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::check::{Check, Problem, Rule, Summary};
use super::faults::Network;
use super::links::Links;
use super::log::{Entry, What};
use super::node::Node;
use super::objects::Objects;
use super::random::Random;
use super::schedule::{Favourite, Schedule};
use crate::{ReplicaId, Settings, Swapped, Version};
use event::{Ask, Event, Input, Message};
use waits::Waiting;

const TICK: Duration = Duration::from_millis(100);
/// How long a process takes to begin again at the longest, while nothing goes wrong, in milliseconds.
const SOON: u64 = 1_000;
/// How long a mended group has to become whole.
const HEAL: Duration = Duration::from_secs(20);

pub(super) struct World {
    now: Duration,
    random: Random,
    settings: Settings,
    length: Duration,
    fault_every: u64,
    events: BTreeMap<(Duration, u64), Box<Event>>,
    sequence: u64,
    /// What arrived at a node while it waits for its promise.
    deferred: Vec<Vec<Event>>,
    /// What was deferred and has its turn now, before all else.
    ready: VecDeque<Event>,
    nodes: Vec<Node>,
    objects: Objects,
    network: Network,
    links: Links,
    check: Check,
    messages: u64,
    is_healing: bool,
    waiting: Waiting,
    /// The next who swaps the record does not hear of it and is gone soon after.
    ambush: bool,
    is_damaged: bool,
    is_changing: bool,
    is_quorum: bool,
    /// Whether retention takes old records, and whether somebody takes an image away.
    expires: bool,
    takes_images_away: bool,
    cuts_slowly: bool,
    clocks_jump: bool,
    favourite: Option<Favourite>,
    /// Whether replicas are told of changes of the record.
    has_watch: bool,
    reads_are_stale: bool,
    is_forking: bool,
    /// How many masters are still to be cut off soon after they began, and until when nothing else goes wrong.
    succession: (u32, Duration),
    is_traced: bool,
}

impl World {
    pub(super) fn new(seed: u64, schedule: &Schedule) -> Self {
        let mut random = Random(seed);
        let settings = schedule.settings();
        // One more, which may come in.
        let all = 0..schedule.replicas + u32::from(schedule.is_changing);
        let nodes: Vec<_> =
            all.map(|id| Node::new(ReplicaId(id), settings.clone(), &mut random)).collect();
        Self {
            now: Duration::ZERO,
            settings,
            length: schedule.length,
            fault_every: schedule.fault_every.as_millis() as u64,
            events: BTreeMap::new(),
            sequence: 0,
            deferred: vec![Vec::new(); nodes.len()],
            ready: VecDeque::new(),
            links: Links::new(nodes.len()),
            network: Network::new(nodes.len()),
            nodes,
            objects: Objects::default(),
            check: Check::new(schedule),
            messages: 0,
            is_healing: false,
            waiting: Waiting::default(),
            ambush: false,
            is_damaged: schedule.is_damaged,
            is_changing: schedule.is_changing,
            is_quorum: schedule.is_quorum(),
            expires: schedule.expires,
            takes_images_away: schedule.takes_images_away,
            cuts_slowly: schedule.cuts_slowly,
            clocks_jump: schedule.clocks_jump,
            favourite: schedule.favourite,
            has_watch: schedule.has_watch,
            reads_are_stale: false,
            is_forking: false,
            succession: (0, Duration::ZERO),
            is_traced: std::env::var_os("TRACE").is_some(),
            random,
        }
    }

    pub(super) fn run(&mut self) -> Result<Summary, Problem> {
        if self.random.one_in(5) {
            self.begin_with_a_log();
        }
        for node in 0..self.nodes.len() {
            self.restart(node);
        }
        self.schedule(Duration::ZERO, Event::Send);
        self.schedule(Duration::ZERO, Event::Consume);
        if self.expires {
            (0..self.nodes.len()).for_each(|node| self.expire(node));
        }
        if !self.settings.takes_over {
            self.schedule(Duration::ZERO, Event::Look);
        }
        self.schedule_fault();
        while self.now < self.length {
            self.step()?;
            self.check.is_forked = self.objects.is_forked;
            self.check.was_damaged = self.objects.was_damaged;
            if self.objects.is_forked && !self.is_quorum {
                // Nobody can notice, so nothing is promised.
                return Ok(self.check.summary);
            }
        }
        self.heal();
        if self.objects.is_forked {
            let healed = self.become_whole(&|_| true);
            healed.or_else(|problem| self.everybody_says_why(problem))?;
            return self.check.end_forked(&self.nodes);
        }
        self.become_whole(&|_| true)?;
        self.hand_over_in_peace()?;
        self.serve_without_a_minority()?;
        self.heal();
        self.become_whole(&|_| true)?;
        let master = self.nodes.iter().position(|node| node.leading.is_some());
        let master = master.ok_or_else(|| Rule::Serves.broken("whole, and without a master"))?;
        let master = &self.nodes[master];
        let answer = master.committed(self.now).flatten();
        self.check.answers_at_the_end(master, answer, &self.settings.group)?;
        self.check.end(master)?;
        Ok(self.check.summary)
    }

    /// One replica brings a log from before there was a record; nothing of it may go.
    fn begin_with_a_log(&mut self) {
        let place = self.random.below(self.settings.group.len() as u64) as usize;
        let disk = &mut self.nodes[place].disk;
        for _ in 0..30 {
            self.messages += 1;
            let at = disk.log.end();
            let _ = disk.log.push(Entry { epoch: 0, what: What::Message(self.messages) });
            self.check.brought(at, self.messages);
        }
        disk.log.flush(u64::MAX);
    }

    fn step(&mut self) -> Result<(), Problem> {
        let event = self.next()?;
        let node = match &event {
            Event::Process { node, .. } => Some(*node),
            Event::Message { to, .. } | Event::Disconnected { to, .. } => Some(*to),
            Event::BeginAnew { node, .. } | Event::Expire { node } => Some(*node),
            Event::WriteOffsets { node, .. } => Some(*node),
            Event::Ask { .. } | Event::Send | Event::Consume => None,
            Event::Fault | Event::Look => None,
            Event::Restart { .. } | Event::Crash { .. } => None,
            Event::Part { .. } | Event::Fork { .. } => None,
            Event::Relieve { .. } | Event::Flap { .. } => None,
            Event::Configure { node, .. } | Event::Promote { node, .. } => Some(*node),
        };
        if let Some(paused) = node.map(|node| self.nodes[node].paused_until)
            && paused > self.now
        {
            self.schedule(paused - self.now, event);
            return Ok(());
        }
        // Threads that take and answer messages are there first, also after a pause.
        if let Some(node) = node {
            if std::mem::take(&mut self.nodes[node].is_waking) {
                self.send_to(node)?;
            }
            self.answer(node)?;
        }
        if let Some(place) = node
            && self.nodes[place].waits_for_promise()
            && !matches!(event, Event::Process { input: Input::Promised, .. })
        {
            self.deferred[place].push(event);
            return Ok(());
        }
        let record_before = self.objects.record_version();
        match event {
            Event::Process { node, start, input } => {
                if self.nodes[node].starts == start {
                    self.input(node, input)?;
                }
            }
            Event::Message { from, to, connection, message } => {
                if connection == self.links.number(from, to) {
                    self.receive(to, message)?;
                }
            }
            Event::Disconnected { to, from } => self.disconnected(to, from),
            Event::Ask { node, start, ask } => self.ask(node, start, ask)?,
            Event::Send => self.send()?,
            Event::Consume => self.consume()?,
            Event::WriteOffsets { node, start } => self.write_offsets(node, start),
            Event::Configure { node, settings } => {
                // Afterwards an older one may come, as with a slow roll-out.
                if !self.is_healing {
                    self.nodes[node].configure(settings, self.now);
                }
            }
            Event::Look => self.look(),
            Event::Promote { node, promotion } => {
                let settings = self.nodes[node].settings.clone();
                let settings = Settings { promotion: Some(promotion), ..settings };
                self.nodes[node].configure(settings, self.now);
            }
            Event::Part { node } if !self.is_healing => {
                self.network.part(node, 0..self.nodes.len());
            }
            Event::Fork { late, step } if !self.is_healing => self.fork(late, step),
            Event::Part { .. } | Event::Fork { .. } => {}
            Event::Relieve { node } => self.relieve(node),
            Event::Flap { pair, left } => self.flap(pair, left),
            Event::Fault => {
                if !self.is_healing {
                    if !self.is_forking && self.now >= self.succession.1 {
                        self.fault()?;
                    }
                    self.schedule_fault();
                }
            }
            Event::Restart { node } => self.restart(node),
            Event::BeginAnew { node, start } => self.begin_anew(node, start)?,
            Event::Expire { node } => self.expire(node),
            Event::Crash { node } if !self.is_healing => self.crash(node, false),
            Event::Crash { .. } => {}
        }
        if self.has_watch && self.objects.record_version() != record_before {
            let from = self.network.authority();
            for to in 0..self.nodes.len() {
                let start = self.nodes[to].starts;
                self.pass(from, to, Event::Process { node: to, start, input: Input::Changed });
            }
        }
        match node {
            Some(node) => self.act(node),
            None => {
                let now = self.now;
                let awake = (0..self.nodes.len()).filter(|&it| self.nodes[it].paused_until <= now);
                awake.collect::<Vec<_>>().into_iter().try_for_each(|node| self.act(node))
            }
        }
    }

    fn next(&mut self) -> Result<Event, Problem> {
        if let Some(event) = self.ready.pop_front() {
            return Ok(event);
        }
        let Some(((time, _), event)) = self.events.pop_first() else {
            return Err(Rule::Simulation.broken("no event is left"));
        };
        self.now = self.now.max(time);
        Ok(*event)
    }

    fn receive(&mut self, to: usize, message: Message) -> Result<(), Problem> {
        let node = &mut self.nodes[to];
        let local = node.local(self.now);
        let Some(replica) = &mut node.replica else { return Ok(()) };
        match message {
            Message::Report(report) => replica.heard(local, report),
            Message::Record(from, record) => replica.heard_record(local, from, record),
            Message::Stream(stream) => return self.stream(to, stream),
        }
        Ok(())
    }

    fn input(&mut self, node: usize, input: Input) -> Result<(), Problem> {
        let Self { nodes, now, .. } = self;
        let place = node;
        let node = &mut nodes[node];
        let local = node.local(*now);
        let Some(replica) = &mut node.replica else { return Ok(()) };
        match input {
            Input::Tick => {
                node.ticked = *now;
                replica.tick(local);
                self.ask_master(place);
                self.pass_offsets_on(place);
                self.log_offsets(place)?;
                self.schedule_input(place, TICK, Input::Tick);
                self.end_if_due(place);
            }
            Input::Changed => replica.changed(),
            Input::Promised => {
                node.disk.promise = node.writing.take().or(node.disk.promise.take());
                self.go_on(place);
                if !self.is_healing && self.random.one_in(500) {
                    // It may be there although the write failed: then the process ends.
                    self.crash(place, false);
                }
            }
            Input::Flushed { end } => {
                node.disk.log.flush(end);
                let position = node.position();
                if let Some(replica) = &mut node.replica {
                    replica.log_moved(local, position);
                }
            }
            Input::Read { request, found } => replica.read(local, request, Some(found)),
            Input::RecordSwapped { request, swapped } => {
                replica.record_swapped(local, request, swapped);
            }
            Input::LeaseSwapped { request, swapped } => {
                replica.lease_swapped(local, request, swapped);
            }
        }
        Ok(())
    }

    /// A request arrives at the authority.
    fn ask(&mut self, node: usize, start: u64, ask: Ask) -> Result<(), Problem> {
        let swapped = |version: Option<Version>| version.map_or(Swapped::Lost, Swapped::Won);
        let input = match ask {
            Ask::Read { request } => {
                let is_stale = self.reads_are_stale && self.random.one_in(2);
                let found = match is_stale {
                    true => self.objects.read_stale(&mut self.random),
                    false => self.objects.read(),
                };
                Input::Read { request, found }
            }
            Ask::SwapRecord { request, expected, record } => {
                let version = self.objects.swap_record(&expected, record);
                let version = version
                    .map_err(|error| Rule::RecordKept.broken(format!("{node} asks: {error}")))?;
                if version.is_some() && std::mem::take(&mut self.ambush) {
                    self.network.cut(&[(self.network.authority(), node)]);
                    if self.random.one_in(2) {
                        let others = (0..self.nodes.len()).filter(|other| *other != node);
                        self.network.cut(&others.map(|other| (node, other)).collect::<Vec<_>>());
                    }
                    self.schedule_random(50, 3_000, Event::Crash { node });
                    self.lag_in_ambush(node);
                }
                Input::RecordSwapped { request, swapped: swapped(version) }
            }
            Ask::SwapLease { request, expected, lease } => {
                let version = self.objects.swap_lease(&expected, lease);
                Input::LeaseSwapped { request, swapped: swapped(version) }
            }
        };
        let from = self.network.authority();
        self.pass(from, node, Event::Process { node, start, input });
        Ok(())
    }

    fn ask_later(&mut self, node: usize, start: u64, ask: Ask) {
        let to = self.network.authority();
        self.pass(node, to, Event::Ask { node, start, ask });
    }

    /// Nothing is being written any more at this node.
    fn go_on(&mut self, place: usize) {
        self.ready.extend(std::mem::take(&mut self.deferred[place]));
    }

    fn restart(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if !node.is_up() {
            node.start(self.now);
            self.schedule_input(place, Duration::ZERO, Input::Tick);
        }
    }

    /// A process is started again after a while.
    fn restart_later(&mut self, node: usize) {
        let slowest = if self.is_healing { SOON } else { 15_000 };
        self.schedule_random(100, slowest, Event::Restart { node });
    }

    /// What does not go over the connection of two replicas.
    fn pass(&mut self, from: usize, to: usize, event: Event) {
        if let Some(delay) = self.network.passage(from, to, &mut self.random) {
            self.schedule(delay, event);
        }
    }

    fn send_message(&mut self, from: usize, to: usize, message: Message) {
        if let Some(delay) = self.network.passage(from, to, &mut self.random) {
            let delay = self.links.arrival(from, to, self.now + delay) - self.now;
            let connection = self.links.number(from, to);
            self.schedule(delay, Event::Message { from, to, connection, message });
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), Box::new(event));
    }

    fn schedule_input(&mut self, node: usize, delay: Duration, input: Input) {
        let start = self.nodes[node].starts;
        self.schedule(delay, Event::Process { node, start, input });
    }

    fn schedule_random(&mut self, from: u64, to: u64, event: Event) {
        let delay = self.random.millis(from, to);
        self.schedule(delay, event);
    }

    fn schedule_fault(&mut self) {
        self.schedule_random(self.fault_every / 2, self.fault_every * 3 / 2, Event::Fault);
    }
}
