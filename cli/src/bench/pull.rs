//! Pull requests and their answers, for both workloads that read.

use anyhow::Context as _;
use weirmq_remoting::command::{Text, request};
use weirmq_remoting::frame::Frame;
use weirmq_remoting::header::{
    Header as _, PULL_SUBSCRIPTION, PULL_SUSPEND, PullMessageHeader, PullMessageResponseHeader,
};
use weirmq_remoting::{Command, RequestCode, SerializeType};

/// The group that the load reads as.
const CONSUMER_GROUP: &str = "weir-bench-consumer";
/// What one pull asks for, as Apache's push consumer does.
pub(super) const MESSAGES_MAX: i32 = 32;
/// How long a broker may hold a pull that finds nothing.
const HOLD_MS: i64 = 15_000;

/// Writes pulls of one topic.
#[derive(Clone, Copy)]
pub(super) struct Pulls<'a> {
    pub(super) topic: &'a str,
    pub(super) serialize: SerializeType,
    pub(super) messages_max: i32,
    /// Whether the broker is to hold a pull that finds nothing.
    pub(super) is_long: bool,
    /// Tags to ask for; `*` for all messages.
    pub(super) tags: &'a str,
}

impl Pulls<'_> {
    pub(super) fn render(&self, out: &mut Vec<u8>, opaque: i32, queue: u32, offset: u64) {
        let suspend = if self.is_long { PULL_SUSPEND } else { 0 };
        let header = PullMessageHeader {
            consumer_group: Text::from(CONSUMER_GROUP),
            topic: Text::from(self.topic),
            queue_id: queue as i32,
            queue_offset: offset as i64,
            max_msg_nums: self.messages_max,
            sys_flag: PULL_SUBSCRIPTION | suspend,
            commit_offset: Some(0),
            suspend_timeout_millis: Some(if self.is_long { HOLD_MS } else { 0 }),
            subscription: Some(Text::from(self.tags)),
            sub_version: Some(0),
            expression_type: Some(Text::from("TAG")),
            max_msg_bytes: None,
        };
        let code = RequestCode::PullMessage.number();
        let mut writer = request(out, self.serialize, code, opaque, false);
        header.encode(&mut writer);
        writer.finish(&[]);
    }
}

/// An answer to a pull.
pub(super) struct Pulled {
    pub(super) opaque: i32,
    pub(super) code: i32,
    pub(super) next_offset: u64,
}

/// Reads an answer's head; `None` when it is a request of the broker's own.
pub(super) fn read(frame: &Frame<'_>) -> anyhow::Result<Option<Pulled>> {
    let answer = Command::decode(frame)?;
    if !answer.head.is_response() {
        return Ok(None);
    }
    // Refusals come without offsets; only what stands under a success is used.
    let next_offset = match PullMessageResponseHeader::decode(&answer.ext) {
        Ok(header) => u64::try_from(header.next_begin_offset).context("negative next offset")?,
        Err(error) if answer.head.code == 0 => return Err(error.into()),
        Err(_) => 0,
    };
    Ok(Some(Pulled { opaque: answer.head.opaque, code: answer.head.code, next_offset }))
}
