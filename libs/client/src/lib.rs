//! The client of RocketMQ's remoting protocol: producers, consumers and administration.
//!
//! A [`Client`] finds the cluster through its NameServers and owns connections, routes and
//! heartbeats; everything else is made of one:
//!
//! - [`Producer`] sends; a send is a future, so concurrent sends are joined futures.
//! - [`PushConsumer`] joins a group, shares queues with the other members and calls a listener.
//! - [`PullConsumer`] reads queues that its caller names.
//! - [`Admin`] creates, lists, looks up and resets.
//!
//! ```no_run
//! use weirmq_client::*;
//! # async fn example() -> Result<(), ClientError> {
//! let client = Client::start(ClientConfig::new("127.0.0.1:9876"))?;
//! let producer = Producer::start(&client, ProducerConfig::default())?;
//! producer.send(Message::new("orders", "one pear").with_tag("fruit")).await?;
//!
//! let config = PushConsumerConfig {
//!     group: "shop".to_owned(),
//!     subscriptions: vec![("orders".to_owned(), Filter::from("fruit || bread"))],
//!     ..PushConsumerConfig::default()
//! };
//! let consumer = PushConsumer::start(&client, config, |messages| async move {
//!     println!("{} for {:?}", messages.len(), messages[0].keys);
//!     ConsumeStatus::Success
//! })
//! .await?;
//! consumer.shutdown().await;
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here panics on what a peer sent, everything that waits has a limit, and all tasks have
//! ended when [`Client::shutdown`] returns.

#![forbid(unsafe_code)]

pub mod admin;
mod allocate;
mod body_codec;
mod client;
mod config;
mod encode;
mod error;
mod heartbeat;
mod inbound;
mod join;
mod message;
mod offsets;
mod pool;
mod producer;
mod pull;
mod pull_consumer;
mod push_consumer;
mod received;
mod reply;
mod route;
mod send;
mod subscription;
mod unique_key;

pub use admin::Admin;
pub use body_codec::BodyError;
pub use client::Client;
pub use config::ClientConfig;
pub use error::ClientError;
pub use message::{Delivery, Message};
pub use producer::{Producer, ProducerConfig};
pub use pull::{PullResult, PullStatus};
pub use pull_consumer::{PullConsumer, PullOptions};
pub use push_consumer::{
    ConsumeFrom, ConsumeModel, ConsumeStatus, PushConsumer, PushConsumerConfig,
};
pub use received::{ReceivedMessage, UnreadableMessage};
pub use send::{SendResult, SendStatus};
pub use subscription::Filter;
pub use weirmq_remoting::body::MessageQueue;
