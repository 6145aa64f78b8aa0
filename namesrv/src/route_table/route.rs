//! The route of one topic, written straight from the table into the answer: this is what clients
//! ask for all the time, and nothing is copied for it.
//!
//! The bytes are those of `TopicRouteData::to_json`, which the tests hold against it.

use std::collections::BTreeMap;
use std::io::Write as _;

use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{Body, TopicQueueMappingInfo};

use super::{Asker, BrokerGroup, MASTER_ID, Queues, RouteTable, Topic};

/// The topic by which brokers learn of each other has no acting master.
/// Source: `TopicValidator.SYNC_BROKER_MEMBER_GROUP_PREFIX`.
const SYNC_MEMBERS_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

/// How a client wants to see a route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouteView<'a> {
    pub(crate) asker: Asker<'a>,
    /// Integer keys in quotes, as standard JSON has them.
    pub(crate) is_strict: bool,
    /// Show only brokers of this zone, and those whose master is gone. Source: `ZoneRouteRPCHook`.
    pub(crate) zone: Option<&'a str>,
    pub(crate) order_topic_conf: Option<&'a str>,
}

/// A topic that exists.
pub(crate) struct Route<'t> {
    table: &'t RouteTable,
    name: &'t ResourceName,
    topic: &'t Topic,
}

impl RouteTable {
    pub(crate) fn route(&self, topic: &str) -> Option<Route<'_>> {
        let (name, topic) = self.topics.get_key_value(topic)?;
        Some(Route { table: self, name, topic })
    }
}

impl Route<'_> {
    /// Appends the route as JSON.
    pub(crate) fn write_json(&self, view: &RouteView<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"brokerDatas\":[");
        for (at, (name, group, _)) in self.brokers(view).enumerate() {
            separate(at, out);
            self.write_broker(name, group, view, out);
        }
        out.extend_from_slice(b"],\"filterServerTable\":");
        self.write_filter_servers(view, out);
        if let Some(conf) = view.order_topic_conf {
            out.extend_from_slice(b",\"orderTopicConf\":");
            write_text(conf, out);
        }
        out.extend_from_slice(b",\"queueDatas\":[");
        for (at, (name, group, queues)) in self.brokers(view).enumerate() {
            separate(at, out);
            let Queues { read, write, sys_flag, .. } = queues;
            let perm = group.effective_perm(queues);
            // Writing into a Vec cannot fail, here and below. Names need no escapes.
            let _ = write!(
                out,
                "{{\"brokerName\":\"{name}\",\"perm\":{perm},\"readQueueNums\":{read},\
                 \"topicSysFlag\":{sys_flag},\"writeQueueNums\":{write}}}"
            );
        }
        out.push(b']');
        self.write_mappings(view, out);
        out.push(b'}');
    }

    fn brokers<'s>(
        &'s self,
        view: &'s RouteView<'_>,
    ) -> impl Iterator<Item = (&'s ResourceName, &'s BrokerGroup, &'s Queues)> {
        self.topic.0.iter().filter_map(|(name, queues)| {
            let group = self.table.groups.get(name)?;
            let is_near = view.zone.is_none_or(|zone| {
                let own = group.zone.as_deref();
                !group.has_master() || own.is_some_and(|own| own.eq_ignore_ascii_case(zone))
            });
            is_near.then_some((name, group, queues))
        })
    }

    fn write_broker(
        &self,
        name: &ResourceName,
        group: &BrokerGroup,
        view: &RouteView<'_>,
        out: &mut Vec<u8>,
    ) {
        let quote = if view.is_strict { "\"" } else { "" };
        let has_acting_master = self.table.limits.support_acting_master
            && group.enable_acting_master
            && !group.has_master()
            && !self.name.as_str().starts_with(SYNC_MEMBERS_PREFIX);
        out.extend_from_slice(b"{\"brokerAddrs\":{");
        for (at, (id, member)) in group.members.iter().enumerate() {
            separate(at, out);
            let id = if at == 0 && has_acting_master { MASTER_ID } else { *id };
            let address = member.address_for(view.asker);
            let _ = write!(out, "{quote}{id}{quote}:\"{address}\"");
        }
        let BrokerGroup { cluster, enable_acting_master, .. } = group;
        let _ = write!(
            out,
            "}},\"brokerName\":\"{name}\",\"cluster\":\"{cluster}\",\
             \"enableActingMaster\":{enable_acting_master}"
        );
        if let Some(zone) = &group.zone {
            out.extend_from_slice(b",\"zoneName\":");
            write_text(zone, out);
        }
        out.push(b'}');
    }

    /// Broker address → its filter servers; nobody has had any since 4.x.
    fn write_filter_servers(&self, view: &RouteView<'_>, out: &mut Vec<u8>) {
        let members = self.brokers(view).flat_map(|(_, group, _)| group.members.values());
        let with_servers = members.filter(|member| !member.filter_servers.is_empty());
        let servers: BTreeMap<_, &Vec<String>> = with_servers
            .map(|member| (member.address_for(view.asker), &member.filter_servers))
            .collect();
        let _ = serde_json::to_writer(out, &servers);
    }

    fn write_mappings(&self, view: &RouteView<'_>, out: &mut Vec<u8>) {
        let Some(mappings) = self.table.mappings.get(self.name) else { return };
        out.extend_from_slice(b",\"topicQueueMappingByBroker\":{");
        for (at, (broker, mapping)) in mappings.iter().enumerate() {
            separate(at, out);
            let _ = write!(out, "\"{broker}\":");
            let mapping: &TopicQueueMappingInfo = mapping;
            let json = if view.is_strict { mapping.encode_strict() } else { mapping.encode() };
            out.extend_from_slice(&json);
        }
        out.push(b'}');
    }
}

fn separate(at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, text);
}
