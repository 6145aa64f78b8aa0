//! What can go wrong between a client and its cluster, by cause.

use std::time::Duration;

use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::net::{CallError, ConnectError};

/// Why a request of the client had no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The caller's: a setting or an argument cannot be used.
    #[error("{0}")]
    Config(String),
    /// The caller's: a message cannot be sent as it is.
    #[error("message for topic {topic}: {problem}")]
    Message { topic: String, problem: String },
    /// No NameServer could be asked; `last` is what the last one did.
    #[error("none of the name servers {asked:?} answered; the last one: {last}")]
    NameServers { asked: Vec<String>, last: Box<ClientError> },
    /// There is no connection. The request was not sent.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The request may have arrived; its answer did not.
    #[error("{} ({}): {error}", request.name(), request.number())]
    Call { request: RequestCode, error: CallError },
    /// The whole operation took longer than it was allowed to.
    #[error("{what} took longer than {timeout:?}")]
    Timeout { what: String, timeout: Duration },
    /// The peer answered with an error.
    #[error("{address} refused {} ({}) with {code}: {remark}", request.name(), request.number())]
    Refused { address: String, request: RequestCode, code: Code<ResponseCode>, remark: String },
    /// The peer's fault: its answer cannot be understood.
    #[error("{address} answered {} ({}) with something unreadable: {problem}", request.name(), request.number())]
    Malformed { address: String, request: RequestCode, problem: String },
    /// No NameServer knows the topic, and it is not created by sending either.
    #[error("topic {topic} does not exist: no name server has a route of it; create it first")]
    TopicNotFound { topic: String },
    /// The topic exists, but no broker that is up takes messages for it.
    #[error(
        "topic {topic} has no queue that can be written: no master with write permission is up"
    )]
    NoWritableQueue { topic: String },
    /// The broker is not in any route any more.
    #[error("broker {broker} has no address: no route names a live {what} of it")]
    NoBroker { broker: String, what: &'static str },
    /// All attempts of a send failed. The message may be stored all the same if the last failure
    /// was a missing answer.
    #[error(
        "message {message_id} for topic {topic} was not sent after {attempts} attempts: {last}"
    )]
    SendFailed { topic: String, message_id: String, attempts: u32, last: Box<ClientError> },
    /// A thing that was asked for does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The client was shut down.
    #[error("client is shut down")]
    ShutDown,
}

impl ClientError {
    /// The code that the peer answered with, if it answered with one. For a failed send: the last.
    pub fn response_code(&self) -> Option<Code<ResponseCode>> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::SendFailed { last, .. } | Self::NameServers { last, .. } => last.response_code(),
            _ => None,
        }
    }

    /// Whether the thing asked for does not exist, as opposed to an unreachable cluster.
    pub fn is_not_found(&self) -> bool {
        use ResponseCode::{QueryNotFound, SubscriptionGroupNotExist, TopicNotExist};
        match self {
            Self::TopicNotFound { .. } | Self::NotFound(_) => true,
            Self::SendFailed { last, .. } => last.is_not_found(),
            _ => matches!(
                self.response_code(),
                Some(Code::Known(QueryNotFound | SubscriptionGroupNotExist | TopicNotExist))
            ),
        }
    }

    /// Whether another broker, or the same one a little later, may do better. The codes are those
    /// of `DefaultMQProducer.retryResponseCodes`.
    pub fn is_retryable(&self) -> bool {
        use ResponseCode::{
            GoAway, NoBuyerId, NoPermission, NotInCurrentUnit, ServiceNotAvailable, SystemBusy,
            SystemError, TopicNotExist,
        };
        match self {
            Self::Connect(_) | Self::Call { .. } | Self::Timeout { .. } => true,
            Self::NoBroker { .. } | Self::NoWritableQueue { .. } => true,
            Self::Refused { code: Code::Known(code), .. } => matches!(
                code,
                SystemError
                    | SystemBusy
                    | ServiceNotAvailable
                    | NoPermission
                    | TopicNotExist
                    | NoBuyerId
                    | NotInCurrentUnit
                    | GoAway
            ),
            _ => false,
        }
    }

    /// Whether no broker can have taken the message, so that to send it again costs nothing but time.
    pub(crate) fn stored_nothing(&self) -> bool {
        use ResponseCode::{GoAway, ServiceNotAvailable};
        match self {
            Self::Connect(_) | Self::NoBroker { .. } | Self::NoWritableQueue { .. } => true,
            Self::Refused { code: Code::Known(code), .. } => {
                matches!(code, ServiceNotAvailable | GoAway)
            }
            _ => false,
        }
    }

    /// Whether the route that led here may be out of date.
    pub(crate) fn doubts_route(&self) -> bool {
        use ResponseCode::{GoAway, NoPermission, ServiceNotAvailable, TopicNotExist};
        match self {
            Self::Connect(_) | Self::Call { .. } | Self::Timeout { .. } => true,
            Self::NoBroker { .. } | Self::NoWritableQueue { .. } => true,
            Self::Refused { code: Code::Known(code), .. } => {
                matches!(code, ServiceNotAvailable | NoPermission | TopicNotExist | GoAway)
            }
            _ => false,
        }
    }
}
