//! Options that several workloads share.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use weirmq_remoting::SerializeType;

use super::control::{Control, broker_of};

/// Which broker and which topic.
#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct Target {
    /// Broker to measure, host:port
    #[arg(long, default_value = "127.0.0.1:10911", conflicts_with = "namesrv")]
    pub(super) broker: String,
    /// Ask this NameServer for the topic's broker instead, host:port
    #[arg(long)]
    pub(super) namesrv: Option<String>,
    #[arg(long, default_value = "weir-bench")]
    pub(super) topic: String,
    /// Queues to use, from queue 0 on
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) queues: u32,
    /// Create the topic with that many queues first
    #[arg(long)]
    pub(super) create: bool,
    /// Write headers in the binary form (ROCKETMQ) instead of JSON
    #[arg(long)]
    pub(super) binary: bool,
    /// Report CPU, memory and written bytes of this process: the broker's
    #[arg(long, value_name = "PID")]
    pub(super) broker_pid: Option<u32>,
    /// Report the bytes that the block device under this directory wrote
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    pub(super) store_dir: Option<PathBuf>,
}

impl Target {
    pub(super) fn serialize_type(&self) -> SerializeType {
        if self.binary { SerializeType::Binary } else { SerializeType::Json }
    }

    pub(super) fn address(&self) -> anyhow::Result<String> {
        match &self.namesrv {
            Some(namesrv) => broker_of(namesrv, &self.topic),
            None => Ok(self.broker.clone()),
        }
    }

    /// The broker's address and a connection to it, with the topic there if `--create` was given.
    pub(super) fn open(&self) -> anyhow::Result<(String, Control)> {
        let broker = self.address()?;
        let mut control = Control::connect(&broker)?;
        if self.create {
            control.create_topic(&self.topic, self.queues).context("create topic")?;
        }
        Ok((broker, control))
    }
}

/// How long.
#[derive(Debug, Clone, Args, Serialize)]
pub(super) struct Span {
    /// Seconds to measure
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub(super) seconds: f64,
    /// Seconds at load before measuring
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(super) warmup: f64,
}

impl Span {
    pub(super) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(super) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }
}

/// How the report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

/// Where the report goes: standard output, in this form.
#[derive(Debug, Clone, Args)]
pub(super) struct Output {
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds between 0 and 86400".to_owned()),
    }
}
