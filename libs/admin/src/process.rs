//! Metrics of the process itself, read from `/proc` at each scrape, under the names that every
//! Prometheus client library uses. Elsewhere than on Linux there are none.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Linux shows times to programs in this unit on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(crate) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            Some(value) => put(&mut encoder, name, help, &ConstGauge::new(value)),
            None => Ok(()),
        };
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |key: &str| number_after(&status, key).map(|number| number * 1024.0);
        gauge("process_resident_memory_bytes", "Resident memory", kibibytes("VmRSS:"))?;
        gauge("process_virtual_memory_bytes", "Virtual memory", kibibytes("VmSize:"))?;
        gauge("process_threads", "Threads", number_after(&status, "Threads:"))?;
        gauge("process_open_fds", "Open file descriptors", open_fds())?;
        gauge("process_max_fds", "Most file descriptors that may be open", max_fds())?;
        let times = Times::read();
        gauge(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970",
            times.as_ref().and_then(Times::started_at),
        )?;
        match times {
            Some(times) => put(
                &mut encoder,
                "process_cpu_seconds",
                "CPU time spent in user and system mode",
                &ConstCounter::new(times.cpu_seconds),
            ),
            None => Ok(()),
        }
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// The first number behind `key` at the start of a line.
fn number_after(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<f64> {
    // The listing itself holds one descriptor.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn max_fds() -> Option<f64> {
    number_after(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

struct Times {
    cpu_seconds: f64,
    /// Since the machine booted.
    started_after: f64,
}

impl Times {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which may hold blanks and brackets.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let mut seconds = |skipped: usize| {
            let ticks: f64 = fields.nth(skipped)?.parse().ok()?;
            Some(ticks / TICKS_PER_SECOND)
        };
        // utime, stime and starttime are fields 14, 15 and 22 of proc(5); `rest` begins at 3.
        let (user, system, started_after) = (seconds(11)?, seconds(0)?, seconds(6)?);
        Some(Self { cpu_seconds: user + system, started_after })
    }

    fn started_at(&self) -> Option<f64> {
        let booted_at = number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        Some(booted_at + self.started_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 999 0 0 0 150 50 0 0 20 0 4 0 1234 1000 200";
        let times = Times::parse(stat).unwrap();
        assert_eq!((times.cpu_seconds, times.started_after), (2.0, 12.34));
        assert!(Times::parse("7 (a) S 1 7").is_none());
    }
}
