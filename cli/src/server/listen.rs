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

/// The ports of a broker.
pub(super) struct BrokerPorts {
    pub(super) main: TcpListener,
    /// Two below, for old clients.
    pub(super) vip: Option<TcpListener>,
    /// One above, for the other replicas of the group.
    pub(super) replication: Option<TcpListener>,
}

/// Opens the ports of a broker. With port 0 all are chosen together.
pub(super) fn open_broker(
    ip: IpAddr,
    port: u16,
    is_replicated: bool,
) -> anyhow::Result<BrokerPorts> {
    const FLAG: &str = "--broker-port";
    if port > 0 {
        let main = open(ip, port, "broker", FLAG)?;
        let vip = match port.checked_sub(2).filter(|vip| *vip > 0) {
            Some(vip) => Some(open(ip, vip, "broker VIP", FLAG)?),
            None => None,
        };
        let above = port.checked_add(1).ok_or_else(|| anyhow!("port {port} has none above it"));
        let replication = match is_replicated {
            true => Some(open(ip, above?, "replication", FLAG)?),
            false => None,
        };
        return Ok(BrokerPorts { main, vip, replication });
    }
    for _ in 0..PAIR_ATTEMPTS {
        let main = open(ip, 0, "broker", FLAG)?;
        let port = main.local_addr()?.port();
        let Ok(vip) = bind(SocketAddr::new(ip, port - 2)) else { continue };
        let replication = match is_replicated {
            true => bind(SocketAddr::new(ip, port.saturating_add(1))).ok(),
            false => None,
        };
        if replication.is_some() == is_replicated {
            return Ok(BrokerPorts { main, vip: Some(vip), replication });
        }
    }
    if is_replicated {
        return Err(anyhow!("no port with a free one above it; choose one with {FLAG}"));
    }
    Ok(BrokerPorts { main: open(ip, 0, "broker", FLAG)?, vip: None, replication: None })
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
