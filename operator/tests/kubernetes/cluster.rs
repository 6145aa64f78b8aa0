//! A namespace with an operator of its own, and a broker that plays the part of all pods.

use std::net::Ipv4Addr;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weirmq_admin::Admin;
use weirmq_authority::Record;
use weirmq_authority::kubernetes::BrokerGroupStatus;
use weirmq_broker::{BrokerConfig, Configuration, Listeners, ReplicationSection};
use weirmq_namesrv::{DEFAULT_LISTENER, Listener, NameServerConfig};
use weirmq_operator::Config;

/// Waiting for what should come at once ends with a failure after this.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Where brokers are asked, whatever their pod.
const BROKER_PORT: u16 = 10_911;
const ADMIN_PORT: u16 = 10_908;
const NAME_SERVER_PORT: u16 = 9_876;
const CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Kinds are the server's, and so all tests'. One that changes them is alone.
static KINDS_ARE_THERE: RwLock<()> = RwLock::const_new(());

/// Held by a cluster while it is there.
enum Company {
    Others { _guard: RwLockReadGuard<'static, ()> },
    Nobody { _guard: RwLockWriteGuard<'static, ()> },
}

/// The resources that a test declares.
pub(crate) const KINDS: [(&str, &str); 4] =
    [("NameServer", "ns"), ("Broker", "mq"), ("Topic", "orders"), ("ConsumerGroup", "billing")];

pub(crate) struct Cluster {
    client: Client,
    namespace: String,
    address: Ipv4Addr,
    operator: Operator,
    /// Of broker and NameServer.
    shutdown: CancellationToken,
    broker: JoinHandle<()>,
    name_server: JoinHandle<()>,
    _data: tempfile::TempDir,
    _company: Company,
}

/// A process `weir operator`.
pub(crate) struct Operator {
    admin: Admin,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Operator {
    fn start(namespace: &str, identity: &str) -> Self {
        let (admin, shutdown) = (Admin::new(), CancellationToken::new());
        let config = Config {
            image: "weirmq:test".to_owned(),
            namespace: Some(namespace.to_owned()),
            cluster_domain: "cluster.local".to_owned(),
            certificate_settle: jiff::SignedDuration::from_secs(300),
            lease_namespace: namespace.to_owned(),
            lease_name: "weirmq-operator".to_owned(),
            identity: identity.to_owned(),
        };
        let running = weirmq_operator::run(config, admin.clone(), shutdown.clone());
        let running = tokio::spawn(async move { running.await.unwrap() });
        Self { admin, shutdown, running }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.admin.is_ready()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.sum("weirmq_operator_leader", "") > 0.0
    }

    pub(crate) fn reconciles(&self, kind: &str) -> f64 {
        self.sum("weirmq_operator_reconciles_total", &format!("kind=\"{kind}\""))
    }

    fn metrics(&self) -> String {
        let metrics = self.admin.encode_metrics();
        let own = metrics.lines().filter(|line| line.starts_with("weirmq_operator_"));
        own.collect::<Vec<_>>().join("\n")
    }

    /// The sum of a metric over all labels that contain `label`.
    fn sum(&self, metric: &str, label: &str) -> f64 {
        let metrics = self.metrics();
        let lines = metrics.lines().filter_map(|line| line.strip_prefix(metric));
        let values = lines.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
        values.map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(BrokerConfig::default()).await
    }

    /// The same with a broker that is replicated, by configuration; there is one that is master of epoch 1.
    pub(crate) async fn start_replicated() -> Self {
        let replication = ReplicationSection { insecure: true, ..ReplicationSection::default() };
        Self::start_with(BrokerConfig { replication, ..BrokerConfig::default() }).await
    }

    /// The same with NameServers of these addresses.
    pub(crate) async fn start_with_name_servers(addresses: &[&str]) -> Self {
        let name_servers = addresses.iter().map(|address| (*address).to_owned()).collect();
        Self::start_with(BrokerConfig { name_servers, ..BrokerConfig::default() }).await
    }

    /// The same while no other test is under way.
    pub(crate) async fn start_alone() -> Self {
        let company = Company::Nobody { _guard: KINDS_ARE_THERE.write().await };
        Self::start_in(company, BrokerConfig::default()).await
    }

    async fn start_with(config: BrokerConfig) -> Self {
        let company = Company::Others { _guard: KINDS_ARE_THERE.read().await };
        Self::start_in(company, config).await
    }

    /// Without NameServers the broker registers with the one of this cluster.
    async fn start_in(company: Company, config: BrokerConfig) -> Self {
        let wanted = std::env::var_os("WEIRMQ_REAL_KUBE").is_some();
        assert!(wanted, "needs the real API server: `make kube`");
        let client = Client::try_default().await.unwrap();
        let id = Uuid::new_v4();
        let namespace = format!("operator-{}", &id.simple().to_string()[..12]);
        let shutdown = CancellationToken::new();

        // Each test has an address of the loopback network, because pods differ in it alone.
        let [a, b, c, ..] = id.into_bytes();
        let address = Ipv4Addr::new(127, a | 1, b, c | 1);
        let listener = TcpListener::bind((address, NAME_SERVER_PORT)).await.unwrap();
        let listeners = vec![Listener { name: DEFAULT_LISTENER.to_owned(), listener }];
        let config_of_it = NameServerConfig::default();
        let running = weirmq_namesrv::run(config_of_it, listeners, Admin::new(), shutdown.clone());
        let name_server = tokio::spawn(async move { running.await.unwrap() });

        let main = TcpListener::bind((address, BROKER_PORT)).await.unwrap();
        let of_replicas = TcpListener::bind((address, 0)).await.unwrap();
        let of_replicas = config.replication.is_on().then_some(of_replicas);
        let data = tempfile::tempdir().unwrap();
        let name_servers = match config.name_servers.is_empty() {
            true => vec![format!("{address}:{NAME_SERVER_PORT}")],
            false => config.name_servers.clone(),
        };
        let config = BrokerConfig {
            name: "mq-0".to_owned(),
            cluster: "mq".to_owned(),
            data_dir: data.path().to_owned(),
            name_servers,
            ..config
        };
        let listeners = Listeners { main, vip: None, replication: of_replicas };
        let (configuration, of_broker) = (Configuration::new(config).unwrap(), Admin::new());
        let running =
            weirmq_broker::run(configuration, listeners, of_broker.clone(), shutdown.clone());
        let of_admin = TcpListener::bind((address, ADMIN_PORT)).await.unwrap();
        tokio::spawn(weirmq_admin::serve(of_admin, of_broker, shutdown.clone()));
        let broker = tokio::spawn(async move { running.await.unwrap() });

        let space =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        send(&client, Method::POST, "/api/v1/namespaces", "application/json", &space).await;
        let operator = Operator::start(&namespace, "operator");
        let (_company, _data) = (company, data);
        Self {
            client,
            namespace,
            address,
            operator,
            shutdown,
            broker,
            name_server,
            _data,
            _company,
        }
    }

    /// A broker of the same cluster that no resource declares: its address, and its directory.
    pub(crate) async fn start_somebodys_broker(&self, name: &str) -> (String, tempfile::TempDir) {
        let main = TcpListener::bind((self.address, 0)).await.unwrap();
        let (address, data) =
            (main.local_addr().unwrap().to_string(), tempfile::tempdir().unwrap());
        let config = BrokerConfig {
            name: name.to_owned(),
            cluster: "mq".to_owned(),
            data_dir: data.path().to_owned(),
            name_servers: vec![self.name_server_address()],
            ..BrokerConfig::default()
        };
        let listeners = Listeners { main, vip: None, replication: None };
        let (configuration, shutdown) =
            (Configuration::new(config).unwrap(), self.shutdown.clone());
        tokio::spawn(weirmq_broker::run(configuration, listeners, Admin::new(), shutdown));
        (address, data)
    }

    /// Another operator beside the one that is there.
    pub(crate) fn start_another_operator(&self) -> Operator {
        Operator::start(&self.namespace, "another")
    }

    /// Ends the operator in good order; the other one is asked from then on.
    pub(crate) async fn replace_operator(&mut self, by: Operator) {
        std::mem::replace(&mut self.operator, by).stop().await;
    }

    pub(crate) fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Ends everything in good order.
    pub(crate) async fn stop(self) {
        self.operator.stop().await;
        self.shutdown.cancel();
        self.broker.await.unwrap();
        self.name_server.await.unwrap();
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        send(&self.client, Method::DELETE, &path, "application/json", &json!({})).await;
    }

    /// The broker's address, as clients know it.
    pub(crate) fn broker_address(&self) -> String {
        format!("{}:{BROKER_PORT}", self.address)
    }

    /// The address of its NameServer.
    pub(crate) fn name_server_address(&self) -> String {
        format!("{}:{NAME_SERVER_PORT}", self.address)
    }

    /// The admin protocol, by way of that NameServer.
    pub(crate) fn broker_admin(&self) -> weirmq_client::Admin {
        let config = weirmq_client::ClientConfig::new(&self.name_server_address());
        weirmq_client::Admin::new(&weirmq_client::Client::start(config).unwrap())
    }

    /// Makes a resource so, by server-side apply. `spec` is YAML.
    pub(crate) async fn declare(&self, kind: &str, name: &str, spec: &str) {
        let spec: Value = serde_yaml::from_str(spec).unwrap();
        let resource = json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        let path = format!("{}?fieldManager=tests&force=true", self.path(kind, name));
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", &resource).await;
    }

    /// Has the operator look at a resource, by a change that means nothing.
    pub(crate) async fn touch(&self, kind: &str, name: &str, look: u64) {
        self.annotate(kind, name, "tests/look", &look.to_string()).await;
    }

    /// Waits until every resource is as it is declared.
    pub(crate) async fn until_ready(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.run_pods().await;
            let mut missing = Vec::new();
            for (kind, name) in KINDS {
                let resource = self.get(&self.path(kind, name)).await;
                let conditions = resource["status"]["conditions"].as_array().cloned();
                let is = |type_: &str, wanted: &str| {
                    let mut all = conditions.iter().flatten();
                    all.any(|one| one["type"] == type_ && one["status"] == wanted)
                };
                if !is("Ready", "True") || is("Progressing", "True") || is("Degraded", "True") {
                    missing.push(format!("{kind} {name}: {:?}", conditions));
                }
            }
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "{missing:#?}\n{}", self.metrics());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "waited in vain until {what}\n{}", self.metrics());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a condition's message contains this.
    pub(crate) async fn until_it_says(&self, kind: &str, name: &str, type_: &str, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let resource = self.get(&self.path(kind, name)).await;
            let conditions = resource["status"]["conditions"].as_array().cloned();
            let mut all = conditions.iter().flatten().filter(|one| one["type"] == type_);
            if all.any(|one| one["message"].as_str().unwrap().contains(text)) {
                return;
            }
            assert!(Instant::now() < end, "{type_} does not say `{text}`: {conditions:#?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn until_event(&self, reason: &str, text: &str) {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.namespace);
        let end = Instant::now() + PATIENCE;
        loop {
            let events = self.get(&path).await;
            let is_it = |event: &Value| {
                event["reason"] == reason
                    && event["note"].as_str().is_some_and(|note| note.contains(text))
            };
            if events["items"].as_array().unwrap().iter().any(is_it) {
                return;
            }
            assert!(Instant::now() < end, "no event {reason} with `{text}`: {events:#}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The pod template of a StatefulSet, if there is one.
    pub(crate) async fn template(&self, set: &str) -> Option<Value> {
        let path = format!("/apis/apps/v1/namespaces/{}/statefulsets", self.namespace);
        let found = self.get(&path).await;
        let mut sets = found["items"].as_array().unwrap().iter();
        let found = sets.find(|found| found["metadata"]["name"] == set)?;
        Some(found["spec"]["template"].clone())
    }

    pub(crate) async fn until_template(&self, set: &str) {
        let end = Instant::now() + PATIENCE;
        while self.template(set).await.is_none() {
            assert!(Instant::now() < end, "no StatefulSet {set}\n{}", self.metrics());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn make_secret(&self, name: &str) {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name } });
        let path = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        self.send(Method::POST, &path, "application/json", &secret).await;
    }

    /// Waits until a Secret is so, and answers with it.
    pub(crate) async fn until_secret(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let list = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        self.until_one_of(&list, name, is_so).await
    }

    /// Waits until there is a resource that is so, and answers with it.
    pub(crate) async fn until_resource(
        &self,
        kind: &str,
        name: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let path = self.path(kind, name);
        self.until_one_of(path.rsplit_once('/').unwrap().0, name, is_so).await
    }

    async fn until_one_of(&self, list: &str, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.get(list).await;
            let mut all = found["items"].as_array().unwrap().iter();
            let found = all.find(|one| one["metadata"]["name"] == name);
            if let Some(found) = found.filter(|found| is_so(found)) {
                return found.clone();
            }
            assert!(
                Instant::now() < end,
                "{list}/{name} is not so: {found:#?}\n{}",
                self.metrics()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The StatefulSet `name`, once it is so.
    pub(crate) async fn until_set(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.until_object("StatefulSet", name, is_so).await
    }

    /// Applies fields of a StatefulSet under another field manager's name, and takes them from whoever has them.
    pub(crate) async fn apply_to_set(&self, manager: &str, name: &str, fields: &Value) {
        let mut set =
            json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": name } });
        for (part, value) in fields.as_object().unwrap() {
            match part.as_str() {
                "annotations" => set["metadata"]["annotations"] = value.clone(),
                _ => set[part] = value.clone(),
            }
        }
        let path = format!(
            "/apis/apps/v1/namespaces/{}/statefulsets/{name}?fieldManager={manager}&force=true",
            self.namespace
        );
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", &set).await;
    }

    /// Sets the number of replicas by the subresource `scale`, as an autoscaler does.
    pub(crate) async fn scale(&self, manager: &str, kind: &str, name: &str, replicas: u32) {
        let path = format!("{}/scale?fieldManager={manager}", self.path(kind, name));
        let scale = json!({ "spec": { "replicas": replicas } });
        self.send(Method::PATCH, &path, "application/merge-patch+json", &scale).await;
    }

    /// Waits until there is an object of the operator's that is so, and answers with it.
    pub(crate) async fn until_object(
        &self,
        kind: &str,
        name: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        self.until_one_of(&self.list(kind), name, is_so).await
    }

    /// Changes the status of such an object.
    pub(crate) async fn patch_status(&self, kind: &str, name: &str, status: &Value) {
        let path = format!("{}/{name}/status", self.list(kind));
        let patch = json!({ "status": status });
        self.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await;
    }

    /// Changes such an object as somebody else does.
    pub(crate) async fn patch_object(&self, kind: &str, name: &str, patch: &Value) {
        let path = format!("{}/{name}", self.list(kind));
        self.send(Method::PATCH, &path, "application/merge-patch+json", patch).await;
    }

    /// Makes a Service that is somebody else's.
    pub(crate) async fn make_service(&self, name: &str, labels: &Value) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "labels": labels },
            "spec": { "ports": [{ "port": 1 }] },
        });
        self.send(Method::POST, &self.list("Service"), "application/json", &service).await;
    }

    /// Makes a Lease that is somebody else's.
    pub(crate) async fn make_lease(&self, name: &str, holder: &str) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": name }, "spec": { "holderIdentity": holder },
        });
        self.send(Method::POST, &self.list("Lease"), "application/json", &lease).await;
    }

    pub(crate) async fn delete_object(&self, kind: &str, name: &str) {
        let path = format!("{}/{name}", self.list(kind));
        self.send(Method::DELETE, &path, "application/json", &json!({})).await;
    }

    /// Waits until a resource is there no more.
    pub(crate) async fn until_gone(&self, kind: &str, name: &str) {
        let path = self.path(kind, name);
        let all = async || {
            let all = self.get(path.rsplit_once('/').unwrap().0).await;
            let all = all["items"].as_array().unwrap().iter();
            Some(all.map(|one| one["metadata"]["name"].clone()).collect::<Vec<_>>())
        };
        self.until_found(name, all, |all| all.iter().all(|other| other != name)).await;
    }

    /// Waits until something is found that is so.
    pub(crate) async fn until_found<T: std::fmt::Debug>(
        &self,
        what: &str,
        find: impl AsyncFn() -> Option<T>,
        is_so: impl Fn(&T) -> bool,
    ) {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = find().await;
            if found.as_ref().is_some_and(&is_so) {
                return;
            }
            assert!(Instant::now() < end, "{what} is not so: {found:#?}\n{}", self.metrics());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The notes of all events of this reason.
    pub(crate) async fn events(&self, reason: &str) -> Vec<String> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.namespace);
        let events = self.get(&path).await;
        let all = events["items"].as_array().unwrap().iter();
        let mine = all.filter(|event| event["reason"] == reason);
        mine.map(|event| event["note"].as_str().unwrap().to_owned()).collect()
    }

    /// Has the server know a kind of somebody else, of which it looks at nothing, and waits until it serves it.
    pub(crate) async fn make_kind(&self, group: &str, version: &str, kind: &str) {
        let plural = format!("{}s", kind.to_lowercase());
        let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.{group}") },
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": any }, "subresources": { "status": {} },
                }],
            },
        });
        self.send(Method::POST, DEFINITIONS, "application/json", &definition).await;
        // The server has taken the definition before it answers for the kind.
        let list = self.list(kind);
        let code = async || {
            Some(ask(&self.client, Method::GET, &list, "application/json", &Value::Null).await.0)
        };
        self.until_found(&list, code, StatusCode::is_success).await;
    }

    /// Takes it away again.
    pub(crate) async fn delete_kind(&self, group: &str, kind: &str) {
        let path = format!("{DEFINITIONS}/{}s.{group}", kind.to_lowercase());
        self.send(Method::DELETE, &path, "application/json", &json!({})).await;
    }

    /// Takes one of the operator's kinds away, with all of its resources, and answers with its definition. For a
    /// test that is alone.
    pub(crate) async fn forget_kind(&self, kind: &str) -> Value {
        let path = format!("{DEFINITIONS}/{}s.weirmq.io", kind.to_lowercase());
        let found = self.get(&path).await;
        self.send(Method::DELETE, &path, "application/json", &json!({})).await;
        let name = found["metadata"]["name"].clone();
        self.until_served(kind, false).await;
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": name }, "spec": found["spec"],
        })
    }

    /// Brings it back.
    pub(crate) async fn know_kind(&self, definition: &Value) {
        self.send(Method::POST, DEFINITIONS, "application/json", definition).await;
        self.until_served(definition["spec"]["names"]["kind"].as_str().unwrap(), true).await;
    }

    async fn until_served(&self, kind: &str, is_served: bool) {
        let path = self.path(kind, "");
        let list = path.trim_end_matches('/');
        let code = async || {
            Some(ask(&self.client, Method::GET, list, "application/json", &Value::Null).await.0)
        };
        self.until_found(list, code, |code| code.is_success() == is_served).await;
    }

    /// Stores a resource that the schema of its kind refuses, by another schema for a moment. For a test
    /// that is alone.
    pub(crate) async fn declare_against_the_schema(&self, kind: &str, name: &str, spec: &str) {
        let definition = format!("{DEFINITIONS}/{}s.weirmq.io", kind.to_lowercase());
        let before = self.get(&definition).await["spec"]["versions"].clone();
        let mut loose = before.clone();
        let schema = loose[0]["schema"]["openAPIV3Schema"].as_object_mut().unwrap();
        schema.remove("x-kubernetes-validations");
        schema["properties"]["spec"] =
            json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let spec: Value = serde_yaml::from_str(spec).unwrap();
        let resource = json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        let path = self.path(kind, name);
        let list = path.rsplit_once('/').unwrap().0;
        // The server takes a while to go by another schema.
        self.replace_versions(&definition, &loose).await;
        self.until_taken(list, &resource, true).await;
        self.replace_versions(&definition, &before).await;
        let mut another = resource;
        another["metadata"]["name"] = json!("another");
        self.until_taken(&format!("{list}?dryRun=All"), &another, false).await;
    }

    async fn replace_versions(&self, definition: &str, versions: &Value) {
        let patch = json!({ "spec": { "versions": versions } });
        self.send(Method::PATCH, definition, "application/merge-patch+json", &patch).await;
    }

    /// Creates an object again and again until it is taken, or until it is refused.
    async fn until_taken(&self, path: &str, object: &Value, wanted: bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (code, answer) =
                ask(&self.client, Method::POST, path, "application/json", object).await;
            if code.is_success() == wanted {
                return;
            }
            assert!(Instant::now() < end, "{path}: {code} {answer}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What a kubelet says of a pod.
    pub(crate) async fn say_ready(&self, pod: &str, is_ready: bool) {
        let ready = if is_ready { "True" } else { "False" };
        let status = json!({ "conditions": [{ "type": "Ready", "status": ready }] });
        self.patch_status("Pod", pod, &status).await;
    }

    /// A claim as the StatefulSet controller makes it, of a disk that nobody provides; with a class of one that is
    /// there.
    pub(crate) async fn make_claim(&self, name: &str, size: &str, class: Option<&str>) {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": name, "labels": { "app.kubernetes.io/managed-by": "weirmq-operator" } },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": { "requests": { "storage": size } },
            },
        });
        let kind = "PersistentVolumeClaim";
        self.send(Method::POST, &self.list(kind), "application/json", &claim).await;
        if class.is_some() {
            self.patch_status(kind, name, &json!({ "phase": "Bound" })).await;
        }
    }

    /// A class whose disks may grow; it is of no namespace.
    pub(crate) async fn make_class(&self) -> String {
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": self.namespace },
            "provisioner": "weirmq.io/nobody", "allowVolumeExpansion": true,
        });
        self.send(Method::POST, CLASSES, "application/json", &class).await;
        self.namespace.clone()
    }

    pub(crate) async fn delete_class(&self, name: &str) {
        let path = format!("{CLASSES}/{name}");
        self.send(Method::DELETE, &path, "application/json", &json!({})).await;
    }

    /// Writes an authority record, as a replica does, into a group that has none.
    pub(crate) async fn write_record(&self, group: &str, record: &Record) {
        let status = BrokerGroupStatus { record: record.clone(), write: "test".to_owned() };
        let path = format!("{}/status", self.path("BrokerGroup", group));
        let patch = json!({ "status": status });
        self.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await;
    }

    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        self.send(Method::DELETE, &self.path(kind, name), "application/json", &json!({})).await;
    }

    pub(crate) async fn annotate(&self, kind: &str, name: &str, key: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        let path = self.path(kind, name);
        self.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await;
    }

    pub(crate) async fn uid(&self, kind: &str, name: &str) -> Value {
        self.get(&self.path(kind, name)).await["metadata"]["uid"].clone()
    }

    /// What the StatefulSet controller and a kubelet do: the pods of each set, which run at once, all at the
    /// same address.
    pub(crate) async fn run_pods(&self) {
        let sets = format!("/apis/apps/v1/namespaces/{}/statefulsets", self.namespace);
        let pods = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let there = self.get(&pods).await;
        let names = there["items"].as_array().unwrap().iter().map(|pod| &pod["metadata"]["name"]);
        let names: Vec<&Value> = names.collect();
        let found = self.get(&sets).await;
        for set in found["items"].as_array().unwrap() {
            let (name, generation) = (&set["metadata"]["name"], &set["metadata"]["generation"]);
            let name = name.as_str().unwrap();
            if set["status"]["observedGeneration"] == *generation {
                continue;
            }
            let replicas = set["spec"]["replicas"].as_u64().unwrap();
            for replica in 0..replicas {
                let mut pod = set["spec"]["template"].clone();
                pod["apiVersion"] = json!("v1");
                pod["kind"] = json!("Pod");
                pod["metadata"]["name"] = json!(format!("{name}-{replica}"));
                pod["metadata"]["labels"]["controller-revision-hash"] = json!("one");
                // There are no volumes here.
                pod["spec"]["volumes"] = json!([]);
                pod["spec"]["containers"][0]["volumeMounts"] = json!([]);
                if !names.contains(&&pod["metadata"]["name"]) {
                    self.send(Method::POST, &pods, "application/json", &pod).await;
                }
                let status = json!({ "status": {
                    "phase": "Running",
                    "podIP": self.address, "podIPs": [{ "ip": self.address }],
                    "conditions": [{ "type": "Ready", "status": "True" }],
                } });
                let path = format!("{pods}/{name}-{replica}/status");
                self.send(Method::PATCH, &path, "application/merge-patch+json", &status).await;
            }
            let status = json!({ "status": {
                "observedGeneration": generation, "replicas": replicas, "readyReplicas": replicas,
                "updatedReplicas": replicas, "currentRevision": "one", "updateRevision": "one",
            } });
            let path = format!("{sets}/{name}/status");
            self.send(Method::PATCH, &path, "application/merge-patch+json", &status).await;
        }
    }

    /// Requests to the API server that a cluster as declared needs none of: all but watches.
    pub(crate) fn requests(&self) -> f64 {
        let all = self.sum("weirmq_operator_requests_total", "");
        all - self.sum("weirmq_operator_requests_total", "method=\"WATCH\"")
    }

    pub(crate) fn reconciles(&self, kind: &str) -> f64 {
        self.operator.reconciles(kind)
    }

    pub(crate) fn metrics(&self) -> String {
        self.operator.metrics()
    }

    pub(crate) fn sum(&self, metric: &str, label: &str) -> f64 {
        self.operator.sum(metric, label)
    }

    /// Where the server has the operator's objects of a kind.
    fn list(&self, kind: &str) -> String {
        let (group, plural) = match kind {
            "StatefulSet" => ("/apis/apps/v1", "statefulsets"),
            "Service" => ("/api/v1", "services"),
            "Secret" => ("/api/v1", "secrets"),
            "ConfigMap" => ("/api/v1", "configmaps"),
            "Pod" => ("/api/v1", "pods"),
            "PersistentVolumeClaim" => ("/api/v1", "persistentvolumeclaims"),
            "Lease" => ("/apis/coordination.k8s.io/v1", "leases"),
            "Certificate" => ("/apis/cert-manager.io/v1", "certificates"),
            kind => panic!("where is {kind}?"),
        };
        format!("{group}/namespaces/{}/{plural}", self.namespace)
    }

    fn path(&self, kind: &str, name: &str) -> String {
        let kind = kind.to_lowercase();
        format!("/apis/weirmq.io/v1alpha1/namespaces/{}/{kind}s/{name}", self.namespace)
    }

    async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, "application/json", &Value::Null).await
    }

    async fn send(&self, method: Method, path: &str, media: &str, body: &Value) -> Value {
        send(&self.client, method, path, media, body).await
    }
}

async fn send(client: &Client, method: Method, path: &str, media: &str, body: &Value) -> Value {
    let (code, answer) = ask(client, method, path, media, body).await;
    assert!(code.is_success(), "{path}: {answer}\n{body}");
    answer
}

async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    media: &str,
    body: &Value,
) -> (StatusCode, Value) {
    let text = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("content-type", media);
    let request = request.header("accept", "application/json").body(Body::from(text)).unwrap();
    let response = client.send(request).await.unwrap();
    let code = response.status();
    let bytes = response.into_body().collect_bytes().await.unwrap();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}
