//! Cleaning by hand: codes 306, 316 and 329, which have neither fields nor a body either way.

use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::{Command, response};

use crate::request::{Context, Refusal};

fn succeed(request: &Command<'_>, out: &mut Vec<u8>) {
    response(out, &request.head, ResponseCode::Success, None).finish(b"");
}

/// Code 306. Queue entries lie with the log segment that they point into and go with it, so there
/// never are expired ones.
pub(in crate::request) fn expired_queues(
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    succeed(request, out);
    Ok(())
}

/// Code 316: forgets the queues of topics that do not exist, of this replica: each has its own. It waits for
/// the disk and for others who change the state.
pub(in crate::request) fn unused_topics(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let Some(deleted) = context.broker.state.delete_unused_queues()? else {
        let remark = "this replica does not know yet which topics there are; ask again";
        return Err(Refusal::new(ResponseCode::SystemBusy, remark));
    };
    for topic in deleted {
        tracing::info!(topic, "queues of a topic that does not exist are deleted");
    }
    succeed(request, out);
    Ok(())
}

/// Code 329: deletes what has expired, whatever the hour. Answered before it is done, as by
/// Apache's broker (`DefaultMessageStore.executeDeleteFilesManually`).
pub(in crate::request) fn expired_log(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    context.broker.store.request_expiry();
    succeed(request, out);
    Ok(())
}
