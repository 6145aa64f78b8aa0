//! The configuration file, changed while the program runs.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Server;

/// Two looks at the file and the disk's time; on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(server: &Server) -> Value {
    let answer = server.get("/config");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Waits until `/config` is as wanted.
fn until(server: &Server, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let now = config(server);
        if wanted(&now) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "waited for {what}: {now}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start(file: &Path) -> Server {
    let mut arguments = vec!["standalone", "--ephemeral", "--config", file.to_str().unwrap()];
    arguments.extend(["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"]);
    arguments.extend(["--log-level", "error"]);
    Server::start(&arguments)
}

#[test]
fn a_changed_file_is_taken_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    // As the kubelet has it: the file's folder is a link that is swapped.
    let version = |name: &str, text: &str| {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("weir.toml"), text).unwrap();
        std::os::unix::fs::symlink(name, folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), folder.path().join("..data")).unwrap();
    };
    version("1", "[broker]\nauto_create_topics = false\n");
    let file = folder.path().join("weir.toml");
    std::os::unix::fs::symlink("..data/weir.toml", &file).unwrap();
    let server = start(&file);
    let first = config(&server);
    assert_eq!((&first["error"], &first["needs_restart"]), (&Value::Null, &serde_json::json!([])));
    let refused = server.command(&["produce", "made", "-m", "x"]).output().unwrap();
    assert!(!refused.status.success());

    version(
        "2",
        "[broker]\nauto_create_topics = false\n[broker.store]\nretention_at_hours = [24]\n",
    );
    let bad = until(&server, "the error", |now| !now["error"].is_null());
    assert!(bad["error"].as_str().unwrap().contains("store.retention_at_hours is 24"), "{bad}");
    assert_eq!(bad["sha256"], first["sha256"]);
    let ready = server.get("/readyz?verbose");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains("broker/configuration degraded"), "{ready}");
    let metrics = server.get("/metrics");
    let applied =
        metrics.lines().find(|line| line.starts_with("weirmq_configuration_file_applied{"));
    assert!(applied.unwrap().ends_with(" 0"), "{applied:?}");

    version(
        "3",
        "[listen]\nbind = '0.0.0.0'\n[broker]\nauto_create_topics = true\nio_threads = 3\n",
    );
    let good = until(&server, "another file", |now| now["sha256"] != first["sha256"]);
    assert_eq!(good["error"], Value::Null);
    assert_eq!(good["needs_restart"], serde_json::json!(["io_threads", "listen"]));
    server.ok(&["produce", "made", "-m", "x"]);
    assert_eq!(server.ok(&["consume", "made", "-n", "1"]), "x\n");
}
