//! `kubectl-weir` against the real API server that `$KUBECONFIG` names (`make kube`): objects and
//! statuses are put there as the operator and the brokers write them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use weirmq_authority::kubernetes::Promote;
use weirmq_operator::annotations::{PAUSED, RESTARTED_AT, SWITCH_OVER};
use weirmq_operator::kinds::{Broker, BrokerGroup};

/// Waiting for what should come at once ends with a failure after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace with a Broker of one group, two replicas, 0 the master of epoch 1.
struct Place {
    client: Client,
    namespace: String,
    /// With the link by which kubectl finds the plugin.
    folder: TempDir,
}

impl Place {
    async fn new() -> Self {
        assert!(
            std::env::var_os("WEIRMQ_REAL_KUBE").is_some(),
            "needs a real API server: make kube"
        );
        let client = Client::try_default().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("kubectl-weir");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weir"), link).unwrap();
        let unique = folder.path().file_name().unwrap().to_string_lossy().to_lowercase();
        let namespace = format!("plugin-{}", unique.trim_start_matches(".tmp"));
        let place = Self { client, namespace, folder };
        let api: Api<Namespace> = Api::all(place.client.clone());
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": place.namespace } });
        api.create(&PostParams::default(), &parsed(object)).await.unwrap();
        place.make_broker().await;
        place.make_record(1, 0).await;
        place
    }

    fn brokers(&self) -> Api<Broker> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn make_broker(&self) {
        let broker = json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": "Broker", "metadata": { "name": "mq" },
            "spec": { "nameServerRef": { "name": "ns" }, "storage": { "size": "1Gi" },
                      "replicasPerGroup": 2, "replication": { "minInSync": 1 } },
        });
        self.brokers().create(&PostParams::default(), &parsed(broker)).await.unwrap();
        let replica = |number: u32, role: &str, lag: u64| {
            json!({ "pod": format!("mq-0-{number}"), "role": role, "ready": true, "upToDate": true,
                    "node": format!("n{number}"), "lagBytes": lag })
        };
        let condition = |type_: &str, status: &str, message: &str| {
            json!({ "type": type_, "status": status, "reason": "Because", "message": message,
                    "observedGeneration": 1, "lastTransitionTime": "2026-11-27T21:00:00Z" })
        };
        let status = json!({ "status": {
            "observedGeneration": 1, "groupCount": 1, "selector": "", "masters": "1/1", "readyPods": "2/2",
            "conditions": [condition("Ready", "True", ""), condition("FailoverPossible", "False", "not on one node")],
            "groups": [{ "name": "mq-0", "master": "mq-0-0", "epoch": 1, "inSync": "0,1", "hasTopics": true,
                         "replicas": [replica(0, "Master", 0), replica(1, "Slave", 4 << 20)] }],
        }});
        let patch = PatchParams::default();
        self.brokers().patch_status("mq", &patch, &Patch::Merge(&status)).await.unwrap();
    }

    /// The record of the group, as its replicas write it.
    async fn make_record(&self, epoch: u64, master: u32) {
        let api: Api<BrokerGroup> = Api::namespaced(self.client.clone(), &self.namespace);
        // A record of a later epoch is not one that may follow by hand, so the object is another one.
        let _ = api.delete("mq-0", &DeleteParams::default()).await;
        let group = json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": "BrokerGroup", "metadata": { "name": "mq-0" },
            "spec": { "replicas": 2, "flush": "Sync", "replication": { "mode": "Sync", "minInSync": 1 } },
        });
        let mut made: BrokerGroup =
            api.create(&PostParams::default(), &parsed(group)).await.unwrap();
        let member = |replica: u32| weirmq_authority::Member {
            replica: weirmq_authority::ReplicaId(replica),
            incarnation: weirmq_authority::Incarnation(7),
        };
        let record = weirmq_authority::Record {
            epoch,
            phase: weirmq_authority::Phase::Stable,
            master: Some(member(master)),
            in_sync: [member(0), member(1)].into_iter().collect(),
            in_sync_version: 1,
            ..weirmq_authority::Record::default()
        };
        let write = "test".to_owned();
        made.status = Some(weirmq_authority::kubernetes::BrokerGroupStatus { record, write });
        api.replace_status("mq-0", &PostParams::default(), &made).await.unwrap();
    }

    /// What `kubectl weir WORDS` does, without kubectl.
    async fn plugin(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        let done = tokio::task::spawn_blocking(move || command.output());
        tokio::time::timeout(PATIENCE, done).await.unwrap().unwrap().unwrap()
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(self.folder.path().join("kubectl-weir"));
        command.args(words).args(["--namespace", &self.namespace]).current_dir(&self.folder);
        command
    }

    async fn annotation(&self, key: &str) -> Option<String> {
        self.brokers().get("mq").await.unwrap().annotations().get(key).cloned()
    }

    fn groups(&self) -> Api<BrokerGroup> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn set_failover(&self, mode: &str) {
        let patch = json!({ "spec": { "failover": mode } });
        self.groups().patch("mq-0", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// `kubectl weir promote --accept-loss`, from the moment on when it is written down.
    async fn promote_with_loss(&self) -> Child {
        let words =
            ["promote", "mq", "0", "--to", "1", "--accept-loss", "--yes", "--timeout", "60s"];
        let running = self.command(&words).stderr(Stdio::piped()).spawn().unwrap();
        let written = async {
            while self.groups().get("mq-0").await.unwrap().spec.promote.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, written).await.unwrap();
        running
    }

    /// Waits until somebody is to be promoted, and elects that replica as it would itself.
    async fn elect_the_promoted(&self) -> Value {
        let promoted = async {
            loop {
                let mut group = self.groups().get("mq-0").await.unwrap();
                let record = &mut group.status.as_mut().unwrap().record;
                let is_meant = |promote: &Promote| promote.epoch == record.epoch;
                let Some(promote) = group.spec.promote.clone().filter(is_meant) else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let incarnation = weirmq_authority::Incarnation(7);
                let replica = weirmq_authority::ReplicaId(promote.replica);
                let master = weirmq_authority::Member { replica, incarnation };
                (record.epoch, record.in_sync_version) =
                    (record.epoch + 1, record.in_sync_version + 1);
                (record.master, record.in_sync) = (Some(master), [master].into_iter().collect());
                if promote.accept_loss.is_some() {
                    record.loss_epoch = record.epoch;
                }
                self.groups().replace_status("mq-0", &PostParams::default(), &group).await.unwrap();
                return serde_json::to_value(promote).unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, promoted).await.unwrap()
    }

    /// Waits for a request, takes it off as the operator does, and says what it was.
    async fn take_request(&self) -> String {
        let taken = async {
            loop {
                if let Some(request) = self.annotation(SWITCH_OVER).await {
                    let patch = json!({ "metadata": { "annotations": { SWITCH_OVER: null } } });
                    let parameters = PatchParams::default();
                    self.brokers().patch("mq", &parameters, &Patch::Merge(&patch)).await.unwrap();
                    return request;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.unwrap()
    }
}

fn parsed<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

#[track_caller]
fn text(output: &Output, code: i32) -> (String, String) {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    (stdout, stderr)
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_status_shows_each_replica_by_the_newest_record() {
    let place = Place::new().await;
    place.make_record(2, 1).await;
    let (rows, told) = text(&place.plugin(&["status"]).await, 0);
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split('\t').collect()).collect();
    let ns = &*place.namespace;
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(rows[1], [ns, "mq", "mq-0", "mq-0-0", "slave", "yes", "2", "yes", "0", "n0", "yes"]);
    assert_eq!(
        rows[2],
        [ns, "mq", "mq-0", "mq-0-1", "master", "yes", "2", "yes", "4194304", "n1", "yes"]
    );
    assert_eq!(told, "mq: not FailoverPossible (Because): not on one node\n");

    let (json, _) = text(&place.plugin(&["status", "mq", "-o", "json"]).await, 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["groups"][0]["master"], "mq-0-1");
    assert_eq!(json[0]["groups"][0]["replicas"][1]["lagBytes"], 4 << 20);
    let (_, error) = text(&place.plugin(&["status", "other"]).await, 4);
    assert!(error.contains("broker/other"), "{error}");
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_switchover_asks_the_operator_and_waits_for_the_record() {
    let place = Place::new().await;
    let operator = async {
        assert_eq!(place.take_request().await, "mq-0=1");
        place.make_record(2, 1).await;
    };
    let words = ["switchover", "mq", "0", "--to", "1", "--timeout", "15s"];
    let (output, ()) = tokio::join!(place.plugin(&words), operator);
    let (said, _) = text(&output, 0);
    assert_eq!(said, "mq-0-1 is the master of mq-0 now; it was mq-0-0\n");

    let (_, error) = text(&place.plugin(&["switchover", "mq", "0", "--to", "1"]).await, 2);
    assert!(error.contains("mq-0-1 is the master of mq-0 already"), "{error}");
    let (_, error) = text(&place.plugin(&["switchover", "mq", "mq-7"]).await, 4);
    assert!(error.contains("no group mq-7; there are: mq-0"), "{error}");
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_switchover_tells_a_refusal_and_takes_back_what_nobody_took_up() {
    let place = Place::new().await;
    let operator = async {
        assert_eq!(place.take_request().await, "mq-0");
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": { "name": "mq.1", "namespace": place.namespace },
            "eventTime": "2026-11-27T21:00:00.000000Z", "reportingController": "weirmq-operator",
            "reportingInstance": "test", "action": "Reconcile", "type": "Warning",
            "reason": "SwitchoverRefused", "note": "nobody else is in sync",
            "regarding": { "apiVersion": "weirmq.io/v1alpha1", "kind": "Broker", "name": "mq",
                           "namespace": place.namespace },
        });
        let api: Api<Event> = Api::namespaced(place.client.clone(), &place.namespace);
        api.create(&PostParams::default(), &parsed(event)).await.unwrap();
    };
    let (output, ()) = tokio::join!(place.plugin(&["switchover", "mq", "mq-0"]), operator);
    let (_, error) = text(&output, 1);
    assert!(error.contains("nobody else is in sync"), "{error}");

    // The event of before is no refusal of this request.
    let words = ["switchover", "mq", "mq-0", "--timeout", "2s"];
    let (_, error) = text(&place.plugin(&words).await, 3);
    assert!(error.contains("it was taken back"), "{error}");
    assert_eq!(place.annotation(SWITCH_OVER).await, None);
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_promotes_whom_it_may_and_says_what_is_lost() {
    let place = Place::new().await;
    let (_, error) = text(&place.plugin(&["promote", "mq", "0", "--yes"]).await, 2);
    assert!(error.contains("elects its master by itself"), "{error}");
    place.set_failover("Manual").await;
    // Nobody can be asked in a pipe.
    let (_, error) = text(&place.plugin(&["promote", "mq", "0"]).await, 2);
    assert!(
        error.contains("mq-0-1 has every acknowledged message") && error.contains("--yes"),
        "{error}"
    );
    assert_eq!(place.groups().get("mq-0").await.unwrap().spec.promote, None);

    let words = ["promote", "mq", "0", "--yes", "-o", "json"];
    let (output, promote) = tokio::join!(place.plugin(&words), place.elect_the_promoted());
    assert_eq!(promote, json!({ "replica": 1, "epoch": 1 }));
    let (said, told) = text(&output, 0);
    let said: Value = serde_json::from_str(&said).unwrap();
    let done = json!({ "group": "mq-0", "before": "mq-0-0", "master": "mq-0-1", "epoch": 2, "loss": false });
    assert_eq!(said, done);
    assert!(told.contains("written down: mq-0-1 takes over from epoch 1"), "{told}");

    // Replica 0 is not in the set of epoch 2.
    let (_, error) = text(&place.plugin(&["promote", "mq", "0", "--to", "0", "--yes"]).await, 2);
    assert!(error.contains("mq-0-0 lacks acknowledged messages"), "{error}");
    let words = ["promote", "mq", "0", "--to", "0", "--accept-loss", "--yes"];
    let (output, promote) = tokio::join!(place.plugin(&words), place.elect_the_promoted());
    assert_eq!(promote["acceptLoss"], "AcknowledgedMessagesMayBeLost");
    let (said, told) = text(&output, 0);
    assert!(said.contains("epoch 3; acknowledged messages may be missing"), "{said}");
    assert!(told.contains("LACKS acknowledged messages that mq-0-1 have"), "{told}");
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_calls_a_promotion_off_that_did_not_happen() {
    let place = Place::new().await;
    place.set_failover("Manual").await;
    let words = ["promote", "mq", "mq-0", "--to", "1", "--yes", "--timeout", "1s"];
    let (_, error) = text(&place.plugin(&words).await, 3);
    assert!(error.contains("waiting until mq-0-1 sees that mq-0-0 is gone"), "{error}");
    assert!(error.contains("was called off"), "{error}");
    assert_eq!(place.groups().get("mq-0").await.unwrap().spec.promote, None);
    let (_, error) = text(&place.plugin(&["promote", "mq", "mq-7", "--yes"]).await, 4);
    assert!(error.contains("brokergroup/mq-7"), "{error}");
}

fn signal(process: &Child, signal: Signal) {
    let pid = Pid::from_raw(process.id().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_calls_a_promotion_off_that_is_interrupted() {
    let place = Place::new().await;
    let running = place.promote_with_loss().await;
    signal(&running, Signal::INT);
    let ended = tokio::task::spawn_blocking(move || running.wait_with_output());
    let output = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    let (_, error) = text(&output, 1);
    assert!(
        error.contains("error: the promotion was called off: mq-0-1 was not promoted: interrupted"),
        "{error}"
    );
    assert_eq!(place.groups().get("mq-0").await.unwrap().spec.promote, None);
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_calls_a_promotion_off_whose_terminal_is_gone() {
    let place = Place::new().await;
    let mut running = place.promote_with_loss().await;
    // Nobody reads any more, and then it is told so.
    drop(running.stderr.take());
    signal(&running, Signal::HUP);
    let ended = tokio::task::spawn_blocking(move || running.wait());
    let status = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(place.groups().get("mq-0").await.unwrap().spec.promote, None);
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_pause_resume_and_restart_annotate() {
    let place = Place::new().await;
    text(&place.plugin(&["pause", "mq"]).await, 0);
    assert_eq!(place.annotation(PAUSED).await.as_deref(), Some("true"));
    let (_, error) = text(&place.plugin(&["switchover", "mq", "mq-0"]).await, 2);
    assert!(error.contains("kubectl weir resume mq"), "{error}");
    text(&place.plugin(&["resume", "broker/mq"]).await, 0);
    assert_eq!(place.annotation(PAUSED).await, None);
    text(&place.plugin(&["restart", "mq"]).await, 0);
    assert!(place.annotation(RESTARTED_AT).await.unwrap().ends_with('Z'));
    text(&place.plugin(&["restart", "topic/x"]).await, 2);
    text(&place.plugin(&["pause", "topic/x"]).await, 4);
}

#[tokio::test]
#[ignore = "needs the real API server: `make kube`"]
async fn plugin_report_has_everything_but_the_values_of_secrets() {
    let place = Place::new().await;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "mq-replication",
                      "labels": { "app.kubernetes.io/managed-by": "weirmq-operator" },
                      "annotations": { "applied": "open sesame" } },
        "stringData": { "secret": "open sesame" },
    });
    let api: Api<Secret> = Api::namespaced(place.client.clone(), &place.namespace);
    api.create(&PostParams::default(), &parsed(secret)).await.unwrap();
    let env = json!({ "spec": { "pod": { "template": { "spec": { "containers": [
        { "name": "broker", "env": [{ "name": "PASSWORD", "value": "open sesame" }] },
    ] } } } } });
    let parameters = PatchParams::default();
    place.brokers().patch("mq", &parameters, &Patch::Merge(&env)).await.unwrap();
    let (said, _) = text(&place.plugin(&["report", "--file", "r.tar.gz"]).await, 0);
    assert!(said.starts_with("r.tar.gz has "), "{said}");

    let file = std::fs::File::open(place.folder.path().join("r.tar.gz")).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        files.insert(path.split_once('/').unwrap().1.to_owned(), content);
    }
    let ns = &place.namespace;
    let broker = &files[&format!("{ns}/brokers/mq.yaml")];
    assert!(broker.contains("not on one node") && broker.contains("PASSWORD"), "{broker}");
    assert!(files.contains_key(&format!("{ns}/brokergroups/mq-0.yaml")));
    assert!(files["status.json"].contains("mq-0-1"));
    let secret = &files[&format!("{ns}/secrets/mq-replication.yaml")];
    assert!(secret.contains("managed-by"), "{secret}");
    for (name, content) in &files {
        assert!(!content.contains("sesame"), "{name}: {content}");
        assert!(!content.contains("b3BlbiBzZXNhbWU"), "{name}: {content}");
    }
    // No operator runs here, and nobody should have to guess.
    assert!(files["errors.txt"].contains("no pod of it was found"), "{}", files["errors.txt"]);
}
