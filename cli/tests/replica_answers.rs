//! What replicas answer to clients, over plain sockets: what they acknowledge, and what they leave to the
//! master.

mod common;
#[path = "common/group.rs"]
mod group;
#[path = "common/wire.rs"]
mod wire;

use std::path::Path;

use serde_json::json;
use weirmq_remoting::SerializeType::Json;
use weirmq_remoting::{RequestCode as Code, ResponseCode};

use group::{Group, TOPIC, http, is_ok, until};
use wire::{Answer, Socket, ask, frame, send_fields};

fn give_back<'a>(offset: &'a str, level: &'a str) -> [(&'static str, &'a str); 3] {
    [("offset", offset), ("group", "readers"), ("delayLevel", level)]
}

/// Where a message is that was sent, as its id says.
fn physical_offset(sent: &Answer) -> String {
    let id = sent.field("msgId").unwrap();
    u64::from_str_radix(&id[id.len() - 16..], 16).unwrap().to_string()
}

#[test]
fn a_message_that_is_given_back_is_acknowledged_as_one_that_is_sent() {
    let group = Group::new(&["--replication", "sync", "--min-in-sync", "2"]);
    let master = group.master();
    let (client, producer) = group.client();
    let slave = group.slave(1, &master);
    until("the slave is in sync", || is_ok(&group.send(&producer, 0, 1)));
    let mut socket = Socket::open(&master.broker);
    let sent = socket.call_with_body(Code::SendMessage, &send_fields(TOPIC, ""), b"body");
    let offset = physical_offset(&sent);
    for level in ["0", "-1"] {
        let answer = socket.call(Code::ConsumerSendMessageBack, &give_back(&offset, level));
        assert_eq!(answer.code, ResponseCode::Success.number(), "{answer:?}");
    }

    // Nobody else has what is written from here on.
    slave.pause(true);
    let code = Code::ConsumerSendMessageBack.number();
    let of_go = json!({
        "code": code, "language": "GO", "version": 317, "opaque": 1, "flag": 0,
        "extFields": { "offset": offset, "group": "readers", "delayLevel": "0" },
    });
    let mut waiting = frame(of_go.to_string().as_bytes(), b"");
    waiting.extend(ask(Json, code, 2, &give_back(&offset, "0"), b""));
    waiting.extend(ask(Json, code, 3, &give_back(&offset, "-1"), b""));
    // A consumer that gives back by itself, with the properties of the message that it was given.
    let again = send_fields("%RETRY%readers", "WAIT\u{1}false\u{2}");
    waiting.extend(ask(Json, Code::SendMessage.number(), 4, &again, b"body"));
    assert!(socket.send(&waiting));
    let may_be_lost = [ResponseCode::FlushSlaveTimeout, ResponseCode::SlaveNotAvailable];
    // Go's client would take any answer for a success.
    for opaque in [2, 3, 4] {
        let answer = socket.answer().expect("the connection was closed");
        assert_eq!(answer.opaque, opaque, "{answer:?}");
        assert!(may_be_lost.iter().any(|code| answer.code == code.number()), "{answer:?}");
    }
    // Its producer did not want to wait.
    let sent = send_fields(TOPIC, "WAIT\u{1}false\u{2}");
    let sent = socket.call_with_body(Code::SendMessage, &sent, b"body");
    assert_eq!(sent.code, ResponseCode::Success.number(), "{sent:?}");

    slave.pause(false);
    until("it is acknowledged", || {
        let answer = socket.call(Code::ConsumerSendMessageBack, &give_back(&offset, "0"));
        answer.code == ResponseCode::Success.number()
    });
    group.runtime.block_on(client.shutdown());
}

#[test]
fn a_slave_makes_no_change_and_never_says_that_none_was_needed() {
    let group = Group::new(&["--replication", "sync", "--min-in-sync", "1"]);
    let master = group.master();
    let (client, producer) = group.client();
    assert!(is_ok(&group.send(&producer, 0, 10)));
    let mut socket = Socket::open(&master.broker);
    let sent = socket.call_with_body(Code::SendMessage, &send_fields(TOPIC, ""), b"body");
    let offset = physical_offset(&sent);
    // A group that wants nothing again.
    let readers = json!({ "groupName": "readers", "retryQueueNums": 0 }).to_string();
    let group_code = Code::UpdateAndCreateSubscriptionGroup;
    let made = socket.call_with_body(group_code, &[], readers.as_bytes());
    assert_eq!(made.code, ResponseCode::Success.number(), "{made:?}");
    let slave = group.slave(1, &master);
    until("the slave has everything", || group::log(&group.data(1)) == group::log(&group.data(0)));

    let queues = json!({
        "consumerGroup": "readers", "clientId": "c",
        "mqSet": [{ "topic": TOPIC, "brokerName": "broker-a", "queueId": 0 }],
    });
    let (queues, readers) = (queues.to_string(), readers.as_bytes());
    let unknown_topic = [("topic", "unknown")];
    let unknown_group = [("groupName", "unknown"), ("cleanOffset", "false")];
    let topic = [
        ("topic", "new"),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "2"),
        ("writeQueueNums", "2"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("order", "false"),
    ];
    let (to_topic, to_retry) = (send_fields(TOPIC, ""), send_fields("%RETRY%readers", ""));
    let back = give_back(&offset, "0");
    type Change<'a> = (Code, &'a [(&'a str, &'a str)], &'a [u8]);
    let changes: [Change<'_>; 9] = [
        (Code::SendMessage, &to_topic, b"body"),
        (Code::SendMessage, &to_retry, b"body"),
        (Code::ConsumerSendMessageBack, &back, b""),
        (Code::LockBatchMessageQueue, &[], queues.as_bytes()),
        (Code::UnlockBatchMessageQueue, &[], queues.as_bytes()),
        (Code::UpdateAndCreateTopic, &topic, b""),
        // There would be nothing to do: it is as it is to be.
        (group_code, &[], readers),
        (Code::DeleteTopicInBroker, &unknown_topic, b""),
        (Code::DeleteSubscriptionGroup, &unknown_group, b""),
    ];
    let fenced = || {
        let metrics = http(&slave.admin, "GET /metrics HTTP/1.0\r\n\r\n");
        let line = metrics.lines().find(|line| line.starts_with("weirmq_fenced_appends")).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()
    };
    let mut socket = Socket::open(&slave.broker);
    for (count, (code, fields, body)) in changes.into_iter().enumerate() {
        assert_eq!(fenced(), count, "before {code:?}");
        let answer = socket.call_with_body(code, fields, body);
        assert_eq!(answer.code, ResponseCode::ServiceNotAvailable.number(), "{code:?}: {answer:?}");
        assert!(answer.remark.contains("replica 0 is the master"), "{code:?}: {answer:?}");
    }
    // Sends that come together are one append, and count one by one.
    let before = fenced();
    let send = |opaque| ask(Json, Code::SendMessage.number(), opaque, &to_topic, b"body");
    assert!(socket.send(&(0..64).map(send).collect::<Vec<_>>().concat()));
    for _ in 0..64 {
        let answer = socket.answer().unwrap();
        assert_eq!(answer.code, ResponseCode::ServiceNotAvailable.number(), "{answer:?}");
    }
    assert_eq!(fenced(), before + 64);
    group.runtime.block_on(client.shutdown());
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
