//! The directory of a broker that does not run, opened and left as a clean stop leaves it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weirmq_store::{RealDisk, RecoveryReport, Store, StoreConfig, SystemClock};

use crate::run::{BrokerError, close_state, recover_state};
use crate::state::State;
use crate::topics::Topics;

/// A queue that goes on below what a consumer group has committed to it: the group gets none of its
/// messages until it has passed that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueBehind {
    pub topic: String,
    pub queue: i32,
    /// The queue offset of the next message.
    pub next: u64,
    /// The largest offset that is committed; the queue had at least so many entries.
    pub committed: u64,
}

/// Opens the directory of a broker that does not run and leaves it as a clean stop does: recovered,
/// closed, with its exports written. Nothing listens meanwhile.
pub fn close_directory(config: StoreConfig) -> Result<RecoveryReport, BrokerError> {
    let (report, ()) = visit(config, |_| ())?;
    Ok(report)
}

/// Does the same, and says which queues go on below what groups have committed, by topic and queue:
/// those that lost their last messages together with what said how many they were.
pub fn queues_behind(config: StoreConfig) -> Result<Vec<QueueBehind>, BrokerError> {
    let (_, behind) = visit(config, |state| {
        let mut committed = BTreeMap::<_, u64>::new();
        for one in state.offsets.all() {
            let most = committed.entry((one.topic, one.queue)).or_default();
            *most = (*most).max(u64::try_from(one.offset).unwrap_or(0));
        }
        let queues = committed.into_iter().map(|((topic, queue), committed)| {
            let next = state.store().queue_range(&topic, queue).map_or(0, |range| range.max);
            QueueBehind { topic, queue, next, committed }
        });
        queues.filter(|queue| queue.next < queue.committed).collect()
    })?;
    Ok(behind)
}

fn visit<T>(
    config: StoreConfig,
    look: impl FnOnce(&State) -> T,
) -> Result<(RecoveryReport, T), BrokerError> {
    let (data_dir, cluster, name) =
        (config.directory.clone(), config.cluster.clone(), config.group.clone());
    let (store, report) = Store::open(config, Arc::new(RealDisk), Arc::new(SystemClock))?;
    let topics = Topics::with_system_topics(&cluster, &name, None);
    let state = recover_state(&store, topics, &data_dir, &cluster)?;
    let seen = look(&state);
    close_state(&state, &data_dir)?;
    Ok((report, seen))
}
