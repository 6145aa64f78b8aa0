//! Code 1002: the master hands over. Apache's administrators ask a controller for it; here the master
//! decides itself, and takes the request in its place.

use weirmq_authority::ReplicaId;
use weirmq_remoting::ResponseCode;
use weirmq_remoting::body::{
    Body as _, BrokerMemberGroup, ElectMasterResponseBody, ReplicaIdentity, ReplicasInfo,
};
use weirmq_remoting::command::{Command, Head, response};
use weirmq_remoting::header::{ElectMasterHeader, ElectMasterResponseHeader};

use super::replicas::replicas;
use crate::Broker;
use crate::replication::HandOverError;
use crate::request::{Context, Refusal, fields, succeed};

/// Hands over to the slave that is named, or to the one that has most, and answers when it has with who is
/// in the group now.
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
    let Some(replication) = broker.replication.clone() else {
        return wrong(format!("broker {name} has no other replicas"));
    };
    let designated = header.broker_id.filter(|_| header.designate_elect == Some(true));
    let heir = match designated.map(|id| (id, broker.config().replica_of(id))) {
        None => None,
        Some((_, Some(replica))) => Some(ReplicaId(replica)),
        Some((id, None)) => return wrong(format!("no slave of {name} has the id {id}")),
    };
    let (head, asker) = (request.head, context.connection.clone());
    let master = broker.clone();
    let told = async move {
        let done = master.hand_over(heir).await;
        // An asker that is gone does not want the answer any more.
        let _ = asker.write(|out| match done {
            Ok(()) => elected(&master, replicas(&master, &replication), out, &head),
            Err(error) => {
                let code = match error {
                    HandOverError::NotMaster => ResponseCode::ServiceNotAvailable,
                    _ => ResponseCode::SystemError,
                };
                response(out, &head, code, Some(&error.to_string())).finish(b"");
            }
        });
    };
    broker.hand_overs.spawn_on(told, &broker.runtime);
    Ok(())
}

/// Says what Apache's controller says of an election.
fn elected(broker: &Broker, group: ReplicasInfo, out: &mut Vec<u8>, head: &Head) {
    let header = ElectMasterResponseHeader {
        master_broker_id: group.master_broker_id,
        master_address: group.master_address.as_deref().map(Into::into),
        master_epoch: group.master_epoch,
        sync_state_set_epoch: group.sync_state_set_epoch,
    };
    let (in_sync, others) = (&group.in_sync_replicas, &group.not_in_sync_replicas);
    let is_known = |replica: &&ReplicaIdentity| !replica.broker_address.is_empty();
    let known = in_sync.iter().chain(others).filter(is_known);
    let config = broker.config();
    let body = ElectMasterResponseBody {
        broker_member_group: Some(BrokerMemberGroup {
            broker_addrs: known.map(|one| (one.broker_id, one.broker_address.clone())).collect(),
            broker_name: config.name.clone(),
            cluster: config.cluster.clone(),
        }),
        sync_state_set: in_sync.iter().map(|one| one.broker_id).collect(),
    };
    // mqadmin takes this for a `BrokerMemberGroup` and skips what that does not have, which it can where all
    // names are quoted; the answer of Apache's controller it cannot read.
    succeed(out, head, &header, &body.encode_strict());
}
