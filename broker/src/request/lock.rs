//! Queue locks for ordered consumption: codes 41 and 42.

use std::time::Instant;

use weirmq_remoting::body::{
    Body as _, LockBatchRequestBody, LockBatchResponseBody, UnlockBatchRequestBody,
};
use weirmq_remoting::command::Command;

use super::{Context, Refusal};
use crate::order_locks::Attempt;
use crate::state::StateRecord;

pub(super) fn lock(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let body = LockBatchRequestBody::decode(request.body)?;
    // Only groups that exist hold locks, so that nobody can fill the table with inventions.
    let group = context.broker.group_or_create(&body.consumer_group)?;
    let group = group.group_name.as_str();
    let state = &context.broker.state;
    let mut locked = LockBatchResponseBody::default();
    let mut position = None;
    for queue in body.mq_set {
        let known = state.topics.get(&queue.topic);
        if !known.is_some_and(|topic| topic.has_read_queue(queue.queue_id)) {
            continue;
        }
        let (topic, id) = (queue.topic.as_str(), queue.queue_id);
        let attempt = || {
            let locks = &state.order_locks;
            locks.attempt(group, topic, id, &body.client_id, Instant::now())
        };
        let mut is_locked = false;
        let changed = state.change(|| match attempt() {
            Attempt::Renewed => {
                is_locked = true;
                None
            }
            Attempt::Taken => None,
            Attempt::Free => {
                is_locked = true;
                Some(StateRecord::QueueLock {
                    group: group.into(),
                    topic: topic.into(),
                    queue: id,
                    owner: Some(body.client_id.clone()),
                })
            }
        })?;
        position = changed.position;
        if is_locked {
            locked.lock_ok_mq_set.insert(queue);
        }
    }
    context.succeed_at(position, out, &request.head, |_| {}, &locked.encode());
    Ok(())
}

pub(super) fn unlock(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let body = UnlockBatchRequestBody::decode(request.body)?;
    let state = &context.broker.state;
    let group = body.consumer_group.as_str();
    let mut position = None;
    for queue in body.mq_set {
        let changed = state.change(|| {
            let locks = &state.order_locks;
            let is_owner = locks.is_owner(group, &queue.topic, queue.queue_id, &body.client_id);
            is_owner.then(|| StateRecord::QueueLock {
                group: group.into(),
                topic: queue.topic.clone(),
                queue: queue.queue_id,
                owner: None,
            })
        })?;
        position = changed.position;
    }
    context.succeed_at(position, out, &request.head, |_| {}, b"");
    Ok(())
}
