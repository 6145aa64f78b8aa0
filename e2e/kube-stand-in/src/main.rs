//! The stand-in as a process, for harnesses that start brokers in network namespaces.
//!
//! Commands come on standard input, one a line, and each is answered with a line: `ok`, or what is
//! wrong with it. The process ends with its input.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use clap::Parser;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use weirmq_kube_stand_in::{Fault, StandIn};

/// Stands in for the API server of Kubernetes
#[derive(Parser)]
#[command(after_help = "Commands on standard input:
  fault {\"method\": \"PUT\", \"path\": \"/brokergroups/\", \"times\": 1, \"effect\": \"lose-answer\"}
        effects: cut, lose-answer, hang, {\"delay-ms\": N}, {\"answer-late-ms\": N}, {\"refuse\": CODE},
        {\"answer-wrongly\": CODE}
  mend       takes all faults away
  refuse     closes all connections, and new ones at once
  serve      ends that
  cut        closes all connections
  compact    watches from versions so far are refused with 410
  back-up    keeps a copy of all objects
  restore    puts the copy back
  requests   prints the requests since the last time as a list in JSON")]
struct Arguments {
    /// Where to listen; port 0 takes a free one. The line `ready http://HOST:PORT` says which.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stand_in = StandIn::start(TcpListener::bind(arguments.listen).await?)?;
    println!("ready http://{}", stand_in.address());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        println!("{}", obey(&stand_in, &line).unwrap_or_else(|error| format!("{error:#}")));
    }
    Ok(())
}

fn obey(stand_in: &StandIn, line: &str) -> anyhow::Result<String> {
    match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
        ("fault", fault) => stand_in.fault(serde_json::from_str::<Fault>(fault)?),
        ("mend", "") => stand_in.mend(),
        ("refuse", "") => stand_in.refuse(true),
        ("serve", "") => stand_in.refuse(false),
        ("cut", "") => stand_in.cut(),
        ("compact", "") => stand_in.compact(),
        ("back-up", "") => stand_in.back_up(),
        ("restore", "") => stand_in.restore(),
        ("requests", "") => return Ok(serde_json::to_string(&stand_in.take_requests())?),
        _ => anyhow::bail!("no such command; --help lists them"),
    }
    Ok("ok".to_owned())
}
