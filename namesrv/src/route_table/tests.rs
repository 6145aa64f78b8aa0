//! What the table does with registrations in every order that matters.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::Instant;
use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{
    BrokerData, DataVersion, QueueData, TopicConfig, TopicConfigSerializeWrapper,
    TopicQueueMappingInfo, TopicRouteData,
};

use super::{
    AddTopicError, Asker, Registered, Registration, RegistrationError, RouteTable, RouteView,
    TableLimits,
};

const LIMITS: TableLimits = TableLimits {
    brokers_max: 10,
    topics_max: 10,
    support_acting_master: false,
    delete_missing_topics: false,
};

fn table() -> RouteTable {
    RouteTable::new(LIMITS)
}

fn name(text: &str) -> ResourceName {
    ResourceName::broker(text).unwrap()
}

fn topic(name: &str, perm: i32) -> TopicConfig {
    TopicConfig { topic_name: name.to_owned(), perm, ..TopicConfig::default() }
}

fn version(state_version: i64, counter: i64) -> DataVersion {
    DataVersion { counter, state_version, timestamp: 1 }
}

/// A master of `broker-a` at h:1 with the topics t and u of version (0, 1), on connection 1.
fn master() -> Registration {
    registration(0, "h:1", &["t", "u"])
}

fn registration(broker_id: i64, address: &str, topics: &[&str]) -> Registration {
    let table = topics.iter().map(|topic_name| ((*topic_name).to_owned(), topic(topic_name, 6)));
    Registration {
        is_part: false,
        cluster: name("c"),
        broker_name: name("broker-a"),
        broker_id,
        address: address.to_owned(),
        ha_address: format!("ha-{address}"),
        listener_addresses: BTreeMap::new(),
        zone: None,
        enable_acting_master: Some(false),
        heartbeat_timeout: Duration::from_secs(120),
        filter_servers: Vec::new(),
        topics: TopicConfigSerializeWrapper {
            data_version: version(0, 1),
            topic_config_table: table.collect(),
            ..TopicConfigSerializeWrapper::default()
        },
        connection: broker_id as u64 + 1,
    }
}

fn register(table: &mut RouteTable, registration: Registration) -> Registered {
    table.register(registration, Instant::now()).unwrap()
}

const VIEW: RouteView<'static> =
    RouteView { asker: DEFAULT, is_strict: true, zone: None, order_topic_conf: None };

const DEFAULT: Asker<'static> = asker("default");

const fn asker(listener: &str) -> Asker<'_> {
    Asker { listener, reached_at: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)) }
}

fn json(table: &RouteTable, topic: &str, view: &RouteView<'_>) -> Option<String> {
    let mut out = Vec::new();
    table.route(topic)?.write_json(view, &mut out);
    Some(String::from_utf8(out).unwrap())
}

/// Reads a route back, having made sure that both forms are what the body type would write.
fn route(table: &RouteTable, topic: &str, view: &RouteView<'_>) -> Option<TopicRouteData> {
    use weirmq_remoting::body::Body as _;
    let strict = json(table, topic, &RouteView { is_strict: true, ..*view })?;
    let fastjson = json(table, topic, &RouteView { is_strict: false, ..*view })?;
    let route = TopicRouteData::decode(strict.as_bytes()).unwrap();
    assert_eq!(strict.as_bytes(), route.to_json(true));
    assert_eq!(fastjson.as_bytes(), route.to_json(false));
    Some(route)
}

fn perm(table: &RouteTable, topic: &str) -> i32 {
    route(table, topic, &VIEW).unwrap().queue_datas[0].perm
}

fn topics(table: &RouteTable) -> Vec<String> {
    table.topic_list().topic_list.into_iter().collect()
}

#[test]
fn a_route_is_written_as_the_body_type_writes_it() {
    let mut table = table();
    let mut with_all = master();
    with_all.zone = Some("zone \"1\"".into());
    with_all.filter_servers = vec!["f:1".into(), "f:2".into()];
    let mapping = TopicQueueMappingInfo {
        bname: "broker-a".into(),
        curr_id_map: BTreeMap::from([(0, 0), (1, 5)]),
        topic: "t".into(),
        total_queues: 2,
        ..TopicQueueMappingInfo::default()
    };
    with_all.topics.topic_queue_mapping_info_map.insert("t".into(), mapping.clone());
    register(&mut table, with_all);
    register(&mut table, registration(1, "h:2", &[]));
    let mut other = registration(0, "h:3", &["t", "v"]);
    other.broker_name = name("broker-b");
    register(&mut table, other);

    let view = RouteView { order_topic_conf: Some("broker-a:4;\u{e9}"), ..VIEW };
    let broker = |name: &str, addresses: &[(i64, &str)], zone_name: Option<&str>| BrokerData {
        broker_addrs: addresses.iter().map(|(id, at)| (*id, (*at).to_owned())).collect(),
        broker_name: name.into(),
        cluster: "c".into(),
        enable_acting_master: false,
        zone_name: zone_name.map(str::to_owned),
    };
    let queue = |broker_name: &str| QueueData {
        broker_name: broker_name.into(),
        perm: 6,
        read_queue_nums: 16,
        topic_sys_flag: 0,
        write_queue_nums: 16,
    };
    // The slave's registration has no zone, and the last one counts.
    let expected = TopicRouteData {
        broker_datas: vec![
            broker("broker-a", &[(0, "h:1"), (1, "h:2")], None),
            broker("broker-b", &[(0, "h:3")], None),
        ],
        filter_server_table: BTreeMap::from([(
            "h:1".to_owned(),
            vec!["f:1".to_owned(), "f:2".to_owned()],
        )]),
        order_topic_conf: Some("broker-a:4;\u{e9}".into()),
        queue_datas: vec![queue("broker-a"), queue("broker-b")],
        topic_queue_mapping_by_broker: Some(BTreeMap::from([("broker-a".into(), mapping)])),
    };
    assert_eq!(route(&table, "t", &view).unwrap(), expected);
    assert!(table.route("unknown").is_none());
}

#[test]
fn each_listener_is_answered_with_its_own_addresses() {
    let mut table = table();
    let mut two_listeners = master();
    two_listeners.listener_addresses.insert("external".into(), "public:31".into());
    register(&mut table, two_listeners);
    let address = |listener| {
        let view = RouteView { asker: asker(listener), ..VIEW };
        route(&table, "t", &view).unwrap().broker_datas[0].broker_addrs[&0].clone()
    };
    assert_eq!(address("default"), "h:1");
    assert_eq!(address("external"), "public:31");
    assert_eq!(address("third"), "h:1", "a broker without an address for it has one only");
    let info = table.cluster_info(asker("external"));
    assert_eq!(info.broker_addr_table["broker-a"].broker_addrs[&0], "public:31");
    let group = table.member_group(&name("c"), &name("broker-a"), asker("external"));
    assert_eq!(group.broker_addrs[&0], "public:31");
}

#[test]
fn a_broker_bound_to_every_address_is_shown_where_the_asker_came_in() {
    for (bound, shown) in [("0.0.0.0:10911", "10.0.0.7:10911"), ("[::]:7", "10.0.0.7:7")] {
        let mut table = table();
        register(&mut table, registration(0, bound, &["t", "u"]));
        let broker_addrs = &route(&table, "t", &VIEW).unwrap().broker_datas[0].broker_addrs;
        assert_eq!(broker_addrs[&0], shown);
    }
}

#[test]
fn a_slave_learns_its_master_and_its_topics_count_only_without_one() {
    let mut table = table();
    register(&mut table, master());
    let slave = register(&mut table, registration(1, "h:2", &["t", "slaves-own"]));
    assert_eq!(slave.master, Some(("ha-h:1".into(), "h:1".into())));
    assert_eq!(topics(&table), ["t", "u"]);
    assert_eq!(table.unregister("broker-a", "h:1", 1).len(), 1);
    assert!(table.route("t").is_some(), "the slave still serves readers");
    let slave = register(&mut table, registration(1, "h:2", &["t", "slaves-own"]));
    assert_eq!((slave.master, slave.is_new), (None, false));
    assert_eq!(topics(&table), ["slaves-own", "t", "u"]);
    let mut before_5 = registration(2, "h:9", &["old", "older"]);
    before_5.broker_name = name("broker-old");
    before_5.enable_acting_master = None;
    register(&mut table, before_5);
    assert!(table.route("old").is_none());
}

#[test]
fn the_last_member_takes_the_topics_along() {
    let mut table = table();
    register(&mut table, master());
    register(&mut table, registration(1, "h:2", &[]));
    let gone = table.connection_closed(1);
    assert_eq!((gone.len(), gone[0].broker_id, gone[0].connection), (1, 0, 1));
    assert_eq!(topics(&table), ["t", "u"]);
    assert!(table.connection_closed(1).is_empty());
    table.connection_closed(2);
    assert_eq!((table.broker_count(), table.topic_count()), (0, 0));
    assert!(table.cluster_info(DEFAULT).cluster_addr_table.is_empty());
}

#[test]
fn a_connection_that_was_replaced_takes_nothing_with_it() {
    let mut table = table();
    register(&mut table, master());
    let again = register(&mut table, Registration { connection: 9, ..master() });
    assert!(!again.is_new);
    assert!(table.connection_closed(1).is_empty());
    assert_eq!(table.connection_closed(9).len(), 1);
}

/// A broker that was cut off has written to its old connection, and TCP delivers that seconds after it is
/// there again and has registered on another one.
#[test]
fn what_comes_late_on_an_older_connection_changes_nothing() {
    let mut table = table();
    let claim = |id, connection, state_version| {
        let mut claim = Registration { connection, ..registration(id, "h:1", &["t", "u"]) };
        claim.topics.data_version = version(state_version, 1);
        claim
    };
    register(&mut table, claim(0, 3, 7));
    register(&mut table, claim(1, 5, 8));
    let master_again = claim(0, 5, 9);
    for known in [claim(1, 5, 8), master_again] {
        register(&mut table, known.clone());
        assert!(table.unregister("broker-a", "h:1", 3).is_empty());
        for late in [claim(0, 3, 7), claim(1, 3, 8), claim(2, 4, 8)] {
            let refused = table.register(late, Instant::now()).unwrap_err();
            let is_older = matches!(
                refused,
                RegistrationError::Late { .. } | RegistrationError::Outranked { .. }
            );
            assert!(is_older, "{refused}");
        }
        assert!(table.connection_closed(3).is_empty());
        let shown = &route(&table, "t", &VIEW).unwrap().broker_datas[0].broker_addrs;
        assert_eq!(*shown, BTreeMap::from([(known.broker_id, "h:1".into())]));
    }
    // A later master may have an older connection, and the address of the one before.
    register(&mut table, claim(0, 4, 10));
    assert_eq!(table.unregister("broker-a", "h:1", 4).len(), 1);
}

#[test]
fn silence_ends_a_broker_at_its_own_timeout_and_heartbeats_keep_it() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut table = table();
    assert_eq!(table.next_deadline(), None);
    let quick = Registration { heartbeat_timeout: Duration::from_secs(10), ..master() };
    let registered = table.register(quick.clone(), start).unwrap();
    assert!(registered.deadline_changed);
    assert!(!table.register(quick, start).unwrap().deadline_changed);
    table.register(registration(1, "h:2", &[]), start).unwrap();
    assert_eq!(table.next_deadline(), Some(after(10)));
    assert!(table.heartbeat("broker-a", "h:1", after(5)));
    assert!(!table.heartbeat("broker-a", "unknown:1", after(5)));
    assert!(table.expire(after(14)).is_empty());
    assert_eq!(table.expire(after(15))[0].address, "h:1");
    assert_eq!(table.next_deadline(), Some(after(120)));
    assert_eq!(table.expire(after(120)).len(), 1);
    assert_eq!((table.broker_count(), table.topic_count()), (0, 0));
}

#[test]
fn a_master_of_before_does_not_take_the_place_of_the_next_one_by_the_address_that_both_have() {
    let mut table = table();
    let claim = |connection, state_version| {
        let mut claim = Registration { connection, ..registration(0, "service:1", &["t", "u"]) };
        claim.topics.data_version = version(state_version, 1);
        claim
    };
    register(&mut table, claim(1, 1));
    register(&mut table, claim(2, 2));
    // It was cut off, connects again, and learns only then that it is master no more.
    let refused = table.register(claim(3, 1), Instant::now()).unwrap_err();
    assert!(matches!(refused, RegistrationError::Outranked { held: 2, offered: 1, .. }));
    assert!(table.connection_closed(1).is_empty() && table.connection_closed(3).is_empty());
    assert_eq!(route(&table, "t", &VIEW).unwrap().broker_datas[0].broker_addrs[&0], "service:1");
    // Whoever registered may go back, and after its end so may anybody.
    register(&mut table, claim(2, 1));
    register(&mut table, claim(2, 2));
    assert_eq!(table.connection_closed(2).len(), 1);
    register(&mut table, claim(3, 1));
}

#[test]
fn of_two_with_one_id_the_higher_state_version_stays_and_equal_ones_of_0_replace() {
    let mut table = table();
    let claim = |address: &str, state_version| {
        let mut claim = registration(0, address, &["t", "u"]);
        claim.topics.data_version = version(state_version, 1);
        claim
    };
    let now = Instant::now();
    // A pod of Apache's without a controller has another address after each restart.
    register(&mut table, Registration { connection: 7, ..claim("h:0", 0) });
    assert_eq!(register(&mut table, claim("h:1", 0)).replaced.as_deref(), Some("h:0"));
    register(&mut table, claim("h:1", 3));
    let refused = table.register(claim("h:2", 2), now).unwrap_err();
    assert!(matches!(refused, RegistrationError::Outranked { held: 3, offered: 2, .. }));
    assert!(refused.to_string().contains("registered from h:1"), "{refused}");
    // On the connection that it has registered on: its address was changed.
    let replaced = register(&mut table, claim("h:2", 3));
    assert_eq!((replaced.replaced.as_deref(), replaced.is_new), (Some("h:1"), true));
    assert_eq!(register(&mut table, claim("h:3", 4)).replaced.as_deref(), Some("h:2"));
    // The holder itself may step back.
    register(&mut table, claim("h:3", 0));
    assert_eq!(table.broker_count(), 1);
    let moved = register(&mut table, registration(2, "h:3", &[]));
    assert!(moved.is_new);
    let info = table.cluster_info(DEFAULT);
    assert_eq!(
        info.broker_addr_table["broker-a"].broker_addrs,
        BTreeMap::from([(2, "h:3".into())])
    );
}

/// Two masters by configuration that were started under one name: each would take messages.
#[test]
fn a_master_that_is_there_keeps_its_place_from_another_one_of_its_epoch() {
    let mut table = table();
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let claim = |id, address: &str, connection, state_version| {
        let mut claim = Registration { connection, ..registration(id, address, &["t", "u"]) };
        claim.topics.data_version = version(state_version, 1);
        claim
    };
    let shown = |table: &RouteTable, id| {
        route(table, "t", &VIEW).unwrap().broker_datas[0].broker_addrs[&id].clone()
    };
    table.register(claim(0, "h:1", 1, 7), start).unwrap();
    // It says something each 30 s.
    for heard in [0, 30, 60] {
        table.register(claim(0, "h:1", 1, 7), after(heard)).unwrap();
        let refused = table.register(claim(0, "h:2", 2, 7), after(heard + 39)).unwrap_err();
        assert!(matches!(refused, RegistrationError::TwoMasters { state_version: 7, .. }));
        assert!(refused.to_string().contains("which is there: h:1"), "{refused}");
        assert_eq!(shown(&table, 0), "h:1");
    }
    // It connects anew, and is the same: nobody waits for the end of its connection before.
    table.register(claim(0, "h:1", 3, 7), after(61)).unwrap();
    // So does the master of a later epoch, wherever it is.
    table.register(claim(0, "h:2", 4, 8), after(62)).unwrap();
    // Whose machine lost power has sent no end of its connection, and says nothing.
    table.register(claim(0, "h:3", 5, 8), after(102)).unwrap();
    assert_eq!(shown(&table, 0), "h:3");
    // After its goodbye, or the end of its connection, nobody waits.
    assert_eq!(table.connection_closed(5).len(), 1);
    table.register(claim(0, "h:4", 6, 8), after(103)).unwrap();
    assert_eq!(table.unregister("broker-a", "h:4", 6).len(), 1);
    table.register(claim(0, "h:5", 7, 8), after(104)).unwrap();
    // Slaves of one epoch have whichever address their pods have.
    table.register(claim(1, "h:6", 8, 8), after(105)).unwrap();
    table.register(claim(1, "h:7", 9, 8), after(106)).unwrap();
    assert_eq!(shown(&table, 1), "h:7");
}

#[test]
fn a_name_belongs_to_one_cluster_while_somebody_else_holds_it() {
    let mut table = table();
    register(&mut table, master());
    let mut stranger = registration(0, "h:9", &["t", "u"]);
    stranger.cluster = name("other");
    let refused = table.register(stranger, Instant::now()).unwrap_err();
    assert!(matches!(refused, RegistrationError::OtherCluster { .. }), "{refused}");
    let mut moved = master();
    moved.cluster = name("other");
    register(&mut table, moved);
    let clusters = table.cluster_info(DEFAULT).cluster_addr_table;
    assert_eq!(clusters.into_keys().collect::<Vec<_>>(), ["other"]);
}

#[test]
fn a_table_may_come_in_parts() {
    let mut table = table();
    for (counter, part) in [["a", "b"], ["c", "d"]].iter().enumerate() {
        let mut part = registration(0, "h:1", part);
        part.topics.data_version = version(0, counter as i64);
        register(&mut table, part);
    }
    let mut last = registration(0, "h:1", &["e"]);
    last.topics.data_version = version(0, 2);
    register(&mut table, last);
    assert_eq!(topics(&table), ["a", "b", "c", "d", "e"]);
    assert_eq!(table.data_version("broker-a", "h:1"), Some(version(0, 2)));
}

#[test]
fn a_lone_first_topic_is_routed_but_the_broker_is_asked_for_the_rest() {
    let mut table = table();
    register(&mut table, registration(0, "h:1", &["fresh"]));
    assert_eq!(topics(&table), ["fresh"]);
    assert_eq!(table.data_version("broker-a", "h:1"), None);
    // The same version with all topics, as the broker sends it after being asked.
    register(&mut table, registration(0, "h:1", &["fresh", "t", "u"]));
    assert_eq!(topics(&table), ["fresh", "t", "u"]);
    assert_eq!(table.data_version("broker-a", "h:1"), Some(version(0, 1)));
    assert_eq!(table.data_version("broker-a", "elsewhere:1"), None);
}

#[test]
fn an_unchanged_version_brings_back_only_what_is_missing() {
    let mut table = table();
    register(&mut table, master());
    table.set_wiped("broker-a", true);
    table.delete_topic("u", None);
    let mut same = master();
    same.topics.topic_config_table.insert("t".into(), topic("t", 6));
    register(&mut table, same.clone());
    assert_eq!((perm(&table, "t"), perm(&table, "u")), (4, 6));
    same.topics.data_version = version(0, 2);
    register(&mut table, same);
    assert_eq!(perm(&table, "t"), 6, "a newer version ends the wipe");
}

#[test]
fn write_permission_is_wiped_and_given_back_as_it_was() {
    let mut table = table();
    let mut with_read_only = master();
    with_read_only.topics.topic_config_table.insert("ro".into(), topic("ro", 4));
    register(&mut table, with_read_only);
    assert_eq!(table.set_wiped("unknown", true), 0);
    assert_eq!(table.set_wiped("broker-a", true), 3);
    assert_eq!((perm(&table, "t"), perm(&table, "ro")), (4, 4));
    assert_eq!(table.set_wiped("broker-a", false), 3);
    assert_eq!((perm(&table, "t"), perm(&table, "ro")), (6, 4));
}

#[test]
fn without_a_master_an_acting_group_is_read_only_and_may_show_one() {
    for support_acting_master in [false, true] {
        let mut table = RouteTable::new(TableLimits { support_acting_master, ..LIMITS });
        let acting = |id, address| Registration {
            enable_acting_master: Some(true),
            ..registration(id, address, &["t", "rmq_sys_SYNC_BROKER_MEMBER_broker-a"])
        };
        register(&mut table, acting(0, "h:1"));
        register(&mut table, acting(2, "h:3"));
        register(&mut table, acting(1, "h:2"));
        assert_eq!(perm(&table, "t"), 6);
        table.unregister("broker-a", "h:1", 1);
        assert_eq!(perm(&table, "t"), 4);
        let ids = |topic| -> Vec<i64> {
            let route = route(&table, topic, &VIEW).unwrap();
            route.broker_datas[0].broker_addrs.keys().copied().collect()
        };
        assert_eq!(ids("t"), if support_acting_master { [0, 2] } else { [1, 2] });
        assert_eq!(ids("rmq_sys_SYNC_BROKER_MEMBER_broker-a"), [1, 2]);
        register(&mut table, acting(0, "h:1"));
        assert_eq!(perm(&table, "t"), 6);
    }
}

#[test]
fn a_zone_sees_its_own_brokers_and_those_without_a_master() {
    let mut table = table();
    for (broker, id, zone) in [("near", 0, Some("Z1")), ("far", 0, Some("z2")), ("slaves", 1, None)]
    {
        let mut registration = registration(id, &format!("{broker}:1"), &["t", "u"]);
        registration.broker_name = name(broker);
        registration.zone = zone.map(str::to_owned);
        register(&mut table, registration);
    }
    let brokers = |zone| -> Vec<String> {
        let route = route(&table, "t", &RouteView { zone, ..VIEW }).unwrap();
        assert_eq!(route.broker_datas.len(), route.queue_datas.len());
        route.queue_datas.into_iter().map(|queue| queue.broker_name).collect()
    };
    assert_eq!(brokers(None), ["far", "near", "slaves"]);
    assert_eq!(brokers(Some("z1")), ["near", "slaves"]);
}

#[test]
fn topics_are_deleted_everywhere_or_in_one_cluster() {
    let mut table = table();
    register(&mut table, master());
    let mut other = registration(0, "h:3", &["t", "v"]);
    other.broker_name = name("broker-b");
    other.cluster = name("c2");
    register(&mut table, other);
    table.delete_topic("t", Some("unknown"));
    table.delete_topic("unknown", None);
    table.delete_topic("t", Some("c2"));
    assert_eq!(route(&table, "t", &VIEW).unwrap().queue_datas.len(), 1);
    assert_eq!(table.topics_of_cluster("c2").topic_list.into_iter().collect::<Vec<_>>(), ["v"]);
    assert!(table.topics_of_cluster("unknown").topic_list.is_empty());
    table.delete_topic("t", Some("c"));
    table.delete_topic("v", None);
    assert_eq!(topics(&table), ["u"]);
    let system = table.system_topic_list(DEFAULT);
    assert_eq!(system.broker_addr.as_deref(), Some("h:1"));
    let names: Vec<_> = system.topic_list.into_iter().collect();
    assert_eq!(names, ["broker-a", "broker-b", "c", "c2"]);
}

#[test]
fn a_topic_that_is_missing_from_a_registration_goes_when_that_is_wanted() {
    let mut table = RouteTable::new(TableLimits { delete_missing_topics: true, ..LIMITS });
    register(&mut table, registration(0, "h:1", &["a", "b", "c"]));
    register(&mut table, registration(0, "h:1", &["d"]));
    assert_eq!(topics(&table), ["a", "b", "c", "d"], "one topic alone is an addition");
    register(&mut table, Registration { is_part: true, ..registration(0, "h:1", &["e", "f"]) });
    assert_eq!(topics(&table), ["a", "b", "c", "d", "e", "f"], "a part says nothing of the rest");
    register(&mut table, registration(0, "h:1", &["a", "d"]));
    assert_eq!(topics(&table), ["a", "d"]);
}

#[test]
fn a_topic_is_added_on_known_brokers_or_not_at_all() {
    let mut table = table();
    register(&mut table, master());
    let queue = |broker: &str, queues| QueueData {
        broker_name: broker.into(),
        perm: 6,
        read_queue_nums: queues,
        topic_sys_flag: 3,
        write_queue_nums: queues,
    };
    let added = name("added");
    let refused = table.add_topic(&added, &[queue("broker-a", 4), queue("unknown", 4)]);
    assert_eq!(refused, Err(AddTopicError::UnknownBroker("unknown".into())));
    assert_eq!(
        table.add_topic(&added, &[queue("broker-a", -1)]),
        Err(AddTopicError::Queues { queues: -1 })
    );
    table.add_topic(&added, &[]).unwrap();
    assert!(table.route("added").is_none());
    table.add_topic(&added, &[queue("broker-a", 4)]).unwrap();
    assert_eq!(route(&table, "added", &VIEW).unwrap().queue_datas, [queue("broker-a", 4)]);
    assert!(table.unit_topics().topic_list.contains("added"));
    assert!(table.unit_sub_topics().topic_list.contains("added"));
    assert!(table.unit_sub_without_unit_topics().topic_list.is_empty());
}

#[test]
fn limits_hold_and_what_does_not_fit_is_left_out_with_a_reason() {
    let mut table = RouteTable::new(TableLimits { brokers_max: 1, topics_max: 2, ..LIMITS });
    let mut large = registration(0, "h:1", &["a", "b", "c", "d"]);
    large.topics.topic_config_table.get_mut("a").unwrap().read_queue_nums = i32::MAX;
    let registered = register(&mut table, large);
    assert_eq!(registered.refused_topics, 2);
    assert!(registered.first_refusal.unwrap().contains("queues"));
    assert_eq!(topics(&table), ["b", "c"]);
    register(&mut table, registration(0, "h:1", &["b", "c"]));
    let refused = table.register(registration(1, "h:2", &[]), Instant::now()).unwrap_err();
    assert_eq!(refused, RegistrationError::TooManyBrokers { limit: 1 });
    assert!(table.add_topic(&name("e"), &[]).is_err());

    let mut table = super::tests::table();
    let odd = registration(0, "h:1", &["fine", "../etc", "a b", "weir.svc"]);
    let registered = register(&mut table, odd);
    assert_eq!(registered.refused_topics, 2);
    assert_eq!(topics(&table), ["fine", "weir.svc"], "a broker's topic may have its dots");
}
