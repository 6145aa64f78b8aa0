//! Frames of version 1 of the protocol, as a broker of that version wrote them. A version that speaks with
//! it has to understand them for ever, and where it says the same, to say it in these bytes.

use bytes::Bytes;
use uuid::Uuid;
use weirmq_authority::{
    EpochTable, Incarnation, LogPosition, Member, Phase, Record, ReplicaId, Report,
};

use super::frame::{Fetch, Follow, Frame, HEAD_BYTES, Hello, Lead, LogBytes, contents_bytes};
use super::handshake::{Trust, accept, dial};
use crate::offsets::CommittedOffset;

const HELLO_OF_0: &[u8] =
    b"\x00\x00\x00\xe9\x01{\"protocol\":1,\"protocolMin\":1,\"cluster\":\"DefaultCluster\",\"group\
      \":\"broker-a\",\"member\":{\"replica\":0,\"incarnation\":\"5a1f3c0e9b7d2486\"},\"segmentByt\
      es\":1073741824,\"nonce\":\"9f0e3ed2-3d0f-4b4f-8d7e-0d1f0a3c5b77\",\"address\":\"10.0.0.7:10\
      911\"}";
const HELLO_OF_1: &[u8] =
    b"\x00\x00\x00\xe9\x01{\"protocol\":1,\"protocolMin\":1,\"cluster\":\"DefaultCluster\",\"group\
      \":\"broker-a\",\"member\":{\"replica\":1,\"incarnation\":\"00000000000000ff\"},\"segmentByt\
      es\":1073741824,\"nonce\":\"0c9b1f6e-52a7-4b07-9d53-6f2f4a1c88e1\",\"address\":\"10.0.0.8:10\
      911\"}";
const PROOF_OF_DIALLER: &[u8] =
    b"\x00\x00\x00!\x02i\xbf\x93\x12\xad\"\xba\xc2\xdc\xbf\xfa\xb1\xa7G\xe6\x07c*\xddR\x93\x0d\x8d\
      \xc5R\xfat\xc6\xa4\xb6\xe5\x99";
const PROOF_OF_LISTENER: &[u8] =
    b"\x00\x00\x00!\x02\xe5\x83\x9c\xfd\xed\xd7\xb8\xc6\xe5\xcd\xf5\xc46\x1cj\x82\xa9\x896\x9a\xf2\
      \xf9\xcf\x8b\xf3\xfet\x06\x10n\xe6\xc8";
const REFUSED: &[u8] = b"\x00\x00\x00\x03\x03no";
const REPORT: &[u8] =
    b"\x00\x00\x01\x14\x04{\"from\":{\"replica\":1,\"incarnation\":\"00000000000000ff\"},\"promise\
      d\":7,\"promised_version\":12,\"refuses\":false,\"position\":{\"epoch\":7,\"end\":4103,\"flu\
      shed\":4096},\"leads\":null,\"follows\":7,\"lost\":null,\"confirmed\":4000,\"sent\":{\"secs\
      \":86400,\"nanos\":5},\"echo\":{\"secs\":0,\"nanos\":7000000}}";
const FOLLOW: &[u8] = b"\x00\x00\x00\x0c\x05{\"epoch\":7}";
const LEAD: &[u8] =
    b"\x00\x00\x00\xb3\x06{\"epoch\":7,\"storeId\":\"2b7d3c1a-0d53-4cf4-9a86-0b0c7a3f9e11\",\"epoc\
      hs\":[{\"epoch\":3,\"start\":0},{\"epoch\":7,\"start\":4096}],\"start\":0,\"end\":4103,\"ima\
      ge\":64,\"nextOffsets\":{\"t\":{\"0\":9}}}";
const FETCH: &[u8] = b"\x00\x00\x00\x18\x07{\"epoch\":7,\"from\":4096}";
const LOG: &[u8] =
    b"\x00\x00\x00\x1c\x08\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x10\x00\x9c\x9d\
      XFrecords";
const RECORD: &[u8] =
    b"\x00\x00\x00\xc8\x09{\"epoch\":7,\"phase\":\"Stable\",\"master\":{\"replica\":0,\"incarnatio\
      n\":\"5a1f3c0e9b7d2486\"},\"inSync\":{\"0\":\"5a1f3c0e9b7d2486\",\"1\":\"00000000000000ff\"}\
      ,\"inSyncVersion\":12,\"eligible\":{},\"lossEpoch\":0,\"trail\":[]}";
const OFFSETS: &[u8] =
    b"\x00\x00\x00D\x0a[{\"group\":\"g\",\"topic\":\"%RETRY%g\",\"queue\":3,\"offset\":10995116277\
      76}]";

/// What this version says otherwise to one of version 1: which versions it speaks, and in a report that it
/// leaves. The code of version 1 was shown these bytes: its `accept` answered the hello with `PROOF_TO_OWN_HELLO`
/// and took the proof, its `Frame::decode` read the report as `REPORT`.
const OWN_HELLO_OF_1: &[u8] =
    b"\x00\x00\x00\xe9\x01{\"protocol\":2,\"protocolMin\":1,\"cluster\":\"DefaultCluster\",\"group\
      \":\"broker-a\",\"member\":{\"replica\":1,\"incarnation\":\"00000000000000ff\"},\"segmentByt\
      es\":1073741824,\"nonce\":\"0c9b1f6e-52a7-4b07-9d53-6f2f4a1c88e1\",\"address\":\"10.0.0.8:10\
      911\"}";
const PROOF_TO_OWN_HELLO: &[u8] =
    b"\x00\x00\x00!\x02\x9c3\x7f\xda\xf21\x04cx\xeb\xda\xe0%\xcf\x1a\x02\xac\xf3]n\x8fv\xed\
      \xe8\xda\xc2\xac\x9d\xdc\xd4\xeer";
const OWN_PROOF_OF_DIALLER: &[u8] =
    b"\x00\x00\x00!\x02j\x03\x13\xe1\xa2\xc7\x0bS\xe7H\xe7\xb8\xd0=\x12\xb5U\x0f\x7f$\xd9\xb7\
      \xae\x9bR\x00\xc6\x82$X)\xea";
const OWN_LEAVING_REPORT: &[u8] =
    b"\x00\x00\x01\x22\x04{\"from\":{\"replica\":1,\"incarnation\":\"00000000000000ff\"},\"promise\
      d\":7,\"promised_version\":12,\"refuses\":false,\"leaves\":true,\"position\":{\"epoch\":7,\"end\
      \":4103,\"flushed\":4096},\"leads\":null,\"follows\":7,\"lost\":null,\"confirmed\":4000,\"sent\
      \":{\"secs\":86400,\"nanos\":5},\"echo\":{\"secs\":0,\"nanos\":7000000}}";

const SECRET: &[u8] = b"only the replicas know";

fn member(replica: u32) -> Member {
    let incarnation = if replica == 0 { 0x5a1f_3c0e_9b7d_2486 } else { 255 };
    Member { replica: ReplicaId(replica), incarnation: Incarnation(incarnation) }
}

fn hello(replica: u32) -> Hello {
    let nonce = match replica {
        0 => "9f0e3ed2-3d0f-4b4f-8d7e-0d1f0a3c5b77",
        _ => "0c9b1f6e-52a7-4b07-9d53-6f2f4a1c88e1",
    };
    Hello {
        protocol: 1,
        protocol_min: 1,
        cluster: "DefaultCluster".into(),
        group: "broker-a".into(),
        member: member(replica),
        segment_bytes: 1 << 30,
        nonce: Uuid::parse_str(nonce).unwrap(),
        address: format!("10.0.0.{}:10911", 7 + replica),
    }
}

#[test]
fn frames_are_read_and_written_as_they_were() {
    let mut epochs = EpochTable::default();
    assert!(epochs.begin(3, 0) && epochs.begin(7, 4096));
    let seconds = std::time::Duration::from_secs;
    let report = Report {
        from: member(1),
        promised: 7,
        promised_version: 12,
        refuses: false,
        leaves: false,
        hands_over: false,
        position: LogPosition { epoch: 7, end: 4103, flushed: 4096, lacks_state: false },
        leads: None,
        follows: Some(7),
        lost: None,
        confirmed: 4000,
        sent: seconds(86_400) + std::time::Duration::from_nanos(5),
        echo: Some(std::time::Duration::from_millis(7)),
    };
    let lead = Lead {
        since: 0,
        epoch: 7,
        store_id: Uuid::parse_str("2b7d3c1a-0d53-4cf4-9a86-0b0c7a3f9e11").unwrap(),
        epochs,
        start: 0,
        end: 4103,
        image: 64,
        next_offsets: [("t".to_owned(), [(0, 9)].into())].into(),
    };
    let record = Record {
        epoch: 7,
        phase: Phase::Stable,
        master: Some(member(0)),
        in_sync: [member(0), member(1)].into_iter().collect(),
        in_sync_version: 12,
        ..Record::default()
    };
    let offset =
        CommittedOffset { group: "g".into(), topic: "%RETRY%g".into(), queue: 3, offset: 1 << 40 };
    let log = LogBytes { epoch: 7, position: 4096, bytes: Bytes::from_static(b"records") };
    for (bytes, frame) in [
        (HELLO_OF_0, Frame::Hello(hello(0))),
        (HELLO_OF_1, Frame::Hello(hello(1))),
        (REFUSED, Frame::Refused("no".into())),
        (REPORT, Frame::Report(report)),
        (OWN_LEAVING_REPORT, Frame::Report(Report { leaves: true, ..report })),
        (FOLLOW, Frame::Follow(Follow { epoch: 7 })),
        (LEAD, Frame::Lead(lead)),
        (FETCH, Frame::Fetch(Fetch { epoch: 7, from: 4096 })),
        (LOG, Frame::Log(log)),
        (RECORD, Frame::Record(record)),
        (OFFSETS, Frame::Offsets(vec![offset])),
    ] {
        let (kind, length) = contents_bytes(*bytes.first_chunk().unwrap(), 1 << 20).unwrap();
        assert_eq!(length + HEAD_BYTES, bytes.len());
        let read = Frame::decode(kind, Bytes::from_static(bytes).slice(HEAD_BYTES..)).unwrap();
        assert_eq!(read, frame);
        let mut written = Vec::new();
        frame.encode(&mut written);
        let text = String::from_utf8_lossy(&written).into_owned();
        assert!(written == bytes, "{text}");
    }
}

/// Plays the other side: `says` is sent, and so much heard.
async fn play(stream: tokio::io::DuplexStream, says: &[&[u8]], hears: usize) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut from, mut to) = tokio::io::split(stream);
    to.write_all(&says.concat()).await.unwrap();
    let mut heard = vec![0; hears];
    from.read_exact(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn a_handshake_of_that_version_is_understood_from_both_sides() {
    let trust = Trust::of_secret(SECRET).unwrap();
    // Replica 1 of version 1 dials; it ignores what it does not know of the answer.
    let (mut here, there) = tokio::io::duplex(1 << 16);
    let hears = HELLO_OF_0.len() + PROOF_OF_LISTENER.len();
    let own = hello(0);
    let (accepted, heard) = tokio::join!(
        accept(&mut here, &own, &trust),
        play(there, &[HELLO_OF_1, PROOF_OF_DIALLER], hears)
    );
    assert_eq!(accepted.unwrap(), hello(1));
    assert_eq!(heard, [HELLO_OF_0, PROOF_OF_LISTENER].concat());
    // Replica 0 of version 1 listens.
    let (mut here, there) = tokio::io::duplex(1 << 16);
    let hears = HELLO_OF_1.len() + PROOF_OF_DIALLER.len();
    let own = hello(1);
    let (dialled, heard) = tokio::join!(
        dial(&mut here, &own, &trust),
        play(there, &[HELLO_OF_0, PROOF_OF_LISTENER], hears)
    );
    assert_eq!(dialled.unwrap(), hello(0));
    assert_eq!(heard, [HELLO_OF_1, PROOF_OF_DIALLER].concat());
}

/// With the hello that it says itself.
#[tokio::test]
async fn one_of_that_version_is_shown_what_it_was_seen_to_understand() {
    use super::handshake::{PROTOCOL, PROTOCOL_MIN};
    let trust = Trust::of_secret(SECRET).unwrap();
    let (mut here, there) = tokio::io::duplex(1 << 16);
    let hears = OWN_HELLO_OF_1.len() + OWN_PROOF_OF_DIALLER.len();
    let own = Hello { protocol: PROTOCOL, protocol_min: PROTOCOL_MIN, ..hello(1) };
    let (dialled, heard) = tokio::join!(
        dial(&mut here, &own, &trust),
        play(there, &[HELLO_OF_0, PROOF_TO_OWN_HELLO], hears)
    );
    assert_eq!(dialled.unwrap(), hello(0));
    assert_eq!(heard, [OWN_HELLO_OF_1, OWN_PROOF_OF_DIALLER].concat());
}

#[test]
fn this_version_says_that_it_still_speaks_that_one() {
    use super::handshake::{PROTOCOL, PROTOCOL_MIN};
    assert!((PROTOCOL_MIN..=PROTOCOL).contains(&1), "replicas are upgraded one after the other");
}
