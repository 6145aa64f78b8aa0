//! Telling brokers about the groups of a client, and saying goodbye.

use std::sync::Arc;

use weirmq_remoting::body::Body as _;
use weirmq_remoting::codes::RequestCode;
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{Header as _, UnregisterClientHeader};

use crate::client::Core;
use crate::join::join_all;
use crate::route::MASTER_ID;

impl Core {
    /// Tells every known broker about all groups of this client, now.
    pub(crate) async fn beat_once(&self) {
        let beat = self.groups.heartbeat(&self.client_id);
        if beat.producer_data_set.is_empty() && beat.consumer_data_set.is_empty() {
            return;
        }
        let only_masters = beat.consumer_data_set.is_empty();
        let body = beat.encode();
        let brokers = self.routes.brokers();
        let addresses = brokers.values().flatten();
        let wanted = addresses.filter(|(id, _)| !only_masters || **id == MASTER_ID);
        let body = &body;
        let calls = wanted.map(|(_, address)| async move {
            let sent = self.call(address, RequestCode::HeartBeat, |_| {}, body).await;
            if let Err(error) = sent {
                tracing::warn!(%address, %error, "heartbeat failed");
            }
        });
        join_all(calls).await;
    }

    /// Says goodbye to every known broker for one group.
    pub(crate) async fn unregister(&self, producer: Option<&str>, consumer: Option<&str>) {
        if let Some(group) = producer {
            self.groups.remove_producer(group);
        }
        if let Some(group) = consumer {
            self.groups.remove_consumer(group);
        }
        let brokers = self.routes.brokers();
        let calls =
            brokers.values().flat_map(|addresses| addresses.values()).map(|address| async move {
                let fields = |writer: &mut HeaderWriter<'_>| {
                    UnregisterClientHeader {
                        client_id: Text::from(self.client_id.as_str()),
                        producer_group: producer.map(Text::from),
                        consumer_group: consumer.map(Text::from),
                    }
                    .encode(writer);
                };
                let sent = self.call(address, RequestCode::UnregisterClient, fields, b"").await;
                if let Err(error) = sent {
                    tracing::debug!(%address, %error, "unregister failed");
                }
            });
        join_all(calls).await;
    }

    /// Beats at the interval, and when a group or a broker is new.
    pub(crate) async fn beat(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.config.heartbeat_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.groups.changed.notified() => {}
            }
            if self.shutdown.run_until_cancelled(self.beat_once()).await.is_none() {
                return;
            }
        }
    }
}
