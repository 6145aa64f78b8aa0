//! Frames over tokio: a server, a client, and the connection that both run.
//!
//! A connection is one task. It reads what is there, hands all complete frames to the session at
//! once, and sends all replies in one write. Answers that come later, from a long poll or another
//! thread, go through the connection's [`Connection::write`] and leave with the next write.
//! Requests may go both ways; [`Connection::call`] waits for the peer's answer.

mod client;
mod connection;
mod outbox;
mod run;
mod server;
mod tls;

pub use client::{ConnectError, connect};
pub use connection::{CallError, Closed, Connection, OwnedCommand};
pub use run::{Limits, Requests};
pub use server::{ServerConfig, run as serve};
pub use tls::{FileVersion, TlsError, TlsSection};

/// What a listener does with its connections.
pub trait Service: Send + Sync + 'static {
    type Session: Session;

    /// A peer has connected, and is served by this one of [`ServerConfig::io_threads`]; 0 when
    /// there are none.
    fn connected(&self, connection: &Connection, io_thread: usize) -> Self::Session;
}

/// One side of one connection.
pub trait Session: Send + 'static {
    /// Takes all requests that one read brought. Replies that are ready go to the end of `out`,
    /// later ones through the connection. This runs on an I/O thread: it must not block.
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>);

    /// The connection has ended; nothing can be sent any more.
    fn closed(&mut self) {}
}

/// A session for clients that answer no requests: each gets `REQUEST_CODE_NOT_SUPPORTED`.
pub struct NoRequests;

impl Session for NoRequests {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        while let Some(request) = requests.next(out) {
            if !request.head.is_one_way() {
                let code = crate::ResponseCode::RequestCodeNotSupported;
                let remark =
                    format!("this client does not serve request code {}", request.head.code);
                crate::command::response(out, &request.head, code, Some(&remark)).finish(b"");
            }
        }
    }
}

#[cfg(test)]
mod tests;
