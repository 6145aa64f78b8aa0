//! `weir namesrv`: a NameServer on its own.

use std::path::PathBuf;

use crate::config::{self, Kind};
use crate::server::{self, CommonArgs, Plan, Roles, parse_listener};

/// Run a NameServer
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir namesrv --data /var/lib/weir-namesrv\n  \
    weir namesrv --namesrv-listener external=19876\n\n\
    Once requests are accepted, stdout gets a line that begins with `ready`.\n\
    Every flag can be given as WEIRMQ_<FLAG> in the environment.")]
pub(crate) struct NameServerArgs {
    /// Where the key-value configuration lives [default: nowhere, it is lost at a restart]
    #[arg(long, value_name = "DIR", env = "WEIRMQ_DATA", hide_env = true)]
    data: Option<PathBuf>,
    /// Port of the NameServer; 0: any [default: 9876]
    #[arg(long, value_name = "PORT", env = "WEIRMQ_NAMESRV_PORT", hide_env = true)]
    #[arg(visible_alias = "port")]
    namesrv_port: Option<u16>,
    /// Another port, on which clients are told the brokers' addresses for that listener; may be
    /// repeated
    #[arg(long, value_name = "NAME=PORT", env = "WEIRMQ_NAMESRV_LISTENER", hide_env = true)]
    #[arg(value_parser = parse_listener, value_delimiter = ',')]
    namesrv_listener: Vec<(String, u16)>,
    #[command(flatten)]
    common: CommonArgs,
}

pub(crate) async fn run(args: NameServerArgs) -> anyhow::Result<()> {
    let loaded = config::load_optional(args.common.config.as_ref(), Kind::NameServer)?;
    let mut config = loaded.config;
    let listen = &mut config.listen;
    listen.namesrv_port = args.namesrv_port.unwrap_or(listen.namesrv_port);
    listen.admin_port = args.common.admin_port.unwrap_or(listen.admin_port);
    listen.namesrv_listeners.extend(args.namesrv_listener);
    let bind = args.common.bind.or(listen.bind.take()).unwrap_or_else(|| "0.0.0.0".to_owned());
    listen.bind = Some(bind.clone());
    config.namesrv.data_dir = args.data.or(config.namesrv.data_dir.take());
    config::validate(&config)?;
    if args.common.print_config {
        print!("{}", config::to_toml(&config)?);
        return Ok(());
    }
    let roles = Roles { namesrv: true, broker: false };
    server::serve(Plan { config, roles, bind, host: None, source: None, ephemeral: None }).await
}
