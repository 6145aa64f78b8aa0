//! What people declared, as the watches saw it last, and who has to look again when it changes.
//!
//! Controllers look resources up here and not at the API server, so that a cluster that is as it is
//! declared costs it nothing but the watches. What they look up wakes them when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{BoxStream, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Node;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use crate::children::Touched;
use crate::context::Error;
use crate::declared::is_ready;
use crate::kinds::{Broker, NameServer};
use crate::watch_health::WatchHealth;

/// Changes that wait for a controller that is busy; one that falls behind looks at everything.
const TOUCHES: usize = 1_024;

/// A kind's resources. Those that cannot be read hold nobody up.
pub(crate) type Resources<K> = Store<DeserializeGuard<K>>;

/// What a watch of a kind says. Polling it is what keeps the watch going.
pub(crate) type Changes<K> = BoxStream<'static, Result<DeserializeGuard<K>, watcher::Error>>;

/// Something changed that others than its own controller depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Touch {
    /// An object that the operator made.
    Object(Touched),
    /// A NameServer came or went.
    NameServer { namespace: String, name: String },
    /// A Broker came or went, was changed, or has a master where it had none.
    Broker { namespace: String, name: String },
    /// A resource that declared something at a Broker is gone; perhaps another one declares the same.
    Undeclared { kind: String, namespace: String, broker: String },
    /// A node was cordoned, or is used again.
    Nodes,
    /// A watch began anew and may have missed something.
    Everything,
}

/// Tells the controllers.
#[derive(Debug, Clone)]
pub(crate) struct Touches(broadcast::Sender<Touch>);

impl Touches {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(TOUCHES).0)
    }

    pub(crate) fn tell(&self, touch: Touch) {
        // Nobody listens before the controllers begin, and they look at everything then.
        let _ = self.0.send(touch);
    }

    /// The resources of a kind that have to be looked at again, by what `concerns` says of each.
    pub(crate) fn woken<K, F>(
        &self,
        resources: Resources<K>,
        concerns: F,
    ) -> impl Stream<Item = ObjectRef<DeserializeGuard<K>>> + Send + 'static + use<K, F>
    where
        K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
        F: Fn(&Touch, &DeserializeGuard<K>) -> bool + Send + 'static,
    {
        let touches = self.0.subscribe();
        futures::stream::unfold(touches, |mut touches| async move {
            match touches.recv().await {
                Ok(touch) => Some((touch, touches)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((Touch::Everything, touches)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .flat_map(move |touch| {
            let all = resources.state();
            let woken = all
                .iter()
                .filter(|resource| touch == Touch::Everything || concerns(&touch, resource));
            let woken: Vec<_> = woken.map(|resource| ObjectRef::from_obj(&**resource)).collect();
            futures::stream::iter(woken)
        })
    }
}

/// Watches a kind. `tell` is shown each event once the store has it.
pub(crate) fn watch<K>(
    api: Api<DeserializeGuard<K>>,
    health: WatchHealth,
    mut tell: impl FnMut(&Event<DeserializeGuard<K>>) + Send + 'static,
) -> (Resources<K>, Changes<K>)
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let writer = reflector::store::Writer::default();
    let store = writer.as_reader();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect(move |said| health.see(&K::kind(&()), said))
        // Who wrote which field is often more than the rest.
        .modify(|guard| guard.meta_mut().managed_fields = None)
        .reflect(writer)
        .inspect_ok(move |event| tell(event))
        // Also what is gone wakes whoever depends on it; a resource's own controller does not find it.
        .touched_objects();
    (store, stream.boxed())
}

/// The nodes, and a stream that says that one was cordoned or taken back into use.
pub(crate) fn watch_nodes(
    client: &Client,
    health: WatchHealth,
) -> (Store<Node>, impl Stream<Item = ()> + Send + use<>) {
    let api: Api<Node> = Api::all(client.clone());
    let writer = reflector::store::Writer::default();
    let store = writer.as_reader();
    let mut cordoned: BTreeMap<String, bool> = BTreeMap::new();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect(move |said| health.see("Node", said))
        .modify(|node| {
            // Of a node nothing else is looked at, and its status is large and often new.
            node.status = None;
            node.metadata.managed_fields = None;
            node.metadata.annotations = None;
        })
        .reflect(writer)
        .touched_objects()
        .filter_map(move |node| {
            let changed = node.ok().filter(|node| {
                let spec = node.spec.as_ref();
                let is = spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
                cordoned.insert(node.name_any(), is) != Some(is)
            });
            std::future::ready(changed.map(|_| ()))
        });
    (store, stream)
}

/// Tells who depends on NameServers that one came or went.
pub(crate) fn tell_of_name_servers(
    touches: Touches,
) -> impl FnMut(&Event<DeserializeGuard<NameServer>>) + Send + 'static {
    let touch = |namespace, name| Touch::NameServer { namespace, name };
    tell_of(touches, |_| (), |(), ()| false, touch)
}

/// Tells who depends on Brokers that one changed in a way that matters to others.
pub(crate) fn tell_of_brokers(
    touches: Touches,
) -> impl FnMut(&Event<DeserializeGuard<Broker>>) + Send + 'static {
    let touch = |namespace, name| Touch::Broker { namespace, name };
    tell_of(touches, Seen::of, Seen::is_news_after, touch)
}

/// Tells of each resource that came or went, and of one that is there where what is seen of it `is_news`
/// after what was seen before.
fn tell_of<K, S>(
    touches: Touches,
    see: impl Fn(&DeserializeGuard<K>) -> S + Send + 'static,
    is_news: impl Fn(&S, &S) -> bool + Send + 'static,
    touch: impl Fn(String, String) -> Touch + Send + 'static,
) -> impl FnMut(&Event<DeserializeGuard<K>>) + Send + 'static
where
    K: Resource<DynamicType = ()> + 'static,
    S: Send + 'static,
{
    let mut known: BTreeMap<(String, String), S> = BTreeMap::new();
    move |event| {
        let place =
            |guard: &DeserializeGuard<K>| (guard.namespace().unwrap_or_default(), guard.name_any());
        let changed = match event {
            Event::Apply(guard) => {
                let (place, seen) = (place(guard), see(guard));
                let is_changed = known.get(&place).is_none_or(|before| is_news(&seen, before));
                known.insert(place.clone(), seen);
                is_changed.then_some(place)
            }
            Event::Delete(guard) => {
                known.remove(&place(guard));
                Some(place(guard))
            }
            Event::Init | Event::InitApply(_) => None,
            Event::InitDone => return touches.tell(Touch::Everything),
        };
        if let Some((namespace, name)) = changed {
            touches.tell(touch(namespace, name));
        }
    }
}

/// What others look at of a Broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    uid: Option<String>,
    generation: Option<i64>,
    /// Groups whose master serves.
    serving: Vec<String>,
}

impl Seen {
    fn of(guard: &DeserializeGuard<Broker>) -> Self {
        let metadata = guard.meta();
        let status = guard.0.as_ref().ok().and_then(|broker| broker.status.as_ref());
        let groups = status.iter().flat_map(|status| &status.groups);
        let serving = groups.filter_map(|group| {
            let master = group.master.as_ref()?;
            let pod = group.replicas.iter().find(|replica| replica.pod == *master)?;
            pod.ready.then(|| master.clone())
        });
        Self {
            uid: metadata.uid.clone(),
            generation: metadata.generation,
            serving: serving.collect(),
        }
    }

    /// A master that is gone for a while is nothing to act upon, one that came is.
    fn is_news_after(&self, before: &Self) -> bool {
        let is_known = |master: &String| before.serving.contains(master);
        (&self.uid, self.generation) != (&before.uid, before.generation)
            || !self.serving.iter().all(is_known)
    }
}

/// What controllers look up.
pub(crate) struct Declarations {
    pub(crate) name_servers: Resources<NameServer>,
    pub(crate) brokers: Resources<Broker>,
}

impl Declarations {
    pub(crate) fn has_name_server(&self, namespace: &str, name: &str) -> bool {
        self.name_servers.get(&ObjectRef::new(name).within(namespace)).is_some()
    }

    /// Whether it said that it is, when its controller looked last.
    pub(crate) fn is_name_server_ready(&self, namespace: &str, name: &str) -> bool {
        let found = self.name_servers.get(&ObjectRef::new(name).within(namespace));
        let status = found.as_ref().and_then(|found| found.0.as_ref().ok()?.status.as_ref());
        status.is_some_and(|status| is_ready(&status.conditions))
    }

    /// A Broker, if there is one.
    ///
    /// # Errors
    /// [`Error::NotUnderstood`] where its fields cannot be read.
    pub(crate) fn broker(&self, namespace: &str, name: &str) -> Result<Option<Broker>, Error> {
        let Some(found) = self.brokers.get(&ObjectRef::new(name).within(namespace)) else {
            return Ok(None);
        };
        match &found.0 {
            Ok(broker) => Ok(Some(broker.clone())),
            Err(invalid) => Err(Error::NotUnderstood {
                kind: "Broker",
                name: name.to_owned(),
                error: invalid.error.clone(),
            }),
        }
    }
}

/// Those of a store's resources that could be read.
pub(crate) fn understood<K>(resources: &[Arc<DeserializeGuard<K>>]) -> impl Iterator<Item = &K> {
    resources.iter().filter_map(|guard| guard.0.as_ref().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(generation: i64, serving: &[&str]) -> Seen {
        let serving = serving.iter().map(|name| (*name).to_owned()).collect();
        Seen { uid: None, generation: Some(generation), serving }
    }

    #[test]
    fn topics_are_told_of_masters_that_come_and_not_of_those_that_go() {
        let both = seen(1, &["a-0-0", "a-1-0"]);
        assert!(!both.is_news_after(&both));
        assert!(!seen(1, &["a-0-0"]).is_news_after(&both));
        assert!(both.is_news_after(&seen(1, &["a-0-0"])));
        assert!(seen(1, &["a-0-2", "a-1-0"]).is_news_after(&both));
        assert!(seen(2, &["a-0-0", "a-1-0"]).is_news_after(&both));
    }
}
