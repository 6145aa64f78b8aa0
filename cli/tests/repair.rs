//! What rots on one replica's disk comes back from another, and what nobody has is never served.

mod common;
#[path = "common/group.rs"]
mod group;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use weirmq_client::{Filter, PullConsumer, PullOptions, PullStatus};

use common::server::{Server, weir};
use group::{CONFIG, Group, TOPIC, http, is_ok, log, until};

const BLOCK_BYTES: u64 = 16 << 10;

/// A group whose replicas look at their whole logs about every second.
fn group() -> Group {
    let group = Group::new(&["--replication", "sync", "--min-in-sync", "1", "--flush", "sync"]);
    let config = CONFIG.replace("[broker.store]\n", "[broker.store]\nscrub_hours = 0.0003\n");
    std::fs::write(group.path("weir.toml"), config).unwrap();
    group
}

fn metric(server: &Server, name: &str) -> u64 {
    let metrics = http(&server.admin, "GET /metrics HTTP/1.0\r\n\r\n");
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn damaged(server: &Server) -> u64 {
    metric(server, "weirmq_log_damaged_bytes")
}

fn repaired(server: &Server) -> u64 {
    metric(server, "weirmq_log_repaired_bytes")
}

/// Until all blocks of a log of some segments have checksums.
fn until_scrubbed(server: &Server, times: u64) {
    let start = metric(server, "weirmq_log_scrubbed_bytes");
    let enough = start + times * (4 << 20);
    until("the log is scrubbed", || metric(server, "weirmq_log_scrubbed_bytes") >= enough);
}

/// Changes a bit of the log as a disk does: who wants the page next gets it from there.
fn rot(group: &Group, replica: u32, segment: u64, at: u64) {
    let path = group.data(replica).join(format!("commitlog/{:020}", segment << 20));
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

/// Reads everything that can be read: how many messages, and how many queues ended with an error.
fn read(group: &Group, client: &weirmq_client::Client) -> (usize, usize) {
    let consumer = PullConsumer::new(client, "readers").unwrap();
    group.runtime.block_on(async {
        let (mut found, mut refused) = (0, 0);
        for queue in consumer.queues(TOPIC).await.unwrap() {
            let mut offset = 0;
            loop {
                let options = PullOptions { filter: Filter::All, ..PullOptions::default() };
                let pulled = match consumer.pull(&queue, offset, &options).await {
                    Ok(pulled) if pulled.status == PullStatus::Found => pulled,
                    Ok(_) => break,
                    Err(error) => {
                        println!("{error}");
                        refused += 1;
                        break;
                    }
                };
                for message in &pulled.messages {
                    let number: u64 = message.properties["number"].parse().unwrap();
                    let bytes = 2_000 + (number % 500) as usize;
                    assert!(message.body.len() == bytes, "message {number}");
                    assert!(message.body.iter().all(|it| *it == number as u8), "message {number}");
                }
                found += pulled.messages.len();
                offset = pulled.next_offset;
            }
        }
        (found, refused)
    })
}

#[test]
fn what_rots_at_a_master_and_at_its_slave_comes_back_from_the_other() {
    let group = group();
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 1_500)));
    let slave = group.slave(1, &master);
    let has_all = || log(&group.data(1)) == log(&group.data(0));
    until("the slave has everything", has_all);
    for server in [&master, &slave] {
        until_scrubbed(server, 2);
        assert_eq!((damaged(server), repaired(server)), (0, 0));
    }
    // Two neighbours, and the block with the end of a segment; another segment at the slave.
    rot(&group, 0, 0, 100_000);
    rot(&group, 0, 0, 100_000 + BLOCK_BYTES);
    rot(&group, 1, 1, 300_000);
    rot(&group, 1, 1, (1 << 20) - 10_000);
    for server in [&master, &slave] {
        until("it came back", || repaired(server) == 2 * BLOCK_BYTES && damaged(server) == 0);
    }
    until("both are the same again", has_all);
    assert_eq!(read(&group, &client), (1_500, 0));
    let mut command = weir();
    command.args(["cluster", "status", "-o", "json", "--namesrv", &group.namesrv.namesrv]);
    let said = command.output().unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    for row in [&rows[0], &rows[1]] {
        let known = (&row["logDamaged"], &row["logRepaired"]);
        assert_eq!(known, (&"0".into(), &(2 * BLOCK_BYTES).to_string().into()), "{rows}");
    }
    for server in [slave, master] {
        let (status, errors) = server.terminate();
        assert!(status.success(), "{errors}");
        assert_eq!(errors.matches("the log is damaged").count(), 2, "{errors}");
    }
    group.runtime.block_on(client.shutdown());
}

#[test]
fn what_no_replica_has_stays_damaged_and_is_never_served() {
    let group = group();
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 1_500)));
    let slave = group.slave(1, &master);
    let has_all = || log(&group.data(1)) == log(&group.data(0));
    until("the slave has everything", has_all);
    for server in [&master, &slave] {
        until_scrubbed(server, 2);
    }
    // Not the same bit, but the same block.
    rot(&group, 0, 0, 100_000);
    rot(&group, 1, 0, 100_001);
    for server in [&master, &slave] {
        until("the damage is found", || damaged(server) == BLOCK_BYTES);
    }
    for server in [&master, &slave] {
        // Both have asked by then.
        until_scrubbed(server, 3);
        assert_eq!((damaged(server), repaired(server)), (BLOCK_BYTES, 0));
        let ready = http(&server.admin, "GET /readyz HTTP/1.0\r\n\r\n");
        assert!(ready.contains("broker/log degraded"), "{ready}");
    }
    let (found, refused) = read(&group, &client);
    assert!(found < 1_500 && refused > 0, "{found} messages, {refused} queues refused");
    // The slave's disk gives again what it should; so the master's block has somebody to come from.
    rot(&group, 1, 0, 100_001);
    for server in [&slave, &master] {
        until("it is whole", || damaged(server) == 0);
    }
    assert_eq!((repaired(&slave), repaired(&master)), (0, BLOCK_BYTES));
    assert!(has_all());
    assert_eq!(read(&group, &client), (1_500, 0));
    let (status, errors) = master.terminate();
    assert!(status.success(), "{errors}");
    assert!(errors.contains("a replica cannot replace what is damaged here"), "{errors}");
    drop(slave);
    group.runtime.block_on(client.shutdown());
}
