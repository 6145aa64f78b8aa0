//! `kubectl weir`: what a person does to Brokers on Kubernetes, by the user's kubeconfig.
//!
//! It reads what the operator and the brokers wrote, asks the operator by annotations, and promotes replicas
//! by their `BrokerGroup`; brokers are not asked from here, because they cannot be reached from outside of
//! the cluster.

mod annotate;
mod promote;
mod report;
mod status;
mod switchover;
mod target;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::exit::Failure;
use crate::output::{Format, Output};

/// Look after Brokers on Kubernetes; also `kubectl weir`
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  ln -s \"$(command -v weir)\" ~/.local/bin/kubectl-weir    # once, a folder of your PATH\n  \
    kubectl weir status\n  kubectl weir switchover mq mq-0 --to 2\n  kubectl weir restart mq\n  kubectl weir report"
)]
pub(crate) struct KubectlArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Status(status::StatusArgs),
    Switchover(switchover::SwitchoverArgs),
    Promote(promote::PromoteArgs),
    Restart(annotate::RestartArgs),
    Pause(annotate::PauseArgs),
    Resume(annotate::ResumeArgs),
    Report(report::ReportArgs),
}

pub(crate) async fn run(args: KubectlArgs) -> anyhow::Result<()> {
    let place = args.connection.open().await?;
    match args.command {
        Command::Status(args) => status::run(args, &place).await,
        Command::Switchover(args) => switchover::run(args, &place).await,
        Command::Promote(args) => promote::run(args, &place).await,
        Command::Restart(args) => annotate::restart(args, &place).await,
        Command::Pause(args) => annotate::pause(args, &place).await,
        Command::Resume(args) => annotate::resume(args, &place).await,
        Command::Report(args) => report::run(args, &place).await,
    }
}

/// The flags of kubectl by which the API server is found, and how results are printed.
#[derive(clap::Args)]
struct Connection {
    /// The namespace [default: the context's]
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Connection")]
    namespace: Option<String>,
    /// The context of the kubeconfig [default: the current one]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    context: Option<String>,
    /// The kubeconfig [default: as kubectl finds it; in a pod, its account]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    kubeconfig: Option<PathBuf>,
    /// How to print results
    #[arg(short, long, global = true, value_enum, default_value_t, env = "WEIRMQ_OUTPUT")]
    #[arg(value_name = "text|json", hide_possible_values = true, hide_env = true)]
    output: Format,
}

/// Where resources are looked for, and how results are printed.
struct Place {
    client: Client,
    namespace: String,
    output: Output,
    /// kubectl with the flags that lead to the same place, as a shell reads it.
    kubectl: String,
}

/// Nobody waits longer to be told that the API server is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Connection {
    async fn open(self) -> anyhow::Result<Place> {
        let mut config = match (&self.kubeconfig, &self.context) {
            (None, None) => Config::infer().await.context("find the API server")?,
            (file, context) => {
                let read = file.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
                let kubeconfig = read.context("read the kubeconfig")?;
                let options =
                    KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .context("find the API server by the kubeconfig")?
            }
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let namespace = self.namespace.unwrap_or_else(|| config.default_namespace.clone());
        let mut kubectl = "kubectl".to_owned();
        let file = self.kubeconfig.as_ref().map(|file| file.to_string_lossy());
        let flags = [
            ("--kubeconfig", file.as_deref()),
            ("--context", self.context.as_deref()),
            ("-n", Some(&*namespace)),
        ];
        for (flag, value) in flags {
            if let Some(value) = value {
                kubectl.push_str(&format!(" {flag} {}", quoted(value)));
            }
        }
        let client = Client::try_from(config).context("connect to the API server")?;
        Ok(Place { client, namespace, output: Output::new(self.output), kubectl })
    }
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+=,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The name of a group that was given by name or by number.
fn group_name(broker: &str, group: &str) -> String {
    match group.parse::<u32>() {
        Ok(number) => format!("{broker}-{number}"),
        Err(_) => group.to_owned(),
    }
}

/// An error of the API server as one of this program: what was tried, and what the server said.
fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> anyhow::Error {
    let what = what.into();
    move |error| match error {
        kube::Error::Api(status) if status.is_not_found() => {
            Failure::NotFound(format!("{what}: {}", status.message)).into()
        }
        kube::Error::Api(status) => anyhow::anyhow!("{what}: {}", status.message),
        error => anyhow::Error::new(error).context(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_for_a_shell() {
        assert_eq!(quoted("/home/a/.kube/config"), "/home/a/.kube/config");
        assert_eq!(quoted("it's here; $HOME"), r"'it'\''s here; $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
