use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ResponseCode;
use crate::command::{SerializeType, Text, response};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers with the request's body and calls back when the code is 2.
struct Echo;
struct EchoSession(Connection);

impl Service for Echo {
    type Session = EchoSession;

    fn connected(&self, connection: &Connection, _io_thread: usize) -> EchoSession {
        EchoSession(connection.clone())
    }
}

impl Session for EchoSession {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        while let Some(request) = requests.next(out) {
            match request.head.code {
                2 => {
                    let (connection, head) = (self.0.clone(), request.head);
                    tokio::spawn(async move {
                        let called = connection
                            .call(SerializeType::Json, 7, |_| {}, b"back", TIMEOUT)
                            .await
                            .expect("the client answers");
                        let remark = called.command().expect("a header").remark_text();
                        connection.write(|out| {
                            response(out, &head, ResponseCode::Success, Some(&remark)).finish(b"")
                        })
                    });
                }
                3 => {}
                _ => {
                    let mut writer = response(out, &request.head, ResponseCode::Success, None);
                    if let Some(text) = request.ext.get("text") {
                        writer.text("text", text);
                    }
                    writer.finish(request.body);
                }
            }
        }
    }
}

async fn start(limits: Limits) -> (String, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let config = ServerConfig { limits, ..ServerConfig::default() };
    let server = tokio::spawn(serve(listener, Arc::new(Echo), config, shutdown.clone()));
    (address, shutdown, server)
}

#[tokio::test]
async fn calls_of_both_sides_share_one_connection_and_shutdown_ends_it() {
    let (address, shutdown, server) = start(Limits::default()).await;
    let client = connect(&address, TIMEOUT, Limits::default(), |_| NoRequests).await.unwrap();
    for serialize in [SerializeType::Json, SerializeType::Binary] {
        let text = |writer: &mut crate::command::HeaderWriter<'_>| {
            writer.text("text", Text::from("ä\u{1}"))
        };
        let (one, two) = tokio::join!(
            client.call(serialize, 1, text, b"body", TIMEOUT),
            client.call(serialize, 2, |_| {}, b"", TIMEOUT),
        );
        let one = one.unwrap();
        assert_eq!(one.body()[..], *b"body");
        assert_eq!(one.command().unwrap().ext.get("text").unwrap().to_cow(), "ä\u{1}");
        let remark = two.unwrap().command().unwrap().remark_text();
        assert_eq!(remark, "this client does not serve request code 7");
    }
    let unanswered =
        client.call(SerializeType::Json, 3, |_| {}, b"", Duration::from_millis(20)).await;
    assert!(matches!(unanswered, Err(CallError::Timeout { .. })));
    shutdown.cancel();
    server.await.unwrap();
    let refused = client.call(SerializeType::Json, 1, |_| {}, b"", TIMEOUT).await;
    assert!(matches!(refused, Err(CallError::Closed(_))));
}

#[tokio::test]
async fn a_large_frame_in_small_pieces_arrives_and_a_broken_one_closes_only_its_connection() {
    let limits = Limits { frame_bytes_max: 1 << 20, ..Limits::default() };
    let (address, shutdown, server) = start(limits).await;
    let client = connect(&address, TIMEOUT, Limits::default(), |_| NoRequests).await.unwrap();

    let mut slow = TcpStream::connect(&address).await.unwrap();
    let mut request = Vec::new();
    let body = vec![b'x'; 300_000];
    crate::command::request(&mut request, SerializeType::Json, 1, 9, false).finish(&body);
    for piece in request.chunks(70_001) {
        slow.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut reply = vec![0; 300_000];
    slow.read_exact(&mut reply).await.unwrap();

    for garbage in [&b"\x7F\xFF\xFF\xFF"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 64], &[0xFF; 64]] {
        let mut broken = TcpStream::connect(&address).await.unwrap();
        broken.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(TIMEOUT, broken.read_to_end(&mut rest)).await.expect("closed");
    }
    // A header that is no JSON is answered and the connection lives on.
    let mut bad_header = TcpStream::connect(&address).await.unwrap();
    bad_header.write_all(b"\0\0\0\x06\0\0\0\x02{]").await.unwrap();
    bad_header.write_all(&request).await.unwrap();
    let mut both = vec![0; 300_100];
    bad_header.read_exact(&mut both).await.unwrap();

    let fine = client.call(SerializeType::Json, 1, |_| {}, b"still here", TIMEOUT).await.unwrap();
    assert_eq!(fine.body()[..], *b"still here");
    shutdown.cancel();
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let (address, _shutdown, _server) =
        start(Limits { idle_timeout: Some(Duration::from_secs(60)), ..Limits::default() }).await;
    let mut idle = TcpStream::connect(&address).await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

/// Postpones each request with code 9 once.
struct Postponing(bool);

impl Session for Postponing {
    fn received<'a>(&mut self, requests: &mut Requests<'a>, out: &mut Vec<u8>) {
        while let Some(request) = requests.next(out) {
            if request.head.code == 9 && !std::mem::replace(&mut self.0, true) {
                requests.postpone(Duration::from_millis(1));
                return;
            }
            self.0 = false;
            response(out, &request.head, ResponseCode::Success, None).finish(request.body);
        }
    }
}

impl Service for Postponing {
    type Session = Self;

    fn connected(&self, _: &Connection, _: usize) -> Self {
        Self(false)
    }
}

#[tokio::test]
async fn a_postponed_request_comes_again_before_those_behind_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let service = Arc::new(Postponing(false));
    let server = tokio::spawn(serve(listener, service, ServerConfig::default(), shutdown.clone()));
    let mut peer = TcpStream::connect(address).await.unwrap();
    let mut requests = Vec::new();
    for (opaque, code) in [1, 9, 2, 9, 9].into_iter().enumerate() {
        let json = SerializeType::Json;
        crate::command::request(&mut requests, json, code, opaque as i32, false).finish(b"");
    }
    peer.write_all(&requests).await.unwrap();
    let (mut answers, mut opaques) = (Vec::new(), Vec::new());
    while opaques.len() < 5 {
        assert!(peer.read_buf(&mut answers).await.unwrap() > 0);
        while let Ok(crate::frame::Split::Frame(frame, length)) =
            crate::frame::split(&answers, usize::MAX)
        {
            opaques.push(crate::command::Command::decode(&frame).unwrap().head.opaque);
            answers.drain(..length);
        }
    }
    assert_eq!(opaques, [0, 1, 2, 3, 4]);
    shutdown.cancel();
    server.await.unwrap();
}

/// A peer that was cut off reads again. By then the same side may have said something else elsewhere.
#[tokio::test]
async fn what_was_written_before_an_abort_does_not_come_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let bytes = 48 << 20;
    for is_aborted in [false, true] {
        let client = connect(&address, TIMEOUT, Limits::default(), |_| NoRequests).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        client.write(|out| out.resize(bytes, 0)).unwrap();
        // Once something is there the kernel has taken what it takes.
        peer.readable().await.unwrap();
        match is_aborted {
            true => client.abort(),
            false => client.close(),
        }
        let mut got = Vec::new();
        let read = tokio::time::timeout(TIMEOUT, peer.read_to_end(&mut got)).await.unwrap();
        let ended = read.map_err(|error| error.kind());
        match is_aborted {
            true => assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset)),
            false => assert_eq!(ended, Ok(bytes)),
        }
        assert_eq!(got.len() < bytes, is_aborted);
    }
}
