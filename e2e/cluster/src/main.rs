//! Tests on a real Kubernetes, as its user sees it: kubectl, helm, and clients in pods.
//!
//! `e2e-cluster run` starts a cluster by the scripts of a folder (`netns/` here, or `e2e/kind/`),
//! loads the image, runs the tests by name, and takes the cluster down. The same program is in the
//! image of the clients: `load` sends and receives in a pod and keeps account, `reject` makes dead
//! letters, `idle` is a pod to run `weir` in.

#![forbid(unsafe_code)]

mod client;
mod cluster;
mod direct;
mod evidence;
mod group;
mod images;
mod load;
mod reject;
mod results;
mod run;
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tests on a real Kubernetes
#[derive(Parser)]
#[command(name = "e2e-cluster", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
    Load(load::LoadArgs),
    Reject(reject::RejectArgs),
    /// Do nothing until SIGTERM: a pod to run commands in
    Idle,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => return run::run(&args),
        Command::Load(args) => load::run(args),
        Command::Reject(args) => reject::run(args),
        Command::Idle => idle(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn idle() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        tokio::signal::unix::signal(kind)?.recv().await;
        Ok(())
    })
}
