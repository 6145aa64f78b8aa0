//! The admin HTTP port that every role shares: health for probes, metrics for Prometheus.
//!
//! A program makes one [`Admin`] and hands clones to its roles. A role adds a [`Check`] before it
//! starts and its metrics to the registry; [`serve`] answers:
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 while restarting the process would not help, 503 otherwise |
//! | `/readyz` | 200 when every check is Ok, 503 before that and once shutdown began |
//! | `/startupz` | 200 when no check is Starting for the first time any more |
//! | `/config` | JSON: which configuration is in effect; 404 where nobody says |
//! | `/version` | JSON: `version`, `commit` (null when unknown), `rustc` |
//! | `/metrics` | OpenMetrics text |
//!
//! `?verbose` on the first three lists each check. The port answers whoever can reach it and
//! changes nothing.

#![forbid(unsafe_code)]

mod health;
mod process;
mod server;

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;

pub use health::{Check, Health, State};
pub use prometheus_client;
pub use server::serve;

/// What one process shows on its admin port. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Admin(Arc<Shared>);

struct Shared {
    registry: Mutex<Registry>,
    health: Health,
    restart: Mutex<Option<RestartQuestion>>,
    configuration: Mutex<Option<ConfigurationQuestion>>,
}

/// Answers why the process should not be restarted now; nothing: it may be.
type RestartQuestion = Box<dyn Fn() -> Vec<String> + Send>;

/// Says which configuration is in effect.
type ConfigurationQuestion = Box<dyn Fn() -> serde_json::Value + Send>;

impl Admin {
    /// An admin port with the metrics of the process and without checks. It is ready once there
    /// are checks and all of them are [`State::Ok`] or [`State::Degraded`].
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::ProcessCollector));
        Self(Arc::new(Shared {
            registry: Mutex::new(registry),
            health: Health::default(),
            restart: Mutex::default(),
            configuration: Mutex::default(),
        }))
    }

    /// Lets `add` register metrics and collectors. Collectors run while the registry is locked,
    /// so they must neither block nor use the registry.
    pub fn metrics<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.0.registry.lock())
    }

    /// Has `/safe-to-restart` answer by these reasons not to. They are asked for on the admin port's
    /// thread, so `ask` must not block. Without it a restart is always safe.
    pub fn ask_before_restart(&self, ask: impl Fn() -> Vec<String> + Send + 'static) {
        *self.0.restart.lock() = Some(Box::new(ask));
    }

    fn reasons_not_to_restart(&self) -> Vec<String> {
        self.0.restart.lock().as_ref().map_or_else(Vec::new, |ask| ask())
    }

    /// Has `/config` answer this; `ask` must not block. Without it there is no such page.
    pub fn show_configuration(&self, ask: impl Fn() -> serde_json::Value + Send + 'static) {
        *self.0.configuration.lock() = Some(Box::new(ask));
    }

    fn configuration(&self) -> Option<serde_json::Value> {
        self.0.configuration.lock().as_ref().map(|ask| ask())
    }

    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Adds a check that has to be Ok before the process is ready, for example `namesrv` or
    /// `broker/registered`. It begins as [`State::Starting`]. A second check of the same name
    /// takes the place of the first.
    pub fn check(&self, name: impl Into<String>) -> Check {
        self.0.health.add(name.into(), false)
    }

    /// As [`Admin::check`], but Failing also makes `/livez` fail: for what only a restart cures.
    pub fn liveness_check(&self, name: impl Into<String>) -> Check {
        self.0.health.add(name.into(), true)
    }

    /// Makes `/readyz` fail from now on. Called first at shutdown, before listeners close, so
    /// that whoever routes traffic here has time to stop.
    pub fn shutting_down(&self) {
        self.0.health.shut_down();
    }

    pub fn is_ready(&self) -> bool {
        self.0.health.is_ready()
    }

    /// Returns when the process is ready for the first time after this call.
    pub async fn wait_until_ready(&self) {
        self.0.health.wait_until_ready().await;
    }

    /// All metrics as OpenMetrics text.
    pub fn encode_metrics(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        let encoded = prometheus_client::encoding::text::encode(&mut text, &self.0.registry.lock());
        if let Err(error) = encoded {
            tracing::warn!(%error, "a metric could not be encoded");
        }
        text
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::new()
    }
}
