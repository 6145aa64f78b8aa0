//! Pulls that found nothing and wait for a message.
//!
//! An append tells this table which queue has grown; the pulls that wait there and whose tags fit
//! are answered in the same moment, on the thread that appended. Source: `PullRequestHoldService`.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::request::pull::HeldPull;

/// All waiting pulls.
pub(crate) struct LongPolls {
    tables: Mutex<Tables>,
    /// Wakes the task that answers pulls whose time is over.
    earlier_deadline: Notify,
}

#[derive(Default)]
struct Tables {
    /// topic → queue → pulls by number.
    waiting: HashMap<String, HashMap<i32, BTreeMap<u64, HeldPull>>>,
    /// Deadline and number → queue.
    deadlines: BTreeMap<(Instant, u64), (String, i32)>,
    next_number: u64,
    /// Nobody waits here any more.
    is_over: bool,
}

/// Why a pull cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotHeld {
    TooMany,
    /// The broker closes its connections.
    Over,
}

impl LongPolls {
    pub(crate) fn new() -> Self {
        Self { tables: Mutex::default(), earlier_deadline: Notify::new() }
    }

    /// Lets a pull wait beside at most `held_max` others, or gives it back and says why.
    pub(crate) fn hold(&self, pull: HeldPull, held_max: usize) -> Option<(HeldPull, NotHeld)> {
        let mut tables = self.tables.lock();
        if tables.is_over {
            return Some((pull, NotHeld::Over));
        }
        if tables.deadlines.len() >= held_max {
            return Some((pull, NotHeld::TooMany));
        }
        let number = tables.next_number;
        tables.next_number += 1;
        let queue = (pull.topic().to_owned(), pull.queue());
        let is_first =
            tables.deadlines.first_key_value().is_none_or(|(key, _)| pull.deadline() < key.0);
        tables.deadlines.insert((pull.deadline(), number), queue.clone());
        let (topic, queue) = queue;
        let queues = tables.waiting.entry(topic).or_default();
        queues.entry(queue).or_default().insert(number, pull);
        drop(tables);
        if is_first {
            self.earlier_deadline.notify_one();
        }
        None
    }

    /// Takes every pull. From now on none is held.
    pub(crate) fn end(&self) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        tables.is_over = true;
        tables.deadlines.clear();
        let waiting = std::mem::take(&mut tables.waiting);
        waiting
            .into_values()
            .flat_map(HashMap::into_values)
            .flat_map(BTreeMap::into_values)
            .collect()
    }

    /// Takes the pulls that wait for this queue and that an entry with `tag_hash` at `offset` may
    /// answer.
    pub(crate) fn take_matching(
        &self,
        topic: &str,
        queue: i32,
        offset: u64,
        tag_hash: i64,
    ) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        let Some(waiting) = tables.waiting.get(topic).and_then(|queues| queues.get(&queue)) else {
            return Vec::new();
        };
        let fits = |pull: &HeldPull| pull.offset() <= offset && pull.accepts(tag_hash);
        let numbers: Vec<_> =
            waiting.iter().filter(|(_, pull)| fits(pull)).map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| tables.take(topic, queue, number)).collect()
    }

    /// Takes every pull that waits for a queue with more than it has seen.
    pub(crate) fn take_overtaken(&self, topic: &str, queue: i32, max_offset: u64) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        let Some(waiting) = tables.waiting.get(topic).and_then(|queues| queues.get(&queue)) else {
            return Vec::new();
        };
        let overtaken = waiting.iter().filter(|(_, pull)| pull.offset() < max_offset);
        let numbers: Vec<_> = overtaken.map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| tables.take(topic, queue, number)).collect()
    }

    /// Takes every pull that waits for any queue of a topic.
    pub(crate) fn take_of_topic(&self, topic: &str) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        let Some(queues) = tables.waiting.get(topic) else {
            return Vec::new();
        };
        let waiting = queues.iter().flat_map(|(queue, waiting)| {
            waiting.keys().map(|number| (*queue, *number)).collect::<Vec<_>>()
        });
        let found: Vec<_> = waiting.collect();
        found.into_iter().filter_map(|(queue, number)| tables.take(topic, queue, number)).collect()
    }

    /// Takes every pull of one connection.
    pub(crate) fn take_of_connection(&self, connection: u64) -> Vec<HeldPull> {
        let mut tables = self.tables.lock();
        let mut found = Vec::new();
        for (topic, queues) in &tables.waiting {
            for (queue, waiting) in queues {
                let of_it = waiting.iter().filter(|(_, pull)| pull.connection_id() == connection);
                found.extend(of_it.map(|(number, _)| (topic.clone(), *queue, *number)));
            }
        }
        let take = |(topic, queue, number): (String, i32, u64)| tables.take(&topic, queue, number);
        found.into_iter().filter_map(take).collect()
    }

    /// Waits until pulls run out of time, and takes them.
    pub(crate) async fn expired(&self) -> Vec<HeldPull> {
        loop {
            let next = self.tables.lock().deadlines.first_key_value().map(|(key, _)| key.0);
            let reached = async {
                match next {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = reached => {}
                () = self.earlier_deadline.notified() => continue,
            }
            let now = Instant::now();
            let mut tables = self.tables.lock();
            let due: Vec<_> = tables
                .deadlines
                .range(..=(now, u64::MAX))
                .map(|(key, queue)| (key.1, queue.clone()))
                .collect();
            if !due.is_empty() {
                return due
                    .into_iter()
                    .filter_map(|(number, (topic, queue))| tables.take(&topic, queue, number))
                    .collect();
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tables.lock().deadlines.len()
    }
}

impl Tables {
    fn take(&mut self, topic: &str, queue: i32, number: u64) -> Option<HeldPull> {
        let queues = self.waiting.get_mut(topic)?;
        let waiting = queues.get_mut(&queue)?;
        let pull = waiting.remove(&number)?;
        if waiting.is_empty() {
            queues.remove(&queue);
            if queues.is_empty() {
                self.waiting.remove(topic);
            }
        }
        self.deadlines.remove(&(pull.deadline(), number));
        Some(pull)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use weirmq_remoting::ResponseCode;
    use weirmq_remoting::command::{SerializeType, Text};
    use weirmq_remoting::header::{
        Header as _, PULL_SUBSCRIPTION, PULL_SUSPEND, PullMessageHeader, QueueHeader,
    };
    use weirmq_remoting::net::{NoRequests, connect};
    use weirmq_remoting::{RequestCode, body::Body as _, body::SubscriptionGroupConfig};
    use weirmq_store::SimulatedDisk;

    use crate::BrokerConfig;
    use crate::configuration::Configuration;
    use crate::run::{Listeners, run_on};

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_held_pull_is_refused_before_its_connection_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = main.local_addr().unwrap().to_string();
        let mut config = BrokerConfig { data_dir: folder.path().into(), ..BrokerConfig::default() };
        config.store.free_bytes_min = 1;
        config.store.segment_bytes = 64 << 20;
        let shutdown = CancellationToken::new();
        let listeners = Listeners { main, vip: None, replication: None };
        let (disk, admin) = (Arc::new(SimulatedDisk::new()), weirmq_admin::Admin::default());
        let ended = tokio::spawn(run_on(
            disk,
            Configuration::new(config).unwrap(),
            listeners,
            admin,
            shutdown.clone(),
        ));
        let nobody = |_: &_| NoRequests;
        let connection = connect(&address, PATIENCE, Default::default(), nobody).await.unwrap();

        let json = SerializeType::Json;
        let topic = Text::from("TBW102");
        let group = SubscriptionGroupConfig { group_name: "g".into(), ..Default::default() };
        let create = RequestCode::UpdateAndCreateSubscriptionGroup.number();
        connection.call(json, create, |_| {}, &group.encode(), PATIENCE).await.unwrap();
        let header = PullMessageHeader {
            consumer_group: Text::from("g"),
            topic,
            queue_id: 0,
            queue_offset: 0,
            max_msg_nums: 1,
            sys_flag: PULL_SUSPEND | PULL_SUBSCRIPTION,
            commit_offset: None,
            suspend_timeout_millis: Some(PATIENCE.as_millis() as i64),
            subscription: Some(Text::from("*")),
            sub_version: None,
            expression_type: None,
            max_msg_bytes: None,
        };
        let pull = RequestCode::PullMessage.number();
        let held = connection.call(json, pull, |out| header.encode(out), b"", PATIENCE);
        tokio::pin!(held);
        let header = QueueHeader { topic, queue_id: 0, committed: None };
        let max_offset = RequestCode::GetMaxOffset.number();
        let next = connection.call(json, max_offset, |out| header.encode(out), b"", PATIENCE);
        tokio::select! {
            biased;
            answer = &mut held => panic!("not held: {:?}", answer.map(|answer| answer.command().unwrap().head)),
            // Acted upon behind the pull.
            answer = next => assert_eq!(answer.unwrap().command().unwrap().head.code, 0),
        }

        shutdown.cancel();
        let code = held.await.expect("an answer").command().unwrap().head.code;
        assert_eq!(code, ResponseCode::ServiceNotAvailable.number());
        ended.await.unwrap().unwrap();
    }
}
