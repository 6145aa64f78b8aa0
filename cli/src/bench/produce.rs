//! Closed loop: every connection keeps its requests in flight and sends when an answer comes.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;
use weirmq_remoting::SerializeType;

use super::control::{Control, Offsets};
use super::frames::{Head, OPAQUE_BASE, OPAQUES, SendFrames, SendShape, scan};
use super::link::{Link, connect};
use super::options::{Output, Span, Target};
use super::report::{Report, Verified};
use super::tally::Tally;
use super::window::{DRAIN, Watch, Window, measure, on_own_runtime};

/// Holds the answers to everything that one connection may have in flight.
const INPUT_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct ProduceArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    span: Span,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
}

#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct LoadArgs {
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) connections: u32,
    /// Requests in flight on each connection
    #[arg(short = 'n', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) in_flight: u32,
    /// Bytes of each body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub(super) body: u32,
    /// Messages in each request; more than one sends batches
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) batch: u32,
    /// Send at most so many messages a second, over all connections
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rate: Option<u64>,
}

impl LoadArgs {
    pub(super) fn shape<'a>(
        &self,
        topic: &'a str,
        queues: u32,
        serialize: SerializeType,
    ) -> SendShape<'a> {
        SendShape {
            topic,
            queues,
            serialize,
            body_bytes: self.body as usize,
            batch: self.batch as usize,
            run: run_number(),
            topics: 0,
            one_tagged_in: 0,
        }
    }
}

pub(super) fn run(args: &ProduceArgs) -> anyhow::Result<()> {
    let (address, mut control) = args.target.open()?;
    let before = control.offsets(&args.target.topic, args.target.queues)?;
    let shape =
        args.load.shape(&args.target.topic, args.target.queues, args.target.serialize_type());
    let streams = connect(&address, args.load.connections as usize)?;
    let watch =
        Watch { broker_pid: args.target.broker_pid, store_dir: args.target.store_dir.as_deref() };
    let (tally, usage) =
        measure(&args.span, watch, |window| closed_loop(window, &args.load, shape, streams, None))?;
    let verified = verify(&mut control, &args.target.topic, &before, tally.acknowledged)?;
    let mut report = Report::new("produce", args, &tally.errors, usage)?;
    report.messages(tally.measured, &args.load, tally.window.length());
    report.latency = Some(tally.latencies.summary());
    report.verified = Some(verified);
    report.finish(args.output.output)
}

/// Compares what was acknowledged with what the queues hold.
pub(super) fn verify(
    control: &mut Control,
    topic: &str,
    before: &Offsets,
    acknowledged: u64,
) -> anyhow::Result<Verified> {
    let stored = control.stored_since(topic, before, acknowledged)?;
    Ok(Verified { acknowledged, stored, agrees: acknowledged == stored })
}

/// Sends `messages` as fast as the broker takes them, in batches; for topics that are to be read.
pub(super) fn fill(address: &str, shape: SendShape<'_>, messages: u64) -> anyhow::Result<Tally> {
    let load = LoadArgs {
        connections: 4,
        in_flight: 4,
        body: shape.body_bytes as u32,
        batch: shape.batch as u32,
        rate: None,
    };
    let requests = messages.div_ceil(shape.batch as u64);
    let streams = connect(address, load.connections as usize)?;
    let start = Instant::now();
    let window = Window { start, from: start, until: start + Duration::from_secs(120) };
    let fill = |window| closed_loop(window, &load, shape, streams, Some(requests));
    let (tally, _) = std::thread::scope(|scope| {
        let thread = scope.spawn(move || on_own_runtime(window, fill));
        thread.join().map_err(|_| anyhow::anyhow!("the load's thread panicked"))?
    })?;
    Ok(tally)
}

/// Runs all connections to the window's end, or until `requests` were sent, and drains them.
pub(super) async fn closed_loop(
    window: Window,
    load: &LoadArgs,
    shape: SendShape<'_>,
    streams: Vec<std::net::TcpStream>,
    requests: Option<u64>,
) -> anyhow::Result<Tally> {
    let tally = Rc::new(RefCell::new(Tally::new(window, requests)?));
    let mut lanes = Vec::new();
    for (index, stream) in streams.into_iter().enumerate() {
        let lane = Lane {
            link: Link::new(stream, INPUT_BYTES)?,
            frames: SendFrames::new(&shape, index)?,
            slots: vec![Slot { opaque: None, sent: window.start }; load.in_flight as usize],
            free: (0..load.in_flight as usize).rev().collect(),
            generation: 0,
            pace: Pace::new(load, index, window.start),
            batch: u64::from(load.batch),
            tally: tally.clone(),
        };
        lanes.push(tokio::task::spawn_local(lane.run(window)));
    }
    for lane in lanes {
        lane.await?;
    }
    let tally = Rc::into_inner(tally).map(RefCell::into_inner);
    tally.ok_or_else(|| anyhow::anyhow!("a connection outlived its task"))
}

/// One connection and what it has in flight.
struct Lane {
    link: Link,
    frames: SendFrames,
    slots: Vec<Slot>,
    free: Vec<usize>,
    generation: i32,
    pace: Pace,
    batch: u64,
    tally: Rc<RefCell<Tally>>,
}

/// A place for one request in flight; it has an opaque while it waits for the answer.
#[derive(Clone, Copy)]
struct Slot {
    opaque: Option<i32>,
    sent: Instant,
}

impl Lane {
    async fn run(mut self, window: Window) {
        tokio::time::sleep_until(window.start.into()).await;
        let ended =
            tokio::time::timeout_at((window.until + DRAIN).into(), self.drive(window)).await;
        let missing = (self.slots.len() - self.free.len()) as u64;
        let mut tally = self.tally.borrow_mut();
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tally.errors.add("connection lost", missing.max(1), || error.to_string())
            }
            Err(_) => tally.errors.add("no answer", missing, || format!("within {DRAIN:?}")),
        }
    }

    async fn drive(&mut self, window: Window) -> anyhow::Result<()> {
        loop {
            let mut now = Instant::now();
            let is_open = now < window.until && self.send(now);
            if !is_open && self.free.len() == self.slots.len() {
                return Ok(());
            }
            let due = if is_open && !self.free.is_empty() { self.pace.due() } else { None };
            tokio::select! {
                biased;
                read = self.link.exchange() => read?,
                () = sleep_until(due) => continue,
            }
            now = Instant::now();
            self.receive(now)?;
        }
    }

    /// Fills the free slots, as far as the pace allows. False when nothing is left to send.
    fn send(&mut self, now: Instant) -> bool {
        let mut tally = self.tally.borrow_mut();
        let mut born_ms = None;
        while let Some(slot) = self.free.last().copied() {
            if !self.pace.allows(now) {
                break;
            }
            if !tally.take_request() {
                return false;
            }
            self.free.pop();
            self.pace.advance();
            self.generation = (self.generation + 1) % (OPAQUES / self.slots.len() as i32);
            let opaque = OPAQUE_BASE + self.generation * self.slots.len() as i32 + slot as i32;
            self.slots[slot] = Slot { opaque: Some(opaque), sent: now };
            let born_ms = *born_ms.get_or_insert_with(epoch_ms);
            self.frames.render(&mut self.link.output, opaque, born_ms, &mut tally.next_key);
        }
        true
    }

    /// Takes all answers that were read.
    fn receive(&mut self, now: Instant) -> anyhow::Result<()> {
        let mut tally = self.tally.borrow_mut();
        while let Some(frame) = self.link.next_frame()? {
            let Some(Head { code, opaque, is_response }) = scan(&frame) else {
                anyhow::bail!("an answer without code, opaque or flag");
            };
            if !is_response {
                continue;
            }
            let at = opaque.wrapping_sub(OPAQUE_BASE) as usize % self.slots.len();
            let slot = &mut self.slots[at];
            if slot.opaque != Some(opaque) {
                tally.errors.add("unexpected answer", 1, || format!("opaque {opaque}"));
                continue;
            }
            slot.opaque = None;
            self.free.push(at);
            if code == 0 {
                tally.acknowledge(self.batch, slot.sent, now);
            } else {
                tally.errors.add_answer(code, &frame);
            }
        }
        Ok(())
    }
}

/// When a connection may send, if a rate was asked for. The connections take turns.
struct Pace {
    next: Instant,
    interval: Option<Duration>,
}

impl Pace {
    fn new(load: &LoadArgs, index: usize, start: Instant) -> Self {
        let requests = |rate: u64| rate as f64 / f64::from(load.batch);
        let between = load.rate.map(|rate| Duration::from_secs_f64(1.0 / requests(rate)));
        let next = start + between.unwrap_or_default() * index as u32;
        Self { next, interval: between.map(|between| between * load.connections) }
    }

    fn allows(&self, now: Instant) -> bool {
        self.interval.is_none() || self.next <= now
    }

    fn advance(&mut self) {
        self.next += self.interval.unwrap_or_default();
    }

    fn due(&self) -> Option<Instant> {
        self.interval.map(|_| self.next)
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => pending().await,
    }
}

/// Milliseconds since 1970.
pub(super) fn epoch_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// A number that no other run on this machine has.
pub(super) fn run_number() -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    (nanos as u64) ^ (u64::from(std::process::id()) << 44)
}
