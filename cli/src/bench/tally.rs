//! Counting what came back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use weirmq_remoting::frame::Frame;
use weirmq_remoting::{Code, Command, ResponseCode};

use super::window::Window;

const LOWEST: u64 = 100;
const HIGHEST: u64 = 60_000_000_000;

/// Times from 0.1 µs to a minute, to three digits.
pub(super) struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { histogram: Histogram::new_with_bounds(LOWEST, HIGHEST, 3)? })
    }

    pub(super) fn record(&mut self, time: Duration) {
        self.histogram.saturating_record(time.as_nanos().min(u128::from(HIGHEST)) as u64);
    }

    pub(super) fn samples(&self) -> u64 {
        self.histogram.len()
    }

    pub(super) fn summary(&self) -> LatencySummary {
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let at = |quantile: f64| micros(self.histogram.value_at_quantile(quantile));
        LatencySummary {
            samples: self.histogram.len(),
            mean_us: self.histogram.mean() / 1_000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: micros(self.histogram.max()),
        }
    }
}

/// Microseconds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LatencySummary {
    pub(super) samples: u64,
    pub(super) mean_us: f64,
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p99_9_us: f64,
    pub(super) p99_99_us: f64,
    pub(super) max_us: f64,
}

/// Everything that was not a success, over the whole run and not only its window.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Errors {
    pub(super) total: u64,
    by_kind: BTreeMap<String, u64>,
    /// The first one, in the broker's words.
    pub(super) first: Option<String>,
}

impl Errors {
    pub(super) fn add(&mut self, kind: &str, count: u64, detail: impl FnOnce() -> String) {
        if count > 0 {
            self.total += count;
            *self.by_kind.entry(kind.to_owned()).or_default() += count;
            self.first.get_or_insert_with(|| format!("{kind}: {}", detail()));
        }
    }

    /// Counts an answer that is not a success.
    pub(super) fn add_answer(&mut self, code: i32, frame: &Frame<'_>) {
        let remark =
            || Command::decode(frame).map(|answer| answer.remark_text()).unwrap_or_default();
        self.add(&Code::<ResponseCode>::from(code).to_string(), 1, remark);
    }
}

/// What all connections of a producing run have in common.
pub(super) struct Tally {
    pub(super) window: Window,
    /// Of requests answered with success inside the window.
    pub(super) latencies: Latencies,
    /// Messages acknowledged inside the window.
    pub(super) measured: u64,
    /// Messages acknowledged at any time.
    pub(super) acknowledged: u64,
    pub(super) errors: Errors,
    /// Number of the next message, for its unique key.
    pub(super) next_key: u64,
    /// Requests that may still be sent; `None`: any number.
    pub(super) requests_left: Option<u64>,
}

impl Tally {
    pub(super) fn new(window: Window, requests: Option<u64>) -> anyhow::Result<Self> {
        Ok(Self {
            window,
            latencies: Latencies::new()?,
            measured: 0,
            acknowledged: 0,
            errors: Errors::default(),
            next_key: 0,
            requests_left: requests,
        })
    }

    /// Takes the right to send one request, if there is one left.
    pub(super) fn take_request(&mut self) -> bool {
        match &mut self.requests_left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    pub(super) fn acknowledge(&mut self, messages: u64, since: Instant, now: Instant) {
        self.acknowledged += messages;
        if self.window.is_measured(now) {
            self.measured += messages;
            self.latencies.record(now.saturating_duration_since(since));
        }
    }
}
