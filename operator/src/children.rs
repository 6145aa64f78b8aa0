//! The objects that the operator makes: watched, applied where they differ, and deleted when nobody
//! wants them any more.
//!
//! Everything carries three labels: the operator's, the kind's and the resource's name. By these it is
//! found again; nothing is remembered that a restart would lose.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{SelectAll, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    ConfigMap, ObjectReference, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, PostParams,
    Preconditions, PropagationPolicy,
};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::conditions;
use crate::context::{Error, MANAGER};
use crate::deleted_records::DeletedRecords;
use crate::kinds::BrokerGroup;
use crate::metrics::Metrics;
use crate::pods;
use crate::typed::Typed;
use crate::watch_health::WatchHealth;

/// The label by which the operator's objects are found.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// What a pod is: see [`crate::pods::Role`].
pub(crate) const NAME: &str = "app.kubernetes.io/name";
/// The resource that an object belongs to.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";
/// The annotation with a digest of what was applied last.
const APPLIED: &str = "weirmq.io/applied";

/// An object that was seen changing: which kind of resource it belongs to, and which one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) name: String,
    pub(crate) instance: String,
    pub(crate) namespace: String,
}

/// Where the operator looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    Cluster,
    Namespace(String),
}

impl Scope {
    pub(crate) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }

    fn dynamic(&self, client: &Client, resource: &ApiResource) -> Api<DynamicObject> {
        match self {
            Self::Cluster => Api::all_with(client.clone(), resource),
            Self::Namespace(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        }
    }
}

/// Everything that the operator made, as its watches saw it last.
pub(crate) struct Children {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
    watched: BTreeMap<String, Watched>,
    applied: Mutex<BTreeMap<Key, Applied>>,
    typed: Typed,
    /// Of groups that somebody deleted.
    pub(crate) deleted_records: Arc<DeletedRecords>,
}

struct Watched {
    resource: ApiResource,
    store: Store<DynamicObject>,
}

/// Kind, namespace, name.
type Key = (String, String, String);

/// What was applied last, and which version came of it.
struct Applied {
    wanted: String,
    version: String,
    generation: Option<i64>,
}

impl Children {
    /// Begins to watch. The stream has to be polled: it is what keeps the view new, and says which
    /// resource to look at again.
    pub(crate) fn watch(
        client: &Client,
        scope: &Scope,
        recorder: Recorder,
        metrics: Metrics,
        health: &WatchHealth,
    ) -> (Self, impl Stream<Item = Touched> + Send + use<>) {
        let resources = [
            ApiResource::erase::<StatefulSet>(&()),
            ApiResource::erase::<Pod>(&()),
            ApiResource::erase::<Service>(&()),
            ApiResource::erase::<ConfigMap>(&()),
            ApiResource::erase::<ServiceAccount>(&()),
            ApiResource::erase::<Role>(&()),
            ApiResource::erase::<RoleBinding>(&()),
            ApiResource::erase::<PodDisruptionBudget>(&()),
            ApiResource::erase::<NetworkPolicy>(&()),
            ApiResource::erase::<BrokerGroup>(&()),
        ];
        let deleted_records = Arc::<DeletedRecords>::default();
        let mut watched = BTreeMap::new();
        let mut streams: SelectAll<Pin<Box<dyn Stream<Item = Touched> + Send>>> = SelectAll::new();
        for resource in resources {
            let api = scope.dynamic(client, &resource);
            let is_record = resource.kind == BrokerGroup::kind(&());
            let config = match is_record {
                // All of them: see [`DeletedRecords`].
                true => watcher::Config::default(),
                false => watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}")),
            };
            let is_pod = resource.kind == Pod::kind(&());
            let deleted = is_record.then(|| deleted_records.clone());
            let writer = reflector::store::Writer::new(resource.clone());
            let store = writer.as_reader();
            let (health, kind) = (health.clone(), resource.kind.clone());
            let stream = watcher(api, config)
                .default_backoff()
                .inspect(move |said| health.see(&kind, said))
                .modify(move |object| leave_out(object, is_pod))
                .inspect_ok(move |event| {
                    deleted.iter().for_each(|deleted| deleted.see(event));
                })
                .reflect(writer)
                .touched_objects()
                .filter_map(|object| async move { touched(&object.ok()?) });
            streams.push(Box::pin(stream));
            watched.insert(resource.kind.clone(), Watched { resource, store });
        }
        let (client, applied, typed) = (client.clone(), Mutex::default(), Typed::default());
        (Self { client, recorder, metrics, watched, applied, typed, deleted_records }, streams)
    }

    /// Returns once every kind was listed once.
    pub(crate) async fn wait_until_listed(&self) {
        for watched in self.watched.values() {
            // An error means that nobody polls any more, so that nothing will be reconciled either.
            let _ = watched.store.wait_until_ready().await;
        }
    }

    /// One of the operator's objects as it was seen last.
    pub(crate) fn get<K: DeserializeOwned + Send + Sync + 'static>(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<K>> {
        self.typed.of(&self.find(kind, namespace, name)?)
    }

    /// All of a kind that belong to a resource, and are `wanted` by their metadata.
    pub(crate) fn of<K: DeserializeOwned + Send + Sync + 'static>(
        &self,
        kind: &str,
        namespace: &str,
        owner: (&str, &str),
        wanted: impl Fn(&ObjectMeta) -> bool,
    ) -> Vec<Arc<K>> {
        let objects = self.objects_of(kind, namespace, owner);
        let wanted = objects.iter().filter(|object| wanted(&object.metadata));
        wanted.filter_map(|object| self.typed.of(object)).collect()
    }

    /// The same as they were seen, for who looks at their metadata alone.
    pub(crate) fn objects_of(
        &self,
        kind: &str,
        namespace: &str,
        owner: (&str, &str),
    ) -> Vec<Arc<DynamicObject>> {
        let Some(watched) = self.watched.get(kind) else { return Vec::new() };
        let mut objects = watched.store.state();
        objects.retain(|object| {
            object.namespace().as_deref() == Some(namespace)
                && belongs(&object.metadata) == Some(owner)
        });
        objects
    }

    /// Makes `wanted` so, by server-side apply, unless it is, and answers with the object as it is
    /// then. Fields that are not named are left alone.
    ///
    /// # Errors
    /// Also when there is an object of this name that the operator did not make.
    pub(crate) async fn apply(&self, wanted: &Value) -> Result<Arc<DynamicObject>, Error> {
        let key = key(wanted);
        let (kind, namespace, name) = key.clone();
        let what = || format!("apply {kind} {name}");
        let Some(watched) = self.watched.get(&kind) else {
            unreachable!("{kind} is not among the kinds that are watched")
        };
        // What was taken out of a resource is no difference that could be seen in the object.
        // Maps of serde_json are sorted, so the text is the same for the same value.
        let hash = short_digest(&wanted.to_string());
        let mut wanted = wanted.clone();
        wanted["metadata"]["annotations"][APPLIED] = json!(hash);
        let found = self.find(&kind, &namespace, &name);
        if let Some(found) = &found {
            if !is_ours(&found.metadata, &wanted) {
                return Err(Error::NameTaken { kind, name });
            }
            let version = found.resource_version().unwrap_or_default();
            let is_known = self
                .applied
                .lock()
                .get(&key)
                .is_some_and(|applied| applied.wanted == hash && applied.version == version);
            if is_known {
                return Ok(found.clone());
            }
            if holds(&serde_json::to_value(&**found).unwrap_or_default(), &wanted) {
                // So that this version need not be compared again.
                let mut applied = self.applied.lock();
                let generation = applied.get(&key).and_then(|applied| applied.generation);
                applied.insert(key, Applied { wanted: hash, version, generation });
                return Ok(found.clone());
            }
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &watched.resource);
        let mut somebody = None;
        match &found {
            Some(found) if found.annotations().get(APPLIED) == Some(&hash) => {
                somebody = Some("changed");
            }
            Some(_) => {}
            None => {
                let there = api.get_opt(&name).await.map_err(Error::kubernetes(what()))?;
                if there.as_ref().is_some_and(|there| !is_ours(&there.metadata, &wanted)) {
                    return Err(Error::NameTaken { kind, name });
                }
                let was_there = self.applied.lock().get(&key).is_some_and(|it| it.wanted == hash);
                somebody = match &there {
                    None => Some("deleted").filter(|_| was_there),
                    // The watch sees it by its labels.
                    Some(there) => {
                        Some("changed").filter(|_| !is_of_same_owner(&there.metadata, &wanted))
                    }
                };
            }
        }
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = api
            .patch(&name, &parameters, &Patch::Apply(&wanted))
            .await
            .map_err(Error::kubernetes(what()))?;
        let version = applied.resource_version().unwrap_or_default();
        let seen = found.as_ref().and_then(|found| found.resource_version());
        if seen.as_deref() != Some(&*version) {
            tracing::info!(kind, namespace, name, "applied");
            self.metrics.wrote(&kind);
        }
        let generation = applied.metadata.generation;
        if let Some(did) = somebody.filter(|_| self.is_other(&key, found.as_deref(), &applied)) {
            self.tell(&wanted, did).await;
        }
        self.applied.lock().insert(key, Applied { wanted: hash, version, generation });
        Ok(Arc::new(applied))
    }

    /// Whether what was applied is another one than what was there, and not what the watch has yet to show. A
    /// generation does not count statuses.
    fn is_other(&self, key: &Key, found: Option<&DynamicObject>, applied: &DynamicObject) -> bool {
        let known = self.applied.lock().get(key).map(|known| known.version.clone());
        let Some(found) = found else { return true };
        let version = applied.resource_version();
        known != version
            && match (found.metadata.generation, applied.metadata.generation) {
                (Some(before), Some(now)) => before != now,
                _ => found.resource_version() != version,
            }
    }

    /// Tells whoever owns an object that somebody else's doing was undone.
    async fn tell(&self, object: &Value, did: &str) {
        let (kind, namespace, name) = key(object);
        let owner = &object["metadata"]["ownerReferences"][0];
        let text = |key: &str| owner[key].as_str().map(str::to_owned);
        let (Some(owner_kind), Some(owner)) = (text("kind"), text("name")) else { return };
        let regarding = ObjectReference {
            api_version: text("apiVersion"),
            kind: Some(owner_kind.clone()),
            namespace: Some(namespace),
            name: Some(owner.clone()),
            uid: text("uid"),
            ..ObjectReference::default()
        };
        let note = format!(
            "somebody {did} {kind} {name}, which is as declared again; change {owner_kind} {owner} instead"
        );
        tracing::warn!(kind, name, did, "put back");
        let event = Event {
            type_: EventType::Warning,
            reason: "PutBack".to_owned(),
            note: Some(conditions::note(note)),
            action: "Reconcile".to_owned(),
            // Events that differ in their note alone are one to Kubernetes.
            secondary: Some(ObjectReference {
                api_version: object["apiVersion"].as_str().map(str::to_owned),
                kind: Some(kind),
                namespace: regarding.namespace.clone(),
                name: Some(name),
                ..ObjectReference::default()
            }),
        };
        if let Err(error) = self.recorder.publish(&event, &regarding).await {
            tracing::warn!(%error, owner, "event not written");
        }
    }

    /// The generation of an object since it was applied last: what the watch says of an earlier one is
    /// not the whole truth. `None` where it was found as it should be.
    pub(crate) fn applied_generation(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<i64> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        self.applied.lock().get(&key).and_then(|applied| applied.generation)
    }

    /// Makes an object of a kind that is not watched, unless there is one: what is in it is somebody else's
    /// from then on.
    ///
    /// # Errors
    /// Also when there is an object of this name that the operator did not make, as far as it may look.
    pub(crate) async fn create_once(
        &self,
        resource: &ApiResource,
        wanted: &Value,
    ) -> Result<(), Error> {
        let key = key(wanted);
        // A resource that was deleted and made again is another one.
        let owner = wanted["metadata"]["ownerReferences"].to_string();
        if self.applied.lock().get(&key).is_some_and(|applied| applied.wanted == owner) {
            return Ok(());
        }
        let (kind, namespace, name) = key.clone();
        let what = || format!("create {kind} {name}");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, resource);
        let object = serde_json::from_value(wanted.clone())
            .map_err(|error| Error::kubernetes(what())(kube::Error::SerdeError(error)))?;
        // Without looking first: so nobody has to be allowed to read every secret.
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {
                tracing::info!(kind, namespace, name, "created");
                self.metrics.wrote(&kind);
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let found = match api.get_metadata_opt(&name).await {
                    Err(kube::Error::Api(status)) if status.is_forbidden() => None,
                    found => found.map_err(Error::kubernetes(what()))?,
                };
                if let Some(PartialObjectMeta { metadata: found, .. }) = found {
                    if !is_ours(&found, wanted) {
                        return Err(Error::NameTaken { kind, name });
                    }
                    let taken = self.take_over(&api, &name, found, wanted).await;
                    taken.map_err(Error::kubernetes(what()))?;
                }
            }
            Err(error) => return Err(Error::kubernetes(what())(error)),
        }
        let there = Applied { wanted: owner, version: String::new(), generation: None };
        self.applied.lock().insert(key, there);
        Ok(())
    }

    /// Has an object that was made for an earlier resource of the same name go with the present one: the
    /// garbage collector would take it soon, as its owner is gone. One that is to stay by now loses its
    /// owner. Where the operator may not change it, nothing is done.
    async fn take_over(
        &self,
        api: &Api<DynamicObject>,
        name: &str,
        found: ObjectMeta,
        wanted: &Value,
    ) -> kube::Result<()> {
        let owners = &wanted["metadata"]["ownerReferences"];
        let is_as_wanted = match owners.is_null() {
            true => found.owner_references.as_ref().is_none_or(Vec::is_empty),
            false => is_owned(&found, &wanted["metadata"]),
        };
        if is_as_wanted {
            return Ok(());
        }
        let version = found.resource_version;
        let patch =
            json!({ "metadata": { "ownerReferences": owners, "resourceVersion": version } });
        match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {
                tracing::info!(
                    name,
                    stays = owners.is_null(),
                    "goes with its resource by now, or stays"
                );
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a Secret of this name. One that was there is believed to be, unless `look` says
    /// to look again.
    ///
    /// It is tried whether one could be made, because nobody may look at a Secret's name alone: who may
    /// get it may read it.
    pub(crate) async fn has_secret(
        &self,
        namespace: &str,
        name: &str,
        look: bool,
    ) -> Result<bool, Error> {
        let key = ("Secret".to_owned(), namespace.to_owned(), name.to_owned());
        if !look && self.applied.lock().contains_key(&key) {
            return Ok(true);
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, ..Secret::default() };
        let tried = PostParams { dry_run: true, ..PostParams::default() };
        match api.create(&tried, &secret).await {
            Ok(_) => {
                self.applied.lock().remove(&key);
                Ok(false)
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let there =
                    Applied { wanted: String::new(), version: String::new(), generation: None };
                self.applied.lock().insert(key, there);
                Ok(true)
            }
            // Some policy of the cluster: nothing is known, and nobody is held up.
            Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
                tracing::debug!(namespace, name, "it cannot be told whether this Secret is there");
                Ok(true)
            }
            Err(error) => Err(Error::kubernetes(format!("look for Secret {name}"))(error)),
        }
    }

    /// Has [`Children::create_once`] look again whether the object is there.
    pub(crate) fn doubt(&self, wanted: &Value) {
        self.applied.lock().remove(&key(wanted));
    }

    /// Deletes what belongs to a resource and is not wanted any more; never pods, which their
    /// StatefulSets delete, nor authority records, which live as long as the disks, nor what another
    /// resource owns and somebody gave the labels of this one.
    pub(crate) async fn delete_others(
        &self,
        namespace: &str,
        owner: (&str, &str),
        wanted: &[Value],
    ) -> Result<(), Error> {
        let wanted: Vec<Key> = wanted.iter().map(key).collect();
        for (kind, watched) in &self.watched {
            if kind == "Pod" || kind == "BrokerGroup" {
                continue;
            }
            for object in watched.store.state() {
                let name = object.name_any();
                let key = (kind.clone(), namespace.to_owned(), name.clone());
                if object.namespace().as_deref() != Some(namespace)
                    || resource_of(&object.metadata) != Some(owner)
                    || object.metadata.deletion_timestamp.is_some()
                    || wanted.contains(&key)
                {
                    continue;
                }
                self.delete(kind, namespace, &name, object.uid()).await?;
            }
        }
        Ok(())
    }

    /// Deletes the object with this uid, if it is still there, and what belongs to it.
    pub(crate) async fn delete(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        uid: Option<String>,
    ) -> Result<(), Error> {
        self.delete_with(kind, namespace, name, uid, PropagationPolicy::Background).await
    }

    /// The same, and what belongs to it stays.
    pub(crate) async fn delete_alone(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        uid: Option<String>,
    ) -> Result<(), Error> {
        self.delete_with(kind, namespace, name, uid, PropagationPolicy::Orphan).await
    }

    async fn delete_with(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        uid: Option<String>,
        propagation: PropagationPolicy,
    ) -> Result<(), Error> {
        let Some(watched) = self.watched.get(kind) else { return Ok(()) };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &watched.resource);
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let propagation_policy = Some(propagation);
        let parameters =
            DeleteParams { preconditions, propagation_policy, ..DeleteParams::default() };
        match api.delete(name, &parameters).await {
            Ok(_) => {
                tracing::info!(kind, namespace, name, "deleted");
                self.metrics.wrote(kind);
                // Nobody else has deleted it.
                let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
                self.applied.lock().remove(&key);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            Err(error) => Err(Error::kubernetes(format!("delete {kind} {name}"))(error)),
        }
    }

    fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let watched = self.watched.get(kind)?;
        let reference = ObjectRef::new_with(name, watched.resource.clone()).within(namespace);
        watched.store.get(&reference)
    }
}

/// What nobody looks at need not be kept: of each object who wrote which field, and of a pod most of what its
/// containers are like, which is more than all the rest.
fn leave_out(object: &mut DynamicObject, is_pod: bool) {
    object.metadata.managed_fields = None;
    if is_pod && let Some(spec) = object.data.get_mut("spec") {
        let containers = spec["containers"].as_array().into_iter().flatten();
        let containers: Vec<Value> =
            containers.map(|one| json!({ "name": one["name"], "image": one["image"] })).collect();
        *spec = json!({ "nodeName": spec["nodeName"], "containers": containers });
    }
}

/// By its resource where that owns it, as somebody may have changed its labels or taken them away; otherwise, as
/// of pods, by its labels.
fn touched(object: &DynamicObject) -> Option<Touched> {
    let (name, instance) = resource_of(&object.metadata).or_else(|| belongs(&object.metadata))?;
    let namespace = object.namespace()?;
    Some(Touched { name: name.to_owned(), instance: instance.to_owned(), namespace })
}

/// Whose it is: by its controlling owner, or by its labels where it has none.
fn resource_of(metadata: &ObjectMeta) -> Option<(&str, &str)> {
    let mut owners = metadata.owner_references.iter().flatten();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(owner) => Some((pods::Role::of_kind(&owner.kind)?.label(), &owner.name)),
        None => belongs(metadata),
    }
}

/// The kind's name and the resource's, of an object that the operator made.
fn belongs(metadata: &ObjectMeta) -> Option<(&str, &str)> {
    let labels = metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
        return None;
    }
    Some((labels.get(NAME)?, labels.get(INSTANCE)?))
}

fn key(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// The first 8 bytes of its SHA-256, in hexadecimal: enough to see that a text is another one.
pub(crate) fn short_digest(text: &str) -> String {
    let mut hash = sha256(text);
    hash.truncate(16);
    hash
}

/// As `sha256sum` shows it.
pub(crate) fn sha256(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the operator may have it as it is wanted: it made it for the same resource. One from which somebody
/// took a label still says so by its owner.
fn is_ours(found: &ObjectMeta, wanted: &Value) -> bool {
    is_of_same_owner(found, wanted) || is_owned(found, &wanted["metadata"])
}

/// Whether it has the labels of what the operator makes for the same resource; it takes nobody else's.
pub(crate) fn is_of_same_owner(found: &ObjectMeta, wanted: &Value) -> bool {
    let labels = &wanted["metadata"]["labels"];
    belongs(found)
        .is_some_and(|(name, instance)| labels[NAME] == name && labels[INSTANCE] == instance)
}

/// Whether it goes when the owner goes that stands in the `metadata` that is wanted.
pub(crate) fn is_owned(found: &ObjectMeta, metadata: &Value) -> bool {
    let uid = &metadata["ownerReferences"][0]["uid"];
    let mut owners = found.owner_references.iter().flatten();
    owners.any(|owner| *uid == owner.uid)
}

/// Whether everything that is wanted is there; defaults of the API server may be as well.
pub(crate) fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            found.get(key).is_some_and(|found| holds(found, wanted))
                || (wanted.as_object().is_some_and(serde_json::Map::is_empty)
                    && !found.contains_key(key))
                || (wanted.as_array().is_some_and(Vec::is_empty) && !found.contains_key(key))
        }),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(found, wanted)| holds(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_pod_it_stays_known_what_runs_in_it_and_where() {
        let pod = json!({
            "metadata": { "name": "mq-0-0", "managedFields": [] },
            "spec": {
                "nodeName": "n0", "volumes": [],
                "containers": [{ "name": "broker", "image": "weirmq:1", "args": ["broker"] }],
            },
        });
        let mut pod = serde_json::from_value(pod).unwrap();
        leave_out(&mut pod, true);
        let broker = json!({ "name": "broker", "image": "weirmq:1" });
        assert_eq!(pod.data["spec"], json!({ "nodeName": "n0", "containers": [broker] }));
        assert!(pod.metadata.managed_fields.is_none());
    }

    #[test]
    fn defaults_of_the_server_are_no_difference_and_changes_are() {
        let wanted = json!({"spec": {"ports": [{"port": 1}], "selector": {}, "list": []}});
        let mut found = json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}], "type": "ClusterIP"}, "status": {}});
        assert!(holds(&found, &wanted));
        found["spec"]["ports"][0]["port"] = json!(2);
        assert!(!holds(&found, &wanted));
        found["spec"]["ports"] = json!([{"port": 1}, {"port": 3}]);
        assert!(!holds(&found, &wanted), "an entry that somebody added");
    }
}
