//! The controller of `Topic`.

use std::sync::Arc;

use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use weirmq_client::{Admin, ClientError};
use weirmq_remoting::body::TopicConfig;
use weirmq_remoting::{Code, ResponseCode};

use crate::children::Children;
use crate::conditions;
use crate::context::{Context, Error, is_paused};
use crate::declared::{self, ASK_TIMEOUT, Declared, LOOK_EVERY, LOOK_SOON, Place};
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
}

/// Declares one topic at the masters of its Broker, and says how it is.
pub(crate) async fn reconcile(
    resource: &Topic,
    others: &[Arc<Topic>],
    context: &Context,
    children: &Children,
) -> Result<Action, Error> {
    if is_paused(resource) && resource.metadata.deletion_timestamp.is_none() {
        return Ok(Action::await_change());
    }
    let place = declared::place(resource, others, context, children).await?;
    if resource.metadata.deletion_timestamp.is_some() {
        let goes = declared::has_finalizer(resource) && resource.goes_with_it();
        if let (Ok(place), true) = (&place, goes) {
            delete(resource, place, context).await?;
        }
        declared::keep_finalizer(resource, context).await?;
        return Ok(Action::await_change());
    }
    declared::keep_finalizer(resource, context).await?;
    let (mut groups, mut waits) = (Vec::new(), Vec::new());
    let finding = match &place {
        Err(refusal) => refusal.finding(),
        Ok(place) => {
            let admin = context.admin(&place.name_servers)?;
            for (group, master) in &place.masters {
                match declare(&admin, master.as_deref(), &config(resource)).await {
                    Ok(()) => groups.push(group.clone()),
                    Err(why) => waits.push(format!("{group}: {why}")),
                }
            }
            declared::finding(place.masters.len(), groups.len(), &waits)
        }
    };
    let is_done = finding.status;
    let generation = resource.meta().generation.unwrap_or_default();
    let before = resource.status.as_ref();
    let known = before.map_or(&[][..], |status| &status.conditions[..]);
    let status = TopicStatus {
        observed_generation: generation,
        conditions: conditions::merge(known, vec![finding], generation),
        topic_name: Some(resource.declared_name()),
        groups,
    };
    context.report(resource, before, &status).await?;
    Ok(Action::requeue(if is_done { LOOK_EVERY } else { LOOK_SOON }))
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

/// Makes it so at one master, unless it is.
async fn declare(admin: &Admin, master: Option<&str>, wanted: &TopicConfig) -> Result<(), String> {
    let Some(master) = master else { return Err("it has no master at the moment".to_owned()) };
    let declared = async {
        let found = match admin.topic_config(master, &wanted.topic_name).await {
            Ok(found) => Some(found),
            Err(ClientError::Refused {
                code: Code::Known(ResponseCode::TopicNotExist), ..
            }) => None,
            Err(error) => return Err(error),
        };
        match found {
            Some(found) if is_so(&found, wanted) => Ok(()),
            Some(found) => {
                // More queues than are declared may hold messages, and stay.
                let mut wanted = wanted.clone();
                wanted.read_queue_nums = wanted.read_queue_nums.max(found.read_queue_nums);
                wanted.write_queue_nums = wanted.write_queue_nums.max(found.write_queue_nums);
                tracing::info!(topic = wanted.topic_name, master, "topic is put right");
                admin.create_topic_on(master, &wanted).await
            }
            None => {
                tracing::info!(topic = wanted.topic_name, master, "topic is created");
                admin.create_topic_on(master, wanted).await
            }
        }
    };
    match tokio::time::timeout(ASK_TIMEOUT, declared).await {
        Ok(declared) => declared.map_err(|error: ClientError| error.to_string()),
        Err(_) => Err(format!("{master} does not answer")),
    }
}

fn is_so(found: &TopicConfig, wanted: &TopicConfig) -> bool {
    found.perm == wanted.perm
        && found.order == wanted.order
        && found.read_queue_nums >= wanted.read_queue_nums
        && found.write_queue_nums >= wanted.write_queue_nums
        && wanted.attributes.iter().all(|(key, value)| found.attributes.get(key) == Some(value))
}

async fn delete(resource: &Topic, place: &Place, context: &Context) -> Result<(), Error> {
    let name = resource.declared_name();
    let admin = context.admin(&place.name_servers)?;
    let deleted = admin.delete_topic(&place.cluster, &name).await;
    deleted.map_err(Error::broker(format!("delete topic {name}")))?;
    tracing::info!(topic = name, cluster = place.cluster, "topic is deleted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> TopicConfig {
        let topic = "{apiVersion: weirmq.io/v1alpha1, kind: Topic, metadata: {name: orders}, \
                     spec: {brokerRef: {name: a}, queues: 4, type: Fifo, attributes: {a: b}}}";
        config(&serde_yaml::from_str(topic).unwrap())
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
