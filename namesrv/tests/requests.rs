//! A name server on real sockets, asked by the client side of the same protocol crate, and with
//! frames that Apache's own classes wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weirmq_admin::Admin;
use weirmq_namesrv::{Listener, NameServerConfig, NameServerError, run};
use weirmq_remoting::body::{
    Body, ClusterInfo, DataVersion, GetBrokerMemberGroupResponseBody, KVTable, QueueData,
    RegisterBrokerBody, TopicConfig, TopicList, TopicRouteData,
};
use weirmq_remoting::command::{HeaderWriter, SerializeType, Text};
use weirmq_remoting::net::{Connection, Limits, NoRequests, connect};
use weirmq_remoting::{RequestCode, ResponseCode};

const TIMEOUT: Duration = Duration::from_secs(10);

struct Server {
    addresses: Vec<String>,
    admin: Admin,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), NameServerError>>,
}

impl Server {
    async fn start(config: NameServerConfig, names: &[&str]) -> Self {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for name in names {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
            listeners.push(Listener { name: (*name).to_owned(), listener });
        }
        let admin = Admin::new();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(config, listeners, admin.clone(), shutdown.clone()));
        tokio::time::timeout(TIMEOUT, admin.wait_until_ready()).await.unwrap();
        Self { addresses, admin, shutdown, task }
    }

    async fn default() -> Self {
        Self::start(NameServerConfig::default(), &["default"]).await
    }

    async fn client(&self, listener: usize) -> Client {
        let address = &self.addresses[listener];
        let connection =
            connect(address, TIMEOUT, Limits::default(), |_| NoRequests).await.unwrap();
        Client { connection, serialize: SerializeType::Json }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

struct Client {
    connection: Connection,
    serialize: SerializeType,
}

struct Answer {
    code: i32,
    remark: String,
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Client {
    async fn ask(&self, code: RequestCode, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let write = |writer: &mut HeaderWriter<'_>| {
            fields.iter().for_each(|(key, value)| writer.text(key, Text::from(*value)));
        };
        let answer = self
            .connection
            .call(self.serialize, code.number(), write, body, TIMEOUT)
            .await
            .unwrap();
        let command = answer.command().unwrap();
        let fields = command.ext.iter();
        Answer {
            code: command.head.code,
            remark: command.remark_text(),
            fields: fields
                .map(|(key, value)| (key.to_owned(), value.to_cow().into_owned()))
                .collect(),
            body: command.body.to_vec(),
        }
    }

    async fn register(&self, id: &str, address: &str, body: &RegisterBrokerBody) -> Answer {
        let fields = [
            ("brokerName", "broker-a"),
            ("brokerAddr", address),
            ("clusterName", "DefaultCluster"),
            ("haServerAddr", "10.0.0.1:10912"),
            ("brokerId", id),
            ("heartbeatTimeoutMillis", ""),
            ("enableActingMaster", "false"),
        ];
        self.ask(RequestCode::RegisterBroker, &fields, &body.encode()).await.succeeded()
    }

    async fn route(&self, topic: &str) -> Option<TopicRouteData> {
        let answer = self.ask(RequestCode::GetRouteInfoByTopic, &[("topic", topic)], b"").await;
        if answer.code == ResponseCode::TopicNotExist.number() {
            return None;
        }
        Some(answer.succeeded().read())
    }

    async fn topics(&self, code: RequestCode, fields: &[(&str, &str)]) -> Vec<String> {
        let list: TopicList = self.ask(code, fields, b"").await.succeeded().read();
        list.topic_list.into_iter().collect()
    }
}

impl Answer {
    fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.remark);
        self
    }

    fn read<T: Body>(&self) -> T {
        T::decode(&self.body).unwrap()
    }

    #[track_caller]
    fn failed(&self, code: ResponseCode, remark: &str) {
        assert_eq!(self.code, code.number(), "{}", self.remark);
        assert!(self.remark.contains(remark), "{}", self.remark);
    }
}

fn topics(counter: i64, names: &[&str]) -> RegisterBrokerBody {
    let mut body = RegisterBrokerBody::default();
    body.topic_config_serialize_wrapper.data_version =
        DataVersion { counter, state_version: 0, timestamp: 1 };
    for name in names {
        let topic = TopicConfig { topic_name: (*name).to_owned(), ..TopicConfig::default() };
        body.topic_config_serialize_wrapper.topic_config_table.insert((*name).to_owned(), topic);
    }
    body
}

async fn eventually<T, F: Future<Output = Option<T>>>(mut check: impl FnMut() -> F) -> T {
    let wait = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait).await.expect("happens in time")
}

#[tokio::test]
async fn a_broker_registers_is_found_and_goes_with_its_connection() {
    let server = Server::default().await;
    for serialize in [SerializeType::Json, SerializeType::Binary] {
        let broker = Client { serialize, ..server.client(0).await };
        let client = Client { serialize, ..server.client(0).await };
        assert!(client.route("TopicA").await.is_none());
        let answer =
            broker.register("0", "10.0.0.1:10911", &topics(1, &["TopicA", "TBW102"])).await;
        assert!(answer.fields.is_empty() && answer.body.is_empty());
        let route = client.route("TopicA").await.unwrap();
        assert_eq!(route.broker_datas[0].broker_addrs[&0], "10.0.0.1:10911");
        assert_eq!(route.queue_datas[0].read_queue_nums, 16);
        assert!(client.route("TBW102").await.is_some());

        let slave = server.client(0).await;
        let answer = slave.register("1", "10.0.0.2:10911", &topics(1, &[])).await;
        assert_eq!(answer.fields["masterAddr"], "10.0.0.1:10911");
        assert_eq!(answer.fields["haServerAddr"], "10.0.0.1:10912");
        let info: ClusterInfo =
            client.ask(RequestCode::GetBrokerClusterInfo, &[], b"").await.succeeded().read();
        assert!(info.cluster_addr_table["DefaultCluster"].contains("broker-a"));
        assert_eq!(info.broker_addr_table["broker-a"].broker_addrs.len(), 2);
        let group = [("clusterName", "DefaultCluster"), ("brokerName", "broker-a")];
        let group = client.ask(RequestCode::GetBrokerMemberGroup, &group, b"").await.succeeded();
        let group: GetBrokerMemberGroupResponseBody = group.read();
        assert_eq!(group.broker_member_group.unwrap().broker_addrs[&1], "10.0.0.2:10911");

        slave.connection.close();
        broker.connection.close();
        eventually(async || client.route("TopicA").await.is_none().then_some(())).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_missing_topic_is_answered_with_apaches_words_and_help() {
    let server = Server::default().await;
    let client = server.client(0).await;
    let answer = client.ask(RequestCode::GetRouteInfoByTopic, &[("topic", "../\"x")], b"").await;
    let words = "No topic route info in name server for the topic: ../\"x";
    answer.failed(ResponseCode::TopicNotExist, words);
    answer.failed(ResponseCode::TopicNotExist, "\nNo registered broker has it: create the topic");
    let answer = client.ask(RequestCode::GetRouteInfoByTopic, &[], b"").await;
    answer.failed(ResponseCode::SystemError, "the custom field <topic> is null");
    let answer = client.ask(RequestCode::SendMessageV2, &[], b"").await;
    answer.failed(ResponseCode::RequestCodeNotSupported, " request type 310 not supported");
    server.stop().await;
}

#[tokio::test]
async fn old_clients_get_bare_keys_and_new_ones_standard_json() {
    let server = Server::default().await;
    let broker = server.client(0).await;
    broker.register("0", "10.0.0.1:10911", &topics(1, &["TopicA", "TopicB"])).await;
    for (version, field, key) in [
        (400, "", "{0:\"10.0.0.1:10911\"}"),
        (401, "", "{\"0\":\"10.0.0.1:10911\"}"),
        (0, ",\"acceptStandardJsonOnly\":true", "{\"0\":\"10.0.0.1:10911\"}"),
    ] {
        let header = format!(
            r#"{{"code":105,"version":{version},"opaque":7,"flag":0,"extFields":{{"topic":"TopicA"{field}}}}}"#
        );
        let mut frame = (4 + header.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
        frame.extend_from_slice(header.as_bytes());
        let answer = raw(&server, &frame).await;
        assert!(answer.contains(&format!("\"brokerAddrs\":{key}")), "{answer}");
    }
    server.stop().await;
}

/// Sends bytes on a connection of their own and reads one frame.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.addresses[0]).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let length = tokio::time::timeout(TIMEOUT, stream.read_u32()).await.unwrap().unwrap();
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.unwrap();
    String::from_utf8_lossy(&frame).into_owned()
}

/// The frames were written by Apache 5.5.0's classes; see libs/remoting/tests/golden/index.json.
#[tokio::test]
async fn apaches_own_frames_are_served() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../libs/remoting/tests/golden/frames/");
    let frame = |name: &str| std::fs::read(format!("{golden}{name}.bin")).unwrap();
    for form in ["json", "rocketmq"] {
        for register in ["register_broker", "register_broker_compressed"] {
            let server = Server::default().await;
            let mut broker = TcpStream::connect(&server.addresses[0]).await.unwrap();
            let mut register = frame(&format!("{register}.{form}"));
            broker.write_all(&register).await.unwrap();
            let client = server.client(0).await;
            let route = eventually(|| client.route("TopicA")).await;
            assert_eq!(route.queue_datas[0].write_queue_nums, 8);
            let asked = raw(&server, &frame(&format!("get_route.{form}"))).await;
            assert!(asked.contains("queueDatas"), "{asked}");
            let versions = raw(&server, &frame(&format!("query_data_version.{form}"))).await;
            assert!(versions.contains("changed"), "{versions}");

            // One flipped bit in the body is noticed by its sum.
            *register.last_mut().unwrap() ^= 1;
            let refused = raw(&server, &register).await;
            assert!(refused.contains("crc32 not match"), "{refused}");
            server.stop().await;
        }
    }
}

#[tokio::test]
async fn each_listener_answers_its_own_addresses() {
    let server = Server::start(NameServerConfig::default(), &["default", "external"]).await;
    let broker = server.client(0).await;
    let mut body = topics(1, &["TopicA", "TopicB"]);
    body.listener_addresses.insert("external".into(), "example.org:31001".into());
    broker.register("0", "10.0.0.1:10911", &body).await;
    for (listener, address) in [(0, "10.0.0.1:10911"), (1, "example.org:31001")] {
        let client = server.client(listener).await;
        let route = client.route("TopicA").await.unwrap();
        assert_eq!(route.broker_datas[0].broker_addrs[&0], address);
        let info: ClusterInfo =
            client.ask(RequestCode::GetBrokerClusterInfo, &[], b"").await.succeeded().read();
        assert_eq!(info.broker_addr_table["broker-a"].broker_addrs[&0], address);
    }
    server.stop().await;
}

#[tokio::test]
async fn versions_heartbeats_and_goodbyes() {
    let server = Server::default().await;
    let broker = server.client(0).await;
    let identity = [
        ("brokerName", "broker-a"),
        ("brokerAddr", "10.0.0.1:10911"),
        ("clusterName", "DefaultCluster"),
        ("brokerId", "0"),
    ];
    let version = |counter| DataVersion { counter, state_version: 0, timestamp: 1 }.encode();
    let answer =
        broker.ask(RequestCode::QueryDataVersion, &identity, &version(1)).await.succeeded();
    assert_eq!((answer.fields["changed"].as_str(), answer.body.len()), ("true", 0));
    broker.register("0", "10.0.0.1:10911", &topics(1, &["TopicA", "TopicB"])).await;
    for (counter, changed) in [(1, "false"), (2, "true")] {
        let answer = broker
            .ask(RequestCode::QueryDataVersion, &identity, &version(counter))
            .await
            .succeeded();
        assert_eq!((answer.fields["changed"].as_str(), answer.body), (changed, version(1)));
    }
    broker.ask(RequestCode::BrokerHeartbeat, &identity, b"").await.succeeded();
    let later = server.client(0).await;
    later.register("0", "10.0.0.1:10911", &topics(1, &["TopicA", "TopicB"])).await;
    broker.ask(RequestCode::UnregisterBroker, &identity, b"").await.succeeded();
    assert!(later.route("TopicA").await.is_some(), "what was said on the older connection is late");
    later.ask(RequestCode::UnregisterBroker, &identity, b"").await.succeeded();
    assert!(later.route("TopicA").await.is_none());
    broker.ask(RequestCode::BrokerHeartbeat, &identity, b"").await.succeeded();
    server.stop().await;
}

#[tokio::test]
async fn a_silent_broker_is_forgotten_and_its_connection_closed() {
    let config = NameServerConfig {
        default_heartbeat_timeout_ms: 200,
        scan_interval_ms: 10,
        ..NameServerConfig::default()
    };
    let server = Server::start(config, &["default"]).await;
    let (broker, client) = (server.client(0).await, server.client(0).await);
    broker.register("0", "10.0.0.1:10911", &topics(1, &["TopicA", "TopicB"])).await;
    assert!(client.route("TopicA").await.is_some());
    eventually(async || client.route("TopicA").await.is_none().then_some(())).await;
    eventually(async || broker.connection.is_closed().then_some(())).await;
    assert!(server.admin.encode_metrics().contains("weirmq_namesrv_brokers_expired_total 1"));
    server.stop().await;
}

#[tokio::test]
async fn topics_are_listed_deleted_and_added() {
    let server = Server::default().await;
    let broker = server.client(0).await;
    let mut body = topics(1, &["TopicA", "TopicB"]);
    let table = &mut body.topic_config_serialize_wrapper.topic_config_table;
    table.get_mut("TopicB").unwrap().topic_sys_flag = 3;
    broker.register("0", "10.0.0.1:10911", &body).await;
    let all = RequestCode::GetAllTopicListFromNameServer;
    assert_eq!(broker.topics(all, &[]).await, ["TopicA", "TopicB"]);
    let of_cluster = RequestCode::GetTopicsByCluster;
    assert_eq!(broker.topics(of_cluster, &[("cluster", "DefaultCluster")]).await.len(), 2);
    assert!(broker.topics(of_cluster, &[("cluster", "none")]).await.is_empty());
    let system = RequestCode::GetSystemTopicListFromNameServer;
    assert_eq!(broker.topics(system, &[]).await, ["DefaultCluster", "broker-a"]);
    assert_eq!(broker.topics(RequestCode::GetUnitTopicList, &[]).await, ["TopicB"]);
    assert_eq!(broker.topics(RequestCode::GetHasUnitSubTopicList, &[]).await, ["TopicB"]);
    assert!(broker.topics(RequestCode::GetHasUnitSubUnUnitTopicList, &[]).await.is_empty());

    let delete = RequestCode::DeleteTopicInNameServer;
    let elsewhere = [("topic", "TopicA"), ("clusterName", "none")];
    broker.ask(delete, &elsewhere, b"").await.succeeded();
    assert!(broker.route("TopicA").await.is_some());
    broker.ask(delete, &[("topic", "TopicA")], b"").await.succeeded();
    assert!(broker.route("TopicA").await.is_none());

    let queue = |broker: &str| QueueData {
        broker_name: broker.into(),
        perm: 6,
        read_queue_nums: 4,
        topic_sys_flag: 0,
        write_queue_nums: 4,
    };
    let route = |broker| TopicRouteData { queue_datas: vec![queue(broker)], ..Default::default() };
    let register = RequestCode::RegisterTopicInNameServer;
    let refused = broker.ask(register, &[("topic", "New")], &route("none").encode()).await;
    refused.failed(ResponseCode::SystemError, "broker \"none\" of the topic is not registered");
    broker.ask(register, &[("topic", "New")], &route("broker-a").encode()).await.succeeded();
    assert_eq!(broker.route("New").await.unwrap().queue_datas, [queue("broker-a")]);
    let refused = broker.ask(register, &[("topic", "a/b")], &route("broker-a").encode()).await;
    refused.failed(ResponseCode::InvalidParameter, "illegal characters");

    let name = [("brokerName", "broker-a")];
    let answer = broker.ask(RequestCode::WipeWritePermissionOfBroker, &name, b"").await.succeeded();
    assert_eq!(answer.fields["wipeTopicCount"], "2");
    assert_eq!(broker.route("New").await.unwrap().queue_datas[0].perm, 4);
    let answer = broker.ask(RequestCode::AddWritePermissionOfBroker, &name, b"").await.succeeded();
    assert_eq!(answer.fields["addTopicCount"], "2");
    assert_eq!(broker.route("New").await.unwrap().queue_datas[0].perm, 6);
    server.stop().await;
}

#[tokio::test]
async fn kv_entries_outlive_a_restart_and_order_topics() {
    let directory = tempfile::tempdir().unwrap();
    let config = NameServerConfig {
        data_dir: Some(directory.path().to_owned()),
        order_messages: true,
        ..NameServerConfig::default()
    };
    let server = Server::start(config.clone(), &["default"]).await;
    let client = server.client(0).await;
    let entry = |key| [("namespace", "ORDER_TOPIC_CONFIG"), ("key", key), ("value", "broker-a:4")];
    client.ask(RequestCode::PutKvConfig, &entry("TopicA"), b"").await.succeeded();
    client.ask(RequestCode::PutKvConfig, &entry("Gone"), b"").await.succeeded();
    client.ask(RequestCode::DeleteKvConfig, &entry("Gone")[..2], b"").await.succeeded();
    let missing = client.ask(RequestCode::GetKvConfig, &entry("Gone")[..2], b"").await;
    let words = "No config item, Namespace: ORDER_TOPIC_CONFIG Key: Gone";
    missing.failed(ResponseCode::QueryNotFound, words);
    let unnamed = [("namespace", ""), ("key", "k"), ("value", "v")];
    let refused = client.ask(RequestCode::PutKvConfig, &unnamed, b"").await;
    refused.failed(ResponseCode::InvalidParameter, "namespace is 0 bytes");
    server.stop().await;

    let server = Server::start(config, &["default"]).await;
    let client = server.client(0).await;
    let found = client.ask(RequestCode::GetKvConfig, &entry("TopicA")[..2], b"").await.succeeded();
    assert_eq!(found.fields["value"], "broker-a:4");
    let list = client.ask(RequestCode::GetKvListByNamespace, &entry("")[..1], b"").await;
    assert_eq!(list.succeeded().read::<KVTable>(), KVTable::from_iter([("TopicA", "broker-a:4")]));
    let none = client.ask(RequestCode::GetKvListByNamespace, &[("namespace", "x")], b"").await;
    none.failed(ResponseCode::QueryNotFound, "No config item, Namespace: x");
    let answer = client.register("0", "10.0.0.1:10911", &topics(1, &["TopicA", "TopicB"])).await;
    assert_eq!(answer.read::<KVTable>(), KVTable::from_iter([("TopicA", "broker-a:4")]));
    let route = client.route("TopicA").await.unwrap();
    assert_eq!(route.order_topic_conf.as_deref(), Some("broker-a:4"));
    assert_eq!(client.route("TopicB").await.unwrap().order_topic_conf, None);
    server.stop().await;
}

#[tokio::test]
async fn settings_are_shown_and_not_changed() {
    let server = Server::default().await;
    let client = server.client(0).await;
    let answer = client.ask(RequestCode::GetNameServerConfig, &[], b"").await.succeeded();
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("orderMessageEnable=false\n"), "{text}");
    let change = b"orderMessageEnable=true";
    let refused = client.ask(RequestCode::UpdateNameServerConfig, &[], change).await;
    refused.failed(ResponseCode::NoPermission, "no setting of this name server can be changed");
    server.stop().await;
}

#[tokio::test]
async fn bad_registrations_are_refused_by_field_and_the_connection_lives() {
    let server = Server::default().await;
    let client = server.client(0).await;
    let good = [
        ("brokerName", "broker-a"),
        ("brokerAddr", "10.0.0.1:10911"),
        ("clusterName", "DefaultCluster"),
        ("haServerAddr", "10.0.0.1:10912"),
        ("brokerId", "0"),
        ("bodyCrc32", "0"),
        ("compressed", "false"),
    ];
    let body = topics(1, &["TopicA", "TopicB"]).encode();
    let bad = [
        ("brokerName", "../etc", ResponseCode::InvalidParameter, "broker or cluster name"),
        ("brokerName", "", ResponseCode::InvalidParameter, "blank"),
        ("brokerAddr", "nowhere", ResponseCode::InvalidParameter, "brokerAddr is \"nowhere\""),
        ("haServerAddr", "a\"b:1", ResponseCode::InvalidParameter, "haServerAddr"),
        ("clusterName", "a b", ResponseCode::InvalidParameter, "illegal characters"),
        ("brokerId", "-1", ResponseCode::InvalidParameter, "brokerId is \"-1\""),
        ("brokerId", "x", ResponseCode::SystemError, "<brokerId> is \"x\""),
        ("bodyCrc32", "1", ResponseCode::SystemError, "crc32 not match"),
        ("compressed", "true", ResponseCode::SystemError, "cannot be inflated"),
    ];
    for (field, value, code, remark) in bad {
        let mut fields = good;
        fields.iter_mut().filter(|(key, _)| *key == field).for_each(|entry| entry.1 = value);
        let answer = client.ask(RequestCode::RegisterBroker, &fields, &body).await;
        answer.failed(code, remark);
    }
    for body in [&b"{"[..], b"7", b"x\x9cgarbage", &[0xFF; 100]] {
        let answer = client.ask(RequestCode::RegisterBroker, &good, body).await;
        assert_eq!(answer.code, ResponseCode::SystemError.number(), "{}", answer.remark);
    }
    assert!(client.topics(RequestCode::GetAllTopicListFromNameServer, &[]).await.is_empty());
    client.ask(RequestCode::RegisterBroker, &good, &body).await.succeeded();
    assert!(client.route("TopicA").await.is_some());
    server.stop().await;
}

#[tokio::test]
async fn it_does_not_start_without_listeners_or_with_two_of_one_name() {
    let bind = async |name: &str| Listener {
        name: name.to_owned(),
        listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
    };
    let admin = Admin::new();
    let start = |listeners| {
        run(NameServerConfig::default(), listeners, admin.clone(), CancellationToken::new())
    };
    assert!(matches!(start(vec![]).await, Err(NameServerError::NoListener)));
    let twice = vec![bind("a").await, bind("a").await];
    assert!(matches!(start(twice).await, Err(NameServerError::DuplicateListener(_))));
    assert!(!admin.is_ready());
}

#[tokio::test]
async fn more_topics_than_a_frame_holds_are_an_error_that_can_be_read() {
    const EACH: usize = 10_000;
    let server = Server::default().await;
    let client = server.client(0).await;
    let name = |number: usize| format!("t{number:0>119}");
    for broker in 0..14 {
        let names: Vec<String> = (broker * EACH..(broker + 1) * EACH).map(name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (broker_name, cluster) = (format!("b{broker}"), format!("c{}", broker % 2));
        let fields = [
            ("brokerName", broker_name.as_str()),
            ("brokerAddr", "10.0.0.1:10911"),
            ("clusterName", cluster.as_str()),
            ("haServerAddr", "10.0.0.1:10912"),
            ("brokerId", "0"),
        ];
        let body = topics(1, &names).encode();
        client.ask(RequestCode::RegisterBroker, &fields, &body).await.succeeded();
    }
    let all = client.ask(RequestCode::GetAllTopicListFromNameServer, &[], b"").await;
    all.failed(ResponseCode::SystemError, "a frame at most 16777216; ask for less");
    // The same connection goes on, with what fits.
    let of_cluster = client.topics(RequestCode::GetTopicsByCluster, &[("cluster", "c1")]).await;
    assert_eq!(of_cluster.iter().filter(|name| name.len() == 120).count(), 7 * EACH);
    assert!(client.route(&name(1)).await.is_some());
    server.stop().await;
}
