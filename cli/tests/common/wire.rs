//! Frames by hand, over plain sockets.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use weirmq_remoting::command::{Command, HeaderWriter, Text, request};
use weirmq_remoting::frame::{FRAME_BYTES_MAX, Split, split};
use weirmq_remoting::{RequestCode, SerializeType};

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A frame around `header`, whatever that is.
pub(crate) fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = 4 + header.len() + body.len();
    let mut bytes = (length as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(body);
    bytes
}

/// What a Java producer says of a message for queue 0, which has a topic made of two queues.
pub(crate) fn send_fields<'a>(topic: &'a str, properties: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
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
        ("unitMode", "false"),
        ("batch", "false"),
    ]
}

/// A well-formed request with these extension fields.
pub(crate) fn ask(
    serialize: SerializeType,
    code: i32,
    opaque: i32,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer: HeaderWriter<'_> = request(&mut bytes, serialize, code, opaque, false);
    for (key, value) in fields {
        writer.text(key, Text::from(*value));
    }
    writer.finish(body);
    bytes
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) opaque: i32,
    pub(crate) remark: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Socket {
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Sends everything; `false` when the peer has closed the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Nothing more will be sent.
    pub(crate) fn finish(&mut self) {
        // The peer may have closed the connection.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Waits until the peer has closed the connection; what it says before, for example a TLS
    /// alert, is dropped.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read_to_end(&mut self.received) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// The next frame; `None` when the peer has closed the connection.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Split::Frame(frame, length) = split(&self.received, FRAME_BYTES_MAX).unwrap() {
                let command = Command::decode(&frame).unwrap();
                let fields = command.ext.iter();
                let answer = Answer {
                    code: command.head.code,
                    opaque: command.head.opaque,
                    remark: command.remark_text(),
                    fields: fields
                        .map(|(key, value)| (key.to_owned(), value.to_cow().into_owned()))
                        .collect(),
                    body: command.body.to_vec(),
                };
                self.received.drain(..length);
                return Some(answer);
            }
            let mut buffer = [0; 64 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer within {PATIENCE:?}: {error}"),
            }
        }
    }

    /// Sends a well-formed request and waits for its answer, which has to come.
    #[track_caller]
    pub(crate) fn call(&mut self, code: RequestCode, fields: &[(&str, &str)]) -> Answer {
        self.call_with_body(code, fields, b"")
    }

    #[track_caller]
    pub(crate) fn call_with_body(
        &mut self,
        code: RequestCode,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.call_as(SerializeType::Json, code, fields, body)
    }
    #[track_caller]
    pub(crate) fn call_as(
        &mut self,
        serialize: SerializeType,
        code: RequestCode,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let opaque = 7000 + code.number();
        assert!(self.send(&ask(serialize, code.number(), opaque, fields, body)));
        let answer = self.answer().expect("the connection was closed");
        assert_eq!(answer.opaque, opaque, "{answer:?}");
        answer
    }
}
