//! A disk in memory that forgets what was not synced.
//!
//! Each file has a durable image and a list of writes since its last sync. A crash keeps a seeded
//! subset of those writes, decided for each 4 KiB page and torn at 512 bytes, in any order, as
//! write-back does. Names behave alike: creations, renames and removals are durable when their
//! directory was synced; until then a crash keeps a seeded subset, in which a file that was moved to
//! another directory may have both names or none, as on a file system without a journal. A disk can
//! also be told not to come back from a sync for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::simulated_image::{Change, Image, NameChange, PAGE_BYTES, Random, split};
use super::{Disk, DiskFile, DiskSpace, Listed, OpenMode};

/// A disk for tests; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    released: Arc<Condvar>,
}

#[derive(Default, Clone)]
struct State {
    files: BTreeMap<u64, Arc<Image>>,
    next_file: u64,
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameChange>,
    synced_directories: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    steps: u64,
    bytes_read: u64,
    fails_from: Option<u64>,
    fail_syncs: bool,
    fail_reads: bool,
    /// The one file of which nothing can be read.
    broken: Option<u64>,
    /// How many syncs of files succeed before one loses what it should write, and how that fails.
    lose_sync: Option<(u32, io::ErrorKind)>,
    hold_syncs: bool,
    free: Option<u64>,
    /// The disk before each step, while steps are recorded.
    recorded: Option<Vec<State>>,
}

impl SimulatedDisk {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `steps` more changes happen (writes, syncs, lengths, names); all later ones fail.
    pub fn fail_after(&self, steps: u64) {
        let mut state = self.state.lock();
        state.fails_from = Some(state.steps + steps);
    }

    /// How many changes were asked for so far.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// How many bytes of files were given to readers so far.
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    /// From now on every sync of a file fails, or none.
    pub fn fail_syncs(&self, fail: bool) {
        self.state.lock().fail_syncs = fail;
    }

    /// From now on every read of a file fails, or none.
    pub fn fail_reads(&self, fail: bool) {
        self.state.lock().fail_reads = fail;
    }

    /// From now on nothing of this file can be read, while all others can; `None`: of none.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`].
    pub fn break_file(&self, path: Option<&Path>) -> io::Result<()> {
        let mut state = self.state.lock();
        state.broken = path.map(|path| state.file_at(path)).transpose()?;
        Ok(())
    }

    /// The next sync of a file fails as a kernel's does: the error is told once, what was not on
    /// the disk never gets there, and the pages count as clean from then on.
    pub fn lose_next_sync(&self) {
        self.lose_sync(0, io::ErrorKind::Other);
    }

    /// The same after so many syncs that succeed, with this kind of error: a lack of space where pages
    /// get their place only when they are written back.
    pub fn lose_sync(&self, after: u32, kind: io::ErrorKind) {
        self.state.lock().lose_sync = Some((after, kind));
    }

    /// From now on no sync of a file returns, until this is called with `false`.
    pub fn hold_syncs(&self, hold: bool) {
        self.state.lock().hold_syncs = hold;
        self.released.notify_all();
    }

    /// Whether a directory was ever synced. Directories are durable here without it.
    pub fn was_synced(&self, directory: &Path) -> bool {
        self.state.lock().synced_directories.contains(directory)
    }

    /// Begins or ends keeping the disk as it is before each change. Ending answers with those.
    pub fn record_steps(&self, record: bool) -> Vec<Self> {
        let mut state = self.state.lock();
        let recorded = std::mem::replace(&mut state.recorded, record.then(Vec::new));
        let disk_of = |state| Self { state: Arc::new(Mutex::new(state)), ..Self::default() };
        recorded.into_iter().flatten().map(disk_of).collect()
    }

    /// Tells apart disks with different names or contents, as they are after a crash.
    pub fn fingerprint(&self) -> u64 {
        let state = self.state.lock();
        let mut hasher = ahash::AHasher::default();
        for (path, file) in &state.names {
            path.hash(&mut hasher);
            state.files.get(file).map(|image| &image.current).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// How many more bytes may be written into pages never written; `None`: any number. What is
    /// removed from then on makes room.
    pub fn limit_space(&self, free: Option<u64>) {
        self.state.lock().free = free;
    }

    /// The disk that a power cut at this moment leaves, as `seed` decides.
    pub fn crash(&self, seed: u64) -> Self {
        let state = self.state.lock();
        let mut random = Random(seed);
        let mut names = state.durable_names.clone();
        let keep_percent = [0, 20, 50, 80, 100][(random.next() % 5) as usize];
        for change in &state.unsynced_names {
            if random.chance(keep_percent) {
                change.apply(&mut names);
            }
        }
        let mut files = BTreeMap::new();
        for file in names.values() {
            if let Some(image) = state.files.get(file) {
                files.insert(*file, Arc::new(image.crash(&mut random)));
            }
        }
        let survivor = State {
            files,
            next_file: state.next_file,
            directories: state.directories.clone(),
            names: names.clone(),
            durable_names: names,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(survivor)), ..Self::default() }
    }
}

impl State {
    /// Counts one change, or refuses it.
    fn step(&mut self) -> io::Result<()> {
        if let Some(mut recorded) = self.recorded.take() {
            recorded.push(self.clone());
            self.recorded = Some(recorded);
        }
        self.steps += 1;
        match self.fails_from {
            Some(from) if self.steps > from => Err(io::Error::other("the disk is gone")),
            Some(_) | None => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn image(&mut self, file: u64) -> &mut Image {
        Arc::make_mut(self.files.entry(file).or_default())
    }

    /// Moves a directory, or removes it with everything in it. Like the making of directories this
    /// is durable at once.
    fn move_tree(&mut self, from: &Path, to: Option<&Path>) {
        let moved = |path: &Path| Some(to?.join(path.strip_prefix(from).ok()?));
        let all = std::mem::take(&mut self.directories).into_iter();
        self.directories = all
            .filter_map(|path| if path.starts_with(from) { moved(&path) } else { Some(path) })
            .collect();
        for names in [&mut self.names, &mut self.durable_names] {
            let all = std::mem::take(names).into_iter();
            let all = all.filter_map(|(path, file)| match path.starts_with(from) {
                true => Some((moved(&path)?, file)),
                false => Some((path, file)),
            });
            *names = all.collect();
        }
    }

    fn file_at(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimulatedDisk {
    /// Directories themselves are durable at once; the store makes them only at first open.
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let parents: Vec<PathBuf> = path.ancestors().map(Path::to_path_buf).collect();
        state.directories.extend(parents);
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let file = match (state.file_at(path), mode) {
            (Ok(file), OpenMode::Read | OpenMode::Write) => file,
            (Err(error), OpenMode::Read) => return Err(error),
            (Ok(file), OpenMode::Replace) => {
                state.step()?;
                let image = state.image(file);
                image.current.clear();
                image.unsynced.push(Change::Length(0));
                file
            }
            (Err(_), OpenMode::Write | OpenMode::Replace) => {
                state.step()?;
                if !path.parent().is_some_and(|parent| state.directories.contains(parent)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.next_file += 1;
                let file = state.next_file;
                state.files.insert(file, Arc::default());
                state.change_name(NameChange::Set(path.to_path_buf(), file));
                file
            }
        };
        drop(state);
        Ok(Arc::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Listed>> {
        let state = self.state.lock();
        if !state.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let in_directory = state.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        Ok(in_directory
            .filter_map(|(path, file)| {
                let name = path.file_name()?.to_str()?.to_owned();
                let bytes = state.files.get(file).map_or(0, |image| image.current.len() as u64);
                Some(Listed { name, bytes, inode: *file })
            })
            .collect())
    }

    fn list_directories(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        if !state.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.directories.iter().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.directories.contains(from) {
            state.step()?;
            state.move_tree(from, Some(to));
            return Ok(());
        }
        let file = state.file_at(from)?;
        state.step()?;
        if state.names.get(to) == Some(&file) {
            // As rename(2): two names of one file both stay.
            return Ok(());
        }
        let (old, new) = (from.to_path_buf(), to.to_path_buf());
        if from.parent() == to.parent() {
            state.change_name(NameChange::Rename(old, new, file));
        } else {
            // A crash may keep either half.
            state.change_name(NameChange::Set(new, file));
            state.change_name(NameChange::Remove(old, file));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.file_at(path)?;
        state.step()?;
        let freed = state.image(file).allocated.len() as u64 * PAGE_BYTES;
        state.free = state.free.map(|free| free + freed);
        state.change_name(NameChange::Remove(path.to_path_buf(), file));
        Ok(())
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.step()?;
        state.move_tree(path, None);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.step()?;
        state.synced_directories.insert(path.to_path_buf());
        let pending = std::mem::take(&mut state.unsynced_names);
        for change in pending {
            if change.directory() == Some(path) {
                change.apply(&mut state.durable_names);
            } else {
                state.unsynced_names.push(change);
            }
        }
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<DiskSpace> {
        let free = self.state.lock().free.unwrap_or(1 << 50);
        Ok(DiskSpace { free, total: 1 << 50 })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !self.state.lock().locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimulatedLock { disk: self.clone(), path: path.to_path_buf() }))
    }

    fn lock_existing(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.lock(path).map(Some)
    }
}

struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.path);
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        if state.fail_reads || state.broken == Some(self.file) {
            return Err(io::Error::other("bad sector"));
        }
        let current = &state.image(self.file).current;
        let found = current.get(at as usize..).unwrap_or_default();
        let length = found.len().min(bytes.len());
        bytes[..length].copy_from_slice(&found[..length]);
        state.bytes_read += length as u64;
        Ok(length)
    }

    /// On a full disk the part that still fits is written, as a real one may do.
    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.step()?;
        let mut free = state.free;
        let image = state.image(self.file);
        let mut fits = 0;
        for (at, piece) in split(at, bytes, PAGE_BYTES) {
            if !image.allocated.contains(&(at / PAGE_BYTES)) {
                match free {
                    Some(left) if left < PAGE_BYTES => break,
                    Some(left) => free = Some(left - PAGE_BYTES),
                    None => {}
                }
                image.allocated.insert(at / PAGE_BYTES);
            }
            fits += piece.len();
        }
        let change = Change::Write(at, bytes[..fits].to_vec());
        Image::apply(&mut image.current, &change);
        image.unsynced.push(change);
        state.free = free;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.step()?;
        let image = state.image(self.file);
        let change = Change::Length(bytes);
        Image::apply(&mut image.current, &change);
        image.unsynced.push(change);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().image(self.file).current.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        while state.hold_syncs {
            self.disk.released.wait(&mut state);
        }
        state.step()?;
        if state.fail_syncs {
            return Err(io::Error::other("write-back failed"));
        }
        let lost = match state.lose_sync.take() {
            Some((0, kind)) => Some(kind),
            later => {
                state.lose_sync = later.map(|(after, kind)| (after - 1, kind));
                None
            }
        };
        let image = state.image(self.file);
        let unsynced = std::mem::take(&mut image.unsynced);
        if let Some(kind) = lost {
            return Err(io::Error::new(kind, "write-back failed"));
        }
        for change in unsynced {
            Image::apply(&mut image.durable, &change);
        }
        Ok(())
    }

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let length = self.size()?;
        let mut state = self.disk.state.lock();
        let mut pages = state.image(self.file).allocated.range(from / PAGE_BYTES..);
        let data = pages.next().map(|page| (page * PAGE_BYTES).max(from)..(page + 1) * PAGE_BYTES);
        Ok(data.map(|data| data.start..data.end.min(length)).filter(|data| !data.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_may_keep_either_half_of_a_move_to_another_directory() {
        let disk = SimulatedDisk::new();
        let (old, new) = (Path::new("/d/file"), Path::new("/e/file"));
        for path in [old, new] {
            disk.create_directory(path.parent().unwrap()).unwrap();
        }
        disk.open(old, OpenMode::Write).unwrap();
        disk.sync_directory(Path::new("/d")).unwrap();
        disk.rename(old, new).unwrap();
        let after = |disk: &SimulatedDisk| -> BTreeSet<[bool; 2]> {
            let is_there = |disk: &SimulatedDisk, path| disk.open(path, OpenMode::Read).is_ok();
            let crashed = (0..100).map(|seed| disk.crash(seed));
            crashed.map(|disk| [old, new].map(|path| is_there(&disk, path))).collect()
        };
        assert_eq!(after(&disk).len(), 4, "{:?}", after(&disk));
        disk.sync_directory(Path::new("/e")).unwrap();
        assert_eq!(after(&disk), BTreeSet::from([[false, true], [true, true]]));
        disk.sync_directory(Path::new("/d")).unwrap();
        assert_eq!(after(&disk), BTreeSet::from([[false, true]]));
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_maybe_some_of_the_rest() {
        let disk = SimulatedDisk::new();
        disk.create_directory(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/kept"), OpenMode::Write).unwrap();
        file.write_all_at(&[1; 9000], 0).unwrap();
        file.sync().unwrap();
        disk.sync_directory(Path::new("/d")).unwrap();
        disk.open(Path::new("/d/maybe"), OpenMode::Write).unwrap();
        file.write_all_at(&[2; 9000], 4096).unwrap();

        let mut torn = 0;
        let mut kept_name = 0;
        for seed in 0..200 {
            let after = disk.crash(seed);
            let file = after.open(Path::new("/d/kept"), OpenMode::Read).unwrap();
            let mut bytes = [0; 4096 + 9000];
            let read = file.read_at(&mut bytes, 0).unwrap();
            assert!(read >= 9000);
            assert_eq!(bytes[..4096], [1; 4096]);
            let second_page = &bytes[4096..8192];
            torn += usize::from(second_page.contains(&1) && second_page.contains(&2));
            kept_name += usize::from(after.list(Path::new("/d")).unwrap().len() == 2);
        }
        assert!(torn > 0 && kept_name > 0 && kept_name < 200, "{torn} torn, {kept_name} names");
    }
}
