//! Requests that wait for the disk, on threads of their own.

use weirmq_remoting::command::Command;
use weirmq_remoting::net::OwnedCommand;
use weirmq_remoting::{RequestCode, ResponseCode};

use super::{Context, Refusal};

/// So many are answered at once; each may hold an answer of some MiB.
pub(crate) const AT_ONCE_MAX: usize = 64;

/// Whether the answer is in records, which may have left memory, or something has to be on the disk first.
pub(super) fn waits_for_the_disk(code: RequestCode) -> bool {
    use RequestCode as C;
    matches!(
        code,
        C::QueryMessage
            | C::ViewMessageById
            | C::SearchOffsetByTimestamp
            | C::GetEarliestMessageStoreTime
            | C::GetBrokerRuntimeInfo
            | C::GetTopicStatsInfo
            | C::GetConsumeStats
            | C::CleanUnusedTopic
    )
}

impl Context<'_> {
    /// Has another thread act upon a request and answer it.
    pub(super) fn answer_elsewhere(
        &self,
        code: RequestCode,
        request: &Command<'_>,
    ) -> Result<(), Refusal> {
        let Ok(permit) = self.broker.waits_for_the_disk.clone().try_acquire_owned() else {
            let remark = "too many requests wait for the disk; ask again later";
            return Err(Refusal::new(ResponseCode::SystemBusy, remark));
        };
        let (broker, connection) = (self.broker.clone(), self.connection.clone());
        let (topics_before, request) = (self.topics_before, OwnedCommand::of(request));
        self.broker.runtime.spawn_blocking(move || {
            let _permit = permit;
            let context = Context { broker: &broker, connection: &connection, topics_before };
            let request = request.command().expect("it was decoded before");
            let mut out = Vec::new();
            if let Err(refusal) = context.answer_here(code, &request, &mut out) {
                context.refuse(&request.head, &refusal, &mut out);
            }
            // An asker that is gone does not want the answer any more.
            let _ = connection.write(|to| to.extend_from_slice(&out));
        });
        Ok(())
    }
}
