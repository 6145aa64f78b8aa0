//! The server that a test talks to.

use std::time::Duration;

use http::{Method, Request};
use kube::client::Body;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;
use weirmq_authority::{Incarnation, Lease, Member, Phase, Record, ReplicaId};
use weirmq_broker::coordination::Kubernetes;
use weirmq_kube_stand_in::StandIn;

pub(crate) const NAMESPACE: &str = "default";
pub(crate) const GROUPS: &str = "/apis/weirmq.io/v1alpha1/namespaces/default/brokergroups";
pub(crate) const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Waiting for what should come at once ends with a failure after this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server with one group.
pub(crate) struct Server {
    pub(crate) stand_in: Option<StandIn>,
    pub(crate) config: Config,
    pub(crate) client: Client,
    /// The name of the group, another in each test.
    pub(crate) group: String,
}

pub(crate) fn is_real() -> bool {
    std::env::var_os("WEIRMQ_REAL_KUBE").is_some()
}

impl Server {
    /// The real one where that is wanted, else a stand-in of its own.
    pub(crate) async fn any() -> Self {
        if !is_real() {
            return Self::stand_in().await;
        }
        let config = Config::infer().await.unwrap();
        Self::with(None, config)
    }

    pub(crate) async fn stand_in() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stand_in = StandIn::start(listener).unwrap();
        let url = format!("http://{}", stand_in.address()).parse().unwrap();
        Self::with(Some(stand_in), Config::new(url))
    }

    fn with(stand_in: Option<StandIn>, config: Config) -> Self {
        let client = Client::try_from(config.clone()).unwrap();
        let group = format!("group-{}", Uuid::new_v4().simple());
        Self { stand_in, config, client, group }
    }

    /// The same with both objects there.
    pub(crate) async fn with_group(self) -> Self {
        let name = json!({ "name": self.group, "namespace": NAMESPACE });
        let spec = json!({
            "replicas": 3, "replication": { "mode": "Sync", "minInSync": 2 }, "flush": "Sync",
        });
        let group = json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": "BrokerGroup", "metadata": name, "spec": spec,
        });
        assert_eq!(self.send(Method::POST, GROUPS, "application/json", &group).await.0, 201);
        let mut metadata = name;
        metadata["labels"] = json!({ "app.kubernetes.io/part-of": "weirmq" });
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {},
        });
        assert_eq!(self.send(Method::POST, LEASES, "application/json", &lease).await.0, 201);
        self
    }

    /// A replica's view of the group.
    pub(crate) fn replica(&self) -> Kubernetes {
        self.replica_within(Duration::from_secs(8))
    }

    pub(crate) fn replica_within(&self, request_timeout: Duration) -> Kubernetes {
        let config = self.config.clone();
        Kubernetes::new(config, Some(NAMESPACE), &self.group, request_timeout).unwrap()
    }

    pub(crate) fn faulty(&self) -> &StandIn {
        self.stand_in.as_ref().unwrap()
    }

    pub(crate) fn group_path(&self) -> String {
        format!("{GROUPS}/{}", self.group)
    }

    pub(crate) fn lease_path(&self) -> String {
        format!("{LEASES}/{}", self.group)
    }

    /// The code and the body of an answer, as a string where it is no JSON.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        let request = request.header("accept", "application/json");
        let response = self.client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect_bytes().await.unwrap();
        let text = || json!(String::from_utf8_lossy(&body));
        (code, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, "application/json", &Value::Null).await.1
    }
}

pub(crate) fn member(replica: u32, incarnation: u64) -> Member {
    Member { replica: ReplicaId(replica), incarnation: Incarnation(incarnation) }
}

/// The record after the first election, of replica 0.
pub(crate) fn first() -> Record {
    Record {
        epoch: 1,
        phase: Phase::Promoting,
        master: Some(member(0, 7)),
        in_sync: [member(0, 7)].into_iter().collect(),
        in_sync_version: 1,
        ..Record::default()
    }
}

/// The record after `change` of the set to these members.
pub(crate) fn with_set(record: &Record, members: &[Member]) -> Record {
    Record {
        in_sync: members.iter().copied().collect(),
        in_sync_version: record.in_sync_version + 1,
        ..record.clone()
    }
}

pub(crate) fn held(holder: Member, renewals: u64) -> Lease {
    Lease { holder: Some(holder), renewals }
}
