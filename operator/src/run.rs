//! The process: waits until it is the one that acts, then runs the controllers.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::Stream;
use jiff::SignedDuration;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher::Event;
use kube::{Client, Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use weirmq_admin::Admin;

use crate::children::{Children, Scope, Touched};
use crate::consumer_group::Known;
use crate::context::{Context, Error, MANAGER, pause_after};
use crate::declared::Declared;
use crate::kinds::{Broker, ConsumerGroup, NameServer, Topic};
use crate::leader::{self, Place, Tenure};
use crate::metrics::Metrics;
use crate::patience::Patience;
use crate::pods::Role;
use crate::watch_health::WatchHealth;
use crate::watches::{
    Changes, Declarations, Resources, Touch, Touches, tell_of_brokers, tell_of_name_servers, watch,
    watch_nodes,
};
use crate::{broker, client, declared, name_server};

/// Resources of a kind that are looked at at the same time.
const CONCURRENCY: u16 = 8;
/// How long rounds that are under way may take at the end; what they did not do the next one does.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// Different failures in a row of which events tell: what the API server says may have something new each time.
const TOLD_MAX: usize = 8;
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
    /// Where the Lease of the operators is, its name, and what this one is called there. Operators that
    /// look after different namespaces need Leases of their own.
    pub lease_namespace: String,
    pub lease_name: String,
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
    let unusable = |error: &dyn std::error::Error| RunError::Configuration(error.to_string());
    let server = kube::Config::infer().await.map_err(|error| unusable(&error))?;
    let client = Client::try_from(server.clone()).map_err(|error| unusable(&error))?;
    let metrics = admin.metrics(Metrics::new);
    let leading = admin.check("operator/api-server");
    let place = Place {
        namespace: config.lease_namespace.clone(),
        name: config.lease_name.clone(),
        identity: config.identity.clone(),
    };
    // One that waits its turn is ready as well: there is nothing it could do better.
    leading.ok();
    let health = WatchHealth::new(admin.check("operator/watches"));
    let tenure = Tenure::default();
    let office = leader::wait(&client, &place, &tenure, &shutdown).await;
    let Some(mut office) = office else { return Ok(()) };
    tracing::info!(identity = config.identity, "this operator acts");
    metrics.leader.set(1);
    let counted = client::client(server, metrics.clone(), tenure.clone());
    let counted = counted.map_err(|error| unusable(&error))?;
    let controllers =
        controllers(config, counted, metrics.clone(), tenure, health, shutdown.clone());
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
    tenure: Tenure,
    health: WatchHealth,
    shutdown: CancellationToken,
) {
    let scope = config.namespace.map_or(Scope::Cluster, Scope::Namespace);
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(config.identity) };
    let recorder = Recorder::new(client.clone(), reporter);
    let (children, changes) =
        Children::watch(&client, &scope, recorder.clone(), metrics.clone(), &health);
    let children = Arc::new(children);
    let (nodes, node_changes) = match scope == Scope::Cluster {
        true => {
            let (store, stream) = watch_nodes(&client, health.clone());
            (Some(store), stream.boxed())
        }
        false => (None, futures::stream::pending().boxed()),
    };
    let touches = Touches::new();
    let (name_servers, name_server_changes) =
        watch(scope.api(&client), health.clone(), tell_of_name_servers(touches.clone()));
    let (brokers, broker_changes) =
        watch(scope.api(&client), health.clone(), tell_of_brokers(touches.clone()));
    let context = Arc::new(Context {
        client: client.clone(),
        recorder,
        metrics,
        declared: Declarations { name_servers, brokers },
        tenure,
        image: config.image,
        cluster_domain: config.cluster_domain,
        nodes,
        draining: Mutex::default(),
        certified: Mutex::default(),
        certificate_settle: config.certificate_settle,
        configurations: Mutex::default(),
        patience: Patience::default(),
        slaves: Default::default(),
        consumer_groups: Known::default(),
        admins: Default::default(),
    });
    let everything = Everything {
        client,
        scope,
        context,
        children: children.clone(),
        touches,
        health,
        shutdown,
    };
    let forwarded = forward(changes, node_changes, &everything.touches);
    tokio::select! {
        () = forwarded => {}
        () = async {
            children.wait_until_listed().await;
            tokio::join!(
                everything.name_servers(name_server_changes),
                everything.brokers(broker_changes),
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
    touches: &Touches,
) {
    let changes = changes.map(Touch::Object);
    let nodes = node_changes.map(|()| Touch::Nodes);
    let mut all = std::pin::pin!(futures::stream::select(changes, nodes));
    while let Some(touch) = all.next().await {
        touches.tell(touch);
    }
}

struct Everything {
    client: Client,
    scope: Scope,
    context: Arc<Context>,
    children: Arc<Children>,
    touches: Touches,
    health: WatchHealth,
    shutdown: CancellationToken,
}

impl Everything {
    async fn name_servers(&self, changes: Changes<NameServer>) {
        let store = self.context.declared.name_servers.clone();
        let woken = self
            .touches
            .woken(store.clone(), |touch, resource| is_touched(touch, Role::NameServer, resource));
        let controller = Controller::for_stream(changes, store).reconcile_on(woken);
        let (context, children) = (self.context.clone(), self.children.clone());
        self.control(controller, move |resource| {
            let (context, children) = (context.clone(), children.clone());
            async move { name_server::reconcile(&resource, &context, &children).await }
        })
        .await;
    }

    async fn brokers(&self, changes: Changes<Broker>) {
        self.until_listed(&self.context.declared.name_servers).await;
        let store = self.context.declared.brokers.clone();
        let woken = self.touches.woken(store.clone(), |touch, resource| match touch {
            Touch::NameServer { namespace, name } => {
                resource.namespace().as_ref() == Some(namespace)
                    && resource.0.as_ref().is_ok_and(|broker| {
                        let reference = broker.spec.name_server_ref.as_ref();
                        reference.is_some_and(|reference| reference.name == *name)
                    })
            }
            Touch::Nodes => true,
            touch => is_touched(touch, Role::Broker, resource),
        });
        let controller = Controller::for_stream(changes, store).reconcile_on(woken);
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
        self.until_listed(&self.context.declared.brokers).await;
        let (touches, health) = (self.touches.clone(), self.health.clone());
        let api = self.scope.api(&self.client);
        let (store, changes) = watch::<K>(api, health, move |event| match event {
            Event::Delete(DeserializeGuard(Ok(gone))) => touches.tell(Touch::Undeclared {
                kind: K::kind(&()).into_owned(),
                namespace: gone.namespace().unwrap_or_default(),
                broker: gone.broker_name().to_owned(),
            }),
            Event::InitDone => touches.tell(Touch::Everything),
            Event::Delete(_) | Event::Apply(_) | Event::Init | Event::InitApply(_) => {}
        });
        let woken = self.touches.woken(store.clone(), |touch, resource: &DeserializeGuard<K>| {
            let Ok(resource) = &resource.0 else { return false };
            let is_at = |namespace: &String, broker: &String| {
                resource.namespace().as_ref() == Some(namespace) && resource.broker_name() == broker
            };
            match touch {
                Touch::Broker { namespace, name } => is_at(namespace, name),
                // One that is declared as it should be has nothing to gain.
                Touch::Undeclared { kind, namespace, broker } => {
                    *kind == K::kind(&())
                        && is_at(namespace, broker)
                        && !declared::is_done(resource)
                }
                Touch::Object(_) | Touch::NameServer { .. } | Touch::Nodes | Touch::Everything => {
                    false
                }
            }
        });
        let controller = Controller::for_stream(changes, store.clone()).reconcile_on(woken);
        let (context, children) = (self.context.clone(), self.children.clone());
        self.control(controller, move |resource| {
            let (context, children) = (context.clone(), children.clone());
            let others = store.state();
            async move { declared::reconcile(&*resource, &others, &context, &children).await }
        })
        .await;
    }

    /// Waits until the resources that a controller looks up are known.
    async fn until_listed<K>(&self, resources: &Resources<K>)
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        tokio::select! {
            // An error means that nobody polls any more, so that nothing will be reconciled either.
            _ = resources.wait_until_ready() => {}
            () = self.shutdown.cancelled() => {}
        }
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
                    let count = failed.lock().get(&uid).map_or(1, |failures| failures.count);
                    Action::requeue(pause_after(count))
                },
                Arc::new(()),
            )
            .for_each(|_| std::future::ready(()))
            .await;
    }
}

/// Whether an object of this resource changed.
fn is_touched<K>(touch: &Touch, role: Role, resource: &DeserializeGuard<K>) -> bool
where
    K: Resource<DynamicType = ()>,
{
    let Touch::Object(touched) = touch else { return false };
    touched.name == role.label()
        && touched.instance == resource.name_any()
        && resource.namespace().as_ref() == Some(&touched.namespace)
}

/// Failures of a resource in a row.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    /// Those that were told, at most [`TOLD_MAX`].
    told: BTreeSet<String>,
}

impl Failures {
    /// Counts one more. Whether it is news: some come and go by turns.
    fn is_news(&mut self, failure: String) -> bool {
        self.count += 1;
        self.told.len() < TOLD_MAX && self.told.insert(failure)
    }
}

/// Counts, and tells of a failure that is another one than those before in a row.
async fn timed<K>(
    context: &Context,
    resource: &K,
    reconciled: impl Future<Output = Result<Action, Error>>,
    failures: &Mutex<BTreeMap<String, Failures>>,
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
            let is_news = failures.lock().entry(uid).or_default().is_news(error.to_string());
            let (name, namespace) = (resource.name_any(), resource.namespace());
            if is_news {
                tracing::warn!(%kind, name, namespace, %error, "not as it is declared");
                let type_ = kube::runtime::events::EventType::Warning;
                let (about, why) = (error.about(namespace), error.reason());
                context
                    .event_about(resource, about, type_, "Reconcile", why, error.to_string())
                    .await;
            } else {
                tracing::debug!(%kind, name, namespace, %error, "still not as it is declared");
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_in_a_row_is_told_once() {
        let mut failures = Failures::default();
        let told = ["a", "a", "b", "a", "b", "c"].map(|one| failures.is_news(one.to_owned()));
        assert_eq!(told, [true, false, true, false, false, true]);
        assert_eq!(failures.count, 6);
        let news = (0..100).filter(|at| failures.is_news(at.to_string())).count();
        assert_eq!(news, TOLD_MAX - 3, "one that is never the same");
    }
}
