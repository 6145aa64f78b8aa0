//! Accepting connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::run::run as run_connection;
use super::{Connection, Limits, Service};

/// A TLS handshake begins with this byte; no frame of an allowed length does.
const TLS_FIRST_BYTE: u8 = 0x16;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to send their last answers at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a listener treats its connections.
#[derive(Clone, Default)]
pub struct ServerConfig {
    pub limits: Limits,
    /// More connections than this are closed at once; `None`: as many as the process can open.
    pub connections_max: Option<usize>,
    /// With it the port takes TLS and plaintext, told apart by the first byte.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The runtimes that connections are spread over; empty: the one that [`run`] runs on.
    pub io_threads: Vec<Handle>,
}

/// Serves `listener` until `shutdown` is cancelled, then closes what is left after its answers
/// have gone out.
pub async fn run<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    config: ServerConfig,
    shutdown: CancellationToken,
) {
    let tracker = TaskTracker::new();
    let mut next_thread = 0;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if config.connections_max.is_some_and(|max| tracker.len() >= max) {
            tracing::warn!(limit = config.connections_max, "connection refused: too many");
            continue;
        }
        let config_of_one = config.clone();
        let service = service.clone();
        let shutdown = shutdown.clone();
        if config.io_threads.is_empty() {
            tracker.spawn(serve_stream(Ok(stream), service, 0, config_of_one, shutdown));
        } else if let Ok(stream) = stream.into_std() {
            // The socket has to be registered with the runtime that will poll it.
            let number = next_thread % config.io_threads.len();
            next_thread = next_thread.wrapping_add(1);
            let serve = async move {
                let stream = TcpStream::from_std(stream);
                serve_stream(stream, service, number, config_of_one, shutdown).await;
            };
            tracker.spawn_on(serve, &config.io_threads[number]);
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "connections did not end in time");
    }
}

async fn serve_stream<S: Service>(
    stream: io::Result<TcpStream>,
    service: Arc<S>,
    io_thread: usize,
    config: ServerConfig,
    shutdown: CancellationToken,
) {
    let accepted = tokio::select! {
        () = shutdown.cancelled() => return,
        accepted = accept(stream, &config) => accepted,
    };
    let (connection, stream) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(%error, "connection refused");
            return;
        }
    };
    let session = service.connected(&connection, io_thread);
    let serve = async {
        match stream {
            Stream::Plain(stream) => {
                let (reader, writer) = stream.into_split();
                run_connection(reader, writer, connection.clone(), session, config.limits).await;
            }
            Stream::Tls(stream) => {
                let (reader, writer) = tokio::io::split(stream);
                run_connection(reader, writer, connection.clone(), session, config.limits).await;
            }
        }
    };
    tokio::pin!(serve);
    tokio::select! {
        biased;
        () = &mut serve => {}
        () = shutdown.cancelled() => {
            // What was just read may be answered by a task that is queued behind this one.
            tokio::task::yield_now().await;
            connection.close();
            serve.await;
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

async fn accept(
    stream: io::Result<TcpStream>,
    config: &ServerConfig,
) -> io::Result<(Connection, Stream)> {
    let stream = stream?;
    stream.set_nodelay(true)?;
    let connection = Connection::new(stream.peer_addr()?, stream.local_addr()?);
    if let Some(tls) = &config.tls
        && first_byte(&stream, &config.limits).await? == TLS_FIRST_BYTE
    {
        // Boxed, so that connections without TLS have no room for it in their tasks.
        let handshake = Box::pin(TlsAcceptor::from(tls.clone()).accept(stream));
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        return Ok((connection, Stream::Tls(Box::new(stream))));
    }
    Ok((connection, Stream::Plain(stream)))
}

/// The first byte a peer sends, left in the socket. Waits as long as an idle connection may last:
/// clients connect ahead of their first request.
async fn first_byte(stream: &TcpStream, limits: &Limits) -> io::Result<u8> {
    let mut byte = [0];
    let wait = limits.idle_timeout.unwrap_or(Duration::MAX);
    match tokio::time::timeout(wait, stream.peek(&mut byte)).await? {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(byte[0]),
        Err(error) => Err(error),
    }
}
