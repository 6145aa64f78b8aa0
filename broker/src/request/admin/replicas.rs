//! The replicas of the broker's group: codes 907, 1006 and 1007, and 1005, by which mqadmin finds
//! out whom to ask for the in-sync set.

use std::time::Duration;

use weirmq_remoting::ResponseCode;
use weirmq_remoting::body::{
    Body as _, BrokerReplicasInfo, EpochEntry, EpochEntryCache, HaClientRuntimeInfo,
    HaConnectionRuntimeInfo, HaRuntimeInfo, ReplicaIdentity, ReplicasInfo,
};
use weirmq_remoting::command::Command;
use weirmq_remoting::dialect::normalize;
use weirmq_remoting::header::ControllerMetadataResponseHeader;

use crate::Broker;
use crate::replication::{self, Peer, PeerStatus, RoleStatus, Shared};
use crate::request::{Context, Refusal, succeed, succeed_with_body};

/// Code 907: a master's slaves, or a slave's master. A broker that is alone is a master without
/// slaves.
pub(in crate::request) fn ha_status(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let broker = context.broker;
    let end = broker.store.watermarks().written();
    let mut body = HaRuntimeInfo { master: true, ..HaRuntimeInfo::default() };
    match &broker.replication {
        Some(replication) if broker.is_slave() => {
            body.master = false;
            body.ha_client_runtime_info = as_slave(broker, replication, end);
        }
        replication => {
            body.master_commit_log_max_offset = number(end);
            if let Some(shared) = replication {
                let now = broker.store.clock().uptime();
                let status = shared.status();
                let slaves = status.peers.iter().filter(|peer| peer.is_connected);
                body.ha_connection_info.extend(slaves.map(|peer| {
                    let measured = shared.peers.get(peer.replica).unwrap_or_default();
                    as_master(peer, measured, end, now)
                }));
                let in_sync = status.peers.iter().filter(|peer| peer.is_in_sync);
                body.in_sync_slave_nums = in_sync.count() as i32;
            }
        }
    }
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

fn as_master(
    slave: &PeerStatus,
    measured: Peer,
    end: u64,
    now: Duration,
) -> HaConnectionRuntimeInfo {
    let lag = measured.lag(slave.end, end, now);
    HaConnectionRuntimeInfo {
        addr: measured.address,
        diff: number(end.saturating_sub(slave.end)),
        in_sync: slave.is_in_sync,
        lag_millis: lag.map(|lag| i64::try_from(lag.as_millis()).unwrap_or(i64::MAX)),
        slave_ack_offset: number(slave.end),
        transfer_from_where: number(slave.end),
        transferred_byte_in_second: number(measured.bytes_per_second),
    }
}

fn as_slave(broker: &Broker, shared: &Shared, end: u64) -> HaClientRuntimeInfo {
    let status = shared.status();
    let mut info = HaClientRuntimeInfo { max_offset: number(end), ..Default::default() };
    let RoleStatus::Slave { master } = status.role else { return info };
    if let Some(master) = status.peers.iter().find(|peer| peer.replica == master) {
        info.activated = master.is_connected;
        info.master_flush_offset = number(master.flushed);
    }
    if let Some(master) = shared.peers.get(master) {
        let silent = broker.store.clock().uptime().saturating_sub(master.heard);
        let silent = i64::try_from(silent.as_millis()).unwrap_or(i64::MAX);
        info.last_read_timestamp = broker.now_ms().saturating_sub(silent);
        // What it reads it writes before it reads on.
        info.last_write_timestamp = info.last_read_timestamp;
        info.master_addr = master.address;
    }
    if let Some(own) = shared.peers.get(status.replica) {
        info.transferred_byte_in_second = number(own.bytes_per_second);
    }
    info
}

/// Code 1006: who is in sync, as far as this replica knows. The body names broker groups, of which
/// a broker knows its own. Ids are those that replicas have as slaves, which stay when the master
/// changes, and by which code 1002 names an heir.
/// Source: `ReplicasInfoManager.getSyncStateData`.
pub(in crate::request) fn in_sync_set(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let broker = context.broker;
    let wrong = |why: String| {
        let remark = format!("the body is no list of broker names: {why}");
        Refusal::new(ResponseCode::InvalidParameter, remark)
    };
    let strict = normalize(request.body).map_err(|error| wrong(error.to_string()))?;
    let names: Vec<String> =
        serde_json::from_slice(&strict).map_err(|error| wrong(error.to_string()))?;
    let mut body = BrokerReplicasInfo::default();
    if names.contains(&broker.config().name) {
        let info = match &broker.replication {
            Some(shared) => replicas(broker, shared),
            None => {
                let me = identity(broker, 0, broker.advertised_address(), true);
                ReplicasInfo {
                    master_address: Some(me.broker_address.clone()),
                    master_broker_id: Some(me.broker_id),
                    in_sync_replicas: vec![me],
                    ..ReplicasInfo::default()
                }
            }
        };
        body.replicas_info_table.insert(broker.config().name.clone(), info);
    }
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

/// Who is in sync, who is not, and whose log they follow.
pub(super) fn replicas(broker: &Broker, shared: &Shared) -> ReplicasInfo {
    let status = shared.status();
    let address = |replica: u32| match shared.peers.get(replica) {
        _ if replica == status.replica => broker.advertised_address(),
        Some(peer) => peer.address,
        None => String::new(),
    };
    let is_alive = |replica: u32| {
        let is_connected = |peer: &PeerStatus| peer.replica == replica && peer.is_connected;
        replica == status.replica || status.peers.iter().any(is_connected)
    };
    let known = |replica: &u32| identity(broker, *replica, address(*replica), is_alive(*replica));
    let master = match status.role {
        RoleStatus::Waiting => None,
        RoleStatus::Slave { master } => Some(master),
        RoleStatus::Master { .. } => Some(status.replica),
    };
    let mut others: Vec<u32> = status.peers.iter().map(|peer| peer.replica).collect();
    others.push(status.replica);
    others.retain(|replica| !status.in_sync_set.contains(replica));
    others.sort_unstable();
    ReplicasInfo {
        in_sync_replicas: status.in_sync_set.iter().map(known).collect(),
        master_address: master.map(address).filter(|address| !address.is_empty()),
        master_broker_id: master.map(|replica| broker.config().slave_id(replica)),
        master_epoch: short(status.epoch),
        not_in_sync_replicas: others.iter().map(known).collect(),
        sync_state_set_epoch: short(status.in_sync_version),
    }
}

fn identity(broker: &Broker, replica: u32, address: String, is_alive: bool) -> ReplicaIdentity {
    ReplicaIdentity {
        alive: is_alive,
        broker_address: address,
        broker_id: broker.config().slave_id(replica),
        broker_name: broker.config().name.clone(),
    }
}

/// Code 1007: which masters wrote which part of this log; nothing in that of a broker that was
/// always alone.
pub(in crate::request) fn epochs(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let broker = context.broker;
    let end = broker.store.watermarks().written();
    let table = replication::epochs_as_kept(&broker.store)?;
    let starts = table.starts();
    let ends = starts.iter().skip(1).map(|next| next.start).chain([end]);
    let entry = |(epoch, end): (&weirmq_authority::EpochStart, u64)| EpochEntry {
        end_offset: number(end),
        epoch: short(epoch.epoch),
        start_offset: number(epoch.start),
    };
    let body = EpochEntryCache {
        broker_id: broker.registration_id().unwrap_or_else(|| broker.own_slave_id()),
        broker_name: broker.config().name.clone(),
        cluster_name: broker.config().cluster.clone(),
        epoch_list: starts.iter().zip(ends).map(entry).collect(),
        max_offset: number(end),
    };
    succeed_with_body(out, &request.head, &body.encode());
    Ok(())
}

/// Code 1005: there is no controller, every replica answers what one would be asked.
pub(in crate::request) fn controller(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let broker = context.broker;
    let (address, config) = (broker.store_host(context.connection).to_string(), broker.config());
    let header = ControllerMetadataResponseHeader {
        group: config.name.as_str().into(),
        controller_leader_id: config.name.as_str().into(),
        controller_leader_address: address.as_str().into(),
        is_leader: true,
        peers: address.as_str().into(),
    };
    succeed(out, &request.head, &header, b"");
    Ok(())
}

fn number(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

fn short(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
