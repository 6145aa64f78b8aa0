//! The objects and their versions.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::answer::Refusal;
use crate::kinds::Kind;

/// How many changes a watch can go back.
const HISTORY: usize = 1_000;

/// Which object: kind, namespace, name.
pub(crate) type Key = (Kind, String, String);

/// How an object changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// It becomes the body; its status stays where the kind keeps that apart.
    Replace,
    /// Its status becomes the body's.
    ReplaceStatus,
    /// The body's fields are merged into it (RFC 7386).
    Merge,
    /// The same, and it is made where it is missing.
    Apply,
}

/// A change as watches see it.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) key: Key,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(crate) what: &'static str,
    pub(crate) object: Value,
}

#[derive(Debug)]
pub(crate) struct Objects {
    state: Mutex<State>,
    /// The version of the last change.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Value>,
    history: VecDeque<Event>,
    /// Watches from before this version are refused.
    oldest: u64,
}

impl Objects {
    pub(crate) fn new() -> Self {
        // Not 1, which tests use as a version that is too old.
        let state =
            State { version: 100, objects: BTreeMap::new(), history: VecDeque::new(), oldest: 100 };
        Self { state: Mutex::new(state), changed: watch::channel(100).0 }
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Value, Refusal> {
        let state = self.state.lock();
        state.objects.get(key).cloned().ok_or_else(|| Refusal::missing(key.0, &key.2))
    }

    pub(crate) fn list(&self, kind: Kind, namespace: &str) -> (u64, Vec<Value>) {
        let state = self.state.lock();
        let is_listed = |key: &&Key| key.0 == kind && key.1 == namespace;
        let keys = state.objects.keys().filter(is_listed);
        (state.version, keys.map(|key| state.objects[key].clone()).collect())
    }

    pub(crate) fn create(&self, key: &Key, mut object: Value) -> Result<Value, Refusal> {
        let mut state = self.state.lock();
        if state.objects.contains_key(key) {
            return Err(Refusal::exists(key.0, &key.2));
        }
        if key.0.has_status
            && let Some(object) = object.as_object_mut()
        {
            object.remove("status");
        }
        complete(key, &mut object, None);
        key.0.fill_in_defaults(&mut object);
        state.validate(key, None, &object)?;
        Ok(self.store(&mut state, key, "ADDED", object))
    }

    /// The object as it is afterwards, and whether it was made.
    pub(crate) fn update(
        &self,
        key: &Key,
        update: Update,
        body: Value,
    ) -> Result<(Value, bool), Refusal> {
        let (kind, name) = (key.0, &key.2);
        let mut state = self.state.lock();
        let Some(before) = state.objects.get(key).cloned() else {
            let is_conditional = body["metadata"]["resourceVersion"].is_string();
            if update == Update::Apply && !is_conditional {
                drop(state);
                return self.create(key, body).map(|object| (object, true));
            }
            if update == Update::Apply {
                return Err(Refusal::replaced(key, "", ""));
            }
            return Err(Refusal::missing(kind, name));
        };
        let (asked, found) = (&body["metadata"], &before["metadata"]);
        let is_other = |field: &str| !asked[field].is_null() && asked[field] != found[field];
        let is_whole = matches!(update, Update::Replace | Update::ReplaceStatus);
        if is_whole && is_other("uid") {
            let uid = |metadata: &Value| metadata["uid"].as_str().unwrap_or_default().to_owned();
            return Err(Refusal::replaced(key, &uid(asked), &uid(found)));
        }
        if is_other("resourceVersion") {
            return Err(Refusal::changed(kind, name));
        }
        if is_other("uid") {
            return Err(Refusal::invalid(kind, name, "metadata.uid: field is immutable"));
        }
        if is_whole && kind.has_status && asked["resourceVersion"].is_null() {
            let why = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
            return Err(Refusal::invalid(kind, name, why));
        }
        let mut next = changed(kind, update, &before, body);
        complete(key, &mut next, Some(&before));
        state.validate(key, Some(&before), &next)?;
        // As the real one: what changes nothing is done, and is no new version.
        if next == before {
            return Ok((before, false));
        }
        Ok((self.store(&mut state, key, "MODIFIED", next), false))
    }

    pub(crate) fn delete(&self, key: &Key) -> Result<Value, Refusal> {
        let mut state = self.state.lock();
        let Some(object) = state.objects.remove(key) else {
            return Err(Refusal::missing(key.0, &key.2));
        };
        Ok(self.note(&mut state, key, "DELETED", object))
    }

    /// The changes after a version, or the version before which nothing is known any more.
    pub(crate) fn since(&self, version: u64) -> Result<Vec<Event>, u64> {
        let state = self.state.lock();
        if version < state.oldest {
            return Err(state.oldest);
        }
        Ok(state.history.iter().filter(|event| event.version > version).cloned().collect())
    }

    /// Wakes at each change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Forgets all changes, as the real one does after five minutes.
    pub(crate) fn compact(&self) {
        let mut state = self.state.lock();
        state.history.clear();
        state.oldest = state.version;
    }

    /// A copy of everything, for [`Self::restore`].
    pub(crate) fn copy(&self) -> Vec<(Key, Value)> {
        self.state.lock().objects.clone().into_iter().collect()
    }

    /// Puts a copy back, as somebody who restores etcd does: versions are not counted back, but
    /// what the objects hold is, uids included.
    pub(crate) fn restore(&self, copy: Vec<(Key, Value)>) {
        let mut state = self.state.lock();
        state.objects.clear();
        for (key, object) in copy {
            self.store(&mut state, &key, "MODIFIED", object);
        }
    }

    fn store(&self, state: &mut State, key: &Key, what: &'static str, object: Value) -> Value {
        let object = self.note(state, key, what, object);
        state.objects.insert(key.clone(), object.clone());
        object
    }

    fn note(&self, state: &mut State, key: &Key, what: &'static str, mut object: Value) -> Value {
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let event =
            Event { version: state.version, key: key.clone(), what, object: object.clone() };
        state.history.push_back(event);
        if state.history.len() > HISTORY
            && let Some(event) = state.history.pop_front()
        {
            state.oldest = event.version;
        }
        self.changed.send_replace(state.version);
        object
    }
}

impl State {
    fn validate(&self, key: &Key, before: Option<&Value>, next: &Value) -> Result<(), Refusal> {
        match key.0.fault_of(before, next) {
            Some(fault) => Err(Refusal::invalid(key.0, &key.2, &fault)),
            None => Ok(()),
        }
    }
}

/// The object that an update makes of `before`.
fn changed(kind: Kind, update: Update, before: &Value, body: Value) -> Value {
    match update {
        Update::Replace => {
            let mut next = body;
            if kind.has_status {
                next["status"] = before["status"].clone();
            }
            next
        }
        Update::ReplaceStatus => {
            let mut next = before.clone();
            next["status"] = body["status"].clone();
            next
        }
        Update::Merge | Update::Apply => {
            let mut next = before.clone();
            let status = next["status"].take();
            merge(&mut next, &body);
            if kind.has_status {
                next["status"] = status;
            }
            next
        }
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            if let Some(target) = target.as_object_mut() {
                target.remove(key);
            }
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// Fills in what the server itself decides.
fn complete(key: &Key, object: &mut Value, before: Option<&Value>) {
    let (kind, namespace, name) = key;
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.name);
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    let metadata = &mut object["metadata"];
    metadata["name"] = json!(name);
    metadata["namespace"] = json!(namespace);
    if let Some(before) = before {
        for field in ["uid", "creationTimestamp", "resourceVersion"] {
            metadata[field] = before["metadata"][field].clone();
        }
    } else {
        metadata["uid"] = json!(Uuid::new_v4().to_string());
        metadata["creationTimestamp"] = json!(format!("{:.0}", Timestamp::now()));
    }
    if kind.has_generation {
        object["metadata"]["generation"] = json!(generation(*kind, object, before));
    }
}

/// Counts the changes outside of metadata and status, and of an `EndpointSlice` those of its labels.
fn generation(kind: Kind, object: &Value, before: Option<&Value>) -> u64 {
    let Some(before) = before else { return 1 };
    let counted = |object: &Value| {
        let mut object = object.clone();
        let mut metadata = object["metadata"].take();
        object["status"].take();
        (object, (!kind.has_status).then(|| metadata["labels"].take()))
    };
    let known = before["metadata"]["generation"].as_u64().unwrap_or(1);
    known + u64::from(counted(object) != counted(before))
}
