use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weirmq_remoting::body::{Body as _, RegisterBrokerBody, TopicConfig};
use weirmq_remoting::command::{Command, HeaderWriter, SerializeType, response};
use weirmq_remoting::frame::{Split, split};
use weirmq_remoting::header::{CreateTopicHeader, Header as _};
use weirmq_remoting::net::{NoRequests, connect};
use weirmq_remoting::{RequestCode, ResponseCode};
use weirmq_store::SimulatedDisk;

use super::{NameServer, RETRY_FIRST, RETRY_MAX, longer};
use crate::BrokerConfig;
use crate::config::KubernetesSection;
use crate::configuration::Configuration;
use crate::metrics::Metrics;
use crate::run::{Listeners, open, run_on};

const PATIENCE: Duration = Duration::from_secs(30);

/// A broker that registers at a NameServer, until the token is cancelled.
struct Running {
    address: String,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

fn config(name_server: &TcpListener, data: &Path) -> BrokerConfig {
    let mut config = BrokerConfig { data_dir: data.into(), ..BrokerConfig::default() };
    config.name_servers = vec![name_server.local_addr().unwrap().to_string()];
    config.store.segment_bytes = 64 << 20;
    config.store.free_bytes_min = 1;
    config
}

async fn broker(name_server: &TcpListener) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let config = config(name_server, folder.path());
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = main.local_addr().unwrap().to_string();
    let ended = tokio::spawn(async move {
        let (disk, admin) = (Arc::new(SimulatedDisk::new()), weirmq_admin::Admin::default());
        run_on(
            disk,
            Configuration::new(config).unwrap(),
            Listeners { main, vip: None, replication: None },
            admin,
            stop,
        )
        .await
        .unwrap();
        drop(folder);
    });
    Running { address, shutdown, ended }
}

/// What a registration says: its topics, and whether they are all; and in which epoch the broker is what it is.
struct Registration {
    topics: BTreeMap<String, TopicConfig>,
    epoch: i64,
    is_part: bool,
}

/// Answers the questions for `settings` until a registration comes, and that.
async fn answer(peer: &mut TcpStream, settings: &str) -> Registration {
    let mut bytes = Vec::new();
    loop {
        if let Ok(Split::Frame(frame, length)) = split(&bytes, usize::MAX) {
            let command = Command::decode(&frame).unwrap();
            let mut out = Vec::new();
            let is_question = command.head.code == RequestCode::GetNameServerConfig.number();
            let body = if is_question { settings.as_bytes() } else { b"" };
            response(&mut out, &command.head, ResponseCode::Success, None).finish(body);
            peer.write_all(&out).await.unwrap();
            if is_question {
                bytes.drain(..length);
                continue;
            }
            assert_eq!(command.head.code, RequestCode::RegisterBroker.number());
            let is_part = command.ext.get("isPart").is_some_and(|part| part.to_cow() == "true");
            let body = RegisterBrokerBody::decode(command.body).unwrap();
            let table = body.topic_config_serialize_wrapper;
            let (topics, epoch) = (table.topic_config_table, table.data_version.state_version);
            return Registration { topics, epoch, is_part };
        }
        assert!(peer.read_buf(&mut bytes).await.unwrap() > 0, "the broker hung up");
    }
}

#[tokio::test]
async fn a_name_server_that_answers_and_closes_is_called_again_after_longer_and_longer_pauses() {
    let name_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = broker(&name_server).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        let (mut peer, _) = name_server.accept().await.unwrap();
        calls.push(Instant::now());
        answer(&mut peer, "").await;
    }
    let pauses: Vec<Duration> = calls.windows(2).map(|two| two[1] - two[0]).collect();
    for (pause, at_least) in pauses.iter().zip([1, 2, 4]) {
        // A timer may be a millisecond early.
        assert!(*pause + Duration::from_millis(5) > at_least * RETRY_FIRST, "{pauses:?}");
    }
    running.shutdown.cancel();
    running.ended.await.unwrap();
}

#[test]
fn a_name_server_that_cannot_be_reached_is_tried_each_second() {
    let after = |is_reached| (0..9).fold(RETRY_FIRST, |pause, _| longer(pause, is_reached));
    assert_eq!(after(false), Duration::from_secs(1));
    assert_eq!(after(true), RETRY_MAX);
    assert_eq!(longer(RETRY_MAX, false), Duration::from_secs(1));
}

async fn create_topic(address: String, name: String) {
    let header = CreateTopicHeader {
        topic: name.as_str().into(),
        default_topic: None,
        read_queue_nums: 1,
        write_queue_nums: 1,
        perm: 6,
        topic_filter_type: None,
        topic_sys_flag: None,
        order: None,
        attributes: None,
        force: None,
    };
    let client = connect(&address, PATIENCE, Default::default(), |_| NoRequests).await.unwrap();
    let code = RequestCode::UpdateAndCreateTopic.number();
    let fields = |out: &mut HeaderWriter<'_>| header.encode(out);
    let created = client.call(SerializeType::Json, code, fields, b"", PATIENCE).await.unwrap();
    assert_eq!(created.command().unwrap().head.code, ResponseCode::Success.number());
}

#[tokio::test]
async fn who_would_delete_what_is_left_out_gets_the_whole_table() {
    for (settings, gets_parts) in [
        // Apache's from 5.1 on, with the option and without.
        ("kvConfigPath=/x\ndeleteTopicWithBrokerRegistration=true\n", false),
        ("kvConfigPath=/x\ndeleteTopicWithBrokerRegistration=false\n", true),
        // Apache's 4.9.
        ("kvConfigPath=/x\n", true),
        // Ours.
        ("deleteTopicWithBrokerRegistration=true\nregistrationPartsEnable=true\n", true),
        // Somebody who does not say.
        ("", false),
    ] {
        let name_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let running = broker(&name_server).await;
        let (mut peer, _) = name_server.accept().await.unwrap();
        let first = answer(&mut peer, settings).await;
        assert!(!first.is_part && first.topics.len() > 1, "{settings}");
        for name in ["one", "two"] {
            let created = tokio::spawn(create_topic(running.address.clone(), name.to_owned()));
            let news = answer(&mut peer, settings).await;
            created.await.unwrap();
            assert!(news.topics.contains_key(name), "{settings}");
            assert_eq!(news.is_part, gets_parts, "{settings}");
            assert_eq!(news.topics.len() > first.topics.len(), !gets_parts, "{settings}");
        }
        drop(peer);
        running.shutdown.cancel();
        running.ended.await.unwrap();
    }
}

async fn change(address: String, settings: String) {
    let client = connect(&address, PATIENCE, Default::default(), |_| NoRequests).await.unwrap();
    let code = RequestCode::UpdateBrokerConfig.number();
    let changed = client
        .call(SerializeType::Json, code, |_| {}, settings.as_bytes(), PATIENCE)
        .await
        .unwrap();
    assert_eq!(changed.command().unwrap().head.code, ResponseCode::Success.number());
}

/// The code of the next request.
async fn next_code(peer: &mut TcpStream) -> i32 {
    let mut bytes = Vec::new();
    loop {
        if let Ok(Split::Frame(frame, _)) = split(&bytes, usize::MAX) {
            return Command::decode(&frame).unwrap().head.code;
        }
        assert!(peer.read_buf(&mut bytes).await.unwrap() > 0, "the broker hung up");
    }
}

#[tokio::test]
async fn other_name_servers_take_the_place_of_those_before() {
    let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let new = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = broker(&old).await;
    let (mut peer, _) = old.accept().await.unwrap();
    answer(&mut peer, "").await;
    let other = new.local_addr().unwrap().to_string();
    let asked = tokio::spawn(change(running.address.clone(), format!("namesrvAddr={other}\n")));
    let (mut next, _) = new.accept().await.unwrap();
    assert!(answer(&mut next, "").await.topics.len() > 1);
    asked.await.unwrap();
    assert_eq!(next_code(&mut peer).await, RequestCode::UnregisterBroker.number());
    running.shutdown.cancel();
    drop((peer, next));
    running.ended.await.unwrap();
}

#[tokio::test]
async fn an_address_that_the_next_master_has_is_left_without_a_word() {
    let name_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = name_server.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&name_server, folder.path());
    let section = KubernetesSection {
        group: "g".to_owned(),
        namespace: None,
        master_service: None,
        master_address: Some("master:10911".to_owned()),
    };
    config.replication.kubernetes = Some(section);
    let admin = weirmq_admin::Admin::default();
    let metrics = Metrics::new(&config, &admin);
    let disk = Arc::new(SimulatedDisk::new());
    let (broker, _replica) =
        open(disk, Configuration::new(config).unwrap(), address, admin, metrics).unwrap();
    let address = address.to_string();
    let mut peer = NameServer::new(&broker, &address);
    let registers = async || {
        let (mut stream, _) = name_server.accept().await.unwrap();
        let registration = answer(&mut stream, "").await;
        (registration.epoch, stream)
    };
    // The group has no epoch as far as this broker knows by now.
    let (told, (epoch, mut first)) = tokio::join!(peer.tell((0, 1)), registers());
    told.unwrap();
    assert_eq!(epoch, 1);
    // It is a slave now. What would name the address would take it from whoever registered it since.
    let moved = async { tokio::join!(peer.tell((2, 2)), registers()) };
    let (told, _second) = tokio::time::timeout(PATIENCE, moved).await.expect("a new connection");
    told.unwrap();
    let mut rest = Vec::new();
    assert_eq!(first.read_buf(&mut rest).await.unwrap(), 0, "it said {rest:?}");
}

/// A NameServer that was cut off would hear it after what the broker tells it on the next connection.
#[tokio::test]
async fn what_a_name_server_did_not_answer_does_not_come_late() {
    let name_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = name_server.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&name_server, folder.path());
    let admin = weirmq_admin::Admin::default();
    let metrics = Metrics::new(&config, &admin);
    let disk = Arc::new(SimulatedDisk::new());
    let (broker, _) =
        open(disk, Configuration::new(config).unwrap(), address, admin, metrics).unwrap();
    let address = address.to_string();
    let mut peer = NameServer::new(&broker, &address);
    let (told, mut stream) = tokio::join!(peer.tell((0, 0)), async {
        let (mut stream, _) = name_server.accept().await.unwrap();
        answer(&mut stream, "").await;
        stream
    });
    told.unwrap();
    // Nobody answers any more, for as long as a goodbye and a call wait.
    let reason = peer.tell((2, 0)).await.unwrap_err();
    assert!(reason.contains("no answer"), "{reason}");
    peer.not_registered(reason);
    let ended = stream.read_to_end(&mut Vec::new()).await.map_err(|error| error.kind());
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
}
