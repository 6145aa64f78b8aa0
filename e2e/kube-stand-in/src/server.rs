//! The listener, the connections, and what a test can do to them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::answer::Refusal;
use crate::faults::{Effect, Fault, Faults, milliseconds};
use crate::objects::{Key, Objects};
use crate::requests::{Asked, Body, answer};

/// No larger body is read.
const BODY_BYTES_MAX: usize = 3 << 20;

/// How many requests are remembered.
const REQUESTS_MAX: usize = 100_000;

/// A running stand-in. It ends when the last copy is dropped.
#[derive(Clone)]
pub struct StandIn {
    shared: Arc<Shared>,
    _serving: Arc<JoinSet<()>>,
}

struct Shared {
    address: SocketAddr,
    objects: Arc<Objects>,
    faults: Faults,
    is_refusing: AtomicBool,
    /// Cancelled, and replaced, to cut all connections.
    cut: Mutex<CancellationToken>,
    /// Method and path with query of each request, oldest first.
    requests: Mutex<Vec<String>>,
    copy: Mutex<Vec<(Key, Value)>>,
}

impl StandIn {
    /// Serves at `listener`.
    ///
    /// # Errors
    /// Where the listener has no address.
    pub fn start(listener: TcpListener) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            objects: Arc::new(Objects::new()),
            faults: Faults::default(),
            is_refusing: AtomicBool::new(false),
            cut: Mutex::new(CancellationToken::new()),
            requests: Mutex::default(),
            copy: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, _serving: Arc::new(serving) })
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Sets a fault. The first that matches a request is the one it meets.
    pub fn fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Takes all faults away.
    pub fn mend(&self) {
        self.shared.faults.clear();
    }

    /// Closes each connection before it says anything, old ones too; or ends this.
    pub fn refuse(&self, is_refusing: bool) {
        self.shared.is_refusing.store(is_refusing, Ordering::Relaxed);
        if is_refusing {
            self.cut();
        }
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.cut.lock()).cancel();
    }

    /// Forgets the changes so far: watches from before are refused with 410.
    pub fn compact(&self) {
        self.shared.objects.compact();
    }

    /// Keeps a copy of all objects, as a backup of etcd.
    pub fn back_up(&self) {
        *self.shared.copy.lock() = self.shared.objects.copy();
    }

    /// Puts the copy in place of what is there.
    pub fn restore(&self) {
        self.shared.objects.restore(self.shared.copy.lock().clone());
    }

    /// Method and path with query of the requests so far, and forgets them.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.requests.lock())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    sleep(milliseconds(10)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        if shared.is_refusing.load(Ordering::Relaxed) {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let cut = shared.cut.lock().child_token();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let own = cut.clone();
            let service =
                service_fn(move |request| serve(Arc::clone(&shared), own.clone(), request));
            tokio::select! {
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

async fn serve(
    shared: Arc<Shared>,
    connection: CancellationToken,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    {
        let mut requests = shared.requests.lock();
        if requests.len() < REQUESTS_MAX {
            requests.push(format!("{} {}", head.method, head.uri));
        }
    }
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return Ok(answer(413, &Refusal::bad("the body is too large").body));
    };
    let act = |body: Bytes| {
        let media = head.headers.get("content-type").and_then(|media| media.to_str().ok());
        let asked = Asked::parse(&path, head.uri.query().unwrap_or_default())?;
        asked.act(&shared.objects, &head.method, media.unwrap_or_default(), &body)
    };
    let act = |body| act(body).unwrap_or_else(|refusal| answer(refusal.code, &refusal.body));
    let body = body.to_bytes();
    Ok(match shared.faults.meet(head.method.as_str(), &path) {
        None => act(body),
        Some(Effect::DelayMs(ms)) => {
            sleep(milliseconds(ms)).await;
            act(body)
        }
        Some(Effect::AnswerLateMs(ms)) => {
            let answer = act(body);
            sleep(milliseconds(ms)).await;
            answer
        }
        Some(Effect::Cut) => end(&connection).await,
        Some(Effect::LoseAnswer) => {
            act(body);
            end(&connection).await
        }
        Some(Effect::Hang) => std::future::pending().await,
        Some(Effect::Refuse(code)) => answer(code, &Refusal::injected(code).body),
        Some(Effect::AnswerWrongly(code)) => {
            act(body);
            answer(code, &Refusal::injected(code).body)
        }
    })
}

/// Cuts one connection.
async fn end(connection: &CancellationToken) -> Response<Body> {
    connection.cancel();
    std::future::pending().await
}
