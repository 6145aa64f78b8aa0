//! Pulls: codes 11 and 361, answered now or held until there is something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weirmq_remoting::command::{Command, Head, response};
use weirmq_remoting::header::{
    Header as _, PULL_CLASS_FILTER, PULL_COMMIT_OFFSET, PULL_SUBSCRIPTION, PULL_SUSPEND,
    PullMessageHeader, PullMessageResponseHeader,
};
use weirmq_remoting::net::Connection;
use weirmq_remoting::{ResourceName, ResponseCode};
use weirmq_store::{QueueEntry, QueueRead, ReadLimits, Store, StoreError};

use super::{Context, Refusal, fields};
use crate::Broker;
use crate::broker::Reader;
use crate::filter::{FilterError, TagFilter};
use crate::long_poll::NotHeld;
use crate::topics::Topic;

/// A pull is held at most this long, whatever it asks for.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// What a pull wants of a queue.
#[derive(Debug, Clone)]
struct Wanted {
    head: Head,
    group: String,
    topic: Arc<Topic>,
    queue: i32,
    offset: i64,
    messages_max: usize,
    bytes_max: usize,
    filter: TagFilter,
    group_sys_flag: i32,
    /// Where the group wants to read what is not in memory.
    when_slow: i64,
}

/// A pull that found nothing and waits.
pub(crate) struct HeldPull {
    wanted: Wanted,
    connection: Connection,
    deadline: Instant,
}

impl HeldPull {
    pub(crate) fn topic(&self) -> &str {
        &self.wanted.topic.name
    }

    pub(crate) fn queue(&self) -> i32 {
        self.wanted.queue
    }

    pub(crate) fn connection_id(&self) -> u64 {
        self.connection.id()
    }

    /// The first entry that it has not seen. A pull with a negative offset is never held.
    pub(crate) fn offset(&self) -> u64 {
        self.wanted.offset.max(0) as u64
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn accepts(&self, tag_hash: i64) -> bool {
        self.wanted.filter.accepts(tag_hash)
    }
}

/// How a pull ended. Source: `GetMessageStatus`, as `PullMessageProcessor` maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Found,
    /// Nothing yet: the offset is where the next message will be.
    NotFound,
    /// Messages were there, none of them wanted.
    NoneWanted,
    /// The offset is not in the queue; the answer says where it is.
    OffsetMoved,
    /// A slave does not have it any more; its master may.
    AtTheMaster,
}

impl Outcome {
    fn code(self) -> ResponseCode {
        match self {
            Self::Found => ResponseCode::Success,
            Self::NotFound => ResponseCode::PullNotFound,
            Self::NoneWanted | Self::AtTheMaster => ResponseCode::PullRetryImmediately,
            Self::OffsetMoved => ResponseCode::PullOffsetMoved,
        }
    }
}

struct Pulled {
    outcome: Outcome,
    next: i64,
    min: i64,
    max: i64,
    messages: usize,
    /// Bytes of messages that were not written just now.
    bytes_of_old: usize,
}

pub(super) fn pull(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: PullMessageHeader<'_> = fields(request)?;
    let broker = context.broker;
    let wanted = wanted(broker, request.head, &header)?;
    let commit = header.commit_offset.filter(|offset| *offset >= 0);
    if let Some(offset) = commit.filter(|_| header.sys_flag & PULL_COMMIT_OFFSET != 0) {
        broker.commit_offset(&wanted.group, &wanted.topic.name, wanted.queue, offset)?;
    }
    let mut body = broker.take_buffer();
    let Some(pulled) = read(broker, &wanted, &mut body)? else {
        broker.give_buffer(body);
        let (connection, deadline) = (context.connection.clone(), Instant::now());
        let refused = broker.cold_reads.add(HeldPull { wanted, connection, deadline });
        return refused.map_or(Ok(()), |_| Err(too_many_cold()));
    };
    let suspend = header.suspend_timeout_millis.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
    let may_hold = header.sys_flag & PULL_SUSPEND != 0 && suspend > 0 && !request.head.is_one_way();
    if pulled.outcome == Outcome::NotFound && may_hold {
        let deadline = Instant::now() + Duration::from_millis(suspend).min(HOLD_MAX);
        let connection = context.connection.clone();
        hold(broker, HeldPull { wanted, connection, deadline });
    } else {
        write_reply(broker, out, &wanted, &pulled, false, &body);
    }
    broker.give_buffer(body);
    Ok(())
}

/// Answers a held pull because its queue has grown. It waits on when nothing there is for it.
pub(crate) fn resume(broker: &Broker, held: HeldPull) {
    let mut body = broker.take_buffer();
    match read(broker, &held.wanted, &mut body) {
        Ok(Some(pulled)) if pulled.outcome == Outcome::NotFound => hold(broker, held),
        Ok(Some(pulled)) => {
            let reply =
                |out: &mut Vec<u8>| write_reply(broker, out, &held.wanted, &pulled, false, &body);
            let _ = held.connection.write(reply);
        }
        Ok(None) => {
            if let Some(refused) = broker.cold_reads.add(held) {
                refuse(&refused, &too_many_cold());
            }
        }
        Err(refusal) => refuse(&held, &refusal),
    }
    broker.give_buffer(body);
}

/// Answers a pull whose messages are not in memory; on a thread that may wait for the disk. Says
/// how many bytes were read.
pub(crate) fn answer_cold(broker: &Broker, held: HeldPull) -> usize {
    let mut body = broker.take_buffer();
    match read_waiting(broker, &held.wanted, &mut body) {
        Ok(pulled) => {
            let reply =
                |out: &mut Vec<u8>| write_reply(broker, out, &held.wanted, &pulled, true, &body);
            let _ = held.connection.write(reply);
        }
        Err(refusal) => refuse(&held, &refusal),
    }
    let bytes = body.len();
    broker.give_buffer(body);
    bytes
}

fn refuse(held: &HeldPull, refusal: &Refusal) {
    let _ = held.connection.write(|out| {
        response(out, &held.wanted.head, refusal.code, Some(&refusal.remark)).finish(b"");
    });
}

/// Refuses every held pull, and those that come, before the broker closes its connections. Java's client 4
/// waits 30 s for the answer to a pull whose connection was closed, and repeats a refused one after 3 s.
pub(crate) fn end_held(broker: &Broker) {
    for held in broker.long_polls.end() {
        refuse(&held, &closing());
    }
}

fn closing() -> Refusal {
    Refusal::new(ResponseCode::ServiceNotAvailable, "the broker closes its connections; pull again")
}

fn too_many_cold() -> Refusal {
    let remark = "too many pulls wait for the disk; ask again later";
    Refusal::new(ResponseCode::SystemBusy, remark)
}

/// Answers a held pull because its time is over, with whatever is there.
pub(crate) fn expire(broker: &Broker, held: HeldPull) {
    let late = HeldPull { deadline: Instant::now(), ..held };
    let mut body = broker.take_buffer();
    if let Ok(Some(pulled)) = read(broker, &late.wanted, &mut body) {
        let reply =
            |out: &mut Vec<u8>| write_reply(broker, out, &late.wanted, &pulled, false, &body);
        let _ = late.connection.write(reply);
    } else {
        resume(broker, late);
        return;
    }
    broker.give_buffer(body);
}

fn hold(broker: &Broker, pull: HeldPull) {
    let (topic, queue) = (pull.wanted.topic.clone(), pull.wanted.queue);
    match broker.long_polls.hold(pull, broker.config().limits.held_pulls_max) {
        None => {}
        Some((refused, NotHeld::Over)) => {
            refuse(&refused, &closing());
            return;
        }
        Some((refused, NotHeld::TooMany)) => {
            // The client gets its empty answer now and asks again.
            let pulled = Pulled {
                outcome: Outcome::NotFound,
                next: refused.wanted.offset,
                min: 0,
                max: refused.wanted.offset,
                messages: 0,
                bytes_of_old: 0,
            };
            let reply =
                |out: &mut Vec<u8>| write_reply(broker, out, &refused.wanted, &pulled, false, b"");
            let _ = refused.connection.write(reply);
            return;
        }
    }
    // A message may have come between the look into the queue and the hold.
    let max = broker.store.queue_range(&topic.name, queue).map_or(0, |range| range.max);
    for overtaken in broker.long_polls.take_overtaken(&topic.name, queue, max) {
        resume(broker, overtaken);
    }
}

/// Checks everything that can be wrong with a pull.
fn wanted(
    broker: &Arc<Broker>,
    head: Head,
    header: &PullMessageHeader<'_>,
) -> Result<Wanted, Refusal> {
    let group = header.consumer_group.to_cow();
    let topic_name = header.topic.to_cow();
    let no_permission = |remark: String| Err(Refusal::new(ResponseCode::NoPermission, remark));
    if !broker.is_readable() {
        return no_permission(format!(
            "the broker[{}] pulling message is forbidden",
            broker.config().name
        ));
    }
    let config = broker.group_or_create(&group)?;
    if !config.consume_enable {
        return no_permission(format!("subscription group no permission, {group}"));
    }
    let Some(topic) = broker.state.topics.get(&topic_name) else {
        ResourceName::topic(&topic_name)?;
        let remark = format!(
            "topic[{topic_name}] not exist, apply first please! Create it with \
             `weir topic create {topic_name}`, or send to it with auto_create_topics on."
        );
        return Err(Refusal::new(ResponseCode::TopicNotExist, remark));
    };
    if !topic.is_readable() {
        let why = topic.unserved().map(|why| format!(": {why}, which is not supported"));
        let why = why.unwrap_or_default();
        return no_permission(format!("the topic[{topic_name}] pulling message is forbidden{why}"));
    }
    if !topic.has_read_queue(header.queue_id) {
        let remark = format!(
            "queueId[{}] is illegal, topic:[{topic_name}] topicConfig.readQueueNums:[{}] consumer:[{group}]",
            header.queue_id, topic.read_queues
        );
        return Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    }
    if header.sys_flag & PULL_CLASS_FILTER != 0 {
        let remark = "filtering by class is not supported; subscribe by tags";
        return Err(Refusal::new(ResponseCode::SubscriptionParseFailed, remark));
    }
    let filter = filter(broker, header, &group, &topic_name, config.consume_broadcast_enable)?;
    let limits = &broker.config().limits;
    let asked = usize::try_from(header.max_msg_nums).unwrap_or(0);
    let asked_bytes = header.max_msg_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    Ok(Wanted {
        head,
        group: group.into_owned(),
        topic,
        queue: header.queue_id,
        offset: header.queue_offset,
        messages_max: asked.clamp(1, limits.pull_messages_max),
        bytes_max: asked_bytes.unwrap_or(usize::MAX).min(limits.pull_bytes_max),
        filter,
        group_sys_flag: config.group_sys_flag,
        when_slow: config.which_broker_when_consume_slowly,
    })
}

/// The filter in the request, or the one of the group's heartbeats.
fn filter(
    broker: &Broker,
    header: &PullMessageHeader<'_>,
    group: &str,
    topic: &str,
    broadcast_enabled: bool,
) -> Result<TagFilter, Refusal> {
    let parse_failed = |error: FilterError| {
        let code = match error {
            FilterError::Type(_) | FilterError::TooMany(_) => ResponseCode::SystemError,
            FilterError::NoTag => ResponseCode::SubscriptionParseFailed,
        };
        Refusal::new(code, error.to_string())
    };
    if header.sys_flag & PULL_SUBSCRIPTION != 0 {
        let expression = header.subscription.map(|text| text.to_cow()).unwrap_or_default();
        let kind = header.expression_type.map(|text| text.to_cow());
        return TagFilter::parse(&expression, kind.as_deref()).map_err(parse_failed);
    }
    if !broadcast_enabled && broker.clients.is_broadcasting(group) {
        let remark = format!("the consumer group[{group}] can not consume by broadcast way");
        return Err(Refusal::new(ResponseCode::NoPermission, remark));
    }
    let version = header.sub_version.unwrap_or_default();
    let Some(subscription) = broker.clients.subscription(group, topic, version) else {
        let remark = format!("the consumer's group info not exist, group: {group}");
        return Err(Refusal::new(ResponseCode::SubscriptionNotExist, remark));
    };
    let Some(subscription) = subscription else {
        let remark =
            format!("the consumer's subscription not exist, group: {group}, topic: {topic}");
        return Err(Refusal::new(ResponseCode::SubscriptionNotExist, remark));
    };
    if subscription.sub_version < version {
        let remark =
            format!("the consumer's subscription not latest, group: {group}, topic: {topic}");
        return Err(Refusal::new(ResponseCode::SubscriptionNotLatest, remark));
    }
    TagFilter::of(&subscription).map_err(parse_failed)
}

/// Reads the wanted messages into `body` if that is possible without the disk, and within the rate of
/// old ones.
fn read(broker: &Broker, wanted: &Wanted, body: &mut Vec<u8>) -> Result<Option<Pulled>, Refusal> {
    let is_within = |pulled: &Pulled| match pulled.bytes_of_old {
        0 => true,
        bytes => broker.cold_reads.pay_at_once(bytes),
    };
    let pulled = read_as(broker, wanted, body, Store::read_queue_cached)?.filter(is_within);
    if pulled.is_none() {
        body.clear();
    }
    Ok(pulled)
}

/// Reads the wanted messages into `body`, however long that takes.
fn read_waiting(broker: &Broker, wanted: &Wanted, body: &mut Vec<u8>) -> Result<Pulled, Refusal> {
    let pulled =
        read_as(broker, wanted, body, |store, topic, queue, from, limits, accept, out| {
            store.read_queue(topic, queue, from, limits, accept, out).map(Some)
        })?;
    Ok(pulled.expect("a read that waits is never put off"))
}

/// Source: `DefaultMessageStore.getMessage`.
fn read_as(
    broker: &Broker,
    wanted: &Wanted,
    body: &mut Vec<u8>,
    read_queue: impl FnOnce(
        &Store,
        &str,
        i32,
        u64,
        ReadLimits,
        &mut dyn FnMut(&QueueEntry) -> bool,
        &mut Vec<u8>,
    ) -> Result<Option<QueueRead>, StoreError>,
) -> Result<Option<Pulled>, Refusal> {
    let nothing =
        |outcome, next, min, max| Pulled { outcome, next, min, max, messages: 0, bytes_of_old: 0 };
    let Some(range) = broker.store.queue_range(&wanted.topic.name, wanted.queue) else {
        if broker.may_lack_shown() {
            return Ok(Some(nothing(Outcome::NotFound, wanted.offset, 0, 0)));
        }
        let outcome = if wanted.offset == 0 { Outcome::NotFound } else { Outcome::OffsetMoved };
        return Ok(Some(nothing(outcome, 0, 0, 0)));
    };
    let (min, max) = (range.min as i64, range.max as i64);
    let outside = match wanted.offset {
        // It would pass over messages that its master has: each replica deletes by itself.
        offset if offset < min && broker.is_slave() => {
            broker.check_reaches_master()?;
            Some((Outcome::AtTheMaster, offset))
        }
        offset if offset < min => Some((Outcome::OffsetMoved, min)),
        offset if offset == max => Some((Outcome::NotFound, offset)),
        // What a slave does not have yet may well be there: nobody has to go back for it.
        offset if offset > max && !broker.may_lack_shown() => Some((Outcome::OffsetMoved, max)),
        offset if offset > max => Some((Outcome::NotFound, offset)),
        _ => None,
    };
    if let Some((outcome, next)) = outside {
        return Ok(Some(nothing(outcome, next, min, max)));
    }
    let limits = ReadLimits { messages: wanted.messages_max, bytes: wanted.bytes_max };
    let mut accept = |entry: &QueueEntry| wanted.filter.accepts(entry.tag_hash);
    let read = read_queue(
        &broker.store,
        &wanted.topic.name,
        wanted.queue,
        wanted.offset as u64,
        limits,
        &mut accept,
        body,
    )?;
    let Some(read) = read else { return Ok(None) };
    let outcome = if read.found > 0 { Outcome::Found } else { Outcome::NoneWanted };
    Ok(Some(Pulled {
        outcome,
        next: read.next as i64,
        min,
        max,
        messages: read.found,
        bytes_of_old: read.bytes_of_old,
    }))
}

fn write_reply(
    broker: &Broker,
    out: &mut Vec<u8>,
    wanted: &Wanted,
    pulled: &Pulled,
    is_cold: bool,
    body: &[u8],
) {
    let reader = Reader {
        group: &wanted.group,
        topic: &wanted.topic.name,
        queue: wanted.queue,
        next: pulled.next,
        when_slow: wanted.when_slow,
    };
    let fields = PullMessageResponseHeader {
        suggest_which_broker_id: broker.suggested_broker(is_cold, reader),
        next_begin_offset: pulled.next,
        min_offset: pulled.min,
        max_offset: pulled.max,
        offset_delta: None,
        topic_sys_flag: Some(wanted.topic.sys_flag as i32),
        group_sys_flag: Some(wanted.group_sys_flag),
        forbidden_type: None,
    };
    let remark = match pulled.outcome {
        Outcome::Found => "FOUND",
        Outcome::NotFound => "OFFSET_OVERFLOW_ONE",
        Outcome::NoneWanted => "NO_MATCHED_MESSAGE",
        Outcome::OffsetMoved => "OFFSET_MOVED",
        Outcome::AtTheMaster => "OFFSET_TOO_SMALL",
    };
    let mut writer = response(out, &wanted.head, pulled.outcome.code(), Some(remark));
    fields.encode(&mut writer);
    writer.finish(body);
    if pulled.messages > 0 {
        broker.count_out(&wanted.group, &wanted.topic, pulled.messages, body.len());
    }
}

#[cfg(test)]
mod tests {
    use weirmq_remoting::command::{Language, SerializeType};

    use super::*;
    use crate::replication::{PeerStatus, RoleStatus, Status, broker_of};

    #[tokio::test]
    async fn nobody_passes_at_a_slave_over_what_its_master_may_have() {
        let folder = tempfile::tempdir().unwrap();
        let (broker, _prepared) = broker_of(&folder);
        let deleted = [("t".to_owned(), [(0, 7)].into())].into();
        broker.store.adopt_next_offsets(&deleted).unwrap();
        let replication = broker.replication.as_ref().unwrap();
        let pull = |role, is_connected| {
            let (is_in_sync, is_prompt) = (is_connected, is_connected);
            let peer =
                PeerStatus { replica: 1, is_connected, is_in_sync, is_prompt, end: 0, flushed: 0 };
            replication.set_status(Status { role, peers: vec![peer], ..replication.status() });
            let head = Head {
                serialize: SerializeType::Json,
                code: 11,
                language: Language::RUST,
                version: 0,
                opaque: 0,
                flag: 0,
            };
            let wanted = Wanted {
                head,
                group: "readers".to_owned(),
                topic: Arc::new(Topic::new("t", 1)),
                queue: 0,
                offset: 3,
                messages_max: 32,
                bytes_max: 1_000,
                filter: TagFilter::parse("*", None).unwrap(),
                group_sys_flag: 0,
                when_slow: 1,
            };
            let pulled = read(&broker, &wanted, &mut Vec::new()).map(Option::unwrap);
            pulled.map(|pulled| {
                let next = pulled.next;
                let reader = Reader { group: "readers", topic: "t", queue: 0, next, when_slow: 1 };
                (pulled.outcome, next, broker.suggested_broker(false, reader))
            })
        };
        let master = RoleStatus::Master { may_append: true };
        assert_eq!(pull(master, true), Ok((Outcome::OffsetMoved, 7, 0)));
        let slave = RoleStatus::Slave { master: 1 };
        assert_eq!(pull(slave, true), Ok((Outcome::AtTheMaster, 3, 0)));
        for role in [slave, RoleStatus::Waiting] {
            assert_eq!(pull(role, false).unwrap_err().code, ResponseCode::SystemBusy);
        }
    }
}
