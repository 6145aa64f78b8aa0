//! Keeps connections to the other replicas: dials some, takes those of others.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Shared;
use super::frame::Hello;
use super::handshake::{HandshakeError, Trust, accept, dial};
use super::link::{self, FromLink};
use super::strangers::Strangers;
use crate::Broker;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer may take to say who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection needs.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) broker: Arc<Broker>,
    pub(super) shared: Arc<Shared>,
    pub(super) hello: Hello,
    pub(super) trust: Trust,
    /// A peer of whom nothing was heard for so long is not there.
    pub(super) silence: Duration,
    pub(super) events: mpsc::Sender<FromLink>,
}

impl Ends {
    /// A new hello: no nonce is used twice.
    fn hello(&self) -> Hello {
        Hello { nonce: Uuid::new_v4(), ..self.hello.clone() }
    }

    async fn serve(&self, stream: TcpStream, peer: Hello) {
        self.shared.peers.connected(peer.member.replica.0, &peer.address);
        let (store, events) = (&self.broker.store, self.events.clone());
        link::run(stream, peer.member, store, &self.shared, self.silence, events).await;
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
        let (mut stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept of a replica failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (ends, strangers) = (ends.clone(), strangers.clone());
        let serve = async move {
            stream.set_nodelay(true)?;
            let own = ends.hello();
            let stranger = strangers.welcome(address.ip().to_canonical());
            let handshake = accept(&mut stream, &own, &ends.trust);
            let peer = tokio::select! {
                () = stranger.is_ended.cancelled() => return Err(HandshakeError::Displaced),
                peer = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => peer,
            };
            let peer = peer.map_err(std::io::Error::from)??;
            drop(stranger);
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
                tracing::warn!(%address, %error, "replication connection refused");
            }
        });
    }
}

/// Keeps a connection to the replica at `address` until `stop`.
pub(super) async fn keep_dialling(address: String, ends: Ends, stop: CancellationToken) {
    let mut pause = RETRY_FIRST;
    let mut last_reason = String::new();
    loop {
        let served = async {
            let connecting = TcpStream::connect(&address);
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let mut stream = stream.map_err(std::io::Error::from)??;
            stream.set_nodelay(true)?;
            let own = ends.hello();
            let handshake = dial(&mut stream, &own, &ends.trust);
            let peer = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
            let peer = peer.map_err(std::io::Error::from)??;
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
                last_reason.clear();
            }
            Err(error) => {
                let reason = error.to_string();
                if reason != last_reason {
                    tracing::warn!(address, reason, "replica not reached, trying on");
                    last_reason = reason;
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
