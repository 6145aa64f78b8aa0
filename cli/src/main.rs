//! `weir`: the servers of WeirMQ and the tools to use and administer them, in one binary.
//!
//! Each command is a file under `cmd/`; the server roles share `server/`.

#![forbid(unsafe_code)]

mod bench;
mod client;
mod cmd;
mod config;
mod exit;
mod log;
mod output;
mod server;
mod signals;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

const AFTER_HELP: &str = "\
Examples:
  weir                                  NameServer and broker in one process, data in ./weir-data
  weir produce hello -m 'first message'
  weir consume hello -n 1
  weir topic list -o json

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the time was up before the messages were there;
4 the topic, group, message or key does not exist; 5 a store's directory is damaged.

Without a command weir runs `weir standalone`. Set NAMESRV_ADDR to use another NameServer.";

/// Apache RocketMQ's protocols and log format, rebuilt: servers and tools in one binary
#[derive(Parser)]
#[command(name = "weir", version, after_help = AFTER_HELP, subcommand_required = true)]
#[command(propagate_version = true, max_term_width = 100, infer_long_args = false)]
struct Cli {
    #[command(flatten)]
    log: log::LogArgs,
    #[command(subcommand)]
    command: Command,
}

/// The name by which kubectl finds its plugin `weir`.
#[cfg(feature = "kubernetes")]
const PLUGIN: &str = "kubectl-weir";

/// Look after WeirMQ's Brokers on Kubernetes
#[cfg(feature = "kubernetes")]
#[derive(Parser)]
#[command(name = PLUGIN, bin_name = "kubectl weir", version, propagate_version = true)]
#[command(max_term_width = 100, infer_long_args = false)]
struct Plugin {
    #[command(flatten)]
    log: log::LogArgs,
    #[command(flatten)]
    args: cmd::kubectl::KubectlArgs,
}

#[derive(Subcommand)]
enum Command {
    Standalone(cmd::standalone::StandaloneArgs),
    Broker(cmd::broker::BrokerArgs),
    Namesrv(cmd::namesrv::NameServerArgs),
    Produce(cmd::produce::ProduceArgs),
    Consume(cmd::consume::ConsumeArgs),
    Tail(cmd::tail::TailArgs),
    Topic(cmd::topic::TopicArgs),
    Group(cmd::group::GroupArgs),
    Message(cmd::message::MessageArgs),
    Cluster(cmd::cluster::ClusterArgs),
    Kv(cmd::kv::KvArgs),
    Store(cmd::store::StoreArgs),
    Bench(bench::BenchArgs),
    Config(cmd::config::ConfigArgs),
    Healthcheck(cmd::healthcheck::HealthcheckArgs),
    #[cfg(feature = "kubernetes")]
    Crds(cmd::crds::CrdsArgs),
    #[cfg(feature = "kubernetes")]
    Operator(cmd::operator::OperatorArgs),
    #[cfg(feature = "kubernetes")]
    Kubectl(cmd::kubectl::KubectlArgs),
    Completion(cmd::completion::CompletionArgs),
}

fn main() -> ExitCode {
    match run(parsed(std::env::args_os().collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

/// The command line. Under the name `kubectl-weir`, which kubectl looks for when somebody types
/// `kubectl weir`, it is the one of `weir kubectl`.
fn parsed(arguments: Vec<OsString>) -> Cli {
    #[cfg(feature = "kubernetes")]
    {
        let name = arguments.first().map(std::path::Path::new).and_then(|path| path.file_stem());
        if name.is_some_and(|name| name == PLUGIN) {
            let Plugin { log, args } = Plugin::parse_from(arguments);
            return Cli { log, command: Command::Kubectl(args) };
        }
    }
    Cli::parse_from(with_default_command(arguments))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let is_server = match cli.command {
        Command::Standalone(_) | Command::Broker(_) | Command::Namesrv(_) => true,
        #[cfg(feature = "kubernetes")]
        Command::Operator(_) => true,
        _ => false,
    };
    // A consumer that leaves its group always gives back what it was offered and did not print.
    let tool_level = "warn,weirmq_client::push_consumer::member=error";
    cli.log.start(if is_server { "info" } else { tool_level })?;
    match cli.command {
        Command::Standalone(args) => server_runtime()?.block_on(cmd::standalone::run(args)),
        Command::Broker(args) => server_runtime()?.block_on(cmd::broker::run(args)),
        Command::Namesrv(args) => server_runtime()?.block_on(cmd::namesrv::run(args)),
        Command::Produce(args) => client_runtime()?.block_on(cmd::produce::run(args)),
        Command::Consume(args) => client_runtime()?.block_on(cmd::consume::run(args)),
        Command::Tail(args) => client_runtime()?.block_on(cmd::tail::run(args)),
        Command::Topic(args) => client_runtime()?.block_on(cmd::topic::run(args)),
        Command::Group(args) => client_runtime()?.block_on(cmd::group::run(args)),
        Command::Message(args) => client_runtime()?.block_on(cmd::message::run(args)),
        Command::Cluster(args) => client_runtime()?.block_on(cmd::cluster::run(args)),
        Command::Kv(args) => client_runtime()?.block_on(cmd::kv::run(args)),
        Command::Store(args) => cmd::store::run(args),
        Command::Bench(args) => client_runtime()?.block_on(bench::run(args)),
        Command::Config(args) => cmd::config::run(args),
        Command::Healthcheck(args) => client_runtime()?.block_on(cmd::healthcheck::run(args)),
        #[cfg(feature = "kubernetes")]
        Command::Crds(args) => cmd::crds::run(args),
        #[cfg(feature = "kubernetes")]
        Command::Operator(args) => server_runtime()?.block_on(cmd::operator::run(args)),
        #[cfg(feature = "kubernetes")]
        Command::Kubectl(args) => client_runtime()?.block_on(cmd::kubectl::run(args)),
        Command::Completion(args) => cmd::completion::run(args, Cli::command()),
    }
}

/// The control runtime of a server: registration, admin port, NameServer. One worker beside the
/// main thread, so that nothing the broker does while it starts can hold up a health probe. The
/// broker serves its connections on threads of its own.
fn server_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(8)
        .thread_name("control")
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
}

/// Tools do one thing at a time.
fn client_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().max_blocking_threads(2).enable_all().build()
}

/// Puts `standalone` where no command stands, so that plain `weir` and `weir --ephemeral` start
/// the servers. Help and version stay those of the whole program.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let is_command = |argument: &OsString| {
        argument == "help" || command.get_subcommands().any(|known| *argument == *known.get_name())
    };
    let asks_for_itself = |argument: &OsString| {
        ["-h", "--help", "-V", "--version"].iter().any(|flag| argument == flag)
    };
    let mut given = arguments.iter().skip(1);
    let starts_with_word =
        given.clone().next().is_some_and(|first| !first.to_string_lossy().starts_with('-'));
    if !starts_with_word && !given.any(|argument| is_command(argument) || asks_for_itself(argument))
    {
        arguments.insert(1.min(arguments.len()), "standalone".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(arguments: &[&str]) -> Vec<String> {
        let arguments = std::iter::once("weir").chain(arguments.iter().copied());
        let completed = with_default_command(arguments.map(OsString::from).collect());
        completed.into_iter().skip(1).map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        #[cfg(feature = "kubernetes")]
        Plugin::command().debug_assert();
    }

    #[test]
    fn without_a_command_standalone_is_meant() {
        assert_eq!(completed(&[]), ["standalone"]);
        assert_eq!(completed(&["--data", "/x"]), ["standalone", "--data", "/x"]);
        assert_eq!(completed(&["--version"]), ["--version"]);
        assert_eq!(
            completed(&["--log-level", "debug", "topic"]),
            ["--log-level", "debug", "topic"]
        );
        // A misspelt command must not start a server.
        assert_eq!(completed(&["topics", "list"]), ["topics", "list"]);
    }
}
