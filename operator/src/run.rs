//! The process: waits until it is the one that acts, then runs the controllers.

use std::collections::BTreeMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::Stream;
use jiff::SignedDuration;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Node;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use weirmq_admin::Admin;

use crate::children::{Children, Scope, Touched};
use crate::context::{Context, Error, MANAGER, pause_after};
use crate::declared::Declared;
use crate::kinds::{Broker, ConsumerGroup, NameServer, Topic};
use crate::leader::{self, Place};
use crate::metrics::Metrics;
use crate::pods::Role;
use crate::{broker, declared, name_server};

/// Changes that wait for a controller that is busy; one that falls behind looks at everything.
const TOUCHES: usize = 1_024;
/// Resources of a kind that are looked at at the same time.
const CONCURRENCY: u16 = 8;
/// How long rounds that are under way may take at the end; what they did not do the next one does.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// Many changes of one resource's objects come together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// What the operator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The image of pods whose resource names none.
    pub image: String,
    /// Look at this namespace only; default: at all.
    pub namespace: Option<String>,
    /// The domain of the cluster's DNS.
    pub cluster_domain: String,
    /// How long a Secret that changed takes to reach all pods that mount it: an authority is trusted for
    /// this long before it issues anything, and after it last did.
    pub certificate_settle: SignedDuration,
    /// Where the Lease of the operators is, and what this one is called there.
    pub lease_namespace: String,
    pub identity: String,
}

/// Why an operator ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("find the API server: {0}")]
    Configuration(String),
    #[error("another operator holds the lease {0}: end, to be started as one that waits")]
    Superseded(String),
    #[error("the controllers ended")]
    Ended,
}

/// Runs until `shutdown`, or until another operator took over.
///
/// # Errors
/// [`RunError::Superseded`] is no fault: the process has to end, and waits again once it is started anew.
pub async fn run(
    config: Config,
    admin: Admin,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let client = Client::try_default().await;
    let client = client.map_err(|error| RunError::Configuration(error.to_string()))?;
    let metrics = admin.metrics(Metrics::new);
    let leading = admin.check("operator/api-server");
    let place = Place {
        namespace: config.lease_namespace.clone(),
        name: MANAGER.to_owned(),
        identity: config.identity.clone(),
    };
    // One that waits its turn is ready as well: there is nothing it could do better.
    leading.ok();
    let Some(mut office) = leader::wait(&client, &place, &shutdown).await else { return Ok(()) };
    tracing::info!(identity = config.identity, "this operator acts");
    metrics.leader.set(1);
    let controllers = controllers(config, client.clone(), metrics.clone(), shutdown.clone());
    let too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(END_TIMEOUT).await;
    };
    let ended = tokio::select! {
        () = controllers => if shutdown.is_cancelled() { Ok(()) } else { Err(RunError::Ended) },
        () = too_long => Ok(()),
        () = office.keep(client.clone()) => Err(RunError::Superseded(place.name.clone())),
    };
    metrics.leader.set(0);
    if ended.is_ok() {
        office.give_up(client).await;
    }
    ended
}

async fn controllers(
    config: Config,
    client: Client,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let scope = config.namespace.map_or(Scope::Cluster, Scope::Namespace);
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(config.identity) };
    let recorder = Recorder::new(client.clone(), reporter);
    let (children, changes) = Children::watch(&client, &scope, metrics.clone());
    let children = Arc::new(children);
    let nodes = (scope == Scope::Cluster).then(|| watch_nodes(&client));
    let (nodes, node_changes) = match nodes {
        Some((store, stream)) => (Some(store), stream.boxed()),
        None => (None, futures::stream::pending().boxed()),
    };
    let context = Context::new(
        client.clone(),
        recorder,
        metrics,
        config.image,
        config.cluster_domain,
        config.certificate_settle,
        nodes,
    );
    let context = Arc::new(context);
    let (touches, _) = broadcast::channel(TOUCHES);
    let everything =
        Everything { client, scope, context, children: children.clone(), touches, shutdown };
    let forwarded = forward(changes, node_changes, everything.touches.clone());
    tokio::select! {
        () = forwarded => {}
        () = async {
            children.wait_until_listed().await;
            tokio::join!(
                everything.name_servers(),
                everything.brokers(),
                everything.declared::<Topic>(),
                everything.declared::<ConsumerGroup>(),
            );
        } => {}
    }
}

/// Passes on what changed. It is what keeps the watches going.
async fn forward(
    changes: impl Stream<Item = Touched>,
    node_changes: impl Stream<Item = ()>,
    touches: broadcast::Sender<Touch>,
) {
    let changes = changes.map(Touch::Object);
    let nodes = node_changes.map(|()| Touch::Everything);
    let mut all = std::pin::pin!(futures::stream::select(changes, nodes));
    while let Some(touch) = all.next().await {
        // Nobody listens before the controllers begin, and they look at everything then.
        let _ = touches.send(touch);
    }
}

#[derive(Debug, Clone)]
enum Touch {
    Object(Touched),
    /// A node was cordoned, or the like.
    Everything,
}

fn watch_nodes(client: &Client) -> (Store<Node>, impl Stream<Item = ()> + Send + use<>) {
    let api: Api<Node> = Api::all(client.clone());
    let writer = reflector::store::Writer::default();
    let store = writer.as_reader();
    let mut cordoned: BTreeMap<String, bool> = BTreeMap::new();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
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

struct Everything {
    client: Client,
    scope: Scope,
    context: Arc<Context>,
    children: Arc<Children>,
    touches: broadcast::Sender<Touch>,
    shutdown: CancellationToken,
}

impl Everything {
    async fn name_servers(&self) {
        let controller = Controller::new(self.api::<NameServer>(), watcher::Config::default());
        let store = controller.store();
        let controller = controller.reconcile_on(self.touched(Role::NameServer, store));
        let (context, children) = (self.context.clone(), self.children.clone());
        self.control(controller, move |resource| {
            let (context, children) = (context.clone(), children.clone());
            async move { name_server::reconcile(&resource, &context, &children).await }
        })
        .await;
    }

    async fn brokers(&self) {
        let controller = Controller::new(self.api::<Broker>(), watcher::Config::default());
        let store = controller.store();
        let controller = controller.reconcile_on(self.touched(Role::Broker, store));
        let (context, children) = (self.context.clone(), self.children.clone());
        self.control(controller, move |resource| {
            let (context, children) = (context.clone(), children.clone());
            async move { broker::reconcile(&resource, &context, &children).await }
        })
        .await;
    }

    /// The controller of a kind that is declared at brokers.
    async fn declared<K>(&self)
    where
        K: Declared + Send + Sync + 'static,
    {
        let controller = Controller::new(self.api::<K>(), watcher::Config::default());
        let store = controller.store();
        let (context, children) = (self.context.clone(), self.children.clone());
        self.control(controller, move |resource| {
            let (context, children) = (context.clone(), children.clone());
            let others = understood(&store);
            async move { declared::reconcile(&*resource, &others, &context, &children).await }
        })
        .await;
    }

    fn api<K>(&self) -> Api<DeserializeGuard<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.scope.api(&self.client)
    }

    /// The resources whose objects changed.
    fn touched<K>(
        &self,
        role: Role,
        store: Store<DeserializeGuard<K>>,
    ) -> impl Stream<Item = ObjectRef<DeserializeGuard<K>>> + Send + use<K>
    where
        K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    {
        let touches = self.touches.subscribe();
        futures::stream::unfold(touches, |mut touches| async move {
            match touches.recv().await {
                Ok(touch) => Some((Some(touch), touches)),
                Err(broadcast::error::RecvError::Lagged(_)) => Some((None, touches)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        })
        .flat_map(move |touch| {
            let references = match touch {
                Some(Touch::Object(touched)) if touched.name == role.label() => {
                    vec![ObjectRef::new(&touched.instance).within(&touched.namespace)]
                }
                Some(Touch::Object(_)) => Vec::new(),
                Some(Touch::Everything) | None => {
                    store.state().iter().map(|resource| ObjectRef::from_obj(&**resource)).collect()
                }
            };
            futures::stream::iter(references)
        })
    }

    /// Runs one controller until it is told to end.
    async fn control<K, F>(
        &self,
        controller: Controller<DeserializeGuard<K>>,
        reconcile: impl Fn(Arc<K>) -> F + Send + Sync + 'static,
    ) where
        K: Resource<DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
        K::DynamicType: Eq + Hash,
        F: Future<Output = Result<Action, Error>> + Send + 'static,
    {
        let (context, failures) = (self.context.clone(), Arc::new(Mutex::new(BTreeMap::new())));
        let configuration =
            kube::runtime::Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE);
        let failed = failures.clone();
        controller
            .with_config(configuration)
            .graceful_shutdown_on(self.shutdown.clone().cancelled_owned())
            .run(
                move |guard: Arc<DeserializeGuard<K>>, _: Arc<()>| {
                    let (context, failures) = (context.clone(), failures.clone());
                    let resource = guard.0.clone();
                    let reconciled = resource.map(|resource| {
                        let resource = Arc::new(resource);
                        (resource.clone(), reconcile(resource))
                    });
                    async move {
                        match reconciled {
                            Ok((resource, reconciled)) => {
                                timed(&context, &*resource, reconciled, &failures).await
                            }
                            Err(invalid) => {
                                // The schema should have refused it; it waits for its owner.
                                let name = invalid.metadata.name.clone().unwrap_or_default();
                                let kind = K::kind(&());
                                tracing::warn!(%kind, name, error = invalid.error, "resource not understood");
                                Ok(Action::await_change())
                            }
                        }
                    }
                },
                move |guard, _, _| {
                    let uid = guard.meta().uid.clone().unwrap_or_default();
                    let count = failed.lock().get(&uid).copied().unwrap_or(1);
                    Action::requeue(pause_after(count))
                },
                Arc::new(()),
            )
            .for_each(|_| std::future::ready(()))
            .await;
    }
}

/// The resources of a store that could be read.
fn understood<K: Resource<DynamicType = ()> + Clone + 'static>(
    store: &Store<DeserializeGuard<K>>,
) -> Vec<Arc<K>> {
    store.state().iter().filter_map(|guard| guard.0.clone().ok().map(Arc::new)).collect()
}

/// Counts, and logs a failure that is not the one of last time.
async fn timed<K>(
    context: &Context,
    resource: &K,
    reconciled: impl Future<Output = Result<Action, Error>>,
    failures: &Mutex<BTreeMap<String, u32>>,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()>,
{
    let begun = Instant::now();
    let result = reconciled.await;
    let (kind, uid) = (K::kind(&()), resource.meta().uid.clone().unwrap_or_default());
    let failure = result.as_ref().err();
    context.metrics.reconciled(&kind, begun.elapsed(), failure.map(Error::reason));
    match failure {
        None => {
            failures.lock().remove(&uid);
        }
        Some(error) => {
            let count = {
                let mut failures = failures.lock();
                let count = failures.entry(uid).or_insert(0);
                *count += 1;
                *count
            };
            let (name, namespace) = (resource.name_any(), resource.namespace());
            if count == 1 {
                tracing::warn!(%kind, name, namespace, %error, "not as it is declared");
                let type_ = kube::runtime::events::EventType::Warning;
                context.event(resource, type_, error.reason(), error.to_string()).await;
            } else {
                tracing::debug!(%kind, name, namespace, %error, count, "still not as it is declared");
            }
        }
    }
    result
}
