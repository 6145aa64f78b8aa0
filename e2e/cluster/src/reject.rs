//! A member of a consumer group that wants none of its messages: they become dead letters.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::sync::mpsc;
use weirmq_client::{
    Client, ClientConfig, ConsumeFrom, ConsumeStatus, PushConsumer, PushConsumerConfig,
    ReceivedMessage,
};

/// How long it may take until so many messages came.
const PATIENCE: Duration = Duration::from_secs(60);

/// Join a consumer group, make a dead letter of each message, and end after so many
#[derive(Args)]
pub(crate) struct RejectArgs {
    /// NameServers, parted by `;`
    #[arg(long)]
    namesrv: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    group: String,
    #[arg(long)]
    count: usize,
}

pub(crate) fn run(args: RejectArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(reject(args))
}

async fn reject(args: RejectArgs) -> anyhow::Result<()> {
    let client = Client::start(ClientConfig::new(&args.namesrv))?;
    let config = PushConsumerConfig {
        group: args.group,
        subscriptions: vec![(args.topic, "*".into())],
        consume_from: ConsumeFrom::First,
        ..PushConsumerConfig::default()
    };
    // One call of the listener gets one message. It may be the last one, whose receiver is gone.
    let (note, mut given) = mpsc::channel(args.count.max(1));
    let listener = move |_: Vec<ReceivedMessage>| {
        let _ = note.try_send(());
        async { ConsumeStatus::DeadLetter }
    };
    let member = PushConsumer::start(&client, config, listener).await?;
    let all = async {
        for _ in 0..args.count {
            given.recv().await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, all).await;
    // Gives back what is under way, and commits.
    member.shutdown().await;
    client.shutdown().await;
    came.with_context(|| format!("fewer than {} messages came", args.count))
}
