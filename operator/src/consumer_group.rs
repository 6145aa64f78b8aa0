//! `ConsumerGroup` at the brokers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use weirmq_client::{Admin, ClientError};
use weirmq_remoting::body::SubscriptionGroupConfig;

use crate::declared::Declared;
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

    type Status = ConsumerGroupStatus;

    fn status(&self) -> Option<&ConsumerGroupStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &ConsumerGroupStatus) -> &[Condition] {
        &status.conditions
    }

    fn new_status(&self, conditions: Vec<Condition>, groups: Vec<String>) -> ConsumerGroupStatus {
        ConsumerGroupStatus {
            observed_generation: self.metadata.generation.unwrap_or_default(),
            conditions,
            group_name: Some(self.declared_name()),
            groups,
        }
    }

    async fn declare(&self, admin: &Admin, master: &str) -> Result<(), ClientError> {
        // The settings of all groups, because a broker that makes groups on demand answers with
        // defaults for one that does not exist.
        let groups = admin.groups(master).await?;
        let found = groups.get(&self.declared_name());
        let wanted = wanted(self, found);
        if found == Some(&wanted) {
            return Ok(());
        }
        tracing::info!(group = wanted.group_name, master, "consumer group is put right");
        admin.create_group_on(master, &wanted).await
    }

    async fn delete(&self, admin: &Admin, cluster: &str) -> Result<(), ClientError> {
        admin.delete_group(cluster, &self.declared_name(), true).await
    }
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
