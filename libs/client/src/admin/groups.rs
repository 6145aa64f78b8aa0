//! Consumer groups, and who is connected.

use std::collections::BTreeMap;

use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{
    Body as _, ConsumeStats, ConsumerConnection, ProducerConnection, SubscriptionGroupConfig,
    SubscriptionGroupWrapper,
};
use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{
    ConsumeStatsHeader, ConsumerGroupHeader, GroupNameHeader, GroupPageHeader, Header as _,
    ProducerGroupHeader,
};

use super::Admin;
use crate::ClientError;

impl Admin {
    /// Creates or changes a consumer group on all masters of `cluster` (code 200).
    pub async fn create_group(
        &self,
        cluster: &str,
        config: &SubscriptionGroupConfig,
    ) -> Result<(), ClientError> {
        for address in self.masters(Some(cluster)).await?.values() {
            self.create_group_on(address, config).await?;
        }
        Ok(())
    }

    /// Creates or changes a consumer group on one broker.
    pub async fn create_group_on(
        &self,
        broker_address: &str,
        config: &SubscriptionGroupConfig,
    ) -> Result<(), ClientError> {
        ResourceName::group(&config.group_name)
            .map_err(|error| ClientError::Config(error.to_string()))?;
        let mut written = config.clone();
        // Java wants attributes as changes, with a sign.
        written.attributes = config
            .attributes
            .iter()
            .map(|(key, value)| (format!("+{key}"), value.clone()))
            .collect();
        let request = RequestCode::UpdateAndCreateSubscriptionGroup;
        let body = written.encode();
        let _ = self.client.core.call(broker_address, request, |_| {}, &body).await?;
        Ok(())
    }

    /// Deletes a consumer group on all masters of `cluster` (code 207), with its offsets if
    /// `clean_offsets`. Its retry and dead-letter topics stay; delete them as topics.
    pub async fn delete_group(
        &self,
        cluster: &str,
        group: &str,
        clean_offsets: bool,
    ) -> Result<(), ClientError> {
        for address in self.masters(Some(cluster)).await?.values() {
            self.delete_group_on(address, group, clean_offsets).await?;
        }
        Ok(())
    }

    /// The same on one broker, if the group is there.
    pub async fn delete_group_on(
        &self,
        broker_address: &str,
        group: &str,
        clean_offsets: bool,
    ) -> Result<(), ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            GroupNameHeader { group_name: Text::from(group), clean_offset: Some(clean_offsets) }
                .encode(writer);
        };
        let request = RequestCode::DeleteSubscriptionGroup;
        self.client.core.call(broker_address, request, fields, b"").await?.success()?;
        Ok(())
    }

    /// The settings of all consumer groups of one broker (code 201), by name.
    pub async fn groups(
        &self,
        broker_address: &str,
    ) -> Result<BTreeMap<String, SubscriptionGroupConfig>, ClientError> {
        let mut all = BTreeMap::new();
        loop {
            let seq = i32::try_from(all.len()).unwrap_or(i32::MAX);
            let fields = |writer: &mut HeaderWriter<'_>| {
                GroupPageHeader { group_seq: Some(seq), max_group_num: Some(2000) }.encode(writer);
            };
            let request = RequestCode::GetAllSubscriptionGroupConfig;
            let reply = self.client.core.call(broker_address, request, fields, b"").await?;
            let page: SubscriptionGroupWrapper = reply.body()?;
            let known = all.len();
            all.extend(page.subscription_group_table);
            // Brokers before 5.2 send everything at once and say no total.
            let total = reply.command()?.ext.get("totalGroupNum");
            let total = total.and_then(|total| total.to_cow().parse::<usize>().ok());
            if all.len() == known || total.is_none_or(|total| all.len() >= total) {
                return Ok(all);
            }
        }
    }

    /// A consumer group's settings on one broker (code 352); brokers that create groups on demand
    /// answer with defaults for one that does not exist.
    pub async fn group_config(
        &self,
        broker_address: &str,
        group: &str,
    ) -> Result<SubscriptionGroupConfig, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| writer.text("group", Text::from(group));
        let request = RequestCode::GetSubscriptionGroupConfig;
        self.client.core.call(broker_address, request, fields, b"").await?.body()
    }

    /// The members of a consumer group (code 203), as one of its brokers sees them; `None` while
    /// nobody is online.
    ///
    /// # Errors
    /// [`ClientError::TopicNotFound`] of the group's retry topic when no member ever was online.
    pub async fn consumer_connections(
        &self,
        group: &str,
    ) -> Result<Option<ConsumerConnection>, ClientError> {
        let mut offline = None;
        for address in self.masters_of_group(group).await?.values() {
            let fields = |writer: &mut HeaderWriter<'_>| {
                ConsumerGroupHeader { consumer_group: Text::from(group) }.encode(writer);
            };
            let request = RequestCode::GetConsumerConnectionList;
            let reply = self.client.core.call(address, request, fields, b"").await;
            match reply.and_then(|reply| reply.body()) {
                Ok(connections) => return Ok(Some(connections)),
                Err(error) => offline = Some(error),
            }
        }
        match offline {
            Some(error)
                if error.response_code() != Some(Code::Known(ResponseCode::ConsumerNotOnline)) =>
            {
                Err(error)
            }
            _ => Ok(None),
        }
    }

    /// The producers of a group that are connected to a broker of `topic` (code 204); empty when
    /// there are none.
    pub async fn producer_connections(
        &self,
        group: &str,
        topic: &str,
    ) -> Result<ProducerConnection, ClientError> {
        let mut all = ProducerConnection::default();
        for address in self.masters_of_topic(topic).await?.values() {
            let fields = |writer: &mut HeaderWriter<'_>| {
                ProducerGroupHeader { producer_group: Text::from(group) }.encode(writer);
            };
            let request = RequestCode::GetProducerConnectionList;
            match self.client.core.call(address, request, fields, b"").await {
                Ok(reply) => {
                    for connection in reply.body::<ProducerConnection>()?.connection_set {
                        let id = &connection.client_id;
                        if !all.connection_set.iter().any(|known| known.client_id == *id) {
                            all.connection_set.push(connection);
                        }
                    }
                }
                // Apache's answer for a group that it does not know.
                Err(ClientError::Refused {
                    code: Code::Known(ResponseCode::SystemError), ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// How far a group is with each queue (code 208), of all masters together; `topic`: only its.
    pub async fn consume_stats(
        &self,
        group: &str,
        topic: Option<&str>,
    ) -> Result<ConsumeStats, ClientError> {
        let masters = match topic {
            Some(topic) => self.masters_of_topic(topic).await?,
            None => self.masters_of_group(group).await?,
        };
        let mut all = ConsumeStats::default();
        for address in masters.values() {
            let stats = self.consume_stats_on(address, group, topic).await?;
            all.offset_table.extend(stats.offset_table);
            all.consume_tps += stats.consume_tps;
        }
        Ok(all)
    }

    /// The same on one broker.
    pub async fn consume_stats_on(
        &self,
        broker_address: &str,
        group: &str,
        topic: Option<&str>,
    ) -> Result<ConsumeStats, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            ConsumeStatsHeader { consumer_group: Text::from(group), topic: topic.map(Text::from) }
                .encode(writer);
        };
        let request = RequestCode::GetConsumeStats;
        self.client.core.call(broker_address, request, fields, b"").await?.body()
    }

    /// The masters that serve a group: those with its retry topic.
    pub(super) async fn masters_of_group(
        &self,
        group: &str,
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let group =
            ResourceName::group(group).map_err(|error| ClientError::Config(error.to_string()))?;
        self.masters_of_topic(group.retry_topic().as_str()).await
    }
}
