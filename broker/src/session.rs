//! One connection: requests in, answers out.

use std::sync::Arc;

use weirmq_remoting::command::response;
use weirmq_remoting::net::{Connection, Requests, Service, Session};

use crate::Broker;
use crate::request::Context;
use crate::request::send::{self, AppendBatch};

/// The listeners' service: every connection gets a session.
pub(crate) struct BrokerService(pub(crate) Arc<Broker>);

impl Service for BrokerService {
    type Session = BrokerSession;

    fn connected(&self, connection: &Connection) -> BrokerSession {
        BrokerSession {
            broker: self.0.clone(),
            connection: connection.clone(),
            properties: Vec::new(),
        }
    }
}

pub(crate) struct BrokerSession {
    broker: Arc<Broker>,
    connection: Connection,
    /// The buffer of the append batch, kept from one read to the next.
    properties: Vec<u8>,
}

impl Session for BrokerSession {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        let topics_before = self.broker.topics_version();
        let mark = out.len();
        let context = Context { broker: &self.broker, connection: &self.connection };
        let mut batch = AppendBatch::new(std::mem::take(&mut self.properties));
        while let Some(request) = requests.next(out) {
            if !send::is_send(request.head.code) {
                // What was sent before this request is there when it is acted upon.
                batch = AppendBatch::new(batch.append(&context, out));
                context.answer(&request, out);
            } else if let Err(refusal) = batch.add(&context, &request) {
                self.broker.metrics.refused(request.head.code, refusal.code);
                if !request.head.is_one_way() {
                    response(out, &request.head, refusal.code, Some(&refusal.remark)).finish(b"");
                }
            }
        }
        self.properties = batch.append(&context, out);
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
