//! What the process says about itself, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One readable line an event
    #[default]
    Text,
    /// One JSON object an event
    Json,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or filters such as `info,weirmq_store=debug`
    /// [default: info for servers, warn otherwise]
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "WEIRMQ_LOG_LEVEL",
        help_heading = "Logging",
        hide_env = true
    )]
    log_level: Option<String>,

    /// How log lines look
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "WEIRMQ_LOG_FORMAT",
        help_heading = "Logging",
        hide_env = true,
        hide_possible_values = true,
        value_name = "text|json"
    )]
    log_format: LogFormat,
}

impl LogArgs {
    /// Begins to log. `RUST_LOG` wins over `default_level`, the flag over both.
    pub(crate) fn start(&self, default_level: &str) -> anyhow::Result<()> {
        let from_environment = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
        let filter = self.log_level.clone().or(from_environment);
        let filter = filter.as_deref().unwrap_or(default_level);
        let filter: EnvFilter = filter.parse().map_err(|error| {
            crate::exit::Failure::Usage(format!(
                "log level `{filter}`: {error}; use for example info"
            ))
        })?;
        let is_colour_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && !is_colour_off);
        match self.log_format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().init(),
        }
        Ok(())
    }
}
