//! Which brokers a change goes to.

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Place {
    /// Only the brokers of this cluster [default: every cluster]
    #[arg(long, value_name = "NAME", env = "WEIRMQ_CLUSTER", hide_env = true)]
    pub(crate) cluster: Option<String>,
    /// Only this broker group
    #[arg(long, value_name = "NAME", env = "WEIRMQ_BROKER", hide_env = true)]
    pub(crate) broker: Option<String>,
}
