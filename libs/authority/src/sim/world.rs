//! The event loop: time, messages, and what a broker does for its [`Replica`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{Check, Problem, Rule, Summary};
use super::faults::{Damage, Fault, Network};
use super::node::{Entry, Node, Stream};
use super::objects::{Found, Objects};
use super::random::Random;
use super::schedule::Schedule;
use crate::settings::election_quorum_of;
use crate::{
    Lease, Member, Promotion, Record, Replica, ReplicaId, Report, Settings, Swapped, Version,
};

mod broker;
mod end;
mod quorum;

const TICK: Duration = Duration::from_millis(100);
/// How long a mended group has to become whole.
const HEAL: Duration = Duration::from_secs(120);

#[derive(Clone)]
enum Event {
    /// To a start of a node's process; gone with it.
    Process {
        node: usize,
        start: u64,
        input: Input,
    },
    /// To whatever process of the node runs then.
    Report {
        to: usize,
        report: Report,
    },
    Record {
        to: usize,
        from: Member,
        record: Record,
    },
    Stream {
        to: usize,
        stream: Stream,
    },
    Ask {
        node: usize,
        start: u64,
        ask: Ask,
    },
    Send,
    Fault,
    Configure {
        node: usize,
        settings: Settings,
    },
    /// Somebody looks whether a replica has to be promoted.
    Look,
    Promote {
        node: usize,
        promotion: Promotion,
    },
    Part {
        node: usize,
    },
    /// A master of a succession is cut off, and the one before is there again.
    Relieve {
        node: usize,
    },
    /// A connection ends, or is there again, and so on.
    Flap {
        pair: (usize, usize),
        left: u32,
    },
    Fork {
        late: usize,
        step: u32,
    },
    Restart {
        node: usize,
    },
    Crash {
        node: usize,
    },
    /// A connection has ended, to this start of a replica.
    Disconnected {
        to: usize,
        from: Member,
    },
}

#[derive(Clone)]
enum Input {
    Tick,
    /// A watch says that the record changed.
    Changed,
    Flushed {
        end: usize,
    },
    /// A promise is durable, or could not be written.
    Promised,
    Read {
        request: u64,
        found: Found,
    },
    RecordSwapped {
        request: u64,
        swapped: Swapped,
    },
    LeaseSwapped {
        request: u64,
        swapped: Swapped,
    },
}

#[derive(Clone)]
enum Ask {
    Read { request: u64 },
    SwapRecord { request: u64, expected: Version, record: Record },
    SwapLease { request: u64, expected: Version, lease: Lease },
}

pub(super) struct World {
    now: Duration,
    random: Random,
    settings: Settings,
    length: Duration,
    fault_every: u64,
    events: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    /// What arrived at a node while it waits for its promise.
    deferred: Vec<Vec<Event>>,
    nodes: Vec<Node>,
    objects: Objects,
    network: Network,
    check: Check,
    messages: u64,
    is_healing: bool,
    /// The next who swaps the record does not hear of it and is gone soon after.
    ambush: bool,
    is_damaged: bool,
    is_changing: bool,
    is_quorum: bool,
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
            network: Network::new(nodes.len()),
            nodes,
            objects: Objects::default(),
            check: Check::new(schedule),
            messages: 0,
            is_healing: false,
            ambush: false,
            is_damaged: schedule.is_damaged,
            is_changing: schedule.is_changing,
            is_quorum: schedule.is_quorum(),
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
        self.serve_without_a_minority()?;
        self.heal();
        self.become_whole(&|_| true)?;
        let master = self.nodes.iter().position(|node| node.leading.is_some());
        let master = master.ok_or_else(|| Rule::Serves.broken("whole, and without a master"))?;
        self.check.end(&self.nodes[master])?;
        Ok(self.check.summary)
    }

    /// One of three replicas goes, or cannot ask the authority, or does not hear the others: the
    /// others have to go on.
    fn serve_without_a_minority(&mut self) -> Result<(), Problem> {
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
                self.nodes[gone].crash(false, &mut self.random);
                self.go_on(gone);
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
        self.nodes[third].crash(false, &mut self.random);
        self.go_on(third);
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
    fn become_whole(&mut self, counts: &dyn Fn(&Node) -> bool) -> Result<(), Problem> {
        let end = self.now + HEAL;
        let mut asked = None;
        let group = self.settings.group.clone();
        let counts = &|node: &Node| counts(node) && group.contains(&node.id);
        while self.now < end {
            self.step()?;
            self.hand_over_from_strangers();
            match asked {
                None if self.is_whole(counts) => asked = Some(self.messages + 1),
                Some(message) if self.is_acknowledged(message, counts) => return Ok(()),
                _ => {}
            }
        }
        let ((_, record), (_, lease)) = self.objects.read();
        let roles: Vec<_> =
            self.nodes.iter().map(|node| node.replica.as_ref().map(Replica::role)).collect();
        let ends: Vec<_> = self.nodes.iter().map(|node| node.disk.log.len()).collect();
        let group = &self.settings.group;
        let text = format!(
            "nobody serves {group:?} {HEAL:?} after the last fault: {ends:?} {roles:?} {record:?} {lease:?}"
        );
        Err(Rule::Serves.broken(text))
    }

    /// One replica brings a log from before there was a record; nothing of it may go.
    fn begin_with_a_log(&mut self) {
        let place = self.random.below(self.settings.group.len() as u64) as usize;
        let disk = &mut self.nodes[place].disk;
        for _ in 0..30 {
            self.messages += 1;
            disk.log.push(Entry { epoch: 0, message: self.messages });
            self.check.brought(disk.log.len() as u64 - 1, self.messages);
        }
        disk.flushed = disk.log.len();
    }

    fn step(&mut self) -> Result<(), Problem> {
        let Some(((time, _), event)) = self.events.pop_first() else {
            return Err(Rule::Simulation.broken("no event is left"));
        };
        self.now = self.now.max(time);
        let node = match &event {
            Event::Process { node, .. } => Some(*node),
            Event::Report { to, .. } | Event::Record { to, .. } => Some(*to),
            Event::Stream { to, .. } | Event::Disconnected { to, .. } => Some(*to),
            Event::Ask { .. } | Event::Send | Event::Fault | Event::Look => None,
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
                self.send_to(node);
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
                    self.input(node, input);
                }
            }
            Event::Report { to, report } => {
                let now = self.nodes[to].local(self.now);
                if let Some(replica) = &mut self.nodes[to].replica {
                    replica.heard(now, report);
                }
            }
            Event::Record { to, from, record } => {
                let now = self.nodes[to].local(self.now);
                if let Some(replica) = &mut self.nodes[to].replica {
                    replica.heard_record(now, from, record);
                }
            }
            Event::Stream { to, stream } => self.stream(to, stream)?,
            Event::Disconnected { to, from } => {
                if let Some(replica) = &mut self.nodes[to].replica {
                    replica.disconnected(from);
                }
            }
            Event::Ask { node, start, ask } => self.ask(node, start, ask)?,
            Event::Send => self.send(),
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
                        self.fault();
                    }
                    self.schedule_fault();
                }
            }
            Event::Restart { node } => self.restart(node),
            Event::Crash { node } => self.crash(node, false),
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

    fn input(&mut self, node: usize, input: Input) {
        let Self { nodes, now, .. } = self;
        let place = node;
        let node = &mut nodes[node];
        let local = node.local(*now);
        let Some(replica) = &mut node.replica else { return };
        match input {
            Input::Tick => {
                node.ticked = *now;
                replica.tick(local);
                self.ask_master(place);
                self.schedule_input(place, TICK, Input::Tick);
                self.end_if_due(place);
            }
            Input::Changed => replica.changed(),
            Input::Promised => {
                node.disk.promise = node.writing.take().or(node.disk.promise.take());
                self.go_on(place);
                if self.random.one_in(500) {
                    // It may be there although the write failed: then the process ends.
                    self.crash(place, false);
                }
            }
            Input::Flushed { end } => {
                node.disk.flushed = node.disk.flushed.max(end.min(node.disk.log.len()));
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

    fn fault(&mut self) {
        let leading = self.nodes.iter().position(|node| node.leading.is_some());
        let random = &mut self.random;
        let kind = (self.is_damaged, self.is_changing, self.settings.is_by_quorum());
        let fault = Fault::random(self.nodes.len(), leading, kind, random);
        if self.is_traced {
            eprintln!("{:?} {fault:?}", self.now);
        }
        self.check.summary.faults += 1;
        match fault {
            Fault::Kill { node } => self.crash(node, false),
            Fault::PowerLoss { node } => self.crash(node, true),
            Fault::PowerLossOfAll => (0..self.nodes.len()).for_each(|node| self.crash(node, true)),
            Fault::Pause { node, length } => {
                self.nodes[node].paused_until = self.now + length;
                self.nodes[node].is_waking = true;
            }
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
            Fault::Flap { master, slave, from_authority } => {
                self.begin_to_flap(master, slave, from_authority);
            }
            Fault::Succession { masters } => self.begin_a_succession(masters),
            Fault::Ambush => self.ambush = true,
            Fault::End { node } => self.end(node),
            Fault::HandOver => {
                for node in &mut self.nodes {
                    let local = node.local(self.now);
                    let idle = node.replica.as_mut().filter(|_| node.writing.is_none());
                    let asked = idle.map(|it| it.hand_over(local, None));
                    self.check.summary.handovers += u64::from(asked == Some(true));
                }
            }
        }
    }

    /// The steps by which a record forks: the others go on without `late`, the record is restored
    /// to what it was before, only `late` hears of it, and then all meet.
    fn fork(&mut self, late: usize, step: u32) {
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
    fn look(&mut self) {
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
        let rank = |node: &&&Node| node.position().rank(&self.settings);
        let chosen = match accepts_loss {
            true => group.iter().max_by_key(rank),
            // Nobody else is elected, and it may be one that was to go. A master goes on by itself.
            false if self.is_healing && is_by_quorum && self.random.one_in(2) => {
                let is_other =
                    |node: &&&Node| record.master.is_none_or(|master| master.replica != node.id);
                intact.iter().filter(is_other).max_by_key(rank)
            }
            false => group.get(self.random.below(group.len() as u64) as usize),
        };
        let Some(replica) = chosen.map(|node| node.id) else { return };
        let promotion = Promotion { replica, epoch: record.epoch, accepts_loss };
        self.settings.promotion = Some(promotion);
        for node in 0..self.nodes.len() {
            self.schedule_random(0, 2_000, Event::Promote { node, promotion });
        }
    }

    /// The operator has masters that are to go hand over.
    fn hand_over_from_strangers(&mut self) {
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

    fn crash(&mut self, place: usize, power: bool) {
        let node = &mut self.nodes[place];
        let was_up = node.replica.as_ref().map(Replica::me);
        node.crash(power, &mut self.random);
        node.paused_until = Duration::ZERO;
        self.go_on(place);
        if let Some(from) = was_up {
            self.disconnect(place, from);
            self.schedule_random(100, 15_000, Event::Restart { node: place });
        }
    }

    /// Nothing is being written any more at this node.
    fn go_on(&mut self, place: usize) {
        for event in std::mem::take(&mut self.deferred[place]) {
            self.schedule(Duration::ZERO, event);
        }
    }

    fn restart(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.replica.is_none() {
            node.start(self.now);
            self.schedule_input(place, Duration::ZERO, Input::Tick);
        }
    }

    /// The group stopped, because the record was restored and then swapped. Everybody who does not
    /// serve says so.
    fn everybody_says_why(&self, problem: Problem) -> Result<(), Problem> {
        let serves = |node: &Node| node.may_append(self.now);
        let follows = |node: &Node| {
            let master = node.following.filter(|(_, _, is_aligned)| *is_aligned);
            master.is_some_and(|(master, ..)| serves(&self.nodes[master.replica.0 as usize]))
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

    fn heal(&mut self) {
        self.is_healing = true;
        self.reads_are_stale = false;
        if !self.objects.is_forked || self.random.one_in(2) {
            self.objects.put_back();
        }
        self.ambush = false;
        self.network.mend();
        for place in 0..self.nodes.len() {
            self.nodes[place].paused_until = self.now;
            self.nodes[place].lags_until = self.now;
            self.restart(place);
            self.nodes[place].configure(self.settings.clone(), self.now);
        }
    }

    /// One master, and everybody else that counts has all of its log.
    fn is_whole(&self, counts: &dyn Fn(&Node) -> bool) -> bool {
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
        is_set_whole && counted.all(|node| node.disk.log == master.disk.log)
    }

    fn is_acknowledged(&self, message: u64, counts: &dyn Fn(&Node) -> bool) -> bool {
        self.is_whole(counts)
            && self.nodes.iter().filter(|node| counts(node)).all(|node| {
                node.waiting.is_empty()
                    && node.disk.log.last().is_some_and(|last| last.message >= message)
            })
    }

    fn pass(&mut self, from: usize, to: usize, event: Event) {
        let may_double = matches!(event, Event::Report { .. } | Event::Stream { .. });
        if may_double && self.random.one_in(20) {
            self.pass_once(from, to, event.clone());
        }
        self.pass_once(from, to, event);
    }

    fn pass_once(&mut self, from: usize, to: usize, event: Event) {
        if let Some(delay) = self.network.passage(from, to, &mut self.random) {
            self.schedule(delay, event);
        }
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
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
