//! Reads ahead of those who go through old records in order, and lets go of what they have behind them,
//! so that it does not take the place of new records in memory.
//!
//! The kernel is told so by a thread of its own: it fetches pages before it comes back, and I/O
//! threads have others to serve meanwhile.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::disk::DiskFile;
use crate::store::Inner;

/// Reads that begin so near to where the last one ended go through the segment in order.
const NEAR_BYTES: u64 = 512 << 10;
/// How far ahead of them is read. Little at a time: whoever writes meanwhile waits behind what the disk
/// was asked for.
const AHEAD_BYTES: u64 = 2 << 20;
/// How much behind them stays, for others who are nearly as far.
const KEPT_BYTES: u64 = 4 << 20;
/// So many readers of one segment are told apart.
const READERS: usize = 4;
/// What nobody has told the kernel by then is not worth telling.
const WAITING_MAX: usize = 64;

/// The readers of one segment. All positions are bytes from its start.
#[derive(Default)]
pub(crate) struct Readers(Mutex<[Reader; READERS]>);

/// One who reads in order: consumers of several queues jump back and forth a little.
#[derive(Default, Clone, Copy)]
struct Reader {
    /// Where his last read ended; 0: nobody.
    read_to: u64,
    /// Up to where his reads were announced.
    asked_to: u64,
}

/// What the kernel should know about a file.
pub(crate) struct Announcement {
    file: Arc<dyn DiskFile>,
    /// Will be read.
    soon: Range<u64>,
    /// Will not be read again for a while.
    behind: Range<u64>,
}

impl Readers {
    /// Notes that `[from, end)` of a file of `bytes` is read, and says what that makes worth telling.
    pub(crate) fn read(
        &self,
        file: &Arc<dyn DiskFile>,
        Range { start: from, end }: Range<u64>,
        bytes: u64,
    ) -> Option<Announcement> {
        let mut readers = self.0.lock();
        let distance = |reader: &Reader| reader.read_to.abs_diff(from);
        let is_known = |reader: &Reader| reader.read_to > 0 && distance(reader) <= NEAR_BYTES;
        let known = (0..READERS).filter(|at| is_known(&readers[*at]));
        let Some(at) = known.min_by_key(|at| distance(&readers[*at])) else {
            // He takes the place of who has not read for longest. Whether he goes on is not known.
            readers.rotate_right(1);
            readers[0] = Reader { read_to: end, asked_to: 0 };
            return None;
        };
        readers[..=at].rotate_right(1);
        let asked_to = readers[0].asked_to;
        readers[0].read_to = end;
        if (end + AHEAD_BYTES / 2..=end + 2 * AHEAD_BYTES).contains(&asked_to) {
            return None;
        }
        let to = (end + AHEAD_BYTES).min(bytes);
        let next = if (end..=to).contains(&asked_to) { asked_to } else { from };
        if next >= to {
            return None;
        }
        readers[0].asked_to = to;
        let behind_to = from.saturating_sub(KEPT_BYTES);
        let mut behind = behind_to.saturating_sub(2 * AHEAD_BYTES)..behind_to;
        let is_coming = |other: &Reader| {
            let left = behind.end.saturating_sub(other.read_to);
            other.read_to > 0 && (1..=2 * KEPT_BYTES).contains(&left)
        };
        if readers[1..].iter().any(is_coming) {
            behind = 0..0;
        }
        Some(Announcement { file: Arc::clone(file), soon: next..to, behind })
    }
}

impl Announcement {
    fn make(self) {
        self.file.expect(self.soon, true);
        self.file.expect(self.behind, false);
    }
}

/// What the kernel is still to be told.
#[derive(Default)]
pub(crate) struct Announcements {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    announcements: VecDeque<Announcement>,
    has_thread: bool,
    is_stopped: bool,
}

impl Announcements {
    /// Has the thread make an announcement, or makes it here where there is none. The thread may be
    /// behind: then this one comes to nothing, and who reads waits for the disk.
    pub(crate) fn add(&self, announcement: Announcement) {
        let mut waiting = self.waiting.lock();
        if !waiting.has_thread {
            drop(waiting);
            announcement.make();
        } else if waiting.announcements.len() < WAITING_MAX {
            waiting.announcements.push_back(announcement);
            self.changed.notify_one();
        }
    }

    /// Makes announcements until [`Announcements::stop`].
    fn run(&self) {
        let mut waiting = self.waiting.lock();
        waiting.has_thread = true;
        while !waiting.is_stopped {
            match waiting.announcements.pop_front() {
                Some(announcement) => {
                    drop(waiting);
                    announcement.make();
                    waiting = self.waiting.lock();
                }
                None => self.changed.wait(&mut waiting),
            }
        }
    }

    pub(crate) fn stop(&self) {
        let mut waiting = self.waiting.lock();
        waiting.is_stopped = true;
        waiting.announcements.clear();
        self.changed.notify_all();
    }
}

impl Inner {
    pub(crate) fn run_announcement_thread(&self) {
        self.log.announcements.run();
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    const BYTES: u64 = 1 << 30;
    const READ: u64 = 100 << 10;

    /// Who told what.
    type Told = (ThreadId, Range<u64>, bool);

    /// Comes back once somebody has heard what it was told.
    struct Listener(mpsc::SyncSender<Told>);

    impl DiskFile for Listener {
        fn expect(&self, range: Range<u64>, is_read_soon: bool) {
            if !range.is_empty() {
                let _ = self.0.send((thread::current().id(), range, is_read_soon));
            }
        }

        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            unreachable!()
        }

        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!()
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            unreachable!()
        }

        fn size(&self) -> io::Result<u64> {
            unreachable!()
        }

        fn sync(&self) -> io::Result<()> {
            unreachable!()
        }

        fn next_data(&self, _: u64) -> io::Result<Option<Range<u64>>> {
            unreachable!()
        }
    }

    fn file() -> (Arc<dyn DiskFile>, mpsc::Receiver<Told>) {
        let (tell, told) = mpsc::sync_channel(0);
        (Arc::new(Listener(tell)), told)
    }

    #[test]
    fn each_of_several_readers_of_a_segment_has_everything_read_ahead_once() {
        let (file, _told) = file();
        for starts in [vec![0], vec![0, 300 << 20], vec![0, 3 << 20, 90 << 20, 700 << 20]] {
            let readers = Readers::default();
            let mut announced: Vec<Vec<Range<u64>>> = vec![Vec::new(); starts.len()];
            for read in 0..200 {
                for (reader, start) in starts.iter().enumerate() {
                    let from = start + read * READ;
                    let announcement = readers.read(&file, from..from + READ, BYTES);
                    announced[reader].extend(announcement.map(|announcement| announcement.soon));
                    let asked_to = announced[reader].last().map_or(0, |range| range.end);
                    assert!(
                        read == 0 || asked_to >= from + READ + AHEAD_BYTES / 2 - READ,
                        "{read}"
                    );
                }
            }
            for ranges in &announced {
                assert!(ranges.len() < 30, "{}", ranges.len());
                assert!(ranges.windows(2).all(|two| two[0].end == two[1].start), "{ranges:?}");
            }
        }
    }

    #[test]
    fn who_jumps_about_is_not_read_ahead_for_and_what_others_wait_for_is_kept() {
        let (file, _told) = file();
        let readers = Readers::default();
        for jump in 0..100 {
            let from = jump * 37 % 100 * (9 << 20);
            assert!(readers.read(&file, from..from + READ, BYTES).is_none());
        }
        // Two that are 5 MiB apart: what the first has behind it is what the second is about to read.
        let readers = Readers::default();
        let (mut kept, mut dropped) = (0, 0);
        for read in 0..200 {
            for start in [5 << 20, 0] {
                let from = start + read * READ;
                let Some(announcement) = readers.read(&file, from..from + READ, BYTES) else {
                    continue;
                };
                let (behind, second) = (announcement.behind, read * READ);
                assert!(start == 0 || behind.end <= second, "{behind:?} {second}");
                kept += usize::from(start > 0 && from > 9 << 20 && behind.is_empty());
                dropped += usize::from(start == 0 && !behind.is_empty());
            }
        }
        assert!(kept > 0 && dropped > 0, "{kept} {dropped}");
    }

    #[test]
    fn announcements_are_made_by_the_thread_and_nobody_waits_for_it() {
        let (file, told) = file();
        let announcements = Arc::new(Announcements::default());
        let new = |at| Announcement { file: Arc::clone(&file), soon: at..at + 1, behind: 0..0 };
        let running = {
            let announcements = Arc::clone(&announcements);
            thread::spawn(move || announcements.run())
        };
        while !announcements.waiting.lock().has_thread {
            thread::yield_now();
        }
        // Nobody hears of the first one meanwhile.
        for at in 0..1000 {
            announcements.add(new(at));
        }
        assert!(announcements.waiting.lock().announcements.len() <= WAITING_MAX);
        for at in 0..WAITING_MAX as u64 / 2 {
            assert_eq!(told.recv().unwrap(), (running.thread().id(), at..at + 1, true));
        }
        announcements.stop();
        drop(told);
        running.join().unwrap();
    }
}
