//! One connection per address, made when somebody needs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
    /// When the last attempt to connect began that got no answer.
    silent_since: Mutex<Option<Instant>>,
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
        let asked = Instant::now();
        let _turn = peer.connecting.lock().await;
        if let Some(open) = peer.open_connection() {
            return Ok(open);
        }
        // One after the other would get no answer: the last of them when all time for his request is over, though
        // he could have gone elsewhere.
        if peer.silent_since.lock().is_some_and(|since| asked <= since) {
            let timeout = self.connect_timeout;
            return Err(ConnectError::Timeout { address: address.to_owned(), timeout }.into());
        }
        let inbound = |connection: &Connection| {
            Inbound::new(connection.clone(), Arc::clone(&self.groups), self.tasks.token())
        };
        // Behind one address may be another machine by now, and who was led to the one that is gone
        // stays there until he begins anew.
        let first = self.connect_timeout / 3;
        let opened = match connect(address, first, self.limits.clone(), inbound).await {
            Err(ConnectError::Timeout { .. }) => {
                let begun = Instant::now();
                let left = self.connect_timeout - first;
                let opened = connect(address, left, self.limits.clone(), inbound).await;
                if matches!(opened, Err(ConnectError::Timeout { .. })) {
                    *peer.silent_since.lock() = Some(begun);
                }
                opened
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

#[cfg(test)]
mod tests {
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    /// As the address of a pod that has gone: whoever connects hears nothing.
    #[tokio::test]
    async fn those_who_wait_for_one_connection_share_that_nobody_answers() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody accepts, and once the queue is full the kernel answers no more.
        let mut queued = Vec::new();
        let brief = Duration::from_millis(100);
        while let Ok(stream) = tokio::time::timeout(brief, TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
            assert!(queued.len() < 100, "the kernel takes any number of connections");
        }
        let timeout = Duration::from_millis(600);
        let pool = Arc::new(Pool::new(timeout, 1 << 20, Arc::default()));
        let begun = Instant::now();
        let ask = || {
            let (pool, address) = (Arc::clone(&pool), address.to_string());
            tokio::spawn(async move { pool.connection(&address).await.err().unwrap() })
        };
        for asked in (0..20).map(|_| ask()).collect::<Vec<_>>() {
            let error = asked.await.unwrap();
            let is_silence = matches!(error, ClientError::Connect(ConnectError::Timeout { .. }));
            assert!(is_silence, "{error}");
        }
        let took = begun.elapsed();
        assert!(took < timeout * 5, "{took:?}, as if one had begun after the other");
        // Who comes later tries for himself.
        let begun = Instant::now();
        ask().await.unwrap();
        assert!(begun.elapsed() >= timeout, "nobody tried");
    }
}
