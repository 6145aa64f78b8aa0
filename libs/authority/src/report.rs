//! What replicas tell each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Member, Settings};

/// How far a log goes. Offsets are bytes from the start of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogPosition {
    /// The epoch of the last record; 0 in a log without epochs.
    pub epoch: u64,
    /// The end of what is in the page cache.
    pub end: u64,
    /// The end of what is on the disk; at most `end`.
    pub flushed: u64,
    /// Whether the log has neither its beginning nor an image of the state that it presupposes.
    /// Versions that do not know this neither say nor read it.
    #[serde(default, skip_serializing_if = "is_not_so")]
    pub lacks_state: bool,
}

impl LogPosition {
    /// What an acknowledgement may count on.
    pub(crate) fn counted(&self, settings: &Settings) -> u64 {
        if settings.sync_flush { self.flushed } else { self.end }
    }

    /// Orders logs by how much an election would lose with them: by epoch, then by length.
    pub(crate) fn rank(&self, settings: &Settings) -> (u64, u64) {
        (self.epoch, self.counted(settings))
    }
}

/// One replica's state as it tells it to all others, at every change of its log that matters and
/// each `tick_every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub from: Member,
    /// The highest epoch that it obeys.
    pub promised: u64,
    /// The version of the newest record that it obeys.
    pub promised_version: u64,
    /// Whether it refuses the record that it read last ([`crate::Replica::complaint`]).
    pub refuses: bool,
    /// Whether this start is about to be over: its process ends ([`crate::Replica::leave`]), or it led
    /// and begins anew. Versions that do not know this neither say nor read it.
    #[serde(default, skip_serializing_if = "is_not_so")]
    pub leaves: bool,
    /// Whether it is the master and hands its office over ([`crate::Replica::hand_over`]). Versions that do not
    /// know this neither say nor read it.
    #[serde(default, skip_serializing_if = "is_not_so")]
    pub hands_over: bool,
    pub position: LogPosition,
    /// The epoch in which it leads.
    pub leads: Option<u64>,
    /// The epoch whose master it hears and follows, after its log was cut to what it shares with
    /// that master's. Only then `position` counts for an acknowledgement.
    pub follows: Option<u64>,
    /// The version of the in-sync set that counts on an earlier start of this replica whose bytes
    /// it may have lost.
    pub lost: Option<u64>,
    /// What is confirmed, as far as a master knows; 0 from others.
    pub confirmed: u64,
    /// The sender's clock.
    pub sent: Duration,
    /// `sent` of the last report that the master it follows sent, by the master's clock.
    pub echo: Option<Duration>,
}

impl Report {
    /// Whether it neither leads nor follows.
    pub(crate) fn is_free(&self) -> bool {
        self.follows.is_none() && self.leads.is_none()
    }
}

/// What is not said: then a report is what it was before there was the field.
fn is_not_so(said: &bool) -> bool {
    !said
}
