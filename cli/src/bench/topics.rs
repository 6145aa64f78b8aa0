//! Many topics: how fast they are made, and what a send costs when every message has another one.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use weirmq_remoting::RequestCode;
use weirmq_remoting::command::Text;
use weirmq_remoting::header::{Header as _, OffsetResponseHeader, QueueHeader};

use super::control::create_topic_header;
use super::frames::{SendShape, topic_name};
use super::link::connect;
use super::options::{Output, Span, Target};
use super::pipeline::ask_all;
use super::produce::{LoadArgs, closed_loop};
use super::report::{Report, Verified};
use super::window::{Watch, measure};

/// Questions for offsets on their way at a time.
const OFFSETS_IN_FLIGHT: u32 = 256;
/// A broker may put messages into their queues after it acknowledged them; it is waited for as
/// long as it makes progress, and at most so long.
const DISPATCH_MAX: Duration = Duration::from_secs(240);
/// Two questions in a row with the same answer mean that nothing comes any more.
const DISPATCH_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct TopicsArgs {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    span: Span,
    #[command(flatten)]
    load: LoadArgs,
    /// Topics, named TOPIC-000000 and so on
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    topics: u32,
    /// Create no more topics after so many seconds, and go on with those that are there
    #[arg(long, default_value_t = 60.0)]
    create_seconds: f64,
    /// Topics on their way at a time while they are created
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    create_in_flight: u32,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
}

/// What creating the topics gave.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Created {
    pub(super) topics: u32,
    pub(super) seconds: f64,
    pub(super) per_second: f64,
}

pub(super) fn run(args: &TopicsArgs) -> anyhow::Result<()> {
    let address = args.target.address()?;
    let created = create(args, &address)?;
    let before = stored(args, &address, created.topics)?;
    let load = &args.load;
    let shape = SendShape {
        topics: created.topics,
        ..load.shape(&args.target.topic, args.target.queues, args.target.serialize_type())
    };
    let streams = connect(&address, load.connections as usize)?;
    let watch =
        Watch { broker_pid: args.target.broker_pid, store_dir: args.target.store_dir.as_deref() };
    let (tally, usage) =
        measure(&args.span, watch, |window| closed_loop(window, load, shape, streams, None))?;
    let acknowledged = tally.acknowledged;
    let (stored, behind) = dispatched(args, &address, created.topics, before + acknowledged)?;
    let stored = stored - before;
    let mut report = Report::new("topics", args, &tally.errors, usage)?;
    report.messages(tally.measured, load, tally.window.length());
    report.latency = Some(tally.latencies.summary());
    report.verified = Some(Verified { acknowledged, stored, agrees: acknowledged == stored });
    report.created = Some(created);
    report.dispatch_behind_seconds = Some(behind.as_secs_f64());
    report.finish(args.output.output)
}

fn create(args: &TopicsArgs, address: &str) -> anyhow::Result<Created> {
    let queues = i32::try_from(args.target.queues)?;
    let began = Instant::now();
    let topics = ask_all(
        address,
        RequestCode::UpdateAndCreateTopic,
        (args.topics, args.create_in_flight),
        began + Duration::from_secs_f64(args.create_seconds),
        |number, writer| {
            create_topic_header(&topic_name(&args.target.topic, number), queues).encode(writer);
        },
        |_, _| Ok(()),
    )?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Created { topics, seconds, per_second: f64::from(topics) / seconds })
}

/// The sum of the queues' ends once it is `expected` or stands still, and how long that took.
fn dispatched(
    args: &TopicsArgs,
    address: &str,
    topics: u32,
    expected: u64,
) -> anyhow::Result<(u64, Duration)> {
    let began = Instant::now();
    let mut found = stored(args, address, topics)?;
    if found == expected {
        return Ok((found, Duration::ZERO));
    }
    loop {
        std::thread::sleep(DISPATCH_PAUSE);
        let was = std::mem::replace(&mut found, stored(args, address, topics)?);
        if found >= expected || found == was || began.elapsed() > DISPATCH_MAX {
            return Ok((found, began.elapsed()));
        }
    }
}

/// The sum of the queues' ends.
fn stored(args: &TopicsArgs, address: &str, topics: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    let queues = args.target.queues;
    ask_all(
        address,
        RequestCode::GetMaxOffset,
        (topics * queues, OFFSETS_IN_FLIGHT),
        Instant::now() + Duration::from_secs(600),
        |number, writer| {
            let topic = topic_name(&args.target.topic, number / queues);
            let queue_id = (number % queues) as i32;
            QueueHeader { topic: Text::from(topic.as_str()), queue_id, committed: None }
                .encode(writer);
        },
        |_, answer| {
            let offset = OffsetResponseHeader::decode(&answer.ext)?.offset;
            // A queue that nobody wrote to may answer with -1.
            sum += u64::try_from(offset).unwrap_or(0);
            Ok(())
        },
    )?;
    Ok(sum)
}
