//! What the operator counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Cheap to clone; clones are the same.
#[derive(Clone)]
pub(crate) struct Metrics {
    reconciles: Family<KindLabel, Counter>,
    failures: Family<FailureLabels, Counter>,
    seconds: Family<KindLabel, Histogram, fn() -> Histogram>,
    writes: Family<KindLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
    /// 1 while this process is the one that acts.
    pub(crate) leader: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    kind: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    resource: String,
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0])
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(histogram as fn() -> Histogram),
            writes: Family::default(),
            requests: Family::default(),
            leader: Gauge::default(),
        };
        let Self { reconciles, failures, seconds, writes, requests, leader } = metrics.clone();
        let name = "weirmq_operator_reconciles";
        registry.register(name, "Times that a resource was looked at, by kind", reconciles);
        let name = "weirmq_operator_reconcile_failures";
        registry.register(name, "Times that this failed, by kind and reason", failures);
        let name = "weirmq_operator_reconcile_seconds";
        registry.register(name, "How long it took, by kind", seconds);
        let name = "weirmq_operator_writes";
        registry.register(name, "Objects written or deleted, by their kind", writes);
        let name = "weirmq_operator_requests";
        let help = "Requests of the controllers to the API server, by method and resource";
        registry.register(name, help, requests);
        let name = "weirmq_operator_leader";
        registry.register(name, "1 while this process is the one that acts", leader);
        metrics
    }

    pub(crate) fn reconciled(&self, kind: &str, took: Duration, failure: Option<&str>) {
        let kind = kind.to_owned();
        if let Some(reason) = failure {
            let labels = FailureLabels { kind: kind.clone(), reason: reason.to_owned() };
            self.failures.get_or_create(&labels).inc();
        }
        let label = KindLabel { kind };
        self.reconciles.get_or_create(&label).inc();
        self.seconds.get_or_create(&label).observe(took.as_secs_f64());
    }

    pub(crate) fn wrote(&self, kind: &str) {
        self.writes.get_or_create(&KindLabel { kind: kind.to_owned() }).inc();
    }

    pub(crate) fn requested(&self, method: &str, resource: String) {
        let labels = RequestLabels { method: method.to_owned(), resource };
        self.requests.get_or_create(&labels).inc();
    }
}
