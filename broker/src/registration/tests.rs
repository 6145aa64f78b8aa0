use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::{Command, response};
use weirmq_remoting::frame::{Split, split};
use weirmq_store::SimulatedDisk;

use super::RETRY_FIRST;
use crate::BrokerConfig;
use crate::run::{Listeners, run_on};

/// A broker that registers at this NameServer, until the token is cancelled.
async fn broker(name_server: &TcpListener) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig { data_dir: folder.path().into(), ..BrokerConfig::default() };
    config.name_servers = vec![name_server.local_addr().unwrap().to_string()];
    config.store.segment_bytes = 64 << 20;
    config.store.free_bytes_min = 1;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = tokio::spawn(async move {
        let (disk, admin) = (Arc::new(SimulatedDisk::new()), weirmq_admin::Admin::default());
        run_on(disk, config, Listeners { main, vip: None, replication: None }, admin, stop)
            .await
            .unwrap();
        drop(folder);
    });
    (shutdown, running)
}

/// Answers the next request with success and `body`.
async fn answer(peer: &mut TcpStream, body: impl Fn(&Command<'_>) -> Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Ok(Split::Frame(frame, _)) = split(&bytes, usize::MAX) {
            let command = Command::decode(&frame).unwrap();
            let mut out = Vec::new();
            response(&mut out, &command.head, ResponseCode::Success, None).finish(&body(&command));
            peer.write_all(&out).await.unwrap();
            return;
        }
        assert!(peer.read_buf(&mut bytes).await.unwrap() > 0, "the broker hung up");
    }
}

#[tokio::test]
async fn a_name_server_that_answers_and_closes_is_called_again_after_longer_and_longer_pauses() {
    let name_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (shutdown, running) = broker(&name_server).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        let (mut peer, _) = name_server.accept().await.unwrap();
        calls.push(Instant::now());
        answer(&mut peer, |_| Vec::new()).await;
    }
    let pauses: Vec<Duration> = calls.windows(2).map(|two| two[1] - two[0]).collect();
    for (pause, at_least) in pauses.iter().zip([1, 2, 4]) {
        // A timer may be a millisecond early.
        assert!(*pause + Duration::from_millis(5) > at_least * RETRY_FIRST, "{pauses:?}");
    }
    shutdown.cancel();
    running.await.unwrap();
}
