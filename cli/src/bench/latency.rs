//! Open loop: messages leave at their time whether or not earlier ones were answered, and one
//! long-polling consumer in the same process reads them by the same clock.
//!
//! Both latencies count from the *intended* time of sending, so a broker or a generator that stalls
//! is charged for every message that should have gone out meanwhile.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use weirmq_message::record::records;
use weirmq_remoting::frame::Frame;
use weirmq_remoting::{Code, ResponseCode};

use super::control::Offsets;
use super::frames::{Head, OPAQUE_BASE, OPAQUES, SendFrames, SendShape, scan};
use super::link::{Link, connect};
use super::options::{Output, Span, Target};
use super::produce::{LoadArgs, epoch_ms};
use super::pull::{MESSAGES_MAX, Pulls, read};
use super::report::{Report, Verified};
use super::tally::{Latencies, Tally};
use super::ticks::{Ticks, tick};
use super::window::{DRAIN, Watch, Window, measure};

const INPUT_BYTES: usize = 1 << 20;
/// Number of the run and intended time of sending, at the front of each body.
const STAMP_BYTES: usize = 16;

#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct LatencyArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    span: Span,
    /// Messages a second
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Connections that send, by turns
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: u32,
    /// Bytes of each body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=4_194_304))]
    body: u32,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
}

pub(super) fn run(args: &LatencyArgs) -> anyhow::Result<()> {
    let (address, mut control) = args.target.open()?;
    let before = control.offsets(&args.target.topic, args.target.queues)?;
    let load = LoadArgs {
        connections: args.connections,
        in_flight: 1,
        body: args.body,
        batch: 1,
        rate: Some(args.rate),
    };
    let shape = load.shape(&args.target.topic, args.target.queues, args.target.serialize_type());
    let senders = connect(&address, args.connections as usize)?;
    let receiver = connect(&address, 1)?;
    let watch =
        Watch { broker_pid: args.target.broker_pid, store_dir: args.target.store_dir.as_deref() };
    let (both, usage) = measure(&args.span, watch, |window| {
        open_loop(window, args.rate, shape, &before, senders, receiver)
    })?;
    let mut report = Report::new("latency", args, &both.tally.errors, usage)?;
    report.messages(both.consumed_in_window, &load, both.tally.window.length());
    report.latency = Some(both.tally.latencies.summary());
    report.end_to_end = Some(both.end_to_end.summary());
    report.lateness = Some(both.lateness.summary());
    let (acknowledged, stored) = (both.tally.acknowledged, both.consumed);
    report.verified = Some(Verified { acknowledged, stored, agrees: acknowledged == stored });
    report.finish(args.output.output)
}

/// What both ends found.
struct Both {
    tally: Tally,
    end_to_end: Latencies,
    lateness: Latencies,
    /// Messages of this run that the consumer got, at any time.
    consumed: u64,
    /// Those whose intended time lies in the window.
    consumed_in_window: u64,
}

async fn open_loop(
    window: Window,
    rate: u64,
    shape: SendShape<'_>,
    before: &Offsets,
    senders: Vec<std::net::TcpStream>,
    receiver: Vec<std::net::TcpStream>,
) -> anyhow::Result<Both> {
    let both = Rc::new(RefCell::new(Both {
        tally: Tally::new(window, None)?,
        end_to_end: Latencies::new()?,
        lateness: Latencies::new()?,
        consumed: 0,
        consumed_in_window: 0,
    }));
    let interval = Duration::from_nanos(1_000_000_000 / rate);
    let turn = interval * senders.len() as u32;
    let receiver = receiver.into_iter().next().context("the consumer's connection")?;
    let consumer = Consumer {
        link: Link::new(receiver, INPUT_BYTES)?,
        next: before.iter().map(|range: &Range<u64>| range.end).collect(),
        run: shape.run,
        start: window.start,
        both: both.clone(),
    };
    let topic = shape.topic.to_owned();
    let serialize = shape.serialize;
    let consuming = tokio::task::spawn_local(async move {
        let pulls = Pulls {
            topic: &topic,
            serialize,
            messages_max: MESSAGES_MAX,
            is_long: true,
            tags: "*",
        };
        consumer.run(pulls).await;
    });
    let mut sending = Vec::new();
    for (index, stream) in senders.into_iter().enumerate() {
        let sender = Sender {
            link: Link::new(stream, INPUT_BYTES)?,
            frames: SendFrames::new(&shape, index)?,
            run: shape.run,
            next: window.start + interval * index as u32,
            turn,
            first: 0,
            in_flight: VecDeque::new(),
            waiting: 0,
            both: both.clone(),
        };
        sending.push(tokio::task::spawn_local(sender.run(window)));
    }
    for sender in sending {
        sender.await?;
    }
    let patience = Instant::now() + DRAIN;
    while Instant::now() < patience && !consuming.is_finished() {
        if both.borrow().consumed >= both.borrow().tally.acknowledged {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    consuming.abort();
    // It was cancelled or it has ended; either way it lets go of what it shared.
    let _ = consuming.await;
    Ok(Rc::into_inner(both).context("the consumer outlived its task")?.into_inner())
}

/// One connection that sends by the clock.
struct Sender {
    link: Link,
    frames: SendFrames,
    run: u64,
    /// Intended time of the next message.
    next: Instant,
    /// Between two messages of this connection.
    turn: Duration,
    /// Number of the oldest message in `in_flight`.
    first: u64,
    /// Intended times, in order of sending; `None` when answered.
    in_flight: VecDeque<Option<Instant>>,
    waiting: u64,
    both: Rc<RefCell<Both>>,
}

impl Sender {
    async fn run(mut self, window: Window) {
        let ended =
            tokio::time::timeout_at((window.until + DRAIN).into(), self.drive(window)).await;
        let missing = self.waiting;
        let errors = &mut self.both.borrow_mut().tally.errors;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                errors.add("connection lost", missing.max(1), || format!("{error:#}"))
            }
            Err(_) => errors.add("no answer", missing, || format!("within {DRAIN:?}")),
        }
    }

    async fn drive(&mut self, window: Window) -> anyhow::Result<()> {
        let mut clock = Some(Ticks::new(self.next, self.turn)?);
        loop {
            self.send(window);
            if self.next >= window.until {
                clock = None;
                if self.waiting == 0 {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                read = self.link.exchange() => {
                    read?;
                    self.receive(Instant::now(), window)?;
                }
                ticked = tick(clock.as_mut()) => ticked?,
            }
        }
    }

    /// Sends everything that is due.
    fn send(&mut self, window: Window) {
        let now = Instant::now();
        let mut both = self.both.borrow_mut();
        while self.next <= now && self.next < window.until {
            let number = self.first + self.in_flight.len() as u64;
            let opaque = OPAQUE_BASE + (number % OPAQUES as u64) as i32;
            let body = self.frames.render(
                &mut self.link.output,
                opaque,
                epoch_ms(),
                &mut both.tally.next_key,
            );
            let stamp = (self.next - window.start).as_nanos() as u64;
            body[..8].copy_from_slice(&self.run.to_be_bytes());
            body[8..STAMP_BYTES].copy_from_slice(&stamp.to_be_bytes());
            if window.is_measured(self.next) {
                both.lateness.record(now - self.next);
            }
            self.in_flight.push_back(Some(self.next));
            self.waiting += 1;
            self.next += self.turn;
        }
    }

    fn receive(&mut self, now: Instant, window: Window) -> anyhow::Result<()> {
        let mut both = self.both.borrow_mut();
        let tally = &mut both.tally;
        while let Some(frame) = self.link.next_frame()? {
            let Some(Head { code, opaque, is_response }) = scan(&frame) else {
                bail!("an answer without code, opaque or flag");
            };
            if !is_response {
                continue;
            }
            let number = opaque.wrapping_sub(OPAQUE_BASE) as u64;
            let at = number.wrapping_sub(self.first % OPAQUES as u64) % OPAQUES as u64;
            let slot = self.in_flight.get_mut(at as usize);
            let Some(intended) = slot.and_then(Option::take) else {
                tally.errors.add("unexpected answer", 1, || format!("opaque {opaque}"));
                continue;
            };
            self.waiting -= 1;
            if code != 0 {
                tally.errors.add_answer(code, &frame);
            } else {
                tally.acknowledged += 1;
                if window.is_measured(intended) {
                    tally.measured += 1;
                    tally.latencies.record(now - intended);
                }
            }
            while self.in_flight.front().is_some_and(Option::is_none) {
                self.in_flight.pop_front();
                self.first += 1;
            }
        }
        Ok(())
    }
}

/// The consumer: one long poll for each queue, all on one connection.
struct Consumer {
    link: Link,
    /// Next offset of each queue.
    next: Vec<u64>,
    run: u64,
    start: Instant,
    both: Rc<RefCell<Both>>,
}

impl Consumer {
    async fn run(mut self, pulls: Pulls<'_>) {
        if let Err(error) = self.drive(pulls).await {
            let errors = &mut self.both.borrow_mut().tally.errors;
            errors.add("consumer", 1, || format!("{error:#}"));
        }
    }

    async fn drive(&mut self, pulls: Pulls<'_>) -> anyhow::Result<()> {
        for queue in 0..self.next.len() {
            self.pull(queue, pulls);
        }
        loop {
            self.link.exchange().await?;
            let now = Instant::now();
            let mut answered = Vec::new();
            while let Some(frame) = self.link.next_frame()? {
                let Some(answer) = read(&frame)? else { continue };
                let queue = answer.opaque.wrapping_sub(OPAQUE_BASE) as usize;
                let next = self.next.get_mut(queue).context("answer to no request")?;
                answered.push(queue);
                match Code::<ResponseCode>::from(answer.code) {
                    Code::Known(ResponseCode::Success) => {
                        let count = take(&frame, *next, self.run, self.start, now, &self.both)
                            .with_context(|| format!("queue {queue} from offset {next}"))?;
                        if answer.next_offset != *next + count {
                            bail!("{count} messages from {next}, next {}", answer.next_offset);
                        }
                        *next = answer.next_offset;
                    }
                    // Nothing came while the broker held the pull.
                    Code::Known(
                        ResponseCode::PullNotFound | ResponseCode::PullRetryImmediately,
                    ) => {}
                    code => bail!("pull of queue {queue} at {next} was answered with {code}"),
                }
            }
            answered.into_iter().for_each(|queue| self.pull(queue, pulls));
        }
    }

    fn pull(&mut self, queue: usize, pulls: Pulls<'_>) {
        let opaque = OPAQUE_BASE + queue as i32;
        pulls.render(&mut self.link.output, opaque, queue as u32, self.next[queue]);
    }
}

/// Takes the messages of one answer; each has to be whole and to follow its predecessor.
fn take(
    frame: &Frame<'_>,
    first: u64,
    run: u64,
    start: Instant,
    now: Instant,
    both: &RefCell<Both>,
) -> anyhow::Result<u64> {
    let mut both = both.borrow_mut();
    let mut offset = first;
    for record in records(frame.body) {
        let record = record?;
        if record.queue_offset != offset {
            bail!("message {} where {offset} was expected", record.queue_offset);
        }
        offset += 1;
        let Some((stamp, _)) = record.body.split_first_chunk::<STAMP_BYTES>() else { continue };
        let (of_run, nanos) =
            (u128::from_be_bytes(*stamp) >> 64, u128::from_be_bytes(*stamp) as u64);
        if of_run != u128::from(run) {
            continue;
        }
        let intended = start + Duration::from_nanos(nanos);
        both.consumed += 1;
        if both.tally.window.is_measured(intended) {
            both.consumed_in_window += 1;
            both.end_to_end.record(now.saturating_duration_since(intended));
        }
    }
    Ok(offset - first)
}
