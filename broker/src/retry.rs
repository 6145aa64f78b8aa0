//! Messages that were not consumed: stored again, or given up.

use std::sync::Arc;

use weirmq_message::Record;
use weirmq_message::properties::{self, names};
use weirmq_message::tags;
use weirmq_remoting::ResourceName;
use weirmq_remoting::header::SendMessageHeader;
use weirmq_remoting::resource_name::RETRY_PREFIX;
use weirmq_store::{KeySource, NewMessage};

use crate::Broker;
use crate::request::Refusal;
use crate::topics::Topic;

/// The dead-letter topic, when a message that is sent to a retry topic has been consumed too
/// often. Ordered consumers send their retries themselves, that is why they come as sends.
///
/// Source: `SendMessageProcessor.handleRetryAndDLQ`.
pub(crate) fn given_up(
    broker: &Broker,
    retry_topic: &str,
    header: &SendMessageHeader<'_>,
) -> Result<Option<Arc<Topic>>, Refusal> {
    let group = retry_topic.strip_prefix(RETRY_PREFIX).unwrap_or(retry_topic);
    let config = broker.group_or_create(group)?;
    let retries_max = header.max_reconsume_times.unwrap_or(config.retry_max_times);
    if header.reconsume_times.unwrap_or_default() <= retries_max {
        return Ok(None);
    }
    let group = ResourceName::group(group)?;
    broker.create_dead_letter_topic(&group).map(Some)
}

/// `record` as a new message for `topic` and `queue`, with one more attempt counted.
pub(crate) fn again<'a>(
    record: &Record<'a>,
    topic: &'a str,
    queue_id: i32,
    properties: &'a [u8],
) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id,
        flag: record.flag,
        sys_flag: record.sys_flag,
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times.saturating_add(1),
        prepared_transaction_offset: 0,
        body: record.body,
        properties,
        tag_hash: tags::tag_hash(properties::get(properties, names::TAGS)),
        index_keys: KeySource::Properties,
        dispatch: true,
    }
}
