//! Pulls of messages that are not in memory, on threads of their own: an I/O thread never waits for
//! the disk, and one consumer that begins far back does not hold up the others. Old messages have a
//! rate, whoever reads them.

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
        let now = Instant::now();
        let mut paid_at = self.paid_at.lock();
        *paid_at = (*paid_at).max(now) + self.price(bytes);
        let ahead = *paid_at - now;
        drop(paid_at);
        if ahead > BURST {
            std::thread::sleep(ahead - BURST);
        }
    }

    /// Pays for old messages that an I/O thread has found in memory, where whoever reads in order has
    /// them fetched before he asks. `false`, with nothing paid, if the readers are ahead of their
    /// rate: then these threads are to answer.
    pub(crate) fn pay_at_once(&self, bytes: usize) -> bool {
        let now = Instant::now();
        let mut paid_at = self.paid_at.lock();
        let is_within = *paid_at <= now + BURST;
        if is_within {
            *paid_at = (*paid_at).max(now) + self.price(bytes);
        }
        is_within
    }

    /// How long so many bytes take at the rate.
    fn price(&self, bytes: usize) -> Duration {
        match self.rate.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
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
    use weirmq_remoting::RequestCode;
    use weirmq_remoting::command::Text;
    use weirmq_remoting::header::{Header as _, PULL_SUBSCRIPTION, PullMessageHeader};
    use weirmq_store::SimulatedDisk;

    use super::*;
    use crate::busy_disk::{BODY, call};
    use crate::full_disk::Running;

    #[test]
    fn reads_are_paid_for_at_the_rate() {
        let reads = ColdReads::new(1_000_000);
        let started = Instant::now();
        (0..5).for_each(|_| reads.pay(20_000));
        // 100 ms of reading, of which the burst is free.
        assert!(started.elapsed() >= Duration::from_millis(75));
        let free = ColdReads::new(0);
        free.pay(usize::MAX);
        assert!(free.pay_at_once(usize::MAX) && free.pay_at_once(1));
    }

    #[tokio::test]
    async fn who_reads_in_order_what_is_in_memory_again_does_so_at_the_rate() {
        const MESSAGES: usize = 64;
        const RATE: u64 = 4 << 20;
        let (disk, folder) = (SimulatedDisk::new(), tempfile::tempdir().unwrap());
        let running = Running::start_with(&disk, &folder, |_| {}).await;
        for _ in 0..MESSAGES {
            running.send().await;
        }
        running.stop().await;

        let limit = |config: &mut crate::BrokerConfig| {
            config.limits.cold_read_bytes_per_second = RATE;
        };
        let running = Running::start_with(&disk, &folder, limit).await;
        let (started, mut offset, mut pulls) = (Instant::now(), 0, 0);
        while offset < MESSAGES as i64 {
            let header = PullMessageHeader {
                consumer_group: Text::from("g"),
                topic: Text::from("t"),
                queue_id: 0,
                queue_offset: offset,
                max_msg_nums: 4,
                sys_flag: PULL_SUBSCRIPTION,
                commit_offset: None,
                suspend_timeout_millis: None,
                subscription: Some(Text::from("*")),
                sub_version: None,
                expression_type: None,
                max_msg_bytes: None,
            };
            let pull = RequestCode::PullMessage;
            let told = call(&running.connection, pull, |out| header.encode(out), b"").await;
            let next = told.command().unwrap().ext.get("nextBeginOffset").unwrap().to_cow();
            let next = next.parse().unwrap();
            assert!(next > offset, "{next}");
            (offset, pulls) = (next, pulls + 1);
        }
        // One pull on the I/O thread, and one on each of these, are paid for after their answers.
        let unpaid = (1 + THREADS) as f64 / f64::from(pulls);
        let paid_for = (MESSAGES * BODY.len()) as f64 * (1.0 - unpaid) / RATE as f64;
        assert!(started.elapsed() + BURST >= Duration::from_secs_f64(paid_for));
        running.stop().await;
    }
}
