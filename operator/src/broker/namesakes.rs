//! Finds Brokers whose groups clients cannot tell from this one's. A NameServer knows a group by its name, which
//! is made of the Broker's, and knows nothing of namespaces: of two that register with it under one name the
//! addresses get mixed, and with them the messages.

use std::collections::BTreeSet;

use kube::{Resource as _, ResourceExt as _};

use super::{Round, client_name_servers};
use crate::kinds::Broker;
use crate::watches::understood;

impl Round<'_> {
    /// Brokers of the same name that register with the same NameServers, as sentences; of those that the operator
    /// looks after.
    pub(super) fn namesakes(&self) -> Vec<String> {
        let all = self.context.declared.brokers.state();
        let namesakes = understood(&all).filter(|other| {
            other.name_any() == self.resource.name_any()
                && other.namespace() != self.resource.namespace()
                && other.meta().deletion_timestamp.is_none()
        });
        let domain = &self.context.cluster_domain;
        let told = namesakes.filter_map(|other| {
            let namespace = other.namespace().unwrap_or_default();
            let at = shared(self.resource, other, domain)?;
            Some(format!("Broker {} of namespace {namespace} at {at}", other.name_any()))
        });
        let mut told: Vec<String> = told.collect();
        told.sort_unstable();
        told
    }
}

/// A NameServer that both register with.
fn shared(one: &Broker, other: &Broker, domain: &str) -> Option<String> {
    let (one, other) = (name_servers(one, domain), name_servers(other, domain));
    one.intersection(&other).next().cloned()
}

fn name_servers(broker: &Broker, domain: &str) -> BTreeSet<String> {
    let namespace = broker.namespace().unwrap_or_default();
    let addresses = client_name_servers(broker, domain);
    addresses.split(';').map(|address| canonical(address, &namespace, domain)).collect()
}

/// An address in one of the forms in which it can be written: a Service as `NAME.NAMESPACE:PORT`, and the one for
/// the pods of a NameServer, or one of those pods, as the Service of all of them.
fn canonical(address: &str, namespace: &str, domain: &str) -> String {
    let address = address.to_ascii_lowercase();
    let (host, port) = address.rsplit_once(':').unwrap_or((&address, ""));
    let host = host.trim_end_matches('.');
    let host = host.strip_suffix(&format!(".{domain}")).unwrap_or(host);
    let host = host.strip_suffix(".svc").unwrap_or(host);
    let labels: Vec<&str> = host.split('.').collect();
    let (service, namespace) = match labels[..] {
        [service] if !service.contains(':') => (service, namespace),
        [service, namespace] => (service, namespace),
        [_, service, namespace] if service.ends_with("-namesrv-pods") => (service, namespace),
        // It is not within this cluster.
        _ => return address,
    };
    let service = match service.strip_suffix("-namesrv-pods") {
        Some(name) => format!("{name}-namesrv"),
        None => service.to_owned(),
    };
    format!("{service}.{namespace}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::tests::broker;

    const DOMAIN: &str = "cluster.local";

    #[test]
    fn an_address_is_the_same_in_all_its_forms() {
        for address in [
            "ns-namesrv:9876",
            "ns-namesrv.shop:9876",
            "NS-namesrv.shop.svc:9876",
            "ns-namesrv.shop.svc.cluster.local.:9876",
            "ns-namesrv-pods.shop.svc.cluster.local:9876",
            "ns-namesrv-0.ns-namesrv-pods.shop.svc.cluster.local:9876",
        ] {
            assert_eq!(canonical(address, "shop", DOMAIN), "ns-namesrv.shop:9876", "{address}");
        }
        for address in ["192.0.2.1:9876", "[2001:db8::1]:9876", "mq.example.com:9876"] {
            assert_eq!(canonical(address, "shop", DOMAIN), address);
        }
    }

    #[test]
    fn brokers_of_one_name_are_told_apart_by_their_name_servers() {
        let of = |namespace: &str, name_servers: &str| {
            let mut broker = broker(&format!("{{{name_servers}, storage: {{size: 1Gi}}}}"));
            broker.metadata.namespace = Some(namespace.to_owned());
            broker
        };
        let one = of("shop", "nameServerRef: {name: ns}");
        let shares = |other: &Broker| shared(&one, other, DOMAIN);
        let listed = of("mall", "nameServers: ['192.0.2.1:9876', 'ns-namesrv.shop:9876']");
        assert_eq!(shares(&listed).as_deref(), Some("ns-namesrv.shop:9876"));
        assert_eq!(shares(&of("mall", "nameServerRef: {name: ns}")), None);
        assert_eq!(shares(&of("mall", "nameServers: ['ns-namesrv:9876']")), None);
    }
}
