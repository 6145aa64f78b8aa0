//! Request frames that are rendered once and patched for each message, and the scanner of replies.
//!
//! Everything that changes from message to message has a fixed width: the opaque (ten digits in
//! JSON), the born timestamp (thirteen), and the second half of the unique key (sixteen hexadecimal
//! digits). The properties are those that Apache's Java producer sends, because brokers index the
//! unique key.

use anyhow::Context as _;
use weirmq_message::batch::BatchUnit;
use weirmq_message::properties::{self, names};
use weirmq_remoting::command::{FLAG_RESPONSE, Text, request};
use weirmq_remoting::frame::{Frame, PREFIX_BYTES};
use weirmq_remoting::header::SendMessageHeader;
use weirmq_remoting::{RequestCode, SerializeType};

/// The group that the load sends as.
pub(super) const PRODUCER_GROUP: &str = "weir-bench-producer";
/// The first opaque: everything from here on has ten digits and fits an `i32`.
pub(super) const OPAQUE_BASE: i32 = 1_000_000_000;
/// How many opaques there are from the base on.
pub(super) const OPAQUES: i32 = 1_000_000_000;

const OPAQUE_MARK: i32 = 1_987_654_321;
const BORN_MARK: i64 = 1_765_432_109_876;
const TOPIC_MARK: u32 = 987_654;
const KEY_MARK: &str = "FEDCBA9876543210";
/// Where the opaque stands in a binary header: after code, language and version.
const BINARY_OPAQUE_AT: usize = PREFIX_BYTES + 5;

/// What the requests of one run look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendShape<'a> {
    pub(super) topic: &'a str,
    pub(super) queues: u32,
    pub(super) serialize: SerializeType,
    pub(super) body_bytes: usize,
    /// Messages in one request; 1 is an ordinary send.
    pub(super) batch: usize,
    /// First half of every unique key, sixteen hexadecimal digits that no other run has.
    pub(super) run: u64,
    /// Sends go to so many topics by turns, named by [`topic_name`]; 0: to `topic` itself.
    pub(super) topics: u32,
    /// In a batch, the first of every so many messages is tagged [`RARE`] and the others
    /// [`COMMON`]; 0: no tags.
    pub(super) one_tagged_in: usize,
}

/// The tag that a filtered pull asks for.
pub(super) const RARE: &str = "rare";
/// The tag of all others.
pub(super) const COMMON: &str = "common";
/// Digits of a topic's number, leading zeros included.
const TOPIC_DIGITS: usize = 6;

/// The name of topic `number` of many. All have the same length, so that frames can be patched.
pub(super) fn topic_name(base: &str, number: u32) -> String {
    format!("{base}-{number:0TOPIC_DIGITS$}")
}

/// Renders send requests, queue by queue, and for many topics topic by topic.
pub(super) struct SendFrames {
    templates: Vec<Template>,
    next: usize,
    topics: u32,
    next_topic: u32,
}

struct Template {
    bytes: Vec<u8>,
    opaque_at: usize,
    born_at: usize,
    born_ms: i64,
    /// Where the digits of a topic's number stand, if there are many topics.
    topic_at: Option<usize>,
    key_at: Vec<usize>,
    body_at: usize,
    is_binary: bool,
}

impl SendFrames {
    /// Prepares a frame for each queue; the first request goes to queue `first`.
    pub(super) fn new(shape: &SendShape<'_>, first: usize) -> anyhow::Result<Self> {
        let body = filler(shape.body_bytes);
        let templates = (0..i32::try_from(shape.queues)?)
            .map(|queue| Template::new(shape, queue, &body))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let next = first % templates.len();
        let next_topic = first as u32 % shape.topics.max(1);
        Ok(Self { templates, next, topics: shape.topics, next_topic })
    }

    /// Appends the next request to `out` and answers the bytes of its first body, to be written
    /// over. `key` is the number of the first message and moves on by the batch.
    pub(super) fn render<'o>(
        &mut self,
        out: &'o mut Vec<u8>,
        opaque: i32,
        born_ms: i64,
        key: &mut u64,
    ) -> &'o mut [u8] {
        let queues = self.templates.len();
        let template = &mut self.templates[self.next];
        let topic = self.next_topic;
        self.next_topic += 1;
        // The next queue has its turn when all topics had theirs.
        if self.next_topic >= self.topics {
            self.next_topic = 0;
            self.next = (self.next + 1) % queues;
        }
        if template.born_ms != born_ms {
            template.born_ms = born_ms;
            write_decimal(&mut template.bytes[template.born_at..][..13], born_ms as u64);
        }
        let at = out.len();
        out.extend_from_slice(&template.bytes);
        let frame = &mut out[at..];
        if template.is_binary {
            frame[template.opaque_at..][..4].copy_from_slice(&opaque.to_be_bytes());
        } else {
            write_decimal(&mut frame[template.opaque_at..][..10], opaque as u64);
        }
        if let Some(topic_at) = template.topic_at {
            write_decimal(&mut frame[topic_at..][..TOPIC_DIGITS], topic.into());
        }
        for key_at in &template.key_at {
            write_hex(&mut frame[*key_at..][..16], *key);
            *key += 1;
        }
        &mut frame[template.body_at..]
    }
}

impl Template {
    fn new(shape: &SendShape<'_>, queue: i32, body: &[u8]) -> anyhow::Result<Self> {
        let mut pairs = Vec::new();
        properties::push(&mut pairs, names::UNIQUE_KEY, &format!("{:016X}{KEY_MARK}", shape.run));
        properties::push(&mut pairs, names::WAIT_STORE_OK, "true");
        let is_batch = shape.batch > 1;
        let mut whole_body = Vec::new();
        if is_batch {
            let tagged = |tag: &str| {
                let mut pairs = pairs.clone();
                properties::push(&mut pairs, names::TAGS, tag);
                pairs
            };
            let (rare, common) = (tagged(RARE), tagged(COMMON));
            for at in 0..shape.batch {
                let properties = match at.checked_rem(shape.one_tagged_in) {
                    None => &pairs,
                    Some(0) => &rare,
                    Some(_) => &common,
                };
                BatchUnit { flag: 0, body, properties }.encode(&mut whole_body)?;
            }
            pairs.clear();
            properties::push(&mut pairs, names::WAIT_STORE_OK, "true");
        } else {
            whole_body.extend_from_slice(body);
        }
        let many = (shape.topics > 0).then(|| topic_name(shape.topic, TOPIC_MARK));
        let topic = many.as_deref().unwrap_or(shape.topic);
        let header = SendMessageHeader {
            producer_group: Some(Text::from(PRODUCER_GROUP)),
            topic: Text::from(topic),
            default_topic: Some(Text::from("TBW102")),
            default_topic_queue_nums: Some(i32::try_from(shape.queues)?),
            queue_id: queue,
            sys_flag: 0,
            born_timestamp: BORN_MARK,
            flag: 0,
            properties: Some(Text::from(std::str::from_utf8(&pairs)?)),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(is_batch),
            broker_name: None,
        };
        let code =
            if is_batch { RequestCode::SendBatchMessage } else { RequestCode::SendMessageV2 };
        let mut bytes = Vec::new();
        let mut writer = request(&mut bytes, shape.serialize, code.number(), OPAQUE_MARK, false);
        header.encode_v2(&mut writer);
        writer.finish(&whole_body);
        let is_binary = shape.serialize == SerializeType::Binary;
        let header_end = bytes.len() - whole_body.len();
        let opaque_at = if is_binary {
            BINARY_OPAQUE_AT
        } else {
            find(&bytes[..header_end], OPAQUE_MARK.to_string().as_bytes(), 0)
                .context("opaque in the rendered header")?
        };
        let born_at = find(&bytes[..header_end], BORN_MARK.to_string().as_bytes(), 0)
            .context("born timestamp in the rendered header")?;
        let topic_at = match &many {
            Some(name) => {
                let at = find(&bytes[..header_end], name.as_bytes(), 0);
                let at = at.context("topic in the rendered header")?;
                Some(at + name.len() - TOPIC_DIGITS)
            }
            None => None,
        };
        let mut key_at = Vec::new();
        let mut from = 0;
        while let Some(at) = find(&bytes, KEY_MARK.as_bytes(), from) {
            key_at.push(at);
            from = at + KEY_MARK.len();
        }
        anyhow::ensure!(key_at.len() == shape.batch.max(1), "one unique key for each message");
        let body_at = if is_batch { header_end + 20 } else { header_end };
        Ok(Self {
            bytes,
            opaque_at,
            born_at,
            born_ms: BORN_MARK,
            topic_at,
            key_at,
            body_at,
            is_binary,
        })
    }
}

/// What the scanner finds in the head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) code: i32,
    pub(super) opaque: i32,
    pub(super) is_response: bool,
}

/// Reads code, opaque and flag, and nothing else. `None` when one of them is missing.
pub(super) fn scan(frame: &Frame<'_>) -> Option<Head> {
    match frame.serialize {
        SerializeType::Json => scan_json(frame.header),
        SerializeType::Binary => {
            let header = frame.header.first_chunk::<13>()?;
            let int = |at: usize| i32::from_be_bytes([0, 1, 2, 3].map(|byte| header[at + byte]));
            Some(Head {
                code: i32::from(i16::from_be_bytes([header[0], header[1]])),
                opaque: int(5),
                is_response: int(9) & FLAG_RESPONSE != 0,
            })
        }
    }
}

fn scan_json(header: &[u8]) -> Option<Head> {
    let (mut code, mut opaque, mut flag) = (None, None, None);
    let (mut at, mut depth) = (0, 0);
    while code.is_none() || opaque.is_none() || flag.is_none() {
        match header.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let end = string_end(header, at + 1)?;
                let key = &header[at + 1..end];
                at = end + 1;
                // A value is never followed by a colon, a key always is.
                if depth == 1 && header.get(at) == Some(&b':') {
                    match key {
                        b"code" => code = number(&header[at + 1..]),
                        b"opaque" => opaque = number(&header[at + 1..]),
                        b"flag" => flag = number(&header[at + 1..]),
                        _ => {}
                    }
                }
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Some(Head { code: code?, opaque: opaque?, is_response: flag? & FLAG_RESPONSE != 0 })
}

/// The index of the quote that ends the string beginning at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn number(bytes: &[u8]) -> Option<i32> {
    let (is_negative, digits) = match bytes.first()? {
        b'-' => (true, &bytes[1..]),
        _ => (false, bytes),
    };
    let mut value = 0i64;
    let mut seen = 0;
    for byte in digits.iter().take_while(|byte| byte.is_ascii_digit()).take(11) {
        value = value * 10 + i64::from(byte - b'0');
        seen += 1;
    }
    let value = if is_negative { -value } else { value };
    if seen == 0 { None } else { i32::try_from(value).ok() }
}

/// A body that no disk or link compresses away, and that is printable.
fn filler(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'0' + ((state >> 32) % 75) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Writes all digits, with leading zeros.
pub(super) fn write_decimal(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn write_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value & 0xF) as usize];
        value >>= 4;
    }
}

fn find(bytes: &[u8], pattern: &[u8], from: usize) -> Option<usize> {
    let windows = bytes.get(from..)?.windows(pattern.len());
    windows.into_iter().position(|window| window == pattern).map(|at| at + from)
}

#[cfg(test)]
mod tests {
    use weirmq_message::batch::units;
    use weirmq_remoting::Command;
    use weirmq_remoting::frame::{Split, split};
    use weirmq_remoting::header::Header as _;

    use super::*;

    fn shape(serialize: SerializeType, batch: usize) -> SendShape<'static> {
        SendShape {
            topic: "t",
            queues: 12,
            serialize,
            body_bytes: 100,
            batch,
            run: 0xAB,
            topics: 0,
            one_tagged_in: 0,
        }
    }

    fn whole(bytes: &[u8]) -> Frame<'_> {
        let Ok(Split::Frame(frame, length)) = split(bytes, 1 << 20) else { panic!("no frame") };
        assert_eq!(length, bytes.len());
        frame
    }

    #[test]
    fn a_patched_frame_decodes_to_what_was_patched_in() {
        for serialize in [SerializeType::Json, SerializeType::Binary] {
            let mut frames = SendFrames::new(&shape(serialize, 1), 11).unwrap();
            let mut key = 0x77;
            for queue in [11, 0, 1] {
                let mut out = Vec::new();
                let opaque = OPAQUE_BASE + queue;
                frames.render(&mut out, opaque, 1_800_000_000_000, &mut key)[0] = b'!';
                let frame = whole(&out);
                let command = Command::decode(&frame).unwrap();
                let header = SendMessageHeader::decode(&command.ext).unwrap();
                let pairs = header.properties.unwrap().to_cow();
                let unique = properties::get(pairs.as_bytes(), names::UNIQUE_KEY).unwrap();
                assert_eq!(unique, format!("{:016X}{:016X}", 0xAB, key - 1));
                assert_eq!((command.head.code, command.head.opaque), (310, opaque));
                assert_eq!((header.queue_id, header.born_timestamp), (queue, 1_800_000_000_000));
                assert_eq!((command.body.len(), command.body[0]), (100, b'!'));
                let head = Head { code: 310, opaque, is_response: false };
                assert_eq!(scan(&frame), Some(head));
            }
            assert_eq!(key, 0x7A);
        }
    }

    #[test]
    fn a_batch_holds_as_many_units_with_keys_of_their_own() {
        let mut frames = SendFrames::new(&shape(SerializeType::Json, 3), 0).unwrap();
        let mut out = Vec::new();
        let mut key = 1;
        frames.render(&mut out, OPAQUE_BASE, 1_800_000_000_000, &mut key)[0] = b'!';
        let frame = whole(&out);
        let units = units(frame.body).collect::<Result<Vec<_>, _>>().unwrap();
        let keys: Vec<_> = units
            .iter()
            .map(|unit| properties::get(unit.properties, "UNIQ_KEY").unwrap())
            .collect();
        assert_eq!(units[0].body[0], b'!');
        assert_eq!(keys.len(), 3);
        assert!(keys[2].ends_with("0003") && keys[0] != keys[1]);
        assert_eq!(Command::decode(&frame).unwrap().head.code, 320);
    }

    #[test]
    fn many_topics_take_turns_before_the_queue_changes() {
        for serialize in [SerializeType::Json, SerializeType::Binary] {
            let shape = SendShape { topics: 3, queues: 2, ..shape(serialize, 1) };
            let mut frames = SendFrames::new(&shape, 0).unwrap();
            let mut seen = Vec::new();
            for _ in 0..4 {
                let mut out = Vec::new();
                frames.render(&mut out, OPAQUE_BASE, 1_800_000_000_000, &mut 1);
                let frame = whole(&out);
                let command = Command::decode(&frame).unwrap();
                let header = SendMessageHeader::decode(&command.ext).unwrap();
                seen.push((header.topic.to_cow().into_owned(), header.queue_id));
            }
            let expected = [(0, 0), (1, 0), (2, 0), (0, 1)];
            assert_eq!(seen, expected.map(|(number, queue)| (topic_name("t", number), queue)));
        }
    }

    #[test]
    fn one_message_in_so_many_is_tagged_as_rare() {
        let shape = SendShape { one_tagged_in: 3, ..shape(SerializeType::Json, 6) };
        let mut out = Vec::new();
        SendFrames::new(&shape, 0).unwrap().render(
            &mut out,
            OPAQUE_BASE,
            1_800_000_000_000,
            &mut 1,
        );
        let frame = whole(&out);
        let tags: Vec<_> = units(frame.body)
            .map(|unit| properties::get(unit.unwrap().properties, names::TAGS).unwrap().to_owned())
            .collect();
        assert_eq!(tags, [RARE, COMMON, COMMON, RARE, COMMON, COMMON]);
    }

    #[test]
    fn the_scanner_is_not_misled_by_fields_and_remarks() {
        let header = br#"{"extFields":{"code":"7","opaque":"8"},"remark":"\"code\":9, {","code":-3,"language":"code","opaque":2147483647,"flag":1}"#;
        let frame = Frame { serialize: SerializeType::Json, header, body: b"" };
        assert_eq!(scan(&frame), Some(Head { code: -3, opaque: i32::MAX, is_response: true }));
        for cut in 0..header.len() - 2 {
            let frame = Frame { serialize: SerializeType::Json, header: &header[..cut], body: b"" };
            assert_eq!(scan(&frame), None, "cut at {cut}");
        }
    }
}
