//! Whether clients can find this broker.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Whether clients can find this broker: one NameServer that knows it is enough.
pub(super) struct Registration {
    check: weirmq_admin::Check,
    by_name_server: Mutex<BTreeMap<String, Result<i64, String>>>,
    /// The version of the topic table that every NameServer knows at which this broker is
    /// registered.
    pub(super) known: watch::Sender<i64>,
}

impl Registration {
    pub(super) fn new(admin: &weirmq_admin::Admin) -> Self {
        Self {
            check: admin.check("broker/registered"),
            by_name_server: Mutex::default(),
            known: watch::Sender::new(0),
        }
    }

    pub(super) fn set(&self, name_server: &str, outcome: Result<i64, String>) {
        let mut all = self.by_name_server.lock();
        all.insert(name_server.to_owned(), outcome);
        self.judge(&all);
    }

    /// The others decide from now on.
    pub(super) fn forget(&self, name_server: &str) {
        let mut all = self.by_name_server.lock();
        if all.remove(name_server).is_some() && !all.is_empty() {
            self.judge(&all);
        }
    }

    fn judge(&self, all: &BTreeMap<String, Result<i64, String>>) {
        if let Some(known) = all.values().flatten().min() {
            self.known.send_replace(*known);
            self.check.ok();
        } else {
            let reasons = all.iter().filter_map(|(name_server, outcome)| {
                Some(format!("{name_server}: {}", outcome.as_ref().err()?))
            });
            self.check.failing(reasons.collect::<Vec<_>>().join("; "));
        }
    }
}
