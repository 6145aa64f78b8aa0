//! The signals that ask for the end.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, from the moment of [`Signals::install`] on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// SIGHUP, where the end of a terminal asks for the end as well.
    hang_up: Option<Signal>,
}

impl Signals {
    pub(crate) fn install() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        Ok(Self { terminate, interrupt, hang_up: None })
    }

    /// Also SIGHUP: for a command that has to put something right before it ends. A server leaves it as it is, or
    /// `nohup` would mean nothing.
    pub(crate) fn install_with_hang_up() -> anyhow::Result<Self> {
        let hang_up = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
        Ok(Self { hang_up: Some(hang_up), ..Self::install()? })
    }

    /// Returns at the next of them.
    pub(crate) async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => _ = hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = hang_up => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_terminal_asks_for_the_end() {
        let mut signals = Signals::install_with_hang_up().unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        tokio::time::timeout(Duration::from_secs(30), signals.next()).await.unwrap();
    }
}
