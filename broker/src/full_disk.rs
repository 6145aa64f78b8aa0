//! A broker on a disk with less free space than has to stay.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weirmq_remoting::command::Text;
use weirmq_remoting::header::{Header as _, QueryConsumerOffsetHeader, UpdateConsumerOffsetHeader};
use weirmq_remoting::net::{Connection, NoRequests, OwnedCommand, connect};
use weirmq_remoting::{RequestCode, ResponseCode};
use weirmq_store::SimulatedDisk;

use crate::BrokerConfig;
use crate::busy_disk::{BODY, PATIENCE, call, code, offset, send};
use crate::configuration::Configuration;
use crate::run::{BrokerError, Listeners, run_on};

const FLOOR: u64 = 8 << 20;

pub(crate) struct Running {
    pub(crate) connection: Connection,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<Result<(), BrokerError>>,
}

impl Running {
    async fn start(disk: &SimulatedDisk, folder: &tempfile::TempDir) -> Self {
        Self::start_with(disk, folder, |_| {}).await
    }

    pub(crate) async fn start_with(
        disk: &SimulatedDisk,
        folder: &tempfile::TempDir,
        change: impl FnOnce(&mut BrokerConfig),
    ) -> Self {
        let mut config = BrokerConfig { data_dir: folder.path().into(), ..BrokerConfig::default() };
        config.store.segment_bytes = 1 << 20;
        config.store.free_bytes_min = FLOOR;
        config.limits.message_bytes_max = BODY.len();
        config.store.retention_hours = 0;
        // Only who asks, and a disk that is short, has anything deleted.
        config.store.retention_at_hours = Vec::new();
        change(&mut config);
        let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = main.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let ended = tokio::spawn(run_on(
            Arc::new(disk.clone()),
            Configuration::new(config).unwrap(),
            Listeners { main, vip: None, replication: None },
            weirmq_admin::Admin::default(),
            shutdown.clone(),
        ));
        let connection = connect(&address, PATIENCE, Default::default(), |_| NoRequests).await;
        Self { connection: connection.unwrap(), shutdown, ended }
    }

    pub(crate) async fn send(&self) -> OwnedCommand {
        send(&self.connection).await
    }

    /// Commits an offset of group `g` in the topic of [`send`].
    async fn commit(&self, commit_offset: i64) -> OwnedCommand {
        let (consumer_group, topic) = (Text::from("g"), Text::from("t"));
        let header =
            UpdateConsumerOffsetHeader { consumer_group, topic, queue_id: 0, commit_offset };
        let code = RequestCode::UpdateConsumerOffset;
        call(&self.connection, code, |out| header.encode(out), b"").await
    }

    async fn committed(&self) -> OwnedCommand {
        let header = QueryConsumerOffsetHeader {
            consumer_group: Text::from("g"),
            topic: Text::from("t"),
            queue_id: 0,
            set_zero_if_not_found: None,
        };
        let code = RequestCode::QueryConsumerOffset;
        call(&self.connection, code, |out| header.encode(out), b"").await
    }

    async fn clean(&self) {
        call(&self.connection, RequestCode::DeleteExpiredCommitLog, |_| {}, b"").await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.ended.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_is_full_before_the_first_image_is_freed_by_who_asks() {
    let (disk, folder) = (SimulatedDisk::new(), tempfile::tempdir().unwrap());
    let running = Running::start(&disk, &folder).await;
    let (success, refused) = (ResponseCode::Success, ResponseCode::ServiceNotAvailable);
    for _ in 0..60 {
        assert_eq!(code(&running.send().await), success.number());
    }
    disk.limit_space(Some(FLOOR - 1));
    let freed = async {
        let mut was_refused = false;
        loop {
            running.clean().await;
            let told = code(&running.send().await);
            assert!(told == success.number() || told == refused.number(), "{told}");
            was_refused |= told == refused.number();
            if was_refused && told == success.number() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("it stays full for ever");
    running.stop().await;
}

#[tokio::test]
async fn a_directory_of_apaches_on_a_full_disk_is_opened_and_takes_no_messages() {
    let (disk, folder) = (SimulatedDisk::new(), tempfile::tempdir().unwrap());
    let config = folder.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let topics = br#"{"topicConfigTable":{"t":{"topicName":"t"}}}"#;
    std::fs::write(config.join("topics.json"), topics).unwrap();
    disk.limit_space(Some(FLOOR - 1));
    let running = Running::start(&disk, &folder).await;
    let told = running.send().await;
    assert_eq!(code(&told), ResponseCode::ServiceNotAvailable.number());
    let remark = told.command().unwrap().remark_text();
    assert!(remark.contains("is full") && remark.contains("writes stop below 8388608"), "{remark}");
    running.stop().await;
}

#[tokio::test]
async fn what_is_committed_on_a_full_disk_outlives_a_stop() {
    // More than is sent until the broker looks at the disk again.
    const LARGE_FLOOR: u64 = 256 << 20;
    let floor = |config: &mut BrokerConfig| config.store.free_bytes_min = LARGE_FLOOR;
    let (disk, folder) = (SimulatedDisk::new(), tempfile::tempdir().unwrap());
    let running = Running::start_with(&disk, &folder, floor).await;
    let (success, refused) = (ResponseCode::Success, ResponseCode::ServiceNotAvailable);
    assert_eq!(code(&running.send().await), success.number());
    assert_eq!(code(&running.commit(0).await), success.number());
    disk.limit_space(Some(LARGE_FLOOR - 1));
    // On a busy machine the disk may not keep up, or an image may be under way, before it is full.
    let is_full = async { while code(&running.send().await) != refused.number() {} };
    tokio::time::timeout(PATIENCE, is_full).await.expect("it goes on taking messages");
    let committed = async {
        loop {
            let told = code(&running.commit(1).await);
            if told != ResponseCode::SystemBusy.number() {
                return told;
            }
        }
    };
    let told = tokio::time::timeout(PATIENCE, committed).await.expect("it stays busy");
    assert_eq!(told, refused.number(), "not on the disk yet");
    running.stop().await;

    let running = Running::start_with(&disk, &folder, floor).await;
    assert_eq!(offset(&running.committed().await), "1");
    running.stop().await;
}
