//! The topics of this broker: a state table that every send and pull looks into.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use weirmq_remoting::ResourceName;

use crate::metrics::InCounters;

/// Bit of a topic's permission: consumers may read.
pub(crate) const PERM_READ: u32 = 4;
/// Bit of a topic's permission: producers may write.
pub(crate) const PERM_WRITE: u32 = 2;
/// Bit of a topic's permission: other topics may be created after it.
pub(crate) const PERM_INHERIT: u32 = 1;

/// The topic after which others are created automatically.
pub(crate) const TEMPLATE_TOPIC: &str = "TBW102";
/// The topic in which delayed messages wait, one queue per level.
pub(crate) const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// The topic in which this broker keeps its own state. No client can name it: the dot is illegal.
pub(crate) const STATE_TOPIC: &str = "weirmq.state";

/// One topic's settings. Source: `TopicConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Topic {
    pub name: String,
    pub read_queues: u32,
    pub write_queues: u32,
    /// Bits [`PERM_READ`], [`PERM_WRITE`], [`PERM_INHERIT`].
    pub perm: u32,
    pub is_multi_tag: bool,
    pub sys_flag: u32,
    pub is_ordered: bool,
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    #[serde(skip)]
    pub(crate) counters: InCounters,
}

impl Topic {
    /// A topic with as many queues to read as to write, for reading and writing.
    pub(crate) fn new(name: impl Into<String>, queues: u32) -> Self {
        Self {
            name: name.into(),
            read_queues: queues,
            write_queues: queues,
            perm: PERM_READ | PERM_WRITE,
            is_multi_tag: false,
            sys_flag: 0,
            is_ordered: false,
            attributes: BTreeMap::new(),
            counters: InCounters::default(),
        }
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.perm & PERM_READ != 0 && self.unserved().is_none()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.perm & PERM_WRITE != 0 && self.unserved().is_none()
    }

    /// Why the topic's messages can be neither read nor written, if so: Apache keeps the queues of
    /// such topics in other forms, in which an offset means something else.
    pub(crate) fn unserved(&self) -> Option<&'static str> {
        let is = |name, value: &str| {
            self.attributes.get(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
        };
        if is("queue.type", "BatchCQ") {
            return Some("queue.type is BatchCQ");
        }
        is("cleanup.policy", "COMPACTION").then_some("cleanup.policy is COMPACTION")
    }

    /// Whether `queue_id` is one that consumers may read.
    pub(crate) fn has_read_queue(&self, queue_id: i32) -> bool {
        u32::try_from(queue_id).is_ok_and(|id| id < self.read_queues)
    }

    /// The number of queues that may hold messages.
    pub(crate) fn queues(&self) -> u32 {
        self.read_queues.max(self.write_queues)
    }
}

/// All topics. The lock is held for one look-up or one change; writers are serialised by the state
/// log.
#[derive(Default)]
pub(crate) struct Topics {
    by_name: RwLock<HashMap<String, Arc<Topic>, RandomState>>,
    system: Vec<String>,
}

impl Topics {
    /// The topics that every broker has from the start. They are not in the log.
    pub(crate) fn with_system_topics(
        cluster: &str,
        broker: &str,
        template_queues: Option<u32>,
    ) -> Self {
        let system = vec![
            Topic::new("SELF_TEST_TOPIC", 1),
            Topic::new("BenchmarkTest", 1024),
            Topic { perm: 7, ..Topic::new(cluster, 16) },
            Topic { perm: 7, ..Topic::new(broker, 1) },
            Topic::new("OFFSET_MOVED_EVENT", 1),
            Topic::new(SCHEDULE_TOPIC, crate::delay::LEVELS as u32),
            Topic::new(format!("{cluster}_REPLY_TOPIC"), 1),
        ];
        let names = system.iter().map(|topic| topic.name.clone());
        let names = names.chain([TEMPLATE_TOPIC.to_owned()]).collect();
        let by_name =
            system.into_iter().map(|topic| (topic.name.clone(), Arc::new(topic))).collect();
        let topics = Self { by_name: RwLock::new(by_name), system: names };
        topics.set_template(template_queues);
        topics
    }

    /// Has topics created automatically with at most so many queues, or none. Says whether that is news.
    pub(crate) fn set_template(&self, queues: Option<u32>) -> bool {
        let mut by_name = self.by_name.write();
        let known = by_name.get(TEMPLATE_TOPIC).map(|topic| topic.write_queues);
        if known == queues {
            return false;
        }
        by_name.remove(TEMPLATE_TOPIC);
        if let Some(queues) = queues {
            let topic = Topic { perm: 7, ..Topic::new(TEMPLATE_TOPIC, queues) };
            by_name.insert(TEMPLATE_TOPIC.to_owned(), Arc::new(topic));
        }
        true
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.by_name.read().get(name).cloned()
    }

    /// Every topic at this moment, system topics included.
    pub(crate) fn all(&self) -> HashMap<String, Arc<Topic>, RandomState> {
        self.by_name.read().clone()
    }

    /// The topics that the log knows, for images and exports.
    pub(crate) fn logged(&self) -> Vec<Arc<Topic>> {
        let all = self.all();
        let mut topics: Vec<_> =
            all.values().filter(|topic| !self.is_system(&topic.name)).cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.read().len()
    }

    pub(crate) fn is_system(&self, name: &str) -> bool {
        self.system.iter().any(|system| system == name) || is_reserved(name)
    }

    pub(crate) fn system_names(&self) -> &[String] {
        &self.system
    }

    pub(crate) fn put(&self, topic: Topic) {
        self.by_name.write().insert(topic.name.clone(), Arc::new(topic));
    }

    pub(crate) fn remove(&self, name: &str) {
        self.by_name.write().remove(name);
    }

    /// Forgets everything that came from the log.
    pub(crate) fn clear_logged(&self) {
        self.by_name.write().retain(|name, _| self.system.contains(name));
    }
}

/// Names that belong to RocketMQ's own machinery, whether or not the topic exists here.
/// Source: `TopicValidator`.
pub(crate) fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        TEMPLATE_TOPIC
            | SCHEDULE_TOPIC
            | "BenchmarkTest"
            | "RMQ_SYS_TRANS_HALF_TOPIC"
            | "RMQ_SYS_TRACE_TOPIC"
            | "RMQ_SYS_TRANS_OP_HALF_TOPIC"
            | "TRANS_CHECK_MAX_TIME_TOPIC"
            | "SELF_TEST_TOPIC"
            | "OFFSET_MOVED_EVENT"
            | "CHECKPOINT_TOPIC"
            | STATE_TOPIC
    ) || name.starts_with("rmq_sys_")
}

/// Topics into which clients may not send. Source: `TopicValidator.NOT_ALLOWED_SEND_TOPIC_SET`.
pub(crate) fn is_send_forbidden(name: &str) -> bool {
    matches!(
        name,
        SCHEDULE_TOPIC
            | "RMQ_SYS_TRANS_HALF_TOPIC"
            | "RMQ_SYS_TRANS_OP_HALF_TOPIC"
            | "TRANS_CHECK_MAX_TIME_TOPIC"
            | "SELF_TEST_TOPIC"
            | "OFFSET_MOVED_EVENT"
            | STATE_TOPIC
    )
}

/// The topic that an automatic creation makes, when the template allows it.
///
/// Source: `TopicConfigManager.createTopicInSendMessageMethod`.
pub(crate) fn automatic(name: &ResourceName, template: &Topic, asked_queues: i32) -> Option<Topic> {
    if template.perm & PERM_INHERIT == 0 {
        return None;
    }
    let queues = u32::try_from(asked_queues).unwrap_or(0).min(template.write_queues);
    let perm = template.perm & !PERM_INHERIT;
    Some(Topic { perm, sys_flag: template.sys_flag, ..Topic::new(name.as_str(), queues.max(1)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_automatic_topic_takes_the_smaller_queue_number_and_no_right_to_pass_on() {
        let template = Topic { perm: 7, ..Topic::new(TEMPLATE_TOPIC, 8) };
        let name = ResourceName::topic("orders").unwrap();
        let topic = automatic(&name, &template, 4).unwrap();
        assert_eq!((topic.read_queues, topic.write_queues, topic.perm), (4, 4, 6));
        assert_eq!(automatic(&name, &template, 100).unwrap().write_queues, 8);
        assert_eq!(automatic(&name, &template, -1).unwrap().write_queues, 1);
        assert_eq!(automatic(&name, &Topic::new("t", 8), 4), None);
    }

    #[test]
    fn clearing_keeps_the_system_topics() {
        let topics = Topics::with_system_topics("c", "b", Some(8));
        topics.put(Topic::new("old", 1));
        topics.clear_logged();
        topics.put(Topic::new("new", 2));
        assert!(topics.get("old").is_none() && topics.get(TEMPLATE_TOPIC).is_some());
        assert_eq!(topics.logged().len(), 1);
    }
}
