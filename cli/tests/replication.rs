//! A master and its slaves, by configuration: what is acknowledged is in all of them, slaves serve
//! readers, and whoever has no business there is refused.

mod common;
#[path = "common/group.rs"]
mod group;

use std::path::Path;
use std::process::Stdio;

use weirmq_client::{Admin, MessageQueue, PullConsumer, SendStatus};

use common::server::{Server, Starting, weir};
use group::{Group, Liar, TOPIC, http, is_ok, log, replication_port, until};

#[test]
fn with_synchronous_replication_a_slave_has_what_was_acknowledged_and_serves_it() {
    for flush in ["async", "sync"] {
        let group = Group::new(&["--replication", "sync", "--min-in-sync", "2", "--flush", flush]);
        let master = group.master();
        let (client, producer) = group.client();
        // Alone it takes nothing, and says why.
        let refused = group.send(&producer, 0, 1).remove(0).unwrap_err().to_string();
        assert!(refused.contains("1 replicas are in sync, 2 are needed"), "{refused}");
        let slave = group.slave(1, &master);
        until("the slave is in sync", || is_ok(&group.send(&producer, 0, 1)));
        assert!(is_ok(&group.send(&producer, 1, 400)));
        master.kill();
        // The slave shows what it knows to be confirmed: all but what its master was about to say.
        let shown = group.read(&client, "readers");
        let numbers: Vec<u64> = (0..=400).collect();
        assert!(shown.len() > 390 && numbers.starts_with(&shown), "flush {flush}: {shown:?}");
        let refused = group.send(&producer, 1_000, 1).remove(0).unwrap_err();
        println!("without a master: {refused}");
        let (status, errors) = slave.terminate();
        assert!(status.success(), "{errors}");
        assert_eq!(log(&group.data(1)), log(&group.data(0)));
        group.runtime.block_on(client.shutdown());
    }
}

#[test]
fn a_slave_that_was_away_catches_up_and_one_from_nothing_gets_everything() {
    let group = Group::new(&["--replication", "async"]);
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 600)));
    let slave = group.slave(1, &master);
    let has_all = |replica: u32| log(&group.data(replica)) == log(&group.data(0));
    until("the slave has everything", || has_all(1));
    slave.kill();
    assert!(is_ok(&group.send(&producer, 600, 600)));
    let slave = group.slave(1, &master);
    until("it has caught up", || has_all(1));
    // The master goes and comes back, under a new epoch.
    let address = master.broker.clone();
    let errors = master.kill();
    assert!(errors.is_empty(), "{errors}");
    let master = group.master_at(&address);
    until("the master serves", || is_ok(&group.send(&producer, 1_200, 1)));
    assert!(is_ok(&group.send(&producer, 1_201, 100)));
    until("the slave follows again", || has_all(1));
    let second = group.slave(2, &master);
    until("a second slave has everything", || has_all(2));
    for server in [second, slave, master] {
        let (status, errors) = server.terminate();
        assert!(status.success() && errors.is_empty(), "{errors}");
    }
    assert!(log(&group.data(0)).len() > 2);
    group.runtime.block_on(client.shutdown());
}

#[test]
fn what_waits_for_a_slave_in_vain_is_answered_as_unknown() {
    let group = Group::new(&["--replication", "sync", "--min-in-sync", "1"]);
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 10)));
    let slave = group.slave(1, &master);
    until("the slave has everything", || log(&group.data(1)) == log(&group.data(0)));
    assert!(is_ok(&group.send(&producer, 10, 10)));
    until("it is in the set", || {
        // Only then the loss of it is felt.
        let body = http(&master.admin, "GET /metrics HTTP/1.0\r\n\r\n");
        body.lines().any(|line| line.starts_with("weirmq_in_sync_replicas") && line.ends_with(" 2"))
    });
    slave.kill();
    let sent = group.send(&producer, 20, 1).remove(0);
    assert!(matches!(sent, Ok(SendStatus::SlaveNotAvailable)), "{sent:?}");
    // It is stored and not shown: a consumer sees nothing that can still vanish.
    assert_eq!(group.read(&client, "readers"), (0..20).collect::<Vec<_>>());
    let _slave = group.slave(1, &master);
    until("the slave is back", || is_ok(&group.send(&producer, 21, 1)));
    assert_eq!(group.read(&client, "readers"), (0..22).collect::<Vec<_>>());
    group.runtime.block_on(client.shutdown());
}

fn are_in_sync(master: &Server, count: u32) -> bool {
    let body = http(&master.admin, "GET /metrics HTTP/1.0\r\n\r\n");
    let wanted = format!(" {count}");
    let mut lines = body.lines();
    lines.any(|line| line.starts_with("weirmq_in_sync_replicas") && line.ends_with(&wanted))
}

#[test]
fn where_a_quorum_acknowledges_one_of_two_slaves_holds_up_nobody() {
    let group = Group::new(&["--replication", "sync", "--ack", "quorum", "--min-in-sync", "2"]);
    let master = group.master();
    let (client, producer) = group.client();
    let slaves = [1, 2].map(|replica| group.slave(replica, &master));
    until("all three are in sync", || are_in_sync(&master, 3));
    assert!(is_ok(&group.send(&producer, 0, 100)));
    slaves[0].pause(true);
    assert!(is_ok(&group.send(&producer, 100, 100)));
    until("it is known to be behind", || are_in_sync(&master, 2));
    // It does not suffice that only the master has it.
    slaves[1].pause(true);
    let sent = group.send(&producer, 200, 1).remove(0);
    assert!(matches!(sent, Ok(SendStatus::FlushSlaveTimeout)), "{sent:?}");
    slaves[0].pause(false);
    until("the other one has it", || is_ok(&group.send(&producer, 201, 1)));
    assert_eq!(group.read(&client, "readers"), (0..202).collect::<Vec<_>>());
    slaves[1].pause(false);
    for replica in [1, 2] {
        until("both have all", || log(&group.data(replica)) == log(&group.data(0)));
    }
    group.runtime.block_on(client.shutdown());
}

#[test]
fn a_slave_that_a_quorum_did_without_is_followed_by_nobody_who_has_more() {
    let quorum = ["--replication", "sync", "--ack", "quorum", "--min-in-sync", "2"];
    let group = Group::new(&quorum);
    let master = group.master();
    let slaves = [1, 2].map(|replica| group.slave(replica, &master));
    let (client, producer) = group.client();
    until("all three are in sync", || are_in_sync(&master, 3));
    assert!(is_ok(&group.send(&producer, 0, 1)));
    until("both have it", || [1, 2].iter().all(|it| log(&group.data(*it)) == log(&group.data(0))));
    slaves[1].pause(true);
    assert!(is_ok(&group.send(&producer, 1, 100)));
    master.kill();
    for slave in slaves {
        slave.kill();
    }
    // The master's disk is lost, and the wrong one takes its place.
    std::fs::remove_dir_all(group.data(0)).unwrap();
    std::fs::rename(group.data(2), group.data(0)).unwrap();
    let master = group.master();
    let slave = group.slave(1, &master);
    until("it says why it does not follow", || {
        http(&slave.admin, "GET /readyz?verbose HTTP/1.0\r\n\r\n").contains("may have acknowledged")
    });
    let (status, errors) = slave.terminate();
    assert!(status.success() && errors.contains("Make this replica the master"), "{errors}");
    master.kill();
    // As it says.
    std::fs::rename(group.data(0), group.data(2)).unwrap();
    std::fs::rename(group.data(1), group.data(0)).unwrap();
    let master = group.master();
    let slave = group.slave(2, &master);
    until("the other one says so too", || {
        http(&slave.admin, "GET /readyz?verbose HTTP/1.0\r\n\r\n").contains("may have acknowledged")
    });
    slave.kill();
    std::fs::remove_dir_all(group.data(2)).unwrap();
    let slave = group.slave(2, &master);
    until("they go on", || is_ok(&group.send(&producer, 101, 1)));
    assert_eq!(group.read(&client, "readers"), (0..102).collect::<Vec<_>>());
    until("both have all", || log(&group.data(2)) == log(&group.data(0)));
    drop(slave);
    group.runtime.block_on(client.shutdown());
}

#[test]
fn administrators_are_told_who_is_in_sync_and_who_wrote_the_log() {
    let group = Group::new(&["--replication", "sync", "--min-in-sync", "1"]);
    let master = group.master();
    let (client, producer) = group.client();
    let admin = Admin::new(&client);
    let ha_status = |address: &str| group.runtime.block_on(admin.ha_status(address)).unwrap();
    let alone = ha_status(&master.broker);
    assert!(alone.master && alone.ha_connection_info.is_empty() && alone.in_sync_slave_nums == 0);
    assert!(is_ok(&group.send(&producer, 0, 40)));
    let slave = group.slave(1, &master);
    let end = || ha_status(&master.broker).master_commit_log_max_offset;
    until("the slave is in sync", || {
        let status = ha_status(&master.broker);
        status
            .ha_connection_info
            .first()
            .is_some_and(|slave| slave.in_sync && slave.diff == 0 && slave.lag_millis == Some(0))
    });
    let status = ha_status(&master.broker);
    assert_eq!(status.in_sync_slave_nums, 1);
    assert_eq!(status.ha_connection_info[0].addr, slave.broker);
    assert_eq!(status.ha_connection_info[0].slave_ack_offset, end());
    let status = ha_status(&slave.broker);
    assert!(!status.master && status.ha_client_runtime_info.activated);
    assert_eq!(status.ha_client_runtime_info.master_addr, master.broker);
    assert_eq!(status.ha_client_runtime_info.max_offset, end());
    let metrics = http(&master.admin, "GET /metrics HTTP/1.0\r\n\r\n");
    for lag in ["bytes", "milliseconds"] {
        let name = format!("weirmq_replica_lag_{lag}{{");
        let is_there = |line: &str| line.starts_with(&name) && line.contains("replica=\"1\"} ");
        assert!(metrics.lines().any(is_there), "{lag}: {metrics}");
    }
    let name = group.runtime.block_on(admin.epochs(&slave.broker)).unwrap().broker_name;
    until("both know the set", || {
        [&master, &slave].iter().all(|server| {
            let asked = admin.in_sync_set(&server.broker, &name);
            let set = group.runtime.block_on(asked).unwrap();
            let ids: Vec<_> = set.in_sync_replicas.iter().map(|r| (r.broker_id, r.alive)).collect();
            assert_eq!(set.master_broker_id, Some(0));
            assert_eq!(set.master_address.as_ref(), Some(&master.broker));
            ids == [(0, true), (1, true)] && set.not_in_sync_replicas.is_empty()
        })
    });
    until("cluster status shows the slave", || {
        let mut command = weir();
        command.args(["cluster", "status", "-o", "json", "--namesrv", &group.namesrv.namesrv]);
        let said = command.output().unwrap();
        let rows: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        let slave = &rows[1];
        slave["role"] == "slave"
            && slave["epoch"] == 1
            && slave["inSync"] == true
            && slave["lagBytes"] == 0
            && slave["lagMillis"] == 0
    });
    let other = group.runtime.block_on(admin.in_sync_set(&master.broker, "another"));
    assert!(other.is_err());
    // Another start of the master is another epoch, in both logs.
    let address = master.broker.clone();
    master.kill();
    let master = group.master_at(&address);
    until("the slave has all of it", || log(&group.data(1)) == log(&group.data(0)));
    let epochs = |address: &str| group.runtime.block_on(admin.epochs(address)).unwrap();
    let of_master = epochs(&master.broker);
    assert_eq!(of_master.epoch_list.iter().map(|entry| entry.epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(of_master.epoch_list[0].end_offset, of_master.epoch_list[1].start_offset);
    assert_eq!(of_master.epoch_list, epochs(&slave.broker).epoch_list);
    slave.kill();
    until("it is seen to be gone", || ha_status(&master.broker).ha_connection_info.is_empty());
    let set = group.runtime.block_on(admin.in_sync_set(&master.broker, &name)).unwrap();
    assert!(set.in_sync_replicas.iter().any(|replica| replica.broker_id == 1 && !replica.alive));
    group.runtime.block_on(client.shutdown());
}

/// What the group has committed, in the order of the queues.
fn committed(group: &Group, consumer: &PullConsumer, queues: &[MessageQueue]) -> Vec<Option<u64>> {
    let ask = |queue: &MessageQueue| {
        let asked = group.runtime.block_on(consumer.committed_offset(queue));
        // While brokers come and go there may be none to answer.
        asked.unwrap_or_default()
    };
    queues.iter().map(ask).collect()
}

/// Whether a small file, which begins with a line about itself, holds an empty list. While it is replaced
/// there is none for a moment.
fn is_empty_list(file: &Path) -> bool {
    std::fs::read(file).is_ok_and(|text| text.ends_with(b"\n[]"))
}

#[test]
fn what_was_committed_at_a_slave_is_where_the_group_goes_on_at_the_next_master() {
    for mode in ["async", "sync"] {
        let group = Group::new(&["--replication", mode, "--min-in-sync", "1"]);
        let master = group.master();
        let (address, port) = (master.broker.clone(), replication_port(&master.broker));
        let (client, producer) = group.client();
        assert!(is_ok(&group.send(&producer, 0, 80)));
        let slave = group.slave(1, &master);
        let consumer = PullConsumer::new(&client, "readers").unwrap();
        let queues = group.runtime.block_on(consumer.queues(TOPIC)).unwrap();
        let commit = |offset: u64| {
            for queue in &queues {
                until("the offset is committed", || {
                    group.runtime.block_on(consumer.commit_offset(queue, offset)).is_ok()
                });
            }
        };
        let all_are =
            |offset: u64| committed(&group, &consumer, &queues) == vec![Some(offset); queues.len()];
        commit(3);
        until("the slave has everything", || log(&group.data(1)) == log(&group.data(0)));
        master.kill();
        until("the slave answers", || all_are(3));
        commit(9);
        commit(7);
        let kept = format!("}} {}", queues.len());
        let metrics = http(&slave.admin, "GET /metrics HTTP/1.0\r\n\r\n");
        let is_there =
            |line: &str| line.starts_with("weirmq_slave_offsets{") && line.ends_with(&kept);
        assert!(metrics.lines().any(is_there), "{metrics}");
        assert!(all_are(9), "{mode}: they only grow");
        slave.kill();
        // It serves nobody before it has heard of a master.
        let slave = group.start(1, &["--broker-port", "0", "--master", &port]);
        let master = group.master_at(&address);
        let slave = slave.ready();
        let file = group.data(1).join("weir/user/slave-offsets.json");
        until("the slave has handed them over", || is_empty_list(&file));
        slave.kill();
        assert!(all_are(9), "{mode}: the master answers");
        // From its log: nobody else knows them any more.
        master.kill();
        let slave = group.start(1, &["--broker-port", "0", "--master", &port]);
        let _master = group.master_at(&address);
        let _slave = slave.ready();
        until("they are still there", || all_are(9));
        commit(8);
        assert!(all_are(8), "{mode}: a master's may go back");
        group.runtime.block_on(client.shutdown());
    }
}

#[test]
fn a_slave_that_is_started_alone_or_as_master_keeps_what_was_committed_at_it() {
    let group = Group::new(&["--replication", "async"]);
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 80)));
    let slave = group.slave(1, &master);
    let consumer = PullConsumer::new(&client, "readers").unwrap();
    let queues = group.runtime.block_on(consumer.queues(TOPIC)).unwrap();
    until("the slave has everything", || log(&group.data(1)) == log(&group.data(0)));
    master.kill();
    let commit = |offset: u64| {
        until("the offset is committed", || {
            let commit = consumer.commit_offset(&queues[0], offset);
            group.runtime.block_on(commit).is_ok()
        });
    };
    commit(5);
    slave.kill();
    // It becomes the master, and then it is without any other replica.
    std::fs::remove_dir_all(group.data(0)).unwrap();
    std::fs::rename(group.data(1), group.data(0)).unwrap();
    let file = group.data(0).join("weir/user/slave-offsets.json");
    let kept = std::fs::read(&file).unwrap();
    let master = group.master();
    until("it answers", || committed(&group, &consumer, &queues)[0] == Some(5));
    until("its log has it", || is_empty_list(&file));
    master.kill();
    std::fs::write(&file, kept).unwrap();
    let mut command = weir();
    command.args(["broker", "--bind", "127.0.0.1", "--admin-port", "0", "--broker-port", "0"]);
    command.args(["--log-level", "error", "-n", &group.namesrv.namesrv]);
    command.args(["--config", &group.path("weir.toml")]);
    command.arg("--data").arg(group.data(0)).stdin(Stdio::null());
    let alone = Starting::spawn(&mut command).ready();
    assert!(is_empty_list(&file));
    until("it answers alone", || committed(&group, &consumer, &queues)[0] == Some(5));
    let (status, errors) = alone.terminate();
    assert!(status.success() && errors.is_empty(), "{errors}");
    group.runtime.block_on(client.shutdown());
}

#[test]
fn a_store_of_another_log_is_kept_and_does_not_follow() {
    let group = Group::new(&["--replication", "async"]);
    // It was a master of its own.
    let data = group.data(3);
    let alone = {
        let mut command = weir();
        command.args(["standalone", "--host", "127.0.0.1", "--log-level", "error"]);
        command.args(["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"]);
        command.args(["--config", &group.path("weir.toml")]).arg("--data").arg(&data);
        Starting::spawn(command.stdin(Stdio::null())).ready()
    };
    let topic =
        weir().args(["topic", "create", "mine", "--namesrv", &alone.namesrv]).output().unwrap();
    assert!(topic.status.success(), "{topic:?}");
    let (status, _) = alone.terminate();
    assert!(status.success());
    let before = log(&data);
    assert!(!before.is_empty());
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 50)));
    let port = replication_port(&master.broker);
    let slave = group.start(3, &["--broker-port", "0", "--master", &port]).ready();
    until("it says why it does not follow", || {
        http(&slave.admin, "GET /readyz?verbose HTTP/1.0\r\n\r\n").contains("another group")
    });
    let metrics = http(&slave.admin, "GET /metrics HTTP/1.0\r\n\r\n");
    let complains = |it: &str| it.starts_with("weirmq_replica_complaint{") && it.ends_with(" 1");
    assert!(metrics.lines().any(complains), "{metrics}");
    let (status, errors) = slave.terminate();
    assert!(status.success() && errors.contains("another group"), "{errors}");
    assert_eq!(log(&data)[0].1[..before[0].1.len()], before[0].1[..]);
    group.runtime.block_on(client.shutdown());
}

#[test]
fn a_master_that_comes_back_hears_its_slaves_before_it_says_what_is_committed() {
    let group = Group::new(&["--replication", "sync", "--min-in-sync", "1"]);
    let master = group.master();
    let address = master.broker.clone();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 80)));
    let slave = group.slave(1, &master);
    let consumer = PullConsumer::new(&client, "readers").unwrap();
    let queues = group.runtime.block_on(consumer.queues(TOPIC)).unwrap();
    let commit = |offset: u64| {
        until("the offset is committed", || {
            group.runtime.block_on(consumer.commit_offset(&queues[0], offset)).is_ok()
        });
    };
    until("the slave is in sync", || {
        let body = http(&master.admin, "GET /metrics HTTP/1.0\r\n\r\n");
        body.lines().any(|line| line.starts_with("weirmq_in_sync_replicas") && line.ends_with(" 2"))
    });
    commit(3);
    until("the slave has everything", || log(&group.data(1)) == log(&group.data(0)));
    master.kill();
    until("the slave answers", || committed(&group, &consumer, &queues)[0] == Some(3));
    commit(9);
    let _master = group.master_at(&address);
    // Whoever answers, from the first moment on.
    for _ in 0..50 {
        let answer = committed(&group, &consumer, &queues)[0];
        assert!(answer.is_none_or(|offset| offset == 9), "{answer:?}");
    }
    // The first client asks for the route again in half a minute only.
    let (new, producer) = group.client();
    until("the master takes messages", || is_ok(&group.send(&producer, 80, 1)));
    group.runtime.block_on(new.shutdown());
    assert_eq!(committed(&group, &consumer, &queues)[0], Some(9));

    // An emptied log does not know the queue, but will.
    slave.kill();
    let kept = group.data(1).join("weir/user/slave-offsets.json");
    let file = b"[{\"group\":\"readers\",\"topic\":\"replicated\",\"queue\":0,\"offset\":12}]";
    let empty = group.folder.path().join("emptied");
    std::fs::create_dir_all(empty.join("weir/user")).unwrap();
    let head = format!("weir1 {:08x}\n", crc32fast::hash(file));
    std::fs::write(empty.join("weir/user/slave-offsets.json"), [head.as_bytes(), file].concat())
        .unwrap();
    std::fs::rename(group.data(1), group.folder.path().join("before")).unwrap();
    std::fs::rename(&empty, group.data(1)).unwrap();
    let port = replication_port(&address);
    let slave = group.start(1, &["--broker-port", "0", "--master", &port]).ready();
    until("the master has it", || committed(&group, &consumer, &queues)[0] == Some(12));
    until("the slave has handed it over", || is_empty_list(&kept));
    drop(slave);
    group.runtime.block_on(client.shutdown());
}

#[test]
fn what_a_replica_must_not_forget_is_not_replaced_by_what_it_said_before() {
    let group = Group::new(&["--replication", "async"]);
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 100)));
    let slave = group.slave(1, &master);
    let has_all = || log(&group.data(1)) == log(&group.data(0));
    until("the slave has everything", has_all);
    slave.kill();
    let user = group.data(1).join("weir/user");
    let damage = |name: &str| {
        let mut bytes = std::fs::read(user.join(name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(user.join(name), bytes).unwrap();
    };
    let port = replication_port(&master.broker);
    damage("promise.json");
    assert!(user.join("promise.json.last").exists());
    let refused = weir()
        .args(["broker", "--bind", "127.0.0.1", "--admin-port", "0", "--broker-port", "0"])
        .args(["--config", &group.path("weir.toml"), "-n", &group.namesrv.namesrv])
        .args(["--replication-secret-file", &group.path("secret")])
        .args(["--broker-id", "1", "--master", &port, "--data"])
        .arg(group.data(1))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    let says = ["promise.json", "the checksum is wrong", "remove this file"];
    assert!(!refused.status.success() && says.iter().all(|it| errors.contains(it)), "{errors}");
    // As it says.
    for name in ["promise.json", "promise.json.last"] {
        std::fs::remove_file(user.join(name)).unwrap();
    }
    // The log has its epochs from its beginning on.
    damage("epochs.json");
    let slave = group.start(1, &["--broker-port", "0", "--master", &port]).ready();
    assert!(is_ok(&group.send(&producer, 100, 100)));
    until("the slave follows", has_all);
    drop(slave);
    group.runtime.block_on(client.shutdown());
}

/// Writes the certificates of an authority and of one replica of it.
fn certify(group: &Group, replica: &str, authority: &rcgen::CertifiedIssuer<'_, rcgen::KeyPair>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let certificate =
        rcgen::CertificateParams::new(names).unwrap().signed_by(&key, authority).unwrap();
    for (name, text) in
        [("certificate", certificate.pem()), ("key", key.serialize_pem()), ("ca", authority.pem())]
    {
        std::fs::write(group.path(&format!("{replica}-{name}.pem")), text).unwrap();
    }
}

fn authority() -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn replicas_know_each_other_by_certificates_which_change_while_they_run() {
    let group = Group::new(&["--replication", "async"]);
    let start = |replica: u32, arguments: &[&str]| {
        let mut command = weir();
        command.args(["broker", "--bind", "127.0.0.1", "--admin-port", "0", "--broker-port", "0"]);
        command.args(["--config", &group.path("weir.toml"), "-n", &group.namesrv.namesrv]);
        command.args(["--log-level", "error", "--broker-id", &replica.to_string()]).args(arguments);
        for name in ["certificate", "key", "ca"] {
            let file = group.path(&format!("{replica}-{name}.pem"));
            command.args([&format!("--replication-tls-{name}"), &file]);
        }
        command.arg("--data").arg(group.data(replica)).stdin(Stdio::null());
        Starting::spawn(&mut command)
    };
    let (first, second) = (authority(), authority());
    certify(&group, "0", &first);
    certify(&group, "1", &first);
    certify(&group, "2", &second);
    let master = start(0, &[]).ready();
    let port = replication_port(&master.broker);
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 100)));
    let slave = start(1, &["--master", &port]).ready();
    let has_all = |replica| log(&group.data(replica)) == log(&group.data(0));
    until("the slave has everything", || has_all(1));
    // Who is not certified by the same authority, and who speaks without encryption.
    let mut stranger = start(2, &["--master", &port]);
    let mut plain = Liar::connect(&port);
    plain.say(1, b"{}");
    assert!(plain.hear(1).is_none());
    assert!(is_ok(&group.send(&producer, 100, 100)));
    until("the slave has the rest", || has_all(1));
    assert!(log(&group.data(2)).is_empty());
    assert!(!stranger.kill().0);
    // The authority changes, and nobody is started again.
    slave.kill();
    certify(&group, "0", &second);
    let other = start(2, &["--master", &port]).ready();
    until("who has the new authority's certificate follows", || has_all(2));
    let errors = other.kill();
    assert!(errors.is_empty(), "{errors}");
    group.runtime.block_on(client.shutdown());
}
