//! The address that clients are told, which need not be the one that is bound.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use weirmq_namesrv::DEFAULT_LISTENER;

/// Reads `[listener=]host:port` into the listener's name and the address.
pub(crate) fn parse_advertise(text: &str) -> Result<(String, String), String> {
    let (listener, address) = text.split_once('=').unwrap_or((DEFAULT_LISTENER, text));
    let parts = address.rsplit_once(':');
    let has_port =
        parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if listener.is_empty() || !has_port {
        return Err("write host:port, or listener=host:port".to_owned());
    }
    Ok((listener.to_owned(), address.to_owned()))
}

/// `host` if the user named one, else the bound address, else where this machine is reached.
///
/// A broker whose own NameServer runs beside it may say that it is bound to every address: that
/// NameServer shows it to each client at the address the client came in by.
pub(super) fn address(
    host: Option<&str>,
    bound: IpAddr,
    port: u16,
    has_own_namesrv: bool,
) -> String {
    let host = match host {
        Some(host) => host.to_owned(),
        None if bound.is_unspecified() && !has_own_namesrv => outgoing_ip().to_string(),
        None => bound.to_string(),
    };
    if host.contains(':') && !host.starts_with('[') {
        return format!("[{host}]:{port}");
    }
    format!("{host}:{port}")
}

/// The address that packets to the outside leave from. Nothing is sent: connecting a UDP socket
/// only looks the route up.
fn outgoing_ip() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // An address of TEST-NET-1 (RFC 5737), which no machine has.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().ok().filter(|ip| !ip.is_unspecified()).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_may_name_its_listener() {
        assert_eq!(parse_advertise("h:1").unwrap(), ("default".into(), "h:1".into()));
        assert_eq!(
            parse_advertise("external=[::1]:1").unwrap(),
            ("external".into(), "[::1]:1".into())
        );
        for bad in ["h", "=h:1", "h:", ":1", "h:99999"] {
            assert!(parse_advertise(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_users_host_comes_first_and_only_the_own_name_server_hears_of_every_address() {
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        assert_eq!(address(Some("mq.local"), any, 1, true), "mq.local:1");
        assert_eq!(address(Some("::1"), any, 1, false), "[::1]:1");
        assert_eq!(address(None, Ipv4Addr::LOCALHOST.into(), 1, false), "127.0.0.1:1");
        assert!(!address(None, any, 1, false).starts_with("0.0.0.0"));
        assert_eq!(address(None, any, 1, true), "0.0.0.0:1");
    }
}
