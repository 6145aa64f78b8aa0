//! A broker group as tests see it: its pods and its record.

use anyhow::Context as _;
use serde_json::Value;

use crate::cluster::{Namespace, is_ready, wait};

/// A broker group and its record, the status of the `BrokerGroup` `name`.
pub(crate) struct Group<'a> {
    pub(crate) namespace: &'a Namespace<'a>,
    pub(crate) name: String,
    /// The pod of each replica, by number.
    pub(crate) pods: Vec<String>,
}

/// Who is master, by the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Master {
    pub(crate) pod: String,
    pub(crate) node: String,
    pub(crate) epoch: u64,
}

impl Group<'_> {
    fn record(&self) -> anyhow::Result<Value> {
        let found = self.namespace.object("brokergroup", &self.name)?;
        Ok(found.with_context(|| format!("there is no BrokerGroup {}", self.name))?["status"]
            .take())
    }

    /// Who is master now; `None` before the first election.
    pub(crate) fn master(&self) -> anyhow::Result<Option<Master>> {
        let record = self.record()?;
        let Some(replica) = record["master"]["replica"].as_u64() else { return Ok(None) };
        let pod = self.pods.get(usize::try_from(replica)?);
        let pod = pod.with_context(|| format!("{} has no replica {replica}", self.name))?.clone();
        let node = self.namespace.node_of(&pod)?;
        let epoch = record["epoch"].as_u64().context("the record has no epoch")?;
        Ok(Some(Master { pod, node, epoch }))
    }

    /// What tells each pod from another one of its name; `None` where there is no pod.
    pub(crate) fn uids(&self) -> anyhow::Result<Vec<Option<Value>>> {
        let uid = |pod: &String| {
            let pod = self.namespace.object("pod", pod)?;
            Ok(pod.map(|pod| pod["metadata"]["uid"].clone()))
        };
        self.pods.iter().map(uid).collect()
    }

    /// Waits until no pod is one of `before`, which [`Group::uids`] gave.
    pub(crate) fn all_anew(&self, before: &[Option<Value>], seconds: u64) -> anyhow::Result<()> {
        wait("all pods were started anew", seconds, || {
            let now = self.uids()?;
            Ok(now.iter().all(|uid| uid.is_some() && !before.contains(uid)).then_some(()))
        })
    }

    /// Waits until all pods are ready, all replicas are in sync and the master serves.
    pub(crate) fn settled(&self, seconds: u64) -> anyhow::Result<Master> {
        let what =
            format!("all {} replicas of {} are in sync and ready", self.pods.len(), self.name);
        wait(&what, seconds, || {
            for pod in &self.pods {
                let pod = self.namespace.object("pod", pod)?;
                if !pod.is_some_and(|pod| is_ready(&pod)) {
                    return Ok(None);
                }
            }
            let record = self.record()?;
            let in_sync = record["inSync"].as_object().map_or(0, serde_json::Map::len);
            let is_settled = record["phase"] == "Stable" && in_sync == self.pods.len();
            if is_settled { self.master() } else { Ok(None) }
        })
    }

    /// Waits until another replica than `before` is master and serves.
    pub(crate) fn another_master(&self, before: &Master, seconds: u64) -> anyhow::Result<Master> {
        wait(&format!("another than {} is master of {}", before.pod, self.name), seconds, || {
            let is_stable = self.record()?["phase"] == "Stable";
            Ok(self
                .master()?
                .filter(|now| is_stable && now.pod != before.pod && now.epoch > before.epoch))
        })
    }
}
