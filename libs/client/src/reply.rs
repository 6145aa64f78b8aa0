//! The answer to one request, and who gave it.

use weirmq_remoting::body::Body;
use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::command::Command;
use weirmq_remoting::header::Header;
use weirmq_remoting::net::OwnedCommand;

use crate::ClientError;

/// An answer that is tied to its question, so that errors can name both.
pub(crate) struct Reply {
    owned: OwnedCommand,
    address: String,
    request: RequestCode,
}

impl Reply {
    pub(crate) fn new(owned: OwnedCommand, address: &str, request: RequestCode) -> Self {
        Self { owned, address: address.to_owned(), request }
    }

    pub(crate) fn bytes(&self) -> &bytes::Bytes {
        self.owned.body()
    }

    pub(crate) fn command(&self) -> Result<Command<'_>, ClientError> {
        self.owned.command().map_err(|error| self.malformed(error))
    }

    /// The answer if its code is `SUCCESS`.
    pub(crate) fn success(self) -> Result<Self, ClientError> {
        let command = self.command()?;
        if command.head.code == ResponseCode::Success.number() {
            return Ok(self);
        }
        Err(self.refused(&command))
    }

    pub(crate) fn refused(&self, command: &Command<'_>) -> ClientError {
        ClientError::Refused {
            address: self.address.clone(),
            request: self.request,
            code: Code::from(command.head.code),
            remark: shortened(&command.remark_text()),
        }
    }

    pub(crate) fn header<'a, H: Header<'a>>(&'a self) -> Result<H, ClientError> {
        H::decode(&self.command()?.ext).map_err(|error| self.malformed(error))
    }

    pub(crate) fn body<B: Body>(&self) -> Result<B, ClientError> {
        B::decode(self.owned.body()).map_err(|error| self.malformed(error))
    }

    /// A body that Java leaves out when there is nothing in it.
    pub(crate) fn body_or_default<B: Body + Default>(&self) -> Result<B, ClientError> {
        if self.owned.body().is_empty() { Ok(B::default()) } else { self.body() }
    }

    pub(crate) fn malformed(&self, problem: impl std::fmt::Display) -> ClientError {
        ClientError::Malformed {
            address: self.address.clone(),
            request: self.request,
            problem: problem.to_string(),
        }
    }

    /// An offset from the wire; a negative one is the peer's mistake, never 0.
    pub(crate) fn offset(&self, field: &str, value: i64) -> Result<u64, ClientError> {
        u64::try_from(value).map_err(|_| self.malformed(format_args!("{field} is {value}")))
    }
}

/// Java brokers answer with stack traces; the first line says it all.
fn shortened(remark: &str) -> String {
    let line = remark.lines().next().unwrap_or_default();
    line.chars().take(500).collect()
}
