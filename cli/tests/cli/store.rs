//! `weir store`, on directories that a broker left behind.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::{Server, run};

/// Runs a command and compares its exit code; answers stdout and stderr.
#[track_caller]
fn ends(code: i32, arguments: &[&str]) -> (String, String) {
    let output = run(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, errors) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{errors}");
    (out, errors)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A broker with 30 messages in topic `t` ends by this signal.
fn directory(path: &Path, signal: &str) {
    let server = Server::with_data(path.to_str().unwrap());
    server.ok(&["topic", "create", "t", "--queues", "1"]);
    let lines: String = (0..30).map(|n| format!("message {n:02} {}\n", "x".repeat(200))).collect();
    server.ok_with_input(&["produce", "t", "--tag", "a", "--key", "k"], &lines);
    server.signal(signal);
}

/// Where the body of a message stands in the first segment.
fn find(path: &Path, text: &str) -> u64 {
    let file = std::fs::File::open(path.join("commitlog/00000000000000000000")).unwrap();
    let mut bytes = vec![0; 1 << 20];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap() as u64
}

#[test]
fn a_directory_is_inspected_and_verified_after_a_stop_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["TERM", "KILL"] {
        let path = folder.path().join(signal);
        directory(&path, signal);
        let data = path.to_str().unwrap();
        let (report, _) = ends(0, &["store", "verify", data, "-o", "json"]);
        let report = json(&report);
        assert_eq!(
            (&report["isSound"], &report["wasClosed"]),
            (&true.into(), &(signal == "TERM").into())
        );
        assert!(report["records"].as_u64().unwrap() >= 30);
        let (table, _) = ends(0, &["store", "inspect", data]);
        assert!(
            table.contains("Cluster\tDefaultCluster") && table.contains("START\tEND"),
            "{table}"
        );

        let (entries, _) = ends(
            0,
            &["store", "inspect", data, "--queue", "t:0", "--from", "7", "-n", "1", "-o", "json"],
        );
        let position = json(&entries)[0]["physicalOffset"].to_string();
        let (record, _) = ends(0, &["store", "inspect", data, "--at", &position, "-o", "json"]);
        let record = json(&record);
        assert!(record["body"].as_str().unwrap().starts_with("message 07 "), "{record}");
        assert_eq!((&record["topic"], &record["queueOffset"]), (&"t".into(), &7.into()));
        let (lines, _) =
            ends(0, &["store", "inspect", data, "--at", "0", "-n", "1000", "-o", "json"]);
        let bodies = lines.lines().map(json).filter(|record| record["topic"] == "t").count();
        assert_eq!(bodies, 30);
        let (_, errors) = ends(4, &["store", "inspect", data, "--at", "5"]);
        assert!(errors.contains("it lies in the record from 0"), "{errors}");
        ends(4, &["store", "inspect", data, "--queue", "nobody:0"]);
        ends(2, &["store", "inspect", data, "--queue", "nobody"]);
    }
    let (_, errors) = ends(1, &["store", "inspect", folder.path().to_str().unwrap()]);
    assert!(errors.contains("holds no commitlog folder"), "{errors}");
}

#[test]
fn damage_is_named_and_cut_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    directory(&path, "TERM");
    let data = path.to_str().unwrap();
    let at = find(&path, "message 20");
    let segment = path.join("commitlog/00000000000000000000");
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(b"massage", at).unwrap();

    let (report, errors) = ends(5, &["store", "verify", data, "-o", "json"]);
    let report = json(&report);
    // The block's checksum is wrong as well.
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["kind"] == "log").unwrap();
    assert_eq!(report["isSound"], Value::Bool(false));
    let (from, to) = (finding["from"].as_u64().unwrap(), finding["to"].as_u64().unwrap());
    assert!(from < at && at < to, "{finding}");
    assert!(errors.contains("findings"), "{errors}");

    let (plan, errors) = ends(5, &["store", "repair", data]);
    assert!(plan.contains("would be cut") && plan.contains("t\t9"), "{plan}");
    assert!(errors.contains("add --cut-at-damage"), "{errors}");
    let backup = folder.path().join("copy");
    let (cut, _) = ends(
        0,
        &[
            "store",
            "repair",
            data,
            "--cut-at-damage",
            "--backup",
            backup.to_str().unwrap(),
            "-o",
            "json",
        ],
    );
    assert_eq!((&json(&cut)["at"], &json(&cut)["recordsByTopic"]["t"]), (&from.into(), &9.into()));
    let copy = std::fs::read(backup.join(format!("{from:020}"))).unwrap();
    assert_eq!(copy[(at - from) as usize..][..10], *b"massage 20");
    ends(0, &["store", "verify", data]);
    let (nothing, _) = ends(0, &["store", "repair", data, "--cut-at-damage"]);
    assert!(nothing.contains("nothing to repair"), "{nothing}");

    let server = Server::with_data(data);
    let left = server.ok(&["consume", "t", "-n", "20", "--from", "earliest"]);
    assert_eq!(left.lines().count(), 20);
    server.ok(&["produce", "t", "-m", "goes on"]);
    for command in [&["store", "verify", data][..], &["store", "close", data]] {
        let (_, errors) = ends(1, command);
        assert!(errors.contains("is in use by another process"), "{errors}");
    }
    ends(0, &["store", "inspect", data]);
}

#[test]
fn a_killed_directory_is_closed_and_its_queues_are_exported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    directory(&path, "KILL");
    let data = path.to_str().unwrap();
    assert!(path.join("abort").exists());
    let (closed, _) = ends(0, &["store", "close", data]);
    assert!(closed.starts_with("closed; the log ends at "), "{closed}");
    assert!(!path.join("abort").exists() && path.join("config/topics.json").exists());
    let (report, _) = ends(0, &["store", "verify", data, "-o", "json"]);
    let report = json(&report);
    assert_eq!((&report["wasClosed"], &report["notes"]), (&true.into(), &Value::Array(Vec::new())));

    let to = folder.path().join("queues");
    let (exported, _) =
        ends(0, &["store", "export-queues", data, "--to", to.to_str().unwrap(), "-o", "json"]);
    assert!(json(&exported)["entries"].as_u64().unwrap() >= 30);
    let queue = to.join("consumequeue/t/0/00000000000000000000");
    assert_eq!(std::fs::metadata(queue).unwrap().len(), 6_000_000);
    ends(1, &["store", "export-queues", data, "--to", to.to_str().unwrap()]);
}

#[test]
fn where_groups_are_with_queues_that_nobody_knows_any_more_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let config = folder.path().join("weir.toml");
    let text = "[broker.store]\nsegment_bytes = 2097152\nfree_bytes_min = 4096\n\
                [broker.limits]\nmessage_bytes_max = 131072\n";
    std::fs::write(&config, text).unwrap();
    let data = path.to_str().unwrap();
    let arguments = ["standalone", "--config", config.to_str().unwrap(), "--data", data];
    let ports = ["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"];
    let server = Server::start(&[&arguments[..], &ports].concat());
    for topic in ["lost", "filler"] {
        server.ok(&["topic", "create", topic, "--queues", "1"]);
    }
    server.ok_with_input(&["produce", "lost"], &"x\n".repeat(12));
    // Longer ones would be compressed.
    let line = format!("{}\n", "f".repeat(3_000));
    server.ok_with_input(&["produce", "filler"], &line.repeat(800));
    // In another segment than the messages, so that only the messages are lost.
    server.ok(&["consume", "lost", "--group", "g", "-n", "12"]);
    assert_eq!(server.signal("TERM").0, Some(0));
    for lost in ["commitlog", "weir/queues"] {
        std::fs::remove_file(path.join(lost).join("00000000000000000000")).unwrap();
    }
    let (given_up, errors) =
        ends(0, &["store", "repair", data, "--accept-missing-start", "-o", "json"]);
    assert!(
        errors.contains("queue 0 of lost goes on at 0, and groups have committed 12"),
        "{errors}"
    );
    let expected = serde_json::json!([{ "topic": "lost", "queue": 0, "next": 0, "committed": 12 }]);
    assert_eq!(json(&given_up)["queuesBehind"], expected, "{given_up}");
    ends(0, &["store", "verify", data]);
}

#[test]
fn damage_that_the_scrub_found_is_told_and_not_served_but_the_rest_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    directory(&path, "TERM");
    let at = find(&path, "message 20");
    let kept =
        format!(r#"{{"position":0,"damaged":[{{"from":{at},"to":{},"reason":"rot"}}]}}"#, at + 9);
    let text = format!("weir1 {:08x}\n{kept}", crc32fast::hash(kept.as_bytes()));
    std::fs::write(path.join("weir/scrub"), text).unwrap();
    let server = Server::with_data(path.to_str().unwrap());
    let ready = server.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("broker/log degraded"), "{ready}");
    let metrics = server.get("/metrics");
    let is_told = |line: &str| line.starts_with("weirmq_log_damaged_bytes") && line.ends_with(" 9");
    assert!(metrics.lines().any(is_told), "{metrics}");
    server.ok(&["produce", "t", "-m", "goes on"]);
}
