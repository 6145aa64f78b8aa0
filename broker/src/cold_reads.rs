//! Pulls of messages that are not in memory, on threads of their own: an I/O thread never waits for
//! the disk, and one consumer that begins far back does not hold up the others.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::Broker;
use crate::request::pull::{self, HeldPull};

/// Two keep a disk busy that answers one read after the other, and bound the memory and the page
/// cache that readers of old messages take.
const THREADS: usize = 2;
/// A pull costs some hundred bytes while it waits.
const WAITING_MAX: usize = 20_000;
/// How far the readers may be ahead of their rate.
const BURST: Duration = Duration::from_millis(20);

/// Pulls that wait for a thread, and the rate that all threads share.
pub(crate) struct ColdReads {
    waiting: Mutex<Waiting>,
    added: Condvar,
    /// Bytes a second; 0: as many as the disk gives.
    rate: AtomicU64,
    /// When what was read so far has been paid for.
    paid_at: Mutex<Instant>,
}

#[derive(Default)]
struct Waiting {
    pulls: VecDeque<HeldPull>,
    is_stopped: bool,
}

impl ColdReads {
    pub(crate) fn new(rate: u64) -> Self {
        let paid_at = Mutex::new(Instant::now());
        Self { waiting: Mutex::default(), added: Condvar::new(), rate: rate.into(), paid_at }
    }

    /// What is read from now on is paid for at this rate.
    pub(crate) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Takes a pull, or gives it back when too many wait.
    pub(crate) fn add(&self, pull: HeldPull) -> Option<HeldPull> {
        let mut waiting = self.waiting.lock();
        if waiting.is_stopped || waiting.pulls.len() >= WAITING_MAX {
            return Some(pull);
        }
        waiting.pulls.push_back(pull);
        self.added.notify_one();
        None
    }

    fn next(&self) -> Option<HeldPull> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.is_stopped {
                return None;
            }
            if let Some(pull) = waiting.pulls.pop_front() {
                return Some(pull);
            }
            self.added.wait(&mut waiting);
        }
    }

    /// Notes what was read and waits until that is within the rate.
    fn pay(&self, bytes: usize) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let now = Instant::now();
        let due = {
            let mut paid_at = self.paid_at.lock();
            *paid_at = (*paid_at).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *paid_at
        };
        let ahead = due.saturating_duration_since(now);
        if ahead > BURST {
            std::thread::sleep(ahead - BURST);
        }
    }
}

/// The running threads.
pub(crate) struct ColdReadThreads {
    broker: Arc<Broker>,
    threads: Vec<JoinHandle<()>>,
}

impl ColdReadThreads {
    pub(crate) fn start(broker: &Arc<Broker>) -> io::Result<Self> {
        let mut started = Self { broker: broker.clone(), threads: Vec::new() };
        for number in 0..THREADS {
            let broker = broker.clone();
            let run = move || {
                while let Some(held) = broker.cold_reads.next() {
                    let bytes = pull::answer_cold(&broker, held);
                    broker.cold_reads.pay(bytes);
                }
            };
            let name = format!("weir-cold-{number}");
            started.threads.push(std::thread::Builder::new().name(name).spawn(run)?);
        }
        Ok(started)
    }

    /// Ends the threads; pulls that still wait get no answer.
    pub(crate) fn stop(self) {
        let mut waiting = self.broker.cold_reads.waiting.lock();
        waiting.is_stopped = true;
        waiting.pulls.clear();
        drop(waiting);
        self.broker.cold_reads.added.notify_all();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread for reads of old messages panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_paid_for_at_the_rate() {
        let reads = ColdReads::new(1_000_000);
        let started = Instant::now();
        (0..5).for_each(|_| reads.pay(20_000));
        // 100 ms of reading, of which the burst is free.
        assert!(started.elapsed() >= Duration::from_millis(75));
        let free = ColdReads::new(0);
        free.pay(usize::MAX);
    }
}
