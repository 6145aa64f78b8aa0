//! A follower takes its master's log: into the store, and what is state into the tables.

use weirmq_authority::EpochTable;
use weirmq_message::{Decoded, Record};
use weirmq_store::StoreError;

use super::driver::DriverError;
use super::frame::LogBytes;
use super::kept;
use crate::Broker;
use crate::state::StateRecord;
use crate::topics::STATE_TOPIC;

/// Appends the bytes and applies the changes of state in them, each before what follows it: what
/// comes behind the deletion of a topic must find its queues gone. After an error `epochs` are those of
/// what is in the log; the kept file may have one more, which the next start drops.
pub(super) fn take(
    broker: &Broker,
    epochs: &mut EpochTable,
    log: &LogBytes,
) -> Result<(), DriverError> {
    let taken = take_each(broker, epochs, log);
    if taken.is_err() {
        // An epoch is noted before the record with which it begins is appended. Reports must not claim it,
        // and no other could begin at the same place.
        epochs.truncate(broker.store.max_offset());
    }
    taken
}

fn take_each(broker: &Broker, epochs: &mut EpochTable, log: &LogBytes) -> Result<(), DriverError> {
    let (mut position, mut rest) = (log.position, &log.bytes[..]);
    if rest.is_empty() {
        // The end of a segment that has no padding.
        broker.store.append_copy(position, rest)?;
        return Ok(());
    }
    while !rest.is_empty() {
        let (bytes, state) = up_to_state(rest, position)?;
        // Before the append: what is not understood must not be in the log either.
        let change = state.map(|record| StateRecord::decode_copied(&record)).transpose()?;
        if let (Some(StateRecord::Epoch { epoch, .. }), Some(record)) = (&change, &state) {
            let start = record.physical_offset;
            if !epochs.begin(*epoch, start) {
                let (position, last) = (start, epochs.last());
                let reason = format!("epoch {epoch} cannot follow epoch {last}");
                return Err(StoreError::NoContinuation { position, reason }.into());
            }
            kept::write_epochs(&broker.store, epochs)?;
        }
        change.iter().try_for_each(|change| broker.state.make_way_for(change))?;
        broker.store.append_copy(position, &rest[..bytes])?;
        if let (Some(change), Some(record)) = (change, &state) {
            let end = position + bytes as u64;
            for topic in broker.state.apply_copied(change, record, end)? {
                broker.topic_changed(&topic);
            }
        }
        position += bytes as u64;
        rest = &rest[bytes..];
    }
    Ok(())
}

/// How many bytes there are up to the end of the first state record, and that record.
fn up_to_state(bytes: &[u8], position: u64) -> Result<(usize, Option<Record<'_>>), StoreError> {
    let mut at = 0;
    while at < bytes.len() {
        match Record::decode(&bytes[at..], false) {
            Ok(Decoded::Record(record, size)) => {
                at += size;
                if record.topic == STATE_TOPIC {
                    return Ok((at, Some(record)));
                }
            }
            // Padding comes last.
            Ok(Decoded::Blank(_)) => return Ok((bytes.len(), None)),
            Ok(Decoded::End) => {
                let (position, reason) = (position + at as u64, "zeros".to_owned());
                return Err(StoreError::NoContinuation { position, reason });
            }
            Err(error) => {
                let (position, reason) = (position + at as u64, error.to_string());
                return Err(StoreError::NoContinuation { position, reason });
            }
        }
    }
    Ok((at, None))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weirmq_store::LogRead;

    use super::*;
    use crate::replication::broker_of;

    #[tokio::test]
    async fn an_epoch_whose_record_cannot_be_appended_has_not_begun() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [(master, _of_master), (slave, _of_slave)] = folders.each_ref().map(broker_of);
        let start = master.state.begin_epoch(1, 0).unwrap();
        let mut bytes = Vec::new();
        let read = master.store.read_log(start, 1 << 20, true, &mut bytes).unwrap();
        assert!(matches!(read, LogRead::Read { .. }));
        let log = |bytes: &[u8]| LogBytes {
            epoch: 1,
            position: start,
            bytes: Bytes::copy_from_slice(bytes),
        };
        // The checksum of the body, behind the length and the magic: the append looks at it, who looks for
        // changes of state does not.
        let mut damaged = bytes.clone();
        damaged[8] ^= 1;
        let mut epochs = EpochTable::default();
        let refused = take(&slave, &mut epochs, &log(&damaged)).unwrap_err();
        let is_refused = matches!(refused, DriverError::Store(StoreError::NoContinuation { .. }));
        assert!(is_refused, "{refused}");
        assert_eq!((epochs.last(), slave.store.max_offset()), (0, start));
        // Should its master be gone now, this replica begins its own at the same place.
        assert!(epochs.clone().begin(2, start));
        take(&slave, &mut epochs, &log(&bytes)).unwrap();
        assert_eq!((epochs.last(), slave.store.max_offset()), (1, master.store.max_offset()));
    }
}
