//! When a run is measured, and the thread that it runs on.

use std::cell::Cell;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::LocalSet;

use super::host::{Snapshot, Usage};
use super::options::Span;

/// How long answers may take after the last request.
pub(super) const DRAIN: Duration = Duration::from_secs(10);

/// The times of one run. What happens before `from` is warm-up, what happens after `until` is
/// draining; neither is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start: Instant,
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Window {
    pub(super) fn is_measured(&self, at: Instant) -> bool {
        self.from <= at && at < self.until
    }

    pub(super) fn length(&self) -> Duration {
        self.until - self.from
    }
}

/// Whom to watch meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watch<'a> {
    pub(super) broker_pid: Option<u32>,
    pub(super) store_dir: Option<&'a Path>,
}

/// Runs `load` on a thread and runtime of its own, while this thread watches the machine at both
/// ends of the window.
///
/// `load` is called inside a [`LocalSet`]. It has to end by itself some time after the window;
/// [`DRAIN`] bounds what it may wait for.
pub(super) fn measure<T, F>(
    span: &Span,
    watch: Watch<'_>,
    load: impl FnOnce(Window) -> F + Send,
) -> anyhow::Result<(T, Usage)>
where
    T: Send,
    F: Future<Output = anyhow::Result<T>>,
{
    // A moment for the thread to begin and to render its requests.
    let start = Instant::now() + Duration::from_millis(50);
    let from = start + span.warmup();
    let window = Window { start, from, until: from + span.seconds() };
    std::thread::scope(|scope| {
        let generator = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn_scoped(scope, move || on_own_runtime(window, load))
            .context("start the load's thread")?;
        sleep_until(window.from);
        let before = Snapshot::take(watch)?;
        sleep_until(window.until);
        let after = Snapshot::take(watch)?;
        let (outcome, generator_cpu) =
            generator.join().map_err(|_| anyhow::anyhow!("the load's thread panicked"))??;
        Ok((outcome, Usage::between(&before, &after, generator_cpu)))
    })
}

/// Runs `load` to its end on a runtime of this thread alone, and says what CPU the thread spent
/// inside the window.
pub(super) fn on_own_runtime<T, F: Future<Output = anyhow::Result<T>>>(
    window: Window,
    load: impl FnOnce(Window) -> F,
) -> anyhow::Result<(T, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let sampled = Rc::new(Cell::new((Duration::ZERO, None)));
        let samples = sampled.clone();
        let sampler = tokio::task::spawn_local(async move {
            tokio::time::sleep_until(window.from.into()).await;
            let before = thread_cpu();
            samples.set((before, None));
            tokio::time::sleep_until(window.until.into()).await;
            samples.set((before, Some(thread_cpu())));
        });
        let outcome = load(window).await?;
        sampler.abort();
        // A load without anything to drain ends before the sampler's turn comes.
        let (before, after) = sampled.get();
        Ok((outcome, after.unwrap_or_else(thread_cpu) - before))
    })
}

fn sleep_until(deadline: Instant) {
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
