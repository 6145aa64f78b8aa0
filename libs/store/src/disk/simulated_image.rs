//! What a simulated disk has of one file and of its names, and what a crash leaves of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(super) const PAGE_BYTES: u64 = 4096;
const SECTOR_BYTES: u64 = 512;

#[derive(Default, Clone)]
pub(super) struct Image {
    pub(super) current: Vec<u8>,
    /// Pages that were ever written; the others are holes.
    pub(super) allocated: BTreeSet<u64>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone)]
pub(super) enum NameChange {
    Set(PathBuf, u64),
    /// Within a directory.
    Rename(PathBuf, PathBuf, u64),
    Remove(PathBuf, u64),
}

impl NameChange {
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Set(path, _) | Self::Rename(_, path, _) | Self::Remove(path, _) => path.parent(),
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Set(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Rename(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Remove(path, file) => {
                if names.get(path) == Some(file) {
                    names.remove(path);
                }
            }
        }
    }
}

/// SplitMix64: a few lines, and the same on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

impl Image {
    pub(super) fn apply(bytes: &mut Vec<u8>, change: &Change) {
        match change {
            Change::Length(length) => bytes.resize(*length as usize, 0),
            Change::Write(at, written) => {
                let end = *at as usize + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at as usize..end].copy_from_slice(written);
            }
        }
    }

    pub(super) fn crash(&self, random: &mut Random) -> Self {
        let mut durable = self.durable.clone();
        let keep_percent = [0, 10, 50, 90, 100][(random.next() % 5) as usize];
        for change in &self.unsynced {
            match change {
                Change::Length(_) => {
                    if random.chance(keep_percent) {
                        Self::apply(&mut durable, change);
                    }
                }
                Change::Write(at, bytes) => {
                    for (at, bytes) in split(*at, bytes, PAGE_BYTES) {
                        if random.chance(keep_percent) {
                            Self::keep_page(&mut durable, at, bytes, random);
                        }
                    }
                }
            }
        }
        // Holes are forgotten: after a crash any page may have been written.
        let allocated = (0..(durable.len() as u64).div_ceil(PAGE_BYTES)).collect();
        Self { current: durable.clone(), allocated, durable, unsynced: Vec::new() }
    }

    /// Keeps a page whole, or some of its sectors.
    fn keep_page(durable: &mut Vec<u8>, at: u64, bytes: &[u8], random: &mut Random) {
        let is_torn = random.chance(25);
        for (at, sector) in split(at, bytes, SECTOR_BYTES) {
            if !is_torn || random.chance(50) {
                Self::apply(durable, &Change::Write(at, sector.to_vec()));
            }
        }
    }
}

/// Cuts a write at multiples of `unit`.
pub(super) fn split(at: u64, bytes: &[u8], unit: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut at, mut rest) = (at, bytes);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = (unit - at % unit).min(rest.len() as u64);
        let (piece, remaining) = rest.split_at(length as usize);
        let piece_at = at;
        (at, rest) = (at + length, remaining);
        Some((piece_at, piece))
    })
}
