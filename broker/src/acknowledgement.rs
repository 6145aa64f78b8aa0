//! Answers that wait until a position of the log is durable.
//!
//! With synchronous flush a send is answered, and its message shown to consumers, when the disk
//! has it. Entries are in the order of the log, so one pass from the front finds all that are due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use weirmq_remoting::net::Connection;

/// What happens when a position is reached.
pub(crate) enum Then {
    /// These bytes go out, or after the deadline those.
    Answer { connection: Connection, reply: Vec<u8>, late_reply: Vec<u8> },
    /// The entry becomes visible to those who wait for its queue.
    Show { topic: String, queue: i32, offset: u64, tag_hash: i64 },
}

struct Waiting {
    position: u64,
    since: Instant,
    then: Then,
}

/// Everything that waits, in the order of the log.
pub(crate) struct Acknowledgements {
    waiting: Mutex<VecDeque<Waiting>>,
    first_added: Notify,
    timeout: Duration,
}

impl Acknowledgements {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { waiting: Mutex::default(), first_added: Notify::new(), timeout }
    }

    /// Lets `then` wait for `position`.
    pub(crate) fn wait(&self, position: u64, then: Then) {
        let mut waiting = self.waiting.lock();
        let is_first = waiting.is_empty();
        // Several I/O threads append, so neighbours may come in the wrong order.
        let at = waiting.iter().rposition(|w| w.position <= position).map_or(0, |at| at + 1);
        waiting.insert(at, Waiting { position, since: Instant::now(), then });
        drop(waiting);
        if is_first {
            self.first_added.notify_one();
        }
    }

    /// Everything that waited for a position up to `reached`, in order.
    pub(crate) fn take_reached(&self, reached: u64) -> Vec<Then> {
        let mut waiting = self.waiting.lock();
        let due = waiting.partition_point(|w| w.position <= reached);
        waiting.drain(..due).map(|w| w.then).collect()
    }

    /// Sends the late replies of everything that waited too long; runs for ever. What is only to
    /// be shown goes on waiting.
    pub(crate) async fn expire(&self) {
        loop {
            let first = self.waiting.lock().front().map(|first| first.since);
            match first {
                None => self.first_added.notified().await,
                Some(since) => {
                    tokio::time::sleep_until((since + self.timeout).into()).await;
                    self.answer_late(self.timeout);
                    // Entries that only wait to be shown may be old; they need no attention.
                    tokio::time::sleep(self.timeout / 8).await;
                }
            }
        }
    }

    /// Sends the late replies of everything that has waited for so long.
    pub(crate) fn answer_late(&self, waited: Duration) {
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        waiting.retain_mut(|entry| match &mut entry.then {
            Then::Answer { connection, late_reply, .. }
                if now.duration_since(entry.since) >= waited =>
            {
                let _ = connection.write(|out| out.append(late_reply));
                false
            }
            _ => true,
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}
