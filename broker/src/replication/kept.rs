//! What a replica must find again after any end: small files beside its log.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use weirmq_authority::{EpochTable, Incarnation, Promise};
use weirmq_message::{Decoded, Record};
use weirmq_store::{ReadLimits, Store, StoreError};

use crate::state::StateRecord;
use crate::topics::STATE_TOPIC;

/// Under the store's `weir/user/`: what the replica has promised.
const PROMISE: &str = "promise.json";
/// Under the same: the epochs of the log, a cache of the epoch records in it.
const EPOCHS: &str = "epochs.json";

/// The promise, with what says after an unknown end whether it can still be kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptPromise {
    promise: Promise,
    /// The boot of the machine under which it was written: as long as that is the same the page
    /// cache was not lost.
    boot: String,
    /// Whether everything that was confirmed had been flushed before.
    sync_flush: bool,
}

/// The promise of a new start, durable on return.
///
/// # Errors
/// [`StoreError`]; a promise that cannot be read is not one that was never given. Nor is the version
/// before it: a replica that obeyed a record which it promised not to obey any more could elect, or
/// acknowledge with, a master whose time is over.
pub(super) fn begin_promise(store: &Store, sync_flush: bool) -> Result<Promise, StoreError> {
    let before = read::<KeptPromise>(store, PROMISE).map_err(|error| {
        let advice = "what this replica has promised its group is not known any more. If the other \
                      replicas serve, remove this file and the one with .last behind its name: then \
                      this one counts as having lost what it confirmed, and catches up first";
        with_advice(error, advice)
    })?;
    let was_clean = store.stats().recovery.was_clean;
    let lost = store.lost()?;
    let is_lossless = lost.is_none()
        && before
            .as_ref()
            .is_some_and(|before| was_clean || before.sync_flush || before.boot == boot());
    let incarnation = Incarnation(Uuid::new_v4().as_u64_pair().0);
    let before = before.map(|before| before.promise);
    let promise = Promise::at_start(before, is_lossless, incarnation);
    write_promise(store, &promise, sync_flush)?;
    if let Some(why) = lost {
        tracing::warn!(
            why,
            "this replica may have lost what it had confirmed, and catches up first"
        );
        store.forget_lost()?;
    }
    Ok(promise)
}

/// Makes a promise durable.
pub(super) fn write_promise(
    store: &Store,
    promise: &Promise,
    sync_flush: bool,
) -> Result<(), StoreError> {
    let kept = KeptPromise { promise: promise.clone(), boot: boot(), sync_flush };
    store.write_small_file(PROMISE, &serde_json::to_vec(&kept).unwrap_or_default())
}

/// The epochs of the store's log, before anything of it is hidden. A file that is missing, is damaged
/// or says something else than the log is made anew from the log.
///
/// # Errors
/// A damaged file, where the log does not say which epoch its beginning is of: two logs would seem to
/// be the same where they are not. The version before would miss the epoch that began last.
pub(super) fn epochs(store: &Store) -> Result<EpochTable, StoreError> {
    let end = store.watermarks().written();
    match read::<EpochTable>(store, EPOCHS) {
        Ok(Some(mut epochs)) => {
            epochs.truncate(end);
            if is_in_log(store, &epochs)? {
                return Ok(epochs);
            }
            tracing::warn!(
                "the file of the log's epochs is not of this log, and made anew from it"
            );
        }
        Ok(None) => {}
        Err(error) => {
            let epochs = epochs_in_log(store)?;
            let begins = epochs.starts().first().map(|first| first.start);
            let start = store.min_offset();
            if start > 0 && begins != Some(start) {
                let advice = "it says which epochs the log is of, and the log itself says so only \
                              from a later one on. If the other replicas serve, empty the directory \
                              and let this one follow. If it is the last, remove this file and the \
                              one with .last behind its name; the others then copy all of its log";
                return Err(with_advice(error, advice));
            }
            tracing::warn!(%error, "the file of the log's epochs is made anew from the log");
        }
    }
    let epochs = epochs_in_log(store)?;
    if epochs.last() > 0 {
        write_epochs(store, &epochs)?;
    }
    Ok(epochs)
}

/// The table as it was kept last, as far as the log goes, for administrators.
pub(crate) fn epochs_as_kept(store: &Store) -> Result<EpochTable, StoreError> {
    let mut epochs = read::<EpochTable>(store, EPOCHS)?.unwrap_or_default();
    epochs.truncate(store.watermarks().written());
    Ok(epochs)
}

/// Makes the table durable, before the record with which its last epoch begins is in the log: an
/// epoch that never came is dropped at the next start, one that the file misses would be taken for
/// the one before.
pub(super) fn write_epochs(store: &Store, epochs: &EpochTable) -> Result<(), StoreError> {
    store.write_small_file(EPOCHS, &serde_json::to_vec(epochs).unwrap_or_default())
}

/// What presupposes the log as it is, and goes with its end.
pub(crate) const OF_THE_LOG: &[&str] = &[EPOCHS, crate::state::SNAPSHOT_FILE];

/// What is wrong with a file, and what to do.
pub(super) fn with_advice(error: StoreError, advice: &str) -> StoreError {
    match error {
        StoreError::Unreadable { path, reason } => {
            StoreError::Unreadable { path, reason: format!("{reason}; {advice}") }
        }
        other => other,
    }
}

/// What a small file of this replica says, and none of its earlier versions.
pub(super) fn read<T: for<'a> Deserialize<'a>>(
    store: &Store,
    name: &'static str,
) -> Result<Option<T>, StoreError> {
    let Some(bytes) = store.read_current_small_file(name)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| StoreError::Unreadable {
        path: store.directory().join("weir/user").join(name),
        reason: error.to_string(),
    })
}

/// Whether the last epoch begins where the table says; earlier ones may have expired.
fn is_in_log(store: &Store, epochs: &EpochTable) -> Result<bool, StoreError> {
    let Some(last) = epochs.starts().last() else { return Ok(true) };
    if last.start < store.min_offset() {
        return Ok(true);
    }
    let mut bytes = Vec::new();
    store.read_record(last.start, &mut bytes)?;
    let Ok(Decoded::Record(record, _)) = Record::decode(&bytes, true) else { return Ok(false) };
    let found = epoch_of(&record);
    Ok(found == Some(last.epoch))
}

/// The epoch that begins with this record.
pub(super) fn epoch_of(record: &Record<'_>) -> Option<u64> {
    if record.topic != STATE_TOPIC {
        return None;
    }
    match StateRecord::decode(record.body) {
        Ok(StateRecord::Epoch { epoch, .. }) => Some(epoch),
        _ => None,
    }
}

fn epochs_in_log(store: &Store) -> Result<EpochTable, StoreError> {
    let mut epochs = EpochTable::default();
    let Some(range) = store.queue_range(STATE_TOPIC, 0) else { return Ok(epochs) };
    let limits = ReadLimits { messages: 1024, bytes: 8 << 20 };
    let (mut next, mut records) = (range.min, Vec::new());
    while next < range.max {
        records.clear();
        let read = store.read_queue(STATE_TOPIC, 0, next, limits, &mut |_| true, &mut records)?;
        if read.next <= next {
            break;
        }
        next = read.next;
        for record in weirmq_message::record::records(&records).filter_map(Result::ok) {
            if let Some(epoch) = epoch_of(&record)
                && !epochs.begin(epoch, record.physical_offset)
            {
                tracing::error!(epoch, position = record.physical_offset, "epoch out of order");
            }
        }
    }
    Ok(epochs)
}

/// Which boot of the machine this is.
fn boot() -> String {
    // Without one every start counts as another boot, which is the careful side.
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map_or_else(|_| Uuid::new_v4().to_string(), |id| id.trim().to_owned())
}
