//! What administrators are told where there is more than a frame holds.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weirmq_remoting::body::{Body as _, TopicConfigSerializeWrapper};
use weirmq_remoting::command::{SerializeType, Text};
use weirmq_remoting::net::{NoRequests, OwnedCommand, connect};
use weirmq_remoting::{RequestCode, ResponseCode};
use weirmq_store::{SimulatedDisk, Store, SystemClock};

use crate::BrokerConfig;
use crate::configuration::Configuration;
use crate::run::{Listeners, run_on};
use crate::state::{State, StateRecord};
use crate::topics::{Topic, Topics};

const PATIENCE: Duration = Duration::from_secs(60);
/// With names of 120 bytes, which stand twice in each entry.
const TOPICS: usize = 50_000;

fn topic_name(number: usize) -> String {
    format!("t{number:0>119}")
}

/// A disk with a store that knows so many topics.
fn filled(config: &BrokerConfig) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let opened = Store::open(config.store_config(), Arc::new(disk.clone()), Arc::new(SystemClock));
    let store = opened.unwrap().0;
    let topics = Topics::with_system_topics(&config.cluster, &config.name, None);
    let state = State::recover(store.clone(), topics).unwrap();
    for number in 0..TOPICS {
        let topic = || StateRecord::Topic { topic: Topic::new(topic_name(number), 1) };
        state.patiently(|| state.change(|| Some(topic()))).unwrap();
    }
    store.close().unwrap();
    disk
}

#[tokio::test]
async fn a_list_that_no_frame_holds_is_refused_with_what_to_do_and_its_pages_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig { data_dir: folder.path().into(), ..BrokerConfig::default() };
    config.store.segment_bytes = 64 << 20;
    config.store.free_bytes_min = 1;
    let disk = filled(&config);
    let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = main.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let listeners = Listeners { main, vip: None, replication: None };
    let admin = weirmq_admin::Admin::default();
    let ended = tokio::spawn(run_on(
        Arc::new(disk),
        Configuration::new(config).unwrap(),
        listeners,
        admin,
        shutdown.clone(),
    ));

    let nobody = |_: &_| NoRequests;
    let connection = connect(&address, PATIENCE, Default::default(), nobody).await.unwrap();
    let all = RequestCode::GetAllTopicConfig.number();
    let ask = async |fields: &[(&str, &str)]| -> OwnedCommand {
        let write = |out: &mut weirmq_remoting::command::HeaderWriter<'_>| {
            fields.iter().for_each(|(name, value)| out.text(name, Text::from(*value)));
        };
        connection.call(SerializeType::Json, all, write, b"", PATIENCE).await.unwrap()
    };
    let refused = ask(&[]).await;
    let refused = refused.command().unwrap();
    assert_eq!(refused.head.code, ResponseCode::SystemError.number());
    let remark = refused.remark_text();
    assert!(remark.contains("a frame at most 16777216") && remark.contains("topicSeq"), "{remark}");

    // The connection goes on, and nothing is missing between the pages.
    let (mut known, mut next) = (0, 0);
    loop {
        let page = ask(&[("topicSeq", &next.to_string()), ("maxTopicNum", "20000")]).await;
        let page = page.command().unwrap();
        assert_eq!(page.head.code, ResponseCode::Success.number(), "{}", page.remark_text());
        let page = TopicConfigSerializeWrapper::decode(page.body).unwrap().topic_config_table;
        known += page.keys().filter(|name| name.len() == 120).count();
        if page.is_empty() {
            break;
        }
        next += page.len();
    }
    assert_eq!(known, TOPICS);
    shutdown.cancel();
    ended.await.unwrap().unwrap();
}
