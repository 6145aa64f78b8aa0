//! Rules of the schemas in CEL, which the API server keeps.

use kube::core::Rule;
use serde_json::{Value, json};

/// Pods, Services and labels are named after the resource. A label has 63 characters, and a Service's
/// name is one label of DNS that begins with a letter (RFC 1035).
pub(super) fn name_at_most(length: usize) -> Rule {
    let message = format!(
        "metadata.name must have at most {length} characters, begin with a letter and have no dots: pods, Services and their host names are named after it"
    );
    let rule = format!(
        "size(self.metadata.name) <= {length} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    );
    Rule::new(rule).message(message.as_str())
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
