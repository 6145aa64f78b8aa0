//! Telling every NameServer which topics this broker has: at the start, every 30 s, and at every
//! change. Source: `BrokerOuterAPI.registerBrokerAll`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weirmq_remoting::body::{
    RegisterBrokerBody, TopicConfig, TopicConfigSerializeWrapper, TopicFilterType,
};
use weirmq_remoting::command::SerializeType;
use weirmq_remoting::header::{BrokerIdentityHeader, Header as _, RegisterBrokerHeader};
use weirmq_remoting::net::{Connection, Limits, NoRequests, connect};
use weirmq_remoting::{Code, RequestCode, ResponseCode};

use crate::Broker;
use crate::topics::{STATE_TOPIC, Topic};

/// How often a broker registers when nothing changes. Apache's `registerNameServerPeriod`.
const PERIOD: Duration = Duration::from_secs(30);
/// A NameServer forgets a broker that it has not heard of for this long.
const HEARTBEAT_TIMEOUT_MS: i64 = 120_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts while a NameServer does not answer.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Larger tables go in several registrations. Apache's `splitRegistrationSize`.
const TOPICS_PER_REGISTRATION: usize = 800;

/// A topic as NameServers and administrators see it.
pub(crate) fn topic_config(topic: &Topic) -> TopicConfig {
    TopicConfig {
        attributes: topic.attributes.clone(),
        order: topic.is_ordered,
        perm: topic.perm as i32,
        read_queue_nums: topic.read_queues as i32,
        topic_filter_type: if topic.is_multi_tag {
            TopicFilterType::MultiTag
        } else {
            TopicFilterType::SingleTag
        },
        topic_name: topic.name.clone(),
        topic_sys_flag: topic.sys_flag as i32,
        write_queue_nums: topic.write_queues as i32,
    }
}

/// Keeps this broker registered until `shutdown`, then unregisters it.
pub(crate) async fn run(broker: Arc<Broker>, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    for address in broker.config.name_servers.clone() {
        tasks.spawn(keep_registered(broker.clone(), address, shutdown.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn keep_registered(broker: Arc<Broker>, address: String, shutdown: CancellationToken) {
    let mut changes = broker.topic_changes.subscribe();
    let mut connection: Option<Connection> = None;
    let mut pause = RETRY_FIRST;
    let mut was_registered = false;
    loop {
        let version = *changes.borrow_and_update();
        let attempt = register(&broker, &address, &mut connection);
        let registered = tokio::select! {
            () = shutdown.cancelled() => break,
            registered = attempt => registered,
        };
        let wait = match registered {
            Ok(()) => {
                if !was_registered {
                    tracing::info!(name_server = address, "registered");
                }
                was_registered = true;
                pause = RETRY_FIRST;
                broker.registered(&address, Ok(()));
                broker.registered_version.send_if_modified(|known| {
                    let is_newer = version > *known;
                    *known = version.max(*known);
                    is_newer
                });
                PERIOD
            }
            Err(reason) => {
                if was_registered || pause == RETRY_FIRST {
                    tracing::warn!(name_server = address, reason, "not registered, trying on");
                }
                was_registered = false;
                broker.registered(&address, Err(reason));
                connection = None;
                let wait = pause;
                pause = (pause * 2).min(RETRY_MAX);
                wait
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
            changed = changes.changed(), if was_registered => {
                if changed.is_err() {
                    break;
                }
            }
        }
    }
    if let Some(connection) = connection.filter(|_| was_registered) {
        unregister(&broker, &connection).await;
        connection.close();
    }
}

async fn register(
    broker: &Broker,
    address: &str,
    connection: &mut Option<Connection>,
) -> Result<(), String> {
    let current = match connection.take().filter(|open| !open.is_closed()) {
        Some(open) => open,
        None => connect(address, CONNECT_TIMEOUT, Limits::default(), |_| NoRequests)
            .await
            .map_err(|error| error.to_string())?,
    };
    let connection = connection.insert(current);
    let all = broker.state.topics.all();
    let mut topics: Vec<_> = all
        .values()
        .filter(|topic| topic.name != STATE_TOPIC)
        .map(|topic| {
            let config = topic_config(topic);
            // A broker that does not take writes says so in each of its topics.
            (
                topic.name.clone(),
                TopicConfig { perm: config.perm & broker.permission_mask(), ..config },
            )
        })
        .collect();
    topics.sort_by(|a, b| a.0.cmp(&b.0));
    for chunk in topics.chunks(TOPICS_PER_REGISTRATION) {
        register_topics(broker, connection, chunk.iter().cloned().collect()).await?;
    }
    Ok(())
}

async fn register_topics(
    broker: &Broker,
    connection: &Connection,
    topics: BTreeMap<String, TopicConfig>,
) -> Result<(), String> {
    let body = RegisterBrokerBody {
        filter_server_list: Vec::new(),
        listener_addresses: broker.config.advertise.clone(),
        topic_config_serialize_wrapper: TopicConfigSerializeWrapper {
            data_version: broker.data_version(),
            topic_config_table: topics,
            ..TopicConfigSerializeWrapper::default()
        },
    };
    let body = body.encode_form(false);
    let address = broker.advertised_address();
    let header = RegisterBrokerHeader {
        broker_name: broker.config.name.as_str().into(),
        broker_addr: address.as_str().into(),
        cluster_name: broker.config.cluster.as_str().into(),
        ha_server_addr: "".into(),
        broker_id: broker.config.broker_id as i64,
        heartbeat_timeout_millis: Some(HEARTBEAT_TIMEOUT_MS),
        enable_acting_master: Some(false),
        compressed: Some(false),
        body_crc32: Some((weirmq_message::body_crc(&body)) as i32),
    };
    let code = RequestCode::RegisterBroker.number();
    let answer = connection
        .call(SerializeType::Json, code, |writer| header.encode(writer), &body, CALL_TIMEOUT)
        .await
        .map_err(|error| error.to_string())?;
    let command = answer.command().map_err(|error| error.to_string())?;
    match Code::<ResponseCode>::from(command.head.code) {
        Code::Known(ResponseCode::Success) => Ok(()),
        refused => Err(format!("refused with code {refused}: {}", command.remark_text())),
    }
}

async fn unregister(broker: &Broker, connection: &Connection) {
    let address = broker.advertised_address();
    let header = BrokerIdentityHeader {
        broker_name: broker.config.name.as_str().into(),
        broker_addr: address.as_str().into(),
        cluster_name: broker.config.cluster.as_str().into(),
        broker_id: broker.config.broker_id as i64,
    };
    let code = RequestCode::UnregisterBroker.number();
    let call = connection.call(
        SerializeType::Json,
        code,
        |writer| header.encode(writer),
        b"",
        Duration::from_secs(1),
    );
    if let Err(error) = call.await {
        tracing::debug!(%error, "not unregistered; the NameServer notices the closed connection");
    }
}
