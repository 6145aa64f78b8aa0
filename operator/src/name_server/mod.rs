//! The controller of `NameServer`.

mod build;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use serde_json::Value;

use crate::annotations::is_paused;
use crate::children::Children;
use crate::conditions::{self, Finding};
use crate::context::{Context, Error};
use crate::kinds::{NameServer, NameServerStatus};
use crate::pods::{self, Marks};
use crate::restart::why_not_ready;
use crate::storage;
use crate::trouble::{self, Trouble};

use build::ROLE;
#[cfg(test)]
pub(crate) use build::objects;
pub(crate) use build::{address, brokers_address};

/// A change of what there is wakes the controller.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// It does not hear what pods say of themselves.
const LOOK_SOON: Duration = Duration::from_secs(30);
/// Why NameServers are not ready of which a pod does not run, or says that it cannot serve.
const PODS_NOT_READY: &str = "PodsNotReady";

/// Makes what one `NameServer` declares, and says how it is.
pub(crate) async fn reconcile(
    resource: &NameServer,
    context: &Context,
    children: &Arc<Children>,
) -> Result<Action, Error> {
    if resource.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = resource.namespace().unwrap_or_default();
    let name = resource.name_any();
    let made = match is_paused(resource) {
        true => Ok(None),
        false => make(resource, context, children, &namespace, &name).await,
    };
    let trouble = trouble(children, &namespace, &name).await;
    let status = status(resource, context, children, &namespace, &name, &made, trouble.as_deref());
    let before = resource.status.as_ref().map_or(&[][..], |status| &status.conditions[..]);
    // A failure is one anyway.
    if made.is_ok()
        && let Some(why) = conditions::why_not_ready(before, &status.conditions, &[PODS_NOT_READY])
    {
        context.event(resource, EventType::Warning, &why.reason, why.message.clone()).await;
    }
    for condition in conditions::appeared(before, &status.conditions, &[storage::NOT_EXPANDED]) {
        let note = condition.message.clone();
        context.event(resource, EventType::Warning, &condition.type_, note).await;
    }
    context.report(resource, resource.status.as_ref(), &status).await?;
    let pause = match status.ready_replicas == resource.spec.replicas {
        true => LOOK_EVERY,
        false => LOOK_SOON,
    };
    made.map(|refused| Action::requeue(refused.map_or(pause, |_| storage::ASK_EVERY)))
}

/// Makes everything; why its disks could not grow, if that is so.
async fn make(
    resource: &NameServer,
    context: &Context,
    children: &Children,
    namespace: &str,
    name: &str,
) -> Result<Option<String>, Error> {
    let mut wanted = build::objects(resource, &context.image);
    let mut refused = None;
    let restart = wanted.iter().find_map(|object| restart(object, children));
    for object in &mut wanted {
        refused = storage::apply(context, children, object).await?.or(refused);
    }
    if let Some(why) = restart {
        let note = format!("{name}: NameServers are started anew, one after the other");
        context.event_about(resource, None, EventType::Normal, "Restart", why, note).await;
    }
    children.delete_others(namespace, (ROLE.label(), name), &wanted).await?;
    Ok(refused)
}

/// Why pods are started anew once this is applied, if it is their StatefulSet and they are. That is Kubernetes'
/// work: NameServers have nothing to lose.
fn restart(wanted: &Value, children: &Children) -> Option<&'static str> {
    let wanted: StatefulSet = match &wanted["kind"] {
        kind if kind == "StatefulSet" => serde_json::from_value(wanted.clone()).ok()?,
        _ => return None,
    };
    let namespace = wanted.namespace().unwrap_or_default();
    let found = children.get("StatefulSet", &namespace, &wanted.name_any())?;
    let [before, now] = [&*found, &wanted].map(|set| Marks::of_template(ROLE, set));
    (before != now).then(|| before.change_to(&now))
}

/// What is wrong with a pod that is not ready, as Kubernetes says, or else as it says itself.
async fn trouble(children: &Children, namespace: &str, name: &str) -> Option<String> {
    let mut pods: Vec<Arc<Pod>> =
        children.of("Pod", namespace, (ROLE.label(), name), |pod| pod.deletion_timestamp.is_none());
    pods.retain(|pod| !trouble::is_ready(pod));
    pods.sort_by_key(|pod| pod.name_any());
    let told = |pod: &Arc<Pod>, why: String| format!("{}: {why}", pod.name_any());
    let known = pods.iter().find_map(|pod| Some(told(pod, Trouble::of(ROLE, pod).why?)));
    if known.is_some() {
        return known;
    }
    let asked = pods.iter().map(async |pod| {
        let address = pod.status.as_ref()?.pod_ip.as_deref()?;
        Some(told(pod, why_not_ready(address).await?))
    });
    join_all(asked).await.into_iter().flatten().next()
}

fn status(
    resource: &NameServer,
    context: &Context,
    children: &Children,
    namespace: &str,
    name: &str,
    made: &Result<Option<String>, Error>,
    trouble: Option<&str>,
) -> NameServerStatus {
    let set: Option<Arc<StatefulSet>> =
        children.get("StatefulSet", namespace, &build::set_name(name));
    let set_generation = set.as_ref().and_then(|set| set.metadata.generation);
    let set_status = set.and_then(|set| set.status.clone()).unwrap_or_default();
    let wanted = resource.spec.replicas;
    let ready = set_status.ready_replicas.unwrap_or_default();
    let updated = set_status.updated_replicas.unwrap_or_default();
    let mut found = Vec::new();
    let trouble = trouble.filter(|_| ready < wanted);
    let mut all = format!("{ready} of {wanted} NameServers are ready");
    all.extend(trouble.map(|trouble| format!("; {trouble}")));
    found.push(match made {
        Err(error) => Finding::new("Ready", false, error.reason(), error.to_string()),
        Ok(_) if ready > 0 => Finding::new("Ready", true, "Serving", all.clone()),
        Ok(_) => {
            let reason = match trouble {
                Some(_) => PODS_NOT_READY,
                None if is_paused(resource) => "Paused",
                None => "Starting",
            };
            Finding::new("Ready", false, reason, all.clone())
        }
    });
    let seen = set_status.observed_generation;
    let is_current = seen.is_some()
        && seen == set_generation
        && seen >= children.applied_generation("StatefulSet", namespace, &build::set_name(name));
    let is_done =
        is_current && ready == wanted && updated == wanted && set_status.replicas == wanted;
    found.push(if is_paused(resource) {
        Finding::paused_progress()
    } else if is_done {
        Finding::new("Progressing", false, "Done", "")
    } else {
        let message = format!("{ready} ready and {updated} up to date of {wanted}");
        Finding::new("Progressing", true, "RollingOut", message)
    });
    found.push(if ready == wanted {
        Finding::new("Degraded", false, "AllReady", "")
    } else {
        Finding::new("Degraded", true, "NotAllReady", all)
    });
    let refused = made.as_ref().ok().and_then(Option::as_deref);
    found.extend(refused.map(storage::not_expanded));
    let before = resource.status.as_ref();
    let before = before.map(|status| (status.observed_generation, &status.conditions[..]));
    let (observed_generation, conditions) = conditions::observe(resource, before, found);
    NameServerStatus {
        observed_generation,
        conditions,
        replicas: set_status.replicas,
        ready_replicas: ready,
        selector: pods::selector_text(ROLE, name),
        address: Some(address(name, namespace, &context.cluster_domain)),
    }
}
