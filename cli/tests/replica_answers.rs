//! What replicas answer to clients, over plain sockets.

mod common;
#[path = "common/group.rs"]
mod group;
#[path = "common/wire.rs"]
mod wire;

use std::path::Path;

use serde_json::json;
use weirmq_remoting::{RequestCode as Code, ResponseCode};

use group::{Group, TOPIC, http, until};
use wire::Socket;

fn send_fields<'a>(topic: &'a str, properties: &'a str) -> [(&'a str, &'a str); 11] {
    [
        ("producerGroup", "p"),
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "2"),
        ("queueId", "0"),
        ("sysFlag", "0"),
        ("bornTimestamp", "1700000000000"),
        ("flag", "0"),
        ("properties", properties),
        ("reconsumeTimes", "0"),
        ("batch", "false"),
    ]
}

/// Has the kernel forget what it holds of a replica's log.
fn leave_memory(data: &Path) {
    for entry in std::fs::read_dir(data.join("commitlog")).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// A pull by `group` from here on: the id of the broker that it is sent to, and where it goes on.
fn pull(broker: &str, group: &str, offset: i64) -> (i64, i64) {
    let offset = offset.to_string();
    let fields = [
        ("consumerGroup", group),
        ("topic", TOPIC),
        ("queueId", "0"),
        ("queueOffset", &offset),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    let answer = Socket::open(broker).call(Code::PullMessage, &fields);
    let field = |name| answer.field(name).unwrap_or_else(|| panic!("{answer:?}"));
    let number = |name| field(name).parse().unwrap();
    (number("suggestWhichBrokerId"), number("nextBeginOffset"))
}

#[test]
fn a_reader_that_is_far_behind_stays_at_a_slave_until_it_is_near_the_end() {
    const MESSAGES: i64 = 120;
    let body = [7; 50_000];
    let group = Group::new(&["--replication", "sync", "--min-in-sync", "1"]);
    let master = group.master();
    let address = master.broker.clone();
    let mut socket = Socket::open(&address);
    for _ in 0..MESSAGES {
        let sent = socket.call_with_body(Code::SendMessage, &send_fields(TOPIC, ""), &body);
        assert_eq!(sent.code, ResponseCode::Success.number(), "{sent:?}");
    }
    let readers = json!({ "groupName": "stays", "whichBrokerWhenConsumeSlowly": 0 }).to_string();
    let group_code = Code::UpdateAndCreateSubscriptionGroup;
    let made = socket.call_with_body(group_code, &[], readers.as_bytes());
    assert_eq!(made.code, ResponseCode::Success.number(), "{made:?}");
    let slaves = [group.slave(1, &master), group.slave(2, &master)];
    // What it did not write since its start it reads by asking the kernel what is in memory.
    assert!(master.kill().is_empty());
    let master = group.master_at(&address);
    until("both are in sync", || {
        let metrics = http(&master.admin, "GET /metrics HTTP/1.0\r\n\r\n");
        metrics.lines().any(|it| it.starts_with("weirmq_in_sync_replicas") && it.ends_with(" 3"))
    });
    until("both have everything", || {
        [1, 2].iter().all(|slave| group::log(&group.data(*slave)) == group::log(&group.data(0)))
    });

    let cold = |name: &str| {
        let mut sent = (0, 0);
        // What somebody reads at the moment, or reads ahead, does not leave memory.
        until("a read comes from the disk", || {
            leave_memory(&group.data(0));
            sent = pull(&address, name, 0);
            sent.0 != 0
        });
        sent
    };
    let names: Vec<_> = (0..16).map(|number| format!("readers-{number}")).collect();
    let sent: Vec<_> = names.iter().map(|name| cold(name).0).collect();
    assert!([1, 2].iter().all(|slave| sent.contains(slave)), "{sent:?}");
    let again: Vec<_> = names.iter().map(|name| cold(name).0).collect();
    assert_eq!(again, sent, "each is sent to the same slave");
    leave_memory(&group.data(0));
    assert_eq!(pull(&address, "stays", 0).0, 0);

    let (station, mut next) = cold(&names[0]);
    let slave = &slaves[station as usize - 1].broker;
    // Of a segment at the end the slave takes it that the master has it in memory: 20 messages.
    let mut suggested = station;
    while suggested == station {
        assert!(next < MESSAGES - 15, "kept at {next}");
        let asked = next;
        (suggested, next) = pull(slave, &names[0], asked);
        assert!(next > asked);
    }
    assert_eq!(suggested, 0);
    assert!(next >= MESSAGES - 21, "sent back at {next}");
    // Whoever wants the newest, or nothing of a slave, is sent to the master at once.
    assert_eq!(pull(slave, &names[0], MESSAGES), (0, MESSAGES));
    assert_eq!(pull(slave, "stays", 0).0, 0);
}
