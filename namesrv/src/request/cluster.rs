//! Who is registered: codes 106 and 901.

use weirmq_remoting::body::GetBrokerMemberGroupResponseBody;
use weirmq_remoting::command::Command;
use weirmq_remoting::header::{Header, MemberGroupHeader};

use super::{Origin, RequestError, broker_name, write_body};

/// Code 106.
pub(super) fn info(origin: &Origin<'_>, request: &Command<'_>, out: &mut Vec<u8>) {
    let info = origin.server.routes.read().cluster_info(origin.asker());
    write_body(&request.head, &info, out);
}

/// Code 901.
pub(super) fn member_group(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let header = MemberGroupHeader::decode(&request.ext)?;
    let cluster = broker_name(header.cluster_name)?;
    let name = broker_name(header.broker_name)?;
    let group = origin.server.routes.read().member_group(&cluster, &name, origin.asker());
    let body = GetBrokerMemberGroupResponseBody { broker_member_group: Some(group) };
    write_body(&request.head, &body, out);
    Ok(())
}
