//! Threads that serve connections, each with a runtime and an append batch of its own.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Broker;
use crate::append_batch::AppendBatch;

/// How soon that for which the disk had no room is tried again.
pub(crate) const BUSY_RETRY: Duration = Duration::from_millis(5);

/// What the connections of one thread share.
#[derive(Default)]
pub(crate) struct IoThread {
    /// Locked by this thread only.
    pub(crate) batch: Mutex<AppendBatch>,
    /// The batch is no longer empty.
    pub(crate) filled: Notify,
}

impl IoThread {
    /// Appends the batch at the end of each tick: this task is woken by the first send and queues
    /// behind all connections that were ready before it.
    async fn append_batches(self: Arc<Self>, broker: Arc<Broker>) {
        let busy_poll = Duration::from_micros(broker.config().busy_poll_us);
        loop {
            self.filled(busy_poll).await;
            // The disk is behind, and the thread serves others meanwhile.
            while !self.batch.lock().append(&broker) {
                tokio::time::sleep(BUSY_RETRY).await;
            }
        }
    }

    /// Waits for a send. For the time of `busy_poll` the thread looks at its sockets again and
    /// again instead of going to sleep, so that nobody has to wake it.
    async fn filled(&self, busy_poll: Duration) {
        let mut filled = pin!(self.filled.notified());
        let until = (!busy_poll.is_zero()).then(|| Instant::now() + busy_poll);
        while until.is_some_and(|until| Instant::now() < until) {
            if poll_fn(|context| Poll::Ready(filled.as_mut().poll(context).is_ready())).await {
                return;
            }
            // Runs what is ready and polls the sockets once.
            tokio::task::yield_now().await;
        }
        filled.await;
    }
}

/// The running threads.
pub(crate) struct IoThreads {
    pub(crate) handles: Vec<Handle>,
    pub(crate) threads: Vec<Arc<IoThread>>,
    stop: CancellationToken,
    running: Vec<std::thread::JoinHandle<()>>,
}

impl IoThreads {
    pub(crate) fn start(broker: &Arc<Broker>) -> io::Result<Self> {
        let mut started = Self {
            handles: Vec::new(),
            threads: Vec::new(),
            stop: CancellationToken::new(),
            running: Vec::new(),
        };
        for number in 0..broker.config().io_thread_count() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let io_thread = Arc::new(IoThread::default());
            let appending = runtime.spawn(io_thread.clone().append_batches(broker.clone()));
            runtime.spawn(end_with(appending, broker.clone()));
            if number == 0 {
                runtime.spawn(act_on_flushes(broker.clone()));
            }
            started.handles.push(runtime.handle().clone());
            started.threads.push(io_thread);
            let stop = started.stop.clone();
            let running = std::thread::Builder::new()
                .name(format!("weir-io-{number}"))
                .spawn(move || runtime.block_on(stop.cancelled()))?;
            started.running.push(running);
        }
        Ok(started)
    }

    /// Ends the threads, and appends what they had taken and not appended.
    pub(crate) fn stop(self, broker: &Broker) {
        self.stop.cancel();
        for thread in self.running {
            if thread.join().is_err() {
                tracing::error!("an I/O thread panicked");
            }
        }
        self.threads.iter().for_each(|thread| thread.batch.lock().append_last(broker));
    }
}

/// Ends the broker when its appending task ends: it only does by a panic, and without it sends
/// would be taken and never answered.
async fn end_with(appending: JoinHandle<()>, broker: Arc<Broker>) {
    if let Err(error) = appending.await
        && error.is_panic()
    {
        broker.fail(format!("appending failed: {error}"));
    }
}

/// Answers what waited for the disk. On an I/O thread, where the answers wake its connections
/// without a system call each.
async fn act_on_flushes(broker: Arc<Broker>) {
    loop {
        broker.flushed.notified().await;
        broker.reached();
    }
}
