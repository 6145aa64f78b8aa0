//! What a server prints on stdout: where it is, and one line once it takes requests.

use std::io::{self, Write};

use weirmq_broker::Flush;

use super::{Addresses, Plan, reachable};

/// Says where everything is. A stdout that nobody reads is no reason not to serve.
pub(super) fn print(plan: &Plan, addresses: &Addresses) {
    if let Err(error) = write_banner(&mut io::stdout().lock(), plan, addresses) {
        tracing::warn!(%error, "banner could not be printed");
    }
}

fn write_banner(out: &mut impl Write, plan: &Plan, addresses: &Addresses) -> io::Result<()> {
    writeln!(out, "WeirMQ {}", env!("CARGO_PKG_VERSION"))?;
    if let Some(namesrv) = addresses.namesrv {
        writeln!(out, "  NameServer  {namesrv}")?;
    }
    if let (Some(broker), Some(advertised)) = (addresses.broker, &addresses.advertised) {
        let name = &plan.config.broker.name;
        let told = match advertised.strip_prefix("0.0.0.0:").or(advertised.strip_prefix("[::]:")) {
            Some(_) => "the address they came in by",
            None => advertised,
        };
        writeln!(out, "  Broker      {broker}  {name}, clients are told {told}")?;
    }
    writeln!(out, "  Admin       http://{}  /readyz /metrics", addresses.admin)?;
    if let Some(data_dir) = &addresses.data_dir {
        let shown = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.clone());
        let ephemeral = if plan.ephemeral.is_some() { "  (removed at exit)" } else { "" };
        writeln!(out, "  Data        {}{ephemeral}", shown.display())?;
        let flush = match plan.config.broker.store.flush {
            Flush::Async => {
                "async  (a power cut may lose the last messages; --flush sync keeps them)"
            }
            Flush::Sync => "sync",
        };
        writeln!(out, "  Flush       {flush}")?;
    }
    if let (Some(namesrv), Some(_)) = (addresses.namesrv, addresses.broker) {
        let at = std::net::SocketAddr::new(reachable(namesrv.ip()), namesrv.port());
        let flag = match at.to_string() {
            usual if usual == "127.0.0.1:9876" => String::new(),
            other => format!(" --namesrv {other}"),
        };
        writeln!(
            out,
            "  Try         weir produce hello -m hi{flag} && weir consume hello -n 1{flag}"
        )?;
    }
    out.flush()
}

/// The one line that begins with `ready`, for people and for programs that wait for it.
pub(super) fn ready(addresses: &Addresses) {
    let roles = [("namesrv", addresses.namesrv), ("broker", addresses.broker)];
    let mut line = "ready".to_owned();
    for (role, address) in roles.into_iter().chain([("admin", Some(addresses.admin))]) {
        if let Some(address) = address {
            line += &format!(" {role}={address}");
        }
    }
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::warn!(%error, line, "ready line could not be printed");
    }
}
