//! Thousands of topics, several NameServers, and one that goes away and comes back.

use std::process::{Child, Stdio};

use crate::support::Server;

const NAMESRV: [&str; 7] =
    ["namesrv", "--bind", "127.0.0.1", "--admin-port", "0", "--log-level", "warn"];

fn namesrv(port: &str) -> Server {
    Server::start(&[&NAMESRV[..], &["--namesrv-port", port]].concat())
}

fn broker(data: &str, namesrvs: &str) -> Server {
    let port = ["--broker-port", "0", "--admin-port", "0", "--log-level", "warn"];
    let words = ["broker", "-n", namesrvs, "--data", data, "--bind", "127.0.0.1"];
    Server::start(&[&words[..], &port].concat())
}

/// Makes topics of one queue, which `weir bench` does fastest.
fn creation(namesrv: &Server, broker: &Server, prefix: &str, number: &str) -> Child {
    let words = ["bench", "topics", "--topic", prefix, "--queues", "1", "--topics", number];
    let rest = ["--seconds", "0.1", "--warmup", "0", "--broker", broker.address("broker")];
    let mut command = namesrv.command(&[&words[..], &rest].concat());
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// The number of topics that a NameServer has a route for, as its metrics say.
fn topics(namesrv: &Server) -> usize {
    let metrics = namesrv.get("/metrics");
    let samples = metrics.lines().filter_map(|line| -> Option<usize> {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.split('{').next()?;
        name.ends_with("topics").then(|| value.parse().ok()).flatten()
    });
    samples.sum()
}

#[test]
fn more_topics_than_fit_into_one_registration_are_known_at_every_name_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let (first, second) = (namesrv("0"), namesrv("0"));
    let both = format!("{};{}", first.address("namesrv"), second.address("namesrv"));
    let made = broker(data, &both);
    wait_until(|| topics(&first) > 0 && topics(&second) > 0);
    let system = topics(&first);
    assert!(creation(&first, &made, "many", "2500").wait().unwrap().success());
    // A creation that was answered is known at both.
    assert_eq!((topics(&first), topics(&second)), (system + 2500, system + 2500));
    assert_eq!(made.signal("TERM").0, Some(0));
    assert_eq!(topics(&first), 0, "a broker that ends takes its topics along");

    // The whole table at once, in several registrations.
    let again = broker(data, &both);
    wait_until(|| [&first, &second].iter().all(|server| topics(server) == system + 2500));
    // What changed is known in every part of the table.
    for name in ["many-000000", "many-001200", "many-002499"] {
        first.ok(&["topic", "update", name, "--queues", "3"]);
        let route = second.ok(&["topic", "route", name, "-o", "json"]);
        assert!(route.contains("\"readQueues\": 3"), "{route}");
    }
    drop(again);
}

#[test]
fn a_name_server_that_is_lost_while_topics_are_made_knows_them_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (first, second) = (namesrv("0"), namesrv("0"));
    let address = second.address("namesrv").to_owned();
    let both = format!("{};{address}", first.address("namesrv"));
    let broker = broker(data.to_str().unwrap(), &both);
    wait_until(|| topics(&first) > 0 && topics(&second) > 0);
    let system = topics(&first);
    let mut creating = creation(&first, &broker, "lost", "20000");
    wait_until(|| topics(&second) > 1000);
    drop(second);
    assert!(creating.wait().unwrap().success());
    assert_eq!(topics(&first), system + 20000);

    let second = namesrv(address.rsplit(':').next().unwrap());
    wait_until(|| topics(&second) == system + 20000);
}

/// Asks again and again, each time with a new connection.
#[track_caller]
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed().as_secs() < 60, "it has not come about in a minute");
    }
}
