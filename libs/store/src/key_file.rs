//! Which records of one segment may carry a key: the index, in one file per segment.
//!
//! An entry is the 64-bit hash of topic and key and a physical offset, 16 bytes, big-endian.
//! Entries gather in memory; every 65,536 of them are sorted and written as one run, in which
//! a search needs a read or two. A hash proves nothing, so callers compare the record. But a wrong
//! one hides a message, so a run stands in pages of 8 KiB: up to 511 entries and their CRC-32.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::derived_file::{self, Fields};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};
use crate::error::StoreError;

const MAGIC: [u8; 8] = *b"WEIRKEY2";
const ENTRY_BYTES: usize = 16;
const SUM_BYTES: usize = 4;
/// Runs begin at multiples of this in the file, pages at multiples of this in the run.
const PAGE_BYTES: u64 = 8 << 10;
/// Entries of a page; the last one of a run may have fewer.
const PAGE_ENTRIES: usize = 511;
/// Entries of a run.
const RUN_ENTRIES: usize = 1 << 16;
/// With so many entries waiting, 8 MiB, whoever appends more writes a run first. Keys of one letter take
/// eight times as much here as in the log.
const WAITING_ENTRIES_MAX: usize = 8 * RUN_ENTRIES;

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
    /// Entries of the runs that wait to be written.
    waiting: AtomicUsize,
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
        let state = Mutex::new(State::default());
        Self { disk, path, state, waiting: AtomicUsize::new(0), writing: Mutex::new(()) }
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
        self.push_full(&mut state, full);
        true
    }

    fn push_full(&self, state: &mut State, run: Vec<KeyEntry>) {
        self.waiting.fetch_add(run.len(), Ordering::Release);
        state.full.push(Arc::new(run));
    }

    /// Writes runs until there is room for more entries, which nearly always there is.
    pub(crate) fn make_room(&self) -> Result<(), StoreError> {
        while self.waiting.load(Ordering::Acquire) >= WAITING_ENTRIES_MAX {
            self.write_full_run()?;
        }
        Ok(())
    }

    /// Sorts and writes the runs that are full.
    pub(crate) fn write_full_runs(&self) -> Result<(), StoreError> {
        while self.write_full_run()? {}
        Ok(())
    }

    /// The same for the oldest of them; `false` when there was none.
    fn write_full_run(&self) -> Result<bool, StoreError> {
        let _writing = self.writing.lock();
        let Some(full) = self.state.lock().full.first().map(Arc::clone) else { return Ok(false) };
        self.write_run(&full)?;
        self.state.lock().full.remove(0);
        self.waiting.fetch_sub(full.len(), Ordering::Release);
        Ok(true)
    }

    fn write_run(&self, entries: &[KeyEntry]) -> Result<(), StoreError> {
        let mut sorted = entries.to_vec();
        sorted.sort_unstable();
        let bytes = encode_run(&sorted);
        let at = self.state.lock().end.next_multiple_of(PAGE_BYTES);
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
                self.push_full(&mut state, rest);
            }
        }
        self.write_full_runs()?;
        let (end, directory) = {
            let state = self.state.lock();
            let numbers = state.runs.iter().flat_map(|run| [run.at, run.count]);
            (state.end, numbers.flat_map(u64::to_be_bytes).collect::<Vec<u8>>())
        };
        let file = self.file().map_err(StoreError::io("open", &self.path))?;
        derived_file::seal(&*file, &self.path, end, MAGIC, start, covered, &directory)
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
                entries.extend(read_page(&*file, *run, entries.len() as u64)?);
            }
            Ok(entries)
        };
        let all: std::io::Result<Vec<_>> = runs.iter().map(read).collect();
        all.map_err(|error| self.read_error(error))
    }

    fn read_error(&self, error: std::io::Error) -> StoreError {
        match error.kind() {
            std::io::ErrorKind::InvalidData => StoreError::Unreadable {
                path: self.path.clone(),
                reason: "key entries are damaged; stop the broker and remove the file, the next \
                         start derives it again from the CommitLog"
                    .to_owned(),
            },
            _ => StoreError::io("read", &self.path)(error),
        }
    }

    /// Forgets what was loaded; the file is about to be removed.
    pub(crate) fn reset(&self) {
        let forgotten = std::mem::take(&mut *self.state.lock());
        let waiting: usize = forgotten.full.iter().map(|run| run.len()).sum();
        self.waiting.fetch_sub(waiting, Ordering::Release);
    }

    /// Appends the physical offsets under `hash` to `out`, in no order, until `out` has `max`.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Unreadable`] when a page is not what was written.
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
            find_in_run(&*file, *run, hash, max, out).map_err(|error| self.read_error(error))?;
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

/// `entries` must be sorted.
fn encode_run(entries: &[KeyEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len().div_ceil(PAGE_ENTRIES) * PAGE_BYTES as usize);
    for page in entries.chunks(PAGE_ENTRIES) {
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES as usize), 0);
        let start = bytes.len();
        for (hash, physical_offset) in page {
            bytes.extend_from_slice(&hash.to_be_bytes());
            bytes.extend_from_slice(&physical_offset.to_be_bytes());
        }
        let sum = crc32fast::hash(&bytes[start..]);
        bytes.extend_from_slice(&sum.to_be_bytes());
    }
    bytes
}

fn decode_runs(directory: &[u8]) -> Option<Vec<Run>> {
    let mut fields = Fields(directory);
    let mut runs = Vec::new();
    while !fields.0.is_empty() {
        runs.push(Run { at: fields.u64()?, count: fields.u64()? });
    }
    Some(runs)
}

/// Binary search by pages. Hashes are spread evenly, so the first guess is nearly always right.
fn find_in_run(
    file: &dyn DiskFile,
    run: Run,
    hash: u64,
    max: usize,
    out: &mut Vec<u64>,
) -> std::io::Result<()> {
    let mut probe = ((u128::from(hash) * u128::from(run.count)) >> 64) as u64;
    let (mut low, mut high) = (0, run.count);
    // Invariant: entries before `low` are below `hash`, entries from `high` on are not.
    while low < high {
        let probed = probe.clamp(low, high - 1);
        let at = (probed - probed % PAGE_ENTRIES as u64).max(low);
        let entries = read_page(file, run, at)?;
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
        let entries = read_page(file, run, at)?;
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

/// The entries of a page from entry `from` of the run on.
fn read_page(file: &dyn DiskFile, run: Run, from: u64) -> std::io::Result<Vec<KeyEntry>> {
    let (page, skip) = (from / PAGE_ENTRIES as u64, from % PAGE_ENTRIES as u64);
    let count = (PAGE_ENTRIES as u64).min(run.count - page * PAGE_ENTRIES as u64);
    let mut bytes = vec![0; count as usize * ENTRY_BYTES + SUM_BYTES];
    read_exact_at(file, &mut bytes, run.at + page * PAGE_BYTES)?;
    let (entries, sum) = bytes.as_chunks::<ENTRY_BYTES>();
    if sum != crc32fast::hash(entries.as_flattened()).to_be_bytes() {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let decode = |entry: &[u8; ENTRY_BYTES]| {
        let number = |at: usize| u64::from_be_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
        (number(0), number(8))
    };
    Ok(entries[skip as usize..].iter().map(decode).collect())
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

    #[test]
    fn who_adds_more_than_anybody_writes_has_to_write_first() {
        let disk = SimulatedDisk::new();
        disk.create_directory(Path::new("/k")).unwrap();
        let file = KeyFile::new(Arc::new(disk.clone()), PathBuf::from("/k/0"));
        let in_memory = || {
            let state = file.state.lock();
            state.gathering.len() + state.full.iter().map(|run| run.len()).sum::<usize>()
        };
        let batch: Vec<_> = (0..30_000).map(|n| (spread(n), n)).collect();
        for _ in 0..60 {
            file.make_room().unwrap();
            file.add(&batch);
            assert!(in_memory() <= WAITING_ENTRIES_MAX + RUN_ENTRIES + 2 * batch.len());
        }
        assert_eq!(find(&file, spread(7)).len(), 60);
        // Where it cannot be written there is no room.
        disk.limit_space(Some(0));
        let before = in_memory();
        while file.make_room().is_ok() {
            file.add(&batch);
        }
        assert!(in_memory() >= before && in_memory() <= WAITING_ENTRIES_MAX + 3 * RUN_ENTRIES);
        disk.limit_space(None);
        file.seal(0, 4096).unwrap();
        assert_eq!((in_memory(), file.waiting.load(Ordering::Acquire)), (0, 0));
    }

    #[test]
    fn a_damaged_page_is_an_error_and_no_miss() {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::new());
        disk.create_directory(Path::new("/k")).unwrap();
        let file = KeyFile::new(Arc::clone(&disk), PathBuf::from("/k/0"));
        let entries: Vec<_> = (0..2000).map(|n| (spread(n), n)).collect();
        file.add(&entries);
        file.seal(0, 4096).unwrap();
        let raw = disk.open(Path::new("/k/0"), OpenMode::Write).unwrap();
        let mut hash = spread(77).to_be_bytes();
        let mut bytes = vec![0; raw.size().unwrap() as usize];
        raw.read_at(&mut bytes, 0).unwrap();
        let at = bytes.windows(8).position(|window| window == hash).unwrap();
        hash[7] ^= 1;
        raw.write_all_at(&hash, at as u64).unwrap();
        let again = KeyFile::new(disk, PathBuf::from("/k/0"));
        assert!(again.load(0, 4096).unwrap());
        let found = again.find(spread(77), 10, &mut Vec::new());
        assert!(matches!(found, Err(StoreError::Unreadable { .. })));
        assert!(again.entries().is_err());
        // The other pages are served.
        let others = (0..2000).filter(|n| {
            let mut found = Vec::new();
            again.find(spread(*n), 10, &mut found).is_ok() && found == [*n]
        });
        assert!((1400..1600).contains(&others.count()));
    }
}
