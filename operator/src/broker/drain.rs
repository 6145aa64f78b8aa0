//! A group that leaves: it takes no messages any more, delivers what it has, and is taken away once
//! nothing is left that somebody waits for. Its disks stay.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use weirmq_client::{Admin, ClientError};
use weirmq_remoting::body::{ConsumeStats, OffsetWrapper, TopicOffset, TopicStatsTable};

use super::Round;
use super::observe::GroupView;
use crate::annotations::DROP_UNDRAINED;
use crate::context::Error;
use crate::kinds::Broker;

const DEAD_LETTERS: &str = "%DLQ%";
const RETRIES: &str = "%RETRY%";
/// Transactions that are neither committed nor rolled back.
const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause between two looks at all that a broker has, while nothing of it changes.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// What is named of what is left.
const NAMED_MAX: usize = 8;

/// Why it is not known what is left.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the broker says {0} of itself")]
    Unreadable(String),
}

/// What one look found of a group that leaves. The last of these is what somebody has to know first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Draining {
    /// Two looks with the same end of the log saw the same messages.
    NothingSeen {
        log_end: String,
    },
    /// Why what is left may still become more.
    TakesMessages(&'static str),
    /// Nobody can be asked, and why.
    NotKnown(String),
    MessagesLeft(String),
}

impl Draining {
    /// The reason of the condition.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NothingSeen { .. } => "LookingAgain",
            Self::TakesMessages(_) => "StillTakesMessages",
            Self::NotKnown(_) => "NotKnownWhatIsLeft",
            Self::MessagesLeft(_) => "MessagesLeft",
        }
    }

    /// Whether it may stay so unless somebody does something.
    pub(super) fn is_for_somebody(&self) -> bool {
        match self {
            Self::NothingSeen { .. } | Self::TakesMessages(_) => false,
            Self::NotKnown(_) | Self::MessagesLeft(_) => true,
        }
    }
}

impl std::fmt::Display for Draining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NothingSeen { .. } => f.write_str("nothing is left as far as can be seen"),
            Self::TakesMessages(why) => f.write_str(why),
            Self::NotKnown(why) => write!(f, "it is not known what is left: {why}"),
            Self::MessagesLeft(what) => f.write_str(what),
        }
    }
}

impl Round<'_> {
    /// Which of the leaving groups may go now: at most the last one. The others are said to be draining.
    pub(super) async fn drained(&mut self, views: &[GroupView]) -> Vec<String> {
        let dropped = self.resource.annotations().get(DROP_UNDRAINED).cloned();
        let mut drained = Vec::new();
        let mut is_last = true;
        for view in views.iter().rev().filter(|view| view.is_draining) {
            if is_last && dropped.as_ref() == Some(&view.name) && may_be_dropped(view) {
                let note = format!("{} leaves with what is left on it; its disks stay", view.name);
                self.event(EventType::Warning, "DroppedUndrained", note).await;
                drained.push(view.name.clone());
                break;
            }
            let look = format!("drain {}/{}", self.namespace(), view.name);
            let key = (self.resource.uid().unwrap_or_default(), view.name.clone());
            let before = self.context.draining.lock().get(&key).cloned();
            let found = match before.clone().filter(|_| !self.context.patience.is_due(&look)) {
                Some(known) => known,
                None => {
                    let found = self.left(view).await.unwrap_or_else(Draining::NotKnown);
                    self.context.draining.lock().insert(key, found.clone());
                    if !matches!(found, Draining::NothingSeen { .. }) {
                        self.context.patience.in_vain(&look, &found.to_string(), LOOK_AGAIN);
                    } else if is_last && before.as_ref() == Some(&found) {
                        // What moves from one topic to another during a look may be in neither when it is looked
                        // at: the look before found nothing as well, and nothing was stored in between.
                        let note = format!("nothing is left on {}; its disks stay", view.name);
                        self.event(EventType::Normal, "Drained", note).await;
                        drained.push(view.name.clone());
                        break;
                    }
                    found
                }
            };
            self.findings.draining.insert(view.name.clone(), found);
            is_last = false;
        }
        drained
    }

    /// The annotation was for the group that is gone, not for the next one of its name.
    pub(super) async fn forget_drop(&self) -> Result<(), Error> {
        if !self.resource.annotations().contains_key(DROP_UNDRAINED) {
            return Ok(());
        }
        let (name, namespace) =
            (self.resource.name_any(), self.resource.namespace().unwrap_or_default());
        let api: Api<Broker> = Api::namespaced(self.context.client.clone(), &namespace);
        let patch = json!({ "metadata": { "annotations": { DROP_UNDRAINED: null } } });
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.map_err(Error::kubernetes(format!("take {DROP_UNDRAINED} off Broker {name}")))?;
        Ok(())
    }

    async fn left(&self, view: &GroupView) -> Result<Draining, String> {
        if let Some(known) = known_unasked(view) {
            return Ok(known);
        }
        let address = view.master_address().ok_or("it has no master that serves")?;
        let admin = self.context.admin(&self.client_name_servers());
        let admin = admin.map_err(|error| error.to_string())?;
        match tokio::time::timeout(TIMEOUT, left(&admin, &address)).await {
            Ok(left) => left.map_err(|error| error.to_string()),
            Err(_) => Err("its master does not answer".to_owned()),
        }
    }
}

/// What is known of a group without a question, where it may still take messages.
fn known_unasked(view: &GroupView) -> Option<Draining> {
    if is_read_only(view) {
        return None;
    }
    Some(match may_be_dropped(view) {
        true => Draining::NotKnown("none of its pods is ready".to_owned()),
        false => Draining::TakesMessages("its brokers are being told to take no more messages"),
    })
}

/// Whether all pods run with the configuration of a group that leaves, as far as the watches know.
fn is_read_only(view: &GroupView) -> bool {
    let is_as_declared = view.is_current && view.not_configured().is_none();
    is_as_declared && view.pods.iter().all(|pod| pod.is_up_to_date && pod.is_ready)
}

/// Whether a group that somebody wants to go with what is left on it takes no messages any more, or has no pod
/// that could: it may never become ready again, and nothing would help then. In either case the StatefulSet
/// controller has seen the newest set first: by that its disks stay, also with `whenDeleted: Delete`.
fn may_be_dropped(view: &GroupView) -> bool {
    is_read_only(view) || view.is_current && view.pods.iter().all(|pod| !pod.is_ready)
}

async fn left(admin: &Admin, address: &str) -> Result<Draining, Unknown> {
    let mut left = BTreeMap::new();
    // Somebody may have asked it to take messages all the same.
    let config = admin.broker_config(address).await?;
    if !config.lines().any(|line| line.trim() == "brokerPermission=4") {
        return Ok(Draining::TakesMessages("its master still takes messages"));
    }
    let info = admin.runtime_info(address).await?;
    let log_end = info.get("commitLogMaxOffset").cloned();
    let log_end = log_end.ok_or_else(|| Unknown::Unreadable("no end of its log".to_owned()))?;
    let delayed = delayed(&info)?;
    if delayed > 0 {
        left.insert("delayed messages".to_owned(), delayed);
    }
    let topics = admin.topic_configs(address).await?;
    for topic in topics.keys() {
        if topic.starts_with(DEAD_LETTERS) || topic == HALF_TOPIC {
            let stats = admin.topic_stats_on(address, topic).await?;
            let messages = stats.offset_table.values().map(stored).sum::<i64>();
            left.insert(format!("topic {topic}"), messages);
        }
    }
    for group in admin.groups(address).await?.into_keys() {
        let stats = admin.consume_stats_on(address, &group, None).await?;
        let behind = stats.offset_table.values().map(behind).sum::<i64>();
        let retry_topic = format!("{RETRIES}{group}");
        let retries = match topics.contains_key(&retry_topic) {
            true => uncommitted(&admin.topic_stats_on(address, &retry_topic).await?, &stats),
            false => 0,
        };
        left.insert(format!("consumer group {group}"), behind + retries);
    }
    left.retain(|_, messages| *messages > 0);
    Ok(match left.is_empty() {
        true => Draining::NothingSeen { log_end },
        false => Draining::MessagesLeft(sentence(&left)),
    })
}

fn stored(queue: &TopicOffset) -> i64 {
    (queue.max_offset - queue.min_offset).max(0)
}

fn behind(queue: &OffsetWrapper) -> i64 {
    (queue.broker_offset - queue.consumer_offset).max(0)
}

/// Messages that a group is to have again and of which it has committed nothing yet: it is behind by all
/// of them.
fn uncommitted(retries: &TopicStatsTable, stats: &ConsumeStats) -> i64 {
    let queues = retries.offset_table.iter();
    let uncommitted = queues.filter(|(queue, _)| !stats.offset_table.contains_key(queue));
    uncommitted.map(|(_, offsets)| stored(offsets)).sum()
}

/// Messages whose time has not come, from what a broker says of each level: `delivered,stored`
/// (`ScheduleMessageService.buildRunningStats`).
fn delayed(info: &BTreeMap<String, String>) -> Result<i64, Unknown> {
    let levels = info.iter().filter(|(key, _)| key.starts_with("scheduleMessageOffset_"));
    let mut waiting = 0;
    for (key, value) in levels {
        let numbers = value.split_once(',').and_then(|(delivered, stored)| {
            Some((delivered.parse::<i64>().ok()?, stored.parse::<i64>().ok()?))
        });
        let Some((delivered, stored)) = numbers else {
            return Err(Unknown::Unreadable(format!("{key}={value}")));
        };
        waiting += (stored - delivered).max(0);
    }
    Ok(waiting)
}

/// Counts are rounded up to powers of two, so that the status is not another one with each message.
fn sentence(left: &BTreeMap<String, i64>) -> String {
    let rounded = |count: &i64| u64::try_from(*count).unwrap_or_default().next_power_of_two();
    let named = left
        .iter()
        .take(NAMED_MAX)
        .map(|(what, count)| format!("{what}: up to {}", rounded(count)));
    let mut named: Vec<String> = named.collect();
    if left.len() > NAMED_MAX {
        named.push(format!("and {} more", left.len() - NAMED_MAX));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::three_replicas;
    use super::*;

    #[test]
    fn a_group_of_which_no_pod_gets_ready_may_be_dropped() {
        let mut view = three_replicas();
        assert!(may_be_dropped(&view));
        assert_eq!(known_unasked(&view), None);
        view.pods[0].is_up_to_date = false;
        assert!(!may_be_dropped(&view), "it still takes messages");
        assert!(matches!(known_unasked(&view), Some(Draining::TakesMessages(_))));
        view.pods[0].is_ready = false;
        assert!(!may_be_dropped(&view));
        view.pods.iter_mut().for_each(|pod| pod.is_ready = false);
        assert!(may_be_dropped(&view));
        assert!(matches!(known_unasked(&view), Some(Draining::NotKnown(_))));
        view.is_current = false;
        assert!(!may_be_dropped(&view), "its disks may be about to go with its set");
        view.pods.clear();
        assert!(!may_be_dropped(&view));
        view.is_current = true;
        assert!(may_be_dropped(&view));
    }

    #[test]
    fn what_is_left_is_named_and_counted() {
        assert_eq!(sentence(&BTreeMap::new()), "");
        let many = (1..11).map(|at| (format!("consumer group {at:02}"), at)).collect();
        let text = sentence(&many);
        assert!(text.starts_with("consumer group 01: up to 1, "), "{text}");
        assert!(text.contains("consumer group 05: up to 8, "), "{text}");
        assert!(text.ends_with("and 2 more"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let info = |value: &str| {
            BTreeMap::from([("scheduleMessageOffset_3".to_owned(), value.to_owned())])
        };
        assert_eq!(delayed(&info("4,9")).unwrap(), 5);
        assert_eq!(delayed(&BTreeMap::new()).unwrap(), 0);
        for bad in ["", "4", "4,x", "-"] {
            delayed(&info(bad)).unwrap_err();
        }
    }
}
