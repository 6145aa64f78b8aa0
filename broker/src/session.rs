//! One connection: requests in, answers out.

use std::sync::Arc;

use weirmq_remoting::command::response;
use weirmq_remoting::net::{Connection, Requests, Service, Session};
use weirmq_remoting::{RequestCode, ResponseCode};

use crate::Broker;
use crate::io_threads::IoThread;
use crate::request::{Context, Refusal, send};

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
        }
    }
}

pub(crate) struct BrokerSession {
    broker: Arc<Broker>,
    io_thread: Arc<IoThread>,
    connection: Connection,
    /// The batch that took this connection's newest send.
    sent_in: Option<u64>,
}

impl Session for BrokerSession {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        let topics_before = self.broker.topics_version();
        let mark = out.len();
        let context = Context { broker: &self.broker, connection: &self.connection, topics_before };
        let mut batch = self.io_thread.batch.lock();
        while let Some(request) = requests.next(out) {
            if !send::is_send(request.head.code) {
                // What was sent before this request is there when it is acted upon, and what others
                // sent to a topic comes before its end; except while the disk is too far behind,
                // because this must not wait for it.
                let is_deletion = [RequestCode::DeleteTopicInBroker, RequestCode::CleanUnusedTopic]
                    .iter()
                    .any(|code| code.number() == request.head.code);
                if is_deletion || self.sent_in == Some(batch.number()) {
                    batch.append(&self.broker);
                }
                context.answer(&request, out);
                continue;
            }
            let added = match batch.is_choked() {
                true => Err(Refusal::new(ResponseCode::SystemBusy, "the disk does not keep up")),
                false => {
                    let body = batch.kept(requests.share(request.body));
                    batch.add(&context, &request, body)
                }
            };
            match added {
                Ok(()) => self.sent_in = Some(batch.number()),
                Err(refusal) => {
                    self.broker.metrics.refused(request.head.code, refusal.code);
                    if !request.head.is_one_way() {
                        let remark = Some(refusal.remark.as_str());
                        response(out, &request.head, refusal.code, remark).finish(b"");
                    }
                }
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
