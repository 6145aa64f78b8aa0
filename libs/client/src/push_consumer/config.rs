//! Settings of a push consumer.

use std::path::PathBuf;
use std::time::Duration;

use weirmq_remoting::ResourceName;

use crate::{ClientError, Filter};

/// Who of a group gets a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsumeModel {
    /// One member. What a member fails to consume comes again, to any member.
    #[default]
    Clustering,
    /// Every member. What a member fails to consume is lost to it.
    Broadcasting,
}

/// Where a group begins that has committed nothing of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsumeFrom {
    /// Behind the newest message.
    #[default]
    Last,
    /// With the oldest message.
    First,
    /// With the first message stored at this time, milliseconds since 1970, or later.
    Timestamp(i64),
}

/// What the listener made of the messages it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumeStatus {
    /// They are done.
    Success,
    /// All of them shall come again after a while that the broker chooses, up to the group's
    /// limit; in ordered mode after a pause on this consumer, nothing overtaking them.
    ReconsumeLater,
    /// All of them shall come again after this delay level, from 1 (1 s) to 18 (2 h). In ordered
    /// mode as [`ConsumeStatus::ReconsumeLater`].
    ReconsumeAtLevel(u32),
    /// They are given up: to the group's dead-letter topic.
    DeadLetter,
}

/// How a push consumer takes part in its group. All members need the same subscriptions.
#[derive(Debug, Clone)]
pub struct PushConsumerConfig {
    /// The consumer group. Default: none, it has to be set.
    pub group: String,
    /// Topics and which of their messages. More can be subscribed to later.
    pub subscriptions: Vec<(String, Filter)>,
    pub model: ConsumeModel,
    /// Messages of one queue one after the other, under a lock that the broker keeps for this
    /// member; else concurrently. Default: false.
    pub is_ordered: bool,
    pub consume_from: ConsumeFrom,
    /// How many calls of the listener may run at a time. Default: 20.
    pub concurrency: usize,
    /// How many messages one call of the listener gets at most. Default: 1.
    pub consume_batch_max: usize,
    /// How long one call may take before it counts as failed. Default: 15 min.
    pub consume_timeout: Duration,
    /// How often a message comes again before it goes to the dead letters. Default: `None`, what
    /// the group is set to on the broker, 16 unless changed; in ordered mode without end.
    pub reconsume_times_max: Option<u32>,
    /// How long an ordered queue waits before a message comes again. Default: 1 s.
    pub ordered_pause: Duration,
    /// Messages asked for with one pull. Default: 32.
    pub pull_batch_max: u32,
    /// Bytes asked for with one pull. Default: 256 KiB.
    pub pull_bytes_max: u32,
    /// How long a broker holds a pull while there is no message. Default: 15 s.
    pub pull_wait: Duration,
    /// The pause after a pull that failed. Default: 3 s.
    pub pull_error_pause: Duration,
    /// Pulling from a queue stops while so many of its messages wait. Default: 1000.
    pub queue_messages_max: usize,
    /// Pulling from a queue stops while so many bytes of its messages wait. Default: 100 MiB.
    pub queue_bytes_max: usize,
    /// Pulling from a queue stops while its oldest and newest unfinished message lie so many
    /// offsets apart, which is what a crash would repeat. Default: 2000.
    pub queue_span_max: u64,
    /// How often queues are shared out without being told to. Default: 20 s.
    pub rebalance_interval: Duration,
    /// How often offsets are committed. Default: 5 s.
    pub commit_interval: Duration,
    /// How long shutdown waits for calls of the listener that run. Default: 10 s.
    pub shutdown_timeout: Duration,
    /// Where a broadcasting member keeps its offsets. Default: `None`, nowhere: each start begins
    /// at `consume_from`.
    pub broadcast_offsets: Option<PathBuf>,
}

impl Default for PushConsumerConfig {
    fn default() -> Self {
        Self {
            group: String::new(),
            subscriptions: Vec::new(),
            model: ConsumeModel::Clustering,
            is_ordered: false,
            consume_from: ConsumeFrom::Last,
            concurrency: 20,
            consume_batch_max: 1,
            consume_timeout: Duration::from_secs(15 * 60),
            reconsume_times_max: None,
            ordered_pause: Duration::from_secs(1),
            pull_batch_max: 32,
            pull_bytes_max: 256 * 1024,
            pull_wait: Duration::from_secs(15),
            pull_error_pause: Duration::from_secs(3),
            queue_messages_max: 1000,
            queue_bytes_max: 100 * 1024 * 1024,
            queue_span_max: 2000,
            rebalance_interval: Duration::from_secs(20),
            commit_interval: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(10),
            broadcast_offsets: None,
        }
    }
}

impl PushConsumerConfig {
    pub(crate) fn validate(&self) -> Result<(), ClientError> {
        ResourceName::group(&self.group).map_err(|error| ClientError::Config(error.to_string()))?;
        let least_one = [
            ("concurrency", self.concurrency),
            ("consume_batch_max", self.consume_batch_max),
            ("pull_batch_max", self.pull_batch_max as usize),
            ("queue_messages_max", self.queue_messages_max),
            ("queue_bytes_max", self.queue_bytes_max),
        ];
        if let Some((name, _)) = least_one.iter().find(|(_, value)| *value == 0) {
            return Err(ClientError::Config(format!("{name} is 0, the least is 1")));
        }
        for (name, interval) in [
            ("rebalance_interval", self.rebalance_interval),
            ("commit_interval", self.commit_interval),
            ("pull_error_pause", self.pull_error_pause),
            ("consume_timeout", self.consume_timeout),
        ] {
            if interval < Duration::from_millis(10) {
                return Err(ClientError::Config(format!(
                    "{name} is {interval:?}, the least is 10 ms"
                )));
            }
        }
        if self.is_ordered && self.model == ConsumeModel::Broadcasting {
            let problem = "ordered consumption needs clustering: a queue's lock has one owner";
            return Err(ClientError::Config(problem.to_owned()));
        }
        Ok(())
    }
}
