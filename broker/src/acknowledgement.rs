//! Answers that wait until a position of the log is durable.
//!
//! With synchronous flush a send is answered, and its message shown to consumers, when the disk
//! has it. Entries are in the order of the log, so one pass from the front finds all that are due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::{Command, response};
use weirmq_remoting::frame::split_written;
use weirmq_remoting::net::Connection;
use weirmq_store::{Appended, NewMessage};

/// Where so many entries wait until they are visible no sends are taken: some 100 MB, if each was sent alone. They
/// wait for as long as a replica that may not leave the in-sync set is away.
pub(crate) const NOT_VISIBLE_MAX: usize = 500_000;

/// What happens when a position is reached.
pub(crate) enum Then {
    /// These replies to so many requests go out; after the deadline, the same ones with the code
    /// that says what was waited for, unless their askers would take any answer for a success. Those that
    /// make a topic go on waiting for the NameServers.
    Answer {
        connection: Connection,
        reply: Vec<u8>,
        requests: usize,
        makes_topic: bool,
        is_late_told: bool,
    },
    /// The entries become visible to those who wait for their queues.
    Show(Vec<Arrival>),
}

/// An entry that is not visible yet.
pub(crate) struct Arrival {
    pub(crate) topic: Arc<str>,
    pub(crate) queue: i32,
    pub(crate) offset: u64,
    pub(crate) tag_hash: i64,
}

impl Arrival {
    /// The entries of messages that were appended.
    pub(crate) fn of_all(messages: &[NewMessage<'_>], appended: &[Appended]) -> Vec<Self> {
        let mut arrivals: Vec<Self> = Vec::with_capacity(messages.len());
        for (message, at) in messages.iter().zip(appended) {
            let same = arrivals.last().filter(|last| *last.topic == *message.topic);
            let topic = same.map_or_else(|| Arc::from(message.topic), |last| last.topic.clone());
            let (queue, offset) = (message.queue_id, at.queue_offset);
            arrivals.push(Self { topic, queue, offset, tag_hash: message.tag_hash });
        }
        arrivals
    }
}

struct Waiting {
    position: u64,
    since: Instant,
    then: Then,
}

/// Everything that waits, in the order of the log.
pub(crate) struct Acknowledgements {
    waiting: Mutex<VecDeque<Waiting>>,
    /// Entries that are not visible yet.
    not_visible: AtomicUsize,
    first_added: Notify,
    timeout_ms: AtomicU64,
}

impl Acknowledgements {
    pub(crate) fn new(timeout: Duration) -> Self {
        let new = Self {
            waiting: Mutex::default(),
            not_visible: AtomicUsize::new(0),
            first_added: Notify::new(),
            timeout_ms: AtomicU64::new(0),
        };
        new.set_timeout(timeout);
        new
    }

    /// How long the first that waits from now on may wait.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_ms.store(timeout_ms, Ordering::Relaxed);
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed))
    }

    /// Lets `then` wait for `position`; `since` when its request has waited already.
    pub(crate) fn wait(&self, position: u64, since: Instant, then: Then) {
        if let Then::Show(entries) = &then {
            self.not_visible.fetch_add(entries.len(), Ordering::Relaxed);
        }
        let mut waiting = self.waiting.lock();
        let is_first = waiting.is_empty();
        // Several I/O threads append, so neighbours may come in the wrong order.
        let at = waiting.iter().rposition(|w| w.position <= position).map_or(0, |at| at + 1);
        waiting.insert(at, Waiting { position, since, then });
        drop(waiting);
        if is_first {
            self.first_added.notify_one();
        }
    }

    /// Everything that waited for a position up to `reached`, in order.
    pub(crate) fn take_reached(&self, reached: u64) -> Vec<Then> {
        let mut waiting = self.waiting.lock();
        let due = waiting.partition_point(|w| w.position <= reached);
        let due: Vec<Then> = waiting.drain(..due).map(|w| w.then).collect();
        drop(waiting);
        let shown = due.iter().map(|then| match then {
            Then::Show(entries) => entries.len(),
            Then::Answer { .. } => 0,
        });
        self.not_visible.fetch_sub(shown.sum(), Ordering::Relaxed);
        due
    }

    /// Entries that wait until they are visible.
    pub(crate) fn not_visible(&self) -> usize {
        self.not_visible.load(Ordering::Relaxed)
    }

    /// Sends the late replies of everything that waited too long; runs for ever. What is only to
    /// be shown goes on waiting. `act_on_reached` answers what is not late after all: whoever does
    /// that may be busy.
    pub(crate) async fn expire(
        &self,
        act_on_reached: impl Fn(),
        late_answer: impl Fn(u64) -> (ResponseCode, &'static str),
    ) {
        loop {
            let timeout = self.timeout();
            match self.longest_waiting_since() {
                None => self.first_added.notified().await,
                Some(since) if since.elapsed() < timeout => {
                    // What is added meanwhile may have waited for longer.
                    let left = timeout.saturating_sub(since.elapsed());
                    tokio::time::sleep(left.min(timeout / 8)).await;
                }
                Some(_) => {
                    act_on_reached();
                    self.answer_late(timeout, &late_answer);
                    // Entries that only wait to be shown may be old; they need no attention.
                    tokio::time::sleep(timeout / 8).await;
                }
            }
        }
    }

    /// Which need not be the first in the log: a request may have waited for a disk before it was appended.
    fn longest_waiting_since(&self) -> Option<Instant> {
        self.waiting.lock().iter().map(|entry| entry.since).min()
    }

    /// Sends the late replies of everything that has waited for so long.
    pub(crate) fn answer_late(
        &self,
        waited: Duration,
        late_answer: impl Fn(u64) -> (ResponseCode, &'static str),
    ) {
        let now = Instant::now();
        let mut waiting = self.waiting.lock();
        let is_late = |entry: &Waiting| {
            matches!(entry.then, Then::Answer { .. }) && now.duration_since(entry.since) >= waited
        };
        let (late, kept): (VecDeque<_>, _) = waiting.drain(..).partition(is_late);
        *waiting = kept;
        drop(waiting);
        for entry in late {
            if let Then::Answer { connection, reply, is_late_told: true, .. } = entry.then {
                let answer = late_answer(entry.position);
                let _ = connection.write(|out| write_late(&reply, answer, out));
            }
        }
    }

    /// Requests that wait for their answer.
    pub(crate) fn requests(&self) -> usize {
        let requests = |entry: &Waiting| match entry.then {
            Then::Answer { requests, .. } => requests,
            Then::Show(_) => 0,
        };
        self.waiting.lock().iter().map(requests).sum()
    }
}

/// Writes replies again, with the same fields, as answers that came too late to be sure.
fn write_late(mut replies: &[u8], (code, remark): (ResponseCode, &str), out: &mut Vec<u8>) {
    while let Some((frame, length)) = split_written(replies) {
        replies = &replies[length..];
        let Ok(reply) = Command::decode(&frame) else { continue };
        let mut writer = response(out, &reply.head, code, Some(remark));
        for (name, value) in reply.ext.iter() {
            writer.text(name, value);
        }
        writer.finish(reply.body);
    }
}

#[cfg(test)]
mod tests {
    use weirmq_remoting::command::{Head, Language, SerializeType, VERSION};

    use super::*;

    #[test]
    fn who_has_waited_longest_is_late_first_wherever_it_stands_in_the_log() {
        let waiting = Acknowledgements::new(Duration::from_secs(2));
        assert_eq!(waiting.longest_waiting_since(), None);
        let now = Instant::now();
        let before = now - Duration::from_millis(900);
        for (position, since) in [(30, now), (20, before), (10, now)] {
            waiting.wait(position, since, Then::Show(Vec::new()));
        }
        assert_eq!(waiting.longest_waiting_since(), Some(before));
    }

    #[tokio::test]
    async fn what_is_late_is_answered_at_once_behind_what_is_not() {
        let waiting = Acknowledgements::new(Duration::from_secs(300));
        let now = Instant::now();
        for (position, since) in [(10, now), (20, now - Duration::from_secs(301))] {
            waiting.wait(position, since, Then::Show(Vec::new()));
        }
        let acted = Notify::new();
        let late = |_| (ResponseCode::FlushDiskTimeout, "unknown");
        tokio::select! {
            () = waiting.expire(|| acted.notify_one(), late) => {}
            () = acted.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("it waits for the first one"),
        }
    }

    #[test]
    fn a_late_reply_has_the_fields_of_the_good_one() {
        for serialize in [SerializeType::Json, SerializeType::Binary] {
            let head = |opaque| Head {
                serialize,
                code: 310,
                language: Language::JAVA,
                version: VERSION,
                opaque,
                flag: 0,
            };
            let mut replies = Vec::new();
            for opaque in [7, 8] {
                let mut writer = response(&mut replies, &head(opaque), ResponseCode::Success, None);
                writer.number("queueOffset", opaque);
                // The ids of a large batch; a peer's header may not be as long.
                writer.ascii("msgId", |out| out.resize(out.len() + 300_000, b'F'));
                writer.finish(b"body");
            }
            let mut late = Vec::new();
            write_late(&replies, (ResponseCode::FlushDiskTimeout, "unknown"), &mut late);
            let mut rest = late.as_slice();
            for opaque in [7, 8] {
                let (frame, length) = split_written(rest).unwrap();
                rest = &rest[length..];
                let reply = Command::decode(&frame).unwrap();
                assert_eq!(reply.head.code, ResponseCode::FlushDiskTimeout.number());
                assert!(reply.head.is_response() && reply.remark_text().contains("unknown"));
                assert_eq!((reply.head.opaque, reply.head.serialize), (opaque, serialize));
                assert_eq!(reply.ext.get("queueOffset").unwrap().raw(), opaque.to_string());
                assert_eq!(reply.body, b"body");
            }
            assert!(rest.is_empty());
        }
    }
}
