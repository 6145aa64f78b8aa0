//! The flags by which tools find a cluster, and what they add to `weirmq_client`.

mod brokers;
mod message;

use std::time::Duration;

use weirmq_client::{Admin, Client, ClientConfig, ClientError};

use crate::output::{Format, Output};

pub(crate) use brokers::{BrokerAddress, Brokers};
pub(crate) use message::Message;

/// The broker id of a master. Source: `MixAll.MASTER_ID`.
pub(crate) const MASTER_ID: i64 = 0;

/// Flags of every command that talks to a cluster.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClientArgs {
    /// NameServers, several parted by `;`
    #[arg(long, global = true, value_name = "HOST:PORT", env = "NAMESRV_ADDR")]
    #[arg(default_value = "127.0.0.1:9876", help_heading = "Connection")]
    namesrv: String,

    /// How long to wait for one answer
    #[arg(long, global = true, value_name = "DURATION", env = "WEIRMQ_REQUEST_TIMEOUT")]
    #[arg(default_value = "3s", value_parser = crate::units::parse_duration)]
    #[arg(help_heading = "Connection", hide_env = true)]
    request_timeout: Duration,

    /// How to print results
    #[arg(short, long, global = true, value_enum, default_value_t, env = "WEIRMQ_OUTPUT")]
    #[arg(value_name = "text|json", hide_possible_values = true, hide_env = true)]
    output: Format,
}

impl ClientArgs {
    /// Starts the client; nothing is sent yet.
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        let config = ClientConfig::new(&self.namesrv);
        let connect_timeout = config.connect_timeout.min(self.request_timeout);
        let request_timeout = self.request_timeout;
        Client::start(ClientConfig { request_timeout, connect_timeout, ..config })
    }

    pub(crate) fn admin(&self) -> Result<Admin, ClientError> {
        Ok(Admin::new(&self.client()?))
    }

    pub(crate) fn output(&self) -> Output {
        Output::new(self.output)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }
}
