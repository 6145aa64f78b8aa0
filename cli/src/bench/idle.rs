//! Connections that do nothing: what they cost a broker, and what they take from others.

use std::io::Read as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::control::Control;

#[derive(Debug, Clone, Args)]
pub(super) struct IdleArgs {
    /// Broker to connect to, host:port
    #[arg(long, default_value = "127.0.0.1:10911")]
    broker: String,
    /// A topic that is there; each connection asks once for its offsets
    #[arg(long, default_value = "weir-bench")]
    topic: String,
    #[arg(short, long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Each connection asks again after so many seconds, one after the other, as clients do with
    /// their heartbeats; brokers close what is silent for 120. 0: never
    #[arg(long, default_value_t = 60.0)]
    every: f64,
}

/// Opens the connections, prints a line of JSON when all have had an answer, keeps them alive until
/// the end of standard input, asks on each again, and prints a second line with how many still answer.
///
/// # Errors
/// When a connection cannot be opened or is not answered at first.
pub(super) fn run(args: &IdleArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut held = Vec::with_capacity(args.connections as usize);
    for _ in 0..args.connections {
        let mut control = Control::connect(&args.broker)?;
        control.offsets(&args.topic, 1)?;
        held.push(control);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({ "workload": "idle", "connections": held.len(), "seconds": seconds }));
    keep_until_the_end_of_input(args, &mut held);
    let alive = held.iter_mut().filter_map(|control| control.offsets(&args.topic, 1).ok()).count();
    println!("{}", json!({ "workload": "idle", "connections": held.len(), "alive": alive }));
    Ok(())
}

/// What does not answer shows when all are asked in the end.
fn keep_until_the_end_of_input(args: &IdleArgs, held: &mut [Control]) {
    let (ended, end) = channel::<()>();
    std::thread::spawn(move || {
        // However input ends, it has ended.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    let turn = Duration::try_from_secs_f64(args.every / held.len() as f64).unwrap_or_default();
    if turn.is_zero() {
        let _ = end.recv();
        return;
    }
    let (mut due, mut next) = (Instant::now() + turn, 0);
    while let Err(RecvTimeoutError::Timeout) =
        end.recv_timeout(due.saturating_duration_since(Instant::now()))
    {
        let _ = held[next].offsets(&args.topic, 1);
        (due, next) = (due + turn, (next + 1) % held.len());
    }
}
