//! `weir tail`: following the new messages of a topic.

use anyhow::Context as _;
use weirmq_remoting::ResourceName;

use super::consume::{PrintArgs, Printer};
use super::reader::Reader;
use crate::client::ClientArgs;
use crate::exit::Failure;
use crate::signals::Signals;
use crate::units::{ReadFrom, parse_from};

/// Follow the new messages of a topic until Ctrl-C
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir tail orders --details\n  \
    weir tail orders --from 5m -o json | jq .body\n\n\
    Leaves no trace at the broker: it belongs to no group and commits nothing.")]
pub(crate) struct TailArgs {
    topic: String,

    /// Where to begin: latest, earliest, a time, or 5m for five minutes ago
    #[arg(long, value_name = "WHEN", default_value = "latest", value_parser = parse_from)]
    from: ReadFrom,
    #[command(flatten)]
    print: PrintArgs,

    #[command(flatten)]
    client: ClientArgs,
}

pub(crate) async fn run(args: TailArgs) -> anyhow::Result<()> {
    ResourceName::topic(&args.topic).map_err(|error| Failure::Usage(error.to_string()))?;
    let client = args.client.client()?;
    let reader = Reader::start(&client, &args.topic, args.from, &args.print).await;
    let mut reader = reader.with_context(|| format!("read topic {}", args.topic))?;
    let mut signals = Signals::install()?;
    let printer = Printer::new(&args.client, &args.print);
    loop {
        tokio::select! {
            message = reader.next() => printer.print(&message?)?,
            () = signals.next() => return Ok(()),
        }
    }
}
