//! Takes one step of a rolling restart or a hand-over.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::ResourceExt as _;
use kube::runtime::events::EventType;

use super::Round;
use super::observe::{GroupView, PodView};
use super::roll::{self, Step};
use crate::context::Error;
use crate::restart::{self, Answer};
use crate::storage;

/// A hand-over waits for the heir to have everything; beyond this the next round sees what became of it.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(8);
/// The reason of a hand-over that somebody asked for.
pub(super) const REQUESTED: &str = "SwitchoverRequested";
/// The longest pause before a master that refused to hand over is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

impl Round<'_> {
    /// The next step of a group, if there is one.
    pub(super) async fn step(&mut self, group: &GroupView) -> Result<(), Error> {
        let cordoned = self.cordoned(group);
        let missing = self.findings.missing.clone();
        match roll::next(group, |node| cordoned.iter().any(|found| found == node)) {
            Step::Nothing => {
                if let Some(behind) = group.not_configured() {
                    self.findings.wait(&group.name, behind);
                }
            }
            Step::Wait(reason) => self.findings.wait(&group.name, reason),
            Step::Restart { pod, .. } | Step::Replace { pod, .. } if missing.is_some() => {
                let missing = missing.unwrap_or_default();
                let reason = format!("{pod} is not restarted: there is no {missing}");
                self.findings.wait(&group.name, reason);
            }
            Step::Replace { pod, why } => self.restart(group, &pod, why).await?,
            Step::Restart { pod, why } => match self.is_safe(group, &pod).await {
                Answer::Safe => self.restart(group, &pod, why).await?,
                // Where messages wait for each of them it is never safe, and has to be done all the same.
                Answer::NotNow(_) if needs_all(group) => {
                    self.restart(group, &pod, "OutdatedAndWritesPause").await?;
                }
                Answer::NotNow(reasons) => {
                    self.findings
                        .wait(&group.name, format!("{pod} is not to be restarted now: {reasons}"));
                }
                Answer::Unknown(error) => {
                    self.findings.wait(
                        &group.name,
                        format!("{pod} does not say whether it may be restarted: {error}"),
                    );
                }
            },
            Step::HandOver { to, why } => self.hand_over(group, Some(to), why).await,
        }
        Ok(())
    }

    async fn is_safe(&self, group: &GroupView, pod: &str) -> Answer {
        let address = group.pods.iter().find(|found| found.name == pod);
        match address.and_then(|found| found.address.as_deref()) {
            Some(address) => restart::is_safe(address).await,
            None => Answer::Unknown("it has no address".to_owned()),
        }
    }

    async fn restart(
        &mut self,
        group: &GroupView,
        pod: &str,
        why: &'static str,
    ) -> Result<(), Error> {
        let deleted = storage::deleted(self.context, &self.namespace(), pod).await?;
        if let Some(volume) = &deleted {
            if !has_another_master(group, pod) {
                let finding = storage::last_copy(pod, volume);
                self.findings.wait(&group.name, finding.message.clone());
                self.findings.claim = Some(finding);
                return Ok(());
            }
            let note = format!(
                "somebody deleted the claim data-{pod}: {pod} gets an empty disk and copies everything from its master"
            );
            self.event(EventType::Warning, storage::CLAIM_DELETED, note).await;
        }
        let found = group.pods.iter().find(|found| found.name == pod);
        let uid = found.and_then(|found| found.uid.clone());
        let changed = found.map_or("", |found| found.changed);
        self.children.delete("Pod", &self.namespace(), pod, uid.clone()).await?;
        self.findings.wait(&group.name, format!("{pod} is restarted: {why}"));
        let about = self.pod_reference(pod, uid);
        let note = format!("restarted {pod} of {}: {changed}", group.name);
        let type_ = EventType::Normal;
        self.context.event_about(self.resource, Some(about), type_, "Restart", why, note).await;
        Ok(())
    }

    fn pod_reference(&self, pod: &str, uid: Option<String>) -> ObjectReference {
        ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(pod.to_owned()),
            namespace: Some(self.namespace()),
            uid,
            ..ObjectReference::default()
        }
    }

    /// Asks the master to hand over, to the replica that has most where none is named.
    pub(super) async fn hand_over(
        &mut self,
        group: &GroupView,
        to: Option<u32>,
        why: &'static str,
    ) {
        let heir = to.map_or_else(
            || "the replica that has most".to_owned(),
            |replica| format!("{}-{replica}", group.name),
        );
        let waiting = format!("the master hands over to {heir}: {why}");
        self.findings.wait(&group.name, waiting.clone());
        let master = group.answering_master();
        let Some(address) = master.and_then(PodView::broker_address) else { return };
        // Another master, another heir or another reason is another thing to try. Somebody who asks is
        // never put off: the words are gone by now.
        let what =
            format!("{}/{} epoch {}: {waiting}", self.namespace(), group.name, group.epoch());
        if why != REQUESTED && !self.context.patience.is_due(&what) {
            return;
        }
        let about = to.and_then(|replica| group.pod(replica));
        let about = about.map(|heir| self.pod_reference(&heir.name, heir.uid.clone()));
        let note = format!("{}: {waiting}", group.name);
        let type_ = EventType::Normal;
        self.context.event_about(self.resource, about, type_, "HandOver", why, note).await;
        let admin = match self.context.admin(&self.client_name_servers()) {
            Ok(admin) => admin,
            Err(error) => return self.findings.wait(&group.name, error.to_string()),
        };
        // Slaves of a group that elects its master are registered one above their replica.
        let heir = to.map(|replica| i64::from(replica) + 1);
        let asked = admin.switch_master(&address, &group.name, heir);
        match tokio::time::timeout(HAND_OVER_TIMEOUT, asked).await {
            Ok(Ok(())) => self.context.patience.forget(&what),
            Ok(Err(error)) => {
                let note = format!("the master of {} did not hand over: {error}", group.name);
                self.context.patience.in_vain(&what, &note, ASK_AGAIN);
                self.event(EventType::Warning, "SwitchoverRefused", note).await;
            }
            Err(_) => {
                self.context.patience.in_vain(&what, "no answer", ASK_AGAIN);
                tracing::warn!(group = group.name, "a hand-over takes long");
            }
        }
    }

    /// Nodes of the group that somebody cordoned. Without the right to look at nodes: none.
    fn cordoned(&self, group: &GroupView) -> Vec<String> {
        let Some(nodes) = &self.context.nodes else { return Vec::new() };
        let mut cordoned = Vec::new();
        for node in group.pods.iter().filter_map(|pod| pod.node.as_deref()) {
            let found = nodes.find(|found| found.name_any() == node);
            let is_leaving = |node: &Node| {
                node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default()
            };
            if found.is_some_and(|found| is_leaving(&found)) {
                cordoned.push(node.to_owned());
            }
        }
        cordoned
    }
}

/// Whether another replica has all that was acknowledged, and serves.
fn has_another_master(group: &GroupView, pod: &str) -> bool {
    group.serving().is_some_and(|master| master.name != pod)
}

/// Whether no slave of a group says that it can be spared, whatever it waits for, and all are there at the moment.
/// With roles by configuration nobody leaves the in-sync set, so that is so where messages wait for slaves at all;
/// who is in it the master says, as there is no record.
fn needs_all(group: &GroupView) -> bool {
    let is_whole = |pod: &PodView| match group.is_elected {
        true => group.is_in_sync(pod.replica),
        false => pod.keeps_up == Some(true),
    };
    let is_never_safe = match group.is_elected {
        true => group.min_in_sync >= group.wanted,
        false => group.is_sync,
    };
    is_never_safe && group.pods.iter().all(|pod| pod.has_broker() && is_whole(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::tests::three_replicas;

    #[test]
    fn a_slave_that_is_never_safe_to_restart_is_restarted_while_all_others_are_there() {
        let mut elected = three_replicas();
        assert!(!needs_all(&elected), "one of three can be spared");
        elected.min_in_sync = 3;
        assert!(needs_all(&elected));
        // With `failover.mode: Disabled` messages wait for each slave, however many have to be in sync.
        let mut by_configuration =
            GroupView { record: None, is_elected: false, is_sync: true, ..three_replicas() };
        assert!(!needs_all(&by_configuration), "nobody knows whether they have caught up");
        by_configuration.pods.iter_mut().for_each(|pod| pod.keeps_up = Some(true));
        assert!(needs_all(&by_configuration));
        by_configuration.min_in_sync = 1;
        assert!(needs_all(&by_configuration));
        by_configuration.is_sync = false;
        assert!(!needs_all(&by_configuration), "a slave says itself that it can be spared");
        by_configuration.is_sync = true;
        by_configuration.pods[1].keeps_up = Some(false);
        assert!(!needs_all(&by_configuration), "it catches up");
        by_configuration.pods[1].keeps_up = Some(true);
        by_configuration.pods[2].is_ready = false;
        assert!(!needs_all(&by_configuration), "it is away");
    }

    #[test]
    fn a_disk_whose_claim_somebody_deleted_is_given_up_where_a_master_has_everything() {
        let mut group = three_replicas();
        assert!(has_another_master(&group, "mq-0-1"));
        assert!(!has_another_master(&group, "mq-0-0"), "it is the master");
        group.pods[0].is_ready = false;
        assert!(!has_another_master(&group, "mq-0-1"), "nobody knows what the master has");
        let pods = group.pods.split_off(1);
        assert!(!has_another_master(&group, "mq-0-0"), "it is alone");
        let mut by_configuration = GroupView { record: None, is_elected: false, pods, ..group };
        assert!(!has_another_master(&by_configuration, "mq-0-1"), "its master is away");
        by_configuration.pods[0].replica = 0;
        assert!(has_another_master(&by_configuration, "mq-0-2"));
    }
}
