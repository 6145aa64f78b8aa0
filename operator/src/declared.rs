//! What topics and consumer groups have in common: somebody declares a thing, and the masters of a
//! Broker's groups are told, by the admin protocol, wherever theirs is another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use weirmq_client::{Admin, ClientError};

use crate::annotations::is_paused;
use crate::broker;
use crate::children::Children;
use crate::conditions::{self, Finding};
use crate::context::{Context, Error};
use crate::watches::understood;

/// Keeps a resource until what it declared is deleted.
const FINALIZER: &str = "weirmq.io/delete-at-brokers";
/// How often brokers are asked whether somebody changed what is declared.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The longest pause while it is not so. What is waited for wakes the controller mostly.
const LOOK_AGAIN: Duration = Duration::from_secs(120);
/// For a deletion at all groups.
const DELETE_TIMEOUT: Duration = Duration::from_secs(30);
/// For all that one group is asked.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// A kind whose resources are declared at brokers.
pub(crate) trait Declared:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + std::fmt::Debug
{
    /// The name at the brokers.
    fn declared_name(&self) -> String;
    fn broker_name(&self) -> &str;
    /// Whether the thing goes with the resource.
    fn goes_with_it(&self) -> bool;
    /// What brokers of this cluster, one for each of these groups, keep under this name for themselves.
    fn reserved(&self, cluster: &str, groups: &BTreeSet<String>) -> Option<&'static str>;

    type Status: Clone + Default + Serialize + PartialEq + Send + Sync;
    fn status(&self) -> Option<&Self::Status>;
    fn conditions(status: &Self::Status) -> &[Condition];
    fn with_conditions(status: Self::Status, conditions: Vec<Condition>) -> Self::Status;
    /// The status of this generation: its conditions, and the groups that have the thing.
    fn new_status(&self, conditions: Vec<Condition>, groups: Vec<String>) -> Self::Status;

    /// Makes it so at one master, unless it is.
    fn declare(
        &self,
        context: &Context,
        admin: &Admin,
        master: &str,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;

    /// Deletes it at the masters of the Broker's groups, by group, and nowhere else: what other brokers of the same
    /// cluster have is not this resource's.
    fn delete(
        &self,
        admin: &Admin,
        masters: &BTreeMap<String, String>,
        cluster: &str,
    ) -> impl Future<Output = Result<(), ClientError>> + Send;
}

/// Declares what one resource says at the masters of its Broker, and says how it is.
pub(crate) async fn reconcile<K: Declared>(
    resource: &K,
    others: &[Arc<DeserializeGuard<K>>],
    context: &Context,
    children: &Children,
) -> Result<Action, Error> {
    let is_deleted = is_ending(resource);
    if is_paused(resource) && !is_deleted {
        let before = resource.status();
        context.report(resource, before, &paused(resource)).await?;
        return Ok(Action::await_change());
    }
    let place = place(resource, others, context, children)?;
    if is_deleted {
        return end(resource, others, place, context).await;
    }
    keep_finalizer(resource, context).await?;
    let (mut groups, mut waits) = (Vec::new(), Vec::new());
    let finding = match &place {
        Err(refusal) => refusal.finding(),
        Ok(place) => {
            let admin = context.admin(&place.name_servers)?;
            for (group, master) in &place.masters {
                match declare(resource, context, &admin, master.as_deref()).await {
                    Ok(()) => groups.push(group.clone()),
                    Err(why) => waits.push(format!("{group}: {why}")),
                }
            }
            finding(place.masters.len(), groups.len(), &waits)
        }
    };
    let look = format!("look at {}", resource.meta().uid.clone().unwrap_or_default());
    let pause = match finding.status {
        Some(true) => {
            context.patience.forget(&look);
            LOOK_EVERY
        }
        Some(false) | None => context.patience.in_vain(&look, &finding.message, LOOK_AGAIN),
    };
    let generation = resource.meta().generation.unwrap_or_default();
    let before = resource.status();
    let known = before.map_or(&[][..], K::conditions);
    if place.is_err() && known.iter().all(|condition| condition.reason != finding.reason) {
        let (reason, message) = (finding.reason, finding.message.clone());
        context.event(resource, EventType::Warning, reason, message).await;
    }
    let status = resource.new_status(conditions::merge(known, vec![finding], generation), groups);
    context.report(resource, before, &status).await?;
    Ok(Action::requeue(pause))
}

/// Whether it was as it is declared when somebody looked last.
pub(crate) fn is_done<K: Declared>(resource: &K) -> bool {
    is_ready(resource.status().map_or(&[][..], K::conditions))
}

pub(crate) fn is_ready(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What was known last, of the generation of then: nobody looks meanwhile.
fn paused<K: Declared>(resource: &K) -> K::Status {
    let status = resource.status().cloned().unwrap_or_default();
    let generation = resource.meta().generation.unwrap_or_default();
    let conditions = conditions::beside(K::conditions(&status), Finding::paused(), generation);
    K::with_conditions(status, conditions)
}

async fn declare<K: Declared>(
    resource: &K,
    context: &Context,
    admin: &Admin,
    master: Option<&str>,
) -> Result<(), String> {
    let Some(master) = master else { return Err("it has no master at the moment".to_owned()) };
    match tokio::time::timeout(ASK_TIMEOUT, resource.declare(context, admin, master)).await {
        Ok(declared) => declared.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{master} does not answer")),
    }
}

/// Lets a resource go, and before that deletes what it declared, where that is wanted.
async fn end<K: Declared>(
    resource: &K,
    others: &[Arc<DeserializeGuard<K>>],
    place: Result<Place, Refusal>,
    context: &Context,
) -> Result<Action, Error> {
    let goes = has_finalizer(resource) && resource.goes_with_it();
    let refusal = place.as_ref().err().filter(|_| goes);
    if let Some(note) =
        refusal.and_then(|refusal| refusal.why_not_deleted(&resource.declared_name()))
    {
        context.event(resource, EventType::Warning, "NotDeleted", note).await;
    }
    if let Some(place) = place.ok().filter(|_| goes) {
        let mut heirs = understood(others).filter(|other| is_same_thing(*other, resource));
        if let Some(heir) = heirs.find(|heir| !is_ending(*heir)) {
            let note = format!("{} has it from now on: nothing is deleted", heir.name_any());
            context.event(resource, EventType::Normal, "LeftToOther", note).await;
        } else if let Err(why) = delete(resource, &place, context).await {
            let finding = Finding::new("Ready", false, "Deleting", why.clone());
            let before = resource.status();
            let known = before.map_or(&[][..], K::conditions);
            let generation = resource.meta().generation.unwrap_or_default();
            let conditions = conditions::merge(known, vec![finding], generation);
            let status = resource.new_status(conditions, Vec::new());
            context.report(resource, before, &status).await?;
            let look = format!("delete {}", resource.meta().uid.clone().unwrap_or_default());
            return Ok(Action::requeue(context.patience.in_vain(&look, &why, LOOK_AGAIN)));
        }
    }
    keep_finalizer(resource, context).await?;
    Ok(Action::await_change())
}

/// Deletes it everywhere, or says why not: somewhere it would come back with its master.
async fn delete<K: Declared>(resource: &K, place: &Place, context: &Context) -> Result<(), String> {
    let (kind, name) = (K::kind(&()), resource.declared_name());
    let away = place.masters.iter().filter(|(_, master)| master.is_none());
    let away: Vec<&str> = away.map(|(group, _)| group.as_str()).collect();
    if !away.is_empty() {
        let groups = away.join(", ");
        return Err(format!("{name} is deleted once each group has a master; {groups} has none"));
    }
    let masters = place.masters.iter();
    let masters =
        masters.filter_map(|(group, master)| Some((group.clone(), master.clone()?))).collect();
    let admin = context.admin(&place.name_servers).map_err(|error| error.to_string())?;
    let deleted = resource.delete(&admin, &masters, &place.cluster);
    match tokio::time::timeout(DELETE_TIMEOUT, deleted).await {
        Ok(deleted) => {
            deleted.map_err(|error| format!("delete {name}: {error}"))?;
            tracing::info!(%kind, name, cluster = place.cluster, "deleted at the brokers");
            Ok(())
        }
        Err(_) => Err(format!("delete {name}: no answer")),
    }
}

fn is_ending<K: Resource>(resource: &K) -> bool {
    resource.meta().deletion_timestamp.is_some()
}

/// Whether another resource declares the same.
fn is_same_thing<K: Declared>(other: &K, resource: &K) -> bool {
    other.namespace() == resource.namespace()
        && other.declared_name() == resource.declared_name()
        && other.broker_name() == resource.broker_name()
        && other.meta().uid != resource.meta().uid
}

/// Where the thing is to be: the Broker's groups and their masters' addresses.
struct Place {
    name_servers: String,
    cluster: String,
    /// A group without an address has no master at the moment. For what is to be deleted also those of groups
    /// that are to go.
    masters: Vec<(String, Option<String>)>,
}

/// Why a resource cannot be acted upon, which is for its owner to mend.
enum Refusal {
    NoBroker(String),
    /// An older resource declares the same thing.
    Taken {
        by: String,
        name: String,
    },
    /// Brokers keep something of this name for themselves.
    Reserved {
        name: String,
        by: &'static str,
    },
}

impl Refusal {
    fn finding(&self) -> Finding {
        match self {
            Self::NoBroker(name) => {
                let message = format!(
                    "there is no Broker {name} in this namespace yet; make it, or name another one in a new resource"
                );
                Finding::new("Ready", false, "BrokerMissing", message)
            }
            Self::Taken { by, name } => {
                let message = format!(
                    "{by} declares {name} at the same Broker and is older; delete one of the two"
                );
                Finding::new("Ready", false, "AlreadyDeclared", message)
            }
            Self::Reserved { name, by } => {
                let message = format!(
                    "{name} is the name of {by}, and brokers keep a topic of that name for themselves: it is \
                     neither made, changed nor deleted. Delete this resource, and make one with another name"
                );
                Finding::new("Ready", false, "NameReserved", message)
            }
        }
    }

    /// What to say where `name` was to go with its resource, and does not.
    fn why_not_deleted(&self, name: &str) -> Option<String> {
        match self {
            Self::NoBroker(broker) => Some(format!(
                "there is no Broker {broker} any more to delete {name} at: it is there again where its disks are"
            )),
            Self::Reserved { by, .. } => {
                Some(format!("{name} is the name of {by}: brokers keep their topic of that name"))
            }
            // The other resource has it.
            Self::Taken { .. } => None,
        }
    }
}

/// Looks up the Broker, and whether another resource has the same thing.
fn place<K: Declared>(
    resource: &K,
    others: &[Arc<DeserializeGuard<K>>],
    context: &Context,
    children: &Children,
) -> Result<Result<Place, Refusal>, Error> {
    let namespace = resource.namespace().unwrap_or_default();
    let name = resource.declared_name();
    let older = understood(others)
        .find(|other| is_same_thing(*other, resource) && age(*other) < age(resource));
    if let Some(older) = older {
        return Ok(Err(Refusal::Taken { by: older.name_any(), name }));
    }
    let broker_name = resource.broker_name();
    let Some(broker) = context.declared.broker(&namespace, broker_name)? else {
        return Ok(Err(Refusal::NoBroker(broker_name.to_owned())));
    };
    let cluster = broker::cluster(&broker);
    if let Some(by) = resource.reserved(&cluster, &broker::groups(&broker, children)) {
        return Ok(Err(Refusal::Reserved { name, by }));
    }
    let mut masters = broker::masters(&broker, children);
    if is_ending(resource) {
        masters.extend(broker::masters_that_leave(&broker, children));
    }
    Ok(Ok(Place {
        name_servers: broker::client_name_servers(&broker, &context.cluster_domain),
        cluster,
        masters,
    }))
}

/// The older of two resources has what both want; of the same second the one whose name is first.
fn age<K: Resource>(resource: &K) -> (Option<i64>, String) {
    let created = resource.meta().creation_timestamp.as_ref();
    (created.map(|time| time.0.as_second()), resource.name_any())
}

/// Whether groups have it as it is declared.
fn finding(wanted: usize, have: usize, waits: &[String]) -> Finding {
    if wanted == 0 {
        return Finding::new("Ready", false, "BrokerStarting", "the Broker has no groups yet");
    }
    if have == wanted {
        return Finding::new("Ready", true, "Declared", format!("all {wanted} groups have it"));
    }
    let message = format!("{have} of {wanted} groups have it; {}", waits.join("; "));
    Finding::new("Ready", false, "NotEverywhere", message)
}

/// Keeps the finalizer where it is needed and nowhere else.
async fn keep_finalizer<K: Declared>(resource: &K, context: &Context) -> Result<(), Error> {
    let has = has_finalizer(resource);
    let wants = resource.goes_with_it() && resource.meta().deletion_timestamp.is_none();
    if has == wants {
        return Ok(());
    }
    let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
    let api: Api<K> = Api::namespaced(context.client.clone(), &namespace);
    let others = resource.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned();
    let finalizers: Vec<String> = others.chain(wants.then(|| FINALIZER.to_owned())).collect();
    let patch = json!({ "metadata": {
        "finalizers": finalizers,
        // Somebody else's finalizer must not be lost.
        "resourceVersion": resource.resource_version(),
    } });
    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    match patched {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        patched => {
            patched.map_err(Error::kubernetes(format!(
                "change the finalizers of {} {name}",
                K::kind(&())
            )))?;
            context.metrics.wrote(&K::kind(&()));
            Ok(())
        }
    }
}

fn has_finalizer<K: Declared>(resource: &K) -> bool {
    resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}
