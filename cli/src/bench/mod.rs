//! `weir bench`: a lean load generator for any broker that speaks RocketMQ's remoting protocol.
//!
//! It measures brokers, so it spends as little as it can on each message: one thread drives all
//! connections, requests are rendered once and patched, replies are scanned and not decoded. It
//! never takes success for granted: every reply's code and opaque are checked, and what the broker
//! acknowledged is compared with the offsets of its queues afterwards. `echo` and `disk` say what
//! the machine itself can do, for the same minute.
//!
//! Called by the command line and by `bench/run`; nothing here is used by the servers.

mod consume;
mod control;
mod disk;
mod echo;
mod frames;
mod host;
mod idle;
mod latency;
mod link;
mod options;
mod pipeline;
mod produce;
mod pull;
mod report;
mod tally;
mod ticks;
mod topics;
mod window;

use clap::{Args, Subcommand};

/// Measure a broker, or the machine under it.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Send as fast as replies come back (closed loop).
    Produce(produce::ProduceArgs),
    /// Pull a filled topic again and again, as fast as the broker can.
    Consume(consume::ConsumeArgs),
    /// Send at a fixed rate and measure to the acknowledgement and to the consumer (open loop).
    Latency(latency::LatencyArgs),
    /// Create many topics, then send to all of them by turns.
    Topics(topics::TopicsArgs),
    /// Open connections and keep them idle until standard input ends.
    Idle(idle::IdleArgs),
    /// Calibrate: the same frames against a server that does nothing with them.
    Echo(echo::EchoArgs),
    /// Calibrate: fdatasync and buffered writes in a directory.
    Disk(disk::DiskArgs),
}

/// Runs one workload and prints its report to standard output.
///
/// # Errors
/// When the broker cannot be reached, when any request failed, and when the broker's offsets do
/// not agree with its acknowledgements; in the last two cases after the report was printed.
pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    // The workloads keep a thread of their own busy; they are not for the caller's runtime.
    tokio::task::spawn_blocking(move || match args.workload {
        Workload::Produce(args) => produce::run(&args),
        Workload::Consume(args) => consume::run(&args),
        Workload::Latency(args) => latency::run(&args),
        Workload::Topics(args) => topics::run(&args),
        Workload::Idle(args) => idle::run(&args),
        Workload::Echo(args) => echo::run(&args),
        Workload::Disk(args) => disk::run(&args),
    })
    .await?
}
