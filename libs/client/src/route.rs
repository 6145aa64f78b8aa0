//! Where topics live: what NameServers said, remembered and looked up again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use weirmq_remoting::body::{MessageQueue, TopicRouteData};

use crate::ClientError;

/// Permission bit of a queue: messages can be taken from it.
const PERM_READ: i32 = 4;
/// Permission bit of a queue: messages can be put into it.
const PERM_WRITE: i32 = 2;
/// The broker id of a master.
pub(crate) const MASTER_ID: i64 = 0;
/// The most queues that one topic may have: a route with more is not believed.
const QUEUES_MAX: usize = 65_536;
/// A route that nobody used for this many polls is forgotten.
const IDLE_POLLS_MAX: u32 = 20;

/// One topic's queues and the brokers that hold them.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) data: TopicRouteData,
    /// Queues that take messages, whose master is known; in the order of brokers and queue ids.
    pub(crate) write_queues: Vec<MessageQueue>,
    /// Queues that give messages; in the order of brokers and queue ids.
    pub(crate) read_queues: Vec<MessageQueue>,
}

impl Route {
    /// Lists the queues of `topic`. Source: `MQClientInstance.topicRouteData2TopicPublishInfo` and
    /// `topicRouteData2TopicSubscribeInfo`.
    ///
    /// # Errors
    /// How many queues there would be, when more than a topic can have.
    pub(crate) fn new(topic: &str, mut data: TopicRouteData) -> Result<Self, String> {
        data.queue_datas.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
        let master_is_known = |broker: &str| {
            let mut brokers = data.broker_datas.iter();
            brokers.any(|data| {
                data.broker_name == broker && data.broker_addrs.contains_key(&MASTER_ID)
            })
        };
        let mut write = Vec::new();
        match data.order_topic_conf.as_deref().filter(|conf| !conf.is_empty()) {
            Some(conf) => {
                for part in conf.split(';') {
                    let Some((broker, count)) = part.split_once(':') else { continue };
                    write.push((broker, count.trim().parse().unwrap_or(0)));
                }
            }
            None => {
                let writable =
                    |data: &&weirmq_remoting::body::QueueData| data.perm & PERM_WRITE != 0;
                let queues = data.queue_datas.iter().filter(writable);
                write.extend(queues.map(|data| (data.broker_name.as_str(), data.write_queue_nums)));
            }
        }
        write.retain(|(broker, _)| master_is_known(broker));
        let readable = data.queue_datas.iter().filter(|data| data.perm & PERM_READ != 0);
        let read: Vec<_> =
            readable.map(|data| (data.broker_name.as_str(), data.read_queue_nums)).collect();
        let write_queues = list_queues(topic, &write)?;
        let read_queues = list_queues(topic, &read)?;
        Ok(Self { write_queues, read_queues, data })
    }

    /// Broker id → address, of one broker.
    pub(crate) fn addresses(&self, broker: &str) -> Option<&BTreeMap<i64, String>> {
        let data = self.data.broker_datas.iter().find(|data| data.broker_name == broker)?;
        Some(&data.broker_addrs)
    }
}

fn list_queues(topic: &str, counts: &[(&str, i32)]) -> Result<Vec<MessageQueue>, String> {
    let sizes = counts.iter().map(|(_, count)| usize::try_from(*count).unwrap_or(0));
    let total = sizes.fold(0usize, usize::saturating_add);
    if total > QUEUES_MAX {
        return Err(format!("route of {total} queues, the limit is {QUEUES_MAX}"));
    }
    let queues = counts.iter().flat_map(|(broker, count)| {
        (0..*count).map(|queue_id| MessageQueue::new(topic, *broker, queue_id))
    });
    Ok(queues.collect())
}

/// The routes of topics in use. Looking up is the caller's; see `Core::route`.
#[derive(Default)]
pub(crate) struct RouteCache {
    topics: Mutex<HashMap<String, Arc<CachedRoute>>>,
}

/// One topic's place in the cache.
#[derive(Default)]
pub(crate) struct CachedRoute {
    route: Mutex<Option<Arc<Route>>>,
    /// Whoever holds it asks the NameServer; the others wait and take what came out.
    pub(crate) looking_up: tokio::sync::Mutex<()>,
    idle_polls: AtomicU32,
    is_doubted: AtomicBool,
}

impl CachedRoute {
    pub(crate) fn route(&self) -> Option<Arc<Route>> {
        self.idle_polls.store(0, Ordering::Relaxed);
        self.route.lock().clone()
    }

    /// The route, without counting as a use of it.
    pub(crate) fn peek(&self) -> Option<Arc<Route>> {
        self.route.lock().clone()
    }

    /// Has the next use look the route up again.
    pub(crate) fn doubt(&self) {
        self.is_doubted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_doubted(&self) -> bool {
        self.is_doubted.load(Ordering::Relaxed)
    }

    /// It was looked up.
    pub(crate) fn trust(&self) {
        self.is_doubted.store(false, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, route: Arc<Route>) {
        *self.route.lock() = Some(route);
    }
}

impl RouteCache {
    pub(crate) fn topic(&self, topic: &str) -> Arc<CachedRoute> {
        let mut topics = self.topics.lock();
        if let Some(cached) = topics.get(topic) {
            return Arc::clone(cached);
        }
        Arc::clone(topics.entry(topic.to_owned()).or_default())
    }

    /// A topic's place if it has one.
    pub(crate) fn known(&self, topic: &str) -> Option<Arc<CachedRoute>> {
        self.topics.lock().get(topic).cloned()
    }

    /// Forgets a topic that has no route, so that names that never existed do not pile up.
    pub(crate) fn forget_unknown(&self, topic: &str) {
        let mut topics = self.topics.lock();
        if topics.get(topic).is_some_and(|cached| cached.peek().is_none()) {
            topics.remove(topic);
        }
    }

    /// Topics to look up again. Forgets those that nobody used for a long time.
    pub(crate) fn due(&self) -> Vec<String> {
        let mut topics = self.topics.lock();
        topics
            .retain(|_, cached| cached.idle_polls.fetch_add(1, Ordering::Relaxed) < IDLE_POLLS_MAX);
        topics.keys().cloned().collect()
    }

    /// Broker name → broker id → address, of all routes.
    pub(crate) fn brokers(&self) -> BTreeMap<String, BTreeMap<i64, String>> {
        let mut brokers: BTreeMap<String, BTreeMap<i64, String>> = BTreeMap::new();
        for cached in self.topics.lock().values() {
            let Some(route) = cached.peek() else { continue };
            for data in &route.data.broker_datas {
                let addresses = brokers.entry(data.broker_name.clone()).or_default();
                addresses
                    .extend(data.broker_addrs.iter().map(|(id, address)| (*id, address.clone())));
            }
        }
        brokers
    }
}

/// The address of a broker's master.
pub(crate) fn master_of(route: &Route, broker: &str) -> Result<String, ClientError> {
    let address = route.addresses(broker).and_then(|addresses| addresses.get(&MASTER_ID));
    address
        .cloned()
        .ok_or_else(|| ClientError::NoBroker { broker: broker.to_owned(), what: "master" })
}

/// The address of a broker's member `preferred`, else of the one with the lowest id, and its id.
pub(crate) fn member_of(
    route: &Route,
    broker: &str,
    preferred: i64,
) -> Result<(i64, String), ClientError> {
    let missing = || ClientError::NoBroker { broker: broker.to_owned(), what: "member" };
    let addresses = route.addresses(broker).ok_or_else(missing)?;
    let found = addresses.get_key_value(&preferred).or_else(|| addresses.first_key_value());
    found.map(|(id, address)| (*id, address.clone())).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use weirmq_remoting::body::{BrokerData, QueueData};

    use super::*;

    fn data(queues: &[(&str, i32, i32)], masters: &[&str]) -> TopicRouteData {
        let broker = |name: &&str| BrokerData {
            broker_name: (*name).to_owned(),
            broker_addrs: BTreeMap::from([(0, format!("{name}:1")), (2, format!("{name}:2"))]),
            ..BrokerData::default()
        };
        let queue = |(name, perm, count): &(&str, i32, i32)| QueueData {
            broker_name: (*name).to_owned(),
            perm: *perm,
            read_queue_nums: *count,
            write_queue_nums: *count,
            ..QueueData::default()
        };
        TopicRouteData {
            broker_datas: masters.iter().map(broker).collect(),
            queue_datas: queues.iter().map(queue).collect(),
            ..TopicRouteData::default()
        }
    }

    fn names(queues: &[MessageQueue]) -> Vec<String> {
        queues.iter().map(|queue| format!("{}{}", queue.broker_name, queue.queue_id)).collect()
    }

    #[test]
    fn queues_come_in_order_and_need_permission_and_for_writing_a_master() {
        let route =
            Route::new("t", data(&[("b", 6, 1), ("a", 4, 2), ("c", 6, 1)], &["a", "b"])).unwrap();
        assert_eq!(names(&route.write_queues), ["b0"]);
        assert_eq!(names(&route.read_queues), ["a0", "a1", "b0", "c0"]);
        assert_eq!(master_of(&route, "b").unwrap(), "b:1");
        assert_eq!(member_of(&route, "b", 2).unwrap(), (2, "b:2".to_owned()));
        assert_eq!(member_of(&route, "b", 1).unwrap(), (0, "b:1".to_owned()));
        assert!(member_of(&route, "c", 0).is_err());
    }

    #[test]
    fn an_ordered_topics_setting_names_its_queues() {
        let mut ordered = data(&[("a", 6, 8)], &["a"]);
        ordered.order_topic_conf = Some("a:2;gone:4;broken".to_owned());
        assert_eq!(names(&Route::new("t", ordered).unwrap().write_queues), ["a0", "a1"]);
    }

    #[test]
    fn an_absurd_number_of_queues_is_refused_before_any_is_made() {
        assert!(Route::new("t", data(&[("a", 6, i32::MAX), ("b", 6, i32::MAX)], &["a"])).is_err());
        assert!(Route::new("t", data(&[("a", 6, -5)], &["a"])).unwrap().read_queues.is_empty());
    }
}
