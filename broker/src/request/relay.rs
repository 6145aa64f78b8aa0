//! Requests of administrators that a client has to answer: codes 307 and 309.
//!
//! The broker asks the client over the client's own connection and passes the answer on.
//! Source: `Broker2Client.callClient`.

use std::time::Duration;

use weirmq_remoting::command::{Command, Head, HeaderWriter, SerializeType, Text, response};
use weirmq_remoting::header::RelayHeader;
use weirmq_remoting::net::{CallError, OwnedCommand};
use weirmq_remoting::{Code, ResponseCode};

use super::{Context, Refusal, fields};
use crate::clients::Member;

/// Clients answer within this time. Apache's brokers wait 10 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// `JSTACK` of a running-info request needs clients from 3.1.8 on. Source: `MQVersion`.
const RUNNING_INFO_VERSION_MIN: i32 = 4;

/// 307: what a consumer is doing right now.
pub(super) fn running_info(context: &Context<'_>, request: &Command<'_>) -> Result<(), Refusal> {
    let header: RelayHeader<'_> = fields(request)?;
    relay(context, request, &header, Vec::new())
}

/// 309: a consumer is to consume one message now, which the broker sends along.
pub(super) fn consume_directly(
    context: &Context<'_>,
    request: &Command<'_>,
) -> Result<(), Refusal> {
    let header: RelayHeader<'_> = fields(request)?;
    let id = header.msg_id.map(|id| id.to_cow()).unwrap_or_default();
    let offset = weirmq_message::id::OffsetMessageId::parse(&id)
        .and_then(|id| i64::try_from(id.physical_offset).ok());
    let mut body = Vec::new();
    if !context.broker.read_client_record(offset.unwrap_or(-1), &mut body)? {
        let remark = format!("no message has the id {id:?}");
        return Err(Refusal::new(ResponseCode::QueryNotFound, remark));
    }
    relay(context, request, &header, body)
}

fn relay(
    context: &Context<'_>,
    request: &Command<'_>,
    header: &RelayHeader<'_>,
    body: Vec<u8>,
) -> Result<(), Refusal> {
    let group = header.consumer_group.to_cow();
    let client = header.client_id.map(|id| id.to_cow()).unwrap_or_default();
    let members = context.broker.clients.consumer_group(&group).map(|group| group.members);
    let Some(member) = members.and_then(|mut members| members.remove(&*client)) else {
        let remark = format!("The Consumer <{group}> <{client}> not online");
        return Err(Refusal::new(ResponseCode::ConsumerNotOnline, remark));
    };
    if member.version < RUNNING_INFO_VERSION_MIN {
        let remark = format!("the consumer <{client}> is too old to answer");
        return Err(Refusal::new(ResponseCode::SystemError, remark));
    }
    let ext: Vec<_> = request
        .ext
        .iter()
        .map(|(key, value)| (key.to_owned(), value.to_cow().into_owned()))
        .collect();
    let (head, asker) = (request.head, context.connection.clone());
    context.broker.runtime.spawn(async move {
        let answer = ask(&member, head.code, &ext, &body).await;
        // An asker that is gone does not want the answer any more.
        let _ = asker.write(|out| pass_on(out, &head, &member, answer));
    });
    Ok(())
}

async fn ask(
    member: &Member,
    code: i32,
    ext: &[(String, String)],
    body: &[u8],
) -> Result<OwnedCommand, CallError> {
    let fields = |writer: &mut HeaderWriter<'_>| {
        for (key, value) in ext {
            writer.text(key, Text::from(value.as_str()));
        }
    };
    member.connection.call(SerializeType::Json, code, fields, body, CALL_TIMEOUT).await
}

fn pass_on(
    out: &mut Vec<u8>,
    head: &Head,
    member: &Member,
    answer: Result<OwnedCommand, CallError>,
) {
    let refuse = |out: &mut Vec<u8>, remark: &str| {
        response(out, head, ResponseCode::ConsumeMessageTimeout, Some(remark)).finish(b"");
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return refuse(out, &format!("the consumer {}: {error}", member.client_id)),
    };
    match answer.command() {
        Ok(command) => {
            let code = match Code::<ResponseCode>::from(command.head.code) {
                Code::Known(code) => code,
                Code::Unknown(_) => ResponseCode::SystemError,
            };
            let remark = command.remark_text();
            let remark = Some(remark.as_str()).filter(|remark| !remark.is_empty());
            response(out, head, code, remark).finish(command.body);
        }
        Err(error) => refuse(out, &format!("the consumer {}: {error}", member.client_id)),
    }
}
