//! Looking messages up: codes 12 and 33.

use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::{Command, response};
use weirmq_remoting::header::{
    Header as _, QueryMessageHeader, QueryMessageResponseHeader, ViewMessageHeader,
};

use super::{Context, Refusal, fields, succeed_with_body};

/// The most messages of one answer. Apache's `maxMsgsNumBatch`.
const MESSAGES_MAX: usize = 64;
/// The most bytes of one answer.
const BYTES_MAX: usize = 8 << 20;

pub(super) fn by_key(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: QueryMessageHeader<'_> = fields(request)?;
    let store = &context.broker.store;
    let (topic, key) = (header.topic.to_cow(), header.key.to_cow());
    let most = usize::try_from(header.max_num).unwrap_or(0).clamp(1, MESSAGES_MAX);
    let found =
        store.query_key(&topic, &key, most, header.begin_timestamp, header.end_timestamp)?;
    let mut body = Vec::new();
    for offset in &found {
        store.read_record(*offset, &mut body)?;
        if body.len() > BYTES_MAX {
            break;
        }
    }
    if body.is_empty() {
        let remark = "can not find message, maybe time range not correct";
        return Err(Refusal::new(ResponseCode::QueryNotFound, remark));
    }
    let fields = QueryMessageResponseHeader {
        index_last_update_timestamp: context.broker.now_ms(),
        index_last_update_phyoffset: store.watermarks().visible() as i64,
    };
    let mut writer = response(out, &request.head, ResponseCode::Success, None);
    fields.encode(&mut writer);
    writer.finish(&body);
    Ok(())
}

pub(super) fn by_offset(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let header: ViewMessageHeader<'_> = fields(request)?;
    let mut body = Vec::new();
    if !context.broker.read_client_record(header.offset, &mut body)? {
        let remark = format!("can not find message by the offset, {}", header.offset);
        return Err(Refusal::new(ResponseCode::SystemError, remark));
    }
    succeed_with_body(out, &request.head, &body);
    Ok(())
}
