//! Flags that the server commands share.

use std::path::PathBuf;

use weirmq_broker::Flush;

/// Flags of every server command.
#[derive(Debug, clap::Args)]
pub(crate) struct CommonArgs {
    /// A configuration file: our TOML, or properties as Apache's (*.conf, *.properties)
    #[arg(short, long, value_name = "FILE", env = "WEIRMQ_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print the whole configuration as TOML and end
    #[arg(long)]
    pub(crate) print_config: bool,
    /// The address to open ports on
    #[arg(long, value_name = "ADDR", env = "WEIRMQ_BIND", hide_env = true)]
    pub(crate) bind: Option<String>,
    /// Port for health (/livez, /readyz) and metrics (/metrics); 0: any [default: 10908]
    #[arg(long, value_name = "PORT", env = "WEIRMQ_ADMIN_PORT", hide_env = true)]
    pub(crate) admin_port: Option<u16>,
}

/// When a send is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FlushArg {
    /// When the message is in the page cache: it survives a crash of the process, not of the power
    Async,
    /// When the message is on the disk
    Sync,
}

impl From<FlushArg> for Flush {
    fn from(flush: FlushArg) -> Self {
        match flush {
            FlushArg::Async => Flush::Async,
            FlushArg::Sync => Flush::Sync,
        }
    }
}

/// Reads `name=port`.
pub(crate) fn parse_listener(text: &str) -> Result<(String, u16), String> {
    match text.split_once('=') {
        Some((name, port)) if !name.is_empty() => {
            let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
            Ok((name.to_owned(), port))
        }
        _ => Err("write name=port".to_owned()),
    }
}
