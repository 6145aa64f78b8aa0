//! Delayed messages: each waits in the queue of its level until its time has come.
//!
//! A message with the property `DELAY` is stored in `SCHEDULE_TOPIC_XXXX`, queue level − 1, with
//! its topic and queue in properties. Within a level messages are due in the order they were
//! stored, so only the first one of each level is looked at. Source: `ScheduleMessageService`.

mod deliver;
mod progress;

use std::time::Duration;

use weirmq_message::delay::LEVEL_SECONDS;
use weirmq_message::properties::{self, names};

pub(crate) use deliver::run;
pub(crate) use progress::DelayProgress;

/// How many levels there are.
pub(crate) const LEVELS: usize = LEVEL_SECONDS.len();

/// One of the levels 1 to 18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DelayLevel(usize);

impl DelayLevel {
    /// A level as a client names it: 0 and below mean no delay, beyond 18 means 18.
    pub(crate) fn from_wire(level: i32) -> Option<Self> {
        usize::try_from(level).ok().filter(|level| *level > 0).map(|level| Self(level.min(LEVELS)))
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (1..=LEVELS).map(Self)
    }

    pub(crate) fn number(self) -> usize {
        self.0
    }

    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(LEVEL_SECONDS[self.0 - 1])
    }

    /// The queue of the schedule topic.
    pub(crate) fn queue(self) -> i32 {
        self.0 as i32 - 1
    }
}

/// The properties of a message for `topic` and `queue` while it waits: they say where it goes.
pub(crate) fn park(topic: &str, queue: i32, encoded_properties: &[u8]) -> Vec<u8> {
    let with_topic = properties::with(encoded_properties, names::REAL_TOPIC, topic);
    properties::with(&with_topic, names::REAL_QUEUE_ID, &queue.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_clamped_and_zero_is_none() {
        assert_eq!(DelayLevel::from_wire(0), None);
        assert_eq!(DelayLevel::from_wire(-1), None);
        assert_eq!(DelayLevel::from_wire(3).unwrap().duration(), Duration::from_secs(10));
        assert_eq!(DelayLevel::from_wire(99).unwrap().number(), 18);
    }
}
