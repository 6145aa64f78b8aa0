//! Rules of the schemas in CEL, which the API server keeps.

use kube::core::Rule;
use serde_json::{Value, json};

/// Pods and labels are named after the resource, and a label has 63 characters.
pub(super) fn name_at_most(length: usize) -> Rule {
    let message = format!(
        "metadata.name must have at most {length} characters: pods and their host names are named after it"
    );
    Rule::new(format!("size(self.metadata.name) <= {length}")).message(message.as_str())
}

pub(super) fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

pub(super) fn storage_stays() -> Value {
    rule(
        "has(self.storage) == has(oldSelf.storage)",
        "storage is given once, when the resource is made; make another one",
    )
}

pub(super) fn storage_grows_only() -> Value {
    rule(
        "!has(self.storage) || !has(oldSelf.storage) || !isQuantity(self.storage.size) || !isQuantity(oldSelf.storage.size) || quantity(self.storage.size).compareTo(quantity(oldSelf.storage.size)) >= 0",
        "storage.size never shrinks: a disk cannot",
    )
}

pub(super) fn storage_class_stays() -> Value {
    rule(
        "!has(self.storage) || !has(oldSelf.storage) || (has(self.storage.storageClassName) ? self.storage.storageClassName : '') == (has(oldSelf.storage.storageClassName) ? oldSelf.storage.storageClassName : '')",
        "storage.storageClassName does not change: the disks are there already; make another resource",
    )
}
