//! Which records of one segment may carry a key: the index, in one file per segment.
//!
//! An entry is the 64-bit hash of topic and key and a physical offset, 16 bytes, big-endian.
//! Entries gather in memory; every 65,536 of them are sorted and written as one run, in which
//! a search needs a read or two. A hash proves nothing, so callers compare the record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::derived_file::{self, Fields};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};
use crate::error::StoreError;

const MAGIC: [u8; 8] = *b"WEIRKEY1";
const ENTRY_BYTES: u64 = 16;
/// Entries of a run.
const RUN_ENTRIES: usize = 1 << 16;
/// Entries that a search reads at once.
const PROBE_ENTRIES: u64 = 512;

/// Hash and physical offset; sorted in this order.
pub(crate) type KeyEntry = (u64, u64);

/// Entries in the file, sorted.
#[derive(Debug, Clone, Copy)]
struct Run {
    at: u64,
    count: u64,
}

/// The index of one segment. A file that cannot be written keeps its entries in memory, and the
/// segment is read again at the next open.
pub(crate) struct KeyFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    state: Mutex<State>,
    /// Held while a run is written, so that runs follow each other.
    writing: Mutex<()>,
}

#[derive(Default)]
struct State {
    gathering: Vec<KeyEntry>,
    /// Runs to be sorted and written, oldest first.
    full: Vec<Arc<Vec<KeyEntry>>>,
    runs: Vec<Run>,
    file: Option<Arc<dyn DiskFile>>,
    end: u64,
}

impl KeyFile {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        let (state, writing) = (Mutex::new(State::default()), Mutex::new(()));
        Self { disk, path, state, writing }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds entries and says whether a run waits to be written.
    pub(crate) fn add(&self, entries: &[KeyEntry]) -> bool {
        let mut state = self.state.lock();
        state.gathering.extend_from_slice(entries);
        if state.gathering.len() < RUN_ENTRIES {
            return false;
        }
        let full = std::mem::replace(&mut state.gathering, Vec::with_capacity(RUN_ENTRIES + 256));
        state.full.push(Arc::new(full));
        true
    }

    /// Sorts and writes the runs that are full.
    pub(crate) fn write_full_runs(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock();
        loop {
            let Some(full) = self.state.lock().full.first().map(Arc::clone) else { return Ok(()) };
            self.write_run(&full)?;
            self.state.lock().full.remove(0);
        }
    }

    fn write_run(&self, entries: &[KeyEntry]) -> Result<(), StoreError> {
        let mut sorted = entries.to_vec();
        sorted.sort_unstable();
        let mut bytes = Vec::with_capacity(sorted.len() * ENTRY_BYTES as usize);
        for (hash, physical_offset) in &sorted {
            bytes.extend_from_slice(&hash.to_be_bytes());
            bytes.extend_from_slice(&physical_offset.to_be_bytes());
        }
        let at = self.state.lock().end;
        let write = || {
            let file = self.file()?;
            file.write_all_at(&bytes, at)
        };
        write().map_err(StoreError::io("write", &self.path))?;
        let mut state = self.state.lock();
        state.runs.push(Run { at, count: sorted.len() as u64 });
        state.end = at + bytes.len() as u64;
        Ok(())
    }

    /// Completes the file up to `covered`, as [`crate::queue_file::QueueFile::seal`] does.
    pub(crate) fn seal(&self, start: u64, covered: u64) -> Result<(), StoreError> {
        {
            let mut state = self.state.lock();
            let rest = std::mem::take(&mut state.gathering);
            if !rest.is_empty() {
                state.full.push(Arc::new(rest));
            }
        }
        self.write_full_runs()?;
        let (end, directory) = {
            let state = self.state.lock();
            let numbers = state.runs.iter().flat_map(|run| [run.at, run.count]);
            (state.end, numbers.flat_map(u64::to_be_bytes).collect::<Vec<u8>>())
        };
        let seal = || derived_file::seal(&*self.file()?, end, MAGIC, start, covered, &directory);
        seal().map_err(StoreError::io("complete", &self.path))
    }

    /// Whether the file is complete up to exactly `covered`; its runs are in use then.
    pub(crate) fn load(&self, start: u64, covered: u64) -> Result<bool, StoreError> {
        let load = || {
            let Some(file) = derived_file::open_existing(&*self.disk, &self.path)? else {
                return Ok(None);
            };
            let sealed = derived_file::read_sealed(&*file, MAGIC, start)?;
            Ok(sealed.filter(|sealed| sealed.covered == covered).map(|sealed| (file, sealed)))
        };
        let Some((file, sealed)) = load().map_err(StoreError::io("read", &self.path))? else {
            return Ok(false);
        };
        let Some(runs) = decode_runs(&sealed.directory) else { return Ok(false) };
        let mut state = self.state.lock();
        state.runs = runs;
        state.end = sealed.bytes;
        state.file = Some(file);
        Ok(true)
    }

    /// All entries of a loaded file, run by run.
    pub(crate) fn entries(&self) -> Result<Vec<Vec<KeyEntry>>, StoreError> {
        let (runs, file) = {
            let state = self.state.lock();
            (state.runs.clone(), state.file.clone())
        };
        let Some(file) = file else { return Ok(Vec::new()) };
        let read = |run: &Run| {
            let mut entries = Vec::new();
            while (entries.len() as u64) < run.count {
                entries.extend(read_entries(&*file, *run, entries.len() as u64)?);
            }
            Ok(entries)
        };
        let all: std::io::Result<Vec<_>> = runs.iter().map(read).collect();
        all.map_err(StoreError::io("read", &self.path))
    }

    /// Forgets what was loaded; the file is about to be removed.
    pub(crate) fn reset(&self) {
        *self.state.lock() = State::default();
    }

    /// Appends the physical offsets under `hash` to `out`, in no order, until `out` has `max`.
    pub(crate) fn find(&self, hash: u64, max: usize, out: &mut Vec<u64>) -> Result<(), StoreError> {
        let (full, runs, file) = {
            let state = self.state.lock();
            let matching = state.gathering.iter().rev().filter(|entry| entry.0 == hash);
            out.extend(matching.map(|entry| entry.1).take(max.saturating_sub(out.len())));
            (state.full.clone(), state.runs.clone(), state.file.clone())
        };
        for run in full.iter().rev() {
            let matching = run.iter().rev().filter(|entry| entry.0 == hash);
            out.extend(matching.map(|entry| entry.1).take(max.saturating_sub(out.len())));
        }
        let Some(file) = file else { return Ok(()) };
        for run in runs.iter().rev() {
            if out.len() >= max {
                break;
            }
            find_in_run(&*file, *run, hash, max, out)
                .map_err(StoreError::io("read", &self.path))?;
        }
        Ok(())
    }

    fn file(&self) -> std::io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        if state.file.is_none() {
            state.file = Some(self.disk.open(&self.path, OpenMode::Write)?);
        }
        Ok(Arc::clone(state.file.as_ref().expect("set above")))
    }
}

fn decode_runs(directory: &[u8]) -> Option<Vec<Run>> {
    let mut fields = Fields(directory);
    let mut runs = Vec::new();
    while !fields.0.is_empty() {
        runs.push(Run { at: fields.u64()?, count: fields.u64()? });
    }
    Some(runs)
}

/// Binary search by blocks. Hashes are spread evenly, so the first guess is nearly always right.
fn find_in_run(
    file: &dyn DiskFile,
    run: Run,
    hash: u64,
    max: usize,
    out: &mut Vec<u64>,
) -> std::io::Result<()> {
    let guess = (u128::from(hash) * u128::from(run.count)) >> 64;
    let mut probe = (guess as u64).saturating_sub(PROBE_ENTRIES / 2);
    let (mut low, mut high) = (0, run.count);
    // Invariant: entries before `low` are below `hash`, entries from `high` on are not.
    while low < high {
        let entries = read_entries(file, run, probe.clamp(low, high - 1))?;
        let at = probe.clamp(low, high - 1);
        let below = entries.partition_point(|entry| entry.0 < hash) as u64;
        if below == entries.len() as u64 {
            low = at + below;
        } else if below > 0 || at == low {
            (low, high) = (at + below, at + below);
        } else {
            high = at;
        }
        probe = low + (high - low) / 2;
    }
    let mut at = low;
    while at < run.count && out.len() < max {
        let entries = read_entries(file, run, at)?;
        let matching = entries.iter().take_while(|entry| entry.0 == hash).count();
        let room = max - out.len();
        out.extend(entries[..matching].iter().take(room).map(|entry| entry.1));
        if matching < entries.len() || matching == 0 {
            break;
        }
        at += matching as u64;
    }
    Ok(())
}

fn read_entries(file: &dyn DiskFile, run: Run, from: u64) -> std::io::Result<Vec<KeyEntry>> {
    let count = PROBE_ENTRIES.min(run.count - from);
    let mut bytes = vec![0; (count * ENTRY_BYTES) as usize];
    read_exact_at(file, &mut bytes, run.at + from * ENTRY_BYTES)?;
    let (numbers, _) = bytes.as_chunks::<8>();
    let (pairs, _) = numbers.as_chunks::<2>();
    let decode = |pair: &[[u8; 8]; 2]| (u64::from_be_bytes(pair[0]), u64::from_be_bytes(pair[1]));
    Ok(pairs.iter().map(decode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;

    fn spread(n: u64) -> u64 {
        crate::dispatch::key_hash(1, &n.to_be_bytes())
    }

    fn find(file: &KeyFile, hash: u64) -> Vec<u64> {
        let mut found = Vec::new();
        file.find(hash, 5000, &mut found).unwrap();
        found.sort_unstable();
        found
    }

    #[test]
    fn entries_are_found_in_memory_in_runs_and_after_a_reopen() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        disk.create_directory(Path::new("/k")).unwrap();
        let file = KeyFile::new(Arc::clone(&disk), PathBuf::from("/k/0"));
        const COUNT: u64 = 150_000;
        let mut full = 0;
        for n in 0..COUNT {
            // One hash stands for many records, more than a search reads at once.
            let hash = if n % 100 == 7 { 42 } else { spread(n) };
            full += usize::from(file.add(&[(hash, n)]));
        }
        assert_eq!(full, 2);
        let check = |file: &KeyFile| {
            for n in (0..COUNT).step_by(997).filter(|n| n % 100 != 7) {
                assert_eq!(find(file, spread(n)), [n]);
            }
            assert_eq!(find(file, 42).len(), (COUNT / 100) as usize);
            for absent in [0, 41, 43, u64::MAX] {
                assert!(find(file, absent).is_empty());
            }
        };
        check(&file);
        file.write_full_runs().unwrap();
        check(&file);
        file.seal(0, 4096).unwrap();
        check(&file);
        let again = KeyFile::new(disk, PathBuf::from("/k/0"));
        assert!(!again.load(0, 1).unwrap());
        assert!(again.load(0, 4096).unwrap());
        check(&again);
    }
}
