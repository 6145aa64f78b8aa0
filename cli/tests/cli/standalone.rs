//! `weir standalone`: what it prints, how it starts and how it ends.

use std::path::Path;

use crate::support::{Server, run, skipped, weir};

/// Ports of its own for everything.
const ANY_PORTS: [&str; 6] = ["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"];

fn error_of(arguments: &[&str]) -> (i32, String) {
    let output = run(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    let line = errors.lines().find(|line| line.starts_with("error: "));
    (output.status.code().unwrap(), line.unwrap_or_else(|| panic!("{errors}")).to_owned())
}

#[test]
fn it_prints_one_ready_line_serves_health_and_ends_cleanly() {
    for signal in ["TERM", "INT"] {
        let server = Server::ephemeral();
        for role in ["namesrv", "broker", "admin"] {
            let address: std::net::SocketAddr = server.address(role).parse().unwrap();
            assert!(address.ip().is_loopback() && address.port() != 0, "{}", server.ready);
        }
        let namesrv = server.address("namesrv").to_owned();
        assert!(server.banner.contains("Flush       async"), "{}", server.banner);
        assert!(server.banner.contains(&format!("weir produce hello -m hi --namesrv {namesrv}")));
        assert!(server.get("/readyz").starts_with("HTTP/1.1 200"));
        let (_, port) = server.address("admin").rsplit_once(':').unwrap();
        let health = run(&["healthcheck", "--admin-port", port]);
        assert!(health.status.success(), "{health:?}");
        assert_eq!(health.stdout, b"readyz check passed\n");
        assert!(server.get("/metrics").contains("process_resident_memory_bytes"));
        let line = server.banner.lines().find(|line| line.contains("Data")).unwrap();
        let data = line.split_whitespace().nth(1).unwrap().to_owned();
        assert!(Path::new(&data).exists());
        let (code, rest) = server.signal(signal);
        assert_eq!((code, rest.as_str()), (Some(0), ""));
        assert!(!Path::new(&data).exists(), "ephemeral data is removed");
    }
}

#[test]
fn it_may_open_as_many_files_as_its_hard_limit_says() {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -S -n 200; ulimit -H -n 1000; exec \"$@\"", "sh"]);
    shell.arg(env!("CARGO_BIN_EXE_weir")).args([
        "standalone",
        "--ephemeral",
        "--log-level",
        "warn",
    ]);
    let server = Server::spawn({
        shell.args(ANY_PORTS);
        shell
    });
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(fields, ["1000", "1000"]);
}

#[test]
fn plain_weir_is_standalone_and_flags_come_from_the_environment_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("weir.toml");
    std::fs::write(&config, "[listen]\nadmin_port = 1234\n[broker]\nname = 'b'\n").unwrap();
    let printed = weir()
        .args(["--print-config", "--flush", "sync", "-c"])
        .arg(&config)
        .env("WEIRMQ_BROKER_PORT", "20911")
        .env("WEIRMQ_ADVERTISE", "mq.example:1,external=mq.example:2")
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    for line in [
        "broker_port = 20911",
        "admin_port = 1234",
        "name = \"b\"",
        "flush = \"sync\"",
        "default = \"mq.example:1\"",
        "external = \"mq.example:2\"",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} in {printed}");
    }
    let again = folder.path().join("printed.toml");
    std::fs::write(&again, printed).unwrap();
    assert!(run(&["config", "check", again.to_str().unwrap()]).status.success());
}

#[test]
fn messages_topics_and_offsets_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let server = Server::with_data(data);
    server.ok(&["topic", "create", "kept", "--queues", "1"]);
    server.ok(&["produce", "kept", "-m", "one", "-m", "two"]);
    assert_eq!(server.ok(&["consume", "kept", "--group", "g", "-n", "1"]), "one\n");
    server.ok(&["kv", "put", "n", "k", "v"]);
    assert_eq!(server.signal("TERM").0, Some(0));

    let server = Server::with_data(data);
    assert_eq!(server.ok(&["consume", "kept", "--group", "g", "-n", "1"]), "two\n");
    assert_eq!(server.ok(&["kv", "get", "n", "k"]), "v\n");
}

#[test]
fn messages_that_left_memory_are_consumed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::with_data(data.to_str().unwrap());
    server.ok(&["topic", "create", "old", "--queues", "1"]);
    server.ok(&["produce", "old", "-m", "one", "-m", "two"]);
    assert_eq!(server.signal("TERM").0, Some(0));
    let server = Server::with_data(data.to_str().unwrap());
    let log = data.join("commitlog/00000000000000000000");
    assert!(log.exists());
    // Reads nothing and lets the kernel forget what it holds of the file.
    let forget = format!("if={}", log.display());
    let mut dd = std::process::Command::new("dd");
    let status = dd.args([&forget, "iflag=nocache", "count=0", "status=none"]).status();
    if !status.is_ok_and(|status| status.success()) {
        skipped("dd cannot make the kernel forget a file here");
        return;
    }
    assert_eq!(server.ok(&["consume", "old", "--group", "g", "-n", "2"]), "one\ntwo\n");
}

#[test]
fn what_is_in_use_is_named_and_so_is_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let server = Server::with_data(data);
    let (_, port) = server.address("namesrv").rsplit_once(':').unwrap();
    let (code, error) = error_of(&[
        "--ephemeral",
        "--namesrv-port",
        port,
        "--broker-port",
        "0",
        "--admin-port",
        "0",
    ]);
    assert_eq!(code, 1);
    assert!(error.contains(port) && error.contains("--namesrv-port"), "{error}");

    let mut arguments = vec!["--data", data];
    arguments.extend(ANY_PORTS);
    let (code, error) = error_of(&arguments);
    assert_eq!(code, 1);
    assert!(error.contains(data) && error.contains("in use"), "{error}");

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    arguments[1] = file.to_str().unwrap();
    let (code, error) = error_of(&arguments);
    assert_eq!(code, 1);
    assert!(error.contains(arguments[1]), "{error}");
}

#[test]
fn a_wrong_configuration_is_refused_with_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let toml = write("weir.toml", "[broker]\nauto_create_topic = true\n");
    let (code, error) = error_of(&["-c", &toml]);
    assert_eq!(code, 1);
    assert!(
        error.ends_with(
            "line 2: unknown key `auto_create_topic`; did you mean `auto_create_topics`?"
        ),
        "{error}"
    );

    let range = write("range.toml", "[broker]\npermission = 9\n");
    assert!(error_of(&["-c", &range]).1.contains("broker.permission is 9"));

    let slave = write("slave.conf", "brokerName=b\nbrokerRole=SLAVE\n");
    let (_, error) = error_of(&["broker", "-n", "127.0.0.1:9", "-c", &slave]);
    assert!(error.contains("line 2: brokerRole is SLAVE"), "{error}");

    let missing = error_of(&["-c", "/nonexistent/weir.toml"]).1;
    assert!(missing.contains("/nonexistent/weir.toml"), "{missing}");
    assert_eq!(error_of(&["broker"]).0, 2, "a broker without a NameServer is wrong usage");
    assert_eq!(error_of(&["--no-such-flag"]).0, 2);
}

#[test]
fn a_namesrv_and_a_broker_of_their_own_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("broker.conf");
    let data = folder.path().join("store");
    let text = format!(
        "brokerClusterName=c1\nbrokerName=b1\nbrokerId=0\nlistenPort=0\nstorePathRootDir={}\n",
        data.display()
    );
    std::fs::write(&conf, text).unwrap();
    let namesrv = Server::start(&[
        "namesrv",
        "--bind",
        "127.0.0.1",
        "--namesrv-port",
        "0",
        "--admin-port",
        "0",
        "--log-level",
        "warn",
    ]);
    let broker = Server::start(&[
        "broker",
        "-n",
        namesrv.address("namesrv"),
        "-c",
        conf.to_str().unwrap(),
        "--bind",
        "127.0.0.1",
        "--admin-port",
        "0",
        "--log-level",
        "warn",
    ]);
    let listed = namesrv.ok(&["cluster", "list"]);
    let expected = format!("c1\tb1\t0\tmaster\t{}\n", broker.address("broker"));
    assert!(listed.ends_with(&expected), "{listed}");
    assert_eq!(broker.signal("TERM").0, Some(0));
    assert_eq!(namesrv.ok(&["cluster", "list"]).lines().count(), 1, "only the header is left");
}
