//! Checksums of the log, beside it: one CRC-32 for each block of 16 KiB.
//!
//! A record's own checksum covers its body. What rots in a head, a topic or properties, and
//! whatever a disk loses or swaps as a whole, shows here. 16 KiB: small enough to name a damaged
//! range that people can live with, large enough for the sums to take 0.03 % of the log.
//!
//! `weir/blocks/<start>` belongs to the segment of that name. Blocks are counted from the start of
//! the segment. Their sums stand in groups of 512 bytes, the unit in which disks write, one group
//! for 120 blocks:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | CRC-32 of the 508 bytes that follow |
//! | 4 | bytes that the sum of the last block of the group covers |
//! | 8 | start of the segment |
//! | 16 | which blocks have a sum: bit n for block n of the group |
//! | 480 | the sums |
//!
//! A sum of less than a block is the last one of its group: when others follow, its block is
//! unknown until somebody sums it up anew.
//!
//! Numbers are big-endian. A group with a wrong checksum, or none, says nothing: its blocks are
//! *unknown*, and the scrub gives them a sum again. Sums are written for what is on disk already,
//! never ahead of it; so a sum that does not fit is damage, not a torn write.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::StoreError;
use crate::segment::Segment;

/// Bytes of the log that one sum covers.
pub(crate) const BLOCK_BYTES: u64 = 16 << 10;
const GROUP_BYTES: usize = 512;
/// Blocks of a group.
const GROUP_BLOCKS: u64 = 120;
const SUMS_AT: usize = 32;

/// The sum of a block's first `bytes` bytes. Only the last block of a log, or of a segment's
/// records, is not covered whole, and the scrub completes it once the log has gone on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) crc: u32,
    pub(crate) bytes: u32,
}

/// Where a block begins that has a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summed {
    /// Position of the log.
    pub(crate) position: u64,
    pub(crate) sum: Sum,
}

impl Summed {
    pub(crate) fn end(&self) -> u64 {
        self.position + u64::from(self.sum.bytes)
    }
}

/// The sums of one segment.
pub(crate) struct BlockSums {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Start of the segment.
    start: u64,
    /// Also held while groups are changed.
    file: Mutex<Option<Arc<dyn DiskFile>>>,
}

/// One group, decoded.
#[derive(Clone)]
struct Group {
    present: u128,
    last_bytes: u32,
    sums: [u32; GROUP_BLOCKS as usize],
}

impl BlockSums {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, start: u64) -> Self {
        Self { disk, path, start, file: Mutex::new(None) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds or replaces sums; they are durable after [`BlockSums::sync`].
    pub(crate) fn write(&self, sums: &[Summed]) -> Result<(), StoreError> {
        let mut by_group: BTreeMap<u64, Vec<&Summed>> = BTreeMap::new();
        for summed in sums {
            let block = (summed.position - self.start) / BLOCK_BYTES;
            by_group.entry(block / GROUP_BLOCKS).or_default().push(summed);
        }
        let mut opened = self.file.lock();
        let write = || {
            if opened.is_none() {
                *opened = Some(self.disk.open(&self.path, OpenMode::Write)?);
            }
            let Some(file) = opened.as_ref() else { return Ok(()) };
            for (index, sums) in by_group {
                let mut group = self.read_group(&**file, index)?.unwrap_or(Group::EMPTY);
                for summed in sums {
                    let block = (summed.position - self.start) / BLOCK_BYTES;
                    group.set((block % GROUP_BLOCKS) as usize, summed.sum);
                }
                file.write_all_at(&group.encode(self.start), index * GROUP_BYTES as u64)?;
            }
            Ok(())
        };
        write().map_err(StoreError::io("write", &self.path))
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let file = self.file.lock().clone();
        file.map_or(Ok(()), |file| file.sync()).map_err(StoreError::io("sync", &self.path))
    }

    /// The known sums of blocks that begin in `[from, to)`, in order.
    pub(crate) fn read(&self, from: u64, to: u64) -> Result<Vec<Summed>, StoreError> {
        let mut found = Vec::new();
        let mut opened = self.file.lock();
        let mut read = || {
            if opened.is_none() {
                // For reading and writing, so that what writes later finds it open.
                *opened = match self.disk.open(&self.path, OpenMode::Read) {
                    Ok(_) => Some(self.disk.open(&self.path, OpenMode::Write)?),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    Err(error) => return Err(error),
                };
            }
            let Some(file) = opened.as_ref() else { return Ok(()) };
            let blocks = (from.max(self.start) - self.start) / BLOCK_BYTES
                ..(to.max(self.start) - self.start).div_ceil(BLOCK_BYTES);
            let groups = (file.size()? / GROUP_BYTES as u64).min(blocks.end.div_ceil(GROUP_BLOCKS));
            for index in blocks.start / GROUP_BLOCKS..groups {
                let Some(group) = self.read_group(&**file, index)? else { continue };
                for (place, sum) in group.iter() {
                    let position = self.start + (index * GROUP_BLOCKS + place as u64) * BLOCK_BYTES;
                    if (from..to).contains(&position) {
                        found.push(Summed { position, sum });
                    }
                }
            }
            Ok(())
        };
        read().map_err(StoreError::io("read", &self.path))?;
        Ok(found)
    }

    fn read_group(&self, file: &dyn DiskFile, index: u64) -> io::Result<Option<Group>> {
        let mut bytes = [0; GROUP_BYTES];
        let read = file.read_at(&mut bytes, index * GROUP_BYTES as u64)?;
        Ok(Group::decode(&bytes, self.start).filter(|_| read == GROUP_BYTES))
    }
}

impl Group {
    const EMPTY: Self = Self { present: 0, last_bytes: 0, sums: [0; GROUP_BLOCKS as usize] };

    fn last(&self) -> usize {
        127 - self.present.leading_zeros().min(127) as usize
    }

    /// Only the last block of a group can have a sum of less than all of it. One that others follow
    /// is unknown from then on, and one that comes when others are there already is not taken.
    fn set(&mut self, place: usize, sum: Sum) {
        if self.present != 0 {
            let last = self.last();
            if place < last && u64::from(sum.bytes) < BLOCK_BYTES {
                return;
            }
            if place > last && u64::from(self.last_bytes) < BLOCK_BYTES {
                self.present &= !(1 << last);
            }
        }
        self.present |= 1 << place;
        self.sums[place] = sum.crc;
        if place == self.last() {
            self.last_bytes = sum.bytes;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, Sum)> {
        let last = self.last();
        let present = (0..GROUP_BLOCKS as usize).filter(|place| self.present & (1 << place) != 0);
        present.map(move |place| {
            let bytes = if place == last { self.last_bytes } else { BLOCK_BYTES as u32 };
            (place, Sum { crc: self.sums[place], bytes })
        })
    }

    fn encode(&self, start: u64) -> [u8; GROUP_BYTES] {
        let mut bytes = [0; GROUP_BYTES];
        bytes[4..8].copy_from_slice(&self.last_bytes.to_be_bytes());
        bytes[8..16].copy_from_slice(&start.to_be_bytes());
        bytes[16..SUMS_AT].copy_from_slice(&self.present.to_be_bytes());
        for (place, sum) in self.sums.iter().enumerate() {
            bytes[SUMS_AT + 4 * place..][..4].copy_from_slice(&sum.to_be_bytes());
        }
        let crc = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; GROUP_BYTES], start: u64) -> Option<Self> {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let is_ours = word(0) == crc32fast::hash(&bytes[4..]) && long(8) == start;
        let present = u128::from(long(16)) << 64 | u128::from(long(24));
        let last_bytes = word(4);
        let is_sane = u64::from(last_bytes) <= BLOCK_BYTES && present >> GROUP_BLOCKS == 0;
        (is_ours && is_sane).then(|| {
            let mut sums = [0; GROUP_BLOCKS as usize];
            sums.iter_mut().enumerate().for_each(|(at, sum)| *sum = word(SUMS_AT + 4 * at));
            Self { present, last_bytes, sums }
        })
    }
}

impl Sum {
    /// The sum of the same bytes with others behind them.
    pub(crate) fn followed_by(self, rest: &[u8]) -> Self {
        let mut hasher = Hasher::new_with_initial_len(self.crc, u64::from(self.bytes));
        hasher.update(rest);
        Self { crc: hasher.finalize(), bytes: self.bytes + rest.len() as u32 }
    }
}

/// Whether a block still is what its sum says.
///
/// # Errors
/// [`StoreError::Io`] when the disk does not give it.
pub(crate) fn is_intact(
    segment: &Segment,
    summed: &Summed,
    buffer: &mut Vec<u8>,
) -> Result<bool, StoreError> {
    buffer.resize(summed.sum.bytes as usize, 0);
    segment.read_exact(buffer, summed.position)?;
    Ok(crc32fast::hash(buffer) == summed.sum.crc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    fn sums(disk: &Arc<dyn Disk>) -> BlockSums {
        BlockSums::new(Arc::clone(disk), PathBuf::from("/b/0"), 1 << 30)
    }

    fn at(block: u64, bytes: u32) -> Summed {
        let position = (1 << 30) + block * BLOCK_BYTES;
        Summed { position, sum: Sum { crc: block as u32 * 7 + 1, bytes } }
    }

    #[test]
    fn sums_are_kept_by_place_with_gaps_and_a_partial_last_one() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        disk.create_directory(Path::new("/b")).unwrap();
        let file = sums(&disk);
        assert!(file.read(0, u64::MAX).unwrap().is_empty());
        let full = BLOCK_BYTES as u32;
        let mut all: Vec<_> = (0..130).map(|block| at(block, full)).collect();
        all.push(at(300, 77));
        file.write(&all).unwrap();
        file.sync().unwrap();
        assert_eq!(sums(&disk).read(0, u64::MAX).unwrap(), all);
        // The partial block grows, and others follow.
        all[130] = at(300, full);
        all.push(at(301, 5));
        file.write(&all[130..]).unwrap();
        let again = sums(&disk);
        assert_eq!(again.read(0, u64::MAX).unwrap(), all);
        let some = again.read(all[2].position, all[5].position).unwrap();
        assert_eq!(some, all[2..5]);
    }

    #[test]
    fn a_partial_sum_is_never_taken_for_one_of_a_whole_block() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        disk.create_directory(Path::new("/b")).unwrap();
        let file = sums(&disk);
        let full = BLOCK_BYTES as u32;
        // Others follow it.
        file.write(&[at(0, full), at(1, 77)]).unwrap();
        file.write(&[at(2, full), at(5, 9)]).unwrap();
        assert_eq!(file.read(0, u64::MAX).unwrap(), [at(0, full), at(2, full), at(5, 9)]);
        // Others are there before it.
        file.write(&[at(1, 77), at(2, 5)]).unwrap();
        assert_eq!(file.read(0, u64::MAX).unwrap(), [at(0, full), at(2, full), at(5, 9)]);
        file.write(&[at(1, full), at(5, full), at(6, 1)]).unwrap();
        let all = [at(0, full), at(1, full), at(2, full), at(5, full), at(6, 1)];
        assert_eq!(sums(&disk).read(0, u64::MAX).unwrap(), all);
    }

    #[test]
    fn a_group_that_rots_says_nothing() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        disk.create_directory(Path::new("/b")).unwrap();
        sums(&disk).write(&[at(0, 16384), at(1, 16384), at(120, 16384)]).unwrap();
        let raw = disk.open(Path::new("/b/0"), OpenMode::Write).unwrap();
        for bit in 0..GROUP_BYTES * 8 {
            let mut byte = [0];
            raw.read_at(&mut byte, bit as u64 / 8).unwrap();
            raw.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit as u64 / 8).unwrap();
            assert_eq!(sums(&disk).read(0, u64::MAX).unwrap(), [at(120, 16384)], "bit {bit}");
            raw.write_all_at(&byte, bit as u64 / 8).unwrap();
        }
        raw.set_len(700).unwrap();
        assert_eq!(sums(&disk).read(0, u64::MAX).unwrap().len(), 2);
    }
}
