//! Calibration: what the disk under a directory does.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::host::Host;
use super::options::{Format, Output};
use super::tally::{Latencies, LatencySummary};

const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;
/// What is written ahead, so that fdatasync has no extents to commit.
const AHEAD_BYTES: usize = 64 << 20;

#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct DiskArgs {
    /// Directory on the disk to measure; two files are made there and removed
    #[arg(long, default_value = ".")]
    #[serde(skip)]
    dir: PathBuf,
    /// Seconds of appending 4 KiB with fdatasync
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// MiB to write through the page cache
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    buffered_mib: u32,
    #[command(flatten)]
    #[serde(skip)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct DiskReport {
    workload: &'static str,
    version: &'static str,
    config: serde_json::Value,
    host: Host,
    /// 4 KiB appends into space that was written before.
    fdatasync_per_second: f64,
    fdatasync: LatencySummary,
    /// 1 MiB writes into a new file, in 10⁶ bytes; not synced.
    buffered_megabytes_per_second: f64,
    /// The same with the final sync.
    synced_megabytes_per_second: f64,
}

pub(super) fn run(args: &DiskArgs) -> anyhow::Result<()> {
    let (fdatasync_per_second, fdatasync) = fdatasync(&args.dir, args.seconds)?;
    let (buffered, synced) = buffered(&args.dir, args.buffered_mib)?;
    let report = DiskReport {
        workload: "disk",
        version: env!("CARGO_PKG_VERSION"),
        config: serde_json::to_value(args)?,
        host: Host::read(),
        fdatasync_per_second,
        fdatasync,
        buffered_megabytes_per_second: buffered,
        synced_megabytes_per_second: synced,
    };
    match args.output.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Table => {
            println!(
                "fdatasync     {:.0}/s of 4 KiB  {}",
                report.fdatasync_per_second, report.fdatasync
            );
            println!("buffered      {buffered:.0} MB/s, {synced:.0} MB/s with the final sync");
        }
    }
    Ok(())
}

fn fdatasync(directory: &Path, seconds: f64) -> anyhow::Result<(f64, LatencySummary)> {
    let scratch = Scratch::new(directory, "fdatasync")?;
    let zeros = vec![0; CHUNK];
    for at in (0..AHEAD_BYTES).step_by(CHUNK) {
        scratch.file.write_all_at(&zeros, at as u64).context("write ahead")?;
    }
    scratch.file.sync_all()?;
    let page = vec![0x5A; PAGE];
    let mut latencies = Latencies::new()?;
    let start = Instant::now();
    let until = start + Duration::from_secs_f64(seconds);
    let mut before = start;
    let mut at = 0;
    while before < until {
        scratch.file.write_all_at(&page, at as u64).context("append")?;
        scratch.file.sync_data().context("fdatasync")?;
        let now = Instant::now();
        latencies.record(now - before);
        before = now;
        at = (at + PAGE) % AHEAD_BYTES;
    }
    let rate = latencies.samples() as f64 / (before - start).as_secs_f64();
    Ok((rate, latencies.summary()))
}

fn buffered(directory: &Path, mib: u32) -> anyhow::Result<(f64, f64)> {
    let scratch = Scratch::new(directory, "buffered")?;
    let chunk = vec![0x5A; CHUNK];
    let megabytes = f64::from(mib) * CHUNK as f64 / 1e6;
    let start = Instant::now();
    for at in 0..u64::from(mib) {
        scratch.file.write_all_at(&chunk, at * CHUNK as u64).context("write")?;
    }
    let written = start.elapsed();
    scratch.file.sync_data().context("fdatasync")?;
    Ok((megabytes / written.as_secs_f64(), megabytes / start.elapsed().as_secs_f64()))
}

/// A file that goes away with the value.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn new(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let path = directory.join(format!("weir-bench-{name}-{}", std::process::id()));
        let file = File::create_new(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { file, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The file is of no use to anybody; if it cannot go, nothing is lost but space.
        let _ = fs::remove_file(&self.path);
    }
}
