//! Objects as their types, read once for each version that a watch has seen.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

/// A look at a `Broker` asks some ten times for the same few objects, and to read one takes longer than all else
/// that is done with it.
#[derive(Default)]
pub(crate) struct Typed {
    /// By type, and by where the object is in memory: nothing else can be there as long as somebody points to it,
    /// weakly as well.
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    entries: HashMap<(TypeId, usize), Entry>,
    /// At so many entries those are forgotten that no watch has any more: twice as many as were left the last time,
    /// so that a list of all objects does not have each of them look at all others.
    forget_at: usize,
}

impl Read {
    fn insert(&mut self, key: (TypeId, usize), entry: Entry) {
        if self.entries.len() >= self.forget_at {
            self.entries.retain(|_, entry| entry.from.strong_count() > 0);
            self.forget_at = 2 * (self.entries.len() + 1);
        }
        self.entries.insert(key, entry);
    }
}

struct Entry {
    from: Weak<DynamicObject>,
    object: Arc<dyn Any + Send + Sync>,
}

impl Typed {
    /// The object as this type; `None`, which is said in the log, if it is none.
    pub(crate) fn of<K: DeserializeOwned + Send + Sync + 'static>(
        &self,
        object: &Arc<DynamicObject>,
    ) -> Option<Arc<K>> {
        let key = (TypeId::of::<K>(), Arc::as_ptr(object) as usize);
        let known = self.read.lock().entries.get(&key).map(|entry| entry.object.clone());
        if let Some(known) = known {
            return known.downcast().ok();
        }
        let value = serde_json::to_value(&**object);
        let parsed = match value.and_then(serde_json::from_value::<K>) {
            Ok(parsed) => Arc::new(parsed),
            Err(error) => {
                tracing::warn!(%error, name = object.name_any(), "object not understood");
                return None;
            }
        };
        let entry = Entry { from: Arc::downgrade(object), object: parsed.clone() };
        self.read.lock().insert(key, entry);
        Some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn object(data: &str) -> Arc<DynamicObject> {
        let object = json!({ "metadata": { "name": "a" }, "data": { "key": data } });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn each_version_is_read_once_and_forgotten_when_nobody_has_it_any_more() {
        let typed = Typed::default();
        let mut object_now = object("0");
        for version in 1..100 {
            let [first, again]: [Arc<ConfigMap>; 2] =
                [0; 2].map(|_| typed.of(&object_now).unwrap());
            assert!(Arc::ptr_eq(&first, &again));
            let data = first.data.as_ref().unwrap()["key"].clone();
            assert_eq!(data, (version - 1).to_string());
            object_now = object(&version.to_string());
        }
        assert!(typed.read.lock().entries.len() <= 2);
    }

    #[test]
    fn a_list_of_all_objects_has_them_looked_at_a_few_times_and_not_for_each() {
        const OBJECTS: usize = 1_000;
        let typed = Typed::default();
        let mut looked = 0;
        let mut listed = Vec::new();
        for _ in 0..3 {
            // The watch has the list before, until it has the whole new one.
            let mut again = Vec::new();
            for at in 0..OBJECTS {
                again.push(object(&at.to_string()));
                let before = typed.read.lock().forget_at;
                typed.of::<ConfigMap>(&again[at]).unwrap();
                looked += usize::from(typed.read.lock().forget_at != before);
            }
            listed = again;
        }
        assert!((1..20).contains(&looked), "{looked} times");
        assert!(typed.read.lock().entries.len() <= 3 * listed.len());
    }

    #[test]
    fn what_is_not_of_the_type_is_none() {
        let wrong = json!({ "metadata": { "name": "a" }, "data": 7 });
        let wrong = Arc::new(serde_json::from_value(wrong).unwrap());
        assert!(Typed::default().of::<ConfigMap>(&wrong).is_none());
    }
}
