//! `weir operator`: the operator of Kubernetes.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weirmq_operator::Config;

use crate::exit::Failure;
use crate::signals::Signals;

/// Run the operator, which turns custom resources of Kubernetes into brokers
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir crds | kubectl apply --server-side -f -\n  \
    weir operator --image registry.example.org/weirmq:1 --watch-namespace default\n\n\
    It finds the API server as kubectl does, or by the account of its pod. Of several operators the one acts\n\
    that holds the Lease.")]
pub(crate) struct OperatorArgs {
    /// The image of pods whose resource names none
    #[arg(long, value_name = "IMAGE", env = "WEIRMQ_OPERATOR_IMAGE", hide_env = true)]
    image: String,
    /// Look at this namespace only [default: at all]
    #[arg(long, value_name = "NAMESPACE", env = "WEIRMQ_WATCH_NAMESPACE", hide_env = true)]
    watch_namespace: Option<String>,
    /// The domain of the cluster's DNS
    #[arg(long, value_name = "DOMAIN", env = "WEIRMQ_CLUSTER_DOMAIN", hide_env = true)]
    #[arg(default_value = "cluster.local")]
    cluster_domain: String,
    /// How long a changed Secret takes to reach all pods that mount it, at most: so long an authority is
    /// trusted before it issues certificates, and after it last did; 10s to 1d
    #[arg(long, value_name = "DURATION", env = "WEIRMQ_CERTIFICATE_SETTLE", hide_env = true)]
    #[arg(default_value = "5m", value_parser = parse_settle)]
    certificate_settle: Duration,
    /// Where the Lease of the operators is [default: default]
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", hide_env = true)]
    lease_namespace: Option<String>,
    /// The name of that Lease. Operators that look at different namespaces need one each
    #[arg(long, value_name = "NAME", env = "WEIRMQ_LEASE_NAME", hide_env = true)]
    #[arg(default_value = "weirmq-operator")]
    lease_name: String,
    /// What this operator is called there; another name for each [default: the host's name and the process's id]
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env = true)]
    identity: Option<String>,
    /// The address to open the admin port on
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0",
        env = "WEIRMQ_BIND",
        hide_env = true
    )]
    bind: String,
    /// Port for health (/livez, /readyz) and metrics (/metrics); 0: any
    #[arg(long, value_name = "PORT", default_value_t = 10908, env = "WEIRMQ_ADMIN_PORT")]
    #[arg(hide_env = true)]
    admin_port: u16,
}

/// Below, no kubelet has read a Secret again; above, a certificate could run out before its turn comes.
const SETTLE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(86_400);

fn parse_settle(text: &str) -> Result<Duration, String> {
    let settle = crate::units::parse_duration(text)?;
    if SETTLE.contains(&settle) {
        return Ok(settle);
    }
    Err(format!(
        "{text} is not in 10s to 1d: it is how long kubelets take to bring a changed Secret into all pods, a \
         minute or two; with less brokers may refuse each other's certificates, with more they may run out"
    ))
}

pub(crate) async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind((args.bind.as_str(), args.admin_port)).await.map_err(|error| {
            Failure::Usage(format!(
                "open the admin port {}:{}: {error}",
                args.bind, args.admin_port
            ))
        })?;
    let identity = args.identity.unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{host}-{}", std::process::id())
    });
    let config = Config {
        image: args.image,
        namespace: args.watch_namespace.filter(|namespace| !namespace.is_empty()),
        cluster_domain: args.cluster_domain,
        certificate_settle: SignedDuration::try_from(args.certificate_settle)?,
        lease_namespace: args.lease_namespace.unwrap_or_else(|| "default".to_owned()),
        lease_name: args.lease_name,
        identity,
    };
    let admin = weirmq_admin::Admin::new();
    let (shutdown, admin_shutdown) = (CancellationToken::new(), CancellationToken::new());
    let port = tokio::spawn(weirmq_admin::serve(listener, admin.clone(), admin_shutdown.clone()));
    let signalled = shutdown.clone();
    let mut signals = Signals::install()?;
    tokio::spawn(async move {
        signals.next().await;
        signalled.cancel();
    });
    let ended = weirmq_operator::run(config, admin.clone(), shutdown).await;
    admin.shutting_down();
    admin_shutdown.cancel();
    let _ = port.await;
    Ok(ended?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_no_kubelet_keeps_or_no_certificate_outlives_is_refused() {
        for (text, wanted) in [("10s", 10), ("5m", 300), ("1d", 86_400)] {
            assert_eq!(parse_settle(text), Ok(Duration::from_secs(wanted)));
        }
        for text in ["0s", "9s", "25h", "90d"] {
            let why = parse_settle(text).unwrap_err();
            assert!(why.contains("10s to 1d"), "{text}: {why}");
        }
        assert!(parse_settle("5").unwrap_err().contains("is no duration"));
    }
}
