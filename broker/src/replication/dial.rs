//! Keeps connections to the other replicas: dials some, takes those of others.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use super::frame::Hello;
use super::handshake::{HandshakeError, Trust, accept, dial};
use super::link::{self, FromLink};
use super::refusals::Reason;
use super::strangers::Strangers;
use super::tls::Tls;
use crate::Broker;

/// A pod that is started anew has another address. Whoever tries the one that it had gets no answer there, and a
/// group that hands over to that pod waits for him: with 3 s nobody could send for up to 2.5 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a peer may take to say who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Short, because a replica that was started anew is about to become master, and then waits for whoever has not found
/// it again.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Reasons why a replica is not reached that are logged until it is.
const REASONS_SAID_MAX: usize = 8;
/// Pause after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// What a connection needs.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) broker: Arc<Broker>,
    pub(super) shared: Arc<Shared>,
    pub(super) hello: Hello,
    pub(super) trust: Trust,
    pub(super) tls: Option<Arc<Tls>>,
    /// A peer of whom nothing was heard for so long is not there.
    pub(super) silence: Duration,
    pub(super) events: mpsc::Sender<FromLink>,
}

impl Ends {
    /// A new hello: no nonce is used twice.
    fn hello(&self) -> Hello {
        Hello { nonce: Uuid::new_v4(), ..self.hello.clone() }
    }

    /// The connection as replicas speak on it: encrypted, where they are to.
    async fn encrypt(&self, stream: TcpStream, to: Option<&str>) -> Result<Stream, HandshakeError> {
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Either::Left(stream)) };
        let encrypted = match to {
            Some(address) => tls.connect(stream, address).await,
            None => tls.accept(stream).await,
        };
        encrypted.map(Either::Right).map_err(HandshakeError::Tls)
    }

    async fn serve(&self, stream: Stream, peer: Hello) {
        let replica = peer.member.replica.0;
        self.shared.peers.connected(replica, &peer.address);
        let (store, events) = (&self.broker.store, self.events.clone());
        let peer = (peer.member, peer.protocol);
        link::run(stream, peer, store, &self.shared, self.silence, events).await;
    }
}

/// Takes connections until `stop`.
pub(super) async fn listen(listener: TcpListener, ends: Ends, stop: CancellationToken) {
    let strangers = Arc::new(Strangers::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept of a replica failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (ends, strangers) = (ends.clone(), strangers.clone());
        let (shared, who) = (ends.shared.clone(), address.ip().to_canonical());
        let serve = async move {
            let own = ends.hello();
            let stranger = strangers.welcome(address.ip().to_canonical());
            let handshake = async {
                let mut stream = ends.encrypt(stream, None).await?;
                let peer = accept(&mut stream, &own, &ends.trust).await?;
                Ok::<_, HandshakeError>((stream, peer))
            };
            let met = tokio::select! {
                () = stranger.is_ended.cancelled() => return Err(HandshakeError::Displaced),
                met = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => met,
            };
            let (stream, peer) = met.map_err(std::io::Error::from)??;
            drop(stranger);
            ends.shared.counted.refusals.accepted(&who);
            ends.serve(stream, peer).await;
            Ok::<_, HandshakeError>(())
        };
        let stop = stop.clone();
        tokio::spawn(async move {
            let served = tokio::select! {
                () = stop.cancelled() => Ok(()),
                served = serve => served,
            };
            if let Err(error) = served {
                shared.refused(&who, error.reason(), &error);
            }
        });
    }
}

/// Keeps a connection to the replica at `address` until `stop`.
pub(super) async fn keep_dialling(address: String, ends: Ends, stop: CancellationToken) {
    let mut pause = RETRY_FIRST;
    let mut said = Vec::new();
    loop {
        let served = async {
            let connecting = TcpStream::connect(&address);
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let stream = stream.map_err(std::io::Error::from)??;
            let own = ends.hello();
            let handshake = async {
                let mut stream = ends.encrypt(stream, Some(&address)).await?;
                let peer = dial(&mut stream, &own, &ends.trust).await?;
                Ok::<_, HandshakeError>((stream, peer))
            };
            let met = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
            let (stream, peer) = met.map_err(std::io::Error::from)??;
            ends.shared.counted.refusals.accepted(&address);
            ends.serve(stream, peer).await;
            Ok::<_, HandshakeError>(())
        };
        let served = tokio::select! {
            () = stop.cancelled() => return,
            served = served => served,
        };
        match served {
            Ok(()) => {
                pause = RETRY_FIRST;
                said.clear();
            }
            Err(error) => {
                // One that is not there is not refused.
                let refused = Some(error.reason()).filter(|reason| *reason != Reason::Silent);
                if let Some(reason) = refused {
                    ends.shared.refused(&address, reason, &error);
                }
                let reason = error.to_string();
                let is_new = said.len() < REASONS_SAID_MAX && !said.contains(&reason);
                if refused.is_none() && is_new {
                    tracing::warn!(address, reason, "replica not reached, trying on");
                    said.push(reason);
                }
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
