//! Names what Apache's broker has in a directory that this broker keeps and does not serve.
//!
//! Nothing of it is lost: it stays in the log, which Apache's broker can open again. But somebody
//! who moves over should know what will not come.

use std::path::Path;

use weirmq_message::properties::{self, names};
use weirmq_message::record::records;
use weirmq_remoting::body::{Body as _, TopicConfigSerializeWrapper};
use weirmq_store::{ApacheUse, ReadLimits, StoreError};

use super::config_files::ConfigFile;
use super::log::State;

/// Prepared messages of transactions. Source: `TopicValidator`.
const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
/// The group whose offset in [`HALF_TOPIC`] says which transactions are over.
const TRANSACTIONS: &str = "CID_RMQ_SYS_TRANS";
/// Messages that wait for any point in time. Source: `TimerMessageStore.TIMER_TOPIC`.
const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// What the name of the topic of pop check points begins with. Source: `PopAckConstants`.
const REVIVE_PREFIX: &str = "rmq_sys_REVIVE_LOG_";
/// The group whose offsets say which check points are over.
const REVIVE: &str = "CID_RMQ_SYS_REVIVE_GROUP";
/// Queues of the check points' topic. Apache's `reviveQueueNum`.
const REVIVE_QUEUES: i32 = 8;
/// How much of the timer topic one read takes.
const TIMER_READ: ReadLimits = ReadLimits { messages: 1024, bytes: 8 << 20 };

impl State {
    /// One line each, empty when everything is served.
    pub(crate) fn unserved(
        &self,
        data_dir: &Path,
        cluster: &str,
        left: &ApacheUse,
    ) -> Result<Vec<String>, StoreError> {
        let config = data_dir.join("config");
        let mut lines = Vec::new();
        let half = self.behind(HALF_TOPIC, 0, TRANSACTIONS);
        if half > 0 {
            lines.push(format!(
                "up to {half} transactional messages in {HALF_TOPIC} wait for commit or rollback; \
                 transactions are not ended here"
            ));
        }
        let timer = self.waiting_timers(&config)?;
        if timer > 0 {
            lines.push(format!(
                "{timer} timer messages in {TIMER_TOPIC} wait for their time; they are not \
                 delivered here"
            ));
        }
        let revive = format!("{REVIVE_PREFIX}{cluster}");
        let popped: u64 = (0..REVIVE_QUEUES).map(|queue| self.behind(&revive, queue, REVIVE)).sum();
        if popped > 0 {
            lines.push(format!(
                "{popped} records of messages that were popped stand in {revive}; what was not \
                 acknowledged comes again, to consumers that pull"
            ));
        }
        if left.light_queues > 0 {
            lines.push(format!(
                "{} light message queues (LMQ); their messages are served in their own topics only",
                left.light_queues
            ));
        }
        let mut unserved: Vec<String> = left
            .batch_topics
            .iter()
            .map(|name| format!("{name} (queue.type is BatchCQ)"))
            .collect();
        for topic in self.topics.logged() {
            if let Some(reason) = topic.unserved()
                && !left.batch_topics.contains(&topic.name)
            {
                unserved.push(format!("{} ({reason})", topic.name));
            }
        }
        if !unserved.is_empty() {
            lines
                .push(format!("topics that are neither read nor written: {}", unserved.join(", ")));
        }
        lines.extend(mapped_topics(&config));
        lines.extend(forbidden(&config));
        Ok(lines)
    }

    /// Messages of a queue beyond a group's offset.
    fn behind(&self, topic: &str, queue: i32, group: &str) -> u64 {
        let Some(range) = self.store().queue_range(topic, queue) else { return 0 };
        let done =
            self.offsets.get(group, topic, queue).and_then(|offset| u64::try_from(offset).ok());
        range.max.saturating_sub(done.unwrap_or(range.min).max(range.min))
    }

    /// Timer messages whose time had not come when Apache looked last.
    fn waiting_timers(&self, config: &Path) -> Result<u64, StoreError> {
        // `timercheck` begins with that time (TimerCheckpoint). Without it all of them wait.
        let checked = std::fs::read(config.join("timercheck")).unwrap_or_default();
        let looked_ms = checked.first_chunk().map_or(0, |time| i64::from_be_bytes(*time));
        let Some(range) = self.store().queue_range(TIMER_TOPIC, 0) else { return Ok(0) };
        let (mut next, mut waiting, mut stored) = (range.min, 0, Vec::new());
        while next < range.max {
            stored.clear();
            let all = &mut |_: &_| true;
            let read =
                self.store().read_queue(TIMER_TOPIC, 0, next, TIMER_READ, all, &mut stored)?;
            if read.next <= next {
                break;
            }
            next = read.next;
            waiting += records(&stored)
                .flatten()
                .filter(|record| {
                    let due = properties::get(record.properties, names::TIMER_OUT_MS);
                    due.and_then(|due| due.parse().ok()).is_none_or(|due: i64| due > looked_ms)
                })
                .count() as u64;
        }
        Ok(waiting)
    }
}

/// Static topics: their logical offsets are mapped onto queues of several brokers.
fn mapped_topics(config: &Path) -> Option<String> {
    let contents = std::fs::read(config.join("topicQueueMapping.json")).ok()?;
    let mapping = TopicConfigSerializeWrapper::decode(&contents).ok()?;
    let names: Vec<_> = mapping.topic_queue_mapping_info_map.into_keys().collect();
    (!names.is_empty()).then(|| {
        format!("static topics, whose mapped offsets are not known here: {}", names.join(", "))
    })
}

fn forbidden(config: &Path) -> Option<String> {
    let contents = ConfigFile::Groups.read(config).ok()??;
    let groups: Vec<_> =
        ConfigFile::Groups.decode(&contents.bytes).ok()?.forbidden.into_keys().collect();
    (!groups.is_empty()).then(|| {
        format!(
            "groups that may not read some topics, which is not enforced: {}",
            groups.join(", ")
        )
    })
}
