//! What a name server counts.

use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use weirmq_remoting::{Code, RequestCode, ResponseCode};

use crate::server::NameServer;

#[derive(Default)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    connections: Gauge,
    refused_topics: Counter,
    expired_brokers: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    /// The name of a code that is known, `unknown` for all others: peers must not be able to make
    /// up series.
    request_code: &'static str,
    response_code: &'static str,
}

impl Metrics {
    pub(crate) fn register(server: &Arc<NameServer>, registry: &mut Registry) {
        let Self { requests, connections, refused_topics, expired_brokers } = &server.metrics;
        let registry = registry.sub_registry_with_prefix("weirmq_namesrv");
        registry.register("requests", "Requests by code and answer", requests.clone());
        registry.register("connections", "Connections of all listeners", connections.clone());
        registry.register(
            "topics_refused",
            "Topics left out of registrations, by limit or by name",
            refused_topics.clone(),
        );
        registry.register(
            "brokers_expired",
            "Brokers forgotten because nothing was heard from them",
            expired_brokers.clone(),
        );
        registry.register_collector(Box::new(TableCollector(Arc::downgrade(server))));
    }

    pub(crate) fn answered(&self, request_code: i32, response_code: ResponseCode) {
        let request_code = match Code::<RequestCode>::from(request_code) {
            Code::Known(code) => code.name(),
            Code::Unknown(_) => "unknown",
        };
        let labels = RequestLabels { request_code, response_code: response_code.name() };
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn connected(&self) {
        self.connections.inc();
    }

    pub(crate) fn disconnected(&self) {
        self.connections.dec();
    }

    pub(crate) fn topics_refused(&self, count: usize) {
        self.refused_topics.inc_by(count as u64);
    }

    pub(crate) fn brokers_expired(&self, count: usize) {
        self.expired_brokers.inc_by(count as u64);
    }
}

/// Sizes that are read when somebody asks.
#[derive(Debug)]
struct TableCollector(Weak<NameServer>);

impl Collector for TableCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(server) = self.0.upgrade() else { return Ok(()) };
        let (brokers, topics) = {
            let routes = server.routes.read();
            (routes.broker_count(), routes.topic_count())
        };
        let sizes = [
            ("brokers", "Registered brokers, masters and slaves", brokers),
            ("topics", "Topics with a route", topics),
            ("kv_entries", "Entries of the KV configuration", server.kv_config.entry_count()),
        ];
        for (name, help, size) in sizes {
            let gauge = ConstGauge::new(size as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
