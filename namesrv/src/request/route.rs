//! Code 105: where a topic lives.

use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::{self, Command};
use weirmq_remoting::header::{Header, RouteHeader};

use super::{Origin, RequestError, broker::ZONE_NAME, quoted};
use crate::kv_config::ORDER_TOPIC_CONFIG;
use crate::route_table::RouteView;

/// Clients since this version read standard JSON: the ordinal of 4.9.4 in `MQVersion`.
const V4_9_4: i32 = 401;
/// The extension field of a client that wants the brokers of its zone only.
/// Source: `MixAll.ZONE_MODE`.
const ZONE_MODE: &str = "__ZONE_MODE";

pub(super) fn by_topic(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = RouteHeader::decode(&request.ext)?;
    let topic = header.topic.to_cow();
    let is_strict =
        header.accept_standard_json_only.unwrap_or(false) || request.head.version >= V4_9_4;
    let by_zone = request.ext.get(ZONE_MODE).is_some_and(|mode| mode.raw() == "true");
    let zone = request.ext.get(ZONE_NAME).filter(|zone| by_zone && !zone.is_empty());
    let zone = zone.map(|zone| zone.to_cow());

    let server = origin.server;
    let routes = server.routes.read();
    let Some(route) = routes.route(&topic) else {
        return Err(RequestError::TopicNotExist(quoted(&topic)));
    };
    let mut write = |order_topic_conf: Option<&str>| {
        let view =
            RouteView { asker: origin.asker(), is_strict, zone: zone.as_deref(), order_topic_conf };
        command::response(out, &request.head, ResponseCode::Success, None)
            .finish_with(|out| route.write_json(&view, out));
    };
    if server.config.order_messages {
        // Locks are taken in this order everywhere: routes, then the KV table.
        server.kv_config.read(ORDER_TOPIC_CONFIG, &topic, write);
    } else {
        write(None);
    }
    Ok(())
}
