//! Code 1002: the master hands over. Apache's administrators ask a controller for it; here the master
//! decides itself, and takes the request in its place.

use weirmq_authority::ReplicaId;
use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::{Command, response};
use weirmq_remoting::header::ElectMasterHeader;

use crate::replication::HandOverError;
use crate::request::{Context, Refusal, fields};

/// Hands over to the slave that is named, or to the one that has most, and answers when it has.
pub(in crate::request) fn elect(
    context: &Context<'_>,
    request: &Command<'_>,
) -> Result<(), Refusal> {
    let header: ElectMasterHeader<'_> = fields(request)?;
    let broker = context.broker;
    let name = header.broker_name.to_cow();
    let wrong = |remark: String| Err(Refusal::new(ResponseCode::InvalidParameter, remark));
    if *name != broker.config().name {
        return wrong(format!("this is broker {}, not {name}", broker.config().name));
    }
    if broker.replication.is_none() {
        return wrong(format!("broker {name} has no other replicas"));
    }
    let designated = header.broker_id.filter(|_| header.designate_elect == Some(true));
    let heir = match designated.map(|id| (id, broker.config().replica_of(id))) {
        None => None,
        Some((_, Some(replica))) => Some(ReplicaId(replica)),
        Some((id, None)) => return wrong(format!("no slave of {name} has the id {id}")),
    };
    let (head, asker) = (request.head, context.connection.clone());
    let master = broker.clone();
    let told = async move {
        let (code, remark) = match master.hand_over(heir).await {
            Ok(()) => (ResponseCode::Success, None),
            Err(error @ HandOverError::NotMaster) => {
                (ResponseCode::ServiceNotAvailable, Some(error.to_string()))
            }
            Err(error) => (ResponseCode::SystemError, Some(error.to_string())),
        };
        // An asker that is gone does not want the answer any more.
        let _ = asker.write(|out| response(out, &head, code, remark.as_deref()).finish(b""));
    };
    broker.hand_overs.spawn_on(told, &broker.runtime);
    Ok(())
}
