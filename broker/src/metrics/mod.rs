//! Counters and gauges, under the names that RocketMQ 5's Prometheus endpoint uses, with our own
//! under `weirmq_`.

mod collector;
mod rate;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use weirmq_message::Record;
use weirmq_remoting::ResponseCode;
use weirmq_store::Appended;

use crate::Broker;
use crate::config::BrokerConfig;
use crate::replication;
use crate::topics::{Topic, Topics};

pub(crate) use collector::BrokerCollector;
use rate::RateWindow;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InLabels {
    topic: String,
    message_type: &'static str,
    is_system: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutLabels {
    topic: String,
    consumer_group: String,
    is_retry: bool,
    is_system: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadLetterLabels {
    topic: String,
    consumer_group: String,
    is_system: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    request_code: i32,
    response_code: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameServerLabels {
    name_server: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BegunAnewLabels {
    log: &'static str,
}

/// The counters of one topic's messages and bytes that came in, once there were any: looking them
/// up by their labels costs more than writing a message.
#[derive(Default, Clone)]
pub(crate) struct InCounters(OnceLock<(Counter, Counter)>);

impl std::fmt::Debug for InCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InCounters")
    }
}

/// What was counted makes no topic another one.
impl PartialEq for InCounters {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for InCounters {}

/// Messages per second over the last 10 s, 60 s and 600 s.
pub(crate) struct Rates {
    pub put: [f64; 3],
    pub got: [f64; 3],
}

/// Everything that is counted as it happens.
pub(crate) struct Metrics {
    messages_in: Family<InLabels, Counter>,
    bytes_in: Family<InLabels, Counter>,
    messages_out: Family<OutLabels, Counter>,
    bytes_out: Family<OutLabels, Counter>,
    dead_letters: Family<DeadLetterLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    registered: Family<NameServerLabels, Gauge>,
    begun_anew: Family<BegunAnewLabels, Counter>,
    pub(crate) replica: Arc<replication::Counted>,
    put: AtomicU64,
    got: AtomicU64,
    put_rate: RateWindow,
    got_rate: RateWindow,
    /// The broker that lives now.
    broker: RwLock<Weak<Broker>>,
}

/// The labels that every metric of a broker has.
pub(crate) fn common_labels(config: &BrokerConfig) -> [(&'static str, String); 3] {
    [
        ("cluster", config.cluster.clone()),
        ("node_type", "broker".into()),
        ("node_id", config.name.clone()),
    ]
}

impl Metrics {
    pub(crate) fn new(config: &BrokerConfig, admin: &weirmq_admin::Admin) -> Arc<Self> {
        let metrics = Arc::new(Self {
            messages_in: Family::default(),
            bytes_in: Family::default(),
            messages_out: Family::default(),
            bytes_out: Family::default(),
            dead_letters: Family::default(),
            refused: Family::default(),
            registered: Family::default(),
            begun_anew: Family::default(),
            replica: Arc::default(),
            put: AtomicU64::new(0),
            got: AtomicU64::new(0),
            put_rate: RateWindow::default(),
            got_rate: RateWindow::default(),
            broker: RwLock::new(Weak::new()),
        });
        admin.metrics(|registry| {
            let labels = common_labels(config).map(|(key, value)| (key.into(), value.into()));
            let registry = registry.sub_registry_with_labels(labels.into_iter());
            let m = &metrics;
            registry.register("rocketmq_messages_in", "Messages stored", m.messages_in.clone());
            registry.register("rocketmq_throughput_in", "Bytes stored", m.bytes_in.clone());
            registry.register(
                "rocketmq_messages_out",
                "Messages delivered",
                m.messages_out.clone(),
            );
            registry.register("rocketmq_throughput_out", "Bytes delivered", m.bytes_out.clone());
            registry.register(
                "rocketmq_send_to_dlq_messages",
                "Messages given up",
                m.dead_letters.clone(),
            );
            registry.register(
                "weirmq_requests_refused",
                "Requests answered with an error, by code",
                m.refused.clone(),
            );
            registry.register(
                "weirmq_registered",
                "1 while registered at this NameServer",
                m.registered.clone(),
            );
            registry.register(
                "weirmq_replica_begun_anew",
                "How often this replica opened its store anew to follow, and what became of its log",
                m.begun_anew.clone(),
            );
            registry.register_collector(Box::new(BrokerCollector::of(&metrics)));
        });
        metrics
    }

    /// A replica begins anew, and its log is `kept`, `cut` or `replaced`.
    pub(crate) fn count_begun_anew(&self, log: &'static str) {
        self.begun_anew.get_or_create(&BegunAnewLabels { log }).inc();
    }

    /// Has the gauges computed from this broker from now on.
    pub(crate) fn look_at(&self, broker: &Arc<Broker>) {
        *self.broker.write() = Arc::downgrade(broker);
    }

    pub(crate) fn count_in<'a>(
        &self,
        topics: &Topics,
        sends: impl Iterator<Item = (&'a Topic, &'a [Appended])>,
    ) {
        let mut run: Option<(&Topic, u64, u64)> = None;
        let mut total = 0;
        let mut now_ms = 0;
        for (topic, stored) in sends {
            let bytes: u64 = stored.iter().map(|message| u64::from(message.size)).sum();
            let messages = stored.len() as u64;
            total += messages;
            now_ms = stored.last().map_or(now_ms, |last| last.store_timestamp);
            run = match run {
                Some((known, m, b)) if known.name == topic.name => {
                    Some((known, m + messages, b + bytes))
                }
                Some(done) => {
                    self.count_run_in(topics, done);
                    Some((topic, messages, bytes))
                }
                None => Some((topic, messages, bytes)),
            };
        }
        if let Some(done) = run {
            self.count_run_in(topics, done);
        }
        self.put.fetch_add(total, Ordering::Relaxed);
        self.put_rate.add(now_ms, total);
    }

    fn count_run_in(&self, topics: &Topics, (topic, messages, bytes): (&Topic, u64, u64)) {
        let counters = topic.counters.0.get_or_init(|| {
            let labels = InLabels {
                topic: topic.name.clone(),
                message_type: "normal",
                is_system: topics.is_system(&topic.name),
            };
            let messages = self.messages_in.get_or_create(&labels).clone();
            (messages, self.bytes_in.get_or_create(&labels).clone())
        });
        counters.0.inc_by(messages);
        counters.1.inc_by(bytes);
    }

    pub(crate) fn count_out(
        &self,
        topics: &Topics,
        group: &str,
        topic: &Topic,
        messages: usize,
        bytes: usize,
        now_ms: i64,
    ) {
        let labels = OutLabels {
            topic: topic.name.clone(),
            consumer_group: group.to_owned(),
            is_retry: topic.name.starts_with(weirmq_remoting::resource_name::RETRY_PREFIX),
            is_system: topics.is_system(&topic.name),
        };
        self.messages_out.get_or_create(&labels).inc_by(messages as u64);
        self.bytes_out.get_or_create(&labels).inc_by(bytes as u64);
        self.got.fetch_add(messages as u64, Ordering::Relaxed);
        self.got_rate.add(now_ms, messages as u64);
    }

    pub(crate) fn dead_letter(&self, group: &str, record: &Record<'_>) {
        let labels = DeadLetterLabels {
            topic: record.topic.to_owned(),
            consumer_group: group.to_owned(),
            is_system: false,
        };
        self.dead_letters.get_or_create(&labels).inc();
    }

    pub(crate) fn refused(&self, request_code: i32, response_code: ResponseCode) {
        // Numbers that nobody knows share one label: a peer must not be able to make series.
        let known = weirmq_remoting::Code::<weirmq_remoting::RequestCode>::from(request_code);
        let request_code = match known {
            weirmq_remoting::Code::Known(code) => code.number(),
            weirmq_remoting::Code::Unknown(_) => -1,
        };
        let labels = RefusedLabels { request_code, response_code: response_code.number() };
        self.refused.get_or_create(&labels).inc();
    }

    pub(crate) fn registered(&self, name_server: &str, is_registered: bool) {
        let labels = NameServerLabels { name_server: name_server.to_owned() };
        self.registered.get_or_create(&labels).set(i64::from(is_registered));
    }

    pub(crate) fn forget_name_server(&self, name_server: &str) {
        self.registered.remove(&NameServerLabels { name_server: name_server.to_owned() });
    }

    /// Messages stored and delivered since the start.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.put.load(Ordering::Relaxed), self.got.load(Ordering::Relaxed))
    }

    pub(crate) fn rates(&self, now_ms: i64) -> Rates {
        Rates { put: self.put_rate.per_second(now_ms), got: self.got_rate.per_second(now_ms) }
    }
}
