//! Connections that do nothing: what they cost a broker, and what they take from others.

use std::io::Read as _;
use std::time::Instant;

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
}

/// Opens the connections, prints a line of JSON when all have had an answer, waits for the end of
/// standard input, asks on each again, and prints a second line with how many still answer.
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
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let alive = held.iter_mut().filter_map(|control| control.offsets(&args.topic, 1).ok()).count();
    println!("{}", json!({ "workload": "idle", "connections": held.len(), "alive": alive }));
    Ok(())
}
