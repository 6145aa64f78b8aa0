//! `kubectl weir promote`: writes into a `BrokerGroup` which replica takes over. It works without the
//! operator, because replicas read it there themselves.

mod choice;
mod standing;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use kube::Api;
use serde::Serialize;
use weirmq_authority::kubernetes::{AcceptLoss, Promote};
use weirmq_operator::kinds::BrokerGroup;

use self::choice::{Chosen, choose};
use self::standing::{Served, Standing};
use super::{Place, failed, group_name, status};
use crate::exit::Failure;
use crate::signals::Signals;

/// Have a replica take over from a master that is gone; says what could be lost, and asks
#[derive(clap::Args)]
#[command(
    after_help = "With `failover.mode: Manual` a replica that has every acknowledged message takes over this way. One that\n\
    lacks some can be promoted with --accept-loss, in both modes, where the others are gone for ever.\n\
    A master that runs hands over with `kubectl weir switchover`.\n\n\
    It takes the right to patch brokergroups, which Kubernetes' role `edit` does not give."
)]
pub(super) struct PromoteArgs {
    /// The Broker
    broker: String,
    /// The group: `mq-0`, or its number
    group: String,
    /// The replica that is to be master [default: one that has every acknowledged message]
    #[arg(long, value_name = "ORDINAL")]
    to: Option<u32>,
    /// Promote --to although acknowledged messages that it lacks are lost by it: where the replicas that
    /// have them are gone for ever, and the old master does not run anywhere
    #[arg(long, requires = "to")]
    accept_loss: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// How long to wait for it; then the promotion is called off, as it is by ctrl-c or the end of the terminal
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = crate::units::parse_duration)]
    timeout: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    group: String,
    /// The master of before; `null`: there was none.
    before: Option<String>,
    master: String,
    epoch: u64,
    /// Whether acknowledged messages may be missing from before this epoch.
    loss: bool,
}

pub(super) async fn run(args: PromoteArgs, place: &Place) -> anyhow::Result<()> {
    let name = group_name(&args.broker, &args.group);
    let view = status::one(place, &args.broker).await?;
    let known = view.groups.iter().find(|group| group.name == name);
    let api: Api<BrokerGroup> = Api::namespaced(place.client.clone(), &place.namespace);
    let before = read(&api, &name, place).await?;
    let chosen = choose(&before, known, args.to, args.accept_loss)?;
    confirm(&args, &chosen).await?;
    let promote = Promote {
        replica: chosen.to,
        epoch: chosen.epoch,
        accept_loss: args.accept_loss.then_some(AcceptLoss::AcknowledgedMessagesMayBeLost),
    };
    let standing =
        Standing { api: &api, group: &name, chosen: &chosen, promote, kubectl: &place.kubectl };
    // Before anything is written, so that from then on no signal ends the process by itself.
    let mut signals = Signals::install_with_hang_up()?;
    let mut interrupted = async || signals.next().await;
    let Served { epoch, loss } =
        standing.carry_out(&before, args.timeout, &mut interrupted).await?;
    let lost = if loss { "; acknowledged messages may be missing from before it" } else { "" };
    let text = format!("{} is the master of {name} now, in epoch {epoch}{lost}", chosen.pod);
    let done = Done { group: name, before: chosen.master, master: chosen.pod, epoch, loss };
    Ok(place.output.done(&text, &done)?)
}

async fn read(api: &Api<BrokerGroup>, name: &str, place: &Place) -> anyhow::Result<BrokerGroup> {
    let what = format!("read brokergroup/{name} in namespace {}", place.namespace);
    let found = api.get_opt(name).await.map_err(failed(what.clone()))?;
    found.ok_or_else(|| {
        let why = "where nobody is elected (one replica, or failover.mode Disabled) there is none";
        Failure::NotFound(format!("{what}: it is not there; {why}")).into()
    })
}

/// Says what happens and what it costs, and asks a person whether to go on.
async fn confirm(args: &PromoteArgs, chosen: &Chosen) -> anyhow::Result<()> {
    let Chosen { pod, epoch, master, costs, .. } = chosen;
    let master = master.as_deref().unwrap_or("nobody");
    eprintln!(
        "{pod} becomes master in place of {master} (epoch {epoch}), once that one is not heard and its \
         Lease is over"
    );
    for cost in costs {
        eprintln!("{cost}");
    }
    if args.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        let why = "nobody can be asked, because stdin is no terminal; --yes says that it is meant";
        return Err(Failure::Usage(why.to_owned()).into());
    }
    // Losing messages takes more than a key that is pressed from habit.
    let wanted = if args.accept_loss { pod.as_str() } else { "yes" };
    eprint!("Type {wanted} to go on: ");
    io::stderr().flush().context("ask")?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.context("read the answer")?.context("read the answer")?;
    if answer.trim() != wanted {
        return Err(Failure::Usage("nothing was changed".to_owned()).into());
    }
    Ok(())
}
