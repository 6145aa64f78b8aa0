//! Why a pod does not run, as the kubelet and the scheduler say.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use crate::pods::Role;

/// What is wrong with a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Why it is not running, or another of its containers, where somebody says so.
    pub(crate) why: Option<String>,
    /// The container of its role does not run for a reason that waiting does not take away.
    pub(crate) is_stuck: bool,
}

impl Trouble {
    pub(crate) fn of(role: Role, pod: &Pod) -> Self {
        let unscheduled = condition(pod, "PodScheduled")
            .filter(|scheduled| scheduled.status == "False")
            .and_then(|scheduled| scheduled.message.clone());
        let (containers, before) = (containers(pod), init_containers(pod));
        // Containers that come before it are its trouble as long as it waits for them.
        let waiting = container(role, pod).filter(|own| is_waiting(own));
        let waiting = waiting.and_then(|own| why(own).or_else(|| before.iter().find_map(why)));
        let is_stuck = unscheduled.is_some() || waiting.is_some();
        let of_others = || containers.iter().chain(before).find_map(why);
        Self { why: unscheduled.or(waiting).or_else(of_others), is_stuck }
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// What the API server knows of this condition of a pod.
pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == type_)
}

/// How the container of this role is.
pub(crate) fn container(role: Role, pod: &Pod) -> Option<&ContainerStatus> {
    containers(pod).iter().find(|container| container.name == role.container())
}

fn containers(pod: &Pod) -> &[ContainerStatus] {
    let status = pod.status.as_ref();
    status.and_then(|status| status.container_statuses.as_deref()).unwrap_or(&[])
}

fn init_containers(pod: &Pod) -> &[ContainerStatus] {
    let status = pod.status.as_ref();
    status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or(&[])
}

fn is_waiting(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.waiting.is_some())
}

/// Why a container does not run, where that is more than that its turn has not come.
fn why(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let is_its_turn =
        |reason: &String| reason != "ContainerCreating" && reason != "PodInitializing";
    let reason = waiting.reason.clone().filter(is_its_turn)?;
    let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let code = last.map(|last| format!(" (exit code {})", last.exit_code));
    Some(format!("{reason}{}", code.unwrap_or_default()))
}
