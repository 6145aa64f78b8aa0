//! Clients come and go: codes 34, 35, 38 and 46.

use weirmq_remoting::body::{
    Body as _, CheckClientRequestBody, GetConsumerListByGroupResponseBody, HeartbeatData,
};
use weirmq_remoting::command::Command;
use weirmq_remoting::header::{ConsumerGroupHeader, UnregisterClientHeader};
use weirmq_remoting::{ResourceName, ResponseCode};

use super::{Context, Refusal, fields, succeed_with_body};
use crate::filter::TagFilter;

/// The longest client id, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 1024;
/// The most groups that one client may be a member of, per kind.
const GROUPS_PER_CLIENT_MAX: usize = 1024;

pub(super) fn heartbeat(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let data = HeartbeatData::decode(request.body)?;
    if data.client_id.is_empty() || data.client_id.len() > CLIENT_ID_BYTES_MAX {
        let remark = format!(
            "clientID is {} bytes, it takes 1 to {CLIENT_ID_BYTES_MAX}",
            data.client_id.len()
        );
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    let groups = data.producer_data_set.len().max(data.consumer_data_set.len());
    if groups > GROUPS_PER_CLIENT_MAX {
        let remark =
            format!("one client has {groups} groups, the limit is {GROUPS_PER_CLIENT_MAX}");
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    for producer in &data.producer_data_set {
        ResourceName::group(&producer.group_name)?;
    }
    let broker = context.broker;
    let mut waiting = Ok(());
    for consumer in &data.consumer_data_set {
        let group = ResourceName::group(&consumer.group_name)?;
        // A group that may not be created does not take the client's other groups down with it.
        let created = broker.group_or_create(group.as_str());
        if let Err(refusal) = created.and_then(|config| broker.create_retry_topic(&group, &config))
        {
            tracing::debug!(%group, reason = refusal.remark, "consumer group not created");
            if refusal.waits_for.is_some() {
                waiting = Err(refusal);
            }
        }
    }
    broker.members_changed(broker.clients.heartbeat(context.connection, &request.head, data));
    waiting?;
    succeed_with_body(out, &request.head, b"");
    Ok(())
}

pub(super) fn unregister(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: UnregisterClientHeader<'_> = fields(request)?;
    let producer_group = header.producer_group.map(|group| group.to_cow());
    let consumer_group = header.consumer_group.map(|group| group.to_cow());
    let changed = context.broker.clients.unregister(
        &header.client_id.to_cow(),
        producer_group.as_deref(),
        consumer_group.as_deref(),
    );
    context.broker.members_changed(changed);
    if consumer_group.is_some() {
        // A client that leaves waits for its pulls; there is nothing left to wait for.
        for held in context.broker.long_polls.take_of_connection(context.connection.id()) {
            super::pull::expire(context.broker, held);
        }
    }
    succeed_with_body(out, &request.head, b"");
    Ok(())
}

pub(super) fn consumer_list(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: ConsumerGroupHeader<'_> = fields(request)?;
    let group = header.consumer_group.to_cow();
    let consumer_id_list = context.broker.clients.consumer_ids(&group);
    if consumer_id_list.is_empty() {
        let remark = format!("no consumer for this group, {group}");
        return Err(Refusal::new(ResponseCode::SystemError, remark));
    }
    let body = GetConsumerListByGroupResponseBody { consumer_id_list };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

/// A consumer asks whether the broker can evaluate its filter.
pub(super) fn check_client_config(
    _context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let body = CheckClientRequestBody::decode(request.body)?;
    if let Some(subscription) = &body.subscription_data {
        TagFilter::of(subscription)
            .map_err(|error| Refusal::new(ResponseCode::SystemError, error.to_string()))?;
    }
    succeed_with_body(out, &request.head, b"");
    Ok(())
}
