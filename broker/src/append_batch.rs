//! The sends of one tick of an I/O thread: appended with one write, then answered.
//!
//! A tick is what the thread does between two looks at its sockets. Connections put their sends
//! in here as they read them; when all that were ready have, the batch is appended. So a write
//! to the log and the wake-up of a peer are shared by everybody who came in the same moment, and
//! nobody waits for a timer.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weirmq_message::id::OffsetMessageId;
use weirmq_message::properties::names;
use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::{Head, Text, response};
use weirmq_remoting::net::Connection;
use weirmq_store::{Appended, KeySource, NewMessage, StoreError};

use crate::Broker;
use crate::acknowledgement::Then;
use crate::request::Refusal;
use crate::topics::Topic;

/// With so many bytes of bodies and properties a batch does not wait for the end of the tick.
const BATCH_BYTES: usize = 256 << 10;
/// A batch that waits for the disk takes no more sends once it keeps so many bytes.
const CHOKED_BYTES: usize = 4 << 20;
/// About what a message takes in the log beside body and properties.
const HEAD_BYTES: usize = 256;
/// What the lists keep for a message, if each is a send and a read of its own.
const ENTRY_BYTES: usize =
    size_of::<PendingMessage>() + size_of::<PendingSend>() + size_of::<Read>();
/// A property buffer that grew beyond this is given back.
const PROPERTIES_BYTES_KEPT: usize = 1 << 20;
/// Lists with room for more messages than this are given back as well.
const ENTRIES_KEPT: usize = 4096;

/// The sends that are to be appended next. `request/send.rs` fills it.
#[derive(Default)]
pub(crate) struct AppendBatch {
    reads: Vec<Read>,
    pub(crate) sends: Vec<PendingSend>,
    pub(crate) messages: Vec<PendingMessage>,
    /// The properties of all messages.
    pub(crate) properties: Vec<u8>,
    pub(crate) body_bytes: usize,
    /// Counts the batches of this thread.
    number: u64,
    /// Since when it waits for the disk.
    busy_since: Option<Instant>,
}

/// What the sends of one read of a connection have in common.
struct Read {
    connection: Connection,
    born_host: SocketAddr,
    store_host: SocketAddr,
    /// One of the sends made its topic, so the answers wait for a NameServer to know it.
    makes_topic: bool,
}

/// One request that sends.
pub(crate) struct PendingSend {
    pub(crate) head: Head,
    /// Its read in the batch.
    pub(crate) read: usize,
    pub(crate) topic: Arc<Topic>,
    pub(crate) queue_id: i32,
    /// Its messages in the batch.
    pub(crate) messages: Range<usize>,
    /// Whether the producer wants to know that the message is as safe as this broker makes it.
    pub(crate) waits: bool,
}

/// One message to store.
pub(crate) struct PendingMessage {
    /// Where it is stored, which for a delayed message is not where it was sent.
    pub(crate) topic: Arc<Topic>,
    pub(crate) queue_id: i32,
    pub(crate) flag: i32,
    pub(crate) sys_flag: i32,
    pub(crate) born_timestamp: i64,
    pub(crate) reconsume_times: i32,
    /// A share of the read buffer, or a copy while the batch waits for the disk.
    pub(crate) body: Bytes,
    /// In the batch's properties.
    pub(crate) properties: Range<usize>,
    /// Of those, the value of `UNIQ_KEY`, which replies carry as transaction id.
    pub(crate) unique_key: Range<usize>,
    pub(crate) tag_hash: i64,
}

impl AppendBatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Whether it is large enough to be appended at once.
    pub(crate) fn is_full(&self) -> bool {
        self.body_bytes + self.properties.len() >= BATCH_BYTES
    }

    /// A number that the next batch does not have.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The read that a send of this connection belongs to; it ends with another connection's send.
    pub(crate) fn read_of(
        &mut self,
        broker: &Broker,
        connection: &Connection,
        makes_topic: bool,
    ) -> usize {
        if self.reads.last().is_none_or(|read| read.connection.id() != connection.id()) {
            let peer = connection.peer();
            self.reads.push(Read {
                connection: connection.clone(),
                // An IPv4 address as such, also when a dual-stack socket shows it as IPv6.
                born_host: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
                store_host: broker.store_host(connection),
                makes_topic: false,
            });
        }
        let number = self.reads.len() - 1;
        self.reads[number].makes_topic |= makes_topic;
        number
    }

    /// Appends everything, and answers each send now or when its messages are durable. While the
    /// disk is too far behind what it has no room for stays: `false`, try again soon. After
    /// `limits.busy_timeout_ms` those sends are refused.
    pub(crate) fn append(&mut self, broker: &Broker) -> bool {
        if self.is_empty() || broker.store.has_room(self.log_bytes()) {
            self.append_what_fits(broker);
        }
        if !self.is_empty() && self.is_overdue(Instant::now(), broker.config().busy_timeout()) {
            self.refuse_all(broker);
        }
        self.is_empty()
    }

    /// The same without waiting, at the end of the broker.
    pub(crate) fn append_last(&mut self, broker: &Broker) {
        self.append_what_fits(broker);
        self.refuse_all(broker);
    }

    /// Whether it has waited for the disk for too long. The first time it begins to wait.
    fn is_overdue(&mut self, now: Instant, timeout: Duration) -> bool {
        if self.busy_since.is_none() {
            self.busy_since = Some(now);
            // Shares would keep whole read buffers, of which a body may be a small part.
            for message in &mut self.messages {
                message.body = Bytes::copy_from_slice(&message.body);
            }
        }
        self.busy_since.is_some_and(|since| now.duration_since(since) >= timeout)
    }

    /// A body to keep: as it is, or a copy while the batch waits for the disk.
    pub(crate) fn kept(&self, body: Bytes) -> Bytes {
        if self.busy_since.is_some() { Bytes::copy_from_slice(&body) } else { body }
    }

    /// Whether it waits for the disk and takes no more sends.
    pub(crate) fn is_choked(&self) -> bool {
        self.busy_since.is_some() && self.kept_bytes() >= CHOKED_BYTES
    }

    /// The memory that it keeps while it waits for the disk.
    fn kept_bytes(&self) -> usize {
        self.body_bytes + self.properties.len() + self.messages.len() * ENTRY_BYTES
    }

    /// About what it will take in the log.
    fn log_bytes(&self) -> u64 {
        (self.body_bytes + self.properties.len() + self.messages.len() * HEAD_BYTES) as u64
    }

    /// Appends and answers sends, in order, until the disk has no room for more. The rest stays:
    /// another thread may have taken the room since somebody looked.
    pub(crate) fn append_what_fits(&mut self, broker: &Broker) {
        let taken = self.take();
        // Where other threads had time to delete topics, they may have.
        let is_gone = |send: &PendingSend| {
            taken.busy_since.is_some() && broker.state.topics.get(&send.topic.name).is_none()
        };
        let mut done = 0;
        for sends in taken.sends.chunk_by(|a, b| is_gone(a) == is_gone(b)) {
            let acted_upon = if is_gone(&sends[0]) {
                let remark = "the topic was deleted while the disk did not keep up";
                taken.refuse(broker, sends, &Refusal::new(ResponseCode::TopicNotExist, remark));
                sends.len()
            } else {
                taken.append_or_refuse(sends, broker)
            };
            done += acted_upon;
            if acted_upon < sends.len() {
                break;
            }
        }
        if done < taken.sends.len() {
            *self = taken.without(done);
        } else {
            self.reuse(taken);
        }
    }

    /// Refuses everything with a code that makes clients try another broker. What room is left on
    /// the disk is for records of state.
    fn refuse_all(&mut self, broker: &Broker) {
        let taken = self.take();
        let busy = StoreError::Busy { waited: broker.config().busy_timeout() };
        taken.refuse(broker, &taken.sends, &busy.into());
        self.reuse(taken);
    }

    /// Empties the batch and begins the next one. Taken out before anything happens to it: nothing
    /// that happens meanwhile can append it a second time.
    fn take(&mut self) -> Self {
        let next = Self { number: self.number + 1, ..Self::default() };
        std::mem::replace(self, next)
    }

    /// The batch with all but its first `done` sends.
    fn without(mut self, done: usize) -> Self {
        self.sends.drain(..done);
        let first = self.sends.first().map_or(self.messages.len(), |send| send.messages.start);
        self.messages.drain(..first);
        self.body_bytes = self.messages.iter().map(|message| message.body.len()).sum();
        for send in &mut self.sends {
            send.messages = send.messages.start - first..send.messages.end - first;
        }
        self
    }

    /// Keeps the buffers of a batch for this one.
    fn reuse(&mut self, mut done: Self) {
        done.reads.clear();
        done.sends.clear();
        done.messages.clear();
        done.properties.clear();
        self.reads = shrunk(done.reads, ENTRIES_KEPT);
        self.sends = shrunk(done.sends, ENTRIES_KEPT);
        self.messages = shrunk(done.messages, ENTRIES_KEPT);
        self.properties = shrunk(done.properties, PROPERTIES_BYTES_KEPT);
    }

    /// Says how many of the sends, from the first on, were appended or refused; it ends where the
    /// disk has no room.
    fn append_or_refuse(&self, sends: &[PendingSend], broker: &Broker) -> usize {
        match self.append_sends(sends, broker) {
            Ok(()) => {}
            Err(StoreError::Busy { .. }) => return 0,
            // The store takes all or nothing; what is wrong with one message is not the others'
            // fault.
            Err(StoreError::TooLarge { .. }) if sends.len() > 1 => {
                let (front, back) = sends.split_at(sends.len() / 2);
                let done = self.append_or_refuse(front, broker);
                let is_done = done == front.len();
                return done + if is_done { self.append_or_refuse(back, broker) } else { 0 };
            }
            Err(error) => {
                let is_lost =
                    matches!(error, StoreError::NotMaster) && broker.is_taken_for_master();
                self.refuse(broker, sends, &broker.refusal_of(sends.len(), error));
                if is_lost {
                    // Closed once its answers are sent; a connection that comes again finds the master.
                    sends.iter().for_each(|send| self.reads[send.read].connection.close());
                }
            }
        }
        sends.len()
    }

    fn append_sends(&self, sends: &[PendingSend], broker: &Broker) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (sends.first(), sends.last()) else {
            return Ok(());
        };
        let (first, last) = (first.messages.start, last.messages.end);
        let mut new = Vec::with_capacity(last - first);
        for send in sends {
            let messages = self.messages[send.messages.clone()].iter();
            new.extend(messages.map(|message| self.new_message(message, send)));
        }
        let mut appended = Vec::with_capacity(new.len());
        broker.append(&new, &mut appended)?;
        let stored_of =
            |send: &PendingSend| &appended[send.messages.start - first..send.messages.end - first];
        let acknowledged = broker.acknowledged();
        for of_read in sends.chunk_by(|a, b| a.read == b.read) {
            let read = &self.reads[of_read[0].read];
            let is_due = |send: &PendingSend| {
                !send.waits
                    || stored_of(send).last().is_none_or(|last| last.end_offset <= acknowledged)
            };
            let answered = || of_read.iter().filter(|send| !send.head.is_one_way());
            let write = |out: &mut Vec<u8>, is_due_now: bool| {
                for send in answered().filter(|send| is_due(send) == is_due_now) {
                    self.write_reply(broker, out, send, stored_of(send), read.store_host);
                }
            };
            if answered().any(is_due) {
                answer(broker, read, |out| write(out, true));
            }
            if let Some(last) = answered().rfind(|send| !is_due(send)) {
                let mut reply = Vec::new();
                write(&mut reply, false);
                let position = stored_of(last).last().map_or(0, |last| last.end_offset);
                let connection = read.connection.clone();
                let requests = answered().filter(|send| !is_due(send)).count();
                let makes_topic = read.makes_topic;
                let is_late_told = true;
                let then = Then::Answer { connection, reply, requests, makes_topic, is_late_told };
                broker.wait(position, self.busy_since.unwrap_or_else(Instant::now), then);
            }
        }
        broker.count_in(sends.iter().map(|send| (&*send.topic, stored_of(send))));
        Ok(())
    }

    fn new_message<'s>(
        &'s self,
        message: &'s PendingMessage,
        send: &PendingSend,
    ) -> NewMessage<'s> {
        let read = &self.reads[send.read];
        NewMessage {
            topic: &message.topic.name,
            queue_id: message.queue_id,
            flag: message.flag,
            sys_flag: message.sys_flag,
            born_timestamp: message.born_timestamp,
            born_host: read.born_host,
            store_host: read.store_host,
            reconsume_times: message.reconsume_times,
            prepared_transaction_offset: 0,
            body: &message.body,
            properties: &self.properties[message.properties.clone()],
            tag_hash: message.tag_hash,
            index_keys: KeySource::Properties,
            dispatch: true,
        }
    }

    /// Layout: `SendMessageResponseHeader`. All three ids are always there: a Java client fails on
    /// a reply without extension fields.
    fn write_reply(
        &self,
        broker: &Broker,
        out: &mut Vec<u8>,
        send: &PendingSend,
        stored: &[Appended],
        store_host: SocketAddr,
    ) {
        let mut writer = response(out, &send.head, ResponseCode::Success, None);
        writer.ascii("msgId", |out| {
            for (number, message) in stored.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                let physical_offset = message.physical_offset;
                OffsetMessageId { store_host, physical_offset }.write_to(out);
            }
        });
        writer.number("queueId", send.queue_id);
        writer.number("queueOffset", stored.first().map_or(0, |first| first.queue_offset));
        let first = &self.messages[send.messages.clone()].first();
        let key = first.map(|first| &self.properties[first.unique_key.clone()]);
        if let Some(key) = key.and_then(|key| std::str::from_utf8(key).ok()) {
            writer.text("transactionId", Text::from(key));
        }
        writer.text(names::MSG_REGION, broker.config().region.as_str().into());
        writer.boolean(names::TRACE_SWITCH, true);
        writer.finish(b"");
    }

    fn refuse(&self, broker: &Broker, sends: &[PendingSend], refusal: &Refusal) {
        for send in sends.iter().filter(|send| !send.head.is_one_way()) {
            broker.metrics.refused(send.head.code, refusal.code);
            answer(broker, &self.reads[send.read], |out| {
                response(out, &send.head, refusal.code, Some(&refusal.remark)).finish(b"");
            });
        }
    }
}

/// An empty buffer, with room for `kept` entries at most.
fn shrunk<T>(mut buffer: Vec<T>, kept: usize) -> Vec<T> {
    buffer.shrink_to(kept);
    buffer
}

/// Sends answers now, or when a NameServer knows the topic that was made.
fn answer(broker: &Broker, read: &Read, write: impl Fn(&mut Vec<u8>)) {
    if read.makes_topic {
        let mut replies = Vec::new();
        write(&mut replies);
        broker.write_when_registered(&read.connection, replies);
    } else {
        // A client that is gone does not want its answer any more.
        let _ = read.connection.write(write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_waits_for_the_disk_within_bounds() {
        const TIMEOUT: Duration = Duration::from_secs(1);
        let mut batch = AppendBatch::default();
        let start = Instant::now();
        batch.body_bytes = CHOKED_BYTES;
        assert!(!batch.is_choked(), "it has not met a busy disk");
        assert!(!batch.is_overdue(start, TIMEOUT) && batch.is_choked());
        assert!(!batch.is_overdue(start + TIMEOUT / 2, TIMEOUT));
        assert!(batch.is_overdue(start + TIMEOUT, TIMEOUT));
        batch.body_bytes = 0;
        assert!(!batch.is_choked(), "there is room for more sends");
    }

    #[test]
    fn a_batch_that_waits_keeps_no_read_buffer() {
        let topic = Arc::new(Topic::new("t", 1));
        let read_buffer = Bytes::from(vec![7; 64 << 10]);
        let message = |body| PendingMessage {
            topic: topic.clone(),
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 0,
            reconsume_times: 0,
            body,
            properties: 0..0,
            unique_key: 0..0,
            tag_hash: 0,
        };
        let mut batch = AppendBatch::default();
        let body = batch.kept(read_buffer.slice(..10));
        batch.messages.push(message(body));
        assert!(!read_buffer.is_unique(), "a batch of the moment copies nothing");
        batch.is_overdue(Instant::now(), Duration::MAX);
        let body = batch.kept(read_buffer.slice(10..20));
        batch.messages.push(message(body));
        assert!(read_buffer.is_unique());
        assert!(batch.messages.iter().all(|message| message.body == [7; 10][..]));
        assert!(batch.kept_bytes() >= 2 * ENTRY_BYTES, "lists count as well");
    }

    #[test]
    fn bodies_and_properties_make_a_batch_full() {
        let mut batch = AppendBatch { body_bytes: BATCH_BYTES - 10, ..AppendBatch::default() };
        assert!(!batch.is_full());
        batch.properties.extend_from_slice(&[b'x'; 10]);
        assert!(batch.is_full());
    }
}
