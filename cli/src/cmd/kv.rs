//! `weir kv`: the NameServer's own small table.

use serde::Serialize;

use crate::client::ClientArgs;
use crate::exit::Failure;
use crate::output::Row;

/// Read and change the key-value configuration of the NameServers
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir kv put ORDER_TOPIC_CONFIG orders broker-a:4\n  \
    weir kv list ORDER_TOPIC_CONFIG")]
pub(crate) struct KvArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the value of a key
    Get { namespace: String, key: String },
    /// Set a key on every NameServer
    Put { namespace: String, key: String, value: String },
    /// Remove a key from every NameServer
    Delete { namespace: String, key: String },
    /// List the keys of a namespace
    List { namespace: String },
}

#[derive(Serialize)]
struct Entry {
    key: String,
    value: String,
}

impl Row for Entry {
    const HEADER: &'static [&'static str] = &["KEY", "VALUE"];

    fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.value.clone()]
    }
}

pub(crate) async fn run(args: KvArgs) -> anyhow::Result<()> {
    let admin = args.client.admin()?;
    let output = args.client.output();
    match args.command {
        Command::Get { namespace, key } => {
            let value = admin.kv(&namespace, &key).await?.ok_or_else(|| {
                Failure::NotFound(format!("key {key} is not in namespace {namespace}"))
            })?;
            output.done(&value, &Entry { key, value: value.clone() })?;
        }
        Command::Put { namespace, key, value } => {
            admin.put_kv(&namespace, &key, &value).await?;
            output.done(&format!("{namespace}/{key} is set"), &Entry { key, value })?;
        }
        Command::Delete { namespace, key } => {
            admin.delete_kv(&namespace, &key).await?;
            let text = format!("{namespace}/{key} is deleted");
            output.done(&text, &serde_json::json!({ "deleted": key }))?;
        }
        Command::List { namespace } => {
            let entries = admin.kv_list(&namespace).await?;
            let entries: Vec<_> =
                entries.into_iter().map(|(key, value)| Entry { key, value }).collect();
            output.rows(&entries)?;
        }
    }
    Ok(())
}
