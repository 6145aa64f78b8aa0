//! What a run found, as a table for people or JSON for programs.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

use super::host::{Host, Usage};
use super::options::Format;
use super::produce::LoadArgs;
use super::tally::{Errors, LatencySummary};
use super::topics::Created;

/// One run. Fields that a workload has no value for are left out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    version: &'static str,
    config: serde_json::Value,
    host: Host,
    /// Messages of the measured window.
    messages: u64,
    seconds: f64,
    pub(super) messages_per_second: f64,
    /// Of bodies, in 10⁶ bytes.
    megabytes_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests_per_second: Option<f64>,
    /// From request to acknowledgement, or to the pull's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<LatencySummary>,
    /// From the intended time of sending to the consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_to_end: Option<LatencySummary>,
    /// How late the generator itself was; part of both latencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lateness: Option<LatencySummary>,
    errors: Errors,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verified: Option<Verified>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<Created>,
    /// How long after the last acknowledgement the queues had everything, to 5 s; 0: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dispatch_behind_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_cpu_us_per_message: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_written_bytes_per_message: Option<f64>,
    generator_cpu_us_per_message: f64,
    usage: Usage,
}

/// Whether the broker's own count agrees with ours, warm-up and draining included.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Verified {
    pub(super) acknowledged: u64,
    /// What the queues' offsets grew by; for a consumer, what it received.
    pub(super) stored: u64,
    pub(super) agrees: bool,
}

impl Report {
    pub(super) fn new(
        workload: &'static str,
        config: &impl Serialize,
        errors: &Errors,
        usage: Usage,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            workload,
            version: env!("CARGO_PKG_VERSION"),
            config: serde_json::to_value(config)?,
            host: Host::read(),
            messages: 0,
            seconds: 0.0,
            messages_per_second: 0.0,
            megabytes_per_second: 0.0,
            requests_per_second: None,
            latency: None,
            end_to_end: None,
            lateness: None,
            errors: errors.clone(),
            verified: None,
            created: None,
            dispatch_behind_seconds: None,
            broker_cpu_us_per_message: None,
            broker_written_bytes_per_message: None,
            generator_cpu_us_per_message: 0.0,
            usage,
        })
    }

    /// Sets the count of the window and everything that follows from it.
    pub(super) fn messages(&mut self, messages: u64, load: &LoadArgs, window: Duration) {
        let each = |amount: f64| if messages == 0 { 0.0 } else { amount / messages as f64 };
        self.messages = messages;
        self.seconds = window.as_secs_f64();
        self.messages_per_second = messages as f64 / self.seconds;
        self.megabytes_per_second = self.messages_per_second * f64::from(load.body) / 1e6;
        self.requests_per_second = Some(self.messages_per_second / f64::from(load.batch));
        let broker = self.usage.broker.as_ref();
        self.broker_cpu_us_per_message =
            broker.map(|broker| each(broker.cpu_seconds.as_secs_f64() * 1e6));
        self.broker_written_bytes_per_message =
            broker.and_then(|broker| broker.written_bytes).map(|bytes| each(bytes as f64));
        self.generator_cpu_us_per_message =
            each(self.usage.generator.cpu_seconds.as_secs_f64() * 1e6);
    }

    /// Prints the report.
    ///
    /// # Errors
    /// When the run was not clean; the report is out by then.
    pub(super) fn finish(&self, format: Format) -> anyhow::Result<()> {
        match format {
            Format::Json => println!("{}", serde_json::to_string_pretty(self)?),
            Format::Table => self.print_table(),
        }
        if self.errors.total > 0 {
            let first = self.errors.first.as_deref().unwrap_or_default();
            bail!("{} requests failed, the first with {first}", self.errors.total);
        }
        if let Some(verified) = self.verified.as_ref().filter(|verified| !verified.agrees) {
            bail!(
                "{} messages were acknowledged, {} are there",
                verified.acknowledged,
                verified.stored
            );
        }
        if self.messages == 0 {
            bail!("no message was measured");
        }
        Ok(())
    }

    fn print_table(&self) {
        let row = |label: &str, value: String| println!("{label:<12}  {value}");
        row(
            "messages/s",
            format!("{:.0}  ({:.1} MB/s)", self.messages_per_second, self.megabytes_per_second),
        );
        for (label, latency) in [
            ("latency", &self.latency),
            ("end to end", &self.end_to_end),
            ("late by", &self.lateness),
        ] {
            if let Some(latency) = latency {
                row(label, latency.to_string());
            }
        }
        if let (Some(broker), Some(cpu)) = (&self.usage.broker, self.broker_cpu_us_per_message) {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let written = self.broker_written_bytes_per_message;
            let written = written
                .map_or(String::new(), |bytes| format!(", {bytes:.0} bytes written/message"));
            row(
                "broker",
                format!(
                    "{cpu:.1} µs CPU/message, {:.0} % CPU, {:.0} MiB{written}",
                    broker.cpu_percent,
                    mib(broker.rss_bytes)
                ),
            );
        }
        if let Some(Created { topics, seconds, per_second }) = self.created {
            row("created", format!("{topics} topics in {seconds:.1} s, {per_second:.0}/s"));
        }
        let generator = &self.usage.generator;
        row(
            "generator",
            format!(
                "{:.2} µs CPU/message, {:.0} % CPU",
                self.generator_cpu_us_per_message, generator.cpu_percent
            ),
        );
        let machine = &self.usage.machine;
        row(
            "machine",
            format!(
                "{:.0} % used by others, {:.0} % stolen",
                machine.foreign_percent, machine.stolen_percent
            ),
        );
        if let Some(Verified { acknowledged, stored, agrees }) = self.verified {
            let word = if agrees { "as acknowledged" } else { "BUT NOT as acknowledged" };
            row("verified", format!("{stored} there, {word} ({acknowledged})"));
        }
        row("errors", self.errors.total.to_string());
    }
}

impl std::fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |micros: f64| {
            if micros < 1_000.0 {
                format!("{micros:.0} µs")
            } else {
                format!("{:.2} ms", micros / 1e3)
            }
        };
        write!(
            f,
            "p50 {}  p99 {}  p99.9 {}  max {}",
            time(self.p50_us),
            time(self.p99_us),
            time(self.p99_9_us),
            time(self.max_us)
        )
    }
}
