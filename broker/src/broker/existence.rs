//! Topics and consumer groups that come into being, and topics that go.

use std::sync::Arc;

use weirmq_remoting::body::SubscriptionGroupConfig;
use weirmq_remoting::{ResourceName, ResponseCode};
use weirmq_store::StoreError;

use super::Broker;
use crate::request::{Refusal, pull};
use crate::state::{StateError, StateRecord};
use crate::topics::Topic;

impl Broker {
    /// The settings of a consumer group, which comes into being now if it may.
    pub(crate) fn group_or_create(
        &self,
        name: &str,
    ) -> Result<Arc<SubscriptionGroupConfig>, Refusal> {
        if let Some(group) = self.state.groups.get(name) {
            return Ok(group);
        }
        let missing = || {
            let remark = format!(
                "subscription group [{name}] does not exist; create it with `weir group create \
                 {name}`, or switch auto_create_groups on"
            );
            Refusal::new(ResponseCode::SubscriptionGroupNotExist, remark)
        };
        ResourceName::group(name)?;
        if !self.config().auto_create_groups && !crate::groups::is_system(name) {
            return Err(missing());
        }
        self.check_group_count(name)?;
        let group = SubscriptionGroupConfig {
            group_name: name.to_owned(),
            ..SubscriptionGroupConfig::default()
        };
        let made = self.state.change(|| {
            let is_absent = self.state.groups.get(name).is_none();
            is_absent.then(|| StateRecord::Group { group: Box::new(group.clone()) })
        });
        match made {
            // A full disk, or one that does not keep up, serves readers, new ones too, and so does
            // a slave; the group is noted when there is room.
            Err(StateError::Store(
                StoreError::Full { .. } | StoreError::Busy { .. } | StoreError::NotMaster,
            )) => {
                return Ok(Arc::new(group));
            }
            made => made?,
        };
        self.state.groups.get(name).ok_or_else(missing)
    }

    /// Creates the topic unless somebody else just has, and says what it is now.
    pub(crate) fn create_topic_if_absent(&self, topic: Topic) -> Result<Arc<Topic>, Refusal> {
        let name = topic.name.clone();
        if let Some(known) = self.state.topics.get(&name) {
            return Ok(known);
        }
        self.check_topic_count(&name)?;
        let created = self.state.change(|| {
            self.state.topics.get(&name).is_none().then_some(StateRecord::Topic { topic })
        });
        let created = created.map_err(|error| self.state_refusal(error))?;
        if created.is_made {
            tracing::info!(topic = name, "topic created automatically");
            self.topic_changed(&name);
        }
        self.state.topics.get(&name).ok_or_else(|| {
            Refusal::new(ResponseCode::TopicNotExist, format!("topic[{name}] was deleted"))
        })
    }

    /// The topic that a group's messages go to when they are to be consumed again.
    pub(crate) fn create_retry_topic(
        &self,
        group: &ResourceName,
        config: &SubscriptionGroupConfig,
    ) -> Result<(), Refusal> {
        if let Ok(queues @ 1..) = u32::try_from(config.retry_queue_nums) {
            self.create_topic_if_absent(Topic::new(group.retry_topic().as_str(), queues))?;
        }
        Ok(())
    }

    /// The topic of a group's messages that were given up; readable, so that they can be looked at.
    pub(crate) fn create_dead_letter_topic(
        &self,
        group: &ResourceName,
    ) -> Result<Arc<Topic>, Refusal> {
        self.create_topic_if_absent(Topic::new(group.dead_letter_topic().as_str(), 1))
    }

    /// Deletes a topic with its offsets. Its messages stay in the log until retention takes them;
    /// until then only their ids lead to them.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let deleted = self.state.delete_topic(name)?;
        if deleted.is_made {
            self.topic_changed(name);
        }
        for held in self.long_polls.take_of_topic(name) {
            pull::expire(self, held);
        }
        Ok(deleted.position)
    }

    pub(crate) fn check_topic_count(&self, name: &str) -> Result<(), Refusal> {
        let limit = self.config().limits.topics_max;
        if self.state.topics.len() >= limit && self.state.topics.get(name).is_none() {
            let remark = format!("the broker has {limit} topics, which is limits.topics_max");
            return Err(Refusal::new(ResponseCode::SystemError, remark));
        }
        Ok(())
    }

    pub(crate) fn check_group_count(&self, name: &str) -> Result<(), Refusal> {
        let limit = self.config().limits.groups_max;
        if self.state.groups.len() >= limit && self.state.groups.get(name).is_none() {
            let remark = format!("the broker has {limit} groups, which is limits.groups_max");
            return Err(Refusal::new(ResponseCode::SystemError, remark));
        }
        Ok(())
    }
}
