//! Who is connected, for administrators: codes 203, 204 and 328.

use std::time::UNIX_EPOCH;

use weirmq_remoting::ResponseCode;
use weirmq_remoting::body::{
    Body as _, Connection as ConnectionBody, ConsumerConnection, ProducerConnection, ProducerInfo,
    ProducerTableInfo,
};
use weirmq_remoting::command::Command;
use weirmq_remoting::header::{ConsumerGroupHeader, ProducerGroupHeader};

use super::{Context, Refusal, fields, succeed_with_body};
use crate::clients::Member;

pub(super) fn consumers(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: ConsumerGroupHeader<'_> = fields(request)?;
    let name = header.consumer_group.to_cow();
    let Some(group) = context.broker.clients.consumer_group(&name) else {
        let remark = format!("the consumer group[{name}] not online");
        return Err(Refusal::new(ResponseCode::ConsumerNotOnline, remark));
    };
    let body = ConsumerConnection {
        connection_set: group.members.values().map(connection).collect(),
        consume_from_where: group.consume_from_where,
        consume_type: group.consume_type,
        message_model: group.message_model,
        subscription_table: group.subscriptions,
    };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

pub(super) fn producers(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: ProducerGroupHeader<'_> = fields(request)?;
    let name = header.producer_group.to_cow();
    let Some(members) = context.broker.clients.producer_group(&name) else {
        let remark = format!("the producer group[{name}] not exist");
        return Err(Refusal::new(ResponseCode::SystemError, remark));
    };
    let body = ProducerConnection { connection_set: members.iter().map(connection).collect() };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

pub(super) fn all_producers(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let producers = context.broker.clients.producers();
    let data = producers
        .into_iter()
        .map(|(group, members)| (group, members.iter().map(producer_info).collect()));
    let body = ProducerTableInfo { data: data.collect() };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

fn connection(member: &Member) -> ConnectionBody {
    ConnectionBody {
        client_addr: member.connection.peer().to_string(),
        client_id: member.client_id.clone(),
        language: Some(member.language),
        version: member.version,
    }
}

fn producer_info(member: &Member) -> ProducerInfo {
    let since = member.last_heartbeat.duration_since(UNIX_EPOCH).unwrap_or_default();
    ProducerInfo {
        client_id: member.client_id.clone(),
        language: Some(member.language),
        last_update_timestamp: since.as_millis() as i64,
        remote_ip: member.connection.peer().ip().to_string(),
        version: member.version,
    }
}
