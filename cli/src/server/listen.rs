//! Opening the ports of the servers.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;

/// How often a free pair of ports is looked for when the broker may choose.
const PAIR_ATTEMPTS: usize = 16;

/// The address that `host` names, an IPv4 one if there is a choice.
pub(super) async fn resolve(host: &str) -> anyhow::Result<IpAddr> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(ip);
    }
    let found = tokio::net::lookup_host((bare, 0)).await;
    let found = found.with_context(|| format!("look up the address of {host}"))?;
    let addresses: Vec<_> = found.map(|address| address.ip()).collect();
    let first = addresses.iter().find(|ip| ip.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| anyhow!("{host} has no address"))
}

/// Opens `port` on `ip` for `what`, for example "broker"; `flag` is where another is chosen.
pub(super) fn open(ip: IpAddr, port: u16, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(ip, port);
    bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{what} port {address} is in use, perhaps by another weir; \
             stop that or choose another port with {flag} (0: any)"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!(
                "{what} port {address}: permission denied; choose a port above 1023 with {flag}"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow!(
                "{what} port {address}: this machine has no address {ip}; change --bind or --host"
            )
        }
        _ => anyhow!("{what} port {address}: {error}"),
    })
}

/// Opens the broker's port and its VIP port, two below. With port 0 both are chosen together.
pub(super) fn open_broker(
    ip: IpAddr,
    port: u16,
) -> anyhow::Result<(TcpListener, Option<TcpListener>)> {
    const FLAG: &str = "--broker-port";
    if port > 0 {
        let main = open(ip, port, "broker", FLAG)?;
        let vip = match port.checked_sub(2).filter(|vip| *vip > 0) {
            Some(vip) => Some(open(ip, vip, "broker VIP", FLAG)?),
            None => None,
        };
        return Ok((main, vip));
    }
    let mut main = open(ip, 0, "broker", FLAG)?;
    for _ in 0..PAIR_ATTEMPTS {
        let vip = main.local_addr()?.port() - 2;
        if let Ok(vip) = bind(SocketAddr::new(ip, vip)) {
            return Ok((main, Some(vip)));
        }
        main = open(ip, 0, "broker", FLAG)?;
    }
    Ok((main, None))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }?;
    // A restarted server may take its port back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}
