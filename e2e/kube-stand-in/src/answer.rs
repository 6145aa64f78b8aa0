//! Answers other than objects, worded as the real one does.

use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::objects::Key;

/// A refusal: an object of kind `Status`.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

impl Refusal {
    fn new(code: u16, reason: &str, message: &str, details: Option<Value>) -> Self {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        if let Some(details) = details {
            body["details"] = details;
        }
        Self { code, body }
    }

    fn of(kind: Kind, name: &str, code: u16, reason: &str, message: &str) -> Self {
        let details = json!({ "name": name, "group": kind.group, "kind": kind.resource });
        Self::new(code, reason, message, Some(details))
    }

    pub(crate) fn missing(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.qualified());
        Self::of(kind, name, 404, "NotFound", &message)
    }

    pub(crate) fn exists(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.qualified());
        Self::of(kind, name, 409, "AlreadyExists", &message)
    }

    /// Another resourceVersion stands there.
    pub(crate) fn changed(kind: Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Another object of that name stands there.
    pub(crate) fn replaced((kind, namespace, name): &Key, expected: &str, found: &str) -> Self {
        let key = format!("/registry/{}/{}/{namespace}/{name}", kind.group, kind.resource);
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {expected}, \
             UID in object meta: {found}"
        );
        Self::conflict(*kind, name, &why)
    }

    fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::of(kind, name, 409, "Conflict", &message)
    }

    pub(crate) fn invalid(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("{}.{} {name:?} is invalid: {why}", kind.name, kind.group);
        let details = json!({ "name": name, "group": kind.group, "kind": kind.name });
        Self::new(422, "Invalid", &message, Some(details))
    }

    pub(crate) fn bad(message: &str) -> Self {
        Self::new(400, "BadRequest", message, None)
    }

    /// Also where a kind is not installed: that one is no object of kind `Status`.
    pub(crate) fn no_such_path() -> Self {
        Self { code: 404, body: json!("404 page not found\n") }
    }

    pub(crate) fn no_such_method() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    /// What a fault wants answered.
    pub(crate) fn injected(code: u16) -> Self {
        Self::new(code, "Injected", "this fault was asked for", None)
    }

    /// A watch from a version that is too far back.
    pub(crate) fn gone(asked: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {asked} ({oldest})");
        Self::new(410, "Expired", &message, None)
    }
}
