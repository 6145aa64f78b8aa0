//! `Topic` at the brokers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use weirmq_client::{Admin, ClientError};
use weirmq_remoting::body::TopicConfig;
use weirmq_remoting::{Code, ResponseCode};

use crate::context::Context;
use crate::declared::{self, Declared};
use crate::kinds::{MessageType, Perm, Topic, TopicStatus, WhenDeleted};

/// Apache's `TopicAttributes.TOPIC_MESSAGE_TYPE_ATTRIBUTE`.
const MESSAGE_TYPE: &str = "message.type";

impl Declared for Topic {
    fn declared_name(&self) -> String {
        self.spec.topic_name.clone().unwrap_or_else(|| self.name_any())
    }

    fn broker_name(&self) -> &str {
        &self.spec.broker_ref.name
    }

    fn goes_with_it(&self) -> bool {
        self.spec.deletion_policy == WhenDeleted::Delete
    }

    /// The schema refuses the names that are the same everywhere. Apache's broker has the same three for itself
    /// (`TopicConfigManager.init`).
    fn reserved(&self, cluster: &str, groups: &BTreeSet<String>) -> Option<&'static str> {
        let name = self.declared_name();
        if name == cluster {
            return Some("the Broker's cluster");
        }
        if groups.contains(&name) {
            return Some("a group of the Broker");
        }
        (name.strip_suffix("_REPLY_TOPIC") == Some(cluster))
            .then_some("the reply topic of the Broker's cluster")
    }

    type Status = TopicStatus;

    fn status(&self) -> Option<&TopicStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &TopicStatus) -> &[Condition] {
        &status.conditions
    }

    fn with_conditions(status: TopicStatus, conditions: Vec<Condition>) -> TopicStatus {
        TopicStatus { conditions, ..status }
    }

    fn new_status(&self, conditions: Vec<Condition>, groups: Vec<String>) -> TopicStatus {
        let declared = self.spec.attributes.keys().map(String::as_str);
        let attributes: BTreeSet<&str> = match declared::is_ready(&conditions) {
            true => declared.collect(),
            false => declared.chain(dropped(self)).collect(),
        };
        TopicStatus {
            observed_generation: self.metadata.generation.unwrap_or_default(),
            conditions,
            topic_name: Some(self.declared_name()),
            groups,
            attributes: attributes.into_iter().map(str::to_owned).collect(),
        }
    }

    async fn declare(&self, _: &Context, admin: &Admin, master: &str) -> Result<(), ClientError> {
        let mut wanted = config(self);
        let mut without = Vec::new();
        match found_at(admin, master, &wanted.topic_name).await? {
            Some(found) => {
                without.extend(dropped(self).filter(|key| found.attributes.contains_key(*key)));
                if without.is_empty() && is_so(&found, &wanted) {
                    return Ok(());
                }
                // More queues than are declared may hold messages, and stay.
                wanted.read_queue_nums = wanted.read_queue_nums.max(found.read_queue_nums);
                wanted.write_queue_nums = wanted.write_queue_nums.max(found.write_queue_nums);
                tracing::info!(topic = wanted.topic_name, master, "topic is put right");
            }
            None => tracing::info!(topic = wanted.topic_name, master, "topic is created"),
        }
        admin.change_topic_on(master, &wanted, &without).await
    }

    async fn delete(
        &self,
        admin: &Admin,
        masters: &BTreeMap<String, String>,
        cluster: &str,
    ) -> Result<(), ClientError> {
        let name = self.declared_name();
        let route = match admin.route(&name).await {
            Err(ClientError::TopicNotFound { .. }) => None,
            route => Some(route?),
        };
        // One that was closed is one that was deleted.
        let is_shared = route.is_some_and(|route| {
            let is_open = |broker: &str| {
                route.queue_datas.iter().any(|one| one.broker_name == broker && one.perm > 0)
            };
            let mut there = route.broker_datas.iter().filter(|one| one.cluster == cluster);
            there.any(|one| !masters.contains_key(&one.broker_name) && is_open(&one.broker_name))
        });
        for master in masters.values() {
            if is_shared {
                close(admin, master, &name).await?;
            }
            admin.delete_topic_on(master, &name).await?;
        }
        match is_shared {
            true => Ok(()),
            false => admin.forget_topic(cluster, &name).await,
        }
    }
}

/// Has clients neither send to the topic at this master nor read it there. NameServers go on to name the brokers that
/// had a topic until they are to forget all of it in the cluster, and other brokers have it still.
async fn close(admin: &Admin, master: &str, topic: &str) -> Result<(), ClientError> {
    match found_at(admin, master, topic).await? {
        Some(found) => admin.create_topic_on(master, &TopicConfig { perm: 0, ..found }).await,
        None => Ok(()),
    }
}

/// The topic as this master has it.
async fn found_at(
    admin: &Admin,
    master: &str,
    topic: &str,
) -> Result<Option<TopicConfig>, ClientError> {
    match admin.topic_config(master, topic).await {
        Err(ClientError::Refused { code: Code::Known(ResponseCode::TopicNotExist), .. }) => {
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// Keys of attributes that were declared once and are no longer.
fn dropped(resource: &Topic) -> impl Iterator<Item = &str> {
    let known = resource.status.iter().flat_map(|status| &status.attributes).map(String::as_str);
    known.filter(|key| !resource.spec.attributes.contains_key(*key))
}

/// The topic as brokers know it.
fn config(resource: &Topic) -> TopicConfig {
    let spec = &resource.spec;
    let queues = i32::try_from(spec.queues).unwrap_or(i32::MAX);
    let mut attributes = spec.attributes.clone();
    let type_ = match spec.type_ {
        MessageType::Unspecified => None,
        MessageType::Normal => Some("NORMAL"),
        MessageType::Fifo => Some("FIFO"),
        MessageType::Delay => Some("DELAY"),
        MessageType::Transaction => Some("TRANSACTION"),
        MessageType::Mixed => Some("MIXED"),
    };
    if let Some(type_) = type_ {
        attributes.insert(MESSAGE_TYPE.to_owned(), type_.to_owned());
    }
    TopicConfig {
        topic_name: resource.declared_name(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: match spec.perm {
            Perm::ReadWrite => 6,
            Perm::ReadOnly => 4,
            Perm::WriteOnly => 2,
        },
        order: spec.type_ == MessageType::Fifo,
        attributes,
        ..TopicConfig::default()
    }
}

fn is_so(found: &TopicConfig, wanted: &TopicConfig) -> bool {
    found.perm == wanted.perm
        && found.order == wanted.order
        && found.read_queue_nums >= wanted.read_queue_nums
        && found.write_queue_nums >= wanted.write_queue_nums
        && wanted.attributes.iter().all(|(key, value)| found.attributes.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{self, Finding};

    fn wanted() -> TopicConfig {
        let topic = "{apiVersion: weirmq.io/v1alpha1, kind: Topic, metadata: {name: orders}, \
                     spec: {brokerRef: {name: a}, queues: 4, type: Fifo, attributes: {a: b}}}";
        config(&serde_yaml::from_str(topic).unwrap())
    }

    #[test]
    fn an_attribute_that_is_taken_out_is_known_until_no_group_has_it() {
        let topic = "{apiVersion: weirmq.io/v1alpha1, kind: Topic, metadata: {name: orders}, \
                     spec: {brokerRef: {name: a}, attributes: {a: b}}, status: {attributes: [a, c]}}";
        let topic: Topic = serde_yaml::from_str(topic).unwrap();
        assert_eq!(dropped(&topic).collect::<Vec<_>>(), ["c"]);
        let attributes = |is_ready| {
            let ready = vec![Finding::new("Ready", is_ready, "", "")];
            topic.new_status(conditions::merge(&[], ready, 1), Vec::new()).attributes
        };
        assert_eq!(attributes(false), ["a", "c"]);
        assert_eq!(attributes(true), ["a"]);
    }

    #[test]
    fn a_topic_is_put_right_only_where_it_is_another() {
        let wanted = wanted();
        assert_eq!((wanted.perm, wanted.read_queue_nums, wanted.order), (6, 4, true));
        assert_eq!(wanted.attributes["message.type"], "FIFO");
        let mut found = wanted.clone();
        found.attributes.insert("more".to_owned(), "x".to_owned());
        found.read_queue_nums = 8;
        assert!(is_so(&found, &wanted));
        found.write_queue_nums = 3;
        assert!(!is_so(&found, &wanted));
        found.write_queue_nums = 4;
        found.attributes.insert("a".to_owned(), "c".to_owned());
        assert!(!is_so(&found, &wanted));
    }
}
