//! Bodies against the bytes that Apache's own classes wrote (`golden/`, made with RocketMQ 5.5.0
//! as its index says), and against hostile ones.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::Value;
use weirmq_remoting::body::*;
use weirmq_remoting::dialect::normalize;

fn golden(file: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("read {file}: {error}"))
}

fn index() -> Value {
    serde_json::from_slice(&golden("index.json")).unwrap()
}

fn decoded<T: Body>(file: &str) -> T {
    T::decode(&golden(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What a text says, without what Java leaves to chance: the order of its hash sets. Empty
/// collections count as absent, since ours have no null; the texts beside times are not kept.
fn meaning(json: &[u8]) -> Value {
    fn settle(value: Value) -> Option<Value> {
        match value {
            Value::Array(items) => {
                let mut items: Vec<Value> = items.into_iter().filter_map(settle).collect();
                items.sort_by_key(Value::to_string);
                (!items.is_empty()).then_some(Value::Array(items))
            }
            Value::Object(fields) => {
                let kept = fields.into_iter().filter(|(name, _)| !name.ends_with("StampStr"));
                let settled = kept.filter_map(|(name, value)| Some((name, settle(value)?)));
                let fields: serde_json::Map<_, _> = settled.collect();
                (!fields.is_empty()).then_some(Value::Object(fields))
            }
            other => Some(other),
        }
    }
    let strict = normalize(json).unwrap();
    settle(serde_json::from_slice(&strict).unwrap()).unwrap_or(Value::Null)
}

fn there_and_back<T: Body + PartialEq + std::fmt::Debug>(file: &str) {
    let bytes = golden(file);
    let body: T = decoded(file);
    let ours = body.encode();
    assert_eq!(meaning(&ours), meaning(&bytes), "{file}");
    assert_eq!(T::decode(&ours).as_ref(), Ok(&body), "{file}");
    assert_eq!(T::decode(&body.encode_strict()).as_ref(), Ok(&body), "{file}, strict");
    for cut in 0..bytes.len() {
        assert!(T::decode(&bytes[..cut]).is_err(), "{file} cut at {cut}");
    }
}

#[test]
fn every_golden_body_survives_decoding_and_encoding() {
    for entry in index()["bodies"].as_array().unwrap() {
        let file = entry["file"].as_str().unwrap();
        if file.ends_with(".bin") {
            continue;
        }
        let check: fn(&str) = match entry["class"].as_str().unwrap() {
            "BatchAckMessageRequestBody" => there_and_back::<BatchAckMessageRequestBody>,
            "BrokerMemberGroup" => there_and_back::<BrokerMemberGroup>,
            "BrokerStatsData" => there_and_back::<BrokerStatsData>,
            "CheckClientRequestBody" => there_and_back::<CheckClientRequestBody>,
            "ClusterInfo" => there_and_back::<ClusterInfo>,
            "ConsumeMessageDirectlyResult" => there_and_back::<ConsumeMessageDirectlyResult>,
            "ConsumeStats" => there_and_back::<ConsumeStats>,
            "ConsumeStatsList" => there_and_back::<ConsumeStatsList>,
            "ConsumerConnection" => there_and_back::<ConsumerConnection>,
            "ConsumerOffsetSerializeWrapper" => there_and_back::<ConsumerOffsetSerializeWrapper>,
            "ConsumerRunningInfo" => there_and_back::<ConsumerRunningInfo>,
            "CreateTopicListRequestBody" => there_and_back::<CreateTopicListRequestBody>,
            "DataVersion" => there_and_back::<DataVersion>,
            "ElectMasterResponseBody" => there_and_back::<ElectMasterResponseBody>,
            "GetBrokerMemberGroupResponseBody" => {
                there_and_back::<GetBrokerMemberGroupResponseBody>
            }
            "GetConsumerListByGroupResponseBody" => {
                there_and_back::<GetConsumerListByGroupResponseBody>
            }
            "GetConsumerStatusBody" => there_and_back::<GetConsumerStatusBody>,
            "GroupList" => there_and_back::<GroupList>,
            "HeartbeatData" => there_and_back::<HeartbeatData>,
            "KVTable" => there_and_back::<KVTable>,
            "LockBatchRequestBody" => there_and_back::<LockBatchRequestBody>,
            "LockBatchResponseBody" => there_and_back::<LockBatchResponseBody>,
            "ProducerConnection" => there_and_back::<ProducerConnection>,
            "ProducerTableInfo" => there_and_back::<ProducerTableInfo>,
            "QueryAssignmentRequestBody" => there_and_back::<QueryAssignmentRequestBody>,
            "QueryAssignmentResponseBody" => there_and_back::<QueryAssignmentResponseBody>,
            "QueryConsumeQueueResponseBody" => there_and_back::<QueryConsumeQueueResponseBody>,
            "QueryConsumeTimeSpanBody" => there_and_back::<QueryConsumeTimeSpanBody>,
            "QuerySubscriptionResponseBody" => there_and_back::<QuerySubscriptionResponseBody>,
            "RegisterBrokerBody" => there_and_back::<RegisterBrokerBody>,
            "ResetOffsetBody" => there_and_back::<ResetOffsetBody>,
            "SetMessageRequestModeRequestBody" => {
                there_and_back::<SetMessageRequestModeRequestBody>
            }
            "SubscriptionGroupConfig" => there_and_back::<SubscriptionGroupConfig>,
            "SubscriptionGroupList" => there_and_back::<SubscriptionGroupList>,
            "SubscriptionGroupWrapper" => there_and_back::<SubscriptionGroupWrapper>,
            "TopicConfig" => there_and_back::<TopicConfig>,
            "TopicConfigSerializeWrapper" => there_and_back::<TopicConfigSerializeWrapper>,
            "TopicList" => there_and_back::<TopicList>,
            "TopicRouteData" => there_and_back::<TopicRouteData>,
            "TopicStatsTable" => there_and_back::<TopicStatsTable>,
            "UnlockBatchRequestBody" => there_and_back::<UnlockBatchRequestBody>,
            // Controller mode has no body here.
            "SyncStateSet" => continue,
            class => panic!("{file}: no type for Apache's {class}"),
        };
        check(file);
    }
}

#[test]
fn routes_have_apaches_very_bytes_in_both_forms() {
    for name in ["topic_route_data", "topic_route_data_many", "topic_route_data_empty"] {
        let fastjson = golden(&format!("bodies/{name}.json"));
        let standard = golden(&format!("bodies/{name}.standard.json"));
        let route = TopicRouteData::decode(&fastjson).unwrap();
        assert_eq!(route, TopicRouteData::decode(&standard).unwrap());
        assert_eq!(String::from_utf8(route.to_json(false)), String::from_utf8(fastjson));
        assert_eq!(String::from_utf8(route.to_json(true)), String::from_utf8(standard));
    }
}

#[test]
fn heartbeats_keep_their_order_and_their_enums() {
    let heartbeat: HeartbeatData = decoded("bodies/heartbeat.json");
    assert_eq!(heartbeat.client_id, "10.1.2.3@7#123456789");
    assert_eq!(heartbeat.producer_data_set[0].group_name, "p-one");
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.consume_type, Some(ConsumeType::Passively));
    assert_eq!(consumer.message_model, Some(MessageModel::Clustering));
    assert_eq!(consumer.consume_from_where, Some(ConsumeFromWhere::LastOffset));
    let topics: Vec<&str> =
        consumer.subscription_data_set.iter().map(|data| data.topic.as_str()).collect();
    assert_eq!(topics, ["TopicA", "TopicB", "%RETRY%g-one"]);
    assert_eq!(consumer.subscription_data_set[0].code_set, [2598919, 2598920].into());
}

#[test]
fn tables_keyed_by_queues_are_read_and_written_with_object_keys() {
    let stats: TopicStatsTable = decoded("bodies/topic_stats_table.json");
    let newest = stats.offset_table[&MessageQueue::new("TopicA", "broker-a", 1)];
    assert_eq!((newest.min_offset, newest.max_offset), (1, 101));
    let text = String::from_utf8(stats.encode()).unwrap();
    assert!(text.starts_with(concat!(
        r#"{"offsetTable":{{"brokerName":"broker-b","queueId":0,"topic":"%RETRY%g-one"}:"#,
        r#"{"lastUpdateTimestamp":1700000000002,"maxOffset":102,"minOffset":2},"#,
    )));
    let strict = stats.encode_strict();
    assert!(serde_json::from_slice::<Value>(&strict).is_ok());
    assert_eq!(TopicStatsTable::decode(&strict), Ok(stats));
}

#[test]
fn compressed_registrations_say_what_the_plain_ones_say() {
    for name in ["register_broker_body", "register_broker_body_mapping"] {
        let compressed = golden(&format!("bodies/{name}.deflate.bin"));
        let body = RegisterBrokerBody::decode_form(&compressed, true).unwrap();
        let mut plain: RegisterBrokerBody = decoded(&format!("bodies/{name}.json"));
        // The text form of a topic has neither of these, nor is there a mapping version.
        for topic in plain.topic_config_serialize_wrapper.topic_config_table.values_mut() {
            (topic.order, topic.topic_sys_flag) = (false, 0);
        }
        plain.topic_config_serialize_wrapper.mapping_data_version = None;
        assert_eq!(body, plain, "{name}");
        let again = RegisterBrokerBody::decode_form(&body.encode_form(true), true);
        assert_eq!(again, Ok(body), "{name}");
    }
}

#[test]
fn listener_addresses_travel_in_both_forms() {
    let mut body: RegisterBrokerBody = decoded("bodies/register_broker_body.json");
    let topics = &mut body.topic_config_serialize_wrapper.topic_config_table;
    let topic = topics.get_mut("TopicA").unwrap();
    topic.attributes.insert("note".to_owned(), "with blanks  in it".to_owned());
    topics.get_mut("TopicB").unwrap().order = false;
    topics.get_mut("TopicB").unwrap().topic_sys_flag = 0;
    body.topic_config_serialize_wrapper.mapping_data_version = None;
    body.listener_addresses.insert("external".to_owned(), "203.0.113.7:30911".to_owned());
    for compressed in [false, true] {
        let bytes = body.encode_form(compressed);
        assert_eq!(RegisterBrokerBody::decode_form(&bytes, compressed).as_ref(), Ok(&body));
    }
}

#[test]
fn topics_have_apaches_text_form() {
    for entry in index()["topicConfigEncode"].as_array().unwrap() {
        let text = entry["encoded"].as_str().unwrap();
        let topic = TopicConfig::from_text(text).unwrap();
        assert_eq!(topic.to_text(), text);
        assert_eq!(topic.topic_name, entry["value"]["topicName"]);
        assert_eq!(topic.read_queue_nums, entry["value"]["readQueueNums"]);
        assert_eq!(topic.perm, entry["value"]["perm"]);
    }
    assert!(TopicConfig::from_text("t 4 4 6 SINGLE_TAG").is_ok(), "as brokers before 5.0 send it");
    for broken in ["", "t", "t 4 4 6", "t 4 x 6 SINGLE_TAG", "t 4 4 6 NO_TAG {}"] {
        assert!(TopicConfig::from_text(broken).is_err(), "{broken}");
    }
}

fn deflated(parts: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(parts).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn damaged_registrations_are_refused_at_every_byte() {
    let compressed = golden("bodies/register_broker_body_mapping.deflate.bin");
    for cut in 0..compressed.len() {
        assert!(RegisterBrokerBody::decode_form(&compressed[..cut], true).is_err(), "cut at {cut}");
    }
    let mut parts = Vec::new();
    ZlibDecoder::new(&compressed[..]).read_to_end(&mut parts).unwrap();
    let mut accepted = Vec::new();
    for cut in 0..parts.len() {
        if RegisterBrokerBody::decode_form(&deflated(&parts[..cut]), true).is_ok() {
            accepted.push(cut);
        }
    }
    assert_eq!(accepted.len(), 1, "only the end of an old broker's body: {accepted:?}");
    for at in 0..parts.len() {
        let mut wrong = parts.clone();
        wrong[at] ^= 0x80;
        // Whatever it answers, it must neither panic nor reserve what a length claims.
        let _ = RegisterBrokerBody::decode_form(&deflated(&wrong), true);
    }
}

#[test]
fn a_deflate_bomb_stops_at_the_limit() {
    let bomb = deflated(&vec![b' '; INFLATED_BYTES_MAX + 1]);
    assert!(bomb.len() < INFLATED_BYTES_MAX / 50);
    let refused = RegisterBrokerBody::decode_form(&bomb, true);
    assert_eq!(refused, Err(BodyError::TooLarge { limit: INFLATED_BYTES_MAX }));
}

#[test]
fn old_clients_looseness_is_read_as_java_reads_it() {
    let heartbeat = HeartbeatData::decode(
        br#"{"clientID":7,"consumerDataSet":[{"consumeType":"0","messageModel":1,
            "consumeFromWhere":"CONSUME_LATER_THAN_EVER","unitMode":"false","groupName":null,
            "subscriptionDataSet":null,"newer":{"unknown":[1]}}],
            "heartbeatFingerprint":"12","withoutSub":1}"#,
    )
    .unwrap();
    let consumer = ConsumerData {
        consume_type: Some(ConsumeType::Actively),
        message_model: Some(MessageModel::Clustering),
        ..Default::default()
    };
    let expected = HeartbeatData {
        client_id: "7".to_owned(),
        consumer_data_set: vec![consumer],
        heartbeat_fingerprint: 12,
        without_sub: true,
        ..Default::default()
    };
    assert_eq!(heartbeat, expected);
}

#[test]
fn null_is_zero_but_absence_is_the_initialiser() {
    let topic = TopicConfig::decode(
        br#"{"readQueueNums":null,"order":"TRUE","topicFilterType":null,"perm":"7"}"#,
    )
    .unwrap();
    assert_eq!((topic.read_queue_nums, topic.write_queue_nums, topic.perm), (0, 16, 7));
    assert_eq!((topic.order, topic.topic_filter_type), (true, TopicFilterType::SingleTag));
    let group = SubscriptionGroupConfig::decode(br#"{"groupRetryPolicy":{"type":null}}"#).unwrap();
    assert_eq!(group, SubscriptionGroupConfig::default());
    assert!(TopicConfig::decode(br#"{"perm":99999999999}"#).is_err(), "Java overflows here too");
}

#[test]
fn a_static_topics_config_is_as_loose_as_any_other() {
    let json = br#"{"topicName":"t","perm":"6","readQueueNums":"3","mappingDetail":
        {"bname":"b","hostedQueues":{0:[{"gen":"1","queueId":2,"endOffset":-1}]}}}"#;
    let topic = TopicConfigAndQueueMapping::decode(json).unwrap();
    assert_eq!((topic.config.topic_name.as_str(), topic.config.read_queue_nums), ("t", 3));
    let item = &topic.mapping_detail.as_ref().unwrap().hosted_queues[&0][0];
    assert_eq!((item.generation, item.queue_id, item.end_offset), (1, 2, -1));
    assert_eq!(TopicConfigAndQueueMapping::decode(&topic.encode()), Ok(topic));
}

#[test]
fn names_cannot_break_out_of_an_object_key() {
    for name in ["\"}:{", "\\", "\\\"", "{\"a\":1}", "标签", "\u{0}\n\u{2028}", "{{", "'"] {
        let queue = MessageQueue::new(name, "b\"", -1);
        let body = ResetOffsetBody { offset_table: BTreeMap::from([(queue, 5)]) };
        assert_eq!(ResetOffsetBody::decode(&body.encode()).as_ref(), Ok(&body), "{name}");
        assert_eq!(ResetOffsetBody::decode(&body.encode_strict()).as_ref(), Ok(&body), "{name}");
        let table: KVTable = [(name, name)].into_iter().collect();
        assert_eq!(KVTable::decode(&table.encode()).as_ref(), Ok(&table), "{name}");
    }
}
