//! Hot pull: reads a filled topic from its beginning, again and again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use weirmq_message::record::{FIXED_BYTES, MAGIC_V1, MAGIC_V2, QUEUE_OFFSET_AT};
use weirmq_message::{Decoded, Record};
use weirmq_remoting::frame::Frame;
use weirmq_remoting::{Code, ResponseCode};

use super::control::{Control, Offsets};
use super::frames::{OPAQUE_BASE, RARE, SendShape};
use super::link::{Link, connect};
use super::options::{Output, Span, Target};
use super::produce::{LoadArgs, fill, verify};
use super::pull::{MESSAGES_MAX, Pulls, read};
use super::report::Report;
use super::tally::Tally;
use super::window::{DRAIN, Watch, Window, measure};

/// Holds several answers of the most that a broker sends for one pull by default, 256 KiB.
const INPUT_BYTES: usize = 1 << 20;
const QUEUE_ID_AT: usize = 12;

#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct ConsumeArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    span: Span,
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections: u32,
    /// Pulls in flight on each connection
    #[arg(short = 'n', long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Messages that one pull asks for
    #[arg(long, default_value_t = MESSAGES_MAX, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pull_messages: i32,
    /// Send messages first until the topic holds so many
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Read what is there and send nothing
    #[arg(long)]
    no_fill: bool,
    /// Bytes of each body that is sent
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    body: u32,
    /// Ask for a tag that only one message in so many has; counted are the messages that the
    /// broker had to look at. The topic has to be filled by this workload alone
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(2..=1024))]
    one_tagged_in: Option<u32>,
    /// Decode every record and check its body's checksum
    #[arg(long)]
    check_crc: bool,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
}

pub(super) fn run(args: &ConsumeArgs) -> anyhow::Result<()> {
    let (address, mut control) = args.target.open()?;
    let load = LoadArgs {
        connections: args.connections,
        in_flight: args.in_flight,
        body: args.body,
        batch: 1,
        rate: None,
    };
    let offsets = filled(args, &address, &mut control)?;
    let pulls = Pulls {
        topic: &args.target.topic,
        serialize: args.target.serialize_type(),
        messages_max: args.pull_messages,
        is_long: false,
        tags: if args.one_tagged_in.is_some() { RARE } else { "*" },
    };
    let chains = share(&offsets, (args.connections * args.in_flight) as usize);
    let streams = connect(&address, args.connections as usize)?;
    let watch =
        Watch { broker_pid: args.target.broker_pid, store_dir: args.target.store_dir.as_deref() };
    let load_of = |window| pull_all(window, args, pulls, streams, chains);
    let ((tally, pulled), usage) = measure(&args.span, watch, load_of)?;
    let mut report = Report::new("consume", args, &tally.errors, usage)?;
    report.messages(tally.measured, &load, tally.window.length());
    report.requests_per_second = Some(pulled as f64 / tally.window.length().as_secs_f64());
    report.latency = Some(tally.latencies.summary());
    report.finish(args.output.output)
}

/// The topic's offsets, after the missing messages were sent.
fn filled(args: &ConsumeArgs, address: &str, control: &mut Control) -> anyhow::Result<Offsets> {
    let (topic, queues) = (&args.target.topic, args.target.queues);
    let before = control.offsets(topic, queues)?;
    let held = before.iter().map(|range| range.end - range.start).sum::<u64>();
    if !args.no_fill && held < args.messages {
        let one_tagged_in = args.one_tagged_in.unwrap_or_default();
        // Whole batches, so that the tagged ones stand at the same offsets in every queue.
        let batch = if one_tagged_in > 0 { one_tagged_in } else { 32 };
        let batches = LoadArgs { connections: 4, in_flight: 4, body: args.body, batch, rate: None };
        let shape = SendShape {
            one_tagged_in: one_tagged_in as usize,
            ..batches.shape(topic, queues, args.target.serialize_type())
        };
        let tally = fill(address, shape, args.messages - held)?;
        if let Some(error) = &tally.errors.first {
            bail!("fill the topic: {error}");
        }
        let verified = verify(control, topic, &before, tally.acknowledged)?;
        if !verified.agrees {
            bail!("filled with {}, but {} are there", verified.acknowledged, verified.stored);
        }
    }
    let offsets = control.offsets(topic, queues)?;
    if offsets.iter().all(Range::is_empty) {
        bail!("topic {topic} is empty");
    }
    Ok(offsets)
}

/// A part of a queue, read from its beginning to its end and over again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    queue: u32,
    offsets: Range<u64>,
}

/// Shares the queues out to `count` chains of pulls: several queues for one, or parts of one for
/// several. Fewer chains come out when there are fewer messages.
fn share(offsets: &Offsets, count: usize) -> Vec<VecDeque<Stretch>> {
    let queues: Vec<Stretch> = (0..)
        .zip(offsets)
        .filter(|(_, offsets)| !offsets.is_empty())
        .map(|(queue, offsets)| Stretch { queue, offsets: offsets.clone() })
        .collect();
    let parts_each = count.div_ceil(queues.len().max(1)).max(1) as u64;
    let parts = queues.iter().flat_map(|Stretch { queue, offsets }| {
        let step = (offsets.end - offsets.start).div_ceil(parts_each) as usize;
        offsets.clone().step_by(step.max(1)).map(move |start| Stretch {
            queue: *queue,
            offsets: start..(start + step as u64).min(offsets.end),
        })
    });
    let mut chains = vec![VecDeque::new(); count];
    for (index, part) in parts.enumerate() {
        chains[index % count].push_back(part);
    }
    chains.retain(|chain| !chain.is_empty());
    chains
}

/// Pulls on all connections to the window's end. Answers the count of pulls in the window too.
async fn pull_all(
    window: Window,
    args: &ConsumeArgs,
    pulls: Pulls<'_>,
    streams: Vec<std::net::TcpStream>,
    chains: Vec<VecDeque<Stretch>>,
) -> anyhow::Result<(Tally, u64)> {
    let tally = Rc::new(RefCell::new(Tally::new(window, None)?));
    let connections = streams.len();
    let mut lanes = Vec::new();
    for (index, stream) in streams.into_iter().enumerate() {
        let own = chains.iter().skip(index).step_by(connections).cloned();
        let chains: Vec<Chain> = own.map(|stretches| Chain::new(stretches, window.start)).collect();
        let topic = pulls.topic.to_owned();
        let lane = Lane {
            link: Link::new(stream, INPUT_BYTES)?,
            waiting: 0,
            chains,
            one_tagged_in: u64::from(args.one_tagged_in.unwrap_or(1)),
            check_crc: args.check_crc,
            tally: tally.clone(),
        };
        let (serialize, messages_max) = (pulls.serialize, pulls.messages_max);
        let tags = if args.one_tagged_in.is_some() { RARE } else { "*" };
        lanes.push(tokio::task::spawn_local(async move {
            let pulls = Pulls { topic: &topic, serialize, messages_max, is_long: false, tags };
            lane.run(window, pulls).await;
        }));
    }
    for lane in lanes {
        lane.await?;
    }
    let tally = Rc::into_inner(tally).context("a connection outlived its task")?.into_inner();
    let pulled = tally.latencies.samples();
    Ok((tally, pulled))
}

/// One pull in flight and where it goes next.
struct Chain {
    stretches: VecDeque<Stretch>,
    next: u64,
    sent: Instant,
}

impl Chain {
    fn new(stretches: VecDeque<Stretch>, start: Instant) -> Self {
        let next = stretches[0].offsets.start;
        Self { stretches, next, sent: start }
    }

    /// Goes on at `offset`, or at the next stretch's beginning when this one is through.
    fn advance(&mut self, offset: u64) {
        self.next = offset;
        if !self.stretches[0].offsets.contains(&offset) {
            self.stretches.rotate_left(1);
            self.next = self.stretches[0].offsets.start;
        }
    }
}

/// One connection and its chains; a pull's opaque is its chain's index.
struct Lane {
    link: Link,
    chains: Vec<Chain>,
    waiting: usize,
    /// The messages asked for stand at the multiples of this; 1: all are asked for.
    one_tagged_in: u64,
    check_crc: bool,
    tally: Rc<RefCell<Tally>>,
}

impl Lane {
    async fn run(mut self, window: Window, pulls: Pulls<'_>) {
        let ended =
            tokio::time::timeout_at((window.until + DRAIN).into(), self.drive(window, pulls)).await;
        let missing = self.waiting as u64;
        let errors = &mut self.tally.borrow_mut().errors;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                errors.add("connection lost", missing.max(1), || format!("{error:#}"))
            }
            Err(_) => errors.add("no answer", missing, || format!("within {DRAIN:?}")),
        }
    }

    async fn drive(&mut self, window: Window, pulls: Pulls<'_>) -> anyhow::Result<()> {
        for index in 0..self.chains.len() {
            self.pull(index, pulls);
        }
        while self.waiting > 0 {
            self.link.exchange().await?;
            let now = Instant::now();
            let mut answered = Vec::new();
            while let Some(frame) = self.link.next_frame()? {
                let Some(answer) = read(&frame)? else { continue };
                let index = answer.opaque.wrapping_sub(OPAQUE_BASE) as usize;
                let chain = self.chains.get_mut(index).context("answer to no request")?;
                let mut tally = self.tally.borrow_mut();
                self.waiting -= 1;
                answered.push(index);
                // A filter may find nothing in what a broker looks at for one pull.
                let is_bare = self.one_tagged_in > 1
                    && matches!(
                        Code::<ResponseCode>::from(answer.code),
                        Code::Known(
                            ResponseCode::PullNotFound | ResponseCode::PullRetryImmediately
                        )
                    );
                if answer.code != 0 && !is_bare {
                    tally.errors.add_answer(answer.code, &frame);
                    continue;
                }
                let queue = chain.stretches[0].queue;
                let passed = chain.next..answer.next_offset;
                walk(&frame, queue, &passed, self.one_tagged_in, self.check_crc)
                    .with_context(|| format!("queue {queue}, offsets {passed:?}"))?;
                tally.acknowledge(passed.end - passed.start, chain.sent, now);
                chain.advance(answer.next_offset);
            }
            if now < window.until {
                answered.into_iter().for_each(|index| self.pull(index, pulls));
            }
        }
        Ok(())
    }

    fn pull(&mut self, index: usize, pulls: Pulls<'_>) {
        let chain = &mut self.chains[index];
        chain.sent = Instant::now();
        self.waiting += 1;
        let opaque = OPAQUE_BASE + index as i32;
        pulls.render(&mut self.link.output, opaque, chain.stretches[0].queue, chain.next);
    }
}

/// Checks the records of an answer that goes on behind the offsets `passed`: exactly the multiples
/// of `step` among them. Each has to have a magic, a size that ends where the next record begins,
/// the asked queue, and its queue offset.
fn walk(
    frame: &Frame<'_>,
    queue: u32,
    passed: &Range<u64>,
    step: u64,
    check_crc: bool,
) -> anyhow::Result<()> {
    if passed.is_empty() {
        bail!("an answer that does not go on");
    }
    let mut rest = frame.body;
    let mut offset = passed.start.next_multiple_of(step);
    while !rest.is_empty() {
        let head = rest.first_chunk::<FIXED_BYTES>().context("record ends inside its head")?;
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| head[at + byte]));
        let (size, magic) = (word(0) as usize, word(4));
        let at = u64::from(word(QUEUE_OFFSET_AT)) << 32 | u64::from(word(QUEUE_OFFSET_AT + 4));
        let is_sound = (magic == MAGIC_V1 || magic == MAGIC_V2)
            && (FIXED_BYTES..=rest.len()).contains(&size)
            && word(QUEUE_ID_AT) == queue
            && at == offset;
        if !is_sound {
            bail!("record of {size} bytes, magic {magic:#x}, queue offset {at}, expected {offset}");
        }
        if check_crc
            && !matches!(Record::decode(rest, true)?, Decoded::Record(_, length) if length == size)
        {
            bail!("record {at} is not whole");
        }
        rest = &rest[size..];
        offset += step;
    }
    if offset != passed.end.next_multiple_of(step) {
        bail!("the messages from {offset} on are missing");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(queue: u32, offsets: Range<u64>) -> Stretch {
        Stretch { queue, offsets }
    }

    #[test]
    fn chains_share_the_queues_without_gaps_or_overlaps() {
        let one = share(&vec![0..10, 3..3, 5..9], 1);
        assert_eq!(one, [VecDeque::from([stretch(0, 0..10), stretch(2, 5..9)])]);
        let four = share(&vec![0..10, 5..9], 4);
        let parts: Vec<_> = four.into_iter().flatten().collect();
        let expected = [stretch(0, 0..5), stretch(0, 5..10), stretch(1, 5..7), stretch(1, 7..9)];
        assert_eq!(parts, expected);
        assert_eq!(share(&vec![0..1, 4..4], 8).len(), 1);
    }

    #[test]
    fn a_chain_begins_again_behind_its_end() {
        let mut chain =
            Chain::new(VecDeque::from([stretch(0, 2..6), stretch(1, 0..4)]), Instant::now());
        chain.advance(5);
        assert_eq!((chain.stretches[0].queue, chain.next), (0, 5));
        chain.advance(7);
        assert_eq!((chain.stretches[0].queue, chain.next), (1, 0));
    }
}
