//! Replicas that elect their master, and a group whose settings change while it runs.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weirmq_client::{
    Client, ClientConfig, Message, Producer, ProducerConfig, PullConsumer, SendStatus,
};
use weirmq_kube_stand_in::StandIn;
use weirmq_remoting::command::{HeaderWriter, SerializeType};
use weirmq_remoting::net::{NoRequests, connect};
use weirmq_remoting::{RequestCode, ResponseCode};

use common::server::{Server, Starting, weir};

const PATIENCE: Duration = Duration::from_secs(40);
const CONFIG: &str = "[broker.store]\nsegment_bytes = 1048576\nfree_bytes_min = 4096\n\
                      [broker.limits]\nmessage_bytes_max = 131072\n\
                      [broker.replication]\nlease_ms = 3000\n";
const GROUP: &str = "/apis/weirmq.io/v1alpha1/namespaces/default/brokergroups";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

/// A group on addresses of its own: replica N has 127.0.1N.1, and all the same port.
struct Group {
    folder: TempDir,
    stand_in: StandIn,
    namesrv: Server,
    /// Of the stand-in.
    runtime: Runtime,
    port: u16,
}

impl Group {
    fn new(replicas: u32, min_in_sync: u32) -> Self {
        Self::acknowledged_by("AllInSync", replicas, min_in_sync)
    }

    fn acknowledged_by(policy: &str, replicas: u32, min_in_sync: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let stand_in = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            StandIn::start(listener).unwrap()
        });
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"http://{}\"}}}}]\n\
             users: [{{name: u, user: {{}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u, namespace: default}}}}]\n\
             current-context: x\n",
            stand_in.address()
        );
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        std::fs::write(folder.path().join("weir.toml"), CONFIG).unwrap();
        std::fs::write(folder.path().join("secret"), "only the replicas know").unwrap();
        let port = TcpListener::bind("127.0.10.1:0").unwrap().local_addr().unwrap().port();
        let mut command = weir();
        command.args(["namesrv", "--bind", "127.0.0.1", "--namesrv-port", "0"]);
        command.args(["--admin-port", "0", "--log-level", "warn"]).stdin(Stdio::null());
        let namesrv = Starting::spawn(&mut command).ready();
        let group = Self { folder, stand_in, namesrv, runtime, port };
        let spec = json!({
            "replicas": replicas, "flush": "Async",
            "replication": { "mode": "Sync", "ackPolicy": policy, "minInSync": min_in_sync },
        });
        group.make_record(&spec);
        group.send("POST", LEASE, "coordination.k8s.io/v1", "Lease", json!({ "spec": {} }));
        group
    }

    fn send(&self, method: &str, path: &str, version: &str, kind: &str, mut object: Value) {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"] = json!({ "name": "group", "namespace": "default" });
        self.request(method, path, "application/json", &object);
    }

    /// Makes the object that the record is the status of.
    fn make_record(&self, spec: &Value) {
        let object = json!({ "spec": spec });
        self.send("POST", GROUP, "weirmq.io/v1alpha1", "BrokerGroup", object);
    }

    /// The operator changes the group's settings.
    fn change(&self, spec: Value) {
        let path = format!("{GROUP}/group");
        let patch = json!({ "spec": spec });
        self.request("PATCH", &path, "application/merge-patch+json", &patch);
    }

    /// The body of the answer.
    fn request(&self, method: &str, path: &str, media: &str, body: &Value) -> Value {
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\ncontent-type: {media}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let answer = http(&self.stand_in.address().to_string(), &request);
        let is_done = answer.lines().next().is_some_and(|line| line.contains(" 20"));
        assert!(is_done, "{answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where a replica says how it is.
    fn admin(&self, replica: u32) -> String {
        format!("127.0.1{replica}.1:{}", self.port + 1)
    }

    fn start(&self, replica: u32, arguments: &[&str]) -> Starting {
        let mut command = weir();
        command.args(["broker", "--bind", &format!("127.0.1{replica}.1")]);
        command.args(["--admin-port", &(self.port + 1).to_string()]);
        command.args(["--log-level", "error", "--broker-port", &(self.port - 1).to_string()]);
        command.arg("--config").arg(self.path("weir.toml"));
        command.arg("--replication-secret-file").arg(self.path("secret"));
        command.args(["--broker-id", &replica.to_string(), "--kubernetes-group", "group"]);
        command.args(["--peers", &format!("127.0.1{{}}.1:{}", self.port)]);
        command.args(["-n", &self.namesrv.namesrv, "--replication", "sync"]).args(arguments);
        command.env("KUBECONFIG", self.path("kubeconfig"));
        command.arg("--data").arg(self.path(&format!("replica-{replica}"))).stdin(Stdio::null());
        Starting::spawn(&mut command)
    }
}

fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn metric(admin: &str, name: &str) -> Option<u64> {
    let answer = http(admin, "GET /metrics HTTP/1.0\r\n\r\n");
    let line = answer.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn safe_to_restart(server: &Server) -> String {
    http(&server.admin, "GET /safe-to-restart HTTP/1.0\r\n\r\n")
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_settings_of_a_group_change_while_it_runs_and_replicas_come_and_go() {
    let group = Group::new(2, 1);
    let first = [group.start(0, &[]), group.start(1, &[])].map(Starting::ready);
    let master = || first.iter().find(|it| metric(&it.admin, "weirmq_takes_messages") == Some(1));
    let in_sync =
        |count| master().and_then(|it| metric(&it.admin, "weirmq_in_sync_replicas")) == Some(count);
    until("two are in sync", || in_sync(2));

    // Nothing is asked for while nothing changes: the lease is renewed, and that is all.
    group.stand_in.take_requests();
    std::thread::sleep(Duration::from_secs(3));
    let requests = group.stand_in.take_requests();
    let is_renewal = |it: &&String| it.starts_with("PATCH") && it.contains("/leases/");
    let renewals = requests.iter().filter(is_renewal).count();
    // Each of the two may look once, in case the watch does not say.
    assert!(renewals >= 3 && requests.len() - renewals <= 6, "{requests:?}");

    // A third one comes, which the others have never heard of.
    let third = group.start(2, &[]).ready();
    until("it is known not to belong to the group", || {
        safe_to_restart(&third).starts_with("HTTP/1.0 200")
    });
    assert!(in_sync(2));
    group.change(json!({ "replicas": 3 }));
    until("three are in sync", || in_sync(3));

    // From now on it cannot be done without.
    group.change(json!({ "replication": { "minInSync": 3 } }));
    let follower =
        || first.iter().find(|it| metric(&it.admin, "weirmq_is_master") == Some(0)).unwrap();
    until("each is needed", || safe_to_restart(follower()).contains("3 have to be"));
    assert!(third.kill().is_empty());
    let third = group.start(2, &[]).ready();
    until("it is back", || in_sync(3));

    // It is to go.
    group.change(json!({ "replicas": 2, "replication": { "minInSync": 2 } }));
    until("two are in sync", || in_sync(2));
    until("it can go", || safe_to_restart(&third).starts_with("HTTP/1.0 200"));
    let (status, errors) = third.terminate();
    assert!(status.success() && errors.is_empty(), "{errors}");
    assert!(in_sync(2));
    drop(first);
    drop(group.runtime);
}

#[test]
fn a_slave_that_is_told_to_end_is_out_of_the_set_when_it_has() {
    let group = Group::new(3, 2);
    let mut replicas: Vec<_> =
        [0, 1, 2].map(|id| group.start(id, &[])).map(Starting::ready).into_iter().collect();
    let is = |server: &Server, name: &str, value| metric(&server.admin, name) == Some(value);
    let in_sync = |replicas: &[Server], count| {
        replicas.iter().any(|it| {
            is(it, "weirmq_takes_messages", 1) && is(it, "weirmq_in_sync_replicas", count)
        })
    };
    until("three are in sync", || in_sync(&replicas, 3));
    let epoch = metric(&replicas[0].admin, "weirmq_master_epoch");

    let slave = replicas.iter().position(|it| is(it, "weirmq_is_master", 0)).unwrap();
    let (status, errors) = replicas.remove(slave).terminate();
    assert!(status.success() && errors.is_empty(), "{errors}");
    assert!(in_sync(&replicas, 2), "its master waits for it");
    // Now each is needed.
    let other = replicas.iter().find(|it| is(it, "weirmq_is_master", 0)).unwrap();
    until("the other knows that it is needed", || {
        safe_to_restart(other).contains("2 replicas are in sync and heard, and 2 have to be")
    });
    replicas.push(group.start(slave as u32, &[]).ready());
    until("it is back", || in_sync(&replicas, 3));
    assert_eq!(metric(&replicas[0].admin, "weirmq_master_epoch"), epoch, "nobody was elected");

    // The master that ends is not waited for either.
    let master = replicas.iter().position(|it| is(it, "weirmq_is_master", 1)).unwrap();
    let (status, errors) = replicas.remove(master).terminate();
    assert!(status.success() && errors.is_empty(), "{errors}");
    until("another takes messages", || in_sync(&replicas, 2));
}

#[test]
fn what_was_counted_of_a_replica_stays_when_it_begins_anew() {
    let group = Group::new(2, 1);
    let mut both: Vec<_> =
        [0, 1].map(|id| group.start(id, &[])).map(Starting::ready).into_iter().collect();
    let is = |server: &Server, name: &str, value| metric(&server.admin, name) == Some(value);
    let in_sync = |both: &[Server]| {
        both.iter()
            .any(|it| is(it, "weirmq_takes_messages", 1) && is(it, "weirmq_in_sync_replicas", 2))
    };
    until("two are in sync", || in_sync(&both));
    let first = both.iter().position(|it| is(it, "weirmq_is_master", 1)).unwrap();
    let heir = &both[1 - first];
    let counted = |server: &Server| {
        let metrics = http(&server.admin, "GET /metrics HTTP/1.0\r\n\r\n");
        let value = |name: &str, planned: &str| {
            let planned = format!("planned=\"{planned}\"");
            let mut of_name = metrics.lines().filter(|line| line.starts_with(name));
            let line = of_name.find(|line| line.contains(&planned)).unwrap();
            line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
        };
        let failovers = ["weirmq_failovers_total", "weirmq_failover_milliseconds_total"]
            .map(|name| ["false", "true"].map(|planned| value(name, planned)));
        (metric(&server.admin, "weirmq_fenced_appends").unwrap(), failovers)
    };
    let never = [[0, 0], [0, 0]];
    assert_eq!(counted(heir), (0, never));
    let client = connect(&heir.broker, PATIENCE, Default::default(), |_| NoRequests);
    let client = group.runtime.block_on(client).unwrap();
    let code = RequestCode::LockBatchMessageQueue.number();
    let locked = client.call(SerializeType::Json, code, |_| {}, br#"{"mqSet":[]}"#, PATIENCE);
    let locked = group.runtime.block_on(locked).unwrap().command().unwrap().head.code;
    assert_eq!(locked, ResponseCode::ServiceNotAvailable.number());
    assert_eq!(counted(heir), (1, never));

    assert!(both.remove(first).kill().is_empty());
    until("the other takes messages", || is(&both[0], "weirmq_takes_messages", 1));
    let (fenced, failovers) = counted(&both[0]);
    // One of two is no majority: it has waited until the lease of the other was over.
    let [numbers, [unplanned, planned]] = failovers;
    assert!(fenced == 1 && unplanned > 0, "{fenced} {unplanned}");
    assert_eq!((numbers, planned), ([1, 0], 0));
    both.push(group.start(first as u32, &[]).ready());
    until("two are in sync again", || in_sync(&both));
    assert_eq!(counted(&both[1]), (0, never), "its process is another one");

    let switched = weir()
        .args(["cluster", "switch", "broker-a", "--namesrv", &group.namesrv.namesrv])
        .output();
    let switched = switched.unwrap();
    assert!(switched.status.success(), "{switched:?}");
    until("it has begun anew as a slave", || {
        let metrics = http(&both[0].admin, "GET /metrics HTTP/1.0\r\n\r\n");
        let is_anew = |it: &str| {
            it.starts_with("weirmq_replica_begun_anew_total{") && it.contains("log=\"kept\"")
        };
        metrics.lines().any(is_anew) && is(&both[0], "weirmq_is_master", 0)
    });
    assert_eq!(counted(&both[0]), (fenced, failovers));
    until("the other takes messages", || is(&both[1], "weirmq_takes_messages", 1));
    let (_, [numbers, [unplanned, _]]) = counted(&both[1]);
    assert_eq!((numbers, unplanned), ([0, 1], 0), "the master before handed over");
    drop(both);
    drop(group.runtime);
}

#[test]
fn where_a_quorum_acknowledges_the_one_that_has_most_is_elected() {
    let group = Group::acknowledged_by("Quorum", 3, 2);
    let start = |id| group.start(id, &["--ack", "quorum"]);
    let mut replicas: Vec<_> = [0, 1, 2].map(start).map(Starting::ready).into_iter().collect();
    let is = |server: &Server, name: &str, value| metric(&server.admin, name) == Some(value);
    let master =
        |replicas: &[Server]| replicas.iter().position(|it| is(it, "weirmq_takes_messages", 1));
    until("three are in sync", || replicas.iter().any(|it| is(it, "weirmq_in_sync_replicas", 3)));
    let config = ClientConfig {
        name_servers: vec![group.namesrv.namesrv.clone()],
        ..ClientConfig::default()
    };
    let _runtime = group.runtime.enter();
    let client = Client::start(config).unwrap();
    let producer = Producer::start(&client, ProducerConfig::default()).unwrap();
    let send = || group.runtime.block_on(producer.send(Message::new("acknowledged", vec![7; 900])));
    let is_sent = || matches!(send(), Ok(sent) if sent.status == SendStatus::Ok);
    until("it takes messages", is_sent);

    // The slave that would come first, if both had the same, does not get any more.
    let first = master(&replicas).unwrap();
    let mut slaves = (0..3).filter(|it| *it != first);
    let (late, other) = (slaves.next().unwrap(), slaves.next().unwrap());
    replicas[late].pause(true);
    let acknowledged = (0..500).filter(|_| is_sent()).count();
    assert_eq!(acknowledged, 500, "one of two slaves holds up nobody");
    let name = replicas[other].broker.clone();
    let late_name = replicas[late].broker.clone();
    let errors = replicas.remove(first).kill();
    assert!(errors.is_empty(), "{errors}");
    let others: Vec<_> = replicas.iter().filter(|it| it.broker != late_name).collect();
    // For longer than a lease, after which any member of a set that has everything takes over.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(6) {
        let is_alone = others.iter().all(|it| is(it, "weirmq_is_master", 0));
        assert!(is_alone, "elected without a word of the late one");
        std::thread::sleep(Duration::from_millis(100));
    }
    let late = replicas.iter().find(|it| it.broker == late_name).unwrap();
    late.pause(false);
    until("another takes messages", || master(&replicas).is_some());
    assert_eq!(replicas[master(&replicas).unwrap()].broker, name, "the one that has everything");
    until("it acknowledges with the late one", is_sent);
    let stored: u64 = group.runtime.block_on(async {
        let consumer = PullConsumer::new(&client, "readers").unwrap();
        let mut stored = 0;
        for queue in consumer.queues("acknowledged").await.unwrap() {
            stored += consumer.max_offset(&queue).await.unwrap();
        }
        stored
    });
    assert!(stored > 501, "of 502 that were acknowledged {stored} are there");
    group.runtime.block_on(client.shutdown());
}

#[test]
fn a_replica_that_is_configured_otherwise_than_its_group_says_so_and_decides_nothing() {
    let group = Group::new(1, 1);
    let _other = group.start(0, &["--flush", "sync"]);
    let admin = group.admin(0);
    until("it listens", || TcpStream::connect(&admin).is_ok());
    until("it says what is wrong", || {
        let ready = http(&admin, "GET /readyz?verbose HTTP/1.0\r\n\r\n");
        ready.contains(
            "replication Sync and flush async, acknowledged by All, this replica is configured for \
             replication Sync and flush sync",
        )
    });
    assert_eq!(metric(&admin, "weirmq_is_master"), Some(0));
}

#[test]
fn a_slave_closes_connections_that_the_address_of_the_master_led_to_it() {
    let group = Group::new(2, 1);
    for (shared_address, closes) in [("", false), ("master_address = \"127.0.0.1:1\"\n", true)] {
        let section = "[broker.replication.kubernetes]\ngroup = \"group\"\n";
        let config = format!("{CONFIG}{section}{shared_address}");
        std::fs::write(group.path("weir.toml"), config).unwrap();
        let both = [group.start(0, &[]), group.start(1, &[])].map(Starting::ready);
        let is = |server: &Server, name: &str, value| metric(&server.admin, name) == Some(value);
        until("one of them takes messages", || {
            both.iter().any(|it| is(it, "weirmq_takes_messages", 1))
        });
        let slave = both.iter().find(|it| is(it, "weirmq_is_master", 0)).unwrap();
        let client = connect(&slave.broker, PATIENCE, Default::default(), |_| NoRequests);
        let client = group.runtime.block_on(client).unwrap();
        let fields = |writer: &mut HeaderWriter<'_>| {
            for (name, value) in [("producerGroup", "p"), ("topic", "BenchmarkTest")] {
                writer.text(name, value.into());
            }
            for name in ["defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp", "flag"] {
                writer.text(name, "0".into());
            }
        };
        let send = || {
            let code = RequestCode::SendMessage.number();
            let answer = client.call(SerializeType::Json, code, fields, b"lost", PATIENCE);
            group.runtime.block_on(answer).map(|answer| answer.command().unwrap().head.code)
        };
        assert_eq!(send().unwrap(), ResponseCode::ServiceNotAvailable.number());
        if closes {
            until("the connection is closed", || client.is_closed());
        } else {
            assert_eq!(send().unwrap(), ResponseCode::ServiceNotAvailable.number());
        }
    }
}

#[test]
fn a_master_that_is_cut_off_from_everybody_sends_its_clients_away_and_leaves_the_route() {
    let group = Group::new(2, 2);
    let mut both: Vec<_> =
        [0, 1].map(|id| group.start(id, &[])).map(Starting::ready).into_iter().collect();
    let takes_messages = |it: &Server| metric(&it.admin, "weirmq_takes_messages") == Some(1);
    until("one of them takes messages", || both.iter().any(takes_messages));
    let slave = both.iter().position(|it| !takes_messages(it)).unwrap();
    let asks = |address: &str| {
        let client = connect(address, PATIENCE, Default::default(), |_| NoRequests);
        group.runtime.block_on(client).unwrap()
    };
    let namesrv = asks(&group.namesrv.namesrv);
    let is_listed = |broker: &str| {
        let code = RequestCode::GetBrokerClusterInfo.number();
        let answer = namesrv.call(SerializeType::Json, code, |_| {}, b"", PATIENCE);
        let answer = group.runtime.block_on(answer).unwrap();
        String::from_utf8_lossy(answer.body()).contains(broker)
    };
    assert!(both.remove(slave).kill().is_empty());
    let master = &both[0];
    let client = asks(&master.broker);
    until("clients find the master", || is_listed(&master.broker));

    group.stand_in.refuse(true);
    until("its clients are sent away", || client.is_closed());
    until("clients do not find it any more", || !is_listed(&master.broker));
    until("it is not ready", || {
        http(&master.admin, "GET /readyz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 503")
    });

    group.stand_in.refuse(false);
    both.push(group.start(slave as u32, &[]).ready());
    until("one of them takes messages again", || both.iter().any(takes_messages));
    until("clients find it", || both.iter().any(|it| takes_messages(it) && is_listed(&it.broker)));
}

#[test]
fn a_record_that_was_deleted_is_not_obeyed_and_one_that_is_put_back_is() {
    let group = Group::new(2, 1);
    let both = [group.start(0, &[]), group.start(1, &[])].map(Starting::ready);
    let master = || both.iter().find(|it| metric(&it.admin, "weirmq_takes_messages") == Some(1));
    let in_sync = || master().and_then(|it| metric(&it.admin, "weirmq_in_sync_replicas"));
    until("two are in sync", || in_sync() == Some(2));
    let epochs = || both.each_ref().map(|it| metric(&it.admin, "weirmq_master_epoch"));
    let epoch = epochs()[0];
    let (path, media) = (format!("{GROUP}/group"), "application/json");
    let mut newest = Value::Null;
    until("nothing of the record is still to change", || {
        newest = group.request("GET", &path, media, &Value::Null);
        let status = &newest["status"];
        status["phase"] == "Stable" && status["inSyncReplicas"] == "0,1"
    });
    let restored = |record: &Value| {
        group.request("DELETE", &path, media, &Value::Null);
        group.make_record(&newest["spec"]);
        if !record.is_null() {
            let mut object = group.request("GET", &path, media, &Value::Null);
            object["status"] = record.clone();
            group.request("PUT", &format!("{path}/status"), media, &object);
        }
    };
    let complaints = || both.each_ref().map(|it| metric(&it.admin, "weirmq_replica_complaint"));
    let both_say = |what: &str| {
        let request = "GET /readyz?verbose HTTP/1.0\r\n\r\n";
        until(what, || both.iter().all(|it| http(&it.admin, request).contains(what)));
        assert_eq!(complaints(), [Some(1); 2]);
    };
    for _ in 0..2 {
        restored(&Value::Null);
        both_say("it was deleted, or restored from an old copy");
        // Nobody is elected by it, and who led goes on.
        assert!(epochs() == [epoch; 2] && master().is_some());
        restored(&newest["status"]);
        until("nothing is wrong", || complaints() == [Some(0); 2]);
        assert!(epochs() == [epoch; 2] && in_sync() == Some(2));
    }

    // A copy that was good once, of an epoch before the one that both have promised.
    let older = newest["status"].clone();
    let switched = weir()
        .args(["cluster", "switch", "broker-a", "--namesrv", &group.namesrv.namesrv])
        .output();
    let switched = switched.unwrap();
    assert!(switched.status.success(), "{switched:?}");
    let later = epoch.map(|epoch| epoch + 1);
    let mut newer = Value::Null;
    until("the other one is master, and nothing is still to change", || {
        newer = group.request("GET", &path, media, &Value::Null);
        let status = &newer["status"];
        let is_written = status["phase"] == "Stable" && status["inSyncReplicas"] == "0,1";
        is_written && epochs() == [later; 2] && in_sync() == Some(2)
    });
    restored(&older);
    both_say(&format!("the authority record is of epoch {}", epoch.unwrap()));
    assert!(epochs() == [later; 2] && master().is_some());
    restored(&newer["status"]);
    until("nothing is wrong any more", || complaints() == [Some(0); 2]);
    assert!(epochs() == [later; 2] && in_sync() == Some(2));

    for server in both {
        let errors = server.kill();
        let said = errors.matches("was deleted, or restored from").count();
        assert!(
            (1..=6).contains(&said),
            "each time it happened, not each time it was read: {errors}"
        );
    }
    drop(group.runtime);
}
