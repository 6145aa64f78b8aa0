//! What other replicas, and whoever else comes to their port, are refused: counted by reason, and logged
//! once for each of them until it is accepted, because those who are refused try on for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use parking_lot::Mutex;

/// Who was refused for which reason is remembered so often; then everybody is logged anew.
const SAID_MAX: usize = 256;

/// So many characters of a reason are said: two groups and two clusters with names as long as may be, and what
/// stands around them.
const WHY_CHARS_MAX: usize = 640;

/// A reason as it may be said in a log, and where somebody asks whether this replica is ready: in one line.
pub(super) fn in_short(why: &dyn fmt::Display) -> String {
    let mut said = String::new();
    for letter in why.to_string().chars() {
        match letter.is_control() {
            true => said.extend(letter.escape_default()),
            false => said.push(letter),
        }
    }
    said.chars().take(WHY_CHARS_MAX).collect()
}

#[derive(Default)]
pub(crate) struct Refusals(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    counts: BTreeMap<Reason, u64>,
    /// Whom, and why.
    said: BTreeSet<(String, Reason)>,
}

/// Why; the names are the metric's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It did not say who it is, in time or at all.
    Silent,
    /// What it sends is nothing that a replica says at that place.
    NoReplica,
    /// Its TLS, or that it has none.
    Tls,
    /// Versions of the protocol that have none in common.
    Protocol,
    /// Another cluster or broker group.
    OtherGroup,
    /// It has this replica's own broker id.
    OwnId,
    /// Another process has its broker id and is connected.
    TwoProcesses,
    /// Log segments of another length.
    SegmentLength,
    /// It did not prove that it knows the group's secret.
    Secret,
    /// It refuses this replica.
    ByPeer,
    /// It wants to follow in an epoch in which this replica does not lead.
    Epoch,
    /// It asks for what the log does not have yet.
    FutureFetch,
    /// It reports that it has what it was not sent.
    FutureReport,
}

impl Refusals {
    /// `who` is an address, or the number of a replica that has shown who it is. Some of `why` may be its
    /// own words.
    pub(super) fn refused(&self, who: &dyn fmt::Display, reason: Reason, why: &dyn fmt::Display) {
        if let Some(why) = self.count(who, reason, why) {
            let (who, reason) = (who.to_string(), reason.name());
            tracing::warn!(who, reason, why, "refused; said once until it is accepted");
        }
    }

    /// Counts it; returns what is to be said, if anything is.
    fn count(
        &self,
        who: &dyn fmt::Display,
        reason: Reason,
        why: &dyn fmt::Display,
    ) -> Option<String> {
        let mut counted = self.0.lock();
        *counted.counts.entry(reason).or_default() += 1;
        if counted.said.len() >= SAID_MAX {
            counted.said.clear();
        }
        let is_new = counted.said.insert((who.to_string(), reason));
        is_new.then(|| in_short(why))
    }

    /// Should it be refused again, that is news; but not where it was caught in saying what cannot be, which
    /// it may do each time after it was accepted.
    pub(super) fn accepted(&self, who: &dyn fmt::Display) {
        let who = who.to_string();
        let is_kept = |reason| matches!(reason, Reason::FutureFetch | Reason::FutureReport);
        self.0.lock().said.retain(|(known, reason)| *known != who || is_kept(*reason));
    }

    /// How often for each reason that there was.
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().counts.iter().map(|(reason, count)| (reason.name(), *count)).collect()
    }
}

impl Reason {
    /// Whether it is in the configuration of the two that they do not come together.
    pub(super) fn is_configured(self) -> bool {
        match self {
            Self::Tls
            | Self::Protocol
            | Self::OtherGroup
            | Self::OwnId
            | Self::TwoProcesses
            | Self::SegmentLength
            | Self::Secret => true,
            Self::Silent
            | Self::NoReplica
            | Self::ByPeer
            | Self::Epoch
            | Self::FutureFetch
            | Self::FutureReport => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Silent => "Silent",
            Self::NoReplica => "NoReplica",
            Self::Tls => "Tls",
            Self::Protocol => "Protocol",
            Self::OtherGroup => "OtherGroup",
            Self::OwnId => "OwnId",
            Self::TwoProcesses => "TwoProcesses",
            Self::SegmentLength => "SegmentLength",
            Self::Secret => "Secret",
            Self::ByPeer => "ByPeer",
            Self::Epoch => "Epoch",
            Self::FutureFetch => "FutureFetch",
            Self::FutureReport => "FutureReport",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_said_once_and_in_one_short_line() {
        let refusals = Refusals::default();
        let why = format!("no variant `x\nERROR the disk failed{}`", "y".repeat(8 << 10));
        let said = refusals.count(&"replica 2", Reason::NoReplica, &why).unwrap();
        assert!(said.starts_with("no variant `x\\nERROR the disk failedy"), "{said}");
        assert!(said.len() <= WHY_CHARS_MAX && !said.contains(char::is_control), "{said}");
        assert_eq!(refusals.count(&"replica 2", Reason::NoReplica, &why), None);
    }

    #[test]
    fn each_refusal_counts_and_what_is_remembered_of_them_is_bounded() {
        let refusals = Refusals::default();
        for who in 0..2_000 {
            refusals.refused(&who, Reason::Secret, &"no");
            refusals.refused(&who, Reason::Secret, &"no");
        }
        refusals.refused(&"replica", Reason::Epoch, &"no");
        refusals.refused(&"replica", Reason::FutureReport, &"no");
        let expected = [("Secret", 4_000), ("Epoch", 1), ("FutureReport", 1)];
        assert_eq!(refusals.counts(), expected);
        assert!(refusals.0.lock().said.len() <= SAID_MAX);
        let is_said = |reason| refusals.0.lock().said.contains(&("replica".to_owned(), reason));
        assert!(is_said(Reason::Epoch));
        refusals.accepted(&"replica");
        assert!(!is_said(Reason::Epoch) && is_said(Reason::FutureReport));
    }
}
