//! Which NameServers there are: a name may stand for several, and other ones tomorrow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keep_registered;
use crate::Broker;

/// How often a name is looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);
/// An address that the name has not had for this long is no NameServer of ours any more. A resolver
/// that leaves it out once must not cost a route.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// Keeps the broker registered with every NameServer that `name`, `host:port`, stands for.
pub(super) async fn follow(broker: Arc<Broker>, name: String, shutdown: CancellationToken) {
    if name.parse::<SocketAddr>().is_ok() {
        keep_registered(broker.clone(), name.clone(), shutdown).await;
        return broker.forget_name_server(&name);
    }
    let mut tasks = JoinSet::new();
    let mut addresses = Addresses::default();
    loop {
        match tokio::net::lookup_host(&name).await {
            Ok(found) => {
                let (new, gone) = addresses.change(found, Instant::now());
                for address in new {
                    let stop = shutdown.child_token();
                    addresses.stops.insert(address, stop.clone());
                    tasks.spawn(keep_registered(broker.clone(), address.to_string(), stop));
                }
                for address in gone {
                    tracing::info!(name, %address, "no NameServer any more");
                    if let Some(stop) = addresses.stops.remove(&address) {
                        stop.cancel();
                    }
                    broker.forget_name_server(&address.to_string());
                }
                if !addresses.seen.is_empty() {
                    broker.forget_name_server(&name);
                }
            }
            Err(error) if addresses.seen.is_empty() => {
                broker.registered(&name, Err(format!("look up its address: {error}")));
            }
            Err(error) => tracing::debug!(name, %error, "the NameServers are not looked up"),
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(LOOK_UP_EVERY) => {}
        }
    }
    while tasks.join_next().await.is_some() {}
    for address in addresses.seen.keys() {
        broker.forget_name_server(&address.to_string());
    }
    broker.forget_name_server(&name);
}

/// The addresses of one name.
#[derive(Default)]
struct Addresses {
    /// When each one was in an answer last.
    seen: BTreeMap<SocketAddr, Instant>,
    stops: BTreeMap<SocketAddr, CancellationToken>,
}

impl Addresses {
    /// Takes an answer in: which addresses are new, and which have been missing for long enough.
    fn change(
        &mut self,
        found: impl Iterator<Item = SocketAddr>,
        now: Instant,
    ) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let new = found.filter(|address| self.seen.insert(*address, now).is_none()).collect();
        let is_gone = |at: &Instant| now.duration_since(*at) >= GONE_AFTER;
        let gone: Vec<_> =
            self.seen.iter().filter(|(_, at)| is_gone(at)).map(|(address, _)| *address).collect();
        for address in &gone {
            self.seen.remove(address);
        }
        (new, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_is_forgotten_only_after_a_minute_without_it() {
        let [a, b] = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 9876)));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut addresses = Addresses::default();
        assert_eq!(addresses.change([a, b].into_iter(), at(0)), (vec![a, b], vec![]));
        assert_eq!(addresses.change([a].into_iter(), at(59)), (vec![], vec![]));
        assert_eq!(addresses.change([a].into_iter(), at(60)), (vec![], vec![b]));
        assert_eq!(addresses.change([a, b].into_iter(), at(61)), (vec![b], vec![]));
    }
}
