//! The tools, against a server of their own.

use crate::support::{Server, run};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn what_is_produced_is_consumed() {
    let server = Server::ephemeral();
    server.ok(&["topic", "create", "t", "--queues", "2"]);
    let sent = server.ok(&[
        "produce", "t", "-m", "one", "-m", "two", "--key", "k", "--tag", "a", "-p", "x=y", "-o",
        "json",
    ]);
    let sent: Vec<_> = lines(&sent).into_iter().map(json).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0]["status"], "SEND_OK");
    let piped =
        server.ok_with_input(&["produce", "t", "--queue", "1", "--tag", "b"], "three\nfour\n");
    let cells: Vec<_> = lines(&piped)[1].split('\t').collect();
    assert_eq!((cells.len(), cells[2], cells[4]), (5, "1", "SEND_OK"));

    let bodies = server.ok(&["consume", "t", "-n", "4"]);
    let mut bodies = lines(&bodies);
    bodies.sort_unstable();
    assert_eq!(bodies, ["four", "one", "three", "two"]);
    let tagged = server.ok(&["consume", "t", "-n", "2", "--tags", "b || c", "--queue", "1"]);
    assert_eq!(tagged, "three\nfour\n");

    let first = server.ok(&["consume", "t", "-n", "1", "--tags", "a", "-o", "json"]);
    let first = json(&first);
    assert_eq!(
        (&first["topic"], &first["tag"], &first["keys"][0]),
        (&"t".into(), &"a".into(), &"k".into())
    );
    assert_eq!(first["properties"]["x"], "y");
    let details = server.ok(&["consume", "t", "-n", "1", "--details"]);
    assert_eq!(details.trim_end().split('\t').count(), 8);
}

#[test]
fn a_group_goes_on_where_it_was() {
    let server = Server::ephemeral();
    server.ok(&["topic", "create", "t", "--queues", "1"]);
    server.ok(&["produce", "t", "-m", "1", "-m", "2", "-m", "3"]);
    assert_eq!(server.ok(&["consume", "t", "--group", "g", "-n", "1"]), "1\n");
    assert_eq!(server.ok(&["consume", "t", "-g", "g", "-n", "2"]), "2\n3\n");
    let described = json(&server.ok(&["group", "describe", "g", "--topic", "t", "-o", "json"]));
    assert_eq!((&described["lag"], &described["queues"][0]["committed"]), (&0.into(), &3.into()));
    let error = server.fails(3, &["consume", "t", "-g", "g", "-n", "1", "--timeout", "300ms"]);
    assert!(error.contains("0 of 1 messages came"), "{error}");
    assert_eq!(server.ok(&["consume", "t", "-g", "g", "--timeout", "300ms"]), "");
}

#[test]
fn a_batch_and_a_count_and_a_file_arrive_whole() {
    let server = Server::ephemeral();
    server.ok(&["topic", "create", "t", "--queues", "1"]);
    let input: String = (0..250).map(|n| format!("{n}\n")).collect();
    let sent = server.ok_with_input(&["produce", "t", "--batch", "100"], &input);
    assert_eq!(lines(&sent).len(), 250);
    assert_eq!(server.ok(&["consume", "t", "-n", "250"]), input);

    let quiet = server.ok(&["produce", "t", "-m", "x", "-n", "20", "--rate", "1000", "--quiet"]);
    assert_eq!(quiet, "");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    std::fs::write(&file, "line\nline").unwrap();
    server.ok(&["produce", "t", "--file", file.to_str().unwrap()]);
    let tail = server.ok(&["consume", "t", "-n", "271", "-o", "json"]);
    assert_eq!(json(lines(&tail)[270])["body"], "line\nline");
}

#[test]
fn topics_are_created_changed_listed_and_deleted() {
    let server = Server::ephemeral();
    let created = json(
        &server.ok(&["topic", "create", "t", "--queues", "3", "--type", "fifo", "-o", "json"]),
    );
    assert_eq!((&created["created"], &created["brokers"][0]), (&true.into(), &"broker-a".into()));
    assert!(server.fails(1, &["topic", "create", "t"]).contains("exists already"));
    server.ok(&["topic", "create", "t", "--if-not-exists"]);
    server.ok(&["topic", "update", "t", "--queues", "5", "--perm", "r"]);
    let listed = json(&server.ok(&["topic", "list", "-o", "json"]));
    assert_eq!(listed.as_array().unwrap().len(), 1, "no system topics: {listed}");
    assert_eq!(
        (&listed[0]["readQueues"], &listed[0]["perm"], &listed[0]["type"]),
        (&5.into(), &"r".into(), &"FIFO".into())
    );
    assert!(server.ok(&["topic", "list", "--all"]).contains("TBW102"));
    let status = server.ok(&["topic", "status", "t"]);
    assert_eq!(lines(&status).len(), 6);
    let route = json(&server.ok(&["topic", "route", "t", "-o", "json"]));
    assert_eq!(route[0]["addresses"]["0"], server.address("broker"));
    server.ok(&["topic", "delete", "t"]);
    assert!(server.fails(4, &["topic", "status", "t"]).contains("does not exist"));
    assert!(server.fails(4, &["consume", "t"]).contains("does not exist"));
    server.fails(4, &["topic", "delete", "t"]);
    server.fails(4, &["topic", "create", "x", "--broker", "nobody"]);
    assert!(server.fails(2, &["topic", "create", "a/b"]).contains("illegal"));
}

#[test]
fn groups_are_created_changed_described_and_deleted() {
    let server = Server::ephemeral();
    server.ok(&["group", "create", "g", "--retries", "3", "--orderly"]);
    assert!(server.fails(1, &["group", "create", "g"]).contains("exists already"));
    server.ok(&["group", "update", "g", "--consume", "false"]);
    let listed = json(&server.ok(&["group", "list", "-o", "json"]));
    let group = &listed[0];
    assert_eq!(listed.as_array().unwrap().len(), 1, "no system groups: {listed}");
    assert_eq!(
        (&group["retries"], &group["orderly"], &group["consume"]),
        (&3.into(), &true.into(), &false.into())
    );
    assert!(server.ok(&["group", "describe", "g"]).contains("no member is connected"));
    server.ok(&["group", "delete", "g"]);
    server.fails(4, &["group", "describe", "g"]);
}

#[test]
fn a_message_is_found_by_its_ids_and_its_key() {
    let server = Server::ephemeral();
    let sent = json(&server.ok(&["produce", "t", "-m", "body", "--key", "k1 k2", "-o", "json"]));
    let id = |name: &str| sent[name].as_str().unwrap().to_owned();
    let by_offset = json(&server.ok(&["message", "view", &id("offsetMsgId"), "-o", "json"]));
    assert_eq!((&by_offset["body"], &by_offset["msgId"]), (&"body".into(), &sent["msgId"]));
    let by_key = server.ok(&["message", "view", "--topic", "t", &id("msgId")]);
    assert!(by_key.ends_with("\n\nbody\n") && by_key.contains("KEYS\tk1 k2"), "{by_key}");
    let found =
        json(&server.ok(&[
            "message", "query", "--topic", "t", "--key", "k2", "--begin", "1h", "-o", "json",
        ]));
    assert_eq!(found[0]["msgId"], sent["msgId"]);
    server.fails(4, &["message", "query", "--topic", "t", "--key", "k3"]);
    assert!(server.fails(2, &["message", "view", "nonsense"]).contains("--topic"));
}

#[test]
fn the_cluster_and_its_table_are_shown() {
    let server = Server::ephemeral();
    let status = json(&server.ok(&["cluster", "status", "-o", "json"]));
    assert_eq!(status[0]["broker"], "broker-a");
    assert_eq!((&status[0]["role"], &status[0]["epoch"]), (&"master".into(), &0.into()));
    assert_eq!((&status[0]["inSync"], &status[0]["lagBytes"]), (&true.into(), &0.into()));
    assert!(server.ok(&["cluster", "status", "--broker", "broker-a"]).contains("bootTimestamp"));
    for what in ["log", "queues", "topics"] {
        let said = server.ok(&["cluster", "clean", what, "--broker", "broker-a"]);
        assert_eq!(said, "broker-a was asked to clean\n");
    }
    server.ok(&["kv", "put", "ns", "key", "value"]);
    assert_eq!(server.ok(&["kv", "list", "ns"]), "KEY\tVALUE\nkey\tvalue\n");
    server.ok(&["kv", "delete", "ns", "key"]);
    server.fails(4, &["kv", "get", "ns", "key"]);
}

#[test]
fn a_tail_follows_and_ends_with_the_pipe_or_ctrl_c() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    let server = Server::ephemeral();
    server.ok(&["topic", "create", "t", "--queues", "1"]);
    server.ok(&["produce", "t", "-m", "old"]);
    let mut tail =
        server.command(&["tail", "t", "--from", "1h"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(out.next().unwrap().unwrap(), "old");
    server.ok(&["produce", "t", "-m", "new"]);
    assert_eq!(out.next().unwrap().unwrap(), "new");
    Command::new("kill").args(["-INT", &tail.id().to_string()]).status().unwrap();
    assert_eq!(tail.wait().unwrap().code(), Some(0));

    let mut tail = server
        .command(&["tail", "t", "--from", "earliest"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(tail.stdout.take());
    assert_eq!(tail.wait().unwrap().code(), Some(0), "a closed pipe is no failure");
}

#[test]
fn errors_say_what_to_try() {
    let output = run(&["topic", "list", "--namesrv", "127.0.0.1:1"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("nothing listens at 127.0.0.1:1: start it with `weir`"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert_eq!(run(&["topic", "list", "--namesrv", "nowhere"]).status.code(), Some(2));
    assert_eq!(run(&["consume", "t", "--timeout", "10"]).status.code(), Some(2));
    assert_eq!(run(&["topics"]).status.code(), Some(2));
}

#[test]
fn completions_and_help_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(run(&["completion", shell]).stdout).unwrap();
        assert!(script.contains("standalone"), "{shell}");
    }
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.contains("weir produce hello") && !help.contains('\u{1b}'));
}
