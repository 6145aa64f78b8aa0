//! Who is refused at the replication port, and why; and who is still served there.

mod common;
#[path = "common/group.rs"]
mod group;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use weirmq_client::Message;

use common::random::{Random, seed};
use common::server::{Server, Starting, weir};
use group::{Group, Liar, TOPIC, http, is_ok, log, replication_port, until};

/// Kinds of frames.
const HELLO: u8 = 1;
const PROOF: u8 = 2;
const REFUSED: u8 = 3;

/// What was refused so far, by reason.
fn refusals(server: &Server) -> BTreeMap<String, u64> {
    let metrics = http(&server.admin, "GET /metrics HTTP/1.0\r\n\r\n");
    let of_refusals = metrics.lines().filter(|line| line.starts_with("weirmq_refused_replicas{"));
    let parsed = of_refusals.map(|line| {
        let reason = line.split("reason=\"").nth(1).unwrap().split('"').next().unwrap();
        (reason.to_owned(), line.rsplit_once(' ').unwrap().1.parse().unwrap())
    });
    parsed.collect()
}

fn metric(server: &Server, name: &str) -> Option<u64> {
    let metrics = http(&server.admin, "GET /metrics HTTP/1.0\r\n\r\n");
    let line = metrics.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// The hello of a replica of the group, as version 1 of the protocol says it.
fn hello(replica: u32) -> Value {
    json!({
        "protocol": 1, "protocolMin": 1, "cluster": "DefaultCluster", "group": "broker-a",
        "member": { "replica": replica, "incarnation": "0000000000000007" },
        "segmentBytes": 1_048_576, "address": "",
        "nonce": "9f0e3ed2-3d0f-4b4f-8d7e-0d1f0a3c5b77",
    })
}

/// What a slave of the first epoch reports that has the log up to `end`.
fn report(member: &Value, end: u64, second: u64) -> String {
    let report = json!({
        "from": member, "promised": 1, "promised_version": 0, "refuses": false,
        "position": { "epoch": 1, "end": end, "flushed": end }, "leads": null, "follows": 1,
        "lost": null, "confirmed": 0, "sent": { "secs": second, "nanos": 0 }, "echo": null,
    });
    report.to_string()
}

/// A handshake with somebody who trusts everybody.
fn meet(liar: &mut Liar, hello: &Value) {
    liar.say(HELLO, hello.to_string().as_bytes());
    let known: Value = serde_json::from_slice(&liar.hear(HELLO).unwrap()).unwrap();
    assert_eq!(known["member"]["replica"], 0);
    liar.hear(PROOF).unwrap();
    liar.say(PROOF, b"");
}

fn insecure_master(group: &Group) -> Server {
    let mut command = weir();
    command.args(["broker", "--bind", "127.0.0.1", "--admin-port", "0", "--broker-port", "0"]);
    command.args(["--config", &group.path("weir.toml"), "-n", &group.namesrv.namesrv]);
    command.args(["--log-level", "warn", "--replication-insecure"]);
    command.args(["--replication", "sync", "--min-in-sync", "1"]);
    command.arg("--data").arg(group.data(0)).stdin(Stdio::null());
    Starting::spawn(&mut command).ready()
}

#[test]
fn whoever_has_no_business_on_the_replication_port_is_refused_once_in_the_log() {
    let seed = seed();
    let mut random = Random::new(seed);
    let mut group = Group::new(&["--replication", "sync", "--min-in-sync", "1"]);
    group.log_level = "warn";
    let master = group.master();
    let port = replication_port(&master.broker);
    for round in 0..60 {
        let mut stream = TcpStream::connect(&port).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = random.below(2_000) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        if round % 2 == 0 && bytes.len() > 5 {
            // A frame that says its length and kind.
            let claimed = (bytes.len() as u32 - 4).to_be_bytes();
            bytes[..4].copy_from_slice(&claimed);
            bytes[4] = 1 + random.below(15) as u8;
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 1_000, "seed {seed}: {} bytes for a stranger", answer.len());
    }
    // Hellos of whom it does not know. Each comes back, and is refused each time.
    let with = |name: &str, value: Value| {
        let mut hello = hello(1);
        hello[name] = value;
        hello
    };
    let mut newer = with("protocol", json!(9));
    newer["protocolMin"] = json!(8);
    let others = [
        ("Protocol", newer, "replication protocols 8..=9 and 1..=2 have none in common"),
        ("OtherGroup", with("group", json!("broker-b")), "group broker-b of cluster"),
        ("OtherGroup", with("cluster", json!("elsewhere")), "of cluster elsewhere"),
        ("OwnId", hello(0), "both are replica 0"),
        ("SegmentLength", with("segmentBytes", json!(1 << 30)), "set store.segment_bytes"),
    ];
    for (_, hello, why) in &others {
        for _ in 0..3 {
            let mut liar = Liar::connect(&port);
            liar.say(HELLO, hello.to_string().as_bytes());
            let told = String::from_utf8(liar.hear(REFUSED).unwrap()).unwrap();
            assert!(told.contains(why), "{told}");
            assert_eq!(liar.hear_any(), None);
        }
    }
    // Who knows the group, and not its secret.
    let mut liar = Liar::connect(&port);
    liar.say(HELLO, hello(1).to_string().as_bytes());
    liar.hear(PROOF).unwrap();
    liar.say(PROOF, &[7; 32]);
    let told = String::from_utf8(liar.hear(REFUSED).unwrap()).unwrap();
    assert!(told.contains("the secrets of the two replicas differ"), "{told}");
    // Who is refused is told, or disconnected, before it is counted.
    let mut counts = BTreeMap::new();
    until("all are counted", || {
        counts = refusals(&master);
        counts.values().sum::<u64>() > 60 + 3 * others.len() as u64
    });
    let count = |reason: &str| counts.get(reason).copied().unwrap_or(0);
    let random = ["Silent", "NoReplica", "ByPeer"].map(count);
    assert_eq!(random.iter().sum::<u64>(), 60, "seed {seed}: {counts:?}");
    for (reason, expected) in
        [("Protocol", 3), ("OtherGroup", 6), ("OwnId", 3), ("SegmentLength", 3), ("Secret", 1)]
    {
        assert_eq!(count(reason), expected, "{reason} of {counts:?}");
    }
    // Another secret.
    std::fs::write(group.folder.path().join("secret"), "what somebody guessed").unwrap();
    let stranger = group.start(1, &["--broker-port", "0", "--master", &port]);
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 100)), "seed {seed}");
    until("it refuses the master", || refusals(&master).get("ByPeer") > Some(&random[2]));
    let (was_ready, errors) = { stranger }.kill();
    assert!(!was_ready, "seed {seed}: {errors}");
    assert!(log(&group.data(1)).is_empty(), "seed {seed}");
    let (status, errors) = master.terminate();
    assert!(status.success(), "seed {seed}: {errors}");
    for (reason, ..) in &others {
        let said = errors.lines().filter(|line| line.contains(&format!("\"{reason}\""))).count();
        assert_eq!(said, 1, "{reason} in {errors}");
    }
    group.runtime.block_on(client.shutdown());
}

/// Passes a connection on, and keeps what the one who dialled sends.
fn overheard(listener: &TcpListener, to: &str, bytes: usize) -> Vec<u8> {
    let (mut dialler, _) = listener.accept().unwrap();
    let mut other = TcpStream::connect(to).unwrap();
    let (mut back_from, mut back_to) = (other.try_clone().unwrap(), dialler.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
    let mut kept = Vec::new();
    while kept.len() < bytes {
        let mut some = [0; 4096];
        let read = dialler.read(&mut some).unwrap();
        if read == 0 {
            break;
        }
        other.write_all(&some[..read]).unwrap();
        kept.extend_from_slice(&some[..read]);
    }
    kept
}

#[test]
fn a_handshake_that_was_overheard_is_of_no_use() {
    let group = Group::new(&["--replication", "sync", "--min-in-sync", "1"]);
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 100)));
    let port = replication_port(&master.broker);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap().to_string();
    let slave = group.start(1, &["--broker-port", "0", "--master", &between]);
    // Hello and proof; the rest are reports.
    let mut kept = overheard(&listener, &port, 1_000);
    let hello_bytes = 4 + u32::from_be_bytes(*kept.first_chunk().unwrap()) as usize;
    kept.truncate(hello_bytes + 4 + 1 + 32);
    assert_eq!((kept[4], kept[hello_bytes + 4]), (HELLO, PROOF));
    let (_, errors) = { slave }.kill();
    assert!(errors.is_empty(), "{errors}");
    assert!(refusals(&master).is_empty());
    let mut again = Liar::connect(&port);
    again.0.write_all(&kept).unwrap();
    again.hear(PROOF).unwrap();
    let told = String::from_utf8(again.hear(REFUSED).unwrap()).unwrap();
    assert!(told.contains("the secrets of the two replicas differ"), "{told}");
    // It is told before it is counted.
    until("it is counted", || refusals(&master) == [("Secret".to_owned(), 1)].into());
    group.runtime.block_on(client.shutdown());
}

#[test]
fn a_second_process_with_a_slaves_id_is_kept_out() {
    let mut group = Group::new(&["--replication", "sync", "--min-in-sync", "2"]);
    group.log_level = "warn";
    let master = group.master();
    let slave = group.slave(1, &master);
    let (client, producer) = group.client();
    until("the slave is in sync", || is_ok(&group.send(&producer, 0, 1)));
    // With a directory of its own.
    let twin = Group { folder: tempfile::tempdir().unwrap(), ..group };
    for name in ["weir.toml", "secret"] {
        let text = if name == "secret" { "only the replicas know" } else { group::CONFIG };
        std::fs::write(twin.path(name), text).unwrap();
    }
    let port = replication_port(&master.broker);
    let second = twin.start(1, &["--broker-port", "0", "--master", &port]);
    until("it was refused often", || {
        refusals(&master).get("TwoProcesses").is_some_and(|count| *count >= 3)
    });
    assert!(is_ok(&twin.send(&producer, 1, 50)), "the first one goes on");
    let (_, errors) = { second }.kill();
    assert!(errors.contains("another process is replica 1 and connected"), "{errors}");
    assert!(log(&twin.data(1)).is_empty());
    drop(slave);
    let (_, errors) = master.terminate();
    assert_eq!(errors.matches("TwoProcesses").count(), 1, "{errors}");
    twin.runtime.block_on(client.shutdown());
}

#[test]
fn a_longer_log_that_parted_from_its_masters_is_cut_where_it_did() {
    let mut group = Group::new(&["--replication", "async"]);
    group.log_level = "warn";
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 200)));
    let slave = group.slave(1, &master);
    until("the slave has everything", || log(&group.data(1)) == log(&group.data(0)));
    slave.kill();
    let address = master.broker.clone();
    // Nobody else gets these.
    assert!(is_ok(&group.send(&producer, 200, 600)));
    master.kill();
    // The two change places.
    let aside = group.folder.path().join("aside");
    std::fs::rename(group.data(0), &aside).unwrap();
    std::fs::rename(group.data(1), group.data(0)).unwrap();
    std::fs::rename(&aside, group.data(1)).unwrap();
    let master = group.master_at(&address);
    until("it takes messages", || is_ok(&group.send(&producer, 1_000, 1)));
    assert!(is_ok(&group.send(&producer, 1_001, 100)));
    let slave = group.slave(1, &master);
    until("both are the same", || log(&group.data(1)) == log(&group.data(0)));
    let cut = metric(&slave, "weirmq_replica_begun_anew_total{");
    assert_eq!(cut, Some(1));
    let numbers: Vec<u64> = (0..200).chain(1_000..1_101).collect();
    assert_eq!(group.read(&client, "readers"), numbers);
    let (status, errors) = slave.terminate();
    assert!(status.success(), "{errors}");
    assert_eq!(errors.matches("the log has to be cut to follow").count(), 1, "{errors}");
    drop(master);
    group.runtime.block_on(client.shutdown());
}

/// A peer of version 1, as it was recorded from one. Its frames are in `version_1.rs` of the broker.
#[test]
fn a_replica_of_the_version_before_is_served_and_asked_for_nothing_new() {
    let mut group = Group::new(&[]);
    group.log_level = "warn";
    let config =
        group::CONFIG.replace("[broker.store]\n", "[broker.store]\nscrub_hours = 0.0003\n");
    std::fs::write(group.path("weir.toml"), config).unwrap();
    let master = insecure_master(&group);
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 900)));
    let mut old = Liar::connect(&replication_port(&master.broker));
    meet(&mut old, &hello(1));
    // It has the whole log, and reports so.
    old.say(5, br#"{"epoch":1}"#);
    let lead: Value = serde_json::from_slice(&old.hear(6).unwrap()).unwrap();
    let end = lead["end"].as_u64().unwrap();
    old.say(7, br#"{"epoch":1,"from":0}"#);
    let mut log_bytes = 0;
    while log_bytes < end {
        let contents = old.hear(8).unwrap();
        log_bytes =
            u64::from_be_bytes(contents[8..16].try_into().unwrap()) + contents.len() as u64 - 20;
    }
    let report = |second| report(&hello(1)["member"], end, second);
    old.say(4, report(1).as_bytes());
    // What is damaged at the master it would not understand to be asked for.
    until("blocks have checksums", || {
        old.say(4, report(2).as_bytes());
        metric(&master, "weirmq_log_scrubbed_bytes").unwrap() > 8 << 20
    });
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(group.data(0).join("commitlog/00000000000000000000"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 100_000).unwrap();
    until("the damage is found", || {
        old.say(4, report(3).as_bytes());
        metric(&master, "weirmq_log_damaged_bytes") == Some(16_384)
    });
    for second in 4..14 {
        old.say(4, report(second).as_bytes());
        let (kind, _) = old.hear_any().unwrap();
        assert!(kind <= 10, "kind {kind} is of a later version");
    }
    assert_eq!(refusals(&master), BTreeMap::new());
    group.runtime.block_on(client.shutdown());
}

#[test]
fn who_follows_in_another_epoch_or_asks_for_what_is_not_there_is_refused() {
    let group = Group::new(&[]);
    let master = insecure_master(&group);
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 100)));
    let port = replication_port(&master.broker);
    let mut liar = Liar::connect(&port);
    meet(&mut liar, &hello(1));
    for _ in 0..3 {
        liar.say(5, br#"{"epoch":7}"#);
        let told = String::from_utf8(liar.hear(REFUSED).unwrap()).unwrap();
        assert!(told.contains("this replica does not lead in epoch 7"), "{told}");
    }
    // Nothing is sent to one who asks in an epoch that is not.
    liar.say(7, br#"{"epoch":7,"from":0}"#);
    liar.say(5, br#"{"epoch":1}"#);
    liar.hear(6).unwrap();
    liar.say(7, br#"{"epoch":1,"from":1099511627776}"#);
    assert_eq!(liar.hear(8), None);
    let expected = [("Epoch".to_owned(), 3), ("FutureFetch".to_owned(), 1)];
    assert_eq!(refusals(&master), expected.into());
    let (status, errors) = master.terminate();
    assert!(status.success(), "{errors}");
    assert_eq!(errors.matches("\"Epoch\"").count(), 1, "{errors}");
    group.runtime.block_on(client.shutdown());
}

#[test]
fn the_next_start_of_a_replica_that_was_disconnected_is_heard_at_once() {
    let group = Group::new(&[]);
    let master = insecure_master(&group);
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 100)));
    let port = replication_port(&master.broker);
    let mut first = Liar::connect(&port);
    meet(&mut first, &hello(1));
    first.say(5, br#"{"epoch":1}"#);
    let lead: Value = serde_json::from_slice(&first.hear(6).unwrap()).unwrap();
    let end = lead["end"].as_u64().unwrap();
    // As one that follows nobody yet.
    let waits = report(&hello(1)["member"], 0, 1).replace("\"follows\":1", "\"follows\":null");
    first.say(4, waits.as_bytes());
    first.say(7, br#"{"epoch":1,"from":1099511627776}"#);
    assert_eq!(first.hear(8), None);
    let mut started = hello(1);
    started["member"]["incarnation"] = json!("0000000000000008");
    let mut second = Liar::connect(&port);
    meet(&mut second, &started);
    second.say(5, br#"{"epoch":1}"#);
    second.hear(6).unwrap();
    // Once: where it was not heard now it never is.
    second.say(4, report(&started["member"], end, 1).as_bytes());
    until("it is in sync", || metric(&master, "weirmq_in_sync_replicas") == Some(2));
    group.runtime.block_on(client.shutdown());
}

#[test]
fn a_replica_that_reports_more_than_it_was_sent_is_disconnected() {
    let folder = Group::new(&[]);
    let master = insecure_master(&folder);
    let (client, producer) = folder.client();
    // More than a connection holds that nobody reads from.
    let mut random = Random::new(seed());
    let body: Vec<u8> = (0..100_000).map(|_| random.below(256) as u8).collect();
    folder.runtime.block_on(async {
        for _ in 0..300 {
            producer.send(Message::new(TOPIC, body.clone())).await.unwrap();
        }
    });
    // It is accepted each time before it lies.
    for round in 1..=3 {
        let mut liar = Liar::connect(&replication_port(&master.broker));
        meet(&mut liar, &hello(1));
        liar.say(5, br#"{"epoch":1}"#);
        let lead: serde_json::Value = serde_json::from_slice(&liar.hear(6).unwrap()).unwrap();
        let end = lead["end"].as_u64().unwrap();
        assert!(end > 20_000_000, "{end}");
        liar.say(7, br#"{"epoch":1,"from":0}"#);
        liar.hear(8).unwrap();
        // It cannot have all of it: it has read one frame, and a connection holds a few MB.
        liar.say(4, report(&hello(1)["member"], end, 1).as_bytes());
        while liar.hear(8).is_some() {}
        assert_eq!(refusals(&master), [("FutureReport".to_owned(), round)].into());
        assert_eq!(metric(&master, "weirmq_replica_complaint"), Some(0), "its own part it does");
    }
    let (status, errors) = master.terminate();
    assert!(status.success(), "{errors}");
    assert_eq!(errors.matches("FutureReport").count(), 1, "{errors}");
    folder.runtime.block_on(client.shutdown());
}
