//! Hints that an object may have changed.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;
use uuid::Uuid;

use super::api::{Api, Object};

/// After this long the API server ends a watch, and another one begins.
const WATCH_SECONDS: u64 = 240;

/// The pause before a watch that failed is begun again; doubles up to the second one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A watch that lasted this long did not fail.
const LASTS: Duration = Duration::from_secs(5);

/// At most one hint in this time comes from one object.
const HINT_EVERY: Duration = Duration::from_millis(20);

/// Watches an object until it is dropped.
///
/// What the API server tells of a change is not even looked at, since only a read is linearizable.
/// So nothing that a watch can miss, repeat or invent does harm, and there is no position to lose:
/// each watch begins at the newest version, which gives one hint.
pub struct Watch {
    hints: watch::Receiver<u64>,
    _watching: JoinSet<()>,
}

impl Watch {
    pub(super) fn of(api: &Api, object: Object) -> Self {
        let (sender, hints) = watch::channel(0);
        let mut watching = JoinSet::new();
        watching.spawn(watch_object(api.clone(), object, sender));
        Self { hints, _watching: watching }
    }

    /// Waits for the next hint; those since the last call count as one. Safe to drop and call again.
    pub async fn changed(&mut self) {
        if self.hints.changed().await.is_err() {
            // The task ends with this struct only, but nobody may be made to spin by a mistake.
            std::future::pending::<()>().await;
        }
    }
}

async fn watch_object(api: Api, object: Object, hints: watch::Sender<u64>) {
    let mut pause = PAUSES.0;
    loop {
        let begun = Instant::now();
        watch_once(&api, &object, &hints).await;
        pause = if begun.elapsed() >= LASTS { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
        // So that the replicas of all groups do not come back at the same moment.
        let jitter = f64::from(Uuid::new_v4().as_bytes()[0]) / 512.0;
        sleep(pause.mul_f64(0.5 + jitter)).await;
    }
}

async fn watch_once(api: &Api, object: &Object, hints: &watch::Sender<u64>) {
    let mut body = match api.watch(object, WATCH_SECONDS).await {
        Ok(response) => response.into_body(),
        Err(error) => {
            debug!(%error, "cannot watch");
            return;
        }
    };
    // A connection that is cut without a word is given up when the watch should have ended.
    let until = Instant::now() + Duration::from_secs(WATCH_SECONDS) + api.request_timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match timeout(left, body.frame()).await {
            Ok(Some(Ok(_))) => hints.send_modify(|count| *count = count.wrapping_add(1)),
            Ok(Some(Err(error))) => return debug!(%object, %error, "a watch was cut"),
            Ok(None) | Err(_) => return,
        }
        sleep(HINT_EVERY).await;
    }
}
