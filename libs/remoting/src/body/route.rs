//! Where a topic lives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::writer::{Form, to_vec};
use super::{TopicQueueMappingInfo, bodies};

/// The answer to code 105. Source: `org.apache.rocketmq.remoting.protocol.route.TopicRouteData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TopicRouteData {
    pub broker_datas: Vec<BrokerData>,
    /// Broker address → its filter servers; empty since 4.x, but old clients want the field.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// For ordered topics `broker:queues;broker:queues`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    pub queue_datas: Vec<QueueData>,
    /// Broker name → its part of a static topic; absent for ordinary topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, TopicQueueMappingInfo>>,
}

impl TopicRouteData {
    /// Writes the route for a client. `strict` is the name server's answer to clients since
    /// 4.9.4 and to those that ask for standard JSON: integer keys are quoted. Others get
    /// fastjson's `"brokerAddrs":{0:"10.0.0.1:10911"}`. Keys are sorted either way, and there are
    /// no blanks, because the Go client cuts `brokerAddrs` apart by hand.
    pub fn to_json(&self, strict: bool) -> Vec<u8> {
        to_vec(self, if strict { Form::Strict } else { Form::Fastjson })
    }
}

/// The queues that one broker group has of a topic. Source:
/// `org.apache.rocketmq.remoting.protocol.route.QueueData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct QueueData {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker_name: String,
    /// Bits: 4 read, 2 write, 1 inherit.
    pub perm: i32,
    pub read_queue_nums: i32,
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}

/// The addresses of one broker group. Source:
/// `org.apache.rocketmq.remoting.protocol.route.BrokerData`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BrokerData {
    /// Broker id → `host:port`; id 0 is the master. Null in Java when absent, empty here.
    pub broker_addrs: BTreeMap<i64, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub broker_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// The slave with the lowest id stands in for a lost master.
    pub enable_acting_master: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

bodies!(TopicRouteData, QueueData, BrokerData);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::Body;

    fn route() -> TopicRouteData {
        let broker = BrokerData {
            broker_addrs: BTreeMap::from([(0, "h:1".to_owned()), (1, "h:2".to_owned())]),
            broker_name: "b".to_owned(),
            cluster: "c".to_owned(),
            ..Default::default()
        };
        TopicRouteData {
            broker_datas: vec![broker],
            queue_datas: vec![QueueData {
                broker_name: "b".to_owned(),
                perm: 6,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn both_forms_are_compact_and_differ_in_the_keys_only() {
        let fastjson = concat!(
            r#"{"brokerDatas":[{"brokerAddrs":{0:"h:1",1:"h:2"},"brokerName":"b","cluster":"c","#,
            r#""enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"b","#,
            r#""perm":6,"readQueueNums":0,"topicSysFlag":0,"writeQueueNums":0}]}"#,
        );
        let route = route();
        assert_eq!(String::from_utf8(route.to_json(false)).unwrap(), fastjson);
        let strict = fastjson.replace("{0:", "{\"0\":").replace(",1:", ",\"1\":");
        assert_eq!(String::from_utf8(route.to_json(true)).unwrap(), strict);
        assert_eq!(TopicRouteData::decode(fastjson.as_bytes()), Ok(route.clone()));
        assert_eq!(TopicRouteData::decode(strict.as_bytes()), Ok(route));
    }
}
