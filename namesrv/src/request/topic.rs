//! Topics as such: lists (206, 224, 304, 311 to 313), deleting (216) and adding (217).

use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{Body as _, TopicRouteData};
use weirmq_remoting::command::Command;
use weirmq_remoting::header::{ClusterHeader, DeleteTopicHeader, Header, RegisterTopicHeader};

use super::{Origin, RequestError, quoted, write_body, write_success};

/// Code 206.
pub(super) fn list(origin: &Origin<'_>, request: &Command<'_>, out: &mut Vec<u8>) {
    let topics = origin.server.routes.read().topic_list();
    write_body(&request.head, &topics, out);
}

/// Code 224. A cluster that is not there has no topics.
pub(super) fn list_by_cluster(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = ClusterHeader::decode(&request.ext)?;
    let topics = origin.server.routes.read().topics_of_cluster(&header.cluster.to_cow());
    write_body(&request.head, &topics, out);
    Ok(())
}

/// Code 304.
pub(super) fn list_system(origin: &Origin<'_>, request: &Command<'_>, out: &mut Vec<u8>) {
    let topics = origin.server.routes.read().system_topic_list(origin.asker());
    write_body(&request.head, &topics, out);
}

/// Code 311.
pub(super) fn list_unit(origin: &Origin<'_>, request: &Command<'_>, out: &mut Vec<u8>) {
    let topics = origin.server.routes.read().unit_topics();
    write_body(&request.head, &topics, out);
}

/// Code 312.
pub(super) fn list_unit_sub(origin: &Origin<'_>, request: &Command<'_>, out: &mut Vec<u8>) {
    let topics = origin.server.routes.read().unit_sub_topics();
    write_body(&request.head, &topics, out);
}

/// Code 313.
pub(super) fn list_unit_sub_without_unit(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) {
    let topics = origin.server.routes.read().unit_sub_without_unit_topics();
    write_body(&request.head, &topics, out);
}

/// Code 216. Succeeds for a topic that is not there: the caller wanted it gone.
pub(super) fn delete(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = DeleteTopicHeader::decode(&request.ext)?;
    let topic = header.topic.to_cow();
    let cluster = header.cluster_name.map(|cluster| cluster.to_cow());
    let cluster = cluster.as_deref().filter(|cluster| !cluster.is_empty());
    origin.server.routes.write().delete_topic(&topic, cluster);
    let peer = origin.connection.peer();
    tracing::info!(topic = quoted(&topic), cluster = cluster.map(quoted), %peer, "topic deleted");
    write_success(&request.head, b"", out);
    Ok(())
}

/// Code 217: adds a topic on brokers that are registered, ahead of their next registration.
///
/// Apache answers success when a broker is unknown, and does nothing.
pub(super) fn register(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = RegisterTopicHeader::decode(&request.ext)?;
    let topic = ResourceName::topic(&header.topic.to_cow())?;
    let route = TopicRouteData::decode(request.body)?;
    origin.server.routes.write().add_topic(&topic, &route.queue_datas)?;
    write_success(&request.head, b"", out);
    Ok(())
}
