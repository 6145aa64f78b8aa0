//! Runs a sequence, cuts the power after every step of the disk, and looks at what comes back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Counts;
use super::common::{self, Message, Random, Stored};
use super::faulty_disk::{Fault, FaultyDisk};
use super::promise::{Contents, Promise};
use super::sequences::{Op, Sequence, Shape, TOPICS};
use crate::disk::SimulatedDisk;
use crate::planted::{self, Planted};
use crate::{Appended, Clock, ManualClock, Store, StoreConfig, StoreError};

const CRASHES_PER_STEP: u32 = 3;

/// A store's surroundings, with the bug that is planted in them.
#[derive(Clone, Copy)]
pub(super) struct Machine {
    pub(super) fault: Fault,
    pub(super) bug: Option<Planted>,
}

/// What happens while a sequence runs.
struct Running {
    machine: Machine,
    config: StoreConfig,
    clock: Arc<ManualClock>,
    disk: SimulatedDisk,
    faulty: FaultyDisk,
    store: Store,
    promise: Promise,
    next_number: u64,
}

impl Machine {
    pub(super) const fn sound() -> Self {
        Self { fault: Fault::Sound, bug: None }
    }

    /// Crashes after every step of the operations behind the prefix. Panics at the first promise
    /// that is not kept.
    pub(super) fn try_sequence(self, sequence: &Sequence, seed: u64, counts: &Counts) {
        planted::with(self.bug, || {
            let mut running = Running::new(self, sequence);
            if sequence.prefix.iter().try_for_each(|op| running.apply(op)).is_err() {
                return;
            }
            let mut random = Random(seed);
            let mut seen = HashSet::new();
            for op in &sequence.ops {
                let mut promise = running.promise.clone();
                running.disk.record_steps(true);
                running.expect(op, &mut promise);
                let result = running.apply(op);
                for state in running.disk.record_steps(false) {
                    running.look_at(&state, &promise, &mut random, &mut seen, counts);
                }
                let promise = running.promise.clone();
                running.look_at(&running.disk, &promise, &mut random, &mut seen, counts);
                if result.is_err() {
                    return;
                }
            }
        });
    }

    fn open(
        self,
        faulty: &FaultyDisk,
        config: &StoreConfig,
        clock: &Arc<ManualClock>,
    ) -> Result<Store, StoreError> {
        faulty.set_recovering(true);
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        let opened = Store::open(config.clone(), Arc::new(faulty.clone()), clock);
        faulty.set_recovering(false);
        opened.map(|(store, _)| store)
    }
}

impl Running {
    fn new(machine: Machine, sequence: &Sequence) -> Self {
        let mut config = StoreConfig {
            segment_bytes: sequence.segment_bytes,
            unflushed_bytes_max: Some(32 << 10),
            message_bytes_max: 3000,
            ..common::small_config(sequence.flush)
        };
        config.upkeep.retention = Duration::from_secs(1);
        let clock = Arc::new(ManualClock::at_ms(1_000_000));
        let disk = SimulatedDisk::new();
        let faulty = FaultyDisk::new(disk.clone(), machine.fault);
        let store = machine.open(&faulty, &config, &clock).unwrap();
        let promise = Promise::default();
        Self { machine, config, clock, disk, faulty, store, promise, next_number: 0 }
    }

    /// Puts into `promise` what an operation may have done before it returns.
    fn expect(&self, op: &Op, promise: &mut Promise) {
        match op {
            Op::Append(shapes) | Op::AppendAroundFlush(shapes) => {
                promise.pending = self.messages(shapes);
            }
            Op::Delete => {
                promise.maybe_deleted = Some((TOPICS[0].to_owned(), self.store.max_offset()));
            }
            Op::Expire => promise.expired_below = promise.expired_below.max(promise.kept_below),
            Op::Flush | Op::Maintain | Op::Reopen | Op::Kill | Op::BreakSync => {}
        }
    }

    fn messages(&self, shapes: &[Shape]) -> Vec<Message> {
        (self.next_number..).zip(shapes).map(|(number, shape)| shape.message(number)).collect()
    }

    fn apply(&mut self, op: &Op) -> Result<(), StoreError> {
        match op {
            Op::Append(shapes) => self.append(shapes, false)?,
            Op::AppendAroundFlush(shapes) => self.append(shapes, true)?,
            Op::Flush => drop(self.store.flush()?),
            Op::Maintain => self.store.maintain()?,
            Op::Reopen => {
                self.store.close()?;
                self.promise.kept_below = self.store.max_offset();
                self.start_again()?;
            }
            Op::Kill => self.start_again()?,
            Op::Delete => {
                let end = self.store.max_offset();
                self.store.delete_queues(&[TOPICS[0]], end)?;
                self.promise.deleted.push((TOPICS[0].to_owned(), end));
            }
            Op::Expire => {
                self.clock.advance_ms(10_000);
                self.store.protect_from(self.store.watermarks().flushed());
                self.promise.expired_below = self.store.watermarks().flushed();
                self.store.maintain()?;
            }
            Op::BreakSync => self.disk.lose_next_sync(),
        }
        self.note_what_is_promised();
        Ok(())
    }

    fn note_what_is_promised(&mut self) {
        let marks = self.store.watermarks();
        let mut kept = marks.flushed();
        if self.config.is_sync() {
            kept = kept.max(marks.visible());
        }
        self.promise.kept_below = self.promise.kept_below.max(kept);
    }

    fn append(&mut self, shapes: &[Shape], is_flushed_inside: bool) -> Result<(), StoreError> {
        let messages = self.messages(shapes);
        self.next_number += messages.len() as u64;
        let appended = if is_flushed_inside {
            self.append_around_flush(&messages)
        } else {
            common::append(&self.store, &messages)
        };
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) => {
                self.promise.pending = messages;
                return Err(error);
            }
        };
        for (message, at) in messages.into_iter().zip(appended) {
            self.promise.records.push(Stored {
                position: at.physical_offset,
                size: at.size,
                queue_offset: at.queue_offset,
                message,
            });
        }
        Ok(())
    }

    fn append_around_flush(&self, messages: &[Message]) -> Result<Vec<Appended>, StoreError> {
        let new: Vec<_> = messages.iter().map(Message::as_new).collect();
        let (mut appended, mut flushed) = (Vec::new(), Ok(0));
        let flush = || flushed = self.store.flush();
        self.store.inner().append_around(&new, &mut appended, flush)?;
        flushed.map(|_| appended)
    }

    /// The process is another one; the machine stayed on, so all that was written is there.
    fn start_again(&mut self) -> Result<(), StoreError> {
        let end = self.store.max_offset();
        let nothing = FaultyDisk::new(SimulatedDisk::new(), Fault::Sound);
        let other = self.machine.open(&nothing, &self.config, &self.clock)?;
        drop(std::mem::replace(&mut self.store, other));
        self.store = self.machine.open(&self.faulty, &self.config, &self.clock)?;
        assert_eq!(self.store.max_offset(), end, "the end of the log, with another process");
        Ok(())
    }

    /// Cuts the power of a disk, each time with another part of what was not synced surviving.
    fn look_at(
        &self,
        state: &SimulatedDisk,
        promise: &Promise,
        random: &mut Random,
        seen: &mut HashSet<u64>,
        counts: &Counts,
    ) {
        for _ in 0..CRASHES_PER_STEP {
            let disk = state.crash(random.below(u64::MAX));
            // Often nothing, or the same, survives; that is no state of its own.
            if seen.insert(disk.fingerprint() ^ promise.kept_below) {
                self.look_at_what_survived(&disk, promise, random, counts);
            }
        }
    }

    /// Compares what comes back with the promise.
    fn look_at_what_survived(
        &self,
        disk: &SimulatedDisk,
        promise: &Promise,
        random: &mut Random,
        counts: &Counts,
    ) {
        let bare = disk.crash(0);
        remove_derived(&bare);
        let rebuilt = self.contents_of(&bare);

        // One recovery in eight is itself cut short, at a random step.
        let is_nested = random.below(8) == 0;
        disk.record_steps(is_nested);
        let faulty = FaultyDisk::new(disk.clone(), self.machine.fault);
        let store = self.open(&faulty);
        let steps = disk.record_steps(false);
        let contents = Contents::of(&store, self.config.segment_bytes);
        promise.check_log(&contents);
        promise.check_derived(&contents, &store);
        assert_eq!(rebuilt, contents, "not what a rebuild makes of the log");
        let end = store.max_offset();
        if is_nested && !steps.is_empty() {
            let step = &steps[random.below(steps.len() as u64) as usize];
            let again = self.contents_of(&step.crash(random.below(u64::MAX)));
            assert_eq!(again, contents, "a recovery that was cut short changed the result");
        }

        let store = match random.below(2) {
            0 => store,
            _ => {
                drop(store);
                let second = self.open(&faulty);
                let again = Contents::of(&second, self.config.segment_bytes);
                assert_eq!(again, contents, "not what the first recovery found");
                second
            }
        };
        let mut promise = promise.clone();
        self.go_on(&store, &contents, &mut promise, end);
        if random.below(2) == 0 {
            promise.kept_below = store.flush().unwrap();
        }
        // Whatever stood behind the end before must not stand behind the new records, not even
        // when those are torn in turn.
        drop(store);
        let store =
            self.open(&FaultyDisk::new(disk.crash(random.below(u64::MAX)), self.machine.fault));
        let contents = Contents::of(&store, self.config.segment_bytes);
        promise.check_log(&contents);
        promise.check_derived(&contents, &store);
        counts.add(1, u64::from(is_nested));
    }

    /// One more message to each queue: it gets the offset that follows.
    fn go_on(&self, store: &Store, contents: &Contents, promise: &mut Promise, end: u64) {
        let next = TOPICS.map(|topic| promise.next_offset(contents, topic, 0));
        promise.is_now(contents, end);
        for (number, (topic, next)) in (1_000_000..).zip(TOPICS.into_iter().zip(next)) {
            let message = Shape::even(topic).message(number);
            let appended = common::append(store, std::slice::from_ref(&message)).unwrap()[0];
            if let Some(next) = next {
                assert_eq!(appended.queue_offset, next, "offset of the next message of {topic}");
            }
            promise.records.push(Stored {
                position: appended.physical_offset,
                size: appended.size,
                queue_offset: appended.queue_offset,
                message,
            });
        }
    }

    fn open(&self, faulty: &FaultyDisk) -> Store {
        self.machine
            .open(faulty, &self.config, &self.clock)
            .unwrap_or_else(|error| panic!("it does not open any more: {error}"))
    }

    fn contents_of(&self, disk: &SimulatedDisk) -> Contents {
        let store = self.open(&FaultyDisk::new(disk.clone(), self.machine.fault));
        Contents::of(&store, self.config.segment_bytes)
    }
}

fn remove_derived(disk: &SimulatedDisk) {
    use crate::disk::Disk as _;
    for directory in ["/data/weir/queues", "/data/weir/keys"] {
        let directory = std::path::Path::new(directory);
        for file in disk.list(directory).unwrap_or_default() {
            disk.remove(&directory.join(file.name)).unwrap();
        }
        disk.sync_directory(directory).unwrap();
    }
}
