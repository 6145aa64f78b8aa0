//! The task that moves delayed messages to where they belong when their time has come.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weirmq_message::properties::{self, names};
use weirmq_message::{Decoded, Record, tags};
use weirmq_remoting::ResourceName;
use weirmq_store::{KeySource, NewMessage, ReadLimits};

use super::DelayLevel;
use crate::Broker;
use crate::state::StateRecord;
use crate::topics::SCHEDULE_TOPIC;

/// How many messages of a level are moved before the next level has its turn.
const PER_TURN: ReadLimits = ReadLimits { messages: 64, bytes: 4 << 20 };
/// How long a level rests after a failure, for example on a full disk.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// Longest sleep: the clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Delivers until `shutdown`. Sleeps until the next message is due or a new one arrives.
pub(crate) async fn run(broker: Arc<Broker>, shutdown: CancellationToken) {
    loop {
        let worker = broker.clone();
        // Reading and appending may touch the disk; the control runtime must not wait for it.
        let turn = tokio::task::spawn_blocking(move || deliver_due(&worker)).await;
        let next = turn.unwrap_or(Some(PAUSE_AFTER_ERROR));
        let sleep = async {
            match next {
                Some(wait) => tokio::time::sleep(wait.min(SLEEP_MAX)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep => {}
            () = broker.delayed_arrived.notified() => {}
        }
    }
}

/// Moves everything that is due, and says in how long the next message will be; `None`: no message
/// waits.
fn deliver_due(broker: &Broker) -> Option<Duration> {
    let waits = DelayLevel::all().filter_map(|level| {
        deliver_level(broker, level).unwrap_or_else(|reason| {
            let level = level.number();
            tracing::warn!(level, reason, "delayed messages not delivered, trying on");
            Some(PAUSE_AFTER_ERROR)
        })
    });
    waits.min()
}

/// Moves what is due of one level, and says in how long its next message will be.
fn deliver_level(broker: &Broker, level: DelayLevel) -> Result<Option<Duration>, String> {
    let Some(range) = broker.store.queue_range(SCHEDULE_TOPIC, level.queue()) else {
        return Ok(None);
    };
    let from = broker.state.delay.get(level.number()).max(range.min);
    if from >= range.max {
        return Ok(None);
    }
    let mut stored = Vec::new();
    let read = broker
        .store
        .read_queue(SCHEDULE_TOPIC, level.queue(), from, PER_TURN, &mut |_| true, &mut stored)
        .map_err(|error| error.to_string())?;
    let now = broker.now_ms();
    let mut next_offset = from;
    let mut wait = Duration::ZERO;
    let mut failure = None;
    let mut rest = &stored[..];
    while let Ok(Decoded::Record(record, length)) = Record::decode(rest, true) {
        let due = due_ms(&record, level, now);
        if due > now {
            wait = Duration::from_millis((due - now) as u64);
            break;
        }
        if let Err(reason) = deliver(broker, &record) {
            failure = Some(reason);
            break;
        }
        next_offset = record.queue_offset + 1;
        rest = &rest[length..];
    }
    if rest.is_empty() {
        next_offset = next_offset.max(read.next);
    } else if wait.is_zero() && failure.is_none() {
        failure = Some(format!("a record of queue {} cannot be read", level.queue()));
    }
    if next_offset > from {
        let progress = StateRecord::DelayProgress { level: level.number(), offset: next_offset };
        // Told after the delivery: a crash between the two delivers again, it never loses.
        let told = broker.state.patiently(|| broker.state.change(|| Some(progress.clone())));
        told.map_err(|error| error.to_string())?;
    }
    if let Some(reason) = failure {
        return Err(reason);
    }
    let is_more = next_offset < range.max || !wait.is_zero();
    Ok(is_more.then_some(wait))
}

/// When a message is due, in milliseconds since 1970. A clock that was set back does not make
/// messages wait longer than their level says.
fn due_ms(record: &Record<'_>, level: DelayLevel, now: i64) -> i64 {
    let delay = level.duration().as_millis() as i64;
    let due = record.store_timestamp.saturating_add(delay);
    // Apache's `correctDeliverTimestamp`: further away than a whole delay means due.
    if due > now.saturating_add(delay) { now } else { due }
}

fn deliver(broker: &Broker, record: &Record<'_>) -> Result<(), String> {
    let target = properties::get(record.properties, names::REAL_TOPIC);
    let queue = properties::get(record.properties, names::REAL_QUEUE_ID);
    let (Some(topic), Some(queue)) = (target, queue.and_then(|queue| queue.parse::<i32>().ok()))
    else {
        tracing::error!(
            offset = record.physical_offset,
            "a delayed message does not say where it goes; it is skipped"
        );
        return Ok(());
    };
    if ResourceName::topic(topic).is_err() || broker.state.topics.get(topic).is_none() {
        tracing::warn!(topic, "a delayed message's topic was deleted; the message is dropped");
        return Ok(());
    }
    let mut kept = properties::without(record.properties, names::DELAY_LEVEL);
    kept = properties::without(&kept, names::REAL_TOPIC);
    kept = properties::without(&kept, names::REAL_QUEUE_ID);
    let message = NewMessage {
        topic,
        queue_id: queue,
        flag: record.flag,
        sys_flag: record.sys_flag,
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times,
        prepared_transaction_offset: 0,
        body: record.body,
        properties: &kept,
        tag_hash: tags::tag_hash(properties::get(&kept, names::TAGS)),
        index_keys: KeySource::Properties,
        dispatch: true,
    };
    broker.append(&[message], &mut Vec::new()).map_err(|error| error.to_string())
}
