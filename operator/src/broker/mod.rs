//! The controller of `Broker`.
//!
//! One round: look up what the resource refers to, decide which groups there are, make their objects,
//! look at their replicas, take at most one step of a rolling restart in each group, and say how it is.

mod build;
mod certify;
mod drain;
mod namesakes;
mod observe;
mod regressed;
mod roll;
mod secrets;
mod slaves;
mod status;
mod step;
mod switch_over;
#[cfg(test)]
pub(crate) mod tests;
mod topics;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ApiResource;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::Value;

use crate::annotations::is_paused;
use crate::children::Children;
use crate::conditions;
use crate::context::{Context, Error};
use crate::kinds::{Broker, BrokerStatus};
use crate::name_server;
use crate::restart::Configuration;
use crate::storage;

use build::{Group, Plan, external};

pub(crate) use certify::Certified;
pub(crate) use drain::Draining;
use observe::GroupView;
pub(crate) use slaves::Slaves;

pub(crate) use build::cluster;

/// How often brokers are asked how they are while everything is as it should be.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// More than the schema allows.
const GROUPS_MAX: u32 = 64;
/// The longest pause between looks while something is under way; the first ones are shorter.
const LOOK_SOON: Duration = Duration::from_secs(10);

/// Makes what one `Broker` declares, and says how it is.
pub(crate) async fn reconcile(
    resource: &Broker,
    context: &Context,
    children: &Children,
) -> Result<Action, Error> {
    if resource.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut round = Round { resource, context, children, findings: status::Findings::default() };
    round.findings.namesakes = round.namesakes();
    round.findings.expects_name_servers = round.expects_name_servers();
    round.hear_masters().await;
    let failure = round.run().await.err();
    let mut views = round.views().await;
    round.look_for_regressed(&mut views).await;
    let status = round.status(&views, failure.as_ref());
    round.tell_of(&status).await;
    context.report(resource, resource.status.as_ref(), &status).await?;
    let look = format!("look at {}", resource.uid().unwrap_or_default());
    let pause = match is_settled(&status) {
        true => {
            context.patience.forget(&look);
            LOOK_EVERY
        }
        // Most of what is waited for wakes the controller. It does not hear of brokers that catch up.
        false => context.patience.in_vain(&look, &said(&status), longest_pause(&status)),
    };
    match failure {
        Some(error) => Err(error),
        None => Ok(Action::requeue(pause)),
    }
}

/// What clients of the admin protocol ask.
pub(crate) fn client_name_servers(resource: &Broker, domain: &str) -> String {
    let spec = &resource.spec;
    let namespace = resource.namespace().unwrap_or_default();
    match (&spec.name_servers, &spec.name_server_ref) {
        (Some(addresses), _) => addresses.join(";"),
        (None, Some(reference)) => name_server::address(&reference.name, &namespace, domain),
        (None, None) => String::new(),
    }
}

/// The groups that are to stay, and where their masters take requests at the moment.
pub(crate) fn masters(resource: &Broker, children: &Children) -> Vec<(String, Option<String>)> {
    masters_of(resource, children, groups_that_stay(resource))
}

/// The same of groups that are to go and are there still.
pub(crate) fn masters_that_leave(
    resource: &Broker,
    children: &Children,
) -> Vec<(String, Option<String>)> {
    let stay = groups_that_stay(resource).collect();
    masters_of(resource, children, (&groups(resource, children) - &stay).into_iter())
}

/// The groups that are to stay, and those that are there still.
pub(crate) fn groups(resource: &Broker, children: &Children) -> BTreeSet<String> {
    let namespace = resource.namespace().unwrap_or_default();
    let there = observe::groups_there(children, &namespace, &resource.name_any());
    there.into_iter().chain(groups_that_stay(resource)).collect()
}

fn groups_that_stay(resource: &Broker) -> impl Iterator<Item = String> {
    let name = resource.name_any();
    (0..resource.spec.groups).map(move |index| build::group_name(&name, index))
}

fn masters_of(
    resource: &Broker,
    children: &Children,
    groups: impl Iterator<Item = String>,
) -> Vec<(String, Option<String>)> {
    groups
        .map(|group| {
            let view = observe::group(children, resource, &group, false);
            (group, view.master_address())
        })
        .collect()
}

struct Round<'a> {
    resource: &'a Broker,
    context: &'a Context,
    children: &'a Children,
    findings: status::Findings,
}

impl Round<'_> {
    fn namespace(&self) -> String {
        self.resource.namespace().unwrap_or_default()
    }

    async fn run(&mut self) -> Result<(), Error> {
        if is_paused(self.resource) {
            return Ok(());
        }
        let (name_servers, missing) = match self.name_servers() {
            Ok(name_servers) => (name_servers, None),
            Err(missing) => (Vec::new(), Some(missing)),
        };
        let groups = self.groups();
        let mut plan = Plan {
            resource: self.resource,
            image: &self.context.image,
            domain: &self.context.cluster_domain,
            name_servers,
            external: external::Addresses::new(),
            groups,
        };
        let learned = match missing {
            None => self.learn_addresses(&mut plan).await,
            Some(missing) => Err(missing),
        };
        // Certificates run out whatever else is missing, and one object that cannot be made must not keep
        // the others' pods from being looked after.
        let certified = self.certify(&plan, learned.is_ok()).await;
        let secret = self.missing_secret(&self.seen()).await?;
        // Also one that is deleted later on leaves templates alone by which no pod would start.
        let able = match (learned, secret) {
            (Err(missing @ Error::Missing { .. }), _) => Err(missing),
            (_, Some(name)) => Err(Error::Missing { kind: "Secret", name }),
            (learned, None) => learned,
        };
        if let Err(Error::Missing { kind, name }) = &able {
            self.findings.missing = Some(format!("{kind} {name}"));
        }
        let made = match able {
            Ok(()) => self.make(&plan).await,
            Err(error) => Err(error),
        };
        let mut made = made.and(certified);
        let mut views = self.seen();
        let asked =
            views.iter_mut().map(|view| observe::ask_for_configurations(view, self.context));
        futures::future::join_all(asked).await;
        if made.is_ok() {
            self.take_away(plan, &views).await?;
        }
        self.hand_out_topics(&views).await;
        made = made.and(self.switch_over(&views).await);
        for view in &views {
            // What was asked above may have taken a while.
            let view = self.seen_group(&view.name, view.is_draining);
            if let Err(error) = self.step(&view).await {
                made = made.and(Err(error));
            }
        }
        made
    }

    /// What brokers are told to register with.
    fn name_servers(&self) -> Result<Vec<String>, Error> {
        let spec = &self.resource.spec;
        if let Some(addresses) = &spec.name_servers {
            return Ok(addresses.clone());
        }
        let namespace = self.namespace();
        let name =
            spec.name_server_ref.as_ref().map(|found| found.name.clone()).unwrap_or_default();
        if !self.context.declared.has_name_server(&namespace, &name) {
            return Err(Error::Missing { kind: "NameServer", name });
        }
        let domain = &self.context.cluster_domain;
        Ok(vec![name_server::brokers_address(&name, &namespace, domain)])
    }

    /// Whether NameServers should answer: those of a resource once it is ready.
    fn expects_name_servers(&self) -> bool {
        let reference = self.resource.spec.name_server_ref.as_ref();
        let declared = &self.context.declared;
        reference.is_none_or(|name| declared.is_name_server_ready(&self.namespace(), &name.name))
    }

    fn client_name_servers(&self) -> String {
        client_name_servers(self.resource, &self.context.cluster_domain)
    }

    /// The groups that are wanted, and those that are still there.
    fn groups(&self) -> Vec<Group> {
        let (name, wanted) = (self.resource.name_any(), self.resource.spec.groups);
        let there = self.existing();
        let last = there.into_iter().map(|index| index + 1).max().unwrap_or(0).max(wanted);
        let groups =
            (0..last).map(|index| self.group(&build::group_name(&name, index), index >= wanted));
        groups.collect()
    }

    fn group(&self, name: &str, is_draining: bool) -> Group {
        let wanted = self.resource.spec.replicas_per_group;
        let replicas = observe::replicas_to_keep(
            self.children,
            (&self.namespace(), &self.resource.name_any()),
            name,
            build::is_elected(self.resource),
            wanted,
        );
        let view = self.seen_group(name, is_draining);
        let as_started =
            view.pods.iter().filter(|pod| pod.configuration == Configuration::AsStarted);
        let images = as_started.filter_map(|pod| pod.image.clone());
        Group {
            name: name.to_owned(),
            is_draining,
            replicas,
            may_lose_one: view.may_lose_one(),
            may_lose_unready: view.may_lose_unready(),
            file: view.file.clone(),
            not_rereading: images.collect(),
            hashed_whole: view.hashed_whole.clone(),
        }
    }

    /// The numbers of groups that are there.
    fn existing(&self) -> Vec<u32> {
        let name = self.resource.name_any();
        let there = observe::groups_there(self.children, &self.namespace(), &name);
        let number = |group: &String| group.strip_prefix(&name)?.strip_prefix('-')?.parse().ok();
        there.iter().filter_map(number).filter(|number| *number < GROUPS_MAX).collect()
    }

    /// Makes the Services for clients outside of the cluster, and takes down what they were given.
    async fn learn_addresses(&mut self, plan: &mut Plan<'_>) -> Result<(), Error> {
        let Some(spec) = &self.resource.spec.external else { return Ok(()) };
        for wanted in plan.external_services() {
            let service = self.children.apply(&wanted).await?;
            let name = service.name_any();
            match external::address_of(&service, spec) {
                Ok(Some(address)) => {
                    plan.external.insert(name, address);
                }
                Ok(None) => self.findings.without_address.push(name),
                Err(error) => self.findings.service_not_understood = Some(error),
            }
        }
        Ok(())
    }

    async fn make(&mut self, plan: &Plan<'_>) -> Result<(), Error> {
        let views = self.seen();
        if self.resource.spec.replicas_per_group > 1 {
            let mut random = [0; 32];
            // It fails only where the system has no random numbers at all.
            SystemRandom::new().fill(&mut random).map_err(|_| Error::NoRandomNumbers)?;
            let secret = ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&());
            if views.iter().flat_map(|view| &view.pods).any(|pod| !pod.is_ready) {
                // Perhaps a pod waits for it.
                self.children.doubt(&plan.secret(&[]));
            }
            self.children.create_once(&secret, &plan.secret(&random)).await?;
        }
        if plan.is_elected() {
            let lease = ApiResource::erase::<k8s_openapi::api::coordination::v1::Lease>(&());
            let slice = ApiResource::erase::<k8s_openapi::api::discovery::v1::EndpointSlice>(&());
            for group in &plan.groups {
                let endpoint = build::endpoint_slice(plan, &group.name);
                let serves =
                    views.iter().any(|view| view.name == group.name && view.serving().is_some());
                if !serves {
                    // Perhaps somebody deleted what they need for an election.
                    self.children.doubt(&plan.lease(&group.name));
                    self.children.doubt(&endpoint);
                }
                self.children.create_once(&lease, &plan.lease(&group.name)).await?;
                self.children.create_once(&slice, &endpoint).await?;
            }
        }
        let mut wanted = plan.objects();
        let mut changes = Vec::new();
        for object in &mut wanted {
            changes.extend(self.changed_settings(object));
            if let Some(why) = storage::apply(self.context, self.children, object).await? {
                self.findings.storage = Some(why);
            }
        }
        for change in changes {
            self.event(EventType::Normal, "SettingsChanged", change).await;
        }
        let owner = (build::ROLE.label(), &*self.resource.name_any());
        self.children.delete_others(&plan.namespace(), owner, &wanted).await?;
        Ok(())
    }

    /// Which settings change without a restart by this ConfigMap, as a sentence.
    fn changed_settings(&self, wanted: &Value) -> Option<String> {
        let name = wanted["metadata"]["name"].as_str().filter(|_| wanted["kind"] == "ConfigMap")?;
        let known: Arc<ConfigMap> = self.children.get("ConfigMap", &self.namespace(), name)?;
        let before = known.data.as_ref()?.get(build::config::FILE)?;
        let now = wanted["data"][build::config::FILE].as_str()?;
        let changed = build::config::changed(before, now);
        (!changed.is_empty()).then(|| {
            format!(
                "{name}: {}; brokers take it while they run, within a minute or two",
                changed.join(", ")
            )
        })
    }

    /// What is known of the groups, by number.
    fn seen(&self) -> Vec<GroupView> {
        let name = self.resource.name_any();
        let mut indices = self.existing();
        indices.sort_unstable();
        let views = indices.into_iter().map(|index| {
            let group = build::group_name(&name, index);
            self.seen_group(&group, index >= self.resource.spec.groups)
        });
        views.collect()
    }

    /// One of them, with what its pods said of their configuration, and its master of its slaves.
    fn seen_group(&self, name: &str, is_draining: bool) -> GroupView {
        let mut view = observe::group(self.children, self.resource, name, is_draining);
        self.context.slaves.tell(&self.namespace(), &mut view);
        view.pods.iter_mut().for_each(|pod| observe::recall_configuration(pod, self.context));
        view.note_restarts_needed();
        view
    }

    /// The same, and what pods say of themselves.
    async fn views(&self) -> Vec<GroupView> {
        let mut views = self.seen();
        for view in &mut views {
            observe::ask_for_complaints(view).await;
        }
        views
    }

    /// Takes groups away that have nothing left; the highest first, so that their numbers have no gap.
    async fn take_away(&mut self, mut plan: Plan<'_>, views: &[GroupView]) -> Result<(), Error> {
        let drained = self.drained(views).await;
        if drained.is_empty() || !self.is_newest().await? {
            return Ok(());
        }
        let before = plan.groups.len();
        while plan.groups.last().is_some_and(|group| drained.contains(&group.name)) {
            plan.groups.pop();
        }
        if plan.groups.len() == before {
            return Ok(());
        }
        let owner = (build::ROLE.label(), &*self.resource.name_any());
        self.children.delete_others(&plan.namespace(), owner, &plan.objects()).await?;
        self.forget_drop().await
    }

    /// Whether nobody changed the resource since this round began.
    async fn is_newest(&self) -> Result<bool, Error> {
        let (name, namespace) = (self.resource.name_any(), self.namespace());
        let api: Api<Broker> = Api::namespaced(self.context.client.clone(), &namespace);
        let found = api.get_metadata_opt(&name).await;
        let found = found.map_err(Error::kubernetes(format!("look at Broker {name} again")))?;
        Ok(found
            .is_some_and(|found| found.metadata.generation == self.resource.metadata.generation))
    }

    async fn event(&self, type_: EventType, reason: &str, note: String) {
        self.context.event(self.resource, type_, reason, note).await;
    }

    /// What an administrator has to know of at once is an event as well.
    async fn tell_of(&self, status: &BrokerStatus) {
        let before = self.resource.status.as_ref();
        let before = before.map_or(&[][..], |status| &status.conditions[..]);
        for condition in conditions::appeared(before, &status.conditions, &status::TOLD) {
            let note = condition.message.clone();
            self.event(EventType::Warning, &condition.type_, note).await;
        }
        if let Some(why) = status::why_not_ready_any_more(before, &status.conditions) {
            self.event(EventType::Warning, &why.reason, why.message.clone()).await;
        }
    }

    fn status(&self, views: &[GroupView], failure: Option<&Error>) -> BrokerStatus {
        status::status(self.resource, views, &self.findings, failure)
    }
}

/// Whether nothing is under way, so that nobody has to look soon.
fn is_settled(status: &BrokerStatus) -> bool {
    is(status, "Ready", "True")
        && !is(status, "Progressing", "True")
        && !is(status, "Degraded", "True")
}

fn longest_pause(status: &BrokerStatus) -> Duration {
    if is(status, "Progressing", "True") { LOOK_SOON } else { LOOK_EVERY }
}

fn is(status: &BrokerStatus, type_: &str, wanted: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.type_ == type_ && condition.status == wanted)
}

/// What conditions say, as one text.
fn said(status: &BrokerStatus) -> String {
    let conditions = status.conditions.iter();
    conditions.map(|one| format!("{}{}{}", one.type_, one.status, one.message)).collect()
}
