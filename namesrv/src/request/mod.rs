//! What is served, one file per family: decode, act, encode. No state of its own.

mod broker;
mod cluster;
mod config;
mod kv;
mod route;
mod topic;

use std::sync::Arc;

use weirmq_remoting::body::{Body, BodyError};
use weirmq_remoting::command::{self, Command, Head, Text};
use weirmq_remoting::frame::FRAME_BYTES_MAX;
use weirmq_remoting::header::{Header, HeaderError};
use weirmq_remoting::net::{Closed, Connection};
use weirmq_remoting::resource_name::NameError;
use weirmq_remoting::{Code, RequestCode, ResourceName, ResponseCode};

use crate::authorisation::{Served, authorise};
use crate::kv_config::KvError;
use crate::route_table::{AddTopicError, Asker, RegistrationError};
use crate::server::NameServer;

/// The longest address, in bytes: a DNS name, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 255 + 6;
/// How much of a client's text a remark repeats, in characters.
const QUOTED_CHARS_MAX: usize = 255;

/// Where a request came in.
pub(crate) struct Origin<'a> {
    pub(crate) server: &'a Arc<NameServer>,
    /// The listener's name.
    pub(crate) listener: &'a str,
    pub(crate) connection: &'a Connection,
}

impl<'a> Origin<'a> {
    pub(crate) fn asker(&self) -> Asker<'a> {
        let reached_at = self.connection.local().ip().to_canonical();
        Asker { listener: self.listener, reached_at }
    }
}

/// How a request was dealt with.
pub(crate) enum Handled {
    /// The response is at the end of the output.
    Now,
    /// A task writes it through the connection.
    Later,
}

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(" request type {code} not supported{help}")]
    NotSupported { code: i32, help: String },
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{field} is {value:?}: {problem}")]
    Field { field: &'static str, value: String, problem: &'static str },
    #[error("crc32 not match: bodyCrc32 is {claimed}, the body's is {computed}")]
    Crc { claimed: i32, computed: i32 },
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error(transparent)]
    AddTopic(#[from] AddTopicError),
    #[error(
        "No topic route info in name server for the topic: {0}\nNo registered broker has it: \
         create the topic, or let brokers create it at the first send. \
         See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
    )]
    TopicNotExist(String),
    #[error("No config item, Namespace: {namespace}{}", key_part(key))]
    KvNotFound { namespace: String, key: Option<String> },
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("too many changes of the KV configuration wait for the disk; try again")]
    KvBusy,
    #[error(
        "no setting of this name server can be changed while it runs; change its configuration \
         and restart it"
    )]
    ConfigIsFixed,
    #[error(
        "the answer takes {bytes} bytes, a frame at most {FRAME_BYTES_MAX}; ask for less, for instance \
         for the topics of one cluster (code 224) or for one topic's route (105)"
    )]
    AnswerTooLong { bytes: usize },
}

fn key_part(key: &Option<String>) -> String {
    key.as_ref().map(|key| format!(" Key: {key}")).unwrap_or_default()
}

impl RequestError {
    pub(crate) fn code(&self) -> ResponseCode {
        match self {
            Self::NotSupported { .. } => ResponseCode::RequestCodeNotSupported,
            // Apache answers every exception of a processor with SYSTEM_ERROR, this among them.
            Self::Header(_) | Self::Body(_) | Self::Crc { .. } | Self::Registration(_) => {
                ResponseCode::SystemError
            }
            Self::AddTopic(_) => ResponseCode::SystemError,
            Self::Name(_) | Self::Field { .. } => ResponseCode::InvalidParameter,
            Self::TopicNotExist(_) => ResponseCode::TopicNotExist,
            Self::KvNotFound { .. } => ResponseCode::QueryNotFound,
            Self::Kv(error) => match error {
                KvError::Io { .. } | KvError::Damaged { .. } => ResponseCode::SystemError,
                KvError::Length { .. }
                | KvError::TooManyEntries { .. }
                | KvError::TooLarge { .. } => ResponseCode::InvalidParameter,
            },
            // The asker would close the connection, not knowing why.
            Self::AnswerTooLong { .. } => ResponseCode::SystemError,
            Self::KvBusy => ResponseCode::SystemBusy,
            Self::ConfigIsFixed => ResponseCode::NoPermission,
        }
    }
}

/// Serves one request; its response, if it wants one, goes to the end of `out`.
pub(crate) fn serve(origin: &Origin<'_>, request: &Command<'_>, out: &mut Vec<u8>) {
    let response_at = out.len();
    let handled = handle(origin, request, out).and_then(|handled| {
        let bytes = out.len() - response_at;
        if bytes > FRAME_BYTES_MAX {
            Err(RequestError::AnswerTooLong { bytes })
        } else {
            Ok(handled)
        }
    });
    let answered = match handled {
        Ok(Handled::Later) => return,
        Ok(Handled::Now) => ResponseCode::Success,
        Err(error) => {
            out.truncate(response_at);
            let code = error.code();
            write_error(origin, &request.head, &error, out);
            code
        }
    };
    if request.head.is_one_way() {
        out.truncate(response_at);
    }
    origin.server.metrics.answered(request.head.code, answered);
}

fn handle(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<Handled, RequestError> {
    match admit(request.head.code)? {
        Served::RegisterBroker => broker::register(origin, request, out)?,
        Served::UnregisterBroker => broker::unregister(origin, request, out)?,
        Served::QueryDataVersion => broker::query_data_version(origin, request, out)?,
        Served::BrokerHeartbeat => broker::heartbeat(origin, request, out)?,
        Served::GetBrokerMemberGroup => cluster::member_group(origin, request, out)?,
        Served::GetRoute => route::by_topic(origin, request, out)?,
        Served::GetClusterInfo => cluster::info(origin, request, out),
        Served::GetTopicList => topic::list(origin, request, out),
        Served::GetTopicsByCluster => topic::list_by_cluster(origin, request, out)?,
        Served::GetSystemTopicList => topic::list_system(origin, request, out),
        Served::GetUnitTopicList => topic::list_unit(origin, request, out),
        Served::GetHasUnitSubTopicList => topic::list_unit_sub(origin, request, out),
        Served::GetHasUnitSubUnUnitTopicList => {
            topic::list_unit_sub_without_unit(origin, request, out);
        }
        Served::DeleteTopic => topic::delete(origin, request, out)?,
        Served::RegisterTopic => topic::register(origin, request, out)?,
        Served::WipeWritePermission => broker::wipe_write_permission(origin, request, out)?,
        Served::AddWritePermission => broker::add_write_permission(origin, request, out)?,
        Served::PutKv => return kv::put(origin, request),
        Served::GetKv => kv::get(origin, request, out)?,
        Served::DeleteKv => return kv::delete(origin, request),
        Served::ListKv => kv::list(origin, request, out)?,
        Served::UpdateConfig => return Err(RequestError::ConfigIsFixed),
        Served::GetConfig => config::get(origin, request, out),
    }
    Ok(Handled::Now)
}

fn admit(number: i32) -> Result<Served, RequestError> {
    match Code::<RequestCode>::from(number) {
        Code::Known(code) => authorise(code).map_err(|owner| RequestError::NotSupported {
            code: number,
            help: format!(": this is a name server and the code is {}; {owner}", code.name()),
        }),
        Code::Unknown(_) => Err(RequestError::NotSupported { code: number, help: String::new() }),
    }
}

fn write_error(origin: &Origin<'_>, request: &Head, error: &RequestError, out: &mut Vec<u8>) {
    let peer = origin.connection.peer();
    match error {
        RequestError::Registration(error) => {
            tracing::warn!(%peer, %error, "registration of a broker refused");
        }
        RequestError::Kv(error @ (KvError::Io { .. } | KvError::Damaged { .. })) => {
            tracing::error!(%peer, %error, "KV configuration could not be changed");
        }
        error => tracing::debug!(%peer, code = request.code, %error, "request refused"),
    }
    command::response(out, request, error.code(), Some(&error.to_string())).finish(b"");
}

/// Answers from a task, after the session has gone on.
fn respond_later(
    origin: &Origin<'_>,
    request: &Command<'_>,
    work: impl Future<Output = Result<(), RequestError>> + Send + 'static,
) {
    let server = origin.server.clone();
    let listener = origin.listener.to_owned();
    let connection = origin.connection.clone();
    let head = request.head;
    origin.server.tasks.spawn(async move {
        let done = work.await;
        let code = done.as_ref().err().map_or(ResponseCode::Success, RequestError::code);
        let origin = Origin { server: &server, listener: &listener, connection: &connection };
        let mut answer = Vec::new();
        match done {
            Ok(()) => write_success(&head, b"", &mut answer),
            Err(error) => write_error(&origin, &head, &error, &mut answer),
        }
        if !head.is_one_way() {
            // Whoever asked may be gone by now; the work is done all the same.
            let _: Result<(), Closed> = connection.write(|out| out.append(&mut answer));
        }
        server.metrics.answered(head.code, code);
    });
}

fn write_success(request: &Head, body: &[u8], out: &mut Vec<u8>) {
    command::response(out, request, ResponseCode::Success, None).finish(body);
}

fn write_body(request: &Head, body: &impl Body, out: &mut Vec<u8>) {
    write_success(request, &body.encode(), out);
}

fn write_header<'h>(request: &Head, header: &impl Header<'h>, body: &[u8], out: &mut Vec<u8>) {
    let mut writer = command::response(out, request, ResponseCode::Success, None);
    header.encode(&mut writer);
    writer.finish(body);
}

/// The name of a broker or a cluster.
fn broker_name(text: Text<'_>) -> Result<ResourceName, RequestError> {
    Ok(ResourceName::broker(&text.to_cow())?)
}

/// `host:port`, in characters that need no escapes anywhere.
fn address(field: &'static str, text: &str) -> Result<String, RequestError> {
    let wrong = |problem| Err(RequestError::Field { field, value: quoted(text), problem });
    if text.len() > ADDRESS_BYTES_MAX {
        return wrong("the limit is 261 bytes");
    }
    let is_harmless = |byte: u8| byte.is_ascii_graphic() && !b"\"\\,;<>&'".contains(&byte);
    if !text.bytes().all(is_harmless) {
        return wrong("an address is host:port without blanks, quotes and commas");
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => wrong("an address is host:port"),
    }
}

/// The beginning of a text that came from outside, for a remark or a log line.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port_and_nothing_else() {
        for good in ["10.0.0.1:10911", "broker-0.weir.svc:1", "[::1]:10911", "::1:65535"] {
            assert_eq!(address("brokerAddr", good).unwrap(), good);
        }
        let long = format!("{}:1", "h".repeat(300));
        for bad in ["", ":1", "host", "host:", "host:x", "host:65536", "a b:1", "a\":1", &long] {
            let error = address("brokerAddr", bad).unwrap_err();
            assert_eq!(error.code(), ResponseCode::InvalidParameter);
            assert!(error.to_string().starts_with("brokerAddr is "), "{error}");
        }
    }

    #[test]
    fn codes_that_are_not_served_are_named() {
        let error = admit(310).unwrap_err();
        assert_eq!(error.code(), ResponseCode::RequestCodeNotSupported);
        let remark = error.to_string();
        assert!(remark.starts_with(" request type 310 not supported: "), "{remark}");
        assert!(remark.contains("SendMessageV2"));
        assert_eq!(admit(9999).unwrap_err().to_string(), " request type 9999 not supported");
    }
}
