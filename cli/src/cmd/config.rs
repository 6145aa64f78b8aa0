//! `weir config`: looking at a configuration without starting anything.

use std::path::PathBuf;

use crate::config::{self, Kind};

/// Check configuration files
#[derive(clap::Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say whether a file can be used, and what in it has no effect
    #[command(after_help = "Examples:\n  weir config check weir.toml\n  \
        weir config check /opt/rocketmq/conf/broker.conf\n  \
        weir config check --role namesrv namesrv.conf")]
    Check {
        /// Our TOML, or properties as Apache's broker.conf
        file: PathBuf,
        /// Which program a properties file is for
        #[arg(long, value_enum, default_value = "broker")]
        role: Role,
        /// Print the whole configuration as TOML, defaults included
        #[arg(long)]
        print_config: bool,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Role {
    Broker,
    Namesrv,
}

pub(crate) fn run(args: ConfigArgs) -> anyhow::Result<()> {
    let Command::Check { file, role, print_config } = args.command;
    let kind = match role {
        Role::Broker => Kind::Broker,
        Role::Namesrv => Kind::NameServer,
    };
    let loaded = config::load(&file, kind)?;
    config::validate(&loaded.config)
        .map_err(|error| error.context(format!("{}", file.display())))?;
    for warning in &loaded.warnings {
        eprintln!("warning: {}: {warning}", file.display());
    }
    let output = crate::output::Output::new(crate::output::Format::Text);
    if print_config {
        return Ok(output.line(config::to_toml(&loaded.config)?.trim_end())?);
    }
    Ok(output.line(format_args!("{}: ok", file.display()))?)
}
