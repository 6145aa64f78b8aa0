//! Bytes on their way out of a connection.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Closed;

/// A peer that lets this many bytes pile up does not read any more and is disconnected.
pub(super) const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What other tasks and threads want a connection to send.
#[derive(Default)]
pub(super) struct Outbox {
    pending: Mutex<Pending>,
    changed: Notify,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    is_closed: bool,
    is_overflowed: bool,
    is_aborted: bool,
}

impl Outbox {
    /// Lets `write` append whole frames, and wakes the connection's task.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T, Closed> {
        let mut pending = self.pending.lock();
        if pending.is_closed {
            return Err(Closed);
        }
        let written = write(&mut pending.bytes);
        if pending.bytes.len() > OUTBOX_BYTES_MAX {
            pending.is_closed = true;
            pending.is_overflowed = true;
            pending.bytes = Vec::new();
        }
        drop(pending);
        self.changed.notify_one();
        Ok(written)
    }

    /// Moves everything pending to the end of `out`. `false` once the outbox is closed.
    pub(super) fn take(&self, out: &mut Vec<u8>) -> bool {
        let mut pending = self.pending.lock();
        if out.is_empty() {
            std::mem::swap(out, &mut pending.bytes);
        } else if !pending.bytes.is_empty() {
            out.append(&mut pending.bytes);
        }
        !pending.is_closed
    }

    /// Gives memory back that is not in use.
    pub(super) fn shrink(&self) {
        self.pending.lock().bytes.shrink_to_fit();
    }

    pub(super) fn close(&self) {
        self.pending.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Closes, and drops what was not taken yet.
    pub(super) fn abort(&self) {
        let mut pending = self.pending.lock();
        (pending.is_closed, pending.is_aborted, pending.bytes) = (true, true, Vec::new());
        drop(pending);
        self.changed.notify_one();
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.pending.lock().is_aborted
    }

    pub(super) fn is_closed(&self) -> bool {
        self.pending.lock().is_closed
    }

    pub(super) fn is_overflowed(&self) -> bool {
        self.pending.lock().is_overflowed
    }

    /// Ends when something was written or the outbox was closed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
