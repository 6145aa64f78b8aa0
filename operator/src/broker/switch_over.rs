//! A hand-over that somebody asked for, by annotation.

use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::Round;
use super::observe::GroupView;
use super::step::REQUESTED;
use crate::annotations::SWITCH_OVER;
use crate::context::Error;
use crate::kinds::Broker;

impl Round<'_> {
    /// Has the master that the annotation names hand over. What became of it is an event.
    pub(super) async fn switch_over(&mut self, views: &[GroupView]) -> Result<(), Error> {
        let Some(text) = self.resource.annotations().get(SWITCH_OVER).cloned() else {
            return Ok(());
        };
        if !self.take_request().await? {
            return Ok(());
        }
        match find(&text, views) {
            Ok((group, to)) => self.hand_over(group, to, REQUESTED).await,
            Err(why) => {
                let note = format!("{SWITCH_OVER}={text} is not done: {why}");
                self.event(EventType::Warning, "SwitchoverRefused", note).await;
            }
        }
        Ok(())
    }

    /// Takes the annotation off; `false` if the resource is not the newest, so that somebody else may
    /// have done so. Whoever asks a master has taken it off, so nobody asks twice.
    async fn take_request(&self) -> Result<bool, Error> {
        let (name, namespace) = (self.resource.name_any(), self.namespace());
        let api: Api<Broker> = Api::namespaced(self.context.client.clone(), &namespace);
        let patch = json!({ "metadata": {
            "annotations": { SWITCH_OVER: null },
            "resourceVersion": self.resource.resource_version(),
        } });
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                Ok(false)
            }
            Err(error) => {
                Err(Error::kubernetes(format!("take {SWITCH_OVER} off Broker {name}"))(error))
            }
        }
    }
}

/// The group that is meant, and the replica that is to be its master; or why it cannot be.
fn find<'a>(text: &str, views: &'a [GroupView]) -> Result<(&'a GroupView, Option<u32>), String> {
    let (name, to) = text.split_once('=').map_or((text, None), |(name, to)| (name, Some(to)));
    let Some(group) = views.iter().find(|group| group.name == name) else {
        let names: Vec<&str> = views.iter().map(|group| group.name.as_str()).collect();
        return Err(format!("there is no group {name}; there are: {}", names.join(", ")));
    };
    if !group.is_elected {
        return Err(format!("{name} elects no master: there is nobody to hand over to"));
    }
    if group.serving().is_none() {
        return Err(format!("{name} has no master that serves"));
    }
    let Some(to) = to else { return Ok((group, None)) };
    let Some(pod) = to.parse().ok().and_then(|to| group.pod(to)) else {
        let pods: Vec<String> = group.pods.iter().map(|pod| pod.replica.to_string()).collect();
        return Err(format!("{name} has no replica {to}; there are: {}", pods.join(", ")));
    };
    match group.master() {
        Some(master) if master == pod.replica => Err(format!("{} is master already", pod.name)),
        _ => Ok((group, Some(pod.replica))),
    }
}

#[cfg(test)]
mod tests {
    use weirmq_authority::{Incarnation, Member, Phase, Record, ReplicaId};

    use super::super::observe::PodView;
    use super::*;

    #[test]
    fn a_request_names_a_group_that_has_a_master_and_another_replica() {
        let pods = (0..2).map(|replica| PodView {
            name: format!("mq-0-{replica}"),
            replica,
            is_ready: true,
            ..PodView::default()
        });
        let master = Member { replica: ReplicaId(1), incarnation: Incarnation(1) };
        let mut group = GroupView {
            name: "mq-0".to_owned(),
            is_elected: true,
            record: Some(Record {
                phase: Phase::Stable,
                master: Some(master),
                ..Record::default()
            }),
            pods: pods.collect(),
            ..GroupView::default()
        };
        let asked = |text: &str, group: &GroupView| {
            find(text, std::slice::from_ref(group)).map(|(group, to)| (group.name.clone(), to))
        };
        assert_eq!(asked("mq-0", &group), Ok(("mq-0".to_owned(), None)));
        assert_eq!(asked("mq-0=0", &group), Ok(("mq-0".to_owned(), Some(0))));
        for (text, why) in [
            ("mq-1", "there is no group mq-1; there are: mq-0"),
            ("mq-0=1", "mq-0-1 is master already"),
            ("mq-0=2", "mq-0 has no replica 2; there are: 0, 1"),
            ("mq-0=", "mq-0 has no replica ; there are: 0, 1"),
        ] {
            assert_eq!(asked(text, &group), Err(why.to_owned()));
        }
        group.pods[1].is_ready = false;
        assert_eq!(asked("mq-0", &group), Err("mq-0 has no master that serves".to_owned()));
        group.is_elected = false;
        assert!(asked("mq-0", &group).is_err());
    }
}
