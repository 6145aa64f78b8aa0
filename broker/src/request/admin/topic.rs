//! Topics: codes 17, 21, 202, 215, 300, 305 and 351.

use std::collections::BTreeMap;

use weirmq_remoting::body::{
    Body as _, GroupList, MessageQueue, TopicConfigAndQueueMapping, TopicConfigSerializeWrapper,
    TopicList, TopicOffset, TopicStatsTable,
};
use weirmq_remoting::command::{Command, response};
use weirmq_remoting::header::{CreateTopicHeader, TopicHeader, TopicPageHeader};
use weirmq_remoting::{ResourceName, ResponseCode};

use crate::registration::topic_config;
use crate::request::{Context, Refusal, fields, succeed_with_body};
use crate::state::StateRecord;
use crate::topics::{self, PERM_INHERIT, PERM_READ, PERM_WRITE, Topic};

/// The longest attribute list that one request may carry, in entries.
const ATTRIBUTES_MAX: usize = 64;

pub(in crate::request) fn create(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: CreateTopicHeader<'_> = fields(request)?;
    let broker = context.broker;
    let name = ResourceName::topic(&header.topic.to_cow())?;
    if topics::is_reserved(name.as_str()) {
        let remark = format!("The topic[{name}] is conflict with system topic.");
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    let invalid = |remark: String| Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    let most = broker.config().limits.topic_queues_max;
    let queues = |field: &str, asked: i32| match u32::try_from(asked) {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => {
            let remark = format!("{field} is {asked}, it must be 1 to {most}");
            Err(Refusal::new(ResponseCode::InvalidParameter, remark))
        }
    };
    let all_bits = (PERM_READ | PERM_WRITE | PERM_INHERIT) as i32;
    if header.perm & !all_bits != 0 {
        return invalid(format!("perm is {}, it must be 0 to {all_bits}", header.perm));
    }
    let attributes = header.attributes.map(|text| text.to_cow()).unwrap_or_default();
    let changes = parse_attributes(&attributes)?;
    let topic = Topic {
        read_queues: queues("readQueueNums", header.read_queue_nums)?,
        write_queues: queues("writeQueueNums", header.write_queue_nums)?,
        perm: header.perm as u32,
        is_multi_tag: header.topic_filter_type.is_some_and(|kind| kind.raw() == "MULTI_TAG"),
        sys_flag: header.topic_sys_flag.and_then(|flag| u32::try_from(flag).ok()).unwrap_or(0),
        is_ordered: header.order.unwrap_or_default(),
        ..Topic::new(name.as_str(), 1)
    };
    let changed = broker.put_topic(topic, &changes)?;
    context.succeed_at(changed, out, &request.head, |_| {}, b"");
    Ok(())
}

/// `+key=value` sets an attribute, `-key` takes it away. Source: `AttributeParser`.
fn parse_attributes(text: &str) -> Result<Vec<(String, Option<String>)>, Refusal> {
    let invalid = |remark: String| Refusal::new(ResponseCode::InvalidParameter, remark);
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let changes: Result<Vec<_>, _> = parts
        .map(|part| match (part.split_at_checked(1), part.split_once('=')) {
            (Some(("+", _)), Some((key, value))) => {
                Ok((key[1..].to_owned(), Some(value.to_owned())))
            }
            (Some(("-", key)), None) => Ok((key.to_owned(), None)),
            _ => Err(invalid(format!("attribute {part:?} is neither +key=value nor -key"))),
        })
        .collect();
    let changes = changes?;
    if changes.len() > ATTRIBUTES_MAX {
        return Err(invalid(format!(
            "{} attributes, the limit is {ATTRIBUTES_MAX}",
            changes.len()
        )));
    }
    Ok(changes)
}

pub(in crate::request) fn delete(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: TopicHeader<'_> = fields(request)?;
    let name = header.topic.to_cow();
    if name.trim().is_empty() {
        let remark = "The specified topic is blank.";
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    let broker = context.broker;
    if broker.state.topics.is_system(&name) {
        let remark = format!("The topic[{name}] is conflict with system topic.");
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    let position = broker.delete_topic(&name)?;
    context.succeed_at(position, out, &request.head, |_| {}, b"");
    Ok(())
}

/// All topics, in pages when the asker wants pages.
pub(in crate::request) fn all(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: TopicPageHeader = fields(request)?;
    let broker = context.broker;
    let all = broker.state.topics.all();
    let mut sorted: Vec<_> = all.values().filter(|t| !t.name.contains('.')).collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let total = sorted.len();
    let page = super::page(sorted, header.topic_seq, header.max_topic_num);
    let body = TopicConfigSerializeWrapper {
        data_version: broker.data_version(),
        topic_config_table: page.map(|t| (t.name.clone(), topic_config(t))).collect(),
        ..TopicConfigSerializeWrapper::default()
    };
    let mut writer = response(out, &request.head, ResponseCode::Success, None);
    if header.topic_seq.is_some() {
        writer.number("totalTopicNum", total);
    }
    writer.finish(&body.encode());
    Ok(())
}

pub(in crate::request) fn one(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: TopicHeader<'_> = fields(request)?;
    let topic = known(context, &header.topic.to_cow())?;
    let body = TopicConfigAndQueueMapping {
        config: topic_config(&topic),
        ..TopicConfigAndQueueMapping::default()
    };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

/// Where each queue of a topic begins and ends.
pub(in crate::request) fn stats(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: TopicHeader<'_> = fields(request)?;
    let broker = context.broker;
    let topic = known(context, &header.topic.to_cow())?;
    let mut offset_table = BTreeMap::new();
    for queue in 0..topic.queues() as i32 {
        let offsets = match broker.store.queue_range(&topic.name, queue) {
            None => TopicOffset::default(),
            Some(range) => TopicOffset {
                last_update_timestamp: match range.max.checked_sub(1) {
                    Some(last) if range.max > range.min => {
                        broker.store.store_time(&topic.name, queue, last)?.unwrap_or_default()
                    }
                    _ => 0,
                },
                max_offset: range.max as i64,
                min_offset: range.min as i64,
            },
        };
        let queue = MessageQueue::new(topic.name.clone(), broker.config().name.clone(), queue);
        offset_table.insert(queue, offsets);
    }
    let body = TopicStatsTable { offset_table, ..TopicStatsTable::default() };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

pub(in crate::request) fn system_list(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let names = context.broker.state.topics.system_names().iter().cloned();
    let body = TopicList { topic_list: names.collect(), ..TopicList::default() };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

/// The groups that subscribe to a topic or have offsets of it.
pub(in crate::request) fn consumed_by(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: TopicHeader<'_> = fields(request)?;
    let topic = header.topic.to_cow();
    let broker = context.broker;
    let mut groups = broker.clients.groups_subscribed_to(&topic);
    groups.extend(broker.state.offsets.groups_of(&topic));
    let body = GroupList { group_list: groups.into_iter().collect() };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

fn known(context: &Context<'_>, name: &str) -> Result<std::sync::Arc<Topic>, Refusal> {
    context.broker.state.topics.get(name).ok_or_else(|| {
        Refusal::new(ResponseCode::TopicNotExist, format!("topic[{name}] not exist"))
    })
}

impl crate::Broker {
    /// Creates a topic, or changes it; attributes that the request does not name stay.
    pub(crate) fn put_topic(
        &self,
        topic: Topic,
        attributes: &[(String, Option<String>)],
    ) -> Result<Option<u64>, Refusal> {
        let name = topic.name.clone();
        self.check_topic_count(&name)?;
        let changed = self.state.change(|| {
            let known = self.state.topics.get(&name);
            let mut wanted = topic;
            wanted.attributes = known.as_ref().map(|t| t.attributes.clone()).unwrap_or_default();
            for (key, value) in attributes {
                match value {
                    Some(value) => wanted.attributes.insert(key.clone(), value.clone()),
                    None => wanted.attributes.remove(key),
                };
            }
            let is_new = known.is_none_or(|known| *known != wanted);
            is_new.then_some(StateRecord::Topic { topic: wanted })
        })?;
        // Also what was there already: whoever asks again may not have had the first answer, which
        // waits for the NameServers.
        self.topic_changed(&name);
        Ok(changed.position)
    }
}
