//! Gauges that are computed when somebody asks.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Metrics;
use crate::Broker;
use crate::replication::Shared;
use crate::topics::STATE_TOPIC;

/// The most lag series of one scrape.
const LAG_SERIES_MAX: usize = 10_000;

pub(crate) struct BrokerCollector(Weak<Metrics>);

impl fmt::Debug for BrokerCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BrokerCollector")
    }
}

impl BrokerCollector {
    pub(crate) fn of(metrics: &Arc<Metrics>) -> Self {
        Self(Arc::downgrade(metrics))
    }
}

impl Collector for BrokerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = self.0.upgrade();
        let Some(broker) = metrics.and_then(|metrics| metrics.broker.read().upgrade()) else {
            return Ok(());
        };
        let marks = broker.store.watermarks();
        let (producers, consumers) = broker.clients.counts();
        let stats = broker.store.stats();
        let configuration = broker.configuration.counts();
        let log = marks.written() - broker.store.min_offset();
        let gauges = [
            (
                "rocketmq_broker_permission",
                "Bits 4 read, 2 write",
                u64::from(broker.config().permission),
            ),
            ("rocketmq_topic_number", "Topics", broker.state.topics.len() as u64),
            ("rocketmq_consumer_group_number", "Consumer groups", broker.state.groups.len() as u64),
            ("rocketmq_producer_connections", "Producers connected", producers as u64),
            ("rocketmq_consumer_connections", "Consumers connected", consumers as u64),
            ("rocketmq_storage_size", "Bytes in the commit log", log),
            (
                "rocketmq_storage_flush_behind_bytes",
                "Bytes written and not flushed",
                marks.written().saturating_sub(marks.flushed()),
            ),
            (
                "rocketmq_storage_dispatch_behind_bytes",
                "Always 0: queues are written with the log",
                0,
            ),
            ("weirmq_held_pulls", "Pulls that wait for a message", broker.long_polls.len() as u64),
            (
                "weirmq_unacknowledged_sends",
                "Sends that wait for the disk",
                broker.acknowledgements.requests() as u64,
            ),
            (
                "weirmq_entries_not_visible",
                "Entries of queues that nobody sees before they may be acknowledged",
                broker.acknowledgements.not_visible() as u64,
            ),
            (
                "weirmq_log_damaged_bytes",
                "Bytes of the commit log that are known to be damaged",
                stats.damaged_bytes,
            ),
            (
                "weirmq_log_repaired_bytes",
                "Bytes of the commit log that were damaged and came back from another replica",
                stats.repaired_bytes,
            ),
            (
                "weirmq_log_scrubbed_bytes",
                "Bytes that the scrub compared with their checksums since the start",
                stats.scrubbed_bytes,
            ),
            ("weirmq_disk_free_bytes", "Free bytes of the store's disk", stats.disk_free),
            (
                "weirmq_slave_offsets",
                "Offsets that were committed here as a slave and are not in the log for good",
                broker.state.offsets.at_slave(|at_slave| at_slave.len() as u64),
            ),
            (
                "weirmq_configuration_file_applied",
                "0 while the configuration file says what cannot be used",
                u64::from(configuration.is_applied),
            ),
            (
                "weirmq_configuration_restart_settings",
                "Settings that changed and count at the next start",
                configuration.needing_restart as u64,
            ),
            (
                "weirmq_configuration_request_settings",
                "Settings that differ from the configuration file because somebody asked for it",
                configuration.by_request as u64,
            ),
        ];
        let of_replica = broker.replication.as_ref().map(|replication| replication.gauges());
        for (name, help, value) in gauges.into_iter().chain(of_replica.into_iter().flatten()) {
            let gauge = ConstGauge::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        if let Some(replication) = &broker.replication {
            let (end, now) = (marks.written(), broker.store.clock().uptime());
            encode_replica_lag(replication, end, now, &mut encoder)?;
            encode_refusals(replication, &mut encoder)?;
            encode_failovers(replication, &mut encoder)?;
        }
        encode_lag(&broker, &mut encoder)
    }
}

fn encode_replica_lag(
    replication: &Shared,
    end: u64,
    now: Duration,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let status = replication.status();
    let help = "Bytes of this replica's log that another one does not have yet";
    let gauge = ConstGauge::new(0u64);
    let name = "weirmq_replica_lag_bytes";
    let mut descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    for peer in &status.peers {
        let labels = [("replica", peer.replica.to_string())];
        let lag = end.saturating_sub(peer.end);
        ConstGauge::new(lag).encode(descriptor.encode_family(&labels)?)?;
    }
    let help = "For how long another replica has not had all that was here by then; none before it \
                ever had";
    let name = "weirmq_replica_lag_milliseconds";
    let mut descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    for peer in &status.peers {
        let measured = replication.peers.get(peer.replica);
        let Some(lag) = measured.and_then(|measured| measured.lag(peer.end, end, now)) else {
            continue;
        };
        let labels = [("replica", peer.replica.to_string())];
        let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        ConstGauge::new(lag).encode(descriptor.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_refusals(
    replication: &Shared,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let help = "What replicas, and others at their port, were refused since the start";
    let gauge = ConstGauge::new(0u64);
    let name = "weirmq_refused_replicas";
    let mut descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    for (reason, count) in replication.counted.refusals.counts() {
        ConstGauge::new(count).encode(descriptor.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

fn encode_failovers(
    replication: &Shared,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let failovers = replication.failovers();
    let [numbers, times] = [
        failovers.map(|of| of.number),
        failovers.map(|of| u64::try_from(of.without_master.as_millis()).unwrap_or(u64::MAX)),
    ];
    let number = "How often this replica became master in another's place, since the start";
    let time = "For how long there was no master when this replica became it, all in all";
    for (name, help, values) in
        [("weirmq_failovers", number, numbers), ("weirmq_failover_milliseconds", time, times)]
    {
        let counter = ConstCounter::new(0u64);
        let mut descriptor = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
        for (is_planned, value) in ["false", "true"].into_iter().zip(values) {
            let labels = [("planned", is_planned)];
            ConstCounter::new(value).encode(descriptor.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn encode_lag(broker: &Broker, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let mut lags = std::collections::BTreeMap::new();
    for o in broker.state.offsets.current() {
        if o.topic == STATE_TOPIC || lags.len() >= LAG_SERIES_MAX {
            continue;
        }
        let max = broker.store.queue_range(&o.topic, o.queue).map_or(0, |range| range.max as i64);
        *lags.entry((o.topic, o.group)).or_insert(0) += (max - o.offset).max(0);
    }
    let help = "Messages that the group has not committed";
    let gauge = ConstGauge::new(0i64);
    let name = "rocketmq_consumer_lag_messages";
    let mut descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    for ((topic, group), lag) in lags {
        let is_retry = topic.starts_with(weirmq_remoting::resource_name::RETRY_PREFIX);
        let labels = [
            ("topic", topic),
            ("consumer_group", group),
            ("is_retry", is_retry.to_string()),
            ("is_system", "false".to_owned()),
        ];
        ConstGauge::new(lag).encode(descriptor.encode_family(&labels)?)?;
    }
    Ok(())
}
