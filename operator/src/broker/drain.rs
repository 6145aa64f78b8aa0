//! A group that leaves: it takes no messages any more, delivers what it has, and is taken away once
//! nothing is left that somebody waits for. Its disks stay.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::events::EventType;
use weirmq_client::{Admin, ClientError};

use super::Round;
use super::observe::GroupView;

/// Names a group that is to leave although something is left on it.
pub(super) const DROP_UNDRAINED: &str = "weirmq.io/drop-undrained";
/// Apache's topic of delayed messages.
const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
const DEAD_LETTERS: &str = "%DLQ%";
/// Transactions that are neither committed nor rolled back.
const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
const TIMEOUT: Duration = Duration::from_secs(30);
/// What is named of what is left.
const NAMED_MAX: usize = 8;

impl Round<'_> {
    /// Which of the leaving groups may go now. The others are said to be draining, and why.
    pub(super) async fn drained(&mut self, views: &[GroupView]) -> Vec<String> {
        let dropped = self.resource.annotations().get(DROP_UNDRAINED).cloned();
        let mut drained = Vec::new();
        for view in views.iter().filter(|view| view.is_draining) {
            if dropped.as_ref() == Some(&view.name) {
                let note = format!("{} leaves with what is left on it; its disks stay", view.name);
                self.event(EventType::Warning, "DroppedUndrained", note).await;
                drained.push(view.name.clone());
                continue;
            }
            match self.left(view).await {
                Ok(left) if left.is_empty() => {
                    let note = format!("nothing is left on {}; its disks stay", view.name);
                    self.event(EventType::Normal, "Drained", note).await;
                    drained.push(view.name.clone());
                }
                Ok(left) => {
                    self.findings.draining.insert(view.name.clone(), left);
                }
                Err(why) => {
                    let text = format!("it is not known what is left: {why}");
                    self.findings.draining.insert(view.name.clone(), text);
                }
            }
        }
        drained
    }

    /// What is left on a group, as a sentence; nothing: it may go.
    async fn left(&self, view: &GroupView) -> Result<String, String> {
        if view.pods.iter().any(|pod| !pod.is_up_to_date || !pod.is_ready) || !view.is_current {
            return Ok("its brokers are being told to take no more messages".to_owned());
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

async fn left(admin: &Admin, address: &str) -> Result<String, ClientError> {
    let mut left = BTreeMap::new();
    let topics = admin.topic_configs(address).await?;
    for topic in topics.keys() {
        let is_kept = topic.starts_with(DEAD_LETTERS) || topic == HALF_TOPIC;
        if is_kept {
            let stats = admin.topic_stats_on(address, topic).await?;
            let count =
                |queue: &weirmq_remoting::body::TopicOffset| queue.max_offset - queue.min_offset;
            let messages: i64 = stats.offset_table.values().map(count).sum();
            if messages > 0 {
                left.insert(format!("topic {topic}"), messages);
            }
        }
    }
    let delayed = delayed(&admin.runtime_info(address).await?);
    if delayed > 0 {
        left.insert(format!("delayed messages ({SCHEDULE_TOPIC})"), delayed);
    }
    for group in admin.groups(address).await?.into_keys() {
        let stats = admin.consume_stats_on(address, &group, None).await?;
        let behind = |offset: &weirmq_remoting::body::OffsetWrapper| {
            (offset.broker_offset - offset.consumer_offset).max(0)
        };
        let messages: i64 = stats.offset_table.values().map(behind).sum();
        if messages > 0 {
            left.insert(format!("consumer group {group}"), messages);
        }
    }
    Ok(sentence(&left))
}

/// Messages whose time has not come, from what a broker says of each level: `delivered,stored`
/// (`ScheduleMessageService.buildRunningStats`).
fn delayed(info: &BTreeMap<String, String>) -> i64 {
    let levels = info.iter().filter(|(key, _)| key.starts_with("scheduleMessageOffset_"));
    let waiting = levels.filter_map(|(_, value)| {
        let (delivered, stored) = value.split_once(',')?;
        Some((stored.parse::<i64>().ok()? - delivered.parse::<i64>().ok()?).max(0))
    });
    waiting.sum()
}

fn sentence(left: &BTreeMap<String, i64>) -> String {
    let named = left.iter().take(NAMED_MAX).map(|(what, count)| format!("{what}: {count}"));
    let mut named: Vec<String> = named.collect();
    if left.len() > NAMED_MAX {
        named.push(format!("and {} more", left.len() - NAMED_MAX));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_named_and_counted() {
        assert_eq!(sentence(&BTreeMap::new()), "");
        let many = (0..10).map(|at| (format!("consumer group {at}"), at)).collect();
        let text = sentence(&many);
        assert!(text.starts_with("consumer group 0: 0, "), "{text}");
        assert!(text.ends_with("and 2 more"), "{text}");
    }
}
