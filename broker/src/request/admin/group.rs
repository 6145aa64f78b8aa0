//! Consumer groups: codes 200, 201, 207, 208, 343, 345 and 352.

use weirmq_remoting::body::{
    Body as _, ConsumeStats, MessageQueue, OffsetWrapper, QuerySubscriptionResponseBody,
    SubscriptionGroupConfig, SubscriptionGroupWrapper, TopicList,
};
use weirmq_remoting::command::{Command, response};
use weirmq_remoting::header::{
    ConsumeStatsHeader, GroupNameHeader, GroupPageHeader, GroupTopicHeader,
};
use weirmq_remoting::{ResourceName, ResponseCode};

use crate::groups;
use crate::request::{Context, Refusal, fields, succeed_with_body};
use crate::state::StateRecord;

/// The most queues of a retry topic.
const RETRY_QUEUES_MAX: i32 = 64;

pub(in crate::request) fn create(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let config = SubscriptionGroupConfig::decode(request.body)?;
    ResourceName::group(&config.group_name)?;
    if !(0..=RETRY_QUEUES_MAX).contains(&config.retry_queue_nums) {
        let remark = format!(
            "retryQueueNums is {}, it must be 0 to {RETRY_QUEUES_MAX}",
            config.retry_queue_nums
        );
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    let broker = context.broker;
    broker.check_group_count(&config.group_name)?;
    let changed = broker.state.change(|| {
        let known = broker.state.groups.get(&config.group_name);
        let is_new = known.is_none_or(|known| *known != config);
        is_new.then(|| StateRecord::Group { group: Box::new(config) })
    })?;
    context.succeed_at(changed.position, out, &request.head, |_| {}, b"");
    Ok(())
}

pub(in crate::request) fn delete(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: GroupNameHeader<'_> = fields(request)?;
    let name = header.group_name.to_cow().into_owned();
    if groups::is_system(&name) {
        let remark = format!("the group[{name}] belongs to the system");
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    let with_offsets = header.clean_offset.unwrap_or_default();
    let state = &context.broker.state;
    let changed = state.change(|| {
        let is_known = state.groups.get(&name).is_some() || with_offsets;
        is_known.then(|| StateRecord::GroupDeleted { name: name.clone(), with_offsets })
    })?;
    context.succeed_at(changed.position, out, &request.head, |_| {}, b"");
    Ok(())
}

/// All groups, in pages when the asker wants pages.
pub(in crate::request) fn all(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: GroupPageHeader = fields(request)?;
    let broker = context.broker;
    let all = broker.state.groups.all();
    let mut sorted: Vec<_> = all.values().collect();
    sorted.sort_by(|a, b| a.group_name.cmp(&b.group_name));
    let total = sorted.len();
    let page = super::page(sorted, header.group_seq, header.max_group_num);
    let body = SubscriptionGroupWrapper {
        data_version: broker.data_version(),
        subscription_group_table: page.map(|g| (g.group_name.clone(), (**g).clone())).collect(),
        ..SubscriptionGroupWrapper::default()
    };
    let mut writer = response(out, &request.head, ResponseCode::Success, None);
    if header.group_seq.is_some() {
        writer.number("totalGroupNum", total);
    }
    writer.finish(&body.encode());
    Ok(())
}

pub(in crate::request) fn one(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: GroupNameHeader<'_> = fields(request)?;
    let name = header.group_name.to_cow();
    let Some(config) = context.broker.state.groups.get(&name) else {
        let remark = format!("No subscription group in this broker. group: {name}");
        return Err(Refusal::new(ResponseCode::SubscriptionGroupNotExist, remark));
    };
    succeed_with_body(out, &request.head, &config.encode());
    Ok(())
}

/// How far a group has come in each queue, of one topic or of all.
pub(in crate::request) fn consume_stats(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: ConsumeStatsHeader<'_> = fields(request)?;
    let group = header.consumer_group.to_cow();
    let broker = context.broker;
    let one = header.topic.map(|topic| topic.to_cow().into_owned()).filter(|t| !t.is_empty());
    let topics = match one {
        Some(topic) => vec![topic],
        None => broker.state.offsets.topics_of(&group),
    };
    let mut body = ConsumeStats::default();
    for name in topics {
        let Some(topic) = broker.state.topics.get(&name) else {
            continue;
        };
        let committed = broker.state.offsets.of_topic(&group, &name);
        for queue in 0..topic.read_queues as i32 {
            let range = broker.store.queue_range(&name, queue);
            let consumer_offset = committed.get(&queue).copied().unwrap_or(0);
            let last = u64::try_from(consumer_offset - 1).ok();
            let last_timestamp = match last {
                Some(last) => broker.store.store_time(&name, queue, last)?.unwrap_or_default(),
                None => 0,
            };
            let offsets = OffsetWrapper {
                broker_offset: range.map_or(0, |range| range.max as i64),
                consumer_offset,
                last_timestamp,
                pull_offset: consumer_offset,
            };
            let queue = MessageQueue::new(name.clone(), broker.config().name.clone(), queue);
            body.offset_table.insert(queue, offsets);
        }
    }
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

/// The topics that a group has offsets of or subscribes to.
pub(in crate::request) fn topics(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: GroupTopicHeader<'_> = fields(request)?;
    let group = header.group.to_cow();
    let broker = context.broker;
    let mut body = TopicList::default();
    body.topic_list.extend(broker.state.offsets.topics_of(&group));
    if let Some(group) = broker.clients.consumer_group(&group) {
        body.topic_list.extend(group.subscriptions.into_keys());
    }
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

pub(in crate::request) fn subscription(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: GroupTopicHeader<'_> = fields(request)?;
    let group = header.group.to_cow().into_owned();
    let topic = header.topic.map(|topic| topic.to_cow().into_owned()).unwrap_or_default();
    let known = context.broker.clients.consumer_group(&group);
    let subscription_data = known.and_then(|mut known| known.subscriptions.remove(&topic));
    let body = QuerySubscriptionResponseBody { group, subscription_data, topic };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}
