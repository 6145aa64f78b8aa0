//! Reads the whole log again and again, slowly, and compares it with the sums of its blocks.
//!
//! Disks forget without saying so; who finds out when a message is wanted finds out too late to
//! fetch it from a replica. One pass takes [`crate::StoreConfig::scrub_interval`], in steps on the
//! background thread. A damaged block is logged, counted, told to the broker, kept over restarts
//! in `weir/scrub`, and answered with an error when somebody reads it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::block_sums::{BLOCK_BYTES, Sum, Summed};
use crate::block_tail::BlockTail;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::format::Layout;
use crate::repair::Records;
use crate::segment::Segment;
use crate::small_file;
use crate::store::Inner;

/// What is read in one go.
const STEP_BYTES: u64 = 1 << 20;
/// A step is at least this far from the next one; a store that asks for more is read more slowly.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// How long to wait when there is nothing to read.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Damaged ranges that are kept; with more the disk is to be replaced, not listed.
const RANGES_MAX: usize = 10_000;

/// A range of the log that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedRange {
    /// Bytes from the start of the log.
    pub from: u64,
    /// Behind the last one.
    pub to: u64,
    pub reason: String,
}

/// Called with all known damage when it changes.
pub type DamageListener = Box<dyn Fn(&[DamagedRange]) + Send + Sync>;

/// What is known about damage, and how far the pass has come.
#[derive(Default)]
pub(crate) struct Scrub {
    /// Spares readers the lock as long as all is well.
    has_damage: AtomicBool,
    /// By where they begin.
    damage: RwLock<BTreeMap<u64, DamagedRange>>,
    position: AtomicU64,
    checked_bytes: AtomicU64,
    passes: AtomicU64,
    repaired_bytes: AtomicU64,
    listener: Mutex<Option<DamageListener>>,
    /// Held while the file is written: the pass, repairs and retention all do.
    keeping: Mutex<()>,
}

/// `weir/scrub`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    position: u64,
    damaged: Vec<DamagedRange>,
}

impl Kept {
    fn read(disk: &dyn Disk, layout: &Layout) -> Result<Self, StoreError> {
        let kept = match small_file::read(disk, &layout.scrub()) {
            Ok(text) => text.and_then(|text| serde_json::from_slice(&text).ok()),
            // Only a copy of what the next pass finds again.
            Err(StoreError::Unreadable { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(kept.unwrap_or_default())
    }
}

/// What the last process knew to be damaged.
pub(crate) fn kept_damage(
    disk: &dyn Disk,
    layout: &Layout,
) -> Result<Vec<DamagedRange>, StoreError> {
    Kept::read(disk, layout).map(|kept| kept.damaged)
}

impl Scrub {
    /// Goes on where the last process was; damage outside of the log is gone with it.
    pub(crate) fn open(
        disk: &dyn Disk,
        layout: &Layout,
        start: u64,
        end: u64,
    ) -> Result<Self, StoreError> {
        let kept = Kept::read(disk, layout)?;
        let inside = |range: &DamagedRange| range.to > start && range.from < end;
        let known: BTreeMap<_, _> =
            kept.damaged.into_iter().filter(inside).map(|range| (range.from, range)).collect();
        for range in known.values() {
            tracing::error!(from = range.from, to = range.to, reason = %range.reason, "the log is damaged");
        }
        Ok(Self {
            has_damage: AtomicBool::new(!known.is_empty()),
            damage: RwLock::new(known),
            position: AtomicU64::new(kept.position),
            ..Self::default()
        })
    }

    /// # Errors
    /// [`StoreError::Damaged`] when some of `[from, to)` is known to be damaged.
    pub(crate) fn check(&self, from: u64, to: u64) -> Result<(), StoreError> {
        if !self.has_damage.load(Ordering::Acquire) {
            return Ok(());
        }
        let damage = self.damage.read();
        let last = damage.range(..to).next_back().map(|(_, range)| range);
        match last.filter(|range| range.to > from) {
            None => Ok(()),
            Some(range) => Err(StoreError::Damaged {
                from: range.from,
                to: range.to,
                reason: range.reason.clone(),
            }),
        }
    }

    pub(crate) fn damaged(&self) -> Vec<DamagedRange> {
        self.damage.read().values().cloned().collect()
    }

    /// Compared so far by this process, in bytes, and complete passes.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.checked_bytes.load(Ordering::Relaxed), self.passes.load(Ordering::Relaxed))
    }

    pub(crate) fn set_listener(&self, listener: DamageListener) {
        listener(&self.damaged());
        *self.listener.lock() = Some(listener);
    }

    /// Written again since the store was opened, in bytes.
    pub(crate) fn repaired_bytes(&self) -> u64 {
        self.repaired_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn count_repaired(&self, bytes: u64) {
        self.repaired_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says whether that is news.
    pub(crate) fn note(&self, from: u64, to: u64, reason: String) -> bool {
        let mut damage = self.damage.write();
        if damage.contains_key(&from) || damage.len() >= RANGES_MAX {
            return false;
        }
        tracing::error!(from, to, reason, "the log is damaged; reading that range is refused");
        damage.insert(from, DamagedRange { from, to, reason });
        self.has_damage.store(true, Ordering::Release);
        true
    }

    /// Forgets damage of what is not part of the log any more; says whether there was any.
    fn forget_before(&self, start: u64) -> bool {
        let mut damage = self.damage.write();
        let known = damage.len();
        damage.retain(|_, range| range.to > start);
        self.has_damage.store(!damage.is_empty(), Ordering::Release);
        damage.len() < known
    }

    fn tell(&self) {
        if let Some(listener) = self.listener.lock().as_ref() {
            listener(&self.damaged());
        }
    }

    fn clear(&self, from: u64) -> bool {
        let mut damage = self.damage.write();
        let is_known = damage.remove(&from).is_some();
        if is_known {
            tracing::info!(from, "a damaged range of the log is whole again");
        }
        self.has_damage.store(!damage.is_empty(), Ordering::Release);
        is_known
    }
}

impl Inner {
    /// Writes the sums of blocks that are on disk, durably. Before the durable mark, so that what
    /// the mark vouches for has its sums.
    pub(crate) fn write_block_sums(
        &self,
        flushed: u64,
        with_partial: bool,
    ) -> Result<(), StoreError> {
        let mut sums = {
            let mut appender = self.appender.lock();
            let mut sums = appender.tail.take_done(flushed);
            if with_partial {
                sums.extend(appender.tail.partial().filter(|summed| summed.end() <= flushed));
            }
            sums
        };
        let written = self.write_sums(&mut sums);
        if written.is_err() {
            self.appender.lock().tail.put_back(sums);
        }
        written?;
        let directory = &self.layout.blocks;
        self.disk.sync_directory(directory).map_err(StoreError::io("sync", directory))
    }

    /// Writes sums segment by segment and leaves those that it could not write.
    fn write_sums(&self, sums: &mut Vec<Summed>) -> Result<(), StoreError> {
        while let Some(first) = sums.first() {
            let Some(segment) = self.log.segment_at(first.position) else {
                // It expired meanwhile.
                let next = first.position - first.position % self.config.segment_bytes
                    + self.config.segment_bytes;
                sums.retain(|summed| summed.position >= next);
                continue;
            };
            let own = sums.partition_point(|summed| summed.position < segment.end());
            segment.blocks.write(&sums[..own])?;
            segment.blocks.sync()?;
            sums.drain(..own);
        }
        Ok(())
    }

    /// See [`crate::Store::scrub`].
    pub(crate) fn scrub_all(&self) -> Result<(), StoreError> {
        self.scrub.position.store(0, Ordering::Relaxed);
        let passes = self.scrub.passes.load(Ordering::Relaxed);
        while self.scrub.passes.load(Ordering::Relaxed) == passes {
            if self.scrub_step()? == 0 && self.log.start().is_none() {
                break;
            }
        }
        Ok(())
    }

    /// One step of the pass; how long to wait for the next one.
    pub(crate) fn scrub_paced(&self) -> Duration {
        let interval = self.upkeep().scrub_interval;
        if interval.is_zero() {
            return PAUSE_MAX;
        }
        let done = match self.scrub_step() {
            Ok(done) => done,
            Err(error) => {
                self.report("scrub", Err(error));
                0
            }
        };
        let flushed = self.marks.flushed();
        let size = flushed.saturating_sub(self.log.start().unwrap_or(flushed));
        if done == 0 || size == 0 {
            return PAUSE_MAX.min(interval);
        }
        interval.mul_f64(done as f64 / size as f64).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    /// Compares the next blocks with their sums, and gives those a sum that have none. Says how
    /// many bytes that were; 0 at the end of a pass.
    fn scrub_step(&self) -> Result<u64, StoreError> {
        let scrub = &self.scrub;
        let start = self.log.start().unwrap_or(0);
        let position = scrub.position.load(Ordering::Relaxed).max(start);
        let position = BlockTail::block_start(position, self.config.segment_bytes);
        // The block that still fills up has no sum yet.
        let end = BlockTail::block_start(self.marks.flushed(), self.config.segment_bytes);
        let segment = self.log.segment_at(position).filter(|_| position < end);
        let Some(segment) = segment else {
            scrub.position.store(start, Ordering::Relaxed);
            scrub.passes.fetch_add(1, Ordering::Relaxed);
            return Ok(0);
        };
        let to = (position + STEP_BYTES).min(segment.end()).min(end);
        let is_news = self.scrub_range(&segment, position, to)?;
        if self.log.is_old(&segment)
            && let Some(announcement) = segment.read_through(position, to - position)
        {
            self.log.announcements.add(announcement);
        }
        scrub.position.store(to, Ordering::Relaxed);
        scrub.checked_bytes.fetch_add(to - position, Ordering::Relaxed);
        self.scrub_news(is_news)?;
        Ok(to - position)
    }

    /// Tells what is damaged, and keeps it, if that changed.
    pub(crate) fn scrub_news(&self, is_news: bool) -> Result<(), StoreError> {
        if is_news {
            self.scrub.tell();
            self.keep_scrub()?;
        }
        Ok(())
    }

    /// Compares `[from, to)` of a segment; both are where blocks begin, or the segment's end. Says
    /// whether the known damage changed.
    pub(crate) fn scrub_range(
        &self,
        segment: &Segment,
        from: u64,
        to: u64,
    ) -> Result<bool, StoreError> {
        let known = segment.blocks.read(from, to)?;
        let mut known = known.iter().peekable();
        let mut missing = Vec::new();
        let mut is_news = false;
        let mut buffer = Vec::new();
        for position in (from..to).step_by(BLOCK_BYTES as usize) {
            let block_end = (position + BLOCK_BYTES).min(segment.end());
            let known = known.next_if(|summed| summed.position == position).map(|known| known.sum);
            buffer.resize((block_end - position) as usize, 0);
            if let Err(error) = segment.read_exact(&mut buffer, position) {
                is_news |= self.scrub.note(position, block_end, error.to_string());
                continue;
            }
            let sum = Sum { crc: crc32fast::hash(&buffer), bytes: buffer.len() as u32 };
            // What was behind the log's end when a block got its sum is taken as it is now; what
            // was in front is not, so that damage there still shows.
            let expected = known
                .and_then(|known| Some(known.followed_by(buffer.get(known.bytes as usize..)?)));
            if expected.is_none() && self.scrub.check(position, block_end).is_err() {
                // Damage that has lost its sum as well is not made sound by that.
                if self.records_in(segment, position, &buffer)? == Records::Hold {
                    is_news |= self.scrub.clear(position);
                } else {
                    continue;
                }
            }
            if expected.is_none() || expected != known {
                missing.push(Summed { position, sum: expected.unwrap_or(sum) });
            }
            if let Some(expected) = expected {
                is_news |= if expected == sum {
                    self.scrub.clear(position)
                } else {
                    let reason = "a block is not what was written".to_owned();
                    self.scrub.note(position, block_end, reason)
                };
            }
        }
        if !missing.is_empty() {
            segment.blocks.write(&missing)?;
        }
        Ok(is_news)
    }

    /// Gives blocks between two positions a sum that have none, for what a crash left without.
    pub(crate) fn fill_block_sums(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let mut position = BlockTail::block_start(from, self.config.segment_bytes);
        let end = BlockTail::block_start(to, self.config.segment_bytes);
        while position < end {
            let Some(segment) = self.log.segment_at(position) else { break };
            let to = (position + STEP_BYTES).min(segment.end()).min(end);
            self.scrub_range(&segment, position, to)?;
            position = to;
        }
        Ok(())
    }

    /// Damage of expired segments is gone with them.
    pub(crate) fn forget_damage_before(&self, start: u64) {
        if !self.scrub.forget_before(start) {
            return;
        }
        self.scrub.tell();
        // The next open leaves out what lies outside of the log.
        self.report("what is known about damage", self.keep_scrub());
    }

    /// Keeps what is known for the next process.
    pub(crate) fn keep_scrub(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.scrub.keeping.lock();
        let position = self.scrub.position.load(Ordering::Relaxed);
        let kept = Kept { position, damaged: self.scrub.damaged() };
        small_file::write_json(&*self.disk, &self.layout.scrub(), &kept)
    }
}
