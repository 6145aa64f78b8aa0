//! The controller of `ConsumerGroup`.

use std::sync::Arc;

use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use weirmq_client::{Admin, ClientError};
use weirmq_remoting::body::SubscriptionGroupConfig;

use crate::children::Children;
use crate::conditions;
use crate::context::{Context, Error, is_paused};
use crate::declared::{self, ASK_TIMEOUT, Declared, LOOK_EVERY, LOOK_SOON, Place};
use crate::kinds::{ConsumerGroup, ConsumerGroupStatus, WhenDeleted};

impl Declared for ConsumerGroup {
    fn declared_name(&self) -> String {
        self.spec.group_name.clone().unwrap_or_else(|| self.name_any())
    }

    fn broker_name(&self) -> &str {
        &self.spec.broker_ref.name
    }

    fn goes_with_it(&self) -> bool {
        self.spec.deletion_policy == WhenDeleted::Delete
    }
}

/// Declares one consumer group at the masters of its Broker, and says how it is.
pub(crate) async fn reconcile(
    resource: &ConsumerGroup,
    others: &[Arc<ConsumerGroup>],
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
                match declare(&admin, master.as_deref(), resource).await {
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
    let status = ConsumerGroupStatus {
        observed_generation: generation,
        conditions: conditions::merge(known, vec![finding], generation),
        group_name: Some(resource.declared_name()),
        groups,
    };
    context.report(resource, before, &status).await?;
    Ok(Action::requeue(if is_done { LOOK_EVERY } else { LOOK_SOON }))
}

/// The group as it should be, with what the resource does not speak of as it was found.
fn wanted(
    resource: &ConsumerGroup,
    found: Option<&SubscriptionGroupConfig>,
) -> SubscriptionGroupConfig {
    let spec = &resource.spec;
    SubscriptionGroupConfig {
        group_name: resource.declared_name(),
        consume_enable: spec.consume,
        consume_broadcast_enable: spec.broadcast,
        consume_message_orderly: spec.ordered,
        retry_max_times: spec.retry.max_times,
        retry_queue_nums: spec.retry.queues,
        ..found.cloned().unwrap_or_default()
    }
}

/// Makes it so at one master, unless it is.
async fn declare(
    admin: &Admin,
    master: Option<&str>,
    resource: &ConsumerGroup,
) -> Result<(), String> {
    let Some(master) = master else { return Err("it has no master at the moment".to_owned()) };
    let name = resource.declared_name();
    let declared = async {
        // The settings of all groups, because a broker that makes groups on demand answers with
        // defaults for one that does not exist.
        let groups = admin.groups(master).await?;
        let found = groups.get(&name);
        let wanted = wanted(resource, found);
        if found == Some(&wanted) {
            return Ok(());
        }
        tracing::info!(group = name, master, "consumer group is put right");
        admin.create_group_on(master, &wanted).await
    };
    match tokio::time::timeout(ASK_TIMEOUT, declared).await {
        Ok(declared) => declared.map_err(|error: ClientError| error.to_string()),
        Err(_) => Err(format!("{master} does not answer")),
    }
}

async fn delete(resource: &ConsumerGroup, place: &Place, context: &Context) -> Result<(), Error> {
    let name = resource.declared_name();
    let admin = context.admin(&place.name_servers)?;
    let deleted = admin.delete_group(&place.cluster, &name, true).await;
    deleted.map_err(Error::broker(format!("delete consumer group {name}")))?;
    tracing::info!(group = name, cluster = place.cluster, "consumer group is deleted");
    Ok(())
}
