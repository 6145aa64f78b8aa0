//! A disk that takes nothing and gives no error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weirmq_admin::Check;

use crate::Broker;

/// Looks whether what was written reaches the disk. Where nothing has for the length of a lease it says so
/// in the log and as `broker/disk`, and has a master give its office up: others do better. Clients whose
/// messages are acknowledged without the disk are served on until then, and readers after it.
///
/// For the control runtime, which waits for no disk.
pub(crate) async fn watch(broker: Arc<Broker>, check: Check) {
    check.ok();
    let patience = Duration::from_millis(broker.config().replication.lease_ms);
    let mut stuck: Option<(u64, Instant)> = None;
    let mut told: Option<Instant> = None;
    loop {
        tokio::time::sleep(patience / 10).await;
        let (flushed, is_waiting) =
            (broker.store.watermarks().flushed(), broker.store.waits_for_disk());
        match stuck {
            Some((at, since)) if at == flushed && is_waiting => {
                if since.elapsed() < patience || told.is_some_and(|at| at.elapsed() < patience) {
                    continue;
                }
                let why =
                    format!("the disk has taken nothing for {} ms", since.elapsed().as_millis());
                tracing::error!(why, "the disk stalls");
                check.degraded(&why);
                told = Some(Instant::now());
                if let Some(replication) = &broker.replication {
                    // Again after each lease: it may have become master meanwhile.
                    replication.resign(why).await;
                }
            }
            _ => {
                if told.take().is_some() {
                    tracing::info!("the disk takes what is written again");
                    check.ok();
                }
                stuck = is_waiting.then(|| (flushed, Instant::now()));
            }
        }
    }
}
