//! One connection per address, made when somebody needs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;
use weirmq_remoting::net::{ConnectError, Connection, Limits, connect};

use crate::ClientError;
use crate::inbound::{Groups, Inbound};

/// The connections of a client. All share [`Groups`], which their peers' requests are about.
pub(crate) struct Pool {
    peers: Mutex<HashMap<String, Arc<Peer>>>,
    connect_timeout: Duration,
    limits: Limits,
    groups: Arc<Groups>,
    /// Counts the connections' tasks: each session holds a token of it.
    tasks: TaskTracker,
    is_closed: AtomicBool,
}

/// An address and, while it is up, the connection to it.
#[derive(Default)]
struct Peer {
    connection: Mutex<Option<Connection>>,
    /// Whoever holds it connects; the others wait and take what came out.
    connecting: tokio::sync::Mutex<()>,
    /// Whoever holds it asks whether the peer is there; the others wait for what comes out.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// See [`Pool::one_way_bytes`].
    one_way_bytes: Arc<tokio::sync::Mutex<usize>>,
}

impl Peer {
    fn open_connection(&self) -> Option<Connection> {
        self.connection.lock().as_ref().filter(|connection| !connection.is_closed()).cloned()
    }
}

impl Pool {
    pub(crate) fn new(
        connect_timeout: Duration,
        frame_bytes_max: usize,
        groups: Arc<Groups>,
    ) -> Self {
        Self {
            peers: Mutex::default(),
            connect_timeout,
            limits: Limits { frame_bytes_max, ..Limits::default() },
            groups,
            tasks: TaskTracker::new(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// The open connection to `address`, or a new one.
    pub(crate) async fn connection(&self, address: &str) -> Result<Connection, ClientError> {
        let peer = self.peer(address)?;
        if let Some(open) = peer.open_connection() {
            return Ok(open);
        }
        let _turn = peer.connecting.lock().await;
        if let Some(open) = peer.open_connection() {
            return Ok(open);
        }
        let inbound = |connection: &Connection| {
            Inbound::new(connection.clone(), Arc::clone(&self.groups), self.tasks.token())
        };
        // Behind one address may be another machine by now, and who was led to the one that is gone
        // stays there until he begins anew.
        let first = self.connect_timeout / 3;
        let opened = match connect(address, first, self.limits.clone(), inbound).await {
            Err(ConnectError::Timeout { .. }) => {
                connect(address, self.connect_timeout - first, self.limits.clone(), inbound).await
            }
            done => done,
        }?;
        *peer.connection.lock() = Some(opened.clone());
        if self.is_closed.load(Ordering::Acquire) {
            opened.close();
            return Err(ClientError::ShutDown);
        }
        Ok(opened)
    }

    /// The open connection to `address`, if there is one.
    pub(crate) fn open(&self, address: &str) -> Option<Connection> {
        let peer = self.peers.lock().get(address).cloned();
        peer.and_then(|peer| peer.open_connection())
    }

    /// The bytes sent one way to `address` since it last proved that it had read everything.
    ///
    /// Whoever holds the lock may send. A connection that is only written to would pile up what
    /// the peer does not read, so now and then the holder asks the peer something and waits.
    pub(crate) async fn one_way_bytes(
        &self,
        address: &str,
    ) -> Result<tokio::sync::OwnedMutexGuard<usize>, ClientError> {
        let peer = self.peer(address)?;
        Ok(Arc::clone(&peer.one_way_bytes).lock_owned().await)
    }

    /// Waits for the turn to ask `address` whether it is there.
    pub(crate) async fn turn_to_ask(
        &self,
        address: &str,
    ) -> Result<tokio::sync::OwnedMutexGuard<()>, ClientError> {
        let peer = self.peer(address)?;
        Ok(Arc::clone(&peer.asking).lock_owned().await)
    }

    /// Closes the connection to `address`; the next request makes a new one.
    pub(crate) fn disconnect(&self, address: &str) {
        let peer = self.peers.lock().get(address).cloned();
        if let Some(connection) = peer.and_then(|peer| peer.connection.lock().take()) {
            connection.close();
        }
    }

    /// Forgets addresses that nobody is connected to or connecting to.
    pub(crate) fn forget_closed(&self) {
        let in_use =
            |peer: &Arc<Peer>| Arc::strong_count(peer) > 1 || peer.open_connection().is_some();
        self.peers.lock().retain(|_, peer| in_use(peer));
    }

    /// Closes all connections after what was written, and waits for their tasks.
    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let peers: Vec<_> = self.peers.lock().drain().map(|(_, peer)| peer).collect();
        for connection in peers.iter().filter_map(|peer| peer.connection.lock().take()) {
            connection.close();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn peer(&self, address: &str) -> Result<Arc<Peer>, ClientError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(ClientError::ShutDown);
        }
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(address) {
            return Ok(Arc::clone(peer));
        }
        Ok(Arc::clone(peers.entry(address.to_owned()).or_default()))
    }
}
