//! Requests to the API: what they ask for.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::answer::Refusal;
use crate::kinds::Kind;
use crate::objects::{Event, Key, Objects, Update};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A request for an object or for all of a kind.
#[derive(Debug)]
pub(crate) struct Asked {
    kind: Kind,
    namespace: String,
    name: Option<String>,
    is_status: bool,
    query: Vec<(String, String)>,
}

impl Asked {
    /// `/apis/GROUP/VERSION/namespaces/NAMESPACE/RESOURCE[/NAME[/status]]`.
    pub(crate) fn parse(path: &str, query: &str) -> Result<Self, Refusal> {
        let mut words = path.split('/').skip(1);
        let mut word = || words.next().filter(|word| !word.is_empty());
        let head = [word(), word(), word(), word(), word(), word()];
        let [
            Some("apis"),
            Some(group),
            Some(version),
            Some("namespaces"),
            Some(namespace),
            Some(resource),
        ] = head
        else {
            return Err(Refusal::no_such_path());
        };
        let kind = Kind::of(group, version, resource).ok_or_else(Refusal::no_such_path)?;
        let (name, subresource, rest) = (word(), word(), word());
        let is_status = subresource == Some("status") && kind.has_status;
        if subresource.is_some() != is_status || rest.is_some() {
            return Err(Refusal::no_such_path());
        }
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.replace("%3D", "="))
        });
        Ok(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.map(str::to_owned),
            is_status,
            query: pairs.collect(),
        })
    }

    fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn key(&self, name: &str) -> Key {
        (self.kind, self.namespace.clone(), name.to_owned())
    }

    /// Acts upon the request.
    pub(crate) fn act(
        &self,
        objects: &Arc<Objects>,
        method: &Method,
        media: &str,
        body: &[u8],
    ) -> Result<Response<Body>, Refusal> {
        let parsed = || {
            serde_json::from_slice::<Value>(body)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| Refusal::bad("the body is no object in JSON"))
        };
        let update = |update| -> Result<Response<Body>, Refusal> {
            let Some(name) = &self.name else { return Err(Refusal::no_such_method()) };
            let (object, is_new) = objects.update(&self.key(name), update, parsed()?)?;
            Ok(answer(if is_new { 201 } else { 200 }, &object))
        };
        match (method, &self.name) {
            (&Method::GET, Some(name)) => Ok(answer(200, &objects.get(&self.key(name))?)),
            (&Method::GET, None) if matches!(self.query("watch"), Some("true" | "1")) => {
                self.watch(objects)
            }
            (&Method::GET, None) => {
                let (version, items) = objects.list(self.kind, &self.namespace);
                let kind = format!("{}List", self.kind.name);
                Ok(answer(
                    200,
                    &json!({
                        "apiVersion": self.kind.api_version(), "kind": kind, "items": items,
                        "metadata": { "resourceVersion": version.to_string() },
                    }),
                ))
            }
            (&Method::POST, None) => {
                let object = parsed()?;
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                Ok(answer(201, &objects.create(&self.key(&name), object)?))
            }
            (&Method::DELETE, Some(name)) => Ok(answer(200, &objects.delete(&self.key(name))?)),
            (&Method::PUT, _) if self.is_status => update(Update::ReplaceStatus),
            (&Method::PUT, _) => update(Update::Replace),
            (&Method::PATCH, _) if !self.is_status => match media {
                "application/merge-patch+json" => update(Update::Merge),
                "application/apply-patch+yaml" if self.query("fieldManager").is_none() => {
                    Err(Refusal::bad("fieldManager is required for apply patch"))
                }
                "application/apply-patch+yaml" => update(Update::Apply),
                _ => Err(Refusal::bad("this kind of patch is not known here")),
            },
            _ => Err(Refusal::no_such_method()),
        }
    }

    fn watch(&self, objects: &Arc<Objects>) -> Result<Response<Body>, Refusal> {
        let selected = match self.query("fieldSelector") {
            None => None,
            Some(selector) => match selector.split_once("metadata.name=") {
                Some(("", name)) => Some(name.to_owned()),
                _ => return Err(Refusal::bad("only metadata.name can be selected by")),
            },
        };
        // Before the objects are looked at, so that no change falls between.
        let changes = objects.changes();
        let (from, first) = match self.query("resourceVersion") {
            None | Some("" | "0") => objects.list(self.kind, &self.namespace),
            Some(version) => {
                let version = version.parse();
                (version.map_err(|_| Refusal::bad("resourceVersion is no number"))?, Vec::new())
            }
        };
        let seconds = self.query("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
        let watching = Watching {
            objects: Arc::clone(objects),
            kind: self.kind,
            namespace: self.namespace.clone(),
            selected,
            until: Instant::now() + Duration::from_secs(seconds.unwrap_or(1_800)),
        };
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(watching.run(from, first, changes, sender));
        let body = Receiving(receiver).boxed();
        let mut response = Response::new(body);
        response.headers_mut().insert("content-type", http::HeaderValue::from_static(JSON));
        Ok(response)
    }
}

const JSON: &str = "application/json";

/// An object, or a refusal's body, as an answer; a string as plain text.
pub(crate) fn answer(code: u16, object: &Value) -> Response<Body> {
    let (text, media) = match object {
        Value::String(text) => (text.clone(), "text/plain"),
        object => (object.to_string(), JSON),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(media));
    response
}

struct Watching {
    objects: Arc<Objects>,
    kind: Kind,
    namespace: String,
    selected: Option<String>,
    until: Instant,
}

type Frames = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

impl Watching {
    async fn run(
        self,
        mut from: u64,
        first: Vec<Value>,
        mut changes: tokio::sync::watch::Receiver<u64>,
        frames: Frames,
    ) {
        for object in first {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if self.selected.as_ref().is_none_or(|selected| selected == name)
                && send(&frames, "ADDED", &object).await.is_err()
            {
                return;
            }
        }
        loop {
            let events = match self.objects.since(from) {
                Ok(events) => events,
                Err(oldest) => {
                    let refusal = Refusal::gone(from, oldest).body;
                    let _ = send(&frames, "ERROR", &refusal).await;
                    return;
                }
            };
            for event in events {
                from = event.version;
                if self.shows(&event) && send(&frames, event.what, &event.object).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(self.until) => return,
                () = frames.closed() => return,
            }
        }
    }

    fn shows(&self, event: &Event) -> bool {
        let (kind, namespace, name) = &event.key;
        *kind == self.kind
            && *namespace == self.namespace
            && self.selected.as_ref().is_none_or(|selected| selected == name)
    }
}

async fn send(frames: &Frames, what: &str, object: &Value) -> Result<(), ()> {
    let line = format!("{}\n", json!({ "type": what, "object": object }));
    frames.send(Ok(Frame::data(Bytes::from(line)))).await.map_err(|_| ())
}

/// What is received as a body.
struct Receiving(mpsc::Receiver<Result<Frame<Bytes>, Infallible>>);

impl hyper::body::Body for Receiving {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context)
    }
}
