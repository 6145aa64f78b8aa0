//! `ConsumerGroup` at the brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use weirmq_client::{Admin, ClientError};
use weirmq_remoting::body::SubscriptionGroupConfig;

use crate::context::Context;
use crate::declared::Declared;
use crate::kinds::{ConsumerGroup, ConsumerGroupStatus, WhenDeleted};

/// How old the answer may be by which a group is taken for as it should be.
const FRESH: Duration = Duration::from_secs(5);
/// Addresses of masters that are remembered; pods change theirs.
const MASTERS_MAX: usize = 256;

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

    /// The schema refuses the names of brokers' own groups.
    fn reserved(&self, _: &str, _: &BTreeSet<String>) -> Option<&'static str> {
        None
    }

    type Status = ConsumerGroupStatus;

    fn status(&self) -> Option<&ConsumerGroupStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &ConsumerGroupStatus) -> &[Condition] {
        &status.conditions
    }

    fn with_conditions(
        status: ConsumerGroupStatus,
        conditions: Vec<Condition>,
    ) -> ConsumerGroupStatus {
        ConsumerGroupStatus { conditions, ..status }
    }

    fn new_status(&self, conditions: Vec<Condition>, groups: Vec<String>) -> ConsumerGroupStatus {
        ConsumerGroupStatus {
            observed_generation: self.metadata.generation.unwrap_or_default(),
            conditions,
            group_name: Some(self.declared_name()),
            groups,
        }
    }

    async fn declare(
        &self,
        context: &Context,
        admin: &Admin,
        master: &str,
    ) -> Result<(), ClientError> {
        let known = &context.consumer_groups;
        let found = known.get(admin, master, &self.declared_name()).await?;
        let wanted = wanted(self, found.as_ref());
        if found.as_ref() == Some(&wanted) {
            return Ok(());
        }
        tracing::info!(group = wanted.group_name, master, "consumer group is put right");
        let changed = admin.create_group_on(master, &wanted).await;
        known.note(master, changed.is_ok().then_some(wanted)).await;
        changed
    }

    async fn delete(
        &self,
        admin: &Admin,
        masters: &BTreeMap<String, String>,
        _: &str,
    ) -> Result<(), ClientError> {
        for master in masters.values() {
            admin.delete_group_on(master, &self.declared_name(), true).await?;
        }
        Ok(())
    }
}

/// The groups of masters, as they were a moment ago: one look-up serves all resources that ask at the
/// same time.
#[derive(Default)]
pub(crate) struct Known(parking_lot::Mutex<BTreeMap<String, Arc<Mutex<Groups>>>>);

#[derive(Default)]
struct Groups {
    looked: Option<Instant>,
    groups: BTreeMap<String, SubscriptionGroupConfig>,
}

impl Known {
    /// A group of this master.
    ///
    /// The settings of all groups are asked for, because a broker that makes groups on demand answers
    /// with defaults for one that does not exist.
    async fn get(
        &self,
        admin: &Admin,
        master: &str,
        name: &str,
    ) -> Result<Option<SubscriptionGroupConfig>, ClientError> {
        let known = self.of(master);
        let mut known = known.lock().await;
        if known.looked.is_none_or(|looked| looked.elapsed() > FRESH) {
            // From before the question, and of nothing while there is no answer.
            known.looked = None;
            let looked = Instant::now();
            known.groups = admin.groups(master).await?;
            known.looked = Some(looked);
        }
        Ok(known.groups.get(name).cloned())
    }

    /// A group was changed; nothing where nobody knows whether it was.
    async fn note(&self, master: &str, changed: Option<SubscriptionGroupConfig>) {
        let known = self.of(master);
        let mut known = known.lock().await;
        match changed {
            Some(group) => _ = known.groups.insert(group.group_name.clone(), group),
            None => known.looked = None,
        }
    }

    fn of(&self, master: &str) -> Arc<Mutex<Groups>> {
        let mut masters = self.0.lock();
        if masters.len() >= MASTERS_MAX && !masters.contains_key(master) {
            masters.clear();
        }
        masters.entry(master.to_owned()).or_default().clone()
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
