//! A name server on a port of 127.0.0.1: `serve [port [admin-port]]`, 0 (the default) for any.
//! Prints `name server <address>` and `admin <address>` and runs until it is interrupted.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weirmq_admin::Admin;
use weirmq_namesrv::{DEFAULT_LISTENER, Listener, NameServerConfig, run};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let mut bind = async || {
        let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse()).unwrap_or(0);
        TcpListener::bind(("127.0.0.1", port)).await
    };
    let listener = bind().await?;
    let admin_listener = bind().await?;
    println!("name server {}", listener.local_addr()?);
    println!("admin {}", admin_listener.local_addr()?);

    let admin = Admin::new();
    let shutdown = CancellationToken::new();
    let on_interrupt = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        on_interrupt.cancel();
    });
    tokio::spawn(weirmq_admin::serve(admin_listener, admin.clone(), shutdown.clone()));
    let config = NameServerConfig {
        data_dir: std::env::var_os("DATA_DIR").map(Into::into),
        ..NameServerConfig::default()
    };
    let listener = Listener { name: DEFAULT_LISTENER.to_owned(), listener };
    run(config, vec![listener], admin, shutdown).await?;
    Ok(())
}
