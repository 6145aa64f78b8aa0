//! Brokers and their state.

use std::collections::BTreeMap;

use weirmq_remoting::body::{ClusterInfo, KVTable};
use weirmq_remoting::codes::RequestCode;
use weirmq_remoting::command::{HeaderWriter, Text};
use weirmq_remoting::header::{
    AddResponseHeader, BrokerNameHeader, ElectMasterHeader, Header as _, WipeResponseHeader,
};

use super::Admin;
use crate::ClientError;
use crate::route::MASTER_ID;

impl Admin {
    /// Clusters, their brokers and the brokers' addresses (code 106).
    pub async fn cluster_info(&self) -> Result<ClusterInfo, ClientError> {
        let core = &self.client.core;
        let reply = core.call_name_server(RequestCode::GetBrokerClusterInfo, |_| {}, b"").await?;
        reply.success()?.body()
    }

    /// The addresses of all masters of `cluster`, by broker name; `None`: of all clusters.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the cluster does not exist or none of its masters is up.
    pub async fn masters(
        &self,
        cluster: Option<&str>,
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let masters = self.members(cluster).await?.into_iter();
        let masters = masters.filter(|(_, id, _)| *id == MASTER_ID);
        let masters: BTreeMap<_, _> = masters.map(|(name, _, address)| (name, address)).collect();
        if masters.is_empty() {
            let whose = cluster.unwrap_or("any cluster");
            return Err(ClientError::NotFound(format!("no master of {whose} is up")));
        }
        Ok(masters)
    }

    /// Broker name, broker id and address of all brokers of `cluster`; `None`: of all clusters.
    pub(super) async fn members(
        &self,
        cluster: Option<&str>,
    ) -> Result<Vec<(String, i64, String)>, ClientError> {
        let info = self.cluster_info().await?;
        let names: Vec<String> = match cluster {
            None => info.broker_addr_table.keys().cloned().collect(),
            Some(cluster) => {
                let names = info.cluster_addr_table.get(cluster).ok_or_else(|| {
                    let known: Vec<_> = info.cluster_addr_table.keys().collect();
                    ClientError::NotFound(format!(
                        "cluster {cluster} does not exist; there are {known:?}"
                    ))
                })?;
                names.iter().cloned().collect()
            }
        };
        let mut members = Vec::new();
        for name in names {
            let Some(data) = info.broker_addr_table.get(&name) else { continue };
            members.extend(
                data.broker_addrs.iter().map(|(id, addr)| (name.clone(), *id, addr.clone())),
            );
        }
        Ok(members)
    }

    /// Counters and versions of one broker (code 28), by Apache's names.
    pub async fn runtime_info(
        &self,
        broker_address: &str,
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let core = &self.client.core;
        let request = RequestCode::GetBrokerRuntimeInfo;
        let table: KVTable = core.call(broker_address, request, |_| {}, b"").await?.body()?;
        Ok(table.table)
    }

    /// The configuration of one broker (code 26), `key=value` lines as Apache writes them.
    pub async fn broker_config(&self, broker_address: &str) -> Result<String, ClientError> {
        let request = RequestCode::GetBrokerConfig;
        let reply = self.client.core.call(broker_address, request, |_| {}, b"").await?;
        Ok(String::from_utf8_lossy(reply.bytes()).into_owned())
    }

    /// Changes settings of one broker (code 25).
    pub async fn update_broker_config(
        &self,
        broker_address: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), ClientError> {
        let lines: String =
            settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        let request = RequestCode::UpdateBrokerConfig;
        let _ = self.client.core.call(broker_address, request, |_| {}, lines.as_bytes()).await?;
        Ok(())
    }

    /// Has the master of a broker group hand over to the slave with this id, or to the one that has
    /// most (code 1002). Comes back when another one is master.
    pub async fn switch_master(
        &self,
        master_address: &str,
        broker_name: &str,
        heir: Option<i64>,
    ) -> Result<(), ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            let broker_name = Text::from(broker_name);
            let designate_elect = Some(heir.is_some());
            let header = ElectMasterHeader {
                cluster_name: None,
                broker_name,
                broker_id: heir,
                designate_elect,
            };
            header.encode(writer);
        };
        let request = RequestCode::ControllerElectMaster;
        self.client.core.call(master_address, request, fields, b"").await?.success()?;
        Ok(())
    }

    /// Has a broker delete messages older than its retention time, whatever the hour (code 329).
    /// It answers before that is done.
    pub async fn delete_expired_log(&self, broker_address: &str) -> Result<(), ClientError> {
        self.clean(broker_address, RequestCode::DeleteExpiredCommitLog).await
    }

    /// Has a broker delete queue entries whose messages are gone (code 306).
    pub async fn clean_expired_queues(&self, broker_address: &str) -> Result<(), ClientError> {
        self.clean(broker_address, RequestCode::CleanExpiredConsumeQueue).await
    }

    /// Has a broker delete the queues of topics that do not exist (code 316).
    pub async fn clean_unused_topics(&self, broker_address: &str) -> Result<(), ClientError> {
        self.clean(broker_address, RequestCode::CleanUnusedTopic).await
    }

    async fn clean(&self, broker_address: &str, request: RequestCode) -> Result<(), ClientError> {
        self.client.core.call(broker_address, request, |_| {}, b"").await?.success()?;
        Ok(())
    }

    /// Takes the write permission from all topics of a broker, at every NameServer (code 205).
    /// Answers how many topics that were at one of them.
    pub async fn wipe_write_permission(&self, broker_name: &str) -> Result<u32, ClientError> {
        let counts = self.for_all_name_servers(
            RequestCode::WipeWritePermissionOfBroker,
            |writer| BrokerNameHeader { broker_name: Text::from(broker_name) }.encode(writer),
            |reply| Ok(reply.header::<WipeResponseHeader>()?.wipe_topic_count),
        );
        Ok(counts.await?.into_iter().max().and_then(|most| u32::try_from(most).ok()).unwrap_or(0))
    }

    /// Gives the write permission back (code 327).
    pub async fn add_write_permission(&self, broker_name: &str) -> Result<u32, ClientError> {
        let counts = self.for_all_name_servers(
            RequestCode::AddWritePermissionOfBroker,
            |writer| BrokerNameHeader { broker_name: Text::from(broker_name) }.encode(writer),
            |reply| Ok(reply.header::<AddResponseHeader>()?.add_topic_count),
        );
        Ok(counts.await?.into_iter().max().and_then(|most| u32::try_from(most).ok()).unwrap_or(0))
    }

    /// Asks every NameServer, because they do not tell each other. Fails at the first that fails.
    pub(super) async fn for_all_name_servers<T>(
        &self,
        request: RequestCode,
        fields: impl Fn(&mut HeaderWriter<'_>) + Send + Sync,
        read: impl Fn(&crate::reply::Reply) -> Result<T, ClientError>,
    ) -> Result<Vec<T>, ClientError> {
        let core = &self.client.core;
        let mut answers = Vec::new();
        for address in &core.config.name_servers {
            answers.push(read(&core.call(address, request, &fields, b"").await?)?);
        }
        Ok(answers)
    }
}
