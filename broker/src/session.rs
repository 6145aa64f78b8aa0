//! One connection: requests in, answers out.

use std::sync::Arc;
use std::time::Instant;

use weirmq_remoting::net::{Connection, Requests, Service, Session};
use weirmq_remoting::{RequestCode, ResponseCode};

use crate::Broker;
use crate::io_threads::{BUSY_RETRY, IoThread};
use crate::request::{Context, Refusal, WaitsFor, send};

/// The listeners' service: every connection gets a session.
pub(crate) struct BrokerService {
    pub(crate) broker: Arc<Broker>,
    pub(crate) io_threads: Vec<Arc<IoThread>>,
}

impl Service for BrokerService {
    type Session = BrokerSession;

    fn connected(&self, connection: &Connection, io_thread: usize) -> BrokerSession {
        BrokerSession {
            broker: self.broker.clone(),
            io_thread: self.io_threads[io_thread].clone(),
            connection: connection.clone(),
            sent_in: None,
            topics_before: None,
            busy_since: None,
        }
    }
}

pub(crate) struct BrokerSession {
    broker: Arc<Broker>,
    io_thread: Arc<IoThread>,
    connection: Connection,
    /// The batch that took this connection's newest send.
    sent_in: Option<u64>,
    /// The version of the topic table before the request that is put back was tried for the first time: it
    /// may have made topics before it met a disk that does not keep up.
    topics_before: Option<i64>,
    /// Since when one of its requests waits for a disk that does not keep up.
    busy_since: Option<Instant>,
}

impl Session for BrokerSession {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        let before_put_back = self.topics_before.take();
        let topics_before = before_put_back.unwrap_or_else(|| self.broker.topics_version());
        let mark = out.len();
        let context = Context { broker: &self.broker, connection: &self.connection, topics_before };
        let mut batch = self.io_thread.batch.lock();
        while let Some(request) = requests.next(out) {
            let is_send = send::is_send(request.head.code);
            let outcome = if is_send {
                match batch.is_choked() {
                    true => {
                        Err(Refusal::new(ResponseCode::SystemBusy, "the disk does not keep up"))
                    }
                    false => {
                        let body = batch.kept(requests.share(request.body));
                        batch.add(&context, &request, body)
                    }
                }
            } else {
                // What was sent before this request is there when it is acted upon, and what others
                // sent to a topic comes before its end; except while the disk is too far behind,
                // because this must not wait for it.
                let is_deletion = [RequestCode::DeleteTopicInBroker, RequestCode::CleanUnusedTopic]
                    .iter()
                    .any(|code| code.number() == request.head.code);
                if is_deletion || self.sent_in == Some(batch.number()) {
                    batch.append(&self.broker);
                }
                context.answer(&request, out)
            };
            if is_worth_waiting(&self.broker, &mut self.busy_since, &outcome) {
                self.topics_before = Some(topics_before);
                requests.postpone(BUSY_RETRY);
                break;
            }
            match outcome {
                Ok(()) if is_send => self.sent_in = Some(batch.number()),
                Ok(()) => {}
                Err(refusal) => context.refuse(&request.head, &refusal, out),
            }
            if batch.is_full() {
                batch.append(&self.broker);
            }
        }
        if !batch.is_empty() {
            self.io_thread.filled.notify_one();
        }
        drop(batch);
        if self.broker.topics_version() != topics_before {
            // Some clients ask a NameServer for the new topic at once and give up when it does
            // not know it, so the answer comes when it does.
            self.broker.write_when_registered(&self.connection, out.split_off(mark));
        }
    }

    fn closed(&mut self) {
        let connection = self.connection.id();
        self.broker.long_polls.take_of_connection(connection);
        self.broker.members_changed(self.broker.clients.disconnected(connection));
    }
}

/// Whether a request that met a busy disk, or a master that is still to hear its slaves, is to be tried again. As long as it is, its connection
/// waits: what came behind may build on it.
fn is_worth_waiting(
    broker: &Broker,
    busy_since: &mut Option<Instant>,
    outcome: &Result<(), Refusal>,
) -> bool {
    match outcome {
        Err(Refusal { waits_for: Some(WaitsFor::Slaves), .. }) => true,
        Err(Refusal { waits_for: Some(WaitsFor::Disk), .. }) => {
            let since = busy_since.get_or_insert_with(Instant::now);
            since.elapsed() < broker.config().busy_timeout()
        }
        _ => {
            // While the disk is behind, the connection's next request does not wait anew.
            *busy_since = busy_since.filter(|_| !broker.store.has_room(0));
            false
        }
    }
}
