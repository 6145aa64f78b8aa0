//! Named checks, and what they say about the process as a whole.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// How a part of the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has not worked yet.
    Starting,
    Ok,
    /// It works, but not all of it, and why. Probes pass: taking the process out of service would
    /// only make it worse.
    Degraded(String),
    /// It does not work, and why, in words for an operator.
    Failing(String),
}

impl State {
    fn is_working(&self) -> bool {
        match self {
            Self::Ok | Self::Degraded(_) => true,
            Self::Starting | Self::Failing(_) => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Ok => f.write_str("ok"),
            Self::Degraded(reason) => write!(f, "degraded: {reason}"),
            Self::Failing(reason) => write!(f, "failing: {reason}"),
        }
    }
}

/// All checks of a process.
#[derive(Default)]
pub struct Health {
    table: Arc<Table>,
}

#[derive(Default)]
struct Table {
    checks: Mutex<Checks>,
    /// Whether the process is ready; follows `checks` and is set under its lock.
    ready: watch::Sender<bool>,
}

#[derive(Default)]
struct Checks {
    by_name: BTreeMap<String, Entry>,
    is_shutting_down: bool,
}

struct Entry {
    state: State,
    /// It has been Ok or Failing once.
    has_started: bool,
    /// Failing means that only a restart helps.
    is_fatal: bool,
}

/// The handle by which a part of the process says how it is. Clones are the same check.
#[derive(Clone)]
pub struct Check {
    name: Arc<str>,
    table: Arc<Table>,
}

impl Check {
    pub fn starting(&self) {
        self.set(State::Starting);
    }

    pub fn ok(&self) {
        self.set(State::Ok);
    }

    pub fn degraded(&self, reason: impl Into<String>) {
        self.set(State::Degraded(reason.into()));
    }

    pub fn failing(&self, reason: impl Into<String>) {
        self.set(State::Failing(reason.into()));
    }

    pub fn set(&self, state: State) {
        self.table.change(|checks| {
            if let Some(entry) = checks.by_name.get_mut(&*self.name) {
                entry.has_started |= state != State::Starting;
                entry.state = state;
            }
        });
    }

    /// Takes the check away, for a part that has ended for good.
    pub fn remove(&self) {
        self.table.change(|checks| {
            checks.by_name.remove(&*self.name);
        });
    }
}

/// What a probe is answered.
pub(crate) struct Verdict {
    pub(crate) passed: bool,
    /// One line a check that matters, `[+]name ok` or `[-]name failing: why`, and a last line.
    pub(crate) details: String,
    /// The last line alone: what is wrong, or that nothing is.
    pub(crate) summary: String,
}

impl Health {
    pub(crate) fn add(&self, name: String, is_fatal: bool) -> Check {
        let handle = Check { name: Arc::from(name.as_str()), table: self.table.clone() };
        let entry = Entry { state: State::Starting, has_started: false, is_fatal };
        self.table.change(|checks| {
            checks.by_name.insert(name, entry);
        });
        handle
    }

    pub(crate) fn shut_down(&self) {
        self.table.change(|checks| checks.is_shutting_down = true);
    }

    /// The state of the check `name`; `None` when there is no such check.
    pub fn state(&self, name: &str) -> Option<State> {
        self.table.checks.lock().by_name.get(name).map(|entry| entry.state.clone())
    }

    pub fn is_ready(&self) -> bool {
        *self.table.ready.borrow()
    }

    pub(crate) async fn wait_until_ready(&self) {
        let mut ready = self.table.ready.subscribe();
        // An error means that the sender is gone, which `self` rules out.
        let _ = ready.wait_for(|is_ready| *is_ready).await;
    }

    pub(crate) fn readiness(&self) -> Verdict {
        let checks = self.table.checks.lock();
        let special = if checks.is_shutting_down {
            Some("shutting down")
        } else if checks.by_name.is_empty() {
            Some("nothing has started yet")
        } else {
            None
        };
        verdict("readyz", special, &checks, |_| true, |entry| entry.state.is_working())
    }

    pub(crate) fn startup(&self) -> Verdict {
        let checks = self.table.checks.lock();
        let special = checks.by_name.is_empty().then_some("nothing has started yet");
        verdict("startupz", special, &checks, |_| true, |entry| entry.has_started)
    }

    pub(crate) fn liveness(&self) -> Verdict {
        let passes = |entry: &Entry| !matches!(entry.state, State::Failing(_));
        verdict("livez", None, &self.table.checks.lock(), |entry| entry.is_fatal, passes)
    }
}

impl Table {
    fn change(&self, change: impl FnOnce(&mut Checks)) {
        let mut checks = self.checks.lock();
        change(&mut checks);
        let all_ok = checks.by_name.values().all(|entry| entry.state.is_working());
        let is_ready = all_ok && !checks.by_name.is_empty() && !checks.is_shutting_down;
        self.ready.send_if_modified(|ready| std::mem::replace(ready, is_ready) != is_ready);
    }
}

fn verdict(
    probe: &str,
    special: Option<&str>,
    checks: &Checks,
    matters: impl Fn(&Entry) -> bool,
    passes: impl Fn(&Entry) -> bool,
) -> Verdict {
    let mut details = String::new();
    let mut degraded = String::new();
    let mut wrong: Vec<String> = special.map(str::to_owned).into_iter().collect();
    for (name, entry) in checks.by_name.iter().filter(|(_, entry)| matters(entry)) {
        let passed = passes(entry);
        let sign = if passed { '+' } else { '-' };
        // Writing to a String cannot fail.
        let _ = writeln!(details, "[{sign}]{name} {}", entry.state);
        if matches!(entry.state, State::Degraded(_)) {
            let _ = write!(degraded, "; {name} {}", entry.state);
        }
        if !passed {
            wrong.push(format!("{name} {}", entry.state));
        }
    }
    let passed = wrong.is_empty();
    let summary = if passed {
        format!("{probe} check passed{degraded}\n")
    } else {
        format!("{probe} check failed: {}\n", wrong.join("; "))
    };
    details.push_str(&summary);
    Verdict { passed, details, summary }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_degraded_passes_and_says_so() {
        let health = Health::default();
        let check = health.add("broker/log".to_owned(), false);
        check.degraded("16384 bytes are damaged");
        let verdict = health.readiness();
        assert!(verdict.passed && health.is_ready() && health.startup().passed);
        let text = "readyz check passed; broker/log degraded: 16384 bytes are damaged\n";
        assert_eq!(verdict.summary, text);
        assert!(verdict.details.starts_with("[+]broker/log degraded: "));
    }

    #[test]
    fn ready_means_that_all_checks_are_ok_and_none_that_there_are_none() {
        let health = Health::default();
        assert!(!health.readiness().passed && !health.startup().passed);
        assert!(health.liveness().passed);
        let disk = health.add("store/disk".into(), false);
        let recovered = health.add("broker/recovered".into(), false);
        disk.ok();
        assert!(!health.is_ready() && !health.startup().passed);
        recovered.ok();
        assert!(health.is_ready() && health.readiness().passed && health.startup().passed);
        disk.failing("92 % full");
        let verdict = health.readiness();
        assert!(!verdict.passed && !health.is_ready());
        assert_eq!(verdict.summary, "readyz check failed: store/disk failing: 92 % full\n");
        assert!(verdict.details.contains("[+]broker/recovered ok\n[-]store/disk failing"));
        assert!(health.startup().passed, "what has started once stays started");
        assert!(health.liveness().passed, "a full disk is not cured by a restart");
        disk.remove();
        assert!(health.is_ready());
    }

    #[test]
    fn only_a_fatal_check_fails_liveness() {
        let health = Health::default();
        let log = health.add("store/log".into(), true);
        assert!(health.liveness().passed);
        log.failing("write-back failed");
        assert!(health.liveness().summary.contains("store/log failing: write-back failed"));
    }

    #[tokio::test]
    async fn waiting_ends_with_readiness_and_shutdown_takes_it_away() {
        let health = Health::default();
        let check = health.add("namesrv".into(), false);
        let (done, ()) = tokio::join!(health.wait_until_ready(), async { check.ok() });
        let () = done;
        health.shut_down();
        assert!(!health.is_ready());
        assert_eq!(health.readiness().summary, "readyz check failed: shutting down\n");
        assert!(health.startup().passed && health.liveness().passed);
    }
}
