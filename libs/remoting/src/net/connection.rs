//! The handle of a connection: send to its peer from anywhere, call it, close it.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::outbox::Outbox;
use crate::command::{self, Command, CommandError, HeaderWriter, SerializeType};
use crate::frame::{Frame, PREFIX_BYTES};

/// The most calls that may wait for this peer's answer.
const CALLS_MAX: usize = 65_535;

/// One connection. Cheap to clone; it does not keep the socket open.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    outbox: Outbox,
    next_opaque: AtomicI32,
    calls: Mutex<HashMap<i32, oneshot::Sender<OwnedCommand>>>,
    answers: AtomicU64,
}

/// The connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection is closed")]
pub struct Closed;

/// Why a call has no answer. Whether the peer acted on it is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("connection to {0} ended before the answer came")]
    Closed(SocketAddr),
    #[error("no answer from {peer} within {timeout:?}")]
    Timeout { peer: SocketAddr, timeout: Duration },
    #[error("more than {CALLS_MAX} calls wait for {0}")]
    TooMany(SocketAddr),
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self(Arc::new(Shared {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            local,
            outbox: Outbox::default(),
            next_opaque: AtomicI32::new(1),
            calls: Mutex::default(),
            answers: AtomicU64::new(0),
        }))
    }

    /// A number that no other connection of this process has or had.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// The address that the peer connected to.
    pub fn local(&self) -> SocketAddr {
        self.0.local
    }

    /// How many answers have come from the peer. While it does not grow nothing shows that the peer is
    /// still there: a machine that was cut off or stands still closes nothing.
    pub fn answers(&self) -> u64 {
        self.0.answers.load(Ordering::Relaxed)
    }

    /// Lets `write` append whole frames to what goes out.
    pub fn write<T>(&self, write: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T, Closed> {
        self.0.outbox.write(write)
    }

    /// Sends what was written and then closes.
    pub fn close(&self) {
        self.0.outbox.close();
    }

    /// Closes without sending what the peer has not got yet. After [`Connection::close`] the kernel goes on
    /// sending it, and a peer that was cut off gets it when it is there again, for minutes. For connections
    /// that this side opened.
    pub fn abort(&self) {
        self.0.outbox.abort();
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.0.outbox.is_aborted()
    }

    pub fn is_closed(&self) -> bool {
        self.0.outbox.is_closed()
    }

    /// Sends a request that wants no answer.
    pub fn send_one_way(
        &self,
        serialize: SerializeType,
        code: i32,
        fields: impl FnOnce(&mut HeaderWriter<'_>),
        body: &[u8],
    ) -> Result<(), Closed> {
        let opaque = self.0.next_opaque.fetch_add(1, Ordering::Relaxed);
        self.write(|out| {
            let mut writer = command::request(out, serialize, code, opaque, true);
            fields(&mut writer);
            writer.finish(body);
        })
    }

    /// Sends a request and waits for its answer.
    pub async fn call(
        &self,
        serialize: SerializeType,
        code: i32,
        fields: impl FnOnce(&mut HeaderWriter<'_>),
        body: &[u8],
        timeout: Duration,
    ) -> Result<OwnedCommand, CallError> {
        let opaque = self.0.next_opaque.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        {
            let mut calls = self.0.calls.lock();
            if calls.len() >= CALLS_MAX {
                return Err(CallError::TooMany(self.peer()));
            }
            calls.insert(opaque, answer);
        }
        // Also removes the call when this future is dropped.
        let _entry = CallEntry { shared: &self.0, opaque };
        self.write(|out| {
            let mut writer = command::request(out, serialize, code, opaque, false);
            fields(&mut writer);
            writer.finish(body);
        })
        .map_err(|Closed| CallError::Closed(self.peer()))?;
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(CallError::Closed(self.peer())),
            Err(_) => Err(CallError::Timeout { peer: self.peer(), timeout }),
        }
    }

    /// Gives a response to the call that waits for it; an answer that nobody waits for is dropped.
    pub(super) fn answer(&self, opaque: i32, frame: &Frame<'_>) {
        self.0.answers.fetch_add(1, Ordering::Relaxed);
        let call = self.0.calls.lock().remove(&opaque);
        if let Some(call) = call {
            let _ = call.send(OwnedCommand::copy_of(frame));
        }
    }

    /// Ends all calls after the socket was closed.
    pub(super) fn end(&self) {
        self.close();
        self.0.calls.lock().clear();
    }

    pub(super) fn take_outbox(&self, out: &mut Vec<u8>) -> bool {
        self.0.outbox.take(out)
    }

    pub(super) fn shrink_outbox(&self) {
        self.0.outbox.shrink();
    }

    pub(super) fn is_overflowed(&self) -> bool {
        self.0.outbox.is_overflowed()
    }

    pub(super) async fn outbox_changed(&self) {
        self.0.outbox.changed().await;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} {})", self.id(), self.peer())
    }
}

struct CallEntry<'a> {
    shared: &'a Shared,
    opaque: i32,
}

impl Drop for CallEntry<'_> {
    fn drop(&mut self) {
        self.shared.calls.lock().remove(&self.opaque);
    }
}

/// A frame that outlives the read buffer it came in.
#[derive(Debug, Clone)]
pub struct OwnedCommand {
    serialize: SerializeType,
    header: Bytes,
    body: Bytes,
}

impl OwnedCommand {
    pub(super) fn copy_of(frame: &Frame<'_>) -> Self {
        let mut bytes = Vec::with_capacity(frame.header.len() + frame.body.len());
        bytes.extend_from_slice(frame.header);
        bytes.extend_from_slice(frame.body);
        let mut header = Bytes::from(bytes);
        let body = header.split_off(frame.header.len());
        Self { serialize: frame.serialize, header, body }
    }

    /// Keeps a command for longer than the buffer that it was read into.
    pub fn of(command: &Command<'_>) -> Self {
        let mut bytes = Vec::new();
        let mut writer = HeaderWriter::begin(&mut bytes, &command.head, None);
        command.ext.iter().for_each(|(name, value)| writer.text(name, value));
        writer.finish(command.body);
        let mut header = Bytes::from(bytes).split_off(PREFIX_BYTES);
        let body = header.split_off(header.len() - command.body.len());
        Self { serialize: command.head.serialize, header, body }
    }

    /// Decodes the header.
    pub fn command(&self) -> Result<Command<'_>, CommandError> {
        let frame = Frame { serialize: self.serialize, header: &self.header, body: &self.body };
        Command::decode(&frame)
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }
}
