//! The few questions that a benchmark asks beside its load, over a blocking connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use weirmq_remoting::body::{Body as _, TopicRouteData};
use weirmq_remoting::command::{HeaderWriter, Text, request};
use weirmq_remoting::frame::{FRAME_BYTES_MAX, Split, split};
use weirmq_remoting::header::{
    CreateTopicHeader, Header as _, OffsetResponseHeader, QueueHeader, RouteHeader,
};
use weirmq_remoting::{Code, Command, RequestCode, ResponseCode, SerializeType};

/// The topic that every broker with automatic topic creation registers.
const TEMPLATE_TOPIC: &str = "TBW102";
const PERMISSION_WRITE: i32 = 2;
const PERMISSION_READ_WRITE: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection for one request at a time.
pub(super) struct Control {
    stream: TcpStream,
    opaque: i32,
}

/// Min and max offset of each queue, from queue 0 on.
pub(super) type Offsets = Vec<std::ops::Range<u64>>;

impl Control {
    pub(super) fn connect(address: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, opaque: 0 })
    }

    pub(super) fn create_topic(&mut self, topic: &str, queues: u32) -> anyhow::Result<()> {
        let header = create_topic_header(topic, i32::try_from(queues)?);
        self.call(RequestCode::UpdateAndCreateTopic, |writer| header.encode(writer), |_| Ok(()))
    }

    /// The offsets of the first `queues` queues of `topic`.
    pub(super) fn offsets(&mut self, topic: &str, queues: u32) -> anyhow::Result<Offsets> {
        let mut offsets = Vec::new();
        for queue in 0..i32::try_from(queues)? {
            let min = self.offset(RequestCode::GetMinOffset, topic, queue)?;
            let max = self.offset(RequestCode::GetMaxOffset, topic, queue)?;
            // A queue that nobody wrote to may answer with -1.
            let at = |offset: i64| u64::try_from(offset).unwrap_or(0);
            offsets.push(at(min).min(at(max))..at(max));
        }
        Ok(offsets)
    }

    /// Waits until the queues hold `messages` more than `before`: a broker may dispatch to its
    /// queues a moment after it acknowledged. Answers how many they hold in the end.
    pub(super) fn stored_since(
        &mut self,
        topic: &str,
        before: &Offsets,
        messages: u64,
    ) -> anyhow::Result<u64> {
        let queues = u32::try_from(before.len())?;
        let ends = |offsets: &Offsets| offsets.iter().map(|range| range.end).sum::<u64>();
        let mut stored = 0;
        for _ in 0..100 {
            stored = ends(&self.offsets(topic, queues)?).saturating_sub(ends(before));
            if stored >= messages {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(stored)
    }

    fn offset(&mut self, code: RequestCode, topic: &str, queue: i32) -> anyhow::Result<i64> {
        let header = QueueHeader { topic: Text::from(topic), queue_id: queue, committed: None };
        self.call(
            code,
            |writer| header.encode(writer),
            |answer| Ok(OffsetResponseHeader::decode(&answer.ext)?.offset),
        )
    }

    /// Asks once; any answer but success is an error with the broker's words.
    fn call<T>(
        &mut self,
        code: RequestCode,
        encode: impl FnOnce(&mut HeaderWriter<'_>),
        read: impl FnOnce(&Command<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.opaque += 1;
        let mut bytes = Vec::new();
        let mut writer =
            request(&mut bytes, SerializeType::Json, code.number(), self.opaque, false);
        encode(&mut writer);
        writer.finish(&[]);
        self.stream.write_all(&bytes).with_context(|| format!("ask {}", code.name()))?;
        let mut input = Vec::new();
        loop {
            let whole = match split(&input, FRAME_BYTES_MAX)? {
                Split::Frame(frame, taken) => {
                    let answer = Command::decode(&frame)?;
                    if answer.head.is_response() && answer.head.opaque == self.opaque {
                        if answer.head.code != ResponseCode::Success.number() {
                            bail!(
                                "{} was answered with {}: {}",
                                code.name(),
                                Code::<ResponseCode>::from(answer.head.code),
                                answer.remark_text()
                            );
                        }
                        return read(&answer);
                    }
                    // Not ours: brokers also ask their clients.
                    input.drain(..taken);
                    continue;
                }
                Split::Need(need) => need,
            };
            let held = input.len();
            input.resize(whole, 0);
            let got = self
                .stream
                .read(&mut input[held..])
                .with_context(|| format!("wait for the answer to {}", code.name()))?;
            if got == 0 {
                bail!("connection closed during {}", code.name());
            }
            input.truncate(held + got);
        }
    }
}

/// A readable and writable topic of `queues` queues.
pub(super) fn create_topic_header(topic: &str, queues: i32) -> CreateTopicHeader<'_> {
    CreateTopicHeader {
        topic: Text::from(topic),
        default_topic: Some(Text::from(TEMPLATE_TOPIC)),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm: PERMISSION_READ_WRITE,
        topic_filter_type: Some(Text::from("SINGLE_TAG")),
        topic_sys_flag: Some(0),
        order: Some(false),
        attributes: None,
        force: None,
    }
}

/// The first writable master that `namesrv` names for `topic`, or for new topics if nobody has
/// that one yet.
pub(super) fn broker_of(namesrv: &str, topic: &str) -> anyhow::Result<String> {
    let mut control = Control::connect(namesrv)?;
    let mut route = |topic: &str| {
        let header =
            RouteHeader { topic: Text::from(topic), accept_standard_json_only: Some(true) };
        control.call(
            RequestCode::GetRouteInfoByTopic,
            |writer| header.encode(writer),
            |answer| Ok(TopicRouteData::decode(answer.body)?),
        )
    };
    let route = route(topic).or_else(|error| route(TEMPLATE_TOPIC).map_err(|_| error))?;
    let is_writable = |name: &str| {
        route.queue_datas.iter().any(|data| {
            data.broker_name == name
                && data.perm & PERMISSION_WRITE != 0
                && data.write_queue_nums > 0
        })
    };
    let mut masters = route.broker_datas.iter().filter(|broker| is_writable(&broker.broker_name));
    let master = masters.find_map(|broker| broker.broker_addrs.get(&0));
    master.cloned().with_context(|| format!("no writable master for topic {topic}"))
}
