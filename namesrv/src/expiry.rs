//! Forgets brokers that fell silent.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::server::NameServer;

/// Sleeps until the earliest deadline of a broker, and for ever while there is none.
pub(crate) async fn run(server: Arc<NameServer>, shutdown: CancellationToken) {
    loop {
        let now = Instant::now();
        let (gone, next) = {
            let mut routes = server.routes.write();
            (routes.expire(now), routes.next_deadline())
        };
        server.metrics.brokers_expired(gone.len());
        server.log_gone(&gone, "nothing was heard from it");
        // As Apache: a broker that is alive after all notices by this, and registers again.
        server.close_connections(&gone);
        let wake_up = next.map(|next| next.max(now + server.config.scan_interval()));
        let deadline = async {
            match wake_up {
                Some(wake_up) => sleep_until(wake_up).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = deadline => {}
            () = server.deadline_changed.notified() => {}
        }
    }
}
