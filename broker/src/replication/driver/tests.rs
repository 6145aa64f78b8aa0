//! A replica and a master that the test plays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;
use weirmq_authority::{EpochTable, Incarnation, LogPosition, Member, Promise, Record, Report};
use weirmq_remoting::ResponseCode;
use weirmq_store::{NewMessage, SimulatedDisk, Store, SystemClock};

use super::*;
use crate::broker::End;
use crate::config::{AckPolicy, ReplicationMode};
use crate::configuration::Configuration;
use crate::metrics::Metrics;
use crate::replication::frame::{HEAD_BYTES, Hello, Lead, contents_bytes};
use crate::replication::handshake::{PROTOCOL, PROTOCOL_MIN, Trust, accept};
use crate::replication::{ReplicationThread, Restart, RoleStatus, Status, link};
use crate::run::open;
use crate::topics::Topic;
use crate::{Broker, BrokerConfig};

const PATIENCE: Duration = Duration::from_secs(30);
/// A replica with this broker id, on any ports.
fn config(folder: &tempfile::TempDir, broker_id: u64) -> BrokerConfig {
    let mut config =
        BrokerConfig { data_dir: folder.path().into(), broker_id, ..Default::default() };
    config.store.segment_bytes = 1 << 20;
    config.limits.message_bytes_max = 64 << 10;
    config.store.free_bytes_min = 1;
    config.replication.mode = ReplicationMode::Sync;
    config.replication.min_in_sync = Some(1);
    config.replication.insecure = true;
    config
}

const MASTER: Member = Member { replica: ReplicaId(0), incarnation: Incarnation(7) };

/// A slave by configuration whose log has two messages from before there were epochs; where the second
/// begins.
struct Slave {
    broker: Arc<Broker>,
    thread: ReplicationThread,
    second: u64,
    /// Where it dials its master.
    master: TcpListener,
    /// The connection to its master.
    stream: TcpStream,
    _folder: tempfile::TempDir,
}

/// The master's part of a handshake with this broker, which dials.
async fn accept_from(master: &TcpListener, broker: &Broker) -> TcpStream {
    let (mut stream, _) = master.accept().await.unwrap();
    let own = Hello {
        protocol: PROTOCOL,
        protocol_min: PROTOCOL_MIN,
        cluster: broker.config().cluster.clone(),
        group: broker.config().name.clone(),
        member: MASTER,
        segment_bytes: broker.store.segment_bytes(),
        nonce: Uuid::new_v4(),
        address: String::new(),
    };
    accept(&mut stream, &own, &Trust::Anybody).await.unwrap();
    stream
}

impl Slave {
    async fn start(ack_policy: AckPolicy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let master = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(&folder, 1);
        config.replication.ack_policy = ack_policy;
        config.replication.master = Some(master.local_addr().unwrap().to_string());
        let disk = Arc::new(SimulatedDisk::new());
        let (store, _) =
            Store::open(config.store_config(), disk.clone(), Arc::new(SystemClock)).unwrap();
        let mut appended = Vec::new();
        for body in [b"one", b"two"] {
            store.append_now(&[NewMessage::plain("t", 0, body)], &mut appended).unwrap();
        }
        let second = appended.last().unwrap().physical_offset;
        store.close().unwrap();

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let bound = listener.local_addr().unwrap();
        let admin = weirmq_admin::Admin::default();
        let metrics = Metrics::new(&config, &admin);
        let (broker, prepared) =
            open(disk, Configuration::new(config).unwrap(), bound, admin, metrics).unwrap();
        let thread = ReplicationThread::start(prepared.unwrap(), broker.clone(), listener).unwrap();
        let stream = accept_from(&master, &broker).await;
        Self { broker, thread, second, master, stream, _folder: folder }
    }

    /// Its next connection.
    async fn meet(&mut self) {
        let met = tokio::time::timeout(PATIENCE, accept_from(&self.master, &self.broker)).await;
        self.stream = met.unwrap();
    }

    /// The frames of a master by this record, whose epoch begins at `start` of its log.
    fn leads(&self, record: &Record, start: u64) -> [Frame; 3] {
        let epoch = record.epoch;
        let mut epochs = EpochTable::default();
        assert!(epochs.begin(epoch, start));
        let end = start + 1_000;
        let report = Report {
            from: MASTER,
            promised: epoch,
            promised_version: record.in_sync_version,
            refuses: false,
            leaves: false,
            hands_over: false,
            position: LogPosition { epoch, end, flushed: end, lacks_state: false },
            leads: Some(epoch),
            follows: None,
            lost: None,
            confirmed: 0,
            sent: Duration::from_secs(epoch),
            echo: None,
        };
        let lead = Lead {
            epoch,
            store_id: self.broker.store.store_id(),
            epochs,
            start: 0,
            end,
            image: 0,
            next_offsets: Default::default(),
            since: 0,
        };
        [Frame::Record(record.clone()), Frame::Report(report), Frame::Lead(lead)]
    }

    async fn say(&mut self, frames: &[Frame]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next frame; nothing once the connection has ended.
    async fn hear(&mut self) -> Option<Frame> {
        hear(&mut self.stream).await
    }

    /// Whether it comes to follow in this epoch, before its connection ends.
    async fn comes_to_follow(&mut self, epoch: u64) -> bool {
        while let Some(frame) = self.hear().await {
            match frame {
                Frame::Fetch(fetch) if fetch.epoch == epoch => return true,
                Frame::Report(report) if report.follows == Some(epoch) => return true,
                _ => {}
            }
        }
        false
    }
}

/// The next frame; nothing once the connection has ended.
async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    let (kind, length) = contents_bytes(head, 1 << 20).unwrap();
    let mut contents = vec![0; length];
    stream.read_exact(&mut contents).await.ok()?;
    Some(Frame::decode(kind, contents.into()).unwrap())
}

fn records() -> [Record; 2] {
    let first = Record::default().appoint(MASTER, &Promise::default(), true);
    let second = first.appoint(MASTER, &Promise::default(), true);
    [first, second]
}

/// Nobody acts on it that the broker is to begin anew, as while a client holds its connection open. The
/// next master, which has all of this log, must not count what is cut then.
#[tokio::test]
async fn a_replica_whose_log_is_to_be_cut_follows_nobody_before_it_is() {
    let mut slave = Slave::start(AckPolicy::All).await;
    let [first, second] = records();
    let end = slave.broker.store.max_offset();
    let frames = [slave.leads(&first, slave.second), slave.leads(&second, end)].concat();
    slave.say(&frames).await;
    let cut = Restart::CutAt(slave.second);
    let ended = tokio::time::timeout(PATIENCE, slave.broker.ended()).await.unwrap();
    assert!(matches!(ended, End::Restart(restart) if restart == cut));
    let follows = tokio::time::timeout(PATIENCE, slave.comes_to_follow(second.epoch)).await;
    assert!(!follows.unwrap(), "it is counted with bytes that are cut");
    slave.thread.stop();
}

/// Whom somebody made the master by hand may lack what the quorum had that acknowledged it.
#[tokio::test]
async fn what_a_quorum_may_have_acknowledged_is_cut_only_for_the_master_that_wrote_it() {
    for (since, is_cut) in [(1, false), (0, true)] {
        let mut slave = Slave::start(AckPolicy::Quorum).await;
        let [first, _] = records();
        let mut frames = slave.leads(&first, slave.second);
        let [_, _, Frame::Lead(lead)] = &mut frames else { panic!("no lead") };
        lead.since = since;
        slave.say(&frames).await;
        let refuses = |slave: &Slave| {
            let replication = slave.broker.replication.as_ref().unwrap();
            let complaint = replication.gauges().into_iter().find(|it| it.0.contains("complaint"));
            complaint.unwrap().2 == 1
        };
        let decided = async {
            // Until its connection ends because its log is to be cut.
            while !refuses(&slave) && slave.hear().await.is_some() {}
        };
        tokio::time::timeout(PATIENCE, decided).await.unwrap();
        assert_eq!(refuses(&slave), !is_cut);
        let ended = tokio::time::timeout(Duration::ZERO, slave.broker.ended()).await;
        assert_eq!(ended.is_ok(), is_cut);
        slave.thread.stop();
    }
}

#[tokio::test]
async fn a_replica_whose_log_its_master_has_follows() {
    let mut slave = Slave::start(AckPolicy::All).await;
    let [first, _] = records();
    let end = slave.broker.store.max_offset();
    let frames = slave.leads(&first, end);
    slave.say(&frames).await;
    let follows = tokio::time::timeout(PATIENCE, slave.comes_to_follow(first.epoch)).await;
    assert!(follows.unwrap());
    slave.thread.stop();
}

/// 800,000 queues whose messages have all expired: more than a frame of the log may be.
#[tokio::test]
async fn a_master_with_very_many_queues_is_followed() {
    let mut slave = Slave::start(AckPolicy::All).await;
    let [first, _] = records();
    let mut frames = slave.leads(&first, slave.broker.store.max_offset());
    let [_, _, Frame::Lead(lead)] = &mut frames else { panic!("no lead") };
    let queues: BTreeMap<i32, u64> = (0..8).map(|queue| (queue, 1)).collect();
    let topics = (0..100_000).map(|topic| (format!("topic-of-20-le{topic:06}"), queues.clone()));
    lead.next_offsets = topics.collect();
    slave.say(&frames).await;
    let follows = tokio::time::timeout(PATIENCE, slave.comes_to_follow(first.epoch)).await;
    assert!(follows.unwrap());
    slave.thread.stop();
}

/// After the handshake as well: the connection ends, which is counted, and the next one serves.
#[tokio::test]
async fn what_no_replica_says_ends_its_connection_and_nothing_else() {
    let mut slave = Slave::start(AckPolicy::All).await;
    let [first, _] = records();
    let frames = slave.leads(&first, slave.broker.store.max_offset());
    let mut whole = Vec::new();
    frames[1].encode(&mut whole);
    let framed = |kind: u8, contents: &[u8]| {
        let length = (contents.len() as u32 + 1).to_be_bytes();
        [&length[..], &[kind], contents].concat()
    };
    let mut of_another = whole.clone();
    let at = whole.windows(11).position(|it| it == b"\"replica\":0").unwrap();
    of_another[at + 10] = b'2';
    let garbage = [
        vec![0xff; 64],
        vec![0; 64],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // Kinds that nobody knows, longer than may be, and as long as only a `Lead` may be.
        framed(0, b""),
        framed(99, b"{}"),
        vec![0xff, 0xff, 0xff, 0xff, 6],
        vec![0x08, 0, 0, 0, 8],
        // Reports, records and leads that are none, log bytes without a head or with another checksum.
        framed(4, b"{}"),
        framed(4, &whole[HEAD_BYTES..whole.len() - 1]),
        framed(6, &[0xc3; 1000]),
        framed(9, b"[[[[[["),
        framed(10, b"[{}]"),
        framed(8, &[0; 19]),
        framed(8, &[1; 100]),
        of_another,
    ];
    for (count, garbage) in (1..).zip(&garbage) {
        slave.stream.write_all(garbage).await.unwrap();
        let ended = async { while slave.hear().await.is_some() {} };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        assert!(ended.is_ok(), "{garbage:?} does not end the connection");
        slave.meet().await;
        let refused = slave.broker.replication.as_ref().unwrap().counted.refusals.counts();
        assert_eq!(refused, [("NoReplica", count)], "{garbage:?}");
    }
    slave.say(&frames).await;
    let follows = tokio::time::timeout(PATIENCE, slave.comes_to_follow(first.epoch)).await;
    assert!(follows.unwrap());
    slave.thread.stop();
}

/// A broker of a replica, and what its driver would be made of, which the test does not start.
pub(crate) fn broker_of(folder: &tempfile::TempDir) -> (Arc<Broker>, impl Sized) {
    let (config, admin) = (config(folder, 0), weirmq_admin::Admin::default());
    let (disk, metrics) = (Arc::new(SimulatedDisk::new()), Metrics::new(&config, &admin));
    let bound = "127.0.0.1:10911".parse().unwrap();
    open(disk, Configuration::new(config).unwrap(), bound, admin, metrics).unwrap()
}

/// A request for a queue lock that is held already is answered without an append.
#[tokio::test]
async fn a_process_that_was_stopped_does_nothing_as_master_before_its_replica_knows() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _prepared) = broker_of(&folder);
    let replication = broker.replication.as_ref().unwrap();
    let role = RoleStatus::Master { may_append: true };
    replication.set_status(Status { role, ..replication.status() });
    let now = broker.store.clock().uptime();
    broker.store.open_for_appends(Some(now + PATIENCE));
    assert!(broker.check_master().is_ok());
    // What was published last, and the time until which it holds is over.
    broker.store.open_for_appends(Some(now));
    let refusal = broker.check_master().unwrap_err();
    assert_eq!(refusal.code, ResponseCode::ServiceNotAvailable);
}

/// A driver that nobody runs.
fn driver_of(broker: Arc<Broker>) -> Driver {
    let shared = broker.replication.clone().unwrap();
    let settings = Settings::new(3);
    let (me, now) = (ReplicaId(0), broker.store.clock().uptime());
    let replica =
        Replica::new(settings.clone(), me, Promise::default(), LogPosition::default(), now);
    let group = GroupPlace { settings, authority: Authority::AtTheMaster, endpoint: None };
    let answers = mpsc::channel(1).0;
    Driver::new(broker, shared, group, replica, EpochTable::default(), answers)
}

/// The answer of a former master to whoever has just followed the next one may be late.
#[tokio::test]
async fn only_its_master_refuses_a_follower_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _prepared) = broker_of(&folder);
    let mut driver = driver_of(broker);
    let member = |replica| Member { replica: ReplicaId(replica), incarnation: Incarnation(9) };
    let (former, master) = (member(1), member(2));
    driver.act_on(Action::Follow { master, epoch: 2 }).await.unwrap();
    driver.following.as_mut().unwrap().is_aligned = true;
    let started_anew = Member { incarnation: Incarnation(8), ..master };
    for (from, is_aligned) in [(former, true), (started_anew, true), (master, false)] {
        let refused = Frame::Refused("this replica does not lead in epoch 2".into());
        driver.on_frame(from, refused).await.unwrap();
        assert_eq!(driver.following.as_ref().unwrap().is_aligned, is_aligned, "{from:?}");
    }
}

#[tokio::test]
async fn only_a_connection_of_its_master_has_a_follower_ask_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _prepared) = broker_of(&folder);
    let store = broker.store.clone();
    let mut driver = driver_of(broker);
    let member = |replica| Member { replica: ReplicaId(replica), incarnation: Incarnation(9) };
    let (other, master) = (member(1), member(2));
    driver.act_on(Action::Follow { master, epoch: 2 }).await.unwrap();
    let started_anew = Member { incarnation: Incarnation(10), ..master };
    for (from, is_aligned) in [(other, true), (started_anew, false), (master, false)] {
        driver.following.as_mut().unwrap().is_aligned = true;
        let (here, _there) = tokio::io::duplex(1 << 20);
        let (events, mut links) = mpsc::channel(4);
        let shared = driver.shared.clone();
        let serve = link::run(here, (from, 2), &store, &shared, PATIENCE, events);
        let up = async { driver.on_link(links.recv().await.unwrap()).await.unwrap() };
        tokio::select! {
            () = serve => panic!("the connection ended"),
            () = up => {}
        }
        assert_eq!(driver.following.as_ref().unwrap().is_aligned, is_aligned, "{from:?}");
    }
}

/// What a master says that has no log yet.
fn report_of(from: Member, leads: Option<u64>) -> Report {
    Report {
        from,
        promised: 2,
        promised_version: 1,
        refuses: false,
        leaves: false,
        hands_over: false,
        position: LogPosition::default(),
        leads,
        follows: None,
        lost: None,
        confirmed: 0,
        sent: Duration::ZERO,
        echo: None,
    }
}

/// It may hear of the epoch before its master leads in it.
#[tokio::test]
async fn who_was_refused_asks_again_as_soon_as_its_master_leads() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _prepared) = broker_of(&folder);
    let store = broker.store.clone();
    let mut driver = driver_of(broker);
    let master = Member { replica: ReplicaId(2), incarnation: Incarnation(9) };
    driver.act_on(Action::Follow { master, epoch: 2 }).await.unwrap();
    let (here, mut there) = tokio::io::duplex(1 << 20);
    let (events, mut links) = mpsc::channel(4);
    let shared = driver.shared.clone();
    let serve = link::run(here, (master, 2), &store, &shared, PATIENCE, events);
    let asked_again = async {
        driver.on_link(links.recv().await.unwrap()).await.unwrap();
        let refused = Frame::Refused("this replica does not lead in epoch 2".into());
        driver.on_frame(master, refused).await.unwrap();
        // Not by the time that has passed.
        let asked = Some(driver.now() + PATIENCE);
        driver.following.as_mut().unwrap().asked = asked;
        for (leads, is_new) in [(None, false), (Some(1), false), (Some(2), true)] {
            driver.on_report(report_of(master, leads));
            assert_eq!(driver.following.as_ref().unwrap().asked != asked, is_new, "{leads:?}");
        }
        for _ in 0..2 {
            let asked = hear(&mut there).await;
            assert!(matches!(asked, Some(Frame::Follow(Follow { epoch: 2 }))), "{asked:?}");
        }
    };
    tokio::select! {
        () = serve => panic!("the connection ended"),
        asked = tokio::time::timeout(PATIENCE, asked_again) => asked.unwrap(),
    }
}

#[tokio::test]
async fn a_failover_is_told_from_a_hand_over() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _prepared) = broker_of(&folder);
    let mut driver = driver_of(broker.clone());
    let master = Member { replica: ReplicaId(2), incarnation: Incarnation(9) };
    let says = |leads, hands_over| Report { hands_over, ..report_of(master, leads) };
    let counted = || broker.replication.as_ref().unwrap().failovers().map(|of| of.number);
    driver.note_failover();
    assert_eq!(counted(), [0, 0], "it is in nobody's place");
    for (reports, expected) in [
        (vec![(Some(2), false)], [1, 0]),
        // The last word comes after the office.
        (vec![(Some(2), false), (Some(2), true), (None, false)], [1, 1]),
        // That came to nothing, and the master went on.
        (vec![(Some(2), true), (Some(2), false), (None, false)], [2, 1]),
    ] {
        driver.act_on(Action::Follow { master, epoch: 2 }).await.unwrap();
        reports
            .into_iter()
            .for_each(|(leads, hands_over)| driver.on_report(says(leads, hands_over)));
        driver.note_failover();
        assert_eq!(counted(), expected);
    }
    // It takes no messages from its first word that it hands over on.
    let mut heard = |leads, hands_over| {
        driver.on_report(says(leads, hands_over));
        driver.master_heard.unwrap().0
    };
    let first = heard(Some(2), true);
    assert_eq!([heard(Some(2), true), heard(None, false)], [first; 2]);
    assert!(heard(Some(2), false) > first, "it goes on");
}

/// A master that hears of a higher epoch gives its office up, whoever has it by then.
#[tokio::test]
async fn a_hand_over_is_answered_by_who_became_master() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _prepared) = broker_of(&folder);
    let mut driver = driver_of(broker);
    let another = Err(HandOverError::Another(2));
    for (heir, outcome) in [(None, Ok(())), (Some(2), Ok(())), (Some(1), another)] {
        let (answer, mut answered) = oneshot::channel();
        driver.leading = Some(1);
        driver.handing_over = Some(HandingOver { heir: heir.map(ReplicaId), answer });
        driver.act_on(Action::Stop).await.unwrap();
        assert_eq!(answered.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let master = Member { replica: ReplicaId(2), incarnation: Incarnation(9) };
        driver.act_on(Action::Follow { master, epoch: 2 }).await.unwrap();
        assert_eq!(answered.await, Ok(outcome));
    }
}

/// A new master has not told its log yet what was committed at it as a slave, and its heir does not ask it.
#[tokio::test]
async fn a_hand_over_begins_with_what_was_committed_at_this_replica_as_a_slave() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, prepared) = broker_of(&folder);
    // Nobody carries the hand-over out.
    drop(prepared);
    broker.store.open_for_appends(None);
    broker.state.topics.put(Topic::new("t", 1));
    broker.store.append_now(&[NewMessage::plain("t", 0, b"one")], &mut Vec::new()).unwrap();
    broker.store.flush().unwrap();
    broker.store.watermarks().confirm(broker.store.max_offset());
    let replication = broker.replication.as_ref().unwrap();
    for role in [RoleStatus::Slave { master: 1 }, RoleStatus::Master { may_append: true }] {
        replication.set_status(Status { role, ..replication.status() });
        if broker.is_slave() {
            assert!(broker.commit_offset("g", "t", 0, 1).unwrap());
        }
        let before = broker.store.max_offset();
        assert_eq!(broker.hand_over(None).await, Err(HandOverError::NotMaster));
        let logged = broker.state.offsets.all().len();
        assert_eq!(logged, usize::from(!broker.is_slave()));
        assert_eq!(broker.store.max_offset() > before, !broker.is_slave());
    }
    assert!(broker.state.offsets.take_dirty().is_empty());
}

#[tokio::test]
async fn a_master_begins_with_what_was_committed_at_it_as_a_slave() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _prepared) = broker_of(&folder);
    let state = &broker.state;
    broker.store.open_for_appends(None);
    state.topics.put(Topic::new("t", 1));
    broker.group_or_create("g").unwrap();
    broker.store.append_now(&[NewMessage::plain("t", 0, b"one")], &mut Vec::new()).unwrap();
    broker.store.flush().unwrap();
    let replication = broker.replication.as_ref().unwrap();
    let role = RoleStatus::Slave { master: 1 };
    replication.set_status(Status { role, ..replication.status() });
    // Its master had confirmed the message, which this replica has not heard yet.
    assert_eq!(broker.store.queue_range("t", 0), None);
    assert!(broker.commit_offset("g", "t", 0, 1).unwrap());
    let mut driver = driver_of(broker.clone());
    driver.act_on(Action::Lead { epoch: 1 }).await.unwrap();
    assert_eq!(state.offsets.all().len(), 1);
    assert!(state.offsets.take_dirty().is_empty(), "the log says it");
    let refused = broker.store.append_now(&[NewMessage::plain("t", 0, b"2")], &mut Vec::new());
    assert!(matches!(refused, Err(StoreError::NotMaster)), "it took messages before");
}

/// The next master asks all others what was committed at them, and not the one before.
#[tokio::test]
async fn nothing_is_committed_at_a_master_of_before_until_it_has_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, _prepared) = broker_of(&folder);
    broker.state.topics.put(Topic::new("t", 1));
    let replication = broker.replication.as_ref().unwrap();
    let commits_as = |role| {
        replication.set_status(Status { role, ..replication.status() });
        broker.commit_offset("g", "t", 0, 1).map_err(|refusal| refusal.code)
    };
    assert_eq!(commits_as(RoleStatus::Slave { master: 1 }), Ok(true));
    assert_eq!(commits_as(RoleStatus::Master { may_append: true }), Ok(false));
    assert_eq!(commits_as(RoleStatus::Slave { master: 1 }), Err(ResponseCode::SystemBusy));
}
