//! Settings that producers, consumers and the admin client of one [`Client`](crate::Client) share.

use std::time::Duration;

use weirmq_remoting::SerializeType;
use weirmq_remoting::frame::FRAME_BYTES_MAX;

use crate::ClientError;

/// How a client finds its cluster and keeps in touch with it.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `host:port` of each NameServer, at least one. They are asked in turn; the one that answered
    /// last is asked first. Default: none, so it has to be set; see [`ClientConfig::new`].
    pub name_servers: Vec<String>,
    /// The part of the client id behind `ip@`. Two live clients of one consumer group need
    /// different ids. Default: `None`, made of the process id and the start time.
    pub instance: Option<String>,
    /// How long a connection may take to be established. Default: 1.5 s, so that a send of 3 s
    /// still reaches another broker when a node is gone.
    pub connect_timeout: Duration,
    /// How long a NameServer or broker may take to answer anything but a send or a pull.
    /// Default: 3 s, as Apache's `mqClientApiTimeout`.
    pub request_timeout: Duration,
    /// How often routes in use are looked up again. Default: 30 s.
    pub route_poll_interval: Duration,
    /// How often all known brokers hear of this client's groups; a broker forgets a client after
    /// 120 s of silence. Default: 30 s.
    pub heartbeat_interval: Duration,
    /// How headers of requests are written. Default: JSON, as all of Apache's clients.
    pub serialize: SerializeType,
    /// The longest frame taken from a peer, in bytes. Default: 16 MiB.
    pub frame_bytes_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            name_servers: Vec::new(),
            instance: None,
            connect_timeout: Duration::from_millis(1500),
            request_timeout: Duration::from_secs(3),
            route_poll_interval: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
            serialize: SerializeType::Json,
            frame_bytes_max: FRAME_BYTES_MAX,
        }
    }
}

impl ClientConfig {
    /// Defaults with these NameServers, written as Apache's `namesrvAddr`: `host:port;host:port`.
    /// Commas separate too.
    pub fn new(name_servers: &str) -> Self {
        let addresses =
            name_servers.split([';', ',']).map(str::trim).filter(|part| !part.is_empty());
        Self { name_servers: addresses.map(str::to_owned).collect(), ..Self::default() }
    }

    pub(crate) fn validate(&self) -> Result<(), ClientError> {
        let refuse = |what: String| Err(ClientError::Config(what));
        if self.name_servers.is_empty() {
            return refuse("name_servers is empty; name at least one as host:port".to_owned());
        }
        for address in &self.name_servers {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return refuse(format!("name server {address:?} is not host:port"));
            }
        }
        for (name, interval) in [
            ("route_poll_interval", self.route_poll_interval),
            ("heartbeat_interval", self.heartbeat_interval),
            ("request_timeout", self.request_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if interval < Duration::from_millis(10) {
                return refuse(format!("{name} is {interval:?}, the least is 10 ms"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_as_apache_writes_them_and_checked() {
        let config = ClientConfig::new("a:9876; [::1]:9876,b:1");
        assert_eq!(config.name_servers, ["a:9876", "[::1]:9876", "b:1"]);
        assert!(config.validate().is_ok());
        for bad in ["", " ; ", "a", "a:b", "a:70000"] {
            assert!(ClientConfig::new(bad).validate().is_err(), "{bad}");
        }
    }
}
