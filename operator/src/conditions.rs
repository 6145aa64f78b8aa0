//! Conditions of a status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;

use crate::annotations::is_paused;

/// The longest message; the API server takes 32 KiB.
const MESSAGE_BYTES_MAX: usize = 2_048;
/// The longest note of an event: the API server takes no longer one.
const NOTE_BYTES_MAX: usize = 1_024;

/// What a controller found, before it is known since when that is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) type_: &'static str,
    /// `None`: neither can be said.
    pub(crate) status: Option<bool>,
    /// One word in CamelCase, for programs.
    pub(crate) reason: &'static str,
    /// What is so and what to do, for people.
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(
        type_: &'static str,
        status: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, status: Some(status), reason, message: message.into() }
    }

    /// Of a resource that somebody wants left alone.
    pub(crate) fn paused() -> Self {
        let message = "the annotation weirmq.io/paused is set: nothing is changed";
        Self::new("Paused", true, "Annotated", message)
    }

    /// Of what is declared for such a resource: it is not under way, and nobody knows whether it is done.
    pub(crate) fn paused_progress() -> Self {
        let message = "the annotation weirmq.io/paused is set: what is declared is not applied";
        Self { status: None, ..Self::new("Progressing", false, "Paused", message) }
    }
}

/// The conditions of a status, from `found` and what stood there before: the time changes only with the
/// status, so that nothing is written where nothing changed. What is not found any more is left out.
pub(crate) fn merge(before: &[Condition], found: Vec<Finding>, generation: i64) -> Vec<Condition> {
    let now = Timestamp::now();
    found.into_iter().map(|finding| condition(before, finding, generation, now)).collect()
}

/// The generation that a status speaks of, and its conditions, from `found` and what stood there before. While the
/// resource is paused nothing that is declared is applied, and the generation stays.
pub(crate) fn observe<K: Resource>(
    resource: &K,
    before: Option<(i64, &[Condition])>,
    found: Vec<Finding>,
) -> (i64, Vec<Condition>) {
    let generation = resource.meta().generation.unwrap_or_default();
    let (observed, known) = before.unwrap_or_default();
    if !is_paused(resource) {
        return (generation, merge(known, found, generation));
    }
    let mut conditions = merge(known, found, observed);
    conditions.extend(merge(known, vec![Finding::paused()], generation));
    (observed, conditions)
}

/// The conditions that there were, and one more that is found.
pub(crate) fn beside(before: &[Condition], found: Finding, generation: i64) -> Vec<Condition> {
    let type_ = found.type_;
    let others = before.iter().filter(|known| known.type_ != type_).cloned();
    others.chain(merge(before, vec![found], generation)).collect()
}

/// Conditions of these types that are true now and were not before.
pub(crate) fn appeared<'a>(
    before: &'a [Condition],
    now: &'a [Condition],
    types: &'a [&str],
) -> impl Iterator<Item = &'a Condition> {
    let is_true = |condition: &Condition| condition.status == "True";
    now.iter().filter(move |condition| {
        let mut known = before.iter().filter(|known| known.type_ == condition.type_);
        types.contains(&&*condition.type_) && is_true(condition) && !known.any(is_true)
    })
}

/// Why it is not ready, if it was, or for one of these reasons for the first time: nobody who waits would see it
/// become ready.
pub(crate) fn why_not_ready<'a>(
    before: &[Condition],
    now: &'a [Condition],
    told: &[&str],
) -> Option<&'a Condition> {
    let known = before.iter().find(|known| known.type_ == "Ready");
    let ready = now.iter().find(|one| one.type_ == "Ready" && one.status == "False")?;
    let was_ready = known.is_some_and(|known| known.status == "True");
    let is_new = known.is_none_or(|known| known.reason != ready.reason);
    (was_ready || is_new && told.contains(&&*ready.reason)).then_some(ready)
}

fn condition(before: &[Condition], found: Finding, generation: i64, now: Timestamp) -> Condition {
    let status = match found.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let known = before.iter().find(|known| known.type_ == found.type_ && known.status == status);
    Condition {
        type_: found.type_.to_owned(),
        status: status.to_owned(),
        reason: found.reason.to_owned(),
        message: shortened(found.message, MESSAGE_BYTES_MAX),
        observed_generation: Some(generation),
        // The API server keeps whole seconds.
        last_transition_time: known.map_or_else(
            || Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            |known| known.last_transition_time.clone(),
        ),
    }
}

/// What an event can say of `text`.
pub(crate) fn note(text: String) -> String {
    shortened(text, NOTE_BYTES_MAX)
}

fn shortened(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max - '…'.len_utf8()).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_is_told_once() {
        let with = |status| merge(&[], vec![Finding::new("Lost", status, "Lost", "")], 1);
        let count =
            |before: &[Condition], now: &[Condition]| appeared(before, now, &["Lost"]).count();
        assert_eq!(count(&[], &with(true)), 1);
        assert_eq!(count(&with(false), &with(true)), 1);
        assert_eq!(count(&with(true), &with(true)), 0);
        assert_eq!(count(&with(true), &with(false)), 0);
        assert_eq!(appeared(&[], &with(true), &["Ready"]).count(), 0);
    }

    #[test]
    fn the_time_stays_until_the_status_changes() {
        let old = Time(Timestamp::from_second(1_000).unwrap());
        let mut before = merge(&[], vec![Finding::new("Ready", false, "Starting", "a")], 1);
        before[0].last_transition_time = old.clone();
        let same = merge(&before, vec![Finding::new("Ready", false, "Waiting", "b")], 2);
        assert_eq!(same[0].last_transition_time, old);
        assert_eq!((same[0].reason.as_str(), same[0].observed_generation), ("Waiting", Some(2)));
        let changed = merge(&before, vec![Finding::new("Ready", true, "Serving", "")], 2);
        assert_ne!(changed[0].last_transition_time, old);
        assert_eq!(merge(&before, vec![], 2), []);
        let long = vec![Finding::new("Ready", false, "Long", "ü".repeat(3_000))];
        let long = merge(&before, long, 2);
        assert!(long[0].message.len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn a_note_is_no_longer_than_the_api_server_takes() {
        assert_eq!(note("a".repeat(1_024)), "a".repeat(1_024));
        let long = note("ü".repeat(1_000));
        assert!(long.len() <= 1_024 && long.ends_with("ü…"), "{} bytes", long.len());
    }
}
