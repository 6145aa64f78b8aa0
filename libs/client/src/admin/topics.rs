//! Topics.

use std::collections::{BTreeMap, BTreeSet};

use weirmq_remoting::ResourceName;
use weirmq_remoting::body::{
    TopicConfig, TopicConfigAndQueueMapping, TopicConfigSerializeWrapper, TopicFilterType,
    TopicList, TopicRouteData, TopicStatsTable,
};
use weirmq_remoting::codes::RequestCode;
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{
    CreateTopicHeader, DeleteTopicHeader, Header as _, TopicHeader, TopicPageHeader,
};

use super::Admin;
use crate::ClientError;
use crate::route::MASTER_ID;

impl Admin {
    /// Creates or changes a topic on all masters of `cluster` (code 17).
    pub async fn create_topic(
        &self,
        cluster: &str,
        config: &TopicConfig,
    ) -> Result<(), ClientError> {
        for address in self.masters(Some(cluster)).await?.values() {
            self.create_topic_on(address, config).await?;
        }
        Ok(())
    }

    /// Creates or changes a topic on one broker. Attributes are set, never taken away, by this.
    pub async fn create_topic_on(
        &self,
        broker_address: &str,
        config: &TopicConfig,
    ) -> Result<(), ClientError> {
        self.change_topic_on(broker_address, config, &[]).await
    }

    /// The same, and takes the attributes away that are called `without`. Apache's broker lets nobody take one
    /// away from a topic that is new.
    pub async fn change_topic_on(
        &self,
        broker_address: &str,
        config: &TopicConfig,
        without: &[&str],
    ) -> Result<(), ClientError> {
        ResourceName::topic(&config.topic_name)
            .map_err(|error| ClientError::Config(error.to_string()))?;
        let set = config.attributes.iter().map(|(key, value)| format!("+{key}={value}"));
        let changes: Vec<_> = set.chain(without.iter().map(|key| format!("-{key}"))).collect();
        let attributes = changes.join(",");
        let fields = |writer: &mut HeaderWriter<'_>| {
            let filter_type = match config.topic_filter_type {
                TopicFilterType::SingleTag => "SINGLE_TAG",
                TopicFilterType::MultiTag => "MULTI_TAG",
            };
            CreateTopicHeader {
                topic: Text::from(config.topic_name.as_str()),
                default_topic: Some(Text::from("TBW102")),
                read_queue_nums: config.read_queue_nums,
                write_queue_nums: config.write_queue_nums,
                perm: config.perm,
                topic_filter_type: Some(Text::from(filter_type)),
                topic_sys_flag: Some(config.topic_sys_flag),
                order: Some(config.order),
                attributes: Some(Text::from(attributes.as_str())).filter(|text| !text.is_empty()),
                force: None,
            }
            .encode(writer);
        };
        let request = RequestCode::UpdateAndCreateTopic;
        let _ = self.client.core.call(broker_address, request, fields, b"").await?;
        Ok(())
    }

    /// Deletes a topic on one broker (code 215), if it is there.
    pub async fn delete_topic_on(
        &self,
        broker_address: &str,
        topic: &str,
    ) -> Result<(), ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            TopicHeader { topic: Text::from(topic) }.encode(writer);
        };
        let request = RequestCode::DeleteTopicInBroker;
        self.client.core.call(broker_address, request, fields, b"").await?.success()?;
        Ok(())
    }

    /// Deletes a topic on all brokers of `cluster` (code 215), then at all NameServers (216).
    pub async fn delete_topic(&self, cluster: &str, topic: &str) -> Result<(), ClientError> {
        let core = &self.client.core;
        let fields = |writer: &mut HeaderWriter<'_>| {
            TopicHeader { topic: Text::from(topic) }.encode(writer);
        };
        for (_, id, address) in self.members(Some(cluster)).await? {
            let deleted = core.call(&address, RequestCode::DeleteTopicInBroker, fields, b"").await;
            // Slaves follow their master in this; some refuse to be told.
            match deleted {
                Err(error) if id == MASTER_ID => return Err(error),
                _ => {}
            }
        }
        self.forget_topic(cluster, topic).await
    }

    /// Has all NameServers forget where a topic is in `cluster` (code 216). Brokers that have it still register
    /// it again with their next registration.
    pub async fn forget_topic(&self, cluster: &str, topic: &str) -> Result<(), ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            DeleteTopicHeader { topic: Text::from(topic), cluster_name: Some(Text::from(cluster)) }
                .encode(writer);
        };
        self.for_all_name_servers(RequestCode::DeleteTopicInNameServer, fields, |_| Ok(())).await?;
        Ok(())
    }

    /// The names of all topics, RocketMQ's own too (code 206).
    pub async fn topics(&self) -> Result<BTreeSet<String>, ClientError> {
        let request = RequestCode::GetAllTopicListFromNameServer;
        let reply = self.client.core.call_name_server(request, |_| {}, b"").await?;
        Ok(reply.success()?.body::<TopicList>()?.topic_list)
    }

    /// Where a topic lives (code 105), as a NameServer says now.
    ///
    /// # Errors
    /// [`ClientError::TopicNotFound`].
    pub async fn route(&self, topic: &str) -> Result<TopicRouteData, ClientError> {
        let route = self.client.core.look_up(topic).await?;
        route.ok_or_else(|| ClientError::TopicNotFound { topic: topic.to_owned() })
    }

    /// Offsets and newest store time of every queue (code 202), of all masters together.
    pub async fn topic_stats(&self, topic: &str) -> Result<TopicStatsTable, ClientError> {
        let mut all = TopicStatsTable::default();
        for address in self.masters_of_topic(topic).await?.values() {
            let stats = self.topic_stats_on(address, topic).await?;
            all.offset_table.extend(stats.offset_table);
            all.topic_put_tps += stats.topic_put_tps;
        }
        Ok(all)
    }

    /// The same of the queues on one broker.
    pub async fn topic_stats_on(
        &self,
        broker_address: &str,
        topic: &str,
    ) -> Result<TopicStatsTable, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            TopicHeader { topic: Text::from(topic) }.encode(writer);
        };
        let request = RequestCode::GetTopicStatsInfo;
        self.client.core.call(broker_address, request, fields, b"").await?.body()
    }

    /// A topic's settings on one broker (code 351).
    pub async fn topic_config(
        &self,
        broker_address: &str,
        topic: &str,
    ) -> Result<TopicConfig, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            TopicHeader { topic: Text::from(topic) }.encode(writer);
        };
        let request = RequestCode::GetTopicConfig;
        let reply = self.client.core.call(broker_address, request, fields, b"").await?;
        Ok(reply.body::<TopicConfigAndQueueMapping>()?.config)
    }

    /// The settings of all topics of one broker (code 21), by name.
    pub async fn topic_configs(
        &self,
        broker_address: &str,
    ) -> Result<BTreeMap<String, TopicConfig>, ClientError> {
        let mut all = BTreeMap::new();
        loop {
            let seq = i32::try_from(all.len()).unwrap_or(i32::MAX);
            let fields = |writer: &mut HeaderWriter<'_>| {
                TopicPageHeader { topic_seq: Some(seq), max_topic_num: Some(2000) }.encode(writer);
            };
            let request = RequestCode::GetAllTopicConfig;
            let reply = self.client.core.call(broker_address, request, fields, b"").await?;
            let page: TopicConfigSerializeWrapper = reply.body()?;
            let known = all.len();
            all.extend(page.topic_config_table);
            // Brokers before 5.2 send everything at once and say no total.
            let total = reply.command()?.ext.get("totalTopicNum");
            let total = total.and_then(|total| total.to_cow().parse::<usize>().ok());
            if all.len() == known || total.is_none_or(|total| all.len() >= total) {
                return Ok(all);
            }
        }
    }

    /// The masters that hold a topic, by broker name.
    pub(super) async fn masters_of_topic(
        &self,
        topic: &str,
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let route = self.route(topic).await?;
        let masters = route
            .broker_datas
            .into_iter()
            .filter_map(|mut data| Some((data.broker_name, data.broker_addrs.remove(&MASTER_ID)?)));
        let masters: BTreeMap<_, _> = masters.collect();
        if masters.is_empty() {
            return Err(ClientError::NotFound(format!("no master that holds topic {topic} is up")));
        }
        Ok(masters)
    }
}
