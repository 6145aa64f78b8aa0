//! A broker on a disk with less free space than has to stay.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weirmq_remoting::net::{Connection, NoRequests, OwnedCommand, connect};
use weirmq_remoting::{RequestCode, ResponseCode};
use weirmq_store::SimulatedDisk;

use crate::BrokerConfig;
use crate::busy_disk::{BODY, PATIENCE, call, code, send};
use crate::configuration::Configuration;
use crate::run::{BrokerError, Listeners, run_on};

const FLOOR: u64 = 8 << 20;

struct Running {
    connection: Connection,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<Result<(), BrokerError>>,
}

impl Running {
    async fn start(disk: &SimulatedDisk, folder: &tempfile::TempDir) -> Self {
        let mut config = BrokerConfig { data_dir: folder.path().into(), ..BrokerConfig::default() };
        config.store.segment_bytes = 1 << 20;
        config.store.free_bytes_min = FLOOR;
        config.limits.message_bytes_max = BODY.len();
        config.store.retention_hours = 0;
        // Only who asks, and a disk that is short, has anything deleted.
        config.store.retention_at_hours = Vec::new();
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

    async fn send(&self) -> OwnedCommand {
        send(&self.connection).await
    }

    async fn clean(&self) {
        call(&self.connection, RequestCode::DeleteExpiredCommitLog, |_| {}, b"").await;
    }

    async fn stop(self) {
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
