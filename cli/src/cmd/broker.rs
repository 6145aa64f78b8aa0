//! `weir broker`: a broker on its own.

use std::path::PathBuf;

use crate::config::{self, FileConfig, Kind};
use crate::exit::Failure;
use crate::server::{
    self, CommonArgs, FlushArg, Plan, ReplicationArgs, Roles, Source, WithFlags, parse_advertise,
};

/// Run a broker that registers with NameServers elsewhere
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir broker -n 10.0.0.1:9876 --name broker-a\n  \
    weir broker -c /opt/rocketmq/conf/broker.conf\n\n\
    Once requests are accepted, stdout gets a line that begins with `ready`.\n\
    Every flag can be given as WEIRMQ_<FLAG> in the environment.")]
pub(crate) struct BrokerArgs {
    /// NameServers to register with, several parted by `;`
    #[arg(short, long, value_name = "HOST:PORT", env = "NAMESRV_ADDR")]
    namesrv: Option<String>,
    /// Name of the broker group [default: broker-a]
    #[arg(long, value_name = "NAME", env = "WEIRMQ_BROKER_NAME", hide_env = true)]
    name: Option<String>,
    /// Name of the cluster [default: DefaultCluster]
    #[arg(long, value_name = "NAME", env = "WEIRMQ_CLUSTER_NAME", hide_env = true)]
    cluster: Option<String>,
    /// Where messages and state live [default: weir-data]
    #[arg(long, value_name = "DIR", env = "WEIRMQ_DATA", hide_env = true)]
    data: Option<PathBuf>,
    /// Tell clients another address than the bound one; may be repeated for further listeners
    #[arg(long, value_name = "[LISTENER=]HOST:PORT", env = "WEIRMQ_ADVERTISE", hide_env = true)]
    #[arg(value_parser = parse_advertise, value_delimiter = ',')]
    advertise: Vec<(String, String)>,
    /// Port of the broker; two below it is opened as well, for old clients; 0: any
    /// [default: 10911]
    #[arg(long, value_name = "PORT", env = "WEIRMQ_BROKER_PORT", hide_env = true)]
    broker_port: Option<u16>,
    /// When a send is answered [default: async, as Apache's]
    #[arg(long, value_enum, env = "WEIRMQ_FLUSH", hide_env = true)]
    flush: Option<FlushArg>,
    #[command(flatten)]
    replication: ReplicationArgs,
    #[command(flatten)]
    common: CommonArgs,
}

pub(crate) async fn run(args: BrokerArgs) -> anyhow::Result<()> {
    let loaded = config::load_optional(args.common.config.as_ref(), Kind::Broker)?;
    let config = with_flags(&args, loaded.config)?;
    if args.common.print_config {
        print!("{}", config::to_toml(&config)?);
        return Ok(());
    }
    check_name_servers(&config)?;
    let roles = Roles { namesrv: false, broker: true };
    let bind = config.listen.bind.clone().unwrap_or_default();
    let source = args.common.config.clone().map(|file| {
        let with_flags: WithFlags = Box::new(move |file| {
            let config = with_flags(&args, file)?;
            check_name_servers(&config).map(|()| config)
        });
        Source { file, content: loaded.content, with_flags }
    });
    server::serve(Plan { config, roles, bind, host: None, source, ephemeral: None }).await
}

/// Puts flags over what the file says, and checks the whole.
fn with_flags(args: &BrokerArgs, mut config: FileConfig) -> anyhow::Result<FileConfig> {
    let listen = &mut config.listen;
    listen.broker_port = args.broker_port.unwrap_or(listen.broker_port);
    listen.admin_port = args.common.admin_port.unwrap_or(listen.admin_port);
    let bind = args.common.bind.clone().or(listen.bind.take());
    listen.bind = Some(bind.unwrap_or_else(|| "0.0.0.0".to_owned()));

    let broker = &mut config.broker;
    if let Some(namesrv) = &args.namesrv {
        let addresses = namesrv.split([';', ',']).map(str::trim).filter(|text| !text.is_empty());
        broker.name_servers = addresses.map(str::to_owned).collect();
    }
    broker.name = args.name.clone().unwrap_or_else(|| std::mem::take(&mut broker.name));
    broker.cluster = args.cluster.clone().unwrap_or_else(|| std::mem::take(&mut broker.cluster));
    broker.data_dir = args.data.clone().unwrap_or_else(|| std::mem::take(&mut broker.data_dir));
    broker.store.flush = args.flush.map_or(broker.store.flush, Into::into);
    broker.advertise.extend(args.advertise.iter().cloned());
    args.replication.clone().apply(broker);
    broker.take_own_addresses(std::env::var("NODE_ADDRESS").ok().as_deref());
    config::validate(&config)?;
    Ok(config)
}

fn check_name_servers(config: &FileConfig) -> anyhow::Result<()> {
    if config.broker.name_servers.is_empty() {
        let problem = "a broker needs a NameServer: name one with -n host:port or NAMESRV_ADDR, \
                       or run both with `weir standalone`";
        return Err(Failure::Usage(problem.to_owned()).into());
    }
    Ok(())
}
