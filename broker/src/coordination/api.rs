//! One request to the Kubernetes API server, and what its answer means.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::timeout;

/// No object is larger: etcd takes 1.5 MiB.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How much of what a server says goes into a log line, in characters.
const SAID_MAX: usize = 300;

/// How a change of an object is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// The whole status, by PUT.
    ReplaceStatus,
    /// Some fields, by PATCH as of RFC 7386.
    Merge,
    /// Fields that this broker owns from then on, by PATCH; makes the object where it is missing.
    Apply,
}

/// A kind of the API.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) resource: &'static str,
    /// Who makes objects of the kind.
    pub(super) origin: &'static str,
}

/// Which object of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub(super) kind: &'static Kind,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl Object {
    /// The path of all objects of its kind in its namespace.
    fn collection(&self) -> String {
        let Kind { group, version, resource, .. } = self.kind;
        format!("/apis/{group}/{version}/namespaces/{}/{resource}", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    pub(super) fn api_version(&self) -> String {
        format!("{}/{}", self.kind.group, self.kind.version)
    }

    pub(super) fn unreadable(&self, why: impl Into<String>) -> Error {
        Error::Unreadable { object: self.clone(), why: why.into() }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in namespace {}", self.kind.name, self.name, self.namespace)
    }
}

/// Why the API server did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration of this process names no API server that can be used.
    #[error("no Kubernetes API server can be used: {0}")]
    Configuration(String),
    #[error("{0} does not exist; {origin}", origin = .0.kind.origin)]
    Missing(Object),
    #[error(
        "the API server does not know the kind {kind} of {group}/{version}; \
         apply the definitions that `weir crds` prints",
        kind = .0.kind.name, group = .0.kind.group, version = .0.kind.version
    )]
    KindMissing(Object),
    /// `subresource` is empty or begins with a slash.
    #[error(
        "{object}: this broker may not {verb} it: {said}; its Role needs the rule \
         {{apiGroups: [{group}], resources: [{resource}{subresource}], resourceNames: [{name}], \
         verbs: [{verb}]}}",
        group = object.kind.group, resource = object.kind.resource, name = object.name
    )]
    Forbidden { object: Object, subresource: &'static str, verb: &'static str, said: String },
    #[error(
        "{object}: the API server does not accept this broker's credentials: {said}; check the \
         token of its service account"
    )]
    Unauthorized { object: Object, said: String },
    /// Another version is there than the one that was to be changed.
    #[error("{0} was changed by somebody else")]
    Conflict(Object),
    #[error("{object}: the API server refuses the change ({code}): {said}")]
    Refused { object: Object, code: u16, said: String },
    /// The object is there and does not hold what it should.
    #[error("{object} cannot be read: {why}; nothing is decided until somebody mends it")]
    Unreadable { object: Object, why: String },
    #[error("{object}: no answer from the API server for {} ms", within.as_millis())]
    NoAnswer { object: Object, within: Duration },
    #[error("{object}: the API server cannot be reached: {why}")]
    Unreachable { object: Object, why: String },
    #[error("{object}: the API server fails ({code}): {said}")]
    Failing { object: Object, code: u16, said: String },
}

impl Error {
    /// Whether a change that was answered with this did not take effect and never will.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Self::Configuration(_)
            | Self::Missing(_)
            | Self::KindMissing(_)
            | Self::Forbidden { .. }
            | Self::Unauthorized { .. }
            | Self::Conflict(_)
            | Self::Refused { .. } => true,
            // A change with an answer that cannot be read took effect, but in which version?
            Self::Unreadable { .. }
            | Self::NoAnswer { .. }
            | Self::Unreachable { .. }
            | Self::Failing { .. } => false,
        }
    }

    /// Whether the same question may be answered a moment later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Unreachable { .. } | Self::Failing { .. })
    }
}

/// The API server.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    /// How long one request may take, connecting and reading the answer included.
    pub(super) request_timeout: Duration,
}

impl Api {
    /// # Errors
    /// [`Error::Configuration`].
    pub(super) fn new(mut config: Config, request_timeout: Duration) -> Result<Self, Error> {
        // A change that took effect and was answered 504 would be sent again and lose against
        // itself. Repeating is for callers, who know what they asked.
        config.default_retry = false;
        config.connect_timeout = Some(request_timeout);
        let client = Client::try_from(config);
        let client = client.map_err(|error| Error::Configuration(chain(&error)))?;
        Ok(Self { client, request_timeout })
    }

    /// Reads an object, as it is at a moment after this call: not from the server's cache.
    ///
    /// # Errors
    /// As the answer says.
    pub(super) async fn get(&self, object: &Object) -> Result<Value, Error> {
        // Without a resourceVersion a GET is a quorum read of etcd.
        self.ask(object, "", "get", request(Method::GET, object.path(), None, Vec::new())).await
    }

    /// Changes an object; `body` says of which version, unless it is to be any.
    ///
    /// # Errors
    /// As the answer says; [`Error::is_certain`] tells whether the change may have taken effect.
    pub(super) async fn change(
        &self,
        object: &Object,
        change: Change,
        body: &Value,
    ) -> Result<Value, Error> {
        // Strict: a field that the server's definition of the kind does not know is an error, not
        // taken away without a word.
        let path = object.path();
        let strict = "fieldManager=weir-broker&fieldValidation=Strict";
        let (method, path, media, subresource, verb) = match change {
            Change::ReplaceStatus => {
                (Method::PUT, format!("{path}/status?{strict}"), JSON, "/status", "update")
            }
            Change::Merge => (Method::PATCH, format!("{path}?{strict}"), MERGE, "", "patch"),
            Change::Apply => {
                (Method::PATCH, format!("{path}?{strict}&force=true"), APPLY, "", "patch")
            }
        };
        let request = request(method, path, Some(media), body.to_string().into_bytes());
        self.ask(object, subresource, verb, request).await
    }

    /// Begins a watch of one object, from its newest version on: the body goes on for `seconds` and
    /// has data at once and at each change.
    ///
    /// # Errors
    /// As the answer says.
    pub(super) async fn watch(
        &self,
        object: &Object,
        seconds: u64,
    ) -> Result<Response<Body>, Error> {
        // With this selector resourceNames in a Role hold for a watch.
        let selector = format!("fieldSelector=metadata.name%3D{}", object.name);
        let path =
            format!("{}?watch=true&timeoutSeconds={seconds}&{selector}", object.collection());
        let sent = self.client.send(request(Method::GET, path, None, Vec::new()));
        let response = self.in_time(object, sent).await?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let (status, body) = self.in_time(object, collect(response)).await?;
        Err(refusal(object, "", "watch", status, &body))
    }

    async fn ask(
        &self,
        object: &Object,
        subresource: &'static str,
        verb: &'static str,
        request: Request<Body>,
    ) -> Result<Value, Error> {
        let asked = async { collect(self.client.send(request).await?).await };
        let (status, body) = self.in_time(object, asked).await?;
        if !status.is_success() {
            return Err(refusal(object, subresource, verb, status, &body));
        }
        let value = serde_json::from_slice(&body);
        value.map_err(|error| object.unreadable(format!("the answer is no JSON ({error})")))
    }

    async fn in_time<T>(
        &self,
        object: &Object,
        asked: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let within = self.request_timeout;
        let answered = timeout(within, asked).await;
        let answered = answered.map_err(|_| Error::NoAnswer { object: object.clone(), within })?;
        answered.map_err(|error| Error::Unreachable { object: object.clone(), why: chain(&error) })
    }
}

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
/// JSON is YAML.
const APPLY: &str = "application/apply-patch+yaml";

fn request(method: Method, path: String, media: Option<&str>, body: Vec<u8>) -> Request<Body> {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = method;
    // Paths are made of names that were checked and of words that stand here.
    *request.uri_mut() = path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(http::header::ACCEPT, http::HeaderValue::from_static(JSON));
    if let Some(media) = media.and_then(|media| media.parse().ok()) {
        headers.insert(http::header::CONTENT_TYPE, media);
    }
    request
}

async fn collect(response: Response<Body>) -> Result<(StatusCode, Bytes), kube::Error> {
    let (head, body) = response.into_parts();
    let body =
        Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(kube::Error::Service)?;
    Ok((head.status, body.to_bytes()))
}

/// What an answer other than success means.
fn refusal(
    object: &Object,
    subresource: &'static str,
    verb: &'static str,
    status: StatusCode,
    body: &[u8],
) -> Error {
    let object = object.clone();
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = match answer["message"].as_str() {
        Some(message) => shortened(message),
        None => shortened(&String::from_utf8_lossy(body)),
    };
    let code = status.as_u16();
    match code {
        // An answer without details is not about this object, but about the path.
        404 if answer["details"]["name"].is_string() => Error::Missing(object),
        404 => Error::KindMissing(object),
        401 => Error::Unauthorized { object, said },
        403 => Error::Forbidden { object, subresource, verb, said },
        409 => Error::Conflict(object),
        // A proxy on the way gives these as well, and may have passed the request on.
        408 | 429 => Error::Failing { object, code, said },
        400..=499 => Error::Refused { object, code, said },
        _ => Error::Failing { object, code, said },
    }
}

fn shortened(said: &str) -> String {
    let mut short: String = said.chars().filter(|c| !c.is_control()).take(SAID_MAX).collect();
    if short.is_empty() {
        short.push_str("without a word");
    }
    short
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Many repeat their cause.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    shortened(&text)
}
