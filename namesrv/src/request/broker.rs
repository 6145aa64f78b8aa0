//! Brokers come, stay and go: codes 103, 104, 322, 904; and 205 and 327, by which an operator
//! takes the writers away from one.

use std::time::Duration;

use tokio::time::Instant;
use weirmq_remoting::body::{Body as _, DataVersion, RegisterBrokerBody};
use weirmq_remoting::command::Command;
use weirmq_remoting::header::{
    AddResponseHeader, BrokerHeartbeatHeader, BrokerIdentityHeader, BrokerNameHeader,
    ChangedHeader, Header, RegisterBrokerHeader, RegisterBrokerResponseHeader, WipeResponseHeader,
};

use super::{Origin, RequestError, address, broker_name, quoted, write_header, write_success};
use crate::kv_config::ORDER_TOPIC_CONFIG;
use crate::route_table::{Registered, Registration};

/// The extension field that tells a broker's zone. Source: `MixAll.ZONE_NAME`.
pub(super) const ZONE_NAME: &str = "__ZONE_NAME";
/// The longest name of a zone, in bytes.
const ZONE_BYTES_MAX: usize = 255;
/// Nobody waits longer for a broker.
const HEARTBEAT_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// The most filter servers and the most listeners of a broker.
const ADDRESSES_MAX: usize = 64;

/// Code 103. A large table takes some milliseconds to read; that happens before the lock.
pub(super) fn register(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = RegisterBrokerHeader::decode(&request.ext)?;
    let registration = decode_registration(origin, request, &header)?;
    let server = origin.server;
    let broker = registration.broker_name.clone();
    let (broker_id, broker_address) = (registration.broker_id, registration.address.clone());
    let version = registration.data_version();

    server.keep_connection(origin.connection);
    let registered = server.routes.write().register(registration, Instant::now())?;
    if registered.deadline_changed {
        server.deadline_changed.notify_one();
    }
    let Registered { is_new, replaced, master, refused_topics, first_refusal, .. } = registered;
    if is_new {
        tracing::info!(
            %broker, broker_id, address = broker_address, replaced, ?version, "broker registered"
        );
    }
    if let Some(reason) = first_refusal {
        server.metrics.topics_refused(refused_topics);
        tracing::warn!(%broker, broker_id, refused_topics, reason, "topics left out of a registration");
    }
    let (ha_server_addr, master_addr) = master.unzip();
    let answer = RegisterBrokerResponseHeader {
        ha_server_addr: ha_server_addr.map(Into::into),
        master_addr: master_addr.map(Into::into),
    };
    let returns_order_config = server.config.return_order_topic_config_to_broker;
    let order_config = returns_order_config.then(|| server.kv_config.list(ORDER_TOPIC_CONFIG));
    write_header(&request.head, &answer, &order_config.flatten().unwrap_or_default(), out);
    Ok(())
}

fn decode_registration(
    origin: &Origin<'_>,
    request: &Command<'_>,
    header: &RegisterBrokerHeader<'_>,
) -> Result<Registration, RequestError> {
    check_crc(header.body_crc32.unwrap_or(0), request.body)?;
    if header.broker_id < 0 {
        return Err(RequestError::Field {
            field: "brokerId",
            value: header.broker_id.to_string(),
            problem: "a master has 0, a slave 1 or more",
        });
    }
    let body = if request.body.is_empty() {
        RegisterBrokerBody::default()
    } else {
        RegisterBrokerBody::decode_form(request.body, is_compressed(header, request.body))?
    };
    let RegisterBrokerBody { filter_server_list, listener_addresses, .. } = body;
    if filter_server_list.len().max(listener_addresses.len()) > ADDRESSES_MAX {
        return Err(RequestError::Field {
            field: "filterServerList or listenerAddresses",
            value: filter_server_list.len().max(listener_addresses.len()).to_string(),
            problem: "the limit is 64 addresses",
        });
    }
    for server in &filter_server_list {
        address("filterServerList", server)?;
    }
    for listener_address in listener_addresses.values() {
        address("listenerAddresses", listener_address)?;
    }
    let ha_address = header.ha_server_addr.to_cow();
    let ha_address =
        if ha_address.is_empty() { String::new() } else { address("haServerAddr", &ha_address)? };
    Ok(Registration {
        cluster: broker_name(header.cluster_name)?,
        broker_name: broker_name(header.broker_name)?,
        broker_id: header.broker_id,
        address: address("brokerAddr", &header.broker_addr.to_cow())?,
        ha_address,
        listener_addresses,
        zone: zone(request)?,
        enable_acting_master: header.enable_acting_master,
        heartbeat_timeout: heartbeat_timeout(origin, header.heartbeat_timeout_millis),
        filter_servers: filter_server_list,
        is_part: header.is_part.unwrap_or(false),
        topics: body.topic_config_serialize_wrapper,
        connection: origin.connection.id(),
    })
}

/// Apache's 5.5.0 compresses with `compressedRegister` and says `compressed=false` all the same. No
/// JSON begins like a zlib stream.
fn is_compressed(header: &RegisterBrokerHeader<'_>, body: &[u8]) -> bool {
    const ZLIB_FIRST_BYTE: u8 = 0x78;
    header.compressed.unwrap_or(false) || body.first() == Some(&ZLIB_FIRST_BYTE)
}

/// Apache's sum leaves the top bit out, so that Java's int is never negative. Source:
/// `UtilAll.crc32`.
fn check_crc(claimed: i32, body: &[u8]) -> Result<(), RequestError> {
    let computed = (crc32fast::hash(body) & 0x7FFF_FFFF) as i32;
    if claimed != 0 && claimed != computed {
        return Err(RequestError::Crc { claimed, computed });
    }
    Ok(())
}

fn zone(request: &Command<'_>) -> Result<Option<String>, RequestError> {
    let Some(zone) = request.ext.get(ZONE_NAME) else { return Ok(None) };
    let zone = zone.to_cow();
    if zone.len() > ZONE_BYTES_MAX {
        let value = quoted(&zone);
        return Err(RequestError::Field {
            field: ZONE_NAME,
            value,
            problem: "the limit is 255 bytes",
        });
    }
    Ok(Some(zone.into_owned()))
}

fn heartbeat_timeout(origin: &Origin<'_>, millis: Option<i64>) -> Duration {
    let millis = millis.and_then(|millis| u64::try_from(millis).ok()).filter(|millis| *millis > 0);
    let timeout = millis.map(Duration::from_millis);
    timeout.unwrap_or(origin.server.config.default_heartbeat_timeout()).min(HEARTBEAT_TIMEOUT_MAX)
}

/// Code 104. A late one changes nothing and succeeds, as one of a broker that is not known.
pub(super) fn unregister(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = BrokerIdentityHeader::decode(&request.ext)?;
    let (name, address) = (header.broker_name.to_cow(), header.broker_addr.to_cow());
    let connection = origin.connection.id();
    let gone = origin.server.routes.write().unregister(&name, &address, connection);
    origin.server.log_gone(&gone, "it said goodbye");
    write_success(&request.head, b"", out);
    Ok(())
}

/// Code 322: a broker asks whether it has to tell its topics again. Also a sign of life.
pub(super) fn query_data_version(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = BrokerIdentityHeader::decode(&request.ext)?;
    let offered = DataVersion::decode(request.body)?;
    let (name, address) = (header.broker_name.to_cow(), header.broker_addr.to_cow());
    let known = {
        let mut routes = origin.server.routes.write();
        routes.heartbeat(&name, &address, Instant::now());
        routes.data_version(&name, &address)
    };
    let body = known.map(|version| version.encode()).unwrap_or_default();
    write_header(&request.head, &ChangedHeader { changed: known != Some(offered) }, &body, out);
    Ok(())
}

/// Code 904. Like Apache it succeeds for brokers that are not registered: they find out by 322.
pub(super) fn heartbeat(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = BrokerHeartbeatHeader::decode(&request.ext)?;
    let (name, address) = (header.broker_name.to_cow(), header.broker_addr.to_cow());
    origin.server.routes.write().heartbeat(&name, &address, Instant::now());
    write_success(&request.head, b"", out);
    Ok(())
}

/// Code 205.
pub(super) fn wipe_write_permission(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let wipe_topic_count = set_wiped(origin, request, true)?;
    write_header(&request.head, &WipeResponseHeader { wipe_topic_count }, b"", out);
    Ok(())
}

/// Code 327.
pub(super) fn add_write_permission(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let add_topic_count = set_wiped(origin, request, false)?;
    write_header(&request.head, &AddResponseHeader { add_topic_count }, b"", out);
    Ok(())
}

fn set_wiped(
    origin: &Origin<'_>,
    request: &Command<'_>,
    is_wiped: bool,
) -> Result<i32, RequestError> {
    let header = BrokerNameHeader::decode(&request.ext)?;
    let broker = header.broker_name.to_cow();
    let topics = origin.server.routes.write().set_wiped(&broker, is_wiped);
    let peer = origin.connection.peer();
    tracing::info!(broker = quoted(&broker), is_wiped, topics, %peer, "write permission changed");
    Ok(i32::try_from(topics).unwrap_or(i32::MAX))
}
