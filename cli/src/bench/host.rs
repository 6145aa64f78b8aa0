//! What the machine and the measured process did meanwhile, from `/proc`.
//!
//! `/proc` counts CPU in ticks of 10 ms, on every architecture; windows shorter than a second say
//! little.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::window::Watch;

const TICK: Duration = Duration::from_millis(10);
const SECTOR_BYTES: u64 = 512;
/// Kernel threads carry this bit in their flags. Source: `include/linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// What the machine is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Host {
    cpu: String,
    cores: usize,
    memory_bytes: u64,
    kernel: String,
}

impl Host {
    pub(super) fn read() -> Self {
        let line = |path: &str, key: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let value = text.lines().find_map(|line| line.strip_prefix(key));
            value.map(|value| value.trim_matches([':', ' ', '\t']).to_owned()).unwrap_or_default()
        };
        Self {
            cpu: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes(&line("/proc/meminfo", "MemTotal")),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
        }
    }
}

/// Counters at one moment.
pub(super) struct Snapshot {
    at: Instant,
    own_cpu: Duration,
    machine: MachineCpu,
    kernel_threads_cpu: Duration,
    broker: Option<ProcessCounters>,
    device_written: Option<u64>,
}

/// Time of all cores since the machine started. Interrupts are left out: they are nobody's.
struct MachineCpu {
    processes: Duration,
    stolen: Duration,
}

struct ProcessCounters {
    cpu: Duration,
    written: Option<u64>,
    rss_bytes: u64,
    rss_max_bytes: u64,
}

impl Snapshot {
    pub(super) fn take(watch: Watch<'_>) -> anyhow::Result<Self> {
        let own = clock_gettime(ClockId::ProcessCPUTime);
        Ok(Self {
            at: Instant::now(),
            own_cpu: Duration::new(own.tv_sec as u64, own.tv_nsec as u32),
            machine: MachineCpu::read()?,
            kernel_threads_cpu: kernel_threads_cpu(),
            broker: watch.broker_pid.map(ProcessCounters::read).transpose()?,
            device_written: watch.store_dir.and_then(device_written),
        })
    }
}

impl MachineCpu {
    fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        // cpu user nice system idle iowait irq softirq steal
        let ticks: Vec<u32> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace()
            .skip(1)
            .map(|ticks| ticks.parse().unwrap_or(0))
            .collect();
        let at = |index: usize| TICK * ticks.get(index).copied().unwrap_or(0);
        Ok(Self { processes: at(0) + at(1) + at(2), stolen: at(7) })
    }
}

impl ProcessCounters {
    fn read(pid: u32) -> anyhow::Result<Self> {
        let stat = Stat::read(pid).with_context(|| format!("read /proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("read /proc/{pid}/status"))?;
        let field = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key));
            kibibytes(value.unwrap_or_default())
        };
        // Readable by the process's own user only.
        let io = fs::read_to_string(format!("/proc/{pid}/io")).ok();
        let written = io.and_then(|io| {
            io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok())
        });
        let (rss_bytes, rss_max_bytes) = (field("VmRSS:"), field("VmHWM:"));
        Ok(Self { cpu: stat.cpu, written, rss_bytes, rss_max_bytes })
    }
}

struct Stat {
    cpu: Duration,
    is_kernel_thread: bool,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; fields are counted from behind it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let ticks = number(11)? + number(12)?;
        Some(Self {
            cpu: TICK * u32::try_from(ticks).ok()?,
            is_kernel_thread: number(6)? & PF_KTHREAD != 0,
        })
    }
}

/// What kernel threads spent: write-back and the like, which the load itself causes.
fn kernel_threads_cpu() -> Duration {
    let Ok(entries) = fs::read_dir("/proc") else { return Duration::ZERO };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Stat::read).filter(|stat| stat.is_kernel_thread).map(|stat| stat.cpu).sum()
}

/// Bytes that the device under `directory` has written since the machine started.
fn device_written(directory: &Path) -> Option<u64> {
    let device = fs::metadata(directory).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = fs::read_to_string("/proc/diskstats").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_it = fields.first()?.parse() == Ok(major) && fields.get(1)?.parse() == Ok(minor);
        is_it.then(|| fields.get(9)?.parse::<u64>().ok().map(|sectors| sectors * SECTOR_BYTES))?
    })
}

fn kibibytes(text: &str) -> u64 {
    let number = text.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// What was used between two snapshots. CPU percentages are of one core, except `machine`'s, which
/// are of all cores together.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Usage {
    pub(super) broker: Option<BrokerUsage>,
    pub(super) generator: GeneratorUsage,
    pub(super) machine: MachineUsage,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct BrokerUsage {
    #[serde(serialize_with = "seconds")]
    pub(super) cpu_seconds: Duration,
    pub(super) cpu_percent: f64,
    pub(super) rss_bytes: u64,
    pub(super) rss_max_bytes: u64,
    /// What it made the block layer write, at once or by dirty pages.
    pub(super) written_bytes: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct GeneratorUsage {
    /// CPU of the thread that drives the connections.
    #[serde(serialize_with = "seconds")]
    pub(super) cpu_seconds: Duration,
    pub(super) cpu_percent: f64,
    /// CPU of the whole process; more than the thread's where `echo` runs its server too.
    #[serde(serialize_with = "seconds")]
    pub(super) process_cpu_seconds: Duration,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct MachineUsage {
    /// Processes that are neither the broker nor this one.
    pub(super) foreign_percent: f64,
    /// Time that the hypervisor gave to others.
    pub(super) stolen_percent: f64,
    pub(super) device_written_bytes: Option<u64>,
}

impl Usage {
    pub(super) fn between(before: &Snapshot, after: &Snapshot, generator_cpu: Duration) -> Self {
        let wall = (after.at - before.at).as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let broker = before.broker.as_ref().zip(after.broker.as_ref()).map(|(before, after)| {
            let cpu = after.cpu.saturating_sub(before.cpu);
            BrokerUsage {
                cpu_seconds: cpu,
                cpu_percent: 100.0 * cpu.as_secs_f64() / wall,
                rss_bytes: after.rss_bytes,
                rss_max_bytes: after.rss_max_bytes,
                written_bytes: after
                    .written
                    .zip(before.written)
                    .map(|(after, before)| after.saturating_sub(before)),
            }
        });
        let own = after.own_cpu.saturating_sub(before.own_cpu);
        let all = after.machine.processes.saturating_sub(before.machine.processes);
        let kernel = after.kernel_threads_cpu.saturating_sub(before.kernel_threads_cpu);
        let broker_cpu = broker.as_ref().map_or(Duration::ZERO, |broker| broker.cpu_seconds);
        let foreign = all.saturating_sub(own + kernel + broker_cpu);
        let stolen = after.machine.stolen.saturating_sub(before.machine.stolen);
        Self {
            broker,
            generator: GeneratorUsage {
                cpu_seconds: generator_cpu,
                cpu_percent: 100.0 * generator_cpu.as_secs_f64() / wall,
                process_cpu_seconds: own,
            },
            machine: MachineUsage {
                foreign_percent: 100.0 * foreign.as_secs_f64() / wall / cores,
                stolen_percent: 100.0 * stolen.as_secs_f64() / wall / cores,
                device_written_bytes: after
                    .device_written
                    .zip(before.device_written)
                    .map(|(after, before)| after.saturating_sub(before)),
            },
        }
    }
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
