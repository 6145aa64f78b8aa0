//! `weir standalone`: NameServer and broker in one process.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::{self, FileConfig, Kind};
use crate::server::{
    self, CommonArgs, FlushArg, Plan, Roles, Source, WithFlags, parse_advertise, parse_listener,
};

/// Run a NameServer and a broker in one process; this is what plain `weir` does
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  weir\n  weir --ephemeral --namesrv-port 0 --broker-port 0 --admin-port 0\n  \
    weir standalone --bind 0.0.0.0 --host mq.example.org --flush sync\n\n\
    Once requests are accepted, stdout gets the line\n  \
    ready namesrv=127.0.0.1:9876 broker=127.0.0.1:10911 admin=127.0.0.1:10908\n\
    Logs go to stderr. SIGTERM and Ctrl-C end it with exit code 0.\n\
    Every flag can be given as WEIRMQ_<FLAG> in the environment."
)]
pub(crate) struct StandaloneArgs {
    /// Where messages and state live [default: weir-data]
    #[arg(long, value_name = "DIR", env = "WEIRMQ_DATA", hide_env = true)]
    data: Option<PathBuf>,
    /// Keep data in a temporary folder that is removed at exit
    #[arg(long, conflicts_with = "data", env = "WEIRMQ_EPHEMERAL", hide_env = true)]
    ephemeral: bool,
    /// The address to bind, and to tell clients [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR", env = "WEIRMQ_HOST", hide_env = true)]
    host: Option<String>,
    /// Tell clients another address; may be repeated for further listeners
    #[arg(long, value_name = "[LISTENER=]HOST:PORT", env = "WEIRMQ_ADVERTISE", hide_env = true)]
    #[arg(value_parser = parse_advertise, value_delimiter = ',')]
    advertise: Vec<(String, String)>,
    /// Port of the NameServer; 0: any [default: 9876]
    #[arg(long, value_name = "PORT", env = "WEIRMQ_NAMESRV_PORT", hide_env = true)]
    namesrv_port: Option<u16>,
    /// Another port of the NameServer, on which clients are told the brokers' addresses for that
    /// listener; may be repeated
    #[arg(long, value_name = "NAME=PORT", env = "WEIRMQ_NAMESRV_LISTENER", hide_env = true)]
    #[arg(value_parser = parse_listener, value_delimiter = ',')]
    namesrv_listener: Vec<(String, u16)>,
    /// Port of the broker; two below it is opened as well, for old clients; 0: any
    /// [default: 10911]
    #[arg(long, value_name = "PORT", env = "WEIRMQ_BROKER_PORT", hide_env = true)]
    broker_port: Option<u16>,
    /// When a send is answered [default: async, as Apache's]
    #[arg(long, value_enum, env = "WEIRMQ_FLUSH", hide_env = true)]
    flush: Option<FlushArg>,
    #[command(flatten)]
    common: CommonArgs,
}

pub(crate) async fn run(mut args: StandaloneArgs) -> anyhow::Result<()> {
    let loaded = config::load_optional(args.common.config.as_ref(), Kind::Broker)?;
    let mut ephemeral = None;
    if args.data.is_none() && args.ephemeral && !args.common.print_config {
        let folder = tempfile::Builder::new().prefix("weir-").tempdir();
        let folder = folder.context("make a temporary folder for --ephemeral")?;
        args.data = Some(folder.path().to_owned());
        ephemeral = Some(folder);
    }
    let config = with_flags(&args, loaded.config)?;
    if args.common.print_config {
        print!("{}", config::to_toml(&config)?);
        return Ok(());
    }
    let roles = Roles { namesrv: true, broker: true };
    let bind = config.listen.bind.clone().unwrap_or_default();
    let names_default = args.advertise.iter().any(|(name, _)| name == "default");
    let host = args.host.clone().filter(|_| !names_default);
    let source = args.common.config.clone().map(|file| {
        let with_flags: WithFlags = Box::new(move |file| with_flags(&args, file));
        Source { file, content: loaded.content, with_flags }
    });
    server::serve(Plan { config, roles, bind, host, source, ephemeral }).await
}

/// Puts flags over what the file says, and checks the whole.
fn with_flags(args: &StandaloneArgs, mut config: FileConfig) -> anyhow::Result<FileConfig> {
    let listen = &mut config.listen;
    listen.namesrv_port = args.namesrv_port.unwrap_or(listen.namesrv_port);
    listen.broker_port = args.broker_port.unwrap_or(listen.broker_port);
    listen.admin_port = args.common.admin_port.unwrap_or(listen.admin_port);
    listen.namesrv_listeners.extend(args.namesrv_listener.iter().cloned());
    let bind = args.common.bind.clone().or(args.host.clone()).or(listen.bind.take());
    listen.bind = Some(bind.unwrap_or_else(|| "127.0.0.1".to_owned()));

    let broker = &mut config.broker;
    broker.data_dir = args.data.clone().unwrap_or_else(|| std::mem::take(&mut broker.data_dir));
    broker.store.flush = args.flush.map_or(broker.store.flush, Into::into);
    broker.advertise.extend(args.advertise.iter().cloned());
    if config.namesrv.data_dir.is_none() {
        config.namesrv.data_dir = Some(config.broker.data_dir.join("namesrv"));
    }
    config::validate(&config)?;
    Ok(config)
}
