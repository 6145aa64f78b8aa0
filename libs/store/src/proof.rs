//! What proves, after a power cut, that bytes of a recycled segment are new ones.
//!
//! A record's checksum covers its body only. In a segment that was never written a sector that did
//! not reach the disk reads as zeros, which no record has behind its body. In a recycled one it
//! reads as what stood there before, and with messages of one size that may be the topic and the
//! properties of another message. So the last [`PROOF_BYTES`] of a segment belong to no record,
//! and in a recycled one they say what was written:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | from: where the proved range begins |
//! | 8 | to: where it ends |
//! | 8 | flushed: everything below was on disk when this was written |
//! | 4 | CRC-32 of the log from `from` to `to` |
//! | 4 | CRC-32 of the letters `WEIRTAIL` and the 28 bytes before |
//!
//! There are 16 such places, numbers are big-endian. Each append lengthens the open proof, in its
//! place and with its checksum, after it wrote its records; a flush closes the open proof before it
//! syncs, so that what is lost of later records takes no promised one with it. The closed one may
//! end behind what the flush promises, by an append that was written and not yet published. Records
//! and proof are in one file, so one `fdatasync` covers both: a range whose flush was answered has
//! its proof on disk, and a range without one was promised to nobody. A clean close leaves zeros
//! from the log's end to the segment's, and so no proofs and nothing that needs them.

use std::ops::Range;

use crc32fast::Hasher;

use crate::error::StoreError;
use crate::planted::{self, Planted};
use crate::segment::Segment;

/// So much of each segment's end is left to proofs: one sector, which is written whole or not.
pub(crate) const PROOF_BYTES: u64 = 512;
const PLACE_BYTES: usize = 32;
const PLACES: usize = PROOF_BYTES as usize / PLACE_BYTES;
const TAIL: &[u8; 8] = b"WEIRTAIL";

/// One place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proof {
    range: Range<u64>,
    flushed: u64,
    crc: u32,
}

impl Proof {
    /// A proof of nothing, from which others may go on.
    fn at(position: u64, flushed: u64) -> Self {
        Self { range: position..position, flushed, crc: 0 }
    }

    fn encode(&self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes[..8].copy_from_slice(&self.range.start.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.range.end.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.flushed.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.crc.to_be_bytes());
        let crc = seal(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None` unless the bytes are a proof that lies inside `segment`.
    fn decode(bytes: &[u8], segment: Range<u64>) -> Option<Self> {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let proof = Self { range: number(0)..number(8), flushed: number(16), crc: word(24) };
        let Range { start, end } = proof.range;
        // A segment is written after all before it, so nothing behind it was on disk either.
        let is_inside =
            segment.start <= start && start <= end && end.max(proof.flushed) <= segment.end;
        (word(28) == seal(&bytes[..28]) && is_inside).then_some(proof)
    }
}

fn seal(bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(TAIL);
    hasher.update(bytes);
    hasher.finalize()
}

/// Where in the log the proofs of a segment stand.
fn place_of(segment: &Segment, place: usize) -> u64 {
    segment.end() - PROOF_BYTES + (place * PLACE_BYTES) as u64
}

/// Replaces all proofs of a segment by one from which others go on, at `position`.
pub(crate) fn begin(segment: &Segment, position: u64, flushed: u64) -> Result<(), StoreError> {
    let mut bytes = [0; PROOF_BYTES as usize];
    // The last place: the first append takes the first one.
    let last = PROOF_BYTES as usize - PLACE_BYTES;
    bytes[last..].copy_from_slice(&Proof::at(position, flushed).encode());
    segment.write(&bytes, place_of(segment, 0))
}

/// The proof that grows with each append. Guarded by the append lock.
#[derive(Clone)]
pub(crate) struct OpenProof {
    range: Range<u64>,
    hasher: Hasher,
    place: usize,
}

impl OpenProof {
    pub(crate) fn at(position: u64) -> Self {
        Self { range: position..position, hasher: Hasher::new(), place: 0 }
    }

    /// No append lengthens what is proved so far.
    pub(crate) fn close(&mut self) {
        if !self.range.is_empty() {
            self.begin_at(self.range.end);
        }
    }

    fn begin_at(&mut self, position: u64) {
        self.range = position..position;
        self.hasher = Hasher::new();
        self.place = (self.place + 1) % PLACES;
    }

    /// Takes in `bytes`, which were just written at `position` of a recycled segment.
    pub(crate) fn extend(&mut self, position: u64, bytes: &[u8]) {
        if self.range.end != position {
            self.begin_at(position);
        }
        self.range.end += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    pub(crate) fn write(&self, segment: &Segment, flushed: u64) -> Result<(), StoreError> {
        let crc = self.hasher.clone().finalize();
        let proof = Proof { range: self.range.clone(), flushed, crc };
        segment.write(&proof.encode(), place_of(segment, self.place))
    }
}

/// What a segment says about itself after an unknown stop.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    found: Vec<Proof>,
}

impl Proofs {
    pub(crate) fn read(segment: &Segment) -> Result<Self, StoreError> {
        let mut bytes = [0; PROOF_BYTES as usize];
        segment.read_exact(&mut bytes, place_of(segment, 0))?;
        let decode = |place| Proof::decode(place, segment.start..segment.end());
        Ok(Self { found: bytes.chunks_exact(PLACE_BYTES).filter_map(decode).collect() })
    }

    /// Whether the segment had another life before, so that a record counts only with a proof.
    pub(crate) fn is_recycled(&self) -> bool {
        !self.found.is_empty()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    /// Everything below was on disk once.
    pub(crate) fn flushed(&self) -> u64 {
        self.found.iter().map(|proof| proof.flushed).max().unwrap_or(0)
    }

    /// How far proofs reach without a gap from `position` on.
    ///
    /// Where a flush ended, a proof need not begin: it takes in what was written and not yet
    /// published when the flush looked how far the log goes.
    pub(crate) fn proved_from(
        &self,
        segment: &Segment,
        mut position: u64,
    ) -> Result<u64, StoreError> {
        loop {
            let mut next = position;
            // One that does not fit the bytes is of an attempt that a crash cut short.
            for proof in self.found.iter().filter(|proof| proof.range.contains(&position)) {
                if planted::is_on(Planted::ProofFromItsBeginningOnly)
                    && proof.range.start != position
                {
                    continue;
                }
                if proof.range.end > next && checksum(segment, &proof.range)? == proof.crc {
                    next = proof.range.end;
                }
            }
            if next == position {
                return Ok(position);
            }
            position = next;
        }
    }
}

fn checksum(segment: &Segment, range: &Range<u64>) -> Result<u32, StoreError> {
    const CHUNK_BYTES: u64 = 1 << 20;
    let mut hasher = Hasher::new();
    let mut chunk = Vec::new();
    let mut at = range.start;
    while at < range.end {
        chunk.resize((range.end - at).min(CHUNK_BYTES) as usize, 0);
        segment.read_exact(&mut chunk, at)?;
        hasher.update(&chunk);
        at += chunk.len() as u64;
    }
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, SimulatedDisk};
    use crate::format::Layout;

    const START: u64 = 8192;

    fn segment() -> Segment {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        let layout = Layout::under(Path::new("/s"));
        layout.directories().iter().for_each(|path| disk.create_directory(path).unwrap());
        Segment::create(&disk, &layout, START, 8192).unwrap()
    }

    #[test]
    fn what_was_appended_is_proved_and_what_was_not_is_not() {
        let segment = segment();
        assert!(!Proofs::read(&segment).unwrap().is_recycled());
        begin(&segment, START, START).unwrap();
        let mut open = OpenProof::at(START);
        for (at, flushed) in [(0, START), (100, START), (200, START + 100)] {
            segment.write(&[at as u8 + 1; 100], START + at).unwrap();
            open.extend(START + at, &[at as u8 + 1; 100]);
            open.write(&segment, flushed).unwrap();
            if at == 100 {
                open.close();
            }
        }
        let proofs = Proofs::read(&segment).unwrap();
        assert!(proofs.is_recycled());
        assert_eq!(proofs.flushed(), START + 100);
        assert_eq!(proofs.proved_from(&segment, START).unwrap(), START + 300);
        // A sector of the last append is an old one: what was closed before stays proved.
        segment.write(&[9], START + 250).unwrap();
        assert_eq!(proofs.proved_from(&segment, START).unwrap(), START + 200);
        assert_eq!(proofs.proved_from(&segment, START + 200).unwrap(), START + 200);

        segment.clear_from(START + 200).unwrap();
        assert!(!Proofs::read(&segment).unwrap().is_recycled());
        let mut bytes = vec![1; 8192];
        segment.read_exact(&mut bytes, START).unwrap();
        assert!(bytes[..200].iter().all(|byte| *byte > 0) && bytes[200..] == [0; 8192 - 200]);
    }

    #[test]
    fn proofs_of_the_life_before_mean_nothing() {
        let segment = segment();
        let old = Proof::at(START - 1, 0).encode();
        segment.write(&old, place_of(&segment, 3)).unwrap();
        assert!(!Proofs::read(&segment).unwrap().is_recycled());
        let mut broken = Proof::at(START, 0).encode();
        broken[20] ^= 1;
        segment.write(&broken, place_of(&segment, 3)).unwrap();
        assert!(!Proofs::read(&segment).unwrap().is_recycled());
        // As the body of a message may say it, where somebody else filled the segment.
        let crafted = Proof::at(START, segment.end() + 1).encode();
        segment.write(&crafted, place_of(&segment, 3)).unwrap();
        assert!(!Proofs::read(&segment).unwrap().is_recycled());
    }

    #[test]
    fn places_are_taken_in_turn() {
        let segment = segment();
        begin(&segment, START, START).unwrap();
        let mut open = OpenProof::at(START);
        for n in 0..40 {
            segment.write(&[n as u8; 10], START + n * 10).unwrap();
            open.extend(START + n * 10, &[n as u8; 10]);
            open.write(&segment, START + n * 10).unwrap();
            open.close();
        }
        let proofs = Proofs::read(&segment).unwrap();
        assert_eq!(proofs.found.len(), PLACES);
        assert_eq!(proofs.flushed(), START + 390);
        assert_eq!(proofs.proved_from(&segment, START + 390).unwrap(), START + 400);
    }
}
