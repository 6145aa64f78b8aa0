//! The ConsumeQueue entries of all queues for one segment of the log, in one file.
//!
//! Entries have Apache's layout: physical offset (8 bytes), size (4), tag hash (8), big-endian.
//! They stand in blocks, each of one queue. A queue's first block in a segment takes 64 bytes,
//! each further one twice the one before, up to 4 KiB; so a queue with a few messages costs a few
//! bytes and a busy one is read 204 entries at a time. Behind a block's entries stands their CRC-32:
//! a wrong entry would hide a message or filter it away.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::derived_file::{self, Fields};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};
use crate::error::StoreError;

const MAGIC: [u8; 8] = *b"WEIRQUE2";
const ENTRY_BYTES: usize = 20;
const SUM_BYTES: usize = 4;
/// Blocks begin at multiples of this.
const UNIT_BYTES: usize = 64;
/// Entries that the blocks of a part hold, from the first one; the last number repeats.
const BLOCK_ENTRIES: [u64; 7] = [3, 6, 12, 25, 51, 102, 204];
/// Entries in front of each of those blocks.
const BLOCK_STARTS: [u64; 7] = [0, 3, 9, 21, 46, 97, 199];
const LARGEST: usize = BLOCK_ENTRIES.len() - 1;
/// Blocks gather in memory up to this size and are then written in one go.
const PENDING_BYTES: usize = 64 << 10;

/// One message of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueEntry {
    /// Bytes from the start of the log.
    pub physical_offset: u64,
    /// Bytes of the record.
    pub size: u32,
    pub tag_hash: i64,
}

impl QueueEntry {
    /// The position behind the record.
    pub fn end_offset(&self) -> u64 {
        self.physical_offset.saturating_add(u64::from(self.size))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.physical_offset.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.tag_hash.to_be_bytes());
    }

    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        Self {
            physical_offset: u64::from_be_bytes(bytes[..8].try_into().expect("8 bytes")),
            size: u32::from_be_bytes(bytes[8..12].try_into().expect("4 bytes")),
            tag_hash: i64::from_be_bytes(bytes[12..].try_into().expect("8 bytes")),
        }
    }
}

/// The block of a part that holds an entry, and the entry's place in it.
pub(crate) fn block_of(entry: u64) -> (usize, u64) {
    let block = if entry >= BLOCK_STARTS[LARGEST] {
        LARGEST + ((entry - BLOCK_STARTS[LARGEST]) / BLOCK_ENTRIES[LARGEST]) as usize
    } else {
        BLOCK_STARTS.partition_point(|start| *start <= entry) - 1
    };
    (block, entry - block_start(block))
}

/// Entries in front of a block.
pub(crate) fn block_start(block: usize) -> u64 {
    let small = block.min(LARGEST);
    BLOCK_STARTS[small] + (block - small) as u64 * BLOCK_ENTRIES[LARGEST]
}

/// Entries that a block holds when it is full.
pub(crate) fn block_entries(block: usize) -> u64 {
    BLOCK_ENTRIES[block.min(LARGEST)]
}

/// What one queue has in one segment: `count` entries from queue offset `first` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredPart {
    pub(crate) topic: String,
    pub(crate) queue_id: i32,
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Where the blocks begin, in units of 64 bytes; all but the last are full.
    pub(crate) blocks: Vec<u32>,
}

/// The queue file of one segment. A file that cannot be written keeps its blocks in memory, and
/// the segment is read again at the next open.
pub(crate) struct QueueFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    state: Mutex<State>,
    has_failed: AtomicBool,
}

#[derive(Default)]
struct State {
    file: Option<Arc<dyn DiskFile>>,
    /// Blocks not written yet; they begin at `pending_at` of the file.
    pending: Vec<u8>,
    pending_at: u64,
    /// When to try to write again.
    write_at_bytes: usize,
    /// The last refusal that does not pass.
    failure: Option<StoreError>,
}

impl QueueFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        let state = State { write_at_bytes: PENDING_BYTES, ..State::default() };
        Self { disk, path, state: Mutex::new(state), has_failed: AtomicBool::new(false) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes one block's entries and says where they begin, in units of 64 bytes.
    pub(crate) fn append_block(&self, entries: &[QueueEntry]) -> u32 {
        let mut state = self.state.lock();
        let from = state.pending.len();
        let at = state.pending_at + from as u64;
        entries.iter().for_each(|entry| entry.encode(&mut state.pending));
        let sum = crc32fast::hash(&state.pending[from..]);
        state.pending.extend_from_slice(&sum.to_be_bytes());
        let padded = state.pending.len().next_multiple_of(UNIT_BYTES);
        state.pending.resize(padded, 0);
        if state.pending.len() >= state.write_at_bytes
            && let Err(error) = self.write_pending(&mut state)
        {
            tracing::warn!(%error, "queue entries stay in memory until the file can be written");
            state.write_at_bytes = 2 * state.pending.len();
            if error.is_disk_failure() {
                state.failure = Some(error);
                self.has_failed.store(true, Ordering::Release);
            }
        }
        u32::try_from(at / UNIT_BYTES as u64).expect("a segment's entries take less than 256 GiB")
    }

    /// Why the disk refused blocks, if that does not pass: the store has to stop. Said once.
    pub(crate) fn take_failure(&self) -> Option<StoreError> {
        // Asked after each append.
        match self.has_failed.load(Ordering::Acquire) {
            true => self.state.lock().failure.take(),
            false => None,
        }
    }

    /// Appends the entries of a block to `out`: those at `places` of the `held` that it holds.
    /// `false` when they would have to come from the disk and may not.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Unreadable`] when the block is not what was written.
    pub(crate) fn read_block(
        &self,
        block: u32,
        held: u64,
        places: Range<u64>,
        may_wait: bool,
        out: &mut Vec<QueueEntry>,
    ) -> Result<bool, StoreError> {
        let at = u64::from(block) * UNIT_BYTES as u64;
        let mut bytes = [0; BLOCK_ENTRIES[LARGEST] as usize * ENTRY_BYTES + SUM_BYTES];
        let bytes = &mut bytes[..held as usize * ENTRY_BYTES + SUM_BYTES];
        let mut state = self.state.lock();
        if at >= state.pending_at {
            let from = (at - state.pending_at) as usize;
            let pending = state.pending.get(from..from + bytes.len());
            let pending = pending.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
            bytes.copy_from_slice(pending.map_err(StoreError::io("read", &self.path))?);
        } else {
            let file = self.file(&mut state).map_err(StoreError::io("open", &self.path))?;
            drop(state);
            let read = match may_wait {
                true => read_exact_at(&*file, bytes, at).map(|()| true),
                false => file.read_cached(bytes, at),
            };
            if !read.map_err(StoreError::io("read", &self.path))? {
                return Ok(false);
            }
        }
        let (entries, sum) = bytes.as_chunks::<ENTRY_BYTES>();
        if sum != crc32fast::hash(entries.as_flattened()).to_be_bytes() {
            return Err(StoreError::Unreadable {
                path: self.path.clone(),
                reason: format!(
                    "the queue entries at byte {at} are damaged; stop the broker and remove the \
                     file, the next start derives it again from the CommitLog"
                ),
            });
        }
        out.extend(
            entries[places.start as usize..places.end as usize].iter().map(QueueEntry::decode),
        );
        Ok(true)
    }

    /// Completes the file: everything in it is durable on return, and the file says that it covers
    /// the segment from `start` up to `covered`. Its name is durable once the directory is synced.
    pub(crate) fn seal(
        &self,
        start: u64,
        covered: u64,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        self.write_pending(&mut state)?;
        let file = self.file(&mut state).map_err(StoreError::io("open", &self.path))?;
        let (at, directory) = (state.pending_at, encode_directory(parts));
        derived_file::seal(&*file, &self.path, at, MAGIC, start, covered, &directory)
    }

    /// The parts of a file that is complete up to exactly `covered`. `None` otherwise.
    pub(crate) fn load(
        &self,
        start: u64,
        covered: u64,
    ) -> Result<Option<Vec<StoredPart>>, StoreError> {
        let load = || {
            let Some(file) = derived_file::open_existing(&*self.disk, &self.path)? else {
                return Ok(None);
            };
            let sealed = derived_file::read_sealed(&*file, MAGIC, start)?;
            Ok(sealed.filter(|sealed| sealed.covered == covered).map(|sealed| (file, sealed)))
        };
        let Some((file, sealed)) = load().map_err(StoreError::io("read", &self.path))? else {
            return Ok(None);
        };
        let Some(parts) = decode_directory(&sealed.directory) else { return Ok(None) };
        let mut state = self.state.lock();
        state.file = Some(file);
        state.pending_at = sealed.bytes.next_multiple_of(UNIT_BYTES as u64);
        Ok(Some(parts))
    }

    /// Lets go of the file, which is about to be removed; its blocks cannot be read any more.
    pub(crate) fn reset(&self) {
        *self.state.lock() = State { write_at_bytes: PENDING_BYTES, ..State::default() };
    }

    fn file(&self, state: &mut State) -> std::io::Result<Arc<dyn DiskFile>> {
        if state.file.is_none() {
            state.file = Some(self.disk.open(&self.path, OpenMode::Write)?);
        }
        Ok(Arc::clone(state.file.as_ref().expect("set above")))
    }

    fn write_pending(&self, state: &mut State) -> Result<(), StoreError> {
        if state.pending.is_empty() {
            return Ok(());
        }
        let write =
            |state: &mut State| self.file(state)?.write_all_at(&state.pending, state.pending_at);
        write(state).map_err(StoreError::io("write", &self.path))?;
        state.pending_at += state.pending.len() as u64;
        state.pending = Vec::new();
        state.write_at_bytes = PENDING_BYTES;
        Ok(())
    }
}

fn encode_directory(parts: &[StoredPart]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&(part.topic.len() as u16).to_be_bytes());
        out.extend_from_slice(part.topic.as_bytes());
        out.extend_from_slice(&part.queue_id.to_be_bytes());
        out.extend_from_slice(&part.first.to_be_bytes());
        out.extend_from_slice(&part.count.to_be_bytes());
        for block in &part.blocks {
            out.extend_from_slice(&block.to_be_bytes());
        }
    }
    out
}

fn decode_directory(bytes: &[u8]) -> Option<Vec<StoredPart>> {
    let mut fields = Fields(bytes);
    let mut parts = Vec::new();
    while !fields.0.is_empty() {
        let topic_len = fields.u16()?;
        let topic = std::str::from_utf8(fields.take(usize::from(topic_len))?).ok()?.to_owned();
        let (queue_id, first, count) = (fields.i32()?, fields.u64()?, fields.u64()?);
        let blocks = match count.checked_sub(1) {
            None => 0,
            Some(last) => block_of(last).0 + 1,
        };
        let blocks = fields.take(blocks.checked_mul(4)?)?;
        let (blocks, _) = blocks.as_chunks::<4>();
        let blocks = blocks.iter().map(|block| u32::from_be_bytes(*block)).collect();
        parts.push(StoredPart { topic, queue_id, first, count, blocks });
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    fn entry(n: u64) -> QueueEntry {
        QueueEntry { physical_offset: n * 100, size: 100, tag_hash: -(n as i64) }
    }

    #[test]
    fn blocks_follow_each_other_without_gap_and_fit_their_bytes() {
        let mut next = 0;
        for block in 0..12 {
            assert_eq!(block_start(block), next);
            assert_eq!(block_of(next), (block, 0));
            assert_eq!(
                block_of(next + block_entries(block) - 1),
                (block, block_entries(block) - 1)
            );
            assert!(block_entries(block) * 20 <= 64 << block.min(6));
            next += block_entries(block);
        }
    }

    #[test]
    fn blocks_are_read_from_memory_and_from_the_file_and_survive_a_reopen() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        disk.create_directory(Path::new("/q")).unwrap();
        let path = PathBuf::from("/q/0");
        let file = QueueFile::new(Arc::clone(&disk), path.clone());
        let mut blocks = Vec::new();
        for block in 0..60 {
            let start = block_start(block);
            let entries: Vec<_> = (start..start + block_entries(block)).map(entry).collect();
            blocks.push(file.append_block(&entries));
        }
        let check = |file: &QueueFile| {
            for n in [0, 2, 3, 198, 199, 5000, block_start(60) - 1] {
                let (block, place) = block_of(n);
                let mut out = Vec::new();
                let held = block_entries(block);
                file.read_block(blocks[block], held, place..place + 1, true, &mut out).unwrap();
                assert_eq!(out, [entry(n)]);
            }
        };
        check(&file);
        let parts = [StoredPart {
            topic: "t".to_owned(),
            queue_id: -1,
            first: 7,
            count: block_start(60),
            blocks: blocks.clone(),
        }];
        file.seal(0, 4096, &parts).unwrap();
        check(&file);
        let again = QueueFile::new(disk, path);
        assert_eq!(again.load(0, 4095).unwrap(), None);
        assert_eq!(again.load(0, 4096).unwrap().unwrap(), parts);
        check(&again);
    }
}
